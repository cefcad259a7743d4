"""Doctor: every planted fault is found by name, a clean set passes,
the page stands alone and opens in a browser."""

import html.parser, json, re, shutil, struct, subprocess, zlib
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from ssd_tutorial.contents import double_boxes, similar_names
from ssd_tutorial.data_checks import Limits, find_twins
from ssd_tutorial.doctor import CHECKS, diagnose, label_findings, must_stop
from ssd_tutorial.looks import examine, nearest_pictures, open_small, picture_bits
from ssd_tutorial.checks import check_record
from ssd_tutorial.coco import save_coco
from ssd_tutorial.faults import DataError
from ssd_tutorial.records import DetectionData, generated_data, make_record
from ssd_tutorial.voc import save_voc
from ssd_tutorial.yolo import save_yolo

ODD = 'Ferien <script>alert(1)<b> & "Ümläut" 日本.png'  # what a file may be called


def edit(root, record, change):
    path = root / 'Annotations' / f'{Path(record.file_name).stem}.xml'
    text = path.read_text(encoding='utf-8')
    new = change(text)
    assert new != text
    path.write_text(new, encoding='utf-8')


def swap(text):
    return re.sub('xmin(.*?)xmin(.*?)xmax(.*?)xmax', r'xmax\1xmax\2xmin\3xmin', text, count=1)


def finding(diagnosis, check):
    return next(f for f in diagnosis.findings if f.title in TITLES[check])


TITLES = dict(
    files=('Files and boxes', 'Damaged files and boxes'),
    leaks=('Copies across splits', 'The same picture on both sides of the exam'),
    copies=('Copies within a split', 'The same picture twice in one split'),
    classes=('Classes', 'Rare or missing classes'),
    sizes=('Sizes of objects', 'Objects too small to see'),
    doubles=('Doubled boxes',),
    splits=('Splits', 'Few images to measure on'),
    names=('Names of classes', 'One class, several spellings'),
    anchors=('Anchors', 'Objects out of reach of the anchors'),
    objects=('Objects in an image', 'No objects at all'),
    depth=('Depth of pictures', 'Dark pictures of 16 bits'),
    images=('Sizes of images', 'Images far from square', 'Images'),
)


@pytest.fixture(scope='module')
def clean():
    return generated_data(n_train=150, n_valid=60, seed=7, size=96)


@pytest.fixture(scope='module')
def sick(tmp_path_factory):
    "A VOC folder with one fault of each kind, and the name of each offender"
    root = tmp_path_factory.mktemp('doctor') / 'sick'
    data = generated_data(n_train=60, n_valid=60, seed=5, size=128)
    t = data.train
    data.splits['val'] = [r for r in data.valid if 6 not in r.labels]  # no arrow
    twin = next(r for r in t[20:] if 6 not in r.labels)
    small = twin.load().resize((90, 90))
    data.splits['val'].append(
        replace(
            twin,
            image=np.asarray(ImageEnhance.Brightness(small).enhance(1.15)),
            image_id=900,
            boxes_px=twin.boxes_px * 90 / 128,
            file_name=ODD,
        )
    )
    dots = [dict(box_px=[10 * i, 40, 10 * i + 3, 43], label=1) for i in range(1, 10)]
    data.splits['train'] = [
        *t,
        *(
            make_record(t[30].image[:, ::-1], 901 + i, None, dots, f'dots_{i}.png')
            for i in range(4)
        ),
    ]
    wide = make_record(
        np.asarray(t[31].load().resize((400, 40)))[:, ::-1],
        950,
        None,
        [dict(box_px=[10, 5, 200, 30], label=2)],
        'panorama.png',
    )
    data.splits['train'].append(wide)
    save_voc(data, root)
    images = root / 'JPEGImages'
    (images / t[1].file_name).write_bytes((images / t[1].file_name).read_bytes()[:3000])
    (images / t[2].file_name).unlink()
    (images / t[3].file_name).write_text('<html>not found</html>')
    edit(root, t[4], swap)
    edit(root, t[5], lambda s: re.sub('<xmax>.*?<', '<xmax>nan<', s, count=1))
    edit(root, t[6], lambda s: s[:60])
    again = lambda s: s[s.index('<object>') : s.index('</object>') + 9]
    edit(
        root,
        t[7],
        lambda s: s.replace(
            '</annotation>',
            re.sub(
                '<name>.*?<', '<name>arrow<' if 'arrow' not in again(s) else '<name>disc<', again(s)
            )
            + '</annotation>',
        ),
    )
    shutil.copy(images / t[8].file_name, images / 'copy.png')
    (root / 'Annotations' / 'copy.xml').write_text(
        (root / 'Annotations' / f'{Path(t[8].file_name).stem}.xml')
        .read_text()
        .replace(t[8].file_name, 'copy.png')
    )
    with open(root / 'ImageSets' / 'Main' / 'train.txt', 'a') as f:
        f.write('copy\n')
    return root, t, twin


