"Maps on the disk are those in memory, bit by bit; nothing of them is left; memory stays flat"

import os, signal, subprocess, sys, textwrap
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from ssd_tutorial import disk_cache
from ssd_tutorial.batches import make_dls
from ssd_tutorial.body import make_body
from ssd_tutorial.cache import CachedLoader, cached_dls, frozen_dls, maps_nbytes
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.disk_cache import DiskMaps, MapsFolder, PackedTargets, disk_dls
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import train_detector
from ssd_tutorial.system import WriteError
from ssd_tutorial.voc import save_voc

SMALL = dict(arch='grid', size=64, width=16, weights='none', bs=4, variants=2, strength=0.3)
FROZEN = TrainConfig(**{**SMALL, 'weights': 'imagenet'}, frozen_epochs=2, epochs=1)


@pytest.fixture(scope='module')
def data():
    d = generated_data('multiscale', 10, 5, size=64)
    bare = d.train[0].select([])
    return replace(d, splits=dict(train=[bare, *d.train[1:]], val=d.valid))


@pytest.fixture(scope='module')
def body():
    torch.manual_seed(0)
    return make_body(weights='none').to(memory_format=torch.channels_last).freeze()


def loaders(data, workers=0):
    return make_dls(data, 64, 4, 0.3, workers, device='cpu')


def batches(dls, epochs=3):
    return [b for dl in (dls.train, dls.valid) for _ in range(epochs) for b in dl]


def equal(a, b):
    same = lambda p, q: p.dtype == q.dtype and torch.equal(p, q)
    return len(a) == len(b) and all(
        all(map(same, x, y)) and t.keys() == u.keys() and all(same(t[k], u[k]) for k in t)
        for (x, t), (y, u) in zip(a, b)
    )


@pytest.mark.parametrize('variants,bf16', [(1, False), (3, False), (1, True)])
def test_batches_are_those_of_memory(variants, bf16, data, body, tmp_path):
    right = batches(cached_dls(body, loaders(data), variants, False, bf16=bf16))
    with MapsFolder(tmp_path) as folder:
        dls = disk_dls(body, loaders(data), variants, False, bf16, folder)
        assert equal(batches(dls), right)
        used = sum(p.stat().st_size for p in folder.path.iterdir())
        assert used == maps_nbytes(body, dls=loaders(data), variants=variants)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_other_types_of_numbers(dtype, data, body, tmp_path):
    right = batches(cached_dls(body, loaders(data), 1, False, dtype))
    with MapsFolder(tmp_path) as folder:
        kept = cached_dls(body, loaders(data), 1, False, dtype, keep=folder.keep)
        assert equal(batches(kept), right)
        assert kept.train.dataset[0][0][0].dtype == dtype


@pytest.mark.slow
def test_workers_fill_it_and_read_it(data, body, tmp_path):
    right = batches(cached_dls(body, loaders(data), 2, False))
    with MapsFolder(tmp_path) as folder:
        dls = disk_dls(body, loaders(data, 2), 2, False, folder=folder)
        kw = dict(bs=4, device='cpu', num_workers=2)
        train = CachedLoader(dls.train.dataset, shuffle=True, drop_last=True, **kw)
        valid = CachedLoader(dls.valid.dataset, **kw)
        assert equal(batches(type(dls)(train, valid, device='cpu')), right)
        assert folder.path.is_dir()  # a worker that ends removes nothing


TARGETS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(TARGETS, st.integers(0, 99))
def test_targets_of_any_sizes_come_back(counts, seed):
    g = torch.Generator().manual_seed(seed)
    targets = [
        dict(
            boxes=torch.rand(n, 4, generator=g),
            labels=torch.randint(9, (n,), generator=g),
            flags=torch.rand(n, generator=g) > 0.5,
            outlines=torch.rand(n, 3, 2, generator=g).half(),
            size=torch.tensor((n, 2)),
            image_id=torch.tensor(n + 2**40),
        )
        for n in counts
    ]
    packed = PackedTargets()
    for t in targets:
        packed.append(t)
    for i, t in enumerate(targets):
        assert list(packed[i]) == list(t)
        assert all(packed[i][k].dtype == t[k].dtype for k in t)
        assert all(packed[i][k].shape == t[k].shape for k in t)
        assert all(torch.equal(packed[i][k], t[k]) for k in t)


