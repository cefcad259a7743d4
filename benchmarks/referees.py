"""What the package is measured against: plain loops, and torchvision's SSD

The loops are those that most tutorials write, right and not slowed down, but image by image.
Each takes the same tensors as the package's function and gives the same figures; `run.py` asserts
that before it takes the time.
"""

import contextlib, io

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.ssd import SSD, DefaultBoxGenerator
from torchvision.ops import box_iou

VARIANCES = 0.1, 0.2


def match_one(anchors, boxes, labels, threshold=0.5):
    """One image: (A,) label of each anchor, 0 background, and (A,4) the box it should draw.
    Each object overwrites the owner of its best anchor."""
    if not len(labels):
        return labels.new_zeros(len(anchors)), torch.zeros_like(anchors)
    overlap = box_iou(boxes, anchors)
    best, owner = overlap.max(0)
    best_anchor = overlap.argmax(1)
    for n, a in enumerate(best_anchor):
        owner[a] = n
    best[best_anchor] = 1.0  # forced anchors pass the threshold
    out = labels[owner]
    out[best < threshold] = 0
    return out, boxes[owner]


def encode_one(boxes, anchors):
    "Corners to the offsets of the SSD paper"
    a_size, b_size = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    a_mid, b_mid = (anchors[:, :2] + anchors[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat(
        [(b_mid - a_mid) / a_size / VARIANCES[0], (b_size / a_size).log() / VARIANCES[1]], 1
    )


def focal_one(logits, hot, alpha=0.25, gamma=2.0):
    "Focal loss, one factor a line, summed"
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, hot, reduction='none')
    p_t = p * hot + (1 - p) * (1 - hot)
    alpha_t = alpha * hot + (1 - alpha) * (1 - hot)
    return (alpha_t * (1 - p_t) ** gamma * ce).sum()


def loss_loop(preds, targets, anchors, alpha=0.25, gamma=2.0):
    "Match and loss, image by image, then divided by the positive anchors of the batch"
    cls_sum = box_sum = 0.0
    n_pos = 0
    for logits, deltas, boxes, labels in zip(*preds, targets['boxes_xyxy'], targets['labels']):
        real = labels > 0
        label, to_draw = match_one(anchors, boxes[real], labels[real])
        pos = label > 0
        hot = F.one_hot(label, logits.shape[1] + 1)[:, 1:].to(logits)
        cls_sum = cls_sum + focal_one(logits, hot, alpha, gamma)
        box_sum = box_sum + F.smooth_l1_loss(
            deltas[pos], encode_one(to_draw[pos], anchors[pos]), reduction='sum'
        )
        n_pos = n_pos + pos.sum()
    return (cls_sum + box_sum) / n_pos.clamp(min=1)


def decode_one(deltas, anchors):
    "The offsets of the SSD paper to corners, cut at the edges of the image"
    a_size, a_mid = anchors[:, 2:] - anchors[:, :2], (anchors[:, :2] + anchors[:, 2:]) / 2
    mid, size = (
        a_mid + deltas[:, :2] * VARIANCES[0] * a_size,
        a_size * (deltas[:, 2:] * VARIANCES[1]).clamp(max=4.0).exp(),
    )
    return torch.cat([mid - size / 2, mid + size / 2], 1).clamp(0, 1)


def nms_one(boxes, scores, overlap=0.5):
    "Greedy suppression in Python: keep the best, drop what overlaps it, repeat"
    order, keep = scores.argsort(descending=True, stable=True), []
    while len(order):
        best = order[0]
        keep.append(best)
        rest = order[1:]
        order = rest[box_iou(boxes[best][None], boxes[rest])[0] <= overlap]
    return torch.stack(keep) if keep else order


def detect_loop(preds, anchors, score=0.05, overlap=0.5, top_k=100, most=None):
    """Detections, image by image and class by class;
    `most`: only so many candidates of an image enter."""
    out = []
    for logits, deltas in zip(*preds):
        scores, boxes = logits.sigmoid(), decode_one(deltas, anchors)
        if most is not None and scores.numel() > most:
            scores = scores * (scores >= scores.flatten().topk(most).values[-1])
        b, s, l = [], [], []
        for c in range(scores.shape[1]):
            rows = (scores[:, c] > score).nonzero()[:, 0]
            if not len(rows):
                continue
            rows = rows[nms_one(boxes[rows], scores[rows, c], overlap)]
            b.append(boxes[rows])
            s.append(scores[rows, c])
            l.append(torch.full_like(rows, c + 1))
        if not b:
            out.append(
                dict(boxes_xyxy=boxes[:0], scores=scores[:0, 0], labels=torch.zeros(0).long())
            )
            continue
        b, s, l = torch.cat(b), torch.cat(s), torch.cat(l)
        order = s.argsort(descending=True, stable=True)[:top_k]
        out.append(dict(boxes_xyxy=b[order], scores=s[order], labels=l[order]))
    return out


def bare_ssd(n_classes):
    """torchvision's SSD300 around nothing: for its matcher, its loss,
    and what it makes of the head's outputs."""
    body = nn.Identity()
    body.out_channels = [1] * 6
    return SSD(
        body,
        DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]]),
        (300, 300),
        n_classes + 1,
    )


def ssd_targets(targets, side=1.0):
    """A padded batch as torchvision wants it: one dict an image;
    side 1 leaves the boxes as fractions, which its matching, offsets and clipping do not mind."""
    return [
        dict(boxes=b[l > 0] * side, labels=l[l > 0])
        for b, l in zip(targets['boxes_xyxy'], targets['labels'])
    ]


