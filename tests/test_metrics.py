"""mAP equals the official evaluators on random and on adversarial data sets"""

import contextlib, io, json, warnings
import numpy as np
import pytest
import torch
from ssd_tutorial.boxes import iou
from ssd_tutorial.metrics import (
    AP_STYLES,
    average_precision,
    class_ap,
    evaluate_found,
    judge,
    precision_recall,
    truth_of,
    voc_map,
)
from ssd_tutorial.records import make_record
from ssd_tutorial.coco_map import library_map, to_coco_results, to_coco_truth

C = 3
VOCAB = ('background', 'a', 'b', 'c')


def grid_boxes(rng, n):
    "Corners on eighths: ties, and overlaps of exactly ½"
    a, size = rng.integers(0, 6, (n, 2)), rng.integers(1, 4, (n, 2))
    return np.concatenate([a, a + size], 1) / 8


def free_boxes(rng, n):
    a, size = rng.random((n, 2)) * 0.7, rng.random((n, 2)) * 0.25 + 0.03
    return np.concatenate([a, a + size], 1)


def truth(boxes, labels, difficult=None, crowd=None, size=256):
    n = len(labels)
    flag = lambda f: torch.tensor([False] * n if f is None else list(f), dtype=torch.bool)
    return dict(
        boxes_xyxy=torch.tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(np.asarray(labels)).long().reshape(-1),
        difficult=flag(difficult),
        crowd=flag(crowd),
        size_hw=torch.tensor([size, size]),
    )


def detections(boxes, scores, labels):
    return dict(
        boxes_xyxy=torch.tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(np.asarray(scores), dtype=torch.float32).reshape(-1),
        labels=torch.tensor(np.asarray(labels)).long().reshape(-1),
    )


def random_set(seed, n_images=6, most=14, flags=True, coarse=True):
    rng = np.random.default_rng(seed)
    boxes = grid_boxes if coarse else free_boxes
    found, truths = [], []
    for _ in range(n_images):
        n, m = rng.integers(0, 5), rng.integers(0, most + 1)
        t = truth(
            boxes(rng, n),
            rng.integers(1, C + 1, n),
            rng.random(n) < 0.3 * flags,
            rng.random(n) < 0.2 * flags,
        )
        b = boxes(rng, m)
        if n:  # most detections sit on or near an object
            on = rng.random(m) < 0.6
            near = t['boxes_xyxy'].numpy()[rng.integers(0, n, m)]
            if not coarse:
                near = near + rng.normal(0, 0.02, near.shape)
                near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.01)
            b = np.where(on[:, None], near, b)
        found.append(
            detections(
                b, rng.integers(1, 9, m) / 8 if coarse else rng.random(m), rng.integers(1, C + 1, m)
            )
        )
        truths.append(t)
    return found, truths


NONE = detections([], [], [])
A, B = (0.1, 0.1, 0.5, 0.5), (0.5, 0.5, 0.9, 0.9)
ADVERSARIAL = dict(
    no_detections=([NONE, NONE], [truth([A], [1]), truth([B], [2])]),
    no_objects=([detections([A, B], [0.9, 0.8], [1, 2])] * 2, [truth([], [])] * 2),
    nothing_at_all=([NONE] * 2, [truth([], [])] * 2),
    all_difficult=([detections([A, A], [0.9, 0.8], [1, 1])], [truth([A, B], [1, 1], [1, 1])]),
    all_crowd=(
        [detections([A, (0.2, 0.2, 0.3, 0.3)], [0.9, 0.8], [1, 1])],
        [truth([A, B], [1, 1], None, [1, 1])],
    ),
    crowd_beside_object=(
        [detections([A, A, (0.15, 0.15, 0.3, 0.3), B], [0.9, 0.8, 0.7, 0.6], [1] * 4)],
        [truth([A, (0, 0, 0.6, 0.6)], [1, 1], None, [0, 1])],
    ),
    difficult_twice=(
        [detections([A, A, B], [0.9, 0.8, 0.7], [1] * 3)],
        [truth([A, B], [1, 1], [1, 0])],
    ),
    all_ties=(
        [detections([A, B, A, B, (0.6, 0.1, 0.8, 0.3)], [0.5] * 5, [1] * 5)] * 3,
        [truth([A, B], [1, 1])] * 3,
    ),
    same_box_twice=([detections([A, A], [0.9, 0.8], [1, 1])], [truth([A, A], [1, 1])]),
    over_100=(
        [detections([B] * 150 + [A], np.linspace(0.99, 0.1, 151), [1] * 151)],
        [truth([A], [1])],
    ),
    over_100_classes=(
        [detections([B] * 150 + [A], np.linspace(0.99, 0.1, 151), [2] * 150 + [1])],
        [truth([A], [1])],
    ),
    one_class_only=([detections([A], [0.9], [3])], [truth([A], [3])]),
    wrong_class=([detections([A], [0.9], [2])], [truth([A], [1])]),
    point_box=([detections([(0.3, 0.3, 0.3, 0.3), A], [0.9, 0.8], [1, 1])], [truth([A], [1])]),
)


