#!/usr/bin/env python3
"""What damaged files do: pictures, label files and files of our own, changed at random and read.

    python benchmarks/fuzz.py --inputs 100000 --jobs 2 --record     the recorded run
    python benchmarks/fuzz.py --seconds 30                          what the tests run
    python benchmarks/fuzz.py --only labels:123                     one input, with its traceback

Input number i of a kind is made from (seed, kind, i) alone, so that each can be made again. A
worker process reads the inputs one by one; one that takes too long, or ends, costs that input and
a new worker. Each fault is printed when it is found; Ctrl-C or SIGTERM ends the run early, with
the counts so far. An outcome is one of

    result        something came out, and it is in order
    documented    an error that the user is told in one line (`UserError`) and
                  that names the file
    unnamed       such an error that does not say which file it means
    undocumented  any other exception
    wrong         something came out that is not in order: boxes outside the picture, two sizes of
                  one picture, another verdict the second time
    reached out   a program was started, the network asked, or a file touched that lies neither
                  beside the input nor where programs lie (see guard.py)
    memory        more was needed than MOST_MB megabytes
    over time     no answer within the limit
    crash         the worker ended

Exit status 1 where there is anything but results and documented errors.
"""

import argparse, copy, datetime, io, json, os, random, select, shutil, signal, subprocess
import sys, tempfile, time, traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import folders, hostile  # noqa: E402
from guard import Guard, limit_memory  # noqa: E402
from mutate import (  # noqa: E402
    WORDS,
    YAML,
    Inputs,
    Wrong,
    any_picture,
    change_bytes,
    change_text,
    change_tree,
    demand,
    places,
)

OUTCOMES = ("result", "documented", "unnamed", "undocumented", "wrong")
OUTCOMES += ("reached out", "memory", "over time", "crash")
SHARES = dict(  # inputs of each kind, relative to one another
    pictures=400,
    predict=200,
    page=60,
    labels=190,
    pickles=70,
    films=60,
    files=40,
    detectors=25,
    folders=50,
    kept=30,
    graphs=13,
    checkpoints=2,
)
MOST_MB = 1200  # that one input may need; sixteen million pixels any file may have


# ---------------------------------------------------------------- label files
NAMES = [f"p{i}" for i in range(4)]
OBJECTS = {
    n: [("cat", (4 + i, 5, 30, 40)), ("dog", (20, 10, 50, 30 + i))] for i, n in enumerate(NAMES)
}
PARTS = dict(train=NAMES[:3], val=NAMES[3:])
PART_OF = {n: s for s, ns in PARTS.items() for n in ns}
CLASSES = ["cat", "dog"]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_pictures(pic, folder_of):
    for n in NAMES:
        put(folder_of(PART_OF[n]) / f"{n}.jpg", pic)


def write_voc(root, pic, rng):
    def xml(n):
        head = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        objects = "".join(
            f"<object><name>{c}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax>"
            "</bndbox></object>\n"
            for c, b in OBJECTS[n]
        )
        return f"<annotation>\n<filename>{n}.jpg</filename>\n{head}\n{objects}</annotation>"

    put_pictures(pic, lambda s: root / "JPEGImages")
    lists = root / "ImageSets" / "Main"
    return [put(root / "Annotations" / f"{n}.xml", xml(n)) for n in NAMES] + [
        put(lists / f"{s}.txt", "".join(f"{n}\n" for n in ns)) for s, ns in PARTS.items()
    ]


def run_lengths(b, w=64, h=48):
    "A box as a mask of COCO's: run lengths down the columns, zeros first"
    x1, y1, x2, y2 = b
    counts = [x1 * h + y1]
    for _ in range(x2 - x1):
        counts += [y2 - y1, h - y2 + y1]
    counts[-1] = w * h - sum(counts[:-1])
    return dict(size=[h, w], counts=counts)


def packed(counts):
    "Run lengths in the letters that COCO's own tools write"
    out = []
    for i, n in enumerate(counts):
        n -= counts[i - 2] if i > 2 else 0
        more = True
        while more:
            c, n = n & 31, n >> 5
            more = n != (-1 if c & 16 else 0)
            out.append(chr((c | 32 if more else c) + 48))
    return "".join(out)


def coco_dict(names, shape):
    "shape: (corners, annotation) → what it has beside its ids"
    images = [
        dict(id=10 + i, file_name=f"{n}.jpg", width=64, height=48) for i, n in enumerate(names)
    ]
    objects = [
        dict(id=2 * i + k, image_id=10 + i, category_id=(3, 7)[k], iscrowd=0, area=100, **shape(b))
        for i, n in enumerate(names)
        for k, (_, b) in enumerate(OBJECTS[n])
    ]
    categories = [dict(id=3, name="cat"), dict(id=7, name="dog")]
    return dict(images=images, categories=categories, annotations=objects)


def coco_shape(b):
    outline = [[b[0], b[1], b[2], b[1], b[2], b[3]]]
    return dict(bbox=[b[0], b[1], b[2] - b[0], b[3] - b[1]], segmentation=outline)


