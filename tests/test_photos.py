"Photos by any name, a colour a class, labels that read back; and the command around them"

import io, itertools, json, tracemalloc
from pathlib import Path
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detections import Detections
from ssd_tutorial.detector import Detector
from ssd_tutorial.faults import DataError
from ssd_tutorial.palette import PALETTE, class_color, draw_classes, ink_on, place_captions
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.results import own_numbers, write_predictions
from ssd_tutorial.saves import Saves
from ssd_tutorial.sources import find_photos, is_video, safe_name, split_videos
from ssd_tutorial.trainer import new_detector

FEW = ('background', 'dog', 'cat')


@pytest.fixture
def photo(tmp_path):
    def make(name='a.jpg', size=(40, 30), **how):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size, 'orange').save(path, **how)
        return path

    return make


@pytest.fixture(scope='module')
def det(tmp_path_factory):
    "An untrained detector, in a file"
    data = generated_data('multiscale', 2, 1, size=64)
    cfg = TrainConfig(arch='grid', size=64, width=16, weights='none')
    return new_detector(data, cfg).save(tmp_path_factory.mktemp('det') / 'd.pt')


def run(*args, **how):
    r = CliRunner().invoke(main, [str(a) for a in args], **how)
    assert r.exception is None or isinstance(r.exception, SystemExit), r.exception
    return r.exit_code, r.output


def some(boxes, labels=None, hw=(200, 300), **more):
    labels = [1] * len(boxes) if labels is None else labels
    return Detections(boxes, labels, np.linspace(0.9, 0.5, len(boxes)), FEW, hw, **more)


# ---------------------------------------------------------------- colours
def test_colours_are_apart_and_never_end():
    assert len({class_color(i) for i in range(1, 500)}) == 499
    assert [class_color(i) for i in range(1, 13)] == list(PALETTE)
    assert {ink_on(class_color(i)) for i in range(1, 500)} == {'black', 'white'}


@pytest.mark.parametrize('ground', ['white', 'black', '#808080', *PALETTE])
def test_a_box_is_seen_on_any_ground(ground):
    "Even on its own colour: there the halo is"
    plain = Image.new('RGB', (300, 200), ground)
    for label in (1, 2):
        drawn = draw_classes(some([[50, 60, 200, 150]], [label]), plain)
        line = np.asarray(drawn).astype(int)[100, 40:60] - np.asarray(plain)[100, 40:60]
        assert np.abs(line).sum(1).max() > 150


@pytest.mark.parametrize('size', [(1, 1), (8, 300), (300, 8), (40, 30), (1280, 720)])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P'])
def test_any_image_can_be_drawn_on(size, mode):
    w, h = size
    boxes = [[0, 0, w, h], [-5, -5, w + 5, h + 5], [w / 2, h / 2, w / 2, h / 2], [w, h, w, h]]
    img = Image.new(mode, size)
    drawn = draw_classes(some(boxes, [1, 2, 1, 2], (h, w), ids=np.arange(4)), img)
    assert drawn.size == size
    assert drawn.mode == 'RGB'
    assert img.mode == mode
    assert draw_classes(some(boxes[:0], hw=(h, w)), img).tobytes() == img.convert('RGB').tobytes()


