"""Damaged data: one table says for every damage and format what comes out under raise, fix and
skip, of `load_dataset` and of the command.

A row's toy set is written as text by this file alone, not by the package's writers. For every row
the test counts: images in minus images out, and objects in minus objects out, must be what the
notes count. Nothing may vanish in silence, hang, or end in anything but a `DataError`.
"""

import json, os, signal, subprocess, sys, unicodedata
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from ssd_tutorial.pictures import _look, open_image
from ssd_tutorial.records import DetectionData
from ssd_tutorial import pictures, readers
from ssd_tutorial.checks import check_data, check_records
from ssd_tutorial.coco import read_coco_json
from ssd_tutorial.faults import DataError
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import make_record
from ssd_tutorial.voc import read_voc_xml
from ssd_tutorial.yolo import read_yolo_txt

KINDS, SIZED, JSONS = (
    ('voc', 'coco', 'fastai', 'yolo'),
    ('voc', 'coco', 'fastai'),
    ('coco', 'fastai'),
)
NAMES, W, H = ('cat', 'dog'), 64, 48
INF, NAN = float('inf'), float('nan')


@pytest.fixture(autouse=True)
def nothing_hangs():
    "No row may take longer than 30 seconds"
    if not hasattr(signal, 'SIGALRM'):
        yield
        return

    def stop(*_):
        raise TimeoutError('this row hangs')

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


# ---------------------------------------------------------------- the toy set
@dataclass
class Photo:
    split: str
    file: str
    objects: list  # of [name, x1, y1, x2, y2], edges in pixels
    declared: tuple = (W, H)  # width, height
    picture: object = None  # function that writes the file; None: a plain photograph


class Toy:
    """Four photographs to train on and two to validate;
    the damage is done to `self.bad`, its second photograph."""

    def __init__(self, kind, root):
        self.kind, self.root, self.classes, self.extra = (
            kind,
            root,
            NAMES,
            dict(images=0, objects=0),
        )
        self.photos = [
            Photo(
                'train' if i < 4 else 'val',
                f'photo_{i}.jpg',
                [['cat', 4 + i, 5, 30, 40], ['dog', 20, 10, 50 + i, 30]],
            )
            for i in range(6)
        ]
        self.bad = self.photos[1]

    def folder(self, p):
        return (
            self.root
            / dict(voc='JPEGImages', coco=p.split, fastai='train', yolo=f'images/{p.split}')[
                self.kind
            ]
        )

    def image(self, p=None):
        p = p or self.bad
        return self.folder(p) / p.file

    def note(self, p=None):  # the annotation file of one image
        p = p or self.bad
        stem = Path(p.file).stem
        return dict(
            voc=self.root / 'Annotations' / f'{stem}.xml',
            coco=self.root / 'annotations' / f'instances_{p.split}.json',
            fastai=self.root / f'{dict(train="train", val="valid")[p.split]}.json',
            yolo=self.root / 'labels' / p.split / f'{stem}.txt',
        )[self.kind]

    def write(self):
        for i, p in enumerate(self.photos):
            self.folder(p).mkdir(parents=True, exist_ok=True)
            self.note(p).parent.mkdir(parents=True, exist_ok=True)
            if p.picture:
                p.picture(self.image(p))
            else:
                photograph(i).save(self.image(p), quality=90)
        getattr(self, f'write_{"coco" if self.kind == "fastai" else self.kind}')()
        return self

    def write_voc(self):
        main = self.root / 'ImageSets' / 'Main'
        main.mkdir(parents=True)
        for s in ('train', 'val'):
            (main / f'{s}.txt').write_text(
                ''.join(f'{Path(p.file).stem}\n' for p in self.photos if p.split == s),
                encoding='utf-8',
            )
        for p in self.photos:
            # first and last pixel, from 1
            objects = ''.join(
                f'<object><name>{n}</name><difficult>0</difficult><bndbox>'
                f'<xmin>{a + (not a > c)}</xmin><ymin>{b + (not b > d)}</ymin>'
                f'<xmax>{c + (a > c)}</xmax><ymax>{d + (b > d)}</ymax></bndbox></object>'
                for n, a, b, c, d in p.objects
            )
            size = (
                f'<size><width>{p.declared[0]}</width><height>{p.declared[1]}</height>'
                '<depth>3</depth></size>'
                if p.declared
                else ''
            )
            self.note(p).write_text(
                f'<annotation><filename>{p.file}</filename>{size}{objects}</annotation>',
                encoding='utf-8',
            )

    def write_coco(self):
        for s in ('train', 'val'):
            ours = [(i, p) for i, p in enumerate(self.photos) if p.split == s]
            ids = {n: 3 + 4 * k for k, n in enumerate(self.classes)}
            images = [
                dict(
                    id=100 + i,
                    file_name=p.file,
                    **(dict(width=p.declared[0], height=p.declared[1]) if p.declared else {}),
                )
                for i, p in ours
            ]
            objects = [
                dict(
                    image_id=100 + i,
                    category_id=ids.get(n, n),
                    bbox=[a, b, c - a, d - b],
                    iscrowd=0,
                )
                for i, p in ours
                for n, a, b, c, d in p.objects
            ]
            self.note(ours[0][1]).write_text(
                json.dumps(
                    dict(
                        images=images,
                        categories=[dict(id=i, name=n) for n, i in ids.items()],
                        annotations=[dict(id=k, **o) for k, o in enumerate(objects)],
                    )
                )
            )

    def write_yolo(self):
        (self.root / 'data.yaml').write_text(
            f'train: images/train\nval: images/val\nnames: [{", ".join(self.classes)}]\n'
        )
        for p in self.photos:
            w, h = real_size(self.image(p))
            number = lambda n: self.classes.index(n) if n in self.classes else n
            self.note(p).write_text(
                ''.join(
                    f'{number(n)} {(a + c) / 2 / w!r} {(b + d) / 2 / h!r} '
                    f'{(c - a) / w!r} {(d - b) / h!r}\n'
                    for n, a, b, c, d in p.objects
                )
            )

    def edit(self, change):  # of the parsed JSON
        d = json.loads(self.note().read_text(encoding='utf-8-sig'))
        change(d)
        self.note().write_text(json.dumps(d))


def photograph(seed=0, size=(W, H), mode='RGB'):
    return (
        Image.fromarray(
            np.random.default_rng(seed).integers(
                0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8
            )
        )
        .resize(size, Image.BICUBIC)
        .convert(mode)
    )


