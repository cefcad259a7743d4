"CSV, LabelMe and CVAT as people have them; what is not read has a name and a way out"

import csv, io, json, re
import numpy as np
import pytest
from PIL import Image
from ssd_tutorial.cvat import cvat_entries, turned_box
from ssd_tutorial.labelme import labelme_entry, outline_box
from ssd_tutorial.tables import csv_entries, csv_layout, find_columns, row_boxes
from ssd_tutorial.unread import unread_format
from ssd_tutorial.faults import DataError
from ssd_tutorial.inventory import take_inventory
from ssd_tutorial.readers import load_dataset

W, H = 60, 40
CAT, DOG = [5, 6, 25, 30], [30, 8, 55, 38]
OBJECTS = [('cat', CAT), ('dog', DOG)]


def picture(path, seed=0, size=(W, H)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    ).save(path)


def write(path, text, encoding='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def corners(name, box):
    return [name, *box]


def folder(
    root,
    rows,
    header,
    where='',
    csv_name='labels.csv',
    n=5,
    suffix='.jpg',
    head=True,
    delimiter=',',
):
    "n pictures, and a table in which `rows(i)` gives the lines of picture i"
    for i in range(n):
        picture(root / where / f'p{i}{suffix}', i)
    out = io.StringIO()
    w = csv.writer(out, delimiter=delimiter, lineterminator='\n')
    if head:
        w.writerow(header.split(','))
    for i in range(n):
        w.writerows(rows(i))
    write(root / csv_name, out.getvalue())
    return root


def everything(data):
    return [r for rs in data.splits.values() for r in rs]


def check(data, vocab=('background', 'cat', 'dog'), boxes=(CAT, DOG), n=5):
    records = everything(data)
    assert data.vocab == vocab
    assert len(records) == n
    for r in records:
        assert np.allclose(r.boxes_px, boxes, atol=0.02), r.boxes_px
        if len(vocab) > 2:
            assert [vocab[l] for l in r.labels] == ['cat', 'dog']
    return data


# ---------------------------------------------------------------- CSV: one table in many dresses
WAYS = {
    'tensorflow': (
        'filename,width,height,class,xmin,ymin,xmax,ymax',
        lambda i: [[f'p{i}.jpg', W, H, n, *b] for n, b in OBJECTS],
    ),
    'case and spaces': (
        'File Name,X Min,Y_MIN,x-max,Ymax,Label',
        lambda i: [[f'p{i}.jpg', *b, n] for n, b in OBJECTS],
    ),
    'open order': (
        'ImageID,LabelName,XMin,XMax,YMin,YMax',
        lambda i: [[f'p{i}', n, b[0] / W, b[2] / W, b[1] / H, b[3] / H] for n, b in OBJECTS],
    ),
    'corner and size': (
        'image_name,bbox_x,bbox_y,bbox_width,bbox_height,image_width,image_height,label_name',
        lambda i: [[f'p{i}.jpg', *b[:2], b[2] - b[0], b[3] - b[1], W, H, n] for n, b in OBJECTS],
    ),
    'left top width height': (
        'image,left,top,width,height,label',
        lambda i: [[f'p{i}.jpg', *b[:2], b[2] - b[0], b[3] - b[1], n] for n, b in OBJECTS],
    ),
    'x y w h and the picture': (
        'img,x,y,w,h,width,height,class',
        lambda i: [[f'p{i}.jpg', *b[:2], b[2] - b[0], b[3] - b[1], W, H, n] for n, b in OBJECTS],
    ),
    'centre': (
        'image,x_center,y_center,w,h,class',
        lambda i: [
            [f'p{i}.jpg', (b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1], n]
            for n, b in OBJECTS
        ],
    ),
    'a list in a cell': (
        'image_id,width,height,bbox,class',
        lambda i: [
            [f'p{i}', W, H, f'[{b[0]}.0, {b[1]}.0, {b[2] - b[0]}.0, {b[3] - b[1]}.0]', n]
            for n, b in OBJECTS
        ],
    ),
    'name before id': (
        'image_id,class_id,class_name,x_min,y_min,x_max,y_max',
        lambda i: [[f'p{i}', 7, n, *b] for n, b in OBJECTS],
    ),
    'traffic signs': (
        'Filename,Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,Class',
        lambda i: [[f'p{i}.jpg', W, H, *b, n] for n, b in OBJECTS],
    ),
    'start and end': (
        'image_path,startX,startY,endX,endY,label',
        lambda i: [[f'p{i}.jpg', *b, n] for n, b in OBJECTS],
    ),
    'paths of elsewhere': (
        'path,xmin,ymin,xmax,ymax,class',
        lambda i: [[rf'C:\work\imgs\p{i}.jpg', *b, n] for n, b in OBJECTS],
    ),
}


@pytest.mark.parametrize('way', WAYS)
def test_csv_columns(tmp_path, way):
    header, rows = WAYS[way]
    check(load_dataset(folder(tmp_path / 'set', rows, header)))


@pytest.mark.parametrize(
    'where,name',
    [
        ('images', 'labels.csv'),
        ('', 'my annotations.CSV'),
        ('imgs/day1', 'meta/boxes.csv'),
        ('JPEGImages', 'annotations/all.csv'),
    ],
)
def test_csv_anywhere(tmp_path, where, name):
    header, rows = WAYS['tensorflow']
    check(load_dataset(folder(tmp_path / 'set', rows, header, where, name)))


@pytest.mark.parametrize('delimiter', [';', '\t', '|'])
def test_csv_delimiters_and_decimal_commas(tmp_path, delimiter):
    comma = lambda v: f'{v},0' if not isinstance(v, str) else v
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', *map(comma, b), n] for n, b in OBJECTS],
        'image,xmin,ymin,xmax,ymax,class',
        delimiter=delimiter,
    )
    check(load_dataset(root))


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_csv_encodings_and_line_ends(tmp_path, encoding):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    write(root / 'labels.csv', (root / 'labels.csv').read_text().replace('\n', '\r\n'), encoding)
    check(load_dataset(root))


