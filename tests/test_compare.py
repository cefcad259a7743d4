"""Runs side by side, read from whatever a training left; trainings that end before their last
epoch, and go on, as if nothing had happened. See lesson 26."""

import json
from dataclasses import asdict
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from hypothesis import given, strategies as st
from ssd_tutorial.cli import main
from ssd_tutorial.compare import compare_runs, read_run
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import RunFiles, read_last, train_detector
from ssd_tutorial.stopping import StopInTime, epochs_since_best
from ssd_tutorial.voc import save_voc

SMALL = dict(arch='multiscale', size=64, width=32, variants=1, strength=0.3, bs=8)


def rows(*map50):
    return [
        dict(phase='all', epoch=i, train_loss=2.0, valid_loss=3.0, map50=v, seconds=6.0)
        for i, v in enumerate(map50, 1)
    ]


def leave(folder, map50=(0.1, 0.3, 0.2), name='detector', data='x', **settings):
    "The log of a run, as the command writes it"
    folder.mkdir(exist_ok=True)
    log = dict(
        settings=asdict(TrainConfig(**settings)),
        epochs=rows(*map50),
        report=dict(map50=0.4, map=0.2),
        data=dict(hash=data, val=data),
        parameters=1_500_000,
    )
    (folder / f'{name}.json').write_text(json.dumps(log))
    return folder


def command(*args):
    r = CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)
    return r.exit_code, r.output


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 16, 8, size=64)


def test_the_table(tmp_path):
    a, b = leave(tmp_path / 'a'), leave(tmp_path / 'b', (0.1, 0.2, 0.5), lr=0.01, levels=(3, 4))
    found = compare_runs([a, b])
    assert found.differing() == ['levels', 'lr']
    table = dict(found.rows())
    assert table['best mAP50'] == ['0.300', '0.500']
    assert table['in epoch'] == ['2 of 3', '3 of 3']
    assert table["the detector's mAP"] == ['0.200', '0.200']
    assert table['minutes'] == ['0.3', '0.3']
    assert table['parameters'] == ['1.50 M', '1.50 M']
    assert table['levels'] == ['—', '3,4']
    assert found.notes == [
        'One seed each: how much of a difference is chance, these runs cannot say (lesson 26).'
    ]


def test_the_machine_is_no_difference(tmp_path):
    a = leave(tmp_path / 'a', num_workers=2, max_minutes=3.0)
    b = leave(tmp_path / 'b', track='wandb', device='cpu')
    assert compare_runs([a, b]).differing() == []


def test_each_case_is_a_line(tmp_path):
    a, b = leave(tmp_path / 'a'), leave(tmp_path / 'b', data='y')
    assert 'not comparable' in ' '.join(compare_runs([a, b]).notes)
    assert compare_runs([a]).notes == ['Only one run: name a second one to compare it with.']
    twice = compare_runs([a, a / 'detector.json', tmp_path / 'b' / '..' / 'a'])
    assert len(twice.runs) == 1
    assert [n for n in twice.notes if 'twice' in n] == ['a was named twice, and is shown once.'] * 2
    learnt = compare_runs([leave(tmp_path / 'c', with_val=True)])
    assert 'c has learnt from val' in learnt.notes[0]


def test_three_seeds_are_one_experiment(tmp_path):
    runs = [leave(tmp_path / f's{s}', (0.3 + s / 10,), seed=s) for s in range(3)]
    assert compare_runs(runs).notes == [
        's0, s1, s2 differ in the seed alone: best mAP50 0.400 ± 0.100.'
    ]


def test_an_older_log(tmp_path):
    "A log without data, parameters and the settings of today"
    a, b = leave(tmp_path / 'a'), leave(tmp_path / 'b')
    log = json.loads((a / 'detector.json').read_text())
    for gone in ('data', 'parameters'):
        del log[gone]
    for gone in ('patience', 'track', 'matcher'):
        del log['settings'][gone]
    (a / 'detector.json').write_text(json.dumps(log))
    found = compare_runs([a, b])
    assert found.differing() == []
    assert dict(found.rows())['parameters'] == ['—', '1.50 M']
    assert found.notes[0] == 'Nothing says which data set a learnt from.'


