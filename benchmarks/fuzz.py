#!/usr/bin/env python3
"""What damaged files do: pictures, label files and files of our own are changed at random, read, and the outcomes counted.

    python benchmarks/fuzz.py --inputs 100000 --seed 0 --jobs 2     the recorded run
    python benchmarks/fuzz.py --seconds 30                          what the tests run
    python benchmarks/fuzz.py --only labels:123                     one input again, with its traceback

Input number i of a kind is made from (seed, kind, i) alone, so that each can be made again. A worker process reads the inputs one by one; one
that takes too long, or ends, costs that input and a new worker. An outcome is one of

    result        something came out, and it is in order
    documented    an error that the user is told in one line (see `user_errors` of the command) and that names the file
    unnamed       such an error that does not say which file it means
    undocumented  any other exception
    wrong         something came out that is not in order: boxes outside the picture, two sizes of one picture, another verdict the second time
    over time     no answer within the limit
    crash         the worker ended

Exit status 1 where there is anything but results and documented errors.
"""
import argparse, copy, io, json, os, random, select, shutil, struct, subprocess, sys, tempfile, time, traceback, zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTCOMES = ('result','documented','unnamed','undocumented','wrong','over time','crash')
SHARES = dict(pictures=50, labels=44, detectors=5, checkpoints=1)  # inputs of 100


# ---------------------------------------------------------------- changing bytes
def flip(b, rng):
    for _ in range(rng.choice((1,1,1,2,8))): b[rng.randrange(len(b))] ^= 1<<rng.randrange(8)
    return b

def cut(b, rng): return b[:rng.randrange(len(b))]

def splice(b, rng):
    "A piece of the file a second time, somewhere else"
    i, n, j = rng.randrange(len(b)), rng.randrange(1, 65), rng.randrange(len(b))
    b[j:j+rng.choice((0,n))] = b[i:i+n]
    return b

def lose(b, rng): i = rng.randrange(len(b)); del b[i:i+rng.randrange(1, 65)]; return b

def junk(b, rng):
    i = rng.randrange(len(b)); b[i:i+8] = rng.choice((bytes(8), b'\xff'*8, rng.randbytes(8)))
    return b

