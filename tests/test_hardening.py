"""What enters is checked at the door, what leaves is whole, and odd surroundings end nothing."""

import io
import json
import os
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import ssd_tutorial.runs as R
from ssd_tutorial.results import picture_paths, write_predictions
from ssd_tutorial.detections import Detections, save_results
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.runs import last_path, read_last
from ssd_tutorial.saved import read_saved, shipped_path
from ssd_tutorial.trainer import detector_learner, new_detector
from ssd_tutorial.runs import train_detector
from ssd_tutorial.checks import check_record
from ssd_tutorial.faults import DataError
from ssd_tutorial.pictures import image_size
from ssd_tutorial.records import generated_data, make_record
from ssd_tutorial.pictures import open_header, open_image, upright_hw
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.checkpoints import load_training_state, training_state
from ssd_tutorial.system import WriteError, usable_workers

SMALL = dict(arch='grid', size=64, width=8, body='test_efficientnet', weights='none')


@pytest.fixture(scope='module')
def data():
    return generated_data('multiscale', 8, 4, size=64)


@pytest.fixture(scope='module')
def small(data, tmp_path_factory):
    "A detector's file of half a megabyte"
    return new_detector(data, TrainConfig(**SMALL)).save(tmp_path_factory.mktemp('small') / 'd.pt')


@pytest.fixture
def photo(tmp_path):
    def make(name='a.jpg', size=(64, 48), **how):
        pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(tmp_path / name, **how)
        return tmp_path / name

    return make


def orientation(k):
    exif = Image.Exif()
    exif[0x0112] = k
    return exif


def refusal(f, error=DataError):
    with pytest.raises(error) as e:
        f()
    return str(e.value)


# ---------------------------------------------------------------- pictures
@pytest.mark.parametrize('k', range(1, 9))
@pytest.mark.parametrize(
    'suffix,how',
    [('jpg', {}), ('png', {}), ('webp', {}), ('tif', {}), ('tif', dict(compression='tiff_lzw'))],
)
def test_one_frame_for_all(photo, suffix, how, k):
    "The check, the header and the opened picture agree on height and width, TIFF or not"
    path = photo(f'a.{suffix}', (100, 40), exif=orientation(k), **how)
    right = (40, 100) if k < 5 else (100, 40)
    with open_header(path) as head:
        assert upright_hw(head) == (right, k)
    record, _ = check_record(make_record(path, 0, None, []), ('background', 'a'))
    assert record.size_hw == image_size(path) == open_image(path).size[::-1] == right
    assert open_image(open_image(path)).size[::-1] == right  # turned once


def test_sound_boxes_of_a_lying_tiff_stay(photo):
    path = photo('a.tif', (100, 40), exif=orientation(6))
    found = dict(box_px=[5, 10, 35, 80], label=1)
    for declared in ((100, 40), None):
        record = make_record(path, 0, None, [found], declared_hw=declared)
        checked, faults = check_record(record, ('background', 'a'))
        assert not faults
        assert checked.boxes_px.tolist() == [[5, 10, 35, 80]]


def test_damaged_exif_is_no_damaged_picture(photo):
    """One wrong byte in the EXIF header: the same verdict for the check, the picture,
    and the picture once more."""
    path = photo(exif=orientation(6))
    b = path.read_bytes()
    for mark in (b'MM\0*', b'II*\0'):
        b = b.replace(mark, mark[:2] + b'\0\0')
    path.write_bytes(b)
    img = open_image(path)
    assert open_image(img).tobytes() == img.tobytes()
    assert image_size(path) == img.size[::-1]
    assert check_record(make_record(path, 0, None, []), ('background', 'a'))[0].size_hw == (48, 64)


def png(w, h, depth=1, pixels=b''):
    chunk = lambda k, d: len(d).to_bytes(4, 'big') + k + d + zlib.crc32(k + d).to_bytes(4, 'big')
    size = w.to_bytes(4, 'big') + h.to_bytes(4, 'big') + bytes([depth, 0, 0, 0, 0])
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
    )