def test_names_that_are_alike(tmp_path):
    for k in 'xy':
        (tmp_path / k).mkdir()
        leave(tmp_path / k / 'run')
    found = compare_runs([tmp_path / k / 'run' for k in 'xy'])
    assert [r.name for r in found.runs] == ['x/run', 'y/run']


WRONG = {
    'gone': 'no such folder',
    'empty': 'no run of train lies here',
    'two': 'several runs lie here (a.pt, b.pt)',
    'torn': 'no run of train lies here',
    'odd': 'its epochs cannot be read',
}


@pytest.fixture
def wrong(tmp_path):
    for name in ('empty', 'torn'):
        (tmp_path / name).mkdir()
    (tmp_path / 'torn' / 'detector.json').write_text('{"epochs": [')
    (tmp_path / 'torn' / 'predictions.json').write_text('[1]')
    (tmp_path / 'torn' / 'last.ckpt').write_bytes(b'half a file')
    leave(tmp_path / 'two', name='a')
    leave(tmp_path / 'two', name='b')
    leave(tmp_path / 'odd', (None, 0.2))
    return tmp_path


@pytest.mark.parametrize('name', WRONG)
def test_no_run(wrong, name):
    code, out = command('compare', wrong / name, '--out', wrong / 'side')
    assert code == 2
    assert len(out.splitlines()) == 1
    assert WRONG[name] in out
    assert not (wrong / 'side').exists()


def test_one_of_several_runs_in_a_folder(wrong):
    found = compare_runs([wrong / 'two' / 'a.pt', wrong / 'two' / 'b.json'])
    assert [r.name for r in found.runs] == ['two/a', 'two/b']


def test_the_command(tmp_path):
    a, b = leave(tmp_path / 'a'), leave(tmp_path / 'b', gamma=1.0)
    code, out = command('compare', a, b, '--out', tmp_path / 'side')
    assert code == 0
    assert re_line(out, 'gamma') == ['2', '1']
    assert re_line(out, 'best mAP50')[-2:] == ['0.300', '0.300']
    table = (tmp_path / 'side' / 'compare.csv').read_text().splitlines()
    assert len(table) == 3
    assert table[0].startswith('run,loss,gamma,seed,best mAP50')
    assert (tmp_path / 'side' / 'compare.png').read_bytes()[:4] == b'\x89PNG'
    assert '| gamma | 2 | 1 |' in (tmp_path / 'side' / 'compare.md').read_text()


def re_line(out, label):
    return next(line for line in out.splitlines() if line.startswith(label)).split()[1:]


def test_help_names_the_options():
    out = command('train', '--help')[1]
    assert '--patience' in out
    assert '--max-minutes' in out
    assert '--out' in command('compare', '--help')[1]


def counted(values, patience):
    "How many epochs early stopping allows, with a counter: the referee"
    best, wait = -1.0, 0
    for n, v in enumerate(values, 1):
        best, wait = (v, 0) if v > best else (best, wait + 1)
        if wait >= patience:
            return n
    return len(values)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), max_size=12), st.integers(1, 5))
def test_patience_is_a_counter(values, patience):
    r = rows(*values)
    flat = (n for n in range(1, len(r)) if epochs_since_best(r[:n]) >= patience)
    assert next(flat, len(r)) == counted(values, patience)


class Figures(Callback):
    "mAP50 as a list says, so that it is known when a patience ends the run"

    order = 54  # before the table

    def __init__(self, *values):
        self.values = values

    def after_epoch(self):
        n = len(self.learn.epoch_table.rows)
        at = list(self.learn.recorder.metric_names[1:]).index('map50')
        if len(self.learn.final_record) > at:
            self.learn.final_record[at] = self.values[n]


class Plug(Callback):
    def __init__(self, at):
        self.at = at

    def before_batch(self):
        if self.training and len(self.learn.epoch_table.rows) == self.at:
            raise KeyboardInterrupt