def write_coco(root, pic, rng, shape=coco_shape):
    put_pictures(pic, lambda s: root / s)
    return [
        put(root / "annotations" / f"instances_{s}.json", json.dumps(coco_dict(ns, shape)))
        for s, ns in PARTS.items()
    ]


def write_rle(root, pic, rng):
    "COCO whose boxes are in masks alone"

    def shape(b):
        mask = run_lengths(b)
        if letters:
            mask["counts"] = packed(mask["counts"])
        return dict(segmentation=mask) | (dict(bbox=[]) if empty else {})

    letters, empty = rng.random() < 0.5, rng.random() < 0.3
    return write_coco(root, pic, rng, shape)


def write_fastai(root, pic, rng):
    folder = dict(train="train", val="valid")
    put_pictures(pic, lambda s: root / folder[s])
    return [
        put(root / f"{folder[s]}.json", json.dumps(coco_dict(ns, coco_shape)))
        for s, ns in PARTS.items()
    ]


def yolo_text(n, more=""):
    return "".join(
        f"{CLASSES.index(c)} {(b[0] + b[2]) / 128:.4f} {(b[1] + b[3]) / 96:.4f} "
        f"{(b[2] - b[0]) / 64:.4f} {(b[3] - b[1]) / 48:.4f}{more}\n"
        for c, b in OBJECTS[n]
    )


def put_yaml(root, config):
    "Four times in the list of files: it is damaged as often as the labels of all pictures"
    return [
        put(root / "data.yaml", "".join(f"{k}: {json.dumps(v)}\n" for k, v in config.items()))
    ] * 4


YOLO = dict(path=".", train="images/train", val="images/val", nc=2, names=CLASSES)


def write_yolo(root, pic, rng, config=YOLO, more=""):
    put_pictures(pic, lambda s: root / "images" / s)
    labels = [put(root / "labels" / PART_OF[n] / f"{n}.txt", yolo_text(n, more)) for n in NAMES]
    return labels + put_yaml(root, config)


def put_lists(root, folder="images/{}/"):
    return [
        put(root / f"{s}.txt", "".join(f"{folder.format(s)}{n}.jpg\n" for n in ns))
        for s, ns in PARTS.items()
    ]


def write_list(root, pic, rng):
    return put_lists(root) + write_yolo(
        root, pic, rng, YOLO | dict(train="train.txt", val="val.txt")
    )


CONFIGS = (  # what else stands in a data.yaml
    dict(names={0: "cat", 1: "dog"}),
    dict(train=["images/train", "images/val"], val=["images/val"]),
    dict(train="../train/images", val="../valid/images", roboflow=dict(version=1, license="MIT")),
    dict(path="/content/drive/set", train="./images/train/", val="images/val/*.jpg"),
    dict(path="../datasets/set", test=None, download="https://example.org/a.zip"),
    dict(path=None, test="", nc="2", names=["yes", "no"]),
    dict(names="classes.txt"),
    dict(train="images/train/p0.jpg", val=[]),
    dict(train=["train.txt", "images/train"], val="val.txt"),
    dict(kpt_shape=[2, 3], flip_idx=[1, 0]),
)


def write_yaml(root, pic, rng):
    "The ways of data.yaml, which alone is damaged most of the time"
    config = YOLO | rng.choice(CONFIGS)
    more = " 0.5 0.5 2 0.4 0.4 1" if "kpt_shape" in config else ""
    files = write_yolo(root, pic, rng, config, more)
    files += [files[-1]] * 8
    if config["names"] == "classes.txt":
        files.append(put(root / "classes.txt", "cat\ndog\n"))
    return files + (put_lists(root) if "txt" in str(config["train"]) else [])


def write_jsons(root, pic, rng):
    "YOLO's labels in one folder; which picture belongs where, and the names, stand in JSON"
    put_pictures(pic, lambda s: root / "images")
    labels = [put(root / "labels" / f"{n}.txt", yolo_text(n)) for n in NAMES]
    lists = {s: [f"{n}.jpg" for n in ns] for s, ns in PARTS.items()}
    names = put(root / "classes.json", json.dumps(CLASSES))
    return labels + [put(root / "splits.json", json.dumps(lists)), names] * 3


def write_darknet(root, pic, rng):
    put_pictures(pic, lambda s: root / f"obj_{s}_data")
    data = "classes = 2\ntrain = data/train.txt\nvalid = data/val.txt\n"
    data += "names = data/obj.names\nbackup = backup/\n"
    labels = [put(root / f"obj_{PART_OF[n]}_data" / f"{n}.txt", yolo_text(n)) for n in NAMES]
    main = [put(root / "obj.data", data), put(root / "obj.names", "cat\ndog\n")]
    return labels + put_lists(root, "data/obj_{}_data/") + main * 2


