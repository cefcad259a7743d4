"What is recalled at a second start is what a first start finds, whatever happened in between"

import json, os, shutil, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ssd_tutorial import checked
from ssd_tutorial.checked import CheckCache, cache_folder, folder_stamp, pack_data, unpack_data
from ssd_tutorial.coco import save_coco
from ssd_tutorial.entries import ReadOptions
from ssd_tutorial.faults import ON_ERROR, DataError
from ssd_tutorial.formats import FORMATS, Format
from ssd_tutorial.inventory import take_inventory
from ssd_tutorial.negatives import pictures_without
from ssd_tutorial.readers import load_dataset
from ssd_tutorial.records import generated_data
from ssd_tutorial.voc import save_voc
from ssd_tutorial.yolo import save_yolo

WRITERS = dict(voc=save_voc, coco=save_coco, yolo=save_yolo)
HOUR = 3600 * 10**9


def everything(data):
    "All that a data set holds, in a form that == compares; arrays with type and shape"
    plain = lambda v: (v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
    records = [
        (s, type(r.image), *map(plain, vars(r).values()))
        for s, rs in data.splits.items()
        for r in rs
    ]
    notes = [(n, type(n), getattr(n, 'counts', None)) for n in data.notes]
    return (
        records,
        notes,
        data.vocab,
        data.category_ids,
        data.name,
        data.unread,
        data.split_ids,
        [*data.splits],
    )


def outcome(source, on_error='raise', **more):
    "Everything, or the message"
    try:
        return everything(load_dataset(source, on_error, **more))
    except DataError as e:
        return str(e)


def age(path, at=None):
    "Make a file, or all files of a folder, an hour old"
    at = time.time_ns() - HOUR if at is None else at
    for p in [path, *path.rglob('*')] if path.is_dir() else [path]:
        if p.is_file():
            os.utime(p, ns=(at, at))


def looked(call):
    "What a call returns, and the images that it decoded"
    seen, look = [], checked._look
    with pytest.MonkeyPatch.context() as m:
        m.setattr(checked, '_look', lambda image: seen.append(Path(image).name) or look(image))
        got = call()
    return got, sorted(seen)


def uncached(source, on_error='raise', **more):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SSD_TUTORIAL_CACHE', 'off')
        return outcome(source, on_error, **more)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    "A cache of its own, for data sets of any size"
    monkeypatch.setenv('SSD_TUTORIAL_CACHE', str(tmp_path / 'kept'))
    monkeypatch.setattr(checked, 'LEAST', 1)
    return tmp_path / 'kept'


@pytest.fixture(scope='module')
def toy():
    return generated_data('multiscale', n_train=6, n_valid=3, size=48)


def names(kept):
    return sorted(p.name.partition('-')[0] for p in kept.iterdir()) if kept.exists() else []


@pytest.mark.parametrize('kind', WRITERS)
@pytest.mark.parametrize('policy', ON_ERROR)
def test_the_second_start_decodes_nothing_and_finds_the_same(kind, policy, toy, tmp_path, kept):
    root = WRITERS[kind](toy, tmp_path / kind)
    age(root)
    right = uncached(root, policy)
    first, n_first = looked(lambda: outcome(root, policy))
    second, n_second = looked(lambda: outcome(root, policy))
    assert first == right
    assert second == right
    assert len(n_first) == 9
    assert n_second == []
    assert names(kept) == ['data', 'looks']


def test_another_question_has_another_answer_but_knows_the_images(toy, tmp_path, kept):
    root = save_voc(toy, tmp_path / 'voc')
    age(root)
    outcome(root)
    for more in (dict(only=('val',)), dict(on_error='fix'), dict(seed=3), dict(one_based=False)):
        got, n = looked(lambda more=more: outcome(root, **more))
        assert got == uncached(root, **more), more
        assert n == [], more


def test_two_sources_are_recalled_as_one(toy, tmp_path, kept):
    both = [save_voc(toy, tmp_path / 'a'), save_coco(toy, tmp_path / 'b')]
    for root in both:
        age(root)
    right = uncached(both)
    assert outcome(both) == right
    assert looked(lambda: outcome(both)) == (right, [])
    assert outcome(both[::-1]) == uncached(both[::-1])


CASES = Path(__file__).resolve().parent.parent.parent / 'shared' / 'cases' / 'make.py'


@pytest.fixture(scope='module')
def layouts(tmp_path_factory):
    if not CASES.is_file():
        pytest.skip('no collection of layouts here: shared/cases/make.py beside the checkout')
    root = tmp_path_factory.mktemp('cases')
    subprocess.run([sys.executable, CASES, root], check=True, capture_output=True)
    age(root)
    return root


@pytest.mark.slow
def test_every_layout_of_the_collection(layouts, kept):
    "Both in the first start, which writes, and in the second, which reads"
    n_recalled = 0
    for root in sorted(p for p in layouts.iterdir() if p.is_dir()):
        for policy in ('raise', 'fix'):
            right = uncached(root, policy)
            assert outcome(root, policy) == right, root.name
            again, seen = looked(lambda root=root, policy=policy: outcome(root, policy))
            assert again == right, root.name
            n_recalled += not isinstance(right, str) and not seen
    assert n_recalled > 100


EDITS = ('nothing', 'image', 'gone', 'new', 'annotation', 'damaged', 'whole', 'note')


def edit(what, root, i, at, spare):
    "One change of a COCO folder, with a time that differs from all before"
    pictures = sorted((root / 'train').iterdir())
    path = pictures[i % len(pictures)]
    instances = root / 'annotations' / 'instances_train.json'
    if what == 'image':
        path.write_bytes(pictures[(i + 1) % len(pictures)].read_bytes())
    elif what == 'gone' and len(pictures) > 3:
        path.unlink()
    elif what == 'new':
        path = root / 'train' / f'new{i}.png'
        shutil.copy(spare, path)
    elif what == 'annotation':
        d = json.loads(instances.read_text())
        d['annotations'][i % len(d['annotations'])]['bbox'][2] += 1
        path = instances
        path.write_text(json.dumps(d))
    elif what == 'damaged':
        path.write_bytes(path.read_bytes()[:-30])
    elif what == 'whole':
        for p in pictures:
            shutil.copy(spare, p)
            os.utime(p, ns=(at, at))
    elif what == 'note':
        path = root / 'README.txt'
        path.write_text('x' * i)
    if path.exists():
        os.utime(path, ns=(at, at))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 7)), max_size=5))
