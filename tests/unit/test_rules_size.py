"""Limits of the code in babelcart/ and stages/: short functions, few parameters, no block twice."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imports import ROOT

FILES = sorted(path for top in ("babelcart", "stages") for path in (ROOT / top).rglob("*.py"))
MAX_LINES = 59  # of a function, its docstring not counted
MAX_PARAMETERS = 7
BLOCK = 6  # lines of logic that may not occur twice

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def docstring(node: ast.AST) -> ast.stmt | None:
    """Return the statement that is the docstring of a module, class or function."""
    if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
        return node.body[0]
    return None


def lines_of(node: ast.stmt | None) -> int:
    return 0 if node is None else (node.end_lineno or node.lineno) - node.lineno + 1


def length(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    return lines_of(function) - lines_of(docstring(function))


def parameters(function: Function) -> int:
    """Number of parameters; 0 for a Triton kernel, which takes addresses and sizes one by one."""
    if any(ast.unparse(decorator).startswith("triton.jit") for decorator in function.decorator_list):
        return 0
    given = function.args
    return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)


def logic(source: str) -> list[tuple[int, str]]:
    """Return the number and tokens of each line of logic.

    Blank lines, comments, docstrings, imports and lines of punctuation are left out.
    """
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        statement = node if isinstance(node, (ast.Import, ast.ImportFrom)) else docstring(node)
        if statement:
            skipped |= set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    tokens: defaultdict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT and token.string.strip() and token.start[0] not in skipped:
            tokens[token.start[0]].append(token.string)
    lines = ((number, " ".join(strings)) for number, strings in sorted(tokens.items()))
    return [(number, line) for number, line in lines if any(character.isalnum() for character in line)]


def repeated_blocks(sources: dict[str, str]) -> list[str]:
    """Return where blocks of BLOCK or more equal lines of logic begin, as ``a.py:1 = b.py:7``."""
    places: defaultdict[tuple[str, ...], list[tuple[str, int, int]]] = defaultdict(list)
    for name, source in sources.items():
        lines = logic(source)
        for start in range(len(lines) - BLOCK + 1):
            places[tuple(line for _, line in lines[start : start + BLOCK])].append((name, start, lines[start][0]))
    pairs = [(found[0], other) for found in places.values() for other in found[1:]]
    starts = {(one[:2], other[:2]) for one, other in pairs}
    return [
        f"{one[0]}:{one[2]} = {other[0]}:{other[2]}"
        for one, other in pairs
        if ((one[0], one[1] - 1), (other[0], other[1] - 1)) not in starts
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    found = list(functions(path.read_text(encoding="utf-8")))
    assert {function.name: length(function) for function in found if length(function) > MAX_LINES} == {}
    assert {function.name: parameters(function) for function in found if parameters(function) > MAX_PARAMETERS} == {}


def test_no_block_of_logic_occurs_twice() -> None:
    assert repeated_blocks({name_of(path): path.read_text(encoding="utf-8") for path in FILES}) == []


BODY = "\n".join(f"    x{number} = call({number})" for number in range(6))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (f"def g(y):\n{BODY}\n", ["a.py:2 = b.py:2"]),
        (f"def g(y):\n    while y:\n{BODY.replace('    ', '        ')}\n", ["a.py:2 = b.py:3"]),
        (f"def g(y):\n{BODY.replace('x3 = call(3)', 'x3 = call(  # why' + chr(10) + '        3' + chr(10) + '    )')}\n", []),
        (f"def g(y):\n{BODY.replace('    x3', '    # why' + chr(10) + chr(10) + '    x3')}\n", ["a.py:2 = b.py:2"]),
        (f"def g(y):\n{BODY.replace('x3', 'x4')}\n", []),
        (f"def f():\n    '''Other.'''\n{BODY}\n    x6 = 1\n", ["a.py:1 = b.py:1"]),
    ],
)
def test_a_repeated_block_is_found_whatever_its_layout(other: str, expected: list[str]) -> None:
    assert repeated_blocks({"a.py": f"def f():\n{BODY}\n", "b.py": other}) == expected


def test_docstrings_do_not_count() -> None:
    (function,) = functions('def f(a, /, b, *c, d):\n    """One\n\n    two."""\n    return a\n')
    assert (length(function), parameters(function)) == (2, 3)
