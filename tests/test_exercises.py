"Each exercise says not yet as given, and its solution passes the very same check"

import ast, json
from pathlib import Path
import pytest

NBS = Path(__file__).resolve().parent.parent / 'nbs'


def cells(path):
    return json.loads(path.read_text(encoding='utf-8'))['cells']


def checks(path):
    "number → (what the check demands, what it printed), of each `check_exercise` below Exercises"
    found, exercises = {}, path.parent.name == 'solutions'
    for c in cells(path):
        src = ''.join(c['source'])
        exercises |= '\n## Exercises\n' in f'\n{src}\n'
        if c['cell_type'] != 'code' or not exercises or 'check_exercise(' not in src:
            continue
        tree = ast.parse(src)
        local = {n.name: ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        printed = ''.join(''.join(o.get('text', '')) for o in c['outputs'])
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            if getattr(call.func, 'id', '') != 'check_exercise':
                continue
            demand = ast.unparse(call.args[1])
            found[call.args[0].value] = local.get(demand, demand), printed
    return found


WITH_CHECKS = [p for p in sorted(NBS.glob('[0-9]*.ipynb')) if checks(p)]


@pytest.mark.parametrize('path', WITH_CHECKS, ids=lambda p: p.stem)
def test_as_given_it_is_not_solved(path):
    for number, (_, printed) in checks(path).items():
        assert f'Exercise {number}: not yet' in printed, f'exercise {number} printed {printed!r}'


@pytest.mark.parametrize('path', WITH_CHECKS, ids=lambda p: p.stem)
def test_the_solution_passes_the_very_check_of_the_lesson(path):
    asked, solved = checks(path), checks(path.parent / 'solutions' / path.name)
    assert set(asked) == set(solved)
    for number, (demand, _) in asked.items():
        assert solved[number][0] == demand, f'exercise {number}: another check'
        assert f'Exercise {number}: found' in solved[number][1]
