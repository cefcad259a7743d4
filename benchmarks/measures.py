"""Figures without a referee: readers, input pipeline, body, an epoch, memory, cached maps"""

import os, resource, subprocess, sys, time
from pathlib import Path

import numpy as np
import torch

from referees import ssd300, ssd_targets
from ssd_tutorial.anchors import spec_to_dict
from ssd_tutorial.presets import AUGMENTERS
from ssd_tutorial.batches import DetectionDataset, make_dls
from ssd_tutorial.body import Body, make_body
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.fast_focal import fast_focal_loss
from ssd_tutorial.grid import SSDLoss, build_arch
from ssd_tutorial.metrics import evaluate_found, truth_of
from ssd_tutorial.nms import detect
from ssd_tutorial.coco import save_coco
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import DetectionData, generated_data, make_record
from ssd_tutorial.voc import save_voc
from ssd_tutorial.yolo import save_yolo
from ssd_tutorial.multibox import multibox
from ssd_tutorial.ssd300 import SSD300_TORCHVISION
from ssd_tutorial.cache import cached_dls
from timing import seconds

HERE = Path(__file__).resolve().parent
HW = 375, 500  # of a photograph in PASCAL VOC


def photos(folder, n_train, n_valid, seed=0):
    "Generated pictures of a photograph's size, as JPEG files"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = generated_data('multiscale', n_train, n_valid, seed=seed, size=max(HW))
    splits = {}
    for name, records in drawn.splits.items():
        splits[name] = []
        for r in records:
            path = folder / f'{r.image_id:05d}.jpg'
            r.load().resize(HW[::-1]).save(path, quality=90)
            splits[name].append(
                make_record(
                    path,
                    r.image_id,
                    HW,
                    [
                        dict(box_px=b * np.array([1, HW[0] / HW[1]] * 2), label=int(l))
                        for b, l in zip(r.boxes_px, r.labels)
                    ],
                )
            )
    return DetectionData(splits, drawn.vocab, name='generated photos')


