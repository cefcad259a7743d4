"""Kinds of mistakes, what they cost, and the score threshold: equal to TIDE's own program on random
data, and consistent with the rest of the package"""

import json, time
import numpy as np
import pytest
import torch
import ssd_tutorial.mistake_costs as mistake_costs
from ssd_tutorial.mistake_costs import SIDES, analyse_errors
from ssd_tutorial.mistakes import KINDS, MISTAKES, error_types, show_mistake
from ssd_tutorial.operating_point import choose_score, draw_f1, score_curve
from ssd_tutorial.metrics import evaluate_found, judge

C = 3
VOCAB = ('background', 'a', 'b', 'c')


def boxes(rng, n, coarse=False):
    if coarse:
        a, side = rng.integers(0, 6, (n, 2)), rng.integers(1, 4, (n, 2))
        return np.concatenate([a, a + side], 1) / 8
    a, side = rng.random((n, 2)) * 0.7, rng.uniform(0.06, 0.3, (n, 2))
    return np.concatenate([a, a + side], 1)


def random_set(seed, n_images=12, crowd=False, difficult=False, coarse=False, most=25, empty=True):
    "Detections that lie on, near, beside and far from objects, under right and wrong names"
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(n_images):
        n, m = rng.integers(0 if empty else 1, 7), rng.integers(0, most + 1)
        b, l = boxes(rng, n, coarse), rng.integers(1, C + 1, n)
        d, dl = boxes(rng, m, coarse), rng.integers(1, C + 1, m)
        if n:
            of, on, right = rng.integers(0, n, m), rng.random(m) < 0.75, rng.random(m) < 0.6
            size = np.tile(b[of, 2:] - b[of, :2], 2)
            shake = rng.normal(0, 1, (m, 4)) * rng.choice([0.02, 0.15, 0.35], (m, 1)) * (not coarse)
            near = b[of] + shake * size
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.01)
            d, dl = np.where(on[:, None], near, d), np.where(on & right, l[of], dl)
        scores = (
            rng.integers(1, 9, m) / 8
            if coarse
            else rng.permutation(np.linspace(0.01, 0.99, m)) * rng.uniform(0.9, 1)
        )
        f32 = lambda x: torch.tensor(np.asarray(x).reshape(-1, 4), dtype=torch.float32)
        truths.append(
            dict(
                boxes_xyxy=f32(b),
                labels=torch.tensor(l).long(),
                crowd=torch.tensor((rng.random(n) < 0.2) & crowd),
                difficult=torch.tensor((rng.random(n) < 0.2) & difficult),
                size_hw=torch.tensor([300, 400]),
            )
        )
        found.append(
            dict(
                boxes_xyxy=f32(d),
                scores=torch.tensor(scores).float(),
                labels=torch.tensor(dl).long(),
            )
        )
    return found, truths


def tide_run(found, truths):
    "The authors' program; their kind and state in our words"
    tidecv = pytest.importorskip('tidecv')
    xywh = lambda b: [
        float(b[0]),
        float(b[1]),
        float(b[2]) - float(b[0]),
        float(b[3]) - float(b[1]),
    ]
    gt, said = tidecv.Data('gt', max_dets=10**6), tidecv.Data('said', max_dets=10**6)
    for i, (f, t) in enumerate(zip(found, truths)):
        gt.add_image(i, str(i))
        said.add_image(i, str(i))
        for b, l, c, d in zip(
            t['boxes_xyxy'].double(),
            t['labels'].tolist(),
            t['crowd'].tolist(),
            t['difficult'].tolist(),
        ):
            (gt.add_ignore_region if c or d else gt.add_ground_truth)(i, l, xywh(b))
        for b, l, s in zip(f['boxes_xyxy'].double(), f['labels'].tolist(), f['scores'].tolist()):
            said.add_detection(i, l, s, xywh(b))
    return tidecv, tidecv.TIDE().evaluate(gt, said), said


def tide_kinds(found, truths):
    tidecv, run, said = tide_run(found, truths)
    name = dict(Cls='class', Loc='localisation', Both='both', Dupe='duplicate', Bkg='background')
    out = {a['_id']: {True: 'correct', None: 'ignored'}.get(a['used']) for a in said.annotations}
    for e in run.errors:
        if e.short_name != 'Miss' and out[e.pred['_id']] is None:
            out[e.pred['_id']] = name[e.short_name]
    return [out[i] for i in range(len(out))], sum(e.short_name == 'Miss' for e in run.errors)


@pytest.mark.parametrize('crowd', [False, True])
def test_kinds_equal_tide(crowd):
    seen = set()
    for seed in range(60):
        found, truths = random_set(seed, crowd=crowd)
        types = error_types(found, truths)
        kinds, missed = tide_kinds(found, truths)
        assert [k for t in types for k in t['kind']] == kinds
        # TIDE lets a detection that is ignored explain an object all the same; we do not
        if not crowd:
            assert sum((t['state'] == 'missed').sum() for t in types) == missed
        seen.update(kinds)
    assert seen == set(KINDS) - ({'ignored'} if not crowd else set())


