"Trackers follow a run over phases and interruptions, and change nothing of it. See lesson 26b."

import json
import subprocess
import sys
import types
from pathlib import Path
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small import Plug
from ssd_tutorial.faults import InstallError
from ssd_tutorial.cli import main
from ssd_tutorial.config import TRACKERS, DetectorError, TrainConfig
from ssd_tutorial.live import LivePlot
from ssd_tutorial.runs import train_detector
from ssd_tutorial.tracking import Tracker, find_trackers, track_folder

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(arch='multiscale', size=64, width=32, variants=2, strength=0.3, bs=8)
CFG = dict(SMALL, frozen_epochs=2, epochs=2)


def train(data, cfg, out, plug=None, resume=False):
    try:
        return train_detector(data, cfg, False, out, resume, cbs=[Plug(*plug)] if plug else [])
    except KeyboardInterrupt:
        assert plug


@pytest.fixture
def told():
    "A tracker that keeps what it is told"
    kept = []

    def make(folder, title, settings, step):
        kept.append(('open', step, title))
        return Tracker(
            lambda figures, step: kept.append(('log', step, figures)),
            lambda image, step: kept.append(('picture', step, image)),
            lambda: kept.append(('close', None, None)),
        )

    TRACKERS['told'] = make
    yield kept
    del TRACKERS['told']


def steps(kept, begins='train/'):
    return [s for w, s, f in kept if w == 'log' and any(k.startswith(begins) for k in f)]


def test_over_phases(data, told, tmp_path):
    out = tmp_path / 'r' / 'd.pt'
    det, rows = train(data, TrainConfig(**CFG, track='told'), out)
    n = len(steps(told)) // 4
    assert told[0] == ('open', 0, 'r/d')
    assert steps(told) == list(range(1, 4 * n + 1))
    assert steps(told, 'epoch/') == [n, 2 * n, 3 * n, 4 * n]
    assert [s for w, s, _ in told if w == 'picture'] == [n, 2 * n, 3 * n, 4 * n]
    assert [w for w, *_ in told].count('close') == 1
    logged = [f for w, _, f in told if w == 'log']
    epochs = [f for f in logged if 'epoch/map50' in f]
    assert [f['epoch/map50'] for f in epochs] == [r['map50'] for r in rows]
    assert all(f['epoch/map'] <= f['epoch/map50'] + 1e-9 for f in epochs)
    assert [f['epoch/epoch'] for f in epochs] == [1, 2, 3, 4]
    rates = [{k for k in f if k.startswith('rate/')} for f in logged if 'train/loss' in f]
    assert rates == [{'rate/heads'}] * 2 * n + [{'rate/body', 'rate/heads'}] * 2 * n
    assert all(np.isfinite(v) for f in logged for v in f.values())
    assert all(f['train/gradient'] > 0 for f in logged if 'train/loss' in f)
    picture = next(image for w, _, image in told if w == 'picture')
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_it_changes_nothing(data, told, tmp_path):
    "Weights and figures are those of a run that nobody follows, with an average of the weights too"
    cfg = TrainConfig(**CFG, ema=0.9)
    plain, rows = train(data, cfg, None)
    cfg.track = 'told'
    followed, same = train(data, cfg, tmp_path / 'd.pt')
    a, b = plain.model.state_dict(), followed.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [r['map50'] for r in rows] == [r['map50'] for r in same]


@pytest.mark.parametrize('plug', [(1, 1), (2, 0), (3, 1)])
def test_interrupted_it_goes_on_in_the_same_log(data, told, tmp_path, plug):
    out, cfg = tmp_path / 'd.pt', TrainConfig(**CFG, track='told')
    assert train(data, cfg, out, plug) is None
    n, before = steps(told, 'epoch/')[0], list(told)
    assert before[-1][0] == 'close'
    train(data, None, out, resume=True)
    after = told[len(before) :]
    assert after[0][:2] == ('open', plug[0] * n)
    assert steps(after) == list(range(plug[0] * n + 1, 4 * n + 1))
    assert steps(after, 'epoch/') == [n * (e + 1) for e in range(plug[0], 4)]


