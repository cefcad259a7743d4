"""Files made to do harm, and damaged files of the younger kinds: films, graphs, settings.

Each `read_…` takes (inputs, rng, folder), makes one input below the folder, reads it as the
package does and raises what came of it. Decoys that an input may try to reach lie in
`inputs.decoys`; who touches them is found out by `guard`.
"""

import io, json, pickle, struct, zipfile

from mutate import any_picture, change_bytes, change_text, change_tree, demand

PHOTO_HW = (48, 64)


def photo(inputs):
    import numpy as np

    return inputs.once("photo", lambda: np.zeros((*PHOTO_HW, 3), "uint8"))


def in_picture(found, hw, classes):
    "Boxes inside the picture, scores from 0 to 1, labels that have a name"
    import numpy as np

    b, (h, w) = found.boxes_px, hw
    demand(
        tuple(found.size_hw) == tuple(hw)
        and np.isfinite(b).all()
        and (b >= 0).all()
        and (b <= [w, h, w, h]).all(),
        f"boxes {b.tolist()[:3]} in {hw}",
    )
    demand(
        len(b) == len(found.scores) == len(found.labels)
        and ((found.scores >= 0) & (found.scores <= 1)).all()
        and ((found.labels > 0) & (found.labels <= classes)).all(),
        f"scores {found.scores.tolist()[:3]}, labels {found.labels.tolist()[:3]}",
    )


# ---------------------------------------------------------------- pictures, to a detector
def read_predict(inputs, rng, folder):
    "A damaged picture as a person hands it in: path, folder, bytes, Pillow's; whole or in tiles"
    from ssd_tutorial.faults import UserError
    from ssd_tutorial.pictures import IMAGE_SUFFIXES, open_image

    suffix, data = any_picture(inputs, rng)
    path = folder / f"photo.{suffix}"
    path.write_bytes(data)
    det, how = inputs.detector(), rng.randrange(8)
    more = dict(score=rng.choice((0.0, 0.05, 0.5)), progress=False)
    if how == 0:
        given = io.BytesIO(data)
        given.name = str(path)
    elif how == 1:
        (folder / "sound.jpg").write_bytes(inputs.small())
        given, more["unreadable"] = [folder / "sound.jpg", path], []
    elif how == 2 and path.suffix in IMAGE_SUFFIXES:
        given = str(folder)
    else:
        given = path
        if how == 3:
            more["tta"] = True
        elif how == 4:
            more["tiles"] = True
        elif how == 5:
            det, more = inputs.light(), dict(progress=False)
    try:
        found = det.predict(given, **more)
    except UserError:
        raise
    found = found if isinstance(found, list) else [found]
    hw = open_image(path).size[::-1] if len(found) == 1 and how != 1 else None
    for d in found:
        in_picture(d, hw or d.size_hw, len(det.vocab) - 1)
    if how == 1:
        demand(len(found) + len(more["unreadable"]) == 2, f"{len(found)} of two pictures")
        demand(len(found) > 0, "a sound picture is lost")
        if more["unreadable"]:
            raise (
                more["unreadable"][0][1]
                if isinstance(more["unreadable"][0][1], Exception)
                else UserError(more["unreadable"][0][1])
            )


# ---------------------------------------------------------------- pickles
def op(name):
    return pickle.__dict__[name]


class Calls:
    "Pickled, a call: unpickling it makes the call"

    def __init__(self, name, args):
        self.name, self.args = name, args

    def written(self, rng):
        "As opcodes, in one of the ways there are"
        module, _, name = self.name.rpartition(".")
        args = pickle.dumps(self.args, 2)[2:-1]
        way = rng.randrange(4)
        if way == 0:  # STACK_GLOBAL
            told = [op("SHORT_BINUNICODE") + bytes([len(s)]) + s.encode() for s in (module, name)]
            return b"".join(told) + op("STACK_GLOBAL") + args + op("REDUCE")
        if way == 1:  # INST takes what stands above the mark
            each = b"".join(pickle.dumps(a, 2)[2:-1] for a in self.args)
            return op("MARK") + each + op("INST") + f"{module}\n{name}\n".encode()
        found = op("GLOBAL") + f"{module}\n{name}\n".encode()
        if way == 2:
            return found + args + op("NEWOBJ")
        return found + args + op("REDUCE")


