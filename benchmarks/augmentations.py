#!/usr/bin/env python
"""What each preset of augmentation is worth on photographs: one table, three seeds

    python benchmarks/augmentations.py --data DIR           every preset that is not measured yet
    python benchmarks/augmentations.py --data DIR --presets imgaug mosaic --seeds 0
    python benchmarks/augmentations.py --quick --data DIR   tiny; prints, writes nothing

The body is frozen: its maps are computed once for every variant of a photograph, and kept in
--cache. All rows share photographs, steps, rates and the network of row 15 of scoreboard.py.
Results go to augmentations.json as they end; lesson 23b shows them.
"""

import argparse, json, sys, tempfile, warnings
from dataclasses import replace
from pathlib import Path

warnings.filterwarnings('ignore')
HERE = Path(__file__).resolve().parent
for folder in (HERE.parent, HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import scoreboard as board  # noqa: E402
import torch  # noqa: E402
from ssd_tutorial.batches import make_dls  # noqa: E402
from ssd_tutorial.body import make_body  # noqa: E402
from ssd_tutorial.cache import cache_features  # noqa: E402
from ssd_tutorial.system import save_whole  # noqa: E402

OUT = HERE.parent / 'ssd_tutorial' / 'augmentations.json'
PRESETS = {  # name → (preset, strength); none: the photographs as they are
    'none': None,
    'imgaug': ('imgaug', 0.7),
    'ssd': ('ssd', 1.0),
    'learned': ('learned', 1.0),
    'mosaic': ('mosaic', 0.7),
    'mixup': ('mixup', 0.7),
}


def maps_of(name, data, size, cache, variants):
    "Maps of a body that is frozen, of one preset: training variants, the plain one first"
    path = Path(cache) / f'{name}-{len(data.train)}-{len(data.valid)}-{variants}.pt'
    if path.is_file():
        return torch.load(path, weights_only=False)
    body = make_body(levels=(2, 3, 4)).freeze()
    how = dict(bs=32, device='cpu')
    if PRESETS[name] is None:
        dls = make_dls(data, size, strength=None, **how)
        plain = dls.train.new(shuffle=False, drop_last=False)
        out = [cache_features(body, x, bf16=True).variants[0] for x in (plain, dls.valid)]
    else:
        preset, strength = PRESETS[name]
        dls = make_dls(data, size, strength=strength, preset=preset, **how)
        out = cache_features(body, dls.train, variants - 1, bf16=True).variants
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(out, path)
    return out


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data', required=True, help='folder with train and val')
    p.add_argument('--presets', nargs='+', choices=PRESETS, default=list(PRESETS), help='all')
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='0 1 2')
    p.add_argument('--epochs', type=int, default=20, help='20')
    p.add_argument('--variants', type=int, default=6, help='of each photograph: 6')
    p.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir()) / 'ssd_presets')
    p.add_argument('--quick', action='store_true', help='tiny; prints, writes nothing')
    p.add_argument('--out', type=Path, default=OUT, help='JSON to write')
    return p.parse_args()


def main():
    args = arguments()
    budget = board.Budget(n_valid=400, epochs=args.epochs)
    if args.quick:
        budget, args.seeds = replace(budget, n_train=32, n_valid=40, epochs=1), [0]
        args.variants, args.cache = 2, Path(tempfile.mkdtemp())
    data = board.images(args.data, budget)
    plain, valid = maps_of('none', data, 224, args.cache, 1)
    found = board.read(args.out) or dict(
        settings=dict(vars(budget), variants=args.variants, data=Path(args.data).name), rows={}
    )
    for name in args.presets:
        todo = [s for s in args.seeds if str(s) not in found['rows'].get(name, {}).get('seeds', {})]
        if not todo:
            continue
        more = [] if name == 'none' else maps_of(name, data, 224, args.cache, args.variants)
        row = replace(board.ROWS['15'], variants=1 + len(more))
        for seed in todo:
            figures = board.train(row, ([plain, *more], [valid]), data.vocab, budget, seed)
            print(name, seed, figures, flush=True)
            part = found['rows'].setdefault(name, dict(preset=PRESETS[name], seeds={}))
            part['seeds'][str(seed)] = figures
            found['rows'][name] = part | board.summary(part)
            if not args.quick:
                save_whole((json.dumps(found, indent=1) + '\n').encode(), args.out)


if __name__ == '__main__':
    main()
