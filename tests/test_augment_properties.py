"""Properties of augmentation that no single example can show; see lesson 04"""

import pickle, random, subprocess, sys
import numpy as np, pytest, torch
from functools import lru_cache
from hypothesis import given, settings, strategies as st
from ssd_tutorial.augment import augment, move
from ssd_tutorial.presets import AUGMENT_PRESETS, AUGMENTERS, make_augmenter
from ssd_tutorial.batches import (
    DetectionDataset,
    DetectionLoader,
    collate,
    make_dls,
    make_target,
    unpad,
)
from ssd_tutorial.inputs import resize_square, to_input
from ssd_tutorial.records import DetectionData, generated_data, make_record

SIDE = 128  # pixels
STRENGTHS = dict(imgaug=[0.3, 1.0, 2.0], ssd=[0.3, 1.0])
PRESETS = tuple(STRENGTHS)  # lessons 23 and 23b have theirs tested in test_mixed_presets.py
every_preset = pytest.mark.parametrize('preset', PRESETS)
every_strength = pytest.mark.parametrize(
    'preset,strength', [(p, s) for p in PRESETS for s in STRENGTHS[p]]
)
quick = settings(max_examples=30, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def boxes(draw, least=48):
    "One box in whole pixels; large enough that coarse dropout cannot hide a whole side of it"
    w, h = draw(st.integers(least, 100)), draw(st.integers(least, 100))
    x, y = draw(st.integers(0, SIDE - w)), draw(st.integers(0, SIDE - h))
    return np.array([[x, y, x + w, y + h]], np.float32)


@lru_cache
def chain(preset, strength, *names):
    return AUGMENT_PRESETS[preset].make(strength, names or AUGMENT_PRESETS[preset].names)


def view(preset, strength, img, boxes_px, seed, *names, size=SIDE, **flags):
    "One draw of a preset: square image, clipped boxes in its pixels, which are kept"
    record = make_record(
        img, 0, img.shape[:2], [dict(box_px=b, label=1, **flags) for b in boxes_px]
    )
    return AUGMENT_PRESETS[preset].view(
        chain(preset, strength, *names), record, size, np.random.default_rng(seed)
    )


def painted(box):
    "A red rectangle on grey: no augmenter makes grey red, or the fill"
    img = np.full((SIDE, SIDE, 3), 90, np.uint8)
    x1, y1, x2, y2 = box[0].astype(int)
    img[y1:y2, x1:x2] = (255, 0, 0)
    return img


def red_extent(img):
    """Corners of what has colour, pixels; None where nothing has. Half of the strongest colour:
    hue and light may change."""
    chroma = np.ptp(img.astype(int), axis=-1)
    ys, xs = np.nonzero(chroma > max(chroma.max() / 2, 15))
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) if len(xs) else None


@quick
@given(boxes(1), seeds)
def test_flip_twice_is_identity(box, seed):
    flip, img = make_augmenter(1.0, ['flip']), painted(box)
    once = move(flip, img, box, seed)
    twice = move(flip, *once, seed)
    np.testing.assert_array_equal(twice[0], img)
    np.testing.assert_allclose(twice[1], box)
    np.testing.assert_array_equal(red_extent(once[0]), once[1][0])


@every_strength
def test_painted_rectangle_stays_in_its_box(preset, strength):
    """Under each kind of change alone: the box surrounds the rectangle,
    and tightly where nothing turns."""

    @settings(quick, max_examples=20 * len(AUGMENT_PRESETS[preset].names))
    @given(boxes(), seeds, st.sampled_from(AUGMENT_PRESETS[preset].names))
    def check(box, seed, name):
        out, cut, keep = view(preset, strength, painted(box), box, seed, name)
        red = red_extent(out)
        assert keep[0]
        assert red is not None
        # 1 px: interpolation
        assert (red[:2] >= cut[0, :2] - 1).all(), (red, cut)
        assert (red[2:] <= cut[0, 2:] + 1).all(), (red, cut)
        if name != 'rotate':
            np.testing.assert_allclose(red, cut[0], atol=2)

    check()