TABLES = (  # the first line and how a line is written of (picture, split, class, corners)
    ("filename,width,height,class,xmin,ymin,xmax,ymax", "{n}.jpg,64,48,{c},{x},{y},{X},{Y}"),
    ("image_id;label;x;y;w;h", "{n};{c};{x};{y};{w};{h}"),
    ("image_id,width,height,bbox,source", '{n},64,48,"[{x}.0, {y}.0, {w}.0, {h}.0]",{c}'),
    ("path\tclass_name\tx_center\ty_center\twidth\theight", "{n}.jpg\t{c}\t{m}\t{M}\t{w}\t{h}"),
    ("ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf", "{n},/m/0{c},{l},{r},{t},{b},0"),
    ("split,image,name,xmin,ymin,xmax,ymax", "{s},{n}.jpg,{c},{x},{y},{X},{Y}"),
    ("", "images/{n}.jpg,{x},{y},{X},{Y},{c}"),
    ("", "{c},{x},{y},{w},{h},{n}.jpg,64,48"),
    ("", "{S},gs://bucket/{n}.jpg,{c},{l},{t},,,{r},{b},,"),
    ("", "{n}.jpg,{x},{y},{X},{Y},{k}"),
)


def write_csv(root, pic, rng):
    def line(n, c, b):
        x, y, X, Y = b
        words = dict(x=x, y=y, X=X, Y=Y, w=X - x, h=Y - y, n=n, c=c, k=CLASSES.index(c))
        words |= dict(m=(x + X) / 2, M=(y + Y) / 2)
        words |= dict(l=x / 64, t=y / 48, r=X / 64, b=Y / 48, s=PART_OF[n])
        return row.format(**words, S=dict(train="TRAIN", val="VALIDATION")[PART_OF[n]])

    def table(names):
        rows = [head] * bool(head) + [line(n, *o) for n in names for o in OBJECTS[n]]
        return "".join(f"{r}\n" for r in rows)

    (head, row), parts = rng.choice(TABLES), rng.random() < 0.3
    put_pictures(pic, lambda s: root / (s if parts else "images"))
    lists = [put(root / "classes.csv", "cat,0\ndog,1\n")] if "{k}" in row else []
    if parts:
        return lists + [put(root / s / "_annotations.csv", table(ns)) for s, ns in PARTS.items()]
    return lists + [put(root / "labels.csv", table(NAMES))] * 2


def write_labelme(root, pic, rng):
    def shapes(n):
        (cat, a), (dog, b) = OBJECTS[n]
        rest = dict(group_id=None, flags={}, description="")
        kinds = dict(
            rectangle=[a[:2], a[2:]],
            circle=[(25, 25), (30, 25)],
            polygon=[a[:2], (a[2], a[1]), a[2:]],
        )
        kind = rng.choice(sorted(kinds))
        corners = [b[:2], (b[2], b[1]), b[2:]]
        return [
            dict(label=cat, points=kinds[kind], shape_type=kind, **rest),
            dict(label=dog, points=corners, shape_type="polygon", **rest),
        ]

    put_pictures(pic, lambda s: root / "images" / s)
    beside, files = rng.random() < 0.5, []
    for n in NAMES:
        name = f"{n}.jpg" if beside else f"../../images/{PART_OF[n]}/{n}.jpg"
        d = dict(version="5.4.1", flags={}, shapes=shapes(n), imagePath=name, imageData=None)
        d |= dict(imageHeight=48, imageWidth=64)
        folder = root / ("images" if beside else "labels") / PART_OF[n]
        files.append(put(folder / f"{n}.json", json.dumps(d)))
    return files


CVAT = (  # how a shape is written of corners
    '<box label="{c}" occluded="0" xtl="{x}" ytl="{y}" xbr="{X}" ybr="{Y}" z_order="0"></box>',
    '<box label="{c}" xtl="{x}" ytl="{y}" xbr="{X}" ybr="{Y}" rotation="10.0"></box>',
    '<polygon label="{c}" points="{x}.00,{y}.00;{X}.00,{y}.00;{X}.00,{Y}.00"></polygon>',
    '<ellipse label="{c}" cx="25" cy="20" rx="10" ry="12" rotation="30.0"/>',
    '<mask label="{c}" rle="3, 5" left="{x}" top="{y}" width="12" height="14"/>',
    '<cuboid label="{c}" xtl1="{x}" ytl1="{y}" xbl1="{x}" ybl1="{Y}" xtr1="{X}" ytr1="{y}" '
    'xbr1="{X}" ybr1="{Y}"/>',
    '<skeleton label="{c}"><points label="1" outside="0" points="{x},{y}"/>'
    '<points label="2" outside="0" points="{X},{Y}"/></skeleton>',
)


def write_cvat(root, pic, rng):
    def shape(c, b):
        return rng.choice(CVAT).format(c=c, x=b[0], y=b[1], X=b[2], Y=b[3])

    def xml(names):
        images = "".join(
            f'<image id="{i}" name="{n}.jpg" subset="{called[PART_OF[n]]}" width="64" height="48">'
            f"{''.join(shape(*o) for o in OBJECTS[n])}</image>\n"
            for i, n in enumerate(names)
        )
        labels = "".join(f"<label><name>{c}</name></label>" for c in CLASSES)
        meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
        return (
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}\n{images}</annotations>'
        )

    called = dict(train="Train", val="Validation")
    put_pictures(pic, lambda s: root / "images" / called[s])
    if rng.random() < 0.5:
        return [put(root / "annotations.xml", xml(NAMES))]
    return [put(root / s / "annotations.xml", xml(ns)) for s, ns in PARTS.items()]


