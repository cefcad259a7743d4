"""Our detectors in a program written for torchvision, and torchvision's in ours; see lesson 24"""

import json, subprocess, sys
from dataclasses import replace
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from PIL import Image
from torchvision.models import detection, get_model_builder, list_models
from torchvision.transforms.functional import to_tensor
from ssd_tutorial.as_torchvision import AsTorchvision
from ssd_tutorial.batches import make_dls
from ssd_tutorial.body import WeightsError
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig, find_arch
from ssd_tutorial.detector import FROM_TORCHVISION, Detector
from ssd_tutorial.metrics import evaluate_found
from ssd_tutorial.models import NO_EPS, TorchvisionModel, coco_detector, own_size
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import train_detector
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.transfer import config_like
from ssd_tutorial.voc import save_voc

ALL = [n for n in list_models(module=detection) if 'keypoint' not in n]
SSDLITE, FASTER = 'ssdlite320_mobilenet_v3_large', 'fasterrcnn_mobilenet_v3_large_320_fpn'
LIGHT = (SSDLITE, FASTER)
HEAVY = [n for n in ALL if n not in LIGHT]
SIZES = {'ssd300_vgg16': 300}


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=96)


def config(name, **more):
    plain = dict(weights='none', bs=4, frozen_epochs=0, epochs=1, score=0.01)
    plain['size'] = SIZES.get(name, 96)
    return TrainConfig(arch=f'torchvision/{name}', **plain | more)


# ---- ours, in a program written as torchvision's reference scripts are


class Photographs(torch.utils.data.Dataset):
    "Images of several sizes as those scripts have them: boxes in pixels, labels, an id"

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        r, wide = self.records[i], 72 + 12 * (i % 4)
        image = to_tensor(r.load().resize((wide, 96)))
        boxes = torch.from_numpy(r.boxes_px) * torch.tensor([wide / 96, 1, wide / 96, 1])
        target = dict(boxes=boxes, labels=torch.from_numpy(r.labels), image_id=i)
        target['iscrowd'] = torch.zeros(len(boxes), dtype=torch.int64)
        return image, target


def collate_fn(batch):
    return tuple(zip(*batch))


def train_one_epoch(model, optimizer, loader):
    "Warm-up, sum of the losses, a stop at one that is not finite"
    model.train()
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=len(loader))
    log = []
    for images, targets in loader:
        images = [image.to('cpu') for image in images]
        keep = torch.Tensor
        targets = [{k: v for k, v in t.items() if isinstance(v, keep)} for t in targets]
        loss_dict = model(images, targets)
        losses = sum(loss for loss in loss_dict.values())
        assert torch.isfinite(losses)
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        warm.step()
        log.append({k: v.item() for k, v in loss_dict.items()})
    return log


@torch.inference_mode()
def evaluate(model, loader):
    "COCO results, image by image"
    model.eval()
    results = []
    for images, targets in loader:
        outputs = [{k: v.cpu() for k, v in o.items()} for o in model(list(images))]
        for target, output in zip(targets, outputs):
            columns = (output[k].tolist() for k in ('boxes', 'scores', 'labels'))
            for box, score, label in zip(*columns):
                x1, y1, x2, y2 = box
                results.append(
                    dict(
                        image_id=target['image_id'],
                        category_id=label,
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        score=score,
                    )
                )
    return results


