"""What people bring: folders as tools export and people keep them, each with its right outcome.

Every picture is of one grey level, from which `check` works out which one it is; so a test sees
not only how many records there are, but whether each picture has got its own boxes. Pictures and
labels are written by this file alone, not by the package's writers.
"""

import json, re, shutil
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from ssd_tutorial.assembly import data_of
from ssd_tutorial.checks import looks_zero_based

from ssd_tutorial.entries import Entry
from ssd_tutorial.faults import ON_ERROR
from ssd_tutorial.formats import FORMATS, Format
from ssd_tutorial.negatives import list_images
from ssd_tutorial.pictures import open_image
from ssd_tutorial.voc import read_voc, read_voc_xml
from ssd_tutorial import formats
from ssd_tutorial.faults import DataError
from ssd_tutorial.readers import load_dataset, recognise

W, H, STEP = 64, 48, 5
TRAIN, VAL, TEST = range(0, 8), range(20, 23), range(40, 42)
SPLITS = dict(train=TRAIN, val=VAL, test=TEST)
TRAIN_VAL, TRAIN_VALID = dict(train=TRAIN, val=VAL), dict(train=TRAIN, valid=VAL)
TRAIN_TEST, EVERY = dict(train=TRAIN, test=TEST), [*TRAIN, *VAL, *TEST]
NAMES = 'names: [cat, dog]\n'


# ---------------------------------------------------------------- pictures and labels
def objects(i):
    # edges, from 0
    return [('cat', 2 + i % 7, 3, 20 + i % 9, 30), ('dog', 30, 5 + i % 5, 50, 20 + i % 11)]


def put(path, text, enc='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(enc))
    return path


def picture(path, i):
    kind = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.jfif': 'JPEG', '.tif': 'TIFF'}.get(
        path.suffix.lower(), path.suffix[1:].upper()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (W, H), STEP * i + 5).convert('RGB').save(path, format=kind)
    return path


def pictures(folder, ids=TRAIN):
    for i in ids:
        picture(folder / f'{i}.jpg', i)


def number(image):
    return round((int(np.asarray(open_image(image))[20, 20, 0]) - 5) / STEP)


def xml(i, name=None, one=1, head='', names=None, size=True):
    rows = ''.join(
        f'<object><name>{(names or {}).get(n, n)}</name><bndbox>'
        f'<xmin>{a + one}</xmin><ymin>{b + one}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>'
        '</bndbox></object>'
        for n, a, b, c, d in objects(i)
    )
    sides = f'<size><width>{W}</width><height>{H}</height></size>' * size
    file = f'<filename>{name or f"{i}.jpg"}</filename>'
    return f'{head}<annotation>{file}{sides}{rows}</annotation>'


def yolo(i, names=('cat', 'dog'), first=0):
    return ''.join(
        f'{names.index(n) + first} {(a + c) / 2 / W:.8f} {(b + d) / 2 / H:.8f} '
        f'{(c - a) / W:.8f} {(d - b) / H:.8f}\n'
        for n, a, b, c, d in objects(i)
    )


def coco(ids, name=lambda i: f'{i}.jpg', cats=((1, 'cat'), (2, 'dog')), first=1):
    at, images, anns = {n: c for c, n in reversed(cats)}, [], []
    for k, i in enumerate(ids, first):
        images.append(dict(id=k, file_name=name(i), width=W, height=H))
        for n, a, b, c, d in objects(i):
            ann = dict(id=len(anns) + 1, image_id=k, category_id=at[n])
            anns.append(dict(ann, bbox=[a, b, c - a, d - b], iscrowd=0))
    return dict(images=images, annotations=anns, categories=[dict(id=c, name=n) for c, n in cats])


def dump(path, d, **kw):
    return put(path, json.dumps(d), **kw)


def voc(root, ids=TRAIN, images='JPEGImages', labels='Annotations', suffix='.jpg', **kw):
    for i in ids:
        picture(root / images / f'{i}{suffix}', i)
        put(root / labels / f'{i}.xml', xml(i, f'{i}{suffix}', **kw))


def voc_list(path, ids, line='{}'):
    put(path, ''.join(line.format(i) + '\n' for i in ids))


def txt(root, ids=TRAIN, images='images', labels='labels', suffix='.jpg', text=yolo):
    for i in ids:
        picture(root / images / f'{i}{suffix}', i)
        put(root / labels / f'{i}.txt', text(i))


def classes(root):
    put(root / 'classes.txt', 'cat\ndog\n')


def ultra(root, yaml=f'train: images/train\nval: images/val\n{NAMES}', text=yolo, **splits):
    for s, ids in (splits or TRAIN_VAL).items():
        txt(root, ids, f'images/{s}', f'labels/{s}', text=text)
    if yaml:
        put(root / 'data.yaml', yaml)


def json_set(root, files, images, name=lambda i: f'{i}.jpg'):
    "files: annotation file of a split; images: its folder; both as words, train first, or by split"
    if isinstance(files, str):
        files, images = (dict(zip(SPLITS, words.split())) for words in (files, images))
    for s in files:
        pictures(root / images[s], SPLITS[s])
        dump(root / files[s], coco(SPLITS[s], name, first=1 + 100 * [*SPLITS].index(s)))


def coco_2017(root):
    files = 'annotations/instances_train2017.json annotations/instances_val2017.json'
    json_set(root, files, 'train2017 val2017')


def check(data, sizes=None, vocab=('cat', 'dog'), objects_of=objects):
    "Split sizes; classes; and of every record the boxes and names of its own picture"
    if isinstance(sizes, int):
        held_out = max(1, round(sizes * 0.2))
        sizes = dict(train=sizes - held_out, val=held_out)
    if sizes:
        assert {k: len(v) for k, v in data.splits.items()} == sizes, data.notes
    assert data.vocab == ('background', *vocab)
    for split, records in data.splits.items():
        ids = [number(r.image) for r in records]
        assert len({*ids}) == len(ids) == len({r.image_id for r in records})
        for i, r in zip(ids, records):
            want = objects_of(i)
            assert [data.vocab[l] for l in r.labels] == [o[0] for o in want], (r.image, i)
            np.testing.assert_allclose(
                r.boxes_px, np.array([o[1:] for o in want]).reshape(-1, 4), atol=0.02
            )
            if split in SPLITS and len(data.splits) > 1 and 'held out' not in ' '.join(data.notes):
                assert i in SPLITS[split] or i >= 45, (i, split)
    return data


# ---------------------------------------------------------------- layouts that load
THREE, TWO, TT = dict(train=8, val=3, test=2), dict(train=8, val=3), dict(train=6, val=2, test=2)
LAYOUTS = []  # (name, what makes it, split sizes, kind)


def layout(*sizes, kind=None):
    def add(f):
        LAYOUTS.append((f.__name__, f, *sizes, kind))
        return f

    return add


def add(name, sizes, kind, make):
    LAYOUTS.append((name, make, sizes, kind))


def add_coco(name, files, images, file_name=lambda i: f'{i}.jpg'):
    "A file and a folder of pictures for train, then val, then test, as `json_set` makes them"
    sizes = {1: 8, 2: TWO, 3: THREE}[len(files.split())]
    add(name, sizes, 'coco', lambda r: json_set(r, files, images, file_name))


def each(splits, make):
    "A set of several parts: `make(root, its name, its ids)` for each of them"
    return lambda r: [make(r, s, ids) for s, ids in splits.items()]


# fmt: off
# COCO
def roboflow_coco(*names):
    return ' '.join(f'{n}/_annotations.coco.json' for n in names), ' '.join(names)


add_coco('01 roboflow coco', *roboflow_coco('train', 'valid', 'test'))
add_coco('01 shouting', *roboflow_coco('TRAIN', 'VALIDATION', 'TESTING'))
for names in (('Train', 'Validation', 'Test'), ('training', 'dev', 'testing'),
              ('train2017', 'val2017', 'test2017')):
    add_coco(f'10 cvat {names}', ' '.join(f'annotations/instances_{n}.json' for n in names),
             ' '.join(f'images/{n}' for n in names))
add_coco('11 default', 'annotations/instances_default.json', 'images/default')
add_coco('12 nested', 'annotations/instances_Train.json', 'images/Train/Data', 'Data/{}.jpg'.format)
for n, way in {
    '20 images/': 'images/{}.jpg',
    '21 windows': '..\\..\\media\\upload\\4\\{}.jpg',
    '24 local files': '/data/local-files/?d={}.jpg',
    '24 deep local files': '/data/local-files/?d=disk/images/{}.jpg',
    'an absolute path': '/home/me/pets/images/{}.jpg',
    'C:': 'C:\\Users\\me\\images\\{}.jpg',
    'a web address': 'https://host/bucket/{}.jpg?token=a/b',
    's3': 's3://bucket/images/{}.jpg',
    'a file url': 'file:///tmp/{}.jpg',
    'no suffix': '{}',
    'another case': '{}.JPG',
    'another suffix': '{}.png',
    'a prefix of the upload': '23082be0-{}.jpg',
    'percent': 'my%20images/{}.jpg',
}.items():
    add_coco(n, 'result.json', 'images', way.format)
add_coco('56 fiftyone', 'labels.json', 'data')
add_coco('56b fiftyone splits', 'train/labels.json validation/labels.json',
         'train/data validation/data')
add_coco('57 own names', 'train_coco.json val_coco.json', 'coco_images coco_images')
add_coco('57 other names', 'pets_training.json pets-Dev.json', 'photos photos')
add_coco('57b beside', 'labels_my-project-name_2024-05-01-10-00-00.json', '.')
add_coco('57d split folders', 'train/annotations.json val/annotations.json',
         'train/images val/images')
add_coco('57e folders of pictures', 'annotations/train.json annotations/val.json',
         'train_images val_images')
add_coco('a json deep inside', 'export/v3/coco/final.json', 'media/2024')
add('95 fastai', TWO, 'coco', lambda r: (
    json_set(r, 'train.json valid.json', 'train train'),
    put(r / 'train.csv', 'fname,labels,is_valid\n')))
add('two parts of a split', 11, 'coco', lambda r: (
    dump(r / 'train/part_a.json', coco(TRAIN)), dump(r / 'train/part_b.json', coco(VAL, first=100)),
    pictures(r / 'train', (*TRAIN, *VAL))))
