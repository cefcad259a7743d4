"""Rare classes: the weights, the draws, and both in a whole training"""

import random
from dataclasses import replace
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from fastai.callback.core import Callback
from ssd_tutorial.balance import (
    balance_training,
    class_factors,
    class_weights,
    objects_per_class,
    draw_repeated,
    effective_number,
    repeat_factors,
    share_of_images,
    train_labels,
    weigh_classes,
)
from ssd_tutorial.batches import make_dls
from ssd_tutorial.body import make_body
from ssd_tutorial.cache import CachedFeatures, CachedLoader, cached_dls
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.grid import bce, softmax_loss
from ssd_tutorial.recipes import find_loss
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import read_last, settings_of, train_detector
from ssd_tutorial.voc import save_voc

SMALL = dict(size=64, width=32, variants=2, strength=0.3, bs=8, frozen_epochs=1, epochs=1)


@pytest.fixture(scope='module')
def data():
    return generated_data('rare', 30, 8, seed=5, size=64)


def index(draw):
    return draw[0] if isinstance(draw, tuple) else draw


@pytest.mark.parametrize('beta', [0, 0.5, 0.9, 0.99, 0.9999, 1])
@pytest.mark.parametrize('seed', range(5))
def test_the_mean_weight_over_the_objects_is_1(beta, seed):
    counts = np.random.default_rng(seed).integers(0, 10 ** (1 + seed), 12)
    w = class_weights(counts, beta)
    assert (counts * w).sum() / counts.sum() == pytest.approx(1)
    order = np.argsort(counts)
    assert (np.diff(w[order]) <= 1e-12).all()  # the rarer, the heavier


def test_limits_of_beta():
    counts = np.array([1, 7, 300, 4000])
    assert class_weights(counts, 0) == pytest.approx(np.ones(4))
    assert class_weights(counts, 1e-9) == pytest.approx(np.ones(4))
    inverse = counts.sum() / (4 * counts)
    assert class_weights(counts, 1) == pytest.approx(inverse)
    assert class_weights(counts, 1 - 1e-9) == pytest.approx(inverse, rel=1e-4)
    assert effective_number([3], 0.5) == pytest.approx([1.75])


@pytest.mark.parametrize('counts', [[0, 0], [], [0, 5]])
def test_classes_without_objects_weigh_something_finite(counts):
    assert np.isfinite(class_weights(counts)).all()
    assert len(class_weights(counts)) == len(counts)


@pytest.mark.parametrize('loss', ['bce', 'focal', 'softmax', 'multibox'])
def test_weights_of_1_give_the_very_same_loss(loss):
    activation, make = find_loss(loss)
    cls_loss, g = make(TrainConfig()), torch.Generator().manual_seed(0)
    logits = torch.randn(3, 200, 4 + (activation == 'softmax'), generator=g)
    labels = torch.randint(-1, 5, (3, 200), generator=g) * (torch.rand(3, 200, generator=g) < 0.2)
    plain = cls_loss(logits, labels)
    assert torch.equal(weigh_classes(cls_loss, [1] * 4)(logits, labels), plain)
    more = weigh_classes(cls_loss, [1, 3, 1, 1])(logits, labels)
    own = labels == 2
    assert more.item() == pytest.approx(
        (plain + 2 * cls_loss(logits[own][None], labels[own][None])).item(), rel=1e-5
    )
    assert more > plain
    none = torch.zeros_like(labels)
    assert torch.equal(
        weigh_classes(cls_loss, [9] * 4)(logits, none), cls_loss(logits, none)
    )  # background counts once


def test_weighted_softmax_is_torchs():
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 60, 4, generator=g, requires_grad=True)
    labels, w = torch.randint(0, 4, (2, 60), generator=g), [0.5, 2.0, 7.0]
    ours = weigh_classes(softmax_loss, w)(logits, labels)
    weight = torch.tensor([1.0, *w])
    theirs = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight, reduction='sum')
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    a, b = (torch.autograd.grad(x, logits)[0] for x in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5)


