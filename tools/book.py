#!/usr/bin/env python3
"""Keep what is derived in step with its source.

python tools/book.py            rewrite the lesson table and the figures of nbs/index.ipynb,
                                README.md, badges and links; the plumbing of every lesson and
                                solution (the cell that installs and sets up, absolute links and
                                pictures, hidden cells collapsed), ssd_tutorial/kept.json, and the
                                stubs of modules that a lesson exports beside its own
python tools/book.py --check    only say what would change; exit 1 if anything would
python tools/book.py --owner X  make X the GitHub owner (settings.ini), then rewrite everything
"""

import argparse, configparser, hashlib, json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / 'nbs'
TABLE = re.compile(r'(<!-- lessons -->\n).*?(\n<!-- /lessons -->)', re.S)
BOARD = re.compile(r'(<!-- scoreboard -->\n).*?(\n<!-- /scoreboard -->)', re.S)
EIGHT = re.compile(r'(<!-- eight -->\n).*?(<!-- /eight -->)', re.S)
CARD = re.compile(r'<!-- card -->.*?<!-- /card -->', re.S)
LINK = re.compile(
    r'(github\.com/|colab\.research\.google\.com/github/|raw\.githubusercontent\.com/)'
    r'[\w.-]+/ssd_tutorial\b'
)
NAME = re.compile(r'\d\d[a-z]?_\w+\.ipynb')
# a link or a picture beside the notebook
HERE = re.compile(r'\]\((?!https?:|#|mailto:)([^)#\s]+)([^)]*)\)')
HIDE, SLOW = re.compile(r'^#\|\s*hide\b', re.M), re.compile(r'^#\|\s*slow\b', re.M)
COLLAPSED = {'cellView': 'form', 'jupyter': {'source_hidden': True}}  # Colab's word and Jupyter's
# of ssd_tutorial.notebook, imported where a code cell uses them
PLUMBING = {
    'IN_TEST': r'(?<![\'"\w])IN_TEST(?![\'"\w])',
    'long_run': r'\blong_run\(',
    'photographs': r'\bphotographs\(',
    'save_cover': r'\bsave_cover\(',
}
# lessons that need extras of settings.ini, which the package alone does not bring
EXTRA = {'29': 'video', '29b': 'video', '29c': 'video', '30': 'export', '30b': 'export'}
EXTRA |= {'30c': 'export', '31': 'app video'}
NOT_RUN = 'Not run here: '  # how `long_run` and `photographs` begin; a kept output never does
SET_UP = """#| hide
# In Colab: install the package, from where README says. Everywhere: light figures, few warnings.
import os, sys
if 'google.colab' in sys.modules:
    home = 'git+https://github.com/{owner}/ssd_tutorial'
    source = os.environ.get('SSD_TUTORIAL_SOURCE', home)
    %pip install -q "{{source}}"{extra}
try:
    from ssd_tutorial.notebook import {names}
except ImportError as e:
    raise ImportError(f'{{e}}: install ssd_tutorial as its README says; in Colab, set '
                      'SSD_TUTORIAL_SOURCE to a zip or a clone of it') from e
{call}"""


def settings():
    config = configparser.ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def load(path):
    return json.loads(path.read_text(encoding='utf-8'))


def dump(nb):
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n'


def source(cell):
    return ''.join(cell['source'])


def lessons():
    return sorted(p for p in NBS.glob('*.ipynb') if NAME.fullmatch(p.name))


def solutions():
    return sorted(p for p in (NBS / 'solutions').glob('*.ipynb') if NAME.fullmatch(p.name))


def number(path):
    return path.name.partition('_')[0]


def is_code(cell):
    return cell['cell_type'] == 'code'


