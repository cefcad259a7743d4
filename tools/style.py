#!/usr/bin/env python3
"""The house style, as far as a machine can check it. Exit 1 where a lesson breaks it.

Checks: a title with a promise; a line You have, You build, Runs in; code cells of at most 20 lines;
notebooks under 1 MB, executed, without errors; every exported function and class shown within the
next three code cells, asserted in the lesson, documented, its parameters with a comment each;
imports from lower-numbered lessons only, by name; exported names unique in the package; What we
learned, Exercises, Next; a solutions notebook. Code of lessons and solutions: at most 100 columns,
one statement a line. Lessons of the learner's track: at most 60 code cells and 450 lines of code.
Modules of the package: at most 450 lines.
"""

import ast, io, json, re, sys, tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS, PACKAGE = ROOT / 'nbs', ROOT / 'ssd_tutorial'
LONGEST, LARGEST_MB, NEAR = 20, 1.0, 3
LIMITS = {'columns': 100, 'statements': 1, 'code cells': 60, 'code lines': 450, 'lines': 450}
# what is over its limit today, and how far it may be: a row goes when its lesson has been mended
OVER = {}
NEEDED = set()  # rows of `OVER` that something was over its limit for
# methods that torch and fastai call, never the reader
HOOKS = re.compile(
    r'forward|train|freeze_to|(before|after)_\w+|create_batch|retain|reset|accumulate|value|name'
)
LESSON = re.compile(r'\d\d[a-z]?_')
PRAGMA = re.compile(r'\s*# (noqa|type: |fmt: ).*')  # of a line that is short without it
DIRECTIVE = re.compile(r'^#\|\s*(\w+)(?:\s+(\w+))?', re.M)
CHECK = re.compile(r'\b(assert\b|test_\w+\s*\(|expect_fail\s*\()')


def plain(src):
    "A cell without magics"
    return re.sub(r'^(\s*)[%!].*$', r'\1pass', src, flags=re.M)


def parse(src):
    "AST of a cell without magics; None where it does not parse"
    try:
        return ast.parse(plain(src))
    except SyntaxError:
        return None


def used(tree):
    return (
        {
            getattr(n, 'id', getattr(n, 'attr', None))
            for n in ast.walk(tree)
            if isinstance(n, (ast.Name, ast.Attribute))
        }
        if tree
        else set()
    )


def is_patch(node):
    return any('patch' in used(ast.Expression(d)) for d in node.decorator_list)


class Lesson:
    "One notebook, taken apart"

    def __init__(self, path):
        self.path, nb = path, json.loads(path.read_text(encoding='utf-8'))
        self.cells = nb['cells']
        self.md = [''.join(c['source']) for c in self.cells if c['cell_type'] == 'markdown']
        self.code = [
            c for c in self.cells if c['cell_type'] == 'code' and ''.join(c['source']).strip()
        ]
        self.src = [''.join(c['source']) for c in self.code]
        self.tree = [parse(s) for s in self.src]
        self.exports = [
            bool({'export', 'exports', 'exporti'} & {d for d, _ in DIRECTIVE.findall(s)})
            for s in self.src
        ]
        found = re.search(r'^#\|\s*default_exp\s+(\w+)', '\n'.join(self.src), re.M)
        self.module = found.group(1) if found else None

    @property
    def number(self):
        return self.path.name.partition('_')[0]  # 03, 03b, 04 …: in order as text

    @property
    def main_line(self):
        "Whether its opening says that it is for the learner's track"
        return any("**For** the learner's track" in m for m in self.md[:2])

    def modules(self):
        return {
            self.module,
            *(m for s in self.src for d, m in DIRECTIVE.findall(s) if d == 'export' and m),
        } - {None, ''}

    def public(self):
        "(cell, node) of every exported public function and class, patches apart"
        for i, (tree, exported) in enumerate(zip(self.tree, self.exports)):
            for node in tree.body if tree and exported else []:
                if (
                    isinstance(node, (ast.FunctionDef, ast.ClassDef))
                    and not node.name.startswith('_')
                    and not is_patch(node)
                ):
                    yield i, node

    def methods(self):
        "(cell, node) of every exported public method, patched or not"
        for i, (tree, exported) in enumerate(zip(self.tree, self.exports)):
            for node in tree.body if tree and exported else []:
                if isinstance(node, ast.ClassDef):
                    yield from (
                        (i, m)
                        for m in node.body
                        if isinstance(m, ast.FunctionDef)
                        and not m.name.startswith('_')
                        and not HOOKS.fullmatch(m.name)
                    )
                elif (
                    isinstance(node, ast.FunctionDef)
                    and is_patch(node)
                    and not node.name.startswith('_')
                    and not HOOKS.fullmatch(node.name)
                ):
                    yield i, node


