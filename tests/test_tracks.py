"Identities last, boxes keep still, each crossing counts once. See lesson 29b."

import csv
import json
import sys
from dataclasses import replace
import numpy as np
import pytest
from hypothesis import given, strategies as st
from ssd_tutorial.augment import InstallError
from ssd_tutorial.crossing import crossing_shapes
from ssd_tutorial.counting import (
    LineCounter,
    ObjectCounts,
    counts_text,
    draw_counts,
    parse_line,
    save_counts,
)
from ssd_tutorial.detections import Detections, coco_results
from ssd_tutorial.faults import DataError
from ssd_tutorial.film_command import run_video
from ssd_tutorial.movies import write_video
from ssd_tutorial.tracks import ObjectTracker, follow_truth, id_switches, pair_overlaps

VOCAB = ('background', 'disc', 'star')


def dets(boxes, labels=None, scores=None, ids=None, size=(200, 200)):
    n = len(boxes)
    return Detections(boxes, labels or [1] * n, scores or [0.9] * n, VOCAB, size, ids=ids)


def shaky(truth, seed, off=0.03, miss=0.05):
    "What a detector would find: trembling boxes, low scores where little is seen, gaps"
    rng, out = np.random.default_rng(seed), []
    for d in truth:
        d = d[rng.uniform(size=len(d)) >= miss]
        side = np.tile(d.boxes_px[:, 2:] - d.boxes_px[:, :2], 2)
        boxes = d.boxes_px + off * side * rng.standard_normal((len(d), 4))
        out.append(replace(d, boxes_px=boxes, ids=None))
    return out


def track(found, times=None, **how):
    tracker = ObjectTracker(**how)
    times = [None] * len(found) if times is None else times
    return [tracker.update(d, t) for d, t in zip(found, times)]


def number(ways):
    return sum(id_switches(ways).values())


@pytest.fixture(scope='module')
def clips():
    return [[d for _, d in crossing_shapes(s)] for s in range(6)]


@pytest.mark.parametrize('every', [1, 3])
def test_at_most_one_switch_per_object(clips, every):
    for s, truth in enumerate(clips):
        times = np.arange(len(truth))[::every] / 25
        out = track(shaky(truth, s)[::every], times, fps=25)
        ways = follow_truth(truth[::every], out)
        assert max(id_switches(ways).values()) <= 1
        assert np.mean([(w > 0).sum() / (w >= 0).sum() for w in ways.values()]) > 0.75


