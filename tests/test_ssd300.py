"""SSD300: the same as torchvision's, layer by layer, and where it differs on purpose;
it learns, and the command knows it."""

import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torchvision.models.detection import _utils as theirs
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from ssd_tutorial.anchors import (
    AnchorSpec,
    GridSpec,
    LogCoder,
    level_anchors,
    make_anchors,
    spec_from_dict,
    spec_to_dict,
)
from ssd_tutorial.cli import main
from ssd_tutorial.body import Body, NETS, WeightsError, load_body_weights, make_body
from ssd_tutorial.boxes import iou, xyxy_to_cxcywh
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.runs import train_detector
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.grid import build_arch, ssd_loss
from ssd_tutorial.nms import detect
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.multibox import hard_negatives, multibox
from ssd_tutorial.ported import (
    COCO_IDS,
    LAYERS,
    from_torchvision_state,
    from_tutorial_state,
    tutorial_ssd300,
    VOC_CLASSES,
)
from ssd_tutorial.ssd300 import (
    SSD300_TORCHVISION,
    SSD300_TUTORIAL,
    VGGMaps,
    decimate,
    fc_to_conv,
    ssd300_model,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'benchmarks'))
from referees import TutorialSSD, bare_ssd, ssd300, ssd_targets  # noqa: E402

NARROW = dict(arch='ssd300', spec=spec_to_dict(SSD300_TUTORIAL), n_classes=5)


@pytest.fixture(scope='module')
def twins():
    """torchvision's model with random weights, four columns, and ours with the same;
    what each says of one picture."""
    tv, out = ssd300(3, seed=3), {}
    with torch.no_grad():
        tv.backbone.scale_weight.add_(torch.rand(512))
    ours = build_arch(
        dict(NARROW, spec=spec_to_dict(SSD300_TORCHVISION), n_classes=3), Body('ssd_vgg16', (2, 3))
    ).eval()
    ours.load_state_dict(from_torchvision_state(tv.state_dict()))
    tv.head.register_forward_hook(lambda m, i, o: out.update(o))
    tv.anchor_generator.register_forward_hook(lambda m, i, o: out.update(anchors=o[0]))
    x = torch.rand(1, 3, 300, 300)
    with torch.no_grad():
        out.update(found=tv([x[0]])[0], ours=ours(x))
    return tv, ours, out


def test_anchors_and_outputs_are_torchvisions(twins):
    tv, ours, out = twins
    assert (out['anchors'] / 300 - ours.anchors).abs().max() < 1e-5
    assert len(ours.anchors) == 8732
    for a, b in zip(out['ours'], (out['cls_logits'], out['bbox_regression'])):
        assert (a - b).abs().max() < 1e-4
        assert a.std() > 0.1


def test_detections_are_torchvisions(twins):
    tv, ours, out = twins
    t = out['found']
    m = detect(
        out['ours'],
        ours.anchors,
        LogCoder(),
        'softmax',
        score=0.01,
        overlap=0.45,
        top_k=200,
        most=8732 * 3,
    )[0]
    assert len(m['scores']) == len(t['scores']) > 20
    same = iou(m['boxes_xyxy'], t['boxes'] / 300) * (m['labels'][:, None] == t['labels'])
    assert (same.amax(1) > 0.999).all()
    assert (same.amax(0) > 0.999).all()
    assert torch.allclose(m['scores'].sort().values, t['scores'].sort().values, atol=1e-5)


