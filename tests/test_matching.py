"""`match` against a referee in plain Python with exact fractions;
the loss on images without objects."""

import random
from fractions import Fraction
from functools import partial

import pytest
import torch

from ssd_tutorial.anchors import GRID16, LogCoder, TanhCoder, make_anchors
from ssd_tutorial.grid import bce, softmax_loss, ssd_loss
from ssd_tutorial.matching import (
    BACKGROUND,
    IGNORED,
    assign_targets,
    force_match,
    match,
    pair_ranks,
)

# boxes lie on a 16×16 grid, so float32 holds every area exactly and equal overlaps are equal
SIDE = 16


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return w * h if w > 0 and h > 0 else 0


def referee(anchors, objects, labels, crowd, threshold=0.5, neg_threshold=None, force=True):
    "Owner of each anchor of one image; boxes are lists of four whole numbers"
    real = [n for n in range(len(labels)) if labels[n] > 0 and not crowd[n]]
    over = {
        (n, a): Fraction(shared(o, b), area(o) + area(b) - shared(o, b))
        for n, o in enumerate(objects)
        if n in real
        for a, b in enumerate(anchors)
    }
    owner = []
    for a, box in enumerate(anchors):
        best = max([over[n, a] for n in real], default=Fraction(0))
        if best >= threshold:
            owner.append(next(n for n in real if over[n, a] == best))
            continue
        doubt = neg_threshold is not None and best >= neg_threshold
        inside = any(2 * shared(o, box) >= area(box) for n, o in enumerate(objects) if crowd[n])
        owner.append(IGNORED if doubt or inside else BACKGROUND)
    if not force:
        return owner
    served, taken = set(), set()
    for _, n, a in sorted((-v, n, a) for (n, a), v in over.items() if v > 0):
        if n in served or a in taken:
            continue
        owner[a] = n
        served.add(n)
        taken.add(a)
    return owner


def random_box(rng, side=SIDE):
    w, h = rng.randint(1, side), rng.randint(1, side)
    x, y = rng.randint(0, side - w), rng.randint(0, side - h)
    return [x, y, x + w, y + h]


def random_case(rng):
    "Anchors, and a padded batch that is likely to hold every difficulty"
    side = rng.choice([3, 6, SIDE])  # a small field makes ties and identical boxes common
    n_anchors, n_objects, batch = rng.randint(1, 14), rng.randint(0, 7), rng.randint(1, 5)
    anchors = [random_box(rng, side) for _ in range(n_anchors)]
    if rng.random() < 0.3:
        anchors += anchors[: rng.randint(1, n_anchors)]
    objects = [
        [
            rng.choice(anchors) if rng.random() < 0.2 else random_box(rng, side)
            for _ in range(n_objects)
        ]
        for _ in range(batch)
    ]
    for o in objects:
        if o and rng.random() < 0.4:
            o[-1] = o[0]
    labels = [
        [0 if rng.random() < 0.25 else rng.randint(1, 3) for _ in range(n_objects)]
        for _ in range(batch)
    ]
    crowd = [[rng.random() < 0.15 for _ in range(n_objects)] for _ in range(batch)]
    return anchors, objects, labels, crowd


def run_match(anchors, objects, labels, crowd, **settings):
    shape = len(labels), len(labels[0])
    return match(
        torch.tensor(anchors).float() / SIDE,
        torch.tensor(objects).float().reshape(*shape, 4) / SIDE,
        torch.tensor(labels).reshape(shape).long(),
        torch.tensor(crowd).reshape(shape).bool(),
        **settings,
    ).tolist()


@pytest.mark.parametrize('seed', range(8))
def test_match_equals_referee(seed):
    rng, images = random.Random(seed), 0
    for _ in range(250):
        case = random_case(rng)
        threshold = rng.choice([0.25, 0.5, 0.5, 0.75])
        settings = dict(
            threshold=threshold,
            neg_threshold=rng.choice([None, None, threshold / 2, threshold]),
            force=rng.random() < 0.8,
        )
        expected = [referee(case[0], o, l, c, **settings) for o, l, c in zip(*case[1:])]
        assert run_match(*case, **settings) == expected, (case, settings)
        images += len(expected)
    assert images > 500


def test_a_referee_that_differs_is_noticed():
    rng = random.Random(0)
    differ = 0
    for _ in range(100):
        case = random_case(rng)
        differ += run_match(*case) != [
            referee(case[0], o, l, c, threshold=0.75) for o, l, c in zip(*case[1:])
        ]
    assert differ > 10


def one(anchors, objects, labels=None, crowd=None, **kw):
    labels = labels or [1] * len(objects)
    return run_match(anchors, [objects], [labels], [crowd or [False] * len(objects)], **kw)[0]


def test_no_objects():
    assert one([[0, 0, 4, 4]], [[0, 0, 0, 0]], [0]) == [BACKGROUND]
    assert run_match([[0, 0, 4, 4]], [[], []], [[], []], [[], []]) == [[BACKGROUND]] * 2


def test_padding_anywhere():
    a = [[0, 0, 4, 4], [8, 8, 12, 12]]
    assert one(a, [[0, 0, 4, 4], [8, 8, 12, 12]], [0, 2]) == [BACKGROUND, 1]
    assert one(a, [[0, 0, 4, 4], [8, 8, 12, 12]], [2, 0]) == [0, BACKGROUND]


def test_two_objects_share_their_best_anchor_and_both_keep_one():
    anchors, disc, star = [[1, 2, 7, 7], [1, 1, 5, 7]], [1, 1, 7, 7], [2, 3, 7, 7]
    assert one(anchors, [disc, star]) == [0, 1]
    assert one(anchors, [star, disc]) == [1, 0]


