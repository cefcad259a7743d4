"""A detector's folder, and the hub: a push and a fetch through the library, against a small hub of
our own (hub_server.py). The library reads its settings when it is imported, so what talks to the
hub is a process of its own."""

import json, os, re, struct, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hub_server import TOKEN, Hub, Repo
from safetensors.torch import load, save
from ssd_tutorial.cli import main
from ssd_tutorial.config import DetectorError, TrainConfig
from ssd_tutorial.detector import Detector
from ssd_tutorial.hub import hub_card, pack_weights, read_weights, save_folder
from ssd_tutorial.records import generated_data
from ssd_tutorial.trainer import new_detector

ROOT = Path(__file__).resolve().parent.parent
NAMES = ['README.md', 'config.json', 'model.safetensors']
PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def small(seed=0):
    "A detector with small weights of its own"
    torch.manual_seed(seed)
    data = generated_data('multiscale', 4, 2, size=64)
    cfg = TrainConfig('grid', size=64, weights='none', body='test_efficientnet', width=8)
    return new_detector(data, cfg)


@pytest.fixture(scope='module')
def det():
    return small()


@pytest.fixture(scope='module')
def folder(det, tmp_path_factory):
    return save_folder(det, tmp_path_factory.mktemp('folder') / 'd')


def found_by(det):
    f = det.predict(PHOTO, score=0.0)
    return f.boxes_px.tolist(), f.scores.tolist(), f.labels.tolist()


