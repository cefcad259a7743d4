"""Two more kinds of damage for fuzz.py: a detector's folder as it comes from a hub, and what an
earlier start has kept of a data set that it checked. As in hostile.py, each `read_…` takes
(inputs, rng, folder), makes one input below the folder, reads it and raises what came of it.
"""

import io, json, os, struct, zipfile

import hostile
from mutate import change_bytes, change_text, change_tree, demand

# ---------------------------------------------------------------- a detector's folder
TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64")
TYPES += ("I64", "I32", "I8", "U64", "U16", "U8", "BOOL", "", "f32", "F128", None, 4)
SIZES = (0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, None, "1", [])


def split_header(data):
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def joined(header, data, rng):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    n = len(text)
    if rng.random() < 0.05:
        n = rng.choice(
            (0, 1, n - 1, n + 1, n + len(data), 10**8, 10**8 + 1, 2**32, 2**63, 2**64 - 1)
        )
    return struct.pack("<Q", max(n, 0)) + text + data


def change_header(data, rng):
    "A file of safetensors whose header says something else of the same numbers"
    header, rest = split_header(data)
    names = [k for k in header if k != "__metadata__"]
    for _ in range(rng.choice((1, 1, 2))):
        way, k = rng.randrange(9), rng.choice(names)
        if k not in header or not isinstance(header[k], dict):
            continue
        if way == 0:
            header[k]["dtype"] = rng.choice(TYPES)
        elif way == 1:
            shape = header[k].get("shape") or [0]
            if isinstance(shape, list):
                shape[rng.randrange(len(shape))] = rng.choice(SIZES)
        elif way == 2:
            header[k]["data_offsets"] = [rng.choice(SIZES), rng.choice(SIZES)]
        elif way == 3:
            header[k] = header[rng.choice(names)] if names[0] in header else {}
        elif way == 4:
            header[rng.choice(("", "x" * 5000, "\0", "\x1b[2J", "../../x", "ü"))] = header.pop(k)
        elif way == 5:
            header["__metadata__"] = rng.choice((None, 1, [], {"a": 1}, {"a": "x" * 10**5}, {}))
        elif way == 6:
            return joined(change_text(json.dumps(header), rng).encode(), rest, rng)
        elif way == 7:
            n = rng.choice((100, 10_000, 300_000))
            deep = b'{"w":' * n + b"1" + b"}" * rng.choice((0, n))
            return joined(deep, rest, rng)
        else:
            header = change_tree(header, rng)
            if not isinstance(header, dict):
                break
    return joined(header, rest, rng)


def change_numbers(data, rng):
    "Other tensors under the same names, in a file that is in order"
    import torch
    from safetensors.torch import load, save

    state = load(data)
    k = rng.choice(sorted(state))
    v, way = state[k], rng.randrange(6)
    if way == 0 and v.is_floating_point() and v.numel():
        v.view(-1)[rng.randrange(v.numel())] = rng.choice((float("nan"), float("inf"), 3e38))
    elif way == 1:
        kinds = ("float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64")
        kinds += ("int64", "int8", "uint8", "uint16", "uint64", "bool")
        state[k] = v.to(getattr(torch, rng.choice(kinds)))
    elif way == 2:
        state[k] = rng.choice((v.flatten()[:-1], v[None], v.flatten(), torch.zeros(0))).contiguous()
    elif way == 3:
        del state[k]
    elif way == 4:
        state[rng.choice(("a", "", "0"))] = v.clone()
    else:
        state[k] = v.double() * rng.choice((1e300, -1e39, 1e-320))
    return save(state)


def lay_out(folder, weights, config, rng):
    "The files as they may lie: plain, as links into a cache, one missing, one of another sort"
    way = rng.random()
    for name, data in (("model.safetensors", weights), ("config.json", config)):
        path = folder / name
        if way < 0.2:
            (folder.parent / f"blob_{name}").write_bytes(data)
            path.symlink_to(folder.parent / f"blob_{name}")
        else:
            path.write_bytes(data)
    if way > 0.94:
        path = folder / rng.choice(("model.safetensors", "config.json"))
        path.unlink()
        how = rng.randrange(5)
        if how == 0:
            path.mkdir()
        elif how == 1:
            path.symlink_to(path)
        elif how == 2:
            path.symlink_to(folder / "nowhere")
        elif how == 3 and hasattr(os, "mkfifo"):
            os.mkfifo(path)
    (folder / "README.md").write_text("---\nlicense: !!python/object/apply:os.system [x]\n---\n")