def test_more_objects_than_anchors_nearby():
    owner = one([[0, 0, 4, 4], [12, 12, 16, 16]], [[0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 3, 4]])
    assert owner == [0, BACKGROUND]  # the far anchor touches none of them and stays background


def test_identical_boxes_each_keep_one():
    assert one([[0, 0, 4, 4]] * 3, [[0, 0, 4, 4]] * 3) == [0, 1, 2]
    assert one([[0, 0, 4, 4]] * 2, [[0, 0, 4, 4]] * 3) == [0, 1]


def test_ties_go_to_the_earlier_object_then_the_earlier_anchor():
    assert one([[0, 0, 2, 2], [2, 0, 4, 2]], [[0, 0, 4, 2]], threshold=0.75) == [0, BACKGROUND]
    assert one([[0, 0, 4, 4]], [[0, 0, 4, 2], [0, 2, 4, 4]]) == [0]


def test_crowd_is_neither_learnt_nor_background():
    anchors = [[0, 0, 4, 4], [2, 0, 6, 4], [12, 12, 16, 16]]
    assert one(anchors, [[0, 0, 4, 8]], crowd=[True]) == [IGNORED, IGNORED, BACKGROUND]
    assert one(anchors, [[0, 0, 4, 8], [0, 0, 4, 4]], crowd=[True, False]) == [
        1,
        IGNORED,
        BACKGROUND,
    ]


def test_forced_pairs_overrule_the_band_of_doubt():
    assert one(
        [[0, 0, 4, 4], [4, 0, 8, 4]], [[0, 0, 8, 4]], threshold=0.75, neg_threshold=0.25
    ) == [0, IGNORED]


@pytest.mark.parametrize(
    'settings',
    [dict(threshold=0.0), dict(threshold=1.5), dict(neg_threshold=0.6), dict(neg_threshold=-0.1)],
)
def test_impossible_thresholds(settings):
    with pytest.raises(ValueError, match='threshold'):
        one([[0, 0, 4, 4]], [[0, 0, 4, 4]], **settings)


def test_ranks_are_strict_and_follow_overlap():
    overlaps = torch.randint(0, 5, (3, 6, 40)) / 4
    rank = pair_ranks(overlaps)
    assert all(len(r.unique()) == r.numel() for r in rank)
    for r, o in zip(rank.flatten(1), overlaps.flatten(1)):
        assert (o[r.argsort(descending=True)].diff() <= 0).all()


def test_forced_anchors_are_owned_once():
    overlaps = torch.rand(4, 20, 12)
    owner = force_match(overlaps, torch.ones(4, 20).bool())
    assert (owner >= 0).all()  # twenty objects want twelve anchors: all are given away
    assert all(len(o.unique()) == 12 for o in owner)


# ---------------------------------------------------------------- the loss built on it
def make_targets(boxes, labels, crowd=None):
    labels = torch.tensor(labels).long()
    boxes = torch.tensor(boxes).float().reshape(*labels.shape, 4)
    return dict(
        boxes_xyxy=boxes,
        labels=labels,
        crowd=torch.zeros_like(labels).bool() if crowd is None else torch.tensor(crowd),
    )


ANCHORS = make_anchors(GRID16)
TARGETS = dict(
    all_empty=make_targets([[], []], torch.zeros(2, 0).tolist()),
    padded_empty=make_targets([[[0.0, 0, 0, 0]], [[0, 0, 0, 0]]], [[0], [0]]),
    one_empty=make_targets([[[0.1, 0.1, 0.4, 0.4]], [[0, 0, 0, 0]]], [[2], [0]]),
    only_crowd=make_targets([[[0.0, 0, 1, 1]], [[0, 0, 1, 1]]], [[1], [1]], [[True], [True]]),
    a_sliver=make_targets([[[0.5, 0.5, 0.5001, 0.5001]], [[0, 0, 1, 1]]], [[1], [3]]),
)


@pytest.mark.parametrize('coder', [LogCoder(), TanhCoder()], ids=['log', 'tanh'])
@pytest.mark.parametrize('loss', [bce, softmax_loss], ids=['bce', 'softmax'])
@pytest.mark.parametrize('name', TARGETS)
def test_loss_and_gradients_are_finite(name, loss, coder):
    torch.manual_seed(0)
    logits = torch.randn(2, 16, 3 + (loss is softmax_loss), requires_grad=True)
    deltas = (torch.randn(2, 16, 4) * 10).requires_grad_()
    total, parts = ssd_loss((logits, deltas), TARGETS[name], ANCHORS, coder, loss)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p) for p in parts.values())
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(deltas.grad).all()
    # background teaches the classes; ignored anchors teach nothing
    assert (logits.grad.abs().sum() > 0) == (name != 'only_crowd')
    assert (deltas.grad.abs().sum() > 0) == (name in ('one_empty', 'a_sliver'))


def test_matching_by_threshold_alone_can_leave_everything_background():
    owner = match(ANCHORS, torch.tensor([[[0.0, 0, 1, 1]]]), torch.ones(1, 1).long(), force=False)
    assert (owner == BACKGROUND).all()
    boxes, labels = assign_targets(owner, torch.tensor([[[0.0, 0, 1, 1]]]), torch.ones(1, 1).long())
    assert (labels == 0).all()
    assert boxes.shape == (1, 16, 4)
    targets = make_targets([[[0.0, 0, 1, 1]]], [[1]])
    total, parts = ssd_loss(
        (torch.zeros(1, 16, 3), torch.zeros(1, 16, 4)),
        targets,
        ANCHORS,
        matcher=partial(match, force=False),
    )
    assert torch.isfinite(total)
    assert parts['box'] == 0