def files_of(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def changed(folder, to, weights=None, config=None, **entries):
    "A copy with other files or other entries of the description; other weights have no checksum"
    files = files_of(folder)
    d = json.loads(files['config.json'])
    d |= dict(sha256=None) if weights is not None else {}
    files['config.json'] = json.dumps({**d, **entries}).encode() if config is None else config
    files['model.safetensors'] = weights if weights is not None else files['model.safetensors']
    to.mkdir()
    for name, data in files.items():
        (to / name).write_bytes(data)
    return to


def refusal(path):
    with pytest.raises(DetectorError) as e:
        Detector.load(path)
    said = str(e.value)
    assert '\n' not in said
    assert len(said) < 900
    return said


# ---------------------------------------------------------------- the folder
@pytest.mark.parametrize('where', ['folder', 'file', 'links', 'relative'])
def test_what_is_loaded_finds_the_same(where, det, folder, tmp_path, monkeypatch):
    path = folder
    if where == 'file':
        path = folder / 'model.safetensors'
    if where == 'links':  # as in the library's cache
        path = tmp_path / 'snapshot'
        path.mkdir()
        for i, p in enumerate(folder.iterdir()):
            (tmp_path / f'blob{i}').write_bytes(p.read_bytes())
            (path / p.name).symlink_to(f'../blob{i}')
    if where == 'relative':
        monkeypatch.chdir(folder.parent)
        path = 'd'
    again = Detector.load(path)
    assert found_by(again) == found_by(det)
    assert json.loads(json.dumps(again.head())) == json.loads(json.dumps(det.head()))


def test_the_files(det, folder):
    files = files_of(folder)
    assert sorted(files) == NAMES
    assert {k: (v.dtype, v.shape) for k, v in load(files['model.safetensors']).items()} == {
        k: (v.dtype, v.shape) for k, v in det.model.state_dict().items()
    }
    text = files['config.json'].decode()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '\n "size": 64,\n' in text
    assert re.search(r'"levels": \[\d+, \d+\],\n', text)  # numbers stand on one line


def test_every_kind_of_network_comes_back(tmp_path):
    "Masks, points, shared heads, own settings of a body: whatever a state dict may hold"
    data = generated_data('multiscale', 4, 2, size=64)
    for arch in ('multiscale', 'fpn', 'fcos', 'ssd'):
        cfg = TrainConfig(arch, size=128, weights='none', width=8, body='test_efficientnet')
        det = new_detector(data, cfg)
        assert found_by(Detector.load(save_folder(det, tmp_path / arch))) == found_by(det), arch


def test_half(det, tmp_path):
    half = save_folder(det, tmp_path / 'half', half=True)
    whole = save_folder(det, tmp_path / 'whole')
    sizes = [(p / 'model.safetensors').stat().st_size for p in (half, whole)]
    assert sizes[0] < 0.7 * sizes[1]
    a, b = (found_by(Detector.load(p))[1] for p in (half, whole))
    np.testing.assert_allclose(a, b, atol=5e-3)


def test_tensors_that_share_memory():
    one = torch.rand(4, 4)
    again = load(pack_weights(dict(a=one, b=one, c=one.T, d=one[:, 1])))
    assert torch.equal(again['c'], one.T)
    assert torch.equal(again['d'], one[:, 1])


def test_names_in_any_letters(det, tmp_path):
    names = ('background', *(f'{n} [\n 1 ]' for n in det.vocab[1:-1]), '猫 "x" \ud800')
    odd = Detector(det.model, names, det.description, det.size)
    assert Detector.load(save_folder(odd, tmp_path / 'odd')).vocab == names


def test_the_card(det, tmp_path):
    text = hub_card(det, 'me/shapes')
    top = yaml.safe_load(text.split('---')[1])
    assert top == dict(
        library_name='ssd_tutorial', pipeline_tag='object-detection', tags=['ssd_tutorial', 'grid']
    )
    assert all(n in text for n in det.vocab[1:])
    assert "load('hub:me/shapes')" in text
    licensed = yaml.safe_load(hub_card(det, licence='mit').split('---')[1])
    assert licensed['license'] == 'mit'
    (page := save_folder(det, tmp_path / 'a') / 'README.md').write_text('mine')
    save_folder(det, tmp_path / 'a', licence='mit')
    assert page.read_text() == 'mine'


def test_old_weights_never_answer_for_new_names(det, tmp_path, monkeypatch):
    "A disk that is full between two files"
    from ssd_tutorial import hub
    from ssd_tutorial.system import WriteError, save_whole

    path = save_folder(det, tmp_path / 'd')

    def full(content, path):
        if Path(path).name == 'config.json':
            raise WriteError(f'{path}: could not be written.')
        return save_whole(content, path)

    monkeypatch.setattr(hub, 'save_whole', full)
    with pytest.raises(WriteError):
        save_folder(small(seed=1), path)
    assert 'SHA-256' in refusal(path)


# ---------------------------------------------------------------- what is refused
STATE = dict(nan=float('nan'), inf=float('inf'))
ODD = ('float8_e4m3fn', 'float8_e5m2', 'complex64', 'int64', 'bool')


@pytest.mark.parametrize('kind', [*STATE, *ODD, 'huge', 'missing', 'more', 'shape'])
def test_weights_that_cannot_be(kind, folder, tmp_path):
    state = load((folder / 'model.safetensors').read_bytes())
    k = next(k for k, v in state.items() if v.dim() == 4)
    if kind in STATE:
        state[k][0] = STATE[kind]
    elif kind in ODD:
        state[k] = state[k].to(getattr(torch, kind))
    elif kind == 'huge':  # finite in float64 alone
        state[k] = state[k].double() + 1e300
    elif kind == 'missing':
        del state[k]
    elif kind == 'more':
        state['more'] = torch.zeros(1)
    else:
        state[k] = state[k].flatten()
    said = refusal(changed(folder, tmp_path / 'bad', save(state)))
    assert 'more' in said if kind == 'more' else k in said


def test_weights_that_overflow(folder, tmp_path):
    "Each is finite; what the network makes of them is not"
    state = load((folder / 'model.safetensors').read_bytes())
    for k, v in state.items():
        if v.dim() == 4:
            state[k] = v.sign() * 3e38
    det = Detector.load(changed(folder, tmp_path / 'bad', save(state)))
    try:
        found = det.predict(PHOTO, score=0.0)
    except DetectorError as e:
        assert 'no numbers' in str(e)
    else:
        assert np.isfinite(found.boxes_px).all()


def test_boxes_that_are_no_numbers(det, monkeypatch):
    nan = dict(boxes_xyxy=torch.full((1, 4), float('nan')), scores=torch.ones(1))
    one = [nan | dict(labels=torch.ones(1, dtype=torch.int64))]
    monkeypatch.setattr(type(det.model), 'find', lambda *a, **k: one)
    with pytest.raises(DetectorError, match='boxes that are no numbers. Its weights are damaged'):
        det.predict(PHOTO)


def of_header(header, data=b''):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(header)) + header + data


