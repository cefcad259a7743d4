"tools/style.py: a notebook that breaks a rule is reported with lesson, cell and number"

import importlib.util, json
from pathlib import Path
import pytest

FOR = "# Title\n\n> Promise\n\n**For** the learner's track · **minutes to read** 5"


@pytest.fixture
def style(tmp_path, monkeypatch):
    "The tool, as if the folder were the project"
    path = Path(__file__).resolve().parent.parent / 'tools' / 'style.py'
    spec = importlib.util.spec_from_file_location('house_style', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for name, folder in (('NBS', 'nbs'), ('PACKAGE', 'package')):
        (tmp_path / folder / 'solutions').mkdir(parents=True)
        monkeypatch.setattr(tool, name, tmp_path / folder)
    monkeypatch.setattr(tool, 'OVER', {})
    return tool


def lesson(style, *cells, name='42_made_up.ipynb', opening=FOR):
    "A notebook of these code cells, behind its opening"
    cell = lambda kind, text: dict(cell_type=kind, metadata={}, source=text.splitlines(True))
    path = style.NBS / name
    path.write_text(
        json.dumps(dict(cells=[cell('markdown', opening), *(cell('code', c) for c in cells)]))
    )
    return style.Lesson(path)


def test_width(style):
    wide = 'x = 1\ny = "' + 'ä' * 95 + '"'  # 101 columns
    assert len(wide.splitlines()[1]) == 101
    x = lesson(style, 'x = 0', wide)
    assert [*style.check_layout(x)] == ['code cell 1, line 2: 101 columns (at most 100)']
    assert not [*style.check_layout(lesson(style, wide.replace('ä' * 95, 'ä' * 94)))]


def test_width_of_what_is_no_code(style):
    "Prose may be wide, and so may a line that only a linter's mark makes wide"
    marked = 'y = "' + 'a' * 80 + '"  # noqa: F401  the reason why'
    assert len(marked) > 100
    assert not [*style.check_layout(lesson(style, marked, opening=FOR + ' word' * 50))]


@pytest.mark.parametrize(
    'code,found',
    [
        ('a = 1; b = 2', {1: 2}),
        ('a = 1\nb = 2; c = 3; d = 4', {2: 3}),
        ('if a: b = 1; c = 2', {1: 2}),
        ('%pip install x\na = 1; b = 2', {2: 2}),
        ('plt.plot(x);', {}),
        ('plt.plot(x);  # the figure alone\nprint(1)', {}),
        ('a = "1; 2"  # 3; 4\n"""5;\n6; 7"""', {}),
        ('!ls; pwd', {}),
    ],
)
def test_statements(style, code, found):
    assert style.statements(code) == found
    assert [*style.check_layout(lesson(style, 'x = 0', code))] == [
        f'code cell 1, line {n}: {k} statements (at most 1)' for n, k in found.items()
    ]


def test_length_of_a_lesson(style):
    "Cells and lines of the learner's track are counted, of the practitioner's part not"
    assert not [*style.check_length(lesson(style, *['x = 1'] * 60))]
    assert [*style.check_length(lesson(style, *['x = 1'] * 61))] == ['61 code cells (at most 60)']
    cells = ['x = 1\n' * 10] * 45
    assert not [*style.check_length(lesson(style, *cells))]
    assert [*style.check_length(lesson(style, *cells, 'x = 1'))] == ['451 code lines (at most 450)']
    assert not [
        *style.check_length(lesson(style, *['x'] * 99, opening='# T\n**For** the practitioner'))
    ]


def test_length_of_a_module(style):
    for name, n in (('fits', 450), ('long', 451), ('_modidx', 999)):
        (style.PACKAGE / f'{name}.py').write_text('\n' * n)
    assert [*style.check_modules()] == ['long.py: 451 lines (at most 450)']


def test_what_is_over_for_now(style, monkeypatch, capsys):
    "A row of the table is a limit of its own; one that nothing needs is named"
    wide = lesson(style, 'y = "' + 'a' * 99 + '"')
    monkeypatch.setattr(style, 'OVER', {('42_made_up.ipynb', 'columns'): 105})
    assert not [*style.check_layout(wide)]
    monkeypatch.setattr(style, 'OVER', {('42_made_up.ipynb', 'columns'): 104})
    assert [*style.check_layout(wide)] == ['code cell 0, line 1: 105 columns (at most 104)']
    monkeypatch.setattr(style, 'OVER', {('gone.py', 'lines'): 500})
    with pytest.raises(SystemExit):
        style.main()
    assert 'gone.py is within 450 lines: take its row out' in capsys.readouterr().out


def test_all_is_reported(style, capsys):
    "By the command: the name of each notebook and module, and status 1"
    lesson(style, 'a = 1; b = 2')
    lesson(style, 'x = 0', 'c = 1; d = 2; e = 3', name='solutions/42_made_up.ipynb')
    (style.PACKAGE / 'long.py').write_text('\n' * 500)
    with pytest.raises(SystemExit) as e:
        style.main()
    assert e.value.code == 1
    said = capsys.readouterr().out
    for line in (
        'long.py: 500 lines (at most 450)',
        '42_made_up.ipynb: code cell 0, line 1: 2 statements (at most 1)',
        'solutions/42_made_up.ipynb: code cell 1, line 1: 3 statements (at most 1)',
    ):
        assert f'{line}\n' in said