def read_shared(inputs, rng, folder):
    "A detector's folder, damaged or made to do harm; as it lies, or by its file of weights"
    from ssd_tutorial.config import DetectorError
    from ssd_tutorial.detector import Detector

    good, text = inputs.shared()
    d, how, weights = json.loads(text), rng.random(), good
    if rng.random() < 0.9 and how > 0.15:
        del d["sha256"]  # else the checksum would find out all by itself
    config = json.dumps(d).encode()
    if how < 0.3:
        weights = change_bytes(good, rng)
    elif how < 0.5:
        weights = change_header(good, rng)
    elif how < 0.65:
        weights = change_numbers(good, rng)
    elif how < 0.75:
        config = change_bytes(text, rng)
    elif how < 0.8:
        config = change_text(text.decode(), rng).encode("utf-8", "replace")
    elif how < 0.97:
        config = json.dumps(change_tree(d, rng)).encode()
    place = folder / "detector"
    place.mkdir()
    lay_out(place, weights, config, rng)
    path = place / "model.safetensors" if rng.random() < 0.3 else place
    det = Detector.load(path)
    try:
        found = det.predict(hostile.photo(inputs), score=0.0)
    except DetectorError as e:  # of weights that overflow; which file it was is known by now
        raise DetectorError(f"{path}: {e}") from None
    hostile.in_picture(found, hostile.PHOTO_HW, len(det.vocab) - 1)
    if "sha256" in d and how < 0.65:
        demand(weights == good, "other weights, and no word")


# ---------------------------------------------------------------- what was kept of a check
def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return {i.filename: z.read(i) for i in z.infolist()}


def object_array(inputs, rng):
    "An array of objects, which is a pickle that calls"
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    calls = hostile.Calls(*hostile.calls(inputs, rng)).written(rng)
    start = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head
    return start + hostile.op("PROTO") + b"\2" + calls + hostile.op("STOP")


def change_members(inputs, data, rng):
    "A kept file with other contents, whose checksums are right"
    import numpy as np

    parts, way = members(data), rng.randrange(6)
    k = rng.choice([k for k in sorted(parts) if way < 2 or k != "key.npy"])
    if way == 0:
        parts[k] = object_array(inputs, rng)
    elif way == 1:
        parts[k] = change_bytes(parts[k], rng)
    elif way == 2:
        del parts[k]
    elif way == 3 and {"texts.npy", "paths.npy"} & {*parts}:
        k = "texts.npy" if "texts.npy" in parts else "paths.npy"
        text = np.load(io.BytesIO(parts[k])).tobytes()
        text = json.dumps(change_tree(json.loads(text), rng)).encode()
        parts[k] = npy(np.frombuffer(text, np.uint8))
    else:
        a = np.load(io.BytesIO(parts[k]))
        others = [
            a[:-1],
            a[::-1],
            a.T,
            a.astype("f4"),
            a.astype("S3"),
            a.astype("O"),
            a.reshape(-1),
        ]
        others += [a * 0 - 5, a * 0 + 10**6 if a.dtype.itemsize > 1 else a, a[:0], a[:1], a[None]]
        parts[k] = npy(rng.choice(others))
    return hostile.archive([*parts.items()])


def npy(a):
    import numpy as np

    to = io.BytesIO()
    np.save(to, a)
    return to.getvalue()


def read_known(inputs, rng, folder):
    "What was kept, damaged: the data set is read as if nothing had been kept, and kept anew"
    from ssd_tutorial.faults import UserError

    source, kept, right = inputs.known()
    place, forged = folder / "kept", rng.random() < 0.4
    place.mkdir()
    names = sorted(kept) if rng.random() < 0.5 else [rng.choice(sorted(kept))]
    for name in names:
        data = kept[name]
        if forged:
            data = change_members(inputs, data, rng)
        elif rng.random() < 0.3:
            data = hostile.change_zip(data, rng)
        else:
            data = change_bytes(data, rng)
        (place / name).write_bytes(data)
    for start in ("first", "second"):
        try:
            found = inputs.read_known(source, place)
        except UserError as e:
            if forged:  # it may say that a picture has another size, which is told in one line
                return
            demand(False, f"the {start} start refuses what is in order: {e}")
        same = forged or inputs.content(found) == right
        demand(same, f"the {start} start reads another data set")


KINDS = dict(folders=read_shared, kept=read_known)