def test_repeat_factors_by_hand():
    labels = [[1]] * 16 + [[1, 2]] * 3 + [[2, 3]]  # shares 19/20, 4/20, 1/20
    f = share_of_images(labels, 3)
    assert f == pytest.approx([0.95, 0.2, 0.05])
    r = class_factors(f)  # t: the median, 0.2
    assert r == pytest.approx([1, 1, 2])
    assert repeat_factors(labels, r).tolist() == [1] * 19 + [2]
    r = class_factors(f, t=0.45)
    assert r == pytest.approx([1, 1.5, 3])
    assert repeat_factors(labels, r).tolist() == [1] * 16 + [1.5] * 3 + [3]
    assert repeat_factors([[]], r).tolist() == [1]
    assert objects_per_class(labels, 4).tolist() == [19, 4, 1, 0]
    assert class_factors([0.0, 0.0]).tolist() == [1, 1]


@pytest.mark.parametrize('seed', range(3))
def test_draws_are_as_asked_on_average_and_never_far_from_it(seed):
    rng = np.random.default_rng(seed)
    factors, source, epochs = 1 + 4 * rng.random(37) ** 3, random.Random(seed), 1500
    expected, total = factors * 37 / factors.sum(), np.zeros(37)
    for _ in range(epochs):
        drawn = draw_repeated([*range(37)], source, factors)
        assert len(drawn) == 37
        assert len({*drawn}) == 37  # a second copy has a number of its own
        times = np.bincount([*map(index, drawn)], minlength=37)
        assert (abs(times - expected) < 1 + 1e-9).all()  # rounded up or down
        total += times
    assert abs(total / epochs - expected).max() < 0.06


def test_a_copy_looks_different(data):
    ds = make_dls(data, 64, 8, 0.5).train.dataset
    assert (ds[3][0] != ds[3, 1][0]).any()
    assert torch.equal(ds[3, 1][0], ds[3, 1][0])
    kept = CachedFeatures([['a0', 'b0'], ['a1', 'b1']])
    assert [kept[1], kept[1, 1], kept[1, 2]] == ['b0', 'b1', 'b0']


@pytest.mark.parametrize('workers', [0, 2])
def test_the_loader_shows_rare_classes_more_often(data, workers):
    dls = make_dls(data, 64, 8, 0.3, workers, device='cpu')
    labels, n_batches = train_labels(dls.train.dataset), len(dls.train)
    balance_training('repeat', dls.train, bce, data.vocab)
    expected = repeat_factors(labels, class_factors(share_of_images(labels, 6)))
    expected *= len(labels) / expected.sum()
    seen, epochs = np.zeros(len(labels)), 4 if workers else 60
    at = {r.image_id: i for i, r in enumerate(data.train)}
    for _ in range(epochs):
        batches = [y['image_id'].tolist() for _, y in dls.train]
        assert [len(b) for b in batches] == [8] * n_batches  # the odd ones are dropped
        seen += np.bincount([at[i] for b in batches for i in b], minlength=len(labels))
    share = n_batches * 8 / len(labels)
    assert abs(seen / epochs - expected * share).max() < (0.25 if not workers else 1)
    rare = expected.argmax()
    assert seen[rare] > 1.3 * np.median(seen)


def test_cached_maps_are_drawn_as_the_images(data):
    dls = make_dls(data, 64, 8, 0.3, device='cpu')
    balance_training('repeat', dls.train, bce, data.vocab)
    maps = cached_dls(make_body().freeze(), dls, 2, progress=False)
    assert isinstance(maps.train, CachedLoader)
    assert maps.train.draw is dls.train.draw
    rare = {r.image_id for r in data.train if 6 in r.labels}
    assert rare
    ids = [i for _ in range(40) for _, y in maps.train for i in y['image_id'].tolist()]
    often = sum(i in rare for i in ids) / 40
    assert often > 1.3 * len(rare)
    kept = objects_per_class(train_labels(maps.valid.dataset), 6)
    assert kept.tolist() == objects_per_class([r.labels for r in data.valid], 6).tolist()