def plain(rows):
    return [{k: v for k, v in r.items() if k != 'seconds'} for r in rows]


def same(a, b):
    a, b = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


def test_patience_over_both_phases(data, tmp_path, capsys):
    "It counts on in the second phase, says why, and the run is finished"
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=5, patience=3)
    out = tmp_path / 'd.pt'
    fed = Figures(0.1, 0.4, 0.3, 0.4, 0.2, 0.9, 0.9)
    det, got = train_detector(data, cfg, True, out, cbs=[fed])
    said = capsys.readouterr().out
    assert [r['phase'] for r in got] == ['frozen', 'frozen', 'all', 'all', 'all']
    assert 'Stopped early: mAP50 has not improved on 0.400 (epoch 2) in 3 epochs.' in said
    assert 'batches' not in said  # the epoch was whole
    assert 'To go on' not in said
    assert det.ended.final
    last = read_last(out)
    assert last['finished']
    assert last['ended'] == det.ended.said
    assert compare_runs([tmp_path]).notes[0] == f'{tmp_path.name}/d: {last["ended"]}'


def test_patience_survives_an_interruption(data, tmp_path):
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=3, patience=2)
    fed = Figures(0.4, 0.3, 0.3, 0.9, 0.9)
    whole, expected = train_detector(data, cfg, False, cbs=[fed])
    assert len(expected) == 3
    out = tmp_path / 'd.pt'
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cfg, False, out, cbs=[fed, Plug(2)])
    unfinished = read_run(out)
    assert not unfinished.finished
    assert len(unfinished.rows) == 2
    assert 'is not finished: 2 of 5 epochs.' in compare_runs([out]).notes[0]
    det, got = train_detector(data, None, False, out, resume=True, cbs=[fed])
    assert plain(got) == plain(expected)
    assert same(det, whole)


def test_killed_just_before_it_could_end(data, tmp_path, monkeypatch):
    "The last epoch is on disk, the end is not: nothing more is learnt after resuming"
    cfg = TrainConfig(**SMALL, frozen_epochs=4, epochs=2, patience=1)
    fed, out = Figures(0.4, 0.3, 0.9, 0.9, 0.9, 0.9), tmp_path / 'd.pt'

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(RunFiles, 'end', killed)
        with pytest.raises(KeyboardInterrupt):
            train_detector(data, cfg, False, out, cbs=[fed])
    assert not read_last(out)['finished']
    det, got = train_detector(data, None, False, out, resume=True, cbs=[fed])
    assert len(got) == 2
    assert det.ended.final
    assert read_last(out)['finished']


class Minutes(Callback):
    "A clock on which a batch takes a minute, and nothing else takes time"

    now = 0

    def time(self):
        return self.now

    def after_batch(self):
        self.now += 60 * self.training


@pytest.mark.parametrize('keep', ['best', 'last'])
def test_out_of_time_and_on(data, tmp_path, keep):
    "Stopped between epochs, in the middle of one, and at the border of the phases"
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=2, keep=keep)
    whole, expected = train_detector(data, cfg, False)
    out, done = tmp_path / 'd.pt', []
    for first, minutes in ((True, 3), (False, 1.5), (False, 0.5), (False, 99)):
        clock = Minutes()
        cbs = [clock, StopInTime(minutes, clock.time)]
        det, got = train_detector(data, cfg if first else None, False, out, not first, cbs=cbs)
        done.append(len(got))
        last = read_last(out)
        assert last['finished'] == (det.ended is None)
        if det.ended:
            assert last['writer'] is None  # any process may go on
            assert not det.ended.final
            assert same(Detector.load(out), det)
    # a batch a minute, two an epoch: one epoch; then nobody knows, and it has its two minutes;
    # then less than an epoch; then the rest
    assert done == [1, 2, 2, 4]
    assert plain(got) == plain(expected)
    assert same(det, whole)


