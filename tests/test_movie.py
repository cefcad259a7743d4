"A training is filmed, and does not notice. See lesson 29c."

import sys
from dataclasses import replace
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small import Plug
from PIL import Image
from ssd_tutorial.augment import InstallError
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.movie import (
    MovieRun,
    anchor_view,
    check_movie,
    movie_frame,
    movie_run,
    save_movie,
)
from ssd_tutorial.runs import read_last, train_detector
from ssd_tutorial.system import WriteError
from ssd_tutorial.trainer import new_detector

SMALL = dict(arch='multiscale', size=64, width=32, variants=1, strength=0.3, bs=8)
CFG = dict(SMALL, frozen_epochs=2, epochs=1)


def frames_of(path):
    with Image.open(path) as film:
        out = []
        for i in range(film.n_frames):
            film.seek(i)
            out.append(np.asarray(film.convert('RGB')).astype(int))
        return out


def length(path):
    with Image.open(path) as film:
        return film.n_frames


def weights(det):
    return torch.cat([p.detach().flatten() for p in det.model.parameters()])


@pytest.mark.slow
def test_a_film_over_phases_changes_nothing(data, tmp_path):
    plain, _ = train_detector(data, TrainConfig(**CFG), False)
    cfg = TrainConfig(**CFG, movie=str(tmp_path / 'm.gif'), movie_steps=1)
    filmed, rows = train_detector(data, cfg, False, tmp_path / 'd.pt')
    assert torch.equal(weights(plain), weights(filmed))
    steps = len(data.train) // 8 - 1
    assert length(tmp_path / 'm.gif') == 1 + steps + len(rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['d.pt', 'last.ckpt', 'm.gif']


@pytest.mark.slow
@pytest.mark.parametrize('at', [(1, 1), (2, 0)])
def test_it_goes_on_after_an_interruption(data, tmp_path, at):
    whole = TrainConfig(**CFG, movie=str(tmp_path / 'whole.gif'), movie_steps=1)
    train_detector(data, whole, False, tmp_path / 'whole.pt')
    cut = replace(whole, movie=str(tmp_path / 'cut.gif'))
    out = tmp_path / 'cut' / 'd.pt'
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cut, False, out, cbs=[Plug(*at)])
    so_far = length(tmp_path / 'cut.gif')
    assert so_far < length(tmp_path / 'whole.gif')
    assert (out.parent / 'd_movie').is_dir()
    train_detector(data, None, False, out, resume=True)
    assert not (out.parent / 'd_movie').exists()
    a, b = (frames_of(tmp_path / f'{n}.gif') for n in ('whole', 'cut'))
    assert len(a) == len(b)
    assert all((x == y).all() for x, y in zip(a, b))


@pytest.mark.slow
def test_a_film_may_begin_with_the_resumed_run(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, TrainConfig(**CFG), False, tmp_path / 'd.pt', cbs=[Plug(1, 0)])
    here = TrainConfig(movie=str(tmp_path / 'm.gif'))
    train_detector(data, here, False, tmp_path / 'd.pt', resume=True)
    assert length(tmp_path / 'm.gif') == 1 + 2
    assert read_last(tmp_path / 'd.pt')['finished']


@pytest.mark.slow
def test_the_last_frame_shows_the_trained_detector(data, tmp_path):
    cfg = TrainConfig(**dict(CFG, keep='last'), movie=str(tmp_path / 'm.gif'))
    det, rows = train_detector(data, cfg, False)
    run = movie_run(cfg, det, data.valid, None)
    said = f'epoch 3 of 3, loss {rows[-1]["train_loss"]:.2f}, mAP50 {rows[-1]["map50"]:.2f}'
    page = movie_frame(det, run.records, det.model.loss_func(), said, 1.0, run.side)
    save_movie([page, page], tmp_path / 'still.gif')
    assert (frames_of(tmp_path / 'm.gif')[-1] == frames_of(tmp_path / 'still.gif')[0]).all()
    assert (frames_of(tmp_path / 'm.gif')[0] != frames_of(tmp_path / 'm.gif')[-1]).any()
    run.close()


