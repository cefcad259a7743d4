"""SSD512, SSD on any body: anchors, sizes, levels, saving; bodies that cannot serve"""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from ssd_tutorial.anchors import AnchorSpec, GridSpec, make_anchors, spec_from_dict
from ssd_tutorial.body import WeightsError
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, NetConfig, TrainConfig
from ssd_tutorial.coverage import _all_objects
from ssd_tutorial.detector import Detector
from ssd_tutorial.own_anchors import share_reached
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import read_last, settings_of, train_detector
from ssd_tutorial.ssd import (
    CELLS_512,
    SSD512_COCO,
    SSD512_VOC,
    ExtraNeck,
    build_ssd,
    halved,
    ssd_spec,
)
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.voc import save_voc

SIZES = dict(  # pixels of 512: the paper's configuration files
    voc=(35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8),
    coco=(20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8),
)


@pytest.mark.parametrize('spec,sizes', [(SSD512_VOC, 'voc'), (SSD512_COCO, 'coco')])
def test_anchors_of_ssd512(spec, sizes):
    assert spec.n_anchors == 24564
    assert tuple(level.cells for level in spec.levels) == CELLS_512
    first = 0
    for level, px in zip(spec.levels, SIZES[sizes]):
        square = make_anchors(spec)[first]
        assert torch.allclose((square[2:] - square[:2]) * 512, torch.tensor(px), atol=0.01)
        assert torch.allclose((square[2:] + square[:2]) / 2, torch.tensor(0.5 / level.cells))
        first += level.n_anchors


@pytest.mark.slow
def test_ssd512_learns(tmp_path):
    "At an eighth of its width it learns eight images by heart, is saved and loaded"
    data = generated_data('multiscale', 8, 1, n_objects=(1, 2), scale=(0.2, 0.6))
    data = replace(data, splits=dict(train=data.train, val=data.train[:1]))
    small = dict(weights='none', body_settings=dict(width=1 / 8))
    how = dict(epochs=130, bs=8, lr=1e-3, strength=None, keep='last', bf16=True)
    det, rows = train_detector(data, TrainConfig('ssd512', **small, **how), progress=False)
    assert rows[0]['map50'] < 0.1
    assert det.evaluate(data.train, protocol='ssd', progress=False).map50 >= 0.9
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    assert torch.equal(again.model.anchors, det.model.anchors)