def test_resumed_with_another_tracker(data, told, tmp_path):
    out = tmp_path / 'd.pt'
    train(data, TrainConfig(**CFG), out, (3, 0))
    assert not track_folder(out).exists()
    train(data, TrainConfig(track='told'), out, resume=True)
    assert steps(told, 'epoch/')
    assert told[0][1] == 3 * steps(told, 'epoch/')[0] // 4


def test_several_at_once_and_a_sweep(data, told, tmp_path):
    "The sweep of the learning rate is not told"
    TRACKERS['again'] = TRACKERS['told']
    cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0, lr='find', track='told,again')
    train(data, cfg, tmp_path / 'd.pt')
    assert [w for w, *_ in told].count('open') == 2
    assert len(steps(told)) == 2 * max(steps(told))
    del TRACKERS['again']


def test_the_log_of_another_run_is_put_aside(data, told, tmp_path):
    out = tmp_path / 'd.pt'
    for i in range(3):
        folder = track_folder(out)
        cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0, track='told')
        train(data, cfg, out)
        (folder / 'note').write_text(str(i))
    kept = sorted(p for p in tmp_path.iterdir() if p.is_dir())
    assert [p.name for p in kept] == ['d_track', 'd_track.old', 'd_track.old1']
    assert [(p / 'note').read_text() for p in kept] == ['2', '0', '1']


def test_names():
    with pytest.raises(DetectorError, match="No tracker 'paper'; there are"):
        find_trackers('paper')
    with pytest.raises(DetectorError, match="track='': give 'none'"):
        TrainConfig(track='')
    assert TrainConfig(track='wandb,clearml').track == 'wandb,clearml'


@pytest.mark.parametrize('name', ['tensorboard', 'wandb', 'clearml', 'trackio'])
def test_a_missing_package_is_one_line(name, monkeypatch, tmp_path):
    "Before the data set is read; a folder of that name is no package either"
    module = dict(tensorboard='torch.utils.tensorboard').get(name, name)
    monkeypatch.setitem(sys.modules, module, None)
    args = ['train', '--data', 'nowhere', '--track', name, '--out', str(tmp_path / 'd.pt')]
    r = CliRunner().invoke(main, args, catch_exceptions=False)
    assert r.exit_code == 2
    assert len(r.output.splitlines()) == 1
    assert f'--track {name}: the package {name} is not installed.' in r.output
    assert 'ssd_tutorial[track]' in r.output
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    with pytest.raises(InstallError, match='is not installed'):
        find_trackers(name)


def test_trackio_by_a_stand_in(data, monkeypatch, tmp_path):
    "It holds Pillow below 13, so it is not among the packages for development"
    calls = []
    fake = types.ModuleType('trackio')
    for name in ('init', 'log', 'finish'):
        setattr(fake, name, lambda *a, _name=name, **kw: calls.append((_name, a, kw)))
    fake.Image = lambda image: ('image', image.shape)
    monkeypatch.setitem(sys.modules, 'trackio', fake)
    monkeypatch.delenv('TRACKIO_DIR', raising=False)
    out = tmp_path / 'r' / 'detector.pt'
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=0, track='trackio')
    train(data, cfg, out, (1, 1))
    train(data, None, out, resume=True)
    inits = [kw for name, _, kw in calls if name == 'init']
    assert [kw['resume'] for kw in inits] == ['never', 'allow']
    assert {kw['name'] for kw in inits} == {'r/detector'}
    assert inits[0]['config']['width'] == 32
    assert [name for name, *_ in calls].count('finish') == 2
    logged = [(kw['step'], a[0]) for name, a, kw in calls if name == 'log']
    assert [s for s, f in logged if 'epoch/map50' in f] == [2, 4]
    assert [s for s, f in logged if f.get('predictions', '')[:1] == ('image',)] == [2, 4]