def row(path, owner):
    "One line of the lesson table, from the first two cells of a lesson"
    cells = load(path)['cells']
    first = source(cells[0])
    title, promise = (
        re.search(r'^# (.+)$', first, re.M).group(1),
        re.search(r'^> (.+)$', first, re.M).group(1),
    )
    minutes = re.search(r'\*\*Runs in\*\* (.+?)(?: on | \(|\.?\s*$)', source(cells[1]), re.M)
    colab = 'https://colab.research.google.com'
    page = f'{owner}/ssd_tutorial/blob/main/nbs/{path.name}'
    badge = f'[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{page})'
    link, runs = f'[{title}](https://github.com/{page})', minutes.group(1) if minutes else '—'
    return f'| {number(path)} | {link} | {promise} | {runs} | {badge} |'


def lesson_table(owner):
    head = '| | lesson | what you can do at the end | runs in (2 cores) | |\n|---|---|---|---|---|'
    return '\n'.join([head, *(row(p, owner) for p in lessons())])


def board_table():
    "The scoreboard of `benchmarks/scoreboard.py`, the rows that are steps and ran from three seeds"
    rows = load(ROOT / 'ssd_tutorial' / 'scoreboard.json')['generated']['rows'].values()
    out = [
        '| lesson | detector | mAP50 | mAP | AP, small objects | recall in crowds |',
        '|---|---|---|---|---|---|',
    ]
    for r in (r for r in rows if r['bar'] and len(r['seeds']) >= 3):
        cells = [
            f"{r['mean'][k]:.3f} ± {r['deviation'][k]:.3f}"
            for k in ('map50', 'map', 'small', 'crowd')
        ]
        out.append(f"| {r['lesson']} | {r['title']} | {' | '.join(cells)} |")
    return '\n'.join(out)


def kept_table(nb, cell):
    "The table that a cell of a lesson has made"
    outputs = next(c['outputs'] for c in nb['cells'] if c['id'] == cell)
    tables = [''.join(o['data'].get('text/markdown', '')) for o in outputs if 'data' in o]
    return '\n\n'.join(filter(None, tables))


def card_line():
    "How good the detector is that the package carries, at home and away, in two sentences"
    card = load(ROOT / 'ssd_tutorial' / 'weights' / 'animals.json')
    away, home = card['elsewhere'], card['figures']
    if not away:
        return ''
    alarms = away['alarms'][format(away['score'], '.2f')]
    return (
        'On held-out photographs of the collection that it learnt from, its recipe reaches '
        f'mAP50 {home["map50"]:.2f}; on {away["images"] - away["without"]} pictures of another '
        f'(COCO, {away["objects"]} animals) {away["map50"]:.2f}, and of {away["without"]} pictures '
        f'with none of the five it sees something in {alarms}.'
    )


def set_up_cell(path, cells, owner):
    """The cell that installs the package in Colab and sets up figures everywhere;
    what it imports is what the others use."""
    old = next(
        (c for c in cells if is_code(c) and 'google.colab' in source(c) and HIDE.search(source(c))),
        None,
    )
    call = re.search(r'^set_up\(.*\)$', source(old), re.M) if old else None
    code = '\n'.join(source(c) for c in cells if is_code(c) and c is not old)
    names = (
        [] if number(path) == '99' else [n for n, use in PLUMBING.items() if re.search(use, code)]
    )
    extras = EXTRA.get(number(path), '').split()
    packages = ' '.join(settings()[f'{e}_requirements'] for e in extras).split()
    text = SET_UP.format(
        owner=owner,
        names=', '.join([*names, 'set_up']),
        call=call.group() if call else 'set_up()',
        extra=''.join(f' "{p}"' for p in packages),
    )
    fresh = hashlib.sha256(f'set up {path.parent.name}/{path.name}'.encode()).hexdigest()[:8]
    new = dict(cell_type='code', execution_count=None, id=fresh, metadata={}, outputs=[], source=[])
    if old is None:
        old, exp = (
            new,
            [
                i
                for i, c in enumerate(cells)
                if is_code(c) and source(c).startswith('#| default_exp')
            ],
        )
        cells.insert(exp[0] + 1 if exp else 1, old)
    old['source'] = text.splitlines(keepends=True)


