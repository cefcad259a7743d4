#!/usr/bin/env python3
"""The house style, as far as a machine can check it. Exit 1 where a lesson breaks it.

Checks: a title with a promise; a line You have, You build, Runs in; code cells of at most 20 lines; notebooks under 1 MB, executed, without
errors; every exported function and class shown within the next three code cells, asserted in the lesson, documented, its parameters with a comment
each; imports from lower-numbered lessons only, by name; exported names unique in the package; What we learned, Exercises, Next; a solutions notebook.
"""
import ast, json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
LONGEST, LARGEST_MB, NEAR = 20, 1., 3
# methods that torch and fastai call, never the reader
HOOKS = re.compile(r'forward|train|freeze_to|(before|after)_\w+|create_batch|retain|reset|accumulate|value|name')
LESSON = re.compile(r'\d\d[a-z]?_')
DIRECTIVE = re.compile(r'^#\|\s*(\w+)(?:\s+(\w+))?', re.M)
CHECK = re.compile(r'\b(assert\b|test_\w+\s*\(|expect_fail\s*\()')


def parse(src):
    "AST of a cell without magics; None where it does not parse"
    try: return ast.parse(re.sub(r'^(\s*)[%!].*$', r'\1pass', src, flags=re.M))
    except SyntaxError: return None


def used(tree): return {getattr(n, 'id', getattr(n, 'attr', None)) for n in ast.walk(tree) if isinstance(n, (ast.Name, ast.Attribute))} if tree else set()
def is_patch(node): return any('patch' in used(ast.Expression(d)) for d in node.decorator_list)


class Lesson:
    "One notebook, taken apart"
    def __init__(self, path):
        self.path, nb = path, json.loads(path.read_text(encoding='utf-8'))
        self.cells = nb['cells']; self.md = [''.join(c['source']) for c in self.cells if c['cell_type']=='markdown']
        self.code = [c for c in self.cells if c['cell_type']=='code' and ''.join(c['source']).strip()]
        self.src = [''.join(c['source']) for c in self.code]; self.tree = [parse(s) for s in self.src]
        self.exports = [bool({'export','exports','exporti'} & {d for d,_ in DIRECTIVE.findall(s)}) for s in self.src]
        found = re.search(r'^#\|\s*default_exp\s+(\w+)', '\n'.join(self.src), re.M); self.module = found.group(1) if found else None

    @property
    def number(self): return self.path.name.partition('_')[0]  # 03, 03b, 04 …: in order as text

    def modules(self): return {self.module, *(m for s in self.src for d,m in DIRECTIVE.findall(s) if d=='export' and m)}-{None, ''}

    def public(self):
        "(cell, node) of every exported public function and class, patches apart"
        for i,(tree,exported) in enumerate(zip(self.tree, self.exports)):
            for node in (tree.body if tree and exported else []):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_') and not is_patch(node): yield i,node

    def methods(self):
        "(cell, node) of every exported public method, patched or not"
        for i,(tree,exported) in enumerate(zip(self.tree, self.exports)):
            for node in (tree.body if tree and exported else []):
                if isinstance(node, ast.ClassDef): yield from ((i,m) for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith('_') and not HOOKS.fullmatch(m.name))
                elif isinstance(node, ast.FunctionDef) and is_patch(node) and not node.name.startswith('_') and not HOOKS.fullmatch(node.name): yield i,node


def lines(src): return sum(bool(line.strip()) and not line.startswith('#|') for line in src.splitlines())


def undocumented(node, src):
    "Parameters of a function that stand on no line of their own with a comment"
    text = src.splitlines(); args = [a for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] if a.arg not in ('self','cls')]
    return [a.arg for a in args if '#' not in text[a.lineno-1] and '#' not in text[(a.end_lineno or a.lineno)-1]]


def check_form(lesson):
    first = lesson.md[0] if lesson.md else ''
    if not re.search(r'^# .+\n+> .+', first): yield 'cell 0 is not "# Title" and "> promise"'
    for need in ('**You have**','**You build**','**Runs in**','colab-badge.svg'):
        if not any(need in m for m in lesson.md[:2]): yield f'cell 1 lacks {need}'
    for need in ('## What we learned','## Exercises','## Next'):
        if not any(m.startswith(need) or f'\n{need}' in m for m in lesson.md): yield f'no section "{need}"'
    for i,s in enumerate(lesson.src):
        if lines(s)>LONGEST: yield f'code cell {i} has {lines(s)} lines (at most {LONGEST}): {s.splitlines()[0][:50]}'
    for i,c in enumerate(lesson.code):
        if any(o['output_type']=='error' for o in c.get('outputs',[])): yield f'code cell {i} ends in an error'
    if not any(c.get('outputs') for c in lesson.code): yield 'not executed'
    if (mb := lesson.path.stat().st_size/1e6)>LARGEST_MB: yield f'{mb:.1f} MB (at most {LARGEST_MB:g})'
    if not (NBS/'solutions'/lesson.path.name).is_file(): yield f'no solutions/{lesson.path.name}'


def check_exports(lesson):
    plain = [i for i,e in enumerate(lesson.exports) if not e]; names = [used(t) for t in lesson.tree]
    for i,node in lesson.public():
        if not any(node.name in names[j] for j in [j for j in plain if j>i][:NEAR]): yield f'{node.name} is not shown in the next {NEAR} code cells'
    for i,node in [*lesson.public(), *lesson.methods()]:
        if not any(node.name in names[j] and CHECK.search(lesson.src[j]) for j in plain): yield f'{node.name} is not asserted'
        if not ast.get_docstring(node) and not is_property(node): yield f'{node.name} has no docstring'
        if isinstance(node, ast.FunctionDef) and not is_command(node) and (lost := undocumented(node, lesson.src[i])): yield f'{node.name}: no comment for {", ".join(lost)}'


def is_command(node): return any({'command','group'} & used(ast.Expression(d)) for d in node.decorator_list)  # its options say what they are
def is_property(node): return any(getattr(d,'id','')=='property' for d in getattr(node,'decorator_list',[]))


def check_imports(lesson, order):
    "Only lower-numbered lessons, by name"
    mine = lesson.number
    for tree in lesson.tree:
        for node in ast.walk(tree) if tree else []:
            if not isinstance(node, ast.ImportFrom) or not (node.module or '').startswith('ssd_tutorial'): continue
            theirs = node.module.partition('.')[2]
            if any(a.name=='*' for a in node.names): yield f'star import from {node.module}'
            if theirs in order and order[theirs]>mine: yield f'imports {theirs}, a later lesson'


def main():
    all_lessons = [Lesson(p) for p in sorted(NBS.glob('*.ipynb')) if LESSON.match(p.name)]
    order = {m: '' if m=='notebook' else x.number for x in all_lessons for m in x.modules()}
    faults, owners = [], {}
    for x in all_lessons:
        found = [*check_form(x), *check_exports(x), *check_imports(x, order)]
        for _,node in x.public():
            if node.name in owners: found.append(f'{node.name} is exported by {owners[node.name]} too')
            owners[node.name] = x.path.name
        faults += [f'{x.path.name}: {f}' for f in found]
    print('\n'.join(faults) or f'{len(all_lessons)} lessons, {len(owners)} exported functions and classes: in house style.')
    sys.exit(bool(faults))


if __name__=='__main__': main()