@pytest.mark.parametrize('side', [1, 2])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_maps_of_one_cell_and_of_any_layout(side, dtype, tmp_path):
    shapes = (5, side, side), (1, 1, 1), (3, side, 1)
    batch = [torch.rand(2, *s).to(dtype).to(memory_format=torch.channels_last) for s in shapes]
    items = [([m[i].contiguous() for m in batch], dict(labels=torch.tensor([i]))) for i in (0, 1)]
    kept = DiskMaps(tmp_path / 'a.maps', items)
    for i in (0, 1):
        assert [m.shape for m in kept[i][0]] == [*map(torch.Size, shapes)]
        assert all(torch.equal(a, b) for a, b in zip(kept[i][0], items[i][0]))


def test_what_is_read_can_be_written_to_without_changing_the_file(tmp_path):
    item = [torch.ones(2, 3, 3)], dict(labels=torch.tensor([1, 2]))
    kept = DiskMaps(tmp_path / 'a.maps', [item])
    maps, target = kept[0]
    maps[0].zero_()
    target['labels'].zero_()
    assert torch.equal(kept[0][0][0], item[0][0])
    assert torch.equal(kept[-1][1]['labels'], item[1]['labels'])


def test_too_small_a_disk_is_said_before_anything_is_written(data, body, tmp_path):
    folder = MapsFolder(tmp_path)
    need = maps_nbytes(body, loaders(data), 2)
    with pytest.raises(WriteError) as e:
        disk_dls(body, loaders(data), 2, folder=folder, free=need)
    assert f'they need {need / 1e9:.3g} GB, and {need / 1e9:.3g} GB are free there' in str(e.value)
    assert '--cache none' in str(e.value)
    assert '\n' not in str(e.value)
    assert not [*tmp_path.iterdir()]


def test_a_disk_that_fills_up_meanwhile(data, body, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(disk_cache, 'DiskMaps', full)
    with pytest.raises(WriteError, match='No space left on device.*fewer variants'):
        with MapsFolder(tmp_path) as folder:
            disk_dls(body, loaders(data), 2, False, folder=folder)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_removes(tmp_path):
    code = f"""
        import os
        from ssd_tutorial.disk_cache import MapsFolder
        folder = MapsFolder({str(tmp_path)!r})
        (folder.make() / 'x').write_text('x')
        os.kill(os.getpid(), 9)"""
    r = subprocess.run([sys.executable, '-c', textwrap.dedent(code)])
    assert r.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / 'maps-elsewhere-1-x').mkdir()  # another machine's, on a shared drive
    with MapsFolder(tmp_path) as one, MapsFolder(tmp_path) as two:
        assert one.make() != two.make()
        assert not left.exists()
    assert [p.name for p in tmp_path.iterdir()] == ['maps-elsewhere-1-x']


@pytest.mark.slow
def test_without_a_block_it_goes_when_python_ends(tmp_path):
    code = f"""
        import sys
        from ssd_tutorial.disk_cache import MapsFolder
        folder = MapsFolder({str(tmp_path)!r})
        (folder.make() / 'x').write_text('x')
        if 'error' in sys.argv: raise KeyboardInterrupt"""
    for how in ('', 'error'):
        run = [sys.executable, '-c', textwrap.dedent(code), how]
        subprocess.run(run, stderr=subprocess.DEVNULL)
        assert not [*tmp_path.iterdir()], how


# ---------------------------------------------------------------- training
def weights(det):
    return det.model.state_dict()


def alike(a, b):
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


@pytest.mark.slow
def test_a_run_is_that_of_memory_and_leaves_nothing(data, whole, tmp_path, capsys):
    (a, rows), cfg = whole, replace(FROZEN, cache='disk')
    b, more = train_detector(data, cfg, True, tmp_path / 'run' / 'd.pt')
    assert alike(a, b)
    assert [r['map50'] for r in rows] == [r['map50'] for r in more]
    assert 'go to the disk' in (said := capsys.readouterr().out)
    assert str(tmp_path / 'run') in said
    assert sorted(p.name for p in (tmp_path / 'run').iterdir()) == ['d.pt', 'last.ckpt']