@pytest.mark.slow
def test_the_command_films(tmp_path):
    out = tmp_path / 'd.pt'
    args = ['train', '--data', 'generated', '--out', str(out), '--arch', 'multiscale']
    args += ['--size', '64', '--epochs', '1', '--variants', '1', '--no-plots']
    got = CliRunner().invoke(main, [*args, '--movie', str(tmp_path / 'm.gif')])
    assert got.exit_code == 0, got.output
    assert length(tmp_path / 'm.gif') == 2
    got = CliRunner().invoke(main, [*args, '--movie', str(tmp_path / 'no' / 'm.gif')])
    assert got.exit_code != 0
    assert 'its folder is not there' in got.output
    assert 'Traceback' not in got.output


def test_endings_and_folders(tmp_path):
    with pytest.raises(DetectorError, match='ends in .gif or .mp4'):
        TrainConfig(movie='film.avi')
    for name, why in (('a.avi', 'ends in .gif or .mp4'), ('no/a.gif', 'folder is not there')):
        with pytest.raises(WriteError, match=why) as e:
            check_movie(tmp_path / name)
        assert '\n' not in str(e.value)
    assert check_movie(tmp_path / 'a.GIF').name == 'a.GIF'


def test_without_pyav_a_gif_can_be_written_still(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    check_movie(tmp_path / 'a.gif')
    with pytest.raises(InstallError, match='video'):
        check_movie(tmp_path / 'a.mp4')


def test_mp4(tmp_path):
    av = pytest.importorskip('av')
    pages = [Image.new('RGB', (61, 33), (60 * i, 0, 0)) for i in range(4)]
    path = save_movie(pages, tmp_path / 'm.mp4', 0.5)
    with av.open(str(path)) as film:
        shown = [
            (float(f.pts * f.time_base), f.to_ndarray(format='rgb24')) for f in film.decode(video=0)
        ]
    times = [t for t, _ in shown]
    assert np.allclose(times[:4], [0, 1.5, 2, 2.5], atol=0.02)
    assert times[-1] > 3.8
    assert abs(int(shown[-1][1][10, 10, 0]) - 180) < 12


def test_a_full_disk_ends_the_film_and_not_the_training(data, tmp_path, monkeypatch, capsys):
    det = new_detector(data, TrainConfig(**SMALL))
    run = MovieRun(tmp_path / 'm.gif', det, data.valid[:1], 3, tmp_path / 'frames')

    class Learn:
        model, loss_func, epoch_table = (
            det.model,
            det.model.loss_func(),
            type('T', (), dict(rows=[])),
        )

    def full(*args):
        raise WriteError('No space left.')

    run.learn = Learn()
    monkeypatch.setattr('ssd_tutorial.movie.save_whole', full)
    run.before_fit()
    assert run.run is False
    assert 'The film ends here: No space left.' in capsys.readouterr().out
    run.close()
    assert not (tmp_path / 'm.gif').exists()


@pytest.mark.parametrize('arch', ['fcos', 'ssd', 'fpn'])
@pytest.mark.parametrize('fit', ['stretch', 'pad'])
def test_every_architecture_has_both_rows(data, arch, fit):
    det = new_detector(data, TrainConfig(arch=arch, size=64, weights='none', fit=fit))
    page = movie_frame(det, data.valid[:2], det.model.loss_func(), side=60)
    assert page.size == (2 * 64 + 4, 28 + 2 * 64)


def test_softmax_and_other_matchers(data):
    det = new_detector(data, TrainConfig(**SMALL, loss='softmax', weights='none'))
    views = [
        np.asarray(anchor_view(det, data.valid[0], det.model.loss_func(threshold=t), most=0))
        for t in (0.3, 0.7)
    ]
    blue = [(v[..., 2].astype(int) - v[..., 0] > 60).sum() for v in views]
    assert blue[0] > blue[1] > 0


@pytest.mark.slow
def test_torchvisions_detectors_show_predictions_alone(data):
    cfg = TrainConfig(arch='torchvision/ssdlite320_mobilenet_v3_large', weights='none')
    det = new_detector(data, cfg)
    page = movie_frame(det, data.valid[:2], det.model.loss_func(), side=60)
    assert page.size == (2 * 64 + 4, 28 + 64)


def test_the_model_stays_in_its_mode(data, tmp_path):
    det = new_detector(data, TrainConfig(**SMALL))
    assert isinstance(det, Detector)
    det.model.train()
    before = torch.get_rng_state()
    anchor_view(det, data.valid[0], det.model.loss_func())
    assert det.model.training
    assert torch.equal(torch.get_rng_state(), before)
