#!/usr/bin/env python
"""What a data set's size costs: two starts at the size of COCO, epochs of 1 000 to 100 000 images

python benchmarks/large.py
    everything; writes large.json, large.md and large.png here. About ten minutes on a quiet core,
    1.5 GB in a temporary folder (--folder: another one)
python benchmarks/large.py --quick --out DIR
    a hundredth of every size: does it work at all?

Images are links to 300 small JPEGs. Each figure comes from a process of its own; seconds are
those of the processor, which other programs on the machine hardly change.
"""

import argparse, json, os, platform, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
for p in (HERE.parent, HERE):
    if str(p) not in sys.path:
        sys.path.insert(0, str(p))

SIZES = (1_000, 10_000, 100_000)
COCO = dict(train=118_287, val=5_000), 860_000 / 118_287  # images, objects an image
KEPT = 10_000  # images whose maps are kept, for the memory of both ways
OUTLINE = 12  # corners of an object's outline
STEPS = ('read and check', 'maps of the frozen backbone', 'one epoch of the heads')
HOUR = 3600 * 10**9


# ---------------------------------------------------------------- data
def one_file(rng, split, n, side, boxes, links, root):
    "The images of a split, and its instances file, written object by object"
    folder = root / f'{split}2017'
    folder.mkdir(parents=True)
    names = [f'{i:012d}.jpg' for i in range(n)]
    for i, name in enumerate(names):
        os.link(links[i % len(links)], folder / name)
    first = 10**6 * (split == 'val')
    about = 'http://images.cocodataset.org/'
    images = [
        dict(id=first + i, file_name=f, width=side, height=side, coco_url=about + f)
        for i, f in enumerate(names)
    ]
    objects = rng.integers(0, n, round(n * boxes))
    path = root / 'annotations' / f'instances_{split}2017.json'
    path.parent.mkdir(exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.write('{"images": ' + json.dumps(images) + ', "annotations": [')
        for j, i in enumerate(objects.tolist()):
            x, y, w, h = (rng.random(4) * (side / 2 - 2)).round(2).tolist()
            outline = [(rng.random(2 * OUTLINE) * side).round(2).tolist()]
            a = dict(id=first + j, image_id=first + i, category_id=1 + j % 80, iscrowd=0)
            a.update(bbox=[x, y, w + 2, h + 2], area=(w + 2) * (h + 2), segmentation=outline)
            f.write(', ' * (j > 0) + json.dumps(a))
        cats = [dict(id=c, name=f'class {c}') for c in range(1, 81)]
        f.write('], "categories": ' + json.dumps(cats) + '}')


def write(root, sizes, boxes, side=32):
    "A set in COCO's layout; its files are an hour old, as downloaded ones would be"
    import numpy as np
    from PIL import Image

    rng, links = np.random.default_rng(0), []
    (root / '.small').mkdir(parents=True)
    for i in range(300):
        links.append(root / '.small' / f'{i}.jpg')
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(links[-1], quality=80)
    for split, n in sizes.items():
        one_file(rng, split, n, side, boxes, links, root)
    at = time.time_ns() - HOUR
    for p in (*links, *(root / 'annotations').iterdir()):
        os.utime(p, ns=(at, at))


# ---------------------------------------------------------------- one process each
def peak_gb():
    "The most memory of this process so far"
    import resource

    kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kb / (1e9 if sys.platform == 'darwin' else 1e6)


def start(root):
    "One start on a folder"
    from ssd_tutorial.readers import load_dataset

    wall, cpu = time.perf_counter(), time.process_time()
    data = load_dataset(root)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n = sum(map(len, data.splits.values()))
    return dict(images=n, seconds=cpu, wall=wall, peak_gb=peak_gb())


def epoch(root, n):
    "Reading, the pass of the frozen backbone, and one epoch of the heads on maps on the disk"
    from ssd_tutorial.batches import make_dls
    from ssd_tutorial.config import TrainConfig
    from ssd_tutorial.disk_cache import MapsFolder, disk_dls
    from ssd_tutorial.readers import load_dataset
    from ssd_tutorial.trainer import detector_learner, new_detector, run_phase
    from ssd_tutorial.training import EpochTable

    marks = [time.process_time()]
    data = load_dataset(root)
    marks.append(time.process_time())
    small = dict(body='mobilenetv3_small_050', weights='none', size=32, width=16)
    cfg = TrainConfig(arch='grid', **small, bs=64, strength=None, variants=1, cache='disk')
    det = new_detector(data, cfg)
    dls = make_dls(data, cfg.size, cfg.bs, None, device='cpu')
    learn = detector_learner(det, dls, cfg, EpochTable(False))
    with MapsFolder(Path(root).parent) as folder:
        begin = time.process_time()
        maps = disk_dls(det.model.body.freeze(), dls, 1, False, folder=folder)
        marks.append(marks[-1] + time.process_time() - begin)
        begin = time.process_time()
        run_phase(learn, dls, ('frozen', 1, 1e-3, True), cfg, False, maps=maps)
        marks.append(marks[-1] + time.process_time() - begin)
    spent = [b - a for a, b in zip(marks, marks[1:])]
    return dict(images=n, seconds=dict(zip(STEPS, spent)), peak_gb=peak_gb())


def keeping(how, folder, n):
    "What the memory of the process grows by while maps of n images are kept, and read twice"
    import psutil, torch
    from ssd_tutorial.cache import CachedFeatures, CachedLoader
    from ssd_tutorial.disk_cache import MapsFolder

    flags = torch.zeros(3, dtype=torch.bool)
    like = dict(boxes_xyxy=torch.rand(3, 4), labels=torch.tensor([1, 2, 3]), difficult=flags)
    like |= dict(crowd=flags, size_hw=torch.tensor((9, 9)), image_id=torch.tensor(7))

    def items(n):
        for i in range(n):
            maps = [torch.full((64, 8, 8), float(i), dtype=torch.float16)]
            yield maps, {k: v.clone() for k, v in like.items()}

    def read(kept):
        for _ in CachedLoader(CachedFeatures([kept]), bs=50, shuffle=True):
            pass

    with MapsFolder(folder) as place:
        keep = place.keep if how == 'disk' else list
        read(keep(items(100)))  # what Python and torch need once
        before = psutil.Process().memory_info().rss
        kept = keep(items(n))
        read(kept)
        read(kept)
        grown = (psutil.Process().memory_info().rss - before) / 1e6
    return dict(images=n, maps_mb=n * 64 * 8 * 8 * 2 / 1e6, grown_mb=grown)


PARTS = dict(start=start, epoch=epoch, keeping=keeping)


def alone(part, *args, **env):
    "One of `PARTS` in a process of its own"
    code = f'import json, large; print(json.dumps(large.PARTS[{part!r}](*{args!r})))'
    path = os.pathsep.join(map(str, (HERE, HERE.parent)))
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **env}
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=env, capture_output=True)
    if r.returncode:
        sys.exit(r.stderr.decode()[-2000:])
    out = json.loads(r.stdout.decode().splitlines()[-1])
    print(part, *args[1:], out, flush=True)
    return out


