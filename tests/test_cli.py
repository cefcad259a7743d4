"""The command, end to end: four formats in, detector, report and predictions out;
wrong input ends with one line and status 2."""

import json
import re
from pathlib import Path
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.commands import pick_detector
from ssd_tutorial.reports import has_learnt
from ssd_tutorial.sources import find_photos
from ssd_tutorial.config import DetectorError
from ssd_tutorial.detector import Detector
from ssd_tutorial.saved import card_path, shipped
from ssd_tutorial.coco import save_coco
from ssd_tutorial.faults import DataError
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.yolo import save_yolo

SAVE = dict(voc=save_voc, coco=save_coco, yolo=save_yolo)


def run(*args):
    r = CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)
    return r.exit_code, r.output


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Three data sets with images without objects among them, and a detector trained for two steps"
    root = tmp_path_factory.mktemp('sets')
    data = generated_data('multiscale', n_train=12, n_valid=6, n_empty=0.3)
    for name, save in SAVE.items():
        save(data, root / name)
    code, out = run(
        'train',
        '--data',
        root / 'voc',
        *'--epochs 1 --max-steps 2 --batch-size 4 --out'.split(),
        root / 'd.pt',
    )
    assert code == 0, out
    return root


@pytest.mark.parametrize('kind', SAVE)
def test_train_evaluate_predict(folder, kind, tmp_path):
    code, out = run(
        'train',
        '--data',
        folder / kind,
        *'--epochs 1 --max-steps 1 --batch-size 4 --out'.split(),
        tmp_path / 'd.pt',
    )
    assert code == 0, out
    log = json.loads((tmp_path / 'd.json').read_text())
    assert log['settings']['max_steps'] == 1
    code, out = run(
        'evaluate',
        '--data',
        folder / kind,
        '--detector',
        tmp_path / 'd.pt',
        '--json',
        tmp_path / 'r.json',
    )
    assert code == 0, out
    report = json.loads((tmp_path / 'r.json').read_text())
    assert {'map50', 'map', 'voc07_map50', 'per_class', 'images', 'objects', 'protocol'} <= set(
        report
    )
    assert report['images'] == 6
    photos = folder / 'voc' / 'JPEGImages'
    code, out = run(
        'predict',
        photos,
        '--detector',
        tmp_path / 'd.pt',
        '--out',
        tmp_path / 'found',
        '--score',
        0,
    )
    assert code == 0, out
    rows = json.loads((tmp_path / 'found' / 'predictions.json').read_text())
    assert rows
    assert all(
        isinstance(r['image_id'], int) and r['bbox'][2] >= 0 and r['bbox'][3] >= 0 for r in rows
    )
    assert len(list((tmp_path / 'found').glob('*.png'))) == len(list(photos.iterdir()))


def test_category_ids_are_the_data_sets_own(folder, tmp_path):
    data = load_dataset(folder / 'coco')
    data.category_ids = (0, *range(10, 10 + len(data.vocab) - 1))
    save_coco(data, tmp_path / 'gaps')
    run(
        'train',
        '--data',
        tmp_path / 'gaps',
        *'--epochs 1 --max-steps 1 --batch-size 4 --out'.split(),
        tmp_path / 'd.pt',
    )
    run(
        'predict',
        folder / 'voc' / 'JPEGImages',
        '--detector',
        tmp_path / 'd.pt',
        '--out',
        tmp_path / 'found',
        *'--score 0 --no-pictures'.split(),
    )
    rows = json.loads((tmp_path / 'found' / 'predictions.json').read_text())
    assert {r['category_id'] for r in rows} <= set(data.category_ids[1:])
    names = dict(zip(data.category_ids[1:], data.vocab[1:]))
    assert all(names[r['category_id']] == r['category_name'] for r in rows)