def tide_costs(found, truths):
    tidecv, run, _ = tide_run(found, truths)
    main, special = run.fix_main_errors(), run.fix_special_errors()
    name = dict(
        Cls='class',
        Loc='localisation',
        Both='both',
        Dupe='duplicate',
        Bkg='background',
        Miss='missed',
        FalsePos='all wrong',
        FalseNeg='all unfound',
    )
    return run.ap / 100, {name[k.short_name]: v / 100 for k, v in {**main, **special}.items()}


def all_classes_survive(truths, types):
    "Whether each class has an object that is found: of others TIDE counts AP 0, we no AP at all"
    return {
        l
        for t, e in zip(truths, types)
        for l in t['labels'][torch.from_numpy(e['state'] == 'found')].tolist()
    } == set(range(1, C + 1))


def exact_points(precision, recall, style):
    "COCO's 101 points as TIDE places them, k/100, without the last-bit fault of linspace"
    if not len(precision):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(best, 0)[np.searchsorted(recall, np.arange(101) / 100)].mean())


@pytest.mark.parametrize('exact', [True, False])
def test_costs_equal_tide(exact, monkeypatch):
    pytest.importorskip('tidecv')
    if exact:
        monkeypatch.setattr(mistake_costs, 'average_precision', exact_points)
    checked, worst = 0, 0.0
    for seed in range(60):
        found, truths = random_set(seed)
        if not all_classes_survive(truths, error_types(found, truths)):
            continue
        ours, (ap, costs) = analyse_errors(found, truths, VOCAB, score=0), tide_costs(found, truths)
        gap = max(abs(ours.map50 - ap), *(abs(ours.dap[k] - costs[k]) for k in (*MISTAKES, *SIDES)))
        checked, worst = checked + 1, max(worst, gap)
    assert checked > 40
    # with COCO's points a recall of exactly k/100 may miss its own point: for each such recall at
    # most a hundredth of the AP of its class
    assert worst < (1e-9 if exact else 0.02), worst


@pytest.mark.parametrize('coarse', [False, True])
def test_verdicts_and_map_equal_lesson_14(coarse):
    for seed in range(40):
        found, truths = random_set(seed, crowd=True, difficult=True, coarse=coarse)
        types = error_types(found, truths)
        for c in range(1, C + 1):
            code = np.concatenate(
                [
                    np.select([t['kind'] == 'correct', t['kind'] == 'ignored'], [1, -1], 0)[
                        (f['labels'] == c).numpy()
                    ]
                    for t, f in zip(types, found)
                ]
            )
            scores = torch.cat([f['scores'][f['labels'] == c] for f in found]).numpy()
            assert (
                code[np.argsort(-scores, kind='stable')].tolist()
                == judge(found, truths, c, rule='coco')[1].tolist()
            )
        a, b = (
            analyse_errors(found, truths, VOCAB, score=0).map50,
            evaluate_found(found, truths, VOCAB).map50,
        )
        assert a == pytest.approx(b, abs=1e-9, nan_ok=True)


def test_more_than_coco_reads():
    "150 wrong boxes above the one that is right: COCO never sees it, and neither does the report"
    wrong = torch.tensor([[0.8, 0.8, 0.9, 0.9]]).repeat(150, 1)
    right = torch.tensor([[0.1, 0.1, 0.4, 0.4]])
    f = dict(
        boxes_xyxy=torch.cat([wrong, right]),
        scores=torch.linspace(0.99, 0.1, 151),
        labels=torch.ones(151).long(),
    )
    t = dict(
        boxes_xyxy=right,
        labels=torch.ones(1).long(),
        difficult=torch.zeros(1).bool(),
        crowd=torch.zeros(1).bool(),
        size_hw=torch.tensor([100, 100]),
    )
    r = analyse_errors([f], [t], VOCAB)
    assert (r.counts['background'], r.counts['ignored'], r.counts['missed'], r.map50) == (
        100,
        51,
        1,
        0,
    )


def test_costs_are_never_negative_and_means_agree():
    for seed in range(20):
        found, truths = random_set(seed, n_images=30, crowd=True, difficult=True)
        r = analyse_errors(found, truths, VOCAB)
        assert all(v >= 0 for v in r.dap.values())
        assert (
            r.dap['all wrong'] >= max(r.dap[k] for k in ('both', 'duplicate', 'background')) - 1e-9
        )
        for k in MISTAKES:
            assert np.mean([p['dap'][k] for p in r.per_class.values()]) == pytest.approx(
                r.dap[k], abs=1e-9
            )
        for k in r.counts:
            assert sum(p['counts'][k] for p in r.per_class.values()) == r.counts[k]
        assert len(r.mistakes) == sum(r.counts[k] for k in MISTAKES)
        json.dumps(r.to_dict(), allow_nan=False)


