"""Readers: round trips, the damage table, layouts found in the wild, downloads up to the request,
real data where it is."""

import http.server, json, re, shutil, threading, time, urllib.error, zipfile
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest, torch
from PIL import Image
from ssd_tutorial.checks import check_data
from ssd_tutorial.negatives import list_images
from ssd_tutorial.pictures import IMAGE_SUFFIXES, image_size, upright_hw
from ssd_tutorial import downloads, inventory, negatives, pictures
from ssd_tutorial.checks import mend_box
from ssd_tutorial.coco import read_coco, save_coco
from ssd_tutorial.downloads import download_coco, fetch
from ssd_tutorial.faults import DataError
from ssd_tutorial.negatives import add_pictures, pictures_without
from ssd_tutorial.pictures import open_image
from ssd_tutorial.readers import load_dataset, recognise
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import read_voc, save_voc
from ssd_tutorial.yolo import save_yolo

WRITERS = dict(voc=save_voc, coco=save_coco, yolo=save_yolo)


@pytest.fixture(scope='module')
def data():
    return generated_data(n_train=5, n_valid=3, seed=3, size=64, n_empty=0.2)


def save_fastai(data, root):
    "fastai's layout: train.json beside train/"
    save_coco(replace(data, splits=dict(train=data.train)), root)
    (root / 'annotations' / 'instances_train.json').rename(root / 'train.json')
    (root / 'annotations').rmdir()
    return root


def boxes_by_name(records, vocab):
    return {
        Path(r.file_name).stem: sorted(
            (vocab[l], *np.round(b.tolist(), 2)) for b, l in zip(r.boxes_px, r.labels)
        )
        for r in records
    }


# ---------------------------------------------------------------- round trips
@pytest.mark.parametrize('kind', ['voc', 'coco', 'yolo', 'fastai'])
def test_round_trip(data, tmp_path, kind):
    root = (
        save_fastai(data, tmp_path / 'set')
        if kind == 'fastai'
        else WRITERS[kind](data, tmp_path / 'set')
    )
    assert recognise(root) == dict(fastai='coco').get(kind, kind)
    back = load_dataset(root)
    if kind == 'fastai':
        assert len(back.train) == 4
        assert len(back.valid) == 1
        assert 'held out' in back.notes[-1]
        found, true = (
            boxes_by_name(back.train + back.valid, back.vocab),
            boxes_by_name(data.train, data.vocab),
        )
    else:
        assert {k: len(v) for k, v in back.splits.items()} == dict(train=5, val=3)
        assert not back.notes
        found, true = (
            boxes_by_name(back.train + back.valid, back.vocab),
            boxes_by_name(data.train + data.valid, data.vocab),
        )
    assert found == true
    for r in back.train:
        assert r.size_hw == (64, 64)
        assert r.load().size == (64, 64)
        assert r.boxes_px.dtype == np.float32
        assert r.labels.dtype == np.int64
    assert any(len(r.labels) == 0 for r in data.train + data.valid), (
        'an image without objects is part of the trip'
    )


def test_flags_survive(data, tmp_path):
    r = replace(data.train[0], difficult=np.ones(len(data.train[0].labels), bool))
    d = replace(data, splits=dict(train=[r], val=data.valid))
    assert read_voc(save_voc(d, tmp_path / 'voc')).train[0].difficult.all()
    r = replace(r, crowd=np.ones(len(r.labels), bool))
    d = replace(data, splits=dict(train=[r], val=data.valid))
    back = read_coco(save_coco(d, tmp_path / 'coco')).train[0]
    assert back.difficult.all()
    assert back.crowd.all()


def test_category_ids_both_ways(data, tmp_path):
    d = replace(data, category_ids=(0, 1, 11, 13, 44, 90, 7))
    back = load_dataset(save_coco(d, tmp_path))
    name = {c: n for c, n in zip(d.category_ids, d.vocab)}
    assert {c: n for c, n in zip(back.category_ids, back.vocab)} == name
    assert back.category_ids[1:] == tuple(sorted(d.category_ids[1:]))
    assert load_dataset(save_yolo(data, tmp_path / 'y')).category_ids == (-1, 0, 1, 2, 3, 4, 5)


# ---------------------------------------------------------------- damage
def voc_corners(a, b, c, d):
    "First and last pixel, from 1; swapped corners stay swapped"
    return a + (not a > c), b + (not b > d), c + (a > c), d + (b > d)


def edit(kind, root, box=None, label=None):
    """Write a damaged box (pixels of a 64 px image) or label into the first training annotation
    that has an object; returns its image's stem."""
    if kind == 'voc':
        path = next(
            p
            for p in sorted((root / 'Annotations').glob('*.xml'))
            if '<object>' in p.read_text()
            and p.stem in (root / 'ImageSets/Main/train.txt').read_text()
        )
        text = path.read_text()
        if box is not None:
            for tag, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), voc_corners(*box)):
                text = re.sub(f'<{tag}>[^<]*', f'<{tag}>{v}', text, count=1)
        path.write_text(text)
        return path.stem
    if kind == 'coco':
        path = root / 'annotations' / 'instances_train.json'
        d = json.loads(path.read_text())
        a = d['annotations'][0]
        if box is not None:
            a['bbox'] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        if label is not None:
            a['category_id'] = label
        path.write_text(json.dumps(d))
        return next(Path(i['file_name']).stem for i in d['images'] if i['id'] == a['image_id'])
    path = next(p for p in sorted((root / 'labels' / 'train').glob('*.txt')) if p.read_text())
    rows = [l.split() for l in path.read_text().splitlines()]
    if box is not None:
        rows[0][1:] = [
            str(v / 64)
            for v in (
                (box[0] + box[2]) / 2,
                (box[1] + box[3]) / 2,
                box[2] - box[0],
                box[3] - box[1],
            )
        ]
    if label is not None:
        rows[0][0] = str(label)
    path.write_text('\n'.join(map(' '.join, rows)))
    return path.stem


