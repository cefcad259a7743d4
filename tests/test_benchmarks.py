"""The benchmarks run, write what they promise, and their referees agree with the package"""

import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'benchmarks'))
pytest.importorskip('pycocotools')
import cases, growth, large, referees, run, timing  # noqa: E402, E401
from ssd_tutorial.anchors import GRID16, MULTI, make_anchors  # noqa: E402
from ssd_tutorial.fast_focal import fast_focal_loss  # noqa: E402
from ssd_tutorial.focal import focal_terms, make_focal  # noqa: E402
from ssd_tutorial.grid import one_hot_labels, ssd_loss  # noqa: E402
from ssd_tutorial.matching import match  # noqa: E402
from ssd_tutorial.nms import detect  # noqa: E402

KEYS = {'name', 'ours_s', 'referee_s', 'speedup', 'floor'}


@pytest.mark.parametrize('case', cases.CASES, ids=[c[0] for c in cases.CASES])
def test_referee_agrees(case):
    _, make, settings, *_ = case
    # asserts that both give the same
    ours, theirs = make(**{**settings, **cases.TINY[make.__name__]})
    ours(), theirs()


@pytest.mark.parametrize('seed', range(5))
def test_matching_referee(seed):
    anchors = make_anchors(MULTI)
    t = cases.make_targets(anchors, 3, 5, seed=seed)
    owner = match(anchors, t['boxes_xyxy'], t['labels'])
    for o, boxes, labels in zip(owner, t['boxes_xyxy'], t['labels']):
        label, draw = referees.match_one(anchors, boxes[labels > 0], labels[labels > 0])
        assert torch.equal(label > 0, o >= 0)
        assert torch.equal(label[o >= 0], labels[o[o >= 0]])
        assert torch.equal(draw[o >= 0], boxes[o[o >= 0]])


def test_a_loss_that_differs_is_noticed():
    anchors = make_anchors(GRID16)
    t = cases.make_targets(anchors, 2, 3, (1, 2))
    preds = torch.randn(2, 16, 3), torch.randn(2, 16, 4)
    cases.close(
        ssd_loss(preds, t, anchors, cls_loss=fast_focal_loss)[0],
        referees.loss_loop(preds, t, anchors),
    )
    with pytest.raises(AssertionError):
        cases.close(
            ssd_loss(preds, t, anchors, cls_loss=make_focal(gamma=1.0, loss=fast_focal_loss))[0],
            referees.loss_loop(preds, t, anchors),
        )
    with pytest.raises(AssertionError):
        cases.same_detections(
            detect(preds, anchors), referees.detect_loop(preds, anchors, overlap=0.1)
        )


