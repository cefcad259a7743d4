"Which anchor learns which object: three rules, as settings, as options, in a run that goes on"

import json
import statistics
import sys
from functools import partial
from pathlib import Path
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from ssd_tutorial.anchors import AnchorSpec, GridSpec, make_anchors, shapes_of
from ssd_tutorial.boxes import iou
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.fpn import fpn_spec
from ssd_tutorial.grid import ssd_loss
from ssd_tutorial.matchers import atss_candidates, atss_match
from ssd_tutorial.matching import IGNORED, match
from ssd_tutorial.recipes import MATCHERS, find_loss, find_matcher
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import last_path, read_last, settings_of, train_detector
from ssd_tutorial.system import save_whole
from ssd_tutorial.voc import save_voc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'benchmarks'))
import scoreboard as board  # noqa: E402

SPEC = fpn_spec([8, 4])
ANCHORS = make_anchors(SPEC)
NAMES = ('unique', 'threshold', 'atss')
TINY = dict(arch='ssd', size=64, body='resnet10t', weights='none', width=16)


def matcher_of(name, spec=SPEC, **given):
    "What the loss calls"
    cfg = TrainConfig(matcher=name, **given)
    matcher = find_matcher(name)(cfg, spec)
    return lambda anchors, gt, labels, crowd=None, threshold=cfg.threshold: matcher(
        anchors, gt, labels, crowd, threshold
    )


def random_batch(seed, n_images=3, n_objects=5, smallest=0.02):
    "Boxes (B,N,4) and labels (B,N), some of them padding"
    g = torch.Generator().manual_seed(seed)
    wh = torch.rand(n_images, n_objects, 2, generator=g) * 0.5 + smallest
    xy = torch.rand(n_images, n_objects, 2, generator=g) * (1 - wh)
    labels = torch.randint(0, 3, (n_images, n_objects), generator=g)
    return torch.cat([xy, xy + wh], -1), labels


def by_loop(anchors, gt, labels, crowd, spec, k=9):
    "ATSS (arXiv 1912.02424, section 3.2) for one image, object by object, anchor by anchor"
    overlaps, middles = iou(gt, anchors).tolist(), (anchors[:, :2] + anchors[:, 2:]).tolist()
    owner, highest = [-1] * len(anchors), [0.0] * len(anchors)
    for n, box in enumerate(gt.tolist()):
        if not labels[n] or crowd[n]:
            continue
        twice, near, start = (box[0] + box[2], box[1] + box[3]), [], 0
        far = [(x - twice[0]) ** 2 + (y - twice[1]) ** 2 for x, y in middles]
        for level in spec.levels:
            of_level = sorted(range(start, start + level.n_anchors), key=far.__getitem__)
            near += of_level[: k * len(level.shapes)]
            start += level.n_anchors
        ious = [overlaps[n][a] for a in near]
        bar = statistics.mean(ious) + (statistics.stdev(ious) if len(ious) > 1 else 0)
        for a, v in zip(near, ious):
            x, y = middles[a]
            inside = 2 * box[0] < x < 2 * box[2] and 2 * box[1] < y < 2 * box[3]
            if inside and v >= bar - 1e-6 and v > highest[a]:
                owner[a], highest[a] = n, v
    for n in range(len(gt)):
        if crowd[n]:
            for a, (x1, y1, x2, y2) in enumerate(anchors.tolist()):
                w = min(x2, gt[n, 2].item()) - max(x1, gt[n, 0].item())
                h = min(y2, gt[n, 3].item()) - max(y1, gt[n, 1].item())
                if owner[a] == -1 and w > 0 and h > 0 and w * h >= (x2 - x1) * (y2 - y1) / 2:
                    owner[a] = IGNORED
    return owner


corner = st.integers(0, 12)
box = st.tuples(corner, corner, st.integers(1, 9), st.integers(1, 9)).map(
    lambda b: (b[0] / 16, b[1] / 16, (b[0] + b[2]) / 16, (b[1] + b[3]) / 16)
)
obj = st.tuples(box, st.integers(0, 2), st.booleans())
grid = st.tuples(st.sampled_from([1, 2, 4, 8]), st.lists(box, min_size=1, max_size=3))