# ---------------------------------------------------------------- the page
def exponent(sizes, seconds):
    "b where seconds = a·sizes**b: 1 is proportional"
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw(epochs, path):
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3), layout='constrained')
    sizes = [e['images'] for e in epochs]
    for step, colour in zip(STEPS, ('#8c8c8c', '#1f77b4', '#ff7f0e')):
        ax.plot(sizes, [e['seconds'][step] for e in epochs], 'o-', ms=4, color=colour, label=step)
    top = max(epochs[-1]['seconds'].values())
    ax.plot(sizes, [top * n / sizes[-1] for n in sizes], ':', color='k', label='proportional')
    ax.set(xscale='log', yscale='log', xlabel='images', ylabel='seconds')
    ax.set_title('What a data set costs, by its size')
    ax.legend(fontsize=8)
    fig.savefig(path, dpi=100)
    plt.close(fig)


def text(m):
    "The page, in Markdown"
    first, second, epochs, kept = m['starts'][0], m['starts'][1], m['epochs'], m['keeping']
    each = lambda e, s: f'{e["seconds"][s]:.1f} s ({1e3 * e["seconds"][s] / e["images"]:.2f} ms)'
    rows = '\n'.join(
        f'| {s} | ' + ' | '.join(each(e, s) for e in epochs) + f' | {m["exponents"][s]:.2f} |'
        for s in STEPS
    )
    sizes = ' | '.join(f'{e["images"]:,}'.replace(',', ' ') for e in epochs)
    line = lambda name, s: (
        f'| {name} | {s["seconds"]:.1f} s | {s["wall"]:.0f} s | {s["peak_gb"]:.2f} GB |'
    )
    grown = ', '.join(f'{k["grown_mb"]:.0f} MB with --cache {where}' for where, k in kept.items())
    peaks = ', '.join(f'{e["peak_gb"]:.2f} GB' for e in epochs)
    return f'''# Large data sets

Measured on {m["machine"]["date"]} by `python benchmarks/large.py` on one thread of \
{m["machine"]["cores"]} cores ({m["machine"]["system"]}); Python {m["machine"]["python"]}. Images \
are links to 300 JPEGs of 32 pixels, so what grows here is everything but the decoding of large \
photographs. Seconds are those of the processor; *by the clock* depends on what else the machine \
does (load average here: {m["machine"]["load"]:.0f}).

## Two starts

A set of COCO 2017's size, {first["images"]:,} images with {m["objects"]:,} boxes and an outline \
of {OUTLINE} corners for each, read and checked by `load_dataset` (lesson 03l):

| | seconds | by the clock | most memory |
|---|---:|---:|---:|
{line('first start', first)}
{line('second start', second)}

## From 1 000 to 100 000 images

Reading with the check, one pass of a frozen backbone (MobileNetV3-Small, half as wide, 32 \
pixels), whose maps go to the disk, and one epoch of the heads on them (`--cache disk`, lesson \
06g), with an evaluation on 200 images. In brackets: for one image.

| images | {sizes} | exponent |
|---|{'---:|' * (len(epochs) + 1)}
{rows}

The exponent is the slope of a line through these points on two logarithmic scales: 1 means \
proportional, less means that a fixed part still weighs in the small sizes. The processes needed \
at most {peaks}.

![Seconds of the three steps against the number of images, both scales logarithmic, beside a \
dotted line for proportional growth](large.png)

## Maps in memory and on the disk

Maps of {kept['disk']["images"]:,} images, {kept['disk']["maps_mb"]:.0f} MB in float16, kept and \
then read twice in random order: the process grows by {grown}.
'''


