#!/usr/bin/env python
"""What each idea is worth: one table of rows, lesson by lesson, on the same images

    python benchmarks/scoreboard.py                      every row on the generated set, three seeds
    python benchmarks/scoreboard.py --data DIR           the same on photographs (train and val)
    python benchmarks/scoreboard.py --rows 10 11 --seeds 0 1
    python benchmarks/scoreboard.py --rows atss --out ssd_tutorial/matchers.json  lesson 20d's
    python benchmarks/scoreboard.py --epochs 10 --seeds 0  where is a row on its way? kept beside it
    python benchmarks/scoreboard.py --quick              tiny; prints, writes nothing: does it work?
    python benchmarks/scoreboard.py --table              scoreboard.json as a table: scoreboard.md

All rows share images, epochs, width, learning rate and batch; the body is frozen, its maps are
computed once and kept in --cache. A row is written as it ends: a run may be stopped and resumed.
"""

import argparse, json, statistics, sys, tempfile, time, warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

warnings.filterwarnings('ignore')
HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from ssd_tutorial.batches import make_dls, unpad  # noqa: E402
from fastai.callback.core import Callback, CancelValidException  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402
from ssd_tutorial.anchors import AnchorSpec, GRID16, MULTI, spec_to_dict  # noqa: E402
from ssd_tutorial.body import make_body  # noqa: E402
from ssd_tutorial.boxes import iou  # noqa: E402
from ssd_tutorial.config import find_arch  # noqa: E402
from ssd_tutorial.fcos import fcos_spec  # noqa: E402
from ssd_tutorial.focal import make_focal, prior_bias  # noqa: E402
from ssd_tutorial.fpn import fpn_spec  # noqa: E402
from ssd_tutorial.grid import bce, build_arch, softmax_loss  # noqa: E402
from ssd_tutorial.largest import LargestLoss, LargestModel  # noqa: E402
from ssd_tutorial.metrics import evaluate_found  # noqa: E402
from ssd_tutorial.multiscale import multi_spec  # noqa: E402
from ssd_tutorial import nms  # noqa: E402, F401  gives models `decode`
from ssd_tutorial.own_anchors import choose_anchors  # noqa: E402
from ssd_tutorial.readers import load_dataset  # noqa: E402
from ssd_tutorial.recipes import find_matcher  # noqa: E402
from ssd_tutorial.ssd import ssd_spec  # noqa: E402
from ssd_tutorial.records import generated_data  # noqa: E402
from ssd_tutorial.multibox import multibox  # noqa: E402
from ssd_tutorial.cache import CachedFeatures, CachedLoader, cache_features  # noqa: E402
from ssd_tutorial.system import save_whole  # noqa: E402
from ssd_tutorial.steps import BFloat16  # noqa: E402
from ssd_tutorial.training import freeze_body, make_learner  # noqa: E402

OUT = HERE.parent / 'ssd_tutorial' / 'scoreboard.json'
FIGURES = dict(map50='mAP50', map='mAP', small='AP small', crowd='recall in crowds')


@dataclass(frozen=True)
class Row:
    "A detector of the table"

    lesson: str  # that builds it
    title: str  # in the table and under its bar
    arch: str = 'multiscale'  # a key of `ARCHS`, or 'largest'
    spec: AnchorSpec = None  # its anchors; None: lesson 07 has none
    levels: tuple = (3, 4)  # of the body: strides 16 and 32
    loss: object = bce  # (logits, labels) → sum
    activation: str = 'sigmoid'  # of the class scores
    prior: float = 0.01  # score of the untrained model; None: bias 0, a half
    variants: int = 1  # of each training image: the plain one, then augmented ones
    top_down: bool = True  # of the feature pyramid
    boosters: int = 0  # convolutions before the heads of the body's maps, `ssd` only
    whole: int = 0  # epochs more in which the body learns too, behind stride 8
    bar: bool = True  # a step of the staircase, drawn by `scoreboard`
    matcher: str = 'unique'  # which anchor learns which object, a key of `MATCHERS`
    threshold: float = 0.5  # of the matcher
    neg_threshold: float = None  # anchors from here to the threshold are ignored; None: no band
    anchors: str = 'default'  # or 'proposed': fitted to the training images (lesson 20c)