def calls(inputs, rng):
    "What an attacker would like to be called"
    decoy, port = inputs.decoys / "pwned", inputs.port
    touch, code = f"touch {decoy}", f"open({str(decoy)!r}, 'w').close()"
    return rng.choice(
        (
            ("os.system", (touch,)),
            ("posix.system", (touch,)),
            ("subprocess.Popen", (["touch", str(decoy)],)),
            ("subprocess.check_output", (["touch", str(decoy)],)),
            ("builtins.eval", (f"__import__('os').system({touch!r})",)),
            ("builtins.exec", (code,)),
            ("builtins.open", (str(decoy), "w")),
            ("builtins.getattr", ("", "join")),
            ("builtins.__import__", ("evil_module",)),
            ("importlib.import_module", ("evil_module",)),
            ("runpy.run_path", (str(inputs.decoys / "evil_module.py"),)),
            ("shutil.rmtree", (str(inputs.decoys),)),
            ("pathlib.Path.unlink", (str(decoy),)),
            ("torch.hub.load", ("evil/repo", "model")),
            ("torch.load", (str(inputs.decoys / "weights.bin"),)),
            ("torch.storage._load_from_bytes", (pickle.dumps({}),)),
            ("torch.serialization.load", (str(decoy),)),
            ("torch._utils._rebuild_tensor_v2", (0, 0, (10**9,), (1,), False, {})),
            ("torch._utils._rebuild_sparse_tensor", (0, ())),
            ("torch._tensor._rebuild_from_type_v2", (print, object, (), {})),
            ("torch.FloatTensor", (10**12,)),
            ("torch.Size", ((10**18,),)),
            ("torch.nn.parameter.Parameter", ()),
            ("collections.OrderedDict", ([[1, 2]],)),
            ("collections.Counter", ("a" * 99,)),
            ("numpy.load", (str(inputs.decoys / "weights.bin"), None, True)),
            ("numpy.fromfile", (str(inputs.decoys / "weights.bin"),)),
            ("socket.create_connection", (("127.0.0.1", port),)),
            ("urllib.request.urlopen", (f"http://127.0.0.1:{port}/",)),
            ("webbrowser.open", (f"http://127.0.0.1:{port}/",)),
            ("pickle.loads", (b"cos\nsystem\n(S'true'\ntR.",)),
            ("ssd_tutorial.saved.read_archive", (str(decoy),)),
            ("fastai.learner.load_learner", (str(decoy),)),
            ("builtins.bytearray", (10**13,)),
            ("_codecs.encode", ("x" * 1000, "rot13")),
        )
    )


def bomb(rng):
    "Opcodes that are short and mean much"
    way = rng.randrange(7)
    if way == 0:  # a list of lists of lists …
        return op("EMPTY_LIST") * 30_000 + op("APPEND") * 29_999
    if way == 1:  # each twice the one before: thirty lines, a billion laughs
        out = op("EMPTY_LIST") + op("BINPUT") + b"\0"
        for i in range(40):
            last = op("BINGET") + bytes([i])
            out += op("EMPTY_LIST") + op("BINPUT") + bytes([i + 1]) + op("MARK")
            out += last * 2 + op("APPENDS")
        return out
    if way == 2:
        return op("BINBYTES8") + struct.pack("<Q", rng.choice((2**40, 2**62, 2**64 - 1)))
    if way == 3:
        return op("LONG4") + struct.pack("<i", rng.choice((2**30, 2**31 - 1, -1))) + b"\xff" * 9
    if way == 4:
        return op("BINUNICODE") + struct.pack("<I", 2**32 - 1) + b"a"
    if way == 5:
        return op("LONG_BINPUT") + struct.pack("<I", 2**32 - 1)
    return op("INT") + b"9" * 200_000 + b"\n"