def in_code(root, names, encoding, delimiter=','):
    "A set of three pictures whose two classes have these names, in some encoding"
    folder(
        root,
        lambda i: [[f'p{i}.jpg', W, H, n, *b] for n, b in zip(names, (CAT, DOG))],
        WAYS['tensorflow'][0],
        n=3,
        delimiter=delimiter,
    )
    write(root / 'labels.csv', (root / 'labels.csv').read_text(), encoding)
    return root


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize(
    'encoding,names,said',
    [
        ('cp1252', ('Kätzchen', 'Füße'), 'cp1252'),
        ('cp1252', ('châtaigne', 'niño'), 'cp1252'),
        ('latin-1', ('Größe', 'café'), 'cp1252'),
        ('gbk', ('小猫', '狗'), 'gb2312'),
        ('gb18030', ('汽车', '行人（一）'), 'gb2312'),
        ('utf-16', ('Kätzchen', '狗'), ''),
        ('utf-8', ('Kätzchen', '狗'), ''),
        ('utf-8-sig', ('кошка', '狗'), ''),
    ],
)
def test_csv_in_other_encodings(tmp_path, encoding, names, said, delimiter):
    data = load_dataset(in_code(tmp_path / 'set', names, encoding, delimiter))
    notes = ' '.join(data.notes)
    assert {*data.vocab[1:]} == {*names}
    assert all([data.vocab[l] for l in r.labels] == [*names] for r in everything(data))
    assert (f'labels.csv: not UTF-8, read as {said}' in notes) if said else 'UTF-8' not in notes


@pytest.mark.parametrize(
    'encoding,names',
    [
        ('cp1251', ('кошка', 'собака')),
        ('cp1251', ('слон', 'Слон')),
        ('shift_jis', ('猫', '犬')),
        ('cp1250', ('żółw', 'kočka')),
        ('cp437', ('Kätzchen', 'Füße')),
    ],
)
def test_csv_in_an_encoding_that_cannot_be_told(tmp_path, encoding, names):
    root = in_code(tmp_path / 'set', names, encoding)
    for policy in ('raise', 'fix', 'skip'):
        with pytest.raises(
            DataError, match=r'labels.csv: line 2 is not UTF-8.*Save the file as UTF-8'
        ):
            load_dataset(root, policy)


def test_csv_with_spaces_and_quotes(tmp_path):
    root = folder(tmp_path / 'set', lambda i: [], 'x', n=3)
    rows = [
        f'p{i}.jpg, {b[0]}, {b[1]}, {b[2]}, {b[3]}, "{n}"' for i in range(3) for n, b in OBJECTS
    ]
    write(
        root / 'labels.csv', '\n'.join(['"image", "xmin", "ymin", "xmax", "ymax", "class"', *rows])
    )
    check(load_dataset(root), n=3)
    rows = [
        f'"p{i}.jpg";"{b[0]}";"{b[1]}";"{b[2]}";"{b[3]}";"a ""big""; {n}"'
        for i in range(3)
        for n, b in OBJECTS
    ]
    write(root / 'labels.csv', '\n'.join(['image;xmin;ymin;xmax;ymax;class', *rows]))
    assert load_dataset(root).vocab[1:] == ('a "big"; cat', 'a "big"; dog')


@pytest.mark.parametrize('line', ['p0.jpg,5,5,6,0,25,0,30,5,cat', 'p0.jpg,5,5,6,25,30,cat'])
def test_decimal_commas_that_tear_a_line_apart(tmp_path, line):
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', *CAT, 'cat']],
        'image,xmin,ymin,xmax,ymax,class',
        n=3,
    )
    write(root / 'labels.csv', (root / 'labels.csv').read_text() + line + '\n')
    with pytest.raises(
        DataError, match='line 5 has more fields than the first line.*decimal commas'
    ):
        load_dataset(root)
    data = load_dataset(root, 'fix')
    assert data.counts['objects'] == 1
    assert data.vocab == ('background', 'cat')
    # a remark behind is none
    write(
        root / 'labels.csv',
        'image,xmin,ymin,xmax,ymax,class\n'
        + ''.join(f'p{i}.jpg,5,6,25,30,cat,"of 3",7\n' for i in range(3)),
    )
    check(load_dataset(root), ('background', 'cat'), (CAT,), 3)


@pytest.mark.parametrize('start', ['sep=;\n', '\ufeffsep=;\r\n'])
def test_a_line_for_the_delimiter_behind_a_mark(tmp_path, start):
    root = folder(tmp_path / 'set', WAYS['tensorflow'][1], WAYS['tensorflow'][0], delimiter=';')
    write(root / 'labels.csv', start + (root / 'labels.csv').read_text())
    check(load_dataset(root))


def test_csv_of_excel_with_a_line_for_the_delimiter(tmp_path):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header, delimiter=';')
    write(root / 'labels.csv', 'sep=;\n' + (root / 'labels.csv').read_text())
    check(load_dataset(root))


def test_retinanet_without_header(tmp_path):
    """path,x1,y1,x2,y2,class; nothing behind the path: a picture without objects;
    classes in class_list.csv."""
    root = folder(
        tmp_path / 'set',
        lambda i: (
            [[f'pics/p{i}.jpg', *b, n] for n, b in OBJECTS]
            if i
            else [['pics/p0.jpg', '', '', '', '', '']]
        ),
        '',
        'pics',
        'annotations.csv',
        head=False,
    )
    write(root / 'classes.csv', 'cat,0\ndog,1\n')
    data = load_dataset(root)
    records = {r.file_name: r for r in everything(data)}
    assert len(records) == 5
    assert data.vocab == ('background', 'cat', 'dog')
    assert sorted(len(r.labels) for r in records.values()) == [0, 2, 2, 2, 2]


def test_make_sense_without_header(tmp_path):
    rows = lambda i: [[n, *b[:2], b[2] - b[0], b[3] - b[1], f'p{i}.jpg', W, H] for n, b in OBJECTS]
    check(
        load_dataset(
            folder(tmp_path / 'set', rows, '', csv_name='labels_my-project_2024.csv', head=False)
        )
    )


def test_automl_without_header(tmp_path):
    rows = lambda i: [
        [
            'TEST' if i == 4 else 'TRAIN',
            f'gs://bucket/p{i}.jpg',
            n,
            b[0] / W,
            b[1] / H,
            '',
            '',
            b[2] / W,
            b[3] / H,
            '',
            '',
        ]
        for n, b in OBJECTS
    ]
    data = check(load_dataset(folder(tmp_path / 'set', rows, '', head=False)))
    assert len(data.splits['test']) == 1
    assert len(data.train) + len(data.valid) == 4


def test_roboflow_csv_in_each_split(tmp_path):
    "07: SPLIT/_annotations.csv beside the pictures"
    header, rows = WAYS['tensorflow']
    for s, n in dict(train=6, valid=2, test=3).items():
        folder(tmp_path / 'set' / s, rows, header, csv_name='_annotations.csv', n=n)
    data = check(load_dataset(tmp_path / 'set'), n=11)
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=6, val=2, test=3)