WRONG = [
    (['train', '--data', 'nowhere'], 'no such folder'),
    (['train', '--data', '{sets}/voc', '--weights', 'gone.pth'], '--weights none'),
    (['train', '--data', '{sets}/voc', '--lr', 'fast'], 'find'),
    (['train', '--data', '{sets}/voc', '--arch', 'yolo'], 'No architecture'),
    (['train', '--data', '{sets}/voc', '--freeze-below', '7'], 'none has 7'),
    (['train', '--data', '{sets}/voc', '--body', 'alexnot'], 'No body'),
    (['evaluate', '--data', '{sets}/voc', '--detector', 'gone.pt'], 'ssd-tutorial train'),
    (
        ['evaluate', '--data', '{sets}/voc', '--detector', 'animal'],
        'there are animals, ssd300_vgg16',
    ),
    (['evaluate', '--data', '{sets}/voc', '--detector', ''], "--detector ''"),
    (
        ['evaluate', '--data', '{sets}/voc', '--split', 'test', '--detector', '{sets}/d.pt'],
        'no split',
    ),
    (
        ['evaluate', '--data', '{sets}/voc', '--detector', '{sets}/voc/ImageSets/Main/train.txt'],
        'not a saved detector',
    ),
    (['predict', 'gone.jpg', '--detector', '{sets}/d.pt'], 'no such file'),
    (['predict', '{sets}/voc/ImageSets', '--detector', '{sets}/d.pt'], 'no image files'),
    (
        ['predict', '{sets}/voc/ImageSets/Main/train.txt', '--detector', '{sets}/d.pt'],
        'not a readable image',
    ),
    (['predict'], 'Missing argument'),
    (['predict', ''], 'An empty path'),
    (['predict', '{sets}/voc/JPEGImages', ''], 'An empty path'),
    (['train', '--data', 'generated:nothing'], 'no such preset'),
    (['train'], "Missing option '--data'"),
    (['train', '--resume'], 'no such file, so there is no run to go on with'),
    (['train', '--data', '{sets}/voc', '--resume'], 'without --resume'),
    (['doctor', 'nowhere'], 'nowhere'),
    (['doctor'], 'Missing argument'),
]


@pytest.mark.parametrize('args,says', WRONG, ids=[' '.join(a)[:40] for a, _ in WRONG])
def test_wrong_input(folder, args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = run(*(a.format(sets=folder) for a in args))
    assert code == 2, out
    assert says in out, out
    assert 'Traceback' not in out, out


@pytest.mark.parametrize(
    'command', [[], ['train'], ['evaluate'], ['predict'], ['doctor'], ['demo'], ['app']]
)
def test_help_has_an_example(command):
    code, out = run(*command, '--help')
    assert code == 0
    assert 'Example:' in out
    assert 'ssd-tutorial' in out


def test_help_shows_that_no_detector_need_be_named():
    """An example without --detector at the top, and of the two commands that take one;
    the option says which names there are."""
    for command in ([], ['evaluate'], ['predict']):
        examples = [
            x
            for x in run(*command, '--help')[1].splitlines()
            if x.strip().startswith('ssd-tutorial') and ('predict' in x or 'evaluate' in x)
        ]
        assert {'--detector' in x for x in examples} == {True, False}, examples
        assert not command or all(
            n in run(*command, '--help')[1] for n in (*shipped(), 'ssd300_vgg16')
        )


def test_a_shipped_detector_by_its_name(folder, tmp_path, monkeypatch, capsys):
    """Wherever --detector takes a file; a file of that name wins, a folder does not;
    what it is, and where its card is, is said."""
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (40, 30)).save('grey.png')
    (tmp_path / 'animals').mkdir()
    for named in ([], ['--detector', 'animals']):
        code, out = run('predict', 'grey.png', *named)
        first = out.splitlines()[0]
        assert code == 0, out
        assert first.endswith(str(card_path())), out
        assert 'cat, cow, dog, horse, sheep' in first, out
        assert f'{Detector.pretrained().score:g}' in first, out
    assert (
        run('evaluate', '--data', folder / 'voc', '--detector', 'animals')[1]
        .strip()
        .endswith('no class in common.')
    )
    (tmp_path / 'animals').rmdir()
    (tmp_path / 'animals').write_bytes((folder / 'd.pt').read_bytes())
    capsys.readouterr()
    assert 'star' in pick_detector('animals').vocab
    assert 'comes with the package' not in capsys.readouterr().out
    assert pick_detector().vocab[1] == 'cat'
    with pytest.raises(DetectorError, match='there are animals'):
        pick_detector(tmp_path / 'gone')


def test_the_card_is_read_where_it_lies(tmp_path, monkeypatch):
    "The page, and where that is not installed, the JSON"
    monkeypatch.setattr('ssd_tutorial.saved._shelf', lambda: tmp_path)
    for name in ('animals.pt', 'animals.json'):
        (tmp_path / name).write_text('')
    assert card_path().name == 'animals.json'
    (tmp_path / 'animals.md').write_text('')
    assert card_path().name == 'animals.md'