@every_strength
def test_painted_rectangle_stays_in_its_box_under_the_whole_chain(preset, strength):
    @settings(quick, max_examples=20)
    @given(boxes(), seeds)
    def check(box, seed):
        out, cut, keep = view(preset, strength, painted(box), box, seed)
        red = red_extent(out)
        assert keep[0], (red, cut)
        assert (red[:2] >= cut[0, :2] - 2).all(), (red, cut)
        assert (red[2:] <= cut[0, 2:] + 2).all(), (red, cut)

    check()


@pytest.mark.parametrize(
    'preset,strength', [(p, s) for p in PRESETS for s in (0.0, *STRENGTHS[p][1:])]
)
def test_no_box_is_degenerate_or_outside(preset, strength):
    @quick
    @given(st.lists(boxes(3), min_size=0, max_size=5), seeds, st.booleans())
    def check(many, seed, crowd):
        b = np.concatenate(many) if many else np.zeros((0, 4), np.float32)
        img = np.zeros((SIDE, SIDE, 3), np.uint8)
        out, cut, keep = view(preset, strength, img, b, seed, crowd=crowd)
        assert out.shape == img.shape
        assert out.dtype == np.uint8
        assert cut.shape == b.shape
        assert keep.shape == (len(b),)
        if not crowd or preset == 'imgaug':
            assert keep.any() or not len(b)  # never all lost
        kept = cut[keep]
        assert (kept[:, 2:] - kept[:, :2] >= 2).all()
        assert (kept >= 0).all()
        assert (kept <= SIDE).all()
        record = make_record(img, 0, img.shape[:2], [dict(box_px=x, label=1) for x in b])
        t = make_target(record, cut / SIDE, keep)['boxes_xyxy']
        assert (t[:, 2:] > t[:, :2]).all()
        assert (t >= 0).all()
        assert (t <= 1).all()

    check()


def test_imgaug_is_drawn_as_it_always_was():
    """The chain acts on the square, from a generator of (seed, epoch, image):
    detectors of earlier versions can be trained again."""
    records = [
        make_record(
            np.random.default_rng(i).integers(0, 256, (70, 90, 3), dtype=np.uint8),
            i,
            (70, 90),
            [dict(box_px=[9, 8, 60, 50], label=1)],
        )
        for i in range(6)
    ]
    ds, default = (
        DetectionDataset(records, 64, 1.0, seed=4, preset='imgaug'),
        DetectionDataset(records, 64, 1.0, None, 4),
    )
    for i, r in enumerate(records):
        square, on_it = (
            np.array(resize_square(r.load(), 64)),
            r.boxes_px * (64 / np.array([90, 70, 90, 70], np.float32)),
        )
        img, cut, keep = augment(
            make_augmenter(1.0, AUGMENTERS), square, on_it, np.random.default_rng([4, 0, i])
        )
        for x, t in (ds[i], default[i]):
            assert torch.equal(x, to_input(img, 64))
            assert torch.equal(t['boxes_xyxy'], make_target(r, cut / 64, keep)['boxes_xyxy'])


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # label 1, 2, 3


@pytest.mark.parametrize(
    'preset,strength,names',
    [
        ('imgaug', 2.0, ('flip', 'zoom', 'stretch', 'rotate')),
        ('ssd', 1.0, ('zoom_out', 'crop', 'flip')),
    ],
)
def test_labels_stay_with_their_boxes(preset, strength, names):
    "Three objects in three colours: whatever leaves the image, a label's box holds its colour"

    @settings(quick, max_examples=40)
    @given(st.permutations([0, 1, 2]), seeds)
    def check(order, seed):
        img = np.full((SIDE, SIDE, 3), 90, np.uint8)
        objects = []
        for place, c in enumerate(order):
            x = 5 + place * 41
            img[40:90, x : x + 35] = COLOURS[c]
            objects.append(
                dict(box_px=[x, 40, x + 35, 90], label=c + 1, difficult=c == 2, crowd=c == 0)
            )
        ds = DetectionDataset(
            [make_record(img, 0, (SIDE, SIDE), objects)], SIDE, strength, names, seed, preset
        )
        x, t = ds[0]
        for box, label in zip(
            (t['boxes_xyxy'] * SIDE).round().int().tolist(), t['labels'].tolist()
        ):
            x1, y1, x2, y2 = box
            # grey and fill add nearly alike to all three channels
            inside = x[:, y1:y2, x1:x2].mean((1, 2))
            assert inside.argmax() + 1 == label
        assert (t['difficult'] == (t['labels'] == 3)).all()
        assert (t['crowd'] == (t['labels'] == 1)).all()

    check()


