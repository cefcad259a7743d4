"The page: what it is told, whom it answers, how it stays small, and how it behaves in a browser"

import asyncio, contextlib, io, json, os, re, signal, socket, struct, subprocess, sys, time, zlib
import urllib.error, urllib.parse, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from ssd_tutorial.cli import main
from ssd_tutorial.detector import Detector
from ssd_tutorial.explain import candidates_of, explain
from ssd_tutorial.guard import is_own_host, refusal
from ssd_tutorial.nms import suppress

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')
skimage_data = pytest.importorskip('skimage.data')

from browser import Browser, find_chromium  # noqa: E402
from small import untrained  # noqa: E402
from ssd_tutorial.app import running_app  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def encoded(img, kind='JPEG', **how):
    out = io.BytesIO()
    img.save(out, kind, **how)
    return out.getvalue()


def two_cats():
    "A photograph twice, overlapping itself: candidates that compete"
    cat = Image.fromarray(skimage_data.chelsea())
    cats = Image.new('RGB', (700, 500), 'grey')
    cats.paste(cat, (0, 0))
    cats.paste(ImageOps.mirror(cat).resize((350, 233)), (330, 260))
    return cats


@pytest.fixture(scope='module')
def det():
    return Detector.pretrained()


@pytest.fixture(scope='module')
def photo():
    return encoded(two_cats(), quality=92)


@pytest.fixture(scope='module')
def cat_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('photos') / 'cat.jpg'
    Image.fromarray(skimage_data.chelsea()).save(path, quality=92)
    return path


@pytest.fixture(scope='module')
def cats_file(tmp_path_factory, photo):
    path = tmp_path_factory.mktemp('photos') / 'two cats.jpg'
    path.write_bytes(photo)
    return path


@pytest.fixture(scope='module')
def page(det):
    with running_app(det) as address:
        yield address


