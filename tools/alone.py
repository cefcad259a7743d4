#!/usr/bin/env python3
"""Run lessons and solutions as a reader does who has only one of them.

A new virtual environment with the runtime requirements and Jupyter; one notebook, alone in an empty
folder, with an empty home; no data, no network, nothing blanked. Any error fails, and so does a
warning on the reader's screen.

python tools/alone.py                 all of them
python tools/alone.py 08_anchors solutions/08_anchors
python tools/alone.py --short         those that take seconds; --long: the others
python tools/alone.py --rotation 7    the short ones, and a seventh of the others: another each day
python tools/alone.py --here …        in this environment, which must have no developers' tools
python tools/alone.py --here --colab  first install the package as the first cell does in Colab
"""

import argparse, json, os, re, shutil, subprocess, sys, tempfile, time, venv
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / 'nbs'
NAME = re.compile(r'\d\d[a-z]?_\w+')
TOOLS = ('nbdev', 'pytest', 'hypothesis', 'pycocotools', 'tidecv')  # readers have none of them
LONG = (  # more than about 15 s on two cores
    '04_augment',
    '04b_presets',
    '05_body',
    '06_training',
    '06b_cache',
    '06c_checkpoints',
    '06d_detective',
    '06e_steps',
    '06f_rates',
    '07_largest',
    '08_anchors',
    '08b_coverage',
    '09_matching',
    '10_grid',
    '11_multiscale',
    '12_focal',
    '14_metrics',
    '14b_protocols',
    '15_detector',
    '15b_trainer',
    '15c_runs',
    '16_fpn',
    '17_mistakes',
    '17b_mistake_costs',
    '17c_operating_point',
    '18_pretrained',
    '19_ssd300',
    '19b_multibox',
    '19c_ssd_recipe',
    '19d_ported',
    '20_any_body',
    '20b_torchvision_bodies',
    '20c_own_anchors',
    '20e_fcos',
    '29_video',
    '20d_matchers',
    '22_from_a_detector',
    '24_torchvision_detectors',
    '31_page',
    '91_cli',
    '91d_commands',
    'solutions/05_body',
    'solutions/06_training',
    'solutions/07_largest',
    'solutions/15_detector',
    'solutions/17c_operating_point',
)
COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"
GUARD = '''
"Put first on the path: connections to other machines fail"
import socket

def _only_here(connect):
    def wrapped(self, address):
        if isinstance(address, tuple) and address[0] not in ('127.0.0.1', '::1', 'localhost'):
            raise OSError(f'no network here: {address}')
        return connect(self, address)
    return wrapped

socket.socket.connect = _only_here(socket.socket.connect)
socket.socket.connect_ex = _only_here(socket.socket.connect_ex)
'''


def names():
    "Every lesson, then every solution"
    found = sorted(p for p in NBS.glob('*.ipynb') if NAME.fullmatch(p.stem))
    found += sorted(p for p in (NBS / 'solutions').glob('*.ipynb') if NAME.fullmatch(p.stem))
    return [p.relative_to(NBS).with_suffix('').as_posix() for p in found]


def chosen(args):
    "The notebooks to run"
    every = names()
    if args.names:
        if lost := [n for n in args.names if n not in every]:
            sys.exit(f'No such notebook: {", ".join(lost)}. There are: {", ".join(every)}')
        return args.names
    short, long = [n for n in every if n not in LONG], [n for n in every if n in LONG]
    if args.short:
        return short
    if args.long:
        return long
    if args.rotation:
        return short + long[int(time.time() / 86400) % args.rotation :: args.rotation]
    return every


def python_of(folder):
    return folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')


def copy_of_all(folder):
    "The repository without what earlier builds have left in it"
    leave = ('.git', 'demo', 'data', 'build', '.venv*', '*.egg-info', '__pycache__')
    return shutil.copytree(ROOT, folder / 'copy', ignore=shutil.ignore_patterns(*leave))


def new_environment(folder):
    "A virtual environment with what readers have: the package, its requirements, and Jupyter"
    venv.create(folder / 'venv', with_pip=True)
    python = python_of(folder / 'venv')
    package = f'{copy_of_all(folder)}[notebooks]'
    subprocess.run([python, '-m', 'pip', 'install', '-q', package], check=True)
    return python


def bare(folder, **more):
    "Environment variables of a reader: an empty home, nothing of ours"
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith('SSD_TUTORIAL') and k not in ('IN_TEST', 'PYTHONPATH', 'MPLBACKEND')
    }
    home = str(folder)
    return env | dict(HOME=home, USERPROFILE=home, PYTHONDONTWRITEBYTECODE='1') | more


def lo_up():
    "Bring the loopback of a new network namespace up, for Jupyter talks over it"
    import fcntl, socket, struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        up = struct.pack('16sH14s', b'lo', 0x1 | 0x40, b'')  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(s, 0x8914, up)  # SIOCSIFFLAGS


def shut_off():
    "Command that starts a program without a network; empty: sockets must refuse instead"
    command = ['unshare', '--map-root-user', '--net']
    try:
        if subprocess.run([*command, 'true'], capture_output=True).returncode == 0:
            return command
    except OSError:
        pass
    return []