NAN = float('nan')
# name: (box in pixels of a 64 px image, words of the message, what fix makes of it: a box, or None
# where the object goes)
DAMAGE = {
    'degenerate': ([20, 20, 20, 40], 'has no area', None),
    'flipped on one axis': ([40, 20, 20, 40], 'flipped', [20, 20, 40, 40]),
    'flipped on both axes': ([40, 40, 20, 20], 'flipped', [20, 20, 40, 40]),
    'partly outside': ([40, 40, 90, 90], 'partly outside', [40, 40, 64, 64]),
    'beyond the first pixel': ([-5, 10, 20, 30], 'partly outside', [0, 10, 20, 30]),
    'wholly outside': ([70, 10, 90, 30], 'lies outside', None),
    'not a number': ([NAN, 10, 20, 30], 'not finite', None),
}


@pytest.mark.parametrize('policy', ['raise', 'fix', 'skip'])
@pytest.mark.parametrize('kind', list(WRITERS))
@pytest.mark.parametrize('case', list(DAMAGE))
def test_damaged_box(data, tmp_path, case, kind, policy):
    box, words, mended = DAMAGE[case]
    root = WRITERS[kind](data, tmp_path / 'set')
    stem = edit(kind, root, box)
    n = {Path(r.file_name).stem: len(r.labels) for r in data.train}
    if policy == 'raise':
        with pytest.raises(DataError) as e:
            load_dataset(root)
        message = str(e.value)
        assert stem in message
        assert 'object 0' in message
        assert words in message
        assert 'on_error' in message
        assert ('nan' if case == 'not a number' else str(float(box[2]))) in message, (
            'the message holds the value'
        )
        return
    back = load_dataset(root, on_error=policy)
    records = {Path(r.file_name).stem: r for r in back.train}
    assert stem in ' '.join(back.notes)
    assert words in ' '.join(back.notes)
    assert '1 faults' in ' '.join(back.notes)
    if policy == 'skip':
        assert stem not in records
        assert len(records) == len(n) - 1
    else:
        assert len(records) == len(n)
        assert len(records[stem].labels) == n[stem] - (mended is None)
        if mended:
            np.testing.assert_allclose(records[stem].boxes_px[0], mended, atol=1e-3)


@pytest.mark.parametrize('kind,label', [('coco', 999), ('yolo', 17), ('yolo', -1)])
def test_unknown_label(data, tmp_path, kind, label):
    root = WRITERS[kind](data, tmp_path / 'set')
    stem = edit(kind, root, label=label)
    with pytest.raises(DataError, match='is none of the 6 classes') as e:
        load_dataset(root)
    assert stem in str(e.value)
    assert 'object 0' in str(e.value)
    assert str(label) in str(e.value)
    n = len(next(r for r in data.train if Path(r.file_name).stem == stem).labels)
    fixed = next(r for r in load_dataset(root, 'fix').train if Path(r.file_name).stem == stem)
    assert len(fixed.labels) == n - 1
    assert stem not in [Path(r.file_name).stem for r in load_dataset(root, 'skip').train]


def test_unknown_label_voc(data, tmp_path):
    root = save_voc(data, tmp_path)
    d = read_voc(root, vocab=('background', 'disc'))
    with pytest.raises(
        DataError,
        match='object 0 \\((triangle|square|star|cross|arrow)\\) is none of the 1 classes .disc.',
    ):
        check_data(d)


def damage_image(path, how):
    if how == 'missing':
        path.unlink()
    elif how == 'text':
        path.write_text('not an image')
    elif how == 'empty':
        path.write_bytes(b'')
    else:
        # a download that broke off
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])


@pytest.mark.parametrize('policy', ['raise', 'fix', 'skip'])
@pytest.mark.parametrize('how', ['missing', 'text', 'empty', 'cut'])
@pytest.mark.parametrize('kind', list(WRITERS))
def test_damaged_image(data, tmp_path, kind, how, policy):
    root = WRITERS[kind](data, tmp_path / 'set')
    stem = Path(data.train[1].file_name).stem
    damage_image(next(root.rglob(f'{stem}.png')), how)
    if policy == 'raise':
        with pytest.raises(
            DataError, match='no such image' if how == 'missing' else 'not a readable image'
        ) as e:
            load_dataset(root)
        assert stem in str(e.value)
        assert 'on_error="skip"' in str(e.value)
    else:
        back = load_dataset(root, policy)
        assert stem not in [Path(r.file_name).stem for r in back.train]
        assert len(back.train) == 4
        assert stem in ' '.join(back.notes)


