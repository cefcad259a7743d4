"""Properties of the learned policy and of images made of several; see lessons 23 and 23b"""

import dataclasses, json, statistics
from pathlib import Path
import numpy as np, pytest, torch
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
import ssd_tutorial
from ssd_tutorial.batches import PRESET_MODULES, DetectionDataset, find_preset, make_dls
from ssd_tutorial.cache import cached_dls
from ssd_tutorial.body import make_body
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.learned import LEARNED, POLICY_V1, LearnedAugmenter, _kind, learned_augment
from ssd_tutorial.mosaic import _cover, mixup, mosaic
from ssd_tutorial.records import PER_OBJECT, generated_data, make_record
from ssd_tutorial.runs import train_detector

SIDE = 128
quick = settings(max_examples=40, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)
OPERATIONS = sorted({op for pair in POLICY_V1 for op, *_ in pair})
MORE = ('learned', 'mosaic', 'mixup')


@st.composite
def records(draw, most=4, least=2):
    "A grey photograph of any shape with red objects, some of them crowds"
    w, h = draw(st.integers(40, 300)), draw(st.integers(40, 300))
    img = np.full((h, w, 3), 90, np.uint8)
    objects = []
    for _ in range(draw(st.integers(0, most))):
        x, y = draw(st.integers(0, w - least)), draw(st.integers(0, h - least))
        x2, y2 = draw(st.integers(x + least, w)), draw(st.integers(y + least, h))
        img[y:y2, x:x2] = (255, 0, 0)
        crowd = draw(st.booleans()) and draw(st.booleans())
        objects.append(dict(box_px=[x, y, x2, y2], label=draw(st.integers(1, 3)), crowd=crowd))
    return make_record(img, draw(st.integers(0, 9)), (h, w), objects, 'a.png')


def one_box(record_boxes):
    img = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return make_record(img, 0, (SIDE, SIDE), [dict(box_px=b, label=1) for b in record_boxes])


def only(operation, kinds=LEARNED):
    "A policy of one operation that always acts, without the mirror"
    p = 3 if _kind(operation) == 'box' else 1  # whose probability is divided by three
    pair = (operation, p, 8), (operation, 0, 8)
    return LearnedAugmenter(1.0, [k for k in kinds if k != 'flip'], (pair,))


@pytest.mark.parametrize('operation', OPERATIONS)
def test_what_an_operation_may_change(operation):
    """Colours leave boxes alone; what acts within boxes changes nothing else;
    geometry moves box and image together"""

    @quick
    @given(st.integers(10, 60), st.integers(10, 60), st.integers(20, 50), seeds)
    def check(x, y, side, seed):
        box = np.array([[x, y, x + side, y + side]], np.float32)
        r, augmenter = one_box(box), only(operation)
        out, boxes, keep = learned_augment(augmenter, r, SIDE, np.random.default_rng(seed))
        assert out.shape == (SIDE, SIDE, 3)
        assert out.dtype == np.uint8
        if _kind(operation) != 'geometry':
            np.testing.assert_array_equal(boxes, box)
            assert keep.all()
        if _kind(operation) == 'box':
            outside = np.ones((SIDE, SIDE), bool)
            outside[y : y + side, x : x + side] = False
            np.testing.assert_array_equal(out[outside], r.image[outside])
            assert (out != r.image).any()

    check()


@quick
@given(records(), seeds, st.sampled_from([0.5, 1.0]))
def test_moved_boxes_hold_their_objects(record, seed, strength):
    "No red pixel outside of all boxes, whatever the photograph's shape"
    moves = LearnedAugmenter(strength, ('geometry', 'flip'))
    img, boxes, keep = learned_augment(moves, record, SIDE, np.random.default_rng(seed))
    assert boxes.shape == (len(record.labels), 4)
    assert (boxes >= 0).all() and (boxes <= SIDE).all()  # noqa: PT018 one claim: inside
    red = img[..., 0].astype(int) - img[..., 1] > 120
    for x1, y1, x2, y2 in boxes:
        red[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3] = False
    assert red.sum() == 0


@quick
@given(st.lists(records(), min_size=4, max_size=4), st.integers(32, 160), seeds)
def test_mosaic_keeps_objects_in_their_boxes(four, size, seed):
    out = mosaic(four, size, np.random.default_rng(seed), chance=1)
    assert out.image.shape == (size, size, 3)
    assert out.size_hw == (size, size)
    assert {len(getattr(out, k)) for k in PER_OBJECT} == {len(out.labels)}
    assert (out.boxes_px >= 0).all()
    assert (out.boxes_px <= size).all()
    assert (out.boxes_px[:, 2:] > out.boxes_px[:, :2]).all()
    assert out.image_id == four[0].image_id
    # where a box is, there is red: its middle lies in a red rectangle or at its edge
    for x1, y1, x2, y2 in out.boxes_px:
        part = out.image[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))].astype(int)
        assert (part[..., 0] - part[..., 1]).max() > 60


