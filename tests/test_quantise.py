"Eight bits: what is quantised, what stays float, and when the command refuses"

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError
from ssd_tutorial.detector import Detector
from ssd_tutorial.faults import DataError
from ssd_tutorial.records import generated_data

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

import ssd_tutorial.quantise as lesson  # noqa: E402
from ssd_tutorial.onnx_detector import OnnxDetector  # noqa: E402
from ssd_tutorial.onnx_export import export_onnx  # noqa: E402
from small import untrained  # noqa: E402


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('int8')
    (path / 'photos').mkdir()
    for i, r in enumerate(generated_data('street', 12, 1, size=150).train):
        r.load().save(path / 'photos' / f'{i}.png')
    det = untrained('ssd', 128, body='mobilenetv3_small_050', width=16, fit='pad')
    det.save(path / 'd.pt')
    export_onnx(det, path / 'd.onnx')
    lesson.quantise(path / 'd.onnx', path / 'photos', path / 'int8.onnx')
    return path


def before(graph, names):
    "Names of all nodes that these tensors are made from"
    made, todo, seen = {o: n for n in graph.node for o in n.output}, [*names], set()
    while todo:
        n = made.get(todo.pop())
        if n is not None and n.name not in seen:
            seen.add(n.name)
            todo += n.input
    return seen


def test_what_follows_the_network_stays_float(folder):
    "No number is rounded on the way from the last convolution to the boxes"
    graph = onnx.load(folder / 'int8.onnx').graph
    convs = [n for n in graph.node if n.op_type == 'Conv']
    network = before(graph, [x for c in convs for x in c.input])
    rounded = [n for n in graph.node if n.op_type == 'QuantizeLinear']
    assert rounded
    assert {n.op_type for n in graph.node} >= {'Exp', 'NonMaxSuppression'}
    outputs = {o for c in convs for o in c.output}
    late = [n for n in rounded if n.name not in network and n.input[0] not in outputs]
    assert not late


def test_every_convolution_counts_in_eight_bits(folder):
    graph = onnx.load(folder / 'int8.onnx').graph
    made = {o: n.op_type for n in graph.node for o in n.output}
    for c in (n for n in graph.node if n.op_type == 'Conv'):
        assert made.get(c.input[0]) == 'DequantizeLinear'
        assert made.get(c.input[1]) == 'DequantizeLinear'


def test_a_channel_has_its_own_scale(folder):
    graph = onnx.load(folder / 'int8.onnx').graph
    held = {t.name: list(t.dims) for t in graph.initializer}
    made = {o: n for n in graph.node for o in n.output}
    for c in (n for n in graph.node if n.op_type == 'Conv'):
        weight = made[c.input[1]]
        assert held[weight.input[1]] == held[weight.input[0]][:1]


def test_boxes_and_scores_stay_near(folder):
    photos = [Image.open(p) for p in sorted((folder / 'photos').glob('*.png'))]
    both = [OnnxDetector(folder / f'{n}.onnx') for n in ('d', 'int8')]
    inputs = np.stack([both[0].input_of(p.convert('RGB')) for p in photos])
    best = [[f['scores'][0] for f in d.detect_batch(inputs, 0, None)] for d in both]
    np.testing.assert_allclose(*best, atol=0.1)
    assert best[0] != best[1]
    assert both[0].vocab == both[1].vocab


def test_the_network_may_be_used_without_photos_it_can_read(folder, tmp_path):
    (tmp_path / 'a.jpg').write_text('no picture')
    with pytest.raises(DataError, match='a.jpg'):
        lesson.quantise(folder / 'd.onnx', tmp_path, tmp_path / 'out.onnx')
    with pytest.raises((DataError, DetectorError)):
        lesson.quantise(folder / 'd.onnx', folder / 'nowhere', tmp_path / 'out.onnx')
    assert not (tmp_path / 'out.onnx').exists()


def run(folder, *args):
    args = ('export', '--detector', folder / 'd.pt', '--int8', folder / 'photos', *args)
    done = CliRunner().invoke(main, [str(a) for a in args])
    return done.exit_code, done.output


def test_the_command_refuses_what_loses_too_much(folder, tmp_path, monkeypatch):
    lost = {}
    said = dict(map50=[0.8, 0.7], map=[0.5, 0.4], ms=[20.0, 10.0], speedup=2.0)
    monkeypatch.setattr(lesson, 'cost_of', lambda *a, **k: dict(said, **lost))
    args = '--data', 'generated', '--out', tmp_path / 'out.onnx'
    lost['lost'] = 0.02
    code, text = run(folder, *args)
    assert code == 2
    assert '--anyway' in text
    assert not (tmp_path / 'out.onnx').exists()
    code, text = run(folder, *args, '--anyway')
    assert (code, (tmp_path / 'out.onnx').is_file()) == (0, True)
    lost['lost'] = 0.0199
    code, text = run(folder, '--data', 'generated', '--out', tmp_path / 'second.onnx')
    assert (code, '2.00 times as fast' in text) == (0, True)
    assert OnnxDetector(tmp_path / 'second.onnx').vocab == Detector.load(folder / 'd.pt').vocab
