"Freed memory stays with a process that uses a detector, unless its user has chosen otherwise"

import os, subprocess, sys

import pytest
from ssd_tutorial import system

LOOK = """
import resource, skimage.data
from ssd_tutorial.detector import Detector
det, image = Detector.pretrained(), skimage.data.chelsea()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): det.predict(image)
before = faults()
for _ in range(20): det.predict(image)
print((faults()-before)/20)
"""
linux = pytest.mark.skipif(not system.keep_memory(), reason='another C library manages memory')


def faults(**env):
    run = [sys.executable, '-c', LOOK]
    out = subprocess.run(run, env=os.environ | env, capture_output=True, text=True, check=True)
    return float(out.stdout)


@linux
def test_predictions_ask_for_no_new_memory():
    kept, given_back = faults(), faults(MALLOC_TRIM_THRESHOLD_='131072')
    assert kept < 200
    assert given_back > 1000


def test_the_user_has_chosen(monkeypatch):
    monkeypatch.setattr(system, '_KEPT', [0])
    monkeypatch.setenv('MALLOC_MMAP_THRESHOLD_', '131072')
    assert not system.keep_memory()
    assert system._KEPT == [0]


def test_other_systems(monkeypatch):
    def none(name):
        raise OSError('no such library')  # Windows, macOS; musl has no mallopt

    for library in (none, lambda name: object()):
        monkeypatch.setattr(system.ctypes, 'CDLL', library)
        assert not system.keep_memory()
