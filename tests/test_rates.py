"""Suggestions for the learning rate: any sweep gives a sound list, and a training keeps it."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from ssd_tutorial.batches import make_dls  # noqa: F401  first: it imports fastai
from ssd_tutorial import trainer
from ssd_tutorial.cli import main
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.rates import (
    choose_lr,
    draw_suggestions,
    suggest_lrs,
    suggestions_text,
    write_suggestions,
)
from ssd_tutorial.records import generated_data
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.voc import save_voc

SWEEP = np.geomspace(1e-7, 10, 100)
SMALL = dict(arch='grid', size=64, width=8, body='test_efficientnet')
BOTH = '--frozen-epochs 1 --epochs 2 --lr find --unfrozen-lr find'.split()


def fall(centre, height=1.0, width=0.35):
    "A loss that falls like a logistic curve around a rate and never rises"
    x = (np.log10(SWEEP) - np.log10(centre)) / width
    return 2 - height / (1 + np.exp(-x))


def names(suggestions):
    return [s.name for s in suggestions]


@given(
    st.lists(
        st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0]),
        min_size=3,
        max_size=100,
    ),
    st.sampled_from([0, 0.98]),
)
@settings(max_examples=200, deadline=None)
def test_any_sweep(losses, beta):
    "Whatever was recorded: a sorted list with one rate taken, or a line that says why not"
    lrs = SWEEP[: len(losses)]
    try:
        found = suggest_lrs(lrs, losses, beta=beta)
    except ValueError as e:
        assert 'finite losses in the sweep' in str(e)
        return
    rates = [s.lr for s in found]
    assert rates == sorted(rates)
    assert np.isfinite(rates).all()
    assert min(rates) > 0
    assert [s.lr for s in found if s.taken] == [choose_lr(lrs, losses, beta=beta)]
    assert not any(s.near for s in found if s.taken)
    marked = [s.near for s in found]
    assert marked == sorted(marked)  # all beyond some rate, none below it
    assert all(lrs[0] <= s.lr * (1 + 1e-9) for s in found if np.isfinite(s.loss))
    assert len(suggestions_text(found).splitlines()) == 1 + len(found)


@given(st.floats(-5, -1), st.floats(0.1, 3), st.floats(0.25, 0.6))
@settings(max_examples=60, deadline=None)
def test_known_inflections(centre, height, width):
    "Wherever a logistic fall lies: its steepest place, and where its slope turns"
    found = suggest_lrs(SWEEP, fall(10**centre, height, width), beta=0)
    at = lambda name: [np.log10(s.lr) for s in found if s.name == name]
    assert at('inflection') == pytest.approx([centre], abs=0.02)
    assert at('steepest') == pytest.approx([centre], abs=0.09)
    off = width * np.log(2 + 3**0.5)
    assert at('inflection of the slope') == pytest.approx([centre - off, centre + off], abs=0.25)


def test_near_the_blow_up():
    "A fall right before the explosion is marked; the same fall far below it is not"
    for centre, near in ((1e-2, False), (0.3, True)):
        losses = fall(centre, width=0.2)
        losses[SWEEP > 2] += 50
        found = suggest_lrs(SWEEP, losses, beta=0)
        assert {s.near for s in found if s.name == 'inflection'} == {near}


@pytest.mark.parametrize('n', [3, 4, 6, 16, 17, 40])
def test_short_sweeps(n):
    "Sweeps that end early have suggestions, too, and can be drawn"
    losses = np.linspace(2, 1, n)
    found = suggest_lrs(SWEEP[:n], losses, beta=0)
    assert 'middle' in names(found)
    assert ('slide' in names(found)) == (n > 16)
    draw_suggestions(SWEEP[:n], losses, found, beta=0).canvas.draw()


def test_marks_do_not_overlap():
    "Twelve marks close together: no number covers another"
    rng = np.random.default_rng(0)
    for seed in range(5):
        losses = fall(10 ** rng.uniform(-4, -1)) + rng.normal(0, 0.05, 100)
        found = suggest_lrs(SWEEP, losses, beta=0)
        fig = draw_suggestions(SWEEP, losses, found, beta=0)
        fig.canvas.draw()
        boxes = [t.get_window_extent() for t in fig.axes[0].texts]
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
        assert sum(a.overlaps(b) for a, b in pairs) <= len(boxes) // 6, seed
        assert len(boxes) == sum(np.isfinite(s.loss) for s in found)


def test_a_file_that_is_something_else(tmp_path):
    "What stands under the name of the CSV is replaced where it holds no suggestions"
    found = suggest_lrs(SWEEP, fall(1e-2), beta=0)
    for content in (b'', b'\x00\xff\x00', b'a,b\n1,2\n'):
        (tmp_path / 'd.lr.csv').write_bytes(content)
        write_suggestions(found, tmp_path / 'd.lr.csv', 'all')
        assert list(pd.read_csv(tmp_path / 'd.lr.csv')['name'].dropna()) == names(found)


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root, data = tmp_path_factory.mktemp('rates'), generated_data('multiscale', 8, 4, size=64)
    save_voc(data, root / 'voc')
    new_detector(data, TrainConfig(**SMALL, weights='none')).save(root / 'start.pt')
    return root / 'voc'


def train(*args):
    r = CliRunner().invoke(main, ['train', *map(str, args)])
    return r.exit_code, r.output


def arguments(voc):
    "A network that takes milliseconds, started from a detector, so that there are two phases"
    small = [f'--{k}={v}' for k, v in SMALL.items()]
    return [*small, '--batch-size', 4, '--weights', voc.parent / 'start.pt', '--data', voc]


@pytest.mark.slow
def test_find_says_and_keeps(voc, tmp_path, monkeypatch):
    """Both phases find their rates: each says them all and the one that is taken. Stopped in
    between and resumed, the file holds both; the next run without a sweep leaves no such file."""
    out, csv = tmp_path / 'd.pt', tmp_path / 'd.lr.csv'
    real = trainer.find_lr

    def interrupted(learn):
        if learn.epoch_table.phase == 'all':
            raise KeyboardInterrupt
        return real(learn)

    monkeypatch.setattr(trainer, 'find_lr', interrupted)
    code, said = train(*arguments(voc), *BOTH, '--out', out)
    assert code == 130, said
    assert "phase 'frozen': the sweep suggests" in said
    assert set(pd.read_csv(csv)['phase']) == {'frozen'}
    monkeypatch.setattr(trainer, 'find_lr', real)
    code, said = train('--resume', '--out', out)
    assert code == 0, said
    assert "phase 'all': the sweep suggests" in said
    assert said.count('<- taken') == 1
    assert 'd.lr.csv' in said.splitlines()[-2]
    table = pd.read_csv(csv)
    assert list(table.query('taken')['phase']) == ['frozen', 'all']
    pictures = {p.name for p in (tmp_path / 'd_plots').glob('learning_rate*')}
    assert pictures == {'learning_rate_frozen.png', 'learning_rate_all.png'}
    code, said = train(*arguments(voc), '--max-steps', 1, '--no-plots', '--out', out)
    assert code == 0, said
    assert not csv.exists()
    assert 'lr.csv' not in said


@pytest.mark.slow
def test_find_without_plots(voc, tmp_path):
    code, said = train(
        *arguments(voc), *BOTH, '--max-steps', 3, '--no-plots', '--out', tmp_path / 'd.pt'
    )
    assert code == 0, said
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'd.csv',
        'd.json',
        'd.lr.csv',
        'd.pt',
        'last.ckpt',
    ]