def real_size(path):
    try:
        return open_image(path).size
    except DataError:
        return W, H


# ---------------------------------------------------------------- ways to damage it
def box(*corners):
    def f(toy):
        toy.bad.objects[0][1:] = corners

    return f


def name(label):  # in the words of each format
    def f(toy):
        toy.bad.objects[0][0] = label[toy.kind] if isinstance(label, dict) else label
        if label == 'background':
            toy.classes = ('background', *NAMES)

    return f


def declare(*wh, objects=None):
    def f(toy):
        toy.bad.declared = wh
        if objects:
            toy.bad.objects = objects

    return f


def picture(write, file=None, objects=None, declared=None):
    "The bad photograph is written by this function, under this name"

    def f(toy):
        toy.bad.picture, toy.bad.file, toy.bad.declared = write, file or toy.bad.file, declared
        toy.bad.objects = objects or toy.bad.objects

    return f


def saved(mode, **how):
    def f(path):
        photograph(1).convert(mode).save(path, **how)

    return f


def deep16(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (H, W), dtype=np.uint16)).save(path)


def animated(path):
    photograph(1).convert('P').save(
        path, save_all=True, append_images=[photograph(2).convert('P'), photograph(3).convert('P')]
    )


def lying(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(1).save(path, exif=exif)  # stored 64×48, seen 48×64


def wide(path):
    Image.new('RGB', (20_000, 120), 'teal').save(path)


def bomb(path):  # header of a PNG of 20,000×20,000; its pixels are not needed to refuse it
    import struct, zlib

    chunk = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 20_000, 20_000, 8, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(bytes(1000)))
        + chunk(b'IEND', b'')
    )


def put(data):  # bytes where the picture was
    return lambda toy: toy.image().write_bytes(data)


def gone(toy):
    toy.image().unlink()