def measure(folder, part=1):
    "Everything, with `part` of all sizes"
    sizes, boxes = COCO
    coco = {s: max(20, round(n * part)) for s, n in sizes.items()}
    out = dict(objects=sum(round(n * boxes) for n in coco.values()), epochs=[])
    env = dict(SSD_TUTORIAL_CACHE=str(folder / 'kept'))
    if not (folder / 'coco').is_dir():
        write(folder / 'coco', coco, boxes)
    out['starts'] = [alone('start', str(folder / 'coco'), **env) for _ in range(2)]
    for n in (max(100, round(n * part)) for n in SIZES):
        root = folder / f'n{n}'
        write(root, dict(train=n, val=200), 3)
        out['epochs'].append(alone('epoch', str(root), n, SSD_TUTORIAL_CACHE='off'))
    ways = ('memory', 'disk')
    n = max(100, round(KEPT * part))
    out['keeping'] = {f'{w}': alone('keeping', w, str(folder), n) for w in ways}
    ns = [e['images'] for e in out['epochs']]
    out['exponents'] = {s: exponent(ns, [e['seconds'][s] for e in out['epochs']]) for s in STEPS}
    machine = dict(date=time.strftime('%Y-%m-%d'), cores=os.cpu_count(), load=os.getloadavg()[1])
    out['machine'] = {
        **machine,
        'system': f'{platform.system()}, {platform.machine()}',
        'python': platform.python_version(),
    }
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='a hundredth of every size')
    p.add_argument('--folder', type=Path, help='where to write data sets; a temporary folder')
    p.add_argument('--out', type=Path, help='folder of the page; this one')
    args = p.parse_args()
    out = args.out or HERE
    with tempfile.TemporaryDirectory() as tmp:
        m = measure(args.folder or Path(tmp), 0.01 if args.quick else 1)
    (out / 'large.json').write_text(json.dumps(m, indent=1) + '\n', encoding='utf-8')
    (out / 'large.md').write_text(text(m), encoding='utf-8')
    draw(m['epochs'], out / 'large.png')


if __name__ == '__main__':
    main()
