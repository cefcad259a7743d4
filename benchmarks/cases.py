"""The cases that are measured: the tensors, the two functions,
and the check that both give the same."""

import numpy as np
import torch
from functools import partial
from torchvision.ops import batched_nms, box_iou, sigmoid_focal_loss

from referees import (
    as_ours,
    bare_ssd,
    contest_map,
    contest_tables,
    detect_loop,
    loss_loop,
    ssd300,
    ssd_finds,
    ssd_learns,
    ssd_targets,
)
from whole import folder_case, photo_case
from ssd_tutorial.anchors import MULTI, LogCoder, make_anchors, spec_to_dict
from ssd_tutorial.body import Body
from ssd_tutorial.boxes import iou
from ssd_tutorial.detector import Detector
from ssd_tutorial.fast_focal import fast_focal_loss
from ssd_tutorial.focal import focal_terms
from ssd_tutorial.grid import build_arch, one_hot_labels, ssd_loss
from ssd_tutorial.metrics import evaluate_found, voc_map
from ssd_tutorial.nms import detect, suppress
from ssd_tutorial.multibox import multibox
from ssd_tutorial.ported import from_torchvision_state
from ssd_tutorial.ssd import SSD512_VOC
from ssd_tutorial.ssd300 import SSD300_TORCHVISION


def close(a, b, eps=1e-4):
    assert abs(float(a) - float(b)) <= eps * max(abs(float(b)), 1e-9), (float(a), float(b))


def random_boxes(g, *shape, small=0.05, large=0.6):
    "Boxes as they lie in photographs: sides from small to large, anywhere"
    size = small * (large / small) ** torch.rand(*shape, 2, generator=g)
    lt = torch.rand(*shape, 2, generator=g) * (1 - size)
    return torch.cat([lt, lt + size], -1)


def objects_apart(g, anchors, n):
    """n objects, each with one best anchor, no two with the same:
    there both rules of matching say the same."""
    boxes = random_boxes(g, n)
    while True:
        top = iou(boxes, anchors).topk(2)
        best = top.indices[:, 0]
        # inside two anchors of one shape: rounding would decide
        first = torch.tensor([b not in best[:i] for i, b in enumerate(best)]).bool() & (
            top.values.diff().abs()[:, 0] > 1e-5
        )
        if first.all():
            return boxes
        boxes[~first] = random_boxes(g, int((~first).sum()))


def make_targets(anchors, B, n_classes, n_objects=(1, 12), seed=0, apart=True):
    "A padded batch of targets"
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(n_objects[0], n_objects[1] + 1, (B,), generator=g).tolist()
    boxes = [objects_apart(g, anchors, n) if apart else random_boxes(g, n) for n in counts]
    labels = [torch.randint(1, n_classes + 1, (n,), generator=g) for n in counts]
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return dict(
        boxes_xyxy=pad(boxes),
        labels=pad(labels),
        crowd=torch.zeros_like(pad(labels), dtype=torch.bool),
    )


def steps(preds, *losses):
    "Both losses, forward and backward; their values and slopes must agree"

    def step(loss):
        for p in preds:
            p.grad = None
        out = loss()
        out.backward()
        return out

    ours, theirs = (partial(step, loss) for loss in losses)
    a, ga = ours().item(), [p.grad.clone() for p in preds]
    close(a, theirs().item())
    for x, p in zip(ga, preds):
        assert (x - p.grad).abs().max() < 1e-4 * p.grad.abs().max(), 'gradients differ'
    return ours, theirs


def loss_case(B=32, C=80, **_):
    anchors = make_anchors(MULTI)
    g = torch.Generator().manual_seed(1)
    preds = tuple(
        x.requires_grad_()
        for x in (
            torch.randn(B, len(anchors), C, generator=g) - 4,
            torch.randn(B, len(anchors), 4, generator=g) * 0.5,
        )
    )
    targets = make_targets(anchors, B, C)
    return steps(
        preds,
        lambda: ssd_loss(preds, targets, anchors, cls_loss=fast_focal_loss)[0],
        lambda: loss_loop(preds, targets, anchors),
    )


def multibox_case(B=8, C=20, spec=SSD300_TORCHVISION, **_):
    "Each gets the targets in the form that it wants"
    anchors = make_anchors(spec)
    g = torch.Generator().manual_seed(1)
    ssd = bare_ssd(C)
    preds = tuple(torch.randn(B, len(anchors), k, generator=g).requires_grad_() for k in (C + 1, 4))
    targets = make_targets(anchors, B, C)
    real = ssd_targets(targets)
    return steps(
        preds,
        lambda: ssd_loss(preds, targets, anchors, cls_loss=multibox)[0],
        lambda: ssd_learns(ssd, preds, real, anchors),
    )