def test_kaggle_csv_beside_a_folder(tmp_path):
    "33: train.csv, whose image_id has no suffix, and train/; no class: one class"
    rows = lambda i: [
        [f'p{i}', W, H, f'[{b[0]}.0, {b[1]}.0, {b[2] - b[0]}.0, {b[3] - b[1]}.0]', 'usask']
        for n, b in OBJECTS
    ]
    root = folder(
        tmp_path / 'set', rows, 'image_id,width,height,bbox,source', 'train', 'train.csv', 8
    )
    picture(root / 'test' / 'unknown.jpg')
    write(root / 'sample_submission.csv', 'image_id,PredictionString\nunknown,1.0 0 0 50 50\n')
    data = check(load_dataset(root), ('background', 'object'), n=8)
    assert {*data.splits} == {'train', 'val'}


def test_bananas(tmp_path):
    "96: bananas_train/label.csv and bananas_train/images; the class is a number"
    for s, n in dict(bananas_train=6, bananas_val=2).items():
        folder(
            tmp_path / 'set' / s,
            lambda i: [[f'p{i}.png', 0, *CAT]],
            'img_name,label,xmin,ymin,xmax,ymax',
            'images',
            'label.csv',
            n,
            '.png',
        )
    data = check(load_dataset(tmp_path / 'set'), ('background', 'class 0'), [CAT], 8)
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=6, val=2)


@pytest.mark.parametrize(
    'lists',
    [
        {'classes.txt': 'cat\ndog\n'},
        {'meta/labels.txt': 'cat\ndog'},
        {'class_list.csv': 'id,name\n0,cat\n1,dog\n'},
        {'_darknet.labels': 'cat\ndog\n'},
    ],
)
def test_numbers_get_names_from_a_list(tmp_path, lists):
    rows = lambda i: [[f'p{i}.jpg', *b, k] for k, (n, b) in enumerate(OBJECTS)]
    root = folder(tmp_path / 'set', rows, 'image,xmin,ymin,xmax,ymax,class')
    assert load_dataset(root).vocab == ('background', 'class 0', 'class 1')
    for name, text in lists.items():
        write(root / name, text)
    data = check(load_dataset(root))
    assert tuple(data.category_ids)[1:] == (0, 1)


def test_a_number_that_the_list_lacks(tmp_path):
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', *b, k + 1] for k, (n, b) in enumerate(OBJECTS)],
        'image,xmin,ymin,xmax,ymax,class',
    )
    write(root / 'classes.txt', 'cat\ndog\n')
    for on_error in ('raise', 'fix', 'skip'):
        with pytest.raises(DataError, match='run from 1 to 2.*count from 1'):
            load_dataset(root, on_error)
    write(root / 'classes.txt', 'cat\ndog\nbird\n')
    assert len(everything(load_dataset(root))) == 5
    write(root / 'classes.csv', 'id,name\n1,cat\n')
    (root / 'classes.txt').unlink()
    with pytest.raises(DataError, match=r'object 1 \(class 2\) is none of the 1 classes'):
        load_dataset(root)
    data = load_dataset(root, 'fix')
    assert data.counts['objects'] == 5
    assert data.vocab == ('background', 'cat')


def test_numbers_are_in_order_of_numbers(tmp_path):
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', *CAT, (2, 10, 9, 2, 10)[i]]],
        'image,xmin,ymin,xmax,ymax,class',
    )
    assert load_dataset(root).vocab == ('background', 'class 2', 'class 9', 'class 10')


def test_open_images(tmp_path):
    "Fractions of the picture, codes of classes, groups as crowd"
    head = (
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,'
        'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside'
    )
    code = dict(cat='/m/01yrx', dog='/m/0bt9lr')
    rows = lambda i: [
        [
            f'p{i}',
            'xclick',
            code[n],
            1,
            b[0] / W,
            b[2] / W,
            b[1] / H,
            b[3] / H,
            0,
            0,
            int(n == 'dog'),
            0,
            0,
        ]
        for n, b in OBJECTS
    ]
    root = folder(tmp_path / 'set', rows, head, 'train', 'train-annotations-bbox.csv')
    write(root / 'class-descriptions-boxable.csv', '/m/01yrx,cat\n/m/0bt9lr,dog\n')
    data = check(load_dataset(root))
    assert all(r.crowd.tolist() == [False, True] for r in everything(data))


def test_fractions_are_of_the_picture_that_is_seen(tmp_path):
    "The picture's own size, not what the table says of it"
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', 0.25, 0.25, 0.5, 0.75, 'cat']],
        'image,xmin,ymin,xmax,ymax,class',
    )
    for i in range(5):
        picture(root / f'p{i}.jpg', i, (200, 100))
    check(load_dataset(root), ('background', 'cat'), [[50, 25, 100, 75]])


def test_split_of_a_column(tmp_path):
    word = lambda i: ['train', 'Validation', 'TEST', 'train', 'train'][i]
    data = load_dataset(
        folder(
            tmp_path / 'a',
            lambda i: [[f'p{i}.jpg', *b, n, word(i)] for n, b in OBJECTS],
            'image,xmin,ymin,xmax,ymax,class,split',
        )
    )
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=3, val=1, test=1)
    data = load_dataset(
        folder(
            tmp_path / 'b',
            lambda i: [[f'p{i}.jpg', *b, n, i == 1] for n, b in OBJECTS],
            'image,xmin,ymin,xmax,ymax,class,is_valid',
        )
    )
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=4, val=1)


def test_split_of_the_pictures_folder(tmp_path):
    root = tmp_path / 'set'
    lines = ['image,xmin,ymin,xmax,ymax,class']
    for s, n in dict(train=4, test=2).items():
        for i in range(n):
            picture(root / s / f'{s}{i}.jpg', i)
            lines += [','.join(map(str, (f'{s}{i}.jpg', *CAT, 'cat')))]
    write(root / 'labels.csv', '\n'.join(lines))
    data = load_dataset(root)
    assert len(data.splits['test']) == 2
    assert len(data.train) + len(data.valid) == 4


def test_a_table_of_the_whole_beside_those_of_the_splits(tmp_path):
    "raccoon_labels.csv holds once more what train_labels.csv and test_labels.csv hold"
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header, 'images', 'data/raccoon_labels.csv', 6)
    lines = (root / 'data/raccoon_labels.csv').read_text().splitlines()
    write(root / 'data/train_labels.csv', '\n'.join(lines[:9]))
    write(root / 'data/test_labels.csv', '\n'.join([lines[0], *lines[9:]]))
    data = load_dataset(root)
    assert sum(map(len, data.splits.values())) == 6
    assert len(data.splits['test']) == 2
    assert any('raccoon_labels.csv' in n for n in data.notes)


