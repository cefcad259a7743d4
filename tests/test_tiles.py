"""Large pictures in tiles: every pixel is seen, boxes come back where they belong, and an object is
found once, whatever tiles cut it; views that agree change nothing."""

import json
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import find_objects, label
from torch import nn
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError
from ssd_tutorial.detector import Detector
from ssd_tutorial.faults import DataError
from ssd_tutorial.letterbox import GREY
from ssd_tutorial.records import DetectionData, make_record
from ssd_tutorial.tiles import (
    cut_windows,
    detect_closely,
    merge_views,
    place_found,
    share_inside,
    tile_windows,
    views_of,
)

SIDE, TILE = st.integers(1, 900), st.integers(32, 300)


class Squares(nn.Module):
    """Finds red (label 1) and blue (label 2) patches of 5 px on, exactly, and what is left of them
    at an edge; the larger it sees them the surer it is"""

    seen = 0

    def find(self, images, score=0.05, overlap=0.5, top_k=100):
        self.seen += len(images)
        return [self.one(x.numpy()) for x in images]

    def one(self, x):
        boxes, labels, scores, (h, w) = [], [], [], x.shape[1:]
        for l, c in ((1, 0), (2, 2)):
            patch, _ = label((x[c] > 0.8) & (np.delete(x, c, 0) < 0.2).all(0))
            for down, across in find_objects(patch):
                y1, y2, x1, x2 = down.start, down.stop, across.start, across.stop
                if min(y2 - y1, x2 - x1) >= 5:
                    boxes.append([x1 / w, y1 / h, x2 / w, y2 / h])
                    labels.append(l)
                    scores.append(0.5 + min(0.4, (y2 - y1) * (x2 - x1) / 4096))
        return dict(
            boxes_xyxy=torch.tensor(boxes).reshape(-1, 4),
            scores=torch.tensor(scores),
            labels=torch.tensor(labels, dtype=torch.int64),
        )


def squares_detector(fit='stretch', size=64):
    return Detector(Squares(), ('background', 'red', 'blue'), dict(arch='fake', fit=fit), size)


def picture(size_hw, boxes, labels):
    "Red and blue boxes on grey"
    img = np.full((*size_hw, 3), 128, np.uint8)
    for (x1, y1, x2, y2), l in zip(boxes, labels):
        img[y1:y2, x1:x2] = [(0, 0, 0), (255, 0, 0), (0, 0, 255)][l]
    return img


def scattered(rng, size_hw, n, low, high):
    "Boxes that do not touch"
    h, w = size_hw
    taken, boxes = np.zeros(size_hw, bool), []
    while len(boxes) < n:
        a, b = rng.integers(low, high + 1, 2)
        x, y = rng.integers(0, w - a + 1), rng.integers(0, h - b + 1)
        if not taken[max(0, y - 3) : y + b + 3, max(0, x - 3) : x + a + 3].any():
            taken[y : y + b, x : x + a] = True
            boxes.append([x, y, x + a, y + b])
    return np.array(boxes)