def peaked_preds(A, C, n_over, seed=2, score=0.05):
    "Logits of one image of which exactly n_over lie over the score; None: all"
    g = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(1, A, C, generator=g) * 0.6 - 1
        if n_over is None
        else torch.randn(1, A, C, generator=g).clamp(-3, 3) - 7
    )
    if n_over is None:
        logits = logits.clamp(min=-2.5)
    else:
        logits.view(-1)[torch.randperm(A * C, generator=g)[:n_over]] = torch.randn(
            n_over, generator=g
        ).clamp(min=-2.5)
    assert int((logits.sigmoid() > score).sum()) == (A * C if n_over is None else n_over)
    return logits, torch.randn(1, A, 4, generator=g) * 0.5


def same_detections(a, b):
    for x, y in zip(a, b, strict=True):
        assert len(x['labels']) == len(y['labels']), (len(x['labels']), len(y['labels']))
        assert x['labels'].tolist() == y['labels'].tolist()
        assert ((x['scores'] - y['scores']).abs() < 1e-6).all()
        assert ((x['boxes_xyxy'] - y['boxes_xyxy']).abs() < 1e-5).all()


def alike(a, b):
    "Of two networks with the same weights: nearly equal numbers, in any order"
    for x, y in zip(a, b, strict=True):
        assert len(x['labels']) == len(y['labels']) > 0, (len(x['labels']), len(y['labels']))
        near = iou(x['boxes_xyxy'], y['boxes_xyxy']) * (x['labels'][:, None] == y['labels'])
        assert (near.amax(0) > 0.999).all()
        assert (near.amax(1) > 0.999).all()
        assert ((x['scores'] - y['scores']).abs() < 1e-5).all()


def detect_case(n_over=500, C=20, **_):
    anchors = make_anchors(MULTI)
    preds = peaked_preds(len(anchors), C, n_over)
    ours, theirs = (lambda: detect(preds, anchors)), (lambda: detect_loop(preds, anchors))
    # the short list of 1000 changes nothing here: the best hundred lie within it
    same_detections(ours(), theirs())
    return ours, theirs


def trained_preds(anchors, B, C, seed=2):
    """What a trained SSD300 says: background nearly everywhere;
    around each object its class, less loudly another one, and the way to its box."""
    g = torch.Generator().manual_seed(seed)
    targets = make_targets(anchors, B, C, seed=seed, apart=False)
    logits, deltas = (
        0.7 * torch.randn(B, len(anchors), C + 1, generator=g),
        0.5 * torch.randn(B, len(anchors), 4, generator=g),
    )
    logits[..., 0] += 7 if len(anchors) < 10_000 else 8.5  # as many false alarms an image
    for x, d, boxes, labels in zip(logits, deltas, targets['boxes_xyxy'], targets['labels']):
        near, at = iou(boxes, anchors).max(0)
        a = (near > 0.2).nonzero()[:, 0]
        label = labels[at[a]]
        sure = 24 * (near[a] - 0.2) + 1.5 * torch.randn(len(a), generator=g)
        x[a, label] += sure
        x[a, label % C + 1] += 0.6 * sure
        d[a] += LogCoder().encode(boxes[at[a]], anchors[a])
    return logits, deltas


def ssd_detect_case(B=8, C=20, spec=SSD300_TORCHVISION, **_):
    anchors = make_anchors(spec)
    preds = trained_preds(anchors, B, C)
    ssd = bare_ssd(C)
    found = preds[0].softmax(-1)[..., 1:] > 0.01
    assert found.sum(1).max() <= 400, 'theirs cuts at 400 per class: here it may not'
    assert found.sum((1, 2)).max() <= 4000, 'ours cuts at 4000 per image: here it may not'
    ours = lambda: detect(
        preds, anchors, activation='softmax', score=0.01, overlap=0.45, top_k=200, most=4000
    )
    theirs = lambda: ssd_finds(ssd, preds, anchors)
    same_detections(ours(), theirs())
    return ours, theirs


def ssd300_case(B=4, C=20, **_):
    "Ours as `Detector` runs it, with the weights of torchvision's; both from a list of pictures"
    ssd = ssd300(C)
    desc = dict(
        arch='ssd300',
        body='ssd_vgg16',
        levels=[2, 3],
        n_classes=C,
        activation='softmax',
        kept=list(range(1, C + 1)),
        spec=spec_to_dict(SSD300_TORCHVISION),
    )
    model = build_arch(desc, Body('ssd_vgg16', (2, 3)))
    model.load_state_dict(from_torchvision_state(ssd.state_dict()))
    det = Detector(model, ['background', *map(str, range(C))], desc, 300)
    images = list(torch.rand(B, 3, 300, 300, generator=torch.Generator().manual_seed(7)))
    ours, theirs = (
        (lambda: det.detect_batch(torch.stack(images), 0.01, 0.45, 200)),
        torch.no_grad()(lambda: ssd(images)),
    )
    alike(ours(), as_ours(theirs(), 300.0))
    return ours, theirs