def ask(address, body=None, method=None, **headers):
    "Status, content and headers of an answer"
    headers = {k.replace('_', '-'): v for k, v in headers.items()}
    request = urllib.request.Request(address, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as r:
            return r.status, r.read(), r.headers
    except urllib.error.HTTPError as e:
        return e.code, e.read(), e.headers


def error(answer):
    "What a refusal says; it is JSON"
    return json.loads(answer[1])['error']


# ---------------------------------------------------------------- what the page is told
def test_candidates_are_those_before_suppression(det):
    img = two_cats()
    ours = candidates_of(det, img, score=0.05)
    theirs = det.detect_batch(det.input_of(img)[None], 0.05, None, 1000)[0]
    for k in ('boxes_xyxy', 'scores', 'labels'):
        assert np.array_equal(ours[k], theirs[k].numpy())
    assert len(ours['scores']) > 10


def test_an_anchor_is_where_it_is_said_to_be(det):
    "The anchor of each candidate, decoded by hand, is the candidate"
    img = two_cats()
    found = candidates_of(det, img, score=0.05)
    with torch.no_grad():
        net = det.in_use()
        scores, boxes = net.candidates(net(det.input_of(img)[None]))
    a = found['anchors']
    assert np.array_equal(boxes[0, a].numpy(), found['boxes_xyxy'])
    assert np.array_equal(scores[0, a].numpy(), found['class_scores'])


@pytest.mark.parametrize('turn', [1, 3, 6, 8])
def test_sizes_are_those_of_the_upright_picture(det, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(Image.fromarray(skimage_data.chelsea()), exif=exif.tobytes())
    told = explain(det, io.BytesIO(data))
    assert told['size_wh'] == ([300, 451] if turn in (6, 8) else [451, 300])


def test_a_picture_without_candidates(det):
    told = explain(det, io.BytesIO(encoded(Image.new('RGB', (40, 30), 'white'), 'PNG')))
    assert told['size_wh'] == [40, 30]
    assert len(told['boxes']) == 4 * len(told['scores']) == len(told['boxes_px'])
    json.dumps(told, allow_nan=False)


def test_detectors_that_tell_no_anchors(tmp_path, det):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from ssd_tutorial.onnx_detector import OnnxDetector
    from ssd_tutorial.onnx_export import export_onnx

    light = OnnxDetector(export_onnx(det, tmp_path / 'd.onnx'))
    told, full = (explain(d, io.BytesIO(encoded(two_cats()))) for d in (light, det))
    assert told['anchors'] == []
    assert set(told['anchor']) == {None}
    assert abs(len(told['scores']) - len(full['scores'])) <= 3  # other sums, other last digits
    np.testing.assert_allclose(told['scores'][:20], full['scores'][:20], atol=1e-3)
    code = (
        'import sys, json; sys.modules["torch"] = None\n'
        'from ssd_tutorial.onnx_detector import OnnxDetector\n'
        'from ssd_tutorial.app import running_app\n'
        'import urllib.request as u\n'
        f'with running_app(OnnxDetector({str(tmp_path / "d.onnx")!r})) as page:\n'
        f'    body = open({str(tmp_path / "c.jpg")!r}, "rb").read()\n'
        '    print(len(json.load(u.urlopen(page + "detect", body))["scores"]))\n'
        '    print(json.load(u.urlopen(page + "about"))["no_film"])\n'
    )
    (tmp_path / 'c.jpg').write_bytes(encoded(two_cats()))
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stderr
    n, no_film = r.stdout.strip().splitlines()
    assert int(n) == len(told['scores'])
    assert 'exported' in no_film


# ---------------------------------------------------------------- whom it answers
def test_names_that_lead_here():
    assert is_own_host('localhost:80')
    assert is_own_host('LOCALHOST:80')
    assert not is_own_host('localhost.evil.example:80')
    assert not is_own_host('evil.example#@127.0.0.1')
    assert not is_own_host('[::1')
    assert is_own_host(f'{socket.gethostname()}:80', '0.0.0.0')
    assert not is_own_host(f'{socket.gethostname()}.example:80', '0.0.0.0')


def test_another_port_is_another_site():
    host = '127.0.0.1:8030'
    assert not refusal('POST', dict(host=host, origin=f'http://{host}'))
    assert refusal('POST', dict(host=host, origin='http://localhost:8030'))
    assert refusal('GET', dict(host=host, origin='http://127.0.0.1:80301'))
    assert refusal('POST', {'host': host, 'sec-fetch-site': 'same-site'})
    assert not refusal('GET', {'host': host, 'sec-fetch-site': 'cross-site'})  # a link to it


def test_other_sites_are_refused(page, photo):
    own = page.rstrip('/')
    assert ask(page + 'detect', photo, Origin=own)[0] == 200
    for more in (
        dict(Origin='https://evil.example'),
        dict(Origin='null'),
        dict(Host='evil.example'),
        dict(Sec_Fetch_Site='cross-site'),
    ):
        answer = ask(page + 'detect', photo, **more)
        assert answer[0] == 403, more
        assert 'server' in error(answer), more
        assert not any(k.lower().startswith('access-control') for k in answer[2]), more


def test_every_answer_ties_the_browser(page, photo):
    for path, body in (('', None), ('about', None), ('nothing', None), ('detect', photo)):
        headers = ask(page + path, body)[2]
        policy = headers['Content-Security-Policy']
        assert policy.startswith("default-src 'none'; script-src 'sha256-"), path
        assert "frame-ancestors 'none'" in policy, path
        assert 'unsafe' not in policy, path
        assert headers['X-Content-Type-Options'] == 'nosniff', path
        assert not any(k.lower().startswith('access-control') for k in headers), path


def test_the_page_names_no_other_address(page):
    html = ask(page)[1].decode()
    found = set(re.findall(r'(?:https?:)?//[\w.-]+\.\w+', html))
    assert found == {'http://www.w3.org'}, found  # the name of SVG's vocabulary
    assert not re.search(r'\bon\w+="|<link(?! rel="icon" href="data:)|style="', html)


# ---------------------------------------------------------------- what it refuses
def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


BOMB = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0))
BOMB += chunk(b'IDAT', bytes(99))


@pytest.mark.parametrize('path', ['detect', 'picture'])
@pytest.mark.parametrize(
    'body,status,says',
    [
        (b'', 400, 'empty'),
        (b'hello', 422, 'not a readable image'),
        (b'<html><body>', 422, 'not a readable image'),
        (b'%PDF-1.4', 422, 'not a readable image'),
        (BOMB, 422, 'million pixels'),
        (bytes(30_000_001), 413, '30 MB'),
    ],
    ids=['nothing', 'text', 'html', 'pdf', 'bomb', 'large'],
)
def test_what_is_no_picture(page, path, body, status, says):
    answer = ask(page + path, body)
    assert answer[0] == status
    assert says in error(answer)


