"""Some seconds of benchmarks/fuzz.py with a fixed seed, and whether it would notice."""

import importlib.util
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

FUZZ = Path(__file__).resolve().parent.parent / 'benchmarks' / 'fuzz.py'
spec = importlib.util.spec_from_file_location('fuzz', FUZZ)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


def test_a_few_seconds():
    "A result, or an error that names the file; and soon, within bounds, and touching nothing else"
    found = fuzz.run(n=400, seed=15, limit=30.0, seconds=25, show=False)
    assert not found['faults'], found['faults'][:5]
    assert found['inputs'] >= 100
    assert set(found['counts']) == set(fuzz.SHARES)
    often = [k for k, share in fuzz.SHARES.items() if share >= 40]
    assert len(often) >= 6
    assert all(found['counts'][k].get('documented') for k in often)


# ---------------------------------------------------------------- whether harm would be noticed
def watch(code, folder):
    "What a guarded process is told to have touched while it runs this code"
    script = (
        'import os, sys\n'
        f'sys.path.insert(0, {str(FUZZ.parent)!r})\n'
        'import json, subprocess, socket, urllib.request\n'
        'from guard import Guard\n'
        f'g = Guard({str(folder)!r}); g.watch(); g.begin()\n'
        f'try: exec({code!r})\n'
        'except Exception as e: pass\n'
        'print(json.dumps(g.end()))'
    )
    out = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(out.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='decoys are watched by inotify')
@pytest.mark.parametrize(
    'code,says',
    [
        ('os.system("true")', 'a program'),
        ('subprocess.run(["true"])', 'a program'),
        ('open("/etc/passwd").read()', 'a file read'),
        ('open("/etc/evil", "w")', 'a file written'),
        ('os.remove("/etc/evil")', 'a change'),
        ('socket.create_connection(("127.0.0.1", g.port))', 'the network'),
        ('urllib.request.urlopen("http://127.0.0.1:9/")', 'the network'),
        ('import pickle; pickle.loads(pickle.dumps(os.getcwd))', 'a pickle'),
        ('open(g.decoys / "film.ts").read()', 'a file read'),
        ('import ctypes; ctypes.CDLL(None).open(bytes(g.decoys / "film.ts"), 0)', 'a decoy'),
    ],
)
def test_the_guard_notices(code, says, tmp_path):
    touched, _ = watch(code, tmp_path)
    assert touched
    assert touched[0].startswith(says), touched


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_the_guard_weighs(tmp_path):
    code = 'a = bytearray(3*10**8); a[::4096] = bytes([1])*len(a[::4096])'
    assert watch('pass', tmp_path)[1] < 50
    touched, mb = watch(code, tmp_path)
    assert not touched
    assert mb > 250


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_what_is_allowed_goes_unnoticed(tmp_path):
    code = 'import colorsys; p = g.decoys.parent/"a"; p.write_text("1"); p.read_text(); p.unlink()'
    assert watch(code, tmp_path)[0] == []


# ---------------------------------------------------------------- pickles
class Touch:
    "Unpickled, it writes a file"

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def as_detector(pickled):
    return fuzz.hostile.archive(
        [('archive/data.pkl', pickled), ('archive/version', b'3\n'), ('archive/data/0', bytes(64))]
    )


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_calls_is_refused(protocol, whole, tmp_path):
    from ssd_tutorial.config import DetectorError
    from ssd_tutorial.detector import Detector
    from ssd_tutorial.runs import read_last

    proof = tmp_path / 'proof'
    evil = pickle.dumps(dict(json='{}', state=[Touch(proof)]), protocol)
    pickle.loads(evil)
    assert proof.exists()  # it is a real one
    proof.unlink()
    data = as_detector(evil) if whole else evil
    for path, read in ((tmp_path / 'd.pt', Detector.load), (tmp_path / 'last.ckpt', read_last)):
        path.write_bytes(data)
        with pytest.raises(DetectorError, match='not a'):
            read(path)
        assert not proof.exists()