def test_csv_that_was_made_of_xml_is_not_read_twice(tmp_path):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    for i in range(5):
        objects = ''.join(
            f'<object><name>{n}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin>'
            f'<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>'
            for n, b in OBJECTS
        )
        write(
            root / f'p{i}.xml', f'<annotation><filename>p{i}.jpg</filename>{objects}</annotation>'
        )
    data = check(load_dataset(root))
    assert any('labels.csv: left unread' in n for n in data.notes), data.notes


def test_several_boxes_in_a_cell_and_none(tmp_path):
    rows = lambda i: [
        [f'p{i}', ';'.join(' '.join(map(str, b)) for b in (CAT, DOG)) if i else 'no_box', 'wheat']
    ]
    data = load_dataset(folder(tmp_path / 'set', rows, 'image_name,BoxesString,domain'))
    assert sorted(len(r.labels) for r in everything(data)) == [0, 2, 2, 2, 2]


# ---------------------------------------------------------------- CSV: damage
@pytest.mark.parametrize(
    'line,words',
    [
        ('p1.jpg,60,40,cat,5,six,25,30', r"line 4: 'cat' has no four numbers.*six"),
        ('p1.jpg,60,40,cat,5,6,25', r"line 4: 'cat' has no four numbers"),
        ('p1.jpg,60,40,,5,6,25,30', 'line 4 names no class'),
        (',60,40,cat,5,6,25,30', 'line 4 names no picture'),
    ],
)
def test_csv_damage(tmp_path, line, words):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    lines = (root / 'labels.csv').read_text().splitlines()
    write(root / 'labels.csv', '\n'.join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(DataError, match=words) as e:
        load_dataset(root)
    assert 'labels.csv' in str(e.value)
    assert '\n' not in str(e.value)
    fixed = load_dataset(root, 'fix')
    lost = 0 if line.startswith(',') else 1
    assert len(everything(fixed)) == 5
    assert (fixed.counts['objects'], fixed.counts['images']) == (lost, 1 - lost)
    skipped = load_dataset(root, 'skip')
    assert len(everything(skipped)) == 5 - lost
    assert skipped.counts['images'] == 1


def test_a_quotation_mark_that_is_not_closed(tmp_path):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    write(root / 'labels.csv', (root / 'labels.csv').read_text().replace('p3.jpg', '"p3.jpg', 1))
    with pytest.raises(DataError, match='quotation mark is open') as e:
        load_dataset(root)
    assert '\n' not in str(e.value)


def test_csv_box_outside(tmp_path):
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', 5, 6, 25 + 60 * (i == 2), 30, 'cat']],
        'image,xmin,ymin,xmax,ymax,class',
    )
    with pytest.raises(DataError, match=r'p2.jpg: object 0 \(cat\) lies partly outside'):
        load_dataset(root)
    assert load_dataset(root, 'fix').counts['mended'] == 1


def test_quoted_decimal_commas_have_two_readings(tmp_path):
    root = folder(
        tmp_path / 'set',
        lambda i: [[f'p{i}.jpg', '5,5', 6, 25, 30, 'cat']],
        'image,xmin,ymin,xmax,ymax,class',
    )
    with pytest.raises(DataError, match='decimal commas'):
        load_dataset(root)
    data = load_dataset(root, 'fix')
    assert everything(data)[0].boxes_px[0, 0] == 5.5
    assert data.counts['mended'] == 5


def test_csv_picture_missing(tmp_path):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    (root / 'p3.jpg').unlink()
    with pytest.raises(DataError, match='p3.jpg: no such image'):
        load_dataset(root)
    assert len(everything(load_dataset(root, 'skip'))) == 4


@pytest.mark.parametrize(
    'text',
    ['', '\n\n', 'a,b\n1,2\n', 'date;price\n1;2\n', '\x00\x01\x02', 'image,label\na.jpg,cat\n'],
)
def test_other_tables_are_no_boxes(tmp_path, text):
    write(tmp_path / 'set' / 'x.csv', text)
    picture(tmp_path / 'set' / 'a.jpg')
    with pytest.raises(DataError, match='not a data set|no annotation|know'):
        load_dataset(tmp_path / 'set')


def test_an_empty_table_of_boxes(tmp_path):
    write(tmp_path / 'x.csv', 'image,xmin,ymin,xmax,ymax,class\n')
    assert csv_entries(tmp_path / 'x.csv') == []


def test_tables_that_are_none(tmp_path):
    for text in ('', 'a,b\n', '\0,\0\n'):
        write(tmp_path / 'x.csv', text)
        with pytest.raises(DataError, match='x.csv'):
            csv_entries(tmp_path / 'x.csv')
    (tmp_path / 'y.csv').write_bytes(
        'filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3,4,кошка\n'.encode('cp1251')
    )
    with pytest.raises(
        DataError,
        match='y.csv: line 2 is not UTF-8, and its encoding cannot be told. Save the file as UTF-8',
    ):
        csv_entries(tmp_path / 'y.csv')
    write(
        tmp_path / 'z.csv',
        'filename,xmin,ymin,xmax,ymax,class\n' + '"' + 'a' * 200_000 + '",1,2,3,4,cat\n',
    )
    with pytest.raises(DataError, match='z.csv: not readable as a table'):
        csv_entries(tmp_path / 'z.csv')


def test_columns():
    assert find_columns(['image', 'xmin', 'ymin', 'xmax']) == {}
    assert find_columns(['xmin', 'ymin', 'xmax', 'ymax']) == {}
    assert csv_layout('a.jpg,1,2,3,4,5,6') is None
    assert csv_layout('notes, and more') is None
    assert row_boxes(dict(box='(1, 2, 3, 4)')) == [[1, 2, 4, 6]]
    with pytest.raises(ValueError):
        row_boxes(dict(box='[1, 2, 3]'))


@pytest.mark.parametrize('kind', ['csv', 'labelme', 'cvat'])
def test_only_the_split_that_is_asked_for(tmp_path, kind):
    "Damage in train does not hinder a look at val"
    root = tmp_path / 'set'
    for s, n in dict(train=3, val=2).items():
        for i in range(n):
            picture(root / s / f'{s}{i}.jpg', i)
            if kind == 'labelme':
                labelme(
                    root / s / f'{s}{i}.json', f'{s}{i}.jpg', ['bad'] if s == 'train' else SHAPES
                )
        if kind == 'csv':
            write(
                root / f'{s}.csv',
                'image,xmin,ymin,xmax,ymax,class\n'
                + ''.join(
                    f'{s}{i}.jpg,{"x" if s == "train" else 5},6,25,30,cat\n'
                    f'{s}{i}.jpg,30,8,55,38,dog\n'
                    for i in range(n)
                ),
            )
    if kind == 'cvat':
        cvat(
            root / 'annotations.xml',
            [
                (f'{s}{i}.jpg', s, '<box label="cat"/>' if s == 'train' else SHAPES_XML)
                for s, n in dict(train=3, val=2).items()
                for i in range(n)
            ],
        )
    with pytest.raises(DataError):
        load_dataset(root)
    data = load_dataset(root, only='val')
    assert [*data.splits] == ['val']
    assert len(data.valid) == 2
    assert np.allclose(data.valid[0].boxes_px, [CAT, DOG])


