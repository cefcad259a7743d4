"The copy of a network that answers: it gives the same, and never outlives what it was made of"

import copy, pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from ssd_tutorial.body import Body, make_body
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.intake import lent
from ssd_tutorial.fused import FusedConv, fuse
from ssd_tutorial.records import generated_data
from ssd_tutorial.trainer import new_detector

ARCHS = ['fpn', 'grid', 'multiscale', 'ssd', 'fcos', 'ssd300']


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=64)


def detector(data, **cfg):
    "Small, untrained, its norms with statistics that are not those of a new network"
    torch.manual_seed(0)
    det = new_detector(data, TrainConfig(**dict(arch='grid', size=64, weights='none') | cfg))
    for m in det.model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.2, 0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.2, 0.2)
    return det


def same(det, x, eps=1e-4):
    "Outputs of the model and of its copy"
    with torch.no_grad():
        for a, b in zip(det.in_use()(x), det.model.eval()(x)):
            torch.testing.assert_close(a, b, atol=eps * max(1, float(b.abs().max())), rtol=0)


@pytest.mark.parametrize('arch', ARCHS)
def test_every_architecture(arch, data):
    size = 300 if arch == 'ssd300' else 64
    det = detector(data, arch=arch, size=size)
    n = sum(isinstance(m, FusedConv) for m in det.in_use().modules())
    assert n >= 10
    same(det, torch.rand(2, 3, size, size))


@pytest.mark.parametrize('body', ['resnet18', 'mobilenetv3', 'torchvision/resnet18'])
@pytest.mark.parametrize('side', [64, 65])
def test_every_body(body, side):
    torch.manual_seed(0)
    b, x = make_body(body, 'none').eval(), torch.rand(1, 3, side, side)
    with torch.no_grad():
        for a, c in zip(fuse(b)(x), b(x)):
            torch.testing.assert_close(a, c, atol=1e-4 * float(c.abs().max()), rtol=0)


@pytest.mark.parametrize('side', [64, 65, 66, 71])
def test_padding_of_tensorflow(side):
    torch.manual_seed(0)
    b, x = make_body('efficientnet_lite0', 'none').eval(), torch.rand(2, 3, side, side + 2)
    with torch.no_grad():
        for a, c in zip(fuse(b)(x), b(x)):
            torch.testing.assert_close(a, c, atol=1e-4 * float(c.abs().max()), rtol=0)


def test_without_packed_weights(data, monkeypatch):
    "Another build of PyTorch, another processor: the usual convolution"
    monkeypatch.setattr('ssd_tutorial.fused._packs', lambda: False)
    same(detector(data, arch='fpn'), torch.rand(2, 3, 64, 64))


def test_what_is_not_fused_stays():
    odd = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.BatchNorm2d(4), nn.GELU())
    reflect = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode='reflect'), nn.ReLU())
    batch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    x = torch.rand(2, 3, 16, 16)
    for net in (odd, reflect, batch):
        torch.testing.assert_close(fuse(net.eval())(x), net(x), atol=1e-5, rtol=0)


def bias(det):
    return det.model.neck.conv[1][0].weight


CHANGES = dict(
    step=lambda det: torch.optim.SGD([bias(det)], 1.0).step() or bias(det).grad.zero_(),
    in_place=lambda det: bias(det).detach().mul_(2),
    loaded=lambda det: det.model.load_state_dict(
        {k: v * 1.02 if v.is_floating_point() else v for k, v in det.model.state_dict().items()}
    ),
    learnt=lambda det: (det.model.train(), bias(det).data.mul_(2), det.model.eval()),
    exchanged=lambda det: setattr(
        det.model.neck.conv[1], '0', nn.Conv2d(*bias(det).shape[1::-1], 3, padding=1, bias=False)
    ),
    wider=lambda det: det.model.double().float(),
    another=lambda det: setattr(det, 'model', copy.deepcopy(det.model)),
)


@pytest.mark.parametrize('change', CHANGES)
def test_a_change_is_noticed(change, data):
    det, x = detector(data), torch.rand(1, 3, 64, 64)
    before = det.in_use()
    assert det.in_use() is before
    bias(det).grad = torch.ones_like(bias(det))
    CHANGES[change](det)
    assert det.in_use() is not before
    same(det, x)


def test_what_else_a_detector_does_is_as_before(data, tmp_path):
    det = detector(data)
    keys, first = list(det.model.state_dict()), det.save(tmp_path / 'a.pt').read_bytes()
    found = det.predict(data.valid[0].image, score=0.0)
    assert list(det.model.state_dict()) == keys
    assert det.save(tmp_path / 'b.pt').stat().st_size == len(first)
    again = Detector.load(tmp_path / 'b.pt')
    for k, v in again.model.state_dict().items():
        assert torch.equal(v, det.model.state_dict()[k]), k
    for other in (again, copy.deepcopy(det), pickle.loads(pickle.dumps(det))):
        assert np.allclose(other.predict(data.valid[0].image, score=0.0).scores, found.scores)
    loss = det.model.train()(torch.rand(2, 3, 64, 64))[0].sum()
    loss.backward()  # what was predicted does not keep it from learning
    assert bias(det).grad is not None


def test_results_may_be_changed_in_place(data):
    found = detector(data).detect_batch(torch.rand(2, 3, 64, 64), score=0.0)[0]
    found['boxes_xyxy'].mul_(64)
    assert found['boxes_xyxy'].max() > 1


def rows(found):
    return [(d.boxes_px.tolist(), d.scores.tolist(), d.labels.tolist()) for d in found]


def test_eight_threads_get_what_one_gets(data):
    det = detector(data, arch='fpn')
    images = [r.image for r in data.valid] * 2
    look = lambda: rows([det.predict(x, score=0.2, top_k=5) for x in images])
    one = look()
    det.model.train()  # all eight begin with a model that must be fused anew
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: look(), range(8)):
            assert got == one
    assert not hasattr(det.model, 'with_masks')


def test_lent_by_several_threads():
    thing = type('Thing', (), {})()

    def borrow(i):
        for _ in range(500):
            with lent(thing, asked=True):
                assert thing.asked
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(borrow, range(8)))
    assert not hasattr(thing, 'asked')


def test_threads_ahead_change_nothing(data, tmp_path):
    "Order, names, and what cannot be read, with and without threads that open the next batch"
    det = detector(data)
    for i, r in enumerate(data.train):
        r.load().save(tmp_path / f'{i}.png')
    (tmp_path / '3.png').write_text('no picture')
    paths = sorted(tmp_path.glob('*.png'))
    both = []
    for ahead in (0, 4):
        bad = []
        many = det.predict_stream(paths, 0.2, bs=3, unreadable=bad, ahead=ahead, top_k=3)
        found = list(many)
        both.append((rows(found), [(d.image_id, d.file_name) for d in found], bad))
    assert both[0] == both[1]
    assert len(both[0][2]) == 1


def test_body_alone():
    assert isinstance(fuse(Body().eval()), Body)
