"""Memory that runs out, Ctrl-C while libraries load, a training that is killed:
one line, and nothing is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from ssd_tutorial.cli import main
from ssd_tutorial.surroundings import fail
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.device import OutOfMemory, lacks_memory
from ssd_tutorial.grid import SSDModel
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.runs import read_last, train_detector
from ssd_tutorial.trainer import new_detector

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(arch='grid', size=64, width=16, weights='none', bs=4, strength=0.1)
CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 64000000000 bytes."
FULL = [
    torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
    RuntimeError(f'[enforce fail at alloc_cpu.cpp:117] err == 0. {CPU}'),
    MemoryError(),
]


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=64)


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    root = tmp_path_factory.mktemp('memory')
    save_voc(data, root / 'voc')
    new_detector(data, TrainConfig(**SMALL)).save(root / 'd.pt')
    data.train[0].load().save(root / 'photo.png')
    return root


def refusing(error, training=None):
    "A forward pass that fails, as where memory runs out; `training`: only in that mode"
    real = SSDModel.forward

    def forward(self, images):
        if training in (None, self.training):
            raise error
        return real(self, images)

    return forward


def run(*args):
    r = CliRunner().invoke(main, [*map(str, args)])
    return r.exit_code, r.output


@pytest.mark.parametrize('error', FULL, ids=['cuda', 'cpu', 'python'])
def test_training_says_what_to_make_smaller(data, tmp_path, monkeypatch, error):
    monkeypatch.setattr(SSDModel, 'forward', refusing(error))
    with pytest.raises(OutOfMemory, match='bs=2'):
        train_detector(data, TrainConfig(**SMALL, frozen_epochs=0, epochs=1), False)


def test_the_epochs_done_are_kept(data, tmp_path):
    class Plug(Callback):
        def before_batch(self):
            if self.training and len(self.learn.epoch_table.rows) == 1:
                raise FULL[0]

    cfg = TrainConfig(**SMALL, frozen_epochs=0, epochs=2)
    whole = train_detector(data, cfg, False)[1]
    with pytest.raises(OutOfMemory, match='resume=True'):
        train_detector(data, cfg, False, tmp_path / 'd.pt', cbs=[Plug()])
    assert len(read_last(tmp_path / 'd.pt')['state']['rows']) == 1
    rows = train_detector(data, None, False, tmp_path / 'd.pt', resume=True)[1]
    assert [r['train_loss'] for r in rows] == pytest.approx([r['train_loss'] for r in whole])


@pytest.mark.parametrize('error', FULL, ids=['cuda', 'cpu', 'python'])
def test_predicting_says_what_to_make_smaller(data, folder, monkeypatch, error):
    det, image = Detector.load(folder / 'd.pt'), data.train[0].load()
    monkeypatch.setattr(SSDModel, 'forward', refusing(error))
    with pytest.raises(OutOfMemory, match='bs=2'):
        det.predict([image] * 4)
    with pytest.raises(OutOfMemory, match='Close other programs'):
        det.predict(image)


@pytest.mark.parametrize('command', ['train', 'evaluate', 'predict'])
def test_the_command_ends_in_one_line(folder, tmp_path, monkeypatch, command):
    mode = True if command == 'train' else None  # the look at a new network passes
    monkeypatch.setattr(SSDModel, 'forward', refusing(FULL[1], mode))
    small = [f'--{k}={SMALL[k]}' for k in ('arch', 'size', 'width', 'weights', 'strength')]
    code, out = run(
        *{
            'train': [
                'train',
                '--data',
                folder / 'voc',
                *small,
                *'--batch-size 4 --out'.split(),
                tmp_path / 'd.pt',
            ],
            'evaluate': [
                'evaluate',
                '--data',
                folder / 'voc',
                '--detector',
                folder / 'd.pt',
                '--batch-size',
                4,
            ],
            'predict': [
                'predict',
                folder / 'photo.png',
                '--detector',
                folder / 'd.pt',
                '--out',
                tmp_path,
            ],
        }[command]
    )
    last = out.strip().splitlines()[-1]
    assert code == 2, out
    assert last.startswith('Error: Out of memory'), out
    assert 'Traceback' not in out, out
    assert ('--batch-size 2' in last) == (command != 'predict'), last
    assert ('--resume' in last) == (command == 'train'), last


def test_other_errors_pass(data, monkeypatch):
    det = new_detector(data, TrainConfig(**SMALL))
    monkeypatch.setattr(SSDModel, 'forward', refusing(RuntimeError('shapes cannot be multiplied')))
    with pytest.raises(RuntimeError, match='multiplied'):
        det.predict(data.train[0].load())
    assert not lacks_memory(ValueError('out of memory'))


def test_ctrl_c_while_libraries_load(folder, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr('ssd_tutorial.commands.pick_detector', interrupted)
    code, out = run('predict', folder / 'photo.png')
    assert code == 130, out
    assert out.strip() == 'Stopped.', out


def test_a_killed_training_leaves_its_rows(folder, tmp_path, monkeypatch):
    "One row per epoch, written after each; a resumed run adds to them"
    real = SSDModel.forward

    def forward(self, images):
        if self.training and len(list(tmp_path.glob('d.csv'))):
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(SSDModel, 'forward', forward)
    small = [f'--{k}={SMALL[k]}' for k in ('arch', 'size', 'width', 'weights', 'strength')]
    where = ['--out', tmp_path / 'd.pt', '--no-plots']
    code, out = run('train', '--data', folder / 'voc', *small, '--epochs', 3, *where)
    assert code == 130, out
    assert len(pd.read_csv(tmp_path / 'd.csv')) == 1, out
    monkeypatch.setattr(SSDModel, 'forward', real)
    code, out = run('train', '--resume', *where)
    assert code == 0, out
    assert list(pd.read_csv(tmp_path / 'd.csv')['number']) == [1, 2, 3], out


def test_an_error_spells_out_control_characters(capsys):
    with pytest.raises(SystemExit):
        fail(ValueError('evil\x1b[2J\udcff.jpg: no such file'))
    said = capsys.readouterr().err
    assert r'evil\x1b[2J' in said
    assert not re.search(r'[\x00-\x08\x0b-\x1f]', said)


def test_a_table_that_cannot_be_written_ends_nothing(folder, tmp_path, monkeypatch):
    "Open in a spreadsheet, for instance: the training goes on, and the end says so"
    small = [f'--{k}={SMALL[k]}' for k in ('arch', 'size', 'width', 'weights', 'strength')]
    (tmp_path / 'd.csv').mkdir()
    code, out = run(
        'train',
        '--data',
        folder / 'voc',
        *small,
        *'--epochs 2 --no-plots --lr find --out'.split(),
        tmp_path / 'd.pt',
    )
    assert code == 2, out
    assert 'd.csv' in out.splitlines()[-1], out
    assert read_last(tmp_path / 'd.pt')['finished']
    assert len(read_last(tmp_path / 'd.pt')['rows']) == 2


@pytest.mark.skipif(not hasattr(signal, 'SIGINT') or os.name == 'nt', reason='signals of POSIX')
@pytest.mark.parametrize('after', [0.1, 0.3, 0.8, 1.4, 2, 3])
def test_ctrl_c_at_any_moment(folder, after):
    "A real interrupt, while libraries are imported: no traceback, status 130"
    code = (
        'import sys, time; print("up", flush=True); sys.argv = ["ssd-tutorial"]+sys.argv[1:]; '
        'from ssd_tutorial.entry import start; start()'
    )
    p = subprocess.Popen(
        [sys.executable, '-c', code, 'predict', str(folder / 'photo.png')],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    p.stdout.readline()
    time.sleep(after)
    p.send_signal(signal.SIGINT)
    said, _ = p.communicate(timeout=120)
    assert p.returncode in (0, 130), said
    assert 'Traceback' not in said, said
