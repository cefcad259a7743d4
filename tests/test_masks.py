"""Masks beside boxes: codecs against pycocotools, damaged annotations, masks that move with their
images, and COCO's AP of masks against its referee; see lesson 25."""

import contextlib, io, json, subprocess, sys
from dataclasses import replace
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torchvision.ops import masks_to_boxes
from ssd_tutorial.batches import DetectionDataset, collate, find_preset, make_dls
from ssd_tutorial.coco import read_coco_json, save_coco
from ssd_tutorial.detections import Detections, coco_results, draw_detections, save_results
from ssd_tutorial.detector import Detector
from ssd_tutorial.faults import DataError
from ssd_tutorial.masks import (
    box_masks,
    coco_mask_sets,
    mask_iou,
    mask_map,
    mask_truth,
    masks_at,
    masks_to_image,
    square_masks,
)
from ssd_tutorial.readers import load_dataset, merge_data
from ssd_tutorial.records import generated_data, make_record
from ssd_tutorial.results import results_rows
from ssd_tutorial.rle import as_rles, decode_masks, draw_masks, segment_fault, segment_rle
from ssd_tutorial.synthetic import generate

quick = settings(max_examples=40, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)
SIDE = 128
GEOMETRY = dict(  # what moves objects, without what changes their colour
    imgaug=('flip', 'zoom', 'rotate', 'stretch'),
    ssd=('zoom_out', 'crop', 'flip'),
    learned=('geometry', 'flip'),
    mosaic=('mix', 'flip', 'zoom', 'stretch'),
)


@pytest.fixture(scope='module')
def data():
    return generated_data('crowded', 8, 6, size=96, masks=True)


def random_mask(rng, h, w):
    "Blobs, all, nothing, or single pixels"
    kind = rng.integers(4)
    if kind < 2:
        return np.full((h, w), bool(kind))
    noise = rng.random((h, w))
    return noise < rng.random() if kind == 2 else np.cumsum(noise - 0.5, 0) > 0


# what files say


@quick
@given(st.integers(1, 40), st.integers(1, 40), seeds)
def test_run_lengths_are_those_of_pycocotools(h, w, seed):
    coco = pytest.importorskip('pycocotools.mask')
    masks = np.stack([random_mask(np.random.default_rng([seed, i]), h, w) for i in range(3)])
    rles = as_rles(masks)
    theirs = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    assert [r['counts'].encode() for r in rles] == [r['counts'] for r in theirs]
    np.testing.assert_array_equal(decode_masks(rles), masks)
    json.dumps(rles)
    for mask, rle in zip(masks, rles):
        assert (segment_fault(rle, (h, w)) is None) == mask.any()


@quick
@given(st.integers(5, 60), st.integers(5, 60), seeds)
def test_outlines_are_those_of_pycocotools(h, w, seed):
    coco = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(seed)
    many = [2 * rng.integers(3, 9) for _ in range(rng.integers(1, 4))]
    parts = [(rng.random(n) * np.resize([w, h], n) * 1.2 - 2).round(2) for n in many]
    ours = decode_masks([segment_rle(parts, (h, w))])[0]
    theirs = coco.decode(coco.merge(coco.frPyObjects([p.tolist() for p in parts], h, w)))
    np.testing.assert_array_equal(ours, theirs.astype(bool))


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.one_of(
        st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30),
        st.binary(max_size=12),
        st.text(max_size=6),
        st.lists(st.integers(-(2**40), 2**40), max_size=8),
        st.none(),
    )
)
def test_no_counts_are_too_wild(counts):
    "Either a fault in words, or a mask of the right size"
    segment = dict(size=[4, 5], counts=counts)
    if segment_fault(segment, (4, 5)):
        with pytest.raises(ValueError, match='an object has'):
            segment_rle(segment, (4, 5))
    else:
        assert decode_masks([segment_rle(segment, (4, 5))]).shape == (1, 4, 5)


