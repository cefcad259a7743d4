"""Padding to a square: boxes go there and back exactly, whatever the picture's shape, and every
part of a detector agrees on it."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ssd_tutorial.augment import to_square
from ssd_tutorial.batches import DetectionDataset, make_dls, unpad
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.inputs import to_input
from ssd_tutorial.letterbox import GREY, boxes_to_square, content_box, found_in_image, pad_square
from ssd_tutorial.metrics import evaluate_found, truth_of
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import DetectionData, generated_data, make_record
from ssd_tutorial.runs import settings_of, train_detector
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.voc import save_voc

SIDE = st.integers(1, 5000)
SIZE = st.sampled_from([32, 96, 224, 300, 321])
SMALL = dict(arch='grid', size=64, width=8, body='test_efficientnet', weights='none')


def found(boxes):
    n = len(boxes)
    return dict(boxes_xyxy=boxes, scores=torch.rand(n), labels=torch.ones(n, dtype=torch.int64))


@given(SIDE, SIDE, SIZE, st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_there_and_back(h, w, size, seed):
    "Any picture, any boxes in it: exact to float precision, none lost, none outside"
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (8, 2, 2)), 1)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 1e-3)
    boxes = np.concatenate([corners.reshape(8, 4).clip(0, 1), [[0, 0, 1, 1]]])
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 5e-4).all(1)]
    there = boxes_to_square(boxes * [w, h, w, h], (h, w), size)
    x1, y1, x2, y2 = content_box((h, w), size)
    assert (there[:, :2] >= np.array([x1, y1]) - 1e-3).all()
    assert (there[:, 2:] <= np.array([x2, y2]) + 1e-3).all()
    assert there[-1].tolist() == pytest.approx([x1, y1, x2, y2], abs=1e-3)
    back = found_in_image(found(torch.tensor(there) / size), (h, w), size)['boxes_xyxy']
    # a narrow picture is few pixels of the square: an error of the square grows by that factor
    grown = size / min(x2 - x1, y2 - y1)
    assert back.shape == boxes.shape
    assert np.allclose(back.numpy(), boxes, atol=3e-7 * grown + 1e-6)
    assert back[-1].tolist() == pytest.approx([0, 0, 1, 1], abs=3e-7 * grown)


@given(SIDE, SIDE, SIZE)
@settings(max_examples=100, deadline=None)
def test_content(h, w, size):
    "As large as fits, centred, at least a pixel; a square picture fills the square"
    x1, y1, x2, y2 = content_box((h, w), size)
    assert max(x2 - x1, y2 - y1) == size
    assert min(x2 - x1, y2 - y1) >= 1
    assert 0 <= (size - x2) - x1 <= 1
    assert 0 <= (size - y2) - y1 <= 1
    assert abs((x2 - x1) * h - (y2 - y1) * w) <= max(h, w)  # proportions, but for one pixel


@given(st.integers(0, 2**31), SIDE, SIDE)
@settings(max_examples=100, deadline=None)
def test_detections_in_the_padding(seed, h, w):
    "Clipped to the picture; those that lie in the padding alone are gone"
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2
    boxes = torch.cat([boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])], 1)
    back = found_in_image(found(boxes), (h, w), 224)
    b = back['boxes_xyxy']
    assert ((b >= 0) & (b <= 1)).all()
    assert (b[:, 2:] > b[:, :2]).all()
    assert len(b) == len(back['scores']) == len(back['labels'])
    x1, y1, x2, y2 = (v / 224 for v in content_box((h, w), 224))
    touch = (boxes[:, 0] < x2) & (boxes[:, 2] > x1) & (boxes[:, 1] < y2) & (boxes[:, 3] > y1)
    assert len(b) <= int(touch.sum())


@pytest.mark.parametrize('hw', [(1, 4000), (4000, 1), (1, 1), (3, 1000), (48, 96)])
def test_extreme_shapes(hw):
    "A line of pixels has its place in the square, its box comes along"
    image = np.full((*hw, 3), 200, np.uint8)
    record = make_record(image, 0, hw, [dict(box_px=[0, 0, hw[1], hw[0]], label=1)])
    square, boxes = to_square(record, 96, 'pad')
    x1, y1, x2, y2 = content_box(hw, 96)
    assert boxes[0].tolist() == [x1, y1, x2, y2]
    assert (square[y1:y2, x1:x2] == 200).all()
    assert (square == GREY).all(-1).sum() == 96 * 96 - (x2 - x1) * (y2 - y1)
    assert torch.equal(to_input(image, 96, 'pad'), to_input(square, 96))
    for preset in ('imgaug', 'ssd'):
        x, y = DetectionDataset([record], 96, 0.5, preset=preset, fit='pad')[0]
        assert x.shape == (3, 96, 96)
        b = y['boxes_xyxy']
        assert ((b >= 0) & (b <= 1)).all()


def test_reduced_decoding(tmp_path):
    "A photograph decoded at an eighth lies where the whole one lies"
    hw = (1501, 4003)
    Image.new('RGB', hw[::-1], 'orange').save(tmp_path / 'a.jpg')
    record = make_record(tmp_path / 'a.jpg', 0, hw, [dict(box_px=[0, 0, 4003, 1501], label=1)])
    square, boxes = to_square(record, 96, 'pad')
    assert boxes[0].tolist() == list(content_box(hw, 96))
    whole = pad_square(record.load(), 96)
    assert abs(np.array(whole).astype(int) - square).max() <= 2


@pytest.mark.parametrize('preset', ['imgaug', 'ssd'])
def test_boxes_stay_on_their_objects(preset):
    "A white box on black: after any draw of either preset the box is where the white is"
    image = np.zeros((60, 180, 3), np.uint8)
    image[15:45, 60:120] = 255
    record = make_record(image, 0, (60, 180), [dict(box_px=[60, 15, 120, 45], label=1)])
    names = dict(imgaug=('flip', 'zoom'), ssd=('zoom_out', 'crop', 'flip'))[preset]
    ds = DetectionDataset([record] * 20, 120, 0.7, names, preset=preset, fit='pad')
    for x, y in (ds[i] for i in range(20)):
        white = (x.min(0).values > 0.75).nonzero().float()
        seen = torch.cat([white.amin(0).flip(0), white.amax(0).flip(0) + 1]) / 120
        assert torch.allclose(y['boxes_xyxy'][0], seen, atol=2.5 / 120), (seen, y)


# ---- detectors


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
    "Pictures twice as wide as high, as a VOC folder"

    def halve(r):
        keep = r.boxes_px[:, 3] <= 64
        return r.select(
            keep, image=np.array(r.load())[:64], size_hw=(64, 128), boxes_px=r.boxes_px[keep]
        )

    data = generated_data('multiscale', 24, 10, size=128, n_objects=(4, 6))
    splits = {s: [halve(r) for r in rs] for s, rs in data.splits.items()}
    folder = tmp_path_factory.mktemp('wide')
    save_voc(DetectionData(vocab=data.vocab, splits=splits, name='wide'), folder / 'voc')
    return folder / 'voc'


def perfect(det):
    "A detector that finds what is in the picture: a mean of zero would prove nothing"

    def find(images, *args):
        out = []
        for x in images.permute(0, 2, 3, 1):
            inside = ((x - GREY / 255).abs() > 0.02).any(-1).nonzero()
            (y1, x1), (y2, x2) = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
            size = len(x)
            boxes = [[x1, y1, x2, y2], [x1, y1, (x1 + x2) / 2, y2], [x1, 0, x2, y2], [0, 0, 9, 9]]
            scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 2, 3, 4])
            out.append(dict(boxes_xyxy=torch.tensor(boxes) / size, scores=scores, labels=labels))
        return out

    det.model.find = find
    return det


def test_loader_files_and_records_agree(wide, tmp_path):
    "mAP through the loader, through files and through records is the same to 1e-4, and not zero"
    data = load_dataset(wide)
    for r in data.valid:
        h, w = r.size_hw
        r.boxes_px = np.array([[0, 0, w, h], [0, 0, w / 2, h], [0, 0, w, 0.72 * h]], np.float32)
        r.labels = np.array([1, 2, 3])
        r.difficult = r.crowd = np.zeros(3, bool)
    det = perfect(new_detector(data, TrainConfig(**SMALL, fit='pad')))
    loader, truths = [], []
    for images, targets in make_dls(data, 64, 4, None, device='cpu', fit='pad').valid:
        apart = unpad(targets)
        sizes = [t['size_hw'].tolist() for t in apart]
        loader += map(det.from_input, det.detect_batch(images), sizes)
        truths += map(det.from_input, apart, sizes)
    files = [
        dict(
            boxes_xyxy=torch.tensor(d.boxes_px) / torch.tensor([d.size_hw[1], d.size_hw[0]] * 2),
            scores=torch.tensor(d.scores),
            labels=torch.tensor(d.labels),
        )
        for d in det.predict([r.image for r in data.valid], score=0.01)
    ]
    reports = [
        evaluate_found(loader, truths, det.vocab),
        evaluate_found(files, truth_of(data.valid), det.vocab),
        det.evaluate(data.valid, progress=False),
    ]
    assert reports[0].map50 > 0.9
    for r in reports[1:]:
        assert r.map50 == pytest.approx(reports[0].map50, abs=1e-4)
        assert r.map == pytest.approx(reports[0].map, abs=1e-4)
    assert all(len(f['labels']) == 3 for f in files)  # what lies in the padding is dropped


@pytest.mark.slow
def test_saved_resumed_and_said(wide, tmp_path):
    "The setting travels: description, checkpoint, command; another one is refused on resuming"
    data, cfg = load_dataset(wide), TrainConfig(**SMALL, fit='pad', max_steps=2, bs=8)
    det, _ = train_detector(data, cfg, False, tmp_path / 'd.pt')
    assert det.description['fit'] == 'pad'
    assert Detector.load(tmp_path / 'd.pt').fit == 'pad'
    stretched = new_detector(data, TrainConfig(**SMALL))
    assert 'fit' not in stretched.description
    assert stretched.fit == 'stretch'
    small = [f'--{k}={v}' for k, v in SMALL.items()]
    args = ['train', '--data', wide, *small, '--fit', 'pad', '--max-steps', 1, '--no-plots']
    run = lambda *a: CliRunner().invoke(main, [*map(str, a)])
    r = run(*args, '--out', tmp_path / 'e.pt')
    assert r.exit_code == 0, r.output
    assert Detector.load(tmp_path / 'e.pt').fit == 'pad'
    r = run('train', '--resume', '--fit', 'stretch', '--out', tmp_path / 'e.pt')
    assert r.exit_code == 2
    assert '--fit is stretch here and was pad' in r.output
    r = run('evaluate', '--data', wide, '--detector', tmp_path / 'e.pt')
    assert r.exit_code == 0, r.output


def test_refused_and_older():
    with pytest.raises(DetectorError, match="fit='crop': give 'stretch' or 'pad'"):
        TrainConfig(fit='crop')
    assert settings_of(dict(cfg=dict(arch='grid', size=96))).fit == 'stretch'
    assert Detector.pretrained().fit == 'stretch'


def test_anchors_are_proposed_for_what_the_network_sees(wide):
    "In a padded square objects of a wide picture are half as high as in a stretched one"
    from ssd_tutorial.runs import _objects_seen

    records = load_dataset(wide).train
    pad, stretch = (_objects_seen(records, TrainConfig(fit=f)) for f in ('pad', 'stretch'))
    sides = [np.asarray(b)[:, 2:] - np.asarray(b)[:, :2] for b in (pad, stretch)]
    assert len(sides[0]) > 10
    assert np.allclose(sides[0], sides[1] * [1, 0.5], atol=1e-5)
    assert len(_objects_seen([], TrainConfig(fit='pad'))) == 0
