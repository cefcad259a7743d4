"--from: a detector decides how the next one is built, and where it starts"

import time
from dataclasses import replace
import pytest
import torch
from click.testing import CliRunner
from ssd_tutorial import ported
from ssd_tutorial.anchors import AnchorSpec, GridSpec
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.grid import ARCHS, register_arch
from ssd_tutorial.options import run_config, with_start
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import read_last, train_detector
from ssd_tutorial.trainer import new_detector
from ssd_tutorial.transfer import config_like, like_in_words
from ssd_tutorial.voc import save_voc

SMALL = dict(size=64, width=16, weights='none')


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=64)


def renamed(data, *names):
    return replace(data, vocab=('background', *names), category_ids=None)


def logits(det, seed=0):
    torch.manual_seed(seed)
    x = torch.rand(2, 3, det.size, det.size)
    with torch.no_grad():
        cls, boxes = det.model.eval()(x)
    return cls, boxes


CASES = {
    'grid': dict(arch='grid'),
    'two levels': dict(arch='multiscale', levels=(2, 3, 4)),
    'pyramid, tanh': dict(arch='fpn', coder='tanh'),
    'ssd, boosters': dict(arch='ssd', boosters=1),
    'softmax': dict(arch='grid', loss='softmax'),
}


@pytest.mark.parametrize('case', CASES)
def test_shared_classes_say_the_same(data, tmp_path, case):
    "Everything fits without a setting; logits of names that both know, and boxes, are the same"
    torch.manual_seed(1)
    names = [f'c{i}' for i in range(len(data.vocab) - 1)]
    old = new_detector(renamed(data, *names), TrainConfig(**SMALL | CASES[case]))
    with torch.no_grad():
        for p in old.model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    path = old.save(tmp_path / 'old.pt')
    torch.manual_seed(2)
    new = new_detector(renamed(data, 'x', *names[::-1], 'y'), config_like(path))
    (a, boxes), (b, new_boxes) = logits(old), logits(new)
    first = int(old.activation == 'softmax')
    for i, name in enumerate(names):
        j = new.vocab.index(name) - 1
        assert torch.allclose(a[..., first + i], b[..., first + j], atol=1e-6), name
    assert torch.allclose(boxes, new_boxes, atol=1e-6)
    assert 'made anew: x, y' in new.started
    assert 'not taken over' not in new.started


def test_everything_of_animals_fits(data):
    det = new_detector(renamed(data, 'fox', 'cow'), config_like('animals'))
    animals = Detector.pretrained()
    assert det.started == (
        'Starts from animals.pt: its backbone, neck and heads; '
        'classes that it knows: cow; made anew: fox.'
    )
    own, theirs = det.model.state_dict(), animals.model.state_dict()
    assert own.keys() == theirs.keys()
    for k in own:
        if '.cls.' not in k:
            assert torch.equal(own[k], theirs[k]), k


def test_anchors_of_its_own_come_along(data, tmp_path):
    shapes = ((-0.2, 0.0, 1.2, 1.0),)
    spec = AnchorSpec((GridSpec(4, shapes), GridSpec(2, shapes)), clip=False)
    old = new_detector(data, TrainConfig(arch="fpn", **SMALL), spec)
    cfg = config_like(old.save(tmp_path / 'd.pt'), max_steps=1, bs=4)
    assert cfg.anchors == str(tmp_path / 'd.pt')
    det, _ = train_detector(data, cfg, progress=False)
    assert det.model.spec == old.model.spec
    with pytest.raises(DetectorError, match='made for 64 px'):
        config_like(tmp_path / 'd.pt', size=96)
    assert config_like(tmp_path / 'd.pt', size=96, anchors='default').size == 96


def test_what_is_given_goes_first_and_is_said(data, tmp_path):
    path = new_detector(data, TrainConfig(arch='fpn', **SMALL)).save(tmp_path / 'd.pt')
    cfg = config_like(path, width=24, lr=1e-3)
    assert cfg.width == 24
    assert like_in_words(path, cfg).endswith('as given, width 24 instead of 16.')
    assert 'neck' in new_detector(data, cfg).started.split('not taken over')[1]
    assert config_like(path, gamma=2.0).loss == 'focal'
    for wrong in (dict(arch='grid'), dict(body='resnet18'), dict(weights='imagenet')):
        with pytest.raises(DetectorError, match='from'):
            config_like(path, **wrong)


