"""Some seconds of benchmarks/fuzz.py with a fixed seed, and whether it would notice."""

import importlib.util
import random
import signal
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent.parent / 'benchmarks' / 'fuzz.py'
spec = importlib.util.spec_from_file_location('fuzz', FUZZ)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


def test_a_few_seconds():
    "A result, or an error that names the file; and soon"
    found = fuzz.run(n=1000, seed=15, limit=20.0, seconds=8, show=False)
    assert not found['faults'], found['faults'][:5]
    assert found['inputs'] >= 100
    assert set(found['counts']) == set(fuzz.SHARES)
    assert all(c.get('documented') for k, c in found['counts'].items() if k != 'checkpoints')


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
