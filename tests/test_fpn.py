"The feature pyramid: other backbones, rows in the order of the anchors, a batch norm per level"

import pytest, torch
from ssd_tutorial.anchors import make_anchors, spec_to_dict
from ssd_tutorial.body import make_body
from ssd_tutorial.fpn import FPNNeck, SharedBlock, SharedHead, fpn_model, fpn_spec
from ssd_tutorial.grid import SSDModel


@pytest.mark.parametrize(
    'name,levels,size,cells,n_anchors',
    [
        ('efficientnet_lite0', (3, 4), 320, [20, 10], 4842),
        ('efficientnet_lite0', (2, 3, 4), 224, [28, 14, 7], 9441),
        ('resnet18', (3, 4), 100, [7, 4], 621),
    ],
)
def test_any_body_of_two_maps_or_more_at_any_size(name, levels, size, cells, n_anchors):
    body = make_body(name, 'none', levels).eval()
    description = dict(spec=spec_to_dict(fpn_spec(cells)), n_classes=6, width=32, depth=1)
    model = fpn_model(description, body).eval()
    with torch.no_grad():
        scores, deltas = model(torch.rand(1, 3, size, size))
    assert len(model.anchors) == n_anchors
    assert (scores.shape, deltas.shape) == ((1, n_anchors, 6), (1, n_anchors, 4))


def test_softmax_has_a_column_for_background():
    body = make_body('resnet18', 'none')
    spec = spec_to_dict(fpn_spec([4, 2]))
    description = dict(spec=spec, n_classes=6, width=16, activation='softmax')
    model = fpn_model(description, body).eval()
    with torch.no_grad():
        scores = model(torch.rand(1, 3, 64, 64))[0]
    assert scores.shape == (1, len(model.anchors), 7)


class Maps(torch.nn.Module):
    "A body or neck that returns what it is given"

    channels = [1] * 4

    def forward(self, maps):
        return maps


@pytest.mark.parametrize(
    'level,row,column', [(0, 0, 0), (0, 13, 5), (1, 6, 6), (2, 2, 3), (3, 1, 0)]
)
def test_row_k_of_the_output_belongs_to_anchor_k(level, row, column):
    "A head without towers that reads its own cell only, and one lit cell"
    spec = fpn_spec([14, 7])
    head = SharedHead(1, 9, 6, depth=0)
    head.cls.weight.data.zero_()
    head.cls.weight.data[:, :, 1, 1] = 1
    model = SSDModel(Maps(), Maps(), spec, 6, head=head)
    maps = [torch.zeros(1, 1, l.cells, l.cells) for l in spec.levels]
    maps[level][0, 0, row, column] = 1
    with torch.no_grad():
        lit = model(maps)[0][0].sum(-1).nonzero().flatten()
    anchors, cells = make_anchors(spec)[lit], spec.levels[level].cells
    assert len(lit) == 9
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert torch.allclose(centres, torch.tensor([column + 0.5, row + 0.5]) / cells, atol=1e-5)


def test_the_neck_adds_only_from_coarse_to_fine():
    torch.manual_seed(0)
    neck = FPNNeck([8, 16, 32], 5, width=16).eval()
    maps = [torch.rand(1, c, s, s) for c, s in ((8, 20), (16, 10), (32, 5))]
    with torch.no_grad():
        before = neck(maps)
        fine = neck([maps[0] + 1, *maps[1:]])
        coarse = neck([*maps[:2], maps[2] + 1])
    assert [tuple(m.shape[1:]) for m in before] == [(16, c, c) for c in (20, 10, 5, 3, 2)]
    assert [torch.equal(a, b) for a, b in zip(before, fine)] == [False, True, True, True, True]
    assert not any(torch.equal(a, b) for a, b in zip(before, coarse))


def test_upsampling_keeps_places():
    "One lit cell of the coarse map reaches just the four fine cells that lie in it"
    neck = FPNNeck([1, 1], 2, width=1)
    maps = [torch.zeros(1, 1, 14, 14), torch.zeros(1, 1, 7, 7)]
    maps[1][0, 0, 2, 5] = 1
    added = neck.top_down(maps)[0][0, 0]
    assert added.nonzero().tolist() == [[4, 10], [4, 11], [5, 10], [5, 11]]


def test_each_level_has_statistics_of_its_own():
    block = SharedBlock(1, 2)
    before = block.norms[1].running_mean.clone()
    block(torch.rand(8, 1, 4, 4) + 10, 0)
    assert torch.equal(block.norms[1].running_mean, before)
    assert not torch.equal(block.norms[0].running_mean, before)
