#!/usr/bin/env python3
"""Keep what is derived in step with its source.

python tools/book.py            rewrite the lesson table and the figures of nbs/index.ipynb, README.md, badges and links
python tools/book.py --check    only say what would change; exit 1 if anything would
python tools/book.py --owner X  make X the GitHub owner (settings.ini), then rewrite everything
"""
import argparse, configparser, json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
TABLE = re.compile(r'(<!-- lessons -->\n).*?(\n<!-- /lessons -->)', re.S)
CARD = re.compile(r'<!-- card -->.*?<!-- /card -->', re.S)
LINK = re.compile(r'(github\.com/|colab\.research\.google\.com/github/)[\w.-]+/ssd_tutorial\b')


def settings():
    config = configparser.ConfigParser(delimiters=['=']); config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def load(path): return json.loads(path.read_text(encoding='utf-8'))
def dump(nb): return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n'
def source(cell): return ''.join(cell['source'])
def lessons(): return sorted(NBS.glob('[0-9][0-9]_*.ipynb'))


def row(path, owner):
    "One line of the lesson table, from the first two cells of a lesson"
    cells = load(path)['cells']; first = source(cells[0])
    title, promise = re.search(r'^# (.+)$', first, re.M).group(1), re.search(r'^> (.+)$', first, re.M).group(1)
    minutes = re.search(r'\*\*Runs in\*\* (.+?)(?: on | \(|\.?\s*$)', source(cells[1]), re.M)
    badge = f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{owner}/ssd_tutorial/blob/main/nbs/{path.name})'
    return f'| {path.name[:2]} | [{title}](https://github.com/{owner}/ssd_tutorial/blob/main/nbs/{path.name}) | {promise} | {minutes.group(1) if minutes else "—"} | {badge} |'


def lesson_table(owner):
    head = '| | lesson | what you can do at the end | runs in (2 cores) | |\n|---|---|---|---|---|'
    return '\n'.join([head, *(row(p, owner) for p in lessons())])


def card_line():
    "How good the detector is that the package carries, at home and away, in two sentences"
    card = load(ROOT/'ssd_tutorial'/'weights'/'animals.json'); away, home = card['elsewhere'], card['figures']
    if not away: return ''
    return (f'On held-out photographs of the collection that it learnt from, its recipe reaches mAP50 {home["map50"]:.2f}; on {away["images"]-away["without"]} pictures of another (COCO, {away["objects"]} animals) {away["map50"]:.2f}, '
            f'and of {away["without"]} pictures with none of the five it sees something in {away["alarms"][format(away["score"], ".2f")]}.')


def rewritten(owner):
    "path → text, for every file that holds something derived"
    out = {}
    for p in [*lessons(), *sorted((NBS/'solutions').glob('*.ipynb')), NBS/'index.ipynb']:
        nb = load(p)
        for c in nb['cells']:
            text = LINK.sub(rf'\g<1>{owner}/ssd_tutorial', source(c))
            if p.name=='index.ipynb': text = CARD.sub(lambda m: f'<!-- card --> {card_line()} <!-- /card -->', TABLE.sub(lambda m: m.group(1)+lesson_table(owner)+m.group(2), text))
            if text!=source(c): c['source'] = text.splitlines(keepends=True)
        out[p] = dump(nb)
    index = json.loads(out[NBS/'index.ipynb'])
    out[ROOT/'README.md'] = readme(index, owner)
    for p in (ROOT/'CONTRIBUTING.md', ROOT/'CHANGELOG.md'):
        if p.is_file(): out[p] = LINK.sub(rf'\g<1>{owner}/ssd_tutorial', p.read_text(encoding='utf-8'))
    return out


def readme(index, owner):
    "README.md from the index notebook: its Markdown, and the code that is not hidden"
    parts = ['<!-- Generated from nbs/index.ipynb by tools/book.py: edit that -->']
    for c in index['cells']:
        text = source(c)
        if c['cell_type']=='markdown': parts.append(text)
        elif text.strip() and not re.search(r'^#\|\s*hide', text, re.M):
            parts.append('```python\n'+re.sub(r'^#\|.*\n', '', text, flags=re.M)+'\n```')  # directives speak to nbdev, not to readers
    text = '\n\n'.join(parts)+'\n'
    return re.sub(r'\]\((?!https?:|#)([^)]+)\)', lambda m: f'](nbs/{m.group(1)})' if (NBS/m.group(1).split('#')[0]).exists() else m.group(0), text)


def set_owner(owner):
    path = ROOT/'settings.ini'
    path.write_text(re.sub(r'^user = .*$', f'user = {owner}', path.read_text(encoding='utf-8'), flags=re.M), encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true'); parser.add_argument('--owner')
    args = parser.parse_args()
    if args.owner: set_owner(args.owner)
    stale = {p: text for p,text in rewritten(settings()['user']).items() if not p.is_file() or p.read_text(encoding='utf-8')!=text}
    for p in stale: print(f'{"stale" if args.check else "wrote"}: {p.relative_to(ROOT)}')
    if args.check:
        if stale: sys.exit('Run: python tools/book.py')
        return
    for p,text in stale.items(): p.write_text(text, encoding='utf-8')


if __name__=='__main__': main()