def test_annotation_of_unknown_image(data, tmp_path):
    root = save_coco(data, tmp_path)
    path = root / 'annotations' / 'instances_train.json'
    d = json.loads(path.read_text())
    d['annotations'].append(dict(id=777, image_id=4711, category_id=1, bbox=[0, 0, 5, 5]))
    path.write_text(json.dumps(d))
    with pytest.raises(DataError, match='annotation 777 is of image 4711'):
        load_dataset(root)
    for policy in ('fix', 'skip'):
        back = load_dataset(root, policy)
        assert len(back.train) == 5
        assert '4711' in ' '.join(back.notes)


@pytest.mark.parametrize(
    'text,words',
    [
        ('<annotation><obj', 'not readable XML'),
        ('<annotation><object><name>disc</name></object></annotation>', 'object 0 has no <bndbox>'),
        ('<annotation><object><bndbox/></object></annotation>', 'has no <name>'),
        (
            '<annotation><object><name>disc</name><bndbox><xmin>a</xmin><ymin>1</ymin>'
            '<xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>',
            'no number',
        ),
        (None, 'no such annotation'),
    ],
)
def test_voc_annotation_that_cannot_be_read(data, tmp_path, text, words):
    root = save_voc(data, tmp_path)
    path = root / 'Annotations' / f'{Path(data.train[0].file_name).stem}.xml'
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=words) as e:
        load_dataset(root)
    assert path.name in str(e.value)
    for policy in ('fix', 'skip'):
        back = load_dataset(root, policy)
        assert len(back.train) == 4
        assert path.name in ' '.join(back.notes)


@pytest.mark.parametrize(
    'line',
    ['cat .5 .5 .1 .1', '0 .5 .5', '1.5 .5 .5 .1 .1', 'nan .5 .5 .1 .1', '0 .1 .1 .2 .2 .3 .3 .4'],
)
def test_yolo_line_that_cannot_be_read(data, tmp_path, line):
    root = save_yolo(data, tmp_path)
    path = root / 'labels' / 'train' / f'{Path(data.train[0].file_name).stem}.txt'
    path.write_text(line)
    with pytest.raises(DataError, match='line 1 is') as e:
        load_dataset(root)
    assert path.name in str(e.value)
    assert line in str(e.value)
    back = load_dataset(root, 'fix')
    assert len(back.train) == 4, 'left out, never kept as an image without objects'
    assert path.name in ' '.join(back.notes)


def test_coco_annotations_that_say_little(data, tmp_path):
    root = save_coco(data, tmp_path)
    path = root / 'annotations' / 'instances_train.json'
    whole = path.read_text()

    def changed(**new):
        d = json.loads(whole)
        a = d['annotations'][0]
        a.update(new)
        [a.pop(k) for k, v in new.items() if v is None]
        path.write_text(json.dumps(d))

    changed(bbox=None)
    with pytest.raises(DataError, match='not finite'):
        load_dataset(root)
    assert (
        sum(len(r.labels) for r in load_dataset(root, 'fix').train)
        == sum(len(r.labels) for r in data.train) - 1
    )
    changed(bbox=None, segmentation=[[1, 2, 9, 2, 9, 12], [3, 3, 4, 14, 5, 5]])
    assert any((r.boxes_px == [1, 2, 9, 14]).all(1).any() for r in load_dataset(root).train), (
        'the box of an outline is what encloses it'
    )
    changed(segmentation=dict(counts='abc', size=[64, 64]), iscrowd=1)
    assert sum(r.crowd.sum() for r in load_dataset(root).train) == 1
    d = json.loads(whole)
    d['images'].append(d['images'][0])
    path.write_text(json.dumps(d))
    with pytest.raises(DataError, match='stands twice in "images"'):
        load_dataset(root)
    path.write_text('{"images": []}')
    with pytest.raises(DataError, match='no annotations, categories in it'):
        load_dataset(root)
    path.write_text('{')
    with pytest.raises(DataError, match='not readable JSON'):
        load_dataset(root)


def test_what_is_no_data_set(tmp_path, data):
    with pytest.raises(DataError, match='not a data set we know'):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match='no such folder'):
        load_dataset(tmp_path / 'nowhere')
    (tmp_path / 'a.txt').write_text('hello')
    with pytest.raises(DataError, match='a file, not a folder'):
        load_dataset(tmp_path / 'a.txt')
    with pytest.raises(DataError, match='not a data set we know'):
        load_dataset(tmp_path)
    save_voc(data, tmp_path / 'VOCdevkit' / 'VOC2007')
    assert len(load_dataset(tmp_path / 'VOCdevkit').train) == 5, 'a folder in a folder is found'
    (tmp_path / 'hollow' / 'Annotations').mkdir(parents=True)
    with pytest.raises(DataError, match='not a data set we know. It holds Annotations/ .empty.'):
        load_dataset(tmp_path / 'hollow')
    with pytest.raises(DataError, match='choose one of raise, fix, skip'):
        load_dataset(tmp_path, on_error='ignore')
    with pytest.raises(DataError, match='choose from largest, grid'):
        load_dataset('generated:nothing')