@given(
    st.lists(grid, min_size=1, max_size=3),
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(obj, min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    st.integers(1, 9),
)
@settings(max_examples=80, deadline=None)
def test_atss_is_the_loop(grids, images, k):
    "Random levels, shapes, objects, padding and crowds; sixteenths, so ties are common"
    spec = AnchorSpec(tuple(GridSpec(c, tuple(shapes)) for c, shapes in grids), clip=False)
    anchors = make_anchors(spec)
    gt = torch.tensor([[o[0] for o in image] for image in images])
    labels = torch.tensor([[o[1] for o in image] for image in images])
    crowd = torch.tensor([[o[2] and i % 2 == 0 for i, o in enumerate(image)] for image in images])
    owner = atss_match(anchors, gt, labels, crowd, spec=spec, k=k)
    for got, *image in zip(owner.tolist(), gt, labels, crowd):
        assert got == by_loop(anchors, *image, spec, k)


def test_a_wrong_loop_would_be_noticed():
    "The comparison can fail: with other candidates the result is another"
    gt, labels = random_batch(0)
    few, many = (atss_match(ANCHORS, gt, labels, spec=SPEC, k=k) for k in (1, 9))
    assert (few != many).any()


def test_candidates_are_of_every_level_and_counted_by_place():
    near = atss_candidates(ANCHORS, torch.tensor([[0.4, 0.4, 0.6, 0.6]]), SPEC)[0]
    sizes = [level.n_anchors for level in SPEC.levels]
    assert len(near) == sum(min(9 * 9, n) for n in sizes)
    assert len(near.unique()) == len(near)
    start = 0
    for n in sizes:
        assert ((near >= start) & (near < start + n)).sum() == min(81, n)
        start += n


@pytest.mark.parametrize('seed', range(5))
def test_unique_is_what_it_was(seed):
    "The default equals `match`, and every object that an anchor touches has one of its own"
    gt, labels = random_batch(seed)
    owner = matcher_of('unique')(ANCHORS, gt, labels)
    assert owner.equal(match(ANCHORS, gt, labels))
    for row, ls in zip(owner, labels):
        assert {*row[row >= 0].tolist()} == {*ls.nonzero()[:, 0].tolist()}


@pytest.mark.parametrize('seed', range(5))
def test_threshold_forces_nothing(seed):
    gt, labels = random_batch(seed)
    owner = matcher_of('threshold', threshold=0.6)(ANCHORS, gt, labels)
    best = (iou(gt, ANCHORS) * (labels > 0)[..., None]).amax(1)
    assert owner.ge(0).equal(best >= 0.6)
    assert (owner >= 0).sum() < (
        matcher_of('unique', threshold=0.6)(ANCHORS, gt, labels) >= 0
    ).sum()


def test_the_band_is_ignored():
    gt, labels = random_batch(1)
    best = (iou(gt, ANCHORS) * (labels > 0)[..., None]).amax(1)
    owner = matcher_of('threshold', neg_threshold=0.4)(ANCHORS, gt, labels)
    assert owner.eq(IGNORED).equal((best >= 0.4) & (best < 0.5))


@pytest.mark.parametrize('name', NAMES)
def test_empty_and_padded(name):
    go = matcher_of(name)
    assert go(ANCHORS, torch.zeros(2, 0, 4), torch.zeros(2, 0).long()).eq(-1).all()
    assert go(ANCHORS, torch.zeros(0, 3, 4), torch.zeros(0, 3).long()).shape == (0, len(ANCHORS))
    assert go(ANCHORS, torch.zeros(2, 3, 4), torch.zeros(2, 3).long()).eq(-1).all()
    gt, labels = random_batch(2)
    more = torch.nn.functional.pad(gt, (0, 0, 0, 4)), torch.nn.functional.pad(labels, (0, 4))
    assert go(ANCHORS, gt, labels).equal(go(ANCHORS, *more))
    alone = torch.cat([go(ANCHORS, g[None], l[None]) for g, l in zip(gt, labels)])
    assert go(ANCHORS, gt, labels).equal(alone)  # no image knows of another


@pytest.mark.parametrize('name', NAMES)
def test_a_crowd_is_neither_object_nor_background(name):
    region = torch.tensor([[[0.0, 0.0, 0.7, 0.7]]])
    owner = matcher_of(name)(ANCHORS, region, torch.tensor([[1]]), torch.tensor([[True]]))
    assert not owner.ge(0).any()
    assert owner.eq(IGNORED).any()
    assert owner.eq(-1).any()


@pytest.mark.parametrize('name', ['unique', 'atss'])
def test_a_broken_box_is_noticed(name):
    "All NaN or one: no exception from the matcher, and the loss is no number, which stops a run"
    gt, labels = random_batch(3)
    for broken in (torch.full_like(gt, float('nan')), gt.clone()):
        broken[0, 0] = float('nan')
        labels[0, 0] = 1
        preds = torch.zeros(3, len(ANCHORS), 2), torch.zeros(3, len(ANCHORS), 4)
        targets = dict(boxes_xyxy=broken, labels=labels)
        total, _ = ssd_loss(preds, targets, ANCHORS, matcher=matcher_of(name))
        assert not torch.isfinite(total)


def test_an_anchor_between_two_objects_learns_the_closer_one():
    one = AnchorSpec((GridSpec(1, shapes_of((0.5,), (1.0,))),))
    gt = torch.tensor([[[0.2, 0.2, 0.9, 0.9], [0.25, 0.25, 0.8, 0.8]]])
    owner = atss_match(make_anchors(one), gt, torch.tensor([[1, 1]]), spec=one)
    assert owner.tolist() == [[1]]


@pytest.mark.parametrize(
    'given, words',
    [
        (dict(matcher='fair'), "matcher='fair': give 'unique'"),
        (dict(matcher=None), 'matcher=None'),
        (dict(matcher=['atss']), 'matcher='),
        (dict(threshold=0.0), 'above 0'),
        (dict(threshold=1.1), 'above 0, up to 1'),
        (dict(threshold='half'), 'above 0'),
        (dict(neg_threshold=0.0), 'or None'),
        (dict(neg_threshold=0.6), 'lies above threshold=0.5'),
        (dict(threshold=0.3, neg_threshold=0.4), 'lies above threshold=0.3'),
        (dict(matcher='atss', threshold=0.4), 'of its own for each object'),
        (dict(matcher='atss', neg_threshold=0.4), 'of its own for each object'),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(DetectorError, match=words):
        TrainConfig(**given)


def test_a_rule_of_ones_own(monkeypatch):
    "Entered into the registry, it is a setting like any other"
    with pytest.raises(DetectorError):
        TrainConfig(matcher='mine')
    monkeypatch.setitem(MATCHERS, 'mine', lambda cfg, spec: partial(match, force=False))
    cfg = TrainConfig(**TINY, matcher='mine', frozen_epochs=0, epochs=1, max_steps=1, bs=4)
    train_detector(generated_data('multiscale', 8, 4, size=64), cfg, False)


def test_the_loss_is_told(monkeypatch):
    "Matcher, threshold and band arrive where anchors are matched"
    seen = []

    def spy(cfg, spec):
        def go(anchors, gt, labels, crowd, threshold):
            seen.append((cfg.neg_threshold, threshold, len(anchors) == spec.n_anchors))
            return match(anchors, gt, labels, crowd, threshold)

        return go

    monkeypatch.setitem(MATCHERS, 'spy', spy)
    how = dict(matcher='spy', threshold=0.6, neg_threshold=0.3)
    cfg = TrainConfig(**TINY, **how, frozen_epochs=0, epochs=1, max_steps=1, bs=4)
    train_detector(generated_data('multiscale', 8, 4, size=64), cfg, False)
    assert {*seen} == {(0.3, 0.6, True)}


def test_defaults_change_no_loss():
    "With the default settings the loss is lesson 10's, to the bit"
    gt, labels = random_batch(4)
    g = torch.Generator().manual_seed(0)
    preds = tuple(torch.randn(3, len(ANCHORS), n, generator=g) for n in (2, 4))
    cls_loss = find_loss('bce')[1](TrainConfig())
    targets = dict(boxes_xyxy=gt, labels=labels)
    plain = ssd_loss(preds, targets, ANCHORS, cls_loss=cls_loss)[0]
    told = ssd_loss(preds, targets, ANCHORS, cls_loss=cls_loss, matcher=matcher_of('unique'))[0]
    assert plain.equal(told)


def said(run):
    return ' '.join(run.output.split())


@pytest.mark.slow
def test_the_command(tmp_path):
    "Options reach the run and its last.ckpt; what makes no sense ends with one line"
    found = save_voc(generated_data('multiscale', 12, 6, size=64), tmp_path / 'set')
    out = tmp_path / 'd.pt'
    words = '--arch ssd --size 64 --body resnet10t --weights none --width 16 --batch-size 4'.split()
    train = ['train', '--data', str(found), *words, '--max-steps', '2', '--no-plots']
    run = CliRunner().invoke(main, [*train, '--matcher', 'atss', '--out', str(out)])
    assert run.exit_code == 0, run.output
    assert settings_of(read_last(out)).matcher == 'atss'
    again = CliRunner().invoke(main, ['train', '--resume', '--out', str(out)])
    assert again.exit_code == 0, again.output
    again = CliRunner().invoke(
        main, ['train', '--resume', '--matcher', 'unique', '--out', str(out)]
    )
    assert again.exit_code == 2
    assert '--matcher is unique here and was atss' in said(again)
    other = tmp_path / 'e.pt'
    band = ['--threshold', '0.6', '--neg-threshold', '0.4', '--out', str(other)]
    run = CliRunner().invoke(main, [*train, *band])
    assert run.exit_code == 0, run.output
    kept = settings_of(read_last(other))
    assert (kept.matcher, kept.threshold, kept.neg_threshold) == ('unique', 0.6, 0.4)
    for wrong, why in (
        ('--matcher fair', "give 'unique', 'threshold', 'atss'"),
        ('--threshold 0', 'a number above 0, up to 1'),
        ('--neg-threshold 0.7', 'lies above threshold=0.5'),
        ('--matcher atss --threshold 0.4', 'of its own for each object'),
    ):
        run = CliRunner().invoke(main, [*train, *wrong.split()])
        assert run.exit_code == 2
        assert why in said(run)


class Stop(Callback):
    "Ends a run in its second epoch"

    def before_batch(self):
        if self.training and len(self.learn.epoch_table.rows) == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_runs_of_before_go_on(tmp_path):
    "A last.ckpt without these settings is one of before: it goes on, with the rule of then"
    data, out = generated_data('multiscale', 12, 6, size=64), tmp_path / 'd.pt'
    cfg = TrainConfig(**TINY, frozen_epochs=0, epochs=2, bs=4)
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cfg, False, out, cbs=[Stop()])
    last = read_last(out)
    for name in ('matcher', 'threshold', 'neg_threshold'):
        del last['cfg'][name]
    save_whole(last, last_path(out))
    _, rows = train_detector(data, None, False, out, resume=True)
    assert len(rows) == 2
    assert settings_of(read_last(out)).matcher == 'unique'
    with pytest.raises(DetectorError, match='matcher is atss here and was unique'):
        train_detector(data, TrainConfig(matcher='atss'), False, out, resume=True)


def test_rows_of_the_scoreboard():
    "Rows for lesson 20d share everything but their matching, and can be told to the loss"
    for key, row in board.MATCHING.items():
        assert (row.lesson, row.arch, row.spec) == ('20d', 'fpn', board.ROWS['16'].spec), key
        given = dict(matcher=row.matcher, threshold=row.threshold, neg_threshold=row.neg_threshold)
        TrainConfig(**given, anchors=row.anchors)
    assert not {*board.MATCHING} & {*board.ROWS}


def test_kept_rows_are_what_their_seeds_say():
    "The file that lesson 20d reads; on the street, ATSS finds more and `threshold` less"
    kept = json.loads((Path(board.HERE).parent / 'ssd_tutorial' / 'matchers.json').read_text())
    for part in kept.values():
        for key, row in part['rows'].items():
            assert row['title'] == board.MATCHING[key].title
            values = [s['map50'] for s in row['seeds'].values()]
            assert row['mean']['map50'] == pytest.approx(statistics.mean(values), abs=1e-4)
    value = {k: r['mean']['map50'] for k, r in kept['generated']['rows'].items()}
    assert value['threshold'] < value['unique'] < value['atss']
