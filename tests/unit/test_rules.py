"""Import rules of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.imports import ROOT

LIBRARY = [
    path
    for path in sorted(ROOT.joinpath("babelcart").rglob("*.py"))
    if "commands" not in path.parts and path.name != "__main__.py"  # `python -m babelcart` calls the command
]
COMMANDS_ONLY = ("click", "dvc", "stages", "babelcart.commands")


def imported(source: str) -> set[str]:
    """Names of the modules that a source imports, imports inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_commands_know_click_dvc_and_the_stages(path: Path) -> None:
    names = imported(path.read_text(encoding="utf-8"))
    assert not {name for name in names for rule in COMMANDS_ONLY if f"{name}.".startswith((f"{rule}.", "."))}


@pytest.mark.parametrize("path", sorted(ROOT.joinpath("stages").glob("*.py")), ids=lambda path: path.stem)
def test_a_stage_imports_only_the_helpers_of_the_commands(path: Path) -> None:
    names = imported(path.read_text(encoding="utf-8"))
    assert {name for name in names if name.startswith("babelcart.commands")} <= {"babelcart.commands", "babelcart.commands.cli"}
    assert not {name for name in names if name.partition(".")[0] in ("dvc", "stages")}


@pytest.mark.parametrize("source", ["import dvc.api", "def f():\n    from babelcart.commands import cli", "from babelcart import commands"])
def test_an_import_is_found_wherever_it_is(source: str) -> None:
    assert any(f"{name}.".startswith(f"{rule}.") for name in imported(source) for rule in COMMANDS_ONLY)
