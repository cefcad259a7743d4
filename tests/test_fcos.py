"Detection without anchors: targets against a loop, crowds, empty images, saving, the command line"

import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_tutorial.anchors import coder_to_dict, make_anchors, spec_to_dict
from ssd_tutorial.body import make_body
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, NetConfig, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.fcos import (
    SidesCoder,
    centreness,
    fcos_loss,
    fcos_spec,
    level_ranges,
    match_points,
    point_sides,
)
from ssd_tutorial.fpn import fpn_spec
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import read_last, settings_of, train_detector
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.voc import save_voc


def owners(cells, ranges, boxes, labels, crowd, radius):
    "One image, slowly: the object of each point, −1 background, −2 ignored"
    out = []
    for (x1, y1, x2, y2), (lo, hi) in zip(cells.tolist(), ranges.tolist()):
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        fits, region = [], False
        for n, (a, b, c, d) in enumerate(boxes.tolist()):
            sides = x - a, y - b, c - x, d - y
            if not labels[n] or min(sides) <= 0:
                continue
            if crowd[n]:
                region = True
                continue
            off = max(abs(x - (a + c) / 2) / (x2 - x1), abs(y - (b + d) / 2) / (y2 - y1))
            if lo < max(sides) <= hi and (radius is None or off < radius):
                fits.append(((c - a) * (d - b), n))
        out.append(min(fits)[1] if fits else -2 if region else -1)
    return out


def batch(seed, n_images=3, most=6):
    "Boxes of all sizes, padded, some of them crowd regions"
    g = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, n_images, most, 2, generator=g)
    labels = torch.randint(0, 4, (n_images, most), generator=g)
    labels[0] = 0  # an image without objects
    gt = torch.cat([torch.minimum(a, b), torch.maximum(a, b)], -1)
    crowd = (torch.rand(n_images, most, generator=g) < 0.25) & (labels > 0)
    return gt * (labels > 0)[..., None], labels, crowd


@pytest.mark.parametrize('radius', [1.5, 0.6, None])
@pytest.mark.parametrize('cells', [[7], [14, 7], [5, 3]])
def test_targets_are_those_of_a_loop(cells, radius):
    spec = fcos_spec(cells)
    where = make_anchors(spec)
    for seed in range(20):
        gt, labels, crowd = batch(seed)
        ranges = level_ranges(spec, reach=2.0 + seed % 3)
        fast = match_points(where, ranges, gt, labels, crowd, radius)
        slow = [owners(where, ranges, *image, radius) for image in zip(gt, labels, crowd)]
        assert fast.tolist() == slow


def test_each_distance_has_one_level():
    "Ranges begin where the one before ends, from 0 to infinity"
    for cells in ([14, 7], [28, 14, 7], [13, 7], [1]):
        spec = fcos_spec(cells)
        per_level, first = [], 0
        for level in spec.levels:
            here = level_ranges(spec)[first : first + level.n_anchors]
            assert len(here.unique(dim=0)) == 1
            per_level.append(here[0].tolist())
            first += level.n_anchors
        assert per_level[0][0] == 0
        assert per_level[-1][1] == math.inf
        assert all(a[1] == b[0] for a, b in zip(per_level, per_level[1:]))


def test_order_of_objects_does_not_matter():
    spec = fcos_spec([14, 7])
    where, ranges = make_anchors(spec), level_ranges(spec)
    for seed in range(20):
        gt, labels, _ = batch(seed)
        owner = match_points(where, ranges, gt, labels)
        back = match_points(where, ranges, gt.flip(1), labels.flip(1))
        assert torch.equal(torch.where(back >= 0, gt.shape[1] - 1 - back, back), owner)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(0, 1, width=32)] * 2),
    st.tuples(*[st.floats(0.001953125, 1, width=32)] * 4),
)
def test_a_box_survives_encoding(xy, sides):
    "For each point inside of it"
    point, sides = torch.tensor(xy), torch.tensor(sides)
    box = torch.cat([point - sides[:2], point + sides[2:]])
    cell = torch.cat([point - 0.05, point + 0.05])
    coder = SidesCoder()
    assert torch.allclose(coder.decode(coder.encode(box, cell), cell), box, atol=1e-5)
    assert torch.allclose(point_sides(point, box), sides, atol=1e-6)
    assert 0 <= centreness(sides) <= 1


def test_decoding_is_finite():
    cells = make_anchors(fcos_spec([7]))
    deltas = torch.full((len(cells), 4), 1e6, requires_grad=True)
    boxes = SidesCoder().decode(deltas, cells)
    boxes.sum().backward()
    assert boxes.isfinite().all()
    assert deltas.grad.isfinite().all()


