"What README tells people to type runs, and no warning of a dependency reaches their screen"

import os, re, shlex, subprocess, sys
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
SNIPPETS = [
    text for kind, text in BLOCKS if kind == 'python' and not any(f in text for f in FETCHES)
]
# the same commands, as short as they can be
SHORT = dict(
    demo='--images 16', train='--size 64 --epochs 1 --frozen-epochs 0 --max-steps 1 --no-plots'
)
START = 'from ssd_tutorial.entry import start; start()'


def run(code, *args, cwd):
    "What reaches stderr, with Python's own filters of warnings"
    mine = ('PYTHONWARNINGS', 'MPLBACKEND')
    env = {k: v for k, v in os.environ.items() if k not in mine} | {'PYTHONPATH': str(ROOT)}
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


def film(path):
    "Four frames of a cat"
    av = pytest.importorskip('av')
    with av.open(str(path), 'w') as c:
        stream = c.add_stream('libx264', rate=4)
        stream.width, stream.height, stream.pix_fmt = 448, 300, 'yuv420p'
        picture = Image.open(path.parent / 'holiday.jpg').crop((0, 0, 448, 300))
        for _ in range(4):
            c.mux(stream.encode(av.VideoFrame.from_image(picture)))
        c.mux(stream.encode())


def test_readme_has_commands():
    verbs = {c.split()[1] for c in COMMANDS}
    assert {'demo', 'predict', 'doctor', 'train', 'evaluate', 'video'} <= verbs
    assert len(SNIPPETS) >= 4


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_no_warning_of_a_command(command, home):
    "In README's order: what one writes, a later one reads"
    _, verb, *args = shlex.split(command)
    if verb == 'video':
        film(home / 'dance.mp4')
    said = run(START, verb, *args, *SHORT.get(verb, '').split(), cwd=home)
    assert 'warn' not in said.lower(), said


@pytest.mark.slow
def test_no_warning_in_python(home):
    "All snippets one after another, as in one notebook; the training is one step long"
    code = '\n'.join(SNIPPETS).replace(
        'TrainConfig(frozen_epochs=12', 'TrainConfig(frozen_epochs=1'
    )
    assert code != '\n'.join(SNIPPETS)
    said = run(code.replace('TrainConfig(', 'TrainConfig(max_steps=1, '), cwd=home)
    assert 'warn' not in said.lower(), said