@pytest.mark.parametrize('kind', ['csv', 'labelme'])
def test_pictures_without_annotation(tmp_path, kind):
    "Noted and left out, or, where that is asked, pictures without objects"
    root = tmp_path / 'set'
    header, rows = WAYS['tensorflow']
    folder(root, rows, header)
    if kind == 'labelme':
        (root / 'labels.csv').unlink()
        for i in range(5):
            labelme(root / f'p{i}.json', f'p{i}.jpg')
    picture(root / 'empty.jpg', 77)
    data = load_dataset(root)
    assert len(everything(data)) == 5
    assert any('empty.jpg' in n for n in data.notes)
    data = load_dataset(root, unlabelled='negative')
    assert sorted(len(r.labels) for r in everything(data)) == [0, 2, 2, 2, 2, 2]


# ---------------------------------------------------------------- LabelMe
def shape(label, points, kind='rectangle', **more):
    return dict(label=label, points=points, group_id=None, shape_type=kind, flags={}, **more)


SHAPES = [shape('cat', [CAT[:2], CAT[2:]]), shape('dog', [[30, 8], [55, 20], [40, 38]], 'polygon')]


def labelme(path, image, shapes=SHAPES, **more):
    d = dict(
        version='5.4.1',
        flags={},
        shapes=shapes,
        imagePath=image,
        imageData=None,
        imageHeight=H,
        imageWidth=W,
    )
    write(path, json.dumps({**d, **more}))


@pytest.mark.parametrize('image', ['p{}.jpg', '..\\photos\\p{}.jpg', '/home/me/p{}.jpg'])
def test_labelme_beside_pictures(tmp_path, image):
    "43"
    for i in range(5):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', image.format(i))
    check(load_dataset(tmp_path / 'set'))


def test_labelme_in_folders_of_splits(tmp_path):
    for s, n in dict(train=4, val=2).items():
        for i in range(n):
            picture(tmp_path / 'set' / 'images' / s / f'p{i}.jpg', i)
            labelme(tmp_path / 'set' / 'labels' / s / f'p{i}.json', f'../../images/{s}/p{i}.jpg')
    data = check(load_dataset(tmp_path / 'set'), n=6)
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=4, val=2)
    assert all('train' in str(r.image.parent.name) for r in data.train)


def test_labelme_renamed_together(tmp_path):
    for i in range(3):
        picture(tmp_path / 'set' / f'new{i}.png', i)
        labelme(tmp_path / 'set' / f'new{i}.json', f'IMG_{i}.jpg')
    check(load_dataset(tmp_path / 'set'), n=3)


def test_labelme_picture_only_inside(tmp_path):
    for i in range(3):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg')
    labelme(tmp_path / 'set' / 'lost.json', 'lost.jpg', imageData='aGVsbG8=')
    with pytest.raises(DataError, match='lost.json.*imageData.*labelmetk extract-image lost.json'):
        load_dataset(tmp_path / 'set')
    data = check(load_dataset(tmp_path / 'set', 'skip'), n=3)
    assert data.counts['images'] == 1


def test_labelme_data_first(tmp_path):
    "The picture may stand before everything else, kilobytes of it"
    for i in range(3):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        write(
            tmp_path / 'set' / f'p{i}.json',
            json.dumps(
                dict(
                    imageData='A' * 9000,
                    imageHeight=H,
                    imagePath=f'p{i}.jpg',
                    imageWidth=W,
                    shapes=SHAPES,
                )
            ),
        )
    check(load_dataset(tmp_path / 'set'), n=3)


@pytest.mark.parametrize(
    'kind,points,box',
    [
        ('rectangle', [[25, 30], [5, 6]], CAT),
        ('polygon', [[5, 6], [25, 10], [9, 30]], CAT),
        ('linestrip', [[5, 6], [25, 30]], CAT),
        ('line', [[5, 30], [25, 6]], CAT),
        ('circle', [[20, 20], [20, 26]], [14, 14, 26, 26]),
        ('points', [[5, 6], [25, 30]], CAT),
        (None, [[5, 6], [25, 30], [7, 7]], CAT),
        ('rotation', [[5, 10], [10, 6], [25, 20], [20, 30]], CAT),
        ('mask', [[5, 6], [25, 30]], CAT),
    ],
)
def test_labelme_shapes(tmp_path, kind, points, box):
    labelme(tmp_path / 'a.json', 'a.jpg', [shape('cat', points, kind)])
    e = labelme_entry(tmp_path / 'a.json')
    assert np.allclose(e.objects[0]['box_px'], box)
    assert e.declared_hw == (H, W)


def test_labelme_groups(tmp_path):
    parts = [
        {**shape('cat', [[0, 0], [5, 5]]), 'group_id': 3},
        {**shape('cat', [[20, 1], [30, 9]]), 'group_id': 3},
        {**shape('dog', [[1, 1], [2, 2]]), 'group_id': 3},
    ]
    labelme(tmp_path / 'a.json', 'a.jpg', parts)
    assert [(o['name'], o['box_px']) for o in labelme_entry(tmp_path / 'a.json').objects] == [
        ('cat', [0, 0, 30, 9]),
        ('dog', [1, 1, 2, 2]),
    ]


@pytest.mark.parametrize('name', ['classes.txt', 'labels.txt', 'predefined_classes.txt'])
def test_a_list_of_classes_beside_labelme(tmp_path, name):
    for i in range(5):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg')
    write(tmp_path / 'set' / name, '__ignore__\n_background_\ncat\ndog\n')
    check(load_dataset(tmp_path / 'set'))


def test_labelme_shapes_that_are_too_large(tmp_path):
    labelme(tmp_path / 'a.json', 'a.jpg', [shape('cat', [[10**400, 1], [2, 3]])])
    assert 'shape 0' in str(labelme_entry(tmp_path / 'a.json').error)


def test_a_point_has_no_box(tmp_path):
    for i in range(3):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(
            tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg', [*SHAPES, shape('cat', [[9, 9]], 'point')]
        )
    with pytest.raises(DataError, match=r'object 2 \(cat\) has no area'):
        load_dataset(tmp_path / 'set')
    check(load_dataset(tmp_path / 'set', 'fix'), n=3)


