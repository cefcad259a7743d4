"""The device that is named reaches every tensor:
training, evaluation and prediction run on one that is no CPU."""

import contextlib
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map, tree_leaves
from ssd_tutorial import commands as at_work, detector, grid, runs
from ssd_tutorial import device as devices_module
from ssd_tutorial.batches import make_dls
from ssd_tutorial.cli import main
from ssd_tutorial.options import run_config
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.device import devices, pick_device
from ssd_tutorial.runs import train_detector
from ssd_tutorial.steps import BFloat16
from ssd_tutorial.trainer import detector_learner, new_detector, run_phase
from ssd_tutorial.training import EpochTable, StopOnNonFinite
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc

pytestmark = pytest.mark.filterwarnings('ignore:.*copying from a non-meta parameter')
CARD = torch.device('meta')  # PyTorch knows it everywhere; here it calculates, see `Card`
SMALL = dict(
    arch='grid', size=64, body='resnet10t', weights='none', width=16, variants=1, strength=0.3, bs=4
)


class OnCard(torch.Tensor):
    "A tensor whose device is the card's; its numbers lie in `held`"

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CARD,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f'OnCard({self.held})'

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return on_card(func, args, kwargs or {})


# the only operations that may see both devices
TRAVEL = ('aten._to_copy.default', 'aten.copy_.default')