DENSE = multi_spec(zoom=2.0)
FINE, FINER = fpn_spec([14, 7]), fpn_spec([28, 14, 7])
LOSS = partial(Row, '12', spec=DENSE, bar=False)
PYRAMID = partial(Row, '16', arch='fpn', spec=FINE, variants=4)
ANY = partial(Row, '20', arch='ssd', spec=ssd_spec([14, 7]), variants=4, bar=False)
ANY_FINE = partial(ANY, spec=ssd_spec([28, 14, 7]), levels=(2, 3, 4))
SOFTMAX = dict(activation='softmax')
ROWS = {
    '07': Row('07', 'largest object only', 'largest', levels=(4,)),
    '10': Row('10', '16 anchors', 'grid', GRID16, prior=None),
    '11-cell': Row('11', '3150 anchors, one cell wide', spec=MULTI, prior=None, bar=False),
    '11': Row('11', '3150 anchors, two cells wide', spec=DENSE, prior=None),
    '12-softmax': LOSS('softmax over all anchors', loss=softmax_loss, **SOFTMAX),
    '12-mining': LOSS('softmax, hard negatives 3:1', loss=multibox, **SOFTMAX),
    '12-focal0': LOSS('focal loss without the prior', loss=make_focal(), prior=None),
    '12-focal': LOSS('focal loss with the prior', loss=make_focal()),
    '12-cell': LOSS('BCE with the prior, one cell wide', spec=MULTI),
    '12': LOSS('BCE with the prior', bar=True),
    '15-focal': Row(
        '15', 'augmented images, focal loss', spec=DENSE, loss=make_focal(), variants=4, bar=False
    ),
    '15': Row('15', 'augmented images', spec=DENSE, variants=4),
    '16-flat': PYRAMID('the pyramid without top-down', top_down=False, bar=False),
    '16-focal': PYRAMID('the pyramid with focal loss', loss=make_focal(), bar=False),
    '16': PYRAMID('pyramid from stride 16'),
    '16-fine': PYRAMID('pyramid from stride 8', spec=FINER, levels=(2, 3, 4)),
    '18': replace(
        PYRAMID('4 epochs more, the body learns'), lesson='18', whole=4, bar=False
    ),  # more epochs than the others: no step of the staircase
    '20': ANY('SSD from stride 16'),
    '20-boost': ANY('SSD from stride 16, 2 boosters', boosters=2),
    '20-fine': ANY_FINE('SSD from stride 8'),
    '20-fine-boost': ANY_FINE('SSD from stride 8, 2 boosters', boosters=2, bar=True),
    '20e': replace(
        PYRAMID('points from stride 8, no anchors', arch='fcos', spec=fcos_spec([28, 14, 7])),
        lesson='20e',
        levels=(2, 3, 4),
        bar=False,
    ),
}
MATCHED = partial(replace, ROWS['16'], lesson='20d', bar=False)
MATCHING = {  # measured by name only, in a file of their own: lesson 20d reads it
    'unique': MATCHED(title='unique, from 0.5'),
    'threshold': MATCHED(title='threshold, from 0.5', matcher='threshold'),
    'atss': MATCHED(title='atss', matcher='atss'),
    'unique-low': MATCHED(title='unique, from 0.4', threshold=0.4),
    'band': MATCHED(title='unique, from 0.5, ignored from 0.4', neg_threshold=0.4),
    'proposed': MATCHED(title='unique, from 0.5, proposed anchors', anchors='proposed'),
}
ALL = ROWS | MATCHING


@dataclass(frozen=True)
class Budget:
    "What all rows share"

    n_train: int = 600  # images, at most
    n_valid: int = 200  # likewise
    epochs: int = 40
    width: int = 64  # channels of neck and head
    lr: float = 2e-3  # peak of the one-cycle
    bs: int = 16  # images in a batch
    strength: float = 0.3  # of the augmentation


