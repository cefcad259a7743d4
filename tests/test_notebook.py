"The plumbing of the notebooks: what a reader meets who has one of them and nothing else"

import importlib.util, json, os, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / 'nbs'
NOTEBOOKS = sorted([*LESSONS.glob('[0-9]*.ipynb'), *(LESSONS / 'solutions').glob('*.ipynb')])


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(path, kind='code'):
    nb = json.loads(path.read_text(encoding='utf-8'))
    return [c for c in nb['cells'] if c['cell_type'] == kind]


def source(cell):
    return ''.join(cell['source'])


def bare(**more):
    ours = lambda k: k.startswith('SSD_TUTORIAL') or k == 'IN_TEST'
    return {k: v for k, v in os.environ.items() if not ours(k)} | more


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(LESSONS).as_posix()[:-6])
def test_cells_suit_a_reader(path):
    "No cell writes beside the notebook, needs our tools, or stands open though it only plumbs"
    for c in cells(path):
        s = source(c)
        assert not re.search(r"""save(fig)?\(\s*f?['"]images""", s), f'saves a picture: {s[:80]}'
        assert 'import nbdev' not in s
        assert 'os.system' not in s
        if re.search(r'^#\|\s*slow', s, re.M):
            guard = r"(long_run|photographs)\([^:]*'\)+:$"
            assert re.search(guard, s, re.M), f'unguarded: {s[:80]}'
            assert not c['outputs'] or f"kept='{c['id']}'" in s, (
                f'does not show its output: {s[:80]}'
            )
        meta = c['metadata']
        folded = meta.get('cellView') == 'form' and meta.get('jupyter', {}).get('source_hidden')
        assert bool(folded) == bool(re.search(r'^#\|\s*hide\b', s, re.M)), s[:80]
    for c in cells(path, 'markdown'):
        beside = re.findall(r'\]\((?!https?:|#|mailto:|attachment:)([^)#]+)', source(c))
        assert not [b for b in beside if (path.parent / b).exists()], beside


def test_plumbing_is_written_anew(tmp_path):
    "book.py turns a cell of an older form into the present one, once, and leaves the rest alone"
    book = tool('book')
    picture, lesson = '08_anchors.png', LESSONS / '08_anchors.ipynb'
    old = [
        '#| default_exp t',
        "#| hide\nimport os, sys\nif 'google.colab' in sys.modules: os.system('pip')",
        '#| hide\n# under test two notebooks run side by side: one thread each\nimport os, torch\n'
        "if os.environ.get('IN_TEST'): torch.set_num_threads(1)",
        "assert not IN_TEST\nsave_cover(1, 'x.png')",
        '#| hide\nimport nbdev; nbdev.nbdev_export()',
    ]
    nb = dict(
        cells=[
            dict(
                cell_type='code',
                id=f'{i:08}',
                metadata={},
                outputs=[],
                execution_count=None,
                source=[s],
            )
            for i, s in enumerate(old)
        ]
    )
    text = f'# T\n> p ![x](images/{picture}) [y](08_anchors.ipynb#here) [z](nowhere.ipynb)'
    nb['cells'].insert(0, dict(cell_type='markdown', id='first000', metadata={}, source=[text]))
    book.plumb(lesson, nb, 'somebody')
    text = [source(c) for c in nb['cells']]
    assert len(text) == 4
    assert '%pip install -q "{source}"' in text[2]
    assert 'somebody/ssd_tutorial' in text[2]
    assert 'import IN_TEST, save_cover, set_up\n' in text[2]
    assert nb['cells'][2]['metadata'] == book.COLLAPSED
    raw, page = 'https://raw.githubusercontent.com/somebody', 'https://github.com/somebody'
    assert f'({raw}/ssd_tutorial/main/nbs/images/{picture})' in text[0]
    assert f'({page}/ssd_tutorial/blob/main/nbs/08_anchors.ipynb#here)' in text[0]
    assert '(nowhere.ipynb)' in text[0]
    again = json.dumps(nb)
    book.plumb(lesson, nb, 'somebody')
    assert json.dumps(nb) == again