def tensor(rng, sizes, strides, numel, key="0", kind="FloatStorage"):
    "The opcodes of a tensor whose sizes are others than its storage has"
    words = lambda *v: b"".join(pickle.dumps(x, 2)[2:-1] for x in v)
    storage = op("MARK") + words("storage") + op("GLOBAL") + f"torch\n{kind}\n".encode()
    storage += words(key, "cpu", numel) + op("TUPLE") + op("BINPERSID")
    made = op("GLOBAL") + b"torch._utils\n_rebuild_tensor_v2\n" + op("MARK") + storage
    made += words(rng.choice((0, 0, -1, 2**40)), sizes, strides, False)
    made += op("GLOBAL") + b"collections\nOrderedDict\n" + op("EMPTY_TUPLE") + op("REDUCE")
    return made + op("TUPLE") + op("REDUCE")


def odd_tensor(rng):
    n = rng.choice((1, 16, 10**6, 2**40, 2**62, -1, 0))
    sizes = rng.choice(((n,), (10**6, 10**6), (2**31, 2**31), (-1,), (), (0, 2**60), (16,)))
    strides = rng.choice((tuple(0 for _ in sizes), tuple(1 for _ in sizes), (1,), (-1,), (2**62,)))
    kind = rng.choice(("FloatStorage", "FloatStorage", "BoolStorage", "QInt8Storage", "device"))
    return tensor(rng, sizes, strides, n, rng.choice(("0", "0", "1", "../../x", "")), kind)


def archive(entries, rng=None):
    "A zip as torch writes it: everything stored"
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as z:
        for name, data in entries:
            z.writestr(name, data)
    return to.getvalue()


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return [(i.filename, z.read(i)) for i in z.infolist()]