def test_anchors_are_where_the_published_numbers_put_them():
    """torchvision's by its own generator; the tutorial's one after another:
    1, 1', 2, 3, ½, .333, and the very last square is the picture."""
    maps = [torch.zeros(1, 1, c, c) for c in (38, 19, 10, 5, 3, 1)]
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    with_steps = (
        DefaultBoxGenerator(
            ratios,
            scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
            steps=[8, 16, 32, 64, 100, 300],
        )(images, maps)[0]
        / 300
    )
    assert torch.allclose(make_anchors(SSD300_TORCHVISION), with_steps, atol=1e-5)
    larger, want = (0.1414214, 0.2738613, 0.4541476, 0.6314665, 0.8077747, 1.0), []
    for cells, scale, big, many in zip(
        (38, 19, 10, 5, 3, 1), (0.1, 0.2, 0.375, 0.55, 0.725, 0.9), larger, (0, 1, 1, 1, 0, 0)
    ):
        for i in range(cells * cells):
            at = [(i % cells + 0.5) / cells, (i // cells + 0.5) / cells]
            want += [at + [scale] * 2, at + [big] * 2]
            want += [
                at + [min(1, scale * r**0.5), min(1, scale / r**0.5)]
                for r in ([2, 3, 0.5, 0.333] if many else [2, 0.5])
            ]
    assert len(want) == 8732
    assert torch.allclose(
        xyxy_to_cxcywh(make_anchors(SSD300_TUTORIAL)), torch.tensor(want), atol=1e-5
    )


@pytest.mark.parametrize('spec', [SSD300_TUTORIAL, SSD300_TORCHVISION])
def test_presets_survive_json_and_count(spec):
    again = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert again == spec
    assert spec.n_anchors == 8732
    assert [len(l.shapes) for l in spec.levels] == [4, 6, 6, 6, 4, 4]
    assert (xyxy_to_cxcywh(make_anchors(again))[:, 2:] <= 1 + 1e-5).all()


def test_pitch():
    assert torch.allclose(
        level_anchors(GridSpec(5, pitch=0.2)), level_anchors(GridSpec(5)), atol=1e-6
    )
    assert torch.allclose(
        level_anchors(GridSpec(2, pitch=0.25))[-1], torch.tensor([0.25, 0.25, 0.5, 0.5])
    )
    old = dict(levels=[dict(cells=3, shapes=[[0, 0, 1, 1]])], clip=False)
    assert spec_from_dict(old) == AnchorSpec((GridSpec(3),), clip=False)
    for bad in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='above 0'):
            GridSpec(3, pitch=bad)


def test_coder_is_torchvisions():
    torch.manual_seed(0)
    corner, size = torch.rand(2, 2000, 2) * 0.6, torch.rand(2, 2000, 2) * 0.35 + 0.02
    gt, an = torch.cat([corner, corner + size], -1)
    coder, box = LogCoder(), theirs.BoxCoder((10.0, 10.0, 5.0, 5.0))
    assert torch.allclose(coder.encode(gt, an), box.encode_single(gt, an), rtol=1e-4, atol=1e-4)
    deltas = torch.randn(2000, 4) * 4
    assert torch.allclose(
        coder.decode(deltas, an), box.decode_single(deltas, an), rtol=1e-4, atol=1e-4
    )
    ours, other = (
        (lambda b: (b[:, 2] - b[:, 0]) / (an[:1, 2] - an[:1, 0]))(
            d(torch.tensor([[0.0, 0, 25, 0]]), an[:1])
        )
        for d in (coder.decode, box.decode_single)
    )
    # each cuts off absurd sizes, not at the same
    assert torch.allclose(ours, torch.tensor(4.0).exp())
    assert torch.allclose(other, torch.tensor(62.5), rtol=1e-3)


@pytest.fixture(scope='module')
def their_ssd():
    return bare_ssd(5)


def their_loss(ssd, preds, targets, anchors):
    real = ssd_targets(targets, 300)
    owner = [
        ssd.proposal_matcher(iou(t['boxes'] / 300, anchors))
        if len(t['boxes'])
        else torch.full((len(anchors),), -1)
        for t in real
    ]
    loss = ssd.compute_loss(
        real,
        dict(cls_logits=preds[0], bbox_regression=preds[1]),
        [anchors * 300] * len(real),
        owner,
    )
    return loss['classification'], loss['bbox_regression']


def batch(seed, B=3, N=4, C=5):
    torch.manual_seed(seed)
    corner, size = torch.rand(2, B, N, 2)
    size = size * 0.5 + 0.1
    corner = corner * (1 - size)
    labels = torch.randint(1, C + 1, (B, N))
    labels[0, -1] = 0  # padding
    return dict(boxes_xyxy=torch.cat([corner, corner + size], -1), labels=labels), (
        torch.randn(B, 8732, C + 1),
        torch.randn(B, 8732, 4),
    )


def test_loss_and_gradient_are_torchvisions(their_ssd):
    anchors, compared = make_anchors(SSD300_TORCHVISION), 0
    for seed in range(12):
        targets, preds = batch(seed)
        wishes = [
            iou(b[l > 0], anchors).argmax(1)
            for b, l in zip(targets['boxes_xyxy'], targets['labels'])
        ]
        if any(len(w.unique()) < len(w) for w in wishes):
            continue
        mine, other = ([p.clone().requires_grad_() for p in preds] for _ in range(2))
        total, parts = ssd_loss(mine, targets, anchors, cls_loss=multibox)
        cls, box = their_loss(their_ssd, other, targets, anchors)
        assert torch.allclose(parts['cls'], cls, rtol=1e-4)
        assert torch.allclose(parts['box'], box, rtol=1e-3)
        total.backward()
        (cls + box).backward()
        compared += 1
        for a, b in zip(mine, other):
            assert torch.allclose(a.grad, b.grad, atol=1e-4)
    assert compared > 5


def test_an_empty_image_teaches_here_and_not_there(their_ssd):
    anchors = make_anchors(SSD300_TORCHVISION)
    empty = dict(boxes_xyxy=torch.zeros(2, 1, 4), labels=torch.zeros(2, 1, dtype=torch.int64))
    preds = torch.randn(2, 8732, 6, requires_grad=True), torch.randn(2, 8732, 4)
    assert sum(their_loss(their_ssd, preds, empty, anchors)).item() == 0
    total = ssd_loss(preds, empty, anchors, cls_loss=multibox)[0]
    total.backward()
    assert total.isfinite()
    assert total > 1
    assert (preds[0].grad != 0).any(-1).sum(1).tolist() == [3, 3]
    # the paper's
    assert ssd_loss(preds, empty, anchors, cls_loss=lambda x, l: multibox(x, l, floor=0))[0] == 0


def test_objects_that_share_a_best_anchor_are_both_learnt_here(their_ssd):
    anchors = make_anchors(SSD300_TORCHVISION)
    boxes = torch.tensor([[0.505, 0.505, 0.535, 0.535], [0.508, 0.508, 0.533, 0.533]])
    best = iou(boxes, anchors).argmax(1)
    assert best[0] == best[1]
    targets, preds = (
        dict(boxes_xyxy=boxes[None], labels=torch.tensor([[1, 2]])),
        (torch.randn(1, 8732, 6), torch.randn(1, 8732, 4)),
    )
    assert set(their_ssd.proposal_matcher(iou(boxes, anchors)).unique().tolist()) == {-1, 1}
    preds[0].requires_grad_()
    ssd_loss(preds, targets, anchors, cls_loss=lambda x, l: multibox(x, l) * 1.0)[0].backward()
    assert (preds[0].grad != 0).any(-1).sum() == 2 + 3 * 2


def test_hard_negatives_against_sorting():
    for seed in range(50):
        torch.manual_seed(seed)
        logits, labels = torch.randn(3, 40, 4) * (1, 300)[seed % 2], torch.randint(-1, 4, (3, 40))
        labels = torch.where(torch.rand(3, 40) < 0.7, 0, labels)
        labels[seed % 3] *= labels[seed % 3] < 0
        kept = hard_negatives(logits, labels)
        assert not (kept & (labels != 0)).any()
        for k, x, l in zip(kept, logits, labels):
            cost = -x.log_softmax(-1)[:, 0]
            n = min(max(3, 3 * int((l > 0).sum())), int((l == 0).sum()))
            assert int(k.sum()) == n
            left = (l == 0) & ~k
            # the logarithm of a loud sum rounds
            assert (
                n == 0 or not left.any() or (cost[k].min() >= cost[left].max() - 1e-3 * (seed % 2))
            )


def test_nan_logits_reach_the_loss():
    logits = torch.zeros(1, 10, 3)
    logits[0, 4] = torch.nan
    assert multibox(logits, torch.zeros(1, 10, dtype=torch.int64)).isnan()


def test_a_fully_connected_layer_becomes_the_maps_layer():
    """VGG's classifier, an eighth as wide, its weights zero where decimation drops them,
    equals our two convolutions at the middle place."""
    torch.manual_seed(0)
    net = VGGMaps(1 / 8)
    fc6, fc7 = nn.Linear(64 * 49, 512), nn.Linear(512, 512)
    with torch.no_grad():
        keep = torch.zeros(64, 7, 7)
        keep[:, ::3, ::3] = 1
        fc6.weight.mul_(keep.flatten())
        lost = torch.ones(512, dtype=torch.bool)
        lost[::4] = False
        fc7.weight[:, lost] = 0
    state = net.translate(
        {
            'classifier.0.weight': fc6.weight.detach(),
            'classifier.0.bias': fc6.bias.detach(),
            'classifier.3.weight': fc7.weight.detach(),
            'classifier.3.bias': fc7.bias.detach(),
        }
    )
    x = torch.rand(1, 64, 7, 7)
    want = fc7(fc6(x.flatten(1)).relu())[0, ::4]
    y = nn.functional.conv2d(x, state['fc6.weight'], state['fc6.bias'], dilation=3).relu()
    got = nn.functional.conv2d(y, state['fc7.weight'], state['fc7.bias']).flatten()
    assert torch.allclose(got, want, atol=1e-4)
    assert decimate(torch.arange(7), (3,)).tolist() == [0, 3, 6]
    assert fc_to_conv(fc6.weight, (64, 7, 7)).shape == (512, 64, 7, 7)


def test_a_file_of_torchvisions_vgg_loads(tmp_path):
    torch.manual_seed(0)
    state = {
        k: torch.rand_like(v)
        for k, v in VGGMaps(1 / 16).state_dict().items()
        if k.startswith('features')
    }
    state |= {
        'classifier.0.weight': torch.rand(256, 32 * 49),
        'classifier.0.bias': torch.rand(256),
        'classifier.3.weight': torch.rand(256, 256),
        'classifier.3.bias': torch.rand(256),
        'classifier.6.weight': torch.rand(10, 256),
    }
    torch.save(state, tmp_path / 'vgg.pth')
    body = make_body('ssd_vgg16', tmp_path / 'vgg.pth', (2, 3), width=1 / 16)
    assert torch.equal(body.net.features[0].weight, state['features.0.weight'])
    assert torch.equal(body.net.fc7.bias, state['classifier.3.bias'][::4])
    del state['classifier.3.bias']
    with pytest.raises(WeightsError, match='no fc6.weight'):
        load_body_weights(body, state)


def test_freezing_is_the_bodys_own():
    body = make_body('ssd_vgg16', 'none', (2, 3), width=1 / 16)
    model = ssd300_model(NARROW, body.freeze()).train()
    assert not body.net.training
    assert model.neck.norm.scale.requires_grad
    assert not any(p.requires_grad for p in body.parameters())
    body.unfreeze(below=8)
    learns = {n for n, p in body.net.named_parameters() if p.requires_grad}
    assert 'features.24.weight' in learns
    assert 'features.21.weight' not in learns
    assert 'fc7.weight' in learns
    with pytest.raises(WeightsError, match='strides 1, 2, 4, 8, 16'):
        body.unfreeze(below=32)
    assert 'ssd_vgg16' in NETS


def test_tutorial_checkpoint(tmp_path):
    """A network of its names that stands on its own, every weight another:
    all our answers are its answers."""
    torch.manual_seed(0)
    net = TutorialSSD(21).eval()
    saved = dict(epoch=231, model=net, optimizer=None)
    state = net.state_dict()
    x = torch.rand(2, 3, 300, 300)
    det = tutorial_ssd300(saved)
    with torch.no_grad():
        (deltas, logits), (cls, box) = (
            net((x - det.model.body.mean) / det.model.body.std),
            det.model(x),
        )
    assert cls.std() > 0.1
    assert torch.allclose(cls, logits, rtol=1e-3, atol=1e-3 * float(logits.std()))
    assert torch.allclose(box, deltas, rtol=1e-3, atol=1e-3 * float(deltas.std()))
    assert torch.allclose(det.model.body.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert len(VOC_CLASSES) == 21
    assert sorted(VOC_CLASSES[1:]) == list(VOC_CLASSES[1:])
    img = (np.random.default_rng(0).random((120, 200, 3)) * 255).astype(np.uint8)
    again = Detector.load(det.save(tmp_path / 't.pt'))
    a, b = (d.predict(img, score=0.06) for d in (det, again))
    assert len(a)
    assert a.names == b.names
    assert np.allclose(a.boxes_px, b.boxes_px, atol=1e-3)
    for other in (state, net):
        assert all(
            torch.equal(v, from_tutorial_state(saved)[k])
            for k, v in from_tutorial_state(other).items()
        )
    with torch.device('meta'):
        full = TutorialSSD(21, width=1).state_dict()
        model = build_arch(dict(NARROW, n_classes=20), Body('ssd_vgg16', (2, 3)))
    # 20 classes at full width
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in from_tutorial_state(full).items()
    }
    with pytest.raises(WeightsError, match='no base.conv1_1.weight'):
        from_tutorial_state({'rescale_factors': torch.zeros(1, 512, 1, 1)})
    with pytest.raises(WeightsError, match='have odd.weight'):
        from_tutorial_state({**state, 'odd.weight': torch.zeros(1)})
    with pytest.raises(DetectorError, match='21 classes with background, the vocab 3'):
        tutorial_ssd300(state, ('background', 'cat', 'dog'))
    assert len(LAYERS) == 35


def test_a_detector_begins_saves_and_loads(tmp_path):
    data = generated_data('multiscale', n_train=4, n_valid=2)
    cfg = TrainConfig('ssd300', weights='none', body_settings=dict(width=1 / 16))
    assert (cfg.size, cfg.body) == (300, 'ssd_vgg16')
    det = new_detector(data, cfg)
    assert (det.size, det.activation, len(det.model.anchors)) == (300, 'softmax', 8732)
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    a, b = (d.predict(data.valid[0].image, score=0.1) for d in (det, again))
    assert np.allclose(a.boxes_px, b.boxes_px, atol=1e-3)
    assert a.names == b.names
    with pytest.raises(ValueError, match='300×300'):
        new_detector(data, TrainConfig('ssd300', size=256, weights='none', body='resnet18'))
    assert new_detector(
        data, TrainConfig('ssd300', weights='none', body='resnet18')
    ).model.neck.channels == [128, 256, 512, 256, 256, 256]  # another body of strides 8 and 16


def test_width_is_that_of_the_necks_first_own_map():
    data = generated_data('multiscale', n_train=4, n_valid=2)
    cfg = TrainConfig('ssd300', weights='none', body_settings=dict(width=1 / 16), width=64)
    assert new_detector(data, cfg).model.neck.channels == [32, 64, 64, 32, 32, 32]


def test_coco_detector_survives_saving(tmp_path):
    """With a narrow body in place of the real one:
    91 columns in, 80 classes out, torchvision's stretching kept."""
    spec = spec_to_dict(SSD300_TORCHVISION)
    desc = dict(
        arch='ssd300',
        body='ssd_vgg16',
        body_settings=dict(width=1 / 16),
        levels=[2, 3],
        n_classes=90,
        activation='softmax',
        antialias=False,
        kept=list(COCO_IDS),
        spec=spec,
    )
    model = build_arch(desc, Body('ssd_vgg16', (2, 3), width=1 / 16))
    det = Detector(model, ['background'] + [f'c{i}' for i in COCO_IDS], desc, 300, (0, *COCO_IDS))
    again = Detector.load(det.save(tmp_path / 'coco.pt'))
    img = (np.random.default_rng(0).random((120, 200, 3)) * 255).astype(np.uint8)
    a, b = (d.predict(img, score=0.011) for d in (det, again))
    assert len(a.scores)
    assert np.allclose(a.boxes_px, b.boxes_px, atol=1e-3)
    assert a.labels.max() <= 80
    x = torch.nn.functional.interpolate(
        torch.from_numpy(img).permute(2, 0, 1)[None] / 255.0, (300, 300), mode='bilinear'
    )[0]
    from PIL import Image

    assert torch.allclose(det.input_of(Image.fromarray(img)), x)


def test_what_is_named_stands(tmp_path):
    """Even at its default: whoever compares focal loss with multibox must not compare multibox with
    itself."""
    cfg = TrainConfig(
        'ssd300',
        loss='focal',
        body='efficientnet_lite0',
        augment='imgaug',
        strength=0.7,
        recipe='ssd',
        bs=16,
    )
    assert (cfg.loss, cfg.body, cfg.augment, cfg.strength, cfg.bs) == (
        'focal',
        'efficientnet_lite0',
        'imgaug',
        0.7,
        16,
    )
    assert (cfg.size, cfg.epochs, cfg.lr) == (300, 16, 1e-3)  # nobody named these
    again = replace(cfg, seed=1)
    assert replace(again, seed=0) == cfg  # `replace` gives everything, and changes one
    data = generated_data('multiscale', n_train=2, n_valid=1)
    narrow = new_detector(data, TrainConfig('ssd300', weights='none', body='resnet18', width=64))
    assert narrow.model.neck.channels == [128, 256, 64, 32, 32, 32]
    assert len(Detector.load(narrow.save(tmp_path / 'n.pt')).model.anchors) == 8732


def test_from_torchvision_says_what_is_wrong(twins):
    with pytest.raises(DetectorError, match='have 4 columns'):
        Detector.from_torchvision(state=twins[0].state_dict())
    with pytest.raises(DetectorError, match='known: ssd300_vgg16'):
        Detector.from_torchvision('yolo')
    with pytest.raises(WeightsError, match='no backbone'):
        Detector.from_torchvision(state={})
    with pytest.raises(WeightsError, match=r'this is a str. Open a file first: torch.load\(FILE'):
        Detector.from_torchvision(state='ssd300_vgg16_coco-b556d3b4.pth')
    with pytest.raises(WeightsError, match=r'torch.load\(FILE'):
        tutorial_ssd300('checkpoint_ssd300.pth.tar')


def test_it_learns_eight_pictures_by_heart():
    "At an eighth of the width, without augmentation; every step is an epoch of one batch"
    data = generated_data('multiscale', n_train=8, n_valid=1)
    data = replace(data, splits=dict(train=data.train, val=data.train))
    cfg = TrainConfig(
        'ssd300',
        weights='none',
        body_settings=dict(width=1 / 8),
        epochs=75,
        bs=8,
        lr=1e-3,
        strength=None,
    )
    det, rows = train_detector(data, cfg, progress=False)
    assert rows[0]['map50'] < 0.1
    assert det.evaluate(data.train, protocol='ssd', progress=False).map50 >= 0.9


def test_the_papers_recipe_learns():
    "Plain gradient descent as the recipe has it, sixty batches"
    data = generated_data('multiscale', n_train=8, n_valid=2)
    _, rows = train_detector(
        data,
        TrainConfig(
            'ssd300',
            weights='none',
            body_settings=dict(width=1 / 8),
            epochs=60,
            bs=8,
            recipe='ssd',
            strength=None,
        ),
        progress=False,
    )
    losses = [r['train_loss'] for r in rows]
    print(losses[::6])
    assert losses[-1] < 0.6 * losses[0]
    assert np.isfinite(losses).all()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp('set')
    save_voc(generated_data('multiscale', n_train=6, n_valid=2), where)
    return where


def command(folder, out, *args):
    r = CliRunner().invoke(
        main,
        [
            'train',
            '--data',
            str(folder),
            *'--arch ssd300 --out'.split(),
            str(out),
            '--batch-size',
            '2',
            *args,
        ],
    )
    return r, json.loads(out.with_suffix('.json').read_text())[
        'settings'
    ] if r.exit_code == 0 else None


def test_the_command_trains_it_at_full_width(folder, request, tmp_path):
    """On photographs of voc_animals where they are there;
    a loss that is not finite would end the command with status 2."""
    try:
        data = load_dataset(request.getfixturevalue('real_data') / 'voc_animals')
    except pytest.skip.Exception:
        pass
    else:
        folder = tmp_path / 'photographs'
        # measuring all 870 would take minutes
        save_voc(replace(data, splits=dict(train=data.train[:6], val=data.valid[:2])), folder)
    r, settings = command(folder, tmp_path / 'd.pt', '--weights', 'none', '--max-steps', '3')
    assert r.exit_code == 0, r.output
    assert 'mAP50' in r.output, r.output
    det = Detector.load(tmp_path / 'd.pt')
    assert (det.size, det.activation, det.model.body.net.width, len(det.model.anchors)) == (
        300,
        'softmax',
        1,
        8732,
    )
    assert [
        settings[k] for k in ('body', 'size', 'loss', 'augment', 'frozen_epochs', 'epochs', 'bs')
    ] == ['ssd_vgg16', 300, 'multibox', 'ssd', 0, 16, 2]


def test_what_was_asked_for_stands(folder, tmp_path):
    r, settings = command(
        folder,
        tmp_path / 'd.pt',
        *'--body efficientnet_lite0 --loss focal --recipe ssd --epochs 4 --max-steps 1'.split(),
    )
    assert r.exit_code == 0, r.output
    assert [
        settings[k]
        for k in ('body', 'loss', 'recipe', 'lr', 'unfrozen_lr', 'epochs', 'frozen_epochs')
    ] == ['efficientnet_lite0', 'focal', 'ssd', 1e-3, 1e-3, 4, 0]
    assert Detector.load(tmp_path / 'd.pt').activation == 'sigmoid'
    # 12 is a default elsewhere
    _, settings = command(
        folder,
        tmp_path / 'f.pt',
        *'--body efficientnet_lite0 --frozen-epochs 12 --variants 1 --max-steps 1'.split(),
    )
    assert [settings[k] for k in ('frozen_epochs', 'epochs', 'augment')] == [12, 4, 'ssd']
    for args, what in (
        (['--size', '224', '--weights', 'none'], '--size 300'),
        (['--loss', 'dice'], "No loss 'dice'"),
        (['--recipe', 'stew'], "No recipe 'stew'"),
        (['--augment', 'none', '--body', 'efficientnet_lite0'], 'choose from imgaug, ssd'),
    ):
        r, _ = command(folder, tmp_path / 'e.pt', *args, '--max-steps', '1')
        assert r.exit_code == 2, r.output
        assert what in r.output, r.output
    r = CliRunner().invoke(
        main,
        [
            'evaluate',
            '--data',
            str(folder),
            '--detector',
            str(tmp_path / 'd.pt'),
            '--protocol',
            'ssd',
        ],
    )
    assert r.exit_code == 0, r.output
    assert 'at most 200 an image' in r.output, r.output
