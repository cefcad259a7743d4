"A detector as an ONNX graph: what it calculates, what it refuses, and that it needs no PyTorch"

import json, subprocess, sys, threading
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError
from ssd_tutorial.detector import Detector
from ssd_tutorial.records import generated_data
from small import untrained

onnx = pytest.importorskip('onnx')
runtime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from ssd_tutorial.onnx_detector import OnnxDetector, square_input  # noqa: E402
from ssd_tutorial.onnx_export import export_onnx, graph_of, with_nms, with_notes  # noqa: E402


SOME = [
    ('fcos', 128, dict(width=16)),
    ('ssd', 128, dict(body='mobilenetv3_small_050', width=16, fit='pad')),
]


@pytest.mark.parametrize('arch,size,more', SOME, ids=[a for a, *_ in SOME])
def test_detections_agree(arch, size, more, tmp_path):
    det = untrained(arch, size, **more)
    light = OnnxDetector(export_onnx(det, tmp_path / 'd.onnx'))
    photos = [r.load() for r in generated_data('multiscale', 4, 2, size=150).train]
    photos += [photos[0].crop((0, 0, 150, 60)), Image.new('RGB', (40, 90), 'red')]
    least = np.quantile([d.scores.max() for d in det.predict(photos, score=0)], 0.1) * 0.9
    total = 0
    for a, b in zip(det.predict(photos, score=least), light.predict(photos, score=least)):
        assert len(a) == len(b)
        assert sorted(a.labels) == sorted(b.labels)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
        np.testing.assert_allclose(
            sorted(a.boxes_px.tolist()), sorted(b.boxes_px.tolist()), atol=0.05
        )
        total += len(a)
    assert total


RAW = dict(
    animals=Detector.pretrained,
    ssd300=lambda: untrained('ssd300', 300),
    timm=lambda: untrained('ssd', 128, body='mobilenetv3_small_050', width=16),
    fcos=lambda: untrained('fcos', 128, width=16),
)


@pytest.mark.parametrize('make', RAW.values(), ids=RAW)
def test_raw_graphs(make):
    "One image and four"
    det = make()
    session = runtime.InferenceSession(graph_of(det).SerializeToString())
    for n in (1, 4):
        images = torch.rand(n, 3, det.size, det.size)
        with torch.no_grad():
            ours = det.model(images)
        for a, b in zip(ours, session.run(None, dict(images=images.numpy())), strict=True):
            assert a.abs().max() > 1e-3
            np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    det = untrained('grid', 96, width=16)
    return det, export_onnx(det, tmp_path_factory.mktemp('onnx') / 'small.onnx')