@pytest.fixture(scope='module')
def diagnosis(sick):
    return diagnose(sick[0], progress=False)


# ---------------------------------------------------------------- every planted fault, by name
@pytest.mark.parametrize(
    'i,words',
    [
        (1, 'not a readable image'),
        (2, 'no such image'),
        (3, 'not a readable image'),
        (4, 'corners flipped'),
        (5, 'not finite|no number'),
        (6, 'not readable XML'),
    ],
)
def test_damage_by_name(sick, diagnosis, i, words):
    f = finding(diagnosis, 'files')
    stem = Path(sick[1][i].file_name).stem
    assert f.severity == 'stop', f.names
    assert any(stem in n and re.search(words, n) for n in f.names), f.names
    assert not any(str(sick[0]) in n for n in f.names), 'names as seen from the folder'


def test_nothing_else_is_called_damaged(sick, diagnosis):
    guilty = {Path(sick[1][i].file_name).stem for i in range(1, 7)}
    for n in finding(diagnosis, 'files').names:
        assert any(g in n for g in guilty), n


def test_leak(sick, diagnosis):
    f = finding(diagnosis, 'leaks')
    assert f.severity == 'stop'
    assert len(f.names) == 1
    assert ODD in f.names[0]
    assert sick[2].file_name in f.names[0]
    assert 'nearly' in f.names[0]
    assert f in diagnosis.findings[:2]
    assert diagnosis.worst == 'stop'
    assert diagnosis.verdict.startswith('Do not train')


def test_copies_within_a_split(sick, diagnosis):
    f = finding(diagnosis, 'copies')
    assert f.severity == 'look'
    assert any(
        'copy.png' in n and sick[1][8].file_name in n and 'the same file' in n for n in f.names
    )
    assert all('copy.png' in n or n.count('dots_') == 2 for n in f.names), f.names


def test_class_missing_in_val(diagnosis):
    f = finding(diagnosis, 'classes')
    assert f.severity == 'look'
    assert any(n.startswith('arrow') and 'none in val' in n for n in f.names)


def test_tiny_objects(diagnosis):
    f = finding(diagnosis, 'sizes')
    assert f.severity == 'look'
    assert '--size 448' in f.todo
    assert sum('dots_' in n and '9 objects' in n for n in f.names) == 4


def test_doubled_box(sick, diagnosis):
    f = finding(diagnosis, 'doubles')
    assert f.severity == 'look'
    assert len(f.names) == 1
    assert sick[1][7].file_name in f.names[0]
    assert '1 of them with two different names' in f.says


def test_panorama(sick):
    d = diagnose(sick[0], limits=Limits(stretch_share=0), progress=False)
    assert any('panorama.png' in n and '400×40' in n for n in finding(d, 'images').names)


def test_text_and_json(diagnosis):
    text = str(diagnosis)
    d = json.loads(json.dumps(diagnosis.to_dict()))
    assert text.count('STOP') == 2
    assert d['worst'] == 'stop'
    assert len(d['findings']) == len(CHECKS)
    assert max(map(len, text.splitlines())) <= 110
    for f in diagnosis.findings:
        assert f.title in text
        assert f.says
        assert f.severity == 'fine' or f.todo
    assert [f['names'] for f in d['findings']] == [f.names for f in diagnosis.findings]


def test_skip_leaves_faulty_images_out(sick, diagnosis):
    d = diagnose(sick[0], on_error='skip', progress=False)
    assert len(d.checkup.of()) == len(diagnosis.checkup.of()) - 2
    assert finding(d, 'files').names == finding(diagnosis, 'files').names


# ---------------------------------------------------------------- no false alarm
def test_clean_set(clean):
    d = diagnose(clean, progress=False)
    assert d.worst == 'fine', str(d)
    assert d.verdict == 'Ready to train: nothing stands out.', str(d)
    assert all(not f.names and not f.shots for f in d.findings)


@pytest.mark.parametrize('save', [save_voc, save_coco, save_yolo])
def test_formats(clean, tmp_path, save):
    few = replace(clean, splits={k: v[:12] for k, v in clean.splits.items()})
    d = diagnose(save(few, tmp_path / 'set'), progress=False)
    assert len(d.checkup.of()) == 24
    assert finding(d, 'files').severity == 'fine'
    assert finding(d, 'leaks').severity == 'fine'


