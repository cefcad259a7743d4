"The generated images are the same in every process, whatever else it did"

import hashlib, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from ssd_tutorial.synthetic import PRESETS, ShapesSpec, generate

ROOT = Path(__file__).resolve().parent.parent
NEW_PROCESS = '''
import hashlib, numpy as np
from ssd_tutorial.synthetic import generate
h = hashlib.sha256()
for item in generate(n=5):
    for part in item: h.update(np.ascontiguousarray(part).tobytes())
print(h.hexdigest())
'''


def fingerprint(data):
    h = hashlib.sha256()
    for item in data:
        for part in item:
            h.update(np.ascontiguousarray(part).tobytes())
    return h.hexdigest()


def test_a_new_process_draws_the_same_images():
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    run = subprocess.run(
        [sys.executable, '-c', NEW_PROCESS],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == fingerprint(generate(n=5))


@pytest.mark.parametrize(
    'name,begins',
    [
        ('largest', '1d504e8cf011'),
        ('grid', '615cb352a3a2'),
        ('multiscale', '56f656af6c78'),
        ('crowded', '646df67a49ba'),
        ('rare', '83f18582e7fc'),
    ],
)
def test_images_are_those_of_earlier_versions(name, begins):
    "Detectors were trained, and figures in the lessons measured, on these very images"
    assert fingerprint(generate(name, 6, size=96)).startswith(begins)


@pytest.mark.parametrize('name', PRESETS)
def test_boxes_lie_inside_and_overlap_no_more_than_the_preset_allows(name):
    from ssd_tutorial.synthetic import _overlaps

    spec = PRESETS[name]
    for img, boxes, labels in generate(name, 30, seed=4, size=96):
        assert img.shape == (96, 96, 3)
        assert len(boxes) == len(labels) <= spec.n_objects[1]
        assert (boxes >= 0).all()
        assert (boxes <= 96).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        for i in range(len(boxes)):
            assert (_overlaps(boxes[i], boxes[:i]) <= spec.max_overlap).all()


def test_an_unknown_shape_or_preset_is_refused_by_name():
    with pytest.raises(ValueError, match="'easy'; choose from largest"):
        generate('easy')
    with pytest.raises(KeyError, match='blob'):
        generate(ShapesSpec(classes=('blob',)), 1)