def judged(results, dataset, n_classes):
    "COCO's own figures, by the evaluator that such programs use"
    from faster_coco_eval import COCO, COCOeval_faster

    images, marked = [], []
    for i in range(len(dataset)):
        image, target = dataset[i]
        images.append(dict(id=i, height=image.shape[1], width=image.shape[2]))
        for (x1, y1, x2, y2), label in zip(target['boxes'].tolist(), target['labels'].tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            one = dict(id=len(marked) + 1, image_id=i, category_id=label, bbox=box)
            marked.append(one | dict(area=box[2] * box[3], iscrowd=0))
    names = [dict(id=i, name=str(i)) for i in range(1, n_classes + 1)]
    truth = COCO(dict(images=images, annotations=marked, categories=names))
    judge = COCOeval_faster(truth, truth.loadRes(results), 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[1])


@pytest.mark.slow
@pytest.mark.parametrize('arch,fit', [('fpn', 'stretch')])
def test_a_program_written_for_torchvision_trains_ours(data, arch, fit, capsys):
    "Nothing in it knows our names; its figure is that of our own measurement"
    torch.manual_seed(0)
    det = new_detector(data, TrainConfig(arch=arch, size=96, width=32, fit=fit))
    model = AsTorchvision(det, score=0.01)
    photos = Photographs(data.train)
    loader = torch.utils.data.DataLoader(photos, 4, shuffle=True, collate_fn=collate_fn)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    logs = [train_one_epoch(model, optimizer, loader) for _ in range(25)]
    assert sum(logs[-1][-1].values()) < sum(logs[0][0].values()) * 0.7
    assert 'cls' in logs[0][0]
    results = evaluate(model, torch.utils.data.DataLoader(photos, 4, collate_fn=collate_fn))
    map50 = judged(results, photos, len(data.vocab) - 1)
    assert map50 > 0.3, map50
    truths, found = [], []
    with torch.no_grad():
        for image, target in photos:
            wh = torch.tensor([image.shape[2], image.shape[1]] * 2)
            flags = torch.zeros(len(target['labels']), dtype=torch.bool)
            truth = dict(boxes_xyxy=target['boxes'] / wh, labels=target['labels'])
            truths.append(
                truth | dict(difficult=flags, crowd=flags, size_hw=torch.tensor(image.shape[1:]))
            )
            o = model([image])[0]
            found.append(dict(boxes_xyxy=o['boxes'] / wh, labels=o['labels'], scores=o['scores']))
    assert abs(evaluate_found(found, truths, data.vocab).map50 - map50) < 0.02


@pytest.mark.parametrize(
    'bad',
    [
        None,
        [dict(boxes=torch.tensor([[2.0, 3, 2, 9]]), labels=torch.ones(1, dtype=torch.int64))],
        [dict(boxes=torch.zeros(3), labels=torch.ones(1, dtype=torch.int64))],
        [dict(boxes=[[1, 2, 3, 4]], labels=torch.ones(1, dtype=torch.int64))],
    ],
)
def test_bad_targets_are_the_same_errors(data, bad):
    images = [torch.rand(3, 96, 96)]
    theirs = TorchvisionModel(FASTER, 3).net.train()
    ours = AsTorchvision(new_detector(data, TrainConfig(arch='grid', size=64, width=8))).train()
    said = []
    for model in (theirs, ours):
        with pytest.raises(AssertionError) as e:
            model(images, bad)
        said.append(str(e.value).split('.')[0])
    assert said[0] == said[1]


@pytest.mark.parametrize('arch', ['grid', 'fcos'])
def test_images_without_boxes(data, arch):
    "Some and all of a batch; the gradient stays finite"
    det = new_detector(data, TrainConfig(arch=arch, size=64, width=8, weights='none'))
    model = AsTorchvision(det).train()
    nothing = dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    one = dict(boxes=torch.tensor([[4.0, 4, 40, 50]]), labels=torch.tensor([2]))
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 64)]
    for targets in ([nothing, nothing], [nothing, one]):
        total = sum(model(images, targets).values())
        total.backward()
        assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert {*model.eval()(images)[0]} == {'boxes', 'labels', 'scores'}


def test_losses_add_up_to_the_learners_loss(data):
    det = new_detector(data, TrainConfig(arch='fcos', size=64, width=8, weights='none'))
    x, y = make_dls(data, 64, 4, strength=None, device='cpu').valid.one_batch()
    loss, preds = det.model.loss_func(), det.model(x)
    losses = loss.losses(preds, y)
    assert torch.allclose(sum(losses.values()), loss(preds, y))
    assert not any(v.requires_grad for v in loss.parts.values())
    assert all(v.requires_grad for v in losses.values())


# ---- theirs, in our program


@pytest.mark.parametrize('name', LIGHT)
def test_light_ones_take_three_steps(data, name):
    _three_steps(data, name)


@pytest.mark.slow
@pytest.mark.parametrize('name', HEAVY)
def test_heavy_ones_take_three_steps(data, name):
    _three_steps(data, name)


