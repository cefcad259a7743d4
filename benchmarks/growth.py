"""How the cost of an image grows with anchors, objects and classes"""

import numpy as np
import torch

from cases import make_targets, random_boxes
from ssd_tutorial.anchors import MULTI, make_anchors
from ssd_tutorial.boxes import iou
from ssd_tutorial.fast_focal import fast_focal_loss
from ssd_tutorial.grid import ssd_loss
from ssd_tutorial.nms import detect
from timing import seconds

AXES = dict(
    anchors=[16, 64, 256, 1024, 3150, 8732, 16384, 24564],
    objects=[1, 2, 5, 10, 20, 50, 100, 200],
    classes=[1, 3, 10, 30, 100, 300, 1000],
)
USUAL, BATCH, LARGEST_SLOPE = dict(anchors=3150, objects=10, classes=20), 4, 1.3


def situation(anchors, objects, classes):
    "Anchors, targets, and the predictions of a detector that has seen the objects"
    g = torch.Generator().manual_seed(0)
    boxes = make_anchors(MULTI) if anchors == MULTI.n_anchors else random_boxes(g, anchors)
    targets = make_targets(boxes, BATCH, classes, (objects, objects), apart=False)
    logits = torch.randn(BATCH, anchors, classes, generator=g) * 0.7 - 5
    for i in range(BATCH):
        near, at = iou(boxes, targets['boxes_xyxy'][i]).max(1)
        label = targets['labels'][i][at] - 1
        logits[i, torch.arange(anchors), label] = 14 * (near - 0.52) + 0.7 * torch.randn(
            anchors, generator=g
        )
    return (
        boxes,
        targets,
        (
            logits.requires_grad_(),
            (0.3 * torch.randn(BATCH, anchors, 4, generator=g)).requires_grad_(),
        ),
    )


def cost(repeats=9, **settings):
    """Milliseconds an image: match and loss with their gradient, and detection;
    the best of a few runs."""
    anchors, targets, preds = situation(**settings)

    def learn():
        for p in preds:
            p.grad = None
        ssd_loss(preds, targets, anchors, cls_loss=fast_focal_loss)[0].backward()

    @torch.no_grad()
    def find():
        detect(preds, anchors)

    for f in (learn, find):
        f()
    return {
        name: 1e3 * min(seconds(f) for _ in range(repeats)) / BATCH
        for name, f in (('match + loss', learn), ('detect', find))
    }


def slope(sizes, ms, last=4):
    "Of the last points on paper with two logarithmic scales: 1 is proportional"
    return float(np.polyfit(np.log(sizes[-last:]), np.log(ms[-last:]), 1)[0])


def measure(quick=False, repeats=9, tick=lambda: None):
    "For each axis: the sizes, milliseconds an image, and the slope at the large end"
    out = {}
    for axis, sizes in AXES.items():
        sizes = sizes[:3] if quick else sizes
        runs = []
        for n in sizes:
            runs.append(cost(repeats, **{**USUAL, axis: n}))
            tick()
        out[axis] = dict(
            sizes=sizes,
            ms={k: [r[k] for r in runs] for k in runs[0]},
            slope={k: slope(sizes, [r[k] for r in runs]) for k in runs[0]},
        )
    return out


def too_steep(growth):
    return [
        f'{what} against {axis}: slope {s:.2f}'
        for axis, g in growth.items()
        for what, s in g['slope'].items()
        if s > LARGEST_SLOPE
    ]


def draw(growth, path):
    "One panel an axis, both scales logarithmic"
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    fig, axs = plt.subplots(1, 3, figsize=(8, 3), layout='constrained')
    for ax, (axis, g) in zip(axs, growth.items()):
        for (name, ms), colour in zip(g['ms'].items(), ('#1f77b4', '#ff7f0e')):
            ax.plot(g['sizes'], ms, 'o-', ms=4, color=colour, label=name)
        x = np.array(g['sizes'], float)
        top = max(m[-1] for m in g['ms'].values())
        ax.plot(x, top * x / x[-1], ':', color='#8c8c8c', label='proportional')
        low, high = min(min(m) for m in g['ms'].values()), max(max(m) for m in g['ms'].values())
        ax.set(
            xscale='log',
            yscale='log',
            xlabel=f'{axis} an image' if axis != 'classes' else 'classes',
            ylim=(low / 1.5, high * 2),
            title={'anchors': 'Anchors', 'objects': 'Objects', 'classes': 'Classes'}[axis],
        )
    axs[0].set_ylabel('ms an image')
    axs[0].legend(fontsize=8)
    fig.savefig(path, dpi=100)
    plt.close(fig)
