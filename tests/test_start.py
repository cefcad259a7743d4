"A saved detector as the start of another one: what fits is taken over, class scores by their names"

from dataclasses import replace
import pytest
import torch
from click.testing import CliRunner
from ssd_tutorial.cli import main
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.trainer import new_detector

SMALL = dict(arch='grid', size=64, width=16, weights='none')


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=64)


def moved(data, extra='rabbit'):
    "The same images, with one more class in front of the others"
    splits = {k: [replace(r, labels=r.labels + 1) for r in v] for k, v in data.splits.items()}
    return replace(data, splits=splits, vocab=('background', extra, *data.vocab[1:]))


def rows(det, n):
    return det.model.heads[0].cls.weight.detach().unflatten(0, (-1, n))


@pytest.mark.parametrize('loss', ['focal', 'softmax'])
def test_what_fits_is_taken_over(data, tmp_path, loss):
    torch.manual_seed(0)
    first = new_detector(data, TrainConfig(**SMALL, loss=loss))
    path = first.save(tmp_path / 'first.pt')
    torch.manual_seed(1)
    cfg = TrainConfig(**{**SMALL, 'weights': str(path)}, loss=loss)
    second = new_detector(moved(data), cfg)
    a, b = first.model.state_dict(), second.model.state_dict()
    for k in a:
        if '.cls.' not in k:
            assert torch.equal(a[k], b[k]), k
    softmax = int(loss == 'softmax')
    n = len(data.vocab) - 1 + softmax
    old, new = rows(first, n), rows(second, n + 1)
    assert torch.equal(new[:, softmax + 1 :], old[:, softmax:])  # the names that both know
    if softmax:
        assert torch.equal(new[:, 0], old[:, 0])  # background
    assert not torch.isin(new[:, softmax], old).all()  # the new name starts anew
    assert 'first.pt' in second.started
    assert 'made anew: rabbit' in second.started


def test_another_activation_keeps_its_own_classes(data, tmp_path):
    path = new_detector(data, TrainConfig(**SMALL)).save(tmp_path / 'd.pt')
    det = new_detector(data, TrainConfig(**{**SMALL, 'weights': str(path)}, loss='softmax'))
    assert 'classes' not in det.started
    assert 'neck' in det.started


def test_it_says_the_same_before_training_goes_on(data, tmp_path):
    "Outputs for the old names and all boxes are those of the detector that it starts from"
    first = new_detector(data, TrainConfig(**SMALL))
    path = first.save(tmp_path / 'd.pt')
    second = new_detector(moved(data), TrainConfig(**{**SMALL, 'weights': str(path)}))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (a, boxes), (b, moved_boxes) = first.model.eval()(x), second.model.eval()(x)
    assert torch.allclose(b[..., 1:], a, atol=1e-6)
    assert torch.allclose(boxes, moved_boxes, atol=1e-6)


@pytest.mark.slow
def test_the_command_says_what_it_starts_from(data, tmp_path):
    save_voc(data, tmp_path / 'voc')
    path = new_detector(data, TrainConfig(**SMALL)).save(tmp_path / 'first.pt')
    r = CliRunner().invoke(
        main,
        [
            'train',
            '--data',
            str(tmp_path / 'voc'),
            '--weights',
            str(path),
            *'--arch grid --size 64 --width 16 --max-steps 1 --no-plots --out'.split(),
            str(tmp_path / 'd.pt'),
        ],
    )
    assert r.exit_code == 0, r.output
    assert 'Starts from first.pt: its backbone, neck and heads; classes' in r.output, r.output


def test_the_detector_of_the_package_by_its_name(data):
    det = new_detector(
        replace(data, vocab=('background', 'dog', 'rabbit')),
        TrainConfig(weights='animals', size=320),
    )
    assert det.started == (
        'Starts from animals.pt: its backbone, neck and heads; '
        'classes that it knows: dog; made anew: rabbit.'
    )
    animals = Detector.pretrained()
    a, b = (d.model.heads[0].cls.weight.unflatten(0, (9, -1)) for d in (animals, det))
    assert torch.equal(a[:, animals.vocab.index('dog') - 1], b[:, 0])
