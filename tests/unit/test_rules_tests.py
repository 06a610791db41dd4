"""Rules for the tests: no side effects in asserts, no imports between test modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.imports import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))
# Calls that run a command, write, wait, or change an object. `python -O` removes asserts, and with them the calls inside.
FUNCTIONS = {"run", "run_to", "call", "repro", "choose", "graph", "author", "colleague"}
METHODS = {
    "run", "call", "repro", "commit", "communicate", "wait", "write_text", "write_bytes", "unlink", "mkdir", "touch", "rename", "rmtree",
    "copytree", "chmod", "extend", "pop", "remove", "update", "download", "import_file",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def side_effects(source: str) -> list[str]:
    """Calls with side effects, and assignments, in the conditions of asserts."""
    conditions = [node.test for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    inside = [node for condition in conditions for node in ast.walk(condition)]
    called = [node.func for node in inside if isinstance(node, ast.Call)]
    functions = [node for node in called if isinstance(node, ast.Name) and node.id in FUNCTIONS]
    methods = [node for node in called if isinstance(node, ast.Attribute) and node.attr in METHODS]
    assignments = [node for node in inside if isinstance(node, ast.NamedExpr)]
    return [ast.unparse(node) for node in (*functions, *methods, *assignments)]


def imported_tests(source: str) -> list[str]:
    """Test modules that a module imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("tests.") and name.split(".")[1] != "support"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_asserts_have_no_side_effects(path: Path) -> None:
    assert side_effects(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_test_module_imports_another(path: Path) -> None:
    assert imported_tests(path.read_text(encoding="utf-8")) == []


def test_violations_are_found() -> None:
    asserts = 'assert "ok" in run("verify").output\nassert Path("a").write_text("b") == 1\nassert (n := 1), run("x")\n'
    assert side_effects(asserts) == ["run", "Path('a').write_text", "(n := 1)"]
    imports = "from tests.unit.test_rows import read\nimport tests.unit.test_text\nfrom tests.support import faults\nimport json\n"
    assert imported_tests(imports) == ["tests.unit.test_rows.read", "tests.unit.test_text"]