BAD = {
    'odd': ([[0, 0, 9, 0, 0]], 'an outline of 5 numbers'),
    'two points': ([[0, 0, 9, 9]], 'an outline of 2 points'),
    'no points': ([[]], 'an outline of 0 points'),
    'words': ([['a', 'b', 'c', 'd', 'e', 'f']], 'no list of numbers'),
    'not finite': ([[0, 0, 9, 0, 1e999, 9]], 'not finite'),
    'far away': ([[0, 0, 9, 0, 1e7, 9]], 'far outside'),
    'other size': (dict(size=[20, 30], counts=[600]), 'of size [20, 30]'),
    'too short': (dict(size=[30, 20], counts=[10, 9]), 'run lengths of 19 pixels'),
    'too long': (dict(size=[30, 20], counts=[0, 601]), 'run lengths of 601 pixels'),
    'negative': (dict(size=[30, 20], counts=[-1, 601]), 'run lengths'),
    'empty': (dict(size=[30, 20], counts=[600]), 'an empty mask'),
    'letters': (dict(size=[30, 20], counts='~~~'), 'cannot be read'),
    'a number': (7, 'of no known form'),
}


def coco_folder(root, segmentation, **more):
    "Three pictures 20 wide and 30 high; the second object of the first is damaged"
    (root / 'annotations').mkdir(parents=True)
    Image.new('RGB', (20, 30), 'grey').save(root / 'a.png')
    Image.new('RGB', (20, 30), 'white').save(root / 'b.png')
    Image.new('RGB', (20, 30), 'red').save(root / 'c.png')
    box = dict(bbox=[2, 3, 10, 20], category_id=1)
    good = dict(id=1, image_id=1, segmentation=[[2, 3, 12, 3, 12, 23]], **box)
    bad = dict(id=2, image_id=1, segmentation=segmentation, **{**box, 'bbox': [0, 0, 9, 9], **more})
    other = dict(id=3, image_id=2, segmentation=[[2, 3, 12, 3, 12, 23]], **box)
    images = [
        dict(id=i, file_name=f, width=20, height=30)
        for i, f in enumerate(('a.png', 'b.png', 'c.png'), 1)
    ]
    d = dict(images=images, annotations=[good, bad, other], categories=[dict(id=1, name='kite')])
    (root / 'annotations' / 'instances_train.json').write_text(json.dumps(d))
    return root


@pytest.mark.parametrize('segmentation, says', BAD.values(), ids=list(BAD))
def test_damaged_masks(tmp_path, segmentation, says):
    root = coco_folder(tmp_path, segmentation)
    with pytest.raises(DataError) as e:
        load_dataset(root, masks=True)
    assert says in str(e.value)
    assert 'a.png: object 1 (kite)' in str(e.value)
    fixed = load_dataset(root, masks=True, on_error='fix')
    record = next(r for rs in fixed.splits.values() for r in rs if len(r.labels) == 2)
    assert [s is None for s in record.segments] == [False, True]
    assert fixed.counts == dict(images=0, objects=0, mended=1)
    expected = np.zeros((30, 20), bool)
    expected[:9, :9] = True  # the filled box
    np.testing.assert_array_equal(masks_at(record, (20, 30))[1], expected)
    assert any('1 of 3 objects have no mask' in n for n in fixed.notes)
    skipped = load_dataset(root, masks=True, on_error='skip')
    assert skipped.counts['images'] == 1
    assert sorted(r.file_name for rs in skipped.splits.values() for r in rs) == ['b.png', 'c.png']
    boxes_only = load_dataset(root)  # who asks for no masks hears nothing of them
    assert boxes_only.counts['mended'] == 0
    assert all(r.segments == () for rs in boxes_only.splits.values() for r in rs)


@pytest.mark.parametrize('nothing', [[], None, {}])
def test_no_segmentation_is_no_fault(tmp_path, nothing):
    "Many exports of boxes write an empty list"
    data = load_dataset(coco_folder(tmp_path, nothing), masks=True)
    assert any('1 of 3 objects have no mask' in n for n in data.notes)