add('two numbered parts of a split', 11, 'coco', lambda r: (
    dump(r / 'train_split0.json', coco(TRAIN, first=0)),
    dump(r / 'train_split1.json', coco(VAL, first=100)),
    pictures(r / 'train', (*TRAIN, *VAL))))


@layout(TWO, kind='coco')
def with_captions_and_keypoints(r):
    coco_2017(r)
    for n in ('captions_val2017', 'panoptic_val2017'):
        dump(r / 'annotations' / f'{n}.json', dict(images=[], annotations=[]))
    dump(r / 'annotations' / 'person_keypoints_train2017.json', coco(TRAIN))


@layout(8, kind='coco')
def same_names_in_two_folders_58(r):
    name = lambda i: f'{"ab"[i % 2]}/frame_{i // 2}.jpg'
    for i in TRAIN:
        picture(r / 'images' / name(i), i)
    dump(r / 'annotations.json', coco(TRAIN, name))


@layout(dict(train=3, val=3), kind='coco')
def same_names_in_train_and_val_59(r):
    for s, ids in dict(train=range(3), val=VAL).items():
        for k, i in enumerate(ids):
            picture(r / 'images' / s / f'frame_{k}.jpg', i)
        name = lambda i, ids=ids: f'frame_{ids.index(i)}.jpg'
        dump(r / 'annotations' / f'instances_{s}.json', coco(ids, name))


@layout(8, kind='coco')
def ids_as_text_in_one_list_50b(r):
    json_set(r, 'a.json', 'images')
    d = json.loads((r / 'a.json').read_text())
    for im in d['images']:
        im['id'] = str(im['id'])
    for c in d['categories']:
        c['id'] = float(c['id'])
    dump(r / 'a.json', d)


@layout(8, kind='coco')
def two_categories_of_a_name_53(r):
    d = coco(TRAIN)
    d['categories'].append(dict(id=3, name='cat'))
    for a in d['annotations'][::4]:
        a['category_id'] = 3
    dump(r / 'a.json', d)
    pictures(r / 'images')


for n in ('Background', '_background_', 'BACKGROUND'):
    add(f'01b {n}', 8, 'coco', lambda r, n=n: (
        dump(r / 'a.json', coco(TRAIN, cats=((0, n), (1, 'cat'), (2, 'dog')))), pictures(r)))

# VOC
add('17b a list called default', 8, 'voc', lambda r: (
    voc(r), voc_list(r / 'ImageSets/Main/default.txt', TRAIN)))
add('lists in capitals', THREE, 'voc', each(
    dict(Train=TRAIN, Validation=VAL, TEST=TEST),
    lambda r, s, ids: (voc(r, ids), voc_list(r / f'ImageSets/Main/{s}.txt', ids))))
add('22 label studio', 8, 'voc', lambda r: [
    (picture(r / f'images/23082be{i}-IMG.jpg', i),
     put(r / f'Annotations/23082be{i}-IMG.xml', xml(i, f'23082be{i}-IMG'))) for i in TRAIN])
for images, labels in (
    ('images', 'annotations'), ('images', 'annotations/xmls'), ('images', 'labels'),
    ('Photos', 'Label'), ('pics/all', 'xml/all'), ('.', '.'), ('images', 'images'), ('.', 'xml'),
):
    add(f'30 {labels} and {images}', 8, 'voc',
        lambda r, i=images, l=labels: voc(r, images=i, labels=l))
add('30b tensorflow', TT, 'voc',
    each(TRAIN_TEST, lambda r, s, ids: voc(r, ids, f'images/{s}', f'images/{s}')))
add('30c one folder down', 8, 'voc', lambda r: voc(r / 'raccoon', TRAIN, 'images', 'annotations'))
add('three folders down', 8, 'voc', lambda r: voc(r / 'a' / 'b' / 'c'))
add('31b split folders', TT, 'voc', each(TRAIN_TEST, lambda r, s, ids: voc(r / s, ids)))
add('split folders below', TWO, 'voc',
    each(TRAIN_VAL, lambda r, s, ids: voc(r, ids, f'images/{s}', f'annotations/{s}')))
add('roboflow voc', THREE, 'voc',
    each(dict(TRAIN_VALID, test=TEST), lambda r, s, ids: voc(r / s, ids, '.', '.')))
add('named sets', TWO, 'voc', each(
    dict(pets_training_set=TRAIN, pets_validation_set=VAL),
    lambda r, s, ids: voc(r / s, ids, 'img', 'xml')))
add('32 pets with trimaps', 8, 'voc', lambda r: (
    voc(r, images='images', labels='annotations/xmls'),
    [picture(r / f'annotations/trimaps/{i}.png', 30) for i in TRAIN]))
add('voc with masks', 8, 'voc', lambda r: [
    (picture(r / f'JPEGImages/{i}.jpg', i), picture(r / f'SegmentationClass/{i}.png', 30),
     put(r / f'Annotations/{i}.xml', xml(i, f'{i}'))) for i in TRAIN])
add('34 vocdevkit', TWO, 'voc', each(TRAIN_VAL, lambda r, s, ids: (
    voc(r / 'VOCdevkit/VOC2007', ids),
    voc_list(r / f'VOCdevkit/VOC2007/ImageSets/Main/{s}.txt', ids))))
add('39b pairs', TWO, 'voc', each(TRAIN_VAL, lambda r, s, ids: (
    voc(r, ids), voc_list(r / f'{s}.txt', ids, './JPEGImages/{0}.jpg ./Annotations/{0}.xml'))))
add('39b names', TWO, 'voc', each(TRAIN_VALID, lambda r, s, ids: (
    voc(r, ids), voc_list(r / f'{s}.txt', ids))))
add('39b pictures', TWO, 'voc', each(TRAIN_VAL, lambda r, s, ids: (
    voc(r, ids), voc_list(r / f'{s}.txt', ids, 'data/JPEGImages/{}.jpg'))))
add('42 vott', TWO, 'voc', each(TRAIN_VAL, lambda r, s, ids: (
    voc(r, ids),
    [voc_list(r / f'ImageSets/Main/{c}_{s}.txt', ids, '{}.jpg 1') for c in ('cat', 'dog')])))
add('32 pets with lists', TT, 'voc', each(dict(trainval=TRAIN, test=TEST), lambda r, s, ids: (
    voc(r, ids, 'images', 'annotations/xmls'),
    voc_list(r / f'annotations/{s}.txt', ids, '{} 1 1 1'))))
add('a readme with numbers', 8, 'voc', lambda r: (
    voc(r), put(r / 'README.txt', '1 2 3 4 5 6\n'), put(r / 'labels.txt', 'cat\ndog\n'),
    put(r / 'data.yaml', NAMES)))
add('trainval and val', TWO, 'voc', lambda r: (
    voc(r), voc(r, VAL), voc_list(r / 'ImageSets/Main/trainval.txt', (*TRAIN, *VAL)),
    voc_list(r / 'ImageSets/Main/val.txt', VAL)))
add('train and trainval', TWO, 'voc', lambda r: (
    voc(r), voc(r, VAL), voc_list(r / 'ImageSets/Main/trainval.txt', (*TRAIN, *VAL)),
    voc_list(r / 'ImageSets/Main/train.txt', TRAIN)))


@layout(10, kind='voc')
def suffixes_36(r):
    for i, s in enumerate('.JPG .jpeg .PNG .webp .tif .TIFF .bmp .BMP .jfif .Png'.split()):
        picture(r / 'JPEGImages' / f'{i}{s}', i)
        put(r / 'Annotations' / f'{i}.xml', xml(i, f'{i}'))


@layout(dict(train=4, val=3), kind='voc')
def same_names_side_by_side(r):
    for s, ids in dict(train=range(4), val=VAL).items():
        for k, i in enumerate(ids):
            picture(r / s / f'{k}.jpg', i)
            put(r / s / f'{k}.xml', xml(i, f'{k}.jpg'))


# YOLO
def roboflow(r, yaml):
    for n, ids in dict(TRAIN_VALID, test=TEST).items():
        txt(r / n, ids)
    put(r / 'data.yaml', yaml + NAMES)


for n, yaml in {
    '03': 'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n',
    '04 prefixed': 'train: Pets-1/train/images\nval: Pets-1/valid/images\ntest: ../test/images\n',
    'windows': 'train: C:\\data\\pets\\train\\images\nval: C:\\data\\pets\\valid\\images\n'
               'test: ..\\test\\images\n',
    'colab': 'path: /content/pets\ntrain: /content/pets/train/images/\n'
             'val: /content/pets/valid/images/\ntest: /content/pets/test/images/\n',
    'valid, capitals': 'Train: train/images\nvalid: valid/images\nTest: test/images\n',
    'only names': '',
    'globs': 'train: train/images/*.jpg\nval: valid/images/*.jpg\ntest: test/images/*.jpg\n',
    'lists': 'train: [train/images]\nval: [valid/images]\ntest: [test/images]\n',
    'null': 'train: null\nval:\ntest: ~\n',
}.items():
    add(f'roboflow yolo, {n}', THREE, 'yolo', lambda r, yaml=yaml: roboflow(r, yaml))
add('no test exported', TWO, 'yolo', lambda r: ultra(
    r, f'train: images/train\nval: images/val\ntest: ../test/images\n{NAMES}'))
add('06 darknet', TWO, 'yolo', each(TRAIN_VALID, lambda r, s, ids: (
    txt(r, ids, s, s), put(r / s / '_darknet.labels', 'cat\ndog\n'))))


def cvat(r, splits, nested='', data='data/', meta=True):
    for s, ids in splits.items():
        txt(r, ids, f'obj_{s}_data/{nested}', f'obj_{s}_data/{nested}')
        voc_list(r / f'{s}.txt', ids, f'{data}obj_{s}_data/{nested}{{}}.jpg')
    put(r / 'obj.names', 'cat\ndog\n')
    if meta:
        lists = ''.join(f'{s} = data/{s}.txt\n' for s in splits)
        put(r / 'obj.data', f'classes = 2\n{lists}names = data/obj.names\nbackup = backup/\n')


add('13 cvat yolo', 8, 'yolo', lambda r: cvat(r, dict(train=TRAIN)))
add('14 cvat yolo, two', TWO, 'yolo', lambda r: cvat(r, TRAIN_VALID))
add('14 capitals', THREE, 'yolo', lambda r: cvat(r, dict(Train=TRAIN, Validation=VAL, Test=TEST)))
add('14 without obj.data', TWO, 'yolo', lambda r: cvat(r, TRAIN_VALID, meta=False))
add('14 without lists', TWO, 'yolo', lambda r: (
    cvat(r, TRAIN_VALID, meta=False), [(r / f'{s}.txt').unlink() for s in TRAIN_VALID]))