def test_half_a_photo(page, photo):
    answer = ask(page + 'detect', photo[: len(photo) // 2])
    assert answer[0] == 422
    assert 'truncated' in error(answer)


def test_wrong_addresses(page):
    assert ask(page + 'etc/passwd')[0] == 404
    assert ask(page + 'film/..%2F..%2Fetc%2Fpasswd')[0] == 404
    assert ask(page + 'detect')[0] == 405
    assert 'not kept' in error(ask(page + 'film/unknown'))
    assert 'Thresholds' in error(ask(page + 'film?score=nan', b'x'))


def head(page, length, path='detect'):
    "A connection that has said only the head of a request"
    host = urllib.parse.urlsplit(page).netloc
    s = socket.create_connection(host.split(':'), timeout=30)
    said = f'POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n'
    s.sendall(said.encode())
    return s


def test_who_lies_about_the_length_is_hung_up_on(page):
    with head(page, 10**12) as s:
        assert b' 413 ' in s.recv(200)


def test_who_sends_nothing_loses_the_seat(det, photo):
    with running_app(det, seats=1, patience=1) as page, head(page, 1000) as s:
        start = time.time()
        assert ask(page + 'detect', photo)[0] == 200  # after the other has been sent away
        assert time.time() - start < 30
        assert b' 408 ' in s.recv(200)


def test_too_many_are_sent_away(det, photo):
    with running_app(det, seats=1, waiting=1, patience=20) as page:
        with head(page, 1000), head(page, 1000):
            time.sleep(0.5)
            answer = ask(page + 'detect', photo)
    assert answer[0] == 503
    assert 'waiting' in error(answer)


def test_who_leaves_is_forgotten(det, photo):
    with running_app(det, seats=1, waiting=1) as page:
        for _ in range(4):
            head(page, 1000).close()
        time.sleep(0.3)
        assert ask(page + 'detect', photo)[0] == 200


def test_a_fault_of_ours_is_said_in_one_line(det, photo, monkeypatch):
    import ssd_tutorial.app as A

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(A, 'explain', broken)
    with running_app(det) as page:
        answer = ask(page + 'detect', photo)
        assert ask(page + 'about')[0] == 200
    assert answer[0] == 500
    assert 'ZeroDivisionError' in error(answer)


# ---------------------------------------------------------------- the command, and fifty at once
@contextlib.contextmanager
def command(*args, env=None):
    "`ssd-tutorial app` as a process of its own: address and process"
    with subprocess.Popen(
        [sys.executable, '-m', 'ssd_tutorial.cli', 'app', '--no-open', '--port', '0', *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'PYTHONUNBUFFERED': '1', **(env or {})},
    ) as p:
        try:
            said = ''
            while not (found := re.search(r'http://\S+', said)):
                line = p.stdout.readline()
                assert line, said
                said += line
            yield found.group(), p
        finally:
            p.kill()


def test_fifty_at_once_and_memory():
    """The process that serves fifty pictures at once, again and again, does not grow; fifty bodies
    of 25 MB, which are no pictures, are never in memory together."""
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), np.uint8)
    body, junk = encoded(Image.fromarray(noise), quality=90), bytes(25_000_000)
    with command('--device', 'cpu') as (page, process), ThreadPoolExecutor(50) as pool:
        rss = lambda: psutil.Process(process.pid).memory_info().rss / 1e6
        post = lambda b: ask(page + 'detect', b)[0]
        peak, grown = [], []
        for _ in range(3):
            asked = [pool.submit(post, body) for _ in range(50)]
            while not all(f.done() for f in asked):
                peak.append(rss())
                time.sleep(0.02)
            assert {f.result() for f in asked} == {200}
            grown.append(rss())
        assert grown[-1] - grown[0] < 60, grown
        assert max(peak) - grown[0] < 250, (max(peak), grown)
        asked, peak = [pool.submit(post, junk) for _ in range(50)], []
        while not all(f.done() for f in asked):
            peak.append(rss())
            time.sleep(0.02)
        assert {f.result() for f in asked} == {422}
        assert max(peak) - grown[-1] < 300, (max(peak), grown)  # of 1250 MB


@pytest.mark.skipif(os.name == 'nt', reason='Windows knows no SIGINT of another process')
def test_ctrl_c_ends_it():
    with command() as (page, process):
        assert ask(page)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert 'Traceback' not in process.stdout.read()


def test_open_to_the_network_is_said():
    with command('--host', '0.0.0.0') as (page, process):
        assert 'without a password' in process.stdout.readline()
        port = urllib.parse.urlsplit(page).port
        assert page.startswith('http://127.0.0.1:')
        assert ask(page, Host=f'192.168.7.7:{port}')[0] == 200
        assert ask(page, Host=f'evil.example:{port}')[0] == 403


def test_this_computer_alone(page):
    port = urllib.parse.urlsplit(page).port
    process = psutil.Process()
    connections = getattr(process, 'net_connections', None) or process.connections  # before 6.0
    mine = [c.laddr for c in connections() if c.status == 'LISTEN']
    assert ('127.0.0.1', port) in [tuple(a) for a in mine]


def run(*args):
    r = CliRunner().invoke(main, ['app', *map(str, args)], catch_exceptions=False)
    return r.exit_code, r.output


@pytest.mark.parametrize('lost', ['starlette', 'uvicorn'])
def test_without_the_extra(lost, monkeypatch):
    for name in [m for m in sys.modules if m.partition('.')[0] == lost]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, lost, None)
    code, out = run('--no-open')
    assert code == 2
    assert 'pip install "ssd_tutorial[app]"' in out
    assert 'Traceback' not in out