def own(found, truths):
    each = [voc_map(found, truths, C, t, 'coco101', 'coco') for t in np.linspace(0.5, 0.95, 10)]
    return [float(np.mean(each)), each[0], each[5]]


def library(found, truths):
    r = library_map(found, truths, C)
    return [float('nan') if r[k] < 0 else r[k] for k in ('map', 'map50', 'map75')]


def pycoco(found, truths):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        COCO, COCOeval = (
            pytest.importorskip('pycocotools.coco').COCO,
            pytest.importorskip('pycocotools.cocoeval').COCOeval,
        )
    rows = [
        dict(image_id=int(r[0]), bbox=r[1:5].tolist(), score=float(r[5]), category_id=int(r[6]))
        for r in to_coco_results(found, truths)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = to_coco_truth(truths, C)
        coco.createIndex()
        results = coco.loadRes(rows) if rows else COCO()
        if not rows:
            results.dataset = dict(
                images=coco.dataset['images'], categories=coco.dataset['categories'], annotations=[]
            )
            results.createIndex()
        ev = COCOeval(coco, results, 'bbox')
        ev.evaluate()
        ev.accumulate()
        ev.summarize()
    return [float('nan') if v < 0 else float(v) for v in ev.stats[:3]]


@pytest.mark.parametrize('referee', [library, pycoco])
@pytest.mark.parametrize('seed', range(40))
def test_equals_referee_on_random_sets(referee, seed):
    found, truths = random_set(
        seed, most=14 if seed % 5 else 400, flags=seed % 3 > 0, coarse=seed % 2 == 0
    )
    np.testing.assert_allclose(own(found, truths), referee(found, truths), atol=1e-9)


@pytest.mark.parametrize('case', ADVERSARIAL)
def test_equals_pycocotools_on_adversarial_sets(case):
    np.testing.assert_allclose(own(*ADVERSARIAL[case]), pycoco(*ADVERSARIAL[case]), atol=1e-9)


@pytest.mark.parametrize('case', ADVERSARIAL)
def test_report_is_the_contests_figure(case):
    found, truths = ADVERSARIAL[case]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        report = evaluate_found(found, truths, VOCAB)
    m, m50, _ = pycoco(found, truths)
    np.testing.assert_allclose([report.map, report.map50], [m, m50], atol=1e-9)
    counted = {
        int(l)
        for t in truths
        for l, d, c in zip(t['labels'], t['difficult'], t['crowd'])
        if not d and not c
    }
    assert {n for n, v in report.per_class.items() if v is not None} == {VOCAB[c] for c in counted}
    back = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    str(report)
    assert (back['map50'] is None) == (not counted) == (back['voc07_map50'] is None)


def test_undefined_is_not_minus_one():
    large = [truth([(0, 0, 0.9, 0.9)], [1])]
    r = evaluate_found([detections([(0, 0, 0.9, 0.9)], [0.9], [1])], large, VOCAB)
    assert np.isnan(r.by_size['small'])
    assert r.by_size['large'] == 1
    assert r.to_dict()['by_size']['small'] is None
    r = evaluate_found([NONE], large, VOCAB)
    assert np.isnan(r.by_size['small'])
    assert r.by_size['large'] == 0
    assert r.map50 == 0
    r = evaluate_found([], [], VOCAB)
    assert np.isnan(r.map)
    assert r.images == r.objects == 0


def judge_loop(boxes, scores, objects, ignore, threshold=0.5):
    taken, out = set(), []
    for d in scores.argsort(descending=True, stable=True).tolist():
        row = iou(boxes[d : d + 1].double(), objects.double())[0].tolist()
        best = max(row, default=0.0)
        if best < threshold:
            out.append((float(scores[d]), 0))
            continue
        j = row.index(best)
        out.append((float(scores[d]), -1 if ignore[j] else int(j not in taken)))
        taken.add(j)
    return out


@pytest.mark.parametrize('seed', range(30))
def test_judge_equals_the_loop(seed):
    found, truths = random_set(seed, coarse=seed % 2 == 0)
    for label in range(1, C + 1):
        rows = []
        for f, t in zip(found, truths):
            m, o = f['labels'] == label, t['labels'] == label
            rows += judge_loop(
                f['boxes_xyxy'][m],
                f['scores'][m],
                t['boxes_xyxy'][o],
                (t['difficult'] | t['crowd'])[o],
            )
        rows.sort(key=lambda r: -r[0])
        scores, verdicts, n = judge(found, truths, label)
        assert verdicts.tolist() == [r[1] for r in rows]
        assert np.allclose(scores, [r[0] for r in rows])
        assert n == sum(
            int(((t['labels'] == label) & ~t['difficult'] & ~t['crowd']).sum()) for t in truths
        )


@pytest.mark.parametrize('n', [1, 3, 7, 10, 20, 30, 60, 70, 90, 100, 1000])
def test_eleven_points_at_exact_tenths(n):
    for k in range(n + 1):
        p, r = precision_recall(np.ones(k, int), n)
        points = sum(10 * k >= i * n for i in range(11)) if k else 0  # in whole numbers: k/n ≥ i/10
        assert average_precision(p, r, '11point') == pytest.approx(points / 11)
        assert average_precision(p, r, 'area') == pytest.approx(k / n)


def test_rules_disagree_where_they_should():
    sides = [truth([(0.10, 0.2, 0.60, 0.7), (0.22, 0.2, 0.72, 0.7)], [1, 1])]
    drawn = [detections([(0.09, 0.2, 0.59, 0.7), (0.14, 0.2, 0.64, 0.7)], [0.9, 0.8], [1, 1])]
    assert judge(drawn, sides, 1, rule='voc')[1].tolist() == [1, 0]
    assert judge(drawn, sides, 1, rule='coco')[1].tolist() == [1, 1]


@pytest.mark.parametrize('style', AP_STYLES)
def test_perfect_and_empty(style):
    t = [truth([A, B], [1, 2])]
    assert voc_map([detections([A, B], [0.9, 0.8], [1, 2])], t, C, style=style) == pytest.approx(1)
    assert voc_map([NONE], t, C, style=style) == 0
    assert np.isnan(class_ap([NONE], t, 3, style=style))


def test_wrong_use_is_said():
    for call in (
        lambda: judge([], [], 1, rule='x'),
        lambda: average_precision(np.ones(1), np.ones(1), 'x'),
        lambda: judge([NONE], [], 1),
        lambda: evaluate_found([NONE], [], VOCAB),
    ):
        with pytest.raises(ValueError):
            call()


def test_truth_of_records():
    r = make_record(
        np.zeros((100, 200, 3), np.uint8),
        7,
        (100, 200),
        [dict(box_px=(20, 10, 120, 60), label=2, difficult=True)],
    )
    empty = make_record(np.zeros((100, 200, 3), np.uint8), 8, (100, 200), [])
    t, e = truth_of([r, empty])
    assert torch.allclose(t['boxes_xyxy'], torch.tensor([[0.1, 0.1, 0.6, 0.6]]))
    assert t['difficult'].tolist() == [True]
    assert t['labels'].tolist() == [2]
    assert e['boxes_xyxy'].shape == (0, 4)
