"What no single lesson can test: import order, light imports, house style, derived files"

import subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'module,heavy',
    [
        ('detections', ('torch', 'matplotlib', 'fastai', 'cv2', 'imgaug')),
        ('cli', ('torch', 'fastai', 'matplotlib', 'imgaug')),
        ('boxes', ('fastai', 'matplotlib')),
        ('augment', ('imgaug', 'cv2')),
        ('detector', ('imgaug', 'cv2', 'fastai', 'timm', 'torchvision', 'matplotlib', 'pandas')),
        ('config', ('torch', 'numpy')),
        ('notebook', ('torch', 'fastai', 'pandas')),
        ('ported', ('imgaug', 'cv2', 'fastai', 'matplotlib')),
        ('app', ('torch', 'starlette', 'uvicorn', 'av', 'matplotlib')),
    ],
)
def test_light_imports(module, heavy):
    """A module brings along only what it needs:
    OpenCV comes with augmentation, torch not with drawing."""
    r = python(
        f'import sys, ssd_tutorial.{module}; print([m for m in {heavy!r} if m in sys.modules])'
    )
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip() == '[]', f'{module} imports {r.stdout}'


@pytest.mark.slow
def test_a_registry_is_searched_without_the_trainer():
    """torchvision's SSD300 is found, and used, where nothing that trains has been imported;
    its loss is found as well."""
    r = python(
        'import sys\n'
        'from ssd_tutorial.detector import FROM_TORCHVISION\n'
        'from ssd_tutorial.config import find_in_registry\n'
        'find_in_registry("ssd300_vgg16", FROM_TORCHVISION, "detector")\n'
        'print("fastai" in sys.modules)'
    )
    assert r.stdout.strip() == 'False', r.stdout + r.stderr
    r = python(
        'from ssd_tutorial.recipes import find_loss, RECIPES\n'
        'from ssd_tutorial.config import find_recipe\n'
        'print(find_loss("multibox")[0], find_recipe("ssd") is RECIPES["ssd"])'
    )
    assert r.stdout.strip() == 'softmax True', r.stdout + r.stderr


@pytest.mark.slow
@pytest.mark.parametrize('tool', [['tools/style.py'], ['tools/book.py', '--check']])
def test_tools(tool):
    r = subprocess.run([sys.executable, *tool], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stdout + r.stderr


def test_package_names_do_not_shadow_modules():
    "`__init__` re-exports nothing that shares a module's name"
    r = python(
        'import ssd_tutorial, types\n'
        'public = {k: v for k, v in vars(ssd_tutorial).items() if not k.startswith("_")}\n'
        'print([k for k, v in public.items() if not isinstance(v, types.ModuleType)])'
    )
    assert r.stdout.strip() == '[]', r.stdout


@pytest.mark.slow
def test_owner_stands_once(tmp_path):
    "Another owner rewrites every badge and link, and the check then agrees"
    import shutil

    copy = tmp_path / 'copy'
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns('.git', 'demo', '*.pt', '__pycache__')
    )
    run = lambda *a: subprocess.run(
        [sys.executable, 'tools/book.py', *a], cwd=copy, capture_output=True, text=True
    )
    assert run('--owner', 'somebody').returncode == 0
    assert run('--check').returncode == 0
    assert 'somebody/ssd_tutorial' in (copy / 'README.md').read_text(encoding='utf-8')
    assert 'ssd-tutorial/ssd_tutorial' not in (copy / 'README.md').read_text(encoding='utf-8')


def test_glossary_leads_to_lessons_that_explain():
    "Each term is used, in bold somewhere, in the lesson that the glossary names"
    import json, re

    rows = re.findall(
        r'^\| \*\*(.+?)\*\* \| .+ \| \[.+?\]\(.+/(\w+\.ipynb)\) \|$',
        (ROOT / 'GLOSSARY.md').read_text(),
        re.M,
    )
    assert len(rows) > 30
    bold = {}
    for name in {n for _, n in rows}:
        cells = json.loads((ROOT / 'nbs' / name).read_text())['cells']
        text = '\n'.join(
            ''.join(c['source']) for c in cells if c['cell_type'] == 'markdown'
        ).lower()
        bold[name] = ' '.join(re.findall(r'\*\*(.+?)\*\*', text, re.S))
    lost = []
    for term, name in rows:
        words = re.split(r', | \(|\)', term.lower())
        if not any(w.strip() and w.strip() in bold[name] for w in words):
            lost.append(f'{term} in {name}')
    assert not lost, lost