def cut(toy):
    b = toy.image().read_bytes()
    toy.image().write_bytes(b[: len(b) * 2 // 3])


def tables(toy):
    b = toy.image().read_bytes()
    i = b.index(b'\xff\xc4') + 5
    toy.image().write_bytes(b[:i] + b'\xff' * 16 + b[i + 16 :])  # both ends are in place


def folder(toy):
    toy.image().unlink()
    toy.image().mkdir()


def link(target):
    def f(toy):
        toy.image().unlink()
        toy.image().symlink_to(target)

    return f


def swap(old, new):  # in the annotation's text, once
    def f(toy):
        text = toy.note().read_text()
        assert old in text, (old, text)
        toy.note().write_text(text.replace(old, new, 1))

    return f


def becomes(data):  # the whole annotation file
    return lambda toy: toy.note().write_bytes(data if isinstance(data, bytes) else data.encode())


def entry(
    key, at=1, /, **new
):  # of the JSON's lists: the bad image is images[1], its objects annotations[2] and [3]
    def f(toy):
        toy.edit(lambda d: d[key][at].update(new))

    return f


def said_to_be(file):
    def f(toy):
        toy.bad.file = file
        toy.edit(lambda d: d['images'][1].update(file_name=file))

    return f


def replaced(key, at, value):
    def f(toy):
        toy.edit(lambda d: d[key].__setitem__(at, value))

    return f


def added(key, images=0, objects=0, **new):
    def f(toy):
        toy.extra = dict(images=images, objects=objects)
        toy.edit(lambda d: d[key].append({**d[key][-1], **new}))

    return f


def windows(encoding='utf-8-sig'):
    def f(toy):
        files = [
            p
            for p in toy.root.rglob('*')
            if p.suffix in ('.xml', '.json', '.txt', '.yaml') and p.is_file()
        ]
        assert len(files) >= 2
        for p in files:
            if p.suffix == '.xml' and encoding == 'utf-16':
                continue  # its declaration would have to say so
            p.write_bytes(p.read_text(encoding='utf-8').replace('\n', '\r\n').encode(encoding))

    return f


def rename(on_disk, said):
    """The picture (and its own label file) are spelled one way on the disk and another way by those
    who name them."""

    def f(toy):
        toy.bad.file = f'{said}.jpg'
        toy.write()
        for p in (
            toy.image(),
            *([toy.note()] if toy.kind in ('voc', 'yolo') and on_disk != said else []),
        ):
            if toy.kind == 'yolo' and p.suffix == '.jpg':
                continue  # nobody but the label's name names it
            p.rename(p.with_stem(on_disk))
        if toy.kind == 'yolo':
            toy.bad.file = toy.image().name

    f.writes = True
    return f


def elsewhere(toy):  # the image lies outside, by a path with ..
    (toy.root / 'photos').mkdir()
    toy.image().rename(toy.root / 'photos' / 'far.jpg')
    up = toy.folder(toy.bad).relative_to(toy.root).parts
    toy.edit(lambda d: d['images'][1].update(file_name='../' * len(up) + 'photos/far.jpg'))
    toy.bad.file = '../' * len(up) + 'photos/far.jpg'


def twice(toy):
    toy.bad.objects.append([*toy.bad.objects[0]])


def empty(toy):
    toy.bad.objects = []


def crowd_text(toy):
    toy.edit(lambda d: [a.update(iscrowd='0') for a in d['annotations']])


def no_lists(toy):
    import shutil

    shutil.rmtree(toy.root / 'ImageSets')


def unannotated(toy):
    no_lists(toy)
    toy.note().unlink()


def no_label(toy):
    toy.note().unlink()
    toy.bad.objects = []


def label_folder(toy):
    toy.note().unlink()
    toy.note().mkdir()


def far_too_deep(toy):
    toy.note().write_text('[' * 200_000 + ']' * 200_000)


def deep_xml(toy):
    toy.note().write_text('<annotation>' + '<a>' * 100_000 + '</a>' * 100_000 + '</annotation>')


# ---------------------------------------------------------------- the table
@dataclass
class Row:
    case: str
    do: object  # before the set is written, where it is a `before` of the toy; else after
    kinds: tuple = KINDS
    says: str = None  # words of the message; None: it is legal, every policy keeps everything
    fix: tuple = (0, 0, 0)  # images left out, objects left out of the others, mended
    skip: tuple = None  # None: the image is left out, (1,0,0)
    after: bool = False  # the damage is done to the written files
    box: object = None  # what fix makes of object 0
    value: str = None  # must be in the message, too
    noted: bool = False  # legal, yet left out by every policy, with a note

    def __str__(self):
        return self.case


DROPPED, OUT, MENDED, FATAL = (0, 1, 0), (1, 0, 0), (0, 0, 1), 'fatal'


def late(case, do, *a, **kw):
    return Row(case, do, *a, after=True, **kw)


# fmt: off
TABLE = [
    # boxes
    Row('zero width', box(20, 5, 20, 40), says='has no area', fix=DROPPED,
        value='[20.0, 5.0, 20.0, 40.0]'),
    Row('zero height', box(20, 5, 40, 5), says='has no area', fix=DROPPED),
    Row('flipped on one axis', box(30, 5, 4, 40), says='corners flipped', fix=MENDED,
        box=[4, 5, 30, 40], value='[30.0, 5.0, 4.0, 40.0]'),
    Row('flipped on both axes', box(30, 40, 4, 5), says='corners flipped', fix=MENDED,
        box=[4, 5, 30, 40]),
    Row('half outside', box(40, 5, 90, 40), says='lies partly outside', fix=MENDED,
        box=[40, 5, 64, 40], value='64×48'),
    Row('flipped and outside', box(90, 40, 40, 5), says='corners flipped', fix=MENDED,
        box=[40, 5, 64, 40]),
    Row('wholly outside', box(70, 5, 90, 40), says='lies outside', fix=DROPPED),
    Row('half a pixel outside', box(40, 5, 64.4, 40)),
    Row('not a number', box(NAN, 5, 30, 40), says='is not finite', fix=DROPPED, value='nan'),
    Row('infinite', box(4, 5, INF, 40), says='is not finite', fix=DROPPED),
    Row('beyond float32', box(4, 5, 1e300, 40), says='is not finite', fix=DROPPED),
    Row('decimals', box(4.25, 5.5, 30.75, 40)),
    Row('the same object twice', twice, says='is object 0 once more', fix=DROPPED,
        value='object 2 (cat)'),
    # labels
    Row('unknown label', name({'coco': 99, 'fastai': 99, 'yolo': 17}), ('coco', 'fastai', 'yolo'),
        'is none of the 2 classes (cat, dog)', DROPPED),
    Row('class -1', name({'yolo': -1}), ('yolo',), '(class -1) is none of the 2 classes', DROPPED),
    Row('an object called background', name('background'), KINDS, 'has label 0', DROPPED),
    Row('an image without objects', empty),
    Row('no label file', no_label, ('yolo',), after=True),
    # pictures
    late('missing image', gone, says='no such image', fix=OUT),
    late('empty file', put(b''), says='the file is empty', fix=OUT),
    late('truncated JPEG', cut, says='truncated', fix=OUT),
    late('a JPEG whose tables are damaged', tables, says='broken data stream', fix=OUT),
    late('a web page', put(b'\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>'),
         says='it is a web page', fix=OUT),
    late('a text', put(b'hello'), says='not a readable image', fix=OUT),
    late('a folder named like an image', folder, says='it is a folder', fix=OUT),
    late('a link to itself', link('photo_1.jpg'), says='not a readable image', fix=OUT),
    late('a link to nowhere', link('nowhere.jpg'), says='no such image', fix=OUT),
    late('a link to a device', link('/dev/zero'), says='not a regular file', fix=OUT),
    Row('400 million pixels', picture(bomb, 'photo_1.png'), says='400 million pixels', fix=OUT),
    Row('20,000 pixels wide', picture(wide)),
    *[
        Row(f'picture: {what}', picture(write, file))
        for what, write, file in (
            ('grey', saved('L'), None),
            ('CMYK', saved('CMYK'), None),
            ('progressive', saved('RGB', progressive=True), None),
            ('palette', saved('P'), 'a.png'),
            ('transparent', saved('RGBA'), 'a.png'),
            ('black and white', saved('1'), 'a.png'),
            ('WebP', saved('RGB'), 'a.webp'),
            ('BMP', saved('RGB'), 'a.bmp'),
            ('16 bits', deep16, 'a.png'),
            ('animated GIF', animated, 'a.gif'),
            ('a PNG called .jpg', saved('RGB', format='PNG'), None),
        )
    ],
    # frames
    Row('lying, turned by EXIF', picture(lying, objects=[['cat', 5, 6, 20, 60]])),
    Row('lying, declared as seen',
        picture(lying, objects=[['cat', 5, 6, 20, 60]], declared=(48, 64)), SIZED),
    Row('lying, declared as stored',
        picture(lying, objects=[['cat', 5, 6, 20, 40]], declared=(64, 48)), SIZED,
        'a picture of 64×48, but the picture has 48×64', MENDED, box=[8, 5, 42, 20]),
    Row('lying, declared as stored, boxes as seen',
        picture(lying, objects=[['cat', 5, 6, 20, 60]], declared=(64, 48)), SIZED,
        'its boxes fit the picture', MENDED, box=[5, 6, 20, 60]),
    Row('declared twice as large', declare(128, 96, objects=[['cat', 10, 20, 120, 90]]), SIZED,
        'a picture of 128×96, but the picture has 64×48', MENDED, box=[5, 10, 60, 45]),
    Row('declared half as large', declare(32, 24, objects=[['cat', 2, 4, 30, 20]]), SIZED,
        'another scale', MENDED, box=[4, 8, 60, 40]),
    Row('declared half, boxes whole', declare(32, 24), SIZED, 'its boxes fit the picture', MENDED,
        box=[5, 5, 30, 40]),
    Row('height and width in the wrong order', declare(48, 64), SIZED, 'its boxes fit the picture',
        MENDED, box=[5, 5, 30, 40]),
    Row('declared as another picture', declare(500, 333), SIZED, 'cannot be told', OUT),
    Row('declared as another picture, no objects', lambda toy: (declare(500, 333)(toy), empty(toy)),
        SIZED, 'cannot be told', MENDED),
    Row('declared 0×0', declare(0, 0), SIZED),
    Row('declared in words', declare('wide', 'high'), SIZED),
    Row('nothing declared', lambda toy: setattr(toy.bad, 'declared', None), SIZED),
    # names and texts
    Row('a name with spaces', rename('my photo (1)', 'my photo (1)')),
    Row('a name with accents', rename('Käse été 猫', 'Käse été 猫')),
    Row('a name in two spellings',
        rename(unicodedata.normalize('NFD', 'été'), unicodedata.normalize('NFC', 'été'))),
    Row('a name in two spellings, the other way',
        rename(unicodedata.normalize('NFC', 'été'), unicodedata.normalize('NFD', 'été'))),
    late('Windows line ends and a mark', windows()),
    late('UTF-16', windows('utf-16')),
    # VOC
    late('decimal commas', swap('<xmin>6<', '<xmin>6,5<'), ('voc',), 'decimal commas', MENDED,
         box=[5.5, 5, 30, 40], value='6,5'),
    late('no corner', swap('<xmin>6</xmin>', ''), ('voc',), 'missing or no number', OUT),
    late('no box', swap('<bndbox>', '<box>'), ('voc',), 'not readable XML', OUT),
    late('no name', swap('<name>cat</name>', ''), ('voc',), 'object 0 has no <name>', OUT),
    late('a corner in words', swap('<xmin>6<', '<xmin>six<'), ('voc',), 'missing or no number', OUT,
         value='six'),
    late('billion laughs',
         becomes('<!DOCTYPE annotation [<!ENTITY a "ha">'
                 + ''.join(f'<!ENTITY {n} "{f"&{m};" * 10}">'
                           for m, n in zip('abcdefghi', 'bcdefghij'))
                 + ']><annotation><filename>&j;</filename></annotation>'),
         ('voc',), 'declares entities', OUT),
    late('an entity that names a file',
         becomes('<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
                 '<annotation><filename>&a;</filename></annotation>'),
         ('voc',), 'declares entities', OUT),
    late('half an XML', becomes('<annotation><object><na'), ('voc',), 'not readable XML', OUT),
    late('empty XML', becomes(''), ('voc',), 'not readable XML', OUT),
    late('a web page as XML', becomes('<html><body>404</body></html>'), ('voc',),
         'its root is <html>', OUT),
    late('Latin-1 that says UTF-8',
         becomes(b'<annotation><object><name>K\xe4se</name></object></annotation>'),
         ('voc',), 'not readable XML', OUT),
    late('an unknown encoding', becomes('<?xml version="1.0" encoding="klingon"?><annotation/>'),
         ('voc',), 'not readable XML', OUT),
    late('no annotation', lambda toy: toy.note().unlink(), ('voc',), 'no such annotation', OUT),
    late('deep XML', lambda toy: (deep_xml(toy), empty(toy)), ('voc',)),
    late('no ImageSets', no_lists, ('voc',)),
    late('an image without annotation, no ImageSets', unannotated, ('voc',), noted=True),
    # COCO
    late('an object of an unknown image', added('annotations', objects=1, id=77, image_id=4711),
         JSONS, 'annotation 77 is of image 4711', DROPPED, DROPPED),
    late('an image listed twice',
         lambda toy: (toy.edit(lambda d: d['images'].append(d['images'][1])),
                      toy.extra.update(images=1)),
         JSONS, 'id 101 stands twice in "images"', OUT, (2, 0, 0)),
    late('two images of one id', entry('images', 2, id=101), JSONS, 'id 101 stands twice', None,
         None),
    late('bbox null', entry('annotations', 2, bbox=None), JSONS, 'is not finite', DROPPED,
         value='bbox null'),
    late('bbox of three', entry('annotations', 2, bbox=[1, 2, 3]), JSONS, 'is not finite', DROPPED,
         value='bbox [1, 2, 3]'),
    late('bbox a text', entry('annotations', 2, bbox='1234'), JSONS, 'is not finite', DROPPED),
    late('bbox a dict', entry('annotations', 2, bbox=dict(x=1)), JSONS, 'is not finite', DROPPED),
    late('bbox of a huge number', entry('annotations', 2, bbox=[10**400, 1, 2, 3]), JSONS,
         'is not finite', DROPPED),
    late('numbers as text', entry('annotations', 2, bbox=['5', '5', '25', '35']), JSONS),
    late('iscrowd as text', crowd_text, JSONS),
    late('category a list', entry('annotations', 2, category_id=[1]), JSONS,
         'is none of the 2 classes', DROPPED),
    late('no category', entry('annotations', 2, category_id=None), JSONS,
         'is none of the 2 classes', DROPPED),
    late('image_id a list', entry('annotations', 2, image_id=[1]), JSONS, 'is of image [1]',
         DROPPED, DROPPED),
    late('an annotation that is a number', replaced('annotations', 2, 7), JSONS,
         'annotation 2 is 7', DROPPED, DROPPED),
    late('an image without name', lambda toy: toy.edit(lambda d: d['images'][1].pop('file_name')),
         JSONS, 'it needs an id and a file_name', None, None),
    late('an image that is a list', replaced('images', 3, [1]), JSONS,
         'it needs an id and a file_name', None, None),
    late('a name with a zero byte', said_to_be('a\0b.jpg'), JSONS, 'not a readable image', OUT),
    late('a name far too long', said_to_be('a' * 300 + '.jpg'), JSONS, 'File name too long', OUT),
    late('an image elsewhere', elsewhere, JSONS),
    late('no list of annotations', lambda toy: toy.edit(lambda d: d.update(annotations=dict())),
         JSONS, '"annotations" is {}, not a list', FATAL),
    late('categories as texts', lambda toy: toy.edit(lambda d: d.update(categories=['cat', 'dog'])),
         JSONS, 'category 0 is "cat"', FATAL),
    late('two categories of one id',
         lambda toy: toy.edit(lambda d: d['categories'][0].update(id=7)), JSONS,
         'id 7 stands twice in "categories"', FATAL),
    late('a list', becomes('[1,2]'), JSONS, 'not a COCO annotation file', FATAL),
    late('half a JSON', becomes('{"images": ['), JSONS, 'not readable JSON', FATAL),
    late('empty JSON', becomes(''), JSONS, 'not readable JSON', FATAL),
    late('deep JSON', far_too_deep, JSONS, 'not readable JSON', FATAL),
    late('not UTF-8', becomes(b'{"images": "\xff\xfe"}'), JSONS, 'not readable JSON', FATAL),
    # YOLO
    late('decimal commas in fractions',
         lambda toy: toy.note().write_text('0 0,5 0,5 0,25 0,5\n1 .5 .5 .1 .1\n'), ('yolo',),
         'decimal commas', MENDED, box=[24, 12, 40, 36]),
    *[
        late(f'a line of {what}', becomes(line), ('yolo',), 'line 2 is', OUT)
        for what, line in (
            ('four numbers', '0 .5 .5 .1 .1\n0 .5 .5 .1'),
            ('words', '0 .5 .5 .1 .1\ncat .5 .5 .1 .1'),
            ('too many numbers', '0 .5 .5 .1 .1\n0 .1 .1 .2 .2 .3 .3 .4'),
            ('half a class', '0 .5 .5 .1 .1\n.5 .5 .5 .1 .1'),
            ('a huge class', '0 .5 .5 .1 .1\n1e300 .5 .5 .1 .1'),
            ('bytes', b'0 .5 .5 .1 .1\n\x00\x01\x02'),
        )
    ],
    late('bytes that are no text', becomes(b'\x80\x81\xff'), ('yolo',), 'not readable text', OUT),
    late('a label that is a folder', label_folder, ('yolo',), 'not readable text', OUT),
]
# fmt: on
CASES = [(row, kind) for row in TABLE for kind in row.kinds]
# what is left out there is counted by hand below
WHOLE_FILE = ('two images of one id', 'an image without name', 'an image that is a list')


def build(row, kind, root):
    toy = Toy(kind, root)
    if getattr(row.do, 'writes', False):
        row.do(toy)
    elif row.after:
        row.do(toy.write())
    else:
        row.do(toy)
        toy.write()
    return toy


def sound(data):
    "What comes out may be trained on"
    for records in data.splits.values():
        for r in records:
            h, w = r.size_hw
            assert r.load().size == (w, h)
            assert np.isfinite(r.boxes_px).all()
            assert r.boxes_px.dtype == np.float32
            assert r.labels.dtype == np.int64
            assert (r.boxes_px[:, :2] >= 0).all()
            assert (r.boxes_px[:, :2] < r.boxes_px[:, 2:]).all()
            assert (r.boxes_px[:, 2:] <= [w, h]).all()
            assert ((r.labels >= 1) & (r.labels < len(data.vocab))).all()
            assert len(r.labels) == len(r.difficult) == len(r.crowd) == len(r.said)


def counted(toy, data):
    """Images in minus images out, and objects in minus objects out of the images that stayed,
    are what the notes count."""
    out = {unicodedata.normalize('NFC', r.file_name): r for s in data.splits.values() for r in s}
    stayed = [p for p in toy.photos if unicodedata.normalize('NFC', p.file) in out]
    assert len(stayed) == len(out)
    assert (
        len(toy.photos) + toy.extra['images'] - sum(map(len, data.splits.values()))
        == data.counts['images']
    ), data.notes
    assert (
        sum(len(p.objects) for p in stayed)
        + toy.extra['objects']
        - sum(len(r.labels) for r in out.values())
        == data.counts['objects']
    ), data.notes
    return out


@pytest.mark.parametrize('policy', ['raise', 'fix', 'skip'])
@pytest.mark.parametrize('row,kind', CASES, ids=[f'{r}-{k}' for r, k in CASES])
def test_damage(row, kind, policy, tmp_path):
    toy = build(row, kind, tmp_path / 'set')
    faulty = row.says is not None
    where = (Path(toy.bad.file).stem, toy.note().name)
    if faulty and (policy == 'raise' or row.fix == FATAL):
        with pytest.raises(DataError) as e:
            load_dataset(toy.root, on_error=policy)
        message = str(e.value)
        assert row.says in message, message
        assert any(n in message for n in where), message
        assert (row.value or '') in message, message
        assert '\n' not in message, message
        assert message.endswith('.'), message
        assert len(message) < 600 + len(str(tmp_path)), message
        return
    data = load_dataset(toy.root, on_error=policy)
    sound(data)
    notes = ' '.join(data.notes)
    if not faulty and not row.noted:
        assert data.counts == dict(images=0, objects=0, mended=0), data.notes
        assert all('held out' in n for n in data.notes), data.notes
    if faulty:
        assert any(row.says in n and any(w in n for w in where) for n in data.notes), data.notes
    if row.noted:
        assert Path(toy.bad.file).name in notes
    out = check_by_hand(row, toy, data) if row.case in WHOLE_FILE else counted(toy, data)
    if faulty and row.case not in WHOLE_FILE:
        want = row.fix if policy == 'fix' else row.skip or OUT
        assert tuple(data.counts.values()) == want, (data.counts, data.notes)
        assert data.notes[
            0
        ] == 'images left out: {}; objects left out of the others: {}; mended: {}'.format(*want)
    bad = out.get(unicodedata.normalize('NFC', toy.bad.file))
    if row.box and policy == 'fix':
        np.testing.assert_allclose(bad.boxes_px[0], row.box, atol=1e-3)
    if (
        not faulty
        and not row.noted
        and bad is not None
        and len(toy.bad.objects)
        and not any(w in row.case for w in ('half a pixel',))
    ):
        np.testing.assert_allclose(bad.boxes_px, [o[1:] for o in toy.bad.objects], atol=1e-3)
        assert not bad.crowd.any()
        assert [data.vocab[l] for l in bad.labels] == [o[0] for o in toy.bad.objects]


def check_by_hand(row, toy, data):
    """Where an image has lost its name or its id, it goes, and so do its objects,
    which now belong to no image."""
    left = {
        'two images of one id': (2, 2),
        'an image without name': (1, 2),
        'an image that is a list': (1, 2),
    }[row.case]
    assert (data.counts['images'], data.counts['objects']) == left, data.notes
    assert sum(map(len, data.splits.values())) == 6 - left[0]
    assert sum(len(r.labels) for s in data.splits.values() for r in s) == 2 * (6 - left[0])
    return {}


# ---------------------------------------------------------------- whole folders
def text(path, what=''):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(what if isinstance(what, bytes) else what.encode())
    return path.parent


def yolo_with(yaml):
    def f(root):
        Toy('yolo', root).write()
        text(root / 'data.yaml', yaml)

    return f


def voc_with(**files):
    def f(root):
        Toy('voc', root).write()
        [text(root / 'ImageSets' / 'Main' / f'{k}.txt', v) for k, v in files.items()]

    return f


ALIASES = (
    'a: &a [x,x]\n'
    + ''.join(
        f'{n}: &{n} [{",".join([f"*{m}"] * 9)}]\n' for m, n in zip('abcdefghijk', 'bcdefghijkl')
    )
    + 'names: *l\n'
)
FOLDERS = [
    ('nowhere', lambda root: None, 'no such folder'),
    (
        'empty',
        lambda root: root.mkdir(),
        'not a data set we know. It is empty; expected Annotations/',
    ),
    ('a file', lambda root: text(root), 'a file, not a folder'),
    (
        'no data set',
        lambda root: (text(root / 'readme.md'), text(root / 'notes' / 'a.md')),
        'It holds notes/, readme.md; expected Annotations/ (VOC)',
    ),
    (
        'no images at all',
        lambda root: (root / 'Annotations').mkdir(parents=True),
        'It holds Annotations/ (empty)',
    ),
    (
        'Annotations alone',
        lambda root: text(root / 'Annotations' / 'a.xml', '<annotation/>'),
        'no such image',
    ),
    (
        'a list of names that is no text',
        voc_with(train=b'\x80\x81'),
        'train.txt: not readable text',
    ),
    ('empty lists', voc_with(train='', val=''), 'no images left'),
    ('names as one text', yolo_with('names: cat'), 'no list of names, but cat'),
    ('names as a number', yolo_with('names: 7'), 'no list of names, but 7'),
    ('names in lists', yolo_with('names: [[cat],[dog]]'), 'no list of names, but list'),
    ('names by words', yolo_with('names: {one: cat}'), 'no class numbers'),
    ('names by huge numbers', yolo_with('names: {1000000000: cat}'), 'no class numbers'),
    ('names that multiply', yolo_with(ALIASES), 'no list of names, but list'),
    ('no names', yolo_with('train: images/train'), 'no class names'),
    (
        'no YAML at all',
        lambda root: (Toy('yolo', root).write(), (root / 'data.yaml').unlink()),
        'no class names',
    ),
    ('half a YAML', yolo_with('names: [cat'), 'not readable YAML'),
    ('deep YAML', yolo_with('names: ' + '[' * 600), 'not readable YAML'),
    (
        'a YAML that runs code',
        yolo_with('names: !!python/object/apply:os.system [ls]'),
        'not readable YAML',
    ),
    ('bytes for a YAML', yolo_with(b'\xff\xfe\x00'), 'data.yaml: not readable'),
    ('a tag', yolo_with('names: [!!int "", dog]'), 'data.yaml: not readable YAML (it has the tag'),
    ('an empty name', yolo_with('names: [cat, ""]'), 'data.yaml: class 1 has no name'),
]


@pytest.mark.parametrize('case,make,says', FOLDERS, ids=[f[0] for f in FOLDERS])
def test_folder(case, make, says, tmp_path):
    make(tmp_path / 'set')
    for policy in ('raise', 'fix', 'skip'):
        with pytest.raises(DataError) as e:
            load_dataset(tmp_path / 'set', on_error=policy)
        if policy == 'raise' or 'no such image' not in says:
            assert says in str(e.value), str(e.value)
        assert 'set' in str(e.value)


@pytest.mark.parametrize(
    'yaml',
    [
        'train: 5\nval: {a: b}\n',
        'train: nowhere\npath: [1]\n',
        'nc: 7\ntrain: "a\\0b"\n',
        f'train: {"a" * 300}\n',
        '',
    ],
)
def test_odd_but_harmless_yaml(yaml, tmp_path):
    yolo_with(yaml + 'names: [cat, dog]\n')(tmp_path / 'set')
    data = load_dataset(tmp_path / 'set')
    assert {k: len(v) for k, v in data.splits.items()} == dict(train=4, val=2)
    assert data.vocab == ('background', *NAMES)


@pytest.mark.parametrize('kind', KINDS)
def test_a_split_that_does_not_exist(kind, tmp_path):
    with pytest.raises(DataError, match="set: no split 'test'; it has train, val"):
        load_dataset(Toy(kind, tmp_path / 'set').write().root).split('test')


@pytest.mark.parametrize('kind', KINDS)
def test_no_permission(kind, tmp_path, monkeypatch):
    """A picture and a folder that may not be read (root may read anything,
    so the refusal is put in its way)."""
    toy = Toy(kind, tmp_path / 'set').write()
    real = pictures._openable

    def refuse(path):
        if Path(str(path)).name == 'photo_1.jpg':
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)

    monkeypatch.setattr(pictures, '_openable', refuse)
    with pytest.raises(DataError, match='photo_1.jpg: not a readable image: Permission denied'):
        load_dataset(toy.root)
    for policy in ('fix', 'skip'):
        assert load_dataset(toy.root, policy).counts['images'] == 1
    monkeypatch.setattr(readers, 'take_inventory', lambda root: os.listdir('/proc/1/nowhere'))
    with pytest.raises(DataError, match='nowhere: cannot be read .No such file'):
        load_dataset(toy.root)


@pytest.mark.parametrize('kind', KINDS)
def test_links_in_a_circle(kind, tmp_path):
    toy = Toy(kind, tmp_path / 'set').write()
    for d in {toy.folder(p) for p in toy.photos} | {toy.root}:
        (d / 'again').symlink_to(toy.root, target_is_directory=True)
    data = load_dataset(toy.root)
    assert {k: len(v) for k, v in data.splits.items()} == dict(train=4, val=2)


def test_flat_yolo_says_what_it_leaves_out(tmp_path):
    """Beside their text files lie pictures without one: perhaps a plot;
    and a label without a picture."""
    for i in range(4):
        photograph(i).save(text(tmp_path / f'{i}.txt', '0 .5 .5 .5 .5\n') / f'{i}.jpg')
    photograph(5).save(tmp_path / 'results.png')
    text(tmp_path / 'classes.txt', 'cat\n')
    text(tmp_path / 'notes.txt', 'nothing of note')
    data = load_dataset(tmp_path)
    assert data.counts == dict(images=1, objects=0, mended=0)
    assert 'results.png' in ' '.join(data.notes)
    (tmp_path / '0.jpg').unlink()
    with pytest.raises(DataError, match='0.txt: no such image as 0 in'):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, 'fix').counts['images'] == 2


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux lets a name be no text')
@pytest.mark.parametrize('policy', ['raise', 'fix', 'skip'])
def test_a_name_that_is_no_text(policy, tmp_path):
    "Bytes for a name, as an old archive may hold: it reads, and what is said of it can be printed"
    toy = Toy('yolo', tmp_path / 'set')
    toy.bad.file = os.fsdecode(b'K\xe4se.jpg')
    toy.write()
    assert load_dataset(toy.root, policy).counts['images'] == 0
    toy.image().write_bytes(b'')
    if policy == 'raise':
        with pytest.raises(DataError, match='se.jpg: not a readable image: the file is empty') as e:
            load_dataset(toy.root)
        said = str(e.value)
    else:
        data = load_dataset(toy.root, policy)
        said = ' '.join(data.notes)
        assert data.counts['images'] == 1
    assert said.encode()