@given(SIDE, SIDE, TILE, st.data())
@settings(max_examples=300, deadline=None)
def test_windows_cover_and_overlap(h, w, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    if max(h, w) > 40 * (tile - overlap):
        overlap = tile // 2  # not a million tiles
    windows = tile_windows((h, w), tile, overlap)
    for axis, side in ((0, w), (1, h)):
        starts, ends = (np.unique(windows[:, axis + k]) for k in (0, 2))
        assert starts[0] == 0
        assert ends[-1] == side
        assert (ends - starts == min(tile, side)).all()
        assert (ends[:-1] - starts[1:] >= overlap).all()
        if len(starts) > 1:  # and no more tiles than that takes
            assert len(starts) == -(-(side - overlap) // (tile - overlap))
    n_x, n_y = (len(np.unique(windows[:, k])) for k in (0, 1))
    assert len(windows) == n_x * n_y == len(np.unique(windows, axis=0))


def test_windows_cut_as_slices_do():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (150, 230, 3), np.uint8)
    windows = tile_windows(pixels.shape[:2], 64, 10)
    for (x1, y1, x2, y2), cut in zip(windows, cut_windows(pixels, windows), strict=True):
        assert (cut == pixels[y1:y2, x1:x2]).all()
    (beyond,) = cut_windows(pixels, np.array([[-7, -5, 233, 152]]))
    assert beyond.shape == (157, 240, 3)
    assert (beyond[5:155, 7:237] == pixels).all()
    assert (beyond[:5] == GREY).all()
    assert (beyond[:, :7] == GREY).all()
    assert (beyond[155:] == GREY).all()
    assert (beyond[:, 237:] == GREY).all()


@given(st.integers(40, 5000), st.integers(40, 5000), TILE, st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_boxes_come_back_exactly(h, w, tile, seed):
    "A box in pixels of the picture, seen in a tile, comes back as it was"
    rng = np.random.default_rng(seed)
    windows = tile_windows((h, w), tile)
    window = windows[rng.integers(len(windows))]
    x1, y1, x2, y2 = window
    corners = np.sort(rng.integers(0, [x2 - x1 + 1, y2 - y1 + 1], (6, 2, 2)), 1)
    boxes = corners[(corners[:, 1] > corners[:, 0]).all(1)].reshape(-1, 4)
    inside = torch.tensor(boxes).double() / torch.tensor([x2 - x1, y2 - y1] * 2)
    n = len(boxes)
    seen = dict(boxes_xyxy=inside, scores=torch.rand(n), labels=torch.ones(n, dtype=torch.int64))
    back = place_found(seen, window, (h, w))
    px = back['boxes_xyxy'].double().numpy() * [w, h, w, h]
    assert len(px) == n
    assert np.abs(px - (boxes + [x1, y1, x1, y1])).max(initial=0) < 1e-3
    edge = np.array([x1 > 0, y1 > 0, x2 < w, y2 < h])
    ends = boxes == [0, 0, x2 - x1, y2 - y1]
    assert back['cut'].numpy()[(ends & edge).any(1)].all()
    if not edge.any():
        assert not back['cut'].any()


@pytest.mark.parametrize('fit', ['stretch', 'pad', 'own'])
@pytest.mark.parametrize('size_hw', [(300, 410), (500, 90), (70, 64), (65, 700)])
def test_each_object_once(fit, size_hw):
    "Objects up to the overlap are whole in some tile: found once, to the pixel"
    rng = np.random.default_rng(1)
    boxes = scattered(rng, size_hw, 12, 10, 16)
    labels = rng.integers(1, 3, 12)
    det = squares_detector(fit)
    found = det.predict(picture(size_hw, boxes, labels), tiles=64)
    rows = lambda b, l: sorted(map(tuple, np.column_stack([b, l]).tolist()))
    assert len(found) == 12
    mine, theirs = rows(found.boxes_px, found.labels), rows(boxes, labels)
    np.testing.assert_allclose(mine, theirs, atol=0.01)


def test_without_tiles_they_are_lost():
    "What the squares are for: seen whole, the picture is too small to show them all"
    rng = np.random.default_rng(1)
    boxes, labels = scattered(rng, (600, 600), 30, 10, 16), np.ones(30, int)
    det = squares_detector()
    img = picture((600, 600), boxes, labels)
    assert len(det.predict(img)) == 0
    assert len(det.predict(img, tiles=True)) == 30


def test_a_fragment_goes_and_a_lonely_one_stays():
    rows = dict(
        boxes_xyxy=torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.2, 0.5], [0.7, 0.7, 0.8, 0.9]]),
        scores=torch.tensor([0.5, 0.9, 0.8]),
        labels=torch.ones(3, dtype=torch.int64),
        cut=torch.tensor([False, True, True]),
    )
    assert merge_views(rows)['scores'].tolist() == pytest.approx([0.8, 0.5])
    other = {**rows, 'labels': torch.tensor([1, 2, 1])}  # part of another class: another object
    assert len(merge_views(other)['scores']) == 3
    inner = {**rows, 'cut': torch.tensor([False, False, False])}  # whole: an object before another
    assert len(merge_views(inner)['scores']) == 3
    assert len(merge_views(rows, None)['scores']) == 3