def test_no_val_split_is_held_out_as_training_would(clean, tmp_path):
    "A copy that the random split tears apart is found; the split is the one that training makes"
    from ssd_tutorial.readers import load_dataset

    root = save_voc(DetectionData(dict(train=clean.train[:40]), clean.vocab), tmp_path / 'set')
    d = diagnose(root, progress=False)
    held = load_dataset(root)
    assert [f.name for f in d.checkup.of('val')] == [r.file_name for r in held.valid]
    assert any('held out' in n for n in finding(d, 'splits').names)
    name = d.checkup.of('val')[0].name
    shutil.copy(root / 'JPEGImages' / name, root / 'JPEGImages' / d.checkup.of('train')[0].name)
    leak = finding(diagnose(root, progress=False), 'leaks')
    assert leak.severity == 'stop'
    assert name in leak.names[0]
    assert 'the same file' in leak.names[0]


def test_broken_images_of_an_unsplit_set_are_no_split(clean, tmp_path):
    root = save_yolo(DetectionData(dict(all=clean.train[:30]), clean.vocab), tmp_path / 'set')
    (root / 'images' / 'all' / clean.train[0].file_name).write_bytes(b'')
    d = diagnose(root, progress=False)
    assert d.checkup.splits == ['train', 'val']
    assert finding(d, 'files').severity == 'stop'
    assert clean.train[0].file_name in ''.join(finding(d, 'files').names)


# ---------------------------------------------------- what cannot be diagnosed, and what hardly can
def test_no_data_set(tmp_path):
    with pytest.raises(DataError, match='no such folder'):
        diagnose(tmp_path / 'nowhere')
    with pytest.raises(DataError, match='not a data set'):
        diagnose(tmp_path)
    for d in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (tmp_path / 'voc' / d).mkdir(parents=True)
    with pytest.raises(DataError, match='It holds Annotations/ .empty.'):
        diagnose(tmp_path / 'voc', progress=False)


def test_everything_broken(clean, tmp_path):
    root = save_voc(
        replace(clean, splits={k: v[:4] for k, v in clean.splits.items()}), tmp_path / 'set'
    )
    for p in (root / 'JPEGImages').iterdir():
        p.write_bytes(b'')
    d = diagnose(root, progress=False)
    assert d.worst == 'stop'
    assert len(finding(d, 'files').names) == 8
    assert d.to_html()


def test_one_image_and_no_objects():
    r = make_record(np.zeros((40, 60, 3), np.uint8), 0, None, [], 'black.png')
    d = diagnose(DetectionData(dict(train=[r]), ('background', 'a'), name='one'), progress=False)
    assert finding(d, 'objects').title == 'No objects at all'
    assert d.to_html()
    assert str(d)


def test_class_that_only_val_knows(clean):
    train = [r for r in clean.train if 3 not in r.labels]
    f = finding(
        diagnose(replace(clean, splits=dict(train=train, val=clean.valid)), progress=False),
        'classes',
    )
    assert f.severity == 'look'
    assert any(n.startswith(clean.vocab[3]) and 'cannot be learnt' in n for n in f.names)


# -------------------------------------------------------------- what training asks before it begins
def blank(records):
    return [make_record(r.image, r.image_id, None, [], r.file_name) for r in records]


def test_must_stop_lets_a_sound_set_through(clean):
    assert must_stop(clean) == []
    assert label_findings(clean) == []
    assert diagnose(clean, progress=False).stops == []


@pytest.mark.parametrize(
    'train,val,title',
    [(0, 0, 'No objects at all'), (0, 1, 'No objects in train'), (1, 0, 'No objects in val')],
)
def test_no_objects_stop_training_and_doctor_agrees(clean, train, val, title):
    splits = dict(
        train=clean.train[:20] if train else blank(clean.train[:20]),
        val=clean.valid[:20] if val else blank(clean.valid[:20]),
    )
    data = replace(clean, splits=splits)
    (stop,) = must_stop(data)
    assert stop.severity == 'stop'
    assert stop.title == title
    assert stop.todo
    assert [f.title for f in diagnose(data, progress=False).stops] == [title]


def test_crowd_regions_are_no_objects(clean):
    crowd = [replace(r, crowd=np.ones(len(r.labels), bool)) for r in clean.train]
    assert [
        f.title for f in must_stop(replace(clean, splits=dict(train=crowd, val=clean.valid)))
    ] == ['No objects in train']


