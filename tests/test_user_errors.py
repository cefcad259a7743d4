"""Every error that a user can mend has one base, survives pickling, and keeps its hint apart"""

import importlib
import pickle
import pkgutil

import pytest

import ssd_tutorial
from ssd_tutorial.faults import DataError, UserError
from ssd_tutorial.intake import open_picture
from ssd_tutorial.readers import load_dataset

BASES = dict(
    DataError=ValueError, WeightsError=ValueError, DetectorError=ValueError, InstallError=OSError,
    WriteError=OSError, OutOfMemory=MemoryError, NonFiniteLoss=RuntimeError, Refused=UserError,
)  # fmt: skip


def errors():
    "The exception classes that the package defines, by name"
    found = {}
    for m in pkgutil.iter_modules(ssd_tutorial.__path__):
        if m.name.startswith('_'):
            continue
        for value in vars(importlib.import_module(f'ssd_tutorial.{m.name}')).values():
            ours = isinstance(value, type) and issubclass(value, Exception)
            if ours and value.__module__.startswith('ssd_tutorial'):
                found[value.__name__] = value
    return found


def test_one_base():
    public = {n: e for n, e in errors().items() if not n.startswith('_') and n != 'UserError'}
    assert set(public) == set(BASES)
    for name, error in public.items():
        assert issubclass(error, UserError), name
        assert issubclass(error, BASES[name]), name


@pytest.mark.parametrize('name', BASES)
def test_text_and_pickle(name):
    error = errors()[name]('photo.jpg: no such image.')
    error.args = ('Exception occured in `Callback` when calling event `after_loss`',)  # fastai
    assert str(error) == 'photo.jpg: no such image.'
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_hint_fits_who_reads(tmp_path):
    "A data set may leave an image out; who opens a single one is not told so"
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'Annotations').mkdir()
    broken = tmp_path / 'JPEGImages' / 'a.jpg'
    broken.write_bytes(b'no image')
    (tmp_path / 'Annotations' / 'a.xml').write_text(
        '<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox><xmin>1</xmin>'
        '<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>'
    )
    with pytest.raises(DataError) as one:
        open_picture(broken)
    with pytest.raises(DataError) as many:
        load_dataset(tmp_path)
    assert str(one.value).endswith('Replace or remove it.')
    assert str(many.value).endswith('Replace or remove it, or pass on_error="skip".')
    assert one.value.fault == many.value.fault