def test_splits(data, tmp_path):
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        load_dataset(save_voc(data, tmp_path / 'a')).split('test')
    root = save_voc(data, tmp_path / 'b')
    shutil.rmtree(root / 'ImageSets')
    back = load_dataset(root)
    assert len(back.train) == 6
    assert len(back.valid) == 2
    assert 'a fifth of train' in ' '.join(back.notes)
    assert (
        [r.image_id for r in back.valid]
        == [r.image_id for r in load_dataset(root).valid]
        != [r.image_id for r in load_dataset(root, seed=1).valid]
    )
    only = load_dataset(save_coco(replace(data, splits=dict(test=data.train)), tmp_path / 'c'))
    assert len(only.split('test')) == 5
    with pytest.raises(DataError, match="no split 'train'; it has test"):
        only.train
    (tmp_path / 'a' / 'ImageSets' / 'Main' / 'val.txt').write_text('')
    assert 'held out' in load_dataset(tmp_path / 'a').notes[-1]
    with pytest.raises(DataError, match='one image cannot'):
        load_dataset(save_coco(replace(data, splits=dict(train=data.train[:1])), tmp_path / 'd'))


# ---------------------------------------------------------------- layouts found in the wild
def test_voc_layouts(data, tmp_path):
    root = save_voc(data, tmp_path / 'voc')
    main = root / 'ImageSets' / 'Main'
    stems = [Path(r.file_name).stem for r in data.train]
    # flags, an empty line, one name twice
    (main / 'train.txt').write_text(
        '\n'.join(f'{s} {f}' for s, f in zip(stems, (' 1', '-1', ' 0', '1', '-1')))
        + f'\n\n{stems[0]}  1\n'
    )
    (main / 'dog_train.txt').write_text('nothing -1\n')
    assert len(load_dataset(root).train) == 5
    (main / 'trainval.txt').write_text(
        ''.join(f'{Path(r.file_name).stem}\n' for r in data.train + data.valid)
    )
    (main / 'train.txt').unlink()
    assert {Path(r.file_name).stem for r in load_dataset(root).train} == set(stems), (
        'trainval without val is train'
    )
    flat = tmp_path / 'export'  # labelling services put image and XML side by side
    for part, src in (('train', data.train), ('valid', data.valid)):
        (flat / part).mkdir(parents=True)
        for r in src:
            stem = Path(r.file_name).stem
            shutil.copy(root / 'Annotations' / f'{stem}.xml', flat / part)
            shutil.copy(root / 'JPEGImages' / f'{stem}.png', flat / part)
    assert recognise(flat) == 'voc'
    assert {k: len(v) for k, v in load_dataset(flat).splits.items()} == dict(train=5, val=3)
    deep = tmp_path / 'deep'
    save_voc(data, deep)
    shutil.rmtree(deep / 'ImageSets')
    for part in ('Annotations', 'JPEGImages'):
        (deep / part / 'sub').mkdir()
        [p.rename(deep / part / 'sub' / p.name) for p in (deep / part).glob('*.*')]
    assert len(load_dataset(deep).train) == 6


def test_a_name_may_end_in_a_number(data, tmp_path):
    "'holiday 1' is a file here, not a name and a flag"
    root = save_voc(data, tmp_path)
    stems = [Path(r.file_name).stem for r in data.train]
    listed = root / 'ImageSets' / 'Main' / 'train.txt'
    for old, new in zip(stems, ('holiday 1', 'holiday 0', 'holiday')):
        for folder, suffix in (('Annotations', '.xml'), ('JPEGImages', '.png')):
            (root / folder / f'{old}{suffix}').rename(root / folder / f'{new}{suffix}')
    listed.write_text('holiday 1\nholiday 0\nholiday -1\n' + '\n'.join(stems[3:]) + '\n')
    assert [Path(str(r.image)).stem for r in load_dataset(root).train] == [
        'holiday 1',
        'holiday 0',
        'holiday',
        *stems[3:],
    ]


def test_voc_names_that_lie(data, tmp_path):
    root = save_voc(data, tmp_path)
    path = root / 'Annotations' / f'{Path(data.train[0].file_name).stem}.xml'
    for name in (r'C:\photos\other.jpg', 'gone.png', ''):
        new = lambda m, name=name: f'<filename>{name}'
        path.write_text(re.sub('<filename>[^<]*', new, path.read_text()))
        assert Path(load_dataset(root).train[0].image).stem == path.stem
    (root / 'JPEGImages' / f'{path.stem}.png').rename(root / 'JPEGImages' / 'renamed.png')
    path.write_text(re.sub('<filename>[^<]*', '<filename>renamed.png', path.read_text()))
    assert Path(load_dataset(root).train[0].image).name == 'renamed.png'


def test_zero_based_voc(data, tmp_path):
    root = save_voc(data, tmp_path)
    text = (
        '<annotation><object><name>disc</name><bndbox><xmin>0</xmin><ymin>0</ymin>'
        '<xmax>10</xmax><ymax>10</ymax></bndbox></object></annotation>'
    )
    (root / 'Annotations' / f'{Path(data.train[0].file_name).stem}.xml').write_text(text)
    with pytest.raises(DataError, match='one_based=False'):
        load_dataset(root)
    assert load_dataset(root, one_based=False).train[0].boxes_px.tolist() == [[0, 0, 10, 10]]