add('15 nested', 8, 'yolo', lambda r: cvat(r, dict(train=TRAIN), 'day1/'))


def listed(r, line, yaml=f'path: .\ntrain: train.txt\nval: val.txt\n{NAMES}', end='\n'):
    ultra(r, yaml)
    for s, ids in TRAIN_VAL.items():
        put(r / f'{s}.txt', ''.join(line.format(s=s, i=i) + end for i in ids))


for n, line in {
    '16 prefix': 'data/images/{s}/{i}.jpg',
    '16c': 'images/{s}/{i}.jpg',
    '63c dot': './images/{s}/{i}.jpg',
    '63 backslashes': 'images\\{s}\\{i}.jpg',
    '63b elsewhere': '/content/pets/images/{s}/{i}.jpg',
    'drive': 'D:\\pets\\images\\{s}\\{i}.jpg',
}.items():
    add(f'list of {n}', TWO, 'yolo', lambda r, line=line: listed(r, line))
add('63 windows', TWO, 'yolo', lambda r: listed(
    r, 'images\\{s}\\{i}.jpg',
    f'path: C:\\Users\\me\\pets\ntrain: train.txt\nval: val.txt\n{NAMES}', '\r\n'))
add('lists of another machine', TWO, 'yolo', lambda r: listed(
    r, 'images/{s}/{i}.jpg',
    f'train: /content/pets/train.txt\nval: /content/pets/val.txt\n{NAMES}'))
add('lists and no entry', TWO, 'yolo', lambda r: listed(r, './images/{s}/{i}.jpg', NAMES))
add('23 label studio', 8, 'yolo', lambda r: (
    txt(r), classes(r), dump(r / 'notes.json', dict(categories=[], info={}))))
add('45 a folder in a folder', TWO, 'yolo', lambda r: (
    ultra(r / 'pets'), put(r / '__MACOSX' / 'pets' / '._data.yaml', '\0\5\x16')))
add('61 text keys', TWO, 'yolo', lambda r: ultra(
    r, 'train: images/train\nval: images/val\nnames: {"0": cat, "1": dog}\n'))
add('keys from 1', TWO, 'yolo', lambda r: ultra(
    r, 'names: {1: cat, 2: dog}\n', lambda i: yolo(i, first=1)))
add('a Background first', TWO, 'yolo', lambda r: ultra(
    r, 'names: [Background, cat, dog]\n', lambda i: yolo(i, first=1)))
add('67b numbers with a point', TWO, 'yolo', lambda r: ultra(
    r, text=lambda i: '\r\n'.join('.0 '.join(l.split(' ', 1)) for l in yolo(i).splitlines())))
for images, labels in (('Images', 'Labels'), ('.', '.'), ('photos', 'yolo_labels'),
                       ('images', 'bbox_txt'), ('data/images', 'data/labels')):
    add(f'69 {images} and {labels}', 8, 'yolo',
        lambda r, i=images, l=labels: (txt(r, images=i, labels=l), classes(r)))
add('70 capital splits', THREE, 'yolo', lambda r: ultra(r, NAMES, Train=TRAIN, Val=VAL, Test=TEST))
add('70 training, dev', THREE, 'yolo',
    lambda r: ultra(r, NAMES, training=TRAIN, dev=VAL, testing=TEST))
add('72 classes beside labels', TWO, 'yolo', lambda r: (
    ultra(r, None), [classes(r / 'labels' / s) for s in TRAIN_VAL]))
add('73 yaml elsewhere', TWO, 'yolo', lambda r: (
    ultra(r / 'ds', None),
    put(r / 'custom.yaml',
        'path: ./ds\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n')))


def outline(i):
    return ''.join(
        f'{k} {a / W} {b / H} {c / W} {b / H} {c / W} {d / H} {a / W} {d / H}\n'
        for k, (n, a, b, c, d) in enumerate(objects(i)))


add('74 obb', TWO, 'yolo', lambda r: ultra(r, text=outline))
add('62 mixed', TWO, 'yolo', lambda r: ultra(
    r, text=lambda i: outline(i).splitlines()[0] + '\n' + yolo(i).splitlines()[1]))
for shape, points in (
    ('[4, 3]', '.5 .5 1 .52 .48 0 .6 .4 2 .7 .3 1'),
    ('[2, 2]', '.5 .5 .1 .9'),
    ('[17, 3]', ' '.join('.5 .5 2' for _ in range(17))),
):
    add(f'65 keypoints {shape}', TWO, 'yolo', lambda r, s=shape, p=points: ultra(
        r, f'kpt_shape: {s}\n{NAMES}', lambda i: yolo(i).replace('\n', f' {p}\n')))
add('65 keypoints, no shape given', TWO, 'yolo', lambda r: ultra(r, text=lambda i: ''.join(
    l + ''.join(f' {l.split()[1]} {l.split()[2]} {v}' for v in (0, 1, 2)) + '\n'
    for l in yolo(i).splitlines())))
add('75 a mark', TWO, 'yolo', lambda r: (
    ultra(r),
    put(r / 'data.yaml', f'\ufefftrain: images/train\nval: images/val\n{NAMES}'),
    put(r / 'labels/train/1.txt', '\ufeff' + yolo(1).replace('\n', '\r\n'))))
add('77 a.jpg.txt', 8, 'yolo', lambda r: (
    classes(r), pictures(r / 'images'),
    [put(r / f'labels/{i}.jpg.txt', yolo(i)) for i in TRAIN]))
add('78 beside in splits', TWO, 'yolo', lambda r: (
    put(r / 'data.yaml', f'train: train\nval: valid\n{NAMES}'),
    [txt(r, ids, s, s) for s, ids in TRAIN_VALID.items()]))
add('pictures called like splits', 8, 'yolo', lambda r: (
    classes(r),
    [(picture(r / f'images/{s}_{i}.jpg', i), put(r / f'labels/{s}_{i}.txt', yolo(i)))
     for i, s in zip(TRAIN, ('train', 'val') * 4)]))


@layout(dict(train=4, val=3), kind='yolo')
def same_names_in_yolo(r):
    for s, ids in dict(train=range(4), val=VAL).items():
        for k, i in enumerate(ids):
            picture(r / 'images' / s / f'{k}.jpg', i)
            put(r / 'labels' / s / f'{k}.txt', yolo(i))
    put(r / 'data.yaml', NAMES)


# splits that only the folders of the pictures say; lists in JSON, in other folders, of stems
def in_folders(r, ids=SPLITS):
    for s, k in ids.items():
        pictures(r / 'images' / s, k)


def split_of(i):
    return next(s for s, k in SPLITS.items() if i in k)


add('xml flat, pictures in split folders', THREE, 'voc', lambda r: (
    in_folders(r), [put(r / f'annotations/{i}.xml', xml(i)) for i in EVERY]))
add('one json, pictures in split folders', THREE, 'coco', lambda r: (
    in_folders(r), dump(r / 'annotations.json', coco(EVERY))))
add('one json, its names with the split', THREE, 'coco', lambda r: (
    in_folders(r), dump(r / 'a.json', coco(EVERY, lambda i: f'{split_of(i)}/{i}.jpg'))))
for labels in ('labels', 'annots'):
    add(f'pictures flat, {labels} in split folders', THREE, 'yolo', lambda r, l=labels: (
        pictures(r / 'images', EVERY), classes(r),
        [put(r / l / split_of(i) / f'{i}.txt', yolo(i)) for i in EVERY]))


@layout(THREE, kind='coco')
def images_with_a_split_of_their_own(r):
    d = coco(EVERY)
    pictures(r / 'images', EVERY)
    for m, i in zip(d['images'], EVERY):
        m['split'] = split_of(i)
    dump(r / 'a.json', d)


for names in (('trainset', 'valset', 'testset'), ('traindata', 'valdata', 'testdata'),
              ('TrainImages', 'ValImages', 'TestImages')):
    add(f'glued words {names[0]}', THREE, 'voc', each(
        dict(zip(names, SPLITS.values())), lambda r, s, ids: voc(r / s, ids, '.', '.')))
add('splits.json', TT, 'voc', lambda r: (
    voc(r, [*TRAIN, *TEST], '.', '.'),
    dump(r / 'splits.json', {s: [f'{i}.xml' for i in k] for s, k in TRAIN_TEST.items()})))
add('splits.json, yolo', TWO, 'yolo', lambda r: (
    txt(r, [*TRAIN, *VAL]), classes(r),
    dump(r / 'split.json', {s: [f'{i}.jpg' for i in k] for s, k in TRAIN_VALID.items()})))


@layout(TWO, kind='voc')
def imagenet(r):
    "Lists val.txt and train_loc.txt in a folder that is not Main; pictures in folders of classes"
    for s, ids in TRAIN_VAL.items():
        for i in ids:
            f = f'train/n{i % 2}' if s == 'train' else 'val'
            file = r / 'Data/CLS-LOC' / f / f'{i}.jpg'
            picture(file, i).rename(file.with_suffix('.JPEG'))
            put(r / 'Annotations/CLS-LOC' / f / f'{i}.xml', xml(i, f'{i}'))
    put(r / 'ImageSets/CLS-LOC/train_loc.txt', ''.join(f'n{i % 2}/{i} 1\n' for i in TRAIN))
    voc_list(r / 'ImageSets/CLS-LOC/val.txt', VAL, '{0} {0}')


@layout(8, kind='voc')
def a_list_tells_same_names_apart_by_their_folders(r):
    for i in TRAIN:
        picture(r / 'JPEGImages' / f't{i % 2}' / f'{i // 2}.jpg', i)
        put(r / 'Annotations' / f't{i % 2}' / f'{i // 2}.xml', xml(i, f't{i % 2}/{i // 2}.jpg'))
    put(r / 'ImageSets/Main/default.txt', ''.join(f't{i % 2}/{i // 2}\n' for i in TRAIN))


add('lists of stems, yolo', TWO, 'yolo', lambda r: (
    txt(r, [*TRAIN, *VAL]), classes(r),
    voc_list(r / 'ImageSets/train.txt', TRAIN), voc_list(r / 'ImageSets/val.txt', VAL)))