def _three_steps(data, name):
    "Finite losses in training and validation, detections inside the image"
    cfg = config(name, bs=2)
    det = new_detector(data, cfg)
    x, y = make_dls(data, cfg.size, 2, strength=None, device='cpu').train.one_batch()
    opt = torch.optim.SGD(det.model.parameters(), 1e-4)
    for _ in range(3):
        (losses,) = det.model.train()(x, y)
        losses.sum().backward()
        opt.step()
        assert torch.isfinite(losses).all()
    assert len(losses) == len(det.model.loss_func().terms)
    with torch.no_grad():
        losses, found = det.model.eval()(x, y)
    assert torch.isfinite(losses).all()
    for f in found:
        assert f['boxes_xyxy'].min() >= 0 if len(f['labels']) else True
        assert {*f} == {'boxes_xyxy', 'scores', 'labels'}


def test_empty_and_crowd_and_flat(data):
    "What is no object does not reach torchvision; an image without objects trains"
    det = new_detector(data, config(SSDLITE))
    targets = dict(
        boxes_xyxy=torch.tensor([[[0.1, 0.1, 0.5, 0.5]], [[0.2, 0.2, 0.2, 0.6]]]),
        labels=torch.tensor([[1], [2]]),
        crowd=torch.tensor([[True], [False]]),
    )
    (losses,) = det.model.train()(torch.rand(2, 3, 96, 96), targets)
    assert torch.isfinite(losses).all()
    broken = {**targets, 'boxes_xyxy': targets['boxes_xyxy'] * float('nan'), 'crowd': None}
    (losses,) = det.model(torch.rand(2, 3, 96, 96), broken)
    assert not torch.isfinite(losses).all()  # a broken box is noticed, not left out


@pytest.mark.parametrize('name', LIGHT)
def test_saved_and_loaded(data, name, tmp_path):
    det = new_detector(data, config(name))
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    image = data.valid[0].load()
    a, b = (d.predict(image, score=0.01) for d in (det, again))
    assert np.array_equal(a.boxes_px, b.boxes_px)
    assert np.array_equal(a.scores, b.scores)
    assert again.description == det.description
    assert len(a) > 0


@pytest.mark.slow
def test_a_fresh_process_needs_no_network_and_no_trainer(data, tmp_path):
    path = new_detector(data, config(SSDLITE)).save(tmp_path / 'd.pt')
    code = (
        'import socket, sys\n'
        'def no(*a, **k): raise OSError("no network")\n'
        'socket.socket.connect = no\n'
        'from ssd_tutorial.detector import Detector\n'
        f'print(Detector.load({str(path)!r}).description["arch"], "fastai" in sys.modules)'
    )
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.stdout.split() == [f'torchvision/{SSDLITE}', 'False'], r.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', LIGHT)
def test_frozen_then_unfrozen_and_resumed(data, name, tmp_path):
    "The backbone stands still in the first phase; an interrupted run ends as the whole one"
    torch.save(TorchvisionModel(name, 6).net.state_dict(), tmp_path / 'w.pth')
    how = dict(weights=str(tmp_path / 'w.pth'), frozen_epochs=1, epochs=1, bs=8, keep='last')
    cfg, moved = config(name, **how), []

    class Watch(Callback):
        def before_epoch(self):
            body = self.model.body
            first = next(body.parameters()).detach().clone()
            moved.append((self.model.frozen, body.norms()[0].training, first))

    class Stop(Callback):
        def before_epoch(self):
            if self.model.frozen is False:
                raise KeyboardInterrupt

    whole, rows = train_detector(data, cfg, False, tmp_path / 'a' / 'd.pt', cbs=[Watch()])
    assert [m[0] for m in moved] == [True, False]
    assert not any(m[1] for m in moved)  # statistics of what has learnt before stay
    assert torch.equal(moved[0][2], moved[1][2])
    out = tmp_path / 'b' / 'd.pt'
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cfg, False, out, cbs=[Stop()])
    again, rows2 = train_detector(data, cfg, False, out, resume=True)
    assert [r['train_loss'] for r in rows2] == [r['train_loss'] for r in rows]
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(next(whole.model.body.parameters()), moved[0][2])


def test_refusals(data):
    for given in (dict(matcher='atss'), dict(body='vgg16'), dict(width=64), dict(gamma=1.0)):
        with pytest.raises(DetectorError, match='means nothing to'):
            config(SSDLITE, **given)
    with pytest.raises(DetectorError, match='key points'):
        find_arch('torchvision/keypointrcnn_resnet50_fpn')
    with pytest.raises(WeightsError, match='cannot look at images of 64 px'):
        new_detector(data, config('ssd300_vgg16', size=64))
    assert own_size('ssd300_vgg16') == 300