def test_every_attack_is_a_call(tmp_path):
    "The opcodes of the attacks are such that a plain pickle would make the call"
    from types import SimpleNamespace

    inputs = SimpleNamespace(decoys=tmp_path, port=9)
    called, rng = set(), random.Random(0)

    class Spy(pickle.Unpickler):
        def find_class(self, module, name):
            called.add(f'{module}.{name}')
            return lambda *_: {}

    for _ in range(400):
        name, args = fuzz.hostile.calls(inputs, rng)
        written = fuzz.hostile.Calls(name, args).written(rng)
        try:
            Spy(io.BytesIO(b'\x80\x04' + written + b'.')).load()
        except (TypeError, pickle.UnpicklingError):  # NEWOBJ wants a class
            pass
    assert {'os.system', 'builtins.eval', 'torch.storage._load_from_bytes'} <= called
    assert len(called) > 25


def test_every_damaged_folder_was_sound_before(tmp_path):
    "And a pickle in what was kept of a check would call, were it opened as one"
    from types import SimpleNamespace

    import numpy as np
    from safetensors.torch import load

    made = fuzz.Made(tmp_path)
    weights, text = made.shared()
    header, numbers = fuzz.folders.split_header(weights)
    assert {*header} - {'__metadata__'} == {*load(weights)}
    rng = SimpleNamespace(random=lambda: 1.0)
    assert fuzz.folders.joined(header, numbers, rng)[8:9] == b'{'
    source, kept, right = made.known()
    assert sorted(n.partition('-')[0] for n in kept) == ['data', 'looks']
    assert made.content(made.read_known(source, tmp_path / 'known_kept')) == right
    called = fuzz.folders.object_array(made, random.Random(0))
    with pytest.raises(ValueError, match='allow_pickle'):
        np.load(io.BytesIO(called), allow_pickle=False)
    assert called[128:130] == b'\x80\x02'


# ---------------------------------------------------------------- much out of little
def chunk(kind, data):
    return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')


def png(w, h):
    "A black PNG of one bit a pixel"
    z = zlib.compressobj(9)
    row = bytes(1 + (w + 7) // 8)
    pixels = b''.join(z.compress(row) for _ in range(h)) + z.flush()
    size = w.to_bytes(4, 'big') + h.to_bytes(4, 'big') + bytes([1, 0, 0, 0, 0])
    head = chunk(b'IHDR', size)
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


def jpeg(w, h):
    "A grey JPEG that says another size than it has"
    to = io.BytesIO()
    Image.new('L', (64, 64)).save(to, 'JPEG')
    data = bytearray(to.getvalue())
    at = data.index(b'\xff\xc0') + 5
    data[at : at + 4] = h.to_bytes(2, 'big') + w.to_bytes(2, 'big')
    return bytes(data)


MEASURE = """
import sys, json, warnings
sys.path.insert(0, {here!r})
warnings.simplefilter('ignore')
from guard import peak_kb, reset_peak
from ssd_tutorial.detector import Detector
from ssd_tutorial.doctor import diagnose
from ssd_tutorial.faults import UserError
from ssd_tutorial.pictures import image_size
from ssd_tutorial.readers import load_dataset
def ask(f):
    before = reset_peak()
    try: said = repr(f())
    except UserError as e: said = str(e)
    return said[:2000], (peak_kb()-before)/1024
det = Detector.pretrained()
folder = sys.argv[1]
det.predict(folder+'/small.jpg')
load_dataset(folder+'/small_set')
str(diagnose(folder+'/small_set', progress=False))
print(json.dumps([ask(eval('lambda: '+code)) for code in sys.argv[2:]]))
"""


def measured(folder, *codes):
    "(what was said, MB that it needed at most) of each, in a process of its own"
    script = MEASURE.format(here=str(FUZZ.parent))
    out = subprocess.run(
        [sys.executable, '-c', script, str(folder), *codes],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(FUZZ.parent.parent)),
    )
    assert not out.returncode, out.stderr[-2000:]
    return json.loads(out.stdout.splitlines()[-1])


