#!/usr/bin/env python
"""Five ways to treat rare classes, on the same cached maps: lesson 21's table

    python benchmarks/balance.py --cache DIR                 generated set `rare`, three seeds
    python benchmarks/balance.py --cache DIR --data FOLDER   photographs too, two classes thinned
    python benchmarks/balance.py --seeds 0 --methods none repeat

The body is frozen; its maps are computed once and kept in --cache. A run is written to
balance.json as it ends, so that the script may be stopped and started again.
"""

import argparse, itertools, json, random, sys, warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

warnings.filterwarnings('ignore')
HERE = Path(__file__).resolve().parent
for folder in (HERE.parent, HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import scoreboard as board  # noqa: E402
import torch  # noqa: E402
from ssd_tutorial.batches import make_dls  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402
from ssd_tutorial import balance as B  # noqa: E402
from ssd_tutorial.body import make_body  # noqa: E402
from ssd_tutorial.cache import CachedFeatures, CachedLoader, cache_features  # noqa: E402
from ssd_tutorial.focal import make_focal  # noqa: E402
from ssd_tutorial.grid import bce  # noqa: E402
from ssd_tutorial.metrics import evaluate_found  # noqa: E402
from ssd_tutorial.readers import load_dataset  # noqa: E402
from ssd_tutorial.records import generated_data  # noqa: E402
from ssd_tutorial.ssd import ssd_spec  # noqa: E402
from ssd_tutorial.system import save_whole  # noqa: E402
from ssd_tutorial.training import freeze_body, make_learner  # noqa: E402

OUT = HERE.parent / 'ssd_tutorial' / 'balance.json'
THINNED = ('horse', 'sheep')
METHODS = ('none', 'inverse', 'effective', 'repeat', 'focal')
SETS = dict(
    rare=dict(n_train=600, n_valid=1500, variants=3, epochs=12, levels=(3, 4)),
    photographs=dict(n_train=1000, share=0.05, variants=2, epochs=16, levels=(4,)),
)
SHARED = dict(arch='ssd', width=32, bs=16, lr=2e-3, strength=0.3)


def thinned(data, names, share, most, seed=0):
    "`most` images of train in which each of `names` keeps `share` of its images; val as it is"
    rng, at = random.Random(seed), [data.vocab.index(n) for n in names]
    rows = rng.sample(data.train, len(data.train))
    first = [next((l for l in at if l in r.labels), None) for r in rows]
    few = []
    for label in at:
        own = [r for r, l in zip(rows, first) if l == label]
        few += own[: round(share * len(own))]
    rest = [r for r, l in zip(rows, first) if l is None]
    return replace(data, splits=dict(train=few + rest[: most - len(few)], val=data.valid))


def images(name, folder):
    "The data set of a name"
    s = SETS[name]
    if name == 'rare':
        return generated_data('rare', s['n_train'], s['n_valid'])
    return thinned(load_dataset(folder), THINNED, s['share'], s['n_train'])


def maps_of(name, folder, cache):
    "Vocabulary; maps of a frozen body (strides 16 and 32): train in variants, val"
    path = Path(cache) / f'balance-{name}.pt'
    if path.is_file():
        return torch.load(path, weights_only=False)
    data = images(name, folder)
    set_seed(0)
    body = make_body(levels=(3, 4)).freeze()
    kw = dict(bs=32, device='cpu')
    plain, varied = (make_dls(data, strength=s, **kw) for s in (None, SHARED['strength']))
    passed = partial(cache_features, body, progress=False, bf16=True)
    train = passed(plain.train.new(shuffle=False, drop_last=False)).variants
    train += passed(varied.train, SETS[name]['variants'] - 1).variants
    out = data.vocab, (train, passed(plain.valid).variants)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(out, path)
    return out


def row_of(levels):
    "The network as a row of the scoreboard: its scores begin at the prior"
    cells = [224 // 2 ** (level + 1) for level in levels]
    return board.Row('21', 'rare classes', SHARED['arch'], ssd_spec(cells), levels)


def treated(method, loader, vocab):
    "The class loss of a method; `repeat` changes how the loader draws"
    if method == 'focal':
        return make_focal()
    if method in ('none', 'repeat'):
        if method == 'repeat':
            print(B.balance_training('repeat', loader, bce, vocab)[1])
        return bce
    counts = B.objects_per_class(B.train_labels(loader.dataset), len(vocab) - 1)
    weights = B.class_weights(counts, 1) if method == 'inverse' else B.class_weights(counts)
    return B.weigh_classes(bce, weights)


def loaders(maps, levels, seed):
    "Batches of the levels that a network reads"
    pick = lambda vs: CachedFeatures([[([m[l - 3] for l in levels], t) for m, t in v] for v in vs])
    kw = dict(seed=seed, bs=SHARED['bs'], shuffle=True, drop_last=True)
    return DataLoaders(
        CachedLoader(pick(maps[0]), **kw), CachedLoader(pick(maps[1]), bs=50), device='cpu'
    )


def train(method, vocab, maps, epochs, levels, seed):
    "Train from one seed: AP50 of each class, and the means"
    set_seed(seed)
    row, dls = row_of(levels), loaders(maps, levels, seed)
    model = board.network(row, len(vocab) - 1, SHARED['width'])
    loss = model.loss_func(cls_loss=treated(method, dls.train, vocab))
    learn = make_learner(dls, model, loss, cbs=[board.NoValidation()])
    with learn.no_bar(), learn.no_logging():
        freeze_body(learn)
        learn.fit_one_cycle(epochs, SHARED['lr'])
    report = evaluate_found(*board.found_by(model, row, dls.valid), vocab)
    per_class = {n: round(float(ap), 4) for n, ap in report.per_class.items()}
    means = dict(map50=round(float(report.map50), 4), map=round(float(report.map), 4))
    return dict(means, per_class=per_class)


def note(name, vocab, maps, method, seed, figures):
    "Write one run into the file"
    found = board.read(OUT)
    counted = {
        key: B.objects_per_class(B.train_labels(CachedFeatures(part)), len(vocab) - 1).tolist()
        for key, part in zip(('train', 'val'), maps)
    }
    about = dict(settings=dict(SETS[name], **SHARED), vocab=list(vocab[1:]), objects=counted)
    part = found.setdefault(name, dict(about, runs={}))
    part['runs'].setdefault(method, {})[str(seed)] = figures
    save_whole((json.dumps(found, indent=1, ensure_ascii=False) + '\n').encode(), OUT)


def done(name, method, seed):
    return str(seed) in board.read(OUT).get(name, {}).get('runs', {}).get(method, {})


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data', help='folder of photographs to measure on, too')
    p.add_argument('--cache', default=HERE / '.cache', help='where maps are kept')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=METHODS, help='all')
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='0 1 2')
    a = p.parse_args()
    names = list(SETS) if a.data else ['rare']
    made = {name: maps_of(name, a.data, a.cache) for name in names}
    for seed, name, method in itertools.product(a.seeds, names, a.methods):
        if done(name, method, seed):
            continue
        vocab, maps = made[name]
        figures = train(method, vocab, maps, *(SETS[name][k] for k in ('epochs', 'levels')), seed)
        note(name, vocab, maps, method, seed, figures)
        print(name, method, seed, figures, flush=True)


if __name__ == '__main__':
    main()