def test_coco_layouts(data, tmp_path):
    root = save_coco(data, tmp_path / 'coco')
    ann = root / 'annotations'
    for p in ann.glob('*.json'):
        shutil.copy(p, ann / p.name.replace('instances_', 'captions_'))
    (ann / 'instances_train.json').rename(ann / 'instances_train2017.json')
    (root / 'train').rename(root / 'train2017')
    (root / 'images').mkdir()
    (root / 'val').rename(root / 'images' / 'val')
    assert {k: len(v) for k, v in load_dataset(root).splits.items()} == dict(train=5, val=3)
    export = tmp_path / 'export'
    save_coco(data, export)
    (export / 'val').rename(export / 'valid')
    (export / 'annotations' / 'instances_val.json').rename(
        export / 'valid' / '_annotations.coco.json'
    )
    (export / 'annotations' / 'instances_train.json').rename(
        export / 'train' / '_annotations.coco.json'
    )
    (export / 'annotations').rmdir()
    assert {k: len(v) for k, v in load_dataset(export).splits.items()} == dict(train=5, val=3)
    tool = tmp_path / 'tool'
    save_coco(replace(data, splits=dict(default=data.train)), tool)
    (tool / 'images').mkdir()
    (tool / 'default').rename(tool / 'images' / 'sub')
    p = tool / 'annotations' / 'instances_default.json'
    d = json.loads(p.read_text())
    for im in d['images']:
        im['file_name'] = f'sub/{im["file_name"]}'
    p.write_text(json.dumps(d))
    assert len(load_dataset(tool).train) == 4
    d = json.loads((tmp_path / 'coco/annotations/instances_val.json').read_text())
    d['categories'][0]['name'] = 'other'
    (tmp_path / 'coco/annotations/instances_val.json').write_text(json.dumps(d))
    both = load_dataset(root)
    assert both.vocab == (*data.vocab, 'other')
    assert {both.vocab[l] for r in both.valid for l in r.labels} <= {*data.vocab[2:], 'other'}
    assert both.ids_of('val')[1] == -1
    assert both.ids_of('val')[-1] == both.ids_of('train')[1]


def test_fastai_pascal_layout(data, tmp_path):
    "train.json and valid.json whose images both lie in train/"
    save_coco(data, tmp_path)
    [p.rename(tmp_path / 'train' / p.name) for p in (tmp_path / 'val').iterdir()]
    (tmp_path / 'val').rmdir()
    (tmp_path / 'annotations' / 'instances_train.json').rename(tmp_path / 'train.json')
    (tmp_path / 'annotations' / 'instances_val.json').rename(tmp_path / 'valid.json')
    assert {k: len(v) for k, v in load_dataset(tmp_path).splits.items()} == dict(train=5, val=3)


@pytest.mark.parametrize(
    'yaml',
    [
        'train: ../train/images\nval: ../valid/images\n',
        'path: .\ntrain: train/images\nval: [valid/images]\n',
        'train: list.txt\nval: valid/images\n',
        '',
    ],
)
def test_yolo_layouts(data, tmp_path, yaml):
    save_yolo(data, tmp_path)
    for here, there in (('train', 'train'), ('val', 'valid')):
        (tmp_path / there).mkdir()
        [(tmp_path / part / here).rename(tmp_path / there / part) for part in ('images', 'labels')]
    shutil.rmtree(tmp_path / 'images')
    shutil.rmtree(tmp_path / 'labels')
    (tmp_path / 'classes.txt').unlink()
    (tmp_path / 'list.txt').write_text(
        '\n'.join(f'./train/images/{Path(r.file_name).name}' for r in data.train)
    )
    (tmp_path / 'data.yaml').write_text(
        yaml + 'names:\n' + ''.join(f'  {i}: {n}\n' for i, n in enumerate(data.vocab[1:]))
    )
    back = load_dataset(tmp_path)
    assert recognise(tmp_path) == 'yolo'
    assert {k: len(v) for k, v in back.splits.items()} == dict(train=5, val=3)
    assert back.vocab == data.vocab


def test_more_yolo_layouts(data, tmp_path):
    root = save_yolo(data, tmp_path / 'a')  # one flat folder
    for part in ('images', 'labels'):
        for s in ('train', 'val'):
            [p.rename(root / part / p.name) for p in (root / part / s).iterdir()]
            (root / part / s).rmdir()
    shutil.move(root / 'classes.txt', root / 'labels' / 'classes.txt')
    assert len(load_dataset(root).train) == 6
    beside = tmp_path / 'b'
    beside.mkdir()
    # everything side by side
    [shutil.copy(p, beside) for part in ('images', 'labels') for p in (root / part).iterdir()]
    assert recognise(beside) == 'yolo'
    assert len(load_dataset(beside).train) == 6
    root = save_yolo(data, tmp_path / 'c')
    shutil.rmtree(root / 'labels' / 'val')
    back = load_dataset(root)
    assert 'none of its 3 images has a label file' in ' '.join(back.notes)
    assert len(back.train) == 4
    shutil.rmtree(root / 'labels')
    with pytest.raises(DataError, match='no label files'):
        load_dataset(root)
    root = save_yolo(data, tmp_path / 'd')
    (root / 'classes.txt').unlink()
    with pytest.raises(DataError, match='no class names'):
        load_dataset(root)