def test_a_resumed_run_may_have_another_limit(data, tmp_path):
    cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0, max_minutes=1e-9)
    out = tmp_path / 'd.pt'
    for again in (False, True):  # the limit of before counts anew
        det, got = train_detector(data, None if again else cfg, False, out, again)
        assert (len(got), det.ended.final) == (0, False)
        assert out.is_file()
    with pytest.raises(DetectorError, match='patience is 3 here and was 0'):
        train_detector(data, TrainConfig(patience=3), False, out, resume=True)
    det, got = train_detector(data, TrainConfig(max_minutes=0.0), False, out, resume=True)
    assert (len(got), det.ended) == (1, None)


@pytest.mark.slow
def test_the_command_ends_and_goes_on(data, tmp_path):
    save_voc(data, tmp_path / 'voc')
    out = tmp_path / 'run' / 'detector.pt'
    settings = '--arch multiscale --size 64 --width 32 --batch-size 8 --epochs 3 --frozen-epochs 3'
    begin = ['train', '--data', tmp_path / 'voc', *settings.split(), '--no-plots', '--out', out]
    code, said = command(*begin, '--lr', 1e-7, '--patience', 1, '--max-minutes', 1e-9)
    assert code == 0, said
    assert 'Stopped in time (1e-09 minutes): ' in said
    assert 'To go on: --resume' in said
    assert 'is not finished: 0 of 3 epochs.' in command('compare', out, '--out', tmp_path / 's')[1]
    code, said = command('train', '--resume', '--max-minutes', 0, '--workers', 0, '--out', out)
    assert code == 0, said
    assert 'Stopped early: mAP50 has not improved on' in said
    log = json.loads(out.with_suffix('.json').read_text())
    assert len(log['epochs']) == 2
    assert log['ended'].startswith('Stopped early')
    assert log['settings']['patience'] == 1
    assert {'hash', 'val', 'name'} <= set(log['data'])
    code, said = command('train', '--resume', '--out', out)
    assert code == 0, said
    assert 'Nothing to go on with' in said
    assert 'Stopped early' in said
    code, said = command('compare', out.parent, out.parent, '--out', tmp_path / 's')
    assert code == 0, said
    assert 'run: Stopped early' in said
    assert 'run was named twice' in said


def test_not_allowed():
    for args, says in (
        (('--patience', '-1'), 'a whole number from 0'),
        (('--max-minutes', 'soon'), 'a number from 0'),
        (('--max-minutes', 'nan'), 'a number from 0'),
    ):
        code, out = command('train', '--data', 'generated', *args)
        assert code == 2
        assert says in out


ODD = [None, -1, 10**400, float('inf'), 'x', [], {}, [1, {}], True]
PLACES = [
    ('settings', 'seed'),
    ('settings', 'epochs'),
    ('settings', 'arch'),
    ('epochs', 0, 'map50'),
    ('epochs', 0, 'seconds'),
    ('epochs', 0),
    ('report', 'map50'),
    ('report',),
    ('data', 'hash'),
    ('data',),
    ('parameters',),
    ('ended',),
]


@pytest.mark.parametrize('place', PLACES, ids=str)
def test_a_log_with_odd_values(tmp_path, place):
    "Compared, or refused in one line that names it; nothing else"
    leave(tmp_path / 'a')
    refused = 0
    for i, value in enumerate(ODD):
        path = leave(tmp_path / f'b{i}') / 'detector.json'
        log = at = json.loads(path.read_text())
        for k in place[:-1]:
            at = at.setdefault(k, {}) if isinstance(at, dict) else at[k]
        at[place[-1]] = value
        path.write_text(json.dumps(log))
        try:
            assert str(compare_runs([tmp_path / 'a', path.with_suffix('.pt')]))
        except DetectorError as e:
            refused += 1
            assert f'b{i}' in str(e)
            assert len(str(e).splitlines()) == 1
    assert refused >= 3


def test_a_log_that_nests(tmp_path):
    (tmp_path / 'a.json').write_text('[' * 100_000)
    with pytest.raises(DetectorError):
        compare_runs([tmp_path / 'a.pt'])