add('lists of label files', TWO, 'yolo', lambda r: (
    txt(r, [*TRAIN, *VAL]), classes(r),
    [voc_list(r / f'{s}.txt', ids, 'labels/{}.txt') for s, ids in TRAIN_VAL.items()]))
# files under other names
add('xml without suffix', 8, 'voc', lambda r: (
    [(picture(r / f'Images/n02/n02_{i}.jpg', i),
      put(r / f'Annotation/n02/n02_{i}', xml(i, f'n02_{i}'))) for i in TRAIN],
    put(r / 'Annotation/n02/README', 'x')))
for n, text in {
    '_classes.txt': 'cat\ndog\n',
    'class_list.txt': 'cat\ndog\n',
    'categories.txt': 'cat\ndog\n',
    'names.list': 'cat\ndog\n',
    'coco.names': 'cat\ndog\n',
    'labels.txt': '0 cat\n1 dog\n',
    'classes.txt': '0: cat\n1: dog\n',
    'notes.json': '{"categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}], '
                  '"info": {}}',
    'classes.json': '["cat", "dog"]',
    'names.json': '{"dog": 1, "cat": 0}',
}.items():
    add(f'classes in {n}', 8, 'yolo', lambda r, n=n, text=text: (txt(r), put(r / n, text)))


@layout(TWO, kind='coco')
def lvis_names_no_file_but_an_address(r):
    for s, ids in TRAIN_VAL.items():
        d = coco(ids, first=1 + 100 * (s == 'val'))
        pictures(r / f'{s}2017', ids)
        for m in d['images']:
            m['coco_url'] = f'http://images.cocodataset.org/{s}2017/{m.pop("file_name")}'
        dump(r / f'lvis_v1_{s}.json', d)


@layout(TWO, kind='coco')
def datumaro_writes_labels_beside_instances(r):
    json_set(r, 'annotations/instances_train.json annotations/instances_val.json',
             'images/train images/val')
    for s in ('train', 'val'):
        dump(r / 'annotations' / f'labels_{s}.json', coco(SPLITS[s]))


@layout(8, kind='coco')
def fractions_of_azure(r):
    d = coco(TRAIN, lambda i: f'workspaceblobstore/UI/{i}.jpg')
    pictures(r / 'images')
    for x in d['annotations']:
        a, b, c, e = x['bbox']
        x['bbox'] = [a / W, b / H, c / W, e / H]
    dump(r / 'export.json', d)


add('what a training left', TWO, 'yolo', lambda r: (
    ultra(r, NAMES),
    [(picture(r / f'runs/detect/predict/{i}.jpg', 30),
      put(r / f'runs/detect/predict/labels/{i}.txt', '1 .5 .5 .2 .2 .8\n')) for i in VAL]))
add('a.jpg.txt and a.png.txt', 8, 'yolo', lambda r: (
    txt(r, range(6)), classes(r),
    [(picture(r / f'images/z.{s}', i), put(r / f'labels/z.{s}.txt', yolo(i)))
     for s, i in (('jpg', 6), ('png', 7))]))


@layout(8, kind='labelme')
def labelme_renamed_with_its_picture(r):
    pictures(r)
    for i in TRAIN:
        shapes = [
            dict(label=n, points=[[a, b], [c, d]], shape_type='rectangle')
            for n, a, b, c, d in objects(i)
        ]
        dump(r / f'{i}.json', dict(shapes=shapes, imagePath=f'{(i + 1) % 8}.jpg'))


def table(line, ids=TRAIN):
    "A line for each object: line(number of the picture, name, edges)"
    return ''.join(line(i, *o) for i in ids for o in objects(i))


@layout(8, kind='csv')
def sku110k_writes_no_header(r):
    pictures(r / 'images')
    put(r / 'annotations/all.csv',
        table(lambda i, n, a, b, c, d: f'{i}.jpg,{a},{b},{c},{d},{n},{W},{H}\n'))


for head in ('filename,cell_type', 'image_path,species', 'id,Object Category'):
    line = lambda i, n, a, b, c, d, end='' if head[:2] == 'id' else '.jpg': (
        f'{i}{end},{n},{a},{c},{b},{d}\n')
    add(f'csv {head}', 8, 'csv', lambda r, head=head, line=line: (
        pictures(r / 'images'), put(r / 'a.csv', f'{head},xmin,xmax,ymin,ymax\n{table(line)}')))
# fmt: on


@pytest.mark.parametrize('name,make,sizes,kind', LAYOUTS, ids=[x[0] for x in LAYOUTS])
def test_layout(name, make, sizes, kind, tmp_path):
    root = tmp_path / 'set'
    root.mkdir()
    make(root)
    assert recognise(root) == kind
    check(load_dataset(root), sizes)


# ---------------------------------------------------------------- hidden and system files
REST = """
.ipynb_checkpoints/0-checkpoint.jpg  ._0.jpg  @eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg  #recycle/0.jpg
$RECYCLE.BIN/0.jpg  .Trash-1000/files/0.jpg  Thumbs.db  desktop.ini  .DS_Store  .git/0.jpg
.ipynb_checkpoints/0-checkpoint.xml  .ipynb_checkpoints/0-checkpoint.txt  ._0.xml  ._0.txt
.cache/all.json  ._data.yaml  __MACOSX/._0.jpg
""".split()
MAKERS = dict(
    voc=lambda r: (voc(r), voc_list(r / 'ImageSets/Main/train.txt', TRAIN)),
    flat=lambda r: voc(r, images='.', labels='.'),
    yolo=ultra,
    coco=lambda r: json_set(r, 'a.json', 'images'),
)


@pytest.mark.parametrize('kind', list(MAKERS))
def test_what_the_system_leaves_is_no_data(kind, tmp_path):
    MAKERS[kind](tmp_path)
    before = load_dataset(tmp_path)
    first = next(tmp_path.rglob('0.jpg')).read_bytes()
    for folder in {p.parent for p in tmp_path.rglob('*') if p.is_file()}:
        for rest in REST:
            put(folder / rest, first if rest.endswith('.jpg') else b'\0\5\x16\7\xb0')
    after = load_dataset(tmp_path)
    check(after, {s: len(rs) for s, rs in before.splits.items()})
    assert after.notes == before.notes
    assert {p.name for p in list_images(tmp_path)} == {
        p.name for s in before.splits.values() for r in s for p in [Path(r.image)]
    }


# --------------------------------------------------------------- what cannot be told is not guessed
REFUSED = {}


def refuse(name, make, *says, policies=('raise', 'fix', 'skip')):
    REFUSED[name] = (make, says, policies)


def refuse_once(name, make, *says):
    "`fix` and `skip` make something of it"
    refuse(name, make, *says, policies=('raise',))


# fmt: off
refuse('day1 and day2',
       each(dict(day1=TRAIN, day2=VAL), lambda r, n, ids: (
           dump(r / f'{n}.json', coco(ids)), pictures(r / 'images', ids))),
       "'day1', 'day2'", 'train, val and test')
refuse('train and holdout',
       each(dict(train=TRAIN, holdout=VAL), lambda r, n, ids: (
           dump(r / f'annotations/instances_{n}.json', coco(ids)), pictures(r / 'images', ids))),
       'holdout')
refuse('lists of two days',
       lambda r: (voc(r), voc_list(r / 'ImageSets/Main/day1.txt', range(4)),
                  voc_list(r / 'ImageSets/Main/day2.txt', range(4, 8))),
       "'day1', 'day2'")
refuse_once('xml in no split',
            lambda r: (voc(r, TRAIN, 'train', 'train'), voc(r, VAL, 'more', 'more')),
            'more/20.xml')
refuse('xml and text',
       lambda r: (voc(r, images='images', labels='annotations'), txt(r), classes(r)),
       'VOC XML', 'YOLO text', 'annotations', 'labels', '--data voc:', '--data yolo:')
refuse('xml and text, flat',
       lambda r: (voc(r, TRAIN, '.', '.'), txt(r, TRAIN, '.', '.'), classes(r)),
       'VOC XML', 'YOLO text')
refuse('xml and json', lambda r: (voc(r), dump(r / 'coco.json', coco(TRAIN))),
       'VOC XML', 'COCO JSON')
refuse('two years',
       each(dict(VOC2007=TRAIN, VOC2012=VAL), lambda r, y, ids: (
           voc(r / y, ids), voc_list(r / y / 'ImageSets/Main/trainval.txt', ids))),
       'VOC2007', 'VOC2012', '--data')
refuse('two sets without lists',
       each(dict(cats=TRAIN, dogs=VAL), lambda r, y, ids: voc(r / y, ids)),
       'cats', 'dogs', '--data')
refuse('two yaml', lambda r: [ultra(r / n) for n in ('a', 'b')], '/a', '/b', '--data')
refuse('two files of one split',
       lambda r: [(dump(r / n / 'train.json', coco(TRAIN)), pictures(r / n)) for n in 'ab'],
       'a/train.json', 'b/train.json')
refuse('two files about the same',
       lambda r: (pictures(r), dump(r / 'train.json', coco(TRAIN)),
                  dump(r / 'train_data.json', coco(TRAIN))),
       'train.json', 'train_data.json', 'same pictures')
refuse_once('either of two pictures',
            lambda r: (dump(r / 'a.json', coco([1])),
                       picture(r / 'images/x/1.jpg', 1), picture(r / 'images/y/1.jpg', 2)),
            'images/x/1.jpg or images/y/1.jpg')
refuse('25 no pictures',
       lambda r: (txt(r), shutil.rmtree(r / 'images'), (r / 'images').mkdir(), classes(r)),
       'images/ is empty: copy the pictures there')
refuse('no pictures of voc',
       lambda r: (voc(r), shutil.rmtree(r / 'JPEGImages'), (r / 'JPEGImages').mkdir()),
       'JPEGImages/ is empty: copy the pictures there')
refuse_once('04 nowhere',
            lambda r: ultra(r, f'train: images/trainn\nval: nowhere/at/all\n{NAMES}', a=TRAIN),
            'nowhere')
refuse_once('val nowhere',
            lambda r: ultra(r, f'train: images/a\nval: images/valid\n{NAMES}', a=TRAIN),
            'val: "images/valid" leads nowhere')
refuse_once('another split is no way out',
            lambda r: (txt(r / 'valid', VAL), put(
                r / 'data.yaml', f'train: ../train/images\nval: ../valid/images\n{NAMES}')),
            'train: "../train/images" leads nowhere')