def test_wrong_words(tmp_path):
    for args, says in (
        (['--port', '99999'], '0<=x<=65535'),
        (['--host', 'no.such.host.invalid'], 'Choose another'),
        (['--detector', tmp_path / 'none.pt'], 'no such file'),
        (['--detector', tmp_path / 'none.onnx'], 'no such file'),
    ):
        code, out = run('--no-open', *args)
        assert code == 2, out
        assert says in out, out
        assert 'Traceback' not in out, out


# ---------------------------------------------------------------- films
@pytest.fixture(scope='module')
def film(tmp_path_factory):
    pytest.importorskip('av')
    from ssd_tutorial.movies import write_video

    cat = Image.fromarray(skimage_data.chelsea())
    frames = [cat.crop((k, 0, k + 320, 240)) for k in range(24)]
    return write_video(frames, tmp_path_factory.mktemp('film') / 'cat.mp4', fps=12)


def lines(answer):
    return [json.loads(line) for line in answer[1].splitlines()]


def test_a_film(det, film):
    with running_app(det) as page:
        said = lines(ask(page + 'film?score=0.3', film.read_bytes()))
        assert said[0]['of'] == pytest.approx(2, abs=0.1)
        assert '24 frames' in said[-1]['said']
        assert 'cat' in said[-1]['said']
        status, data, headers = ask(page + said[-1]['film'])
        assert (status, headers['content-type']) == (200, 'video/mp4')
        assert data[4:8] == b'ftyp'
        status, part, _ = ask(page + said[-1]['film'], Range='bytes=0-99')
        assert (status, part) == (206, data[:100])


def folders():
    import tempfile

    return set(Path(tempfile.gettempdir()).glob('ssd_tutorial_films_*'))


def test_a_film_that_is_ready_is_kept(det, tmp_path):
    "Whoever reads its last line before the server has noted its end does not stop it"
    from ssd_tutorial.film_page import FilmJob, Films

    async def run():
        films, job = Films(det), FilmJob(det, tmp_path / 'a.film', tmp_path / 'a.mp4')
        job.out.write_bytes(b'film')
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda f: films._done(job, f))
        future.set_result(SimpleNamespace(fault=''))
        said = [line async for line in films.follow(job, future, 1.0)]
        await asyncio.sleep(0)
        return said, films.kept

    said, kept = asyncio.run(run())
    assert '"film"' in said[-1]
    assert list(kept) == ['a']
    assert (tmp_path / 'a.mp4').exists()


def test_films_are_not_kept_for_ever(det, film):
    before = folders()
    with running_app(det) as page:
        assert ask(page)[0] == 200
        (folder,) = folders() - before
        made = [lines(ask(page + 'film', film.read_bytes()))[-1]['film'] for _ in range(4)]
        assert [ask(page + m)[0] for m in made] == [404, 200, 200, 200]
        assert len(list(folder.iterdir())) == 3
    assert not folder.exists()


@pytest.mark.parametrize(
    'body,says',
    [
        (b'', 'empty'),
        (b'#EXTM3U\n#EXTINF:1\n/etc/passwd\n', 'no film'),
        (b'\0\0\0\x18ftypmp42' + bytes(500), 'not a film'),
        (None, 'no film'),
    ],
    ids=['nothing', 'playlist', 'damaged', 'photo'],
)
def test_what_is_no_film(det, photo, body, says):
    before = folders()
    with running_app(det) as page:
        answer = ask(page + 'film', photo if body is None else body)
        (folder,) = folders() - before
        assert not list(folder.iterdir())
        assert answer[0] in (400, 422)
        assert says in error(answer)
        assert str(folder) not in error(answer)


def test_a_film_nobody_waits_for_is_stopped(det, film, monkeypatch):
    import ssd_tutorial.film_page as F

    jobs = []

    def slowly(self, dets, seconds):
        jobs.append(self)
        time.sleep(0.3)
        if self.stop.is_set():
            raise F._Stopped
        return dets

    monkeypatch.setattr(F.FilmJob, 'update', slowly)
    before = folders()
    with running_app(det) as page:
        s = head(page, film.stat().st_size, 'film')
        s.sendall(film.read_bytes())
        while not jobs:
            time.sleep(0.05)
        assert 'Another film' in error(ask(page + 'film', film.read_bytes()))
        s.close()
        (folder,) = folders() - before
        end = time.time() + 20
        while list(folder.iterdir()) and time.time() < end:
            time.sleep(0.1)
        assert not list(folder.iterdir())
        assert len(jobs) < 24


