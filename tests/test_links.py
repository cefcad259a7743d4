"Photos from the web: every way in which a server misbehaves ends in one line, in bounded time"

import io, socket, struct, threading, time, zlib
import pytest
from PIL import Image
from ssd_tutorial.faults import DataError
from ssd_tutorial.links import Links, fetch_image, link_name


def encoded(size=(30, 20), kind='JPEG'):
    file = io.BytesIO()
    Image.new('RGB', size, 'orange').save(file, kind)
    return file.getvalue()


PHOTO = encoded()


def bomb():
    "A PNG of 40 000 by 40 000 pixels in a few hundred bytes"
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    head = struct.pack('>IIBBBBB', 40_000, 40_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def reply(status=200, body=PHOTO, kind='image/jpeg', length=None, **headers):
    head = f'HTTP/1.1 {status} X\r\nConnection: close\r\n'
    if kind:
        head += f'Content-Type: {kind}\r\n'
    if length is not None:
        head += f'Content-Length: {length}\r\n'
    for k, v in headers.items():
        head += f'{k}: {v}\r\n'
    return head.encode() + b'\r\n' + body


def slow(stop):
    yield reply(body=PHOTO[:50], length=len(PHOTO))
    stop.wait(30)


def silent(stop):
    stop.wait(30)
    yield b''


def endless(stop):
    yield reply(body=b'')
    while not stop.is_set():
        yield bytes(65536)


def drip(stop):
    yield reply(body=b'', length=len(PHOTO))
    for b in PHOTO:
        yield bytes([b])
        if stop.wait(0.05):
            return


def drip_head(stop):
    for b in b'HTTP/1.1 200 OK\r\nX-A: ' + b'a' * 5000:
        yield bytes([b])
        if stop.wait(0.05):
            return


ANSWERS = dict(
    photo=reply(length=len(PHOTO)),
    no_length=reply(),
    no_type=reply(kind=None),
    binary=reply(kind='application/octet-stream'),
    away=reply(302, b'', Location='/photo'),
    slow=slow,
    silent=silent,
    endless=endless,
    drip=drip,
    drip_head=drip_head,
    pdf=reply(kind='application/pdf'),
    html=reply(kind='text/html'),
    html_as_jpeg=reply(body=b'<!doctype html><html>please log in</html>'),
    text=reply(body=b'not an image'),
    nothing=reply(body=b'', length=0),
    longer=reply(length=len(PHOTO) - 200),  # what it sends is longer than it says
    shorter=reply(length=len(PHOTO) + 200),
    chunks=reply(body=b'ff\r\nabc', **{'Transfer-Encoding': 'chunked'}),
    half=reply(body=PHOTO[: len(PHOTO) // 2]),
    liar=reply(length=10**12),
    bad_length=reply(length='many'),
    circle=reply(302, b'', Location='/circle'),
    file=reply(302, b'', Location='file:///etc/passwd'),
    script=reply(301, b'', Location='javascript:alert(1)'),
    gone=reply(404, b'<html>'),
    broken=reply(500, b''),
    login=reply(403, b''),
    bomb=reply(body=bomb(), kind='image/png'),
    junk=b'\x00\x01 this is no HTTP\r\n\r\n',
    hangs_up=b'',
)


@pytest.fixture(scope='module')
def home():
    "Address of a server on this machine that answers /NAME with ANSWERS[NAME]"
    stop, listening = threading.Event(), socket.create_server(('127.0.0.1', 0))

    def serve(link):
        with link:
            try:
                name = link.recv(4096).split()[1].decode().strip('/').split('?')[0]
                answer = ANSWERS.get(name, ANSWERS['gone'])
                for part in answer(stop) if callable(answer) else [answer]:
                    link.sendall(part)
            except (OSError, IndexError):
                pass

    def listen():
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[link], daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    with pytest.MonkeyPatch.context() as m:
        m.setenv('NO_PROXY', '127.0.0.1')
        m.setenv('no_proxy', '127.0.0.1')
        yield f'http://127.0.0.1:{listening.getsockname()[1]}'
    stop.set()
    listening.close()


@pytest.mark.parametrize('name', ['photo', 'no_length', 'no_type', 'binary', 'away', 'bad_length'])
def test_an_image_comes_whole(home, name):
    assert fetch_image(f'{home}/{name}?size=large').getvalue() == PHOTO


WRONG = dict(
    slow='silent for 0.5 s',
    silent='silent for 0.5 s',
    endless='more than 1 MB',
    drip='not there after 1.5 s',
    drip_head='not there after 1.5 s',
    pdf='application/pdf, no image',
    html='a web page',
    html_as_jpeg='a web page',
    text='begins like no picture',
    nothing='nothing came',
    longer='not a readable image',
    shorter='closed early',
    chunks='closed early',
    half='not a readable image',
    liar='more than 1 MB',
    circle='more than 5 times',
    file='no web address',
    script='no web address',
    gone='404',
    broken='try again later (500',
    login='without a login',
    bomb='million pixels',
    junk='no connection',
    hangs_up='no connection',
)


@pytest.mark.parametrize('name', WRONG)
def test_what_is_wrong_is_one_line_that_names_the_link(home, name):
    start = time.monotonic()
    with pytest.raises(DataError) as e:
        fetch_image(f'{home}/{name}', most=1_000_000, seconds=0.5, total=1.5)
    said = str(e.value)
    assert time.monotonic() - start < 8
    assert said.startswith(f'{home}/{name}: '), said
    assert WRONG[name] in said, said
    assert '\n' not in said
    assert said.endswith('.')


@pytest.mark.parametrize(
    'url',
    ['file:///etc/passwd', 'ftp://a.org/b.jpg', 'http://', 'http:///x', 'b.jpg', 'https://[::1/x']
    + ['http://127.0.0.1:99999/a', 'http://a..b/c', 'http://' + 'a' * 300 + '.org/b'],
)
def test_what_is_no_address(url):
    with pytest.raises(DataError):
        fetch_image(url, seconds=0.5, total=1)


def test_no_password_is_shown():
    with pytest.raises(DataError) as e:
        fetch_image('http://me:secret@127.0.0.1:9/a.jpg', seconds=0.5, total=1)
    assert 'secret' not in str(e.value)


def test_names_are_safe():
    odd = ['http://h/../../a.jpg', 'http://h/%2e%2e%2f%2e%2e%2fetc', 'http://h/a%00b%0a.jpg']
    odd += ['http://h/con', 'http://h/' + 'x' * 999, 'http://h/?q=/../..', 'http://h']
    for url in odd:
        name = link_name(url)
        assert name
        assert not set(name) & set('/\\\0\n:?*')
        assert name.strip('.')
        assert len(name.encode()) <= 121


def test_several_at_a_time_and_forgotten(home):
    "One that drips holds up no other; a file is there until its last use"
    items = [f'{home}/drip', *[f'{home}/photo?{i}' for i in range(9)], f'{home}/photo?0']
    links = Links(items, total=1.5, seconds=0.5)
    start = time.monotonic()
    assert links.path(items[9]).read_bytes() == PHOTO
    assert time.monotonic() - start < 1.4
    with pytest.raises(DataError, match='not there after'):
        links.path(items[0])
    links.drop(items[0])
    for alive in (True, False):
        links.drop(items[1])
        assert links.path(items[1]).exists() == alive
    assert links.path(items[9]).exists()