refuse('67 from one', lambda r: ultra(r, text=lambda i: yolo(i, first=1)),
       'from 1 to 2', '2 names', 'count from 1')
refuse('67 one class from one',
       lambda r: ultra(r, 'names: [cat]\n', text=lambda i: yolo(i, first=1).splitlines()[0]),
       'count from 1')
refuse_once('67c pixels',
            lambda r: ultra(r, text=lambda i: table(
                lambda i, n, a, b, c, d: f'0 {a} {b} {c} {d}\n', [i])),
            '0.txt: line 1 is', 'look like pixels')
refuse('an empty name', lambda r: (ultra(r, None), put(r / 'classes.txt', 'cat\n\ndog\n')),
       'line 2 is empty')
refuse('lists of classes that differ',
       lambda r: (ultra(r, None), classes(r), put(r / 'labels/classes.txt', 'dog\ncat\n')),
       'different classes')
for name in ('instances_val.json', 'val_coco.json', 'val/annotations.json'):
    refuse(f'a damaged {name}',
           lambda r, name=name: (json_set(r, name.replace('val', 'train'), 'images'),
                                 put(r / name, '{"images": [')),
           name, 'not readable JSON')
refuse('a film',
       lambda r: (put(r / 'clip.mp4', b'\0\0\0\x18ftypmp42'), picture(r / 'a.jpg', 1)),
       'clip.mp4 is a video: extract frames', 'not a data set we know')
FOLDS = dict(fold0=TRAIN, fold1=VAL)
for name, parts, says in (
    ('folds', FOLDS, ("'fold0'", "'fold1'")),
    ('numbered', dict(my_split_1=TRAIN, my_split_2=VAL), ("'split_1'", "'split_2'")),
    ('cv', {'CV-1': TRAIN, 'CV-2': VAL}, ("'CV-1'", "'CV-2'")),
    ('a holdout', dict(photos=TRAIN, holdout=VAL), ("'holdout'",)),
):
    refuse(f'{name} of xml', each(parts, lambda r, n, ids: voc(r / n, ids, '.', '.')),
           *says, 'train, val and test', '--data')
    refuse(f'{name} of text', each(parts, lambda r, n, ids: (classes(r), txt(r / n, ids))), *says)
    refuse(f'{name} of pictures, xml apart',
           each(parts, lambda r, n, ids: voc(r, ids, f'images/{n}', 'xml')), *says)
refuse('splits inside folds',
       each({'fold0/train': range(0, 4), 'fold0/val': range(4, 6),
             'fold1/train': range(6, 8), 'fold1/val': range(20, 22)},
            lambda r, n, ids: voc(r / n, ids, '.', '.')),
       "'fold0', 'fold1'")
refuse('folds of coco side by side',
       each(dict(fold0_train=TRAIN, fold0_val=VAL, fold1_train=VAL, fold1_val=TRAIN),
            lambda r, n, ids: (dump(r / f'{n}.json', coco(ids)), pictures(r / 'images', ids))),
       "'fold0', 'fold1'")

# two annotations of one picture, and two pictures of one annotation
refuse_once('a backup of xml',
            lambda r: (voc(r), [put(r / f'Annotations_old/{i}.xml', xml((i + 1) % 8, f'{i}.jpg'))
                                for i in TRAIN]),
            'Annotations/0.xml', 'Annotations_old/0.xml', 'both about it')
refuse_once('a backup of labelme',
            lambda r: (pictures(r / 'images'), [
                dump(r / f / f'{i}.json', dict(shapes=[], imagePath=f'../images/{i}.jpg'))
                for f in ('images', 'old') for i in TRAIN]),
            'images/0.json', 'old/0.json')
refuse_once('two tables',
            lambda r: (pictures(r / 'images'), [
                put(r / n, 'filename,class,xmin,ymin,xmax,ymax\n'
                    + ''.join(f'{k}.jpg,cat,1,2,9,9\n' for k in TRAIN))
                for n in ('labels.csv', 'new.csv')]),
            'labels.csv', 'new.csv')
refuse('two folders of labels',
       lambda r: (pictures(r / 'photos'), classes(r), [
           (put(r / f'labels_A/{i}.txt', yolo(i)), put(r / f'labels_B/{i}.txt', yolo(7 - i)))
           for i in TRAIN]),
       'labels_A', 'labels_B')
refuse_once('a.jpg and a.png',
            lambda r: (txt(r), picture(r / 'images/0.png', 45), classes(r)),
            'labels/0.txt', 'images/0.jpg', 'images/0.png')


def half_is_gone(r):
    pictures(r / 'images/b', range(4))
    dump(r / 'a.json', coco(range(8), lambda i: f'{"ba"[i // 4]}/{i % 4}.jpg'))


refuse_once('a picture that is gone does not become its namesake', half_is_gone,
            'a/0.jpg: no such image')
refuse_once('fractions without a size',
            lambda r: (picture(r / '0.jpg', 0), dump(r / 'a.json', dict(
                images=[dict(id=1, file_name='0.jpg')],
                categories=[dict(id=1, name='cat')],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=[.1, .1, .5, .5])]))),
            'a.json: its boxes are fractions', '0.jpg')
refuse_once('an empty folder of val',
            lambda r: (txt(r / 'train'), (r / 'valid/images').mkdir(parents=True), put(
                r / 'data.yaml', f'train: ../train/images\nval: ../valid/images\n{NAMES}')),
            'val: "../valid/images" holds no pictures')
refuse('pictures still packed',
       lambda r: (dump(r / 'annotations/instances_train2017.json', coco(TRAIN)),
                  put(r / 'train2017.zip', b'PK\3\4')),
       'Unpack train2017.zip')
refuse('path leads nowhere',
       lambda r: put(r / 'data.yaml', f'path: ../datasets/pets\ntrain: images/train\n{NAMES}'),
       'not a data set we know')

# formats that are not read, each with its name
for n, path, text, says in (
    ('mot', 'gt/gt.txt', '1,1,13,5,10,24,1,1,0.86\n', "MOT's text"),
    ('wider', 'wider_face_train_bbx_gt.txt', '0--Parade/0.jpg\n1\n4 3 12 14 0 0 0 0 0 0 \n',
     "WIDER FACE's text"),
    ('keras', 'train.txt', 'images/0.jpg 1,2,30,40,0 5,6,7,8,1\n', "Keras' YOLO"),
    ('widerperson', 'Annotations/0.jpg.txt', '2\n1 72 15 12 27\n3 1 2 3 4\n', 'WiderPerson'),
    ('oid', 'Apple/Label/0.txt', 'Apple 12.3 1.4 45.6 30.2\n', 'OID'),
    ('words', 'labels/0.txt', 'cat 0.5 0.5 0.2 0.2\n',
     'names of classes where their numbers belong'),
    ('commas', 'labels/0.txt', '0,0.5,0.5,0.2,0.2\n', 'YOLO text with commas'),
    ('cub', 'bounding_boxes.txt', '1 60.0 27.0 325.0 304.0\n', 'CUB'),
    ('dlib', 'train.xml', "<?xml version='1.0'?>\n<dataset><images></images></dataset>", 'dlib'),
    ('label studio', 'p.csv', 'image,id,label,annotator,annotation_id\n', "Label Studio's CSV"),
    ('classification', 'train/_classes.csv', 'filename, cat\n', 'without boxes'),
    ('v7', 'a/0.json', '{"item": {}, "annotations": []}', 'V7'),
    ('scale', 't.json', '[{"task_id": "1", "response": {}}]', 'Scale'),
    ('fiftyone', 'samples.json', '{"samples": []}', 'FiftyOne'),
    ('hasty', 'h.json', '{"label_classes": [], "images": []}', 'Hasty'),
    ('encord', 'e.json', '[{"label_hash": "1", "data_units": {}}]', 'Encord'),
    ('vertex', 'v.jsonl', '{"imageGcsUri": "gs://0.jpg"}\n', 'Vertex'),
    ('azure', 'a.jsonl', '{"image_url": "x", "label": []}\n', 'Azure'),
    ('paligemma', 'p.jsonl', '{"image": "0.jpg", "suffix": "<loc0001> cat"}\n', 'PaliGemma'),
    ('cityscapes', 'c.json', '{"imgHeight": 1, "imgWidth": 1, "objects": []}', 'Cityscapes'),
    ('crowdhuman', 'a.odgt', '{"ID": "0", "gtboxes": []}\n', 'CrowdHuman'),
    ('results', 'r.json', '[{"image_id": 1, "bbox": [], "score": 0.5}]', 'results of a detector'),
    ('geojson', 'x.geojson', '{"type": "x", "features": []}', 'GeoJSON'),
):
    refuse(f'unread: {n}', lambda r, path=path, text=text: (
        pictures(r / 'images'), put(r / path, text),
        path.endswith('.xml') or put(r / 'labels.txt', 'cat\ndog\n')), path, says)
refuse_once('labelme 3',
            lambda r: (pictures(r / 'images'), put(
                r / '0.xml', '<annotation><filename>0.jpg</filename><object><name>cat</name>'
                             '<polygon><pt><x>1</x></pt></polygon></object></annotation>')),
            'LabelMe 3.0')
# fmt: on


@pytest.mark.parametrize('name', list(REFUSED))
def test_refused(name, tmp_path):
    make, says, policies = REFUSED[name]
    root = tmp_path / 'set'
    root.mkdir()
    make(root)
    for policy in policies:
        with pytest.raises(DataError) as e:
            load_dataset(root, policy)
        assert all(s in str(e.value) for s in says), str(e.value)
        assert '\n' not in str(e.value)


def test_ways_out_of_two_readings(tmp_path):
    voc(tmp_path, images='images', labels='annotations')
    txt(tmp_path)
    classes(tmp_path)
    check(load_dataset(f'voc:{tmp_path}'), 8)
    check(load_dataset(f'yolo:{tmp_path}'), 8)
    with pytest.raises(DataError, match='no COCO JSON'):
        load_dataset(f'coco:{tmp_path}')


def test_a_list_that_leads_nowhere(tmp_path):
    "F11: its pictures are missing, not their labels; nothing is dropped in silence"
    ultra(tmp_path, f'train: train.txt\nval: val.txt\n{NAMES}', a=TRAIN, val=VAL)
    voc_list(tmp_path / 'train.txt', TRAIN, 'imagez/q{}.jpg')
    voc_list(tmp_path / 'val.txt', VAL, 'images/val/{}.jpg')
    says = 'train: none of the 8 pictures that train.txt lists is there; the first is imagez/q0.jpg'
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, 'fix').counts['images'] == 8
    voc_list(tmp_path / 'train.txt', [*range(7), 77], 'images/a/{}.jpg')
    with pytest.raises(DataError, match='77.jpg: .*no such image'):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, 'skip').counts['images'] == 1


