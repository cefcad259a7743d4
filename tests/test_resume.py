"""An interrupted training goes on as if nothing had happened:
every phase in process, then a real process killed again and again."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
import psutil
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.runs import last_path, read_last, train_detector
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.system import WriteError, clear_parts, save_whole

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(size=64, width=32, variants=2, strength=0.3, bs=8, frozen_epochs=2, epochs=2)


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 20, 8, size=64)


class PullPlug(Callback):
    "Raises before a training batch of the epoch with this number, counted over all phases"

    order = 5

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def before_batch(self):
        if (
            self.training
            and not hasattr(self, 'lr_finder')
            and (len(self.learn.epoch_table.rows), self.learn.iter) == self.at
        ):
            raise KeyboardInterrupt


def train(data, cfg, out=None, plug=None, resume=False, cbs=()):
    "Train in this process; with a plug, until it is pulled"
    try:
        return train_detector(
            data, cfg, False, out, resume, cbs=[*cbs, *([PullPlug(*plug)] if plug else [])]
        )
    except KeyboardInterrupt:
        assert plug


def plain(rows):
    return [{k: v for k, v in r.items() if k != 'seconds'} for r in rows]


def apart(a, b):
    a, b = a.model.state_dict(), b.model.state_dict()
    assert list(a) == list(b)
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


CASES = {
    'each phase and the border': ({}, [(0, 1), (1, 0), (2, 0), (3, 1)]),
    'found rate': (dict(lr='find', epochs=0), [(0, 1), (1, 0)]),
    'max_steps': (dict(max_steps=5), [(1, 1)]),
    'max_steps, no epoch ends': (dict(max_steps=1), []),
    'random body': (dict(weights='none', frozen_epochs=1, epochs=2), [(1, 0), (2, 1)]),
    'plain gradient descent': (dict(recipe='ssd', loss='multibox', epochs=1), [(1, 1), (2, 1)]),
}
whole_runs = {}


@pytest.mark.parametrize('case', CASES)
def test_as_if_nothing_had_happened(data, case, tmp_path):
    changes, plugs = CASES[case]
    cfg = TrainConfig(**{**SMALL, **changes})
    key = repr(cfg)
    if key not in whole_runs:
        whole_runs[key] = train(data, cfg)  # nothing kept: saving itself must not change anything
    whole, rows = whole_runs[key]
    out, resume = tmp_path / 'd.pt', False
    for plug in plugs:
        assert train(data, cfg, out, plug, resume) is None
        resume = True
        assert not read_last(out)['finished']
        assert out.is_file() == (plug[0] > 0)
        torch.rand(7)
        random.random()  # whatever happens in between
    det, again = train(data, TrainConfig() if resume else cfg, out, resume=resume)
    assert apart(det, whole) <= 1e-5
    assert plain(again) == plain(rows)
    assert apart(Detector.load(out), whole) <= 1e-5
    assert read_last(out)['finished']
    assert len(read_last(out)['rows']) == len(rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['d.pt', 'last.ckpt']


def test_where_the_maps_do_not_fit(data, tmp_path, monkeypatch, capsys):
    cfg = TrainConfig(**{**SMALL, 'epochs': 0})
    cached = train(data, cfg)[1]
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: SimpleNamespace(available=10**5))
    whole, rows = train_detector(data, cfg)
    assert '0.0001 GB are free: nothing is cached' in capsys.readouterr().out
    assert [r['epoch'] for r in rows] == [1, 2]
    assert plain(rows) != plain(cached)  # other augmentation, another order
    assert train(data, cfg, tmp_path / 'd.pt', (1, 1)) is None
    again, more = train(data, cfg, tmp_path / 'd.pt', resume=True)
    assert plain(more) == plain(rows)
    assert apart(again, whole) == 0


def test_steps_agree(data, tmp_path):
    "Rate and momentum of every step after going on are those of the whole run"

    class Steps(Callback):
        order = 61  # after the schedule

        def after_batch(self):
            if self.training:
                seen.append([dict(h) for h in self.learn.opt.hypers])

    cfg, seen = TrainConfig(**SMALL), []
    train(data, cfg, cbs=[Steps()])
    whole, seen[:] = list(seen), []
    train(data, cfg, tmp_path / 'd.pt', (3, 0))
    seen.clear()
    train(data, cfg, tmp_path / 'd.pt', resume=True, cbs=[Steps()])
    assert len(whole) == 8
    assert len(seen) == 2
    assert [{k: float(v) for k, v in h.items()} for s in seen for h in s] == [
        {k: float(v) for k, v in h.items()} for s in whole[-2:] for h in s
    ]


def test_a_checkpoint_from_before_an_option(data, tmp_path):
    "It goes on without what it did not know: val is not learnt from, and the result is the same"
    cfg, out = TrainConfig(**{**SMALL, 'frozen_epochs': 1, 'epochs': 1}), tmp_path / 'd.pt'
    whole, rows = train(data, cfg)
    train(data, cfg, out, (1, 0))
    last = torch.load(last_path(out), weights_only=True)
    for name in ('with_val', 'keep', 'ema', 'max_steps', 'device'):
        del last['cfg'][name]
    save_whole(last, last_path(out))
    sizes = []

    class Count(Callback):
        def before_train(self):
            sizes.append(self.dls.train.n)

    det, again = train(data, TrainConfig(), out, resume=True, cbs=[Count()])
    assert sizes == [len(data.train)]  # the epoch that was left
    assert plain(again) == plain(rows)
    assert apart(det, whole) <= 1e-5


def test_refusals(data, tmp_path):
    "Each wrong wish is one sentence that says what to do"
    out, cfg, none = tmp_path / 'd.pt', TrainConfig(**SMALL), TrainConfig()

    def refused(says, data=data, cfg=none):
        with pytest.raises(DetectorError, match=says):
            train(data, cfg, out, resume=True)

    refused('no such file')
    train(data, cfg, out, (1, 0))
    good = last_path(out).read_bytes()
    refused('size is 128 here and was 64', cfg=TrainConfig(**{**SMALL, 'size': 128}))
    fewer = generated_data('multiscale', 19, 8, size=64)
    refused("has changed.*'train': 20.*'train': 19", fewer)
    moved = generated_data('multiscale', 20, 8, size=64)
    moved.valid[0].boxes_px[0] += 1
    refused('names or boxes differ', moved)
    for content, says in (
        (good[: len(good) // 2], 'not a readable checkpoint'),
        (b'', 'not a readable checkpoint'),
        (torch.zeros(3), 'not a readable checkpoint'),
    ):
        save_whole(content, last_path(out))
        refused(says)
    save_whole(dict(format=99), last_path(out))
    refused('format 99')


def test_a_new_run_keeps_the_old_ones_way_back(data, tmp_path, capsys):
    out, cfg = tmp_path / 'd.pt', TrainConfig(**SMALL)
    train(data, cfg, out, (1, 0))
    (tmp_path / 'last.ckpt.1.part').write_bytes(b'half')
    (tmp_path / 'd.pt.1.part').write_bytes(b'half')
    one = TrainConfig(**{**SMALL, 'frozen_epochs': 1, 'epochs': 0})
    train_detector(data, one, True, out)
    assert 'last.old.ckpt' in capsys.readouterr().out
    # of the new run
    assert read_last(out)['finished']
    assert len(read_last(out)['rows']) == 1
    assert torch.load(tmp_path / 'last.old.ckpt', weights_only=True)['epoch'] == 1
    assert not list(tmp_path.glob('*.part'))


@pytest.mark.parametrize('name', ['d.pt', 'last.ckpt'])
def test_full_disk(data, name, tmp_path, monkeypatch):
    """No room for the detector or for the checkpoint:
    one sentence, both files whole, and the run goes on when there is room."""
    cfg, out, room, real = (
        TrainConfig(**SMALL),
        tmp_path / 'd.pt',
        [dict([('d.pt', 1), ('last.ckpt', 2)])[name]],
        os.fsync,
    )

    def fsync(fd):
        if f'/{name}.' in os.readlink(f'/proc/self/fd/{fd}'):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, 'No space left on device')
        return real(fd)

    if not Path('/proc/self/fd').exists():
        pytest.skip('needs /proc to know which file is written')
    whole, rows = train(data, cfg)
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', fsync)
        with pytest.raises(WriteError, match='No space left on device') as e:
            train_detector(data, cfg, False, out)
    assert name in str(e.value)
    assert 'Exception occured' not in str(e.value)
    Detector.load(out) if name == 'd.pt' else read_last(out)
    assert not list(tmp_path.glob('*.part'))
    det, again = train(data, TrainConfig(), out, resume=True)
    assert apart(det, whole) <= 1e-5
    assert plain(again) == plain(rows)


def test_save_whole(tmp_path):
    (tmp_path / 'a').write_bytes(b'old')
    with pytest.raises(WriteError):
        save_whole(b'new', tmp_path / 'a' / 'b')
    with pytest.raises(Exception):
        save_whole(dict(a=lambda: 1), tmp_path / 'a')  # nothing that torch can write
    assert (tmp_path / 'a').read_bytes() == b'old'
    assert len(list(tmp_path.iterdir())) == 1
    assert save_whole(b'new', tmp_path / 'a').read_bytes() == b'new'
    assert clear_parts(tmp_path / 'a') == 0


# ---- a real process


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    root = tmp_path_factory.mktemp('real')
    save_voc(data, root / 'voc')
    return root


ARGS = ['--data', 'voc', '--size', '64', '--epochs', '10', '--batch-size', '8', '--seed', '1']

SLOWLY = '''
import signal, time, torch; torch.set_num_threads(1)
# a shell's background jobs are started deaf to it
signal.signal(signal.SIGINT, signal.default_int_handler)
from ssd_tutorial.cli import main
from ssd_tutorial.runs import RunFiles
quick = RunFiles.epoch_done
# or a fast machine is done before the signal comes
def epoch_done(*args): quick(*args); time.sleep(.3)
RunFiles.epoch_done = epoch_done; main()'''


def start(folder, *args):
    env = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'OMP_WAIT_POLICY': 'passive',
        'PYTHONUNBUFFERED': '1',
        'PYTHONWARNINGS': 'ignore',
        'PYTHONPATH': str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, '-c', SLOWLY, 'train', *args],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, path, changes, seconds=120):
    "Until a file has been written so many times"
    end, last, n = time.time() + seconds, None, 0
    while time.time() < end and process.poll() is None and n < changes:
        now = path.stat().st_mtime_ns if path.exists() else None
        if now != last:
            last, n = now, n + 1
        time.sleep(0.002)
    return n


def test_killed_again_and_again(folder):
    """SIGKILL at random moments, SIGINT once:
    always loadable, and in the end the same detector as without interruption."""
    rng, whole, cut = random.Random(0), folder / 'whole', folder / 'cut'
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that follow
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        r = CliRunner().invoke(main, ['train', *ARGS, '--out', 'whole/d.pt'])
    torch.set_num_threads(threads)
    assert r.exit_code == 0, r.output
    kills, codes = [(signal.SIGKILL, 2), (signal.SIGINT, 2), (signal.SIGKILL, 2)], []
    for i, (sig, changes) in enumerate(kills):
        p = start(folder, *(ARGS if i == 0 else ['--resume']), '--out', 'cut/d.pt')
        wait_for(p, cut / 'last.ckpt', changes)
        time.sleep(rng.uniform(0, 0.6))
        p.send_signal(sig)
        said, _ = p.communicate(timeout=120)
        codes.append(p.returncode)
        if read_last(cut / 'd.pt')['finished']:
            break  # a slow machine may kill too late
        if (cut / 'd.pt').exists():
            Detector.load(cut / 'd.pt')
        if sig == signal.SIGINT:
            assert p.returncode == 130, said
            assert 'Stopped after epoch' in said, said
            assert 'ssd-tutorial train --out cut/d.pt --resume' in said, said
            assert 'Traceback' not in said, said
    # it was interrupted on the way, twice at least
    assert codes[:2] == [-signal.SIGKILL, 130], said
    p = start(folder, '--resume', '--out', 'cut/d.pt')
    said, _ = p.communicate(timeout=300)
    assert p.returncode == 0, said
    assert apart(Detector.load(cut / 'd.pt'), Detector.load(whole / 'd.pt')) <= 1e-5
    a, b = (json.loads((d / 'd.json').read_text()) for d in (cut, whole))
    assert plain(a['epochs']) == plain(b['epochs'])
    assert len(a['epochs']) == 10
    assert a['settings'] == b['settings']
    assert a['report'] == b['report']
    # no half files
    assert sorted(f.name for f in cut.iterdir()) == [
        'd.csv',
        'd.json',
        'd.pt',
        'd_plots',
        'last.ckpt',
    ]
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        r = CliRunner().invoke(main, ['train', '--resume', '--out', 'cut/d.pt'])
    assert r.exit_code == 0
    assert 'Nothing to go on with' in r.output


CONTRADICTIONS = [
    (['--size', '128'], '--size is 128 here and was 64'),
    (['--epochs', '7'], '--epochs is 7 here and was 10'),
    (['--data', 'generated'], '--data is generated'),
    (['--batch-size', '4'], '--batch-size is 4 here and was 8'),
    (['--lr', 'find'], '--lr is find here and was 0.002'),
]


def test_contradictions(folder):
    """The command's arguments come from the run;
    one that is given and differs is an error that names both values."""
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        run = lambda *args: CliRunner().invoke(
            main, ['train', '--resume', '--out', 'said/d.pt', *args]
        )
        assert run().exit_code == 2
        assert 'without --resume' in run().output
        assert (
            CliRunner()
            .invoke(main, ['train', *ARGS, '--max-steps', '1', '--out', 'said/d.pt'])
            .exit_code
            == 0
        )
        for args, says in CONTRADICTIONS:
            r = run(*args)
            assert r.exit_code == 2, r.output
            assert says in r.output, r.output
            assert r.output.count('\n') == 1, r.output
        # said again, and the same
        assert run('--epochs', '10', '--data', 'voc', '--lr', '0.002').exit_code == 0
        Path('said/d.pt').rename('said/e.pt')
        r = CliRunner().invoke(main, ['train', '--resume', '--out', 'said/e.pt'])
        assert r.exit_code == 2
        assert '--out is e.pt here and was d.pt' in r.output