@pytest.mark.parametrize('size', [96, 224])
@pytest.mark.parametrize(
    'body',
    [
        'resnet18', 'mobilenetv3', 'convnext_atto', 'efficientnet_lite0',
        'torchvision/resnet18', 'torchvision/vgg11', 'torchvision/mobilenet_v3_small',
        'torchvision/regnet_y_400mf', 'torchvision/mnasnet0_5',
    ],
)  # fmt: skip
def test_any_body(body, size, tmp_path):
    det = build_ssd(body, size, ['cat', 'dog'], weights='none', width=16, boosters=1)
    cells = [-(-size // 16), -(-size // 32)]
    assert [level.cells for level in det.model.spec.levels] == halved(cells)
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    x = torch.rand(1, 3, size, size)
    a, b = (d.detect_batch(x, score=0.0)[0] for d in (det, again))
    assert len(a['labels']) == 100
    assert torch.equal(a['boxes_xyxy'], b['boxes_xyxy'])


@pytest.mark.parametrize('levels', [(4,), (2, 3, 4), (1, 2, 3, 4)])
def test_levels(levels):
    det = build_ssd(size=128, levels=levels, weights='none', width=16)
    finest = 128 // 2 ** (levels[0] + 1)
    assert det.model.spec.levels[0].cells == finest
    assert det.model.spec == ssd_spec([128 // 2 ** (k + 1) for k in levels])


def test_heads_where_the_spec_says(tmp_path):
    "The forum's 189 anchors on 4×4, 2×2 and 1×1; and a spec that leaves out a map in between"
    shape = (0.0, 0.0, 1.0, 1.0)
    forum = AnchorSpec(tuple(GridSpec(c, (shape,) * 9) for c in (4, 2, 1)))
    det = build_ssd(size=224, spec=forum, levels=(4,), weights='none', width=16)
    assert len(det.model.anchors) == 189
    gap = AnchorSpec(tuple(GridSpec(c, (shape,)) for c in (14, 4)))
    det = build_ssd(size=224, spec=gap, weights='none', width=16)
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    assert len(again.model.anchors) == 14**2 + 4**2
    assert len(again.detect_batch(torch.rand(1, 3, 224, 224), score=0.0)[0]['labels']) == 100
    other = AnchorSpec((GridSpec(13, (shape,)),))
    with pytest.raises(DetectorError, match=r'maps of \[13\] cells.* gives \[14, 7, 4, 2, 1\]'):
        build_ssd(size=224, spec=other, weights='none')


def test_boosters_only_before_heads_of_the_body():
    neck = ExtraNeck([8, 16], [1, 2], 3, width=4, boosters=2)
    counts = [sum(isinstance(m, torch.nn.Conv2d) for m in b.modules()) for b in neck.boosters]
    assert counts == [0, 2]
    assert neck.channels == [4, 4]


@pytest.mark.parametrize(
    'body,words',
    [
        ('torchvision/vit_b_16', 'strides 16; none has 32'),
        ('torchvision/alexnet', 'gives no feature maps'),
        ('torchvision/resnet_18', 'No body'),
        ('efficientformer_l1', 'cannot look at images of 160 px'),
    ],
)
def test_bodies_that_cannot_serve(body, words):
    with pytest.raises(WeightsError, match=words):
        build_ssd(body, 160, weights='none')


@pytest.mark.parametrize('levels', [(), (4, 3), (3, 3), (0, 1), ('3',), 3])
def test_levels_are_checked(levels):
    with pytest.raises(DetectorError, match='levels=.*whole numbers from 1 to 6 in order'):
        NetConfig(levels=levels)


def test_levels_of_another_architecture():
    data = generated_data('multiscale', 1, 1)
    cfg = NetConfig(arch='fpn', levels=[2, 3, 4], weights='none', width=16)
    det = new_detector(data, cfg)
    assert [level.cells for level in det.model.spec.levels][:3] == [28, 14, 7]
    with pytest.raises(WeightsError, match=r'ssd_vgg16 has the levels \(2, 3\)'):
        new_detector(data, NetConfig(arch='ssd300', levels=(3, 4), weights='none'))


def test_command_and_resume(tmp_path):
    "Options reach the network; a run with levels and boosters goes on where it stopped"
    out = tmp_path / 'd.pt'
    small = '--arch ssd --size 64 --body resnet10t --weights none --width 16 --levels 2,3,4'
    words = [*small.split(), '--boosters', '1', '--epochs', '2', '--batch-size', '8']
    data = ['--data', str(save_voc(generated_data('multiscale', 16, 8, size=64), tmp_path / 'set'))]
    run = CliRunner().invoke(main, ['train', *data, *words, '--out', str(out), '--no-plots'])
    assert run.exit_code == 0, run.output
    det = Detector.load(out)
    assert det.description['levels'] == [2, 3, 4]
    assert det.description['boosters'] == 1
    assert [level.cells for level in det.model.spec.levels] == [8, 4, 2, 1]
    again = CliRunner().invoke(main, ['train', '--resume', '--out', str(out)])
    assert again.exit_code == 0, again.output
    assert settings_of(read_last(out)).levels == (2, 3, 4)
    wrong = CliRunner().invoke(main, ['train', *data, '--levels', '4,3'])
    assert wrong.exit_code == 2
    assert 'whole numbers from 1 to 6 in order' in ' '.join(wrong.output.split())


@pytest.mark.parametrize('arch', ['ssd', 'multiscale', 'fpn', 'grid'])
def test_proposed_anchors(arch, tmp_path):
    "Fitted to train, saved with the detector, and the same when the run goes on"
    flat = dict(n_objects=(2, 4), scale=(0.3, 0.5), aspect=4.0)
    data = generated_data('multiscale', 24, 8, size=64, **flat)
    how = dict(arch=arch, size=64, body='resnet10t', weights='none', width=16, anchors='proposed')
    cfg = TrainConfig(**how, frozen_epochs=0, epochs=1, bs=8, strength=None)
    out = tmp_path / 'd.pt'
    det, _ = train_detector(data, cfg, False, out)
    again = Detector.load(out)
    assert again.model.spec == det.model.spec
    assert spec_from_dict(read_last(out)['spec']) == det.model.spec
    boxes = _all_objects(data.train)[0]
    default = new_detector(data, NetConfig(**{**how, 'anchors': 'default'})).model.spec
    assert share_reached(boxes, det.model.spec) >= share_reached(boxes, default)
    if arch == 'fpn':
        assert len({level.shapes for level in det.model.spec.levels}) == 1


def test_anchors_from_a_file(tmp_path):
    "What the doctor wrote; a file without anchors, or with some that do not fit, is refused"
    data = save_voc(
        generated_data('multiscale', 40, 8, size=64, scale=(0.2, 0.3), aspect=8.0), tmp_path / 'set'
    )
    page, found = tmp_path / 'doctor.html', tmp_path / 'doctor.json'
    doctor = ['doctor', str(data), '--out', str(page), '--json', str(found), '--size', '64']
    CliRunner().invoke(main, doctor)
    proposal = json.loads(found.read_text())['anchors']
    assert proposal is not None
    out = tmp_path / 'd.pt'
    words = '--size 64 --body resnet10t --weights none --width 16 --max-steps 1 --no-plots'.split()
    train = ['train', '--data', str(data), *words, '--out', str(out)]
    run = CliRunner().invoke(main, [*train, '--anchors', str(found)])
    assert run.exit_code == 0, run.output
    assert 'they reach' in run.output
    assert Detector.load(out).model.spec == spec_from_dict(proposal)
    for text, words in (('{}', 'these are no anchors'), ('no', 'no anchors can be read')):
        found.write_text(text)
        run = CliRunner().invoke(main, [*train, '--anchors', str(found)])
        assert run.exit_code == 2
        assert words in run.output
    shape = [0.0, 0.0, 1.0, 1.0]
    other = dict(levels=[dict(cells=9, shapes=[shape], pitch=None)], clip=True)
    found.write_text(json.dumps(other))
    run = CliRunner().invoke(main, [*train, '--arch', 'ssd', '--anchors', str(found)])
    assert run.exit_code == 2
    assert 'maps of [9] cells' in run.output
    run = CliRunner().invoke(main, [*train, '--anchors', str(found)])
    assert run.exit_code == 2
    assert 'Error' in run.output