def test_masks_of_another_frame(tmp_path):
    "Boxes that are scaled to the picture lose their masks, which were of the other scale"
    root = coco_folder(tmp_path, [[0, 0, 9, 0, 9, 9]])
    for name, colour in zip('abc', ('grey', 'white', 'red')):
        Image.new('RGB', (40, 60), colour).save(root / f'{name}.png')
    data = load_dataset(root, masks=True, on_error='fix')
    records = [r for rs in data.splits.values() for r in rs]
    assert all(s is None for r in records for s in r.segments)
    assert records[0].size_hw == (60, 40)
    assert sum('of another frame' in n for n in data.notes) == 3


def test_labelme_and_yolo_outlines(tmp_path):
    outline = [[2, 3], [12, 3], [12, 23]]
    for name, kind, points, group in (
        ('a', 'polygon', outline, None),
        ('b', 'rectangle', [[2, 3], [12, 23]], None),
    ):
        Image.new('RGB', (20, 30), name == 'a' and 'grey' or 'white').save(tmp_path / f'{name}.png')
        shape = dict(label='kite', points=points, shape_type=kind, group_id=group)
        d = dict(shapes=[shape], imagePath=f'{name}.png', imageHeight=30, imageWidth=20)
        (tmp_path / f'{name}.json').write_text(json.dumps(d))
    records = [r for rs in load_dataset(tmp_path, masks=True).splits.values() for r in rs]
    by_name = {r.file_name: masks_at(r, (20, 30))[0].sum() for r in records}
    expected = decode_masks([segment_rle([np.ravel(outline)], (30, 20))])[0].sum()
    assert by_name == {'a.png': expected, 'b.png': 200}
    yolo = tmp_path / 'yolo'
    yolo.mkdir()
    for name in 'ab':
        (tmp_path / f'{name}.png').rename(yolo / f'{name}.png')
    line = ' '.join(str(v) for x, y in outline for v in (x / 20, y / 30))
    (yolo / 'a.txt').write_text(f'0 {line}\n')
    (yolo / 'b.txt').write_text('0 0.35 0.5 0.5 0.5\n')
    (yolo / 'classes.txt').write_text('kite\n')
    records = [r for rs in load_dataset(yolo, masks=True).splits.values() for r in rs]
    by_name = {r.file_name: r for r in records}
    assert masks_at(by_name['a.png'], (20, 30))[0].sum() == expected
    assert by_name['b.png'].segments == ()
    assert load_dataset(yolo).train[0].segments == ()


def test_out_and_in_again(data, tmp_path):
    "save_coco writes masks, and every way of reading gives them back, each with its object"
    folder = save_coco(data, tmp_path)
    again = load_dataset(folder, masks=True)
    for a, b in zip(data.train + data.valid, again.train + again.valid):
        np.testing.assert_array_equal(masks_at(a, (96, 96)), masks_at(b, (96, 96)))
    path = folder / 'annotations' / 'instances_val.json'
    records, *_ = read_coco_json(path, folder / 'val', masks=True)
    assert [len(r.segments) for r in records] == [len(r.labels) for r in data.valid]
    areas = [a['area'] for a in json.loads(path.read_text())['annotations']]
    assert areas == [m.sum() for r in data.valid for m in masks_at(r, (96, 96))]
    both = merge_data([data, again])
    last = both.train[-1]
    order = np.arange(len(last.labels))[::-1]
    turned = last.select(order)
    np.testing.assert_array_equal(masks_at(turned, (96, 96)), masks_at(last, (96, 96))[::-1])


def test_real_masks_are_those_of_pycocotools(real_data):
    "Outlines, parts, crowds: every mask of 80 photographs"
    coco = pytest.importorskip('pycocotools.coco')
    root = real_data / 'coco_mini'
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO(root / 'annotations' / 'instances_val2017.json')
    data = load_dataset(root, masks=True, only='val')
    assert not data.counts['mended']
    for r in data.valid:
        anns = reference.loadAnns(reference.getAnnIds(imgIds=[r.image_id]))
        theirs = np.stack([reference.annToMask(a) for a in anns] or [np.zeros(r.size_hw)])
        ours = masks_at(r, r.size_hw[::-1])
        np.testing.assert_array_equal(ours, theirs[: len(ours)].astype(bool))