def test_captions_stay_inside_and_apart():
    rng = np.random.default_rng(1)
    for n in (1, 10, 60):
        xy = rng.uniform(-20, 400, (n, 2))
        boxes = np.hstack([xy, xy + rng.uniform(5, 200, (n, 2))])
        sizes = np.stack([rng.uniform(30, 90, n), np.full(n, 12)], 1)
        at = place_captions(boxes, sizes, (400, 400))
        assert at.min() >= 0
        assert at.max() <= 400
        assert np.allclose(at[:, 2:] - at[:, :2], sizes)
    same = place_captions([[100, 100, 200, 200]] * 6, [(50, 12)] * 6, (400, 400))
    for a, b in itertools.combinations(same, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_masks_have_the_colour_of_their_class():
    masks = np.zeros((2, 200, 300), bool)
    masks[0, :, :100] = masks[1, :, 200:] = True
    d = some([[0, 0, 100, 200], [200, 0, 300, 200]], [1, 2], masks=masks)
    img = np.asarray(draw_classes(d, Image.new('RGB', (300, 200), 'white')))
    left, middle, right = img[100, 50], img[100, 150], img[100, 250]
    assert middle.tolist() == [255] * 3
    assert left[2] < left[0]  # orange
    assert right[0] < right[2]  # blue


# ---------------------------------------------------------------- names
def test_lists_say_which_line_is_wrong(photo, tmp_path):
    photo('day/a.jpg')
    photo('b #1.jpg')
    lines = ['# a comment', '', 'day/a.jpg', '  b #1.jpg  ', 'gone.jpg', 'day', 'day/*.jpg', 'no*']
    (tmp_path / 'l.txt').write_text('\r\n'.join(lines), encoding='utf-8-sig')
    found = find_photos([f'@{tmp_path}/l.txt'], missing=(bad := []))
    assert [p.name for p in found] == ['a.jpg', 'b #1.jpg'], 'each once'
    assert [b.partition(':')[0].rpartition(' ')[2] for _, b in bad] == ['5', '8']
    (tmp_path / 'l.txt').write_text('# nothing\n')
    with pytest.raises(DataError, match='no line names'):
        find_photos([f'@{tmp_path}/l.txt'])


def test_patterns(photo, tmp_path, monkeypatch):
    for name in ('a.jpg', 'A2.JPG', 'sub/b.png', 'sub/deep/c.webp', '[x].png', '.hidden/h.png'):
        photo(name)
    (tmp_path / 'sub' / 'n.txt').write_text('no')
    (tmp_path / 'sub' / 'v.mp4').write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    names = lambda x: sorted(p.name for p in find_photos([x]))
    assert names('**/*') == ['A2.JPG', '[x].png', 'a.jpg', 'b.png', 'c.webp', 'v.mp4']
    assert names('*.jpg') == ['a.jpg']
    assert names('[x].png') == ['[x].png']
    assert names('s*') == ['b.png', 'c.webp', 'v.mp4']
    assert split_videos(find_photos(['sub']))[1] == [Path('sub/v.mp4')]
    with pytest.raises(DataError, match='none is an image'):
        find_photos(['sub/*.txt'])


def test_videos_by_ending_and_by_content(tmp_path):
    heads = dict(
        a=b'\x00\x00\x00\x20ftypisom', b=b'\x1aE\xdf\xa3webm', c=b'RIFF....AVI LIST', d=b'hello'
    )
    heads |= {'e': b'\x00\x00\x00\x20ftypavif', 'f': b'', 'g.jpg': b'\x00\x00\x00\x20ftypisom'}
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
    film = {n for n in heads if is_video(tmp_path / n)}
    assert film == {'a', 'b', 'c'}
    assert not is_video(tmp_path)
    assert not is_video(tmp_path / 'gone')
    assert is_video('https://a.org/x.MP4?t=3#x')


def test_names_are_safe_on_every_system():
    for text in ('a/b', '..', '', 'NUL', 'com1.jpg', '\x1b[31m', 'e\u0301', 'x' * 999, ' . '):
        name = safe_name(text)
        assert name.strip(' .') == name
        assert len(name.encode()) <= 121
        assert not set(name) & set('/\\:\x1b')
    assert safe_name('e\u0301') == 'é'


# ---------------------------------------------------------------- labels
@pytest.mark.parametrize('kind', ['yolo', 'voc'])
def test_labels_read_back(tmp_path, photo, kind):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = [photo(f'{i}/same.jpg', (90, 60)) for i in range(3)]
    photos.append(photo('turned.jpg', (60, 90), exif=exif))  # 90 by 60 when it is upright
    saves, truth = Saves(kind, tmp_path / 'out', FEW), {}
    for i, path in enumerate(photos):
        xy = rng.uniform(0, 30, (i, 2))
        d = some(np.hstack([xy, xy + rng.uniform(2, 30, (i, 2))]), rng.integers(1, 3, i), (60, 90))
        saves.add(d, path, f'p{i}')
        truth[f'p{i}'] = d
    saves.close()
    data = load_dataset(tmp_path / 'out' / kind)
    records = {Path(r.file_name).stem: r for rs in data.splits.values() for r in rs}
    assert records.keys() == truth.keys()
    for name, r in records.items():
        assert np.allclose(r.boxes_px, truth[name].boxes_px, atol=1e-4)
        assert [data.vocab[l] for l in r.labels] == truth[name].names
        assert r.size_hw == (60, 90)


def test_crops_show_the_object(tmp_path, photo):
    img = Image.new('RGB', (60, 40), 'white')
    img.paste('red', (10, 10, 30, 25))
    img.save(tmp_path / 'a.png')
    saves = Saves('crops', tmp_path / 'out', ('background', 'a/b', 'x'))
    d = Detections([[10, 10, 30, 25]], [1], [0.9], saves.vocab, (40, 60))
    saves.add(d, tmp_path / 'a.png', 'a')
    (path,) = (tmp_path / 'out').rglob('*.jpg')
    assert path.parent.name == 'a_b'
    crop = np.asarray(Image.open(path)).astype(int)
    assert crop.shape == (15, 20, 3)
    assert np.abs(crop - [255, 0, 0]).max() < 30


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path, photo, capsys):
    path = photo()

    def peak(n):
        found = (some([[1, 1, 9, 9]] * 50, hw=(30, 40), image_id=i) for i in range(n))
        tracemalloc.start()
        write_predictions([path] * n, found, tmp_path / 'out', pictures=False)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(5)
    few, many = peak(20), peak(400)
    assert many - few < 400 * 1500, 'a photo costs its name, not its detections'
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(rows) == 400 * 50
    assert {r['image_id'] for r in rows} == set(range(400))


def test_a_stop_in_the_middle_leaves_what_was_there(tmp_path, photo):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'predictions.json').write_text('[1]')

    def found():
        yield some([[1, 1, 9, 9]], hw=(30, 40))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions([photo()], found(), tmp_path / 'out', pictures=False)
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['predictions.json']
    assert (tmp_path / 'out' / 'predictions.json').read_text() == '[1]'