def test_tensorboard(data, tmp_path, capfd):
    pytest.importorskip('tensorboard', reason='needs pip install "ssd_tutorial[track]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / 'd.pt'
    train(data, TrainConfig(**CFG, track='tensorboard'), out, (3, 1))
    det, rows = train(data, None, out, resume=True)
    assert capfd.readouterr() == ('', '')
    log = EventAccumulator(str(track_folder(out)), size_guidance=dict(scalars=0, images=0))
    log.Reload()
    n = len(log.Scalars('train/loss')) // 4
    for tag in ('train/loss', 'train/gradient', 'rate/heads'):
        assert [e.step for e in log.Scalars(tag)] == list(range(1, 4 * n + 1)), tag
    assert [e.step for e in log.Images('predictions')] == [n, 2 * n, 3 * n, 4 * n]
    values = [e.value for e in log.Scalars('epoch/map50')]
    assert values == pytest.approx([r['map50'] for r in rows], abs=1e-6)
    text = log.Tensors('settings/text_summary')[0].tensor_proto.string_val[0].decode()
    assert '| width | 32 |' in text


def test_wandb_offline(data, tmp_path, capfd, monkeypatch):
    pytest.importorskip('wandb', reason='needs pip install "ssd_tutorial[track]"')
    monkeypatch.delenv('WANDB_MODE', raising=False)
    out = tmp_path / 'd.pt'
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=0, track='wandb')
    train(data, cfg, out, (1, 1))
    train(data, None, out, resume=True)
    assert capfd.readouterr() == ('', '')
    runs = sorted(p.name for p in (track_folder(out) / 'wandb').glob('offline-run-*'))
    assert len(runs) == 2
    assert len({name.rpartition('-')[2] for name in runs}) == 1  # one run, by its id
    pictures = list(track_folder(out).glob('wandb/offline-run-*/files/media/images/*.png'))
    assert len(pictures) == 2


def test_clearml_offline(data, tmp_path, capfd, monkeypatch):
    pytest.importorskip('clearml', reason='needs pip install "ssd_tutorial[track]"')
    monkeypatch.delenv('CLEARML_CACHE_DIR', raising=False)
    out = tmp_path / 'd.pt'
    cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0, track='clearml')
    det, rows = train(data, cfg, out)
    assert capfd.readouterr() == ('', '')
    (log,) = track_folder(out).glob('offline/*/metrics.jsonl')
    events = [e for line in log.read_text().splitlines() for e in json.loads(line)]
    scalars = {(e['metric'], e['variant'], e['iter']): e['value'] for e in events if 'value' in e}
    assert scalars['epoch', 'map50', 2] == pytest.approx(rows[0]['map50'])
    assert ('train', 'loss', 1) in scalars
    assert len(list(track_folder(out).glob('offline/*.zip'))) == 1


@pytest.mark.slow
def test_no_tracker_is_imported_unless_it_is_asked_for():
    "wandb is not among them: timm imports it, where it is installed"
    code = """
import sys
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import train_detector
data = generated_data('multiscale', 8, 4, size=64)
cfg = TrainConfig(arch='multiscale', size=64, width=16, frozen_epochs=1, epochs=0, variants=1)
train_detector(data, cfg, False)
import ssd_tutorial.tracking, ssd_tutorial.live
print([m for m in ('tensorboard', 'clearml', 'trackio') if m in sys.modules])
"""
    r = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    assert r.stdout.strip() == '[]', r.stdout + r.stderr


def test_a_plot_where_there_is_no_notebook(data, capfd):
    live = LivePlot()
    cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0)
    train_detector(data, cfg, False, cbs=[live])
    assert live.batches == []
    assert live.handle is None
    assert capfd.readouterr() == ('', '')


def test_a_plot_in_a_notebook(data, monkeypatch):
    "One display, replaced in place, over both phases"
    import IPython.display

    shown, updated = [], []

    class Handle:
        def update(self, picture):
            updated.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    monkeypatch.setattr('ssd_tutorial.live.in_notebook', lambda: True)
    monkeypatch.setattr(IPython.display, 'display', display)
    live = LivePlot(every=1e9)
    det, rows = train_detector(data, TrainConfig(**CFG), False, cbs=[live])
    assert len(shown) == 1
    assert len(updated) == 4  # one within the first epoch, then one after each
    x, losses = zip(*live.batches)
    assert list(x) == sorted(x)
    assert x[-1] == 4
    assert all(p.data[:4] == b'\x89PNG' for p in shown + updated)
