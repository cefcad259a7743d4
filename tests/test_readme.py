"What README tells people to type runs, and no warning of a dependency reaches their screen"

import re, shlex, shutil, subprocess, sys
from pathlib import Path

import pytest
from PIL import Image
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r'^```(\w*)\n(.*?)^```', (ROOT / 'README.md').read_text('utf-8'), re.M | re.S)
FETCHES = 'ssd300_vgg16', 'from_torchvision', 'pascal_2007'  # needs a network
COMMANDS = [
    line
    for kind, text in BLOCKS
    if not kind
    for line in re.split(r'\n|&&', text)
    if line.strip().startswith('ssd-tutorial ') and not any(f in line for f in FETCHES)
]
SNIPPETS = [text for kind, text in BLOCKS if kind == 'python' and not any(f in text for f in FETCHES)]
# the same commands, as short as they can be
SHORT = dict(
    demo='--images 8', train='--size 64 --epochs 1 --frozen-epochs 0 --max-steps 1 --no-plots'
)
START = 'from ssd_tutorial.entry import start; start()'
ENV_OFF = ('PYTHONWARNINGS', 'MPLBACKEND')


def run(code, *args, cwd):
    import os

    env = {k: v for k, v in os.environ.items() if k not in ENV_OFF}
    env['PYTHONPATH'] = str(ROOT)
    r = subprocess.run(
        [sys.executable, '-c', code, *args], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stderr


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A folder with what README's commands name"
    import skimage.data

    home = tmp_path_factory.mktemp('home')
    save_voc(generated_data('multiscale', 8, 4, size=64), home / 'my_photos')
    (home / 'more_photos').mkdir()
    for name in ('holiday.jpg', 'more_photos/a.jpg'):
        Image.fromarray(skimage.data.chelsea()).save(home / name)
    return home


def test_readme_has_commands():
    verbs = {c.split()[1] for c in COMMANDS}
    assert {'demo', 'predict', 'doctor', 'train', 'evaluate'} <= verbs
    assert len(SNIPPETS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_no_warning_of_a_command(command, home):
    _, verb, *args = shlex.split(command)
    if verb == 'video':
        pytest.importorskip('av')
        film(home / 'dance.mp4')
    if '--detector' in args and not (home / 'detector.pt').exists():
        shutil.copy(ROOT / 'ssd_tutorial' / 'weights' / 'animals.pt', home / 'detector.pt')
    if verb == 'evaluate':
        args[args.index('--detector') + 1] = trained(home)
    said = run(START, verb, *args, *SHORT.get(verb, '').split(), cwd=home)
    assert 'warn' not in said.lower(), said