@given(st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_shares_as_a_loop_counts_them(seed):
    rng = np.random.default_rng(seed)
    box = lambda n: np.sort(rng.uniform(0, 1, (n, 2, 2)), 1).reshape(n, 4)
    a, b = box(rng.integers(0, 400)), box(rng.integers(0, 5))
    la, lb = rng.integers(1, 3, len(a)), rng.integers(1, 3, len(b))
    want = np.zeros(len(a))
    for i, (p, l) in enumerate(zip(a, la)):
        for q, m in zip(b, lb):
            wh = np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2])
            if l == m and (wh > 0).all():
                want[i] = max(want[i], wh.prod() / (p[2:] - p[:2]).prod())
    got = share_inside(*(torch.tensor(x) for x in (a, la, b, lb)))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('fit', ['stretch', 'pad', 'own'])
def test_small_pictures_are_left_alone(fit):
    rng = np.random.default_rng(2)
    img = picture((60, 50), scattered(rng, (60, 50), 4, 8, 12), [1, 2, 1, 2])
    det = squares_detector(fit)
    plain = det.predict(img)
    before = det.model.seen
    tiled = det.predict(img, tiles=64)
    assert det.model.seen == before + 1
    assert (tiled.boxes_px == plain.boxes_px).all()
    assert (tiled.labels == plain.labels).all()


@pytest.mark.parametrize('fit', ['stretch', 'pad', 'own'])
@pytest.mark.parametrize('size_hw', [(128, 128), (96, 160), (101, 53)])
def test_tta_of_a_model_that_sees_alike_in_a_mirror(fit, size_hw):
    rng = np.random.default_rng(3)
    boxes = scattered(rng, size_hw, 4, 16, 24)
    img = picture(size_hw, boxes, [1, 2, 1, 2])
    det = squares_detector(fit)
    plain = det.predict(img)
    before = det.model.seen
    twice = det.predict(img, tta=True)
    assert det.model.seen == before + len(views_of(size_hw, tta=True)) == before + 4
    assert len(plain) == len(twice) == 4
    order = lambda d: d.boxes_px[np.lexsort(d.boxes_px.T)]
    np.testing.assert_allclose(order(twice), order(plain), atol=1e-3)


def test_one_image_or_many_in_any_batch(tmp_path):
    rng = np.random.default_rng(4)
    sizes = (300, 200), (40, 40), (90, 260)
    imgs = [picture(hw, scattered(rng, hw, 3, 8, 12), rng.integers(1, 3, 3)) for hw in sizes]
    for i, img in enumerate(imgs):
        Image.fromarray(img).save(tmp_path / f'{i}.png')
    det = squares_detector()
    for how in (dict(tiles=64), dict(tta=True), dict(tiles=64, tta=True)):
        one_by_one = [det.predict(img, **how) for img in imgs]
        for bs in (1, 3, 16):
            many = det.predict(tmp_path, bs=bs, progress=False, **how)
            assert [d.file_name for d in many] == ['0.png', '1.png', '2.png']
            for a, b in zip(one_by_one, many, strict=True):
                assert (a.boxes_px == b.boxes_px).all()
                assert a.size_hw == b.size_hw


def test_a_jpeg_is_decoded_whole_for_its_tiles(tmp_path):
    "Without tiles a large JPEG is decoded at a reduced size; tiles need its pixels"
    rng = np.random.default_rng(5)
    boxes = scattered(rng, (1200, 1600), 20, 10, 16)
    img = picture((1200, 1600), boxes, np.ones(20, int))
    Image.fromarray(img).save(tmp_path / 'a.jpg', quality=100, subsampling=0)
    Image.fromarray(img[:, ::-1]).save(tmp_path / 'b.jpg', quality=100, subsampling=0)
    found, other = squares_detector().predict(tmp_path, tiles=64, progress=False)
    assert (found.file_name, other.file_name) == ('a.jpg', 'b.jpg')
    assert len(other) == 20
    assert found.size_hw == (1200, 1600)
    order = lambda b: b[np.lexsort(b.T)]
    assert len(found) == 20
    np.testing.assert_allclose(order(found.boxes_px), order(boxes), atol=1.01)