def test_val_that_is_train(clean, tmp_path):
    """By file, under whatever name: the same path, a link, a copy byte for byte;
    what was saved anew is for the doctor."""
    root = save_voc(replace(clean, splits=dict(train=clean.train[:12])), tmp_path / 'set')
    from ssd_tutorial.readers import load_dataset

    data = load_dataset(root)
    assert must_stop(data) == []
    data.splits['val'] = data.train[:3]
    (stop,) = must_stop(data)
    assert len(stop.names) == 3
    assert data.train[0].file_name in stop.names[0]
    assert stop.title in [f.title for f in diagnose(data, progress=False).stops]
    link = tmp_path / 'other.png'
    link.symlink_to(data.train[0].image)
    data.splits['val'] = [replace(data.train[0], image=link, file_name='other.png')]
    assert 'other.png' in must_stop(data)[0].names[0]
    shutil.copy(data.train[0].image, tmp_path / 'copy.png')
    data.splits['val'] = [replace(data.train[0], image=tmp_path / 'copy.png')]
    (stop,) = must_stop(data)
    assert stop.names == [f'{data.train[0].file_name} (val)']
    assert 'byte for byte' in stop.says
    assert [f.title for f in diagnose(data, progress=False).stops] == [stop.title]
    Image.open(data.train[0].image).convert('L').save(tmp_path / 'again.png')
    data.splits['val'] = [replace(data.train[0], image=tmp_path / 'again.png')]
    # saved anew: this takes pixels
    assert must_stop(data) == []
    assert diagnose(data, progress=False).stops


def test_only_files_of_one_size_are_read(clean, tmp_path, monkeypatch):
    import ssd_tutorial.doctor as D

    for n, size in dict(a=10, b=20, c=20, d=30).items():
        (tmp_path / n).write_bytes(n.encode() * size)
    rec = lambda n: replace(clean.train[0], image=tmp_path / n, file_name=n)
    read = []
    real = D.file_digest
    monkeypatch.setattr(D, 'file_digest', lambda p: (read.append(Path(p).name), real(p))[1])
    data = replace(
        clean,
        splits=dict(
            train=[rec('a'), rec('b')],
            val=[rec('c'), rec('d'), rec('gone')],
            test=[replace(clean.train[1])],
        ),
    )
    assert must_stop(data) == []
    assert sorted(read) == ['b', 'c']


def test_must_stop_reads_no_pixel(clean, monkeypatch):
    "Not one picture is opened: files that do not exist do as well"
    gone = lambda rs: [replace(r, image=Path(f'/nowhere/{r.file_name}')) for r in rs]
    monkeypatch.setattr(Image, 'open', None)
    assert (
        must_stop(replace(clean, splits=dict(train=gone(clean.train), val=gone(clean.valid)))) == []
    )


def test_a_set_to_measure_on_cannot_be_trained_on(clean):
    assert [f.title for f in must_stop(replace(clean, splits=dict(test=clean.valid)))] == [
        'No train split'
    ]


def test_class_without_objects_is_said_and_does_not_stop(clean):
    data = replace(clean, vocab=(*clean.vocab, 'unicorn'))
    found = label_findings(data)
    assert [f.severity for f in found] == ['look']
    assert 'unicorn' in found[0].says
    assert must_stop(data) == []
    many = replace(clean, vocab=(*clean.vocab, *(f'c{i}' for i in range(70))))
    says = label_findings(many)[0].says
    assert len(label_findings(many)) == 1
    assert len(says) < 200
    assert 'and 62 more' in says


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    'names',
    [
        ('cat', 'Cat'),
        ('dog', 'dogs'),
        ('Dogs', 'dog'),
        ('bus', 'Buses'),
        ('puppy', 'puppies'),
        ('traffic light', 'traffic_light'),
        ('t-shirt', 'T Shirt'),
    ],
)
def test_names_that_look_alike(clean, names):
    assert similar_names(['sheep', *names, 'horse']) == [list(names)]
    f = finding(
        diagnose(replace(clean, vocab=('background', *names, *clean.vocab[3:])), progress=False),
        'names',
    )
    assert f.severity == 'look'
    assert all(n in f.names[0] for n in names)
    assert any(
        'spelling' in f.title and f.severity == 'look'
        for f in label_findings(replace(clean, vocab=('background', *names, *clean.vocab[3:])))
    )


def test_names_that_differ():
    voc = (
        'aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike '
        'person pottedplant sheep sofa train tvmonitor'
    )
    assert similar_names(voc.split()) == []
    others = 'glass,grass,bus,bu,class 1,class 11,as,a,skis,snowboard'
    assert similar_names(others.split(',')) == []