def lines(src):
    """Lines of code; parameters and fields that stand one on a line with their comment are
    documentation."""
    tree, words = parse(src), 0
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.FunctionDef):
            words += max(0, node.body[0].lineno - node.lineno - 1)
        if isinstance(node, ast.ClassDef):
            words += sum(isinstance(n, ast.AnnAssign) for n in node.body)
    return (
        sum(bool(line.strip()) and not line.startswith('#|') for line in src.splitlines()) - words
    )


def statements(src):
    """Line → how many statements are joined on it, where a cell joins any with `;`;
    one that ends a line joins nothing: it keeps a figure from being shown twice."""
    words = list(tokenize.generate_tokens(io.StringIO(plain(src)).readline))
    ends = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    found = {}
    for t, after in zip(words, words[1:]):
        if t.type == tokenize.OP and t.string == ';' and after.type not in ends:
            found[t.start[0]] = found.get(t.start[0], 1) + 1
    return found


def undocumented(node, src):
    "Parameters of a function that stand on no line of their own with a comment"
    text = src.splitlines()
    args = [
        a
        for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if a.arg not in ('self', 'cls')
    ]
    return [
        a.arg
        for a in args
        if '#' not in text[a.lineno - 1] and '#' not in text[(a.end_lineno or a.lineno) - 1]
    ]


def over(name, what, n):
    "Words for a number beyond its limit, or beyond what `OVER` allows; empty where it is not"
    if n > LIMITS[what]:
        NEEDED.add((name, what))
    most = OVER.get((name, what), LIMITS[what])
    return f'{n} {what} (at most {most})' if n > most else ''


def check_layout(lesson):
    "Width and statements of each line, of a lesson or a solution"
    name = lesson.path.relative_to(NBS).as_posix()
    for i, s in enumerate(lesson.src):
        for n, line in enumerate(s.splitlines(), 1):
            if said := over(name, 'columns', len(PRAGMA.sub('', line))):
                yield f'code cell {i}, line {n}: {said}'
        for n, many in statements(s).items():
            if said := over(name, 'statements', many):
                yield f'code cell {i}, line {n}: {said}'


def check_length(lesson):
    "A lesson that every learner reads is no longer than an hour's work"
    if lesson.main_line:
        for what, n in (
            ('code cells', len(lesson.code)),
            ('code lines', sum(map(lines, lesson.src))),
        ):
            if said := over(lesson.path.name, what, n):
                yield said


def check_modules():
    "Length of each module of the package, as exported"
    for p in sorted(PACKAGE.glob('*.py')):
        n = len(p.read_text(encoding='utf-8').splitlines())
        if p.name != '_modidx.py' and (said := over(p.name, 'lines', n)):
            yield f'{p.name}: {said}'