def blank(w, h):
    "All pixels of a black PNG, a row at a time"
    z = zlib.compressobj(9)
    return b''.join(z.compress(bytes(1 + (w + 7) // 8)) for _ in range(h)) + z.flush()


@pytest.mark.parametrize(
    'wh,says',
    [
        ((13_000, 13_000), '169 million pixels'),
        ((96, 1_769_536), '170 million pixels'),
        ((40, 70_000), 'a side may have 65535 pixels'),
        ((12_000, 12_000), 'cannot come out of'),
    ],
)
def test_canvases_that_no_camera_makes(wh, says, tmp_path):
    "Refused by name, before anything is decoded: the answer does not wait for the pixels"
    path = tmp_path / 'odd.png'
    path.write_bytes(png(*wh, pixels=blank(*wh)))
    for ask in (open_image, image_size, open_header):
        start = time.process_time()
        assert says in (said := refusal(lambda ask=ask: ask(path)))
        assert 'odd.png' in said
        assert time.process_time() - start < 1
    record = make_record(path, 0, None, [])
    assert says in refusal(lambda: check_record(record, ('background', 'a')))


def test_honest_large_pictures_pass(tmp_path):
    "What cameras, scanners and panoramas make: only the header is looked at here"
    page = b'\x55\xaa' * 20_000  # 40 kB: a page of text at 600 dpi
    for w, h, size in ((11_000, 9000, 30_000_000), (4960, 7016, 40_000), (20_000, 120, 9000)):
        (tmp_path / 'a.png').write_bytes(png(w, h, pixels=page if size == 40_000 else b''))
        with open(tmp_path / 'a.png', 'ab') as f:
            f.truncate(size)
        assert open_header(tmp_path / 'a.png').size == (w, h)
    assert open_header(io.BytesIO(png(4000, 4000))).size == (4000, 4000)


def test_first_frame_only(tmp_path):
    frames = [Image.new('RGB', (64, 48), c) for c in ('red', 'green', 'blue')]
    for suffix in ('webp', 'gif', 'png'):
        path = tmp_path / f'a.{suffix}'
        how = dict(lossless=True) if suffix == 'webp' else {}
        frames[0].save(path, save_all=True, append_images=frames[1:] * 50, **how)
        assert open_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_no_format_starts_a_program(tmp_path, monkeypatch):
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.eps')
    (tmp_path / 'a.eps').rename(tmp_path / 'holiday.jpg')

    def start(*args, **kwargs):
        raise AssertionError('a program was started')

    monkeypatch.setattr(subprocess, 'check_call', start)
    monkeypatch.setattr(subprocess, 'Popen', start)
    assert 'holiday.jpg: not a readable image' in refusal(
        lambda: open_image(tmp_path / 'holiday.jpg')
    )


def test_names_of_pictures_in_memory(photo):
    "A damaged picture is called by its file, else by its place in the list, never by its repr"
    path = photo()
    path.write_bytes(path.read_bytes()[:-60])
    lazy = Image.open(path)
    assert refusal(lambda: open_image(lazy)).startswith(f'{path}: not a readable image')
    held = io.BytesIO(path.read_bytes())
    assert refusal(lambda: open_image(held)).startswith('the picture: not a readable image')
    det = Detector.pretrained()
    sound = np.zeros((20, 20, 3), np.uint8)
    said = refusal(lambda: det.predict([sound, held], progress=False))
    assert said.startswith('picture 2 of 2: not a readable image')
    assert ' at 0x' not in said
    det.predict([sound, held], progress=False, unreadable=(bad := []))
    assert [why.split(':')[0] for _, why in bad] == ['picture 2 of 2']


@pytest.mark.parametrize('white,bits', [(255, 8), (4095, 12), (65535, None)])
@pytest.mark.parametrize('suffix', ['png', 'tif', None])
def test_sixteen_bits(tmp_path, suffix, white, bits):
    """A ramp from black to white comes out as one, whatever the depth of the sensor;
    another depth is said."""
    ramp = np.linspace(0, white, 256).round().astype(np.uint16).reshape(16, 16)
    what = ramp
    if suffix:
        what = tmp_path / f'a.{suffix}'
        Image.fromarray(ramp).save(what)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        got = np.int32(open_image(what))[..., 0].ravel()
    assert np.abs(got - np.arange(256)).max() <= 1
    assert got[-1] == 255
    words = [str(w.message) for w in said]
    assert words == (
        [f'A picture of 16 bits has nothing above {white}: it is read as one of {bits} bits.']
        if bits
        else []
    )


def test_numbers_beyond_16_bits_are_refused_everywhere(tmp_path):
    Image.fromarray(np.full((9, 9), 10**6, np.int32)).save(tmp_path / 'a.tif')
    for ask in (open_image, image_size):
        assert 'scale them' in refusal(lambda ask=ask: ask(tmp_path / 'a.tif'))


# ---------------------------------------------------------------- detectors
def rewritten(path, to, change_head=None, change_state=None):
    d = torch.load(path, weights_only=True)
    head, state = json.loads(d['json']), dict(d['state'])
    if change_head:
        change_head(head)
    if change_state:
        change_state(state)
    torch.save(dict(json=json.dumps(head), state=state), to)
    return to


def set_(*keys, value):
    def change(head):
        for k in keys[:-1]:
            head = head[k]
        head[keys[-1]] = value

    return change


HEADS = [
    (set_('vocab', value=['background', 'a', 'a', 'b', 'c', 'd']), 'its vocab'),
    (set_('vocab', value=['background', '', 'a', 'b', 'c', 'd']), 'its vocab'),
    (set_('vocab', value={'a': 1}), 'its vocab'),
    (set_('vocab', value=['background', 'a']), 'names'),
    (set_('size', value='224'), 'its size'),
    (set_('size', value=10**30), 'its size'),
    (set_('size', value=True), 'its size'),
    (set_('score', value=float('nan')), 'its score'),
    (set_('score', value=2), 'its score'),
    (set_('category_ids', value=[1, 2]), 'category_ids'),
    (set_('category_ids', value=['a'] * 6), 'category_ids'),
    (set_('coder', value={'kind': 'polar'}), 'coder'),
    (set_('coder', value={'kind': 'log', 'variances': [0.1]}), 'coder'),
    (set_('coder', value={'kind': 'log', 'speed': 1}), 'coder'),
    (set_('format', value='1'), 'format'),
    (set_('description', value=[]), 'its description'),
    (set_('description', 'arch', value='grit'), "'grit'"),
    (set_('description', 'arch', value=['grid']), 'arch'),
    (set_('description', 'levels', value=[9]), 'strides'),
    (set_('description', 'levels', value='34'), 'levels'),
    (set_('description', 'activation', value=None), 'activation'),
    (set_('description', 'n_classes', value=5.0), 'n_classes'),
    (set_('description', 'width', value=4096), 'should be'),
    (set_('description', 'width', value=10**9), 'width'),
    (set_('description', 'spec', value=None), 'spec'),
    (set_('description', 'spec', 'levels', 0, 'cells', value=10**9), 'spec'),
    (set_('description', 'spec', 'levels', 0, 'cells', value=3), 'anchors are for'),
    (set_('description', 'spec', 'levels', 0, 'shapes', value=[[0, 0, {}, 1]]), 'spec'),
    (set_('description', 'activation', value='relu'), 'activation'),
    (set_('description', 'body_settings', value={'depth': 3}), 'depth'),
]


@pytest.mark.parametrize('change,says', HEADS, ids=lambda v: v if isinstance(v, str) else '')
def test_description_is_checked(small, tmp_path, change, says):
    path = rewritten(small, tmp_path / 'odd.pt', change)
    said = refusal(lambda: Detector.load(path), DetectorError)
    assert said.startswith(str(path))
    assert says in said
    assert '\n' not in said


def first(state, change):
    k = next(k for k, v in state.items() if v.is_floating_point() and v.dim() > 1)
    state[k] = change(state[k])


STATES = [
    (lambda s: s.pop(next(iter(s))), 'lack'),
    (lambda s: s.update(more=torch.zeros(1)), 'has not'),
    (lambda s: first(s, lambda v: v[:-1].clone()), 'should be'),
    (lambda s: first(s, lambda v: v.to(torch.int64)), 'should be'),
    (lambda s: first(s, lambda v: v * float('nan')), 'not finite'),
    (lambda s: first(s, lambda v: torch.zeros(1).expand(10**6, 10**6)), 'no tensor of this file'),
    (lambda s: first(s, lambda v: v.to_sparse()), 'no tensor of this file'),
    (lambda s: s.update(more=3), 'no tensor of this file'),
]


@pytest.mark.parametrize('change,says', STATES, ids=lambda v: v if isinstance(v, str) else '')
def test_weights_are_checked(small, tmp_path, change, says):
    path = rewritten(small, tmp_path / 'odd.pt', change_state=change)
    said = refusal(lambda: Detector.load(path), DetectorError)
    assert said.startswith(str(path))
    assert says in said
    assert '\n' not in said


@pytest.mark.parametrize(
    'name', ['hf-hub:evil/model', 'hf_hub:evil/model', 'local-dir:/etc', 'resnet9000']
)
def test_unknown_body_reaches_nobody(small, tmp_path, name, monkeypatch):
    import timm

    def create(*args, **kwargs):
        raise AssertionError('timm was asked for it')

    monkeypatch.setattr(timm, 'create_model', create)
    path = rewritten(small, tmp_path / 'evil.pt', set_('description', 'body', value=name))
    assert f'no body {name!r} is known' in refusal(lambda: Detector.load(path), DetectorError)


def test_large_body_with_small_weights_fills_no_memory(small, tmp_path):
    """A description may name any network of timm's;
    one of a billion weights is not built to find that out."""
    path = rewritten(
        small, tmp_path / 'giant.pt', set_('description', 'body', value='resnetv2_152x4_bit')
    )
    before = psutil.Process().memory_info().rss
    assert 'giant.pt' in refusal(lambda: Detector.load(path), DetectorError)
    assert psutil.Process().memory_info().rss - before < 5e8


def test_one_bit(small, tmp_path):
    """A flipped bit of the weights is noticed, in our own files and in the one that was shipped
    before anybody looked."""
    rng = np.random.default_rng(0)
    for path in (small, shipped_path('animals')):
        whole = path.read_bytes()
        with zipfile.ZipFile(path) as z:
            data = max(z.infolist(), key=lambda i: i.file_size)
        for _ in range(5):
            b = bytearray(whole)
            b[data.header_offset + 200 + int(rng.integers(data.file_size - 300))] ^= 1 << int(
                rng.integers(8)
            )
            (tmp_path / 'flipped.pt').write_bytes(b)
            said = refusal(lambda: Detector.load(tmp_path / 'flipped.pt'), DetectorError)
            assert 'the checksum of' in said
            assert 'flipped.pt' in said
    read_saved(small)
    read_saved(shipped_path('animals'))


def test_zip_bomb(tmp_path):
    "Four megabytes that promise four gigabytes are refused by their own words"
    with zipfile.ZipFile(tmp_path / 'bomb.pt', 'w', zipfile.ZIP_DEFLATED) as z:
        with z.open('archive/data.pkl', 'w', force_zip64=True) as f:
            for _ in range(200):
                f.write(bytes(10**6))
    before = psutil.Process().memory_info().rss
    assert 'unpack into more' in refusal(lambda: Detector.load(tmp_path / 'bomb.pt'), DetectorError)
    (tmp_path / 'last.ckpt').write_bytes((tmp_path / 'bomb.pt').read_bytes())
    assert 'not a readable checkpoint' in refusal(
        lambda: read_last(tmp_path / 'd.pt'), DetectorError
    )
    assert psutil.Process().memory_info().rss - before < 5e7


def test_half_precision_and_older_files_load(small, tmp_path):
    det = Detector.load(small)
    assert Detector.load(det.save(tmp_path / 'half.pt', half=True)).vocab == det.vocab
    old = rewritten(
        small,
        tmp_path / 'old.pt',
        lambda h: [h.pop(k) for k in ('format', 'score', 'category_ids')],
    )
    assert Detector.load(old).score == 0.3


# ---------------------------------------------------------------- last.ckpt
@pytest.fixture(scope='module')
def stopped(data, tmp_path_factory):
    """A run that was interrupted after the first of two epochs:
    (detector's file, last.ckpt as bytes)."""
    from fastai.callback.core import Callback

    class Stop(Callback):
        order = 80

        def before_epoch(self):
            if self.epoch:
                raise KeyboardInterrupt

    out = tmp_path_factory.mktemp('run') / 'd.pt'
    cfg = TrainConfig(**SMALL, frozen_epochs=2, epochs=0, bs=4, strength=0.1)
    with pytest.raises(KeyboardInterrupt):
        train_detector(data, cfg, False, out, cbs=[Stop()])
    return out, last_path(out).read_bytes()


LASTS = [
    (set_('out', value='../../x.pt'), 'its out'),
    (set_('out', value='/etc/x.pt'), 'its out'),
    (set_('out', value=3), 'its out'),
    (set_('finished', value='no'), 'its finished'),
    (set_('cfg', value=[]), 'its cfg'),
    (set_('cfg', 'size', value={}), 'its cfg'),
    (set_('cfg', 'epochs', value='many'), 'its cfg'),
    (set_('cfg', 'colour', value=1), 'its cfg'),
    (set_('cfg', 'coder', value='polar'), "No coder 'polar'"),
    (set_('cfg', 'recipe', value='stew'), "No recipe 'stew'"),
    (set_('data', value=None), 'its data'),
    (set_('data', 'vocab', value='abc'), 'its data'),
    (set_('phase', value=-1), 'its phase'),
    (set_('epoch', value=0.5), 'its epoch'),
    (set_('epoch', value=0), 'its rows'),
    (set_('images', value=[{}, {}]), 'its images'),
    (set_('images', 0, 'rng', value=(3, (1, 2), None)), 'its images'),
    (set_('state', value=[]), 'its state'),
    (set_('state', 'rows', value=[1, 2]), 'its state'),
    (set_('state', 'model', value={}), 'model is of another'),
    (set_('state', 'best', value=[1.0, {'a': 3}]), 'best is of another'),
    (set_('state', 'opt', 'state', value=[]), 'opt is of another'),
    (set_('state', 'opt', 'hypers', 0, 'lr', value='fast'), 'opt is of another'),
    (set_('state', 'smooth', value=['a', 'b']), 'smooth is of another'),
    (set_('state', 'numbers', 'torch', value=torch.zeros(3)), 'not a readable checkpoint'),
    (set_('format', value=[1]), 'it has no format'),
]


@pytest.mark.parametrize('change,says', LASTS, ids=lambda v: v if isinstance(v, str) else '')
def test_checkpoint_is_checked(data, stopped, tmp_path, change, says):
    out, good = stopped
    d = torch.load(io.BytesIO(good), weights_only=True)
    change(d)
    out = tmp_path / 'inner' / 'd.pt'
    out.parent.mkdir()
    torch.save(d, last_path(out))
    start = time.process_time()
    said = refusal(
        lambda: train_detector(data, TrainConfig(), False, out, resume=True), DetectorError
    )
    assert says in said
    assert 'last.ckpt' in said
    assert '--resume' in said
    assert '\n' not in said
    assert time.process_time() - start < 20
    assert [p.name for p in tmp_path.rglob('*') if p.is_file()] == ['last.ckpt']


def test_version_comes_first(stopped, tmp_path):
    "A checkpoint of another format is told so, whatever else it holds"
    torch.save(dict(format=99, everything='else'), tmp_path / 'last.ckpt')
    assert 'format 99' in refusal(lambda: read_last(tmp_path / 'd.pt'), DetectorError)


def test_sound_checkpoint_goes_on(data, stopped, tmp_path):
    out = tmp_path / 'd.pt'
    last = torch.load(io.BytesIO(stopped[1]), weights_only=True)
    last.pop('writer')  # as an earlier version wrote it
    torch.save(last, last_path(out))
    assert len(train_detector(data, TrainConfig(), False, out, resume=True)[1]) == 2


def test_bit_in_a_checkpoint(stopped, tmp_path):
    b = bytearray(stopped[1])
    b[len(b) // 2] ^= 4
    last_path(tmp_path / 'd.pt').write_bytes(b)
    assert 'checksum' in refusal(lambda: read_last(tmp_path / 'd.pt'), DetectorError)


def test_state_of_another_network_changes_nothing(data):
    cfg = TrainConfig(**SMALL, bs=4)
    det = new_detector(data, cfg)
    dls = R.make_dls(data, 64, 4, 0.1)
    learn = detector_learner(det, dls, cfg, R.EpochTable(False))
    state = training_state(learn)
    before = {k: v.clone() for k, v in det.model.state_dict().items()}
    wrong = {k: v + 1 if v.is_floating_point() else v for k, v in state['model'].items()}
    wrong.pop(next(iter(wrong)))
    with pytest.raises(ValueError, match='model is of another network'):
        load_training_state(learn, {**state, 'model': wrong})
    assert all(torch.equal(v, before[k]) for k, v in det.model.state_dict().items())


def test_two_trainings_one_folder(data, stopped, tmp_path):
    """While another process trains into a folder, a second one neither takes its last.ckpt away nor
    shares it."""
    p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    try:
        last = torch.load(io.BytesIO(stopped[1]), weights_only=True)
        last['writer'] = [p.pid, psutil.Process(p.pid).create_time(), R.platform.node()]
        torch.save(last, tmp_path / 'last.ckpt')
        whole = (tmp_path / 'last.ckpt').read_bytes()
        cfg = TrainConfig(**SMALL, frozen_epochs=1, epochs=0, bs=4)
        for out, resume in (('d.pt', False), ('other.pt', False), ('d.pt', True)):
            args = (data, TrainConfig() if resume else cfg, False, tmp_path / out, resume)
            run = lambda args=args: train_detector(*args)
            assert f'process {p.pid} is training into this folder' in refusal(run, DetectorError)
        assert (tmp_path / 'last.ckpt').read_bytes() == whole
    finally:
        p.communicate()
    # it has ended: now we may
    train_detector(data, TrainConfig(), False, tmp_path / 'd.pt', resume=True)


# ---------------------------------------------------------------- predict
def found_in(paths):
    return [
        Detections(
            np.float32([[5, 5, 20, 20]]), [1], [0.9], ('background', 'a'), (48, 64), i, p.name
        )
        for i, p in enumerate(paths)
    ]


def test_picture_paths_are_apart_and_quick():
    names = [
        'same.jpg',
        'same.png',
        'same_0.jpg',
        'Same.webp',
        'a/same.jpg',
        '..jpg',
        '...jpg',
        'x' * 251 + '.jpg',
        'x' * 250 + 'y.jpg',
        'é.jpg',
        'é.png',
    ]
    got = [p.name for p in picture_paths('out', names)]
    assert len({n.casefold() for n in got}) == len(names)
    assert got[2] == 'same_0.png'
    assert all(len(n.encode()) <= 255 for n in got)
    paths = [Path(f'd{i % 7}/p{i // 3}.jpg') for i in range(20_000)]
    start = time.process_time()
    assert len(set(picture_paths('out', paths))) == 20_000
    assert time.process_time() - start < 5


def test_one_photo_does_not_cost_the_others(photo, tmp_path, capsys):
    "A photo that vanishes before it is drawn, and names that begin with dots"
    paths = [photo(n) for n in ('a.jpg', 'gone.jpg', 'b.jpg')]
    for name in ('..jpg', '...jpg', '\x1b[31m.jpg'):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(paths[0].read_bytes())
    paths[1].unlink()
    bad = write_predictions(paths, found_in(paths), tmp_path / 'out')
    assert [p.name for p, _ in bad] == ['gone.jpg']
    assert len(json.loads((tmp_path / 'out' / 'predictions.json').read_text())) == 6
    assert len(list((tmp_path / 'out').glob('*.png'))) == 5
    assert '\x1b' not in capsys.readouterr().out


def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')


def test_full_disk(photo, tmp_path, monkeypatch):
    "What was there stays whole, and the message names the file"
    (tmp_path / 'predictions.json').write_text('[1]')
    with monkeypatch.context() as m:
        m.setattr(Path, 'write_text', full)
        assert 'predictions.json' in refusal(
            lambda: save_results([], tmp_path / 'predictions.json'), OSError
        )
    assert (tmp_path / 'predictions.json').read_text() == '[1]'
    assert len(list(tmp_path.iterdir())) == 1
    path = photo()
    with monkeypatch.context() as m:
        m.setattr(Path, 'write_bytes', full)
        assert 'a.png: could not be written' in refusal(
            lambda: write_predictions([path], found_in([path]), tmp_path / 'out'), WriteError
        )
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['predictions.json']


def command(*args, env=None, **how):
    code = 'from ssd_tutorial.cli import main; main()'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})}
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, args)], env=env, timeout=300, **how
    )