def test_evaluate_says_what_the_mean_does_not(folder, tmp_path):
    """Objects of each class; classes of the data that the detector does not know, and the reverse;
    nothing of that where all is alike; figures as JSON as before."""
    data = load_dataset(folder / 'coco')
    data.valid[0].difficult[:] = True
    names, kept = data.vocab, data.vocab[-1]
    save_voc(data, tmp_path / 'same')
    counted = {
        n: sum(int((r.labels[~r.difficult] == c).sum()) for r in data.valid)
        for c, n in enumerate(names)
        if c
    }
    assert sum(counted.values()) < sum(len(r.labels) for r in data.valid)
    data.vocab = ('background', *(f'thing {i}' for i in range(1, len(names) - 1)), kept)
    save_voc(data, tmp_path / 'other')
    table = lambda out: {
        x.split()[0]: x.split()[-1]
        for x in out.splitlines()
        if x[:1].isalpha() and len(x.split()) == 3 and x.split()[0] in names
    }
    code, out = run('evaluate', '--data', tmp_path / 'same', '--detector', folder / 'd.pt')
    assert code == 0, out
    assert 'left out' not in out, out
    assert 'memory' not in out, out
    assert table(out) == {n: str(k) for n, k in counted.items()}, out
    code, out = run(
        'evaluate',
        '--data',
        tmp_path / 'other',
        '--detector',
        folder / 'd.pt',
        '--json',
        tmp_path / 'r.json',
    )
    assert code == 0, out
    assert table(out) == {**dict.fromkeys(names[1:], '0'), kept: str(counted[kept])}, out
    left = 'thing 1, thing 2, thing 3, thing 4, thing 5'
    assert f'left out: 5 classes of other that the detector does not know ({left})' in out, out
    says = 'not measured: 5 classes of the detector that these pictures have no object of ('
    assert says in out, out
    assert set(json.loads((tmp_path / 'r.json').read_text())['per_class']) == set(names[1:])


def test_evaluate_says_when_it_measures_a_memory(tmp_path, monkeypatch):
    """By the shipped detector's card: as many images, and objects of each class,
    as in a split that it learnt from; not for a detector of one's own."""
    data = generated_data('multiscale', n_train=6, n_valid=4)
    data.vocab = ('background', 'cat', 'cow', 'dog', 'horse', 'sheep', 'fig')
    save_coco(data, tmp_path / 'set')
    counts = {
        s: dict(
            images=len(rs),
            objects={
                data.vocab[c]: sum(int((r.labels == c).sum()) for r in rs)
                for c in range(1, len(data.vocab))
            },
        )
        for s, rs in data.splits.items()
    }
    for trained, split, learnt in (
        ('train', 'val', False),
        ('train', 'train', True),
        ('train and val', 'val', True),
        ('training', 'train', False),
    ):
        card = dict(trained_on=trained, data_counts=counts)
        monkeypatch.setattr('ssd_tutorial.pretrained.read_card', lambda name, card=card: card)
        says = f'learnt from these pictures (its card: {trained}): this measures a memory.'
        for named in ([], ['--detector', 'animals']):
            code, out = run('evaluate', '--data', tmp_path / 'set', '--split', split, *named)
            assert code == 0, out
            assert (f'The detector has {says}' in out) == learnt, out
    mine = tmp_path / 'mine.pt'
    Detector.pretrained().save(mine)
    out = run('evaluate', '--data', tmp_path / 'set', '--split', 'train', '--detector', mine)[1]
    assert 'memory' not in out