SETS = dict(
    voc=write_voc,
    coco=write_coco,
    rle=write_rle,
    fastai=write_fastai,
    yolo=write_yolo,
    list=write_list,
    yaml=write_yaml,
    jsons=write_jsons,
    darknet=write_darknet,
    csv=write_csv,
    labelme=write_labelme,
    cvat=write_cvat,
)


def write_set(root, kind, inputs, rng):
    "A sound data set of four small pictures; the files that say what is in them"
    return SETS[kind](Path(root), inputs.small(), rng)


def damage_labels(path, rng):
    data = path.read_bytes()
    how = rng.random()
    if how < 0.25:
        return path.write_bytes(change_bytes(data, rng))
    if path.suffix == ".json" and how < 0.85:
        return path.write_text(json.dumps(change_tree(json.loads(data), rng)))
    if path.suffix == ".yaml" and how < 0.5:
        config = dict(line.split(": ", 1) for line in data.decode().splitlines())
        config = change_tree({k: json.loads(v) for k, v in config.items()}, rng)
        return path.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in config.items()))
    path.write_bytes(
        change_text(data.decode(), rng, WORDS + YAML if path.suffix == ".yaml" else WORDS).encode(
            "utf-8", "replace"
        )
    )


# ---------------------------------------------------------------- reading them
def read_picture(inputs, rng, folder):
    from ssd_tutorial.inputs import to_input
    from ssd_tutorial.checks import check_record
    from ssd_tutorial.faults import DataError
    from ssd_tutorial.pictures import image_size, open_image
    from ssd_tutorial.records import make_record

    suffix, data = any_picture(inputs, rng)
    path = folder / f"photo.{suffix}"
    path.write_bytes(data)

    def verdict(f):
        try:
            return f()
        except DataError as e:
            return e

    size, checked, img = (
        verdict(lambda: image_size(path)),
        verdict(lambda: check_record(make_record(path, 0, None, []), ("background", "a"))),
        verdict(lambda: open_image(path)),
    )
    if not isinstance(img, DataError):
        demand(not isinstance(checked, DataError), f"opened, but checked: {checked}")
        demand(
            checked[0].size_hw == img.size[::-1] == size or isinstance(size, DataError),
            f"sizes {checked[0].size_hw}, {img.size[::-1]}, {size}",
        )
        again = verdict(lambda: open_image(img))
        demand(
            not isinstance(again, DataError) and again.tobytes() == img.tobytes(),
            "another picture the second time",
        )
        x = to_input(path, 64)
        demand(
            x.shape == (3, 64, 64) and bool(((x >= 0) & (x <= 1)).all()), "an input that is none"
        )
    for e in (size, checked, img):
        if isinstance(e, DataError):
            raise e
    if rng.random() < 0.01:
        predict(inputs, path, img.size)
    return path.name


def predict(inputs, path, wh):
    import numpy as np
    from ssd_tutorial.detector import Detector

    det = inputs.once("detector", Detector.pretrained)
    found = det.predict(path, score=0.05)
    b = found.boxes_px
    demand(
        tuple(found.size_hw) == wh[::-1]
        and np.isfinite(b).all()
        and (b >= 0).all()
        and (b <= [*wh, *wh]).all(),
        f"boxes {b.tolist()} in {wh}",
    )


def content(data):
    "What was read, as something that can be compared"
    return [
        (s, r.image, r.boxes_px.tolist(), [data.vocab[i] for i in r.labels], r.crowd.tolist())
        for s, rs in data.splits.items()
        for r in rs
    ]


def untouched(before, damaged, data):
    "The objects of pictures whose own label file is sound have not moved"
    if before is None:
        return
    for _, image, *objects in content(data):
        if image.stem not in damaged:
            demand(objects == before[image.stem], f"{image.name} is sound, and read as {objects}")


def in_order(data, policy):
    "Boxes inside their pictures, labels that have a name"
    import numpy as np

    for r in (r for rs in data.splits.values() for r in rs):
        b, (h, w) = r.boxes_px, r.size_hw
        demand(
            np.isfinite(b).all()
            and (b >= 0).all()
            and (b[:, 2:] <= [w, h]).all()
            and (b[:, :2] < b[:, 2:]).all(),
            f"{policy}: boxes {b.tolist()} in {r.size_hw}",
        )
        demand(
            ((r.labels > 0) & (r.labels < len(data.vocab))).all()
            and len(r.labels) == len(b) == len(r.crowd),
            f"{policy}: labels {r.labels.tolist()}",
        )
    demand(
        data.vocab[0] == "background"
        and len(set(data.vocab)) == len(data.vocab)
        and all(str(n).strip() for n in data.vocab),
        f"{policy}: names {data.vocab}",
    )


def source_of(root, files, rng):
    "What is given to --data: the folder, or now and then the file that describes it"
    main = [p for p in files if p.suffix in (".json", ".yaml", ".csv", ".xml")]
    return rng.choice(main) if main and rng.random() < 0.15 else root