def check_form(lesson):
    first = lesson.md[0] if lesson.md else ''
    if not re.search(r'^# .+\n+> .+', first):
        yield 'cell 0 is not "# Title" and "> promise"'
    for need in ('**You have**', '**You build**', '**Runs in**', 'colab-badge.svg'):
        if not any(need in m for m in lesson.md[:2]):
            yield f'cell 1 lacks {need}'
    for need in ('## What we learned', '## Exercises', '## Next'):
        if not any(m.startswith(need) or f'\n{need}' in m for m in lesson.md):
            yield f'no section "{need}"'
    for i, s in enumerate(lesson.src):
        if lines(s) > LONGEST:
            first = s.splitlines()[0][:50]
            yield f'code cell {i} has {lines(s)} lines (at most {LONGEST}): {first}'
    for i, c in enumerate(lesson.code):
        if any(o['output_type'] == 'error' for o in c.get('outputs', [])):
            yield f'code cell {i} ends in an error'
    if not any(c.get('outputs') for c in lesson.code):
        yield 'not executed'
    if (mb := lesson.path.stat().st_size / 1e6) > LARGEST_MB:
        yield f'{mb:.1f} MB (at most {LARGEST_MB:g})'
    if not (NBS / 'solutions' / lesson.path.name).is_file():
        yield f'no solutions/{lesson.path.name}'


def check_exports(lesson):
    plain = [i for i, e in enumerate(lesson.exports) if not e]
    names = [used(t) for t in lesson.tree]
    for i, node in lesson.public():
        if not any(node.name in names[j] for j in [j for j in plain if j > i][:NEAR]):
            yield f'{node.name} is not shown in the next {NEAR} code cells'
    for i, node in [*lesson.public(), *lesson.methods()]:
        if not any(node.name in names[j] and CHECK.search(lesson.src[j]) for j in plain):
            yield f'{node.name} is not asserted'
        if not ast.get_docstring(node) and not is_property(node):
            yield f'{node.name} has no docstring'
        if (
            isinstance(node, ast.FunctionDef)
            and not is_command(node)
            and (lost := undocumented(node, lesson.src[i]))
        ):
            yield f'{node.name}: no comment for {", ".join(lost)}'


def is_command(node):
    # its options say what they are
    return any({'command', 'group'} & used(ast.Expression(d)) for d in node.decorator_list)


def is_property(node):
    return any(getattr(d, 'id', '') == 'property' for d in getattr(node, 'decorator_list', []))


def check_imports(lesson, order):
    """Only lower-numbered lessons, by name; what is shown before it is opened says so:
    `# later: lesson 03h`."""
    if not lesson.module:
        return  # a first look exports nothing, and shows what is to come
    mine = lesson.number
    for src, tree, exported in zip(lesson.src, lesson.tree, lesson.exports):
        for node in ast.walk(tree) if tree else []:
            if not isinstance(node, ast.ImportFrom) or not (node.module or '').startswith(
                'ssd_tutorial'
            ):
                continue
            theirs = node.module.partition('.')[2]
            if any(a.name == '*' for a in node.names):
                yield f'star import from {node.module}'
            first_look = not exported and '# later: lesson' in src.splitlines()[node.lineno - 1]
            if theirs in order and order[theirs] > mine and not first_look:
                yield f'imports {theirs}, a later lesson'


def main():
    all_lessons = [Lesson(p) for p in sorted(NBS.glob('*.ipynb')) if LESSON.match(p.name)]
    # a module may grow over several lessons: the first of them counts
    order = {
        m: '' if m == 'notebook' else x.number for x in reversed(all_lessons) for m in x.modules()
    }
    faults, owners = [*check_modules()], {}
    for x in all_lessons:
        found = [*check_form(x), *check_layout(x), *check_length(x), *check_exports(x)]
        found += check_imports(x, order)
        for _, node in x.public():
            if node.name in owners:
                found.append(f'{node.name} is exported by {owners[node.name]} too')
            owners[node.name] = x.path.name
        faults += [f'{x.path.name}: {f}' for f in found]
    for p in sorted((NBS / 'solutions').glob('*.ipynb')):
        faults += [f'solutions/{p.name}: {f}' for f in check_layout(Lesson(p))]
    for name, what in sorted(OVER.keys() - NEEDED):
        print(
            f'{name} is within {LIMITS[what]} {what}: take its row out of OVER in tools/style.py.'
        )
    said = f'{len(all_lessons)} lessons, {len(owners)} exported functions and classes'
    print('\n'.join(faults) or f'{said}: in house style.')
    sys.exit(bool(faults))


if __name__ == '__main__':
    main()
