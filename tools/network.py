#!/usr/bin/env python3
"""Draw the network of each lesson, its changed part in orange, and the families of detectors.

python tools/network.py            write nbs/images/NN_network.svg and 00_family.svg
python tools/network.py --check    only say which drawing would change; exit 1 if any would

Grids and numbers of anchors are taken from the package, so that a drawing cannot say what the code
does not. The families stand on a line of years.
"""

import argparse, sys
from html import escape
from pathlib import Path
from ssd_tutorial.anchors import GRID16, MULTI
from ssd_tutorial.fpn import fpn_spec
from ssd_tutorial.ssd import ssd_spec
from ssd_tutorial.ssd300 import SSD300_TUTORIAL

IMAGES = Path(__file__).resolve().parent.parent / 'nbs' / 'images'
WIDTH, HEIGHT = 980, 380
PLAIN, NEW = ('#f4f4f4', '#666'), ('#ffe6cc', '#e8730c')  # fill, line
TRAIN, USE = 96, 268  # where the two ways on the right run


def spec_text(spec):
    "Grids and their sum: '7×7, 4×4 …'"
    return [f'{level.cells}×{level.cells}' for level in spec.levels], f'{spec.n_anchors:,}'.replace(
        ',', ' '
    )


def drawing(
    title,
    spec,
    new,
    size=224,
    backbone='EfficientNet-Lite0',
    neck='convolutions',
    head='one head per map',
    loss='class loss + box loss',
    given=1,
    top_down=False,
):
    "The SVG as text; `new`: parts to highlight; `given`: maps that the backbone gives"
    grids, n_anchors = spec_text(spec)
    unknown = set(new) - {
        'backbone',
        'neck',
        'heads',
        'anchors',
        'matching',
        'loss',
        'decode',
        'nms',
    }
    assert not unknown, unknown
    out = []
    look = lambda part: NEW if part in new else PLAIN
    add = out.append

    def text(x, y, words, size=13, weight='normal', anchor='middle', color='#222'):
        add(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
            f'text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'
        )

    def box(x, y, w, h, part, *words):
        fill, line = look(part)
        add(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{fill}" '
            f'stroke="{line}" stroke-width="1.6"/>'
        )
        for i, word in enumerate(words):
            text(
                x + w / 2,
                y + h / 2 + 5 + 17 * (i - (len(words) - 1) / 2),
                word,
                weight='normal' if i else 'bold',
            )

    def arrow(*points, color='#444', width=1.6):
        path = ' L'.join(f'{x:g} {y:g}' for x, y in points)
        add(
            f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="{width}" '
            'marker-end="url(#tip)"/>'
        )

    # image
    add('<rect x="14" y="140" width="84" height="84" fill="#dfeaf5" stroke="#666"/>')
    add('<circle cx="44" cy="172" r="15" fill="#2f7fc1"/>')
    add('<path d="M76 188 l5 11 12 1 -9 8 3 12 -11 -6 -10 6 2 -12 -9 -8 12 -1 z" fill="#c13c3c"/>')
    text(56, 130, 'image', weight='bold')
    text(56, 242, f'{size}×{size}×3', 12, color='#555')
    arrow((100, 182), (122, 182))
    # backbone: slabs that shrink
    fill, line = look('backbone')
    for x, half in ((126, 62), (148, 48), (170, 35), (192, 24)):
        add(
            f'<path d="M{x} {182 - half} l18 8 v{2 * half - 16} l-18 8 z" fill="{fill}" '
            f'stroke="{line}" stroke-width="1.6"/>'
        )
    text(170, 108, 'backbone', weight='bold')
    text(170, 264, backbone, 12, color='#555')
    arrow((214, 182), (240, 182))
    # neck: one grid per level, the finest at the top
    fill, line = look('neck')
    n = len(grids)
    add(
        f'<rect x="244" y="46" width="150" height="272" rx="10" fill="none" stroke="{line}" '
        'stroke-width="1.4" stroke-dasharray="5 4"/>'
    )
    text(319, 36, 'neck: feature maps', weight='bold')
    text(319, 336, neck, 12, color='#555')
    room = 262 / n
    side = min(44, room - 8)
    for i, (grid, level) in enumerate(zip(grids, spec.levels)):
        y = 51 + room * i + (room - side) / 2
        add(
            f'<rect x="262" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" fill="{fill}" '
            f'stroke="{line}" stroke-width="1.3"/>'
        )
        cells = min(level.cells, 14)
        for k in range(1, cells):
            d = side * k / cells
            add(
                f'<path d="M{262 + d:.1f} {y:.1f} v{side:.1f} M262 {y + d:.1f} h{side:.1f}" '
                f'stroke="{line}" stroke-width=".5"/>'
            )
        text(318, y + side / 2 + 4, grid, 12, anchor='start')
        if i < n - 1:
            if i >= given - 1:
                arrow((272, y + side), (272, y + room), color='#888', width=0.9)
            elif top_down:
                arrow((295, y + room), (295, y + side), color=NEW[1], width=1.3)
        arrow(
            (368, y + side / 2), (418, 182 + (i - (n - 1) / 2) * 60 / max(n - 1, 1)), color='#888'
        )
    # heads
    text(474, 120, 'heads', weight='bold')
    box(422, 132, 104, 44, 'heads', 'class scores', 'A × C')
    box(422, 188, 104, 44, 'heads', 'box offsets', 'A × 4')
    text(474, 250, head, 12, color='#555')
    # anchors
    box(422, 318, 104, 46, 'anchors', 'anchors', f'A = {n_anchors}')
    # two ways on
    text(592, TRAIN - 46, 'training', 13, 'bold', 'start', '#1f77b4')
    box(592, TRAIN - 24, 128, 48, 'matching', 'matching', 'anchor ↔ object')
    box(764, TRAIN - 24, 166, 48, 'loss', 'loss', loss)
    text(764, TRAIN - 46, 'ground truth', 12, anchor='start', color='#2ca02c')
    arrow((760, TRAIN - 50), (656, TRAIN - 50), (656, TRAIN - 27), color='#2ca02c')
    text(592, USE - 40, 'inference', 13, 'bold', 'start', '#e8730c')
    box(592, USE - 24, 90, 48, 'decode', 'decode', 'boxes')
    box(714, USE - 24, 90, 48, 'nms', 'NMS', 'best boxes')
    box(836, USE - 24, 126, 48, 'none', 'detections', 'box, class, score')
    arrow((722, TRAIN), (761, TRAIN))
    arrow((684, USE), (711, USE))
    arrow((806, USE), (833, USE))
    arrow((528, 168), (556, 168), (556, TRAIN + 46), (847, TRAIN + 46), (847, TRAIN + 27))
    arrow((528, 206), (556, 206), (556, USE), (589, USE))
    arrow((528, 330), (574, 330), (574, TRAIN), (589, TRAIN))
    arrow((528, 350), (637, 350), (637, USE + 27))
    style = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" {style}>\n<title>{escape(title)}</title>\n'
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" '
        'orient="auto"><path d="M0 0 L7 3 L0 6 z" fill="#444"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + '\n'.join(out) + '\n</svg>\n'
    )