def test_a_broken_file_among_large_ones(tmp_path):
    img = picture((200, 200), [[10, 10, 26, 26]], [1])
    Image.fromarray(img).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes((tmp_path / 'a.png').read_bytes()[:200])
    Image.fromarray(img).save(tmp_path / 'c.png')
    bad = []
    found = squares_detector().predict(tmp_path, unreadable=bad, progress=False, tiles=64)
    assert [d.file_name for d in found] == ['a.png', 'c.png']
    assert [p.name for p, _ in bad] == ['b.png']
    with pytest.raises(DataError, match='b.png'):
        squares_detector().predict(tmp_path, progress=False, tiles=64)


def test_refused():
    img = picture((200, 200), [[10, 10, 26, 26]], [1])
    det = squares_detector()
    for tiles in (1, 31, -5):
        with pytest.raises(DetectorError, match='at least 32'):
            det.predict(img, tiles=tiles)
    with pytest.raises(DetectorError, match='choose less'):
        tile_windows((200, 200), 64, 64)
    det.model.with_masks, det.model.learns_masks = False, True
    with pytest.raises(DetectorError, match='Masks'):
        det.predict(img, tiles=64)
    assert len([*detect_closely(det, [img], tiles=64)]) == 1  # boxes alone, as `evaluate` asks


def test_commands(tmp_path, monkeypatch):
    "Options reach the detector, one setting made of two of them; the report says what was done"
    boxes = scattered(np.random.default_rng(6), (300, 400), 12, 10, 16)
    img = picture((300, 400), boxes, np.ones(12, int))
    Image.fromarray(img).save(tmp_path / 'a.png')
    monkeypatch.setattr('ssd_tutorial.commands.pick_detector', lambda *_: squares_detector())
    run, seen = CliRunner().invoke, {}
    for way in ('', '--tiles', '--tile-size 80', '--tiles --tile-size 80 --tta'):
        args = ['predict', str(tmp_path / 'a.png'), '--out', str(tmp_path / 'p'), *way.split()]
        done = run(main, args)
        assert done.exit_code == 0, done.output
        seen[way] = len(json.loads((tmp_path / 'p' / 'predictions.json').read_text()))
    assert [*seen.values()] == [0, 12, 12, 12]
    objects = [dict(box_px=b, label=1) for b in boxes]
    records = [make_record(tmp_path / 'a.png', 0, (300, 400), objects)]
    data = DetectionData(dict(val=records), ('background', 'red'), name='squares')
    monkeypatch.setattr('ssd_tutorial.commands.read_data', lambda *_, **__: data)
    report = tmp_path / 'r.json'
    args = ['evaluate', '--data', 'squares', '--tile-size', '80', '--tta', '--json', str(report)]
    done = run(main, args)
    assert done.exit_code == 0, done.output
    figures = json.loads(report.read_text())
    assert figures['protocol'].endswith(', tiles=80, tta=True')
    assert figures['map50'] > 0.99
    assert run(main, ['predict', 'a.jpg', '--tile-size', '8']).exit_code == 2


@pytest.mark.parametrize('wh', [(64, 65_535), (13_000, 12_000), (640, 480)])
def test_no_view_is_larger_than_a_picture_may_be(wh):
    "What can be opened can be looked at with --tta: it may have no rim"
    views = views_of(wh[::-1], tta=True)
    assert len(views) == (4 if wh == (640, 480) else 2)
    for v in views:
        x1, y1, x2, y2 = v.window
        assert max(x2 - x1, y2 - y1) <= 65_535
        assert (x2 - x1) * (y2 - y1) <= 160_000_000