# ---------------------------------------------------------------- categories
def test_union_of_categories_02(tmp_path):
    two = ((1, 'cat'), (2, 'dog'))
    for s, cats in dict(train=two, val=(*two, (3, 'bird'))).items():
        d = coco(SPLITS[s], cats=cats)
        pictures(tmp_path / s, SPLITS[s])
        if s == 'val':
            d['annotations'][0]['category_id'] = 3
        dump(tmp_path / s / '_annotations.coco.json', d)
    data = load_dataset(tmp_path)
    assert data.vocab == ('background', 'cat', 'dog', 'bird')
    assert data.category_ids == (0, 1, 2, 3)
    assert data.valid[0].labels[0] == 3
    for s in ('train', 'val'):
        assert len(load_dataset(tmp_path, only=(s,)).vocab) == 4


@pytest.mark.parametrize(
    'names,vocab',
    [
        ('[no, yes]', ('no', 'yes')),
        ('[01, 1e3]', ('01', '1e3')),
        ('[off, 2001-01-01]', ('off', '2001-01-01')),
        ('[null, ~]', ('null', '~')),
        ('{0: true, 1: 0x1F}', ('true', '0x1F')),
    ],
)
def test_names_are_words_61(names, vocab, tmp_path):
    ultra(tmp_path, f'names: {names}\n')
    assert load_dataset(tmp_path).vocab[1:] == vocab


def test_one_name_twice(tmp_path):
    ultra(tmp_path, 'names: [cat, cat]\n')
    data = load_dataset(tmp_path)
    assert data.vocab == ('background', 'cat')
    assert 'cat: named twice' in ' '.join(data.notes)
    assert all((r.labels == 1).all() and len(r.labels) == 2 for r in data.train)


def test_spellings_that_differ_in_case_40(tmp_path):
    voc(tmp_path)
    put(tmp_path / 'Annotations' / '3.xml', xml(3, names=dict(cat='Cat')))
    data = load_dataset(tmp_path)
    assert data.vocab[1:] == ('Cat', 'cat', 'dog')
    assert any('Cat and cat' in n and 'case' in n for n in data.notes)


def test_messages_speak_in_the_files_words(tmp_path):
    ultra(tmp_path / 'y')
    put(tmp_path / 'y/labels/train/3.txt', '7 .5 .5 .2 .2\n')
    says = r'3.jpg: object 0 \(class 7\) is none of the 2 classes \(cat, dog\)'
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path / 'y')
    json_set(tmp_path / 'c', 'a.json', 'images')
    d = json.loads((tmp_path / 'c/a.json').read_text())
    d['annotations'][0]['category_id'] = 99
    dump(tmp_path / 'c/a.json', d)
    which = r'\(category 99, which "categories" does not list\)'
    with pytest.raises(DataError, match=f'0.jpg: object 0 {which} is none of the 2 classes'):
        load_dataset(tmp_path / 'c')


def test_coco_ids_that_count_from_one(tmp_path):
    d = coco(TRAIN, cats=((0, 'cat'), (1, 'dog')))
    pictures(tmp_path)
    for a in d['annotations']:
        a['category_id'] += 1
    dump(tmp_path / 'a.json', d)
    for policy in ON_ERROR:
        with pytest.raises(DataError, match='seem to count from 1'):
            load_dataset(tmp_path, policy)


# ---------------------------------------------------------------- pictures without annotation
def test_negatives_when_asked_35_39(tmp_path):
    none = lambda i: [] if i in (45, 46) else objects(i)
    flat, lists, text, js = (tmp_path / n for n in ('flat', 'lists', 'text', 'js'))
    voc(flat, images='.', labels='.')
    voc(lists)
    voc(lists, VAL)
    txt(text, images='.', labels='.')
    classes(text)
    json_set(js, 'a.json', 'images')
    voc_list(lists / 'ImageSets/Main/train.txt', [*TRAIN, 45, 46])
    voc_list(lists / 'ImageSets/Main/val.txt', VAL)
    for folder in (flat, lists / 'JPEGImages', text, js / 'images'):
        [picture(folder / f'{i}.jpg', i) for i in (45, 46)]
    for root in (flat, text, js):
        left = load_dataset(root)
        check(left, 8)
        assert '45.jpg, 46.jpg' in ' '.join(left.notes)
        assert 'unlabelled="negative"' in ' '.join(left.notes)
        used = check(load_dataset(root, unlabelled='negative'), 10, objects_of=none)
        assert not used.counts['images']
    with pytest.raises(DataError, match='45.xml: no such annotation.*unlabelled="negative"'):
        load_dataset(lists)
    check(load_dataset(lists, unlabelled='negative'), dict(train=10, val=3), objects_of=none)
    assert load_dataset(lists, 'fix').counts['images'] == 2
    with pytest.raises(DataError, match='choose leave or negative'):
        load_dataset(flat, unlabelled='ignore')


def test_yolo_negatives_76(tmp_path):
    ultra(tmp_path)
    [(tmp_path / 'labels/train' / f'{i}.txt').unlink() for i in (0, 1)]
    check(load_dataset(tmp_path), TWO, objects_of=lambda i: [] if i < 2 else objects(i))
    shutil.rmtree(tmp_path / 'labels/val')
    data = load_dataset(tmp_path)
    assert 'val: none of its 3 images has a label file' in ' '.join(data.notes)
    assert len(data.train) + len(data.valid) == 8
    shutil.copytree(tmp_path / 'images/val', tmp_path / 'images/unlabelled')
    (tmp_path / 'data.yaml').write_text(NAMES)
    assert 'no label file' in ' '.join(load_dataset(tmp_path).notes)


def test_lists_and_what_is_on_none(tmp_path):
    """A test list without annotations is left out with its number,
    and annotations on no list are named."""
    voc(tmp_path)
    voc(tmp_path, VAL)
    voc_list(tmp_path / 'ImageSets/Main/train.txt', TRAIN)
    voc_list(tmp_path / 'ImageSets/Main/test.txt', range(100, 104))
    data = load_dataset(tmp_path)
    assert len(data.train) + len(data.valid) == 8
    assert data.counts['images'] == 4
    assert 'test: none of its 4 images has an annotation; it is left out' in data.notes
    assert any('3 annotations are on no list' in n and '20.xml' in n for n in data.notes)


def test_a_class_0_that_nobody_has(tmp_path):
    ultra(tmp_path, 'names: [cat, dog, bird]\n', lambda i: yolo(i, first=1))
    assert any('no object is of class 0 (cat)' in n for n in load_dataset(tmp_path).notes)


def test_nothing_labelled_92(tmp_path):
    ultra(tmp_path, text=lambda i: '')
    data = load_dataset(tmp_path)
    assert {k: len(v) for k, v in data.splits.items()} == TWO
    assert [n for n in data.notes if 'no objects' in n] == [
        'train: no objects on its 8 images',
        'val: no objects on its 3 images',
    ]


# ---------------------------------------------------------------- encodings, masks
@pytest.mark.parametrize(
    'pair',
    'gbk=GBK gb18030=gb2312 big5=Big5 utf-16=utf-16 utf-16=UTF-16LE utf-8-sig=utf-8 utf-8=UTF-8 '
    'euc-jp=EUC-JP'.split(),
)
def test_encodings_37(pair, tmp_path):
    enc, declared = pair.split('=')
    names = dict(cat='大', dog='小')
    for i in TRAIN:
        picture(tmp_path / 'JPEGImages' / f'{i}.jpg', i)
        text = xml(i, head=f'<?xml version="1.0" encoding="{declared}"?>\n', names=names)
        put(tmp_path / 'Annotations' / f'{i}.xml', text.encode(enc))
    translated = lambda i: [(names[n], *b) for n, *b in objects(i)]
    check(load_dataset(tmp_path), 8, tuple(sorted(names.values())), translated)


@pytest.mark.parametrize('declared', ['GBK', 'utf-8', 'utf-16'])
def test_entities_are_refused_in_any_encoding(declared, tmp_path):
    text = (
        f'<?xml version="1.0" encoding="{declared}"?>\n'
        '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
        '<annotation><filename>狗&a;</filename></annotation>'
    )
    put(tmp_path / 'a.xml', text.encode(declared))
    with pytest.raises(DataError, match='declares entities'):
        read_voc_xml(tmp_path / 'a.xml')


def rle(box, compressed):
    import faster_coco_eval.core.mask as mask

    x1, y1, x2, y2 = box
    m = np.zeros((H, W), np.uint8)
    m[y1:y2, x1:x2] = 1
    if compressed:
        return dict(size=[H, W], counts=mask.encode(np.asfortranarray(m))['counts'].decode())
    flat = m.ravel(order='F')
    cuts = np.flatnonzero(np.diff(flat)) + 1
    return dict(size=[H, W], counts=np.diff([0, *cuts, flat.size]).tolist())


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('bbox', [None, [], [0, 0, 0, 0]])
def test_masks_give_their_box_51(bbox, compressed, tmp_path):
    d = coco(TRAIN)
    pictures(tmp_path)
    for a in d['annotations']:
        x, y, w, h = a['bbox']
        a['segmentation'] = rle((x, y, x + w, y + h), compressed)
        a['bbox'] = bbox
    dump(tmp_path / 'a.json', d)
    check(load_dataset(tmp_path), 8)


@pytest.mark.parametrize(
    'mask',
    [
        dict(size=[H, W], counts=[1, 2, 3]),
        dict(size=[H, W], counts='\x01\x02'),
        dict(size=[10**9, 10**9], counts='0'),
        dict(size=[H], counts=[]),
        dict(counts='abc'),
        dict(size=[H, W], counts=[-5, H * W + 5]),
        dict(size=[H, W], counts=[H * W]),
        dict(size='ab', counts={}),
    ],
)
def test_masks_that_are_none(mask, tmp_path):
    d = coco(TRAIN)
    pictures(tmp_path)
    d['annotations'][0].update(bbox=None, segmentation=mask)
    dump(tmp_path / 'a.json', d)
    with pytest.raises(DataError, match='is not finite'):
        load_dataset(tmp_path)