def tensor(kind, shape, end):
    return dict(w=dict(dtype=kind, shape=shape, data_offsets=[0, end]))


FILES = {
    'empty': b'',
    'seven bytes': b'1234567',
    'header of 2**63': struct.pack('<Q', 2**63) + b'{}',
    'header beyond the file': struct.pack('<Q', 10) + b'{}',
    'no JSON': of_header(b'{"w"'),
    'a list': of_header(b'[]'),
    'nested': of_header(b'{"w":' + b'[' * 50_000),
    'past the end': of_header(tensor('F32', [10**6], 4 * 10**6), bytes(4)),
    'overflow': of_header(tensor('F32', [2**33, 2**33], 4), bytes(4)),
    'stride': of_header(tensor('F32', [0, 2**63 - 1, 4], 0)),
    'unknown type': of_header(tensor('F7', [1], 1), bytes(1)),
    'not covered': of_header(tensor('F32', [1], 4), bytes(8)),
    'one name twice': of_header(
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
    ),
    'two in one place': of_header(
        b'{"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    'pickle': b'PK\3\4' + bytes(99),
}


@pytest.mark.parametrize('kind', FILES)
def test_files_that_are_none(kind, folder, tmp_path):
    bad = changed(folder, tmp_path / 'bad', FILES[kind])
    with pytest.raises(DetectorError, match='no safetensors'):
        read_weights(bad / 'model.safetensors')
    assert 'model.safetensors: no safetensors' in refusal(bad)


def test_floats_of_four_bits(folder, tmp_path):
    "Which some versions of the library read"
    four = of_header(tensor('F4', [2], 1), bytes(1))
    said = refusal(changed(folder, tmp_path / 'bad', four))
    assert 'no safetensors' in said or 'is of type' in said


def test_a_header_of_a_hundred_megabytes_is_not_parsed(folder, tmp_path):
    bad = changed(folder, tmp_path / 'bad', b'')
    with open(bad / 'model.safetensors', 'wb') as f:
        f.write(struct.pack('<Q', 9 * 10**7))
        f.truncate(10**8)  # holes: no disk is filled
    assert 'a header of 90000000 bytes' in refusal(bad)


def test_a_pointer_of_git_lfs(folder, tmp_path):
    said = refusal(changed(folder, tmp_path / 'bad', b'version https://git-lfs.github.com/spec/v1'))
    assert 'git lfs pull' in said


@pytest.mark.parametrize('at', [0, 30, -1, -1000])
def test_one_bit(at, folder, tmp_path):
    bad = changed(folder, tmp_path / 'bad')
    data = bytearray((bad / 'model.safetensors').read_bytes())
    data[at] ^= 1
    (bad / 'model.safetensors').write_bytes(data)
    assert 'SHA-256' in refusal(bad)


@pytest.mark.parametrize(
    'config',
    [b'', b'{', b'[]', b'{}', b'\xff\xfe', b'[' * 99_999, b'{"model_type": "bert"}', b'1' * 9999],
)
def test_descriptions_of_other_programs(config, folder, tmp_path):
    said = refusal(changed(folder, tmp_path / 'bad', config=config))
    assert 'config.json: not the description of a detector' in said
    assert '--to hub' in said


@pytest.mark.parametrize(
    'change,says',
    [
        (dict(format=99), 'Update ssd_tutorial'),
        (dict(size=10**6), 'its size'),
        (dict(score=float('nan')), 'its score'),
        (dict(vocab=['background']), 'its vocab'),
        (dict(coder=dict(kind='evil')), 'evil'),
        (dict(description=[]), 'its description'),
        (dict(sha256=7), 'SHA-256'),
        (dict(sha256='0' * 64), 'SHA-256'),
    ],
)
def test_the_rules_of_a_description_hold_here_too(change, says, folder, tmp_path):
    assert says in refusal(changed(folder, tmp_path / 'bad', **change))


def test_a_module_that_a_file_names_is_not_imported(folder, tmp_path, monkeypatch):
    (tmp_path / 'evil_nets.py').write_text('raise SystemExit("imported")')
    monkeypatch.syspath_prepend(str(tmp_path))
    d = json.loads((folder / 'config.json').read_text())['description']
    bad = changed(folder, tmp_path / 'bad', description=dict(d, arch='mine', module='evil_nets'))
    assert 'import evil_nets first' in refusal(bad)
    assert 'evil_nets' not in sys.modules


def test_folders_of_other_things(folder, tmp_path):
    assert 'model.safetensors: no such file' in refusal(tmp_path)
    (tmp_path / 'detector.pt').write_bytes(b'')
    assert f'Do you mean {tmp_path / "detector.pt"}?' in refusal(tmp_path)
    alone = changed(folder, tmp_path / 'alone')
    (alone / 'config.json').unlink()
    assert 'config.json: no such file' in refusal(alone / 'model.safetensors')
    assert 'no such file' in refusal(tmp_path / 'nothing.safetensors')
    (alone / 'config.json').mkdir()
    assert 'config.json: no such file' in refusal(alone)


# ---------------------------------------------------------------- the hub, from another process
def quietly(call):
    "(what it returns, or the error; all that reached the screen)"
    sys.stdout.flush(), sys.stderr.flush()
    kept, screen = [os.dup(1), os.dup(2)], os.memfd_create('screen') if LINUX else None
    if LINUX:
        os.dup2(screen, 1), os.dup2(screen, 2)
    try:
        got = call()
    except DetectorError as e:
        got = str(e)
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for i, fd in enumerate(kept, 1):
            os.dup2(fd, i), os.close(fd)
    if not LINUX:
        return got, ''
    os.lseek(screen, 0, 0)
    with open(screen, encoding='utf-8') as f:
        return got, f.read()


LINUX = sys.platform == 'linux'


def fetch(name, revision=None, token=None):
    import ssd_tutorial.hub  # noqa: F401  gives Detector from_hub

    def call():
        det = Detector.from_hub(name, revision, token=token)
        return [*found_by(det), det.score]

    return quietly(call)


def push(folder, name, **how):
    from ssd_tutorial.hub import Detector

    return quietly(lambda: Detector.load(folder).push_to_hub(name, **how))


def cached():
    "Names of the files in the library's cache, by repository"
    from huggingface_hub.constants import HF_HUB_CACHE

    files = Path(HF_HUB_CACHE).glob('models--*/snapshots/*/*')
    return sorted((p.parts[-4], p.name) for p in files)


def damage(name):
    "Flip a bit of fetched weights"
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f'models--{name.replace("/", "--")}'
    file = next(folder.glob('snapshots/*/model.safetensors')).resolve()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return str(folder)


@pytest.fixture(scope='module')
def hub():
    with Hub() as hub:
        yield hub


def settings_of(hub, home):
    gone = ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE')
    return {k: v for k, v in os.environ.items() if k not in gone} | dict(
        HF_ENDPOINT=hub if isinstance(hub, str) else hub.address,
        HF_HOME=str(home),
        HF_HUB_DISABLE_TELEMETRY='1',
        HF_HUB_DISABLE_XET='1',  # its protocol is more than our hub speaks
        PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))),
        OMP_NUM_THREADS='1',
    )