def images(data, budget):
    "The generated set, or the first images of a folder's train and val"
    if data is None:
        return generated_data('street', budget.n_train, budget.n_valid)
    found = load_dataset(data)
    return replace(
        found, splits=dict(train=found.train[: budget.n_train], val=found.valid[: budget.n_valid])
    )


def maps_of(data, budget, cache, variants=4):
    "Maps of a frozen body (strides 8, 16, 32): training images in variants, validation images"
    name = f'{Path(data).name if data else "street"}-{budget.n_train}-{budget.n_valid}'
    path = Path(cache) / f'{name}-{variants}.pt'  # vocabulary and maps
    if path.is_file():
        return torch.load(path, weights_only=False)
    found = images(data, budget)
    set_seed(0)
    body = make_body(levels=(2, 3, 4)).freeze()
    kw = dict(bs=32, device='cpu')
    plain, varied = (make_dls(found, strength=s, **kw) for s in (None, budget.strength))
    straight = plain.train.new(shuffle=False, drop_last=False)
    train = cache_features(body, straight, progress=False, bf16=True).variants
    if variants > 1:
        train += cache_features(
            body, varied.train, variants - 1, progress=False, bf16=True
        ).variants
    out = train, cache_features(body, plain.valid, progress=False, bf16=True).variants
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save((found.vocab, out), path)
    return found.vocab, out


def loaders(maps, row, bs, seed):
    "Batches of the levels that a row reads"
    pick = lambda vs: CachedFeatures(
        [[([m[l - 2] for l in row.levels], t) for m, t in v] for v in vs]
    )
    train, valid = pick(maps[0][: row.variants]), pick(maps[1])
    return DataLoaders(
        CachedLoader(train, seed=seed, bs=bs, shuffle=True, drop_last=len(train) > bs),
        CachedLoader(valid, bs=50),
        device='cpu',
    )


def with_anchors(row, maps):
    "A row with the anchors that it trains with: its own, or fitted to the plain training images"
    if row.anchors == 'default':
        return row
    targets = [t for _, t in maps[0][0]]
    boxes = torch.cat([t['boxes_xyxy'][t['labels'] > 0] for t in targets])
    alike = find_arch(row.arch).alike
    return replace(row, spec=choose_anchors(row.anchors, boxes, row.spec, alike)[0])


def matching(row, model):
    "What the loss of a row must know of its matching"
    matcher = find_matcher(row.matcher)(row, model.spec)
    return dict(matcher=matcher, threshold=row.threshold)


def network(row, n_classes, width):
    "An untrained detector on a frozen body"
    body = make_body(levels=row.levels)
    if row.arch == 'largest':
        return LargestModel(body, n_classes, width=4 * width)
    model = build_arch(
        dict(
            arch=row.arch,
            spec=spec_to_dict(row.spec),
            n_classes=n_classes,
            activation=row.activation,
            width=width,
            cells=[224 // 2 ** (level + 1) for level in row.levels],
            boosters=row.boosters,
        ),
        body,
    )
    if not row.top_down:
        model.neck.top_down = list
    if row.activation == 'sigmoid':
        bias = 0.0 if row.prior is None else prior_bias(row.prior)
        for head in model.heads:
            torch.nn.init.constant_(head.cls.bias, bias)
    return model


def named(preds):
    "Lesson 07's one answer an image, as detections"
    score, label = preds[0].float().softmax(1).max(1)
    boxes = preds[1].float()
    return [
        dict(boxes_xyxy=b[None][:l], scores=s[None][:l], labels=l[None][:l])
        for b, s, l in zip(boxes, score, label)
    ]


@torch.no_grad()
def found_by(model, row, batches):
    "Detections and truth of all validation images"
    found, truths = [], []
    for x, y in batches:
        preds = model.eval()(x)
        if row.arch == 'largest':
            found += named(preds)
        else:
            found += model.decode(preds, score=0.02)
        truths += unpad(y)
    return found, truths


def shares_cell(boxes_xyxy, cells=4):
    "(N,) bool: objects whose middle lies in one cell of a grid with another's"
    x, y = (
        ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2 * cells).long().clamp(max=cells - 1).unbind(1)
    )
    cell = y * cells + x
    return (cell[:, None] == cell).sum(1) > 1