def test_no_torch(small, tmp_path):
    "Neither the class nor the command imports it"
    Image.new('RGB', (50, 40), 'blue').save(tmp_path / 'a.png')
    program = (
        'import sys; sys.modules.update(torch=None, torchvision=None, fastai=None, timm=None)\n'
        f'from ssd_tutorial.onnx_detector import OnnxDetector\n'
        f'print(len(OnnxDetector({str(small[1])!r}).predict([{str(tmp_path / "a.png")!r}])))\n'
        'from ssd_tutorial.cli import main\n'
        f'main(["predict", {str(tmp_path / "a.png")!r}, "--detector", {str(small[1])!r}, '
        f'"--out", {str(tmp_path / "out")!r}])'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('1\n')
    assert (tmp_path / 'out' / 'predictions.json').is_file()


@pytest.mark.parametrize('wh', [(300, 200), (31, 97), (1, 1), (700, 3)])
def test_square_without_antialias(wh):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (wh[1], wh[0], 3), dtype=np.uint8)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255,
        (64, 64),
        mode='bilinear',
        align_corners=False,
    )[0]
    ours = square_input(Image.fromarray(pixels), 64, antialias=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def changed(small, path, **notes):
    graph = onnx.load(small[1])
    head = json.loads(next(p.value for p in graph.metadata_props if p.key == 'ssd_tutorial'))
    onnx.helper.set_model_props(graph, dict(ssd_tutorial=json.dumps({**head, **notes})))
    path.write_bytes(graph.SerializeToString())
    return path


WRONG = [
    dict(whole=False),
    dict(vocab=['background']),
    dict(vocab=['cat', 'dog']),
    dict(vocab='background'),
    dict(vocab=['background', 'cat', 'cat']),
    dict(size=10**9),
    dict(size=True),
    dict(size=128),
    dict(score=7),
    dict(score=None),
    dict(category_ids=[1]),
    dict(description=None),
    dict(description=dict(fit='own')),
]


@pytest.mark.parametrize('notes', WRONG, ids=str)
def test_notes_are_checked(small, tmp_path, notes):
    with pytest.raises(DetectorError, match='d.onnx'):
        OnnxDetector(changed(small, tmp_path / 'd.onnx', **notes))


def test_damaged_files(small, tmp_path):
    whole = small[1].read_bytes()
    path = tmp_path / 'd.onnx'
    for content in (b'', b'hello', whole[: len(whole) // 2], whole[:200]):
        path.write_bytes(content)
        with pytest.raises(DetectorError, match='d.onnx'):
            OnnxDetector(path)


BOXES = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[B,3,96,96] images, float[1] score, float[1] overlap)
  => (float[D,4] boxes_xyxy, float[D] found_scores, int64[D] labels, int64[D] image)
{
  boxes_xyxy = Constant <value = float[1,4] {%s}> ()
  found_scores = Constant <value = float[1] {%s}> ()
  labels = Constant <value = int64[1] {%s}> ()
  %s
}
"""
USUAL = '0.0,0.0,1.0,1.0', '0.9', '1', 'image = Constant <value = int64[1] {0}> ()'


def by_hand(small, path, *parts):
    path.write_bytes(with_notes(onnx.parser.parse_model(BOXES % parts), small[0], True))
    return path


@pytest.mark.parametrize(
    'place,part,says',
    [
        (0, '0.0,0.0,1.0,9.0', 'no fractions'),
        (0, '-3.0,0.0,1.0,1.0', 'no fractions'),
        (1, '7.0', 'no fractions'),
        (2, '0', 'no name'),
        (2, '99', 'no name'),
        (3, 'image = Constant <value = int64[1] {5}> ()', 'were not given'),
        (3, 'image = Constant <value = int64[1] {-1}> ()', 'were not given'),
        (3, 'image = Constant <value = int64[2] {0,0}> ()', 'arrays of'),
        (
            3,
            'n = Constant <value_ints = [5, 7]> () z = Reshape (images, n) '
            'm = ReduceMax <keepdims = 0> (z) image = Cast <to = 7> (m)',
            'cannot be run',
        ),
        (
            3,
            'n = Constant <value_ints = [1000000, 1000000]> () z = ConstantOfShape (n) '
            'm = ReduceMax <keepdims = 0> (z) image = Cast <to = 7> (m)',
            'cannot be run',
        ),
    ],
)
def test_what_a_graph_gives_is_checked(small, tmp_path, place, part, says):
    photo = Image.new('RGB', (50, 40))
    assert len(OnnxDetector(by_hand(small, tmp_path / 'a.onnx', *USUAL)).predict(photo)) == 1
    parts = [part if i == place else usual for i, usual in enumerate(USUAL)]
    light = OnnxDetector(by_hand(small, tmp_path / 'd.onnx', *parts))
    with pytest.raises(DetectorError, match='d.onnx: .*' + says):
        light.predict(photo)


def outside(graph):
    weight = graph.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, 'beside.bin')
    weight.ClearField('raw_data')


def sparse(graph):
    graph.graph.sparse_initializer.add().dims.append(3)


def function(graph):
    graph.functions.add().name = 'f'


def loop(graph):
    graph.graph.node[0].attribute.add().g.name = 'body'


def constant_outside(graph):
    tensor = graph.graph.node[0].attribute.add().t
    tensor.data_location = onnx.TensorProto.EXTERNAL


@pytest.mark.parametrize(
    'change,says',
    [
        (outside, 'another file'),
        (constant_outside, 'another file'),
        (sparse, 'sparse'),
        (function, 'functions'),
        (loop, 'graph within'),
    ],
)
def test_more_than_arithmetic_is_refused(small, tmp_path, change, says):
    graph = onnx.load(small[1])
    change(graph)
    (tmp_path / 'd.onnx').write_bytes(graph.SerializeToString())
    (tmp_path / 'beside.bin').write_bytes(bytes(10**6))
    with pytest.raises(DetectorError, match=says):
        OnnxDetector(tmp_path / 'd.onnx')


def test_a_second_reading_is_not_to_be_had(small, tmp_path):
    "What the look through the file cannot read, the runtime is not given either"
    whole = small[1].read_bytes()
    for more in (b'\x3b', b'\x3c', b'\xba\x80\x80\x80\x80\x01\x00', b'\x3a\xff'):
        (tmp_path / 'd.onnx').write_bytes(whole + more)
        with pytest.raises(DetectorError, match='not an ONNX file'):
            OnnxDetector(tmp_path / 'd.onnx')


def test_a_graph_of_something_else(tmp_path):
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) {y = Floor (x)}'
    )
    graph = onnx.parser.parse_model(text)
    for notes in ({}, dict(ssd_tutorial='['), dict(ssd_tutorial='[' * 100_000)):
        onnx.helper.set_model_props(graph, notes)
        onnx.save(graph, tmp_path / 'd.onnx')
        with pytest.raises(DetectorError, match='no description by ssd_tutorial'):
            OnnxDetector(tmp_path / 'd.onnx')


def test_notes_without_their_graph(small, tmp_path):
    "The right words beside another graph"
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) {y = Floor (x)}'
    )
    (tmp_path / 'd.onnx').write_bytes(with_notes(onnx.parser.parse_model(text), small[0], True))
    with pytest.raises(DetectorError, match='its inputs are x'):
        OnnxDetector(tmp_path / 'd.onnx')


def run(*args):
    done = CliRunner().invoke(main, [str(a) for a in args])
    return done.exit_code, done.output


def test_command(small, tmp_path):
    path = small[0].save(tmp_path / 'd.pt')
    code, text = run('export', '--detector', path, '--out', tmp_path / 'd.onnx')
    assert (code, 'd.onnx' in text) == (0, True)
    assert OnnxDetector(tmp_path / 'd.onnx').vocab == small[0].vocab
    Image.new('RGB', (50, 40)).save(tmp_path / 'a.png')
    (tmp_path / 'b.jpg').write_text('no picture')
    args = tmp_path / 'a.png', tmp_path / 'b.jpg', '--detector', tmp_path / 'd.onnx'
    code, text = run('predict', *args, '--out', tmp_path / 'out')
    assert code == 2
    assert 'b.jpg' in text
    assert json.loads((tmp_path / 'out' / 'predictions.json').read_text()) == []
    code, text = run('predict', tmp_path / 'a.png', '--detector', tmp_path / 'none.onnx')
    assert code == 2
    assert 'no such file' in text


def test_merging_twice_is_refused(small):
    with pytest.raises(ValueError):
        with_nms(onnx.load(small[1]))


def test_a_file_is_measured_like_its_detector(small):
    data = generated_data('multiscale', 2, 6, size=96)
    light = OnnxDetector(small[1])
    ours = small[0].evaluate(data.valid, data.vocab, progress=False)
    theirs = light.evaluate(data.valid, data.vocab, progress=False)
    assert theirs.map50 == pytest.approx(ours.map50, abs=1e-4)


def test_a_folder_is_opened_ahead(small, tmp_path, monkeypatch):
    "In threads; order, names and what cannot be read are as without"
    for i, r in enumerate(generated_data('multiscale', 9, 1, size=96).train):
        r.load().save(tmp_path / f'{i}.png')
    (tmp_path / '3.png').write_text('no picture')
    light, where, real = OnnxDetector(small[1]), set(), OnnxDetector.input_of

    def noted(self, *args):
        where.add(threading.current_thread())
        return real(self, *args)

    monkeypatch.setattr(OnnxDetector, 'input_of', noted)
    both = []
    for ahead in ({}, dict(ahead=0)):
        bad = []
        paths = sorted(tmp_path.glob('*.png'))
        found = light.predict_stream(paths, 0.2, bs=3, unreadable=bad, **ahead)
        said = [(d.image_id, d.file_name, d.boxes_px.tolist()) for d in found]
        both.append((said, bad, threading.main_thread() in where))
        where.clear()
    assert both[0][:2] == both[1][:2]
    assert [name for _, name, _ in both[0][0]] == [f'{i}.png' for i in range(9) if i != 3]
    assert len(both[0][1]) == 1
    assert (both[0][2], both[1][2]) == (False, True)