@pytest.fixture(scope='module')
def client(hub, tmp_path_factory):
    "Calls a function of this file in a process whose hub is ours"
    env = settings_of(hub, tmp_path_factory.mktemp('home'))
    with pytest.MonkeyPatch.context() as m:
        for k in {*os.environ} - {*env}:
            m.delenv(k)
        for k, v in env.items():
            m.setenv(k, v)
        pool = ProcessPoolExecutor(1, mp_context=get_context('spawn'))
        pool.submit(os.getpid).result()  # it has started, with these settings
    with pool:
        yield lambda f, *a, **k: pool.submit(f, *a, **k).result(timeout=120)


def asked(hub, before):
    return hub.asked[before:]


def test_there_and_back(hub, client, folder, det):
    before = len(hub.asked)
    address, screen = client(push, folder, 'me/there', token=TOKEN, message='the first')
    assert address == f'{hub.address}/me/there'
    assert screen == ''
    repo = hub.repos['me/there']
    (_, start), (_, files) = repo.commits  # a new repository has a commit; ours is one
    assert sorted({*files} - {*start}) == NAMES
    assert repo.private
    assert hub.messages[-1] == 'the first'
    assert 'hub:me/there' in files['README.md'].decode()
    assert any(a.startswith('PUT /lfs/') for a in asked(hub, before))
    found, screen = client(fetch, 'me/there', token=TOKEN)
    assert found == [*found_by(det), det.score]
    assert screen == ''


