"""The detector that comes with the package:
there, small, honest about itself, and at work without a network."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.detector import Detector
from ssd_tutorial.saved import shipped
from ssd_tutorial.pretrained import LARGEST, check_card, read_card

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / 'ssd_tutorial' / 'weights'


@pytest.fixture(scope='module')
def det():
    return Detector.pretrained()


def test_the_shelf_is_whole_and_light():
    assert shipped()
    for name in shipped():
        assert (WEIGHTS / f'{name}.pt').stat().st_size <= LARGEST == 15e6
        card = check_card(read_card(name))
        assert card['bytes'] == (WEIGHTS / f'{name}.pt').stat().st_size
        assert (WEIGHTS / f'{name}.md').is_file()
        assert card['figures']['map50'] >= 0.72
        state = torch.load(WEIGHTS / f'{name}.pt', weights_only=True)['state']
        assert all(
            v.dtype == torch.float16 and torch.isfinite(v).all()
            for v in state.values()
            if v.is_floating_point()
        )


def test_the_page_is_written_from_the_card():
    from ssd_tutorial.cards import card_text

    for name in shipped():
        assert card_text(read_card(name)) in (WEIGHTS / f'{name}.md').read_text(encoding='utf-8')


def test_the_command_of_the_card_is_that_of_the_notes_and_runs():
    "train stops where val repeats images of train, as here, unless the command says --anyway"
    notes = json.loads((ROOT / 'tools' / 'animals.json').read_text(encoding='utf-8'))
    assert notes['command'] == read_card()['command']
    assert '--anyway' in notes['command'].split()
    known = {o for p in main.commands['train'].params for o in p.opts}
    assert {w for w in notes['command'].split() if w.startswith('--')} <= known


OFFLINE = '''
import socket
def no(*args, **kwargs): raise OSError('no network here')
socket.socket.connect = socket.create_connection = socket.getaddrinfo = no
import skimage.data
from ssd_tutorial.detector import Detector
from ssd_tutorial.saved import shipped
found = Detector.pretrained().predict(skimage.data.chelsea())
print(found.names, float(found.scores[0]))
assert found.names==['cat'], found
'''


def test_it_works_without_a_network_and_without_a_home(tmp_path):
    env = {
        **os.environ,
        'HOME': str(tmp_path),
        'TORCH_HOME': str(tmp_path),
        'HF_HOME': str(tmp_path),
        'PYTHONPATH': str(ROOT),
    }
    r = subprocess.run(
        [sys.executable, '-c', OFFLINE], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert r.returncode == 0, r.stderr[-2000:]


def test_predict_and_evaluate_need_no_detector(tmp_path):
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / 'cat.png')
    r = CliRunner().invoke(
        main,
        ['predict', str(tmp_path / 'cat.png'), '--out', str(tmp_path / 'found')],
        catch_exceptions=False,
    )
    assert r.exit_code == 0, r.output
    assert 'comes with the package' in r.output, r.output
    assert '1 found: cat' in r.output, r.output
    assert (
        json.loads((tmp_path / 'found' / 'predictions.json').read_text())[0]['category_name']
        == 'cat'
    )
    from ssd_tutorial.records import generated_data
    from ssd_tutorial.voc import save_voc

    save_voc(generated_data('multiscale', n_train=4, n_valid=2), tmp_path / 'shapes')
    r = CliRunner().invoke(main, ['evaluate', '--data', str(tmp_path / 'shapes')])
    assert r.exit_code == 2
    assert 'no class in common' in r.output


@pytest.mark.parametrize(
    'picture',
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((40, 900, 3), 255, np.uint8),
        np.full((900, 40), 128, np.uint8),
        np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8),
    ],
    ids=['a pixel', 'a white strip', 'a grey column', 'noise'],
)
def test_nothing_is_found_in_nothing(det, picture):
    assert len(det.predict(picture)) == 0


OTHERS = """
astronaut brick camera cell clock coffee coins colorwheel grass gravel hubble_deep_field
immunohistochemistry logo microaneurysms moon page retina rocket text
""".split()


def test_other_things_are_hardly_ever_animals(det):
    """Everything that comes with scikit-image and shows none of the five,
    at the detector's own threshold: of photographs hardly one, of pictures through a lens a few."""
    alarmed = {n for n in OTHERS if len(det.predict(getattr(skimage.data, n)()))}
    assert len(alarmed) <= 4, alarmed
    assert not alarmed & {'astronaut', 'camera', 'clock', 'coffee', 'coins', 'rocket'}, alarmed