def test_a_detector_of_the_users_own_architecture(data, tmp_path):
    build = ARCHS['grid'].build

    def mine(description, body):
        return build(description, body)

    mine.__module__ = 'my_nets'
    register_arch('mine', spec=ARCHS['grid'].spec)(mine)
    try:
        path = new_detector(data, TrainConfig(arch='mine', **SMALL)).save(tmp_path / 'd.pt')
        assert config_like(path).arch == 'mine'
    finally:
        del ARCHS['mine']
    with pytest.raises(DetectorError, match='import my_nets first'):
        config_like(path)


def test_torchvision_is_a_source(data, monkeypatch):
    "Its weights are random here: what is asked is where they go"
    from ssd_tutorial import trainer

    vgg = dict(weights=None, weights_backbone=None)
    from torchvision.models.detection import ssd300_vgg16

    state = ssd300_vgg16(**vgg).state_dict()
    monkeypatch.setattr(ported, 'fetched', lambda *_: state)
    trainer._fetched.cache_clear()
    cfg = config_like('ssd300_vgg16')
    det = new_detector(renamed(data, 'unicorn', 'person'), cfg)
    trainer._fetched.cache_clear()
    assert 'classes that it knows: person; made anew: unicorn' in det.started
    assert 'not taken over' not in det.started
    weight = state['head.classification_head.module_list.0.weight'].unflatten(0, (-1, 91))
    ours = det.model.heads[0].cls.weight.unflatten(0, (-1, 3))
    assert torch.equal(ours[:, 2], weight[:, 1])
    assert torch.equal(ours[:, 0], weight[:, 0])  # background


def command(*args):
    return CliRunner().invoke(main, ['train', *map(str, args)])


@pytest.fixture
def voc(data, tmp_path):
    save_voc(data, tmp_path / 'voc')
    return tmp_path / 'voc'


@pytest.mark.slow
def test_the_command(voc, tmp_path):
    out = tmp_path / 'run' / 'd.pt'
    out.parent.mkdir()
    start = '--data', voc, '--out', out, '--no-plots'
    how = '--from', 'animals', '--size', 96, '--max-steps', 2, '--epochs', 2, '--batch-size', 4
    r = command(*start, *how)
    assert r.exit_code == 0, r.output
    assert 'size 96 instead of 320' in r.output
    assert 'Starts from animals.pt' in r.output
    last = read_last(out)
    assert last['cfg']['weights'] == 'animals'
    assert last['about']['args']['from_'] == 'animals'
    r = command('--resume', '--out', out, '--from', 'animals')
    assert r.exit_code == 0, r.output
    r = command('--resume', '--out', out, '--from', 'ssd300_vgg16')
    assert r.exit_code == 2
    assert '--from is ssd300_vgg16 here and was animals' in r.output


def test_a_run_goes_on_when_its_start_has_moved(data, voc, tmp_path):
    path = new_detector(data, TrainConfig(arch='grid', **SMALL)).save(tmp_path / 'd.pt')
    args, _ = with_start(dict(from_=str(path), epochs=3))
    path.unlink()
    cfg = run_config(args)
    assert (cfg.arch, cfg.size, cfg.width) == ('grid', 64, 16)


def test_a_file_of_settings_goes_before_the_detector(tmp_path):
    (tmp_path / 'c.yaml').write_text('size: 256\nlr: 0.001\n')
    args, said = with_start(dict(from_='animals', config=str(tmp_path / 'c.yaml')))
    cfg = run_config(args)
    assert (cfg.size, cfg.lr, cfg.arch) == (256, 0.001, 'fpn')
    assert 'size 256 instead of 320' in said
    (tmp_path / 'c.yaml').write_text('weights: imagenet\n')
    with pytest.raises(DetectorError, match='both say where to start'):
        with_start(dict(from_='animals', config=str(tmp_path / 'c.yaml')))


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('animal', 'do you mean animals?'),
        ('nothing.pt', 'no such file, and no detector of that name'),
        ('.', 'this is a folder'),
        (__file__, 'not a saved detector'),
    ],
)
def test_one_line_for_what_is_no_detector(voc, name, said):
    r = command('--data', voc, '--from', name)
    assert r.exit_code == 2
    assert r.output.count('\n') == 1, r.output
    assert said in r.output


def test_without_a_network_it_ends_within_seconds(voc, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    start = time.perf_counter()
    r = command('--data', voc, '--from', 'ssd300_vgg16')
    if r.exit_code == 0:
        pytest.skip('there is a network')
    assert time.perf_counter() - start < 30  # of which the network may take 4
    assert 'could not be fetched' in r.output
    assert r.output.count('\n') == 1, r.output