def readers(tmp, quick=False):
    "Records a second, read and checked"
    n = 40 if quick else 400
    data = generated_data('multiscale', n * 4 // 5, n // 5, size=96)
    out = {}
    folders = {
        f'generated, {k}': save(data, tmp / k)
        for k, save in (('VOC', save_voc), ('COCO', save_coco), ('YOLO', save_yolo))
    }
    real = Path(os.environ.get('SSD_TUTORIAL_DATA', HERE.parent.parent / 'shared' / 'data'))
    folders.update(
        {
            k: real / k
            for k in ('voc_animals', 'coco_tiny', 'coco_mini')
            if not quick and (real / k).is_dir()
        }
    )
    for name, folder in folders.items():
        start = time.perf_counter()
        d = load_dataset(folder, on_error='fix')
        took = time.perf_counter() - start
        n = sum(map(len, d.splits.values()))
        out[name] = dict(records=n, per_second=n / took)
    return out


def pipeline(data, quick=False):
    """Images a second with 0 and 2 workers; milliseconds an image of reading alone and of each
    augmenter on top."""
    out = {}
    for workers in (0, 2):
        dl = make_dls(
            DetectionData(dict(data.splits, train=data.train * (1 if quick else 4)), data.vocab),
            num_workers=workers,
        ).train  # an epoch long enough for workers to pay
        dl.dataset[0]
        start, n = time.perf_counter(), 0
        for x, _ in dl:
            n += len(x)
        out[f'{workers} workers'] = n / (time.perf_counter() - start)
    some = data.train[: 8 if quick else 64]

    def ms(**kw):
        ds = DetectionDataset(some, **kw)
        ds[0]
        return (
            min(seconds(lambda: [ds[i] for i in range(len(ds))]) for _ in range(1 if quick else 3))
            / len(some)
            * 1e3
        )

    plain = ms()
    each = {n: max(ms(strength=1.0, names=(n,)) - plain, 0) for n in AUGMENTERS}
    return dict(
        images_per_second=out,
        ms_plain=plain,
        ms_all=ms(strength=1.0),
        ms_each=each,
        share={k: v / max(sum(each.values()), 1e-9) for k, v in each.items()},
    )


@torch.no_grad()
def body(quick=False):
    "Milliseconds an image of the frozen body at 224 px, in batches of 16"
    x, b, out = torch.rand(2 if quick else 16, 3, 224, 224), make_body().freeze().eval(), {}
    for name, form in (
        ('contiguous', torch.contiguous_format),
        ('channels_last', torch.channels_last),
    ):
        b.to(memory_format=form)
        y = x.contiguous(memory_format=form)
        b(y)
        out[name] = min(seconds(lambda y=y: b(y)) for _ in range(1 if quick else 5)) / len(x) * 1e3
    return out


def training_step(det, opt):
    "Functions for the parts of a step on a batch"
    loss_func = SSDLoss(det.model.anchors, coder=det.model.coder, cls_loss=fast_focal_loss)

    def forward(x, y):
        return loss_func(det.model(x.contiguous(memory_format=torch.channels_last)), y)

    def backward(loss):
        opt.zero_grad()
        loss.backward()
        opt.step()

    return forward, backward


def epoch(data, workers):
    """Seconds of one epoch, everything learning:
    data, forward, backward with the optimiser, evaluation."""
    det = new_detector(data, TrainConfig())
    det.model.body.freeze(False)
    opt = torch.optim.Adam(det.model.parameters(), 1e-4)
    forward, backward = training_step(det, opt)
    dls = make_dls(data, num_workers=workers)
    spent = dict(data=0.0, forward=0.0, backward=0.0, evaluation=0.0)
    det.model.train()
    clock = time.perf_counter()

    def lap(part):
        nonlocal clock
        now = time.perf_counter()
        spent[part] += now - clock
        clock = now

    for x, y in dls.train:
        lap('data')
        loss = forward(x, y)
        lap('forward')
        backward(loss)
        lap('backward')
    lap('data')
    found = []
    with torch.no_grad():
        det.model.eval()
        for x, _ in dls.valid:
            found += detect(
                det.model(x.contiguous(memory_format=torch.channels_last)),
                det.model.anchors,
                det.model.coder,
            )
    evaluate_found(found, truth_of(data.valid), data.vocab)
    lap('evaluation')
    return dict(seconds=spent, share={k: v / sum(spent.values()) for k, v in spent.items()})


def peak_memory(B=32, steps=2):
    """Largest memory of this process, in bytes, after training steps at 224 px with everything
    learning."""
    data = generated_data('multiscale', B, 1)
    det = new_detector(data, TrainConfig())
    det.model.body.freeze(False).train()
    forward, backward = training_step(det, torch.optim.Adam(det.model.parameters(), 1e-4))
    det.model.train()
    x, y = make_dls(data, bs=B).train.one_batch()
    for _ in range(steps):
        backward(forward(x, y))
    return largest()


def largest():
    "Largest memory that this process ever had, in bytes"
    # Linux counts the memory of the parent in a child's ru_maxrss
    status = Path('/proc/self/status')
    if status.exists():
        return (
            next(
                int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith('VmHWM')
            )
            * 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1024 if sys.platform != 'darwin' else 1
    )


def peak_ssd300(B=8, steps=2, theirs=False):
    "The same of SSD300 at full width, or of torchvision's, on the same batch at 300 px"
    data = generated_data('multiscale', B, 1)
    x, y = make_dls(data, 300, bs=B).train.one_batch()
    C = len(data.vocab) - 1
    if theirs:
        model, images, real = ssd300(C), list(x), ssd_targets(y, 300.0)
        lose = lambda: sum(model(images, real).values())
    else:
        model = build_arch(
            dict(arch='ssd300', spec=spec_to_dict(SSD300_TORCHVISION), n_classes=C),
            Body('ssd_vgg16', (2, 3)),
        ).to(memory_format=torch.channels_last)
        loss_func = SSDLoss(model.anchors, cls_loss=multibox)
        lose = lambda: loss_func(model(x.contiguous(memory_format=torch.channels_last)), y)
    opt = torch.optim.SGD(model.train().parameters(), 1e-4, momentum=0.9)
    for _ in range(steps):
        loss = lose()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return largest()


def memory(quick=False):
    "`peak_memory` of a process of its own"
    return alone('peak_memory', 2 if quick else 32, 1 if quick else 2)


def memory_ssd300(quick=False):
    "`peak_ssd300` of ours and of torchvision's, each in a process of its own"
    return {
        name: alone('peak_ssd300', 1 if quick else 8, 1 if quick else 2, theirs)
        for name, theirs in (('ours', False), ('torchvision', True))
    }


def alone(name, *args):
    "GiB that a function of this module gives in a process of its own"
    code = (
        f'import sys; sys.path.insert(0, {str(HERE)!r}); '
        f'import measures; print(measures.{name}{args!r})'
    )
    out = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join(
                filter(None, [str(HERE.parent), os.environ.get('PYTHONPATH')])
            ),
        },
    )
    assert out.returncode == 0, out.stderr[-2000:]
    return int(out.stdout.split()[-1]) / 2**30


def caching(data, quick=False):
    """Seconds of an epoch of the frozen phase on pictures and on cached maps,
    and how far the trained weights differ."""
    # plain SGD: Adam divides by the size of the gradient, and where that should be zero it makes
    # steps of full length out of rounding errors
    n = 2 if quick else 3
    dls = make_dls(data, strength=None)

    def train(loader):
        torch.manual_seed(0)
        det = new_detector(data, TrainConfig())
        det.model.body.load_state_dict(shared.state_dict())
        det.model.body.freeze()
        forward, backward = training_step(
            det, torch.optim.SGD([p for p in det.model.parameters() if p.requires_grad], 0.01)
        )
        det.model.train()
        step = lambda x, y: backward(
            forward(x, y)
            if isinstance(x, torch.Tensor)
            else SSDLoss(det.model.anchors, coder=det.model.coder, cls_loss=fast_focal_loss)(
                det.model(x), y
            )
        )
        torch.manual_seed(1)
        times = []
        for _ in range(n):
            times.append(seconds(lambda: [step(x, y) for x, y in loader]))
        return np.median(times), torch.cat(
            [p.detach().flatten() for p in det.model.parameters() if p.requires_grad]
        )

    shared = make_body().to(memory_format=torch.channels_last).freeze().eval()
    start = time.perf_counter()
    half = cached_dls(shared, dls, 1, progress=False).train
    filling = time.perf_counter() - start
    full = cached_dls(
        shared, make_dls(data, strength=None), 1, progress=False, dtype=torch.float32
    ).train
    (plain, w), (cached, w16), (_, w32) = (
        train(make_dls(data, strength=None).train),
        train(half),
        train(full),
    )
    return dict(
        epoch_on_pictures=plain,
        epoch_on_maps=cached,
        filling=filling,
        images=len(data.train),
        difference_float16=float((w - w16).abs().max()),
        difference_float32=float((w - w32).abs().max()),
    )