@pytest.mark.parametrize(
    'bad,words',
    [
        (shape('', [[1, 2], [3, 4]]), 'no label'),
        (shape('cat', []), 'no points'),
        (shape('cat', [[1, 'x']]), 'no numbers'),
        (shape('cat', None), 'has'),
        ('what', 'no label'),
        (shape('cat', [[1, 2, 3]]), 'has'),
        (shape(5, [[1, 2], [3, 4]]), 'no label'),
    ],
)
def test_labelme_damage(tmp_path, bad, words):
    for i in range(4):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg', [*SHAPES, bad] if i == 1 else SHAPES)
    with pytest.raises(DataError, match=f'p1.json: shape 2.*{words}'):
        load_dataset(tmp_path / 'set')
    fixed = check(load_dataset(tmp_path / 'set', 'fix'), n=4)
    assert fixed.counts['objects'] == 1
    assert len(everything(load_dataset(tmp_path / 'set', 'skip'))) == 3


def test_labelme_cut_off(tmp_path):
    for i in range(4):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg')
    p = tmp_path / 'set' / 'p1.json'
    p.write_text(p.read_text()[:150])
    with pytest.raises(DataError, match='p1.json: not readable JSON'):
        load_dataset(tmp_path / 'set')
    check(load_dataset(tmp_path / 'set', 'skip'), n=3)


# ---------------------------------------------------------------- CVAT for images
def box(label, b, **more):
    given = ' '.join(f'{k}="{v}"' for k, v in more.items())
    corners = f'xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"'
    return f'<box label="{label}" occluded="0" {corners} z_order="0" {given}></box>'


SHAPES_XML = (
    box('cat', CAT) + '<polygon label="dog" points="30.00,8.00;55.00,20.00;40.00,38.00"></polygon>'
)


def cvat(path, images, labels=(), head='<?xml version="1.0" encoding="utf-8"?>\n'):
    "images: (name, subset, shapes)"
    inside = ''.join(
        f'<image id="{i}" name="{n}"'
        + (f' subset="{s}"' if s else '')
        + f' width="{W}" height="{H}">{x}</image>'
        for i, (n, s, x) in enumerate(images)
    )
    meta = ''.join(f'<label><name>{l}</name></label>' for l in labels)
    write(
        path,
        f'{head}<annotations><version>1.1</version>'
        f'<meta><job><labels>{meta}</labels></job></meta>{inside}</annotations>',
    )


def test_cvat_for_images(tmp_path):
    "18"
    for i in range(5):
        picture(tmp_path / 'set' / 'images' / f'p{i}.jpg', i)
    cvat(tmp_path / 'set' / 'annotations.xml', [(f'p{i}.jpg', None, SHAPES_XML) for i in range(5)])
    check(load_dataset(tmp_path / 'set'))


def test_cvat_subsets(tmp_path):
    every = []
    for s, n in dict(Train=3, Validation=2, Test=1).items():
        for i in range(n):
            picture(tmp_path / 'set' / 'images' / s / f'p{i}.jpg', i + n)
            every.append((f'p{i}.jpg', s, SHAPES_XML))
    cvat(tmp_path / 'set' / 'annotations.xml', every)
    data = check(load_dataset(tmp_path / 'set'), n=6)
    assert {s: len(r) for s, r in data.splits.items()} == dict(train=3, val=2, test=1)
    assert all(r.image.parent.name == 'Train' for r in data.train)


def test_cvat_default_subset_and_unused_labels(tmp_path):
    for i in range(5):
        picture(tmp_path / 'set' / 'images' / f'p{i}.jpg', i)
    cvat(
        tmp_path / 'set' / 'annotations.xml',
        [(f'p{i}.jpg', 'default', SHAPES_XML) for i in range(5)],
        ('dog', 'bird', 'cat'),
    )
    data = load_dataset(tmp_path / 'set')
    assert data.vocab == ('background', 'dog', 'bird', 'cat')
    assert {*data.splits} == {'train', 'val'}


def test_cvat_several_tasks(tmp_path):
    for t in 'ab':
        for i in range(3):
            picture(tmp_path / 'set' / t / 'images' / f'p{i}.jpg', i + ord(t))
        cvat(
            tmp_path / 'set' / t / 'annotations.xml',
            [(f'p{i}.jpg', None, SHAPES_XML) for i in range(3)],
        )
    data = check(load_dataset(tmp_path / 'set'), n=6)
    assert len({r.image for r in everything(data)}) == 6


@pytest.mark.parametrize(
    'text,want',
    [
        (box('cat', [10, 20, 50, 40], rotation='90.0'), [20, 10, 40, 50]),
        ('<polyline label="cat" points="5,6;25,30"/>', CAT),
        ('<points label="cat" points="5,6;25,30"/>', CAT),
        ('<ellipse label="cat" cx="15" cy="18" rx="10" ry="12"/>', CAT),
        ('<mask label="cat" rle="1, 2" left="5" top="6" width="20" height="24"/>', CAT),
        (
            '<cuboid label="cat" '
            + ' '.join(
                f'{a}{p}{k}="{v}"'
                for p, k, x, y in (
                    ('tl', 1, 5, 8),
                    ('bl', 1, 5, 30),
                    ('tr', 1, 20, 6),
                    ('br', 1, 20, 28),
                    ('tl', 2, 8, 7),
                    ('bl', 2, 8, 29),
                    ('tr', 2, 25, 9),
                    ('br', 2, 25, 27),
                )
                for a, v in (('x', x), ('y', y))
            )
            + '/>',
            CAT,
        ),
        (
            '<skeleton label="cat"><points label="1" outside="0" points="5,6"/>'
            '<points label="2" outside="1" points="0,0"/>'
            '<points label="3" outside="0" points="25,30"/></skeleton>',
            CAT,
        ),
    ],
)
def test_cvat_shapes(tmp_path, text, want):
    cvat(tmp_path / 'a.xml', [('a.jpg', None, text)])
    (e,), names = cvat_entries(tmp_path / 'a.xml')
    assert np.allclose(e.objects[0]['box_px'], want)
    assert names == ['cat']
    assert e.declared_hw == (H, W)


def test_attributes_of_shapes(tmp_path):
    text = (
        '<skeleton label="cat"><attribute name="age">3</attribute>'
        '<points label="1" points="5,6"/><points label="2" points="25,30"/></skeleton>'
        '<box label="dog" xtl="30" ytl="8" xbr="55" ybr="38">'
        '<attribute name="a">b</attribute></box>'
    )
    cvat(tmp_path / 'a.xml', [('a.jpg', None, text)])
    (e,), _ = cvat_entries(tmp_path / 'a.xml')
    assert e.error is None
    assert np.allclose([o['box_px'] for o in e.objects], [CAT, DOG])