def absolute(text, folder, owner, branch='main'):
    "Links and pictures that stand beside a notebook, as addresses that work wherever it is opened"

    def address(m):
        where = (folder / m.group(1)).resolve()
        if not where.exists() or ROOT not in where.parents:
            return m.group()
        where = where.relative_to(ROOT).as_posix()
        raw = f'https://raw.githubusercontent.com/{owner}/ssd_tutorial/{branch}/{where}'
        if where.endswith('.svg'):
            raw += '?sanitize=true'  # or it is served as text
        kind = 'blob' if '.' in where else 'tree'
        page = f'https://github.com/{owner}/ssd_tutorial/{kind}/{branch}/{where}'
        return f']({raw if where.endswith((".png", ".svg")) else page}{m.group(2)})'

    return HERE.sub(address, text)


def plumb(path, nb, owner):
    """One lesson or solution: the cell that sets up, links that work anywhere,
    hidden cells collapsed, no export at the end."""
    threads = re.compile(
        r'^#\| hide\n# under test two notebooks run side by side: one thread each\n'
        r'.*\n.*\.set_num_threads\(1\)\s*$'
    )
    gone = lambda c: (
        is_code(c) and ('nbdev.nbdev_export()' in source(c) or threads.match(source(c)))
    )
    nb['cells'] = cells = [c for c in nb['cells'] if not gone(c)]
    set_up_cell(path, cells, owner)
    for c in cells:
        if is_code(c):
            c['metadata'] = {k: v for k, v in c['metadata'].items() if k not in COLLAPSED}
            if HIDE.search(source(c)):
                c['metadata'].update(COLLAPSED)
        else:
            c['source'] = absolute(source(c), path.parent, owner).splitlines(keepends=True)


def kept(notebooks):
    "Outputs of the slow cells, by the cell's id: what a reader is shown who does not run them"
    text = lambda v: ''.join(v) if isinstance(v, list) and all(isinstance(x, str) for x in v) else v
    out = {}
    for path, nb in notebooks.items():
        for c in nb['cells']:
            if not is_code(c) or not SLOW.search(source(c)) or not c['outputs']:
                continue
            shows = [
                text(o['text'])
                if o['output_type'] == 'stream'
                else {k: text(v) for k, v in o['data'].items()}
                for o in c['outputs']
                if o.get('name') != 'stderr' and o['output_type'] != 'error'
            ]
            joined = []
            for o in shows:
                if isinstance(o, str) and joined and isinstance(joined[-1], str):
                    joined[-1] += o
                else:
                    joined.append(o)
            if c['id'] in out:
                sys.exit(f'{path.name}: two cells have the id {c["id"]}')
            if any(isinstance(o, str) and NOT_RUN in o for o in joined):
                sys.exit(
                    f'{path.name}: cell {c["id"]} is slow, '
                    'and its output was made where it did not run'
                )
            if joined:
                out[c['id']] = joined
    return json.dumps(out, indent=1, ensure_ascii=False, sort_keys=True) + '\n'


MODULE = re.compile(r'^#\|\s*export\s+(\w+)\s*\n(?:#\s*(.+))?', re.M)


def modules():
    """path → stub, for every module that a lesson exports beside its own

    nbdev appends cells with `#| export name` to a module that another notebook has begun. So each
    such module begins with a stub, which sorts before all lessons. What the module is for stands in
    the lesson, as a comment in its first cell.
    """
    out = {}
    for p in lessons():
        for name, promise in (
            m.groups() for c in load(p)['cells'] if is_code(c) for m in MODULE.finditer(source(c))
        ):
            path = NBS / 'modules' / f'000_{name}.ipynb'
            if path in out:
                continue
            if not promise:
                sys.exit(
                    f'{p.name}: the first cell with "#| export {name}" should say in a comment, '
                    'below it, what the module is for'
                )
            where = (
                f'# Written in lesson {number(p)}, in the cells that begin with "#| export {name}".'
            )
            cells = [
                (False, f'# {name}\n\n> {promise}'),
                (True, f'#| default_exp {name}'),
                (True, f'#| export\n{where}'),
            ]
            out[path] = dump(
                dict(
                    cells=[stub_cell(name, *c) for c in cells],
                    nbformat=4,
                    nbformat_minor=5,
                    metadata=dict(
                        kernelspec=dict(display_name='python3', language='python', name='python3')
                    ),
                )
            )
    return out


