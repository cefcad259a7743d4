#!/usr/bin/env python
"""Put a trained detector into the package, with a card whose figures are measured here

    python tools/ship.py look --detector RUN/animals.pt --data DIR --out private/look
        fifty surest mistakes as pages, to be judged by eye
    python tools/ship.py pack --detector RUN/animals.pt --data DIR \\
        --notes tools/animals.json --log RUN/animals.json

`look` writes pages of pictures and a list; what each of the fifty is in truth goes into the notes,
in that order: file, name that it was given, judgement. `pack` measures the detector on val (with
`--measured FILE`: another one, of the same recipe, that has not learnt from val), and writes
ssd_tutorial/weights/NAME.pt, NAME.json and NAME.md.
"""

import argparse, json, sys, warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

warnings.filterwarnings('ignore')
ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402
import torch  # noqa: E402

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from ssd_tutorial.reports import count_objects  # noqa: E402
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.detector import Detector  # noqa: E402
from ssd_tutorial.data_checks import find_twins
from ssd_tutorial.looks import examine_all  # noqa: E402
from ssd_tutorial.mistake_costs import analyse_errors  # noqa: E402
from ssd_tutorial.mistakes import MISTAKES, show_mistake  # noqa: E402
from ssd_tutorial.operating_point import choose_score  # noqa: E402
from ssd_tutorial.metrics import evaluate_found, truth_of  # noqa: E402
from ssd_tutorial.cards import card_text  # noqa: E402
from ssd_tutorial.pretrained import ship
from ssd_tutorial.readers import load_dataset  # noqa: E402

# judgements where the detector was right
RIGHT = ('an animal that nobody labelled', 'the label is at fault')
WEIGHTS = ROOT / 'ssd_tutorial' / 'weights'
# what the card keeps of each trial
TRIED = ('reach', 'map50', 'map', 'small', 'medium', 'large', 'ms', 'minutes')


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=['look', 'pack'])
    p.add_argument('--detector', required=True, type=Path, help='to ship')
    p.add_argument(
        '--measured', type=Path, help='to measure in its place: of the same recipe, without val'
    )
    p.add_argument('--data', required=True, help='folder of the data set')
    p.add_argument('--out', type=Path, help='folder for the pages of `look`')
    p.add_argument(
        '--notes', type=Path, help='JSON: what a person has to say, see CARD in lesson 18'
    )
    p.add_argument(
        '--log',
        type=Path,
        help='JSON that train wrote beside the measured detector; '
        'beside the one to ship there must be one, too',
    )
    p.add_argument(
        '--elsewhere', help='folder of another data set: how does the detector do there?'
    )
    p.add_argument(
        '--splits',
        nargs='+',
        help='its splits whose pictures are strangers to the detector; all, where not given',
    )
    p.add_argument(
        '--only-objects',
        nargs='+',
        default=[],
        help='its splits of which only the pictures with objects of our classes are strangers: '
        'the others went into the training as empty ones',
    )
    p.add_argument(
        '--before',
        type=Path,
        nargs='*',
        default=[],
        help='earlier detectors, oldest first, their logs beside them: '
        'course and figures are kept, and they are measured elsewhere, too',
    )
    p.add_argument(
        '--again',
        type=Path,
        nargs='*',
        default=[],
        help='JSON that train wrote when the same command ran with other seeds: '
        'how far does luck go?',
    )
    p.add_argument(
        '--trials', type=Path, help='results of benchmarks/recipes.py: what was tried on the way'
    )
    p.add_argument('--name', default='animals')
    return p.parse_args()


def surest(report, n=50):
    "The most confident detections that count as false, of every kind"
    false = [m for k in MISTAKES if k != 'missed' for m in report.worst(k, n)]
    return sorted(false, key=lambda m: -m.score)[:n]