def iou_case(N=300, **_):
    anchors, g = make_anchors(MULTI), torch.Generator().manual_seed(4)
    boxes = random_boxes(g, N)
    assert (iou(boxes, anchors) - box_iou(boxes, anchors)).abs().max() < 1e-6
    return lambda: iou(boxes, anchors), lambda: box_iou(boxes, anchors)


def focal_case(B=8, C=80, labels=False, **_):
    "On the same one-hot table; or from labels, of which torchvision's has to make the table first"
    g, A = torch.Generator().manual_seed(5), MULTI.n_anchors
    x = (torch.randn(B, A, C, generator=g) - 4).requires_grad_()
    owner = torch.where(
        torch.rand(B, A, generator=g) < 0.005, torch.randint(1, C + 1, (B, A), generator=g), 0
    )
    hot = one_hot_labels(owner, C)

    def step(loss):
        x.grad = None
        out = loss()
        out.backward()
        return out

    if labels:
        ours, theirs = (
            partial(step, lambda: fast_focal_loss(x, owner)),
            partial(
                step, lambda: sigmoid_focal_loss(x, one_hot_labels(owner, C), 0.25, 2.0, 'sum')
            ),
        )
    else:
        ours, theirs = (
            partial(step, lambda: focal_terms(x, hot).sum()),
            partial(step, lambda: sigmoid_focal_loss(x, hot, 0.25, 2.0, 'sum')),
        )
    a, ga = ours().item(), x.grad.clone()
    close(a, theirs().item())
    assert (ga - x.grad).abs().max() < 1e-4 * x.grad.abs().max(), 'gradients differ'
    return ours, theirs


def nms_case(B=16, M=1000, C=80, **_):
    "A batch of candidates: ours gives each image its list, torchvision's one list of places"
    g = torch.Generator().manual_seed(6)
    image, boxes, scores, labels = (
        torch.arange(B).repeat_interleave(M),
        random_boxes(g, B * M, large=0.4),
        torch.rand(B * M, generator=g),
        torch.randint(1, C + 1, (B * M,), generator=g),
    )
    island = image * (C + 1) + labels
    ours, theirs = (
        (lambda: suppress(image, boxes, scores, labels, top_k=None, n_images=B)),
        (lambda: batched_nms(boxes, scores, island, 0.5)),
    )
    a, k = torch.cat([f['scores'] for f in ours()]).sort().values, scores[theirs()].sort().values
    assert torch.equal(a, k), 'other boxes are kept'
    return ours, theirs


def imagined(n_images=1000, C=20, each=100, seed=3):
    "Truth, and what an imaginary detector finds: half of it near objects, half anywhere"
    rng = np.random.default_rng(seed)
    g = torch.Generator().manual_seed(seed)
    found, truths = [], []
    for _ in range(n_images):
        n = int(rng.integers(1, 13))
        boxes, labels = random_boxes(g, n), torch.tensor(rng.integers(1, C + 1, n))
        on = torch.tensor(rng.integers(0, n, each))
        near = boxes[on] + torch.randn(each, 4, generator=g) * 0.02
        near = torch.cat([near[:, :2].clamp(0, 0.97), near[:, 2:]], 1)
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 0.02).clamp(max=1)
        hit = torch.rand(each, generator=g) < 0.5
        right = hit & (torch.rand(each, generator=g) < 0.8)
        found.append(
            dict(
                boxes_xyxy=torch.where(hit[:, None], near, random_boxes(g, each)),
                scores=torch.rand(each, generator=g) * (0.5 + 0.5 * right),
                labels=torch.where(right, labels[on], torch.tensor(rng.integers(1, C + 1, each))),
            )
        )
        truths.append(
            dict(
                boxes_xyxy=boxes,
                labels=labels,
                difficult=torch.tensor(rng.random(n) < 0.05),
                crowd=torch.tensor(rng.random(n) < 0.03),
                size_hw=torch.tensor([375, 500]),
            )
        )
    return found, truths


def map_case(n_images=1000, C=20, **_):
    """Ours from tensors to the report; the referee's tables are loaded and indexed beforehand,
    which is not counted."""
    found, truths = imagined(n_images, C)
    vocab = ['background', *(f'class {c}' for c in range(1, C + 1))]
    tables = contest_tables(found, truths, C)
    ours, theirs = (lambda: evaluate_found(found, truths, vocab)), (lambda: contest_map(tables))
    report, stats = ours(), theirs()
    # lesson 14's own count
    own = np.mean(
        [voc_map(found, truths, C, t, 'coco101', 'coco') for t in np.linspace(0.5, 0.95, 10)]
    )
    for a, b in (
        (report.map, stats[0]),
        (report.map50, stats[1]),
        *zip((report.by_size[k] for k in ('small', 'medium', 'large')), stats[3:6]),
        (own, stats[0]),
    ):
        assert abs(a - b) < 1e-6, (a, b)
    return ours, theirs


