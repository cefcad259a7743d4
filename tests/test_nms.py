"""Suppression of a whole batch equals a plain loop over images, classes and boxes"""

import numpy as np
import pytest
import torch
from ssd_tutorial.anchors import LogCoder, TanhCoder
from ssd_tutorial.boxes import iou
from ssd_tutorial.nms import detect, suppress, top_candidates


def loop(image, boxes, scores, labels, overlap, n_images, top_k=None):
    out = []
    for i in range(n_images):
        keep = []
        for c in sorted(set(labels[image == i].tolist())):
            # stable
            left = sorted(
                ((image == i) & (labels == c)).nonzero()[:, 0].tolist(),
                key=lambda k: -scores[k].item(),
            )
            while left:
                best = left.pop(0)
                keep.append(best)
                left = [
                    k
                    for k in left
                    if iou(boxes[[best]].double(), boxes[[k]].double()).item() <= overlap
                ]
        keep = sorted(keep, key=lambda k: (-scores[k].item(), k))[:top_k]
        out.append(dict(boxes_xyxy=boxes[keep], scores=scores[keep], labels=labels[keep]))
    return out


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        for k in ('boxes_xyxy', 'scores', 'labels'):
            assert torch.equal(x[k], y[k]), k


def boxes_of(rng, n, coarse):
    if coarse:
        a, size, step = rng.integers(0, 6, (n, 2)), rng.integers(1, 4, (n, 2)), 8
    else:
        a, size, step = rng.random((n, 2)) * 0.7, rng.random((n, 2)) * 0.25 + 0.02, 1
    return torch.tensor(np.concatenate([a, a + size], 1) / step).float().reshape(-1, 4)


@pytest.mark.parametrize('seed', range(60))
def test_suppress_equals_the_loop(seed):
    rng = np.random.default_rng(seed)
    coarse = seed % 2 == 0
    B, C, M = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(0, 40))
    image = torch.tensor(
        rng.integers(0, B, M) if seed % 3 else np.sort(rng.integers(0, B, M))
    ).long()  # in any order
    scores = torch.tensor(rng.integers(1, 5, M) / 4 if coarse else rng.random(M)).float()
    case = image, boxes_of(rng, M, coarse), scores, torch.tensor(rng.integers(1, C + 1, M)).long()
    for overlap in (0.0, 0.3, 0.5, 1.0):
        same(suppress(*case, overlap, n_images=B), loop(*case, overlap, B))
    same(suppress(*case, 0.5, top_k=2, n_images=B), loop(*case, 0.5, B, top_k=2))
    same(suppress(*case, None, top_k=None, n_images=B), loop(*case, 1.1, B))


def detect_loop(preds, anchors, coder, score, overlap, top_k):
    "From logits to detections one image, one class, one box at a time"
    out = []
    for logits, deltas in zip(*preds):
        p, b = logits.sigmoid(), coder.decode(deltas, anchors).clamp(0, 1)
        rows = [(a, c) for a in range(len(p)) for c in range(p.shape[1]) if p[a, c] > score]
        a, c = (torch.tensor([r[k] for r in rows]).long() for k in (0, 1))
        out += loop(torch.zeros(len(a)).long(), b[a], p[a, c], c + 1, overlap, 1, top_k)
    return out


@pytest.mark.parametrize('coder', [LogCoder(), TanhCoder()])
@pytest.mark.parametrize('seed', range(20))
def test_detect_equals_the_loop(coder, seed):
    rng = np.random.default_rng(seed)
    g = torch.Generator().manual_seed(seed)
    B, A, C = int(rng.integers(1, 4)), int(rng.integers(1, 25)), int(rng.integers(1, 4))
    logits = torch.randn(B, A, C, generator=g) * 2
    if seed % 2:
        logits = logits.round()  # ties
    if seed % 4 == 0:
        logits[0] = -9.0  # an image with nothing to say
    preds, anchors = (logits, torch.randn(B, A, 4, generator=g)), boxes_of(rng, A, True)
    same(
        detect(preds, anchors, coder, score=0.3, overlap=0.4, top_k=5),
        detect_loop(preds, anchors, coder, 0.3, 0.4, 5),
    )


def test_softmax_column_c_is_label_c_plus_1():
    logits = torch.tensor([[[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    anchors = torch.tensor([[0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.7, 0.7, 0.9, 0.9]])
    found = detect((logits, torch.zeros(1, 3, 4)), anchors, activation='softmax', score=0.5)[0]
    assert sorted(found['labels'].tolist()) == [1, 2]


@pytest.mark.parametrize('most', [1, 5, 1000])
def test_candidates_are_the_best(most):
    scores, boxes = (
        torch.rand(3, 40, 4, generator=torch.Generator().manual_seed(0)),
        torch.rand(3, 40, 4),
    )
    image, b, s, l = top_candidates(scores, boxes, 0.2, most)
    for i in range(3):
        mine = s[image == i]
        order = [(v.item(), k) for k, v in enumerate(scores[i].flatten()) if v > 0.2]
        order = sorted(order, key=lambda r: (-r[0], r[1]))[:most]
        assert mine.tolist() == [r[0] for r in order]
        assert l[image == i].tolist() == [r[1] % 4 + 1 for r in order]
        assert torch.equal(b[image == i], boxes[i][[r[1] // 4 for r in order]])


def test_ties_come_in_anchor_order():
    _, _, _, labels = top_candidates(torch.full((1, 50, 2), 0.5), torch.zeros(1, 50, 4))
    assert labels.tolist() == [1, 2] * 50


def test_nothing_at_all():
    none = torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()
    for overlap in (0.5, None):
        assert suppress(*none, overlap) == []
        found = suppress(*none, overlap, n_images=2)
        assert [tuple(f['boxes_xyxy'].shape) for f in found] == [(0, 4)] * 2


@pytest.mark.parametrize('place', [0, 1, 63])
def test_company_does_not_matter(place):
    "An image's detections are the same wherever it stands in the batch"
    rng = np.random.default_rng(3)
    corner = rng.random((15, 2)) * 0.02 + 0.5
    boxes = torch.tensor(np.concatenate([corner, corner + 0.02], 1)).float()
    scores, labels = torch.tensor(rng.random(15)).float(), torch.full((15,), 80)
    for overlap in np.linspace(0.2, 0.8, 25):
        alone = suppress(torch.zeros(15).long(), boxes, scores, labels, overlap)[0]
        same(suppress(torch.full((15,), place), boxes, scores, labels, overlap)[-1:], [alone])