@pytest.mark.slow
def test_reader_that_leaves(photo, tmp_path):
    "`predict … | head -1` writes everything"
    paths = [photo(f'{i}.jpg') for i in range(3)]
    code = 'from ssd_tutorial.cli import main; main()'
    ends = os.pipe()
    os.close(ends[0])
    done = subprocess.run(
        [sys.executable, '-c', code, 'predict', *paths, '--out', tmp_path / 'out'],
        stdout=ends[1],
        stderr=subprocess.PIPE,
        timeout=300,
    )
    os.close(ends[1])
    assert done.returncode == 0
    assert b'Error' not in done.stderr
    assert b'Traceback' not in done.stderr
    assert len(list((tmp_path / 'out').iterdir())) == 4


@pytest.mark.slow
def test_consoles_of_few_letters(photo, tmp_path):
    path = photo('ü→猫.jpg')
    done = command(
        'predict',
        path,
        '--out',
        tmp_path / 'out',
        env=dict(PYTHONIOENCODING='cp437'),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'ü??.jpg' in done.stdout.decode('cp437'), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='closes streams the way a shell does')
def test_no_streams_at_all(photo, tmp_path):
    command = f'"{sys.executable}" -c "from ssd_tutorial.cli import main; main()"'
    shell = f'{command} predict "{photo()}" --out "{tmp_path / "out"}" >&- 2>&-'
    assert subprocess.run(shell, shell=True, timeout=300).returncode == 0
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['a.png', 'predictions.json']