def crowd_recall(found, truths, most=20):
    "Share of the objects in shared cells that are among the best detections of their image"
    hits = []
    for f, t in zip(found, truths):
        near = iou(t['boxes_xyxy'], f['boxes_xyxy'][:most]) >= 0.5
        right = f['labels'][:most] == t['labels'][:, None]
        hits += (near & right).any(1)[shares_cell(t['boxes_xyxy'])].tolist()
    return statistics.mean(map(float, hits)) if hits else float('nan')


class NoValidation(Callback):
    "Judge at the end only: it is the last epoch that counts"

    def before_validate(self):
        raise CancelValidException()


def fine_tune(model, row, loss, data, budget, seed):
    "Let the body learn as well, on images; returns their batches"
    dls = make_dls(data, bs=budget.bs, strength=budget.strength, seed=seed, device='cpu')
    learn = make_learner(dls, model, loss, cbs=[BFloat16(), NoValidation()])
    with learn.no_bar(), learn.no_logging():
        freeze_body(learn, False, below=8)
        learn.fit_one_cycle(row.whole, slice(budget.lr / 10, budget.lr / 2))
    return dls


def train(row, maps, vocab, budget, seed, data=None):
    "Train one row from one seed: its figures"
    set_seed(seed)
    start, dls = time.process_time(), loaders(maps, row, budget.bs, seed)
    row = with_anchors(row, maps)
    model = network(row, len(vocab) - 1, budget.width)
    loss = LargestLoss()
    if row.arch != 'largest':
        loss = model.loss_func(cls_loss=row.loss, **matching(row, model))
    learn = make_learner(dls, model, loss, cbs=[BFloat16(), NoValidation()])
    with learn.no_bar(), learn.no_logging():
        freeze_body(learn)
        learn.fit_one_cycle(budget.epochs, budget.lr)
    if row.whole:
        dls = fine_tune(model, row, loss, images(data, budget), budget, seed)
    found, truths = found_by(model, row, dls.valid)
    report = evaluate_found(found, truths, vocab)
    figures = dict(
        map50=report.map50,
        map=report.map,
        small=report.by_size['small'],
        crowd=crowd_recall(found, truths),
        seconds=time.process_time() - start,
    )
    return {k: round(float(v), 4 if k != 'seconds' else 0) for k, v in figures.items()}


def read(path):
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def epochs_of(board, name, path, budget):
    "Epochs of a file's table: those of its first result; in the scoreboard's own file, the default"
    if name in board:
        return board[name]['settings']['epochs']
    return Budget.epochs if Path(path) == OUT else budget.epochs


def note(path, name, key, figures, seed, budget):
    "Add one result to the file; at other epochs than the table's it goes to `convergence`"
    board = read(path)
    epochs = epochs_of(board, name, path, budget)
    part = board.setdefault(
        name, dict(settings=vars(replace(budget, epochs=epochs)), rows={}, convergence={})
    )
    if budget.epochs != epochs:
        part['convergence'].setdefault(key, {})[str(budget.epochs)] = figures['map50']
    else:
        part['rows'].setdefault(key, dict(seeds={}))['seeds'][str(seed)] = figures
        part['rows'] = {k: described(k, part['rows'][k]) for k in ALL if k in part['rows']}
    save_whole((json.dumps(board, indent=1, ensure_ascii=False) + '\n').encode(), path)


def described(key, row):
    "A row of the file: what it is, then its figures"
    about = dict(lesson=ALL[key].lesson, title=ALL[key].title, bar=ALL[key].bar)
    return about | summary(row)


def summary(row):
    "Mean and deviation of each figure over the seeds; the seeds stay as they are"
    seeds = row['seeds'].values()
    values = {k: [s[k] for s in seeds if s[k] == s[k]] for k in FIGURES}
    mean = {k: round(statistics.mean(v), 4) for k, v in values.items() if v}
    deviation = {k: round(statistics.stdev(v), 4) for k, v in values.items() if len(v) > 1}
    return dict(mean=mean, deviation=deviation, seeds=row['seeds'])