def test_pictures_of_all_kinds(tmp_path):
    for mode, suffix in (
        ('L', 'png'),
        ('LA', 'png'),
        ('P', 'png'),
        ('RGBA', 'png'),
        ('I;16', 'png'),
        ('CMYK', 'jpg'),
        ('1', 'png'),
        ('RGB', 'webp'),
    ):
        path = tmp_path / f'{mode.replace(";", "")}.{suffix}'
        Image.new(mode, (6, 4)).save(path)
        assert open_image(path).mode == 'RGB'
        assert image_size(path) == (4, 6)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.new('RGB', (6, 4)).save(tmp_path / 'e.jpg', exif=exif)
        assert (
            image_size(tmp_path / 'e.jpg')
            == open_image(tmp_path / 'e.jpg').size[::-1]
            == ((4, 6) if turn < 5 else (6, 4))
        )


RGB = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
CHW = torch.tensor(RGB).permute(2, 0, 1)


@pytest.mark.parametrize(
    'x',
    [
        RGB,
        RGB.astype(np.uint16) * 257,
        RGB.astype('>u2') * 257,
        RGB / 255,
        np.float16(RGB / 255),
        RGB.astype(np.int64),
        RGB[::-1][::-1],
        CHW,
        CHW / 255,
        (CHW / 255).half(),
        (CHW / 255).requires_grad_(),
        CHW.long(),
    ],
)
def test_pixels_in_memory(x):
    assert (np.asarray(open_image(x)) == RGB).all()
    assert image_size(x) == (5, 6)


@pytest.mark.parametrize(
    'x',
    [
        RGB[..., 0],
        RGB[..., :1],
        RGB[..., 0] / 255,
        RGB[..., 0].astype(np.int32),
        RGB[..., 0].astype(np.uint16) * 257,
        CHW[:1],
        CHW[0],
        CHW[:1] / 255,
    ],
)
def test_grey_pixels_in_memory(x):
    assert (np.asarray(open_image(x)) == RGB[..., :1]).all()