FAMILY = [  # row, name, year and month of the arXiv paper, its number
    ('two stages', 'R-CNN', 2013 + 10 / 12, '1311.2524'),
    ('two stages', 'Fast R-CNN', 2015 + 3 / 12, '1504.08083'),
    ('two stages', 'Faster R-CNN', 2015 + 5 / 12, '1506.01497'),
    ('two stages', 'Mask R-CNN', 2017 + 2 / 12, '1703.06870'),
    ('single shot', 'YOLO', 2015 + 5 / 12, '1506.02640'),
    ('single shot', 'SSD', 2015 + 11 / 12, '1512.02325'),
    ('single shot', 'RetinaNet', 2017 + 7 / 12, '1708.02002'),
    ('single shot', 'FCOS', 2019 + 3 / 12, '1904.01355'),
    ('queries', 'DETR', 2020 + 4 / 12, '2005.12872'),
    ('queries', 'Deformable DETR', 2020 + 9 / 12, '2010.04159'),
    ('queries', 'RT-DETR', 2023 + 3 / 12, '2304.08069'),
]
HOW = {
    'two stages': 'propose regions, then classify each',
    'queries': 'a transformer asks for a set of boxes',
    'single shot': 'one pass: every anchor or cell answers at once',
}


def family():
    "Three families of detectors on a line of years, as SVG text"
    colors = {'two stages': '#1f77b4', 'single shot': '#e8730c', 'queries': '#2ca02c'}
    rows, x_of = list(colors), lambda year: 212 + (year - 2013.5) * 72
    out = [f'<rect width="{WIDTH}" height="300" fill="white"/>']
    for year in range(2014, 2024):
        x = x_of(year)
        out.append(f'<path d="M{x:.0f} 24 V262" stroke="#ddd"/>')
        out.append(
            f'<text x="{x:.0f}" y="284" font-size="12" text-anchor="middle" fill="#555">'
            f'{year}</text>'
        )
    for i, row in enumerate(rows):
        y, color = 66 + 80 * i, colors[row]
        out.append(
            f'<path d="M{x_of(2013.6):.0f} {y} H{x_of(2023.6):.0f}" stroke="{color}" '
            'stroke-width="3" opacity=".35"/>'
        )
        out.append(
            f'<text x="14" y="{y - 4}" font-size="14" font-weight="bold" fill="{color}">'
            f'{row}</text>'
        )
        words = HOW[row].split()
        half = (len(words) + 1) // 2
        for k, part in enumerate((words[:half], words[half:])):
            out.append(
                f'<text x="14" y="{y + 13 + 14 * k}" font-size="11" fill="#555">'
                f'{" ".join(part)}</text>'
            )
        for k, (_, name, year, number) in enumerate(f for f in FAMILY if f[0] == row):
            x, up = x_of(year), k % 2 == 0
            out.append(f'<circle cx="{x:.0f}" cy="{y}" r="6" fill="{color}"/>')
            out.append(
                f'<text x="{x:.0f}" y="{y - 13 if up else y + 22}" font-size="13" '
                f'text-anchor="middle" fill="#222">{name}<title>arXiv {number}</title></text>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 300" width="{WIDTH}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">\n'
        '<title>Detectors by family and year of their paper</title>\n'
        + '\n'.join(out)
        + '\n</svg>\n'
    )