def test_weights_that_cannot_be_had(data, tmp_path, monkeypatch):
    def no(*_, **__):
        raise OSError('no network')

    monkeypatch.setattr('ssd_tutorial.fetching.reach', no)
    with pytest.raises(WeightsError, match='--weights none'):
        new_detector(data, config(SSDLITE, weights='imagenet'))
    with pytest.raises(DetectorError, match='could not be fetched') as e:
        Detector.from_torchvision('retinanet_resnet50_fpn_v2')
    assert '\n' not in str(e.value)
    torch.save({'a.weight': torch.zeros(3)}, tmp_path / 'odd.pth')
    with pytest.raises(WeightsError, match='another backbone'):
        new_detector(data, config(SSDLITE, weights=str(tmp_path / 'odd.pth')))


@pytest.mark.parametrize('name', LIGHT)
def test_classes_move_by_name(data, name, tmp_path):
    "One more class in front: every weight that belongs to a class moves with its name"
    torch.manual_seed(0)
    first = new_detector(data, config(name))
    path = str(first.save(tmp_path / 'first.pt'))
    more = replace(data, vocab=('background', 'rabbit', *data.vocab[1:]))
    torch.manual_seed(1)
    second = new_detector(more, config(name, weights=path))
    a, b = (d.model.state_dict() for d in (first, second))
    n, seen = len(data.vocab), 0
    for k in a:
        view = second.model.class_view(k)
        if not view:
            assert torch.equal(a[k], b[k]), k
            continue
        seen += 1
        old, new = view(a[k], n), view(b[k], n + 1)
        assert torch.equal(old[:, 0], new[:, 0])
        assert torch.equal(old[:, 1:], new[:, 2:])
    assert seen > 0
    assert 'made anew: rabbit' in second.started
    assert config_like(path).arch == f'torchvision/{name}'


def sharp(name, pictures):
    "torchvision's own model with random weights, sure of a few things"
    torch.manual_seed(3)
    net = get_model_builder(name)(weights=None, weights_backbone=None)
    with torch.no_grad():
        for m in net.backbone.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = None
        net.train().backbone(torch.stack(pictures) * 2 - 1)
        for k, p in net.named_parameters():
            if 'cls_score.weight' in k or 'classification_head.cls_logits.weight' in k:
                p.mul_(100)
            elif 'classification_head.module_list' in k and p.ndim == 4:
                p.mul_(3)
    return net.eval()


PUBLISHED = [FASTER, SSDLITE, *('fcos_resnet50_fpn', 'maskrcnn_resnet50_fpn')]
PUBLISHED = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in PUBLISHED]


@pytest.mark.parametrize('name', PUBLISHED)
def test_predictions_are_torchvisions(name, tmp_path):
    "On photographs of two sizes, alone and in a list; saved and loaded as well"
    rng = np.random.default_rng(0)
    sizes = [(60, 100), (120, 80)]
    files = [rng.integers(0, 255, (6, 10, 3), np.uint8) for _ in sizes]
    files = [Image.fromarray(f).resize((w, h)) for f, (h, w) in zip(files, sizes)]
    theirs = sharp(name, [to_tensor(f.resize((160, 160))) for f in files])
    theirs.transform.min_size, theirs.transform.max_size = (160,), 240
    det = Detector.from_torchvision(name, theirs.state_dict())
    det.model.net.transform.min_size, det.model.net.transform.max_size = (160,), 240
    part = getattr(theirs, 'roi_heads', theirs)
    part.score_thresh, part.nms_thresh, part.detections_per_img = 0.05, 0.5, 60
    ids = torch.tensor(det.category_ids)
    many = det.predict(files, score=0.05, top_k=60)
    n = 0
    for f, m in zip(files, many):
        with torch.no_grad():
            t = theirs([to_tensor(f)])[0]
        known = torch.isin(t['labels'], ids[1:])
        assert torch.equal(ids[torch.from_numpy(m.labels)], t['labels'][known])
        assert torch.allclose(torch.from_numpy(m.boxes_px), t['boxes'][known], atol=1e-3, rtol=1e-4)
        assert np.allclose(m.scores, t['scores'][known].numpy(), atol=1e-5)
        assert np.array_equal(det.predict(f, score=0.05, top_k=60).boxes_px, m.boxes_px)
        n += len(m)
    assert n > 5
    if name == SSDLITE:
        again = Detector.load(det.save(tmp_path / 'coco.pt'))
        found = again.predict(files[0], score=0.05, top_k=60)
        assert np.allclose(found.boxes_px, many[0].boxes_px, atol=1e-3)