def test_predict_passes_over_its_own_output(folder, tmp_path, monkeypatch):
    """Twice the same search finds the same; the folder itself by its name is searched;
    nowhere else is anything passed over."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos' / 'more').mkdir(parents=True)
    for p in ('photos/a.png', 'photos/more/b.jpg'):
        Image.new('RGB', (40, 30)).save(p)
    for i in range(2):
        code, out = run('predict', '.', '--detector', folder / 'd.pt')
        assert code == 0, out
        assert ('Passed over: 2 pictures in predictions' in out) == bool(i), out
        assert 'in 2 images' in out, out
    code, out = run(
        'predict',
        tmp_path,
        'predictions/a.png',
        '--detector',
        folder / 'd.pt',
        *'--out photos/../predictions --no-pictures'.split(),
    )
    assert code == 0, out
    assert 'in 3 images' in out, out
    code, out = run(
        'predict', 'predictions', '--detector', folder / 'd.pt', '--out', 'photos', '--no-pictures'
    )
    assert code == 0, out
    assert 'in 2 images' in out, out
    assert 'Passed' not in out, out
    (tmp_path / 'link').symlink_to('predictions')
    assert len(find_photos(['.'], 'link')) == 2
    code, out = run(
        'predict', 'photos', '--detector', folder / 'd.pt', '--out', tmp_path, '--no-pictures'
    )
    assert code == 0, out
    assert 'in 2 images' in out, out
    was = Path('photos/a.png').read_bytes()
    code, out = run(
        'predict', 'photos', '--detector', folder / 'd.pt', '--out', tmp_path / 'photos'
    )
    assert code == 2, out
    assert 'a.png: the picture with boxes would take its place' in out, out
    assert Path('photos/a.png').read_bytes() == was, out
    for p in ('photos/a.png', 'photos/more/b.jpg'):
        (tmp_path / p).unlink()
    code, out = run('predict', '.', '--detector', folder / 'd.pt')
    assert code == 2, out
    assert 'another --out' in out, out


def test_predict_goes_on_past_unreadable_photos(folder, tmp_path):
    "The others are predicted and written, the unreadable ones named with the reason, exit status 2"
    photos = tmp_path / 'photos'
    photos.mkdir()
    good = sorted((folder / 'voc' / 'JPEGImages').iterdir())[:18]
    for p in good:
        (photos / p.name).write_bytes(p.read_bytes())
    (photos / 'a_page.jpg').write_text('<html>')
    (photos / 'empty.png').write_bytes(b'')
    (photos / 'half.png').write_bytes(good[0].read_bytes()[:300])
    code, out = run(
        'predict', photos, '--detector', folder / 'd.pt', '--out', tmp_path / 'found', '--score', 0
    )
    assert code == 2
    assert '3 of 21 photos could not be read' in out
    assert all(n in out for n in ('a_page.jpg', 'empty.png', 'half.png'))
    assert 'Traceback' not in out
    assert {p.stem for p in (tmp_path / 'found').glob('*.png')} == {p.stem for p in good}
    rows = json.loads((tmp_path / 'found' / 'predictions.json').read_text())
    assert {r['file_name'] for r in rows} == {p.name for p in good}
    det = Detector.load(folder / 'd.pt')
    alone = det.predict(good[5], score=0.0)
    here = [r for r in rows if r['file_name'] == good[5].name]
    assert np.allclose(
        sorted(r['score'] for r in here), sorted(map(float, alone.scores)), atol=1e-4
    )
    code, out = run(
        'predict',
        photos / 'empty.png',
        photos / 'half.png',
        '--detector',
        folder / 'd.pt',
        '--out',
        tmp_path / 'none',
    )
    assert code == 2
    assert '2 of 2' in out
    assert not (tmp_path / 'none').exists()
    with pytest.raises(DataError, match='a_page.jpg'):
        det.predict(photos)  # in Python the first one raises
    bad = []
    assert len(det.predict(photos, unreadable=bad)) == 18
    assert len(bad) == 3


def test_zero_based(folder, tmp_path):
    "--zero-based reads corners as they stand; without it VOC's count from 1"
    data = load_dataset(folder / 'voc', one_based=False)
    for records in data.splits.values():
        for r in records:
            r.boxes_px[:, :2] = np.maximum(r.boxes_px[:, :2] - 1, 0)
    zero = tmp_path / 'zero'
    save_voc(data, zero)
    first = sorted((zero / 'Annotations').glob('*.xml'))
    for x in first:
        x.write_text(re.sub(r'<(xmin|ymin)>([0-9.]+)<', lambda m: f'<{m[1]}>0<', x.read_text()))
    code, out = run(
        'train',
        '--data',
        zero,
        *'--epochs 1 --max-steps 1 --batch-size 4 --out'.split(),
        tmp_path / 'd.pt',
    )
    assert code == 2, out
    assert 'then --zero-based' in out, out
    for command in (
        [
            'train',
            '--data',
            zero,
            *'--epochs 1 --max-steps 1 --batch-size 4 --out'.split(),
            tmp_path / 'd.pt',
        ],
        ['evaluate', '--data', zero, '--detector', folder / 'd.pt'],
        ['doctor', zero, '--out', tmp_path / 'doctor.html'],
    ):
        code, out = run(*command, '--zero-based')
        assert code == 0, out


def test_doctor(folder, tmp_path):
    code, out = run(
        'doctor',
        folder / 'coco',
        '--out',
        tmp_path / 'page' / 'doctor.html',
        '--json',
        tmp_path / 'doctor.json',
    )
    assert code == 0, out
    assert 'doctor.html' in out, out
    assert '<html' in (tmp_path / 'page' / 'doctor.html').read_text(encoding='utf-8')
    assert {'verdict', 'findings'} <= set(json.loads((tmp_path / 'doctor.json').read_text()))
    (tmp_path / 'empty').mkdir()
    code, out = run('doctor', tmp_path / 'empty', '--out', tmp_path / 'x.html')
    assert code == 2, out
    assert out.startswith('Error'), out
    assert out.count('\n') == 1, out
    assert not (tmp_path / 'x.html').exists(), out


def test_odd_pictures(folder):
    """Grey, palette, transparent, 16-bit, one pixel, very wide:
    all predict, in the original's pixels."""
    det = Detector.load(folder / 'd.pt')
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    odd = [rgb.convert(m) for m in ('L', 'P', 'RGBA', 'CMYK', '1')] + [
        Image.fromarray(rng.integers(0, 65535, (40, 60), dtype=np.uint16))
    ]
    for d in det.predict(odd, score=0.0):
        assert d.size_hw == (40, 60)
        assert (d.boxes_px <= [60, 40, 60, 40]).all()
        assert (d.boxes_px >= 0).all()
    for size in ((1, 1), (2000, 10)):
        assert det.predict(Image.new('RGB', size), score=0.0).size_hw == size[::-1]