def execute(path, loopback):
    "Run one notebook in its folder (in a process of its own); what it wrote to stderr, as JSON"
    import nbformat
    from nbclient import NotebookClient

    if loopback:
        lo_up()
    nb = nbformat.read(path, as_version=4)
    where = dict(metadata=dict(path=str(path.parent)))
    NotebookClient(nb, timeout=3600, resources=where).execute()
    said = [o['text'] for c in nb.cells for o in c.get('outputs', []) if o.get('name') == 'stderr']
    print('\n' + json.dumps(dict(stderr=said)))


def run_alone(name, fonts, wall, threads):
    "Seconds, and what is wrong with one notebook; None: nothing"
    with tempfile.TemporaryDirectory() as folder:
        work, home = Path(folder) / 'work', Path(folder) / 'home'
        home.mkdir()
        guard = Path(folder) / 'guard'
        for f in (work, guard):
            f.mkdir()
        (guard / 'sitecustomize.py').write_text(GUARD)
        nb = shutil.copy(NBS / f'{name}.ipynb', work)
        env = bare(home, MPLCONFIGDIR=fonts)
        if threads:
            env['OMP_NUM_THREADS'] = threads
        if not wall:
            env['PYTHONPATH'] = str(guard)
        start = time.time()
        command = [*wall, sys.executable, __file__, '--execute', nb] + ['--loopback'] * bool(wall)
        r = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        seconds = time.time() - start
    if r.returncode:
        return seconds, f'{r.stdout[-500:]}{r.stderr[-3000:]}'
    told = json.loads(r.stdout.strip().splitlines()[-1])
    # a lesson may show one of our own
    ours = re.compile(r'^.*[/\\]ssd_tutorial[/\\]\w+\.py:\d+: UserWarning.*$', re.M)
    noise = [t for t in told['stderr'] if re.search(r'Warning\b', ours.sub('', t))]
    if noise:
        return seconds, 'a warning on the screen:\n' + '\n'.join(t[:500] for t in noise)
    return seconds, None


def colab():
    "The first cell as Colab runs it: it installs a zip, and says so where there is none"
    cells = json.loads((NBS / '00_show.ipynb').read_text(encoding='utf-8'))['cells']
    cell = next(s for c in cells if 'google.colab' in (s := ''.join(c['source'])))
    pip = [sys.executable, '-m', 'pip']
    with tempfile.TemporaryDirectory() as folder:
        copy_of_all(Path(folder))
        archive = shutil.make_archive(str(Path(folder) / 'ssd_tutorial'), 'zip', folder, 'copy')
        subprocess.run([*pip, 'uninstall', '-q', '-y', 'ssd_tutorial'], check=True)
        for source, fine in ((f'{folder}/nowhere.zip', False), (archive, True)):
            script = Path(folder) / 'cell.ipy'
            script.write_text(f'{COLAB}\n{cell}\n', encoding='utf-8')
            env = bare(folder, SSD_TUTORIAL_SOURCE=source)
            r = subprocess.run(
                [sys.executable, '-m', 'IPython', str(script)],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
            )
            text, wanted = r.stdout + r.stderr, 'a package' if fine else 'an error'
            loud = 'set SSD_TUTORIAL_SOURCE to a zip or a clone' in re.sub(r'\s+', ' ', text)
            if loud == fine:
                sys.exit(f'Colab, {source}: expected {wanted}:\n{text}')
        subprocess.run(
            [sys.executable, '-c', 'import ssd_tutorial.notebook'],
            check=True,
            cwd=folder,
            env=bare(folder),
        )
    print('Colab: the first cell installs from a zip, and says so where it cannot.', flush=True)


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    p.add_argument('names', nargs='*')
    for flag in ('short', 'long', 'all', 'here', 'colab', 'loopback'):
        p.add_argument(f'--{flag}', action='store_true')
    p.add_argument('--rotation', type=int)
    p.add_argument('--jobs', type=int, default=1, help='notebooks at a time, each with one thread')
    p.add_argument('--execute', type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.execute:
        return execute(args.execute, args.loopback)
    if not args.here:
        with tempfile.TemporaryDirectory() as folder:
            print('A new environment: the package, its requirements, Jupyter …', flush=True)
            python = new_environment(Path(folder))
            sys.exit(subprocess.run([python, __file__, '--here', *sys.argv[1:]]).returncode)
    if tools := [t for t in TOOLS if find_spec(t)]:
        sys.exit(f'Readers have no {", ".join(tools)}, and this environment has: leave out --here.')
    if args.colab:
        colab()
    todo, wall, faults = chosen(args), shut_off(), {}
    how, threads = 'its own namespace' if wall else 'sockets refuse', '1' if args.jobs > 1 else ''
    print(f'{len(todo)} notebooks, each alone in an empty folder; no network ({how})', flush=True)
    with tempfile.TemporaryDirectory() as fonts, ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(lambda name: run_alone(name, fonts, wall, threads), todo)
        for name, (seconds, fault) in zip(todo, results):
            print(f'{name:<28}{seconds:5.0f} s{"" if fault is None else "  FAILED"}', flush=True)
            if fault is not None:
                faults[name] = fault
                print('    ' + fault.strip().replace('\n', '\n    '), flush=True)
    if faults:
        print('failed:', ' '.join(faults))
    print(f'\n{len(todo) - len(faults)} passed, {len(faults)} failed')
    sys.exit(bool(faults))


if __name__ == '__main__':
    main()
