"""How sound files are changed at random: their bytes, their text, what was parsed of them."""

import copy, io, re, struct, zlib
from pathlib import Path


class Wrong(Exception):
    "What came out is not in order"


def demand(ok, what):
    if not ok:
        raise Wrong(what)


# ---------------------------------------------------------------- changing bytes
def flip(b, rng):
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
    return b


def cut(b, rng):
    return b[: rng.randrange(len(b))]


def splice(b, rng):
    "A piece of the file a second time, somewhere else"
    i, n, j = rng.randrange(len(b)), rng.randrange(1, 65), rng.randrange(len(b))
    b[j : j + rng.choice((0, n))] = b[i : i + n]
    return b


def lose(b, rng):
    i = rng.randrange(len(b))
    del b[i : i + rng.randrange(1, 65)]
    return b


def junk(b, rng):
    i = rng.randrange(len(b))
    b[i : i + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))
    return b


def header(b, rng):
    "A number of the first bytes becomes an extreme one"
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    i = rng.randrange(min(len(b), rng.choice((32, 64, 512))))
    top = 256 ** struct.calcsize(kind) - 1
    b[i : i + struct.calcsize(kind)] = struct.pack(
        kind, rng.choice((0, 1, top, top // 2, top // 2 + 1, rng.randrange(top), 65500)) & top
    )
    return b


BYTES = (flip, flip, cut, splice, lose, junk, header, header)


def change_bytes(data, rng):
    b = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        b = rng.choice(BYTES)(b, rng) if b else b
    return bytes(b)


# ---------------------------------------------------------------- changing what was parsed
ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    -(10**30),
    1e308,
    -1e308,
    1e-320,
    float("nan"),
    float("inf"),
    0.5,
    "",
    " ",
    "0",
    "1",
    "-1",
    "nan",
    "x" * 5000,
    "\0",
    "../../x",
    "/etc/hostname",
    "\x1b[2J",
    "ü",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    [1, 2, 3],
    ["a", "a"],
    {"0": "a"},
    [[[[1]]]],
)


def places(d, at=()):
    "Every place in nested dicts and lists"
    for k in list(d) if isinstance(d, dict) else range(len(d)):
        yield d, k
        if isinstance(d[k], (dict, list)):
            yield from places(d[k])


def change_tree(d, rng):
    "A copy of nested dicts and lists, a few places of it changed, gone, doubled or swapped"
    d = copy.deepcopy(d)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not (all_ := list(places(d))):
            return d
        parent, k = rng.choice(all_)
        how = rng.randrange(8)
        if how < 4:
            parent[k] = copy.deepcopy(rng.choice(ODD))
        elif how == 4:
            del parent[k]
        elif how == 5:
            parent[k] = rng.choice(([parent[k]], {"a": parent[k]}))
        elif how == 6:
            other, j = rng.choice(all_)
            parent[k] = (
                copy.deepcopy(other[j])
                if j in other or isinstance(other, list) and j < len(other)
                else 0
            )
        elif isinstance(parent, list):
            parent.insert(k, copy.deepcopy(parent[k]))
        else:
            parent[rng.choice(("a", "", "0", "names", "path", "train"))] = copy.deepcopy(parent[k])
    return d


WORDS = (
    "",
    "0",
    "-1",
    "1",
    "1e999",
    "nan",
    "inf",
    "1,5",
    "9" * 400,
    "-",
    "x" * 3000,
    "\0",
    "&lt;",
    "../../x",
    "1 2 3",
    "０",
    "\ufeff",
    "\x1b[31m",
    "cat",
    "dog",
    "images/train",
)
YAML = (
    '!!int ""',
    "!!bool maybe",
    "!!timestamp x",
    '!!float ""',
    '!!binary "?"',
    "!!set {a, a}",
    "!!python/object:os.system x",
    "&a [*a]",
    "*b",
    "{",
    "- -",
    "? ",
    "names:",
    "2001-01-01",
    "[no, yes]",
    "~",
    "0x",
    "0o9",
    "1:60",
    "<<: 1",
    "[[a]]",
    "{1: {2: 3}}",
    '"\\x"',
    "|",
    "@",
    "%TAG",
)


def change_text(text, rng, words=WORDS):
    "A text with a few of its words changed, lines lost, doubled or swapped"
    for _ in range(rng.choice((1, 1, 2, 4))):
        how, lines = rng.randrange(6), text.split("\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        if how == 0:
            lines[i], lines[j] = lines[j], lines[i]
            text = "\n".join(lines)
        elif how == 1:
            del lines[i]
            text = "\n".join(lines)
        elif how == 2:
            lines.insert(i, lines[j])
            text = "\n".join(lines)
        else:
            cells = _cells(text)
            if not cells:
                return rng.choice(words)
            a, b = rng.choice(cells)
            text = text[:a] + rng.choice(words) + text[b:]
    return text


def _cells(text):
    return [m.span() for m in re.finditer(r'[^\s<>=:,;"\[\]{}/]+|(?<=: )[^\n]+', text)]


# ---------------------------------------------------------------- inputs
class Inputs:
    "The sound files that everything is made of, in a folder of their own"

    def __init__(self, folder):
        self.folder, self.seeds = Path(folder), {}

    def once(self, name, make):
        if name not in self.seeds:
            self.seeds[name] = make()
        return self.seeds[name]

    def picture(self, rng):
        "(name of a kind, bytes) of a sound picture"
        kinds = self.once("pictures", self._pictures)
        name = rng.choice(sorted(kinds))
        return name, kinds[name]

    def _pictures(self):
        import numpy as np
        from PIL import Image

        gen = np.random.default_rng(0)
        rgb = Image.fromarray(gen.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
            (64, 48), Image.BICUBIC
        )
        other = rgb.transpose(Image.ROTATE_180)
        out = {}
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a"
        deep = Image.fromarray(gen.integers(0, 4095, (48, 64), dtype=np.uint16))
        cases = [
            ("jpg", rgb, dict(exif=exif)),
            ("jpg", rgb, dict(progressive=True)),
            ("jpg", rgb.convert("L"), {}),
            ("jpg", rgb.convert("CMYK"), {}),
            ("png", rgb, {}),
            ("png", rgb.convert("P"), {}),
            ("png", deep, {}),
            ("png", rgb.convert("1"), {}),
            ("png", rgb.convert("RGBA"), dict(exif=exif)),
            ("png", rgb, dict(save_all=True, append_images=[other])),
            ("gif", rgb.convert("P"), dict(save_all=True, append_images=[other.convert("P")])),
            ("webp", rgb, dict(exif=exif)),
            ("webp", rgb, dict(lossless=True)),
            ("webp", rgb, dict(save_all=True, append_images=[other] * 3)),
            ("bmp", rgb, {}),
            ("bmp", rgb.convert("P"), {}),
            ("tif", rgb, dict(exif=exif)),
            ("tif", rgb, dict(compression="tiff_lzw")),
            ("tif", rgb, dict(compression="tiff_adobe_deflate", exif=exif)),
            ("tif", deep, {}),
            ("tif", rgb.convert("F").point(lambda v: v / 255), {}),
            ("tif", rgb.convert("1"), dict(compression="group4")),
            ("tif", rgb, dict(save_all=True, append_images=[other])),
            ("ppm", rgb, {}),
            ("pcx", rgb, {}),
            ("tga", rgb, {}),
            ("sgi", rgb, {}),
            ("jp2", rgb, {}),
            ("avif", rgb, {}),
            ("ico", rgb, {}),
            ("mpo", rgb, dict(save_all=True, append_images=[other])),
            ("png", rgb.convert("LA"), dict(exif=exif)),
            ("eps", rgb, {}),
        ]
        for i, (suffix, img, how) in enumerate(cases):
            to = io.BytesIO()
            try:
                img.save(
                    to,
                    dict(jpg="JPEG", tif="TIFF", jp2="JPEG2000").get(suffix, suffix.upper()),
                    **how,
                )
            except (OSError, KeyError, ValueError):
                continue  # this Pillow does not write it
            out[f"{suffix}_{i}"] = to.getvalue()
        return out

    def small(self):
        return self.once("small", lambda: self._pictures()["jpg_2"])


def set_png_size(data, rng):
    "A PNG whose size, depth and colour are others, with sound checksums"
    w, h = (
        rng.choice((0, 1, 63, 64, 65, 1000, 20_000, 65_535, 65_536, 1_769_536, 2**31 - 1))
        for _ in range(2)
    )
    body = (
        b"IHDR"
        + struct.pack(">II", w, h)
        + bytes(
            (rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, rng.choice((0, 0, 1)))
        )
    )
    return data[:12] + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def odd_exif(rng):
    "A header of tags that nobody writes: types, numbers and places at random, or a circle"
    n = rng.choice((0, 1, 3, 40, 65535))
    tags = (0x0112, 0x8769, 0x8825, 0xA005, 0x0111, 0x0117, 0x927C, rng.randrange(65536))
    entries = b"".join(
        struct.pack(
            "<HHI",
            rng.choice(tags),
            rng.choice((1, 2, 3, 4, 5, 7, 12, 13, 99)),
            rng.choice((1, 1, 1, 0, 2, 2**31, 2**32 - 1)),
        )
        + rng.choice((struct.pack("<I", rng.choice((1, 6, 8, 9, 2**32 - 1))), rng.randbytes(4)))
        for _ in range(min(n, 40))
    )
    after = struct.pack("<I", rng.choice((0, 8, 2**32 - 1)))  # 8: it follows itself
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", n) + entries + after


def set_exif(data, rng):
    "A JPEG with such a header behind its first mark"
    body = odd_exif(rng)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def any_picture(inputs, rng):
    name, data = inputs.picture(rng)
    suffix = name.split("_")[0]
    if suffix == "png" and rng.random() < 0.2:
        data = set_png_size(data, rng)
    if suffix in ("jpg", "mpo") and rng.random() < 0.3:
        data = set_exif(data, rng)
        if rng.random() < 0.7:
            return suffix, data
    if rng.random() < 0.1:  # the head of one kind, the rest of another
        other = inputs.picture(rng)[1]
        i = rng.randrange(min(len(data), len(other)))
        data = data[:i] + other[i:]
    else:
        data = change_bytes(data, rng)
    return rng.choice((suffix, suffix, suffix, "jpg")), data