def test_variable_frame_rate(clips):
    truth = clips[1]
    times = np.arange(len(truth)) / 25
    keep = np.sort(np.random.default_rng(0).permutation(len(truth))[: len(truth) // 2])
    out = track([shaky(truth, 0)[k] for k in keep], times[keep], fps=25)
    assert max(id_switches(follow_truth([truth[k] for k in keep], out)).values()) <= 1


def test_frames_rarer_than_an_object_may_be_lost():
    "One frame in two seconds, and objects may be out of sight for one"
    out = track([dets([[50, 50, 90, 90]])] * 5, [0, 2, 4, 6, 8])
    assert [d.ids.tolist() for d in out] == [[], [1], [1], [1], [1]]


@pytest.mark.parametrize('times', [None, np.arange(40) / 30])
@pytest.mark.parametrize('hidden,same', [(20, True), (35, False)])
def test_lost_and_found(times, hidden, same):
    "Out of sight for less than a second it is known again; for longer it is somebody new"
    found = [dets([[50, 50, 90, 90]])] * 3 + [dets([])] * hidden + [dets([[50, 50, 90, 90]])] * 2
    out = track(found[:40], times)
    assert out[2].ids.tolist() == [1]
    assert out[-1].ids.tolist() == ([1] if same else [2])


def test_weak_detections_carry_on_and_never_begin():
    strong, weak = dets([[50, 50, 90, 90]]), dets([[50, 50, 90, 90]], scores=[0.15])
    assert [len(d) for d in track([weak] * 4)] == [0, 0, 0, 0]
    out = track([strong, strong, weak, weak, strong])
    assert [d.ids.tolist() for d in out] == [[], [1], [1], [1], [1]]


def test_classes_keep_their_numbers_where_they_cross():
    def at(t):
        return dets([[2 * t, 50, 2 * t + 40, 90], [120 - 2 * t, 50, 160 - 2 * t, 90]], [1, 2])

    out = track([at(t) for t in range(60)])
    assert {(n, i) for d in out for n, i in zip(d.names, d.ids.tolist())} == {
        ('disc', 1),
        ('star', 2),
    }


def test_doubles_are_no_second_object():
    pair = dets([[50, 50, 90, 90], [56, 50, 96, 90]], scores=[0.9, 0.8])
    assert {i for d in track([pair] * 6) for i in d.ids.tolist()} == {1}
    assert {i for d in track([pair] * 6, doubles=1.0) for i in d.ids.tolist()} == {1, 2}


def test_boxes_keep_still():
    rng = np.random.default_rng(0)
    found = [dets([np.array([40, 40, 90, 90]) + t + 2 * rng.standard_normal(4)]) for t in range(60)]
    x = [
        np.array([d.boxes_px[0, 0] for d in track(found, steady=s) if len(d)])
        for s in (False, True)
    ]
    raw, steady = (np.diff(v, 2).std() for v in x)
    assert steady < raw / 2
    errors = [np.abs(v - 40 - np.arange(1, 60))[10:].mean() for v in x]
    assert errors[1] < errors[0]


def test_boxes_stay_inside_the_frame():
    found = [dets([[150 + 5 * t, 50, min(200, 190 + 5 * t), 90]]) for t in range(8)]
    for d in track(found):
        assert (d.boxes_px >= 0).all()
        assert (d.boxes_px <= 200).all()


def test_reset_begins_anew(clips):
    found = shaky(clips[0], 0)
    tracker = ObjectTracker(fps=25)
    first = [tracker.update(d, t / 25).ids.tolist() for t, d in enumerate(found)]
    tracker.reset()
    again = [tracker.update(d, t / 25).ids.tolist() for t, d in enumerate(found)]
    assert first == again


def test_time_goes_on():
    tracker = ObjectTracker()
    tracker.update(dets([[0, 0, 9, 9]]), 1.0)
    for wrong in (1.0, 0.5, float('nan')):
        with pytest.raises(ValueError, match='frames go in order'):
            tracker.update(dets([[0, 0, 9, 9]]), wrong)


def test_what_goes_in_stays_as_it_is_and_identities_reach_coco():
    found = [dets([[50, 50, 90, 90]]), dets([[51, 50, 91, 90]])]
    before = found[1].boxes_px.copy()
    out = track(found)
    assert (found[1].boxes_px == before).all()
    assert found[1].ids is None
    assert [r['track_id'] for r in coco_results(out[1])] == [1]


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'trackers', None)
    with pytest.raises(InstallError) as e:
        ObjectTracker()
    assert 'ssd_tutorial[video]' in str(e.value)
    assert '\n' not in str(e.value)


def test_switches_agree_with_the_library(clips):
    "The number of switches is that of the CLEAR MOT metrics in the package `trackers`"
    from trackers.eval.clear import compute_clear_metrics

    truth = [d for d in clips[2]]
    found = [replace(d, ids=d.ids + 10 * (t > 30) * (d.ids == 2)) for t, d in enumerate(truth)]
    ways = follow_truth(truth, found)
    ours = compute_clear_metrics(
        [d.ids - 1 for d in truth],
        [np.searchsorted(np.unique([*range(1, 15)]), d.ids) for d in found],
        [pair_overlaps(a.boxes_px, b.boxes_px) for a, b in zip(truth, found)],
    )
    assert number(ways) == 1 == ours['IDSW']


# --- counting


def middle(xy, ids=(1,), side=20):
    x, y = xy
    return dets([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]], ids=list(ids))


def crossings(points, line, margin=0.0, side=20):
    counter = LineCounter(line, margin)
    return [w for p in points for _, w in counter.update(middle(p, side=side))]


def turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


coordinate = st.floats(10, 190, allow_nan=False).map(lambda v: round(v, 3))
point = st.tuples(coordinate, coordinate)


@given(st.lists(point, min_size=2, max_size=12), point, point)
def test_without_a_margin_it_counts_steps_that_meet_the_line(points, a, b):
    if np.hypot(a[0] - b[0], a[1] - b[1]) < 1:
        return
    if min(abs(turn(a, b, p)) for p in points) < 1e-2:
        return  # a middle exactly on the line
    expected = []
    for p, q in zip(points, points[1:]):
        if min(abs(turn(p, q, a)), abs(turn(p, q, b))) < 1e-2:
            return  # it grazes an end
        if (turn(a, b, p) > 0) != (turn(a, b, q) > 0) and (turn(p, q, a) > 0) != (
            turn(p, q, b) > 0
        ):
            expected.append('right' if turn(a, b, q) > 0 else 'left')
    assert crossings(points, (*a, *b)) == expected


@given(st.lists(point, min_size=2, max_size=12), point, point)
def test_turned_round_right_is_left(points, a, b):
    if np.hypot(a[0] - b[0], a[1] - b[1]) < 1:
        return
    there, back = (crossings(points, line, 0.1) for line in ((*a, *b), (*b, *a)))
    assert [dict(right='left', left='right')[w] for w in there] == back


@given(st.lists(st.floats(-1.9, 1.9), min_size=1, max_size=40), st.booleans())
def test_trembling_on_the_line_counts_once_or_never(offsets, over):
    "A strip of two pixels on either side, as the boxes are 20 wide"
    ways = [(80, 100), *((100 + v, 100) for v in offsets), (120 if over else 80, 100)]
    assert crossings(ways, (100, 0, 100, 200), 0.1) == ['left'] * over


@given(st.lists(coordinate, min_size=2, max_size=30))
def test_crossings_alternate(xs):
    ways = crossings([(x, 100) for x in xs], (100, -1000, 100, 1000), 0.1)
    assert all(a != b for a, b in zip(ways, ways[1:]))


