"`Detections` on odd input: more of it than the lesson has room for"

import json
from dataclasses import replace
import numpy as np, pytest
from PIL import Image
from ssd_tutorial.detections import (
    Detections,
    ROLE_COLORS,
    coco_results,
    draw_boxes,
    draw_detections,
    save_results,
)

VOCAB = ('background', 'cat', 'dog')


def some(n=3):
    return Detections(
        np.arange(4 * n).reshape(n, 4) % 7 + [[0, 0, 9, 9]],
        [1 + i % 2 for i in range(n)],
        [i / n for i in range(n)],
        VOCAB,
        (20, 30),
    )


def test_rows_stay_together_and_sorted():
    dets = some(5)
    for keep in (slice(1, 4), [3, 0], dets.labels == 2, -1, np.array([], int)):
        part = dets[keep]
        assert (np.diff(part.scores) <= 0).all()
        for one in part:
            assert any(
                (one.boxes_px[0] == b).all() and one.scores[0] == s
                for b, s in zip(dets.boxes_px, dets.scores)
            )
    with pytest.raises(IndexError):
        dets[5]


@pytest.mark.parametrize(
    'labels,message',
    [
        ([1, 2, 3], 'vocabulary knows 1 to 2'),
        ([0, 1, 2], '0 is background'),
        ([1, 2], '3 boxes, 2 labels'),
    ],
)
def test_labels_that_cannot_be_right_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        Detections(np.zeros((3, 4)), labels, [0.1, 0.2, 0.3], VOCAB, (20, 30))


def test_identities_go_along():
    dets = replace(some(5), ids=[10, 11, 12, 13, 14])
    assert dets.ids.dtype == np.int64
    of = dict(zip(dets.ids.tolist(), dets.scores.tolist()))
    for keep in (slice(1, 4), [3, 0], dets.labels == 2, -1, np.array([], int)):
        part = dets[keep]
        assert [of[i] for i in part.ids.tolist()] == part.scores.tolist()
    assert [i for one in dets.above(0.3) for i in one.ids.tolist()] == dets.ids[:3].tolist()
    assert [r['track_id'] for r in coco_results(dets)] == dets.ids.tolist()
    assert not any('track_id' in r for r in coco_results(some(5)))
    with pytest.raises(ValueError, match='4 ids and 5 scores'):
        replace(some(5), ids=[1, 2, 3, 4])


def test_nothing_found(tmp_path):
    nothing = Detections([], [], [], VOCAB, (20, 30))
    assert len(nothing) == 0
    assert nothing.names == []
    assert coco_results(nothing) == []
    assert 'Detections(0' in repr(nothing)
    save_results([nothing], tmp_path / 'none.json')
    assert json.loads((tmp_path / 'none.json').read_text()) == []


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'P', 'CMYK'])
def test_draws_on_any_mode_and_leaves_the_original(mode):
    img = Image.new(mode, (30, 20))
    before = img.tobytes()
    assert draw_detections(some(), img).size == (30, 20)
    assert img.tobytes() == before


def test_draws_boxes_that_lie_outside_or_are_flipped():
    draw_boxes(
        Image.new('RGB', (30, 20)),
        [[-50, -50, 100, 100], [25, 15, 5, 2], [40, 40, 50, 50], [3, 3, 3, 3]],
        ['a', 'b', 'a very long name that cannot fit', 'd'],
    )


def test_the_surest_label_is_on_top():
    """Two classes in one box: what shows is the picture of the surer one drawn over that of the
    other, in whatever order they came."""
    img = Image.new('RGB', (90, 60))
    box = [10, 30, 80, 55]
    for labels, scores in (([1, 2], [0.9, 0.4]), ([1, 2], [0.4, 0.9])):
        dets = Detections([box, box], labels, scores, VOCAB, (60, 90))
        sure, other = dets[0], dets[1]
        drawn = draw_detections(dets, img).tobytes()
        assert (
            drawn
            == draw_detections(sure, draw_detections(other, img)).tobytes()
            != draw_detections(other, draw_detections(sure, img)).tobytes()
        )


@pytest.mark.parametrize('role', ROLE_COLORS)
@pytest.mark.parametrize('side', [30, 600])
def test_lines_show_on_an_image_of_their_own_colour(role, side):
    "Green on a meadow: without its white halo the line would be gone"
    img = Image.new('RGB', (side, side), ROLE_COLORS[role])
    x1, y1, x2, y2 = box = [side // 3, side // 4, 2 * side // 3, 3 * side // 4]
    drawn = np.asarray(draw_boxes(img, [box], role=role))
    white = (drawn == 255).all(-1)
    halo = max(1, max(2, side // 100) // 2)
    rows, columns = np.nonzero(white.any(1))[0], np.nonzero(white.any(0))[0]
    assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == [
        x1 - halo,
        y1 - halo,
        x2 + halo,
        y2 + halo,
    ]
    # the line itself, on top
    assert not white[y1, x1:x2].any()
    assert not white[y2 - 1, x1:x2].any()
    middle = (y1 + y2) // 2
    assert white[middle, x1 - halo : x1].all()
    assert white[middle, x2 : x2 + halo].all()
    width = max(2, side // 100)
    assert white[middle, x1 + width : x1 + width + halo].all()  # and inside


def test_lines_grow_with_the_image():
    for side, width in ((100, 2), (600, 6)):
        drawn = np.asarray(
            draw_boxes(Image.new('RGB', (side, side)), [[20, 20, side - 20, side - 20]])
        )
        orange = (drawn == (255, 127, 14)).all(-1)[side // 2]
        assert orange.sum() == 2 * width