def test_cvat_what_is_no_object(tmp_path):
    cvat(
        tmp_path / 'a.xml',
        [
            (
                'a.jpg',
                None,
                '<tag label="sunny"/>' + box('cat', CAT, outside=1) + box('dog', DOG, occluded2=1),
            )
        ],
    )
    (e,), _ = cvat_entries(tmp_path / 'a.xml')
    assert [o['name'] for o in e.objects] == ['dog']


@pytest.mark.parametrize(
    'bad,words',
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', 'no ybr'),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', 'no label'),
        ('<polygon label="cat" points="1,2;3"/>', 'has'),
        ('<polygon label="cat" points=""/>', 'number that is none'),
        ('<box label="cat" xtl="one" ytl="2" xbr="3" ybr="4"/>', 'number that is none'),
        ('<polygon label="cat"/>', 'no points'),
    ],
)
def test_cvat_damage(tmp_path, bad, words):
    for i in range(4):
        picture(tmp_path / 'set' / 'images' / f'p{i}.jpg', i)
    cvat(
        tmp_path / 'set' / 'annotations.xml',
        [(f'p{i}.jpg', None, SHAPES_XML + bad * (i == 1)) for i in range(4)],
    )
    with pytest.raises(DataError, match=f'annotations.xml: p1.jpg: .*{words}'):
        load_dataset(tmp_path / 'set')
    fixed = check(load_dataset(tmp_path / 'set', 'fix'), n=4)
    assert fixed.counts['objects'] == 1
    skipped = check(load_dataset(tmp_path / 'set', 'skip'), n=3)
    assert skipped.counts['images'] == 1


def test_cvat_for_video(tmp_path):
    picture(tmp_path / 'set' / 'images' / 'frame_000000.png')
    write(
        tmp_path / 'set' / 'annotations.xml',
        '<annotations><version>1.1</version><track id="0" label="cat">'
        '<box frame="0" outside="0" xtl="1" ytl="2" xbr="3" ybr="4"/></track></annotations>',
    )
    for on_error in ('raise', 'fix', 'skip'):
        with pytest.raises(DataError, match='CVAT for video.*CVAT for images 1.1'):
            load_dataset(tmp_path / 'set', on_error)


def test_cvat_with_entities_is_refused(tmp_path):
    picture(tmp_path / 'set' / 'images' / 'a.jpg')
    write(
        tmp_path / 'set' / 'annotations.xml',
        '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x "y">]>\n'
        '<annotations><image name="&x;"/></annotations>',
    )
    with pytest.raises(DataError):
        load_dataset(tmp_path / 'set')


def test_turned_boxes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y, w, h, angle = rng.uniform(1, 50, 5) * [1, 1, 1, 1, 7.2]
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        points = np.array([[w, h], [-w, h], [w, -h], [-w, -h]]) / 2 @ np.array(
            [[c, s], [-s, c]]
        ) + [x + w / 2, y + h / 2]
        assert np.allclose(turned_box([x, y, x + w, y + h], angle), outline_box(points))
        t = np.linspace(0, 2 * np.pi, 20001)
        rim = np.stack([w / 2 * np.cos(t), h / 2 * np.sin(t)], 1) @ np.array([[c, s], [-s, c]]) + [
            x + w / 2,
            y + h / 2,
        ]
        assert np.allclose(
            turned_box([x, y, x + w, y + h], angle, True), outline_box(rim), atol=1e-4
        )


# ---------------------------------------------------------------- named, with the way out
def via_csv(root):
    write(
        root / 'via.csv',
        'filename,file_size,file_attributes,region_count,region_id,'
        'region_shape_attributes,region_attributes\n'
        'a.jpg,1,{},1,0,"{""name"":""rect""}",{}\n',
    )


def dump(name, d):
    return lambda root: write(root / name, json.dumps(d))


UNREAD = {
    'VIA region data': (
        dump(
            'via_region_data.json',
            {
                'a.jpg123': dict(
                    filename='a.jpg',
                    size=123,
                    regions=[
                        dict(
                            shape_attributes=dict(name='rect', x=1, y=2, width=3, height=4),
                            region_attributes={},
                        )
                    ],
                    file_attributes={},
                )
            },
        ),
        'VIA.*COCO',
    ),
    'VIA project': (
        dump('p.json', dict(_via_settings={}, _via_img_metadata={}, _via_attributes={})),
        'VIA.*COCO',
    ),
    'VIA CSV': (via_csv, 'VIA.*COCO'),
    'Label Studio': (
        dump(
            'project-1-at-2024.json',
            [dict(id=1, annotations=[], data=dict(image='/data/upload/a.jpg'), predictions=[])],
        ),
        'Label Studio.*COCO',
    ),
    'Label Studio min': (
        dump(
            'min.json',
            [dict(image='/data/upload/a.jpg', id=1, label=[], annotator=1, lead_time=2.0)],
        ),
        'Label Studio.*COCO',
    ),
    'CreateML': (
        dump(
            '_annotations.createml.json',
            [
                dict(
                    image='a.jpg',
                    annotations=[dict(label='cat', coordinates=dict(x=1, y=2, width=3, height=4))],
                )
            ],
        ),
        'CreateML.*COCO',
    ),
    'Supervisely': (
        dump(
            'ds/ann/a.jpg.json',
            dict(description='', tags=[], size=dict(height=4, width=5), objects=[]),
        ),
        'Supervisely.*Export to COCO',
    ),
    'Datumaro': (
        dump(
            'annotations/default.json',
            dict(info={}, categories=dict(label=dict(labels=[])), items=[]),
        ),
        'Datumaro.*datum convert',
    ),
    'VoTT': (dump('x-asset.json', dict(asset={}, regions=[], version='2.1.0')), 'VoTT.*Pascal VOC'),
    'BDD100K': (
        dump(
            'det_train.json',
            [dict(name='a.jpg', labels=[dict(category='car', box2d=dict(x1=1, y1=2, x2=3, y2=4))])],
        ),
        'BDD100K.*to_coco',
    ),
    'TFRecord': (
        lambda root: (root / 'cells.tfrecord-00000-of-00002').write_bytes(b'\x10' + b'\0' * 40),
        'TFRecord.*COCO',
    ),
    'Parquet': (
        lambda root: (root / 'train-00000-of-00001.parquet').write_bytes(b'PAR1' + b'\0' * 40),
        'Parquet.*datasets',
    ),
    'KITTI': (
        lambda root: write(
            root / 'training/label_2/000000.txt',
            'Pedestrian 0.00 0 -0.20 712.40 143.00 810.73 307.92 '
            '1.89 0.48 1.20 1.84 1.47 8.41 0.01\n',
        ),
        'KITTI.*datum convert',
    ),
    'DOTA': (
        lambda root: write(
            root / 'labelTxt/P0000.txt', '1.0 2.0 30.0 2.0 30.0 40.0 1.0 40.0 plane 0\n'
        ),
        'DOTA.*ultralytics',
    ),
    'VisDrone': (
        lambda root: write(
            root / 'annotations/0.txt', '684,8,273,116,0,0,0,0\n406,119,265,70,0,0,0,0\n'
        ),
        'VisDrone.*YOLO',
    ),
    'Hugging Face': (
        lambda root: write(
            root / 'metadata.jsonl',
            '{"file_name": "a.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "category": [0]}}\n',
        ),
        'Hugging Face.*datasets',
    ),
    'SageMaker': (
        lambda root: write(
            root / 'output.manifest', '{"source-ref": "s3://x/a.jpg", "boxes": {}}\n'
        ),
        'SageMaker.*CSV',
    ),
    'masks': (lambda root: picture(root / 'masks' / 'a.png'), 'mask.*regionprops'),
}