def test_order_of_images_and_detections_is_of_no_account():
    found, truths = random_set(3, n_images=20)
    a = analyse_errors(found, truths, VOCAB)
    turn = lambda f: {k: v.flip(0) for k, v in f.items()}
    b = analyse_errors([turn(f) for f in found[::-1]], truths[::-1], VOCAB)
    assert a.counts == b.counts
    assert all(a.dap[k] == pytest.approx(b.dap[k]) for k in a.dap)


def test_a_class_that_is_wholly_missed():
    "Its AP is 0; with nothing left to find it has no AP, and the mean is over the others"
    t = dict(
        boxes_xyxy=torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]),
        labels=torch.tensor([1, 2]),
        difficult=torch.zeros(2).bool(),
        crowd=torch.zeros(2).bool(),
        size_hw=torch.tensor([100, 100]),
    )
    f = dict(boxes_xyxy=t['boxes_xyxy'][:1], scores=torch.tensor([0.9]), labels=torch.tensor([1]))
    r = analyse_errors([f], [t], VOCAB)
    assert (r.map50, r.dap['missed'], r.per_class['b']['ap50']) == (0.5, 0.5, 0)
    assert np.isnan(r.per_class['b']['dap']['missed'])


def test_worst_is_sorted_and_drawn():
    import matplotlib.pyplot as plt

    found, truths = random_set(1, n_images=30)
    r = analyse_errors(found, truths, VOCAB)
    for k in MISTAKES:
        ms = r.worst(k, 5)
        assert 0 < len(ms) <= 5
        assert all(m.kind == k for m in ms)
        if k == 'missed':
            assert all(
                a >= b
                for a, b in zip(
                    *(lambda s: (s, s[1:]))(
                        [np.prod(m.object_xyxy[2:] - m.object_xyxy[:2]) for m in ms]
                    )
                )
            )
        else:
            assert all(a.score >= b.score for a, b in zip(ms, ms[1:]))
            f = found[ms[0].image]
            assert any(np.allclose(b, ms[0].box_xyxy) for b in f['boxes_xyxy'].numpy())
        if k != 'background':
            assert np.allclose(
                truths[ms[0].image]['boxes_xyxy'][ms[0].object].numpy(), ms[0].object_xyxy
            )
        ax = show_mistake(np.zeros((30, 40, 3), np.uint8), ms[0])
        assert ax.get_title() == str(ms[0])
        plt.close()


def test_best_f1_is_the_best():
    for seed in range(10):
        found, truths = random_set(seed, n_images=20, coarse=seed % 2 == 0)
        best = choose_score(found, truths, VOCAB)
        s, p, r = score_curve(found, truths, range(1, C + 1))
        assert (np.diff(s) < 0).all()
        assert (np.diff(r) >= 0).all()
        assert best['f1'] == pytest.approx((2 * p * r / np.maximum(p + r, 1e-12)).max())
        # as `predict` would cut
        kept = [{k: v[f['scores'] > best['score']] for k, v in f.items()} for f in found]
        _, p, r = score_curve(kept, truths, range(1, C + 1))
        assert (p[-1], r[-1]) == (pytest.approx(best['precision']), pytest.approx(best['recall']))


def test_as_many_classes_are_named_as_were_asked_for():
    found, truths = random_set(5, n_images=20)
    for most in (1, 2, 3):
        legend = draw_f1(found, truths, VOCAB, most=most).legends[0]
        names = [t.get_text().split()[0] for t in legend.get_texts()]
        assert sum(n in VOCAB for n in names) == most, (most, names)


def test_fast_enough_for_a_validation_set():
    rng = np.random.default_rng(0)
    found, truths = [], []
    for i in range(870):
        f, t = random_set(i, n_images=1, most=0, empty=False)
        truths += t
        b = boxes(rng, 100)
        on = t[0]['boxes_xyxy'].numpy()[rng.integers(0, len(t[0]['labels']), 50)]
        b[:50] = on + rng.normal(0, 0.02, on.shape)
        b[:, 2:] = np.maximum(b[:, 2:], b[:, :2] + 0.01)
        found.append(
            dict(
                boxes_xyxy=torch.tensor(b).float(),
                scores=torch.tensor(rng.random(100)).float(),
                labels=torch.tensor(rng.integers(1, C + 1, 100)),
            )
        )
    t0 = time.process_time()
    r = analyse_errors(found, truths, VOCAB, score=0)
    took = time.process_time() - t0
    print(f'{took:.2f} s')
    assert sum(r.counts[k] for k in KINDS) == 87000
    assert took < 10