DRAWINGS = {
    '10': dict(
        title='The detector of lesson 10: sixteen anchors on one 4×4 map',
        spec=GRID16,
        new={'neck', 'heads', 'loss'},
        neck='one 4×4 map',
        head='one head',
    ),
    '11': dict(
        title='The detector of lesson 11: four maps instead of one',
        spec=MULTI,
        new={'neck', 'anchors'},
        neck='each halves the one before',
    ),
    '12': dict(
        title='Lesson 12 changes the class loss',
        spec=MULTI,
        new={'loss'},
        neck='each halves the one before',
        loss='class loss + box loss',
    ),
    '15': dict(
        title='Lesson 15: from outputs to detections',
        spec=MULTI,
        new={'decode', 'nms'},
        neck='each halves the one before',
        loss='class loss + box loss',
    ),
    '16': dict(
        title='The detector of lesson 16: a feature pyramid with a shared head',
        spec=fpn_spec([14, 7]),
        new={'neck', 'heads', 'anchors'},
        top_down=True,
        given=2,
        neck='coarse is added to fine',
        head='one head, shared',
    ),
    '19': dict(
        title='SSD300: the same parts with other numbers',
        spec=SSD300_TUTORIAL,
        size=300,
        new={'backbone', 'neck', 'anchors', 'loss'},
        backbone='VGG-16',
        given=2,
        neck='six maps',
        loss='softmax + mining',
    ),
    '20': dict(
        title='The single-shot detector of lesson 20, on any backbone',
        spec=ssd_spec([14, 7]),
        new={'backbone', 'neck', 'anchors'},
        backbone='any backbone',
        given=2,
        neck='halved down to one cell',
    ),
}


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 where one differs')
    check, stale = p.parse_args().check, []
    files = {f'{number}_network.svg': drawing(**what) for number, what in DRAWINGS.items()}
    for name, svg in {**files, '00_family.svg': family()}.items():
        path = IMAGES / name
        if path.is_file() and path.read_text(encoding='utf-8') == svg:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(svg, encoding='utf-8')
    print(
        ('would change: ' if check else 'written: ') + ', '.join(stale) if stale else 'up to date'
    )
    sys.exit(bool(check and stale))


if __name__ == '__main__':
    main()
