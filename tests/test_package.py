"What no single lesson can test: import order, light imports, house style, derived files"
import subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code): return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize('module,heavy', [('detections', ('torch','matplotlib','fastai','cv2','imgaug')), ('cli', ('torch','fastai','matplotlib','imgaug')), ('boxes', ('fastai','matplotlib')),
                                          ('augment', ('imgaug','cv2')), ('detector', ('imgaug','cv2')), ('notebook', ('torch','fastai','pandas'))])
def test_light_imports(module, heavy):
    "A module brings along only what it needs: OpenCV comes with augmentation, torch not with drawing"
    r = python(f'import sys, ssd_tutorial.{module}; print([m for m in {heavy!r} if m in sys.modules])')
    assert r.returncode==0, r.stderr
    assert r.stdout.strip()=='[]', f'{module} imports {r.stdout}'


@pytest.mark.parametrize('tool', [['tools/style.py'], ['tools/book.py','--check']])
def test_tools(tool):
    r = subprocess.run([sys.executable, *tool], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode==0, r.stdout+r.stderr


def test_package_names_do_not_shadow_modules():
    "`__init__` re-exports nothing that shares a module's name"
    r = python('import ssd_tutorial, types; print([k for k,v in vars(ssd_tutorial).items() if not k.startswith("_") and not isinstance(v, types.ModuleType)])')
    assert r.stdout.strip()=='[]', r.stdout


def test_owner_stands_once(tmp_path):
    "Another owner rewrites every badge and link, and the check then agrees"
    import shutil
    copy = tmp_path/'copy'; shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.git','demo','*.pt','__pycache__'))
    run = lambda *a: subprocess.run([sys.executable, 'tools/book.py', *a], cwd=copy, capture_output=True, text=True)
    assert run('--owner', 'somebody').returncode==0
    assert run('--check').returncode==0
    assert 'somebody/ssd_tutorial' in (copy/'README.md').read_text(encoding='utf-8') and 'ssd-tutorial/ssd_tutorial' not in (copy/'README.md').read_text(encoding='utf-8')