@pytest.fixture(scope='module')
def records():
    return generated_data('multiscale', n_train=10, n_valid=4, size=96).train


def run(records, workers, preset, seed=0, epochs=2):
    "What two epochs show of each image: epoch → image id → pixels, boxes"
    ds = DetectionDataset(records, 96, 1.0, seed=seed, preset=preset)
    loader = DetectionLoader(ds, seed, bs=4, shuffle=True, num_workers=workers)
    out = []
    for _ in range(epochs):
        seen = [(x[i], t) for x, y in loader for i, t in enumerate(unpad(y))]
        out.append(
            ([int(t['image_id']) for _, t in seen], {int(t['image_id']): (x, t) for x, t in seen})
        )
    return out


@every_preset
def test_epochs_differ_and_seeds_repeat_with_any_number_of_workers(records, preset):
    here, workers, other = (
        run(records, 0, preset),
        run(records, 2, preset),
        run(records, 0, preset, seed=1),
    )
    for (ids, a), (ids2, b) in zip(here, workers):
        assert ids == ids2
        assert sorted(ids) == [r.image_id for r in records]
        for i in a:
            assert torch.equal(a[i][0], b[i][0])
            assert all(torch.equal(a[i][1][k], b[i][1][k]) for k in a[i][1])
    (_, first), (_, second) = here
    assert all(not torch.equal(first[i][0], second[i][0]) for i in first)  # another epoch
    assert here[0][0] != here[1][0]
    assert sum(not torch.equal(first[i][0], other[0][1][i][0]) for i in first) >= 9  # another seed


@every_preset
def test_images_of_a_batch_do_not_share_their_randomness(records, preset):
    ds = DetectionDataset([records[0]] * 8, 96, 1.0, preset=preset)
    assert len({tuple(ds[i][0].flatten().tolist()) for i in range(8)}) == 8


@every_preset
def test_no_global_generator_is_used_or_moved(records, preset):
    ds, states = (
        DetectionDataset(records, 96, 1.0, preset=preset),
        lambda: (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
        ),
    )
    torch.manual_seed(1)
    before = states()
    first = ds[0][0]
    assert states() == before
    torch.manual_seed(2)
    assert torch.equal(ds[0][0], first)


@every_preset
def test_a_dataset_travels_to_another_process(records, preset):
    ds = DetectionDataset(records, 96, 1.0, seed=3, preset=preset)
    ds.epoch = 2
    # after use, so that there is an augmenter to leave behind
    there = pickle.loads(pickle.dumps((ds[0], ds)))
    assert torch.equal(there[0][0], there[1][0][0])


@every_preset
def test_images_without_objects_pass(preset):
    empty = [make_record(np.full((50, 80, 3), 60, np.uint8), i, (50, 80), []) for i in range(4)]
    full = generated_data(n_train=4, n_valid=1, size=96).train
    for recs in (empty, empty[:1] + full):
        data = DetectionData(
            dict(train=recs, val=recs), ('background', 'a', 'b', 'c', 'd', 'e', 'f')
        )
        dls = make_dls(data, size=64, bs=2, strength=1.0, device='cpu', preset=preset)
        for x, y in [*dls.train, *dls.valid]:
            assert x.shape[1:] == (3, 64, 64)
            assert y['boxes_xyxy'].shape[:2] == y['labels'].shape
            assert y['boxes_xyxy'].shape[2] == 4
            assert len(unpad(y)) == len(x)


