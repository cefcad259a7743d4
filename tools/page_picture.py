#!/usr/bin/env python3
"""Take the picture at the top of lesson 31: the page in a browser, with two cats and a chosen box.

python tools/page_picture.py            writes nbs/images/31_page.png; needs chromium
python tools/page_picture.py FILE.png   writes another file
"""

import io, sys, tempfile
from pathlib import Path
import skimage.data
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from browser import Browser  # noqa: E402
from ssd_tutorial.app import running_app  # noqa: E402
from ssd_tutorial.detector import Detector  # noqa: E402

SHOWN = """$('score').value = .1, $('show-all').click(),
filter(), choose(state.kept[1])"""


def main(path=ROOT / 'nbs' / 'images' / '31_page.png'):
    cat = Image.fromarray(skimage.data.chelsea())
    cats = Image.new('RGB', (700, 500), 'grey')
    cats.paste(cat, (0, 0))
    cats.paste(ImageOps.mirror(cat).resize((350, 233)), (330, 260))
    with tempfile.TemporaryDirectory() as folder, running_app(Detector.pretrained()) as page:
        cats.save(Path(folder) / 'cats.png')
        with Browser((1120, 940)) as b:
            b.open(page)
            b.until('state.about')
            b.upload('#file', Path(folder) / 'cats.png')
            b.until("state.found && !$('stage').classList.contains('busy')")
            b.js(SHOWN)
            b.js('new Promise(y => setTimeout(y, 300))')
            shot = Image.open(io.BytesIO(b.screenshot())).convert('RGB')
    shot.quantize(256, kmeans=2, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(f'{path}: {shot.width}×{shot.height}, {Path(path).stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    main(*sys.argv[1:])