HUGE = (  # 400 million pixels
    'det.predict(folder+"/huge.png")',
    'det.predict(folder+"/huge.jpg")',
    'det.predict(folder+"/huge.jpg", tiles=True)',
    'image_size(folder+"/huge.png")',
    'load_dataset(folder+"/huge_set")',
    'str(load_dataset(folder+"/huge_set", "skip").notes)',
    'str(diagnose(folder+"/huge_set", progress=False))',
)
WIDE = 'det.predict(folder+"/wide.jpg")', 'det.predict(folder+"/wide.png")'
SWOLLEN = ('bomb', 'tensor_0', 'tensor_1', 'tensor_2', 'nested')


def make_huge(folder):
    shutil.copytree(folder / 'small_set', folder / 'huge_set')
    train = folder / 'huge_set' / 'images' / 'train'
    few = dict(png=png(20_000, 20_000), jpg=jpeg(20_000, 20_000))
    for suffix, data in few.items():
        assert len(data) < 100_000
        (folder / f'huge.{suffix}').write_bytes(data)
    (train / 'p0.jpg').write_bytes(few['png'])
    (train / 'p1.jpg').write_bytes(few['jpg'])
    wide = Image.new('RGB', (20_000, 2_000), 'teal')
    wide.save(folder / 'wide.jpg')
    wide.save(folder / 'wide.png')


def make_swollen(folder):
    "A zip bomb, tensors larger than their file, a pickle that nests"
    with zipfile.ZipFile(folder / 'bomb.pt', 'w', zipfile.ZIP_DEFLATED) as z:
        with z.open('archive/data.pkl', 'w', force_zip64=True) as f:
            for _ in range(500):
                f.write(bytes(10**6))
    sizes = ((10**6, 10**6), (0, 0)), ((2**31, 2**31), (1, 1)), ((16,), (2**40,))
    for i, (shape, strides) in enumerate(sizes):
        made = fuzz.hostile.tensor(random.Random(0), shape, strides, 16)
        state = b'\x80\x02}(X\x04\0\0\0jsonX\x02\0\0\0{}X\x05\0\0\0state}X\x01\0\0\0w'
        (folder / f'tensor_{i}.pt').write_bytes(as_detector(state + made + b'su.'))
    (folder / 'nested.pt').write_bytes(as_detector(b'\x80\x02' + b']' * 99_999 + b'.'))


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    "What is asked of the package → what it said, and the MB that it needed"
    if sys.platform != 'linux':
        pytest.skip('memory is read from /proc')
    folder = tmp_path_factory.mktemp('bombs')
    fuzz.write_set(folder / 'small_set', 'yolo', fuzz.Inputs(folder), random.Random(0))
    Image.new('RGB', (64, 48), 'teal').save(folder / 'small.jpg')
    make_huge(folder)
    make_swollen(folder)
    asked = [*HUGE, *WIDE, *(f'Detector.load(folder+"/{n}.pt")' for n in SWOLLEN)]
    return dict(zip([*HUGE, *WIDE, *SWOLLEN], measured(folder, *asked), strict=True))


@pytest.mark.parametrize('code', HUGE)
def test_huge_canvases_fill_no_memory(code, found):
    "Refused by predict, the readers and the doctor, which goes on with what is left"
    said, mb = found[code]
    assert '400 million pixels' in said, said
    assert mb < 50


def test_a_panorama_is_seen_in_bounded_memory(found):
    "20,000 × 2,000 pixels: 120 MB when all are decoded, as a PNG must be; of a JPEG fewer"
    for code, most in zip(WIDE, (150, 450), strict=True):
        said, mb = found[code]
        assert 'Detections(' in said, said
        assert 0 < mb < most


@pytest.mark.parametrize('name', SWOLLEN)
def test_detector_files_that_swell(name, found):
    said, mb = found[name]
    assert f'{name}.pt: ' in said
    assert mb < 50