def look(found, truths, data, det, out):
    "Pages of ten mistakes, and the list of them"
    out.mkdir(parents=True, exist_ok=True)
    worst = surest(analyse_errors(found, truths, det.vocab))
    lines = []
    for page in range(0, len(worst), 10):
        fig, axs = plt.subplots(2, 5, figsize=(20, 9), layout='constrained')
        for i, (m, ax) in enumerate(zip(worst[page : page + 10], axs.flat), page):
            r = data.valid[m.image]
            show_mistake(r.load(), m, ax)
            ax.set_title(f'{i}: {m}', fontsize=11)
            lines.append(f'{i}: {r.file_name}: {m}')
        fig.savefig(out / f'mistakes_{page:02}.png', dpi=60)
        plt.close(fig)
    (out / 'mistakes.txt').write_text('\n'.join(lines) + '\n')
    print(f'Wrote {len(worst)} mistakes into {out}.')


def judgements(worst, judged, data):
    """What a person found each of the surest mistakes to be, in their order;
    leaves where the notes speak of others."""
    seen = [[data.valid[m.image].file_name, m.predicted] for m in worst]
    told = [j[:2] for j in judged]
    if seen != told:
        sys.exit(
            f'The notes judge {len(told)} mistakes, not all of them the {len(seen)} surest of this '
            'detector, or in another order: judge again with `look`.'
        )
    return [j[2] for j in judged]


def without(found, worst, judged, vocab):
    "The detections without those that a person found to be right"
    gone = {
        (m.image, m.predicted, round(float(m.score), 6))
        for m, j in zip(worst, judged, strict=True)
        if j in RIGHT
    }
    out = []
    for i, f in enumerate(found):
        keep = [
            (i, vocab[c], round(s, 6)) not in gone
            for c, s in zip(f['labels'].tolist(), f['scores'].tolist())
        ]
        out.append({k: v[keep] for k, v in f.items()})
    if sum(len(f['labels']) for f in found) - sum(len(f['labels']) for f in out) != len(gone):
        sys.exit('A judged detection is not there, or there twice: judge again with `look`.')
    return out


def counts(data):
    "Images and objects of each split"
    return {
        s: dict(images=len(rs), objects=dict(count_objects(rs, data.vocab, True)))
        for s, rs in data.splits.items()
    }


def elsewhere(det, args):
    """mAP on another data set, and how many of its pictures without our classes get a detection all
    the same."""
    data = load_dataset(args.elsewhere)
    of = lambda splits: det.relabel([r for s in splits for r in data.split(s)], data.vocab)
    splits = args.splits or list(data.splits)
    records = of(splits) + [r for r in of(args.only_objects) if len(r.labels)]
    found, objects = det.find_in_records(records), count_objects(records, det.vocab, True)
    best = [
        max(f['scores'].tolist(), default=0.0) for r, f in zip(records, found) if not len(r.labels)
    ]
    report = evaluate_found(found, truth_of(records), det.vocab)
    return dict(
        score=det.score,
        name=data.name,
        splits=splits,
        only_objects=args.only_objects,
        images=len(records),
        per_class={n: [report.per_class[n], objects[n]] for n in det.vocab[1:]},
        objects=report.objects,
        map50=report.map50,
        without=len(best),
        alarms={f'{s:.2f}': sum(b >= s for b in best) for s in sorted({det.score, 0.3, 0.4, 0.5})},
    )


def before(path, args):
    "Settings, epochs and figures of an earlier detector, and how it does elsewhere"
    log, det = json.loads(path.with_suffix('.json').read_text()), Detector.load(path)
    score = log['score']
    det.score = round(score['score'] if isinstance(score, dict) else score, 2)
    return dict(
        settings=log['settings'],
        epochs=log['epochs'],
        figures=log.get('report') or log['figures'],
        elsewhere=elsewhere(det, args) if args.elsewhere else None,
    )


def only_differ(one, other, keys, path):
    """Leave unless two trainings have the same settings but for `keys`;
    what an older version did not write down had its default."""
    one, other = (dict(asdict(TrainConfig()), **s) for s in (one, other))
    changed = {k for k in one | other if one.get(k) != other.get(k)} - {'asked'}
    if not changed <= set(keys):
        sys.exit(f'{path}: another training; what differs: {", ".join(sorted(changed))}')


