"""What a run leaves behind: figures that count right, files that keep out of each other's way,
results that other tools read."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fastai.callback.core import Callback
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from ssd_tutorial.cli import main
from ssd_tutorial.options import resumed_args
from ssd_tutorial.reports import write_plots
from ssd_tutorial.runs import settings_of
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.runs import train_detector
from ssd_tutorial.operating_point import (
    choose_score,
    confusion_matrix,
    draw_confusion,
    draw_f1,
    draw_precision_recall,
)
from ssd_tutorial.metrics import evaluate_found
from ssd_tutorial.coco import save_coco
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.yolo import save_yolo

QUICK = ['--arch', 'grid', '--weights', 'none', '--size', 64, '--batch-size', 4]
BRIEF = [*QUICK, '--epochs', 1, '--max-steps', 1]


def run(*args):
    r = CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)
    return r.exit_code, r.output


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    "A VOC folder, a COCO folder whose ids have gaps, and a detector for both"
    root = tmp_path_factory.mktemp('sets')
    data = generated_data('multiscale', n_train=8, n_valid=6, size=96)
    for records in data.splits.values():
        for r in records:
            r.image_id = 1000 + 7 * r.image_id
    save_voc(data, root / 'voc')
    data.category_ids = (0, *range(11, 11 + 3 * (len(data.vocab) - 1), 3))
    save_coco(data, root / 'coco')
    code, out = run('train', '--data', root / 'voc', *BRIEF, '--no-plots', '--out', root / 'd.pt')
    assert code == 0, out
    return root


# ---- confusion matrix and curves


def scene(seed, n_classes=4, images=12):
    "Random truth, and detections that are right, shifted, of another class, doubled or nowhere"
    rng, found, truths = np.random.default_rng(seed), [], []

    def boxes(n):
        xy = rng.uniform(0, 0.7, (n, 2))
        return np.concatenate([xy, xy + rng.uniform(0.1, 0.3, (n, 2))], 1)

    for _ in range(images):
        n = rng.integers(0, 6)
        b, l = boxes(n), rng.integers(1, n_classes + 1, n)
        near = b[rng.integers(0, n, 2 * n)] + rng.normal(0, 0.02, (2 * n, 4)) if n else b
        m = rng.integers(0, 4)
        d = np.concatenate([near, boxes(m)])
        said = np.concatenate([rng.choice(l, 2 * n) if n else l, rng.integers(1, n_classes + 1, m)])
        t = lambda x, kind=None: torch.tensor(x, dtype=kind)
        truths.append(
            dict(
                boxes_xyxy=t(b, torch.float32),
                labels=t(l),
                difficult=t(rng.random(n) < 0.1),
                crowd=torch.zeros(n, dtype=torch.bool),
                size_hw=t([100, 100]),
            )
        )
        found.append(
            dict(
                boxes_xyxy=t(d, torch.float32),
                labels=t(said),
                scores=t(rng.permutation(np.linspace(0.05, 0.95, len(d))), torch.float32),
            )
        )
    return found, truths


def iou_of(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def confusion_by_hand(found, truths, n_classes, score):
    "Loops and dicts only: two rounds of pairing, the surest first"
    table = np.zeros((n_classes + 1, n_classes + 1), int)
    for f, t in zip(found, truths):
        ds = sorted(
            [
                (-float(s), b.double().tolist(), int(l))
                for s, b, l in zip(f['scores'], f['boxes_xyxy'], f['labels'])
                if s >= score
            ],
            key=lambda d: d[0],
        )
        os_ = [
            (b.double().tolist(), int(l), bool(d))
            for b, l, d in zip(t['boxes_xyxy'], t['labels'], t['difficult'])
        ]
        free, rest = set(range(len(os_))), []
        for d in ds:
            fits = [
                (not os_[j][2], iou_of(d[1], os_[j][0]), j)
                for j in free
                if os_[j][1] == d[2] and iou_of(d[1], os_[j][0]) >= 0.5
            ]
            if not fits:
                rest.append(d)
                continue
            counts, _, j = max(fits)
            free.remove(j)
            if counts:
                table[d[2], d[2]] += 1
        free = {j for j in free if not os_[j][2]}
        for d in rest:
            fits = [(iou_of(d[1], os_[j][0]), j) for j in free if iou_of(d[1], os_[j][0]) >= 0.5]
            if fits:
                j = max(fits)[1]
                free.remove(j)
                table[os_[j][1], d[2]] += 1
            else:
                table[0, d[2]] += 1
        for j in free:
            table[os_[j][1], 0] += 1
    return table


@pytest.mark.parametrize('seed', range(6))
def test_confusion_matrix_against_loops(seed):
    found, truths = scene(seed)
    table = confusion_matrix(found, truths, 4, 0.3)
    assert (table == confusion_by_hand(found, truths, 4, 0.3)).all()
    assert table.sum() > 20
    # each object once
    assert table[0, 0] == 0
    assert table[1:].sum() == sum(int((~t['difficult']).sum()) for t in truths)


def test_confusion_matrix_where_every_way_of_counting_agrees():
    """Objects far apart, one detection at most on each:
    pairing by overlap alone, as other tools do, comes to the same."""
    rng, size = np.random.default_rng(0), 0.1
    cells = torch.tensor(
        [[x / 8, y / 8, x / 8 + size, y / 8 + size] for x in range(8) for y in range(8)],
        dtype=torch.float32,
    )
    there, said = torch.tensor(rng.integers(1, 4, 64)), torch.tensor(rng.integers(1, 4, 64))
    seen = torch.tensor(rng.random(64) < 0.7)
    nothing = torch.tensor(rng.random(64) < 0.3)
    want = np.zeros((4, 4), int)
    for t, s, o, n in zip(there.tolist(), said.tolist(), seen.tolist(), nothing.tolist()):
        if not n:
            want[t, s if o else 0] += 1
        elif o:
            want[0, s] += 1
    none = torch.zeros(int((~nothing).sum()), dtype=torch.bool)
    truth = dict(boxes_xyxy=cells[~nothing], labels=there[~nothing], difficult=none, crowd=none)
    found = dict(
        boxes_xyxy=cells[seen] + 0.01,
        labels=said[seen],
        scores=torch.linspace(0.4, 0.9, int(seen.sum())),
    )
    assert (confusion_matrix([found], [truth], 3, 0.3) == want).all()


def test_figures_say_what_the_numbers_say():
    found, truths = scene(1)
    vocab = ('background', 'cat', 'dog', 'cow', 'owl')
    best = choose_score(found, truths, vocab)
    title = draw_f1(found, truths, vocab).axes[0].get_title()
    report = evaluate_found(found, truths, vocab)
    assert f'{best["f1"]:.2f} at a score of {best["score"]:.2f}' in title
    black = next(x for x in draw_f1(found, truths, vocab).axes[0].lines if x.get_color() == 'black')
    assert black.get_ydata().max() == pytest.approx(best['f1'])
    at = np.flatnonzero(black.get_xdata() > best['score'])[-1]
    assert black.get_ydata()[at] == pytest.approx(best['f1'])
    assert (
        f'{report.map50:.3f} on average'
        in draw_precision_recall(found, truths, vocab).axes[0].get_title()
    )
    table = confusion_matrix(found, truths, 4, best['score'])
    right = table.diagonal().sum()
    assert right / table[1:].sum() == pytest.approx(best['recall'])
    assert right / table[:, 1:].sum() == pytest.approx(best['precision'])


def test_figures_of_eighty_classes_are_legible():
    "No more rows than can be read; names do not collide"
    found, truths = scene(2, 80, 60)
    vocab = ('background', *(f'a rather long name {i}' for i in range(1, 81)))
    table = confusion_matrix(found, truths, 80, 0.3)
    for fig, names in (
        (draw_confusion(table, vocab), 21),
        (draw_precision_recall(found, truths, vocab), 11),
        (draw_f1(found, truths, vocab), 12),
    ):
        FigureCanvasAgg(fig).draw()
        w, h = fig.get_size_inches()
        assert w <= 11
        assert h <= 10
        texts = fig.axes[0].get_yticklabels() if names == 21 else fig.legends[0].get_texts()
        assert len(texts) == names
        boxes = [t.get_window_extent() for t in texts]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))
    assert sum(int(t.get_text()) for t in draw_confusion(table, vocab).axes[0].texts) == table.sum()


# ---- files


def test_train_leaves_its_files(sets, tmp_path):
    """Beside the detector and under its name; a second run beside it touches none of them;
    --no-plots leaves the pictures out."""
    args = ['train', '--data', sets / 'voc', *QUICK, '--epochs', 2]
    code, out = run(*args, '--out', tmp_path / 'one.pt')
    assert code == 0, out
    assert 'one_plots/' in out, out
    with open(tmp_path / 'one.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    log = json.loads((tmp_path / 'one.json').read_text())
    assert [r['number'] for r in rows] == ['1', '2']
    assert float(rows[1]['map50']) == pytest.approx(log['epochs'][1]['map50'], abs=1e-5)
    assert {p.name for p in (tmp_path / 'one_plots').iterdir()} == {
        f'{n}.png'
        for n in ('training_curve', 'precision_recall', 'f1', 'confusion', 'contact_sheet')
    }
    for p in (tmp_path / 'one_plots').iterdir():
        assert min(Image.open(p).size) >= 190, p
    before = {p: p.read_bytes() for p in tmp_path.rglob('one*') if p.is_file()}
    code, out = run(*args[:-1], 1, '--out', tmp_path / 'two.pt', '--no-plots')
    assert code == 0
    assert 'two.csv' in out
    assert not (tmp_path / 'two_plots').exists()
    assert all(p.read_bytes() == b for p, b in before.items())


def test_unfinished_runs_are_all_kept(sets, tmp_path):
    "Each new run puts an unfinished one aside, under a name that is free"
    data, cfg = (
        load_dataset(sets / 'voc'),
        TrainConfig(arch='grid', weights='none', size=64, bs=4, frozen_epochs=0, epochs=2),
    )
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train_detector(data, cfg, False, tmp_path / 'x.pt', cbs=[Plug()])
    assert {p.name for p in tmp_path.glob('last*')} == {
        'last.ckpt',
        'last.old.ckpt',
        'last.old1.ckpt',
        'last.old2.ckpt',
    }


class Plug(Callback):
    "Ctrl-C in the second epoch"

    def before_batch(self):
        if self.training and self.epoch == 1:
            raise KeyboardInterrupt


def test_evaluate_draws_and_photos_of_all_sizes(sets, tmp_path):
    data = load_dataset(sets / 'voc')
    (tmp_path / 'look').mkdir()
    (tmp_path / 'look' / 'mine.txt').write_text('stays')
    code, out = run(
        'evaluate',
        '--data',
        sets / 'voc',
        '--detector',
        sets / 'd.pt',
        '--plots',
        tmp_path / 'look',
    )
    assert code == 0
    assert {p.name for p in (tmp_path / 'look').iterdir()} == {
        'precision_recall.png',
        'f1.png',
        'confusion.png',
        'contact_sheet.png',
        'mine.txt',
    }
    det = Detector.load(sets / 'd.pt')
    big = Image.new('RGB', (1600, 900), 'grey')
    odd = [
        replace(data.valid[0], image=big, size_hw=(900, 1600), boxes_px=data.valid[0].boxes_px * 9),
        *data.valid[1:3],
    ]
    write_plots(det, odd, det.find_in_records(odd, progress=False), tmp_path / 'odd')
    assert Image.open(tmp_path / 'odd' / 'contact_sheet.png').size[0] <= 3 * (2 * 320 + 2 + 10)


# ---- results


def measured(truth, results, only=None):
    "mAP and mAP50 by COCO's own tool"
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO(str(truth))
    ev = COCOeval(coco, coco.loadRes(str(results)), 'bbox')
    ev.evaluate()
    ev.accumulate()
    ev.summarize()
    return ev.stats[:2]


def generous(det):
    "The detector with truth among its detections, so that mAP is not nothing"
    real = det.find_in_records

    def found(records, **how):
        out = real(records, **how)
        for f, r in zip(out, records):
            h, w = r.size_hw
            n = len(r.labels)
            f['boxes_xyxy'] = torch.cat(
                [f['boxes_xyxy'], torch.tensor(r.boxes_px) / torch.tensor([w, h, w, h]) + 0.01]
            ).clamp(0, 1)
            f['labels'], f['scores'] = (
                torch.cat([f['labels'], torch.tensor(r.labels)]),
                torch.cat([f['scores'], torch.linspace(0.02, 0.9, n)]),
            )
        return out

    det.find_in_records = found
    return det


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_results_are_what_pycocotools_reads(sets, kind, tmp_path, monkeypatch):
    "Unchanged, against the set's own file where it has one; the same mAP"
    monkeypatch.setattr(
        'ssd_tutorial.commands.pick_detector', lambda *a: generous(Detector.load(sets / 'd.pt'))
    )
    code, out = run(
        'evaluate',
        '--data',
        sets / kind,
        '--json',
        tmp_path / 'r.json',
        '--results',
        tmp_path / 'res.json',
    )
    assert code == 0, out
    assert 'Wrote' in out, out
    ours, rows = (
        json.loads((tmp_path / 'r.json').read_text()),
        json.loads((tmp_path / 'res.json').read_text()),
    )
    truth = (
        sets / 'coco' / 'annotations' / 'instances_val.json'
        if kind == 'coco'
        else tmp_path / 'res_truth.json'
    )
    assert (tmp_path / 'res_truth.json').exists() == (kind == 'voc')
    assert measured(truth, tmp_path / 'res.json') == pytest.approx(
        [ours['map'], ours['map50']], abs=1e-4
    )
    assert ours['map50'] > 0.05
    if kind == 'coco':
        own = json.loads(truth.read_text())
        assert {r['image_id'] for r in rows} <= {i['id'] for i in own['images']}
        assert {r['category_id'] for r in rows} <= {c['id'] for c in own['categories']}
        assert min(r['category_id'] for r in rows) >= 11


def test_predict_takes_the_ids_of_the_photos_own_set(sets, tmp_path):
    "In the set's folder or in the folder of its pictures; elsewhere they are counted"
    own = json.loads((sets / 'coco' / 'annotations' / 'instances_val.json').read_text())
    number = {i['file_name']: i['id'] for i in own['images']}
    folder = sets / 'coco' / 'val'
    for photos in (folder, sets / 'coco'):
        code, out = run(
            'predict',
            photos,
            '--detector',
            sets / 'd.pt',
            *'--score 0 --no-pictures --out'.split(),
            tmp_path / 'p',
        )
        rows = [
            r
            for r in json.loads((tmp_path / 'p' / 'predictions.json').read_text())
            if r['file_name'] in number
        ]
        assert code == 0
        assert 'Image ids are those of coco' in out
        assert rows
        assert all(r['image_id'] == number[r['file_name']] and r['category_id'] >= 11 for r in rows)
    code, out = run(
        'predict',
        sets / 'voc' / 'JPEGImages',
        '--detector',
        sets / 'd.pt',
        *'--score 0 --no-pictures --out'.split(),
        tmp_path / 'p',
    )
    assert 'Image ids' not in out
    assert {
        r['image_id'] for r in json.loads((tmp_path / 'p' / 'predictions.json').read_text())
    } == set(range(14))


@pytest.fixture
def turned(sets, tmp_path):
    "The COCO folder, whose val file counts the same classes backwards"
    root = save_coco(load_dataset(sets / 'coco'), tmp_path / 'turned')
    path = root / 'annotations' / 'instances_val.json'
    d = json.loads(path.read_text())
    ids = [c['id'] for c in d['categories']]
    new = dict(zip(ids, reversed(ids)))
    for c in d['categories']:
        c['id'] = new[c['id']]
    for a in d['annotations']:
        a['category_id'] = new[a['category_id']]
    path.write_text(json.dumps(d))
    return root


@pytest.mark.parametrize('split', ['train', 'val'])
def test_results_have_the_ids_of_the_file_that_is_evaluated(
    sets, turned, split, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        'ssd_tutorial.commands.pick_detector', lambda *a: generous(Detector.load(sets / 'd.pt'))
    )
    code, out = run(
        'evaluate',
        '--data',
        turned,
        '--split',
        split,
        '--json',
        tmp_path / 'r.json',
        '--results',
        tmp_path / 'res.json',
    )
    assert code == 0, out
    assert "own image and category ids" in out, out
    assert not (tmp_path / 'res_truth.json').exists(), out
    ours = json.loads((tmp_path / 'r.json').read_text())
    assert ours['images'] == dict(train=8, val=6)[split]
    assert ours['map50'] > 0.05
    assert measured(
        turned / 'annotations' / f'instances_{split}.json', tmp_path / 'res.json'
    ) == pytest.approx([ours['map'], ours['map50']], abs=1e-4)


def test_predict_where_files_number_differently(sets, turned, tmp_path):
    """Each photo has the ids of its own file;
    where it stands in two under two numbers, they are counted, and that is said."""
    rows_of = lambda: json.loads((tmp_path / 'p' / 'predictions.json').read_text())
    code, out = run(
        'predict',
        turned,
        '--detector',
        sets / 'd.pt',
        *'--score 0 --no-pictures --out'.split(),
        tmp_path / 'p',
    )
    assert code == 0, out
    assert 'Image ids are those of turned' in out, out
    for split in ('train', 'val'):
        d = json.loads((turned / 'annotations' / f'instances_{split}.json').read_text())
        ids = {c['name']: c['id'] for c in d['categories']}
        number = {i['file_name']: i['id'] for i in d['images']}
        rows = [r for r in rows_of() if r['file_name'] in number]
        assert rows
        assert all(
            r['category_id'] == ids[r['category_name']] and r['image_id'] == number[r['file_name']]
            for r in rows
        )
    path = turned / 'annotations' / 'instances_train.json'
    d = json.loads(path.read_text())
    first = next((turned / 'val').iterdir()).name
    d['images'].append(dict(id=5000, file_name=f'../val/{first}', width=96, height=96))
    path.write_text(json.dumps(d))
    code, out = run(
        'predict',
        turned / 'val',
        '--detector',
        sets / 'd.pt',
        *'--score 0 --no-pictures --out'.split(),
        tmp_path / 'p',
    )
    assert code == 0, out
    assert f'{first} has two numbers' in out, out
    assert {r['image_id'] for r in rows_of()} == {*range(6)}, out


def test_evaluate_measures_the_train_split_whole(sets, tmp_path):
    "Val's pictures need not be there for it, and nothing is held out of train"
    save_coco(load_dataset(sets / 'coco'), tmp_path / 'half')
    for p in (tmp_path / 'half' / 'val').iterdir():
        p.unlink()
    code, out = run(
        'evaluate', '--data', tmp_path / 'half', '--split', 'train', '--detector', sets / 'd.pt'
    )
    assert code == 0, out
    assert '8 images' in out, out
    assert 'held out' not in out, out


def test_train_stops_at_a_copy_of_a_picture(sets, tmp_path):
    data = load_dataset(sets / 'voc')
    root = save_voc(data, tmp_path / 'copied')
    a, b = data.train[0].file_name, data.valid[0].file_name
    (root / 'JPEGImages' / b).write_bytes((root / 'JPEGImages' / a).read_bytes())
    code, out = run('train', '--data', root, *BRIEF, '--no-plots', '--out', tmp_path / 'd.pt')
    assert code == 2, out
    assert 'byte for byte' in out, out
    assert '--anyway' in out, out
    code, out = run(
        'train', '--data', root, *BRIEF, '--no-plots', '--anyway', '--out', tmp_path / 'd.pt'
    )
    assert code == 0, out
    assert 'ssd-tutorial doctor' in out, out


def test_evaluate_reads_only_its_split(sets, tmp_path):
    "Train's pictures are not there: val is measured all the same"
    data = load_dataset(sets / 'coco')
    save_coco(data, tmp_path / 'half')
    for p in (tmp_path / 'half' / 'train').iterdir():
        p.unlink()
    code, out = run('evaluate', '--data', tmp_path / 'half', '--detector', sets / 'd.pt')
    assert code == 0, out
    assert '6 images' in out, out


# ---- several sets, nothing to learn


def test_two_folders_are_one_set(sets, tmp_path):
    save_yolo(
        generated_data('multiscale', n_train=5, n_valid=3, seed=5, size=96), tmp_path / 'more'
    )
    code, out = run(
        'train',
        '--data',
        sets / 'voc',
        '--data',
        tmp_path / 'more',
        *BRIEF,
        '--no-plots',
        '--out',
        tmp_path / 'd.pt',
    )
    assert code == 0, out
    assert 'train 13, val 9' in out, out
    assert (
        len(
            json.loads(
                json.dumps(
                    torch.load(tmp_path / 'last.ckpt', weights_only=True)['about']['args']['data']
                )
            )
        )
        == 2
    )
    code, out = run(
        'evaluate',
        '--data',
        sets / 'coco',
        '--data',
        tmp_path / 'more',
        '--detector',
        tmp_path / 'd.pt',
        '--results',
        tmp_path / 'r.json',
    )
    assert code == 0, out
    assert '9 images' in out, out
    assert (tmp_path / 'r_truth.json').is_file(), out
    assert (
        len({i['id'] for i in json.loads((tmp_path / 'r_truth.json').read_text())['images']}) == 9
    )
    code, out = run('train', '--data', sets / 'voc', '--resume', '--out', tmp_path / 'd.pt')
    assert code == 2, out
    assert '--data is' in out, out


def test_nothing_to_learn_stops(sets, tmp_path):
    """One line and status 2 before the first epoch, unless --anyway;
    doctor writes its page and ends with status 1."""
    data = load_dataset(sets / 'voc')
    for records in data.splits.values():
        records[:] = [
            replace(
                r,
                boxes_px=r.boxes_px[:0],
                labels=r.labels[:0],
                difficult=r.difficult[:0],
                crowd=r.crowd[:0],
            )
            for r in records
        ]
    data.category_ids = None
    save_coco(data, tmp_path / 'bare')
    args = ['train', '--data', tmp_path / 'bare', *BRIEF, '--no-plots', '--out', tmp_path / 'd.pt']
    code, out = run(*args)
    assert code == 2, out
    assert not (tmp_path / 'd.pt').exists(), out
    assert 'STOP' in out, out
    assert out.strip().splitlines()[-1].startswith('Error: bare: No objects'), out
    assert '--anyway' in out, out
    code, out = run(*args, '--anyway')
    assert code == 0, out
    assert (tmp_path / 'd.pt').exists(), out
    code, out = run(
        'doctor',
        tmp_path / 'bare',
        '--out',
        tmp_path / 'page.html',
        '--json',
        tmp_path / 'page.json',
    )
    assert code == 1, out
    assert (tmp_path / 'page.html').is_file(), out
    assert (tmp_path / 'page.json').is_file(), out
    assert 'Do not train yet' in out, out


def test_a_class_without_objects_is_said(sets, tmp_path):
    data = load_dataset(sets / 'coco')
    data.vocab, data.category_ids = (*data.vocab, 'ghost'), (*data.category_ids, 99)
    save_coco(data, tmp_path / 's')
    code, out = run(
        'train', '--data', tmp_path / 's', *BRIEF, '--no-plots', '--out', tmp_path / 'd.pt'
    )
    assert code == 0, out
    assert 'ghost' in out, out


# ---- settings, own architectures, older checkpoints


@pytest.mark.parametrize(
    'slip,says',
    [
        (dict(keep='bset'), "give 'best' or 'last'"),
        (dict(lr='fidn'), "or 'find'"),
        (dict(strength=99), 'from 0 to 1'),
        (dict(lr=-1), 'above 0'),
        (dict(bs=0), 'from 1'),
        (dict(size='224'), 'whole number'),
        (dict(epochs=True), 'whole number'),
        (dict(ema=1), 'below 1'),
        (dict(lr=float('nan')), 'above 0'),
    ],
)
def test_settings_are_checked_when_they_are_made(slip, says):
    with pytest.raises(DetectorError, match=f'{next(iter(slip))}=.*{says}') as e:
        TrainConfig(**slip)
    assert '\n' not in str(e.value)


def test_an_architecture_of_ones_own(sets, tmp_path):
    "Its module stands in the file; loading without it says what to import, and never imports it"
    (tmp_path / 'my_nets.py').write_text(
        'from ssd_tutorial.grid import ARCHS, grid_model, register_arch\nprint("IMPORTED")\n'
        '@register_arch("mine", spec=ARCHS["grid"].spec)\n'
        'def mine(description, body): return grid_model(description, body)\n'
    )
    ours = os.environ.get('PYTHONPATH') or Path(__file__).resolve().parent.parent
    env = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ours}'}
    do = lambda code: subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    r = do(
        'import my_nets\nfrom ssd_tutorial.config import TrainConfig\n'
        'from ssd_tutorial.trainer import new_detector\n'
        'from ssd_tutorial.records import generated_data\n'
        'cfg = TrainConfig(arch="mine", weights="none", size=64)\n'
        'new_detector(generated_data("multiscale", 1, 1), cfg).save("m.pt")'
    )
    assert r.returncode == 0, r.stderr
    r = do(
        'from ssd_tutorial.config import DetectorError\n'
        'from ssd_tutorial.detector import Detector\n'
        'try: Detector.load("m.pt")\nexcept DetectorError as e: print(e)\n'
        'import my_nets\nprint(Detector.load("m.pt"))'
    )
    first, second, third = r.stdout.strip().splitlines()
    assert 'import my_nets first' in first, r.stdout + r.stderr
    assert second == 'IMPORTED', r.stdout + r.stderr
    assert third.startswith('Detector(mine on'), r.stdout + r.stderr


def test_an_older_checkpoint_goes_on(sets, tmp_path):
    """One data string, and options missing that came later:
    they stand at what `train` does where nothing is typed."""
    code, out = run(
        'train', '--data', sets / 'voc', *BRIEF, '--no-plots', '--out', tmp_path / 'd.pt'
    )
    assert code == 0, out
    last = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    args = last['about']['args']
    args['data'] = args['data'][0]
    for k in (
        'negatives',
        'with_val',
        'max_steps',
        'unfrozen_lr',
        'gamma',
        'device',
        'no_plots',
        'anyway',
        'unlabelled',
    ):
        del args[k]
    torch.save(last, tmp_path / 'last.ckpt')
    args, where = resumed_args({'data': (str(sets / 'voc'),)}, tmp_path / 'd.pt')
    assert args['data'] == [str(sets / 'voc')]
    assert (
        args['negatives'],
        args['with_val'],
        args['max_steps'],
        args['unfrozen_lr'],
        args['gamma'],
        args['device'],
    ) == (None, False, None, None, None, 'auto')
    assert settings_of(last).gamma == 2
    json.dumps(args)
    code, out = run('train', '--resume', '--out', tmp_path / 'd.pt', '--device', 'cpu')
    assert code == 0, out
    assert 'Nothing to go on with' in out, out
    (tmp_path / 'd.json').unlink()
    code, out = run('train', '--resume', '--out', tmp_path / 'd.pt')
    assert code == 0, out
    assert (tmp_path / 'd.json').is_file(), out


# ---- surroundings


def python(code, *flags, **more):
    return subprocess.run(
        [sys.executable, *flags, '-c', code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            'PYTHONPATH': os.environ.get('PYTHONPATH')
            or str(Path(__file__).resolve().parent.parent),
        },
        **more,
    )


def test_commands_work_where_nobody_listens(sets, tmp_path):
    "sys.stdout and sys.stderr are None under pythonw and in services"
    lines = [
        [
            'evaluate',
            '--data',
            sets / 'voc',
            '--detector',
            sets / 'd.pt',
            '--json',
            tmp_path / 'r.json',
        ],
        [
            'predict',
            sets / 'voc' / 'JPEGImages',
            '--detector',
            sets / 'd.pt',
            '--out',
            tmp_path / 'p',
            '--no-pictures',
        ],
        ['predict', 'gone.jpg'],
        ['train'],
    ]
    r = python(
        'import sys, json; sys.stdout = sys.stderr = None\n'
        'from ssd_tutorial.cli import main\ncodes = []\n'
        f'for args in {[[str(a) for a in l] for l in lines]!r}:\n'
        '    try: main(args)\n    except SystemExit as e: codes.append(e.code)\n'
        f'open({str(tmp_path / "codes.json")!r}, "w").write(json.dumps(codes))'
    )
    assert r.returncode == 0, r.stderr
    assert json.loads((tmp_path / 'codes.json').read_text()) == [0, 0, 2, 2]
    assert (tmp_path / 'r.json').is_file()
    assert (tmp_path / 'p' / 'predictions.json').is_file()


def test_no_warning_of_a_dependency_is_seen():
    "Importing any module, and predicting, says nothing; the user's own warnings still show"
    names = sorted(
        p.stem
        for p in (Path(__file__).resolve().parent.parent / 'ssd_tutorial').glob('*.py')
        if p.stem
        in (
            'augment',
            'training',
            'detector',
            'ssd300',
            'multibox',
            'ssd_recipe',
            'ported',
            'cli',
            'doctor',
            'mistakes',
            'mistake_costs',
            'operating_point',
        )
    )
    for first in ('detector', 'training'):
        code = ''.join(f'import ssd_tutorial.{n}\n' for n in (first, *names)) + (
            'from ssd_tutorial.detector import Detector; import numpy as np\n'
            'Detector.pretrained().predict(np.zeros((9,9,3), np.uint8))'
        )
        r = python(code, '-W', 'always')
        assert r.returncode == 0, r.stderr
        assert r.stderr == '', r.stderr
    r = python(
        'import ssd_tutorial.detector, torch; torch.jit.script(torch.nn.ReLU())', '-W', 'always'
    )
    assert 'torch.jit.script' in r.stderr
