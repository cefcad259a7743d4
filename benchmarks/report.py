"""README.md of the benchmarks, from what was measured"""

import json
from pathlib import Path
from growth import LARGEST_SLOPE

HERE = Path(__file__).resolve().parent
KINDS = dict(
    pictures='picture files: JPEG, PNG, WEBP, GIF, BMP, TIFF, MPO and ten more, read and checked',
    predict='the same, handed to `predict`: as path, folder, bytes, in tiles, to an ONNX file',
    page='the same, sent to the page of `ssd-tutorial app`, by itself or by a stranger',
    labels='data sets: VOC, COCO, YOLO, CSV, labelme, CVAT, their lists and settings',
    pickles='hostile pickles as detector, checkpoint, anchors, weights',
    films='films in twelve formats, and playlists that name other files',
    files="settings, anchors, a run's log",
    detectors='detector files: bytes, zip structure, description, tensors',
    folders='detector folders: safetensors, their header and numbers, description, links',
    kept='what the check of a data set has kept, which must count as nothing where it is damaged',
    graphs='ONNX files: bytes, description, graph',
    checkpoints='`last.ckpt`, gone on from',
)


def table(head, rows):
    line = lambda cells: '| ' + ' | '.join(map(str, cells)) + ' |'
    return '\n'.join([line(head), '|---' + '|---:' * (len(head) - 1) + '|', *map(line, rows)])


def ms(s):
    return f'{s * 1e3:.3g} ms' if s < 1 else f'{s:.2f} s'


def percent(x):
    return f'{x:.0%}'


def command(run):
    "What was typed for a recorded run of fuzz.py"
    words = ' '.join(f'--{k} {run[k]:g}' for k in ('inputs', 'seed', 'jobs', 'limit'))
    kinds = '' if [*run['kinds']] == [*KINDS] else f' --kinds {",".join(run["kinds"])}'
    return f'python benchmarks/fuzz.py {words}{kinds} --record'


def fuzzed(found):
    "The section on damaged files, of what fuzz.py has recorded"
    counts, all_ = found['counts'], sum(sum(c.values()) for c in found['counts'].values())
    n = lambda c, *names: sum(c.get(k, 0) for k in names)
    rows = [
        [
            KINDS[k],
            sum(c.values()),
            n(c, 'result'),
            n(c, 'documented'),
            sum(c.values()) - n(c, 'result', 'documented'),
            f'{found["slowest"][k]:.1f}',
            found['largest'][k],
        ]
        for k, c in counts.items()
    ]
    total = [['all'] + [sum(r[i] for r in rows) for i in range(1, 5)] + ['', '']]
    head = ['what is damaged', 'inputs', 'a result', 'an error in one line', 'anything else']
    head += ['slowest, s', 'most memory, MB']
    other = all_ - sum(n(c, 'result', 'documented') for c in counts.values())
    whole = 'None had another outcome' if not other else f'{other} had another outcome'
    runs, date = found['runs'], found['runs'][-1]['date']
    again = ''
    if len(runs) > 1:
        again = ' What a run had found was mended, and its kind ran again, from the same seed.'
    minutes = sum(r['seconds'] for r in runs) / 60
    commands = '\n'.join(map(command, runs))
    return f'''
## Damaged and hostile files

Whatever is read may be damaged, or made to do harm. `fuzz.py` makes files of both sorts at \
random and has the package read them, in processes that are watched: every input must end in a \
result that is in order, or in an error of one line that names the file. Anything else is a fault: \
another exception, boxes outside the picture, a crash, {found["limit"]:g} seconds without an \
answer, {found["most_mb"]} MB of memory for one input, a program started, the network asked, a \
file touched that lies elsewhere.

```
{commands}
```

{table(head, rows + total)}

{whole} among {all_} inputs, on {date}, in {minutes:.0f} minutes.{again} \
Memory is what one input needed beyond what the process held before; for ONNX files the limit \
(`MOST_MEMORY`) was set to half a gibibyte. The counts are in \
[fuzz.json](fuzz.json), with what was found; `--only KIND:NUMBER` makes one input again.
'''


def write_page():
    "README.md of what is kept beside it"
    kept = [
        json.loads((HERE / f'{n}.json').read_text(encoding='utf-8'))
        for n in ('results', 'measured')
    ]
    (HERE / 'README.md').write_text(text(*kept), encoding='utf-8')