def again(path, log):
    "Figures and epochs of the same training from another seed"
    other = json.loads(path.read_text())
    only_differ(log['settings'], other['settings'], ['seed'], path)
    if other['settings']['seed'] == log['settings']['seed']:
        sys.exit(f'{path}: the same seed')
    return dict(
        seed=other['settings']['seed'],
        settings=other['settings'],
        figures=other['report'],
        epochs=other['epochs'],
    )


def trials(path):
    "Rows of a table of recipes, one a row name: what it changes, and its figures, one a seed"
    runs, rows = json.loads(path.read_text()) if path else [], {}
    for r in (r for r in runs if not r.get('max_steps')):
        row = rows.setdefault(
            (r['row'], r['one_norm']),
            dict(
                row=r['row'],
                one_norm=r['one_norm'],
                changes=r['changes'],
                anchors=r['anchors'],
                seeds=[],
                **{k: [] for k in TRIED},
            ),
        )
        row['seeds'].append(r['seed'])
        for k in TRIED:
            row[k].append(round(r[k], 6))
    return list(rows.values())


def pack(found, truths, data, det, shipped, args):
    "Measure, write the card, put both onto the shelf"
    notes, log = json.loads(args.notes.read_text()), json.loads(args.log.read_text())
    errors = analyse_errors(found, truths, det.vocab)
    worst = surest(errors)
    judged = judgements(worst, notes.pop('judged'), data)
    best = {k: v for k, v in choose_score(found, truths, det.vocab).items() if k != 'per_class'}
    det.score = shipped.score = round(best['score'], 2)
    settings = json.loads(args.detector.with_suffix('.json').read_text())['settings']
    only_differ(log['settings'], settings, ['with_val'], args.log)
    facts = examine_all(data.splits, data.vocab)
    of = lambda s: [f for f in facts if f.split == s and f.record is not None]
    copies = {t[0].record.image_id for t in find_twins(of('val'), of('train'))}
    keep = [i for i, r in enumerate(data.valid) if r.image_id not in copies]
    card = dict(
        notes,
        settings=settings,
        trained_on='train and val' if settings['with_val'] else 'train',
        measured_without='--with-val' if settings['with_val'] else None,
        epochs=log['epochs'],
        figures=evaluate_found(found, truths, det.vocab).to_dict(),
        figures_without_copies=evaluate_found(
            [found[i] for i in keep], [truths[i] for i in keep], det.vocab
        ).to_dict(),
        score=det.score,
        threshold=best,
        memory=shipped.evaluate(data.valid).map50 if settings['with_val'] else None,
        errors=errors.to_dict(),
        fifty_false_positives=dict(Counter(judged).most_common()),
        data_counts=counts(data),
        elsewhere=elsewhere(shipped, args) if args.elsewhere else None,
        elsewhere_measured=elsewhere(det, args) if args.elsewhere and det is not shipped else None,
        before=[before(p, args) for p in args.before],
        again=[again(p, log) for p in args.again],
        trials=trials(args.trials),
        map50_without_unlabelled=evaluate_found(
            without(found, worst, judged, det.vocab), truths, det.vocab
        ).map50,
    )
    pictures = torch.stack([shipped.input_of(r.load()) for r in data.valid[::50]])
    result = ship(shipped, card, WEIGHTS / f'{args.name}.pt', pictures)
    card = json.loads((WEIGHTS / f'{args.name}.json').read_text())
    (WEIGHTS / f'{args.name}.md').write_text(
        f'# The detector *{args.name}*\n\n<!-- written by tools/ship.py -->\n\n{card_text(card)}\n'
    )
    print(result)


def main():
    args = arguments()
    data = load_dataset(args.data)
    shipped = Detector.load(args.detector)
    det = Detector.load(args.measured) if args.measured else shipped
    found, truths = det.find_in_records(data.valid), truth_of(data.valid)
    if args.what == 'look':
        look(found, truths, data, det, args.out or ROOT / 'private' / 'look')
    else:
        pack(found, truths, data, det, shipped, args)


if __name__ == '__main__':
    main()