def test_each_identity_for_itself():
    line = LineCounter((100, 0, 100, 200))
    for t in range(20):
        x = 60 + 4 * t
        both = [[x, 20, x + 20, 40], [180 - x, 120, 200 - x, 140]]
        line.update(dets(both, [1, 2], ids=[7, 9]))
    assert (dict(line.left), dict(line.right)) == ({'disc': 1}, {'star': 1})


def test_counts_of_the_truth(clips, tmp_path):
    counts, line = ObjectCounts(), LineCounter((112, 0, 112, 224))
    for t, d in enumerate(clips[3]):
        counts.update(d, t / 25)
        line.update(d)
    everybody = {(n, i) for d in clips[3] for n, i in zip(d.names, d.ids.tolist())}
    assert sum(counts.totals.values()) == len(everybody)
    table = list(csv.DictReader(save_counts(counts, tmp_path / 'c.csv').open()))
    assert len(table) == 75
    for row, d in zip(table, clips[3]):
        assert {n: int(row[n]) for n in counts.totals} == {
            n: d.names.count(n) for n in counts.totals
        }
    assert save_counts(counts, tmp_path / 'c.svg').read_text().lstrip().startswith('<?xml')
    assert len(draw_counts(counts).axes[0].lines) == len(counts.totals)
    text = counts_text(counts, [line]).splitlines()
    assert text[0].startswith('Objects followed: ')
    assert len(text) == 2


class Knows:
    "In place of a detector: it knows the truth, and how it is asked"

    score = 0.4

    def __init__(self, truth):
        self.truth = truth

    def predict_video(self, reader, track=None, **how):
        self.how = how
        for f in reader:
            d = replace(self.truth[f.index], ids=None)
            yield f, track.update(d, f.time) if track else d


def test_the_command_follows_and_counts(tmp_path, capsys):
    pytest.importorskip('av')
    frames, truth = zip(*crossing_shapes(3))
    film = write_video(frames, tmp_path / 'film.mp4', 25)
    det, boxes = Knows(truth), tmp_path / 'boxes.jsonl'
    how = dict(json_path=boxes, track=True, line=('.5,0,.5,1',), progress=False)
    run_video(film, tmp_path / 'out.mp4', det, counts=tmp_path / 'c.csv', **how)
    assert det.how['score'] == 0.1
    line, seen = LineCounter((112, 0, 112, 224)), {}
    for d in truth:
        line.update(d)
        for n, i in zip(d.names, d.ids.tolist()):
            seen.setdefault(n, set()).add(i)
    said = capsys.readouterr().out
    followed = ', '.join(f'{len(ids)} {n}' for n, ids in sorted(seen.items()))
    assert f'Objects followed: {followed}.' in said
    assert 'Line 1, seen from its first point: ' in said
    rows = [json.loads(text) for text in boxes.read_text().splitlines()]
    given = {o['track_id'] for r in rows for o in r['objects']}
    assert given == set(range(1, 1 + sum(map(len, seen.values()))))
    assert len((tmp_path / 'c.csv').read_text().splitlines()) == 76


@pytest.mark.parametrize(
    'wrong', [dict(line=('1,2',)), dict(counts='counts.xls'), dict(line=('a', 'b'))]
)
def test_what_cannot_be_counted_is_said_before_anything_is_loaded(tmp_path, wrong):
    film = write_video([np.zeros((32, 32, 3), np.uint8)] * 3, tmp_path / 'film.mp4', 25)
    with pytest.raises(DataError):
        run_video(film, tmp_path / 'out.mp4', 'no such detector', **wrong)
    assert [p.name for p in tmp_path.iterdir()] == ['film.mp4']


def test_nothing_to_count(tmp_path):
    counts = ObjectCounts()
    counts.update(dets([], ids=[]), 0.0)
    assert save_counts(counts, tmp_path / 'c.csv').read_text().split() == ['seconds', '0.000']
    assert save_counts(counts, tmp_path / 'c.png').stat().st_size > 1000
    assert counts_text(counts) == 'Objects followed: none.'


@pytest.mark.parametrize('text', ['', '1,2,3', '1,2,3,x', '1,1,1,1', '0,0,-1,1', 'inf,0,1,1'])
def test_lines_that_are_none(text):
    with pytest.raises(DataError, match='is no line'):
        parse_line(text, (100, 200))


def test_lines():
    assert parse_line('0.5,0,0.5,1', (100, 200)) == (100, 0, 100, 100)
    assert parse_line('0.5,0,0.5,90', (100, 200)) == (0.5, 0, 0.5, 90)


def test_clips_repeat_themselves():
    a, b = ([*crossing_shapes(4, frames=3)] for _ in range(2))
    assert all(
        (x[0] == y[0]).all() and (x[1].boxes_px == y[1].boxes_px).all() for x, y in zip(a, b)
    )
    assert (a[0][0] != next(iter(crossing_shapes(5)))[0]).any()