# ------------------------------------------ what could exhaust the machine, in a process of its own
def alone(code, *args, seconds=60):
    "Run Python code in a new process with a time limit; its output as JSON"
    env = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(
            map(str, [Path(pictures.__file__).resolve().parent.parent, *sys.path])
        ),
    }
    r = subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=env,
    )
    assert r.returncode == 0, r.stderr[-2000:]
    return json.loads(r.stdout.splitlines()[-1])


WATCH = """
import json, re, sys, time
from ssd_tutorial.faults import DataError
from ssd_tutorial.pictures import _look
from ssd_tutorial.readers import load_dataset
# MB; getrusage's figure begins at the parent's
peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])/1024
_look(sys.argv[2]); before, start = peak(), time.time()
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is read from /proc')
def test_memory_of_huge_pictures(tmp_path):
    """Five panoramas of 20,000×1,500, 120 MB each when decoded whole;
    checking and loading them takes a fraction of one."""
    toy = Toy('voc', tmp_path / 'set')
    panorama = Image.new('RGB', (20_000, 1_500), 'teal')
    small = tmp_path / 'small.jpg'
    photograph().save(small)
    for p in toy.photos[:5]:
        p.picture, p.declared = panorama.save, (20_000, 1_500)
    toy.write()
    used = alone(
        WATCH
        + """