def test_pixels_as_from_files(tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    deep = np.random.default_rng(2).integers(0, 65536, (5, 6), dtype=np.uint16)
    for x in (alpha, deep, RGB[..., 0] > 99):
        Image.fromarray(x).save(tmp_path / 'a.png')
        assert (np.asarray(open_image(x)) == np.asarray(open_image(tmp_path / 'a.png'))).all()
    assert (
        np.asarray(open_image(torch.tensor(alpha).permute(2, 0, 1)))
        == np.asarray(open_image(alpha))
    ).all()
    assert np.asarray(open_image(np.float32([[-0.03, 1.04]])))[0, :, 0].tolist() == [0, 255], (
        'resizing overshoots'
    )


@pytest.mark.parametrize(
    'x,says',
    [
        (RGB * 1.0, 'float64 from 0 to 248'),
        (RGB[..., 0] * 1.0, 'floats from 0 to 1'),
        (np.float32(RGB) / 128 - 1, 'float32 from -1 to'),
        (RGB / 255 * np.nan, 'from nan'),
        (RGB.astype(int) * 300, 'int64 from 0'),
        (RGB * 1j, 'complex128'),
        ((CHW / 255 - 0.45) / 0.22, 'from -2'),
        (CHW.float(), 'float32 from 0'),
        (CHW.numpy(), r'an array of shape \(3, 5, 6\): give one picture'),
        (CHW[None], r'a tensor of shape \(1, 3, 5, 6\)'),
        (torch.tensor(RGB), r'a tensor of shape \(5, 6, 3\)'),
        (RGB[..., :2], r'\(5, 6, 2\)'),
        (RGB[:0], r'\(0, 6, 3\)'),
        (RGB.reshape(-1), r'\(90,\)'),
        (torch.tensor(7), r'\(\)'),
    ],
)
def test_pixels_that_could_mean_anything(x, says):
    for f in (open_image, image_size):
        with pytest.raises(DataError, match=says):
            f(x)


def test_float_tiff(tmp_path):
    grey = RGB[..., 0]
    path = tmp_path / 'a.tif'
    Image.fromarray(np.float32(grey / 255)).save(path)
    assert (np.asarray(open_image(path))[..., 1] == grey).all()
    assert image_size(path) == (5, 6)
    for x in (np.float32(grey) * 20, np.float32(grey) - 1, np.float32(grey) * np.nan):
        Image.fromarray(x).save(path)
        for f in (open_image, image_size):  # the check says the same as opening does
            says = r'a.tif: not a readable image: pixels of float32 .*floats from 0 to 1\. '
            with pytest.raises(DataError, match=says + 'Replace or remove it'):
                f(path)


@pytest.mark.parametrize(
    'brands,kind,more',
    [
        (b'heic\0\0\0\0mif1heic', 'HEIC', 'pillow-heif'),
        (b'mif1\0\0\0\0mif1heix', 'HEIC', 'pillow-heif'),
        (b'msf1\0\0\0\0hevc', 'HEIC', 'pillow-heif'),
        (b'avif\0\0\0\0mif1miaf', 'AVIF', '-U pillow'),
        (b'mif1\0\0\0\0avifmiaf', 'AVIF', '-U pillow'),
        (b'isom\0\0\0\0mp42', '', None),
    ],
)
def test_pictures_of_phones(brands, kind, more, tmp_path, monkeypatch):
    path = tmp_path / 'a.jpg'
    path.write_bytes(bytes([0, 0, 0, 8 + len(brands)]) + b'ftyp' + brands)
    for known, says in (
        (
            set(),
            f'it is {kind}, as phones write it; convert it to JPEG first, or pip install {more}',
        ),
        ({'.heic', '.avif'}, f'it is {kind}, and damaged'),
    ):
        monkeypatch.setattr(pictures, 'IMAGE_SUFFIXES', {'.jpg'} | known)
        with pytest.raises(DataError, match=says if kind else 'begins like no picture we know'):
            open_image(path)


@pytest.mark.parametrize('suffix', ['heic', 'avif'])
def test_pictures_of_phones_open(suffix, tmp_path):
    "Where there is a decoder, they stand upright like any other"
    if suffix == 'heic':
        pytest.importorskip('pillow_heif')
    elif '.avif' not in IMAGE_SUFFIXES:
        pytest.skip('this Pillow knows no AVIF')
    exif, path = Image.Exif(), tmp_path / f'a.{suffix}'
    exif[0x0112] = 6
    Image.new('RGB', (64, 32), 'red').save(path, exif=exif.tobytes())
    assert open_image(path).size == (32, 64)
    assert image_size(path) == (64, 32)
    assert list_images(tmp_path) == [path]
    with Image.open(path) as head:
        assert upright_hw(head)[0] == (64, 32)


def test_folder_with_files_left_out(tmp_path, monkeypatch, recwarn):
    for module in (inventory, negatives):  # as where there is no decoder
        monkeypatch.setattr(module, 'IMAGE_SUFFIXES', IMAGE_SUFFIXES - {'.heic', '.heif', '.hif'})
    for name in ('a.jpg', 'b.JFIF', 'c.jpe'):
        Image.new('RGB', (6, 4)).save(tmp_path / name, 'JPEG')
    assert [p.name for p in list_images(tmp_path)] == ['a.jpg', 'b.JFIF', 'c.jpe']
    assert not recwarn.list
    (tmp_path / 'sub').mkdir()
    [(tmp_path / n).touch() for n in ('a.HEIC', 'sub/b.heic', 'c.dng', 'notes.txt')]
    with pytest.warns(
        UserWarning, match=r'3 files left out: \.dng, \.heic \(convert to JPEG\)'
    ) as said:
        assert len(list_images(tmp_path)) == 3
    assert len(said) == 1
    with pytest.raises(DataError, match=r'no image files .*; 1 file left out: \.heic'):
        list_images(tmp_path / 'sub')


def test_command_says_what_it_leaves_out(tmp_path):
    "ssd-tutorial predict FOLDER goes through `find_photos`"
    from ssd_tutorial.sources import find_photos

    Image.new('RGB', (6, 4)).save(tmp_path / 'a.jpg')
    (tmp_path / 'b.dng').touch()
    with pytest.warns(UserWarning, match='1 file left out: .dng'):
        assert find_photos([tmp_path]) == [tmp_path / 'a.jpg']


def test_mended_boxes_are_sound():
    rng = np.random.default_rng(0)
    for box in rng.uniform(-40, 140, (2000, 4)):
        faults, mended = mend_box(box, (80, 100))
        if mended is None:
            assert faults
        else:
            assert 0 <= mended[0] < mended[2] <= 100
            assert 0 <= mended[1] < mended[3] <= 80
            assert mended.dtype == np.float32
    assert mend_box([100, 10, 100.4, 20], (80, 100))[1] is None, 'a sliver beyond the rim'


# ---------------------------------------------------------------- downloads, up to the request
BYTES = bytes(range(256)) * 40


class Ranges(http.server.BaseHTTPRequestHandler):
    "Serves BYTES; honours Range where `ranges` is true"

    ranges, asked = True, []

    def do_GET(self):
        want = self.headers.get('Range')
        Ranges.asked.append(want)
        if self.path != '/a.bin':
            return self.send_error(404)
        start = int(want.split('=')[1].rstrip('-')) if want and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(BYTES) - start))
        self.end_headers()
        self.wfile.write(BYTES[start:])

    def log_message(self, *a):
        pass


@pytest.fixture
def server():
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Ranges)
    Ranges.asked, Ranges.ranges = [], True
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_address[1]}/'
    s.shutdown()
    s.server_close()


def test_fetch(server, tmp_path):
    path = tmp_path / 'sub' / 'a.bin'
    assert fetch(server + 'a.bin', path, len(BYTES)).read_bytes() == BYTES
    assert Ranges.asked == [None]
    assert fetch(server + 'a.bin', path, len(BYTES)) == path
    assert len(Ranges.asked) == 1, 'what is there is not fetched again'


@pytest.mark.parametrize('ranges', [True, False])
def test_fetch_goes_on(server, tmp_path, ranges):
    Ranges.ranges = ranges
    (tmp_path / 'a.bin.part').write_bytes(BYTES[:5000])
    assert fetch(server + 'a.bin', tmp_path / 'a.bin', len(BYTES)).read_bytes() == BYTES
    assert Ranges.asked == ['bytes=5000-']
    assert not (tmp_path / 'a.bin.part').exists()


def test_fetch_checks_the_size(server, tmp_path):
    with pytest.raises(DataError, match=f'{len(BYTES)} bytes instead of 99999'):
        fetch(server + 'a.bin', tmp_path / 'a.bin', 99999)
    assert not (tmp_path / 'a.bin').exists()
    assert (tmp_path / 'a.bin.part').stat().st_size == len(BYTES)
    with pytest.raises(urllib.error.HTTPError):
        fetch(server + 'b.bin', tmp_path / 'b.bin', 1)