def test_kept_outputs_are_those_of_the_notebooks():
    "Every slow cell's output is kept; one that was made where the cell did not run is refused"
    book = tool('book')
    kept = json.loads((ROOT / 'ssd_tutorial' / 'kept.json').read_text(encoding='utf-8'))
    is_slow = lambda c: re.search(r'^#\|\s*slow', source(c), re.M)
    slow = {c['id'] for p in NOTEBOOKS for c in cells(p) if is_slow(c) and c['outputs']}
    assert set(kept) == slow
    assert len(slow) > 5
    bad = dict(
        cell_type='code',
        id='00000000',
        source=['#| slow'],
        metadata={},
        outputs=[dict(output_type='stream', name='stdout', text=['Not run here: a table'])],
    )
    with pytest.raises(SystemExit):
        book.kept({Path('x.ipynb'): dict(cells=[bad])})


def test_a_slow_cell_says_what_it_would_show(tmp_path):
    "One line, then what was kept; with the data or the word of the reader the cell runs"
    code = (
        "from ssd_tutorial.notebook import long_run, photographs\n"
        "a = long_run('three losses', '9 trainings', kept='5df0ae91')\n"
        "print(a, photographs('voc_animals', 'AP'))"
    )
    command = [sys.executable, '-W', 'ignore', '-c', code]
    run = lambda **env: subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=bare(PYTHONPATH=str(ROOT), **env)
    )
    r = run()
    assert r.returncode == 0, r.stderr
    assert r.stdout.startswith('Not run here: three losses (9 trainings).')
    assert 'box_weight' in r.stdout
    assert 'needs photographs in data' in r.stdout
    assert r.stdout.endswith('False None\n')
    (tmp_path / 'sets' / 'voc_animals').mkdir(parents=True)
    r = run(SSD_TUTORIAL_SLOW='1', SSD_TUTORIAL_DATA=str(tmp_path / 'sets'))
    assert r.stdout == 'True ' + str(tmp_path / 'sets' / 'voc_animals') + '\n'


@pytest.mark.slow
def test_the_other_imgaug(tmp_path):
    "imgaug 0.4.0 over pyimgaug's files: one line with the cure"
    (tmp_path / 'imgaug').mkdir()
    (tmp_path / 'imgaug' / '__init__.py').write_text('import numpy as np; np.sctypes_of_old')
    code = 'from ssd_tutorial.presets import make_augmenter; make_augmenter(1.)'
    r = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        env=bare(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])),
    )
    cure = 'pip uninstall -y imgaug pyimgaug && pip install pyimgaug'
    assert r.returncode, r.stderr
    assert cure in r.stderr.splitlines()[-1], r.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    'line,fault',
    [
        (
            "import urllib.request\nurllib.request.urlopen('http://192.0.2.1', timeout=5)",
            'URLError',
        ),
        ("import warnings\nwarnings.warn('old word', FutureWarning)", 'a warning on the screen'),
        (
            "import os\nfrom pathlib import Path\nassert not os.listdir(Path.home()/'work')",
            'FileNotFoundError',
        ),
        ("import os\nassert os.listdir()==['00_fine.ipynb'] and 'IN_TEST' not in os.environ", None),
    ],
)
def test_alone_sees_what_a_reader_would_see(tmp_path, monkeypatch, line, fault):
    """The network, warnings, files that only the author has: the runner finds each;
    a sound notebook passes."""
    alone = tool('alone')
    cell = dict(
        cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=[line]
    )
    nb = dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)
    (tmp_path / '00_fine.ipynb').write_text(json.dumps(nb))
    monkeypatch.setattr(alone, 'NBS', tmp_path)
    monkeypatch.setenv('IN_TEST', '1')
    _, found = alone.run_alone('00_fine', str(tmp_path), alone.shut_off(), '1')
    assert (found is None) == (fault is None), found
    assert (fault or '') in (found or ''), found