def loss_of(targets, seed=0):
    spec = fcos_spec([7])
    where = make_anchors(spec)
    g = torch.Generator().manual_seed(seed)
    B = len(targets['labels'])
    preds = [torch.randn(B, len(where), n, generator=g).requires_grad_() for n in (3, 4, 1)]
    total, parts = fcos_loss(preds, targets, where, level_ranges(spec))
    total.backward()
    return preds, total, parts


def test_padding_and_empty_images():
    gt, labels, crowd = batch(3)
    padded = torch.cat([gt, torch.zeros(3, 4, 4)], 1), torch.cat([labels, labels * 0][:2], 1)
    many = dict(boxes_xyxy=padded[0], labels=padded[1][:, :10])
    few = dict(boxes_xyxy=gt, labels=labels)
    assert torch.allclose(loss_of(few)[1], loss_of(many)[1])
    none = dict(boxes_xyxy=torch.zeros(2, 0, 4), labels=torch.zeros(2, 0, dtype=torch.long))
    preds, total, parts = loss_of(none)
    assert parts['box'] == 0
    assert parts['centre'] == 0
    assert preds[0].grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in preds)


def test_crowds_teach_nothing():
    "Neither background nor an object: the gradient in the region is zero"
    region = dict(
        boxes_xyxy=torch.tensor([[[0.0, 0.0, 0.6, 1.0]]]),
        labels=torch.tensor([[1]]),
        crowd=torch.tensor([[True]]),
    )
    preds, _, parts = loss_of(region)
    where = make_anchors(fcos_spec([7]))
    inside = ((where[:, 0] + where[:, 2]) / 2 < 0.6) & ((where[:, 0] + where[:, 2]) / 2 > 0)
    taught = preds[0].grad[0].abs().sum(-1) > 0
    assert torch.equal(taught, ~inside)
    assert parts['box'] == 0


def test_a_broken_box_reaches_the_loss():
    targets = dict(boxes_xyxy=torch.full((1, 1, 4), math.nan), labels=torch.tensor([[1]]))
    assert not loss_of(targets)[1].isfinite()


@pytest.mark.parametrize(
    'setting', [dict(anchors='proposed'), dict(coder='log'), dict(coder='tanh')]
)
def test_settings_of_anchors_are_refused(setting):
    with pytest.raises(DetectorError, match='means nothing to fcos'):
        TrainConfig(arch='fcos', **setting)
    assert TrainConfig(arch='fcos', anchors='default').coder == 'sides'


def test_spec_with_shapes_is_refused():
    data = generated_data('multiscale', 1, 1)
    with pytest.raises(DetectorError, match='the cell alone'):
        new_detector(data, NetConfig('fcos', weights='none'), fpn_spec([28, 14, 7]))