# ---------------------------------------------------------------- as people have them
def files(root, n=6, size=(64, 48), make=None):
    "YOLO pictures and labels, one class"
    for i in range(n):
        for d in ('images', 'labels'):
            (root / d).mkdir(parents=True, exist_ok=True)
        (
            make
            or (
                lambda i: Image.fromarray(
                    np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
                )
            )
        )(i).save(root / 'images' / f'{i}.png')
        (root / 'labels' / f'{i}.txt').write_text('0 .5 .5 .4 .4\n')
    (root / 'classes.txt').write_text('cat\n')
    return root


@pytest.mark.parametrize('bits,severity', [(10, 'look'), (12, 'look'), (14, 'look'), (16, 'fine')])
def test_dark_pictures_of_16_bits(tmp_path, bits, severity):
    "80: pictures of 16 bits of which fewer are used"
    deep = lambda i: Image.fromarray(
        np.random.default_rng(i).integers(0, 1 << bits, (48, 64)).astype(np.uint16)
    )
    f = finding(diagnose(files(tmp_path / 'set', make=deep), progress=False), 'depth')
    assert f.severity == severity
    assert len(f.names) == (6 if severity == 'look' else 0)
    if severity == 'look':
        assert f'{bits} bits' in f.says
        assert f'by {1 << 16 - bits} ' in f.todo
        assert '0.png' in f.names[0]


def png_of_16_bits(path, rgb):
    "A PNG of three colours of 16 bits, which Pillow cannot write"
    h, w, _ = rgb.shape
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in rgb)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 16, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('bits,severity', [(12, 'look'), (16, 'fine')])
def test_three_colours_of_16_bits(tmp_path, bits, severity):
    root = files(tmp_path / 'set')
    for i in range(6):
        png_of_16_bits(
            root / 'images' / f'{i}.png',
            np.random.default_rng(i).integers(0, 1 << bits, (48, 64, 3)),
        )
    f = finding(diagnose(root, progress=False), 'depth')
    assert f.severity == severity
    assert '6 pictures of 16 bits' in f.says


def test_photographs_are_not_deep(tmp_path):
    "Whatever numbers stand in their headers"
    root = files(tmp_path / 'set', size=(216, 116))
    sixteen = 'All pictures have 8 bits a colour.'
    for i in range(6):
        Image.open(root / 'images' / f'{i}.png').save(
            root / 'images' / f'{i}.{("jpg", "tif")[i % 2]}'
        )
        (root / 'images' / f'{i}.png').unlink()
    assert finding(diagnose(root, progress=False), 'depth').says == sixteen


def test_pictures_of_8_bits_are_not_deep(clean, tmp_path):
    black = lambda i: Image.fromarray(
        np.random.default_rng(i).integers(0, 9, (48, 64, 3), dtype=np.uint8)
    )
    assert (
        finding(diagnose(files(tmp_path / 'set', make=black), progress=False), 'depth').severity
        == 'fine'
    )


def test_mixed_depths(tmp_path):
    deep = lambda i: Image.fromarray(
        np.random.default_rng(i).integers(0, 1 << (12 if i else 16), (48, 64)).astype(np.uint16)
    )
    f = finding(diagnose(files(tmp_path / 'set', make=deep), progress=False), 'depth')
    assert 'jumps' in f.says
    assert len(f.names) == 5


def test_hint_at_zero_based(clean, tmp_path):
    "05: corners from 0 read as from 1"
    few = replace(clean, splits={k: v[:12] for k, v in clean.splits.items()})
    root = save_voc(few, tmp_path / 'set')
    assert '--zero-based' not in finding(diagnose(root, progress=False), 'files').todo
    edit(
        root,
        next(r for r in few.train if len(r.labels)),
        lambda s: re.sub('<xmin>.*?<', '<xmin>0<', s, count=1),
    )
    f = finding(diagnose(root, progress=False), 'files')
    assert f.severity == 'stop'
    assert '--zero-based' in f.todo
    assert finding(diagnose(root, one_based=False, progress=False), 'files').severity == 'fine'


def test_system_files_are_no_pictures(tmp_path):
    root = files(tmp_path / 'set')
    copy = root / 'images' / '.ipynb_checkpoints'
    copy.mkdir()
    shutil.copy(root / 'images' / '0.png', copy / '0-checkpoint.png')
    (root / 'images' / '._1.png').write_bytes(b'mac')
    (root / 'images' / 'Thumbs.db').write_bytes(b'')
    d = diagnose(root, progress=False)
    assert len(d.checkup.facts) == 6
    assert finding(d, 'files').severity == 'fine'
    assert finding(d, 'copies').severity == 'fine'


