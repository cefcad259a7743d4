"A slim body keeps less, and nothing else about it changes"

import pytest
import timm
import torch
from torch import nn
from ssd_tutorial.body import Body, make_body
from ssd_tutorial.slim import LeanReLU6, slim_body


def kept(net, images):
    "Bytes that a forward pass keeps for the backward pass"
    seen = {}

    def note(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = net(images)
    assert out
    return sum(seen.values())


def kept_per_image(net):
    "Growth with the batch: folding keeps a copy of the weights as well, whatever the batch"
    return kept(net, torch.rand(3, 3, 64, 64)) - kept(net, torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'resnet18'])
def test_maps_and_gradients_stay(name):
    torch.manual_seed(0)
    thick, lean, images = Body(name), Body(name), torch.rand(2, 3, 64, 64)
    lean.load_state_dict(thick.state_dict())
    slim_body(lean)
    assert list(lean.state_dict()) == list(thick.state_dict())
    for a, b in zip(thick.train()(images), lean.train()(images)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    for b in (thick, lean):
        sum(m.mean() for m in b(images)).backward()
    for p, q in zip(thick.net.parameters(), lean.net.parameters()):
        assert (p.grad - q.grad).norm() <= 0.01 * p.grad.norm() + 1e-6
    assert kept_per_image(lean) < 0.75 * kept_per_image(thick)


def test_moving_statistics_are_not_folded():
    "While a norm learns its statistics, it computes as always"
    torch.manual_seed(0)
    thick, lean = (Body("resnet18", norm_eval=False) for _ in range(2))
    images = torch.rand(2, 3, 64, 64)
    lean.load_state_dict(thick.state_dict())
    slim_body(lean)
    for b in (thick, lean):
        b.train()(images)
    assert not torch.equal(thick.net.bn1.running_mean, torch.zeros(64))
    torch.testing.assert_close(thick.net.bn1.running_mean, lean.net.bn1.running_mean)


class ReadsBetween(nn.Module):
    "A network in which something else reads the map between a convolution and its norm"

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        between = self.conv(x)
        return [between, self.norm(between)]


def test_a_map_that_others_read_is_not_folded():
    body = Body('resnet18')
    body.net = ReadsBetween().eval()
    body.net.norm.running_mean.fill_(0.5)
    x = torch.rand(1, 3, 8, 8)
    before = [m.clone() for m in body.net(x)]
    slim_body(body)
    assert type(body.net.conv) is nn.Conv2d
    assert type(body.net.norm) is nn.BatchNorm2d
    for a, b in zip(before, body.net(x)):
        assert torch.equal(a, b)


def test_every_body_of_make_body_is_slim():
    net = timm.create_model('tf_efficientnet_lite0', features_only=True)
    usual = {type(m) for m in net.modules()}
    mine = {type(m) for m in make_body().net.modules()}
    assert nn.ReLU6 in usual
    assert nn.ReLU6 not in mine
    assert LeanReLU6 in mine