def test_crowd_regions_are_not_counted(data):
    ds = make_dls(data, 64, 8, None).train.dataset
    before = objects_per_class(train_labels(ds), 6).sum()
    full = next(r for r in ds.records if len(r.labels))
    crowd, n = full.crowd.copy(), int((~full.crowd).sum())
    full.crowd[:] = True
    try:
        assert objects_per_class(train_labels(ds), 6).sum() == before - n
    finally:
        full.crowd[:] = crowd


class PullPlug(Callback):
    "Raises before a training batch of the epoch with this number"

    order = 5

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def before_batch(self):
        if self.training and (len(self.learn.epoch_table.rows), self.learn.iter) == self.at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize('balance', ['repeat', 'weights'])
def test_an_interrupted_run_goes_on_with_the_same_draws(data, tmp_path, balance):
    cfg = TrainConfig(**{**SMALL, 'frozen_epochs': 2, 'epochs': 2}, balance=balance)
    whole, rows = train_detector(data, cfg, False)
    out, plugs = tmp_path / 'd.pt', [(1, 1), (3, 1)]
    for resume, plug in enumerate(plugs):
        with pytest.raises(KeyboardInterrupt):
            train_detector(data, cfg, False, out, bool(resume), cbs=[PullPlug(*plug)])
    again, more = train_detector(data, TrainConfig(), False, out, True)
    plain = lambda rs: [{k: v for k, v in r.items() if k != 'seconds'} for r in rs]
    assert plain(more) == plain(rows)
    assert settings_of(read_last(out)).balance == balance
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert max(float((a[k].double() - b[k].double()).abs().max()) for k in a) <= 1e-5
    last = read_last(out)
    del last['cfg']['balance']  # of a version without it
    assert settings_of(last).balance == 'none'


@pytest.mark.slow
def test_with_val_its_images_count(data, capsys):
    cfg = TrainConfig(**SMALL, balance='weights', max_steps=1)
    for with_val, records in ((False, data.train), (True, data.train + data.valid)):
        train_detector(data, replace(cfg, with_val=with_val))
        n = sum(len(r.labels) for r in records)
        assert f'of {n} objects; each weighs' in capsys.readouterr().out


@pytest.mark.slow
def test_the_command(data, tmp_path):
    save_voc(data, tmp_path / 'set')
    base = ['train', '--data', tmp_path / 'set', '--size', 64, '--max-steps', 2]
    base += ['--batch-size', 8, '--width', 32, '--device', 'cpu']
    run = lambda *more: CliRunner().invoke(main, [str(a) for a in (*base, *more)])
    for balance, says in (
        ('repeat', 'times as often'),
        ('weights', 'times as much as one of'),
        ('none', ''),
    ):
        out = tmp_path / balance / 'd.pt'
        found = run('--balance', balance, '--out', out)
        assert found.exit_code == 0, found.output
        assert ('Balance: ' in found.output) == (balance != 'none')
        assert says in found.output
        assert out.is_file()
        assert read_last(out)['cfg']['balance'] == balance
    found = run('--balance', 'often', '--out', tmp_path / 'no' / 'd.pt')
    assert found.exit_code != 0
    assert "give 'none', 'weights' or 'repeat'" in ' '.join(found.output.split())
    assert not (tmp_path / 'no').exists()


@pytest.mark.parametrize('value', ['often', '', None, 1, True])
def test_refused(value):
    with pytest.raises(DetectorError, match='balance='):
        TrainConfig(balance=value)


@pytest.mark.parametrize('beta', [-0.1, 1.1])
def test_beta_is_a_share(beta):
    with pytest.raises(ValueError, match='from 0 to 1'):
        effective_number([1], beta)