def test_numbers_stay_places_where_there_is_no_set(photo):
    d = some([[1, 1, 9, 9]], image_id=7)
    assert own_numbers(['https://a.org/b.jpg'])(d) is d
    assert own_numbers([photo()])(d) is d


# ---------------------------------------------------------------- Python
def test_predict_takes_patterns_and_generators(det, photo, tmp_path):
    for i in range(3):
        photo(f'{i}.png', (50 + i, 40))
    d = Detector.load(det)
    widths = lambda found: [f.size_hw[1] for f in found]
    assert widths(d.predict(f'{tmp_path}/*.png')) == [50, 51, 52]
    assert widths(d.predict(Image.open(p) for p in sorted(tmp_path.glob('*.png')))) == [50, 51, 52]
    with open(tmp_path / '1.png', 'rb') as f:
        assert d.predict(f).size_hw == (40, 51)
    endless = (np.zeros((20, 20 + i, 3), np.uint8) for i in itertools.count())
    assert widths(itertools.islice(d.predict_stream(endless, bs=4), 10)) == [*range(20, 30)]
    with pytest.raises(DataError, match='picture 2'):
        d.predict(x for x in (np.zeros((9, 9, 3), np.uint8), io.BytesIO(b'junk')))


# ---------------------------------------------------------------- the command
def test_one_bad_line_costs_no_other(det, photo, tmp_path, monkeypatch):
    "A list, a page that calls itself JPEG, a name in another script; labels of the good ones"
    monkeypatch.chdir(tmp_path)
    photo('ü 猫.jpg')
    photo('b.png')
    (tmp_path / 'c.jpg').write_text('hello, I am a text')
    Path('list.txt').write_text('ü 猫.jpg\nb.png\nc.jpg\ngone.jpg\nfilm.mp4\n', encoding='utf-8')
    Path('film.mp4').write_bytes(b'\x00\x00\x00\x20ftypisom')
    code, out = run('predict', '@list.txt', '--detector', det, '--score', 0, '--save', 'yolo,voc')
    assert code == 2
    assert '3 of 5 photos could not be read' in out
    assert all(w in out for w in ('c.jpg: not a readable image', 'line 4', 'film.mp4'))
    assert 'mean score' in out
    assert '2 images' in out
    names = {p.name for p in Path('predictions').iterdir()}
    assert names == {'ü 猫.png', 'b.png', 'predictions.json', 'yolo', 'voc'}
    assert {p.name for p in Path('predictions/yolo/images').iterdir()} == {'ü 猫.jpg', 'b.png'}
    rows = json.loads(Path('predictions/predictions.json').read_text())
    assert {type(r['image_id']) for r in rows} == {int}
    assert {r['file_name'] for r in rows} == {'ü 猫.jpg', 'b.png'}


def test_an_image_through_standard_input(det, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = photo().read_bytes()
    code, out = run('predict', '-', '--detector', det, '--out', 'o', input=data)
    assert code == 0, out
    assert (tmp_path / 'o' / 'stdin.png').is_file()
    code, out = run('predict', '-', '--detector', det, '--out', 'p', input=b'a.jpg\n')
    assert code == 0, out
    assert (tmp_path / 'p' / 'a.png').is_file()
    code, out = run('predict', '-', '--detector', det, input=b'')
    assert (code, out) == (2, 'Error: -: nothing came through standard input.\n')
    code, out = run('predict', '-', '--detector', det, input=data[:200])
    assert code == 2
    assert 'Traceback' not in out


@pytest.mark.parametrize(
    'args,says',
    [
        (['no*.jpg'], 'no file has such a name'),
        (['@gone.txt'], 'there is no list'),
        (['empty'], 'no image files'),
        (['ftp://a.org/b.jpg'], 'http://'),
        (['http://127.0.0.1:9/b.jpg'], 'no connection'),
        (['a.jpg', '--save', 'coco'], 'there are yolo, voc, crops'),
        (['x' * 5000], 'File name too long'),
    ],
)
def test_wrong_names_are_one_line(det, photo, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    photo()
    Path('empty').mkdir()
    code, out = run('predict', *args, '--detector', det)
    assert code == 2, out
    assert says in out, out
    assert 'Traceback' not in out
    assert len(out.strip().splitlines()) == 1, out
    assert not Path('predictions').exists()


def test_photos_of_one_name_keep_apart(det, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in 'abc':
        photo(f'{folder}/cat.jpg')
    code, out = run('predict', '*', '--detector', det, '--save', 'yolo', '--score', 0)
    assert code == 0, out
    stems = lambda at, kind: sorted(p.stem for p in Path('predictions', at).glob(kind))
    assert stems('.', '*.png') == stems('yolo/images', '*') == ['cat_0', 'cat_1', 'cat_2']
    assert stems('yolo/labels', '*') == ['cat_0', 'cat_1', 'cat_2']
    again = run('predict', 'predictions/yolo', '--detector', det, '--save', 'yolo')
    assert again[0] == 2
    assert 'would take its place' in again[1]
