"""Every architecture there is takes three steps on photographs, and detects afterwards"""

import importlib, shutil
import pytest
from click.testing import CliRunner
from ssd_tutorial.cli import main
from ssd_tutorial.config import ARCH_MODULES, module_of
from ssd_tutorial.detector import Detector
from ssd_tutorial.grid import ARCHS

for lesson in ARCH_MODULES:
    importlib.import_module(f'ssd_tutorial.{lesson}')
OURS = [name for name, arch in ARCHS.items() if not arch.refused and module_of(name) is None]


def has_twin(arch):
    "Whether torchvision has the same kind of detector once more"
    return f'{arch}_v2' in ARCHS or arch.endswith('large_fpn')


PORTED = 'ssd300_vgg16'  # torchvision's, which is loaded and not trained


@pytest.fixture(scope='module')
def some_animals(real_data, tmp_path_factory):
    "A VOC folder with a few of the photographs"
    source, to = real_data / 'voc_animals', tmp_path_factory.mktemp('animals')
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (to / folder).mkdir(parents=True)
    for split, n in (('train', 8), ('val', 2)):
        names = (source / 'ImageSets/Main' / f'{split}.txt').read_text().split()[:n]
        (to / 'ImageSets/Main' / f'{split}.txt').write_text('\n'.join(names))
        for name in names:
            shutil.copy(source / 'JPEGImages' / f'{name}.jpg', to / 'JPEGImages')
            shutil.copy(source / 'Annotations' / f'{name}.xml', to / 'Annotations')
    return to


def test_which_there_are():
    assert {'grid', 'multiscale', 'fpn', 'ssd300', 'ssd512', 'ssd'} <= {*OURS}


def three_steps(photos, out, *options):
    "The detector that the command leaves after three steps, and what it finds in a photograph"
    how = '--weights none --max-steps 3 --no-plots --anyway'.split()
    args = ['train', '--data', str(photos), *how, '--out', str(out), *options]
    r = CliRunner().invoke(main, args)
    assert r.exit_code == 0, r.output
    assert 'stopped after 3 of' in r.output
    det = Detector.load(out)
    return det, det.predict(next((photos / 'JPEGImages').iterdir()), score=0)


@pytest.mark.slow
@pytest.mark.parametrize('arch', [a for a in OURS if a != PORTED and not has_twin(a)])
def test_three_steps_on_photographs(arch, some_animals, tmp_path):
    "At its own size and full width"
    bs = '1' if arch in ('ssd300', 'ssd512') else '2'  # VGG-16 is slow, and has no norms
    options = ['--arch', arch, '--batch-size', bs]
    if 'resnet50' in arch or arch.endswith('large_fpn'):
        options += ['--size', '160']  # made for 800 px, which takes minutes
    det, found = three_steps(some_animals, tmp_path / 'd.pt', *options)
    assert det.description['arch'] == arch
    assert len(found) > 0
    assert (found.boxes_px >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize('body', ['torchvision/resnet50', 'resnet50'])
def test_resnet50_under_an_ssd(body, some_animals, tmp_path):
    "torchvision's, and timm's of the same name"
    options = ['--arch', 'ssd', '--body', body, '--size', '160', '--batch-size', '2']
    det, found = three_steps(some_animals, tmp_path / 'd.pt', *options)
    assert det.description['body'] == body
    assert det.model.body.channels == [1024, 2048]
    assert len(found) > 0