def text(rows, m):
    "The page, in Markdown"
    about, p, e, c = m['machine'], m['pipeline'], m['epoch'], m['caching']
    w0, w2 = e['0 workers'], e['2 workers']
    loads = table(
        ['what', 'load', 'ours', 'referee', 'times as fast', 'floor'],
        [
            [
                r['name'],
                r['load'],
                ms(r['ours_s']),
                ms(r['referee_s']),
                f'{r["speedup"]:.2f}',
                r['floor'] if r['floor'] is not None else '—',
            ]
            for r in rows
        ],
    )
    grown = '\n\n'.join(
        table(
            [axis, *g['sizes']], [[f'{k}, ms', *(f'{v:.3g}' for v in g['ms'][k])] for k in g['ms']]
        )
        for axis, g in m['growth'].items()
    )
    steepest = max(s for g in m['growth'].values() for s in g['slope'].values())
    read = table(
        ['data set', 'records', 'records a second'],
        [[k, r['records'], f'{r["per_second"]:.0f}'] for k, r in m['readers'].items()],
    )
    each = table(
        ['augmenter', 'ms an image', 'share'],
        [[k, f'{v:.2f}', percent(p['share'][k])] for k, v in p['ms_each'].items()],
    )
    part = table(
        ['part of an epoch', '0 workers', '2 workers'],
        [[k, percent(w0['share'][k]), percent(w2['share'][k])] for k in w0['share']],
    )
    kept = HERE / 'fuzz.json'
    but = ', the last section apart,' if kept.is_file() else ''
    damaged = fuzzed(json.loads(kept.read_text(encoding='utf-8'))) if kept.is_file() else ''
    return f'''# Benchmarks

How fast is the package, and against what? Every figure here{but} was measured on \
{about["date"]} by one command, on {about["cores"]} cores ({about["system"]}, \
{about["processor"]}), with {about["threads"]} thread{"s" * (about["threads"] > 1)}; \
Python {about["python"]}, torch {about["torch"]}, torchvision {about["torchvision"]}, numpy \
{about["numpy"]}. It took {m["minutes"]:.0f} minutes and wrote this page.

```
python benchmarks/run.py
```

Milliseconds depend on the machine; ratios hardly do. So each row has a **referee** that does the \
same job on the same tensors in the same process. Both take turns, and the medians of \
{rows[0]["runs"]} turns are compared (of fewer, at least five, where a row would take more than a \
minute). Before any time is taken, the script asserts that both give the same: the same loss and \
gradients, the same detections, the same mAP (but for the rows on photographs, whose referee has \
learnt nothing: its weights cannot be had without a network). The sides of those rows compute in \
threads of different libraries, which go on waiting for work for a while: so both rest for 20 ms \
before each turn. A row under its floor ends the run with exit status 1.

{loads}

The referees are, row by row: {"; ".join(f"{r['name']}: {r['referee']}" for r in rows)}. The loops \
stand in [referees.py](referees.py), plain and not slowed down. For mAP the referee's tables are \
loaded and indexed beforehand and not counted; ours starts from tensors, and also counts VOC's mAP \
and the AP of each class. *NMS of one image* has no floor: we suppress in float64, because boxes \
of far islands lose digits in float32 (lesson 13), and torchvision's does not.

The raw rows are in [results.json](results.json), all that follows is in \
[measured.json](measured.json).

## How cost grows

Time an image, in batches of 4, while one number grows and the others stay at 3150 anchors, 10 \
objects and 20 classes. *match + loss* is matching, focal loss and box loss, forward and backward; \
*detect* is scores, boxes, short list and suppression.

![Three panels, anchors, objects and classes: milliseconds an image for match + loss and for \
detect, both scales logarithmic, beside a dotted line for proportional growth. No curve is steeper \
than that line at its end](growth.png)

{grown}

At the large end the steepest curve has a slope of {steepest:.2f} on these scales, where 1 means \
proportional: twice as many, twice as long. A little more comes of tables that outgrow the \
processor's cache; more than {LARGEST_SLOPE} would fail the run.

## Reading

Records a second, read and checked (every image is opened: is it whole, and as large as its \
annotation says?):

{read}

## From file to batch

JPEG files of 500 × 375 pixels to batches of 224 × 224, all augmenters on: \
**{p["images_per_second"]["0 workers"]:.0f} images a second** without workers, \
**{p["images_per_second"]["2 workers"]:.0f}** with two. Without augmentation an image takes \
{p["ms_plain"]:.1f} ms, with it {p["ms_all"]:.1f} ms. Each augmenter alone adds:

{each}

## The body

The frozen EfficientNet-Lite0 at 224 pixels, in batches of 16: \
{m["body_ms_per_image"]["contiguous"]:.1f} ms an image, and \
{m["body_ms_per_image"]["channels_last"]:.1f} ms with `channels_last`, which the package uses.

## Where an epoch goes

Everything learning, 224 pixels, batches of 16, the same files, one evaluation after the epoch:

{part}

A training step at batch 32 and 224 pixels, everything learning, needs {m["peak_memory_gib"]:.2f} \
GiB at its peak, the whole process counted. One of SSD300 on VGG-16 at full width, batch 8 and 300 \
pixels, needs {m["ssd300_memory_gib"]["ours"]:.2f} GiB, and torchvision's \
{m["ssd300_memory_gib"]["torchvision"]:.2f} GiB on the same batch, in the same kind of process; \
more than torchvision's would fail the run.

## What caching buys

While the body is frozen, its maps can be computed once. Filling the cache takes \
{c["filling"]:.1f} s for {c["images"]} training pictures and the validation pictures; after that \
an epoch takes {c["epoch_on_maps"]:.2f} s instead of {c["epoch_on_pictures"]:.2f} s, \
{c["epoch_on_pictures"] / c["epoch_on_maps"]:.0f} times as fast. Without augmentation both ways \
train the same weights: after three epochs the largest difference is {c["difference_float32"]:.0e} \
with maps kept in float32, and {c["difference_float16"]:.0e} with the float16 that the package \
keeps by default because it halves the memory.
{damaged}'''
