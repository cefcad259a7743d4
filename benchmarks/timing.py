"""Two functions against each other, run by turns in one process"""

import gc, time
from statistics import median


def seconds(f, n=1):
    "Mean time of n calls"
    start = time.perf_counter()
    for _ in range(n):
        f()
    return (time.perf_counter() - start) / n


def by_turns(
    ours, theirs, repeats=15, shortest=0.01, tick=lambda: None, longest=60, fewest=5, rest=0
):
    """Median seconds of both; ours, referee, ours, referee, … after a warm-up,
    without garbage collection. Quick ones run several times a turn;
    after `longest` seconds the `fewest` turns will do. Before each turn both rest: threads
    that wait for more work of the one would take cores from the other."""
    each = [
        max(1, round(shortest / max(min(seconds(f), seconds(f) if repeats > 1 else 1), 1e-6)))
        for f in (ours, theirs)
    ]
    gc.collect()
    gc.disable()
    times = [], []
    try:
        start = time.perf_counter()
        for i in range(repeats):
            if i >= fewest and time.perf_counter() - start > longest:
                break
            for f, n, out in zip((ours, theirs), each, times):
                time.sleep(rest)
                out.append(seconds(f, n))
            tick()
    finally:
        gc.enable()
    return tuple(median(t) for t in times)