def read_labels(inputs, rng, folder):
    import warnings
    from ssd_tutorial.readers import load_dataset

    warnings.simplefilter("ignore")
    kind = rng.choice(sorted(SETS))
    root = folder / f"set_{kind}"
    files = write_set(root, kind, inputs, rng)
    source, before = source_of(root, files, rng), None
    damaged = sorted({rng.choice(files) for _ in range(rng.choice((1, 1, 2)))})
    stems = {p.stem for p in damaged}
    if stems <= {*NAMES}:  # each has a picture of its own
        before = {image.stem: objects for _, image, *objects in content(load_dataset(root))}
    for p in damaged:
        damage_labels(p, rng)
    problem, sound = None, None
    for policy in ("raise", "fix", "skip"):
        try:
            data = load_dataset(source, policy)
        except Exception as e:
            if not is_documented(e) or not named(e, folder):
                raise
            problem = problem or e
            continue
        in_order(data, policy)
        if not problem:
            sound = sound or content(data)
            demand(content(data) == sound, f"{policy}: reads otherwise what needs no mending")
        if source == root:
            untouched(before, stems, data)
    examine(source, sound, folder, rng)
    if problem:
        raise problem


def examine(source, sound, folder, rng):
    "One split alone, and what the doctor says"
    from ssd_tutorial.doctor import diagnose
    from ssd_tutorial.faults import DataError
    from ssd_tutorial.readers import load_dataset

    if sound and rng.random() < 0.2:
        alone = content(load_dataset(source, only="val"))
        demand(alone == [c for c in sound if c[0] == "val"], f"val alone is read as {alone}")
    if rng.random() < 0.05:
        try:
            found = diagnose(source, progress=False)
        except DataError as e:
            demand(not sound, f"the doctor refuses what is read: {e}")
            if not named(e, folder):
                raise
        else:
            demand(str(found) and len(found.to_html()) > 1000, "no report")
            json.dumps(found.to_dict())


def small_run(inputs):
    "(data, settings, files) of a training that was interrupted after the first of two epochs"
    from ssd_tutorial.config import TrainConfig
    from ssd_tutorial.runs import last_path, train_detector
    from ssd_tutorial.records import generated_data

    out = inputs.folder / "run" / "d.pt"
    data = generated_data("multiscale", 4, 2, size=64)
    cfg = TrainConfig(
        arch="grid",
        size=64,
        width=8,
        body="test_efficientnet",
        weights="none",
        frozen_epochs=2,
        epochs=0,
        bs=4,
        strength=0.1,
    )
    stop = _stop_after_one()
    try:
        train_detector(data, cfg, False, out, cbs=[stop])
    except KeyboardInterrupt:
        pass
    return data, cfg, out.read_bytes(), last_path(out).read_bytes()


def _stop_after_one():
    from fastai.callback.core import Callback

    class Stop(Callback):
        order = 80

        def before_epoch(self):
            if self.epoch:
                raise KeyboardInterrupt

    return Stop()


def change_tensors(d, rng):
    "Nested dicts and lists with tensors, changed in a few places"
    import torch

    d = copy.deepcopy(d)
    found = [(p, k) for p, k in places(d) if isinstance(p[k], torch.Tensor)]
    if not found or rng.random() < 0.5:
        try:
            return change_tree(d, rng)
        except (TypeError, RuntimeError):
            return d  # tensors that cannot be compared
    p, k = rng.choice(found)
    v = p[k]
    how = rng.randrange(7)
    if how == 0:
        p[k] = v.flatten()[:-1].clone()
    elif how == 1:
        p[k] = v.double() if rng.random() < 0.5 else v.to(torch.int64)
    elif how == 2 and v.is_floating_point() and v.numel():
        p[k] = v = v.contiguous().clone(memory_format=torch.contiguous_format)
        v.view(-1)[0] = rng.choice((float("nan"), float("inf"), -float("inf")))
    elif how == 3:
        p[k] = torch.zeros(1).expand(10**6, 10**5)
    elif how == 4:
        p[k] = rng.choice((None, 0, "x", [], torch.zeros(0)))
    elif how == 5:
        del p[k]
    else:
        p[k] = v.to_sparse() if v.dim() else v[None]
    return d


def saved(d):
    import torch

    to = io.BytesIO()
    torch.save(d, to)
    return to.getvalue()


def read_detector(inputs, rng, folder):
    import torch
    from ssd_tutorial.detector import Detector

    *_, good, _ = inputs.run()
    path = folder / "detector.pt"
    how = rng.random()
    if how < 0.25:
        data = change_bytes(good, rng)
    elif how < 0.45:
        data = hostile.change_entries(good, rng)
    elif how < 0.6:
        data = hostile.change_zip(good, rng)
    else:
        d = torch.load(io.BytesIO(good), weights_only=True)
        if how < 0.85:
            d["json"] = json.dumps(change_tree(json.loads(d["json"]), rng))
        else:
            d = change_tensors(d, rng)
        data = saved(d)
    path.write_bytes(data)
    det = Detector.load(path)
    found = det.predict(
        inputs.once("photo", lambda: __import__("numpy").zeros((48, 64, 3), "uint8")), score=0.0
    )
    import numpy as np

    demand(np.isfinite(found.boxes_px).all(), "boxes that are no numbers")
    if how < 0.25 and data != good:
        demand(
            all(
                torch.equal(a, b)
                for a, b in zip(
                    det.model.state_dict().values(),
                    inputs.once("whole", lambda: _weights(good)).values(),
                )
            ),
            "other weights, and no word",
        )