def test_the_table_is_that_of_the_results():
    "recipes.md is written from recipes.json, and the card has the same runs"
    for folder in ('benchmarks', 'tools'):
        sys.path.insert(0, str(ROOT / folder))
    import recipes, ship

    path = ROOT / 'benchmarks' / 'recipes.json'
    assert (
        path.with_suffix('.md').read_text(encoding='utf-8')
        == recipes.table(json.loads(path.read_text())) + '\n'
    )
    assert read_card()['trials'] == ship.trials(path)


def test_the_figures_are_those_of_the_card(det, real_data):
    """Shipped weights that learnt from train alone score what the card says of them;
    those that learnt from val as well, what it calls their memory."""
    from ssd_tutorial.readers import load_dataset

    card = read_card()
    data = load_dataset(real_data / 'voc_animals')
    report = det.evaluate(data.valid, data.vocab, progress=False)
    assert abs(report.map50 - (card['memory'] or card['figures']['map50'])) < 5e-3
    assert report.map50 >= max(0.72, card['figures']['map50'] - 5e-3)


def test_what_is_installed_works(tmp_path):
    """A source archive, a wheel from what is in it, the wheel in a folder of its own:
    the detector is there and needs no network."""
    pytest.importorskip('setuptools')
    pytest.importorskip('wheel')

    def run(*args, at, **env):
        r = subprocess.run(
            [sys.executable, *args],
            cwd=at,
            capture_output=True,
            text=True,
            env={**os.environ, **env},
        )
        assert r.returncode == 0, r.stderr[-2000:]

    source = tmp_path / 'source'
    shutil.copytree(
        ROOT / 'ssd_tutorial', source / 'ssd_tutorial', ignore=shutil.ignore_patterns('__pycache__')
    )
    for name in (
        'setup.py',
        'settings.ini',
        'pyproject.toml',
        'MANIFEST.in',
        'README.md',
        'LICENSE',
    ):
        shutil.copy(ROOT / name, source)
    run('setup.py', '-q', 'sdist', '-d', str(tmp_path / 'out'), at=source)
    with tarfile.open(next((tmp_path / 'out').glob('*.tar.gz'))) as t:
        safe = dict(filter='data') if hasattr(tarfile, 'data_filter') else {}  # from 3.11.4 on
        t.extractall(tmp_path / 'unpacked', **safe)
    run(
        *'-m pip wheel -q --no-deps --no-build-isolation -w'.split(),
        str(tmp_path / 'out'),
        str(next((tmp_path / 'unpacked').iterdir())),
        at=tmp_path,
    )
    wheel = zipfile.ZipFile(next((tmp_path / 'out').glob('*.whl')))
    wheel.extractall(tmp_path / 'site')
    assert {
        f'ssd_tutorial/weights/{n}.{end}' for n in shipped() for end in ('pt', 'json', 'md')
    } <= set(wheel.namelist())
    here = f'import ssd_tutorial\nassert ssd_tutorial.__file__.startswith({str(tmp_path)!r})'
    run('-c', OFFLINE + here, at=tmp_path, PYTHONPATH=str(tmp_path / 'site'))


def test_the_card_says_how_far_luck_goes():
    "Two trainings of one recipe, from different seeds, are in the card and lie near to each other"
    card = read_card()
    runs = [*card['before'], *card['again'], card]
    # an older one knew fewer settings
    alike = lambda a, b: (
        a['seed'] != b['seed']
        and all(a[k] == b[k] for k in (a.keys() & b.keys()) - {'seed', 'asked', 'with_val'})
    )
    pairs = [
        (a, b) for i, a in enumerate(runs) for b in runs[:i] if alike(a['settings'], b['settings'])
    ]
    assert pairs
    assert all(abs(a['figures']['map50'] - b['figures']['map50']) < 0.02 for a, b in pairs)