data = load_dataset(sys.argv[1]); checked = peak()-before
for r in data.train+data.valid:
    size = r.load(at_least=224).size
    assert min(size)>=48 and size[0]<6000
images = sum(map(len, data.splits.values()))
print(json.dumps(dict(checked=checked, loaded=peak()-before, images=images)))
""",
        toy.root,
        small,
    )
    assert used['images'] == 6, used
    assert used['checked'] < 60, used
    assert used['loaded'] < 60, used


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes here')
def test_pipes_do_not_hang(tmp_path):
    "A named pipe where a picture or an annotation should be: opening it would wait forever"
    toys = [Toy(k, tmp_path / k).write() for k in KINDS]
    photograph().save(tmp_path / 'small.jpg')
    for t in toys:
        t.image().unlink()
        os.mkfifo(t.image())
    for kind in ('voc', 'yolo'):
        toys.append(t := Toy(kind, tmp_path / f'{kind}2').write())
        t.note().unlink()
        os.mkfifo(t.note())
    said = alone(
        WATCH
        + """
from pathlib import Path
for d in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    try: load_dataset(d)
    except DataError as e: assert 'not a regular file' in str(e), e
    else: raise AssertionError(d)
    assert load_dataset(d, 'fix').counts['images']==1
print(json.dumps(time.time()-start))
""",
        tmp_path,
        tmp_path / 'small.jpg',
    )
    assert len(toys) == 6
    assert said < 20


# ---------------------------------------------------------------- the command
@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """A detector that has seen one batch; `Detector.load` gives the one in memory,
    so that a row costs milliseconds."""
    from ssd_tutorial.cli import main
    from ssd_tutorial.detector import Detector

    root = tmp_path_factory.mktemp('detector')
    toy = Toy('voc', root / 'set').write()
    r = CliRunner().invoke(
        main,
        [
            'train',
            '--data',
            str(toy.root),
            *'--size 64 --weights none --epochs 1 --max-steps 1 --batch-size 2 --out'.split(),
            str(root / 'd.pt'),
        ],
    )
    assert r.exit_code == 0, r.output
    det, old = Detector.load(root / 'd.pt'), Detector.load
    Detector.load = staticmethod(lambda *a, **k: det)
    yield root / 'd.pt'
    Detector.load = old


def command(*args):
    from ssd_tutorial.cli import main

    r = CliRunner().invoke(main, [str(a) for a in args])
    assert r.exception is None or isinstance(r.exception, SystemExit), repr(r.exception)
    return r.exit_code, r.output


BAD = [r for r in TABLE if r.says]


@pytest.mark.parametrize('n,row', [*enumerate(BAD)], ids=[r.case for r in BAD])
def test_command(n, row, detector, tmp_path):
    """Raise: status 2 and one line that says it. Fix and skip, every seventh row:
    a report and what it cost. One format a row, in turn; the damage is in train."""
    toy = build(row, row.kinds[n % len(row.kinds)], tmp_path / 'set')
    ask = ('evaluate', '--data', toy.root, '--split', 'train', '--detector', detector)
    code, out = command(*ask)
    errors = [l for l in out.splitlines() if l.startswith('Error:')]
    assert code == 2, out
    assert len(errors) == 1, out
    assert row.says in errors[0], out
    assert 'Traceback' not in out, out
    assert out.splitlines()[-1] == errors[0], out
    for policy in [('fix', 'skip')[n % 2]] if n % 7 == 0 or row.fix == FATAL else []:
        code, out = command(*ask, '--on-error', policy)
        assert (
            code == 2
            if row.fix == FATAL
            else code == 0 and 'mAP' in out and 'images left out: ' in out
        ), out
        assert 'Traceback' not in out, out


@pytest.mark.parametrize('kind', ['fastai'])
def test_command_trains_on_what_is_left(kind, detector, tmp_path):
    "Many damages in one folder: raise names the first; fix trains and says what it cost"
    toy = Toy(kind, tmp_path / 'set')
    box(30, 40, 4, 5)(toy)
    toy.photos[0].objects[1][1:] = [20, 5, 20, 40]
    toy.write()
    gone_one = toy.photos[2]
    toy.image(gone_one).write_bytes(b'<html></html>')
    ask = (
        'train',
        '--data',
        toy.root,
        *'--size 64 --weights none --epochs 1 --max-steps 1 --batch-size 2 --out'.split(),
        tmp_path / 'd.pt',
    )
    code, out = command(*ask)
    assert code == 2
    assert out.splitlines()[-1].startswith('Error:')
    assert not (tmp_path / 'd.pt').exists()
    code, out = command(*ask, '--on-error', 'fix')
    assert code == 0, out
    assert 'images left out: 1; objects left out of the others: 1; mended: 1' in out, out
    assert 'it is a web page' in out, out
    assert (tmp_path / 'd.pt').exists(), out


@pytest.mark.parametrize('case,make,says', FOLDERS[:6], ids=[f[0] for f in FOLDERS[:6]])
def test_command_on_folders(case, make, says, detector, tmp_path):
    make(tmp_path / 'set')
    code, out = command('evaluate', '--data', tmp_path / 'set', '--detector', detector)
    assert code == 2
    assert says in ' '.join(out.split())
    assert 'Traceback' not in out


# ---------------------------------------------------------------- chance
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 10**400, 1e308, True]))
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.text(max_size=6), NUMBERS, st.booleans()),
    lambda v: st.one_of(
        st.lists(v, max_size=5),
        st.dictionaries(
            st.sampled_from(['id', 'bbox', 'image_id', 'name', 'file_name', 'x']), v, max_size=3
        ),
    ),
    max_leaves=8,
)


@st.composite
def bitten(draw, good: bytes):
    "Good bytes with some bytes changed, cut out, doubled or put in"
    b = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at, n = draw(st.integers(0, max(0, len(b) - 1))), draw(st.integers(0, 12))
        b[at : at + n] = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [
                        b'',
                        b'nan',
                        b'-1',
                        b'1e999',
                        b'<',
                        b'&a;',
                        b'"',
                        b'[',
                        b'{}',
                        b',',
                        b'\x00',
                        b'\xff',
                        bytes(b[: n * 9]),
                    ]
                ),
            )
        )
    return bytes(b)


def believed_or_refused(read):
    """What a reader makes of anything: `DataError`, or a record that the check judges without
    another error."""
    try:
        objects = read()
    except DataError:
        return
    pixels = np.zeros((H, W, 3), np.uint8)
    for label in (0, 1):
        records, faults = check_records(
            [make_record(pixels, 0, None, [{'label': label, **o} for o in objects], 'a.jpg')],
            ('background', 'cat'),
            'fix',
        )
        sound(DetectionData(dict(all=records), ('background', 'cat')))
        try:
            check_records(
                [make_record(pixels, 0, None, [{'label': label, **o} for o in objects], 'a.jpg')],
                ('background', 'cat'),
            )
        except DataError:
            pass


XML = (
    b'<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.jpg</filename>'
    b'<size><width>64</width><height>48</height></size>'
    b'<object><name>cat</name><difficult>0</difficult><bndbox><xmin>6</xmin><ymin>6</ymin>'
    b'<xmax>30</xmax><ymax>40,5</ymax></bndbox></object></annotation>'
)


@FUZZ
@given(data=bitten(XML))
def test_any_xml(data, tmp_path):
    (tmp_path / 'a.xml').write_bytes(data)
    for notes in (None, []):
        believed_or_refused(lambda n=notes: read_voc_xml(tmp_path / 'a.xml', notes=n)[1])


@FUZZ
@given(
    data=st.one_of(
        bitten(b'0 0.5 0.5 0.25 0.25\n1 0,5 0.5 0.1 0.1\n0 .1 .1 .2 .2 .3 .1\n'),
        st.text(alphabet='0123456789 .,-+einfa\n\t', max_size=60).map(str.encode),
    )
)
def test_any_yolo_txt(data, tmp_path):
    (tmp_path / 'a.txt').write_bytes(data)
    for notes in (None, []):
        believed_or_refused(lambda n=notes: read_yolo_txt(tmp_path / 'a.txt', (H, W), n))


COCO = dict(
    images=[dict(id=1, file_name='a.jpg', width=64, height=48), dict(id=2, file_name='b.jpg')],
    categories=[dict(id=3, name='cat')],
    annotations=[
        dict(id=1, image_id=1, category_id=3, bbox=[5, 5, 20, 20], iscrowd=0),
        dict(id=2, image_id=2, category_id=3, segmentation=[[1, 2, 9, 2, 9, 12]]),
    ],
)


@st.composite
def json_with_anything(draw):
    "The good file with one to three of its parts replaced by anything at all"
    d = json.loads(json.dumps(COCO))
    for _ in range(draw(st.integers(1, 3))):
        at = d
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            k = draw(st.sampled_from(keys))
            if not isinstance(at[k], (dict, list)) or draw(st.integers(0, 4)) == 0:
                at[k] = draw(JSON_VALUES)
                break
            at = at[k]
    return json.dumps(d).encode()


@FUZZ
@given(
    data=st.one_of(json_with_anything(), bitten(json.dumps(COCO).encode())),
    policy=st.sampled_from(['raise', 'fix', 'skip']),
)
def test_any_json(data, policy, tmp_path):
    if not (tmp_path / 'b.jpg').exists():
        photograph(0).save(tmp_path / 'a.jpg')
        photograph(1).save(tmp_path / 'b.jpg')
    (tmp_path / 'a.json').write_bytes(data)
    try:
        records, vocab, ids = read_coco_json(tmp_path / 'a.json', tmp_path, on_error=policy)
        sound(check_data(DetectionData(dict(all=records), vocab, ids), policy))
    except DataError as e:
        assert str(e)


@FUZZ
@given(names=JSON_VALUES, train=JSON_VALUES)
def test_any_yaml(names, train, tmp_path):
    if not (tmp_path / 'images').exists():
        photograph(0).save(text(tmp_path / 'images' / 'a.jpg') / 'a.jpg')
        text(tmp_path / 'labels' / 'a.txt', '0 .5 .5 .1 .1')
    (tmp_path / 'data.yaml').write_text(json.dumps(dict(names=names, train=train)))  # JSON is YAML
    try:
        load_dataset(tmp_path, 'fix')
    except DataError as e:
        assert str(e)


@FUZZ
@given(data=st.data(), suffix=st.sampled_from(['jpg', 'png', 'gif', 'bmp', 'webp', 'tif']))
@pytest.mark.filterwarnings('ignore')
def test_any_picture(data, suffix, tmp_path):
    """A picture with some bytes changed opens, or is refused;
    and the check says the same as opening does, where it says yes."""
    good = tmp_path / f'good.{suffix}'
    if not good.exists():
        photograph(1).save(good)
    path = tmp_path / f'bad.{suffix}'
    path.write_bytes(data.draw(bitten(good.read_bytes())))
    try:
        size, _ = _look(path)
    except DataError:
        return
    try:
        assert open_image(path).size == size[::-1]
    except DataError:
        assert suffix in ('tif', 'jpg')