class Stop(Callback):
    "As Ctrl-C after an epoch"

    order = 99

    def __init__(self, epoch, seen):
        self.at, self.seen = epoch, seen

    def after_epoch(self):
        if len(self.learn.epoch_table.rows) == self.at:
            self.seen += [p.name for p in self.folder.glob('maps-*')]
            raise KeyboardInterrupt


@pytest.fixture(scope='module')
def whole(data):
    "A run whose maps are in memory"
    return train_detector(data, replace(FROZEN, cache='memory'), False)


@pytest.mark.slow
def test_it_resumes_and_ctrl_c_leaves_nothing(data, whole, tmp_path):
    out, cfg = tmp_path / 'd.pt', replace(FROZEN, cache='disk')
    stop = Stop(1, seen := [])
    stop.folder = tmp_path
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cfg, False, out, cbs=[stop])
    assert len(seen) == 1  # there while it was needed
    assert not [*tmp_path.glob('maps-*')]
    det, rows = train_detector(data, cfg, False, out, resume=True)
    assert alike(det, whole[0])
    assert len(rows) == 3
    assert not [*tmp_path.glob('maps-*')]


@pytest.mark.slow
def test_the_command(data, tmp_path):
    save_voc(data, tmp_path / 'voc')
    args = [
        *('train --arch grid --size 64 --width 16 --epochs 1 --frozen-epochs 1').split(),
        *'--max-steps 2 --variants 1 --no-plots --anyway --cache'.split(),
    ]
    more = ['--data', str(tmp_path / 'voc'), '--out', str(tmp_path / 'd.pt')]
    r = CliRunner().invoke(main, [*args, 'disk', *more])
    assert r.exit_code == 0, r.output
    assert 'The maps of the frozen body go to the disk' in r.output
    r = CliRunner().invoke(main, [*args, 'ram', *more])
    assert r.exit_code == 2
    assert "give 'auto', 'memory', 'disk' or 'none'" in r.output


def test_modes(data, body, tmp_path, capsys):
    dls = loaders(data)
    kinds = lambda **how: type(frozen_dls(body, dls, 1, False, **how).train.dataset).__name__
    assert kinds(cache='none') == 'DetectionDataset'
    assert kinds(free=0) == 'DetectionDataset'
    assert kinds(free=0, cache='memory') == 'CachedFeatures'
    with MapsFolder(tmp_path) as folder:
        on_disk = frozen_dls(body, dls, 1, False, free=0, cache='disk', folder=folder)
        assert isinstance(on_disk.train.dataset.variants[0], DiskMaps)
    frozen_dls(body, dls, 1, free=0)
    assert '--cache disk' in capsys.readouterr().out
    with pytest.raises(DetectorError, match="cache='ram'"):
        TrainConfig(cache='ram')


RSS = """
import sys, psutil, torch
from pathlib import Path
from ssd_tutorial.cache import CachedFeatures, CachedLoader
from ssd_tutorial.disk_cache import MapsFolder
target = dict(boxes_xyxy=torch.rand(3, 4), labels=torch.tensor([1, 2, 3]),
              difficult=torch.zeros(3) > 0, crowd=torch.zeros(3) > 0,
              size_hw=torch.tensor((9, 9)), image_id=torch.tensor(7))
def items(n):
    for i in range(n):
        yield [torch.full((64, 8, 8), float(i)).half()], {k: v.clone() for k, v in target.items()}
folder = MapsFolder(sys.argv[2])
keep = folder.keep if sys.argv[1] == 'disk' else list
use = lambda n: [None for _ in CachedLoader(CachedFeatures([keep(items(n))]), bs=50, shuffle=True)]
use(200)
before = psutil.Process().memory_info().rss
kept = keep(items(10_000))
for _ in range(2):
    for batch in CachedLoader(CachedFeatures([kept]), bs=50, shuffle=True): pass
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    "10 000 images of 8 kB, kept and read twice"
    mb = lambda how: float(
        subprocess.run(
            [sys.executable, '-c', RSS, how, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    disk, memory = mb('disk'), mb('memory')
    assert memory > 80
    assert disk < 12
    assert not [p for p in Path(tmp_path).iterdir() if os.path.isdir(p)]
