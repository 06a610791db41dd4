"""The import rules of the package, as stated in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.imports import ROOT

PACKAGE = ROOT / "babelcart"
# Unit (package, or module directly in babelcart/) -> the units that it may import, in addition to itself and to HELPERS.
ALLOWED = {
    "core": set[str](),
    "imports": {"core"},
    "run": {"core"},
    "spreadsheet": {"core"},
    "weights": {"core"},
    "rows": {"core"},
    "reading": {"core", "rows"},
    "embedding": {"core", "weights", "rows"},
    "translation": {"core", "weights", "rows", "embedding"},
    "negatives": {"core", "weights", "rows", "embedding"},
    "model": {"core", "weights"},
    "training": {"core", "weights", "model"},
    "scores": {"core", "rows"},
    "report": {"core", "rows", "scores"},
    "serving": {"core", "rows", "embedding", "translation", "inspection", "model", "scores", "scorer", "domain"},
    "inspection": {"core", "rows", "reading", "prepare"},
}
HELPERS = {"imports", "run", "spreadsheet"}
COMMANDS_ONLY = ("click", "dvc", "stages", "babelcart.commands")
HEAVY = {"torch", "transformers", "peft", "pandas", "numpy", "scipy", "sklearn", "pyarrow", "dvc"}

LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "commands" not in path.parts and path.name != "__main__.py"]
COMMANDS = sorted(PACKAGE.joinpath("commands").glob("*.py"))
STAGES = sorted(ROOT.joinpath("stages").glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(nodes: ast.AST | list[ast.stmt]) -> set[str]:
    """Absolute names of the modules that a tree imports, including imports inside functions; a list of statements is not descended into."""
    names: set[str] = set()
    for node in nodes if isinstance(nodes, list) else ast.walk(nodes):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


UNITS = {unit_of(path) for path in LIBRARY} - {"__init__"}


def imported_units(path: Path) -> set[str]:
    """Return the units that a module of the library imports."""
    names = [name.split(".") for name in imported(parse(path))]
    return {name[1] for name in names if name[0] == "babelcart" and len(name) > 1} & UNITS


# Imported inside functions only, by the code that computes with torch.
ONLY_TORCH = {f"babelcart/{name}.py" for name in ("model/decoder", "model/kernels", "model/layers", "training/gradients")}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_only_commands_import_click_dvc_and_stages(path: Path) -> None:
    names = imported(parse(path))
    assert not {name for name in names for rule in COMMANDS_ONLY if f"{name}.".startswith((f"{rule}.", "."))}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_packages_import_only_the_packages_below_them(path: Path) -> None:
    unit = unit_of(path)
    assert imported_units(path) <= ALLOWED.get(unit, UNITS) | HELPERS | {unit}


def test_the_rules_are_those_of_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Import rules")[2]
    rows = [[set(re.findall(r"`(\w+)`", cell)) for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    documented = {unit: allowed for units, allowed in rows for unit in units & ALLOWED.keys()}
    assert documented == ALLOWED
    assert ALLOWED.keys() >= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} - {"commands"}


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_a_stage_imports_only_the_helpers_of_the_commands(path: Path) -> None:
    names = imported(parse(path))
    assert {name for name in names if name.startswith("babelcart.commands")} <= {"babelcart.commands", "babelcart.commands.cli"}
    assert not {name for name in names if name.partition(".")[0] in ("dvc", "stages")}


@pytest.mark.parametrize("path", [path for path in LIBRARY if unit_of(path) in ("scores", "rows")], ids=name_of)
def test_scores_and_rows_never_import_torch(path: Path) -> None:
    assert not {name for name in imported(parse(path)) if name.partition(".")[0] in ("torch", "transformers")}


@pytest.mark.parametrize("path", [*LIBRARY, *COMMANDS, *STAGES], ids=name_of)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    names = {name.partition(".")[0] for name in imported(parse(path).body)}
    assert not names & HEAVY or name_of(path) in ONLY_TORCH


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=name_of)
def test_an_init_file_exports_nothing_of_its_modules(path: Path) -> None:
    assert not imported(parse(path))


@pytest.mark.parametrize("source", ["import dvc.api", "def f():\n    from babelcart.commands import cli", "from babelcart import commands"])
def test_an_import_is_found_anywhere_in_a_file(source: str) -> None:
    assert any(f"{name}.".startswith(f"{rule}.") for name in imported(ast.parse(source)) for rule in COMMANDS_ONLY)