def test_nothing_else_is_fetched(hub, client, folder, det):
    evil = {'detector.pt': b'a pickle', 'nets.py': b'raise SystemExit', 'pytorch_model.bin': b''}
    hub.repos['me/more'] = Repo()
    hub.repos['me/more'].commit({**files_of(folder), **evil})
    before = len(hub.asked)
    assert client(fetch, 'me/more')[0][:3] == [*found_by(det)]
    files = {a.rpartition('/')[2] for a in asked(hub, before) if '/resolve/' in a}
    assert files == {'config.json', 'model.safetensors'}
    kept = [n for repo, n in client(cached) if repo == 'models--me--more']
    assert kept == ['config.json', 'model.safetensors']


def test_public_where_it_is_said_and_a_card_stays(hub, client, folder):
    client(push, folder, 'me/cards', token=TOKEN, private=False, licence='mit')
    repo = hub.repos['me/cards']
    assert not repo.private
    assert b'license: mit' in repo.commits[-1][1]['README.md']
    repo.commit({'README.md': b'their own words'})
    again = save_folder(small(seed=2), folder.parent / 'second')
    client(push, again, 'me/cards', token=TOKEN)
    assert repo.commits[-1][1]['README.md'] == b'their own words'
    assert repo.commits[-1][1]['config.json'] == (again / 'config.json').read_bytes()


def test_revisions(hub, client, folder, tmp_path):
    hub.repos['me/revs'] = repo = Repo()
    scores = dict(old=0.11, new=0.22)
    for tag, score in scores.items():
        repo.commit(files_of(changed(folder, tmp_path / tag, score=score)), tag=tag)
    old = repo.commits[0][0]
    score = lambda *a: client(fetch, *a)[0][-1]
    assert score('me/revs') == 0.22
    assert score('me/revs', 'old') == 0.11
    assert score('me/revs@old') == 0.11
    assert score('me/revs', old) == 0.11
    said, screen = client(fetch, 'me/revs', 'v9')
    assert 'hub:me/revs: it has no revision v9. Name a branch' in said
    assert screen == ''