def change_entries(data, rng):
    "A torch file with other contents, the checksums of which are right"
    entries, way = entries_of(data), rng.randrange(8)
    i = rng.choice([k for k, (n, _) in enumerate(entries) if n.endswith("data.pkl")])
    if way > 3:
        i = rng.randrange(len(entries))
    name, content = entries[i]
    top = name.split("/")[0]
    if way < 4 or way == 4:
        entries[i] = name, change_bytes(content, rng) if content else b"x"
    elif way == 5:
        entries[i] = name, rng.choice((b"", content[: len(content) // 2], content * 2))
    elif way == 6:
        del entries[i]
    else:
        added = f"../{name}", "/etc/x", f"{top}/version", f"{top}/byteorder", f"{top}/data.pkl"
        added += (f"{top}/constants.pkl", f"{top}/code/evil.py", f"{top}/.data/serialization_id")
        entries.append(
            (rng.choice(added), rng.choice((b"big", b"99999999", b"\x80\x02N.", content)))
        )
    return archive(entries)


def change_zip(data, rng):
    "A zip whose own words are changed: methods, flags, sizes, places; or one that swells"
    way = rng.randrange(3)
    if way == 0:
        to = io.BytesIO()
        how = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(to, "w", how) as z:
            for name, content in entries_of(data):
                swell = 10**7 if how == zipfile.ZIP_DEFLATED and rng.random() < 0.3 else 0
                z.writestr(name, content[:20_000] + bytes(swell))
        return to.getvalue()
    b = bytearray(data)
    marks = {b"PK\1\2": 46, b"PK\3\4": 30, b"PK\5\6": 22, b"PK\6\6": 56}
    at = [(i, n) for m, n in marks.items() for i in _all(b, m)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        i, n = rng.choice(at)
        j = i + rng.randrange(4, n)
        word = rng.choice((b"\0", b"\xff", b"\xff" * 2, b"\xff" * 4, bytes(4), rng.randbytes(2)))
        b[j : j + len(word)] = word
    return bytes(b)


def _all(data, mark):
    i = data.find(mark)
    while i >= 0:
        yield i
        i = data.find(mark, i + 1)


def evil_pickle(inputs, rng, good):
    "A whole pickle, or one that hides between what a sound file holds"
    way = rng.random()
    what = bomb(rng) if way < 0.2 else odd_tensor(rng) if way < 0.4 else None
    what = what or Calls(*calls(inputs, rng)).written(rng)
    if rng.random() < 0.3:
        what += op("EMPTY_DICT") + op("BUILD")
    place, text = rng.random(), pickle.dumps(good["json"], 2)[2:-1]
    begin = op("PROTO") + bytes([rng.choice((2, 2, 2, 0, 4, 5))])
    if place < 0.3:
        return begin + what + op("STOP")
    key = lambda k: pickle.dumps(k, 2)[2:-1]
    state = op("EMPTY_DICT") + key("w") + what + op("SETITEM")
    head, body = (text, state) if place < 0.8 else (what, op("EMPTY_DICT"))
    d = op("EMPTY_DICT") + op("MARK") + key("json") + head + key("state") + body + op("SETITEMS")
    return begin + d + op("STOP")


def read_pickles(inputs, rng, folder):
    "A pickle that calls, swells or lies, in place of each file of ours"
    from ssd_tutorial.body import _read_weights
    from ssd_tutorial.detector import Detector
    from ssd_tutorial.own_anchors import read_anchors
    from ssd_tutorial.runs import read_last

    data = evil_pickle(inputs, rng, inputs.saved_dict())
    if rng.random() < 0.15:
        data = change_bytes(data, rng)
    if rng.random() < 0.85:
        storage = bytes(rng.choice((0, 4, 64)))
        parts = [
            ("archive/data.pkl", data),
            ("archive/version", b"3\n"),
            ("archive/data/0", storage),
        ]
        if rng.random() < 0.5:
            parts.insert(1, ("archive/byteorder", b"little"))
        data = archive(parts)
    elif rng.random() < 0.7:  # the format of before 2020: magic number, version, sizes, then it
        magic = [
            pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))
        ]
        data = b"".join(magic) + data
    where = rng.randrange(10)
    if where < 6:
        path = folder / "detector.pt"
        path.write_bytes(data)
        Detector.load(path)
    elif where == 6:
        path = folder / "last.ckpt"
        path.write_bytes(data)
        read_last(folder / "d.pt")
    elif where == 7:
        path = folder / "anchors.json"
        path.write_bytes(data)
        read_anchors(path)
        return  # they stand in a detector's description: its weights are nobody's business here
    else:
        path = folder / "weights.pth"
        path.write_bytes(data)
        found = _read_weights(path, "a body")
        demand(sum(v.numel() for v in found.values()) < 1e6, "weights that the file does not hold")
        return
    demand(False, "a hostile file was taken for one of ours")


# ---------------------------------------------------------------- graphs
HEAD = """
<ir_version: 10, opset_import: ["" : 20%s]>
g (float[B,3,64,64] images, float[1] score, float[1] overlap)
  => (float[D,4] boxes_xyxy, float[D] found_scores, int64[D] labels, int64[D] image)
{
 boxes_xyxy = Constant <value = float[1,4] {%s}> ()
 found_scores = Constant <value = float[%s] {%s}> ()
 labels = Constant <value = int64[1] {%s}> ()
 at = Constant <value = int64[1] {%s}> ()
%s
 image = Add (at, more)
}
"""
ENDINGS = (
    " more = Constant <value_ints = [0]> ()",
    " n = Constant <value_ints = [%d, 40000]> ()\n z = ConstantOfShape (n)\n"
    " m = ReduceMax <keepdims = 0> (z)\n more = Cast <to = 7> (m)",
    " n = Constant <value_ints = [%d]> ()\n more = ConstantOfShape <value = int64[1] {0}> (n)",
    " n = Constant <value_ints = [5, %d]> ()\n z = Reshape (images, n)\n"
    " m = ReduceMax <keepdims = 0> (z)\n more = Cast <to = 7> (m)",
    " n = Constant <value_int = %d> ()\n yes = Constant <value = bool {1}> ()\n"
    " zero = Constant <value_ints = [0]> ()\n more = Loop (n, yes, zero) <body = b\n"
    " (int64 i, bool go, int64[1] v) => (bool on, int64[1] w)\n"
    " { on = Identity (go) w = Identity (v) }>",
    " s = Shape (images)\n z = Expand (score, s)\n more = Evil (z)",
    " n = Constant <value_int = %d> ()\n a = Constant <value_int = 0> ()\n"
    " b = Constant <value_int = 1> ()\n r = Range (a, n, b)\n"
    " more = ReduceMin <keepdims = 0> (r)",
)


def small_graph(rng):
    import onnx

    odd = lambda usual, *others: rng.choice((usual,) * 4 + others)
    box = odd("0.0,0.0,1.0,1.0", "1.0,1.0,0.0,0.0", "5.0,0.0,9.0,1e30", "-1.0,-1.0,2.0,2.0")
    n, scores = odd(("1", "0.9"), ("2", "0.9,0.9"), ("1", "7.0"), ("1", "-1.0"))
    big = rng.choice((3, 1000, 40_000, 10**7, 10**9, 2**62))
    ending = rng.choice(ENDINGS)
    ending = ending % big if "%d" in ending else ending
    domain = odd("", ', "evil" : 1')
    label, at = odd("1", "0", "-1", "9", "99999999999"), odd("0", "1", "-1", "7777777")
    graph = onnx.parser.parse_model(HEAD % (domain, box, n, scores, label, at, ending))
    head = dict(vocab=["background", "a"], size=64, score=0.3, whole=True, description={})
    onnx.helper.set_model_props(graph, dict(ssd_tutorial=json.dumps(head)))
    return graph


def change_graph(graph, rng, decoys):
    "One thing of a graph is another: an operation, an attribute, a weight, a name, where it lies"
    import onnx

    nodes, weights = graph.graph.node, graph.graph.initializer
    way = rng.randrange(10)
    if way == 0 and nodes:
        ops = ("Loop", "If", "Scan", "Evil", "Pad", "Tile", "Expand", "Resize", "", "Identity")
        node = rng.choice(nodes)
        node.op_type, node.domain = rng.choice(ops), rng.choice(("", "", "evil", "com.microsoft"))
    elif way == 1 and nodes:
        node = rng.choice(nodes)
        if node.attribute:
            a = rng.choice(node.attribute)
            big = rng.choice((0, -1, 2**31, 2**62, 7, 10**5))
            a.i, a.f = big, float(big)
            if a.ints:
                a.ints[rng.randrange(len(a.ints))] = big
    elif way == 2 and nodes:
        node = rng.choice(nodes)
        names = ["", "images", "score", "nobody"] + [o for n in nodes for o in n.output]
        at = node.input if node.input and rng.random() < 0.7 else node.output
        if at:
            at[rng.randrange(len(at))] = rng.choice(names)
    elif way in (3, 4):
        t = weights.add() if not weights or rng.random() < 0.3 else rng.choice(weights)
        t.name = t.name or "w"
        t.data_location = onnx.TensorProto.EXTERNAL
        t.data_type = t.data_type or onnx.TensorProto.UINT8
        if not t.dims:
            t.dims.extend([64])
        t.ClearField("raw_data")
        where = rng.choice(
            (decoys / "weights.bin", "../decoys/weights.bin", "weights.bin", "/dev/zero")
        )
        for k, v in dict(location=str(where), offset=rng.choice(("0", "4096", "-1"))).items():
            e = t.external_data.add()
            e.key, e.value = k, v
    elif way == 5 and weights:
        t = rng.choice(weights)
        if t.dims:
            t.dims[rng.randrange(len(t.dims))] = rng.choice((0, 1, -1, 2**31, 2**62, 10**6))
    elif way == 6 and weights:
        t = rng.choice(weights)
        t.raw_data = change_bytes(t.raw_data, rng) if t.raw_data else b"1"
    elif way == 7:
        v = rng.choice([*graph.graph.input, *graph.graph.output])
        v.name = rng.choice(("images", "score", "labels", "", "x"))
    elif way == 8 and nodes:
        del nodes[rng.randrange(len(nodes))]
    else:
        graph.opset_import[0].version = rng.choice((1, 7, 13, 19, 21, 99, -1))
    return graph


def read_graph(inputs, rng, folder):
    import onnx
    from ssd_tutorial.onnx_detector import OnnxDetector

    good, how = inputs.graph(), rng.random()
    path = folder / "detector.onnx"
    (folder / "weights.bin").write_bytes(b"secret " * 64)  # what lies beside is not its business
    if how < 0.35:
        data = change_bytes(good, rng)
    elif how < 0.55:
        graph = onnx.ModelProto.FromString(good)
        notes = {p.key: p.value for p in graph.metadata_props}
        head = change_tree(json.loads(notes["ssd_tutorial"]), rng)
        said = json.dumps(head) if rng.random() < 0.9 else change_text(json.dumps(head), rng)
        onnx.helper.set_model_props(graph, dict(ssd_tutorial=said.replace("\\ud", "")))
        data = graph.SerializeToString()
    elif how < 0.8:
        graph = onnx.ModelProto.FromString(good)
        for _ in range(rng.choice((1, 1, 2))):
            graph = change_graph(graph, rng, inputs.decoys)
        data = graph.SerializeToString()
    else:
        try:
            data = small_graph(rng).SerializeToString()
        except onnx.parser.ParseError:
            data = change_bytes(good, rng)
    path.write_bytes(data)
    det = OnnxDetector(path, threads=1)
    photos = [photo(inputs)] * rng.choice((1, 1, 3))
    for d in det.predict(photos, score=rng.choice((None, 0.0, 0.9)), progress=False):
        in_picture(d, PHOTO_HW, len(det.vocab) - 1)


# ---------------------------------------------------------------- films
def films():
    "kind → bytes of a sound film of eight frames"
    import av, numpy as np

    out, gen = {}, np.random.default_rng(0)
    pixels = gen.integers(0, 255, (8, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    kinds = [("mp4", "libx264"), ("mp4", "mpeg4"), ("avi", "mpeg4"), ("avi", "mjpeg")]
    kinds += [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("ts", "mpeg2video"), ("mov", "qtrle")]
    kinds += [("gif", "gif"), ("flv", "flv"), ("ogv", "libtheora"), ("mp4", "libx265")]
    for suffix, codec in kinds:
        to = io.BytesIO()
        name = dict(mkv="matroska", ts="mpegts", ogv="ogg").get(suffix, suffix)
        try:
            with av.open(to, "w", format=name) as c:
                s = c.add_stream(codec, rate=8)
                s.width, s.height = 64, 48
                s.pix_fmt = (s.codec.video_formats or [None])[0].name
                if codec in ("libx264", "mpeg4", "libx265"):
                    s.pix_fmt = "yuv420p"
                for p in pixels:
                    for packet in s.encode(av.VideoFrame.from_ndarray(p, format="rgb24")):
                        c.mux(packet)
                for packet in s.encode():
                    c.mux(packet)
        except (av.error.FFmpegError, ValueError, TypeError, AttributeError):
            continue  # this FFmpeg does not write it
        out[f"{suffix}_{codec}"] = to.getvalue()
    return out


def playlist(inputs, rng, beside):
    "A text that FFmpeg takes for a film and that names other files"
    web = f"http://127.0.0.1:{inputs.port}/film.ts"
    what = rng.choice(
        (inputs.decoys / "film.ts", "../decoys/film.ts", beside, web, f"file:{beside}")
    )
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1" width="64" height="48"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    sdp = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 50{}4 RTP/AVP 96\n"
    )
    sdp += "a=rtpmap:96 H264/90000\n"
    texts = (hls, hls, "ffconcat version 1.0\nfile '{}'\n", "ffconcat version 1.0\nfile {}\n")
    texts += (dash, sdp, "[playlist]\nFile1={}\n", "RTSPtext\nrtsp://127.0.0.1/{}\n")
    suffixes = ("mp4", "m3u8", "avi", "ffconcat", "mpd", "sdp", "m3u", "rtsp", "txt")
    return rng.choice(suffixes), rng.choice(texts).format(what, 0).encode()


def read_film(inputs, rng, folder):
    import warnings
    import numpy as np
    from ssd_tutorial import video  # noqa: F401  it gives detectors predict_video
    from ssd_tutorial.clips import read_frames

    kinds = inputs.once("films", films)
    name = rng.choice(sorted(kinds))
    suffix, data = name.split("_")[0], kinds[name]
    if rng.random() < 0.2:
        (folder / "beside.ts").write_bytes(kinds.get("ts_mpeg2video", data))
        suffix, data = playlist(inputs, rng, "beside.ts")
        if rng.random() < 0.3:
            data = change_bytes(data, rng)
    elif rng.random() < 0.1:
        other = kinds[rng.choice(sorted(kinds))]
        i = rng.randrange(min(len(data), len(other)))
        data = data[:i] + other[i:]
    else:
        data = change_bytes(data, rng)
    path = folder / f"film.{rng.choice((suffix, suffix, 'mp4'))}"
    path.write_bytes(data)
    how = dict(every=rng.choice((1, 1, 3)), start=rng.choice((0, 0, 0.5)))
    if rng.random() < 0.2:
        how["seconds"] = 0.5
    with warnings.catch_warnings(), read_frames(path, **how) as reader:
        warnings.simplefilter("ignore")
        last, n = -1, 0
        for f in reader:
            hw = np.asarray(f.image).shape[:2]
            demand(hw == tuple(f.size_hw), f"a frame of {hw} that says {f.size_hw}")
            demand(f.index > last, f"frame {f.index} after {last}")
            demand(np.isfinite(f.time), f"a frame at {f.time}")
            last, n = f.index, n + 1
            demand(n <= 100, "a hundred frames of eight")
    if rng.random() < 0.1:
        reader = read_frames(path)
        reader.warn = False
        det = inputs.detector()
        for f, found in det.predict_video(reader, score=0.0):
            in_picture(found, f.size_hw, len(det.vocab) - 1)
    demand(not path.suffix == ".m3u8" or b"#EXTM3U" not in data, "a playlist was taken for a film")


# ---------------------------------------------------------------- settings, anchors, logs, tables
def read_settings(inputs, rng, folder):
    from dataclasses import asdict
    from ssd_tutorial.config import TrainConfig, read_config
    import yaml

    path = folder / "settings.yaml"
    good = asdict(TrainConfig())
    if rng.random() < 0.6:
        path.write_text(yaml.safe_dump(_plain(change_tree(good, rng))))
    else:
        words = (
            "!!python/object/apply:os.system [x]",
            "&a [*a]",
            "{",
            "1e999",
            "0x7f",
            "~",
            "[[]]",
        )
        path.write_text(change_text(yaml.safe_dump(good), rng, words), errors="replace")
    try:
        cfg = TrainConfig(**read_config(path))
    except Exception as e:
        raise named_by(e, path) from None
    demand(isinstance(cfg.size, int) and 32 <= cfg.size <= 4096, f"a size of {cfg.size}")


def _plain(d):
    "What YAML can write"
    return json.loads(json.dumps(d, default=str))


def named_by(e, path):
    "A setting that is not allowed is named itself; the file that it stands in is known to the user"
    from ssd_tutorial.faults import UserError

    return (
        type(e)(f"{path}: {e}")
        if type(e).__mro__[1] is UserError or isinstance(e, UserError)
        else e
    )


def read_own_anchors(inputs, rng, folder):
    from ssd_tutorial.anchors import make_anchors, spec_to_dict
    from ssd_tutorial.own_anchors import read_anchors

    path = folder / "anchors.json"
    spec = spec_to_dict(inputs.detector().model.spec)
    good = rng.choice((spec, dict(findings=[], anchors=spec), dict(findings=[], anchors=None)))
    if rng.random() < 0.7:
        path.write_text(json.dumps(change_tree(good, rng)))
    else:
        path.write_bytes(change_bytes(json.dumps(good).encode(), rng))
    found = read_anchors(path)
    demand(make_anchors(found).isfinite().all(), "anchors that are no numbers")


def read_log(inputs, rng, folder):
    "A run's log, as `compare` reads it"
    from ssd_tutorial.compare import compare_runs, read_run

    good = inputs.once("log", inputs.log)
    paths = []
    for k in range(2):
        path = folder / f"run{k}" / "d.json"
        path.parent.mkdir()
        data = (
            json.dumps(change_tree(good, rng))
            if rng.random() < 0.7
            else change_text(json.dumps(good), rng)
        )
        path.write_text(data if k else json.dumps(good), errors="replace")
        paths.append(path.with_suffix(".pt"))
    runs = [read_run(p) for p in paths]
    found = compare_runs(runs)
    demand(str(found) or True, "")
    if hasattr(found, "to_html"):
        found.to_html()


def read_files(inputs, rng, folder):
    "Settings, anchors and logs: the small files of ours"
    rng.choice((read_settings, read_own_anchors, read_log))(inputs, rng, folder)


# ---------------------------------------------------------------- pictures, to the page
def answered(app, path, body, headers, step):
    "Status and body of what an ASGI application answers to a POST that comes in pieces"
    parts, sent = [body[i : i + step] for i in range(0, len(body), step)] or [b""], []

    async def receive():
        if not parts:
            return dict(type="http.disconnect")
        part = parts.pop(0)
        return dict(type="http.request", body=part, more_body=bool(parts))

    async def send(message):
        sent.append(message)

    scope = dict(type="http", method="POST", path=path, raw_path=path.encode(), query_string=b"")
    scope.update(scheme="http", http_version="1.1", root_path="", asgi=dict(version="3.0"))
    scope.update(server=("127.0.0.1", 8030), client=("127.0.0.1", 9))
    scope["headers"] = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    return app(scope, receive, send), sent


def read_page(inputs, rng, folder):
    "A damaged picture, sent to the page's server as the page does, or as a stranger's page does"
    import asyncio
    import numpy as np
    from ssd_tutorial.app import make_app
    from ssd_tutorial.faults import UserError

    loop = inputs.once("loop", asyncio.new_event_loop)
    det = inputs.detector()
    app = inputs.once("page", lambda: make_app(det))
    suffix, data = any_picture(inputs, rng)
    file = folder / f"photo.{suffix}"
    file.write_bytes(data)
    headers = {"host": "127.0.0.1:8030", "origin": "http://127.0.0.1:8030"}
    headers["content-length"] = str(len(data))
    stranger = rng.random() < 0.1
    if stranger:
        name = rng.choice(("host", "origin"))
        headers[name] = rng.choice(
            ("evil.example", "http://evil.example", "\xe9", "null", "[::", "")
        )
    elif rng.random() < 0.1:
        headers["content-length"] = rng.choice(("-1", "x", "9" * 40, str(10**9), ""))
    path = rng.choice(("/detect", "/detect", "/detect", "/picture"))
    answer, sent = answered(app, path, data, headers, rng.choice((1 << 16, 1 << 12, 501)))
    loop.run_until_complete(asyncio.wait_for(answer, 60))
    status = sent[0]["status"]
    body = b"".join(m.get("body", b"") for m in sent[1:])
    demand(status < 500, f"status {status}")
    demand(not stranger or status != 200, "a stranger is answered")
    if status != 200:
        raise UserError(f"{file}: {json.loads(body)['error']}")  # a body has no name of its own
    if path == "/picture":
        return demand(body[:2] == b"\xff\xd8", "no JPEG")
    told = json.loads(body)
    w, h = told["size_wh"]
    boxes = np.reshape(told["boxes_px"], (-1, 4))
    demand(np.isfinite(boxes).all() and (boxes >= -0.01).all(), f"boxes {boxes[:3].tolist()}")
    demand((boxes <= np.array([w, h, w, h]) + 0.01).all(), f"boxes beyond {w}x{h}")
    demand(len(boxes) == len(told["scores"]) == len(told["anchor"]), "columns of other lengths")


KINDS = dict(
    predict=read_predict,
    page=read_page,
    pickles=read_pickles,
    graphs=read_graph,
    films=read_film,
    files=read_files,
)