def test_short_lists_of_no_image():
    nothing = torch.full((2, 16, 3), -9.0), torch.zeros(2, 16, 4)
    anchors = make_anchors(GRID16)
    cases.same_detections(detect(nothing, anchors), referees.detect_loop(nothing, anchors))


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('alpha', [None, 0.0, 0.25, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_focal_slopes(gamma, alpha, dtype):
    """The slope that the loss knows, against autograd's;
    over pieces, with ignored anchors, under a factor."""
    torch.manual_seed(0)
    x = torch.randn(3, 1500, 100, dtype=dtype) * 4
    labels = torch.randint(-1, 101, (3, 1500)) * (torch.rand(3, 1500) < 0.1)

    def straight(x):
        return (
            focal_terms(x, one_hot_labels(labels, 100).to(dtype), alpha, gamma)
            * (labels >= 0)[..., None]
        ).sum()

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = 3 * fast_focal_loss(a, labels, alpha, gamma), 3 * straight(b)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            3 * fast_focal_loss(x, labels, alpha, gamma), theirs, rtol=1e-4, atol=1e-4
        )


def test_focal_gradcheck():
    torch.manual_seed(0)
    x = (torch.randn(2, 5, 3, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.tensor([[0, 1, -1, 3, 0], [2, 0, 0, -1, 1]])
    assert torch.autograd.gradcheck(lambda x: fast_focal_loss(x, labels, 0.25, 2.0) * 1.5, (x,))
    loss = fast_focal_loss(x, labels)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)


def test_by_turns_goes_by_turns():
    seen = []
    a, b = timing.by_turns(
        lambda: seen.append('a'), lambda: seen.append('b'), repeats=4, shortest=0
    )
    assert ''.join(seen[-8:]) == 'abababab'
    assert a > 0
    assert b > 0


def test_floors_and_limits():
    row = dict(name='x', ours_s=1.0, referee_s=2.0, speedup=2.0, floor=3, limit_s=None)
    assert 'floor 3' in run.fault(row)
    assert not run.fault({**row, 'floor': 2})
    assert not run.fault({**row, 'floor': None})
    assert 'limit' in run.fault({**row, 'floor': 2, 'limit_s': 0.5})


def test_memory_has_limits():
    fine = dict(peak_memory_gib=2.9, ssd300_memory_gib=dict(ours=2.0, torchvision=2.0))
    assert not run.too_large(fine)
    assert 'limit 3' in run.too_large({**fine, 'peak_memory_gib': 3.0})[0]
    more = {**fine, 'ssd300_memory_gib': dict(ours=2.1, torchvision=2.0)}
    assert "torchvision's 2.000" in run.too_large(more)[0]
    assert not run.too_large(more, quick=True)


def test_slow_rows_take_fewer_turns():
    turns = []
    timing.by_turns(
        lambda: None,
        lambda: None,
        repeats=9,
        shortest=0,
        tick=lambda: turns.append(1),
        longest=0,
        fewest=3,
    )
    assert len(turns) == 3


def test_slope_of_proportional_growth():
    assert growth.slope([1, 10, 100, 1000, 10000], [5, 10, 100, 1000, 10000]) == pytest.approx(1)
    assert growth.too_steep(dict(objects=dict(slope=dict(detect=1.5, match=1.0)))) == [
        'detect against objects: slope 1.50'
    ]


def test_the_script_writes_what_it_promises(tmp_path):
    r = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            ROOT / 'benchmarks' / 'run.py',
            *'--quick --only IoU --threads 1 --out'.split(),
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert r.returncode == 0, r.stderr[-2000:]
    rows = json.loads((tmp_path / 'results.json').read_text(encoding='utf-8'))
    assert [row['name'] for row in rows] == ['pairwise IoU']
    assert KEYS <= set(rows[0])
    assert rows[0]['speedup'] == pytest.approx(rows[0]['referee_s'] / rows[0]['ours_s'])
    wrong = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'benchmarks' / 'run.py', '--only', 'no such row'],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert wrong.returncode == 1
    assert 'no such row' in wrong.stderr


def test_committed_results_are_over_their_floors():
    path = ROOT / 'benchmarks' / 'results.json'
    if not path.is_file():
        pytest.skip('not measured yet: python benchmarks/run.py')
    rows = json.loads(path.read_text(encoding='utf-8'))
    assert [r['name'] for r in rows] == [c[0] for c in cases.CASES]
    assert all(KEYS <= set(r) for r in rows)
    assert not [f for f in map(run.fault, rows) if f]


def test_recipes_train_and_measure(tmp_path):
    "Each kind of row, a few batches long; what is measured is not measured again"
    from ssd_tutorial.records import generated_data
    from ssd_tutorial.voc import save_voc

    save_voc(generated_data('multiscale', n_train=20, n_valid=4, size=96), tmp_path / 'set')
    ask = [
        sys.executable,
        str(ROOT / 'benchmarks' / 'recipes.py'),
        '--out',
        str(tmp_path / 'r.json'),
    ]
    run = lambda *more: subprocess.run(
        [*ask, *more], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}
    )
    r = run(
        '--data',
        str(tmp_path / 'set'),
        *'--rows 3150 proposed ema.99 --max-steps 2 --cache'.split(),
        str(tmp_path / 'maps'),
    )
    assert r.returncode == 0, r.stderr[-2000:]
    rows = json.loads((tmp_path / 'r.json').read_text())
    assert [x['row'] for x in rows] == ['3150', 'proposed', 'ema.99']
    assert all(0 <= x['map50'] <= 1 for x in rows)
    assert len(list((tmp_path / 'maps').iterdir())) == 1
    assert '| 3150 |' in (tmp_path / 'r.md').read_text()
    assert 'proposed     1 done' in run('--list').stdout
    shutil.rmtree(tmp_path / 'set')
    # other pictures under the same name
    save_voc(generated_data('multiscale', n_train=20, n_valid=4, size=96, seed=9), tmp_path / 'set')
    r = run(
        '--data',
        str(tmp_path / 'set'),
        *'--rows base --max-steps 2 --cache'.split(),
        str(tmp_path / 'maps'),
    )
    assert r.returncode == 1, r.stderr[-2000:]
    assert 'Remove the file' in r.stderr, r.stderr[-2000:]


def test_large_sets_are_written_and_read(tmp_path):
    large.write(tmp_path / 'set', dict(train=20, val=4), 3)
    assert large.start(str(tmp_path / 'set'))['images'] == 24
    assert large.exponent([10, 100, 1000], [2, 20, 200]) == pytest.approx(1)
    kept = large.keeping('disk', str(tmp_path), 20)
    assert kept['maps_mb'] == pytest.approx(20 * 64 * 64 * 2 / 1e6)
    assert not [*tmp_path.glob('maps-*')]


def test_films_are_measured(tmp_path):
    pytest.importorskip('av')
    r = subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks' / 'film.py'), '--quick', '--out', str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert r.returncode == 0, r.stderr
    m = json.loads((tmp_path / 'film.json').read_text())
    assert set(m['share']) == {'decode', 'model', 'draw', 'encode'}
    assert abs(sum(m['share'].values()) - 1) < 1e-6
    assert 0 < m['ratio'] < 5
    assert 'end to end' in (tmp_path / 'film.md').read_text(encoding='utf-8')