def test_reads_what_training_reads(clean, tmp_path):
    "Formats of lesson 03b, several folders, a data.yaml: whatever load_dataset takes"
    from ssd_tutorial.readers import load_dataset

    few = replace(clean, splits={k: v[:8] for k, v in clean.splits.items()})
    one, two = save_yolo(few, tmp_path / 'one'), save_coco(few, tmp_path / 'two')
    table = tmp_path / 'table'
    table.mkdir()
    lines = ['filename,xmin,ymin,xmax,ymax,class']
    for r in few.train:
        r.load().save(table / r.file_name)
        lines += [
            ','.join(map(str, (r.file_name, *b.tolist(), few.vocab[l])))
            for b, l in zip(r.boxes_px, r.labels)
        ]
    (table / 'labels.csv').write_text('\n'.join(lines))
    (one / 'data.yaml').write_text(
        'train: images/train\nval: images/val\nnames: [' + ', '.join(few.vocab[1:]) + ']\n'
    )
    (one / 'classes.txt').unlink()
    for source in (table, one / 'data.yaml', [one, two], one):
        d, data = diagnose(source, progress=False), load_dataset(source)
        assert len(d.checkup.of()) == sum(map(len, data.splits.values()))
        assert d.checkup.splits == [*data.splits]
        assert finding(d, 'files').severity == 'fine'


def test_what_could_not_be_read_is_a_problem_and_a_choice_is_a_note(tmp_path):
    root = files(tmp_path / 'set', 8)
    (root / 'labels' / '3.txt').write_text('cat 1 2 3\n')
    shutil.copy(root / 'images' / '0.png', root / 'images' / 'extra.png')
    d = diagnose(root, progress=False)
    names = finding(d, 'files').names
    assert len(names) == 1
    assert '3.txt' in names[0]


def test_format_that_is_not_read_is_named(tmp_path):
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'via.json').write_text('{"_via_settings": {}}')
    with pytest.raises(DataError, match='VIA'):
        diagnose(tmp_path / 'set', progress=False)


# ---------------------------------------------------------------- fingerprints
@pytest.mark.parametrize(
    'change',
    [
        lambda p: p.resize((64, 64)),
        lambda p: p.resize((300, 300)),
        lambda p: ImageEnhance.Brightness(p).enhance(0.8),
        lambda p: ImageEnhance.Contrast(p).enhance(1.3),
        lambda p: p.convert('L').convert('RGB'),
        lambda p: p.crop((1, 1, 127, 127)),
    ],
)
def test_twins_survive(change, tmp_path):
    """Copies made smaller, larger, darker, harder, grey, trimmed; saved as a poor JPEG.
    Strangers stay strangers."""
    data = generated_data(n_train=40, n_valid=0, size=128, seed=11)
    before = [examine(r, data.vocab, 'train') for r in data.train]
    after = []
    for i, r in enumerate(data.train[:20]):
        change(r.load()).save(tmp_path / f'{i}.jpg', quality=60)
        after.append(examine(make_record(tmp_path / f'{i}.jpg', i, None, []), data.vocab, 'val'))
    found = {f.name: t.name for f, t, *_ in find_twins(after, before)}
    assert all(
        found.get(f'{i}.jpg', data.train[i].file_name) == data.train[i].file_name for i in range(20)
    ), 'a twin is never the wrong picture'
    assert len(found) >= 19, f'{len(found)} of 20 copies found'
    assert not find_twins(before)


@pytest.mark.slow
def test_strangers_stay_strangers():
    data = generated_data('crowded', n_train=600, n_valid=0, size=64, seed=2)
    assert not find_twins([examine(r, data.vocab) for r in data.train])


def test_nearest_is_the_loop():
    rng = np.random.default_rng(1)
    a, b = rng.random((70, 64)) < 0.5, rng.random((90, 64)) < 0.5
    apart = (a[:, None] != b[None]).sum(-1)
    index, d = nearest_pictures(a, b, chunk=16)
    assert (d == apart.min(1)).all()
    assert (apart[np.arange(70), index] == d).all()
    own = (a[:, None] != a[None]).sum(-1) + 99 * np.eye(70, dtype=int)
    assert (nearest_pictures(a, chunk=16)[1] == own.min(1)).all()
    assert nearest_pictures(a, b[:0])[0].tolist() == [-1] * 70
    assert len(nearest_pictures(a[:0], b)[0]) == 0


