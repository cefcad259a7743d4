"The plumbing of the notebooks: what a reader meets who has one of them and nothing else"
import importlib.util, json, os, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted([*(ROOT/'nbs').glob('[0-9]*.ipynb'), *(ROOT/'nbs'/'solutions').glob('*.ipynb')])


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT/'tools'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(path, kind='code'):
    return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']==kind]


def source(cell): return ''.join(cell['source'])


def bare(**more):
    return {k: v for k,v in os.environ.items() if not k.startswith('SSD_TUTORIAL') and k!='IN_TEST'}|more


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT/'nbs').with_suffix('').as_posix())
def test_cells_suit_a_reader(path):
    "No cell writes beside the notebook, needs developers' tools, or stands open though it only plumbs"
    for c in cells(path):
        s = source(c)
        assert not re.search(r"""savefig\(\s*f?['"]images|save\(\s*f?['"]images""", s), f'saves a picture: {s[:80]}'
        assert 'import nbdev' not in s and 'os.system' not in s
        if re.search(r'^#\|\s*slow', s, re.M):
            assert re.search(rf"(long_run|photographs)\(.*({c['id']}|'\)):$", s, re.M), f'unguarded: {s[:80]}'
        folded = c['metadata'].get('cellView')=='form' and c['metadata'].get('jupyter', {}).get('source_hidden')
        assert bool(folded)==bool(re.search(r'^#\|\s*hide\b', s, re.M)), s[:80]
    for c in cells(path, 'markdown'):
        beside = re.findall(r'\]\((?!https?:|#|mailto:|attachment:)([^)]+)\)', source(c))
        assert not [b for b in beside if (path.parent/b.split('#')[0]).exists()], beside


def test_plumbing_is_written_anew(tmp_path):
    "book.py turns a cell of an older form into the present one, once, and leaves the rest alone"
    book = tool('book')
    old = lambda s, kind='code': dict(cell_type=kind, id=f'{abs(hash(s)):08x}'[:8], metadata={}, source=[s],
                                      **(dict(outputs=[], execution_count=None) if kind=='code' else {}))
    picture = next((ROOT/'nbs'/'images').glob('08*.png')).name
    nb = dict(cells=[old(f'# T\n> p ![x](images/{picture}) [y](08_anchors.ipynb#here) [z](nowhere.ipynb)', 'markdown'),
                     old('#| default_exp t'), old("#| hide\nimport os, sys\nif 'google.colab' in sys.modules: os.system('pip')"),
                     old("#| hide\n# under test two notebooks run side by side: one thread each\nimport os, torch\n"
                         "if os.environ.get('IN_TEST'): torch.set_num_threads(1)"),
                     old("assert not IN_TEST\nsave_cover(1, 'x.png')"), old('#| hide\nimport nbdev; nbdev.nbdev_export()')])
    book.plumb(ROOT/'nbs'/'08_anchors.ipynb', nb, 'somebody')
    text = [source(c) for c in nb['cells']]
    assert len(text)==4 and '%pip install -q "{source}"' in text[2] and 'somebody/ssd_tutorial' in text[2]
    assert 'import IN_TEST, save_cover, set_up\n' in text[2] and nb['cells'][2]['metadata']==book.COLLAPSED
    assert f'(https://raw.githubusercontent.com/somebody/ssd_tutorial/main/nbs/images/{picture})' in text[0]
    assert '(https://github.com/somebody/ssd_tutorial/blob/main/nbs/08_anchors.ipynb#here)' in text[0]
    assert '(nowhere.ipynb)' in text[0]
    again = json.dumps(nb)
    book.plumb(ROOT/'nbs'/'08_anchors.ipynb', nb, 'somebody')
    assert json.dumps(nb)==again


def test_kept_outputs_are_those_of_the_notebooks():
    "Every slow cell's output is kept, whole; one that was made where the cell did not run is refused"
    book = tool('book')
    kept = json.loads((ROOT/'ssd_tutorial'/'kept.json').read_text(encoding='utf-8'))
    slow = {c['id'] for p in NOTEBOOKS for c in cells(p) if re.search(r'^#\|\s*slow', source(c), re.M) and c['outputs']}
    assert set(kept)==slow and len(slow)>5
    bad = dict(cell_type='code', id='00000000', source=['#| slow'], metadata={},
               outputs=[dict(output_type='stream', name='stdout', text=['Not run here: a table'])])
    with pytest.raises(SystemExit): book.kept({Path('x.ipynb'): dict(cells=[bad])})


def test_a_slow_cell_says_what_it_would_show(tmp_path):
    "One line, then what was kept; with the data or the word of the reader the cell runs"
    code = ("from ssd_tutorial.notebook import long_run, photographs\n"
            "print(long_run('three losses', '9 trainings', kept='5df0ae91'), photographs('voc_animals', 'AP'))")
    run = lambda **env: subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                                       cwd=tmp_path, env=bare(PYTHONPATH=str(ROOT), **env))
    r = run()
    assert r.returncode==0, r.stderr
    assert r.stdout.startswith('Not run here: three losses (9 trainings).') and 'box_weight' in r.stdout
    assert 'needs photographs in data' in r.stdout and r.stdout.endswith('False None\n')
    (tmp_path/'sets'/'voc_animals').mkdir(parents=True)
    r = run(SSD_TUTORIAL_SLOW='1', SSD_TUTORIAL_DATA=str(tmp_path/'sets'))
    assert r.stdout=='True '+str(tmp_path/'sets'/'voc_animals')+'\n'


def test_the_other_imgaug(tmp_path):
    "imgaug 0.4.0 over pyimgaug's files: one line with the cure"
    (tmp_path/'imgaug').mkdir()
    (tmp_path/'imgaug'/'__init__.py').write_text('import numpy as np; np.sctypes_of_old')
    code = 'from ssd_tutorial.augment import make_augmenter; make_augmenter(1.)'
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                       env=bare(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])))
    assert r.returncode and 'pip uninstall -y imgaug pyimgaug && pip install pyimgaug' in r.stderr.splitlines()[-1], r.stderr