def test_after_any_changes_it_is_what_a_new_start_finds(tmp_path_factory, steps):
    tmp = tmp_path_factory.mktemp('edits')
    root = save_coco(generated_data('largest', 4, 2, size=32), tmp / 'coco')
    spare = tmp / 'spare.png'
    shutil.copy(next((root / 'val').iterdir()), spare)
    age(root)
    begin = time.time_ns() - HOUR // 2
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SSD_TUTORIAL_CACHE', str(tmp / 'kept'))
        m.setattr(checked, 'LEAST', 1)
        for k, (what, i) in enumerate([('nothing', 0), *steps]):
            edit(what, root, i, begin + k * 10**9, spare)
            for policy in ('raise', 'fix', 'raise'):
                assert outcome(root, policy) == uncached(root, policy), (what, policy)


def test_a_changed_image_is_the_only_one_that_is_decoded_again(toy, tmp_path, kept):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    outcome(root)
    path = sorted((root / 'train').iterdir())[2]
    shutil.copy(sorted((root / 'train').iterdir())[3], path)
    os.utime(path, ns=(time.time_ns() - HOUR // 2,) * 2)
    assert looked(lambda: outcome(root)) == (uncached(root), [path.name])
    assert looked(lambda: outcome(root)) == (uncached(root), [])


def test_images_are_known_after_a_start_that_failed(toy, tmp_path, kept):
    root = save_coco(toy, tmp_path / 'coco')
    path = sorted((root / 'val').iterdir())[-1]  # the last to be checked
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    age(root)
    assert path.name in outcome(root)
    assert path.name in outcome(root)  # damage is found anew each time
    path.write_bytes(whole)
    got, seen = looked(lambda: outcome(root))
    assert got == uncached(root)
    assert seen == [path.name]


def test_what_was_written_just_now_is_not_trusted(toy, tmp_path, kept):
    root = save_coco(toy, tmp_path / 'coco')
    outcome(root)
    assert names(kept) == []
    age(root, time.time_ns() + 10**12)  # a clock that runs ahead
    outcome(root)
    assert names(kept) == []


def test_a_label_that_appears_outside_of_the_folder_is_noticed(tmp_path, kept, toy):
    "A data.yaml that names a folder elsewhere"
    save_yolo(toy, tmp_path / 'far')
    root = save_yolo(toy, tmp_path / 'near')
    for part in ('images', 'labels'):
        shutil.rmtree(root / part / 'val')
    text = f'train: images/train\nval: {tmp_path}/far/images/val\nnames: '
    (root / 'data.yaml').write_text(text + str(list(toy.vocab[1:])))
    age(root)
    age(tmp_path / 'far')
    right = uncached(root / 'data.yaml')
    assert outcome(root / 'data.yaml') == right
    assert looked(lambda: outcome(root / 'data.yaml')) == (right, [])
    label = sorted((tmp_path / 'far' / 'labels' / 'val').iterdir())[0]
    label.write_text('0 0.5 0.5 0.25 0.25\n')
    os.utime(label, ns=(time.time_ns() - HOUR // 2,) * 2)
    changed = uncached(root / 'data.yaml')
    assert changed != right
    assert outcome(root / 'data.yaml') == changed


def test_an_image_outside_of_the_folder_that_appears_is_noticed(tmp_path, kept, toy):
    root = save_coco(toy, tmp_path / 'coco')
    path = root / 'annotations' / 'instances_train.json'
    d = json.loads(path.read_text())
    inside = sorted((root / 'train').iterdir())[0]
    far = tmp_path / 'far.png'
    inside.rename(far)
    d['images'][0]['file_name'] = str(far)
    path.write_text(json.dumps(d))
    age(root)
    age(far)
    assert outcome(root) == uncached(root)
    assert looked(lambda: outcome(root)) == (uncached(root), [])
    far.unlink()
    assert outcome(root, 'fix') == uncached(root, 'fix')
    assert outcome(root, 'fix') == uncached(root, 'fix')
    shutil.copy(inside.parent / sorted(os.listdir(inside.parent))[0], far)
    age(far)
    assert outcome(root, 'fix') == uncached(root, 'fix')


@pytest.mark.parametrize('kind', ['data', 'looks'])
@pytest.mark.parametrize('how', ['cut', 'empty', 'noise', 'folder', 'flipped'])
def test_a_damaged_file_counts_as_none(kind, how, toy, tmp_path, kept):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    right = outcome(root)
    path = next(kept.glob(f'{kind}-*'))
    if kind == 'looks':
        next(kept.glob('data-*')).unlink()
    raw = path.read_bytes()
    if how == 'folder':
        path.unlink()
        path.mkdir()
    else:
        flipped = raw[:700] + bytes(255 - b for b in raw[700:720]) + raw[720:]
        path.write_bytes(dict(cut=raw[:-99], empty=b'', noise=b'PK\3\4' * 99, flipped=flipped)[how])
    assert outcome(root) == right
    if how != 'folder':
        assert looked(lambda: outcome(root)) == (right, [])  # it was written anew


@pytest.mark.parametrize('rows', [[], [1], [[1, 2]], [[1, 2, 3, 4]], [[1.5] * 5], [[[1] * 5]]])
@pytest.mark.parametrize('paths', [[], ['x'], [{}], {}, 7, None])
def test_known_images_of_another_shape_count_as_none(rows, paths, toy, tmp_path, kept):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    right = outcome(root)
    next(kept.glob('data-*')).unlink()
    path = next(kept.glob('looks-*'))
    with np.load(path) as z:
        key = z['key']
    text = np.frombuffer(json.dumps(paths).encode(), np.uint8)
    np.savez(path, key=key, rows=np.array(rows), paths=text)
    assert outcome(root) == right


def test_no_place_to_write_costs_nothing_but_time(toy, tmp_path, kept, monkeypatch):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    (tmp_path / 'a_file').write_text('')
    monkeypatch.setenv('SSD_TUTORIAL_CACHE', str(tmp_path / 'a_file' / 'below'))
    assert outcome(root) == uncached(root)
    assert len(looked(lambda: outcome(root))[1]) == 9


def test_nothing_is_written_into_the_data_set(toy, tmp_path, kept):
    root = save_voc(toy, tmp_path / 'voc')
    age(root)
    before = folder_stamp(take_inventory(root))
    outcome(root)
    assert folder_stamp(take_inventory(root)) == before


def test_a_record_with_more_than_we_know_is_not_kept(toy, tmp_path):
    data = load_dataset(save_coco(toy, tmp_path / 'coco'))
    assert everything(unpack_data(pack_data(data))) == everything(data)
    r = data.train[0]
    strange = [
        replace(r, image=np.zeros((4, 4, 3), np.uint8)),
        replace(r, image_id='7'),
        replace(r, image_id=2**70),
        replace(r, boxes_px=r.boxes_px.astype(np.float64)),
        replace(r, said=()),
    ]
    for s in strange:
        odd = replace(data, splits=dict(train=[s]))
        assert pack_data(odd) is None, s


def test_a_further_field_is_kept_only_where_it_is_empty(toy, tmp_path, monkeypatch):
    from dataclasses import dataclass

    @dataclass
    class More(checked.Record):
        outlines: object = None

    data = load_dataset(save_coco(toy, tmp_path / 'coco'))
    of = lambda o: replace(data, splits=dict(train=[More(**vars(data.train[0]), outlines=o)]))
    assert pack_data(of(None)) is not None
    assert pack_data(of([[1, 2]])) is None


def test_a_format_of_ones_own_is_never_recalled(toy, tmp_path, kept, monkeypatch):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    mine = Format('mine', lambda inventory: [], lambda *args: None)
    monkeypatch.setitem(FORMATS, 'mine', mine)
    outcome(root)
    assert names(kept) == ['looks']


def test_small_sets_and_generated_ones_leave_nothing(toy, tmp_path, kept, monkeypatch):
    load_dataset('generated:largest')
    monkeypatch.setattr(checked, 'LEAST', 10)
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    outcome(root)
    assert names(kept) == []


def test_the_oldest_go_beyond_the_limit(toy, tmp_path, kept, monkeypatch):
    roots = [save_coco(toy, tmp_path / f'coco{i}') for i in range(3)]
    for root in roots:
        age(root)
        outcome(root)
    size = sum(p.stat().st_size for p in kept.iterdir())
    monkeypatch.setattr(checked, 'MOST_BYTES', size // 2)
    for p in kept.iterdir():
        os.utime(p, (0, 0))
    new = save_coco(toy, tmp_path / 'new')
    age(new)
    outcome(new)
    assert looked(lambda: outcome(new)) == (uncached(new), [])
    assert sum(p.stat().st_size for p in kept.iterdir()) <= size // 2


def test_where_it_is_kept(monkeypatch):
    monkeypatch.delenv('SSD_TUTORIAL_CACHE', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
    assert cache_folder() == Path('/somewhere/ssd_tutorial')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert cache_folder() == Path.home() / '.cache' / 'ssd_tutorial'
    monkeypatch.setenv('SSD_TUTORIAL_CACHE', 'OFF')
    assert cache_folder() is None


def test_switched_off_nothing_is_read_either(toy, tmp_path, kept, monkeypatch):
    root = save_coco(toy, tmp_path / 'coco')
    age(root)
    outcome(root)
    monkeypatch.setenv('SSD_TUTORIAL_CACHE', 'off')
    known = CheckCache([root], [(None, take_inventory(root))], ReadOptions())
    assert known.outcome() is None
    assert len(looked(lambda: outcome(root))[1]) == 9


def test_pictures_without_labels_are_looked_at_once(kept, tmp_path):
    "A bare folder of negatives, too: what is known is not decoded again, what has changed is"
    folder = tmp_path / 'empty'
    folder.mkdir()
    for i, r in enumerate(generated_data('multiscale', 4, 1, size=32).train):
        r.load().save(folder / f'{i}.png')
    age(folder)
    first, seen = looked(lambda: pictures_without(folder, ('background', 'cat')))
    assert seen == ['0.png', '1.png', '2.png', '3.png']
    again, seen = looked(lambda: pictures_without(folder, ('background', 'cat')))
    assert seen == []
    assert [r.size_hw for r in again] == [r.size_hw for r in first]
    (folder / '2.png').write_bytes((folder / '1.png').read_bytes())
    (folder / '3.png').write_bytes(b'no picture')
    with pytest.raises(DataError, match='3.png'):
        pictures_without(folder, ('background', 'cat'))