def test_turned_photograph(tmp_path):
    "EXIF rotation: size and boxes of the upright picture, and the same fingerprint"
    img = generated_data(n_train=1, n_valid=0, size=128, seed=3).train[0].load().resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    img.rotate(90, expand=True).save(tmp_path / 'turned.jpg', exif=exif, quality=95)
    small, size, turned = open_small(tmp_path / 'turned.jpg')
    assert size == (80, 120)
    assert turned
    assert small.width > small.height
    assert (picture_bits(small) != picture_bits(img)).sum() <= 6
    f = examine(
        make_record(tmp_path / 'turned.jpg', 0, None, [dict(box_px=[90, 10, 119, 70], label=1)]),
        ('background', 'a'),
    )
    assert not f.faults
    assert f.record.size_hw == (80, 120)
    assert f.record.image == tmp_path / 'turned.jpg'
    # boxes as the file lies
    lying = make_record(
        tmp_path / 'turned.jpg',
        0,
        None,
        [dict(box_px=[10, 90, 40, 119], label=1)],
        declared_hw=(120, 80),
    )
    f, (checked, faults) = (
        examine(lying, ('background', 'a')),
        check_record(lying, ('background', 'a'), 'fix'),
    )
    # what the check sees is what training sees
    assert f.faults == faults
    assert len(faults) == 1
    assert (f.record.boxes_px == checked.boxes_px).all()


def test_bits_alone_make_no_twins(clean):
    a, b = (examine(r, clean.vocab) for r in clean.train[:2])
    b.bits = a.bits.copy()
    assert abs(a.greys @ b.greys) < 0.9
    assert not find_twins([a, b])
    b.greys = a.greys
    assert len(find_twins([a, b])) == 1


def test_crowd_is_no_double():
    r = make_record(
        np.zeros((50, 50, 3), np.uint8),
        0,
        None,
        [dict(box_px=[0, 0, 40, 40], label=1), dict(box_px=[0, 0, 40, 40], label=2, crowd=True)],
    )
    assert double_boxes(examine(r, ('background', 'a', 'b'))) == []


# ---------------------------------------------------------------- the page
class Page(html.parser.HTMLParser):
    "Tags, attributes and open elements of a page"

    VOID = ('meta', 'img', 'br', 'link', 'input', 'hr')

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text, self.faults = [], [], '', []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in self.VOID)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.text += data * ('style' not in self.open)


@pytest.fixture(scope='module')
def page(diagnosis, tmp_path_factory):
    return diagnosis.write_html(tmp_path_factory.mktemp('page') / 'new folder' / 'doctor.html')


def test_page_stands_alone(page):
    text = page.read_text(encoding='utf-8')
    p = Page()
    p.feed(text)
    p.close()
    assert not p.faults
    assert not p.open, 'every element is closed'
    assert {t for t, _ in p.tags}.isdisjoint(
        {'script', 'link', 'iframe', 'object', 'embed', 'base', 'form'}
    )
    for tag, attrs in p.tags:
        assert not any(k.startswith('on') for k in attrs), (tag, attrs)
        for k in ('src', 'href', 'srcset', 'action', 'data'):
            assert attrs.get(k, '#').startswith(('#', 'data:image/jpeg;base64,')), (
                tag,
                attrs[k][:60],
            )
    assert not re.search(
        r'https?:|url\(|@import|//[a-z]+\.',
        re.sub('data:image/jpeg;base64,[A-Za-z0-9+/=]+', '', text),
    )
    # names are shown, not obeyed
    assert ODD in p.text
    assert '<script' not in text.lower()
    assert len(text) < 1_500_000


def test_page_is_bounded(clean, tmp_path):
    "Hundreds of offenders: all named, few pictured"
    root = save_voc(
        replace(clean, splits=dict(train=clean.train, val=clean.valid)), tmp_path / 'set'
    )
    for r in clean.train[:100]:
        edit(root, r, swap) if len(r.labels) else None
    d = diagnose(root, progress=False)
    text = d.to_html(most=3)
    names = finding(d, 'files').names
    assert text.count('<img') <= 3 * len(CHECKS) * 2
    assert all(n.split(':')[0] in text for n in names)
    assert len(names) >= 90
    assert 'more, named in the list' in text