def test_no_stderr_in_python(photo, data, tmp_path, monkeypatch):
    "A service without a screen: `sys.stderr` is None"
    from ssd_tutorial.voc import save_voc
    from ssd_tutorial.system import progress_bar

    save_voc(data, tmp_path / 'voc')
    det = Detector.pretrained()
    monkeypatch.setattr(sys, 'stderr', None)
    monkeypatch.setattr(sys, 'stdout', None)
    assert [*progress_bar([1, 2])] == [1, 2]
    assert len(det.predict([photo()] * 17)) == 17
    assert load_dataset(tmp_path / 'voc').train


def test_junk_with_workers_is_one_line(data, tmp_path):
    """A photo that turns to junk while others load it:
    the message is the photo's, without the worker's traceback."""
    from dataclasses import replace

    junk = tmp_path / 'junk.jpg'
    junk.write_text('hello')
    records = [replace(r, image=junk, file_name='junk.jpg') for r in data.train]
    dls = R.make_dls(replace(data, splits={**data.splits, 'train': records}), 64, 4, None, 1)
    said = refusal(lambda: next(iter(dls.train)))
    assert said.startswith(f'{junk}: not a readable image')
    assert '\n' not in said


# ---------------------------------------------------------------- shared memory
@pytest.mark.parametrize('free_mb,workers', [(10_000, 4), (200, 4), (64, 1), (0.25, 0)])
def test_workers_that_shared_memory_holds(free_mb, workers, monkeypatch):
    monkeypatch.setattr(
        os, 'statvfs', lambda p: SimpleNamespace(f_bavail=int(free_mb * 256), f_frsize=4096)
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert usable_workers(4, 16 * 3 * 320 * 320 * 4) == workers
    assert len(said) == (workers < 4)
    assert all('shm-size' in str(w.message) for w in said)


@pytest.mark.slow
def test_training_where_shared_memory_is_small(data, monkeypatch):
    "Two workers are asked for, none fits: the training says so and ends"
    monkeypatch.setattr(os, 'statvfs', lambda p: SimpleNamespace(f_bavail=64, f_frsize=4096))
    seen = []
    make = R.make_dls
    monkeypatch.setattr(R, 'make_dls', lambda *a, **kw: seen.append(a[4]) or make(*a, **kw))
    with pytest.warns(UserWarning, match='going on with 0'):
        train_detector(
            data, TrainConfig(**SMALL, frozen_epochs=1, epochs=0, bs=4, num_workers=2), False
        )
    assert seen == [0]


# ---------------------------------------------------------------- lists of classes beside a table
TABLE = 'p0.jpg,1,2,30,40,0\np0.jpg,20,10,50,30,1\np1.jpg,5,5,30,40,0\np1.jpg,9,9,30,40,1\n'


def table_set(root, classes, table=TABLE):
    (root / 'images').mkdir(parents=True)
    for i in range(2):
        Image.new('RGB', (64, 48), (40 * i, 80, 90)).save(root / 'images' / f'p{i}.png')
    (root / 'labels.csv').write_text(table.replace('.jpg', '.png'))
    (root / 'classes.csv').write_text(classes)
    return root


@pytest.mark.parametrize(
    'classes,says',
    [
        (',0\ndog,1\n', 'line 1: class 0 has no name'),
        ('cat,0\ndog,0\n', "line 2: class 0 is 'dog', and 'cat' above"),
        ('cat,0\ndog;1\n', "line 2: 'dog;1' is no code and a name"),
        ('cat\n\ndog\n', 'line 2 is empty'),
        ('cat,0\n"' + 'd' * 200_000 + '",1\n', 'not readable (field larger than field limit'),
    ],
)
def test_a_damaged_list_of_classes(classes, says, tmp_path):
    "Every object of a class would get the wrong name, or none: no policy goes on"
    root = table_set(tmp_path / 'set', classes)
    for policy in ('raise', 'fix', 'skip'):
        said = refusal(lambda policy=policy: load_dataset(root, policy))
        assert said.startswith(f'{root / "classes.csv"}: ')
        assert says in said


def test_a_class_that_the_list_does_not_know(tmp_path):
    "One damaged class does not turn the codes of all others into names"
    root = table_set(tmp_path / 'set', 'cat,0\ndog,1\n', TABLE.replace('9,30,40,1', '9,30,40,x'))
    assert 'object 1 (x) is none of the 2 classes' in refusal(lambda: load_dataset(root))
    read = load_dataset(root, 'fix')
    assert read.vocab == ('background', 'cat', 'dog')
    assert sum(len(r.labels) for rs in read.splits.values() for r in rs) == 3


def test_the_doctor_where_nothing_can_be_read(tmp_path):
    "Not one class is left: there is a report all the same, as text and as a page"
    from ssd_tutorial.doctor import diagnose

    table = 'image,class,xmin,ymin,xmax,ymax\np0.jpg,cat,1,2,,4\nlost.jpg,,,,,\n'
    root = table_set(tmp_path / 'set', '', table)
    (root / 'classes.csv').unlink()
    found = diagnose(root, progress=False)
    assert found.worst == 'stop'
    assert 'There are no classes.' in str(found)
    assert 'There are no classes.' in found.to_html()
    assert '()' not in str(found)