def stub_cell(name, code, text):
    cell = dict(
        cell_type='code' if code else 'markdown',
        metadata={},
        source=text.splitlines(keepends=True),
        id=hashlib.sha256(f'{name} {text}'.encode()).hexdigest()[:8],
    )
    return {**cell, 'execution_count': None, 'outputs': []} if code else cell


def rewritten(owner):
    "path → text, for every file that holds something derived"
    out, notebooks = {}, {}
    for p in [*lessons(), *solutions(), NBS / 'index.ipynb']:
        nb = notebooks[p] = load(p)
        if p.name != 'index.ipynb':
            plumb(p, nb, owner)
        for c in nb['cells']:
            text = LINK.sub(rf'\g<1>{owner}/ssd_tutorial', source(c))
            if p.name == 'index.ipynb':
                text = BOARD.sub(lambda m: m.group(1) + board_table() + m.group(2), text)
                eight = kept_table(notebooks[NBS / '30b_int8.ipynb'], '30b0002a')
                text = EIGHT.sub(lambda m, t=eight: f'{m.group(1)}{t}\n{m.group(2)}', text)
                text = CARD.sub(
                    lambda m: f'<!-- card --> {card_line()} <!-- /card -->',
                    TABLE.sub(lambda m: m.group(1) + lesson_table(owner) + m.group(2), text),
                )
            if text != source(c):
                c['source'] = text.splitlines(keepends=True)
        out[p] = dump(nb)
    out[ROOT / 'ssd_tutorial' / 'kept.json'] = kept(
        {p: nb for p, nb in notebooks.items() if p.name != 'index.ipynb'}
    )
    index = json.loads(out[NBS / 'index.ipynb'])
    out[ROOT / 'README.md'] = readme(index, owner)
    for p in (ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md'):
        if p.is_file():
            out[p] = LINK.sub(rf'\g<1>{owner}/ssd_tutorial', p.read_text(encoding='utf-8'))
    return {**out, **modules()}


def readme(index, owner):
    "README.md from the index notebook: its Markdown, and the code that is not hidden"
    parts = ['<!-- Generated from nbs/index.ipynb by tools/book.py: edit that -->']
    for c in index['cells']:
        text = source(c)
        if c['cell_type'] == 'markdown':
            parts.append(text)
        elif text.strip() and not re.search(r'^#\|\s*hide', text, re.M):
            # directives speak to nbdev, not to readers
            parts.append('```python\n' + re.sub(r'^#\|.*\n', '', text, flags=re.M) + '\n```')
    text = '\n\n'.join(parts) + '\n'
    return re.sub(
        r'\]\((?!https?:|#)([^)]+)\)',
        lambda m: (
            f'](nbs/{m.group(1)})' if (NBS / m.group(1).split('#')[0]).exists() else m.group(0)
        ),
        text,
    )


def set_owner(owner):
    path = ROOT / 'settings.ini'
    path.write_text(
        re.sub(r'^user = .*$', f'user = {owner}', path.read_text(encoding='utf-8'), flags=re.M),
        encoding='utf-8',
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--owner')
    args = parser.parse_args()
    if args.owner:
        set_owner(args.owner)
    fresh = rewritten(settings()['user'])
    stale = {
        p: text
        for p, text in fresh.items()
        if not p.is_file() or p.read_text(encoding='utf-8') != text
    }
    left_over = set((NBS / 'modules').glob('*.ipynb')) - fresh.keys()
    stale |= {p: None for p in left_over}
    for p in stale:
        did = 'stale' if args.check else 'wrote' if p not in left_over else 'removed'
        print(f'{did}: {p.relative_to(ROOT)}')
    if args.check:
        if stale:
            sys.exit('Run: python tools/book.py')
        return
    for p, text in stale.items():
        p.parent.mkdir(exist_ok=True)
        if text is None:
            p.unlink()
        else:
            p.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
