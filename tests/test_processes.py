"""The command in two processes on the CPU: one table, one run; a process that dies; fewer later"""

import json, os, random, subprocess, sys, time
from pathlib import Path
import psutil
import pytest
from PIL import Image
from hypothesis import given, settings, strategies as st
from ssd_tutorial.detector import Detector
from ssd_tutorial.processes import draw_apart, merge_shares, share_of
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.runs import read_last
from ssd_tutorial.voc import save_voc

ROOT = Path(__file__).resolve().parent.parent
ENV = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
LAUNCH = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
MODULE = ['-m', 'ssd_tutorial.cli']
SMALL = '--arch grid --size 64 --width 16 --batch-size 8 --device cpu --no-plots --anyway'.split()


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_equal_and_whole(n_items, n):
    items = [*range(n_items)]
    shares = [share_of(items, rank, n) for rank in range(n)]
    assert len({*map(len, shares)}) == 1
    assert {i for s in shares for i in s} == {*items}
    assert sum(map(len, shares)) < n_items + n
    assert merge_shares(shares, n_items) == items


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=50)
def test_an_epoch_reads_what_one_process_would_read(n_items, n, seed):
    "Every image, at most n−1 of them twice; and all sources of chance stay alike"
    rngs = [random.Random(seed) for _ in range(n)]
    shares = [share_of([*range(n_items)], rank, n) for rank in range(n)]
    read = []
    for rank, (rng, share) in enumerate(zip(rngs, shares)):
        read += [share[i] for i in draw_apart([*range(len(share))], rng, rank)]
    assert {*read} == {*range(n_items)}
    assert len(read) < n_items + n
    assert len({r.getstate() for r in rngs}) == 1


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp('voc')
    save_voc(generated_data('multiscale', 22, 7, size=64, n_objects=(1, 3)), to)
    return to


def launched(folder, out, *options, start=LAUNCH):
    args = ['train', '--data', str(folder), '--out', str(out), *SMALL, *options]
    return [*start, *MODULE, *args]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=600)


@pytest.mark.slow
def test_two_processes_train_one_detector(folder, tmp_path):
    "Through accelerate's launcher: one table, one set of files, one film, one process's figures"
    start = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes']
    start += ['2', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no']
    out, film = tmp_path / 'd.pt', tmp_path / 'learning.gif'
    r = run(launched(folder, out, '--epochs', '4', '--movie', str(film), start=start))
    assert r.returncode == 0, r.stderr[-3000:]
    assert Image.open(film).n_frames == 1 + 4
    assert r.stdout.count('frozen        1') == 1
    assert r.stdout.count('It took') == 1
    last = read_last(out)
    assert last['finished']
    assert len(last['rows']) == 4
    log = json.loads(out.with_suffix('.json').read_text())
    alone = Detector.load(out).evaluate(load_dataset(folder).valid, score=0.05, progress=False)
    assert log['report']['map50'] == pytest.approx(alone.map50, abs=0.02)
    assert max(row['map50'] for row in last['rows']) == pytest.approx(alone.map50, abs=0.02)


@pytest.mark.slow
def test_a_process_dies_and_one_goes_on(folder, tmp_path):
    "One line, a state to go on from; then a single process ends what two have begun"
    out = tmp_path / 'd.pt'
    command = launched(folder, out, '--epochs', '24')
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV
    )
    for _ in range(3000):  # until an epoch is done
        time.sleep(0.1)
        state = read_last(out)['state'] if out.with_name('last.ckpt').is_file() else None
        if state and state['rows']:
            break
        assert job.poll() is None, job.communicate()[1][-3000:]
    workers = psutil.Process(job.pid).children(recursive=True)
    second = [p for p in workers if p.environ().get('RANK') == '1']
    assert len(second) == 1
    second[0].kill()
    said, errors = job.communicate(timeout=120)
    assert job.returncode != 0
    assert errors.count('another process of this training has ended') == 1, errors[-3000:]
    done = len(read_last(out)['state']['rows'])
    assert 0 < done < 24
    alone = [sys.executable, *MODULE, 'train', '--out', str(out), '--resume', '--device', 'cpu']
    r = run(alone)
    assert r.returncode == 0, r.stderr[-3000:]
    assert len(read_last(out)['rows']) == 24
    assert Detector.load(out).size == 64