def _weights(good):
    import torch

    return torch.load(io.BytesIO(good), weights_only=True)["state"]


def read_checkpoint(inputs, rng, folder):
    import torch
    from ssd_tutorial.config import TrainConfig
    from ssd_tutorial.runs import last_path, train_detector

    data, _, detector, good = inputs.run()
    out = folder / "d.pt"
    how = rng.random()
    out.write_bytes(detector)
    if how < 0.4:
        content = change_bytes(good, rng)
    else:
        d = torch.load(io.BytesIO(good), weights_only=True)
        content = saved(change_tree(d, rng) if how < 0.7 else change_tensors(d, rng))
    last_path(out).write_bytes(content)
    before = sorted(folder.rglob("*"))
    det, rows = train_detector(data, TrainConfig(), False, out, resume=True)
    demand(len(rows) == 2 or "max_steps" in str(rows), f"{len(rows)} rows for 2 epochs")
    demand({*folder.rglob("*")} <= {*before}, "files elsewhere")


READ = dict(
    pictures=read_picture,
    labels=read_labels,
    detectors=read_detector,
    checkpoints=read_checkpoint,
    **hostile.KINDS,
    **folders.KINDS,
)


class Made(Inputs):
    "Inputs, and the files of ours that they are made of: a detector, its graph, a log"

    def __init__(self, folder, guard=None):
        super().__init__(folder)
        self.decoys = guard.decoys if guard else Path(folder) / "decoys"
        self.port = guard.port if guard else 9

    def run(self):
        return self.once("run", lambda: small_run(self))

    def saved_dict(self):
        import torch

        return self.once("saved", lambda: torch.load(io.BytesIO(self.run()[2]), weights_only=True))

    def detector(self):
        from ssd_tutorial.detector import Detector

        return self.once(
            "small detector", lambda: Detector.load(put(self.folder / "d.pt", self.run()[2]))
        )

    def shared(self):
        "The detector's folder as it is shared: weights and description, bytes"
        from ssd_tutorial.hub import save_folder

        def make():
            folder = save_folder(self.detector(), self.folder / "shared")
            return [(folder / n).read_bytes() for n in ("model.safetensors", "config.json")]

        return self.once("shared", make)

    def known(self):
        "(a small data set, what a start keeps of it as name → bytes, what is in it)"

        def make():
            root, place = self.folder / "known", self.folder / "known_kept"
            write_set(root, "coco", self, random.Random(0))
            for p in root.rglob("*"):
                os.utime(p, (0, time.time() - 3600))  # older than what is too young to be trusted
            right = self.content(self.read_known(root, place))
            return root, {p.name: p.read_bytes() for p in place.iterdir()}, right

        return self.once("known", make)

    def read_known(self, source, place):
        "What is read of a data set whose check is kept in a place"
        from unittest import mock
        from ssd_tutorial import checked
        from ssd_tutorial.readers import load_dataset

        kept = mock.patch.dict(os.environ, SSD_TUTORIAL_CACHE=str(place))
        with kept, mock.patch.object(checked, "LEAST", 1):
            return load_dataset(source)

    def content(self, data):
        return repr(content(data))

    def graph(self):
        "The detector as ONNX, bytes; made once for all workers"
        from ssd_tutorial.onnx_export import export_onnx

        def make():
            kept = Path(os.environ.get("FUZZ_MADE", self.folder)) / "graph.onnx"
            if not kept.is_file():
                export_onnx(self.detector(), kept)
            return kept.read_bytes()

        return self.once("graph", make)

    def light(self):
        from ssd_tutorial.onnx_detector import OnnxDetector

        return self.once(
            "light", lambda: OnnxDetector(put(self.folder / "light.onnx", self.graph()), 1)
        )

    def log(self):
        "What train writes beside a detector"
        from dataclasses import asdict

        data, cfg, *_ = self.run()
        row = dict(epoch=1, map50=0.1, map=0.05, train_loss=2.0, valid_loss=2.5, seconds=3.0)
        return dict(
            settings=asdict(cfg),
            epochs=[row, row | dict(epoch=2)],
            score=0.3,
            parameters=10**5,
            report=dict(map50=0.1, map=0.05, per_class=dict(a=0.1)),
            ended=None,
            data=dict(vocab=list(data.vocab), images=dict(train=4, val=2), hash="0", val="1"),
        )


# ---------------------------------------------------------------- outcomes
def is_documented(e):
    from ssd_tutorial.faults import UserError

    return isinstance(e, UserError)


def named(e, folder):
    "Whether a message names a file of the input, or begins with the name of a folder: the set's"
    said, every = str(e), [*Path(folder).rglob("*")]
    ours = [p.name for p in every if p.is_file() or p.parent == Path(folder)]
    sets = [f"{p.name}: " for p in every if p.is_dir()]
    return (
        "/etc/hostname" in said
        or any(name in said for name in ours)
        or any(said.startswith(name) for name in sets)
    )