# name, case, its arguments, floor of referee/ours, limit of ours in seconds, what the referee is,
# on what
# fmt: off
CASES = [
    ('match + focal loss, forward and backward', loss_case, {}, 3, None,
     'loop over images, plain PyTorch', 'B=32, A=3150, C=80, 1–12 objects an image'),
    ('decode + NMS, 500 candidates', detect_case, {}, 10, None,
     'loops over images and classes, greedy NMS in Python',
     'A=3150, C=20, 500 scores over the threshold'),
    ('decode + NMS, all candidates', detect_case, dict(n_over=None), 50, 0.5,
     'loops over images and classes, greedy NMS in Python',
     'A=3150, C=20, every anchor over the threshold in every class'),
    ('pairwise IoU', iou_case, {}, 0.9, None, 'torchvision.ops.box_iou', '300 × 3150 boxes'),
    ('focal loss, forward and backward', focal_case, {}, 0.9, None,
     'torchvision.ops.sigmoid_focal_loss', 'B=8, A=3150, C=80, one-hot table given'),
    ('focal loss from labels, forward and backward', focal_case, dict(labels=True), None, None,
     'one-hot table, then sigmoid_focal_loss', 'B=8, A=3150, C=80'),
    ('NMS of a batch', nms_case, {}, 0.9, None,
     'torchvision.ops.batched_nms', '16 images of 1000 candidates, C=80'),
    ('NMS of one image', nms_case, dict(B=1), None, None,
     'torchvision.ops.batched_nms', '1000 candidates, C=80'),
    ('match + MultiBox loss, SSD300', multibox_case, {}, 1.43, None,
     "matching and loss of torchvision's SSD",
     'forward and backward, B=8, A=8732, C=20, 1–12 objects an image'),
    ('decode + NMS, SSD300', ssd_detect_case, {}, 1.2, None,
     "torchvision's SSD.postprocess_detections",
     'B=8, A=8732, C=20, score 0.01, overlap 0.45, 200 detections an image'),
    ('match + MultiBox loss, SSD512', multibox_case, dict(B=4, spec=SSD512_VOC), 1.2, None,
     "matching and loss of torchvision's SSD",
     'forward and backward, B=4, A=24564, C=20, 1–12 objects an image'),
    ('decode + NMS, SSD512', ssd_detect_case, dict(B=4, spec=SSD512_VOC), 0.9, None,
     "torchvision's SSD.postprocess_detections",
     'B=4, A=24564, C=20, score 0.01, overlap 0.45, 200 detections an image'),
    ('inference, SSD300 on VGG-16', ssd300_case, {}, 0.95, None,
     "torchvision's ssd300_vgg16, the same weights", '4 pictures of 300 × 300, C=20'),
    ('mAP', map_case, {}, 2, None, 'pycocotools: evaluate, accumulate, summarise',
     '1000 images, 20 classes, 100 detections each'),
    ('`predict`, a photograph', photo_case, dict(printed=True, rest=0.02), 1.8, None,
     "torchvision's ssdlite320_mobilenet_v3_large as its documentation prints it, "
     'gradients and all; untrained: all of its candidates pass',
     'a JPEG of 451 × 300, decoded, resized, network, NMS; the shipped detector'),
    ('`predict`, a photograph, against inference mode', photo_case, dict(rest=0.02), 1.4, None,
     'the same within torch.inference_mode()', 'as above'),
    ('`predict`, a photograph, against a silent referee', photo_case,
     dict(sure=12.0, rest=0.02), None, None,
     'likewise, its background so sure that nothing passes', 'as above'),
    ('`predict` with ONNX, a photograph', photo_case,
     dict(onnx=True, rest=0.02), 2.0, None,
     'within torch.inference_mode(), all candidates pass', 'as above, exported'),
    ('`predict`, a folder', folder_case, {}, 0.7, None,
     'the network alone, its inputs in memory', '32 JPEGs of 451 × 300, batches of 16'),
    ('`predict` with ONNX, a folder', folder_case, dict(onnx=True), 0.75, None,
     'the graph alone, its inputs in memory', 'as above, exported'),
]
# fmt: on
TINY = dict(
    loss_case=dict(B=2, C=3),
    iou_case=dict(N=10),
    focal_case=dict(B=1, C=3),
    nms_case=dict(B=2, M=60, C=3),
    map_case=dict(n_images=25, C=4),
    detect_case=dict(C=3),
    multibox_case=dict(B=2, C=3),
    ssd_detect_case=dict(B=1, C=8),
    ssd300_case=dict(B=1, C=3),
    photo_case={},
    folder_case=dict(n=4),
)