# the generator


def test_generated_masks_show_what_is_painted():
    "Each in its box, none twice; alone, an object's mask touches all four sides of its box"
    for img, boxes, labels, masks in generate('crowded', 20, seed=5, masks=True):
        assert masks.dtype == bool
        assert masks.sum(0).max() <= 1
        for (x1, y1, x2, y2), m in zip(boxes.astype(int), masks):
            outside = m.copy()
            outside[y1:y2, x1:x2] = False
            assert not outside.any()
    plain = generate('crowded', 20, seed=5)
    for a, b in zip(plain, generate('crowded', 20, seed=5, masks=True)):
        for x, y in zip(a, b):  # masks change nothing else
            np.testing.assert_array_equal(x, y)
    for *_, boxes, _, masks in generate('multiscale', 20, seed=5, masks=True, n_objects=(1, 1)):
        tight = masks_to_boxes(torch.tensor(masks)) + torch.tensor([0.0, 0, 1, 1])
        assert np.abs(tight.numpy() - boxes).max() <= 1


# in the square, and moving


@quick
@given(st.integers(1, 30), st.integers(1, 30), seeds)
def test_box_masks(h, w, seed):
    "A pixel is in where its middle is; never nothing, but for padding"
    boxes = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(1).values
    boxes = torch.cat([boxes.flatten(1), torch.zeros(1, 4), torch.tensor([[0.0, 0, 1, 1]])])
    masks = box_masks(boxes, (h, w))
    y, x = ((torch.arange(n) + 0.5) / n for n in (h, w))
    for (x1, y1, x2, y2), m in zip(boxes.double(), masks):
        rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
        if rows.any() and columns.any():
            assert torch.equal(m, rows[:, None] & columns)
        else:
            assert m.any() == (x2 > x1 and y2 > y1)
    assert torch.equal(box_masks(boxes[None, :, None], (h, w))[0, :, 0], masks)


@pytest.mark.parametrize('fit', ['stretch', 'pad'])
@pytest.mark.parametrize('preset', [*GEOMETRY, 'mixup'])
def test_masks_change_nothing_else(data, preset, fit):
    "With masks or without: the same pictures and boxes, bit by bit"
    plain, more = (
        DetectionDataset(data.train, 64, 1.0, preset=preset, fit=fit, masks=m)
        for m in (False, True)
    )
    for i in range(len(data.train)):
        (a, s), (b, t) = plain[i], more[i]
        assert torch.equal(a, b)
        assert all(torch.equal(s[k], t[k]) for k in s)
        assert t.keys() - s.keys() == {'masks'}
        assert t['masks'].shape == (len(t['labels']), 64, 64)
        assert t['masks'].dtype == torch.bool