def outcome(kind, i, seed, inputs):
    "(outcome, in a line) of one input"
    rng, folder = random.Random(f"{seed}/{kind}/{i}"), inputs.folder / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        READ[kind](inputs, rng, folder)
    except Wrong as e:
        return "wrong", str(e)[:300]
    except Exception as e:
        line = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        if not is_documented(e):
            where = traceback.extract_tb(e.__traceback__)[-1]
            return "undocumented", f"{line} @ {where.filename}:{where.lineno} {where.line}"[:500]
        return ("documented" if named(e, folder) else "unnamed"), line
    return "result", ""


def watched(kind, i, seed, inputs, guard):
    "(outcome, in a line, megabytes) of one input, with what it touched"
    # a label file may name its pictures and lists wherever they lie
    guard.begin(also=["/etc/hostname"] if kind == "labels" else ())
    what, line = outcome(kind, i, seed, inputs)
    touched, mb = guard.end()
    if touched:
        return "reached out", f"{touched[0]} ({what}: {line})"[:500], mb
    if mb > MOST_MB and what in ("result", "documented"):
        return "memory", f"{mb:.0f} MB ({what}: {line})"[:500], mb
    return what, line, mb


def work(seed, keep=None):
    "A worker: kind and number on a line, outcome as JSON on a line"
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code prints goes elsewhere
    sys.path.insert(0, str(ROOT))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["SSD_TUTORIAL_CACHE"] = "off"
    import torch

    torch.set_num_threads(1)
    import warnings

    warnings.simplefilter("ignore")
    from ssd_tutorial import onnx_detector

    with tempfile.TemporaryDirectory() as folder:
        guard = Guard(folder)
        inputs = Made(folder, guard)
        onnx_detector.MOST_MEMORY = 2**29  # less than a machine has
        for kind in SHARES:
            for i in (-1, -2, -3):  # imports and sound files: not on anybody's time
                outcome(kind, i, seed, inputs)
        inputs.light()
        sys.path.append(str(guard.decoys))
        guard.watch()
        limit_memory(6)
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            kind, i = line.split()
            found = watched(kind, int(i), seed, inputs, guard)
            if keep and found[0] not in ("result", "documented"):
                shutil.copytree(inputs.folder / "input", f"{keep}/{kind}_{i}", dirs_exist_ok=True)
            print(json.dumps(found), file=out, flush=True)


class Worker:
    def __init__(self, seed, keep=None):
        self.seed, self.keep, self.job = seed, keep, None
        self.start()

    def start(self):
        self.p = subprocess.Popen(
            [sys.executable, __file__, "--work", str(self.seed)]
            + ["--keep", str(self.keep)] * bool(self.keep),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )
        if self.p.stdout.readline().strip() != "ready":
            raise SystemExit(
                "A worker does not start: run  python benchmarks/fuzz.py --work 0  to see why."
            )

    def give(self, job):
        self.job, self.since = job, time.time()
        self.p.stdin.write(f"{job[0]} {job[1]}\n")
        self.p.stdin.flush()

    def end(self):
        self.p.kill()
        self.p.wait()

    def answer(self, limit):
        "(outcome, in a line), or None: it is still at it"
        if select.select([self.p.stdout], [], [], 0)[0]:
            line = self.p.stdout.readline()
            if line:
                return json.loads(line)
            self.end()
            self.start()
            return "crash", "the process ended"
        if time.time() - self.since > limit:
            self.end()
            self.start()
            return "over time", f"more than {limit} s"


def jobs_of(n, kinds):
    "(kind, number), the kinds in their shares and well mixed"
    total, counts = sum(SHARES[k] for k in kinds), Counter()
    for i in range(n):
        kind = max(kinds, key=lambda k: (i + 1) * SHARES[k] / total - counts[k])
        yield kind, counts[kind]
        counts[kind] += 1