def chromium(page, tmp_path, *more):
    program = next(
        (
            p
            for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))
            if p
        ),
        None,
    )
    if not program:
        pytest.skip('no chromium on this machine: install one to see the page in a browser')
    options = [
        *'--headless --no-sandbox --no-first-run --disable-gpu --disable-quic'.split(),
        *'--disable-background-networking --disable-component-update --disable-sync'.split(),
        '--host-resolver-rules=MAP * ~NOTFOUND',
        f'--user-data-dir={tmp_path / "profile"}',
    ]
    return subprocess.run(
        [program, *options, *more, page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )


SAY = '''<script>addEventListener('load', () => {
const imgs = [...document.images], root = document.documentElement;
const tall = b => b.getBoundingClientRect().height>0;
document.title = JSON.stringify({
all: imgs.length, shown: imgs.filter(i => i.complete && i.naturalWidth>0).length,
wide: root.scrollWidth-root.clientWidth,
bars: [...document.querySelectorAll('svg .bar')].filter(tall).length,
h2: document.querySelectorAll('h2').length}) })</script></body>'''


@pytest.mark.parametrize('width', [1100, 500])
def test_page_in_a_browser(page, tmp_path, width):
    """A browser without a network shows every picture and chart, and nothing is wider than the
    window."""
    copy = tmp_path / 'copy.html'
    copy.write_text(page.read_text(encoding='utf-8').replace('</body>', SAY), encoding='utf-8')
    r = chromium(copy, tmp_path, '--dump-dom', f'--window-size={width},900')
    said = re.search('<title>({.*?})</title>', r.stdout)
    assert said, r.stderr[-800:]
    seen = json.loads(said.group(1))
    assert seen['all'] == seen['shown'] >= 10, seen
    assert seen['bars'] >= 10, seen
    assert seen['h2'] >= len(CHECKS), seen
    assert seen['wide'] <= 0, seen


# ---------------------------------------------------------------- photographs
def test_photographs(real_data):
    d = diagnose(real_data / 'coco_mini', progress=False)
    f = finding(d, 'files')
    assert f.severity == 'fine', str(d)[:800]
    assert finding(d, 'leaks').severity == 'fine', str(d)[:800]
    assert len(d.checkup.of()) == 160, str(d)[:800]


@pytest.mark.slow
def test_copies_among_photographs(real_data):
    "voc_animals holds the same cat in train and in val, as equal files and as resized ones"
    from ssd_tutorial.voc import read_voc

    data = read_voc(real_data / 'voc_animals')
    cats = {s: [r for r in rs if r.file_name.startswith('ca')] for s, rs in data.splits.items()}
    f = finding(diagnose(replace(data, splits=cats), progress=False), 'leaks')
    assert f.severity == 'stop'
    assert 'ca121.jpg (val) and ca116.jpg (train): the same file' in f.names
    assert any('nearly' in n for n in f.names)
    assert 5 <= len(f.names) <= 12, f.names


def test_names_that_are_no_text(clean, tmp_path):
    "A file name of bytes that no encoding knows can be shown, written and printed"
    r = replace(clean.train[0], file_name='photo\udcff.png')
    d = diagnose(DetectionData(dict(train=[r, r], val=[r]), clean.vocab), progress=False)
    text = d.write_html(tmp_path / 'p.html').read_text(encoding='utf-8')
    str(d).encode()
    json.dumps(d.to_dict()).encode()
    assert finding(d, 'leaks').severity == 'stop'
    assert 'photo?.png' in text


def test_ctrl_c_does_not_wait(clean, monkeypatch):
    "After Ctrl-C at most one block of images is still looked at"
    import ssd_tutorial.looks as D

    seen = []

    def stop(*a):
        seen.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(D, 'examine', stop)
    with pytest.raises(KeyboardInterrupt):
        D.examine_all(dict(train=clean.train * 20), clean.vocab, progress=False)
    assert len(seen) <= 256


@pytest.mark.parametrize('name', ['doctor.html', 'doctor.css'])
def test_the_page_files_are_installed(name, tmp_path):
    "Template and style sheet lie beside the modules, and a build of the package takes them along"
    import sys
    from importlib.resources import files

    root = Path(__file__).resolve().parent.parent
    text = (files('ssd_tutorial') / name).read_text(encoding='utf-8')
    assert '.verdict' in text if name.endswith('css') else '$findings' in text
    for f in ('setup.py', 'settings.ini', 'README.md', 'pyproject.toml', 'LICENSE'):
        shutil.copy(root / f, tmp_path)
    package = tmp_path / 'ssd_tutorial'
    package.mkdir()
    for f in ('__init__.py', name):
        shutil.copy(root / 'ssd_tutorial' / f, package)
    build = [sys.executable, 'setup.py', '-q', 'build', '--build-lib', tmp_path / 'lib']
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / 'lib' / 'ssd_tutorial' / name).read_text(encoding='utf-8') == text


def test_the_template_keeps_dollars(clean):
    "A name of a data set or a file may hold what the template takes for its own"
    name = '$style ${title} $$'
    r = replace(clean.train[0], file_name='$findings.png')
    data = DetectionData(dict(train=[r, r], val=[r]), clean.vocab, name=name)
    page = diagnose(data, progress=False).to_html()
    assert f'<h1>{name}</h1>' in page
    assert '$findings.png' in page