# --------------------------------------------------------------- sources: files, several, one split
def test_files_as_source_73c(tmp_path):
    ultra(tmp_path / 'y')
    check(load_dataset(tmp_path / 'y' / 'data.yaml'), TWO)
    assert recognise(tmp_path / 'y' / 'data.yaml') == 'yolo'
    yaml = f'train: images/train\nval: images/val\n{NAMES}'
    put(tmp_path / 'custom.yaml', f'path: ./y\n{yaml}')
    check(load_dataset(tmp_path / 'custom.yaml'), TWO)
    put(tmp_path / 'conf' / 'custom.yaml', f'path: ../y\n{yaml}')
    check(load_dataset(tmp_path / 'conf' / 'custom.yaml'), TWO)
    files = 'annotations/instances_train.json annotations/instances_val.json'
    json_set(tmp_path / 'c', files, 'train val')
    check(load_dataset(tmp_path / 'c' / 'annotations' / 'instances_train.json'), 8)
    json_set(tmp_path / 'd', 'export/result.json', 'images')
    check(load_dataset(tmp_path / 'd' / 'export' / 'result.json'), 8)
    put(tmp_path / 'a.txt', 'hello')
    with pytest.raises(DataError, match='a file, not a folder'):
        load_dataset(tmp_path / 'a.txt')
    dump(tmp_path / 'd' / 'b.json', [1])
    with pytest.raises(DataError, match='not a COCO annotation file'):
        load_dataset(tmp_path / 'd' / 'b.json')


def test_several_sets_34b(tmp_path):
    a, b = tmp_path / 'VOC2007', tmp_path / 'VOC2012'
    voc(a)
    voc(a, TEST)
    voc(b, VAL)
    for root, s, ids in ((a, 'trainval', TRAIN), (a, 'test', TEST), (b, 'trainval', VAL)):
        voc_list(root / f'ImageSets/Main/{s}.txt', ids)
    data = load_dataset([a, b])
    every = data.train + data.valid
    assert {number(r.image) for r in every} == {*TRAIN, *VAL}
    assert {number(r.image) for r in data.split('test')} == {*TEST}
    assert len({r.image_id for rs in data.splits.values() for r in rs}) == len(every) + len(TEST)
    check(data)
    assert (
        'VOC2007: test 2, trainval 8' in data.notes or 'VOC2007: trainval 8, test 2' in data.notes
    )
    assert [*load_dataset([a, b], only=('test',)).splits] == ['test']
    with pytest.raises(DataError, match="no split 'extra'"):
        load_dataset([a, b], only=('extra',))


def test_several_sets_of_other_formats(tmp_path):
    """Joined by the names of their classes, case and all;
    a val split of one is val, the other trains."""
    voc(tmp_path / 'v')
    ultra(
        tmp_path / 'y',
        'names: [dog, Cat]\n',
        text=lambda i: yolo(i, ('dog', 'cat')),
        train=range(30, 34),
        val=VAL,
    )
    data = load_dataset([tmp_path / 'v', str(tmp_path / 'y')])
    assert data.vocab == ('background', 'cat', 'dog', 'Cat')
    assert len(data.train) == 12
    assert len(data.valid) == 3
    assert all([data.vocab[l] for l in r.labels] == ['Cat', 'dog'] for r in data.valid)
    names = {number(r.image): [data.vocab[l] for l in r.labels] for r in data.train}
    assert names[0] == ['cat', 'dog']
    assert names[30] == ['Cat', 'dog']
    put(tmp_path / 'v' / 'Annotations' / '0.xml', '<annotation>')
    with pytest.raises(DataError, match='0.xml'):
        load_dataset([tmp_path / 'v', tmp_path / 'y'])
    assert load_dataset([tmp_path / 'v', tmp_path / 'y'], 'skip').counts['images'] == 1


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo'])
def test_only_the_split_that_is_asked_for_97(kind, tmp_path):
    if kind == 'coco':
        coco_2017(tmp_path)
        shutil.rmtree(tmp_path / 'train2017')
    if kind == 'voc':
        for s, ids in TRAIN_VAL.items():
            voc(tmp_path, ids)
            voc_list(tmp_path / f'ImageSets/Main/{s}.txt', ids)
        put(tmp_path / 'Annotations' / '0.xml', '<annotation')
        (tmp_path / 'JPEGImages' / '1.jpg').unlink()
    if kind == 'yolo':
        ultra(tmp_path)
        put(tmp_path / 'labels/train/0.txt', 'rubbish')
        (tmp_path / 'images/train/1.jpg').write_bytes(b'')
    with pytest.raises(DataError):
        load_dataset(tmp_path)
    for name in ('val', 'Validation'):
        data = check(load_dataset(tmp_path, only=(name,)), dict(val=len(VAL)))
        assert not data.notes
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        load_dataset(tmp_path, only=('test',))
    victim = next(p for p in tmp_path.rglob('20.jpg'))
    victim.write_bytes(b'')
    with pytest.raises(DataError, match='20.jpg'):
        load_dataset(tmp_path, only=('val',))


def test_only_val_of_a_set_in_one_piece(tmp_path):
    voc(tmp_path)
    whole = load_dataset(tmp_path)
    part = load_dataset(tmp_path, only=('val',))
    assert [*part.splits] == ['val']
    assert [r.image for r in part.valid] == [r.image for r in whole.valid]


def test_a_val_picture_is_not_taken_for_train(tmp_path):
    """Both splits call their pictures alike, and train's were not downloaded:
    they are missing, not val's."""
    for s, ids in dict(train=range(3), val=VAL).items():
        name = lambda i, ids=ids: f'frame_{ids.index(i)}.jpg'
        dump(tmp_path / 'annotations' / f'instances_{s}.json', coco(ids, name))
    for k, i in enumerate(VAL):
        picture(tmp_path / 'val' / f'frame_{k}.jpg', i)
    with pytest.raises(DataError, match='no such image'):
        load_dataset(tmp_path)
    check(load_dataset(tmp_path, only=('val',)), dict(val=len(VAL)))


def test_only_a_test_split_stays_one(tmp_path):
    json_set(tmp_path, dict(test='annotations/instances_Test.json'), dict(test='images'))
    assert [*load_dataset(tmp_path).splits] == ['test']


def test_zero_based_hint_05(tmp_path):
    voc(tmp_path)
    text = re.sub('<xmin>[^<]*', '<xmin>0', xml(0, one=0), count=1)
    put(tmp_path / 'Annotations' / '0.xml', text)
    with pytest.raises(DataError, match='one_based=False'):
        load_dataset(tmp_path)
    assert any('one_based=False' in n for n in load_dataset(tmp_path, 'fix').notes)
    assert looks_zero_based(read_voc(tmp_path).split('all'))
    assert not looks_zero_based(read_voc(tmp_path, one_based=False).split('all'))


ODD_YAML = '''
names: [!!int "", dog] | names: !!bool maybe | names: [!!timestamp x]
names: !!python/name:os.system [] | names: [cat | names: {[a]: b} | names: {a: {b: c}}
names: [{a: b}] | names: 7 | - names | names: | nc: 2
'''


@pytest.mark.parametrize('yaml', re.split(r' \| |\n', ODD_YAML.strip()))
def test_odd_yaml_is_named(yaml, tmp_path):
    ultra(tmp_path, yaml + '\n')
    for policy in ON_ERROR:
        with pytest.raises(DataError) as e:
            load_dataset(tmp_path, policy)
        assert 'data.yaml' in str(e.value)


def test_a_yaml_without_names_beside_a_list_of_classes(tmp_path):
    ultra(tmp_path, 'train: images/train\nval: images/val\nnc: 2\n')
    classes(tmp_path)
    check(load_dataset(tmp_path), TWO)


def test_a_later_format_enters_itself(tmp_path, monkeypatch):
    """What a lesson registers is found, read, and refused beside another;
    a secondary one gives way with a note."""
    find = lambda inv: inv.named('boxes.one')

    def read(inv, files, options):
        boxes = lambda i: [dict(name=n, box_px=b) for n, *b in objects(i)]
        return data_of([Entry(f'{i}.jpg', files[0], boxes(i)) for i in TRAIN], inv, options)

    monkeypatch.setitem(FORMATS, 'one', Format('one line', find, read))
    put(tmp_path / 'boxes.one', 'x')
    pictures(tmp_path / 'images')
    check(load_dataset(tmp_path), 8)
    assert recognise(tmp_path) == 'one'
    voc(tmp_path, images='images', labels='xml')
    with pytest.raises(DataError, match='VOC XML .* and one line'):
        load_dataset(tmp_path)
    monkeypatch.setitem(FORMATS, 'one', Format('one line', find, read, secondary=True))
    data = load_dataset(tmp_path)
    check(data, 8)
    assert any('boxes.one: left unread' in n for n in data.notes)
    via = 'via.json is of VIA: export COCO.'
    unread = lambda inv: via if inv.named('via.json') else None
    monkeypatch.setattr(formats, 'UNREAD_FORMATS', [unread])
    put(tmp_path / 'via' / 'via.json', '{}')
    with pytest.raises(DataError, match=f'not a data set we know. {via} It holds via.json'):
        load_dataset(tmp_path / 'via')


# ------------------------------------------------------- which splits are there, and which are read
SPLIT_MAKERS = dict(
    coco=lambda r: json_set(r, 'annotations/train.json annotations/val.json', 'train val'),
    voc=each(TRAIN_VAL, lambda r, s, ids: voc(r / s, ids, '.', '.')),
    lists=each(
        TRAIN_VAL, lambda r, s, ids: (voc(r, ids), voc_list(r / f'ImageSets/Main/{s}.txt', ids))
    ),
    yolo=ultra,
    folders=lambda r: ultra(r, NAMES),
)


@pytest.mark.parametrize('kind', list(SPLIT_MAKERS))
def test_nothing_is_held_out_of_train_where_val_is_there_and_not_read(kind, tmp_path):
    SPLIT_MAKERS[kind](tmp_path)
    data = check(load_dataset(tmp_path, only=('train',)), dict(train=len(TRAIN)))
    assert data.unread == ('val',)
    assert not any('held out' in n for n in data.notes)


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo'])
def test_only_train_is_what_training_would_see(kind, tmp_path):
    "A set in one piece loses the same fifth, whatever is asked for"
    if kind == 'coco':
        json_set(tmp_path, 'a.json', 'images')
    if kind == 'voc':
        voc(tmp_path)
    if kind == 'yolo':
        txt(tmp_path)
        classes(tmp_path)
    whole = load_dataset(tmp_path)
    for s in ('train', 'val'):
        assert [r.image for r in load_dataset(tmp_path, only=(s,)).split(s)] == [
            r.image for r in whole.split(s)
        ]