def run(
    n=1000,
    seed=0,
    n_jobs=1,
    limit=10.0,
    seconds=None,
    kinds=tuple(SHARES),
    show=True,
    every=2000,
    keep=None,
):
    "Counts and all that was not in order; Ctrl-C: of the inputs so far"
    from tqdm.auto import tqdm

    os.environ["FUZZ_MADE"] = made = tempfile.mkdtemp()
    workers, todo = [Worker(seed, keep) for _ in range(n_jobs)], jobs_of(n, kinds)
    counts, faults, start = {k: Counter() for k in kinds}, [], time.time()
    slowest, complete = dict.fromkeys(kinds, 0.0), True
    largest = dict.fromkeys(kinds, 0.0)

    def more():
        return None if seconds and time.time() - start > seconds else next(todo, None)

    def say(line):
        if show:
            bar.write(line)
            sys.stdout.flush()

    def take(w, what, line, mb=0.0):
        (kind, i), w.job = w.job, None
        largest[kind] = max(largest[kind], mb)
        counts[kind][what] += 1
        slowest[kind] = max(slowest[kind], time.time() - w.since)
        bar.update()
        if what not in ("result", "documented"):
            faults.append(dict(input=f"{kind}:{i}", outcome=what, said=line))
            say(f"{kind}:{i} {what}: {line}")
        if not (done := sum(c.total() for c in counts.values())) % every:
            say(f"{done} inputs, {time.time() - start:.0f} s, {len(faults)} faults")

    with tqdm(total=n, disable=not (show and sys.stderr and sys.stderr.isatty())) as bar:
        try:
            for w in workers:
                job = more()
                job and w.give(job)
            while busy := [w for w in workers if w.job]:
                select.select([w.p.stdout for w in busy], [], [], 0.5)
                for w in busy:
                    if (found := w.answer(limit)) is None:
                        continue
                    take(w, *found)
                    if job := more():
                        w.give(job)
        except KeyboardInterrupt:
            complete = False
        finally:
            for w in workers:
                w.end()
            shutil.rmtree(made, ignore_errors=True)
    return dict(
        seed=seed,
        inputs=sum(c.total() for c in counts.values()),
        complete=complete,
        seconds=round(time.time() - start),
        limit=limit,
        counts={k: dict(c) for k, c in counts.items()},
        slowest={k: round(v, 1) for k, v in slowest.items()},
        largest={k: round(v) for k, v in largest.items()},
        faults=faults,
    )


def table(found):
    rows = [["kind", "inputs", *OUTCOMES]] + [
        [k, sum(c.values()), *(c.get(o, 0) for o in OUTCOMES)] for k, c in found["counts"].items()
    ]
    rows.append(["all", *(sum(col) for col in zip(*(r[1:] for r in rows[1:])))])
    for what, head in (("slowest", "slowest, s"), ("largest", "most memory, MB")):
        most = [found[what][k] for k in found["counts"]]
        for row, v in zip(rows, [head, *most, max(most, default=0)]):
            row.append(v)
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            str(v).rjust(w) if i else str(v).ljust(w) for i, (v, w) in enumerate(zip(r, widths))
        )
        for r in rows
    )


def record(found, a, path=ROOT / "benchmarks" / "fuzz.json"):
    "fuzz.json, where kinds that were not asked for stay as they are; and README.md anew"
    import report

    asked = dict(inputs=found["inputs"], seed=a.seed, jobs=a.jobs, limit=a.limit)
    asked["kinds"] = list(found["counts"])
    run_ = dict(asked, date=datetime.date.today().isoformat(), seconds=found["seconds"])
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rest = {*kept.get("counts", ())} - {*found["counts"]}
    for k in ("counts", "slowest", "largest"):
        old = {kind: v for kind, v in kept.get(k, {}).items() if kind in rest}
        found[k] = {
            kind: {**old, **found[k]}[kind] for kind in SHARES if kind in {**old, **found[k]}
        }
    before = [f for f in kept.get("faults", ()) if f["input"].split(":")[0] in rest]
    runs = [r for r in kept.get("runs", ()) if rest & {*r["kinds"]}] + [run_]
    kept = dict(runs=runs, limit=a.limit, most_mb=MOST_MB, faults=before + found["faults"])
    kept |= {k: found[k] for k in ("counts", "slowest", "largest")}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    report.write_page()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--inputs", type=int, default=1000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--jobs", type=int, default=1)
    ap.add_argument("--limit", type=float, default=10.0, help="seconds for one input")
    ap.add_argument("--seconds", type=float, help="stop after so many")
    ap.add_argument("--kinds", default=",".join(SHARES))
    ap.add_argument("--out", help="write counts and faults here, as JSON")
    ap.add_argument("--record", action="store_true", help="keep the counts here, for README.md")
    ap.add_argument("--only", metavar="KIND:NUMBER", help="one input again")
    ap.add_argument("--keep", metavar="FOLDER", help="where the files of each fault go")
    ap.add_argument("--work", type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.work is not None:
        return work(a.work, a.keep)
    sys.path.insert(0, str(ROOT))
    if a.only:
        kind, i = a.only.split(":")
        folder = Path(tempfile.mkdtemp())
        inputs = Made(folder, Guard(folder))
        (folder / "input").mkdir()
        print(folder / "input")
        return print(
            "result:", READ[kind](inputs, random.Random(f"{a.seed}/{kind}/{i}"), folder / "input")
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the shell ignores it
    found = run(
        a.inputs, a.seed, a.jobs, a.limit, a.seconds, tuple(a.kinds.split(",")), keep=a.keep
    )
    print(
        f"seed {a.seed}, {found['inputs']} inputs{'' if found['complete'] else ' (ended early)'}, "
        f"{found['seconds']} s, limit {a.limit:g} s each\n{table(found)}"
    )
    seen = {}
    for f in found["faults"]:
        seen.setdefault(f"{f['outcome']}: {f['said'][:100]}", []).append(f["input"])
    for what, inputs in sorted(seen.items(), key=lambda pair: -len(pair[1]))[:20]:
        print(f"{len(inputs):>6} {what}  e.g. {inputs[0]}")
    if a.out:
        Path(a.out).write_text(json.dumps(found, indent=1), encoding="utf-8")
    if a.record:
        record(found, a)
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