def red_rectangles(seed, h, w):
    "A black photograph with one red rectangle, whose mask is said by run lengths"
    rng = np.random.default_rng(seed)
    img = np.zeros((h, w, 3), np.uint8)
    (x1, x2), (y1, y2) = (sorted(rng.choice([n // 8, 3 * n // 4], 2, False)) for n in (w, h))
    img[y1:y2, x1:x2] = (255, 0, 0)
    mask = img[..., 0] > 0
    return make_record(
        img, 0, (h, w), [dict(box_px=[x1, y1, x2, y2], label=1, segment=as_rles([mask])[0])]
    )


@pytest.mark.parametrize('fit', ['stretch', 'pad'])
@pytest.mark.parametrize('preset', GEOMETRY)
def test_masks_move_with_image_and_box(preset, fit):
    "A rectangle's tight box is its moved box, turned or not; and red is where the mask is"

    @settings(max_examples=25, deadline=None, database=None)
    @given(seeds, st.integers(80, 200), st.integers(80, 200))
    def check(seed, h, w):
        records = [red_rectangles([seed, i], h, w) for i in range(4)]
        how = dict(names=GEOMETRY[preset], preset=preset, fit=fit, masks=True, seed=seed)
        image, t = DetectionDataset(records, SIDE, 1.0, **how)[0]
        assert len(t['labels'])
        red = (image[0] > 0.6) & (image[1] < 0.3)
        either = t['masks'].any(0)
        wrong = (red != either).sum() / either.sum()
        edge = 4 * SIDE / either.sum().sqrt() / SIDE  # a pixel all round
        if preset != 'mosaic':  # which also shows what lost its box
            assert wrong <= 1.5 * edge
        for box, mask in zip(t['boxes_xyxy'] * SIDE, t['masks']):
            tight = masks_to_boxes(mask[None])[0] + torch.tensor([0.0, 0, 1, 1])
            assert (tight - box).abs().max() <= 2.5

    check()


def test_content_of_boxes_moves_with_its_mask():
    "Mirrored inside of its box, a triangle's mask is mirrored"
    from ssd_tutorial.learned import LearnedAugmenter, learned_augment

    img, mask = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), bool)
    mask[20:80, 30:90] = np.tri(60, dtype=bool)
    img[mask] = (255, 0, 0)
    one = dict(box_px=[30, 20, 90, 80], label=1, segment=mask)
    record = make_record(img, 0, (SIDE, SIDE), [one])
    operation = ('box_flip', 3, 10)  # with a probability that is divided by three
    augmenter = LearnedAugmenter(1.0, ('box',), ((operation, ('box_flip', 0, 0)),))
    rng = np.random.default_rng(0)
    out, _, _, moved = learned_augment(augmenter, record, SIDE, rng, masks=True)
    np.testing.assert_array_equal(moved[0], out[..., 0] > 128)
    np.testing.assert_array_equal(moved[0, 20:80, 30:90], np.tri(60, dtype=bool)[:, ::-1])


@pytest.mark.parametrize('preset', [*GEOMETRY, 'mixup'])
def test_images_without_objects(preset):
    empty = [make_record(np.full((50, 80, 3), 60, np.uint8), i, (50, 80), []) for i in range(4)]
    ds = DetectionDataset(empty, 64, 1.0, preset=preset, masks=True)
    full = DetectionDataset([red_rectangles(0, 50, 80)], 64, masks=True)[0]
    images, targets = collate([*(ds[i] for i in range(4)), full])
    assert targets['masks'].shape == (5, 1, 64, 64)
    assert not targets['masks'][:4].any()


def test_loaders_fill_boxes_and_say_so(data):
    plain = generated_data('multiscale', 4, 4, size=64)
    with pytest.warns(UserWarning, match='objects have no mask'):
        dls = make_dls(plain, 64, 2, strength=None, masks=True, device='cpu')
    _, t = dls.valid.one_batch()
    assert torch.equal(t['masks'], box_masks(t['boxes_xyxy'], 64))
    _, t = make_dls(plain, 64, 2, device='cpu').one_batch()
    assert 'masks' not in t


# what was found


class Finds(torch.nn.Module):
    "A model that finds what it was told, in the frame of the square"

    def __init__(self, found):
        super().__init__()
        self.found = found

    def find(self, images, score, overlap, top_k):
        return [self.found] * len(images)


@pytest.mark.parametrize('fit', ['stretch', 'pad'])
@pytest.mark.parametrize('hw', [(60, 180), (150, 90), (96, 96)])
def test_from_the_model_to_the_photograph(hw, fit, tmp_path):
    size, vocab = 96, ('background', 'a', 'b')
    h, w = hw
    objects = [dict(box_px=[w / 6, h / 6, w / 2, 5 * h / 6], label=1), dict(
        box_px=[w / 2, h / 4, w, h], label=2)]  # fmt: skip
    record = make_record(np.zeros((h, w, 3), np.uint8), 7, hw, objects, 'a.png')
    _, t = DetectionDataset([record], size, fit=fit, masks=True)[0]
    found = dict(
        boxes_xyxy=t['boxes_xyxy'],
        labels=t['labels'],
        scores=torch.tensor([0.6, 0.9]),
        masks=t['masks'].float() * 0.9,
    )
    det = Detector(Finds(found), vocab, dict(arch='x', body='x', fit=fit), size)
    dets = det.predict(record.image)
    assert dets.names == ['b', 'a']
    truth = masks_at(record, (w, h))[::-1].copy()
    ours = np.stack([dets.mask(i) for i in range(2)])
    assert ours.shape == (2, h, w)
    assert mask_iou(torch.tensor(ours), torch.tensor(truth)).diag().min() > 0.9
    assert len(dets.above(0.7).masks) == 1
    save_results([dets], tmp_path / 'r.json')
    rows = json.loads((tmp_path / 'r.json').read_text())
    np.testing.assert_array_equal(decode_masks([r['segmentation'] for r in rows]), ours)
    data = replace(generated_data('grid', 1, 1), vocab=vocab)
    rows = results_rows(det, det.find_in_records([record], progress=False), [record], data)
    np.testing.assert_array_equal(decode_masks([r['segmentation'] for r in rows]), ours)
    assert det.evaluate_masks([record], progress=False)['map50'] == pytest.approx(1, abs=1e-6)


def test_what_lies_in_the_padding_goes_with_its_mask():
    boxes = torch.tensor([[0.0, 0, 1, 0.1], [0, 0.4, 1, 0.6]])  # the first in the grey
    found = dict(
        boxes_xyxy=boxes,
        labels=torch.tensor([1, 1]),
        scores=torch.tensor([0.9, 0.8]),
        masks=box_masks(boxes, 64).float(),
    )
    det = Detector(Finds(found), ('background', 'a'), dict(arch='x', body='x', fit='pad'), 64)
    dets = det.predict(np.zeros((32, 64, 3), np.uint8))
    assert len(dets) == len(dets.masks) == 1
    assert dets.mask(0).mean() == pytest.approx(0.4, abs=0.05)


def test_bools_and_run_lengths_are_one(data):
    r = data.train[0]
    n, bools = len(r.labels), masks_at(r, (96, 96))
    how = (r.boxes_px, r.labels, np.linspace(0.1, 0.9, n), data.vocab, (96, 96))
    a, b = Detections(*how, masks=bools), Detections(*how, masks=as_rles(bools))
    assert coco_results(a) == coco_results(b)
    img = r.load()
    assert np.array_equal(draw_detections(a, img), draw_detections(b, img))
    assert not np.array_equal(draw_detections(a, img), draw_detections(replace(a, masks=None), img))
    for keep in (0, [1, 0], slice(1, 3), a.scores > 0.5):
        np.testing.assert_array_equal(a[keep].masks, decode_masks(b[keep].masks))
    np.testing.assert_array_equal(a[0].mask(0), bools[-1])  # best first
    doubled = draw_masks(img.resize((192, 192)), bools)  # masks stretch to the image
    assert doubled.size == (192, 192)
    with pytest.raises(ValueError, match='give one of each'):
        Detections(*how, masks=bools[:1])


def test_drawing_masks_needs_no_torch():
    code = (
        'import sys, numpy as np; from PIL import Image\n'
        'from ssd_tutorial.detections import Detections, coco_results, draw_detections\n'
        'm = np.ones((1, 9, 9), bool)\n'
        'd = Detections([[0, 0, 9, 9]], [1], [.5], ("background", "a"), (9, 9), masks=m)\n'
        'draw_detections(d, Image.new("RGB", (9, 9)))\n'
        'assert coco_results(d)[0]["segmentation"]["size"] == [9, 9]\n'
        'assert not {"torch", "matplotlib", "fastcore"} & {*sys.modules}, sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


# how good


def noise(truths, rng, n_classes):
    "Detections that are shifted, missing, doubled, of another class, with few different scores"
    found = []
    for t in truths:
        n = len(t['labels'])
        pick = rng.integers(n, size=rng.poisson(1.5 * n)) if n else np.zeros(0, int)
        moved = [
            np.roll(decode_masks([t['masks'][i]])[0], rng.integers(-4, 5, 2), (0, 1)) for i in pick
        ]
        labels = torch.as_tensor(t['labels'])[pick].clone()
        other = torch.tensor(rng.random(len(pick)) < 0.1)
        labels[other] = torch.tensor(rng.integers(1, n_classes + 1, int(other.sum())))
        found.append(dict(masks=moved, labels=labels, scores=rng.integers(1, 9, len(pick)) / 9))
    return found


@pytest.mark.parametrize('seed', range(3))
def test_mask_map_is_that_of_pycocotools(data, seed):
    coco = pytest.importorskip('pycocotools.coco')
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    flag = lambda r, p: rng.random(len(r.labels)) < p
    records = [replace(r, crowd=flag(r, 0.2), difficult=flag(r, 0.1)) for r in data.train]
    truths = mask_truth(records)
    found = noise(truths, rng, len(data.vocab) - 1)
    ours = mask_map(found, truths, len(data.vocab) - 1)
    truth, rows = coco_mask_sets(found, truths, len(data.vocab) - 1)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = truth
        reference.createIndex()
        ev = COCOeval(reference, reference.loadRes(rows), 'segm')
        for step in (ev.evaluate, ev.accumulate, ev.summarize):
            step()
    np.testing.assert_allclose(list(ours.values())[:6], ev.stats[:6], atol=1e-6)
    assert 0.05 < ours['map'] < 0.95
    assert any(a['iscrowd'] for a in truth['annotations'])


def test_a_crowd_is_no_mistake(data):
    "What lies in a crowd counts neither way, however small a part of it"
    r = data.train[0].select([0, 1])
    crowd = replace(r, crowd=np.array([False, True]), labels=np.array([1, 1]))
    t = mask_truth([crowd])
    part = decode_masks([t[0]['masks'][1]])[0]
    part[:, : int(np.median(np.nonzero(part)[1]))] = False
    rles = [t[0]['masks'][0], as_rles([part])[0]]
    found = [dict(masks=rles, labels=[1, 1], scores=[0.5, 0.9])]
    assert mask_map(found, t, 1)['map'] == pytest.approx(1, abs=1e-6)
    alone = [replace(crowd, crowd=np.array([False, False]))]
    assert mask_map(found, mask_truth(alone), 1)['map'] < 0.9


@quick
@given(seeds, st.sampled_from([(40, 90), (90, 40), (64, 64)]), st.sampled_from(['stretch', 'pad']))
def test_masks_there_and_back(seed, hw, fit):
    "Into a square as fine as the image, and back: all but the edges"
    h, w = hw
    y, x = np.indices(hw)
    rng = np.random.default_rng(seed)
    cy, cx, r = rng.uniform(0.3, 0.7) * h, rng.uniform(0.3, 0.7) * w, rng.uniform(8, 14)
    disc = (y - cy) ** 2 + (x - cx) ** 2 < r**2
    one = dict(box_px=[0, 0, w, h], label=1, segment=disc)
    record = make_record(np.zeros((*hw, 3), np.uint8), 0, hw, [one])
    there = torch.tensor(square_masks(record, 90, fit)).float()
    back = decode_masks(masks_to_image(there, hw, fit))
    assert mask_iou(torch.tensor(back), torch.tensor(disc[None]))[0, 0] > 0.93


def test_every_preset_moves_masks(data):
    "A preset of one's own that knows no masks fails where they are asked for, and nowhere else"
    for preset in (*GEOMETRY, 'mixup'):
        view = find_preset(preset)
        augmenter = view.make(0.5, view.names)
        got = view.view(augmenter, data.train[0], 64, np.random.default_rng(0), masks=True)
        assert len(got) == 4
