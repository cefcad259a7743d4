"The NaN detective on a real detector: who did it, where, and what the guard costs"

import json
import time
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from fastai.callback.fp16 import AMPMode
from torch import nn
import ssd_tutorial.runs as runs
import ssd_tutorial.readers as readers
from ssd_tutorial.batches import make_dls
from ssd_tutorial.cli import main
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.runs import train_detector
from ssd_tutorial.trainer import detector_learner, new_detector, run_phase
from ssd_tutorial.records import generated_data
from ssd_tutorial.training import NonFiniteLoss, StopOnNonFinite, _length
from ssd_tutorial.training import EpochTable, make_learner

CFG = TrainConfig(size=64, width=32, variants=2, strength=0.3, bs=8, frozen_epochs=1, epochs=1)


def small(change=lambda data: None):
    data = generated_data('multiscale', 16, 8, size=64)
    change(data)
    return data


def fail(change=lambda data: None, ruin=lambda learn: None, frozen=True, lr=2e-3):
    "Train until it fails; its report"
    data = small(change)
    dls = make_dls(data, 64, 8, None, device='cpu')
    det = new_detector(data, CFG)
    learn = detector_learner(det, dls, CFG, EpochTable(False))
    ruin(learn)
    with pytest.raises(NonFiniteLoss) as e:
        run_phase(learn, dls, ('x', 1, lr, frozen), CFG, progress=False)
    assert 'Exception occured' not in str(e.value)
    assert str(e.value) == e.value.report.headline()
    json.loads(json.dumps(e.value.report.to_dict(), allow_nan=False))  # strict JSON
    return e.value.report, learn


@pytest.mark.parametrize('frozen', [True, False])
def test_nan_box(frozen):
    report, learn = fail(
        lambda d: d.train[5].boxes_px.__setitem__((0, 2), float('nan')), frozen=frozen
    )
    assert report.what == 'loss'
    assert report.images == [5]
    assert not report.layer
    assert 'check_records' in report.advice
    assert [(b['image_id'], b['object']) for b in report.boxes] == [(5, 0)]
    assert {a['image_id'] for a in report.anchors} == {5}
    assert all(a['box_xyxy'] == learn.model.anchors[a['anchor']].tolist() for a in report.anchors)
    assert report.terms['box'] != report.terms['box']
    assert abs(report.terms['cls']) < 1e3
    assert (5 in report.pictures) == (not frozen)  # maps are no pictures


def test_infinite_box():
    report, _ = fail(
        lambda d: (
            d.train[2].boxes_px.__setitem__((0, 0), float('-inf'))
            or d.train[2].boxes_px.__setitem__((0, 2), float('nan'))
        )
    )
    assert report.images == [2]


def break_head(value):
    def ruin(learn):
        with torch.no_grad():
            learn.model.heads[0].box.bias[0] = value

    return ruin


def test_broken_weight():
    report, _ = fail(ruin=break_head(float('nan')))
    assert 'weights are not finite' in report.advice
    assert report.layer.startswith('heads.0.box (Conv2d): input finite')


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class Root(nn.Module):  # finite forwards, an infinite slope at the zeros that dropout makes
    def forward(self, x):
        return nn.functional.dropout(x, 0.5).abs().sqrt()


def wrap(layer):
    def ruin(learn):
        learn.model.heads[0].cls = nn.Sequential(layer, learn.model.heads[0].cls)

    return ruin


def test_log_of_zero():
    report, learn = fail(ruin=wrap(Log()))
    assert report.layer.startswith('heads.0.cls.0 (Log): input finite')
    assert 'heads.0.cls.0 (Log)' in report.advice
    assert report.anchors
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


def test_gradient_alone():
    report, learn = fail(ruin=wrap(Root()))
    assert report.what == 'gradient'
    assert report.layer == 'heads.0.cls.0 (Root)'
    assert abs(report.value) < 1e3
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())  # no step was taken


def test_learning_rate():
    report, _ = fail(lr=1e12)
    assert 'ower the learning rate' in report.advice
    assert len(report.images) == 8
    assert not report.boxes


def test_broken_pixels():
    report, _ = fail(ruin=poison, frozen=False)
    assert report.images == [3]
    assert 'pixels' in report.advice
    assert 'input not finite' in report.layer


def poison(learn):
    "Picture 3 gets a NaN on its way into the batch"
    ds = learn.dls.train.dataset
    real = type(ds).__getitem__

    class Poisoned(type(ds)):
        def __getitem__(self, i):
            x, t = real(self, i)
            if i == 3:
                x[0, 0, 0] = float('nan')
            return x, t

    ds.__class__ = Poisoned


def test_huge_but_finite_gradients_are_fine():
    "Squares of 1e30 overflow, the gradients themselves do not: clipping deals with them"
    data = small()
    dls = make_dls(data, 64, 8, None, device='cpu')
    det = new_detector(data, CFG)
    learn = detector_learner(det, dls, CFG, EpochTable(False))
    real = learn.loss_func

    class Loud:
        parts = property(lambda self: real.parts)

        def __call__(self, *args):
            return real(*args) * 1e25

    learn.loss_func = Loud()
    learn.fit(1, 1e-3)
    assert torch.isinf(_length([torch.full((2,), 1e30)]))
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