@pytest.mark.parametrize('what', UNREAD)
def test_unread_formats_are_named(tmp_path, what):
    "44 and its kind"
    root = tmp_path / 'set'
    root.mkdir()
    make, words = UNREAD[what]
    make(root)
    picture(root / 'images' / 'a.jpg')
    said = unread_format(take_inventory(root))
    assert re.search(words, said), said
    with pytest.raises(DataError) as e:
        load_dataset(root)
    assert re.search(words, str(e.value)), str(e.value)
    assert '\n' not in str(e.value), str(e.value)


def test_what_nobody_knows(tmp_path):
    write(tmp_path / 'set' / 'notes.json', '{"a": 1}')
    write(tmp_path / 'set' / 'b.json', '[1, 2]')
    write(tmp_path / 'set' / 'c.json', '{')
    picture(tmp_path / 'set' / 'a.jpg')
    assert unread_format(take_inventory(tmp_path / 'set')) is None


def test_what_is_read_is_not_called_unread(tmp_path):
    for i in range(3):
        picture(tmp_path / 'set' / f'p{i}.jpg', i)
        labelme(tmp_path / 'set' / f'p{i}.json', f'p{i}.jpg')
    write(tmp_path / 'set' / 'classes.txt', 'cat\ndog\n')
    assert unread_format(take_inventory(tmp_path / 'set')) is None


# ---------------------------------------------------------------- a file handed over, and folds
@pytest.mark.parametrize(
    'name', ['labels.csv', 'annotations/all.csv', 'annotations/csv/all.TSV', 'Labels/boxes.csv']
)
def test_a_table_as_the_source(tmp_path, name, monkeypatch):
    header, rows = WAYS['tensorflow']
    root = folder(
        tmp_path / 'set',
        rows,
        header,
        'images',
        name,
        delimiter='\t' if name.endswith('TSV') else ',',
    )
    check(load_dataset(root / name))
    monkeypatch.chdir((root / name).parent)
    check(load_dataset((root / name).name))


def test_one_of_two_tables_as_the_source(tmp_path):
    header, rows = WAYS['tensorflow']
    root = folder(tmp_path / 'set', rows, header)
    for i in range(5):
        write(
            root / 'xml' / f'p{i}.xml',
            '<annotation><object><name>cow</name><bndbox><xmin>1</xmin><ymin>1</ymin>'
            '<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>',
        )
    check(load_dataset(root / 'labels.csv'))
    assert load_dataset(root).vocab == ('background', 'cow')


@pytest.mark.parametrize('name', ['annotations.xml', 'xml/task.xml'])
def test_cvat_as_the_source(tmp_path, name):
    for i in range(5):
        picture(tmp_path / 'set' / 'images' / f'p{i}.jpg', i)
    cvat(tmp_path / 'set' / name, [(f'p{i}.jpg', None, SHAPES_XML) for i in range(5)])
    check(load_dataset(tmp_path / 'set' / name))


def test_files_that_describe_no_set(tmp_path):
    picture(tmp_path / 'p0.jpg')
    labelme(tmp_path / 'p0.json', 'p0.jpg')
    write(tmp_path / 'x.csv', 'a,b\n1,2\n')
    write(tmp_path / 'x.xml', '<kml/>')
    write(
        tmp_path / 'via.json',
        json.dumps({'p0.jpg12': dict(filename='p0.jpg', size=12, regions=[])}),
    )
    write(tmp_path / 'via.csv', 'filename,file_size,region_shape_attributes\n')
    for name, says in {
        'p0.json': 'p0.json: the annotation of one picture. Give the folder',
        'x.csv': 'x.csv: no table of boxes',
        'x.xml': 'x.xml: no XML of CVAT',
        'via.json': "via.json: VIA's own JSON, which is not read",
        'via.csv': "via.csv: VIA's own CSV, which is not read",
    }.items():
        with pytest.raises(DataError) as e:
            load_dataset(tmp_path / name)
        assert says in str(e.value), str(e.value)


@pytest.mark.parametrize('way', ['tables', 'folders', 'pictures', 'splits'])
def test_folds_of_tables_are_not_pooled(tmp_path, way):
    header, rows = WAYS['tensorflow']
    for k in range(2):
        own = [[f'{k}{r[0]}', *r[1:]] for i in range(3) for r in rows(i)]
        where = dict(
            tables='images', folders=f'fold{k}', pictures=f'images/fold{k}', splits=f'fold{k}/train'
        )[way]
        name = dict(
            tables=f'fold{k}.csv',
            folders=f'fold{k}/labels.csv',
            pictures='labels.csv',
            splits=f'fold{k}/train/labels.csv',
        )[way]
        for i in range(3):
            picture(tmp_path / 'set' / where / f'{k}p{i}.jpg', i + 3 * k)
        old = (
            (tmp_path / 'set' / name).read_text()
            if (tmp_path / 'set' / name).is_file()
            else header + '\n'
        )
        write(tmp_path / 'set' / name, old + ''.join(','.join(map(str, r)) + '\n' for r in own))
    with pytest.raises(DataError, match="'fold0', 'fold1'.*train, val and test"):
        load_dataset(tmp_path / 'set')


def test_folds_of_cvat_are_not_pooled(tmp_path):
    for k in range(2):
        for i in range(3):
            picture(tmp_path / 'set' / f'fold{k}' / f'{k}p{i}.jpg', i + 3 * k)
        cvat(
            tmp_path / 'set' / f'fold{k}' / 'annotations.xml',
            [(f'{k}p{i}.jpg', None, SHAPES_XML) for i in range(3)],
        )
    with pytest.raises(DataError, match="'fold0', 'fold1'"):
        load_dataset(tmp_path / 'set')
