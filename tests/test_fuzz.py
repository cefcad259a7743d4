"""Half a minute of benchmarks/fuzz.py with a fixed seed, and whether it would notice."""

import importlib.util
import random
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent.parent / 'benchmarks' / 'fuzz.py'
spec = importlib.util.spec_from_file_location('fuzz', FUZZ)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


def test_half_a_minute():
    "Damaged pictures, label files and files of our own: a result, or an error that names the file; and soon"
    found = fuzz.run(n=1000, seed=15, limit=20.0, seconds=30, show=False)
    assert not found['faults'], found['faults'][:5]
    assert found['inputs'] >= 100 and set(found['counts']) == set(fuzz.SHARES)
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
    from ssd_tutorial.readers import DataError

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
    assert sum(m != data for m in made) > 180 and len(set(made)) > 180
    tree = dict(a=[1, 2, dict(b='c')], d=None)
    changed = [repr(fuzz.change_tree(tree, random.Random(i))) for i in range(200)]
    assert len(set(changed)) > 100 and tree == dict(a=[1, 2, dict(b='c')], d=None)