def markdown(board):
    "The whole file as tables"
    out = []
    for name, part in board.items():
        s = part['settings']
        out += [
            f'## {name}',
            '',
            f'{s["n_train"]} images to learn from, {s["n_valid"]} to judge '
            f'by, {s["epochs"]} epochs, width {s["width"]}, rate {s["lr"]}, body frozen.',
            '',
            '| lesson | detector | ' + ' | '.join(FIGURES.values()) + ' | seeds | s |',
            '|---|---|' + '---|' * (len(FIGURES) + 2),
        ]
        for row in part['rows'].values():
            cells = [
                (f'{row["mean"][k]:.3f}' if k in row['mean'] else '—')
                + (f' ± {row["deviation"][k]:.3f}' if k in row['deviation'] else '')
                for k in FIGURES
            ]
            seconds = statistics.mean(v['seconds'] for v in row['seeds'].values())
            out.append(
                f'| {row["lesson"]} | {row["title"]} | '
                + ' | '.join(cells)
                + f' | {len(row["seeds"])} | {seconds:.0f} |'
            )
        for key, curve in part.get('convergence', {}).items():
            said = ', '.join(f'{v:.3f} after {e} epochs' for e, v in curve.items())
            out += ['', f'Row {key}, mAP50 from seed 0: {said}.']
        out.append('')
    return '\n'.join(out)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data', help='folder with train and val; the generated set where not given')
    p.add_argument('--rows', nargs='+', choices=ALL, default=list(ROWS), help='all lessons')
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='0 1 2')
    p.add_argument('--epochs', type=int, default=Budget.epochs, help=f'{Budget.epochs}')
    p.add_argument('--train', type=int, default=Budget.n_train, help='images to learn from')
    p.add_argument('--width', type=int, default=Budget.width, help='channels of neck and head')
    p.add_argument('--quick', action='store_true', help='tiny; prints, writes nothing')
    p.add_argument('--table', action='store_true', help='write scoreboard.md and train nothing')
    p.add_argument('--again', action='store_true', help='measure rows anew that stand in the file')
    p.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir()) / 'ssd_scoreboard')
    p.add_argument('--out', type=Path, default=OUT, help='JSON to write')
    return p.parse_args()


def done(board, name, key, seed, budget, path=None):
    "Whether the file has this result already"
    part = board.get(name, {})
    if budget.epochs != epochs_of(board, name, path or OUT, budget):
        return str(budget.epochs) in part.get('convergence', {}).get(key, {})
    return str(seed) in part.get('rows', {}).get(key, {}).get('seeds', {})


def main():
    args = arguments()
    name = Path(args.data).name if args.data else 'generated'
    n_valid = 400 if args.data else 200
    budget = Budget(args.train, n_valid, args.epochs, args.width)
    if args.quick:
        budget, args.seeds = replace(budget, n_train=32, n_valid=50, epochs=1), [0]
    if not args.table:
        variants = max(ALL[key].variants for key in args.rows)
        vocab, maps = maps_of(args.data, budget, args.cache, variants)
        jobs = [(key, seed) for seed in args.seeds for key in args.rows]
        for i, (key, seed) in enumerate(jobs):
            if (
                not args.quick
                and not args.again
                and done(read(args.out), name, key, seed, budget, args.out)
            ):
                continue
            figures = train(ALL[key], maps, vocab, budget, seed, args.data)
            print(
                f'{i + 1}/{len(jobs)} {key:10} seed {seed}  '
                + '  '.join(f'{k} {v:.3f}' for k, v in figures.items()),
                flush=True,
            )
            if not args.quick:
                note(args.out, name, key, figures, seed, budget)
    if not args.quick:
        page = HERE / 'scoreboard.md' if args.out == OUT else args.out.with_suffix('.md')
        page.write_text(markdown(read(args.out)), encoding='utf-8')


if __name__ == '__main__':
    main()
