"""Lines that could be wrong without any other test noticing:
each test fails where its line is changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image

from ssd_tutorial.recipes import RECIPES, Recipe
from ssd_tutorial.batches import make_dls
from ssd_tutorial.inputs import to_input
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.runs import fingerprint
from ssd_tutorial.trainer import detector_learner, new_detector, run_phase
from ssd_tutorial.nms import top_candidates
from ssd_tutorial.records import Record, generated_data
from ssd_tutorial.training import EpochTable

CFG = TrainConfig(
    arch='grid',
    size=64,
    width=8,
    body='test_efficientnet',
    weights='none',
    bs=4,
    ema=0.9,
    strength=0.1,
)


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 16, 4, size=64)


class Watch(Callback):
    """Which model sees the batches of validation, and what the best weights and the average are at
    the end of it."""

    order = 100
    seen, kept = None, None

    def before_batch(self):
        if not self.training:
            self.seen = self.learn.model

    def after_epoch(self):
        self.kept = self.learn.keep_best.best_state


def test_the_average_is_validated_and_kept(data):
    det = new_detector(data, CFG)
    watch = Watch()
    dls = make_dls(data, 64, 4, 0.1)
    learn = detector_learner(det, dls, CFG, EpochTable(False), [watch])
    learn.fit(1, 0.05)
    average = learn.average_weights.ema.module
    assert watch.seen is average
    assert learn.model is det.model
    ours, raw = average.state_dict(), det.model.state_dict()
    apart = [k for k in ours if not torch.equal(ours[k], raw[k])]
    assert len(apart) > 10  # else there would be nothing to tell apart
    assert all(torch.equal(watch.kept[k], ours[k]) for k in apart)


@pytest.mark.parametrize('field', ['boxes_px', 'labels', 'difficult', 'crowd'])
def test_fingerprint_sees_every_part_of_a_record(data, field):
    whole = fingerprint(data)['hash']
    records = list(data.train)
    i = next(i for i, r in enumerate(records) if len(r.labels))
    changed = getattr(records[i], field).copy()
    changed[0] = ~changed[0] if changed.dtype == bool else changed[0] % 3 + 1
    records[i] = replace(records[i], **{field: changed})
    other = replace(data, splits={**data.splits, 'train': records})
    assert fingerprint(other)['hash'] != whole
    assert fingerprint(data)['hash'] == whole


def test_input_is_interpolated():
    """Smaller: neighbours are averaged;
    larger: what lies between two pixels lies between their values."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = to_input(Image.fromarray(np.uint8(board)), 32)
    assert (small - 0.5).abs().max() < 0.05
    large = to_input(Image.fromarray(np.uint8([[0, 255]])), 8)[0, 0]
    assert ((large > 0.1) & (large < 0.9)).sum() >= 2
    assert (large.diff() >= 0).all()


def test_relabel_keeps_flags_with_their_objects():
    det = Detector(
        torch.nn.Identity(), ('background', 'cat', 'dog'), dict(arch='grid', body='none')
    )
    flag = np.array([True, False, True])
    record = Record(
        'a.jpg', 0, (48, 64), np.float32([[0, 0, 9, 9], [1, 1, 8, 8], [2, 2, 7, 7]]),
        np.array([1, 2, 3]), ~flag, flag, 'a.jpg', ('horse', 'dog', 'cat'), (48, 64),
    )  # fmt: skip
    (out,) = det.relabel([record], ('background', 'horse', 'dog', 'cat'))
    assert out.labels.tolist() == [2, 1]
    assert out.boxes_px[:, 0].tolist() == [1, 2]
    assert out.crowd.tolist() == [False, True]
    assert out.difficult.tolist() == [True, False]
    assert out.said == ('dog', 'cat')
    assert out.declared_hw == (48, 64)


@pytest.mark.parametrize(
    'weights,frozen,share', [('imagenet', False, 0.2), ('none', False, 1), ('imagenet', True, 1)]
)
def test_rate_of_the_body(data, weights, frozen, share, monkeypatch):
    """A body that has learnt before moves at a fifth of the head's rate;
    a random or a frozen one has no rate of its own."""
    rates = []
    fit = lambda learn, epochs, lr, body_lr, **kwargs: rates.append((epochs, lr, body_lr))
    monkeypatch.setitem(RECIPES, 'one-cycle', Recipe(fit=fit))
    dls = make_dls(data, 64, 4, 0.1)
    learn = detector_learner(new_detector(data, CFG), dls, CFG, EpochTable(False))
    run_phase(learn, dls, ('all', 3, 1e-3, frozen), replace(CFG, weights=weights), False, maps=dls)
    assert rates == [(3, 1e-3, pytest.approx(1e-3 * share))]


@pytest.mark.parametrize('n', [1, 2000])
def test_score_boundary(n):
    """A candidate's score is higher than the threshold;
    one that equals it is none, for few candidates and for many."""
    scores = torch.full((1, n, 1), 0.5)
    boxes = torch.tensor([0.1, 0.1, 0.2, 0.2]).expand(1, n, 4)
    assert len(top_candidates(scores, boxes, 0.5, 100)[0]) == 0
    scores[0, 0] = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0))
    assert len(top_candidates(scores, boxes, 0.5, 100)[0]) == 1
