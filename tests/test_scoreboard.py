"The scoreboard: what it counts, what it keeps, what it draws"

import json, statistics, sys
from dataclasses import replace
from pathlib import Path
import pytest, torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'benchmarks'))
import scoreboard as board  # noqa: E402
from ssd_tutorial.multiscale import multi_spec  # noqa: E402
from ssd_tutorial.notebook import scoreboard, scoreboard_rows  # noqa: E402
from ssd_tutorial.synthetic import generate  # noqa: E402

FIGURES = dict(map50=0.5, map=0.2, small=float('nan'), crowd=0.4, seconds=7.0)


def test_objects_that_share_a_cell():
    "Middles in quarters of the image: the first two in one, the third alone"
    boxes = torch.tensor([[0.02, 0.02, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.8, 0.8]])
    assert board.shares_cell(boxes).tolist() == [True, True, False]
    assert board.shares_cell(torch.zeros(0, 4)).tolist() == []


def test_recall_counts_only_shared_cells_right_names_and_the_best():
    boxes = torch.tensor([[0.02, 0.02, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.8, 0.8]])
    truth = [dict(boxes_xyxy=boxes, labels=torch.tensor([1, 2, 3]))]
    found = [dict(boxes_xyxy=boxes, labels=torch.tensor([1, 1, 3]), scores=torch.ones(3))]
    assert board.crowd_recall(found, truth) == 0.5  # the second has the wrong name
    turned = [{k: v.flip(0) for k, v in found[0].items()}]
    assert board.crowd_recall(turned, truth, most=2) == 0  # the right one comes third


def test_one_answer_an_image_and_none_for_background():
    logits = torch.tensor([[5.0, 0, 0], [0.0, 0, 5]])
    found = board.named((logits, torch.rand(2, 4)))
    assert [f['labels'].tolist() for f in found] == [[], [2]]
    assert [len(f['boxes_xyxy']) for f in found] == [0, 1]


def test_seeds_add_up_and_other_epochs_stay_apart(tmp_path):
    path, budget = tmp_path / 'board.json', board.Budget()
    for seed, v in enumerate((0.5, 0.7)):
        board.note(path, 'generated', '11', FIGURES | dict(map50=v), seed, budget)
    board.note(path, 'generated', '11', FIGURES | dict(map50=0.9), 0, replace(budget, epochs=99))
    kept = json.loads(path.read_text())['generated']
    assert kept['rows']['11']['mean']['map50'] == 0.6
    assert kept['rows']['11']['deviation']['map50'] == round(statistics.stdev((0.5, 0.7)), 4)
    assert 'small' not in kept['rows']['11']['mean']  # NaN: nothing small was there
    assert kept['convergence'] == {'11': {'99': 0.9}}
    assert kept['settings']['epochs'] == budget.epochs
    again = board.read(path)
    assert board.done(again, 'generated', '11', 1, budget)
    assert not board.done(again, 'generated', '11', 2, budget)
    assert '| 11 |' in board.markdown(again)
    assert '0.600 ± 0.141' in board.markdown(again)


def test_rows_are_drawn_up_to_a_lesson(tmp_path):
    path = tmp_path / 'board.json'
    for key in ('16', '10', '11'):
        board.note(path, 'generated', key, FIGURES, 0, board.Budget())
    rows = scoreboard_rows('11', path=path)
    assert [r['lesson'] for r in rows] == ['10', '11']
    with pytest.raises(ValueError, match='choose another'):
        scoreboard('99', data='nowhere')


def test_the_kept_board_is_what_its_seeds_say():
    kept = json.loads((ROOT / 'ssd_tutorial' / 'scoreboard.json').read_text())
    assert kept['generated']['settings'] == vars(board.Budget())
    for part in kept.values():
        for key, row in part['rows'].items():
            assert row['title'] == board.ROWS[key].title
            values = [s['map50'] for s in row['seeds'].values()]
            assert row['mean']['map50'] == pytest.approx(statistics.mean(values), abs=1e-4)


def test_each_idea_pays_on_the_generated_set():
    "What the lessons say: the order of the steps, by the kept figures"
    kept = json.loads((ROOT / 'ssd_tutorial' / 'scoreboard.json').read_text())['generated']['rows']
    value = lambda key: kept[key]['mean']['map50']
    for before, after in (('10', '11'), ('11', '15'), ('15', '16')):
        assert value(after) >= value(before) + 0.05


def test_anchors_two_cells_wide_are_answered_for_by_finer_maps():
    "Where an object's anchors stand: with shapes of one cell mostly on the 2×2 and 1×1 maps"
    from ssd_tutorial.anchors import make_anchors
    from ssd_tutorial.matching import match

    share = {}
    for zoom in (1.0, 2.0):
        anchors, on_fine, on_all = make_anchors(multi_spec(zoom=zoom)), 0, 0
        for _, boxes, labels in generate('multiscale', 30):
            gt = torch.tensor(boxes)[None] / 224
            own = match(anchors, gt, torch.tensor(labels)[None])[0] >= 0
            on_fine, on_all = on_fine + int(own[:2925].sum()), on_all + int(own.sum())
        share[zoom] = on_fine / on_all
    assert share[1.0] < 0.5 < 0.65 < share[2.0]


def test_a_street_has_what_detectors_were_invented_for():
    data = generate('street', 150, size=96)
    sides = (
        torch.cat([torch.tensor(b[:, 2:] - b[:, :2]).prod(1).sqrt() for _, b, _ in data]) / 96 * 224
    )
    assert 0.25 < (sides < 32).float().mean() < 0.5
    assert sides.max() > 100
    assert any(len(labels) == 0 for *_, labels in data)
    assert max(len(l) for *_, l in data) == 10


@pytest.mark.slow
def test_it_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    args = ['scoreboard.py', '--quick', '--rows', '07', '10', '--cache', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', args)
    monkeypatch.setattr(board, 'OUT', tmp_path / 'no.json')
    board.main()
    said = capsys.readouterr().out.splitlines()
    assert [s.split()[1] for s in said] == ['07', '10']
    assert not (tmp_path / 'no.json').exists()