# ---------------------------------------------------------------- the run itself
@pytest.mark.parametrize(
    'what,says',
    [
        (lambda *_: 1, 'result'),
        (lambda *_: {}['a'], 'undocumented'),
        (lambda *_: fuzz.demand(False, 'two sizes'), 'wrong'),
        (lambda *a: fail_with('somewhere'), 'unnamed'),
        (lambda *a: fail_with((a[2] / 'photo.jpg').name), 'documented'),
    ],
)
def test_outcomes_are_told_apart(what, says, tmp_path, monkeypatch):
    def read(inputs, rng, folder):
        (folder / 'photo.jpg').write_bytes(b'1')
        return what(inputs, rng, folder)

    monkeypatch.setitem(fuzz.READ, 'pictures', read)
    assert fuzz.outcome('pictures', 0, 0, fuzz.Inputs(tmp_path))[0] == says


def fail_with(words):
    from ssd_tutorial.faults import DataError

    raise DataError(f'{words}: not a readable image.')


def test_a_worker_that_hangs_or_dies(monkeypatch, tmp_path):
    "An input that takes too long, and one that ends the process, cost themselves and nothing else"
    script = tmp_path / 'worker.py'
    script.write_text(
        'import os, sys, time\n'
        'print("ready", flush=True)\n'
        'for line in sys.stdin:\n'
        '    i = int(line.split()[1])\n'
        '    if i == 1: time.sleep(60)\n'
        '    if i == 2: os._exit(1)\n'
        '    print(\'["result", ""]\', flush=True)\n'
    )
    monkeypatch.setattr(fuzz, '__file__', str(script))
    found = fuzz.run(n=5, limit=1.0, kinds=('pictures',), show=False)
    assert found['counts']['pictures'] == {'result': 3, 'over time': 1, 'crash': 1}
    assert [f['input'] for f in found['faults']] == ['pictures:1', 'pictures:2']
    assert 'over time' in fuzz.table(found)


def test_inputs_come_again():
    "The same seed and number make the same input; most inputs differ from what they were made of"
    data = bytes(range(256)) * 4
    made = [fuzz.change_bytes(data, random.Random(f'0/{i}')) for i in range(200)]
    assert made == [fuzz.change_bytes(data, random.Random(f'0/{i}')) for i in range(200)]
    assert sum(m != data for m in made) > 180
    assert len(set(made)) > 180
    tree = dict(a=[1, 2, dict(b='c')], d=None)
    changed = [repr(fuzz.change_tree(tree, random.Random(i))) for i in range(200)]
    assert len(set(changed)) > 100
    assert tree == dict(a=[1, 2, dict(b='c')], d=None)


@pytest.mark.parametrize('kind', sorted(fuzz.SETS))
def test_sound_sets_are_read(kind, tmp_path):
    "Every format that is read is fuzzed, and what is damaged was in order before"
    from ssd_tutorial.readers import load_dataset

    inputs, seen = fuzz.Inputs(tmp_path), set()
    for seed in range(6):
        root = tmp_path / str(seed) / f'set_{kind}'
        files = fuzz.write_set(root, kind, inputs, random.Random(seed))
        assert files
        assert all(p.is_file() for p in files)
        data = load_dataset(root)
        seen.add(len(data.vocab))
        assert [len(data.splits[s]) for s in ('train', 'val')] in ([3, 1], [4, 1])
        assert all(len(r.boxes_px) == 2 for rs in data.splits.values() for r in rs)
    assert 3 in seen


def test_every_format_is_fuzzed():
    from ssd_tutorial.formats import FORMATS, _later_formats

    _later_formats()
    of = dict(voc='voc', coco='coco', yolo='yolo', csv='csv', labelme='labelme', cvat='cvat')
    assert {*FORMATS} <= {*of}
    assert {*of.values()} <= {*fuzz.SETS}