def test_weights_and_description_come_from_one_commit(hub, client, folder, det, monkeypatch):
    "Somebody pushes between our two requests"
    hub.repos['me/race'] = repo = Repo()
    repo.commit(files_of(folder))
    other = files_of(save_folder(small(seed=3), folder.parent / 'third'))
    at = repo.at

    def later(revision):
        found = at(revision)
        if revision == 'main' and len(repo.commits) == 1 and hub.asked[-1].startswith('GET /me/'):
            repo.commit(other)  # after the description has gone out
        return found

    monkeypatch.setattr(repo, 'at', later)
    assert client(fetch, 'me/race')[0][:3] == [*found_by(det)]
    assert len(repo.commits) == 2


@pytest.mark.parametrize(
    'name', ['animals', 'a/b/c', '../me/x', 'me/../x', 'me/x y', '', 'me/x.git', 'me/' + 'x' * 200]
)
def test_names_that_cannot_be_are_told_without_asking(name, hub, client):
    before = len(hub.asked)
    said, screen = client(fetch, name)
    assert 'It is OWNER/NAME' in said
    assert (asked(hub, before), screen) == ([], '')


def repo_of(kind, folder):
    repo = Repo(private=kind == 'private')
    files = files_of(folder)
    if kind == 'gated':
        repo.gated = True
    if kind == 'bert':
        files['config.json'] = b'{"model_type": "bert", "hidden_size": 768}'
    if kind == 'no config':
        del files['config.json']
    if kind == 'no weights':
        del files['model.safetensors']
    if kind == 'hostile':
        d = json.loads(files['config.json'])
        files['config.json'] = json.dumps(d | dict(size=10**6)).encode()
    repo.commit({'.gitattributes': b''} if kind == 'empty' else files)
    return repo


@pytest.mark.parametrize(
    'kind,says',
    [
        ('nowhere', 'no such repository. Check the name; for a private one log in with: hf auth'),
        ('private', 'no such repository. Check the name; for a private one log in with: hf auth'),
        ('gated', 'its owner grants access one by one. Ask for it on http'),
        ('bert', 'not the description of a detector of ssd_tutorial'),
        ('no config', 'not a detector of ssd_tutorial. It lacks model.safetensors or config.json'),
        ('no weights', 'not a detector of ssd_tutorial. It lacks model.safetensors or config.json'),
        ('hostile', 'its size is 1000000'),
        ('empty', 'not a detector of ssd_tutorial. It lacks model.safetensors or config.json'),
    ],
)
def test_what_cannot_be_fetched_says_why(kind, says, hub, client, folder):
    name = f'me/is-{kind.replace(" ", "-")}'
    if kind != 'nowhere':
        hub.repos[name] = repo_of(kind, folder)
    before = len(hub.asked)
    said, screen = client(fetch, name)
    assert said.startswith(f'hub:{name}: ')
    assert says in said
    assert '\n' not in said
    assert screen == ''
    if kind in ('bert', 'hostile'):  # found out before anything large is fetched
        assert not any('model.safetensors' in a for a in asked(hub, before))


def test_where_the_hub_is_out_of_order(hub, client, folder, det):
    "What was fetched before will do; else the line says how to go on"
    hub.repos['me/known'] = repo_of('', folder)
    client(fetch, 'me/known')
    hub.broken = 503
    try:
        assert client(fetch, 'me/known')[0][:3] == [*found_by(det)]
        said, screen = client(fetch, 'me/unknown')
    finally:
        hub.broken = 0
    assert 'the hub cannot be reached. Check the connection and try again, or pass a fold' in said
    assert screen == ''


def test_damage_in_the_cache_says_what_to_delete(hub, client, folder, det):
    hub.repos['me/worn'] = repo_of('', folder)
    client(fetch, 'me/worn')
    place = client(damage, 'me/worn')
    said, _ = client(fetch, 'me/worn')
    assert f'Delete {place}: then it is fetched anew.' in said