def on_card(func, args, kwargs):
    """One operation: on the card if its tensors lie there;
    an error, as a graphics card gives it, if only some do."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    here, there = (
        [x for x in given if not isinstance(x, OnCard)],
        [x for x in given if isinstance(x, OnCard)],
    )
    if str(func) not in TRAVEL and there and any(x.dim() for x in here):
        raise RuntimeError(
            f'Expected all tensors to be on the same device: {func} with '
            f'{[tuple(x.shape) for x in here]} on the CPU'
        )
    to = kwargs.get('device')
    to = None if to is None else torch.device(to)
    plain = {
        k: torch.device('cpu') if k == 'device' and v is not None else v for k, v in kwargs.items()
    }
    out = func(
        *tree_map(lambda x: x.held if isinstance(x, OnCard) else x, args),
        **tree_map(lambda x: x.held if isinstance(x, OnCard) else x, plain),
    )
    stays = str(func) == 'aten.copy_.default' or str(func).split('.')[1].endswith('_')
    if stays and '_foreach_' in str(func):
        return None
    if stays and given and isinstance(given[0], OnCard):
        return given[0]
    lies = bool(there) if to is None else to == CARD
    return tree_map(
        lambda x: (
            OnCard(x) if lies and isinstance(x, torch.Tensor) and not isinstance(x, OnCard) else x
        ),
        out,
    )


class Card(TorchDispatchMode):
    """Makes tensors on the card where they are asked for;
    counts convolutions and backward steps on either side."""

    def __init__(self):
        super().__init__()
        self.calls = dict(card=0, cpu=0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if 'convolution' in str(func):
            self.calls['card' if isinstance(args[0], OnCard) else 'cpu'] += 1
        return on_card(func, args, kwargs or {})


@pytest.fixture
def card(monkeypatch):
    "A machine with a card"
    monkeypatch.setattr(devices_module, 'devices', lambda: ['meta', 'cpu'])
    # it knows its own devices only
    monkeypatch.setattr(torch, 'autocast', lambda *a, **k: contextlib.nullcontext())
    made = torch.Generator
    monkeypatch.setattr(torch, 'Generator', lambda device='cpu': made())  # likewise
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    with Card() as mode:
        yield mode
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', n_train=5, n_valid=4, size=64)


def all_tensors(det):
    return [*det.model.parameters(), *det.model.buffers()]


def test_the_card_is_strict(card):
    "The trick itself: mixing devices fails, a forgotten anchor would be noticed"
    a, b = torch.ones(3, device='meta'), torch.ones(3)
    assert isinstance(a + 1, OnCard)
    assert (a + 1).device == CARD
    assert (a * a).sum().item() == 3
    with pytest.raises(RuntimeError, match='same device'):
        a + b
    assert not isinstance((a + 1).cpu(), OnCard)
    assert isinstance(b.to('meta'), OnCard)
    model = torch.nn.Linear(2, 1).to('meta')
    assert isinstance(model.weight, OnCard)
    model(torch.ones(4, 2, device='meta')).sum().backward()
    assert isinstance(model.weight.grad, OnCard)


RUNS = dict(
    everything=dict(arch='fpn', weights='{file}', frozen_epochs=1, epochs=1),
    average=dict(loss='softmax', frozen_epochs=1, epochs=0, ema=0.9),
    cross_entropy=dict(arch='multiscale', loss='bce', frozen_epochs=0, epochs=1, bf16=True),
    multibox=dict(loss='multibox', coder='tanh', frozen_epochs=1, epochs=0),
)


@pytest.mark.parametrize('name', RUNS)
def test_training_is_on_the_card(card, data, name, tmp_path, monkeypatch):
    """Weights, buffers, pictures, truth, cached maps, anchors in the loss:
    an operation on both devices fails, and no convolution is left to the CPU."""
    with _disable_current_modes():
        torch.save(timm.create_model('resnet10t').state_dict(), tmp_path / 'body.pth')
    settings = {**SMALL, **RUNS[name], 'device': 'meta'}
    settings['weights'] = settings['weights'].format(file=tmp_path / 'body.pth')
    learners, make = [], runs.detector_learner

    def spy(det, dls, cfg, *args):
        card.calls.update(cpu=0)
        learners.append(make(det, dls, cfg, *args))  # before it: one look at the body's maps
        return learners[-1]

    monkeypatch.setattr(runs, 'detector_learner', spy)
    det, rows = train_detector(data, TrainConfig(**settings), False, tmp_path / 'd.pt')
    assert all(isinstance(x, OnCard) for x in all_tensors(det))
    assert det.device == CARD
    assert card.calls['card'] > 10
    assert card.calls['cpu'] == 0
    assert isinstance(learners[0].loss_func.anchors_xyxy, OnCard)
    assert all(isinstance(p, OnCard) for p in learners[0].model.parameters())
    state = learners[0].opt.state_dict()['state'] if learners[0].opt else []
    assert all(
        x.device == CARD
        for s in state
        for x in s.values()
        if isinstance(x, torch.Tensor) and x.dim()
    )
    saved = torch.load(tmp_path / 'd.pt', weights_only=True)['state']
    assert all(type(v) is torch.Tensor for v in saved.values())


def test_evaluation_and_prediction_are_on_the_card(card, data):
    """By the argument of load, pretrained and from_torchvision, and by `auto`;
    the same boxes as on the CPU."""
    photos = [r.load() for r in data.valid[:2]]
    with _disable_current_modes():
        at_home = Detector.pretrained().predict(photos, score=0.01, top_k=5)
    det = Detector.pretrained(device='auto')
    assert all(isinstance(x, OnCard) for x in all_tensors(det))
    card.calls.update(card=0, cpu=0)
    there = det.predict(photos, score=0.01, top_k=5)
    found = det.find_in_records(data.valid[:2], score=0.2)
    assert card.calls['cpu'] == 0
    assert card.calls['card'] > 0
    assert not any(isinstance(v, OnCard) for f in found for v in f.values())
    for a, b in zip(there, at_home):
        assert np.allclose(a.boxes_px, b.boxes_px, atol=1e-3)
        assert np.allclose(a.scores, b.scores, atol=1e-5)


def test_published_weights_on_the_card(card, monkeypatch):
    det = new_detector(generated_data('multiscale', 2, 1), TrainConfig(**SMALL))
    monkeypatch.setitem(detector.FROM_TORCHVISION, 'toy', lambda state: det)
    assert all(
        isinstance(x, OnCard) for x in all_tensors(Detector.from_torchvision('toy', device='auto'))
    )


@pytest.mark.parametrize('left', ['anchors', 'model'])
def test_what_is_left_behind_is_noticed(card, data, left, monkeypatch):
    "A training that forgets one part fails here as it would on a graphics card"
    if left == 'anchors':
        monkeypatch.setattr(grid, 'SSDLoss', forgetful(grid.SSDLoss))
    else:
        monkeypatch.setattr(runs, 'new_detector', lambda *args: rooted(new_detector(*args)))
    with pytest.raises(RuntimeError, match='same device'):
        train_detector(data, TrainConfig(**SMALL, frozen_epochs=0, epochs=1, device='meta'), False)


def rooted(det):
    "A detector whose model stays where it is"
    det.model.to = lambda *args: det.model
    return det


def forgetful(loss):
    "A loss whose anchors stay where they are"

    class Stays:
        def __init__(self, x):
            self.x = x

        def to(self, device):
            return self.x

    return lambda anchors, **settings: loss(Stays(torch.tensor(anchors.cpu().tolist())), **settings)


def test_resume_on_another_device(card, data, tmp_path):
    "Begun on the card, gone on with on the CPU: the device is no setting of the run"
    cfg = dict(SMALL, frozen_epochs=0, epochs=2)

    class Plug(Callback):
        def before_batch(self):
            if self.training and self.epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector(
            data, TrainConfig(**cfg, device='meta'), False, tmp_path / 'd.pt', cbs=[Plug()]
        )
    card.calls.update(card=0, cpu=0)
    det, rows = train_detector(
        data, TrainConfig(device='cpu'), False, tmp_path / 'd.pt', resume=True
    )
    assert len(rows) == 2
    assert det.device.type == 'cpu'
    assert card.calls['card'] == 0
    with pytest.raises(DetectorError, match='size is 320'):
        train_detector(
            data, TrainConfig(size=320, device='cpu'), False, tmp_path / 'd.pt', resume=True
        )


def test_a_device_that_is_not_there():
    for name in ('cuda:99', 'abacus', 99, ''):
        with pytest.raises(DetectorError, match='Choose one of auto, .*cpu') as e:
            pick_device(name)
        assert '\n' not in str(e.value)
    assert pick_device('cpu').type == 'cpu'
    assert pick_device().type == devices()[0].split(':')[0]
    assert devices()[-1] == 'cpu'


def test_the_command_takes_a_device(card, tmp_path, monkeypatch):
    """On train, evaluate and predict; one that is not there ends in one line,
    before any data is read."""
    # a file is looked over on the CPU before it is trusted: count from then on
    pick = at_work.pick_detector
    monkeypatch.setattr(
        at_work, 'pick_detector', lambda *args: (pick(*args), card.calls.update(cpu=0))[0]
    )
    save_voc(generated_data('multiscale', 8, 4, size=96), tmp_path / 'voc')
    out = tmp_path / 'd.pt'
    commands = dict(
        train=[
            '--data',
            tmp_path / 'voc',
            *'--epochs 1 --max-steps 1 --batch-size 4 --size 64 --no-plots'.split(),
            *'--arch grid --weights none --out'.split(),
            out,
        ],
        evaluate=['--data', tmp_path / 'voc', '--detector', out],
        predict=[
            tmp_path / 'voc' / 'JPEGImages',
            '--detector',
            out,
            '--out',
            tmp_path / 'found',
            '--no-pictures',
        ],
    )
    for name, args in commands.items():
        for device in ('auto',) if name == 'train' else ('meta',):
            card.calls.update(card=0, cpu=0)
            r = CliRunner().invoke(
                main, [name, *map(str, args), '--device', device], catch_exceptions=False
            )
            assert r.exit_code == 0, r.output
            assert card.calls['card'] > 0, r.output
            assert name == 'train' or card.calls['cpu'] == 0, r.output
        r = CliRunner().invoke(
            main, [name, *map(str, args), '--device', 'cuda:99'], catch_exceptions=False
        )
        assert r.exit_code == 2, r.output
        assert r.output.count('\n') == 1, r.output
        assert 'Choose one of auto, meta, cpu.' in r.output, r.output
    assert run_config(dict(data=('x',), device='cpu')).device == 'cpu'


@pytest.mark.parametrize(
    'bf16,card,mode', [(False, (7, 5), 'fp16'), (True, (7, 5), 'bf16'), (False, (8, 0), 'bf16')]
)
def test_one_kind_of_mixed_precision_on_a_gpu(data, monkeypatch, bf16, card, mode):
    "bfloat16 where it is asked for or the card has it; the CPU's hooks are not put on top of it"
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *a: card)
    det = new_detector(data, TrainConfig(**SMALL))
    dls = make_dls(data, 64, 2, device='cpu')
    dls.device = 'cuda'
    cfg = TrainConfig(**SMALL, bf16=bf16)
    learn = detector_learner(det, dls, cfg, EpochTable())
    assert learn.mixed_precision.amp_mode.value == mode
    used = []
    with mock.patch('ssd_tutorial.trainer.find_recipe') as recipe:
        recipe.return_value.fit = lambda learn, *a, cbs, **kw: used.extend(cbs)
        run_phase(learn, dls, ('all', 1, 1e-3, False), cfg, False)
    assert not any(isinstance(cb, BFloat16) for cb in used)


@pytest.mark.parametrize('mode,stops', [('fp16', False), ('bf16', True)])
def test_bfloat16_has_no_scaler_to_skip_a_bad_step(data, mode, stops):
    "With float16 fastai's scaler skips an infinite gradient; with bfloat16 nobody else looks"
    watch = StopOnNonFinite()
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.tensor([float('inf')])
    model = torch.nn.Module()
    model.weight = weight
    amp = SimpleNamespace(amp_mode=AMPMode(mode))
    watch.learn = SimpleNamespace(mixed_precision=amp, model=model)
    found = []
    watch._stop = found.append
    watch.before_step()
    assert found == ['gradient'] * stops