def test_every_name_is_there():
    assert {*ALL} <= {*FROM_TORCHVISION}
    assert {*NO_EPS} < {*ALL}
    assert FROM_TORCHVISION['ssd300_vgg16'].__module__ == 'ssd_tutorial.ported'
    with pytest.raises(WeightsError, match='other classes'):
        coco_detector(SSDLITE, TorchvisionModel(SSDLITE, 4).net.state_dict())


@pytest.mark.slow
def test_mask_rcnn_with_and_without_masks(data, capsys):
    "Filled boxes where the batch has no masks, and a line that says so; masks only on request"
    name = 'maskrcnn_resnet50_fpn_v2'
    det, rows = train_detector(data, config(name, bs=4, max_steps=1))
    assert 'learns masks, and this data set has none' in capsys.readouterr().out
    x, y = make_dls(data, 96, 2, strength=None, device='cpu').valid.one_batch()
    half = torch.zeros(*y['labels'].shape, 96, 96, dtype=torch.bool)
    half[..., :48, :] = True
    torch.manual_seed(0)
    with torch.no_grad():
        boxes = det.model.train()(x, y)[0][-1]
        torch.manual_seed(0)
        outlines = det.model(x, {**y, 'masks': half})[0][-1]
        assert boxes != outlines
        assert 'masks' not in det.model.eval().find(x, 0.0)[0]
        det.model.with_masks = True
        found = det.model.find(x, 0.0, top_k=3)[0]
    assert found['masks'].shape == (3, 96, 96)
    assert found['masks'].max() <= 1
    shown = det.predict(data.valid[0].load(), score=0.0)
    assert len(shown) > 0
    det.evaluate(data.valid, progress=False)


@pytest.mark.slow
def test_the_command(data, tmp_path):
    "train, evaluate with plots, predict, and train again from the result"
    save_voc(generated_data('multiscale', 8, 4, size=96), tmp_path / 'voc')
    out = tmp_path / 'd.pt'

    def run(*args):
        r = CliRunner().invoke(main, [str(a) for a in args])
        assert r.exit_code == 0, r.output
        return r.output

    short = ('--max-steps', 3, '--batch-size', 4, '--size', 96, '--anyway')
    said = run(
        *('train', '--data', tmp_path / 'voc', '--arch', f'torchvision/{SSDLITE}'),
        *('--weights', 'none', *short, '--out', out),
    )
    assert 'stopped after' in said
    run('evaluate', '--data', tmp_path / 'voc', '--detector', out, '--plots', tmp_path / 'plots')
    photo = next((tmp_path / 'voc' / 'JPEGImages').iterdir())
    found = tmp_path / 'found'
    run('predict', photo, '--detector', out, '--score', 0, '--out', found)
    assert json.loads((found / 'predictions.json').read_text())
    said = run(
        *('train', '--data', tmp_path / 'voc', '--from', out),
        *(*short, '--no-plots', '--out', tmp_path / 'e.pt'),
    )
    assert f'torchvision/{SSDLITE}' in said
    keypoints = ('--arch', 'torchvision/keypointrcnn_resnet50_fpn')
    r = CliRunner().invoke(main, ['train', '--data', str(tmp_path / 'voc'), *keypoints])
    assert r.exit_code == 2
    assert 'elbows' in r.output


class Sharp(Callback):
    "SSDlite's batch norms begin to follow at once; Faster R-CNN looks at 64 proposals, not 512"

    def before_fit(self):
        for m in self.model.net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = 0.1
        heads = getattr(self.model.net, 'roi_heads', None)
        if heads:
            heads.fg_bg_sampler.batch_size_per_image = 64


@pytest.mark.slow
@pytest.mark.parametrize('name,bs,passes', [(SSDLITE, 8, 12), (FASTER, 4, 15)])
def test_light_ones_learn_eight_images_by_heart(name, bs, passes):
    eight = generated_data('multiscale', 8, 1, size=96)
    eight.splits.update(train=eight.train * (25 if name == SSDLITE else 12), val=eight.train)
    how = dict(bs=bs, strength=None, epochs=passes, lr=1e-3)
    _, rows = train_detector(eight, config(name, **how), progress=False, cbs=[Sharp()])
    print(rows[-1])
    assert max(row['map50'] for row in rows) >= 0.9