def header(b, rng):
    "A number of the first bytes becomes an extreme one"
    kind = rng.choice(('<H','>H','<I','>I')); i = rng.randrange(min(len(b), rng.choice((32,64,512))))
    top = 256**struct.calcsize(kind)-1
    b[i:i+struct.calcsize(kind)] = struct.pack(kind, rng.choice((0, 1, top, top//2, top//2+1, rng.randrange(top), 65500)) & top)
    return b

BYTES = (flip, flip, cut, splice, lose, junk, header, header)

def change_bytes(data, rng):
    b = bytearray(data)
    for _ in range(rng.choice((1,1,1,2,4))): b = rng.choice(BYTES)(b, rng) if b else b
    return bytes(b)


# ---------------------------------------------------------------- changing what was parsed
ODD = (None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -10**30, 1e308, -1e308, 1e-320, float('nan'), float('inf'), .5, '', ' ', '0', '1', '-1', 'nan',
       'x'*5000, '\0', '../../x', '/etc/hostname', '\x1b[2J', 'ü', [], {}, [[]], [None], {'a': {}}, [1,2,3], ['a','a'], {'0': 'a'}, [[[[1]]]])

def places(d, at=()):
    "Every place in nested dicts and lists"
    for k in list(d) if isinstance(d, dict) else range(len(d)):
        yield d, k
        if isinstance(d[k], (dict,list)): yield from places(d[k])

def change_tree(d, rng):
    "A copy of nested dicts and lists, changed in a few places: another type, gone, twice, nested, swapped"
    d = copy.deepcopy(d)
    for _ in range(rng.choice((1,1,2,4))):
        if not (all_ := list(places(d))): return d
        parent, k = rng.choice(all_); how = rng.randrange(8)
        if how<4: parent[k] = copy.deepcopy(rng.choice(ODD))
        elif how==4: del parent[k]
        elif how==5: parent[k] = rng.choice(([parent[k]], {'a': parent[k]}))
        elif how==6: other, j = rng.choice(all_); parent[k] = copy.deepcopy(other[j]) if j in other or isinstance(other, list) and j<len(other) else 0
        elif isinstance(parent, list): parent.insert(k, copy.deepcopy(parent[k]))
        else: parent[rng.choice(('a','','0','names','path','train'))] = copy.deepcopy(parent[k])
    return d

WORDS = ('', '0', '-1', '1', '1e999', 'nan', 'inf', '1,5', '9'*400, '-', 'x'*3000, '\0', '&lt;', '../../x', '1 2 3', '０', '\ufeff', '\x1b[31m', 'cat', 'dog', 'images/train')
YAML = ('!!int ""', '!!bool maybe', '!!timestamp x', '!!float ""', '!!binary "?"', '!!set {a, a}', '!!python/object:os.system x', '&a [*a]', '*b', '{', '- -', '? ', 'names:', '2001-01-01', '[no, yes]', '~', '0x', '0o9', '1:60', '<<: 1', '[[a]]', '{1: {2: 3}}', '"\\x"', '|', '@', '%TAG')

def change_text(text, rng, words=WORDS):
    "A text with a few of its words changed, lines lost, doubled or swapped"
    for _ in range(rng.choice((1,1,2,4))):
        how, lines = rng.randrange(6), text.split('\n')
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        if how==0: lines[i], lines[j] = lines[j], lines[i]; text = '\n'.join(lines)
        elif how==1: del lines[i]; text = '\n'.join(lines)
        elif how==2: lines.insert(i, lines[j]); text = '\n'.join(lines)
        else:
            cells = _cells(text)
            if not cells: return rng.choice(words)
            a,b = rng.choice(cells); text = text[:a]+rng.choice(words)+text[b:]
    return text

def _cells(text):
    import re
    return [m.span() for m in re.finditer(r'[^\s<>=:,\[\]{}/]+|(?<=: )[^\n]+', text)]


# ---------------------------------------------------------------- inputs
class Inputs:
    "The sound files that everything is made of, in a folder of their own"
    def __init__(self, folder): self.folder, self.seeds = Path(folder), {}

    def once(self, name, make):
        if name not in self.seeds: self.seeds[name] = make()
        return self.seeds[name]

    def picture(self, rng):
        "(name of a kind, bytes) of a sound picture"
        kinds = self.once('pictures', self._pictures); name = rng.choice(sorted(kinds))
        return name, kinds[name]

    def _pictures(self):
        import numpy as np
        from PIL import Image
        gen = np.random.default_rng(0)
        rgb = Image.fromarray(gen.integers(0, 255, (6,8,3), dtype=np.uint8)).resize((64,48), Image.BICUBIC)
        other = rgb.transpose(Image.ROTATE_180); out = {}
        exif = Image.Exif(); exif[0x0112] = 6; exif[0x010e] = 'a'
        deep = Image.fromarray(gen.integers(0, 4095, (48,64), dtype=np.uint16))
        cases = [('jpg', rgb, dict(exif=exif)), ('jpg', rgb, dict(progressive=True)), ('jpg', rgb.convert('L'), {}), ('jpg', rgb.convert('CMYK'), {}),
                 ('png', rgb, {}), ('png', rgb.convert('P'), {}), ('png', deep, {}), ('png', rgb.convert('1'), {}), ('png', rgb.convert('RGBA'), dict(exif=exif)),
                 ('png', rgb, dict(save_all=True, append_images=[other])), ('gif', rgb.convert('P'), dict(save_all=True, append_images=[other.convert('P')])),
                 ('webp', rgb, dict(exif=exif)), ('webp', rgb, dict(lossless=True)), ('webp', rgb, dict(save_all=True, append_images=[other]*3)),
                 ('bmp', rgb, {}), ('bmp', rgb.convert('P'), {}), ('tif', rgb, dict(exif=exif)), ('tif', rgb, dict(compression='tiff_lzw')),
                 ('tif', rgb, dict(compression='tiff_adobe_deflate', exif=exif)), ('tif', deep, {}), ('tif', rgb.convert('F').point(lambda v: v/255), {}), ('tif', rgb.convert('1'), dict(compression='group4')),
                 ('tif', rgb, dict(save_all=True, append_images=[other])), ('ppm', rgb, {}), ('pcx', rgb, {}), ('tga', rgb, {}), ('sgi', rgb, {}), ('jp2', rgb, {}), ('avif', rgb, {}), ('ico', rgb, {}), ('eps', rgb, {})]
        for i,(suffix,img,how) in enumerate(cases):
            to = io.BytesIO()
            try: img.save(to, dict(jpg='JPEG', tif='TIFF', jp2='JPEG2000').get(suffix, suffix.upper()), **how)
            except (OSError, KeyError, ValueError): continue  # this Pillow does not write it
            out[f'{suffix}_{i}'] = to.getvalue()
        return out

    def small(self): return self.once("small", lambda: self._pictures()["jpg_2"])


def set_png_size(data, rng):
    "A PNG whose size, depth and colour are others, with sound checksums"
    w, h = (rng.choice((0,1,63,64,65,1000,20_000,65_535,65_536,1_769_536,2**31-1)) for _ in range(2))
    body = b'IHDR'+struct.pack('>II', w, h)+bytes((rng.choice((1,2,4,8,16)), rng.choice((0,2,3,4,6)), 0, 0, rng.choice((0,0,1))))
    return data[:12]+body+struct.pack('>I', zlib.crc32(body))+data[33:]

def any_picture(inputs, rng):
    name, data = inputs.picture(rng); suffix = name.split('_')[0]
    if suffix=='png' and rng.random()<.2: data = set_png_size(data, rng)
    if rng.random()<.1:  # the head of one kind, the rest of another
        other = inputs.picture(rng)[1]; i = rng.randrange(min(len(data), len(other))); data = data[:i]+other[i:]
    else: data = change_bytes(data, rng)
    return rng.choice((suffix, suffix, suffix, 'jpg')), data


# ---------------------------------------------------------------- label files
def write_set(root, kind, inputs):
    "A sound data set of four small pictures; the files that say what is in them"
    pic, root = inputs.small(), Path(root); names = [f'p{i}' for i in range(4)]
    def put(path, text):
        path.parent.mkdir(parents=True, exist_ok=True); path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
    boxes = {n: [(4+i,5,30,40),(20,10,50,30+i)] for i,n in enumerate(names)}; split = {n: 'train' if i<3 else 'val' for i,n in enumerate(names)}
    if kind=='voc':
        for n in names: put(root/'JPEGImages'/f'{n}.jpg', pic)
        obj = lambda c, b: f'<object><name>{c}</name><difficult>0</difficult><bndbox><xmin>{b[0]+1}</xmin><ymin>{b[1]+1}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>\n'
        xml = [put(root/'Annotations'/f'{n}.xml', f'<annotation>\n<filename>{n}.jpg</filename>\n<size><width>64</width><height>48</height><depth>3</depth></size>\n{obj("cat", bs[0])}{obj("dog", bs[1])}</annotation>') for n,bs in boxes.items()]
        return xml+[put(root/'ImageSets'/'Main'/f'{s}.txt', ''.join(f'{n}\n' for n in names if split[n]==s)) for s in ('train','val')]
    if kind in ('coco','fastai'):
        files = []
        for s in ('train','val'):
            ours = [n for n in names if split[n]==s]; folder = s if kind=='coco' else dict(train='train', val='valid')[s]
            for n in ours: put(root/folder/f'{n}.jpg', pic)
            d = dict(images=[dict(id=10+i, file_name=f'{n}.jpg', width=64, height=48) for i,n in enumerate(ours)], categories=[dict(id=3, name='cat'), dict(id=7, name='dog')],
                     annotations=[dict(id=2*i+k, image_id=10+i, category_id=(3,7)[k], bbox=[b[0],b[1],b[2]-b[0],b[3]-b[1]], iscrowd=0, area=100, segmentation=[[b[0],b[1],b[2],b[1],b[2],b[3]]]) for i,n in enumerate(ours) for k,b in enumerate(boxes[n])])
            files.append(put(root/'annotations'/f'instances_{s}.json' if kind=='coco' else root/f'{folder}.json', json.dumps(d)))
        return files
    for n in names: put(root/'images'/split[n]/f'{n}.jpg', pic)
    line = lambda c, b: f'{c} {(b[0]+b[2])/128:.4f} {(b[1]+b[3])/96:.4f} {(b[2]-b[0])/64:.4f} {(b[3]-b[1])/48:.4f}\n'
    txt = [put(root/'labels'/split[n]/f'{n}.txt', line(0, bs[0])+line(1, bs[1])) for n,bs in boxes.items()]
    config = dict(path='.', train='images/train', val='images/val', nc=2, names=['cat','dog'])
    if kind=='list':
        config |= dict(train='train.txt', val='val.txt')
        txt += [put(root/f'{s}.txt', ''.join(f'images/{s}/{n}.jpg\n' for n in names if split[n]==s)) for s in ('train','val')]
    return txt+[put(root/'data.yaml', ''.join(f'{k}: {json.dumps(v)}\n' for k,v in config.items()))]*4

def damage_labels(path, rng):
    data = path.read_bytes(); how = rng.random()
    if how<.25: return path.write_bytes(change_bytes(data, rng))
    if path.suffix=='.json' and how<.85: return path.write_text(json.dumps(change_tree(json.loads(data), rng)))
    if path.suffix=='.yaml' and how<.5:
        config = dict(line.split(': ', 1) for line in data.decode().splitlines()); config = change_tree({k: json.loads(v) for k,v in config.items()}, rng)
        return path.write_text(''.join(f'{k}: {json.dumps(v)}\n' for k,v in config.items()))
    path.write_bytes(change_text(data.decode(), rng, WORDS+YAML if path.suffix=='.yaml' else WORDS).encode('utf-8', 'replace'))


# ---------------------------------------------------------------- reading them
class Wrong(Exception): "What came out is not in order"

def demand(ok, what):
    if not ok: raise Wrong(what)

def read_picture(inputs, rng, folder):
    from ssd_tutorial.augment import to_input
    from ssd_tutorial.readers import DataError, check_record, image_size, make_record, open_image
    suffix, data = any_picture(inputs, rng); path = folder/f'photo.{suffix}'; path.write_bytes(data)
    def verdict(f):
        try: return f()
        except DataError as e: return e
    size, checked, img = verdict(lambda: image_size(path)), verdict(lambda: check_record(make_record(path, 0, None, []), ('background','a'))), verdict(lambda: open_image(path))
    if not isinstance(img, DataError):
        demand(not isinstance(checked, DataError), f'opened, but checked: {checked}')
        demand(checked[0].size_hw==img.size[::-1]==size or isinstance(size, DataError), f'sizes {checked[0].size_hw}, {img.size[::-1]}, {size}')
        again = verdict(lambda: open_image(img)); demand(not isinstance(again, DataError) and again.tobytes()==img.tobytes(), 'another picture the second time')
        x = to_input(path, 64); demand(x.shape==(3,64,64) and bool(((x>=0)&(x<=1)).all()), 'an input that is none')
    for e in (size, checked, img):
        if isinstance(e, DataError): raise e
    if inputs.once('predicting', lambda: random.Random(1)).random()<.01: predict(inputs, path, img.size)
    return path.name

def predict(inputs, path, wh):
    import numpy as np
    from ssd_tutorial.detector import Detector
    det = inputs.once('detector', Detector.pretrained); found = det.predict(path, score=.05); b = found.boxes_px
    demand(tuple(found.size_hw)==wh[::-1] and np.isfinite(b).all() and (b>=0).all() and (b<=[*wh,*wh]).all(), f'boxes {b.tolist()} in {wh}')

def read_labels(inputs, rng, folder):
    import warnings
    import numpy as np
    from ssd_tutorial.readers import load_dataset
    warnings.simplefilter('ignore')
    kind = rng.choice(('voc','coco','fastai','yolo','list')); root = folder/f'set_{kind}'; files = write_set(root, kind, inputs)
    for p in {rng.choice(files) for _ in range(rng.choice((1,1,2)))}: damage_labels(p, rng)
    problem = None
    for policy in ('raise','fix','skip'):
        try: data = load_dataset(root, policy)
        except Exception as e:
            if not is_documented(e): raise
            if not named(e, folder): raise
            problem = problem or e; continue
        for r in (r for rs in data.splits.values() for r in rs):
            b, (h,w) = r.boxes_px, r.size_hw
            demand(np.isfinite(b).all() and (b>=0).all() and (b[:,2:]<=[w,h]).all() and (b[:,:2]<b[:,2:]).all(), f'{policy}: boxes {b.tolist()} in {r.size_hw}')
            demand(((r.labels>0)&(r.labels<len(data.vocab))).all() and len(r.labels)==len(b)==len(r.crowd), f'{policy}: labels {r.labels.tolist()}')
        demand(data.vocab[0]=='background' and len(set(data.vocab))==len(data.vocab) and all(str(n).strip() for n in data.vocab), f'{policy}: names {data.vocab}')
    if problem: raise problem


def small_run(inputs):
    "(data, settings, files) of a training that was interrupted after the first of two epochs"
    from ssd_tutorial.detector import TrainConfig, last_path, train_detector
    from ssd_tutorial.readers import generated_data
    out = inputs.folder/'run'/'d.pt'; data = generated_data('multiscale', 4, 2, size=64)
    cfg = TrainConfig(arch='grid', size=64, width=8, body='test_efficientnet', weights='none', frozen_epochs=2, epochs=0, bs=4, strength=.1)
    stop = _stop_after_one()
    try: train_detector(data, cfg, False, out, cbs=[stop])
    except KeyboardInterrupt: pass
    return data, cfg, out.read_bytes(), last_path(out).read_bytes()

def _stop_after_one():
    from fastai.callback.core import Callback
    class Stop(Callback):
        order = 80
        def before_epoch(self):
            if self.epoch: raise KeyboardInterrupt
    return Stop()

def change_tensors(d, rng):
    "Nested dicts and lists with tensors, changed in a few places"
    import torch
    d = copy.deepcopy(d); found = [(p, k) for p,k in places(d) if isinstance(p[k], torch.Tensor)]
    if not found or rng.random()<.5:
        try: return change_tree(d, rng)
        except (TypeError, RuntimeError): return d  # tensors that cannot be compared
    p, k = rng.choice(found); v = p[k]; how = rng.randrange(7)
    if how==0: p[k] = v.flatten()[:-1].clone()
    elif how==1: p[k] = v.double() if rng.random()<.5 else v.to(torch.int64)
    elif how==2 and v.is_floating_point() and v.numel(): v.view(-1)[0] = rng.choice((float('nan'), float('inf'), -float('inf')))
    elif how==3: p[k] = torch.zeros(1).expand(10**6, 10**5)
    elif how==4: p[k] = rng.choice((None, 0, 'x', [], torch.zeros(0)))
    elif how==5: del p[k]
    else: p[k] = v.to_sparse() if v.dim() else v[None]
    return d

def saved(d):
    import torch
    to = io.BytesIO(); torch.save(d, to)
    return to.getvalue()

def read_detector(inputs, rng, folder):
    import torch
    from ssd_tutorial.detector import Detector
    *_, good, _ = inputs.once('run', lambda: small_run(inputs)); path = folder/'detector.pt'; how = rng.random()
    if how<.4: data = change_bytes(good, rng)
    else:
        d = torch.load(io.BytesIO(good), weights_only=True)
        if how<.8: d['json'] = json.dumps(change_tree(json.loads(d['json']), rng))
        else: d = change_tensors(d, rng)
        data = saved(d)
    path.write_bytes(data); det = Detector.load(path); found = det.predict(inputs.once('photo', lambda: __import__('numpy').zeros((48,64,3), 'uint8')), score=0.)
    import numpy as np
    demand(np.isfinite(found.boxes_px).all(), 'boxes that are no numbers')
    if how<.4 and data!=good: demand(all(torch.equal(a, b) for a,b in zip(det.model.state_dict().values(), inputs.once('whole', lambda: _weights(good)).values())), 'other weights, and no word')

def _weights(good):
    import torch
    return torch.load(io.BytesIO(good), weights_only=True)['state']

def read_checkpoint(inputs, rng, folder):
    import torch
    from ssd_tutorial.detector import TrainConfig, last_path, train_detector
    data, _, detector, good = inputs.once('run', lambda: small_run(inputs)); out = folder/'d.pt'; how = rng.random(); out.write_bytes(detector)
    if how<.4: content = change_bytes(good, rng)
    else: d = torch.load(io.BytesIO(good), weights_only=True); content = saved(change_tree(d, rng) if how<.7 else change_tensors(d, rng))
    last_path(out).write_bytes(content); before = sorted(folder.rglob('*'))
    det, rows = train_detector(data, TrainConfig(), False, out, resume=True)
    demand(len(rows)==2 or 'max_steps' in str(rows), f'{len(rows)} rows for 2 epochs'); demand({*folder.rglob('*')}<={*before}, 'files elsewhere')

READ = dict(pictures=read_picture, labels=read_labels, detectors=read_detector, checkpoints=read_checkpoint)


# ---------------------------------------------------------------- outcomes
def is_documented(e):
    from ssd_tutorial.cli import user_errors
    return isinstance(e, user_errors())

def named(e, folder):
    "Whether a message names a file or a folder of the input"
    said = str(e); return any(p.name in said or p.stem in said for p in Path(folder).rglob('*'))

def outcome(kind, i, seed, inputs):
    "(outcome, in a line) of one input"
    rng, folder = random.Random(f'{seed}/{kind}/{i}'), inputs.folder/'input'; shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
    try: READ[kind](inputs, rng, folder)
    except Wrong as e: return 'wrong', str(e)[:300]
    except Exception as e:
        line = f'{type(e).__name__}: {" ".join(str(e).split())[:300]}'
        if not is_documented(e): return 'undocumented', f'{line} @ {"".join(traceback.format_tb(e.__traceback__)[-1:]).strip()[-200:]}'
        return ('documented' if named(e, folder) else 'unnamed'), line
    return 'result', ''

def work(seed):
    "A worker: kind and number on a line, outcome as JSON on a line"
    out = os.fdopen(os.dup(1), 'w'); os.dup2(2, 1)  # what the code prints goes elsewhere
    sys.path.insert(0, str(ROOT)); os.environ['OMP_NUM_THREADS'] = '1'
    import torch; torch.set_num_threads(1)
    import warnings; warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(folder)
        for kind in SHARES: outcome(kind, -1, seed, inputs)  # imports and sound files: not on anybody's time
        print('ready', file=out, flush=True)
        for line in sys.stdin:
            kind, i = line.split(); print(json.dumps(outcome(kind, int(i), seed, inputs)), file=out, flush=True)


class Worker:
    def __init__(self, seed): self.seed, self.job = seed, None; self.start()
    def start(self):
        self.p = subprocess.Popen([sys.executable, __file__, '--work', str(self.seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        if self.p.stdout.readline().strip()!='ready': raise SystemExit('A worker does not start: run  python benchmarks/fuzz.py --work 0  to see why.')
    def give(self, job): self.job, self.since = job, time.time(); self.p.stdin.write(f'{job[0]} {job[1]}\n'); self.p.stdin.flush()
    def end(self): self.p.kill(); self.p.wait()
    def answer(self, limit):
        "(outcome, in a line), or None: it is still at it"
        if select.select([self.p.stdout], [], [], 0)[0]:
            line = self.p.stdout.readline()
            if line: return json.loads(line)
            self.end(); self.start(); return 'crash', 'the process ended'
        if time.time()-self.since>limit: self.end(); self.start(); return 'over time', f'more than {limit} s'


def jobs_of(n, kinds):
    "(kind, number), the kinds in their shares and well mixed"
    total, counts = sum(SHARES[k] for k in kinds), Counter()
    for i in range(n):
        kind = max(kinds, key=lambda k: (i+1)*SHARES[k]/total-counts[k]); yield kind, counts[kind]; counts[kind] += 1

def run(n=1000, seed=0, n_jobs=1, limit=10., seconds=None, kinds=tuple(SHARES), show=True):
    "Counts, kind → outcome → inputs, and all that was not in order"
    from tqdm.auto import tqdm
    workers, todo = [Worker(seed) for _ in range(n_jobs)], jobs_of(n, kinds); counts, faults, start = {k: Counter() for k in kinds}, [], time.time()
    def more(): return None if seconds and time.time()-start>seconds else next(todo, None)
    try:
        with tqdm(total=n, disable=not (show and sys.stderr and sys.stderr.isatty())) as bar:
            for w in workers: job = more(); job and w.give(job)
            while busy := [w for w in workers if w.job]:
                select.select([w.p.stdout for w in busy], [], [], .5)
                for w in busy:
                    if (found := w.answer(limit)) is None: continue
                    (kind,i), (what,line) = w.job, found; counts[kind][what] += 1; bar.update(); w.job = None
                    if what not in ('result','documented'): faults.append(dict(input=f'{kind}:{i}', outcome=what, said=line))
                    if job := more(): w.give(job)
    finally:
        for w in workers: w.end()
    return dict(seed=seed, inputs=sum(sum(c.values()) for c in counts.values()), seconds=round(time.time()-start), limit=limit, counts={k: dict(c) for k,c in counts.items()}, faults=faults)

def table(found):
    rows = [['kind','inputs',*OUTCOMES]]+[[k, sum(c.values()), *(c.get(o, 0) for o in OUTCOMES)] for k,c in found['counts'].items()]
    rows.append(['all', *(sum(col) for col in zip(*(r[1:] for r in rows[1:])))]); widths = [max(len(str(r[i])) for r in rows) for i in range(len(rows[0]))]
    return '\n'.join('  '.join(str(v).rjust(w) if i else str(v).ljust(w) for i,(v,w) in enumerate(zip(r, widths))) for r in rows)

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--inputs', type=int, default=1000); ap.add_argument('--seed', type=int, default=0); ap.add_argument('--jobs', type=int, default=1)
    ap.add_argument('--limit', type=float, default=10., help='seconds for one input'); ap.add_argument('--seconds', type=float, help='stop after so many')
    ap.add_argument('--kinds', default=','.join(SHARES)); ap.add_argument('--out', help='write counts and faults here, as JSON')
    ap.add_argument('--only', metavar='KIND:NUMBER', help='one input again'); ap.add_argument('--work', type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.work is not None: return work(a.work)
    sys.path.insert(0, str(ROOT))
    if a.only:
        kind, i = a.only.split(':'); folder = Path(tempfile.mkdtemp()); inputs = Inputs(folder); (folder/'input').mkdir(); print(folder/'input')
        return print('result:', READ[kind](inputs, random.Random(f'{a.seed}/{kind}/{i}'), folder/'input'))
    found = run(a.inputs, a.seed, a.jobs, a.limit, a.seconds, tuple(a.kinds.split(',')))
    print(f'seed {a.seed}, {found["inputs"]} inputs, {found["seconds"]} s, limit {a.limit:g} s each\n{table(found)}')
    seen = Counter(f'{f["outcome"]}: {f["said"][:100]}' for f in found['faults'])
    for what,n in seen.most_common(20): print(f'{n:>6} {what}  e.g. {next(f["input"] for f in found["faults"] if what.endswith(f["said"][:100]))}')
    if a.out: Path(a.out).write_text(json.dumps(found, indent=1), encoding='utf-8')
    sys.exit(bool(found['faults']))


if __name__=='__main__': main()