def test_saved_file_is_safe(folder):
    "Opening a detector runs nobody's code"
    d = torch.load(folder / 'd.pt', weights_only=True)
    assert isinstance(json.loads(d['json']), dict)


def test_data_loader_and_predict_agree(folder):
    "mAP through the loader and through files agrees to 1e-4"
    from ssd_tutorial.batches import make_dls, unpad
    from ssd_tutorial.metrics import evaluate_found, truth_of

    det, data = Detector.load(folder / 'd.pt'), load_dataset(folder / 'voc')
    loader, truths = [], []
    for images, targets in make_dls(data, bs=4, strength=None, device='cpu').valid:
        loader += det.detect_batch(images, score=0.01)
        truths += unpad(targets)
    files = det.predict([r.image for r in data.valid], score=0.01)
    as_found = [
        dict(
            boxes_xyxy=torch.tensor(d.boxes_px) / torch.tensor([d.size_hw[1], d.size_hw[0]] * 2),
            scores=torch.tensor(d.scores),
            labels=torch.tensor(d.labels),
        )
        for d in files
    ]
    a, b = (
        evaluate_found(loader, truths, det.vocab),
        evaluate_found(as_found, truth_of(data.valid), det.vocab),
    )
    assert abs(a.map50 - b.map50) < 1e-4
    assert abs(a.map - b.map) < 1e-4


def test_real_photographs_seen_before_and_unknown(real_data):
    "The card knows its own pictures; of coco_mini's 80 classes the shipped detector knows five"
    from ssd_tutorial.pretrained import read_card

    card, data = read_card(), load_dataset(real_data / 'voc_animals')
    assert {s: has_learnt(card, rs, data.vocab) for s, rs in data.splits.items()} == {
        s: s in card['trained_on'].split() for s in data.splits
    }
    code, out = run('evaluate', '--data', real_data / 'coco_mini')
    assert code == 0, out
    says = 'left out: 75 classes of coco_mini that the detector does not know (person, bicycle, '
    assert says in out, out
    assert 'memory' not in out, out


def test_real_folders(real_data, tmp_path):
    "Every folder of real photographs trains for two steps and evaluates"
    for name in ('coco_tiny', 'coco_mini'):
        # no maps of every image to cache
        small = (*'--frozen-epochs 0 --size 96 --no-plots'.split(),)
        code, out = run(
            'train',
            '--data',
            real_data / name,
            *'--epochs 1 --max-steps 2 --batch-size 4'.split(),
            *small,
            '--out',
            tmp_path / f'{name}.pt',
        )
        assert code == 0, out
        assert 'mAP50' in out, out