def test_masks_of_runs():
    "The letters for run lengths are those that COCO's own tools read"
    from ssd_tutorial.coco import _mask_box

    for box in ((4, 5, 30, 40), (0, 0, 64, 48), (20, 10, 50, 33)):
        mask = fuzz.run_lengths(box)
        packed = dict(size=mask['size'], counts=fuzz.packed(mask['counts']))
        assert _mask_box(mask) == _mask_box(packed) == [*box]


def test_boxes_that_move_are_noticed(tmp_path):
    "A sound label file that is read otherwise than it was written is a fault"
    from dataclasses import replace

    from ssd_tutorial.readers import load_dataset

    root = tmp_path / 'set_voc'
    fuzz.write_set(root, 'voc', fuzz.Inputs(tmp_path), random.Random(0))
    data = load_dataset(root)
    before = {image.stem: objects for _, image, *objects in fuzz.content(data)}
    fuzz.untouched(before, {'p0'}, data)
    one = data.train[1]
    other = replace(data, splits=dict(train=[replace(one, boxes_px=one.boxes_px + 1)]))
    fuzz.untouched(before, {one.image.stem}, other)
    with pytest.raises(fuzz.Wrong, match='is sound, and read as'):
        fuzz.untouched(before, {'p0'}, other)


def test_an_interrupted_run_has_its_counts(monkeypatch, tmp_path, capsys):
    "SIGTERM ends a run early: faults were printed when they were found, counts come at the end"
    script = tmp_path / 'worker.py'
    script.write_text(
        'import os, signal, sys\n'
        'print("ready", flush=True)\n'
        'for line in sys.stdin:\n'
        '    i = int(line.split()[1])\n'
        '    if i == 3: os.kill(os.getppid(), signal.SIGTERM); signal.pause()\n'
        '    print(\'["wrong", "two sizes"]\' if i == 1 else \'["result", ""]\', flush=True)\n'
    )
    monkeypatch.setattr(fuzz, '__file__', str(script))
    was = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = fuzz.run(n=9, kinds=('labels',))
    finally:
        signal.signal(signal.SIGTERM, was)
    assert not found['complete']
    assert found['counts']['labels'] == {'result': 2, 'wrong': 1}
    assert 'labels:1 wrong: two sizes' in capsys.readouterr().out


def test_the_recorded_run():
    "A hundred thousand inputs, without a fault, and the page says so"
    kept = json.loads((FUZZ.parent / 'fuzz.json').read_text(encoding='utf-8'))
    counts = kept['counts']
    assert [*counts] == [*fuzz.SHARES]
    assert sum(sum(c.values()) for c in counts.values()) >= 100_000
    assert not kept['faults']
    assert all({*c} <= {'result', 'documented'} for c in counts.values())
    page = (FUZZ.parent / 'README.md').read_text(encoding='utf-8')
    for c in counts.values():
        assert f'| {sum(c.values())} | {c["result"]} | {c.get("documented", 0)} | 0 |' in page


def test_kinds_are_recorded_again(tmp_path, monkeypatch):
    "A second run of one kind takes its place; the others stay"
    import argparse

    monkeypatch.setitem(sys.modules, 'report', type('report', (), dict(write_page=lambda: None)))
    path = tmp_path / 'fuzz.json'

    def found(**counts):
        each = dict.fromkeys(counts, 0.0)
        faults = [dict(input=f'{k}:1', outcome='wrong') for k, c in counts.items() if 'wrong' in c]
        n = sum(sum(c.values()) for c in counts.values())
        return dict(counts=counts, slowest=each, largest=each, faults=faults, inputs=n, seconds=60)

    how = argparse.Namespace(seed=0, jobs=1, limit=10.0)
    fuzz.record(found(labels=dict(result=3), files=dict(result=1, wrong=1)), how, path)
    fuzz.record(found(files=dict(result=2)), how, path)
    kept = json.loads(path.read_text(encoding='utf-8'))
    assert kept['counts'] == dict(labels=dict(result=3), files=dict(result=2))
    assert kept['faults'] == []
    assert [r['kinds'] for r in kept['runs']] == [['labels', 'files'], ['files']]
