"A detector for OpenVINO and as a program of torch.export finds what it finds here"

import json
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.detector import Detector

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from ssd_tutorial.runtimes import export_openvino, export_program  # noqa: E402
from small import untrained  # noqa: E402

KINDS = dict(
    animals=Detector.pretrained,
    timm=lambda: untrained('ssd', 128, body='mobilenetv3_small_050', width=16),
    fcos=lambda: untrained('fcos', 128, spread=2, width=16),
)


def inputs_of(det, n):
    photos = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
    photos.append(photos[0][:, ::-1])
    return torch.stack([det.input_of(Image.fromarray(p)) for p in photos[:n]])


@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize('name', KINDS)
def test_openvino(name, n, tmp_path):
    openvino = pytest.importorskip('openvino')
    det = KINDS[name]()
    file = export_openvino(det, tmp_path / 'd.xml')
    net = openvino.compile_model(str(file), 'CPU', dict(INFERENCE_PRECISION_HINT='f32'))
    images = inputs_of(det, n)
    best = det.detect_batch(images, score=0)[0]['scores'][0].item()
    given = dict(images=images.numpy(), score=np.float32([0.95 * best]), overlap=np.float32([0.5]))
    out = net(given)
    found = [out[k] for k in ('boxes_xyxy', 'found_scores', 'labels', 'image')]
    ours = det.detect_batch(images, score=0.95 * best)
    assert len(ours[0]['scores'])
    for i, one in enumerate(ours):
        boxes, scores, labels = (v[found[3] == i] for v in found[:3])
        order = np.argsort(-scores, kind='stable')
        assert labels[order].tolist() == one['labels'].tolist()
        np.testing.assert_allclose(boxes[order], one['boxes_xyxy'], atol=1e-3)
        np.testing.assert_allclose(scores[order], one['scores'], atol=1e-3)


@pytest.mark.parametrize('make', KINDS.values(), ids=KINDS)
def test_program(make, tmp_path):
    det, notes = make(), {'ssd_tutorial.json': ''}
    file = export_program(det, tmp_path / 'd.pt2')
    net = torch.export.load(file, extra_files=notes).module()
    assert json.loads(notes['ssd_tutorial.json'])['vocab'] == list(det.vocab)
    for n in (1, 4):
        with torch.no_grad():
            theirs = net(inputs_of(det, n))
            ours = det.model.candidates(det.model(inputs_of(det, n)))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_command_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'openvino', None)
    args = ['export', '--to', 'openvino', '--out', str(tmp_path / 'd.xml')]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 2
    assert 'pip install openvino' in done.output
    assert not (tmp_path / 'd.xml').exists()


def test_the_command_writes_both_files(tmp_path):
    pytest.importorskip('openvino')
    args = ['export', '--to', 'openvino', '--out', str(tmp_path / 'd')]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {'d.xml', 'd.bin'}