@quick
@given(records(), st.integers(8, 120), st.integers(8, 120), seeds)
def test_covering_a_quadrant(record, w, h, seed):
    "The photograph fills it, in its own proportions, and boxes go along"
    img, boxes = _cover(record, (w, h), np.random.default_rng(seed))
    assert img.shape == (h, w, 3)
    old = record.boxes_px
    if len(old):
        scale = (boxes[:, 2:] - boxes[:, :2]) / (old[:, 2:] - old[:, :2])
        assert np.ptp(scale) <= 0.08 * scale.max() + 1e-6  # rounded to whole pixels
    red = img[..., 0].astype(int) - img[..., 1] > 120
    for x1, y1, x2, y2 in boxes:
        x1, y1 = max(0, int(np.floor(x1)) - 1), max(0, int(np.floor(y1)) - 1)
        red[y1 : max(0, int(y2) + 2), x1 : max(0, int(x2) + 2)] = False
    assert red.sum() == 0


@quick
@given(st.lists(records(), min_size=2, max_size=2), seeds)
def test_mixup_has_the_objects_of_both(two, seed):
    out = mixup(two, 64, np.random.default_rng(seed), chance=1)
    assert len(out.labels) == sum(len(r.labels) for r in two)
    np.testing.assert_array_equal(out.crowd, np.concatenate([r.crowd for r in two]))
    assert mixup(two, 64, np.random.default_rng(seed), chance=0) is two[0]


@pytest.mark.parametrize('preset', MORE)
def test_draws_are_repeatable_and_differ(preset):
    data = generated_data('multiscale', 12, 4)
    a, b = (DetectionDataset(data.train, 64, 0.5, seed=1, preset=preset) for _ in range(2))
    c = DetectionDataset(data.train, 64, 0.5, seed=2, preset=preset)
    state = torch.get_rng_state()
    same = [torch.equal(a[i][0], b[i][0]) for i in range(12)]
    other = [torch.equal(a[i][0], c[i][0]) for i in range(12)]
    assert all(same)
    assert not all(other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('preset', MORE)
def test_strength_zero_only_mirrors(preset):
    data = generated_data('multiscale', 8, 4)
    plain = DetectionDataset(data.train, 64)
    for i in range(8):
        x = plain[i][0]
        y = DetectionDataset(data.train, 64, 0.0, preset=preset)[i][0]
        assert torch.equal(x, y) or torch.equal(x.flip(-1), y)


@pytest.mark.parametrize('preset', MORE)
def test_one_image_without_objects(preset):
    "It mixes with itself, and stays background"
    r = make_record(np.full((30, 40, 3), 90, np.uint8), 3, (30, 40), [])
    x, t = DetectionDataset([r], 32, 0.5, preset=preset)[0]
    assert x.shape == (3, 32, 32)
    assert len(t['labels']) == 0
    assert t['image_id'] == 3


def test_names_switch_the_mixture_off():
    data = generated_data('multiscale', 8, 4)
    names = [n for n in find_preset('mosaic').names if n != 'mix']
    plain = DetectionDataset(data.train, 64, 0.5, seed=4)
    off = DetectionDataset(data.train, 64, 0.5, names, seed=4, preset='mosaic')
    assert all(torch.equal(plain[i][0], off[i][0]) for i in range(8))


def test_cached_maps_have_the_boxes_of_the_mixture():
    data = generated_data('multiscale', 8, 4)
    dls = make_dls(data, 64, 4, 0.5, preset='mosaic', device='cpu')
    maps = cached_dls(make_body(levels=(4,)).freeze(), dls, variants=3, progress=False)
    counts = [[len(t['labels']) for _, t in v] for v in maps.train.dataset.variants]
    assert len({tuple(c) for c in counts}) > 1


def test_an_unknown_preset_names_all():
    with pytest.raises(ValueError, match='imgaug, ssd, learned, mosaic, mixup'):
        find_preset('paper')
    with pytest.raises(DetectorError, match="augment='paper'"):
        train_detector(generated_data(n_train=4, n_valid=4), TrainConfig(augment='paper'), False)
    assert PRESET_MODULES[0] == 'presets'


@pytest.mark.slow
@pytest.mark.parametrize('preset', MORE)
def test_the_command_trains_with_it(preset, tmp_path):
    out = tmp_path / 'd.pt'
    small = '--arch multiscale --size 64 --weights none --max-steps 2 --no-plots --anyway'.split()
    args = ['train', '--data', 'generated', *small, '--augment', preset, '--out', str(out)]
    r = CliRunner().invoke(main, args)
    assert r.exit_code == 0, r.output
    assert out.is_file()
    assert 'Traceback' not in r.output


def test_records_are_not_changed():
    data = generated_data('multiscale', 6, 4)
    before = [dataclasses.replace(r, boxes_px=r.boxes_px.copy()) for r in data.train]
    pixels = [r.image.copy() for r in data.train]
    for preset in MORE:
        ds = DetectionDataset(data.train, 64, 0.7, preset=preset)
        for i in range(6):
            ds[i]
    for r, old, img in zip(data.train, before, pixels):
        np.testing.assert_array_equal(r.boxes_px, old.boxes_px)
        np.testing.assert_array_equal(r.image, img)


def test_kept_measurements_are_what_their_seeds_say():
    "The file that lesson 23b reads: every preset from three seeds"
    path = Path(ssd_tutorial.__file__).parent / 'augmentations.json'
    rows = json.loads(path.read_text(encoding='utf-8'))['rows']
    assert {'none', 'imgaug', 'ssd', *MORE} == {*rows}
    for name, row in rows.items():
        values = [s['map50'] for s in row['seeds'].values()]
        assert len(values) == 3, name
        assert row['mean']['map50'] == pytest.approx(statistics.mean(values), abs=1e-4), name