def ssd_learns(ssd, preds, real, anchors):
    "torchvision's matching and loss, as its SSD calls them in training"
    owner = [ssd.proposal_matcher(box_iou(t['boxes'], anchors)) for t in real]
    losses = ssd.compute_loss(
        real, dict(cls_logits=preds[0], bbox_regression=preds[1]), [anchors] * len(real), owner
    )
    return losses['classification'] + losses['bbox_regression']


def as_ours(found, side=1.0):
    return [
        dict(boxes_xyxy=f['boxes'] / side, scores=f['scores'], labels=f['labels']) for f in found
    ]


@torch.no_grad()
def ssd_finds(ssd, preds, anchors):
    "torchvision's decoding and suppression"
    return as_ours(
        ssd.postprocess_detections(
            dict(cls_logits=preds[0], bbox_regression=preds[1]),
            [anchors] * len(preds[0]),
            [(1, 1)] * len(preds[0]),
        )
    )


@torch.no_grad()
def ssd300(n_classes, seed=0):
    """torchvision's SSD300 on VGG-16 with random weights, fc7 quieter and background louder,
    for numbers like a trained network's."""
    torch.manual_seed(seed)
    ssd = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=n_classes + 1).eval()
    ssd.backbone.extra[0][7][3].weight.mul_(0.02)
    for conv in ssd.head.classification_head.module_list:
        conv.bias.view(-1, n_classes + 1)[:, 0] += 6
    return ssd


class TutorialSSD(nn.Module):
    """SSD300 under the names and in the order of the 8732-anchor tutorial, random weights:
    (B,8732,4) offsets, (B,8732,n) logits, background first."""

    def __init__(self, n, width=1 / 8):
        super().__init__()
        c = lambda k: int(k * width)
        conv = lambda i, o, k, **kw: nn.Conv2d(i, o, k, **kw)
        self.base, self.aux_convs, self.pred_convs, last = (
            nn.ModuleDict(),
            nn.ModuleDict(),
            nn.ModuleDict(),
            3,
        )
        for block, (k, out) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
            for i in range(1, k + 1):
                self.base[f'conv{block}_{i}'] = conv(last, c(out), 3, padding=1)
                last = c(out)
        self.base['conv6'], self.base['conv7'] = (
            conv(last, c(1024), 3, padding=6, dilation=6),
            conv(c(1024), c(1024), 1),
        )
        self.rescale_factors = nn.Parameter(torch.rand(1, c(512), 1, 1) * 20)
        wide, last = [c(512), c(1024)], c(1024)
        for b, (mid, out, kw) in enumerate(
            (
                (256, 512, dict(stride=2, padding=1)),
                (128, 256, dict(stride=2, padding=1)),
                (128, 256, {}),
                (128, 256, {}),
            ),
            8,
        ):
            self.aux_convs[f'conv{b}_1'], self.aux_convs[f'conv{b}_2'] = (
                conv(last, c(mid), 1),
                conv(c(mid), c(out), 3, **kw),
            )
            last = c(out)
            wide.append(last)
        for m, i, k in zip(
            ('conv4_3', 'conv7', 'conv8_2', 'conv9_2', 'conv10_2', 'conv11_2'),
            wide,
            (4, 6, 6, 6, 4, 4),
        ):
            self.pred_convs[f'loc_{m}'], self.pred_convs[f'cl_{m}'] = (
                conv(i, 4 * k, 3, padding=1),
                conv(i, n * k, 3, padding=1),
            )
        for p in self.parameters():
            if p.ndim == 4 and p.shape[0] > 1:
                nn.init.kaiming_normal_(p)

    def forward(self, x):  # (B,3,300,300), normalised as ImageNet's
        step = lambda x, *names: [x := self.base[f'conv{n}'](x).relu() for n in names][-1]
        pool = F.max_pool2d
        x = pool(step(x, '1_1', '1_2'), 2)
        x = pool(step(x, '2_1', '2_2'), 2)
        x = pool(step(x, '3_1', '3_2', '3_3'), 2, ceil_mode=True)
        x = step(x, '4_1', '4_2', '4_3')
        maps = {'conv4_3': x / x.pow(2).sum(1, keepdim=True).sqrt() * self.rescale_factors}
        x = pool(step(pool(x, 2), '5_1', '5_2', '5_3'), 3, 1, 1)
        x = maps['conv7'] = step(x, '6', '7')
        for b in (8, 9, 10, 11):
            x = maps[f'conv{b}_2'] = self.aux_convs[f'conv{b}_2'](
                self.aux_convs[f'conv{b}_1'](x).relu()
            ).relu()
        flat = lambda y, k: y.permute(0, 2, 3, 1).reshape(len(y), -1, k)
        n = len(self.pred_convs['cl_conv7'].bias) // 6
        return tuple(
            torch.cat([flat(self.pred_convs[f'{head}_{m}'](f), k) for m, f in maps.items()], 1)
            for head, k in (('loc', 4), ('cl', n))
        )


def contest_tables(found, truths, n_classes):
    "What pycocotools reads: its objects for the truth and for the detections, loaded and indexed"
    from pycocotools.coco import COCO
    from ssd_tutorial.coco_map import to_coco_results, to_coco_truth

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = to_coco_truth(truths, n_classes)
        coco.createIndex()
        rows = [
            dict(image_id=int(r[0]), bbox=r[1:5].tolist(), score=float(r[5]), category_id=int(r[6]))
            for r in to_coco_results(found, truths)
        ]
        return coco, coco.loadRes(rows)


def contest_map(tables):
    "The program of the contest: evaluate, accumulate, summarise; its twelve figures"
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ev = COCOeval(*tables, 'bbox')
        ev.evaluate()
        ev.accumulate()
        ev.summarize()
    return ev.stats
