#!/usr/bin/env python3
"""Run notebooks in place, as their author does before a commit.

python tools/run.py 08          lesson 08 (solutions/08: its solution); outputs are written into it
python tools/run.py 08 --slow   its slow cells, too, which else keep the outputs that they have
python tools/run.py --pictures  all lessons, for the pictures at their top; notebooks stay the same
"""

import argparse, os, re, sys, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NBS, SLOW = ROOT / 'nbs', re.compile(r'^#\|\s*(slow|eval:\s*false)', re.M)
WIDGET = 'application/vnd.jupyter.widget-view+json'
os.environ.pop('MPLBACKEND', None)  # of the shell: figures belong into the notebook


def found(name):
    "Notebooks whose path below nbs/ begins with a name"
    paths = sorted([*NBS.glob('*.ipynb'), *(NBS / 'solutions').glob('*.ipynb')])
    names = {p: p.relative_to(NBS).as_posix() for p in paths}
    whole = [p for p, n in names.items() if n == f'{name}.ipynb']  # 00_detect is not 00_detections
    return (
        whole
        or [p for p, n in names.items() if n.startswith(name)]
        or sys.exit(f'No notebook in nbs/ begins with {name}')
    )


def is_bar(output):
    "Whether an output is a progress bar, of which only a full one is left; sliders stay"
    data = output.get('data', {})
    return WIDGET in data and '%|' in ''.join(data.get('text/plain', ''))


def run(path, slow=False, write=True):
    "Execute one notebook in its folder"
    nb, kept, start = nbformat.read(path, as_version=4), {}, time.time()
    for c in nb.cells:
        if c.cell_type == 'code' and SLOW.search(c.source) and not slow:
            kept[c.id] = c.source, c.outputs
            c.source = ''
    where = dict(metadata=dict(path=str(path.parent)))
    NotebookClient(nb, timeout=None, resources=where).execute()
    for c in nb.cells:
        if c.id in kept:
            c.source, c.outputs = kept[c.id]
        if c.cell_type != 'code':
            continue
        c.execution_count = None
        c.metadata.pop('execution', None)
        c.outputs = [o for o in c.outputs if not is_bar(o)]
        for o in c.outputs:
            if o.output_type == 'execute_result':
                o.execution_count = None
    if not any(WIDGET in o.get('data', {}) for c in nb.cells for o in c.get('outputs', [])):
        nb.metadata.pop('widgets', None)
    if write:
        nbformat.write(nb, path)
    print(f'{path.relative_to(NBS)}: {time.time() - start:.0f} s', flush=True)


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    p.add_argument('names', nargs='*', help='beginnings of names: 08, solutions/08')
    p.add_argument('--slow', action='store_true', help='run the slow cells, too')
    p.add_argument('--pictures', action='store_true', help='save the pictures at the top, no more')
    args = p.parse_args()
    if args.slow:
        os.environ['SSD_TUTORIAL_SLOW'] = '1'
    if args.pictures:
        os.environ['SSD_TUTORIAL_IMAGES'] = str(NBS / 'images')
    every = [q.name for q in sorted(NBS.glob('[0-9]*.ipynb'))]
    names = args.names or (every if args.pictures else p.error('which notebooks?'))
    for path in (q for n in names for q in found(n)):
        run(path, args.slow, not args.pictures)


if __name__ == '__main__':
    main()