def test_without_films(det, film, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    with running_app(det) as page:
        says = json.loads(ask(page + 'about')[1])['no_film']
        assert 'pip install "ssd_tutorial[video]"' in says
        assert error(ask(page + 'film', film.read_bytes())) == says


# ---------------------------------------------------------------- in a browser
@pytest.fixture(scope='module')
def chrome():
    pytest.importorskip('websocket')
    if not find_chromium():
        pytest.skip('no chromium on this machine: install one to see the page in a browser')
    with Browser() as b:
        yield b


@pytest.fixture
def b(chrome, page):
    "A fresh page; at the end nothing has gone wrong, and nothing was asked elsewhere"
    chrome.requests.clear()
    chrome.errors.clear()
    chrome.resize(1200, 900)
    chrome.open(page)
    chrome.until('state.about')
    yield chrome
    chrome.js('1')
    foreign = [u for _, u in chrome.requests if not u.startswith((page, f'blob:{page}', 'data:'))]
    assert not foreign
    assert not chrome.errors


def upload(b, path):
    "Choose a photo, and wait until its boxes are there"
    b.js('state.found = null')
    b.upload('#file', path)
    b.until("state.found && !$('stage').classList.contains('busy')")


def slide(b, name, value):
    b.js(f"$('{name}').value = {value}, $('{name}').dispatchEvent(new Event('input'))")


def posts(b):
    b.js('1')
    return [u for m, u in b.requests if m == 'POST']


def test_load_upload_see_slide(b, det, page, cats_file):
    assert 'cat' in b.js("$('about').textContent")
    upload(b, cats_file)
    assert posts(b) == [page + 'detect']
    slide(b, 'score', 0.3)
    sees = det.predict(cats_file, score=0.3)
    assert b.js("document.querySelectorAll('#marks .kept').length") == len(sees) == 2
    assert b.js("document.querySelectorAll('#rows tr').length") == 2
    x, y, w, h = b.js("(r => [r.x, r.y, r.width, r.height])($('picture').getBoundingClientRect())")
    drawn = b.js(
        "[...document.querySelectorAll('#marks .kept')].reverse().map(e => "
        '(r => [r.left, r.top, r.right, r.bottom])(e.getBoundingClientRect()))'
    )
    scale = np.array([700 / w, 500 / h] * 2)
    np.testing.assert_allclose((np.array(drawn) - [x, y, x, y]) * scale, sees.boxes_px, atol=3)
    said = b.js("$('count').textContent")
    slide(b, 'score', 0.05)
    assert b.js("$('count').textContent") != said
    low = len(det.predict(cats_file, score=0.05))
    assert b.js("document.querySelectorAll('#marks .kept').length") == low > 2
    slide(b, 'overlap', 0.9)
    high = len(det.predict(cats_file, score=0.05, overlap=0.9))
    assert b.js("document.querySelectorAll('#marks .kept').length") == high > low
    assert len(posts(b)) == 1  # the model ran once


def test_the_reader_s_slider(b, cats_file):
    "By the keyboard: the slider moves, and what is kept follows"
    upload(b, cats_file)
    b.js("$('score').focus()")
    before = b.js("Number($('score').value)")
    for _ in range(5):
        b.key('ArrowLeft', 37)
    assert b.js("Number($('score').value)") == pytest.approx(before - 0.05, abs=1e-6)
    assert b.js("$('score-said').textContent") == f'{before - 0.05:.2f}'
    assert f'{before - 0.05:.2f}' in b.js("$('count').textContent")


GRID = [(s, o) for s in (0.01, 0.05, 0.2, 0.31) for o in (0, 0.1, 0.45, 0.5, 0.75, 1)]


def kept_in_browser(b, told, grid=GRID, top_k=100):
    each = f'{json.dumps(grid)}.map(([s, o]) => suppress(c, s, o, {top_k}).kept)'
    return b.js(f'(() => {{ const c = columns({json.dumps(told)}); return {each} }})()')


WIDE = dict(spread=2, bias=-2.0)  # boxes all over the picture, in every class
DETECTORS = {
    'animals': lambda: Detector.pretrained(),
    'fcos': lambda: untrained('fcos', 128, **WIDE, width=16),
    'padded': lambda: untrained(
        'ssd', 128, **WIDE, body='mobilenetv3_small_050', width=16, fit='pad'
    ),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_the_browser_keeps_what_predict_keeps(b, name, tmp_path):
    det, total = DETECTORS[name](), 0
    wide = two_cats().crop((0, 100, 700, 340))
    for i, img in enumerate((two_cats(), wide)):
        img.save(tmp_path / f'{i}.png')
        with open(tmp_path / f'{i}.png', 'rb') as f:
            told = explain(det, f)
        boxes, labels = np.reshape(told['boxes_px'], (-1, 4)), np.array(told['labels'])
        for (score, overlap), kept in zip(GRID, kept_in_browser(b, told)):
            dets = det.predict(tmp_path / f'{i}.png', score, overlap)
            assert labels[kept].tolist() == dets.labels.tolist(), (score, overlap)
            assert np.array_equal(np.float32(told['scores'])[kept], dets.scores), (score, overlap)
            np.testing.assert_allclose(boxes[kept], dets.boxes_px, atol=0.006)
            total += len(kept)
    assert total > 100


def exact_iou(a, b):
    "Overlaps of pairs of float32 boxes in float64; 0 where neither has an area"
    a, b = a.astype(float), b.astype(float)
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    both = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return np.where(both > 0, shared / np.where(both > 0, both, 1), 0)


def test_the_browser_suppresses_as_we_do(b):
    "Equal scores, equal boxes, overlaps at the very threshold, boxes without area"
    rng, total = np.random.default_rng(0), 0
    digits = lambda values: [float(f'{v:.9g}') for v in np.ravel(values)]
    for cells in [8, 10] * 20:
        n = int(rng.integers(2, 60))
        corner, side = rng.integers(0, 5, (n, 2)) / cells, rng.integers(0, 4, (n, 2)) / cells
        boxes = np.hstack([corner, corner + side]).astype(np.float32)
        scores = np.sort(np.float32(rng.integers(1, 9, n) / 10))[::-1]
        labels = rng.integers(1, 4, n)
        told = dict(boxes=digits(boxes), scores=digits(scores))
        told |= dict(labels=labels.tolist(), inside=[True] * n)
        at = exact_iou(boxes[rng.integers(n, size=3)], boxes[rng.integers(n, size=3)])
        grid = [(s, float(o)) for s in (0.1, 0.3, 0.7) for o in (0.25, 1 / 3, 0.5, 1, *at)]
        for (score, overlap), kept in zip(grid, kept_in_browser(b, told, grid, 7)):
            over = torch.from_numpy(scores.copy()) > score
            some = [torch.from_numpy(x.copy())[over] for x in (boxes, scores, labels)]
            zeros = torch.zeros(int(over.sum()), dtype=torch.long)
            (ours,) = suppress(zeros, *some, overlap, 7, n_images=1)
            assert boxes[kept].tolist() == ours['boxes_xyxy'].tolist()
            assert labels[kept].tolist() == ours['labels'].tolist()
            total += len(kept)
    assert total > 500


def test_why_a_box_is_there(b, det, cats_file):
    upload(b, cats_file)
    slide(b, 'score', 0.05)
    x, y = b.js('(r => [r.left+r.width/5, r.top+r.height/3])($("marks").getBoundingClientRect())')
    assert 'Point at a box' in b.js("$('said').textContent")
    b.mouse(x, y)
    said = b.until("/anchor/.test($('said').textContent) && $('said').textContent")
    best = b.js('state.hover')
    with open(cats_file, 'rb') as f:
        told = explain(det, f)
    anchor = told['anchors'][told['anchor'][best]]
    assert f'anchor {anchor["index"]}: level {anchor["level"] + 1} of 5' in said
    assert f'row {anchor["row"] + 1}, column {anchor["column"] + 1}' in said
    assert all(n in said for n in det.vocab[1:])
    assert b.js("document.querySelectorAll('#marks .anchor').length") == 2  # a line and its halo
    lost = b.js('state.losers.get(state.hover).length')
    assert f'suppressed {lost} of its class' in said
    assert b.js("document.querySelectorAll('#marks .loser').length") == lost > 0
    b.mouse(x, y, click=True)
    b.mouse(5, 5)
    assert b.js('state.pick') == best
    assert said == b.js("$('said').textContent")  # it stays when the pointer leaves
    b.js("document.querySelector('#said button').click()")  # one that was suppressed
    assert 'Suppressed by cat' in b.js("$('said').textContent")


def test_a_thousand_candidates_and_no_more(b):
    "Where not all candidates are sent, the page says so"
    told = explain(untrained('fcos', 128, **WIDE, width=16), io.BytesIO(encoded(two_cats())))
    assert len(told['scores']) == 1000
    b.js(f'state.found = {json.dumps(told)}, state.columns = columns(state.found)')
    slide(b, 'score', 0)  # it stops at the floor
    assert 'best 1000 candidates, all that are sent' in b.js("$('count').textContent")
    slide(b, 'score', 1)
    assert b.js("$('count').textContent").startswith('0 candidates')


def test_toggles(b, cats_file):
    upload(b, cats_file)
    slide(b, 'score', 0.05)
    count = lambda what: b.js(f"document.querySelectorAll('#marks .{what}').length")
    n, n_all = b.js('state.kept.length'), b.js('state.n')
    assert (count('kept'), count('candidate'), count('anchor')) == (n, 0, 0)
    b.js("$('show-anchors').click()")
    assert count('anchor') == b.js('new Set(state.kept.map(i => state.found.anchor[i])).size')
    b.js("$('show-all').click()")
    assert (count('kept'), count('candidate')) == (n, n_all)
    assert count('anchor') == b.js('new Set(state.found.anchor.slice(0, state.n)).size') > n
    b.js("$('show-kept').click()")
    assert count('kept') == 0


def downloaded(b, suffix):
    find = lambda: [p for p in b.downloads.iterdir() if p.name.endswith(suffix)]
    (path,) = b.wait(find, f'a download {suffix}')
    data = path.read_bytes()
    path.unlink()
    return path.name, data


def test_downloads(b, det, cats_file):
    upload(b, cats_file)
    slide(b, 'score', 0.3)
    b.js("$('save-json').click()")
    name, data = downloaded(b, '.json')
    assert name == 'two cats_found.json'
    report, dets = json.loads(data), det.predict(cats_file, score=0.3)
    assert report['size_wh'] == [700, 500]
    assert (report['score'], report['overlap']) == (0.3, 0.5)
    assert [d['name'] for d in report['detections']] == dets.names
    np.testing.assert_allclose(
        [d['box_px'] for d in report['detections']], dets.boxes_px, atol=0.006
    )
    np.testing.assert_allclose([d['score'] for d in report['detections']], dets.scores, atol=1e-7)
    assert report['detections'][0]['anchor']['classes'][0][1] == pytest.approx(
        dets.scores[0], abs=1e-4
    )
    b.js("$('save-picture').click()")
    name, data = downloaded(b, '.jpg')
    saved, plain = Image.open(io.BytesIO(data)), two_cats()
    assert saved.size == (700, 500)
    changed = np.abs(np.asarray(saved, float) - np.asarray(plain, float)).max(2) > 60
    x1, y1, x2, y2 = dets.boxes_px[0].astype(int)
    assert changed[y1 + 40 : y2 - 40, max(0, x1 - 3) : x1 + 4].any(1).mean() > 0.7  # its left side
    assert changed.mean() < 0.2


def test_errors_are_said(b, cats_file, tmp_path):
    (tmp_path / 'text.jpg').write_text('no picture')
    b.upload('#file', tmp_path / 'text.jpg')
    b.until("!$('alert').hidden")
    assert 'not a readable image' in b.js("$('alert').textContent")
    assert b.js("$('alert').getAttribute('role')") == 'alert'
    b.errors.clear()  # the browser notes the status 422
    upload(b, cats_file)
    assert b.js("$('alert').hidden")
    n = len(posts(b))
    (tmp_path / 'large.jpg').write_bytes(bytes(30_000_001))
    b.upload('#file', tmp_path / 'large.jpg')
    b.until("!$('alert').hidden")
    assert '30 MB' in b.js("$('alert').textContent")
    assert len(posts(b)) == n  # said before anything is sent
    assert b.js('state.kept.length')  # and the photo from before is still there


def test_drop_and_paste(b, page):
    "Files that are dropped or pasted are looked at like those that are chosen"
    file = (
        'const c = document.createElement("canvas"); c.width = 60; c.height = 40;'
        'const f = new File([await new Promise(y => c.toBlob(y))], "a.png", {type: "image/png"});'
        'const d = new DataTransfer(); d.items.add(f);'
    )
    b.js(f'(async () => {{{file} dispatchEvent(new DragEvent("drop", {{dataTransfer: d}}))}})()')
    b.until('state.found')
    b.js('state.found = null')
    pasted = 'dispatchEvent(new ClipboardEvent("paste", {clipboardData: d}))'
    b.js(f'(async () => {{{file} {pasted}}})()')
    b.until('state.found')
    assert b.js('state.found.size_wh') == [60, 40]
    assert posts(b) == [page + 'detect'] * 2


def test_the_camera(b):
    "Chromium's camera for tests"
    b.js("$('camera').click()")
    b.until("!$('webcam').hidden && $('live').videoWidth && document.activeElement===$('shoot')")
    b.js("$('shoot').click()")
    b.until('state.found')
    assert b.js("$('webcam').hidden && $('live').srcObject===null")
    assert b.js('state.file.name') == 'camera.jpg'


@pytest.mark.parametrize('kind,turn', [('TIFF', 1), ('TIFF', 6), ('JPEG', 6), ('PNG', 6)])
def test_pictures_that_browsers_see_otherwise(b, page, tmp_path, kind, turn):
    "A TIFF is drawn by the server; a photo that lies on its side stands up, boxes and all"
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(skimage_data.chelsea()).save(tmp_path / 'a.img', kind, exif=exif.tobytes())
    upload(b, tmp_path / 'a.img')
    size = b.js("[$('picture').naturalWidth, $('picture').naturalHeight]")
    assert size == ([300, 451] if turn == 6 else [451, 300]) == b.js('state.found.size_wh')
    assert (page + 'picture' in posts(b)) == (kind == 'TIFF')
    n = len(posts(b))
    b.js('show(state.file, { size_wh: state.found.size_wh.slice().reverse() })')
    assert posts(b)[n:] == [page + 'picture']  # as in a browser that does not turn it


def test_a_script_from_elsewhere_does_not_run(b):
    b.js(
        'document.head.append(Object.assign(document.createElement("script"),'
        '{textContent: "globalThis.intruder = 1"}))'
    )
    b.js('document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\'intruder = 1\'>")')
    assert b.js('fetch("https://example.org/").catch(e => "no")') == 'no'
    b.js('new Promise(y => setTimeout(y, 300))')
    assert b.js('typeof intruder') == 'undefined'
    assert any('Content Security Policy' in e for e in b.errors)
    b.errors.clear()
    b.requests.clear()


def test_by_keyboard(b, cats_file):
    "Tab reaches every control and a box; arrows go from box to box; Escape lets go; focus is seen"
    upload(b, cats_file)
    slide(b, 'score', 0.05)
    reached = []
    for _ in range(60):
        b.key('Tab', 9)
        reached.append(
            b.js(
                'document.activeElement.id || document.activeElement.dataset.box && "box" || '
                'document.activeElement.dataset.go && "row"'
            )
        )
    wanted = {'tab-photo', 'file', 'camera', 'save-picture', 'save-json', 'score', 'overlap'}
    wanted |= {'show-kept', 'show-all', 'show-anchors', 'box', 'row'}
    assert wanted <= set(reached), wanted - set(reached)
    b.js("document.querySelector('#marks g[tabindex=\"0\"]').focus()")
    first = b.js('document.activeElement.dataset.box')
    b.key('ArrowRight', 39)
    second = b.js('document.activeElement.dataset.box')
    assert first != second
    assert b.js('String(state.pick)') == second
    assert b.js("document.querySelectorAll('#marks g[tabindex=\"0\"]').length") == 1
    b.key('ArrowLeft', 37)
    assert b.js('document.activeElement.dataset.box') == first
    b.key('Escape', 27)
    assert b.js('state.pick') is None
    b.js("$('tab-photo').focus()")
    assert b.js("getComputedStyle($('tab-photo')).outlineStyle") in ('solid', 'auto')
    b.key('ArrowRight', 39)
    assert b.js("$('photo').hidden && !$('film').hidden")


def test_names_of_controls(b, cats_file):
    "Whoever cannot see the page is told what each control is"
    upload(b, cats_file)
    tree = b.call('Accessibility.getFullAXTree')['nodes']
    kinds = ('button', 'slider', 'checkbox', 'tab', 'textbox', 'link', 'progressbar', 'image')
    nodes = [n for n in tree if n.get('role', {}).get('value') in kinds and not n['ignored']]
    nameless = [n for n in nodes if not n.get('name', {}).get('value', '').strip()]
    assert len(nodes) >= 12
    assert not nameless


@pytest.mark.parametrize('width', [390, 320])
def test_on_a_phone(b, width, cats_file):
    "No scrolling sideways, in either tab, before and after a photo; controls fit a finger"
    b.resize(width, 800, mobile=True)
    wide = lambda: b.js('document.documentElement.scrollWidth') - width
    assert wide() <= 0
    upload(b, cats_file)
    slide(b, 'score', 0.05)
    b.js("$('show-all').click(), $('show-anchors').click(), choose(state.kept[0])")
    assert wide() <= 0
    assert b.js("$('frame').clientWidth") > 0.8 * width
    small = (
        "[...document.querySelectorAll('.deeds button, .deeds .button, [role=tab]')]"
        '.filter(e => e.offsetParent && e.getBoundingClientRect().height<32).length'
    )
    assert b.js(small) == 0
    b.js("$('tab-film').click()")
    assert wide() <= 0


def test_a_film_in_the_browser(b, page, film):
    b.js("$('tab-film').click()")
    slide(b, 'score', 0.3)
    b.upload('#film-file', film)
    b.until("!$('film-shown').hidden", 90)
    assert '24 frames' in b.js("$('film-said').textContent")
    b.js("$('film-shown').muted = true")
    b.js("$('film-shown').play()")
    b.until("$('film-shown').currentTime>0.2")
    assert b.js("$('film-shown').videoWidth") == 320
    assert b.js("$('film-bar').hidden && $('film-stop').hidden")
    assert posts(b) == [page + 'film?score=0.3&overlap=0.5']