def test_scaled_gradients_are_left_to_the_scaler(monkeypatch):
    """With mixed precision an infinite gradient is skipped by its scaler;
    the guard must not stop the run."""
    data = small()
    dls = make_dls(data, 64, 8, None, device='cpu')
    det = new_detector(data, CFG)
    learn = detector_learner(det, dls, CFG, EpochTable(False))
    guard = learn.stop_on_non_finite
    learn.mixed_precision = SimpleNamespace(amp_mode=AMPMode.FP16)
    for p in learn.model.parameters():
        p.grad = torch.full_like(p, float('inf'))
    guard.before_step()  # says nothing
    del learn.mixed_precision
    learn.create_opt()
    learn.xb, learn.yb = dls.train.one_batch()[:1], dls.train.one_batch()[1:]
    learn.pred = learn.model(*learn.xb)
    learn.loss = learn.loss_func(learn.pred, *learn.yb)
    learn.epoch = learn.iter = 0
    with pytest.raises(NonFiniteLoss):
        guard.before_step()


def test_batch_norm_is_left_alone():
    "The second look changes no running statistics"
    data = small(lambda d: d.train[5].boxes_px.__setitem__((0, 2), float('nan')))
    dls = make_dls(data, 64, 8, None, device='cpu')
    det = new_detector(data, CFG)
    before = []
    learn = detector_learner(det, dls, CFG, EpochTable(False))
    guard = learn.stop_on_non_finite
    stop = guard._stop

    def spy(what):
        before.append({k: v.clone() for k, v in learn.model.state_dict().items()})
        stop(what)

    object.__setattr__(guard, '_stop', spy)
    with pytest.raises(NonFiniteLoss):
        learn.fit(1, 1e-3)
    assert all(torch.equal(v, before[0][k]) for k, v in learn.model.state_dict().items())


@pytest.fixture
def plain_loaders(monkeypatch):
    "Augmentation drops a box that is no box; here it is off"
    monkeypatch.setattr(
        runs,
        'make_dls',
        lambda data, size, bs, strength, *rest, **kw: make_dls(data, size, bs, None, *rest, **kw),
    )


def test_names_and_pictures_of_a_whole_run(tmp_path, plain_loaders):
    data = small(lambda d: d.train[5].boxes_px.__setitem__((0, 2), float('nan')))
    with pytest.raises(NonFiniteLoss) as e:
        train_detector(data, CFG, False)
    report = e.value.report
    assert report.files == {5: data.train[5].file_name}
    assert report.pictures[5][0].shape == (3, 64, 64)
    assert report.draw(tmp_path / 'r.png') is not None
    assert (tmp_path / 'r.png').stat().st_size > 1000


def test_command(tmp_path, monkeypatch, plain_loaders):
    "No traceback: a few lines, exit status 2, JSON and picture beside --out"
    monkeypatch.setattr(
        readers,
        'load_dataset',
        lambda *a, **kw: small(lambda d: d.train[5].boxes_px.__setitem__((0, 2), float('nan'))),
    )
    r = CliRunner().invoke(
        main,
        [
            *'train --data generated --size 64 --epochs 1 --batch-size 8 --out'.split(),
            str(tmp_path / 'd.pt'),
        ],
    )
    assert r.exit_code == 2, r.output
    assert 'Error: The loss is nan' in r.output, r.output
    assert 'generated_00005.png' in r.output, r.output
    assert 'Traceback' not in r.output, r.output
    assert json.loads((tmp_path / 'd.nonfinite.json').read_text())['images'] == [5]
    assert (tmp_path / 'd.nonfinite.png').is_file()


def test_the_guard_costs_little():
    "Loss and gradient checks on a whole detector: under a tenth of a training step"
    data = small()
    det = new_detector(data, TrainConfig(size=64))
    grads = [p.detach().clone() for p in det.model.parameters()]
    x, y = make_dls(data, 64, 8, None, device='cpu').train.one_batch()
    learn = make_learner(
        make_dls(data, 64, 8, None, device='cpu'),
        det.model,
        lambda p, t: sum(q.square().mean() for q in p),
        cbs=[EpochTable(False)],
    )

    def step():
        loss = learn.loss_func(det.model.train()(x), y)
        loss.backward()
        det.model.zero_grad()

    def best(f, n=5):
        times = []
        for _ in range(n):
            start = time.perf_counter()
            f()
            times.append(time.perf_counter() - start)
        return min(times)

    step()
    guard, whole = best(lambda: bool(torch.isfinite(_length(grads)))), best(step)
    print(f'{guard * 1000:.1f} ms of {whole * 1000:.1f} ms')
    assert guard < whole / 10
    assert any(isinstance(cb, StopOnNonFinite) for cb in learn.cbs)
