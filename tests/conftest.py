import os
from pathlib import Path
import pytest
import torch
from hypothesis import settings

# workers side by side: a core each
torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else 2)
# the gate must not depend on luck; HYPOTHESIS_PROFILE=default searches anew
settings.register_profile('repeatable', derandomize=True)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))
# what is checked in a test is not remembered for the next one (lesson 03l)
os.environ.setdefault('SSD_TUTORIAL_CACHE', 'off')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def real_data():
    "Folder of real photographs; tests that need it skip where it is absent"
    for folder in (
        os.environ.get('SSD_TUTORIAL_DATA'),
        ROOT.parent / 'shared' / 'data',
        ROOT / 'data',
    ):
        if folder and (Path(folder) / 'voc_animals').is_dir():
            return Path(folder)
    pytest.skip(
        'no real data here: set SSD_TUTORIAL_DATA to the folder that holds '
        'voc_animals, coco_tiny and coco_mini'
    )


@pytest.fixture(scope='session')
def data():
    "Generated images for a training of seconds; where a file has a `data` of its own, that counts"
    from ssd_tutorial.records import generated_data

    return generated_data('multiscale', 20, 8, size=64, n_empty=0.2)


# files whose tests train detectors or start processes; `make quick` leaves them out, and single
# tests that are marked where they stand
SLOW = {
    'app',
    'benchmarks',
    'cli',
    'detective',
    'device',
    'fuzz',
    'hub',
    'mutants',
    'onnx',
    'pretrained',
    'quantise',
    'reports',
    'resume',
    'runtimes',
    'ssd300',
    'surroundings',
}


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: trains, or starts processes')


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix('test_') in SLOW:
            item.add_marker('slow')
