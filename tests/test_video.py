"Films: read upright and in time, written so that browsers play them, damaged or not"

import http.server
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.boxes import iou
from ssd_tutorial.cli import main
from ssd_tutorial.commands import _with_videos
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detections import Detections
from ssd_tutorial.faults import DataError
from ssd_tutorial.records import generated_data
from ssd_tutorial.system import WriteError
from ssd_tutorial.trainer import new_detector

av = pytest.importorskip('av')
from ssd_tutorial.clips import Frame, read_frames  # noqa: E402
from ssd_tutorial.movies import FrameWriter, write_video  # noqa: E402
from ssd_tutorial.moving import MovingShapes  # noqa: E402
from ssd_tutorial.video import ahead, annotate_video  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise
SMALL = dict(arch='grid', size=64, width=16, weights='none')
UNEVEN = np.cumsum([0, *[1 / 30] * 11, *[0.1] * 12, *[1 / 30] * 12])  # 36 frames


def film(path, images, times, sound=None, turn=0, codec='libx264'):
    "A film as another program would write it; sound: codec of a tone"
    with av.open(str(path), 'w') as c:
        s = c.add_stream(codec, rate=30)
        s.width, s.height = images[0].size
        s.pix_fmt, s.codec_context.time_base = 'yuv420p', Fraction(1, 1000)
        a = c.add_stream(sound, rate=44100) if sound else None
        for img, t in zip(images, times):
            f = av.VideoFrame.from_image(img)
            f.pts, f.time_base = round(t * 1000), Fraction(1, 1000)
            c.mux(s.encode(f))
        c.mux(s.encode(None))
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(times[-1] * 44100)) / 44100)
        for at in range(0, len(wave) if sound else 0, 1024):
            part = wave[None, at : at + 1024].astype(np.float32)
            f = av.AudioFrame.from_ndarray(part, 'fltp', 'mono')
            f.sample_rate, f.pts, f.time_base = 44100, at, Fraction(1, 44100)
            c.mux(a.encode(f))
        if sound:
            c.mux(a.encode(None))
    if turn:
        data = bytearray(path.read_bytes())
        at = data.find(b'tkhd') + 44
        p, q, r, t = (v << 16 for v in TURNS[turn])
        data[at : at + 36] = struct.pack('>9i', p, q, 0, r, t, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


def stored(img, turn):
    "How a camera that was held turned stores an upright image"
    back = {0: None, 90: Image.ROTATE_90, 180: Image.ROTATE_180, 270: Image.ROTATE_270}[turn]
    return img if back is None else img.transpose(back)


@pytest.fixture(scope='module')
def shapes():
    return MovingShapes(36, (150, 200))


@pytest.fixture(scope='module')
def images(shapes):
    return [img for img, *_ in shapes]


@pytest.fixture(scope='module')
def phone(images, tmp_path_factory):
    "What a phone makes: held upright, in dim light, with sound"
    lying = [stored(img, 90) for img in images]
    return film(tmp_path_factory.mktemp('phone') / 'phone.mp4', lying, UNEVEN, 'aac', 90)


@pytest.fixture(scope='module')
def front(images, tmp_path_factory):
    "A film with its index in front: it can be cut anywhere"
    return write_video(images, tmp_path_factory.mktemp('front') / 'front.mp4', fps=12)


@pytest.fixture(scope='module')
def det():
    return new_detector(generated_data('multiscale', 4, 2, size=64), TrainConfig(**SMALL))


@pytest.fixture(scope='module')
def saved(det, tmp_path_factory):
    return det.save(tmp_path_factory.mktemp('det') / 'd.pt')


def probe(path, *what):
    if not shutil.which('ffprobe'):
        pytest.skip('no ffprobe here: install ffmpeg to have films judged by it')
    said = subprocess.run(
        ['ffprobe', '-v', 'error', *what, '-of', 'json', str(path)], capture_output=True, text=True
    )
    assert not said.stderr, said.stderr
    return json.loads(said.stdout)


def run(*args):
    r = CliRunner().invoke(main, [*map(str, args)])
    return r.exit_code, r.output


def unlike(a, b):
    return np.abs(np.float32(a) - np.float32(b)).mean()


def sounds(path):
    with av.open(str(path)) as c:
        return [(p.pts, bytes(p)) for p in c.demux(audio=0) if p.size]


@pytest.mark.parametrize('turn', TURNS)
def test_upright_whatever_the_header_says(tmp_path, images, turn):
    path = film(tmp_path / 'a.mp4', [stored(i, turn) for i in images[:6]], UNEVEN[:6], turn=turn)
    frames = list(read_frames(path))
    assert len(frames) == 6
    for f, img in zip(frames, images):
        assert f.size_hw == (150, 200)
        assert f.image.size == (200, 150)
        assert unlike(f.image, img) < 6
        assert unlike(f.scaled((64, 48)), img.resize((64, 48), Image.BILINEAR)) < 6


def test_times_are_the_time_stamps(phone):
    reader = read_frames(phone)
    assert reader.info.sound == 'aac'
    assert reader.info.size_wh == (200, 150)
    assert [f.time for f in reader] == pytest.approx(UNEVEN, abs=1e-3)
    assert reader.fault == ''
    assert reader.whole


@pytest.mark.parametrize('every,start,seconds', [(1, 0.5, None), (3, 0.0, 1.0), (2, 0.77, 0.5)])
def test_a_part_of_a_film(phone, every, start, seconds):
    end = float('inf') if seconds is None else start + seconds
    want = [t for t in UNEVEN if start - 1e-3 <= t < end - 1e-3][::every]
    got = [f.time for f in read_frames(phone, every, start, seconds)]
    assert got == pytest.approx(want, abs=1e-3)


def test_start_behind_the_end(phone):
    assert list(read_frames(phone, start=60)) == []


@pytest.mark.parametrize(
    'codec,ending', [('mpeg4', '.avi'), ('libx264', '.ts'), ('libx264', '.mkv')]
)
def test_other_containers(tmp_path, images, codec, ending):
    times = np.arange(10) / 30
    frames = list(read_frames(film(tmp_path / f'a{ending}', images[:10], times, codec=codec)))
    assert [f.time for f in frames] == pytest.approx(times, abs=0.04)
    assert unlike(frames[0].image, images[0]) < 8


@pytest.mark.parametrize('size', [(96, 64), (97, 64), (96, 65), (97, 65), (1, 1), (33, 2)])
def test_sizes(tmp_path, size):
    img = Image.effect_noise(size, 40).convert('RGB')
    path = write_video([img] * 3, tmp_path / 'a.mp4', fps=5)
    info = read_frames(path).info
    assert info.size_wh == tuple(k + k % 2 for k in size)
    assert info.n_frames == 3
    assert info.seconds == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize('side', [128, 720])
def test_colours_survive(tmp_path, side):
    "BT.601 below 720 lines, BT.709 from there on, and readers know which"
    colours = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (240, 240, 240), (10, 10, 10)]
    path = write_video([Image.new('RGB', (side, side), c) for c in colours], tmp_path / 'a.mp4')
    for f, c in zip(read_frames(path), colours, strict=True):
        assert np.abs(np.asarray(f.image)[side // 2, side // 2] - np.array(c)).max() <= 6, c


def test_what_ffprobe_says(tmp_path, phone):
    out = write_video(read_frames(phone), tmp_path / 'a.mp4', sound=phone)
    said = probe(out, '-show_streams', '-show_format')
    video, audio = said['streams']
    assert (video['codec_name'], video['pix_fmt']) == ('h264', 'yuv420p')
    assert (video['width'], video['height']) == (200, 150)
    assert int(video['nb_frames']) == 36
    assert audio['codec_name'] == 'aac'
    times = [
        float(f['pts_time']) for f in probe(out, '-show_frames', '-select_streams', 'v')['frames']
    ]
    assert times == pytest.approx(UNEVEN, abs=1e-3)
    data = out.read_bytes()
    assert data.find(b'moov') < data.find(b'mdat')


def test_sound_is_copied_byte_for_byte(tmp_path, phone):
    out = write_video(read_frames(phone), tmp_path / 'a.mp4', sound=phone)
    assert sounds(out) == sounds(phone)


def test_sound_begins_where_the_pictures_begin(tmp_path, phone):
    with FrameWriter(tmp_path / 'a.mp4', sound=phone, start=1.0) as w:
        for f in read_frames(phone, start=1.0):
            w.write(f, f.time - 1)
    rate = 44100
    assert 0 <= sounds(w.path)[0][0] < 0.05 * rate
    assert len(sounds(w.path)) == pytest.approx((UNEVEN[-1] - 1) * rate / 1024, abs=3)


def test_sound_that_browsers_do_not_know(tmp_path, images):
    path = film(tmp_path / 'a.mkv', images[:12], np.arange(12) / 10, 'flac')
    out = write_video(read_frames(path), tmp_path / 'b.mp4', sound=path)
    with av.open(str(out)) as c:
        assert c.streams.audio[0].codec_context.name == 'aac'
        n = sum(f.samples for f in c.decode(audio=0))
    assert n == pytest.approx(1.1 * 44100, rel=0.05)


def test_planes_pass_through(tmp_path, front):
    "Frames without detections are not converted: another encoding of the same planes"
    out = write_video(read_frames(front), tmp_path / 'a.mp4')
    for a, b in zip(read_frames(front), read_frames(out), strict=True):
        assert unlike(a.image, b.image) < 4
        assert a.time == pytest.approx(b.time, abs=1e-4)


def test_never_over_the_source(tmp_path, front, det):
    path = tmp_path / 'a.mp4'
    shutil.copy(front, path)
    before = path.read_bytes()
    (tmp_path / 'link.mp4').symlink_to(path)
    for out in (path, tmp_path / 'link.mp4', tmp_path / '..' / tmp_path.name / 'a.mp4'):
        with pytest.raises(WriteError, match='would be lost'):
            annotate_video(det, path, out)
    assert path.read_bytes() == before


def test_an_error_leaves_nothing(tmp_path, images):
    def broken():
        yield from images[:3]
        raise RuntimeError('plug')

    with pytest.raises(RuntimeError, match='plug'):
        write_video(broken(), tmp_path / 'a.mp4')
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_a_film(tmp_path, images):
    def broken():
        yield from images[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(broken(), tmp_path / 'a.mp4')
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']
    assert len(list(read_frames(tmp_path / 'a.mp4'))) == 3


def test_no_room(tmp_path, images):
    (tmp_path / 'folder').write_text('a file')
    with pytest.raises(WriteError, match='could not be written'):
        write_video(images[:2], tmp_path / 'folder' / 'a.mp4')


def test_cut_off(tmp_path, front):
    path, whole = tmp_path / 'a.mp4', front.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    reader = read_frames(path)
    with pytest.warns(UserWarning, match='breaks off'):
        n = len(list(reader))
    assert 12 <= n < 36
    assert f'after {(n - 1) / 12:.1f} s of 3.0' in reader.fault


def test_damaged_in_the_middle(tmp_path, front):
    path, data = tmp_path / 'a.mp4', bytearray(front.read_bytes())
    at = data.find(b'mdat') + len(data) // 3
    data[at : at + 600] = os.urandom(600)
    path.write_bytes(data)
    reader = read_frames(path)
    with pytest.warns(UserWarning, match='damaged|breaks off'):
        n = len(list(reader))
    assert n >= 12


def no_films(folder, images):
    (folder / 'text.mp4').write_text('not a film')
    (folder / 'empty.mp4').write_bytes(b'')
    images[0].save(folder / 'picture.png')
    (folder / 'picture.png').rename(folder / 'picture.mp4')
    film(folder / 'both.mp4', images[:4], np.arange(4) / 4, 'aac')
    with av.open(str(folder / 'both.mp4')) as a, av.open(str(folder / 'sound.mp4'), 'w') as b:
        have = a.streams.audio[0]
        make = getattr(b, 'add_stream_from_template', None)
        to = make(have) if make else b.add_stream(template=have)
        for p in a.demux(have):
            if p.dts is not None:
                p.stream = to
                b.mux(p)
    return dict(
        text='not a film', empty='not a film', picture='ssd-tutorial predict', sound='only sound'
    )


def test_what_is_no_film(tmp_path, images, saved):
    for name, says in no_films(tmp_path, images).items():
        with pytest.raises(DataError, match=says):
            read_frames(tmp_path / f'{name}.mp4')
        code, text = run('video', tmp_path / f'{name}.mp4', '--detector', saved)
        assert code == 2, text
        assert says in text
        assert len(text.strip().splitlines()) == 1, text
    with pytest.raises(DataError, match='no such file'):
        read_frames(tmp_path / 'none.mp4')
    with pytest.raises(DataError, match='Download it first'):
        read_frames('https://127.0.0.1:9/dance.mp4')


def test_no_camera(saved):
    with pytest.raises(DataError, match='camera 97: no such camera'):
        read_frames(97)
    code, text = run('video', '97', '--detector', saved)
    assert code == 2, text
    assert 'no such camera' in text


def test_without_pyav(monkeypatch, front, saved):
    monkeypatch.setitem(sys.modules, 'av', None)
    code, text = run('video', front, '--detector', saved)
    assert code == 2, text
    assert 'ssd_tutorial[video]' in text


def test_ahead_stops_with_its_reader():
    "Nobody listens any more: the thread ends, and what it reads is closed"
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    items = ahead(endless(), 2)
    assert next(items) == 1
    items.close()
    assert closed.wait(5)
    assert threading.active_count() == before


def test_the_same_as_single_images(front, det):
    film_found = list(det.predict_video(front, score=0.0, top_k=5, bs=5))
    assert len(film_found) == 36
    for f, d in film_found[::7]:
        still = det.predict(f.image, score=0.0, top_k=5)
        assert d.scores == pytest.approx(still.scores, abs=0.02)
        assert d.size_hw == (150, 200)
        assert d.image_id == f.index


@pytest.mark.parametrize('fit', ['stretch', 'pad'])
def test_inputs_are_those_of_predict(phone, fit):
    data = generated_data('multiscale', 4, 2, size=64)
    det = new_detector(data, TrainConfig(**SMALL, fit=fit))
    f = next(read_frames(phone))
    assert (det.input_of_frame(f) - det.input_of(f.image)).abs().mean() < 0.01


class Stamps:
    "A stand-in for a tracker"

    def __init__(self):
        self.times = []

    def update(self, dets, time):
        self.times.append(time)
        return dets


def test_a_tracker_is_told_each_time(phone, det):
    stamps = Stamps()
    n = len(list(det.predict_video(phone, score=0.9, track=stamps)))
    assert n == 36
    assert stamps.times == pytest.approx(UNEVEN, abs=1e-3)


def fixed(det, box, score=0.9):
    "A detector that always finds the same"
    found = dict(boxes_xyxy=torch.tensor([box]), scores=torch.tensor([score]))
    found['labels'] = torch.tensor([1])
    det = type(det)(det.model, det.vocab, det.description, det.size)
    det.detect_batch = lambda images, **how: [dict(found) for _ in images]
    return det


def test_phone_film_end_to_end(tmp_path, phone, images, saved):
    "Lying, uneven, with sound: by the command, and looked at from outside"
    out, lines = tmp_path / 'found.mp4', tmp_path / 'boxes.jsonl'
    how = ('--detector', saved, '--score', 0.99, '--out', out, '--json', lines, '--device', 'cpu')
    code, text = run('video', phone, *how)
    assert code == 0, text
    frames = list(read_frames(out))
    assert [f.time for f in frames] == pytest.approx(UNEVEN, abs=1e-3)
    assert frames[0].size_hw == (150, 200)
    assert read_frames(out).info.turn is None
    assert unlike(frames[5].image, images[5]) < 8
    assert sounds(out) == sounds(phone)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [r['time'] for r in rows] == pytest.approx(UNEVEN, abs=1e-3)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ['boxes.jsonl', 'found.mp4']


def test_boxes_are_drawn_where_they_are(tmp_path, front, det):
    box = [0.25, 0.25, 0.75, 0.75]
    report = annotate_video(fixed(det, box), front, tmp_path / 'a.mp4', progress=False)
    assert report.counts == {det.vocab[1]: 36}
    for f, g in list(zip(read_frames(front), read_frames(report.path)))[::9]:
        off = np.abs(np.float32(f.image) - np.float32(g.image)).max(-1)
        assert off[:, 48:53].mean() > 3 * off[:, :30].mean()  # the left edge of the box
        assert off[:30, :30].mean() < 8


def test_partly_read_is_status_2(tmp_path, front, saved):
    path, whole = tmp_path / 'cut.mp4', front.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    out = tmp_path / 'found.mp4'
    code, text = run('video', path, '--detector', saved, '--out', out, '--score', 0.99)
    assert code == 2, text
    assert 'breaks off after' in text
    assert 12 <= len(list(read_frames(out))) < 36


def repeated(path, times, out):
    "The same film many times over, its packets copied"
    with av.open(str(out), 'w') as b:
        for i in range(times):
            with av.open(str(path)) as a:
                have = a.streams.video[0]
                if i == 0:
                    make = getattr(b, 'add_stream_from_template', None)
                    to = make(have) if make else b.add_stream(template=have)
                for p in a.demux(have):
                    if p.dts is None:
                        continue
                    p.pts, p.dts = p.pts + i * have.duration, p.dts + i * have.duration
                    p.stream = to
                    b.mux(p)
    return out


@pytest.mark.slow
def test_ctrl_c_leaves_a_film(tmp_path, images, saved):
    short = write_video(images, tmp_path / 'short.mp4', fps=30)
    long, out = repeated(short, 1500, tmp_path / 'long.mp4'), tmp_path / 'found.mp4'
    p = subprocess.Popen(
        [sys.executable, '-m', 'ssd_tutorial.cli', 'video', long, '--detector', saved, '--out', out]
        + ['--score', '0.99', '--device', 'cpu', '--json', tmp_path / 'b.jsonl'],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    end = time.time() + 120
    while time.time() < end and p.poll() is None:
        part = [*tmp_path.glob('found.mp4.*.part')]
        if part and part[0].stat().st_size > 100_000:
            break
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    said, err = p.communicate(timeout=60)
    assert p.returncode == 130, err
    assert 'Stopped after' in err
    assert 'Traceback' not in err
    n = len(list(read_frames(out)))
    assert 10 < n < 36 * 1500
    assert len((tmp_path / 'b.jsonl').read_text().splitlines()) == n
    assert not [*tmp_path.glob('*.part')]


@pytest.mark.slow
def test_an_hour_in_constant_memory(tmp_path, det):
    "90 000 frames of 50 pixels: read, detected in, drawn, written"
    import psutil

    minute = write_video(
        [MovingShapes(25, (50, 50))[i % 25][0] for i in range(250)], tmp_path / 'm.mp4'
    )
    hour, rss = repeated(minute, 360, tmp_path / 'hour.mp4'), []
    det = fixed(det, [0.2, 0.2, 0.6, 0.6])
    det.size = 32

    def draw(dets, img):
        if dets.image_id % 5000 == 0:
            rss.append(psutil.Process().memory_info().rss / 1e6)
        return img

    report = annotate_video(det, hour, tmp_path / 'found.mp4', tmp_path / 'b.jsonl', draw=draw)
    assert report.n_frames == 90_000
    assert report.seconds == pytest.approx(3600, abs=1)
    assert len(rss) == 18
    assert max(rss[4:]) - rss[3] < 40, rss


@pytest.mark.slow
def test_a_detector_follows_what_moves(tmp_path):
    "Trained for a minute on still images; mean IoU with the known boxes"
    from ssd_tutorial.runs import train_detector

    classes = ('disc', 'star', 'cross')
    data = generated_data(
        'multiscale', 300, 24, size=128, n_objects=(1, 2), scale=(0.2, 0.45), classes=classes
    )
    cfg = TrainConfig(size=128, frozen_epochs=12, epochs=0, variants=2, lr=5e-3, strength=0.3)
    det, _ = train_detector(data, cfg, progress=False)
    best = []
    for seed in (0, 1):
        shapes = MovingShapes(48, classes=classes, seed=seed)
        path = write_video([img for img, *_ in shapes], tmp_path / f'{seed}.mp4', fps=24)
        for f, d in det.predict_video(path, score=0.2):
            _, boxes, labels = shapes[f.index]
            for b, k in zip(boxes, labels):
                same = torch.tensor(d.boxes_px[d.labels == k])
                best.append(float(iou(torch.tensor(b)[None], same).max()) if len(same) else 0.0)
    assert np.mean(best) >= 0.5, np.mean(best)


@pytest.mark.slow
def test_a_browser_plays_it(tmp_path, phone):
    "Headless Chromium: the film can be played, and its clock moves"
    names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
    browser = next(filter(None, map(shutil.which, names)), None)
    if not browser:
        pytest.skip('no chromium on this machine: install one to have films played by it')
    write_video(read_frames(phone), tmp_path / 'a.mp4', sound=phone)
    (tmp_path / 'page.html').write_text(
        '<video id=v muted autoplay loop playsinline src=a.mp4></video><script>'
        'const v = document.getElementById("v");'
        'v.onerror = () => fetch("/said?" + encodeURIComponent(v.error.message));'
        'setInterval(() => fetch(`/said?${v.readyState},${v.currentTime},${v.videoWidth},'
        '${v.videoHeight}`), 300)</script>'
    )
    said = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self):
            if self.path.startswith('/said?'):
                said.append(self.path.split('?')[1])
            super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    p = subprocess.Popen(
        [browser, '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run']
        + [f'--user-data-dir={tmp_path / "profile"}', '--autoplay-policy=no-user-gesture-required']
        + ['--disable-dev-shm-usage', f'http://127.0.0.1:{server.server_port}/page.html'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.time() + 90
        while time.time() < end:
            rows = [s.split(',') for s in said if s.count(',') == 3]
            at = {float(r[1]) for r in rows if int(r[0]) >= 3}
            if len(at) >= 3:
                break
            time.sleep(0.2)
    finally:
        p.terminate()
        p.wait(20)
        server.shutdown()
    assert len(at) >= 3, said
    assert max(at) > 0
    assert rows[-1][2:] == ['200', '150']


def test_a_frame_of_ones_own():
    f = Frame(2, 0.5, Image.new('RGB', (8, 6)))
    assert repr(f) == 'Frame(2, 0.500 s, 8×6)'
    assert f.scaled((4, 3)).size == (4, 3)


def test_shapes_stay_inside():
    shapes = MovingShapes(200, (60, 90), names=('disc', 'star', 'cross'), speed=0.2, seed=3)
    boxes = np.stack([shapes.boxes(i) for i in range(200)])
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., 2:] <= [90, 60]).all()
    assert np.ptp(boxes, axis=0).min() > 10  # all of them move
    a, b = MovingShapes(3, seed=1), MovingShapes(3, seed=1)
    assert np.array_equal(a[2][0], b[2][0])
    assert isinstance(
        Detections(a.boxes(0), a.labels, [1, 1], ('b', 'd', 't', 's', 'x'), (9, 9)), Detections
    )


def test_predict_takes_films_among_photos(tmp_path, front, images, saved):
    folder, out = tmp_path / 'mixed', tmp_path / 'found'
    folder.mkdir()
    images[0].save(folder / 'a.png')
    shutil.copy(front, folder / 'b.mp4')
    (folder / 'c.mp4').write_text('no film')
    code, text = run('predict', folder, '--detector', saved, '--out', out, '--score', 0.9)
    assert code == 2, text
    assert 'c.mp4: not a film' in text
    assert len((out / 'b.jsonl').read_text().splitlines()) == 36
    assert len(list(read_frames(out / 'b_found.mp4'))) == 36
    assert (out / 'predictions.json').is_file()
    assert not (out / 'c_found.mp4').exists()


def test_films_of_one_name_do_not_take_each_others_place(tmp_path, monkeypatch):
    "Not `a.mp4` and `x/a.mp4` and `a_1.mp4`, nor two that differ in capitals alone"
    wrote = []

    def annotate(det, path, film, rows):
        wrote.append((film.name.lower(), rows.name.lower()))
        return SimpleNamespace(stopped=False, fault=None)

    monkeypatch.setattr('ssd_tutorial.video.annotate_video', annotate)
    films = ['a.mp4', 'x/a.mp4', 'a_1.mp4', 'y/A_1.mov', 'b.mp4']
    assert _with_videos(films, None, tmp_path, False, {}) == []
    assert len({film for film, _ in wrote}) == len({rows for _, rows in wrote}) == len(films)
    assert wrote[-1] == ('b_found.mp4', 'b.jsonl')


# ---------------------------------------------------------------- hostile files
@pytest.mark.parametrize('suffix', ['m3u8', 'mp4', 'ffconcat'])
@pytest.mark.parametrize(
    'text',
    [
        '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n',
        "ffconcat version 1.0\nfile '{}'\n",
    ],
)
def test_a_playlist_is_no_film(images, tmp_path, text, suffix):
    "Whoever wrote it may not choose what is opened, beside it or elsewhere"
    film(tmp_path / 'own.ts', images[:12], UNEVEN[:12])
    (tmp_path / 'lists').mkdir()
    shutil.copy(tmp_path / 'own.ts', tmp_path / 'lists')
    opened = 0
    for named in (tmp_path / 'own.ts', 'own.ts'):
        path = tmp_path / 'lists' / f'list.{suffix}'
        path.write_text(text.format(named))
        try:
            with av.open(str(path)) as c:  # as FFmpeg does by itself
                opened += len(c.streams.video)
        except av.error.FFmpegError:
            pass
        with pytest.raises(DataError, match=f'list.{suffix}: not a film'):
            read_frames(path)
    assert opened or suffix != 'm3u8' or 'ffconcat' in text


def test_a_film_without_times(images, tmp_path):
    "Bare H.264 says no length"
    film(tmp_path / 'a.h264', images[:12], UNEVEN[:12])
    assert len(list(read_frames(tmp_path / 'a.h264'))) == 12


def test_names_that_are_no_text(images, tmp_path):
    path = film(tmp_path / 'a.avi', images[:12], UNEVEN[:12], codec='mpeg4')
    data = path.read_bytes()
    assert b'Lavf' in data
    path.write_bytes(data.replace(b'Lavf', b'\xff\xfe\xfdf'))
    assert len(list(read_frames(path))) == 12