def test_unknown_presets_are_named():
    for make in (
        lambda: DetectionDataset([], preset='albumentations'),
        lambda: make_dls(generated_data(n_train=2, n_valid=1, size=32), preset='albumentations'),
    ):
        with pytest.raises(ValueError, match='albumentations.*imgaug, ssd'):
            make()
    for preset in PRESETS:
        with pytest.raises(ValueError, match='blur'):
            AUGMENT_PRESETS[preset].make(1.0, ['blur'])
        with pytest.raises(ValueError, match='strength'):
            AUGMENT_PRESETS[preset].make(-1.0, AUGMENT_PRESETS[preset].names)


@every_preset
def test_strength_0_only_flips(preset):
    rng = np.random.default_rng(0)
    img, b = (
        rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
        np.array([[10, 20, 50, 60.0]], np.float32),
    )
    mirrored = 0
    for seed in range(12):
        out, cut, keep = view(preset, 0.0, img, b, seed)
        flipped = (out != img).any()
        mirrored += flipped
        np.testing.assert_array_equal(out, img[:, ::-1] if flipped else img)
        np.testing.assert_allclose(
            cut, [[SIDE - 50, 20, SIDE - 10, 60]] if flipped else b, atol=1e-4
        )
    assert 0 < mirrored < 12


@every_preset
@pytest.mark.parametrize('hw', [(1, 1), (3, 3), (1, 200), (300, 2), (900, 1400)])
def test_pictures_of_any_shape_pass(preset, hw):
    for n in (0, 1):
        for seed in range(3):
            out, cut, keep = view(
                preset,
                1.0,
                np.full((*hw, 3), 50, np.uint8),
                np.array([[0, 0, hw[1], hw[0]]] * n, np.float32).reshape(-1, 4),
                seed,
                size=48,
            )
            assert out.shape == (48, 48, 3)
            assert keep.shape == (n,)
            assert (cut[keep] >= 0).all()
            assert (cut[keep] <= 48).all()


# the SSD paper's chain


def tv_boxes(b, h, w):
    from torchvision import tv_tensors

    return tv_tensors.BoundingBoxes(
        torch.as_tensor(b, dtype=torch.float32), format='XYXY', canvas_size=(h, w)
    )


@pytest.mark.parametrize(
    'objects', [[[20, 20, 60, 60]], [[0, 0, 30, 30], [60, 10, 95, 60]], [[10, 10, 16, 16]]]
)
def test_our_crops_are_torchvisions(objects):
    """Forty windows at once or one after the other: the same windows, as far as 200 draws can tell;
    an object's centre in each of them."""
    from torchvision.transforms import v2
    from ssd_tutorial.presets import _iou_crop

    canvas, b = torch.zeros(1, 80, 100, dtype=torch.uint8), tv_boxes(objects, 80, 100)

    def windows(crop):
        out = [crop(canvas, b) for _ in range(200)]
        assert all((k[:, 2] > k[:, 0]).any() for _, k in out)
        return np.array(
            [(*img.shape[-2:], float((k[:, 2] > k[:, 0]).sum()), float(k.max())) for img, k in out]
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, ours = windows(v2.RandomIoUCrop()), windows(_iou_crop(0.3))
    error = np.sqrt((theirs.var(0) + ours.var(0)) / 200)
    assert (abs(theirs.mean(0) - ours.mean(0)) <= 4 * error + 1e-9).all(), (
        theirs.mean(0),
        ours.mean(0),
        error,
    )
    whole = [(w[:, :2] == [80, 100]).all(1).mean() for w in (theirs, ours)]
    assert abs(whole[0] - whole[1]) < 0.12


@quick
@given(st.lists(boxes(3), min_size=1, max_size=5), seeds)
def test_what_is_kept_is_what_sanitise_keeps(many, seed):
    "`SanitizeBoundingBoxes` at the end of torchvision's chain, on the same draw"
    from torchvision.transforms import v2

    b = np.concatenate(many)
    img = np.zeros((SIDE, SIDE, 3), np.uint8)
    record = make_record(img, 0, (SIDE, SIDE), [dict(box_px=x, label=1) for x in b])
    cut, keep = view('ssd', 1.0, img, b, seed, size=64)[1:]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.default_rng(seed).integers(2**31)))
        steps = v2.Compose(
            [
                *chain('ssd', 1.0).transforms,
                v2.Resize((64, 64)),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=2),
            ]
        )
        there = steps(
            dict(image=record.load(), boxes=tv_boxes(b, SIDE, SIDE), labels=torch.arange(len(b)))
        )
    if not len(there['labels']):
        return  # all gone: ours draws again
    assert np.flatnonzero(keep).tolist() == there['labels'].tolist()
    np.testing.assert_allclose(cut[keep], there['boxes'].numpy(), atol=1e-3)