def test_only_train_of_several_sets(tmp_path):
    "The val split of one is there, though it has nothing else; a val split without labels is none"
    voc(tmp_path / 'a' / 'val', VAL, '.', '.')
    voc(tmp_path / 'b')
    both = [tmp_path / 'a', tmp_path / 'b']
    assert len(load_dataset(both).train) == 8 == len(load_dataset(both, only=('train',)).train)
    ultra(tmp_path / 'c')
    shutil.rmtree(tmp_path / 'c/labels/val')
    assert [r.image for r in load_dataset(tmp_path / 'c', only=('train',)).train] == [
        r.image for r in load_dataset(tmp_path / 'c').train
    ]
    ultra(tmp_path / 'd', f'train: images/train\nval: elsewhere/val2\n{NAMES}', train=TRAIN)
    assert len(load_dataset(tmp_path / 'd', only=('train',)).train) == 8


# --------------------------------------------------------------- a whole split without its pictures
@pytest.mark.parametrize(
    'files,images,says',
    [
        (
            'annotations/instances_train2017.json annotations/instances_val2017.json',
            'train2017 val2017',
            'in train2017/, a folder that is not there',
        ),
        (
            'Train.json Validation.json',
            'images/Train images/Validation',
            'in images/Train/, a folder that is not there',
        ),
        ('train.json val.json', 'images/train images/val', 'in images/train2/'),
        (
            'pets/train/_annotations.coco.json pets/valid/_annotations.coco.json',
            'pets/train pets/valid',
            'in pets/train/',
        ),
    ],
)
def test_a_whole_split_without_pictures_97(files, images, says, tmp_path):
    json_set(tmp_path, files, images)
    if 'train2/' in says:
        (tmp_path / 'images/train2').mkdir()
    for i in TRAIN:
        next(tmp_path.rglob(f'{i}.jpg')).unlink()
    for p in [*tmp_path.rglob('train2017'), *tmp_path.rglob('Train')]:
        if not any(p.iterdir()):
            p.rmdir()
    if (tmp_path / 'images/train').is_dir():
        (tmp_path / 'images/train').rmdir()
    with pytest.raises(DataError) as e:
        load_dataset(tmp_path)
    assert says in str(e.value), str(e.value)
    assert '8 of 8 pictures of train are missing: no such image as 0.jpg' in str(e.value)
    data = load_dataset(tmp_path, 'skip')
    check(data, dict(val=len(VAL)))
    assert data.counts['images'] == 8
    with pytest.raises(DataError, match='8 of 8 pictures of train'):
        load_dataset(tmp_path, 'skip', only=('train',))


def test_one_missing_picture_is_looked_for_where_the_others_are(tmp_path):
    coco_2017(tmp_path)
    (tmp_path / 'train2017' / '3.jpg').unlink()
    with pytest.raises(DataError, match='train2017/3.jpg: no such image'):
        load_dataset(tmp_path)


# ------------------------------------------------- COCO files that number their classes differently
TURNED = dict(train=((1, 'cat'), (2, 'dog')), val=((2, 'cat'), (1, 'dog'), (5, 'bird')))


def turned(root, cats=TURNED):
    for s, c in cats.items():
        dump(root / f'{s}.json', coco(SPLITS[s], cats=c, first=1 + 100 * [*SPLITS].index(s)))
        [picture(root / 'images' / f'{i}.jpg', i) for i in SPLITS[s]]


def test_each_coco_file_is_read_by_its_own_names(tmp_path):
    turned(tmp_path)
    data = check(load_dataset(tmp_path), TWO, ('cat', 'dog', 'bird'))
    assert data.category_ids is None
    assert data.ids_of('train') == (0, 1, 2, 5)
    assert data.ids_of('val') == (0, 2, 1, 5)
    assert not data.notes
    assert load_dataset(tmp_path, only=('val',)).category_ids == (0, 2, 1, 5)


def test_names_and_numbers_that_only_one_file_has(tmp_path):
    turned(tmp_path, dict(train=((1, 'cat'), (2, 'dog')), val=((3, 'cat'), (4, 'dog'))))
    data = check(load_dataset(tmp_path), TWO)
    assert data.ids_of('train') == (0, 1, 2)
    assert data.ids_of('val') == (0, 3, 4)
    turned(
        tmp_path,
        dict(train=((1, 'cat'), (2, 'dog'), (3, 'cow')), val=((1, 'cat'), (2, 'dog'), (3, 'emu'))),
    )
    data = check(load_dataset(tmp_path), TWO, ('cat', 'dog', 'cow', 'emu'))
    assert data.ids_of('train') == (0, 1, 2, 3, -1)
    assert data.ids_of('val') == (0, 1, 2, -1, 3)


def test_a_fifth_has_the_ids_of_its_file(tmp_path):
    turned(tmp_path, dict(train=TURNED['train'], test=TURNED['val']))
    data = load_dataset(tmp_path)
    assert data.ids_of('val') == data.ids_of('train') == (0, 1, 2, 5)
    assert data.ids_of('test') == (0, 2, 1, 5)


# ---------------------------------------------------------------- places are no splits
PLACES = 'job_1,job_2 batch1,batch2 100CANON,101CANON day1,day2 cats,dogs folder1,folder2'


@pytest.mark.parametrize('places', PLACES.split())
@pytest.mark.parametrize('kind', ['voc', 'yolo'])
def test_places_are_read_as_one_set_and_said(places, kind, tmp_path):
    places = places.split(',')
    for n, ids in zip(places, (range(4), range(4, 8))):
        voc(tmp_path / n, ids, '.', '.') if kind == 'voc' else txt(tmp_path / n, ids, '.', '.')
    if kind == 'yolo':
        classes(tmp_path)
    data = check(load_dataset(tmp_path), 8)
    says = f'pictures of 2 folders are read as one set: {", ".join(places)}'
    assert any(says in n for n in data.notes)


def test_one_fold_is_a_set_and_lists_come_before_folds(tmp_path):
    voc(tmp_path / 'a' / 'fold0', images='.', labels='.')
    check(load_dataset(tmp_path / 'a'), 8)
    for n, ids in FOLDS.items():
        voc(tmp_path / 'b', ids, f'JPEGImages/{n}', f'Annotations/{n}')
    for s, ids in TRAIN_VAL.items():
        voc_list(tmp_path / 'b' / f'ImageSets/Main/{s}.txt', ids)
    check(load_dataset(tmp_path / 'b'), TWO)
    for n, ids in FOLDS.items():
        txt(tmp_path / 'c', ids, f'{n}/images', f'{n}/labels')
    put(tmp_path / 'c' / 'data.yaml', f'train: fold0/images\nval: fold1/images\n{NAMES}')
    check(load_dataset(tmp_path / 'c'), TWO)
    for n, ids in FOLDS.items():
        voc(tmp_path / 'd' / n, ids)
    check(load_dataset([tmp_path / 'c' / '..' / 'd' / n for n in FOLDS]), dict(train=9, val=2))


# ---------------------------------------------------------------- one file as the source
def test_a_file_about_one_picture_names_the_folder_to_give(tmp_path):
    voc(tmp_path / 'set')
    says = '0.xml: the annotation of one picture. Give the folder of its data set, .*set'
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path / 'set' / 'Annotations' / '0.xml')
    put(tmp_path / 'set' / 'Annotations' / 'odd.xml', '<kml/>')
    with pytest.raises(DataError, match='the annotation of one picture|no XML'):
        load_dataset(tmp_path / 'set' / 'Annotations' / 'odd.xml')


def test_one_class_in_two_spellings_of_unicode(tmp_path):
    "ä as one letter and as a with dots is one class"
    voc(tmp_path)
    put(tmp_path / 'Annotations/0.xml', xml(0, names=dict(cat='Ka\u0308fer')))
    put(tmp_path / 'Annotations/1.xml', xml(1, names=dict(cat='K\u00e4fer')))
    assert load_dataset(tmp_path).vocab[1:] == ('K\u00e4fer', 'cat', 'dog')


def test_a_table_without_classes_is_said(tmp_path):
    picture(tmp_path / '0.jpg', 0)
    picture(tmp_path / '1.jpg', 1)
    put(tmp_path / 'a.csv', 'image,xmin,ymin,xmax,ymax\n0.jpg,1,2,30,40\n1.jpg,1,2,30,40\n')
    data = load_dataset(tmp_path)
    assert data.vocab[1:] == ('object',)
    said = [n for n in data.notes if 'no column of classes' in n]
    assert said == ['a.csv: it has no column of classes; its objects are of one, "object"']


def test_a_yaml_of_ultralytics_beside_its_datasets(tmp_path):
    ultra(tmp_path / 'datasets/pets', None)
    text = 'path: {}\ntrain: images/train\nval: images/val\n' + NAMES
    for file, path in (
        ('pets.yaml', 'pets'),
        ('yolov5/data/pets.yaml', '../datasets/pets'),
        ('a/pets.yaml', 'datasets/pets'),
    ):
        check(load_dataset(put(tmp_path / file, text.format(path))), TWO)
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match='lost.yaml: no pictures and labels where it says.*path'):
        load_dataset(put(tmp_path / 'b/c/lost.yaml', text.format('nowhere')))


def test_only_a_split_that_folders_of_pictures_say(tmp_path):
    in_folders(tmp_path)
    dump(tmp_path / 'a.json', coco(EVERY))
    (tmp_path / 'images/train/0.jpg').write_bytes(b'')
    with pytest.raises(DataError, match='0.jpg'):
        load_dataset(tmp_path)
    for s in ('val', 'test'):
        check(load_dataset(tmp_path, only=(s,)), {s: len(SPLITS[s])})


def test_a_large_json_is_known_by_its_beginning(tmp_path):
    "BDD100K's files are too large to be parsed for a message"
    one = json.dumps(dict(name='0.jpg', labels=[dict(category='car')] * 1000))
    picture(tmp_path / '0.jpg', 0)
    put(tmp_path / 'det_train.json', '[' + ','.join([one] * 900) + ']')
    with pytest.raises(DataError, match='BDD100K'):
        load_dataset(tmp_path)
