#!/usr/bin/env python
"""How much of a film's time is the network's? Decode, model, draw, encode of 720p, end to end

python benchmarks/film.py
    measures, prints, writes film.json and film.md here; exit status 1 where a figure is too low
python benchmarks/film.py --quick --out DIR
    a few small frames, nothing asked: does it work at all?
"""

import argparse, json, os, sys, tempfile, time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
for p in (HERE.parent, HERE):
    if str(p) not in sys.path:
        sys.path.insert(0, str(p))

os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # as the command does
import torch  # noqa: E402
from ssd_tutorial.clips import read_frames  # noqa: E402
from ssd_tutorial.detector import Detector  # noqa: E402
from ssd_tutorial.movies import FrameWriter, write_video  # noqa: E402
from ssd_tutorial.moving import MovingShapes  # noqa: E402
from ssd_tutorial.planes import draw_on_planes  # noqa: E402
from ssd_tutorial.system import keep_memory  # noqa: E402
from ssd_tutorial.video import annotate_video  # noqa: E402

HOW = dict(score=0.01, top_k=3, bs=8)  # three boxes a frame: something to draw
LEAST = 0.8  # of the bare model's frames a second


def make_film(path, n=64, size_hw=(720, 1280)):
    return write_video([i for i, *_ in MovingShapes(n, size_hw, speed=0.01)], path, fps=30)


def inputs_of(det, path):
    "What the model is given, ready in memory, in batches"
    with torch.no_grad():
        frames = [det.input_of_frame(f) for f in read_frames(path)]
    return torch.stack(frames).split(HOW['bs'])


def bare(det, batches):
    "The model alone: what comes before and behind it costs nothing"
    how = {k: v for k, v in HOW.items() if k != 'bs'}
    return [f for b in batches for f in det.detect_batch(b, overlap=0.5, **how)]


def timed(f):
    "Seconds on the clock, and of the processor, all threads"
    wall, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - wall, time.process_time() - cpu


def parts(det, path, batches, tmp):
    "Each step alone, one after the other, with nothing beside it"
    found = list(det.predict_video(path, **HOW))

    def decode():
        for f in read_frames(path):
            det.input_of_frame(f)

    def draw():
        nonlocal drawn
        drawn = [draw_on_planes(d, f.stored) for f, d in found]

    def encode():
        first = found[0][0]
        with FrameWriter(tmp / 'alone.mp4', fps=30, threads=1, preset='ultrafast') as w:
            w.write(first.image, 0)  # opens the film
            for (f, _), stored in zip(found[1:], drawn[1:]):
                w.write_stored(stored, f.time)

    drawn = []
    return dict(decode=decode, model=lambda: bare(det, batches), draw=draw, encode=encode)


def measure(n=64, size_hw=(720, 1280), repeats=7):
    "Medians over the turns; whole film and bare model by turns"
    keep_memory()
    det = Detector.pretrained()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        path = make_film(tmp / 'film.mp4', n, size_hw)
        batches = inputs_of(det, path)
        whole = lambda: annotate_video(det, path, tmp / 'out.mp4', progress=False, **HOW)
        model = lambda: bare(det, batches)
        turns = [(timed(whole), timed(model)) for _ in range(repeats + 1)][1:]
        steps = {k: [] for k in ('decode', 'model', 'draw', 'encode')}
        for _ in range(max(1, repeats // 2)):
            for k, f in parts(det, path, batches, tmp).items():
                steps[k].append(timed(f)[1])
    each = {k: median(v) / n for k, v in steps.items()}
    total = sum(each.values())
    return dict(
        frames=n,
        size_hw=size_hw,
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        load=os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
        fps=n / median(w[0] for w, _ in turns),
        fps_model=n / median(m[0] for _, m in turns),
        ratio=median(m[0] / w[0] for w, m in turns),
        ratio_cpu=median(m[1] / w[1] for w, m in turns),
        cpu_ms={k: v * 1e3 for k, v in each.items()},
        share={k: v / total for k, v in each.items()},
    )


def faults(m):
    "What is not as it should be"
    cpu = m['cpu_ms']
    out = []
    if m['ratio'] < LEAST:
        out.append(
            f"end to end {m['ratio']:.2f} of the bare model's frames a second, floor {LEAST}"
        )
    if cpu['draw'] + cpu['encode'] >= cpu['model']:
        out.append('drawing and encoding cost more than the model')
    return out


def text(m):
    h, w = m['size_hw']
    rows = '\n'.join(f'| {k} | {m["cpu_ms"][k]:.1f} | {v:.0%} |' for k, v in m['share'].items())
    return f'''# Films, end to end

`python benchmarks/film.py`: {m["frames"]} generated frames of {w} × {h}, the package's detector \
(EfficientNet-Lite0 with a pyramid, 320 pixels), three boxes drawn a frame, {m["cores"]} cores, \
{m["threads"]} threads. The referee is the bare model: the same inputs in the same batches, ready \
in memory. Both take turns in one process. The load of the machine was \
{m["load"]:.0f}, other programs included: frames a second depend on that, ratios hardly do.

Decoding, drawing, encoding and all: **{m["fps"]:.1f} frames a second**; the bare model \
{m["fps_model"]:.1f}; median of the turns' ratios **{m["ratio"]:.2f}** (at least {LEAST} is \
asked). Counted in processor time, which other programs do not disturb, the bare model takes \
{m["ratio_cpu"]:.2f} of the whole.

| step, alone | processor time, ms a frame | share |
|---|---:|---:|
{rows}

*decode* includes scaling to the model's input, *model* decoding of boxes and suppression, *draw* \
draws into a copy of the decoder's planes, *encode* is x264's fastest preset.
'''


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='a few small frames, nothing asked')
    p.add_argument('--repeats', type=int, default=7, help='turns (7)')
    p.add_argument('--frames', type=int, default=64, help='of the film (64)')
    p.add_argument('--out', type=Path, default=HERE, help='folder to write to; this one')
    args = p.parse_args()
    m = measure(8, (72, 128), 1) if args.quick else measure(args.frames, repeats=args.repeats)
    print(json.dumps(m, indent=1))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'film.json').write_text(json.dumps(m, indent=1) + '\n', encoding='utf-8')
    (args.out / 'film.md').write_text(text(m), encoding='utf-8')
    wrong = [] if args.quick else faults(m)
    for f in wrong:
        print('UNDER ITS FLOOR', f)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
