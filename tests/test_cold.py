"How fast the program begins, what it imports for that, and what it keeps in memory"

import os, resource, statistics, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from ssd_tutorial.detector import Detector
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc

ROOT = Path(__file__).resolve().parent.parent
START = 'from ssd_tutorial.entry import start; start()'
HEAVY = {
    'torch', 'torchvision', 'timm', 'fastai', 'matplotlib', 'imgaug', 'cv2', 'pandas', 'scipy',
    'sklearn', 'skimage', 'IPython', 'ipywidgets', 'onnxruntime', 'onnx', 'plotly', 'numba',
    'faster_coco_eval', 'pycocotools', 'torchmetrics', 'av', 'requests',
    'huggingface_hub', 'safetensors',
}  # fmt: skip
REPORT = (
    'import sys\n'
    'try:\n'
    f'    {START}\n'
    'finally:\n'
    f'    print(sorted({HEAVY!r} & {{*sys.modules}}), file=sys.stderr)'
)


def env():
    return {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def run(code, *args, cwd=None):
    "stderr, and the seconds of CPU that it took: on a busy machine a clock says nothing"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    r = subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        cwd=cwd, env=env(), capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert r.returncode == 0, r.stderr[-2000:]
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return r.stderr, spent


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    import skimage.data

    home = tmp_path_factory.mktemp('cold')
    Image.fromarray(skimage.data.chelsea()).save(home / 'cat.jpg', quality=90)
    save_voc(generated_data('multiscale', 8, 4, size=64), home / 'voc')
    return home


@pytest.fixture(scope='module')
def onnx(home):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    from ssd_tutorial.onnx_export import export_onnx

    return export_onnx(Detector.pretrained(), home / 'a.onnx')


COMMANDS = {
    '--help': set(),
    'train --help': set(),
    'doctor voc --out doctor.html': {'torch', 'scipy'},  # scipy comes with imagehash
    'predict cat.jpg --out found': {  # the last three come with timm
        'torch', 'torchvision', 'timm', 'requests', 'huggingface_hub', 'safetensors',
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_heavy_modules(command, home):
    said, _ = run(REPORT, *command.split(), cwd=home)
    loaded = set(eval(said.splitlines()[-1]))
    assert not loaded - COMMANDS[command]


@pytest.mark.slow
def test_heavy_modules_without_torch(home, onnx):
    said, _ = run(REPORT, *f'predict cat.jpg --detector {onnx} --out graph'.split(), cwd=home)
    assert set(eval(said.splitlines()[-1])) == {'onnxruntime'}


@pytest.mark.slow
def test_cold_starts(home, onnx):
    """`predict` on one photo against the imports that nobody can avoid, by turns;
    ONNX and --help by themselves. Seconds of CPU, medians of three."""
    graph = (
        'from ssd_tutorial.onnx_detector import OnnxDetector\n'
        f'assert OnnxDetector({str(onnx)!r}).predict("cat.jpg").names == ["cat"]'
    )
    model = (
        'import sys, time\nfrom ssd_tutorial.detector import Detector\n'
        'det, start = Detector.pretrained(), time.process_time()\n'
        'det.predict("cat.jpg")\n'
        'print(time.process_time() - start, file=sys.stderr)'
    )
    times = {k: [] for k in ('torch', 'predict', 'onnx', 'help')}
    for _ in range(3):
        times['torch'].append(run('import torch, torchvision')[1])
        times['predict'].append(run(START, 'predict', 'cat.jpg', '--out', 'found', cwd=home)[1])
        times['onnx'].append(run(graph, cwd=home)[1])
        times['help'].append(run(START, '--help')[1])
    own = float(run(model, cwd=home)[0].splitlines()[-1])
    t = {k: statistics.median(v) for k, v in times.items()}
    assert t['predict'] <= 1.6 * t['torch'] + own, t
    assert t['onnx'] < 1.5, t
    assert t['help'] < 0.5, t


@pytest.mark.slow
def test_a_thousand_predictions_keep_nothing(home):
    code = (
        'import resource, torch\n'
        'from ssd_tutorial.detector import Detector\n'
        'det = Detector.pretrained()\n'
        'for i in range(1000):\n'
        '    det.predict("cat.jpg")\n'
        '    if i in (99, 999):\n'
        '        now = int(open("/proc/self/statm").read().split()[1])\n'
        '        print(now * resource.getpagesize() / 2**20)'
    )
    if not Path('/proc/self/statm').exists():
        pytest.skip('no /proc: memory in use cannot be read')
    r = subprocess.run(
        [sys.executable, '-c', code], cwd=home, env=env(), capture_output=True, text=True
    )
    assert r.returncode == 0, r.stderr[-2000:]
    first, last = map(float, r.stdout.split())
    assert last - first <= 50, f'{first:.0f} MB after 100, {last:.0f} MB after 1000'


@pytest.mark.slow
def test_eight_threads_of_a_graph(home, onnx):
    from ssd_tutorial.onnx_detector import OnnxDetector

    det, path = OnnxDetector(onnx, threads=1), home / 'cat.jpg'
    look = lambda _: [(d.boxes_px.tolist(), d.scores.tolist()) for d in det.predict([path] * 3)]
    one = look(0)
    assert one[0][0]
    with ThreadPoolExecutor(8) as pool:
        assert all(got == one for got in pool.map(look, range(8)))
