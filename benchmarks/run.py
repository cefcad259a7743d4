#!/usr/bin/env python
"""Measure the package against referees in one process; exit status 1 where a row is under its floor

python benchmarks/run.py
    all rows and figures; writes results.json, measured.json and README.md here
python benchmarks/run.py --rows
    all rows, and SSD300's memory against torchvision's; prints, writes nothing
python benchmarks/run.py --only NMS
    rows whose name contains NMS
python benchmarks/run.py --quick --out DIR
    tiny tensors, few repeats, floors not asked: does it work at all?
"""

import argparse, datetime, json, os, platform, sys, tempfile, time, warnings
from pathlib import Path

warnings.filterwarnings('ignore')
HERE = Path(__file__).resolve().parent
for p in (HERE.parent, HERE):
    if str(p) not in sys.path:
        sys.path.insert(0, str(p))

os.environ['SSD_TUTORIAL_CACHE'] = 'off'  # reading is measured, not recalling (lesson 03l)
import torch  # noqa: E402
import growth, measures, report  # noqa: E402, E401
from cases import CASES, TINY  # noqa: E402
from timing import by_turns  # noqa: E402
from tqdm import tqdm  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='tiny tensors, floors not asked')
    p.add_argument(
        '--rows',
        action='store_true',
        help="only what has a referee: the rows, and SSD300's memory; prints, writes nothing",
    )
    p.add_argument('--only', default='', help='rows whose name contains this, no further figures')
    p.add_argument('--repeats', type=int, default=15, help='turns of each row (15)')
    p.add_argument('--threads', type=int, help="torch's threads; its own default where not given")
    p.add_argument(
        '--out', type=Path, help='folder to write to; this one for a whole run, none with --only'
    )
    return p.parse_args()


def fault(row):
    "Why a row does not pass; empty where it does"
    if row['floor'] is not None and row['speedup'] < row['floor']:
        speed = f'{row["speedup"]:.2f} times as fast as its referee'
        return f'{row["name"]}: {speed}, floor {row["floor"]}'
    if row.get('limit_s') and row['ours_s'] > row['limit_s']:
        return f'{row["name"]}: {row["ours_s"]:.3f} s, limit {row["limit_s"]} s'
    return ''


def too_large(measured, quick=False):
    """Which training steps need more memory than they may;
    with tiny batches the programs outweigh them, and nobody asks how SSD300's compare."""
    step, ssd = measured['peak_memory_gib'], measured['ssd300_memory_gib']
    out = []
    if step >= 3:
        out.append(f'peak memory of a training step: {step:.2f} GiB, limit 3')
    return out + ([] if quick else more_than_theirs(ssd))


def more_than_theirs(ssd, scatter=0.03):
    """Whether a training step of SSD300 needs more memory than torchvision's,
    by more than runs differ."""
    if ssd['ours'] <= ssd['torchvision'] * (1 + scatter):
        return []
    return [
        f"peak memory of a training step of SSD300: {ssd['ours']:.3f} GiB, "
        f"torchvision's {ssd['torchvision']:.3f}"
    ]


def rows(args):
    "All rows, printed as they are measured"
    chosen = [c for c in CASES if args.only.lower() in c[0].lower()]
    out = []
    if not chosen:
        sys.exit(f'--only {args.only!r}: no such row; there are {", ".join(c[0] for c in CASES)}.')
    for name, case, settings, floor, limit, referee, load in chosen:
        ours, theirs = case(**{**settings, **(TINY[case.__name__] if args.quick else {})})
        turns = []
        with tqdm(
            total=args.repeats, desc=name, leave=False, disable=not sys.stderr.isatty()
        ) as bar:
            tick = lambda turns=turns, bar=bar: turns.append(bar.update())
            a, b = by_turns(ours, theirs, args.repeats, tick=tick, rest=settings.get('rest', 0))
        row = dict(name=name, ours_s=a, referee_s=b, speedup=b / a, floor=floor)
        out.append({**row, 'limit_s': limit, 'referee': referee, 'load': load, 'runs': len(turns)})
        print(
            f'{name:46} {a * 1e3:10.2f} ms {b * 1e3:10.2f} ms {b / a:8.2f} ×  '
            f'floor {floor if floor is not None else "—"}',
            flush=True,
        )
    return out


def figures(args):
    "Everything that has no referee"
    n = (24, 8) if args.quick else (160, 48)
    out = {}
    with (
        tempfile.TemporaryDirectory() as tmp,
        tqdm(total=7, leave=False, disable=not sys.stderr.isatty()) as bar,
    ):
        tmp = Path(tmp)
        data = measures.photos(tmp / 'photos', *n)
        parts = dict(
            readers=lambda: measures.readers(tmp, args.quick),
            pipeline=lambda: measures.pipeline(data, args.quick),
            body_ms_per_image=lambda: measures.body(args.quick),
            epoch=lambda: {f'{w} workers': measures.epoch(data, w) for w in (0, 2)},
            peak_memory_gib=lambda: measures.memory(args.quick),
            ssd300_memory_gib=lambda: measures.memory_ssd300(args.quick),
            caching=lambda: measures.caching(data, args.quick),
        )
        for name, part in parts.items():
            bar.set_description(name)
            start = time.perf_counter()
            out[name] = part()
            bar.update()
            said = json.dumps(out[name], default=float)
            print(f'{name} ({time.perf_counter() - start:.0f} s): {said}', flush=True)
    return out


def machine():
    import numpy, torchvision

    return dict(
        date=datetime.date.today().isoformat(),
        system=platform.system(),
        processor=platform.machine(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        numpy=numpy.__version__,
    )


def main():
    args = arguments()
    start = time.perf_counter()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.quick:
        args.repeats = min(args.repeats, 2)
    about = machine()
    print(', '.join(f'{k} {v}' for k, v in about.items()))
    table = rows(args)
    faults = [] if args.quick else [f for f in map(fault, table) if f]
    folder = args.out or (None if args.only or args.rows or args.quick else HERE)
    if args.only or args.rows:
        measured = None
        if args.rows and not args.quick:
            ssd = measures.memory_ssd300()
            faults += more_than_theirs(ssd)
            print(
                'peak memory of a training step of SSD300, GiB:',
                ', '.join(f'{k} {v:.3f}' for k, v in ssd.items()),
            )
    else:
        with tqdm(
            total=sum(map(len, growth.AXES.values())),
            desc='growth',
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:
            grown = growth.measure(args.quick, 1 if args.quick else 9, bar.update)
        print(
            'slopes at the large end:',
            {k: {n: round(s, 2) for n, s in g['slope'].items()} for k, g in grown.items()},
        )
        measured = dict(machine=about, growth=grown, **figures(args))
        if not args.quick:
            faults += growth.too_steep(grown)
        faults += too_large(measured, args.quick)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'results.json').write_text(
            json.dumps(table, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
        )
        if measured:
            measured['minutes'] = (time.perf_counter() - start) / 60
            (folder / 'measured.json').write_text(
                json.dumps(measured, indent=1, ensure_ascii=False, default=float) + '\n',
                encoding='utf-8',
            )
            growth.draw(measured['growth'], folder / 'growth.png')
            (folder / 'README.md').write_text(report.text(table, measured), encoding='utf-8')
    print(f'{(time.perf_counter() - start) / 60:.1f} minutes')
    for f in faults:
        print('UNDER ITS FLOOR', f)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
