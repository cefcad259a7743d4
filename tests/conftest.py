import os
from pathlib import Path
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else 2)  # workers side by side: a core each
settings.register_profile('repeatable', derandomize=True)  # the gate must not depend on luck; HYPOTHESIS_PROFILE=default searches anew
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def real_data():
    "Folder of real photographs; tests that need it skip where it is absent"
    for folder in (os.environ.get('SSD_TUTORIAL_DATA'), ROOT.parent/'shared'/'data', ROOT/'data'):
        if folder and (Path(folder)/'voc_animals').is_dir(): return Path(folder)
    pytest.skip('no real data here: set SSD_TUTORIAL_DATA to the folder that holds voc_animals, coco_tiny and coco_mini')