def test_a_crowd_stays_wherever_it_can_be_seen_and_chooses_no_window():
    img = np.full((100, 200, 3), 90, np.uint8)
    img[:, 100:] = (0, 0, 255)
    record = make_record(
        img,
        0,
        (100, 200),
        [
            dict(box_px=[40, 20, 90, 80], label=1),
            dict(box_px=[100, 0, 200, 100], label=1, crowd=True),
        ],
    )
    parts = 0
    for seed in range(60):
        out, cut, keep = AUGMENT_PRESETS['ssd'].view(
            chain('ssd', 1.0, 'zoom_out', 'crop', 'flip'), record, SIDE, np.random.default_rng(seed)
        )
        blue = np.argwhere(out[..., 2].astype(int) - out[..., 0] > 80)
        assert keep[0]  # the window holds on to the object
        assert keep[1] or len(np.unique(blue[:, 1])) <= 3 or len(np.unique(blue[:, 0])) <= 3
        if keep[1]:
            (y1, x1), (y2, x2) = blue.min(0), blue.max(0) + 1
            parts += cut[1, 2] - cut[1, 0] < 0.9 * (cut[1, 3] - cut[1, 1])
            np.testing.assert_allclose(cut[1], [x1, y1, x2, y2], atol=3)
    assert parts


def test_a_small_object_is_never_lost_to_the_zoom():
    """Four times smaller it would be below two pixels:
    such draws are repeated, and given up in the end."""
    img = np.zeros((SIDE, SIDE, 3), np.uint8)
    for seed in range(40):
        assert view('ssd', 1.0, img, np.array([[60, 60, 63, 63.0]], np.float32), seed)[2][0]


def test_large_pictures_are_made_smaller_before_they_are_put_on_a_canvas():
    seen = []

    def look(img, *rest):
        seen.append(img.size)
        return img, *rest

    big = make_record(
        np.zeros((900, 1600, 3), np.uint8),
        0,
        (900, 1600),
        [dict(box_px=[160, 90, 800, 450], label=1)],
    )
    out, cut, keep = AUGMENT_PRESETS['ssd'].view(look, big, 100, np.random.default_rng(0))
    assert seen == [(267, 150)]
    assert out.shape == (100, 100, 3)
    np.testing.assert_allclose(cut, [[10, 10, 50, 50]], atol=0.1)


@quick
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_unpad_undoes_collate(counts):
    rng, items = np.random.default_rng(sum(counts)), []
    for i, n in enumerate(counts):
        lo = rng.uniform(0, 0.5, (n, 2))
        record = make_record(
            np.zeros((8, 8, 3), np.uint8),
            i,
            (8, 8),
            [dict(box_px=[0, 0, 1, 1], label=int(l)) for l in rng.integers(1, 7, n)],
        )
        items.append(
            (
                torch.zeros(3, 8, 8),
                make_target(record, np.concatenate([lo, lo + 0.3], 1), np.ones(n, bool)),
            )
        )
    for (_, t), back in zip(items, unpad(collate(items)[1])):
        assert t.keys() == back.keys()
        assert all(torch.equal(t[k], back[k]) for k in t)


@pytest.mark.slow
def test_a_dataset_finds_presets_that_nobody_imported():
    """Lesson 04's datasets look presets up where lesson 04b makes them,
    in a new process and without imgaug."""
    code = (
        'import sys\nfrom ssd_tutorial.batches import DetectionDataset, find_preset\n'
        'assert "ssd_tutorial.presets" not in sys.modules\n'
        'DetectionDataset([], strength=1., preset="ssd")\n'
        'print(find_preset("ssd").names, find_preset("imgaug").names[0], "imgaug" in sys.modules)'
    )
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert r.stdout == "('distort', 'zoom_out', 'crop', 'flip') flip False\n"