@pytest.mark.parametrize(
    'error', [urllib.error.URLError('no route'), TimeoutError('slow'), ConnectionResetError('gone')]
)
def test_coco_that_cannot_be_fetched(monkeypatch, tmp_path, error):
    def refuse(request, timeout):
        raise error

    monkeypatch.setattr('urllib.request.urlopen', refuse)
    with pytest.raises(DataError) as e:
        load_dataset(f'coco_2017:{tmp_path}/coco')
    for words in (
        'annotations_trainval2017.zip could not be fetched',
        type(error).__name__,
        f'put it into {tmp_path}',
        '--data generated',
    ):
        assert words in str(e.value)


def test_coco_asks_for_the_right_files(monkeypatch, tmp_path):
    asked = []

    def write(url, path, size):
        asked.append((url, size))
        path.parent.mkdir(exist_ok=True, parents=True)
        zipfile.ZipFile(path, 'w').close()
        return path

    monkeypatch.setattr(downloads, 'fetch', write)
    download_coco(tmp_path)
    assert [Path(u).name for u, _ in asked] == [
        'annotations_trainval2017.zip',
        'val2017.zip',
        'train2017.zip',
    ]
    assert sum(s for _, s in asked) > 20e9
    monkeypatch.setattr(
        downloads, 'fetch', lambda url, path, size: path.write_text('no zip') and path
    )
    (tmp_path / 'new').mkdir()
    with pytest.raises(DataError, match='BadZipFile'):
        download_coco(tmp_path / 'new')


def test_named_sets_by_untar_data(data, tmp_path, monkeypatch):
    import fastai.data.external as external

    asked, root = [], save_fastai(data, tmp_path / 'set')

    def untar(url, **kw):
        asked.append(url)
        return root

    monkeypatch.setattr(external, 'untar_data', untar)
    for name in ('coco_tiny', 'pascal_2007'):
        assert len(load_dataset(name).train) == 4
    assert asked == [external.URLs.COCO_TINY, external.URLs.PASCAL_2007]

    def refuse(url, **kw):
        raise OSError('no network')

    monkeypatch.setattr(external, 'untar_data', refuse)
    with pytest.raises(DataError) as e:
        load_dataset('coco_tiny')
    assert 'coco_tiny could not be fetched (OSError). Download ' + external.URLs.COCO_TINY in str(
        e.value
    )
    assert '--data generated' in str(e.value)


# ---------------------------------------------------------------- real data, where it is
REAL = {
    'voc_animals': dict(train=3267, val=870, classes=5, kind='voc'),
    'coco_tiny': dict(train=160, val=40, classes=6, kind='coco'),
    'coco_mini': dict(train=80, val=80, classes=80, kind='coco'),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', list(REAL))
def test_real_data(name, real_data):
    base, want = real_data, REAL[name]
    if not (base / name).is_dir():
        pytest.skip(f'no {name} in {base}')
    start = time.time()
    d = load_dataset(base / name)
    seconds = time.time() - start
    assert recognise(base / name) == want['kind']
    assert (len(d.train), len(d.valid), len(d.vocab) - 1) == (
        want['train'],
        want['val'],
        want['classes'],
    )
    assert seconds < 30, f'{seconds:.1f} s: loading must not take a minute'
    if name == 'coco_mini':
        assert d.category_ids[1] == 1
        assert max(d.category_ids) == 90
        assert sum(r.crowd.sum() for r in d.train + d.valid) > 0
        assert d.vocab[d.category_ids.index(13)] == 'stop sign'


# ---------------------------------------------------------------- pictures with nothing to find
def test_pictures_without_from_a_folder(data, tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    for i, place in enumerate(('a', 'a/b')):
        data.train[i].load().save(tmp_path / place / f'{i}.png')
    assert [r.file_name for r in pictures_without(tmp_path / 'a', data.vocab)] == ['0.png', '1.png']
    (tmp_path / 'a' / 'page.jpg').write_text('<html>')
    with pytest.raises(DataError, match='page.jpg: not a readable image'):
        pictures_without(tmp_path / 'a', data.vocab)
    assert len(pictures_without(tmp_path / 'a', data.vocab, 'skip')) == 2
    (tmp_path / 'empty').mkdir()
    for nothing in ('empty', 'nowhere'):
        with pytest.raises(DataError, match=nothing):
            pictures_without(tmp_path / nothing, data.vocab)


def test_pictures_without_from_a_data_set(data, tmp_path):
    """Whatever way our name is written there, a picture that has it is none without it;
    only train is taken."""
    save_voc(data, tmp_path / 'voc')
    shout = ('background', *(n.upper() for n in data.vocab[1:]))
    free = [r.file_name for r in data.train if not len(r.labels)]
    assert free
    found = pictures_without(tmp_path / 'voc', shout)
    assert [r.file_name for r in found] == free
    mixed = add_pictures(data, found)
    assert len(mixed.train) == len(data.train) + len(free)
    assert mixed.valid == data.valid
    assert len({r.image_id for rs in mixed.splits.values() for r in rs}) == sum(
        map(len, mixed.splits.values())
    )
    assert 'nothing to find' in mixed.notes[-1]
    assert not data.notes