def test_sides_for_a_pyramid_with_anchors(tmp_path):
    "The coder is one like the others, and is found when a file asks for it"
    data = generated_data('multiscale', 8, 4, size=64)
    small = dict(size=64, body='resnet10t', weights='none', width=16, bs=4, strength=None)
    det, _ = train_detector(data, TrainConfig('fpn', coder='sides', max_steps=2, **small), False)
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    assert coder_to_dict(again.model.coder) == dict(kind='sides')
    with pytest.raises(DetectorError, match="No coder 'wish'"):
        new_detector(data, NetConfig(coder='wish', weights='none'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'loss,size', [('bce', 96), ('focal', 100), ('softmax', 96), ('multibox', 100)]
)
def test_losses_sizes_and_half_precision(loss, size, tmp_path):
    data = generated_data('multiscale', 8, 4, size=64)
    small = dict(size=size, body='resnet10t', weights='none', width=16, bs=4, strength=None)
    cfg = TrainConfig('fcos', loss=loss, max_steps=2, bf16=True, **small)
    det, _ = train_detector(data, cfg, progress=False)
    again = Detector.load(det.save(tmp_path / 'd.pt', half=True))
    x = torch.rand(2, 3, size, size)
    a, b = (d.detect_batch(x, score=0.0) for d in (det, again))
    assert [len(f['labels']) for f in a] == [100, 100]
    assert torch.allclose(a[0]['scores'], b[0]['scores'], atol=0.02)


def test_starts_from_a_pyramid_with_anchors(tmp_path):
    "Neck and towers fit, the heads do not; and the other way round"
    data = generated_data('multiscale', 4, 2, size=64)
    small = dict(size=64, body='resnet10t', width=16, levels=(2, 3, 4))
    old = new_detector(data, NetConfig('fpn', weights='none', **small))
    path = str(old.save(tmp_path / 'fpn.pt'))
    new = new_detector(data, NetConfig('fcos', weights=path, **small))
    for part in ('neck.smooth.0.0.weight', 'heads.0.cls_tower.1.conv.weight'):
        assert torch.equal(new.model.state_dict()[part], old.model.state_dict()[part])
    assert new.started == 'Starts from fpn.pt: its backbone.'
    back = new_detector(data, NetConfig('fpn', weights=str(new.save(tmp_path / 'f.pt')), **small))
    assert back.started == 'Starts from f.pt: its backbone.'


def test_exports_with_any_number_of_images():
    "Nothing in the network depends on the size of the batch it was traced with"
    body = make_body('resnet10t', 'none', (2, 3, 4))
    data = generated_data('multiscale', 1, 1)
    det = new_detector(data, NetConfig('fcos', size=64, body='resnet10t', weights='none', width=16))
    assert spec_to_dict(det.model.spec) == spec_to_dict(fcos_spec([8, 4, 2]))
    assert body.channels == det.model.body.channels
    traced = torch.jit.trace(det.model.eval(), torch.rand(1, 3, 64, 64), check_trace=False)
    x = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(traced(x), det.model(x)):
            assert torch.allclose(a, b, atol=1e-4)


SMALL = '--size 64 --body resnet10t --weights none --width 16 --batch-size 4 --no-plots'.split()


def test_command(tmp_path):
    "train, resume, predict, evaluate; options that need anchors are refused in a line"
    data = save_voc(generated_data('multiscale', 12, 4, size=64), tmp_path / 'set')
    out = tmp_path / 'd.pt'
    train = ['train', '--data', str(data), '--arch', 'fcos', *SMALL, '--out', str(out)]
    run = CliRunner().invoke(main, [*train, '--max-steps', '3'])
    assert run.exit_code == 0, run.output
    det = Detector.load(out)
    assert len(det.model.anchors) == fcos_spec([8, 4, 2]).n_anchors
    again = CliRunner().invoke(main, ['train', '--resume', '--out', str(out)])
    assert again.exit_code == 0, again.output
    assert settings_of(read_last(out)).coder == 'sides'
    image = next((data / 'JPEGImages').iterdir())
    for words in (
        ['predict', str(image), '--out', str(tmp_path / 'found')],
        ['evaluate', '--data', str(data)],
    ):
        run = CliRunner().invoke(main, [*words, '--detector', str(out)])
        assert run.exit_code == 0, run.output
    run = CliRunner().invoke(main, [*train, '--anchors', 'proposed'])
    assert run.exit_code == 2
    assert 'means nothing to fcos' in ' '.join(run.output.split())


def test_goes_on_as_if_it_had_never_stopped(tmp_path):
    "Stopped after an epoch and resumed: the same weights as in one go"
    data = generated_data('multiscale', 12, 4, size=64)
    small = dict(size=64, body='resnet10t', weights='none', width=16, bs=4, strength=None)
    cfg = TrainConfig('fcos', frozen_epochs=0, epochs=2, keep='last', **small)
    whole, rows = train_detector(data, cfg, False, tmp_path / 'whole.pt')

    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop('here')

    from ssd_tutorial.runs import RunFiles

    (tmp_path / 'b').mkdir()
    out, kept = tmp_path / 'b' / 'd.pt', RunFiles.epoch_done
    RunFiles.epoch_done = lambda self, lr, state: (kept(self, lr, state), stop())
    try:
        with pytest.raises(Stop):
            train_detector(data, cfg, False, out)
    finally:
        RunFiles.epoch_done = kept
    det, again = train_detector(data, cfg, False, out, resume=True)
    assert {'cls_loss', 'box_loss', 'centre_loss'} <= again[-1].keys()
    for k, v in whole.model.state_dict().items():
        assert torch.allclose(det.model.state_dict()[k].float(), v.float(), atol=1e-5), k


@pytest.mark.slow
def test_learns_eight_images_by_heart(tmp_path):
    data = generated_data('multiscale', 8, 1, n_objects=(1, 2), scale=(0.2, 0.6))
    data = replace(data, splits=dict(train=data.train, val=data.train[:1]))
    how = dict(frozen_epochs=60, epochs=0, bs=8, lr=5e-3, variants=1, strength=None, keep='last')
    det, _ = train_detector(data, TrainConfig('fcos', size=128, width=32, **how), progress=False)
    assert det.evaluate(data.train, progress=False).map50 >= 0.9
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    assert again.evaluate(data.train, progress=False).map50 >= 0.9