@pytest.mark.parametrize(
    'name,token,says',
    [
        ('me/mine', None, 'nobody is logged in. Log in with: hf auth login'),
        ('me/mine', 'hf_wrong', 'this needs a login that may do it'),
        ('you/yours', TOKEN, 'this needs a login that may do it. Check the name of the owner'),
        ('mine', TOKEN, 'It is OWNER/NAME'),
    ],
)
def test_who_may_not_push(name, token, says, hub, client, folder):
    before = len(hub.asked)
    said, screen = client(push, folder, name, token=token)
    assert says in said
    assert '\n' not in said
    assert screen == ''
    assert name not in hub.repos
    assert token or not asked(hub, before)


# ---------------------------------------------------------------- the command line
def run(*args):
    return CliRunner().invoke(main, [*map(str, args)], catch_exceptions=False)


def test_export_and_use_a_folder(folder, tmp_path):
    from PIL import Image

    Image.fromarray(PHOTO).save(tmp_path / 'photo.png')
    for _ in range(2):  # into a folder that is there, too
        done = run('export', '--detector', folder, '--to', 'hub', '--out', tmp_path / 'v1.2')
        assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / 'v1.2').iterdir()) == NAMES
    assert f'--detector {tmp_path}/v1.2/ holiday.jpg' in done.output
    done = run(
        'predict', tmp_path / 'photo.png', '--detector', tmp_path / 'v1.2', '--out', tmp_path / 'o'
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / 'o' / 'predictions.json').is_file()


def test_export_of_the_package_s_own_has_its_card(tmp_path):
    from ssd_tutorial.cards import card_text
    from ssd_tutorial.pretrained import read_card

    assert run('export', '--to', 'hub', '--out', tmp_path / 'a').exit_code == 0
    assert card_text(read_card()) in (tmp_path / 'a' / 'README.md').read_text(encoding='utf-8')


@pytest.mark.parametrize(
    'detector,says',
    [
        ('nothing', 'hub:OWNER/NAME'),
        ('me/animals', 'hub:OWNER/NAME'),
        ('hub:animals', 'It is OWNER/NAME'),
        ('.', 'model.safetensors: no such file'),
    ],
)
def test_names_that_mean_nothing(detector, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run('evaluate', '--data', 'generated', '--detector', detector)
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1


def command(env, *args):
    code = 'from ssd_tutorial.entry import start; start()'
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_from_the_hub_on_the_command_line(hub, folder, tmp_path):
    "Fetched, then offline; and what is said without a network, within seconds"
    from PIL import Image

    photo = tmp_path / 'photo.png'
    Image.fromarray(PHOTO).save(photo)
    hub.repos['me/command'] = repo_of('', folder)
    env = settings_of(hub, tmp_path / 'home')
    how = [photo, '--score', '0', '--out', tmp_path / 'found', '--detector']
    done = command(env, 'predict', *how, 'hub:me/command')
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    found = (tmp_path / 'found' / 'predictions.json').read_text()
    assert len(json.loads(found)) > 0
    away = settings_of('http://127.0.0.1:9', tmp_path / 'home') | dict(HF_HUB_OFFLINE='1')
    before = len(hub.asked)
    done = command(away, 'predict', *how, 'hub:me/command')
    assert (done.returncode, done.stderr) == (0, '')
    assert (tmp_path / 'found' / 'predictions.json').read_text() == found
    assert asked(hub, before) == []
    done = command(away, 'predict', *how, 'hub:me/other')
    assert done.returncode == 2
    assert 'not fetched before, and HF_HUB_OFFLINE is set' in done.stderr
    del away['HF_HUB_OFFLINE']
    done = command(away, 'predict', *how, 'hub:me/other')  # nobody listens there
    assert done.returncode == 2
    assert done.stderr.strip().count('\n') == 0
    assert 'the hub cannot be reached' in done.stderr


@pytest.mark.slow
def test_who_needs_no_hub_does_not_import_it():
    code = (
        'import sys\nfrom ssd_tutorial.detector import Detector\nDetector.pretrained()\n'
        'print("ssd_tutorial.hub" in sys.modules)'
    )
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == 'False'
