"""The code of this project that a stage or a subcommand of `babelcart` imports."""

from __future__ import annotations

from pathlib import Path

from babelcart.imports import imported_modules

ROOT = Path(__file__).parents[2]


def package(name: str) -> str:
    """Return the package of a stage or subcommand."""
    return "stages" if (ROOT / "stages" / f"{name}.py").exists() else "babelcart.commands"


def modules(name: str) -> set[str]:
    """Paths, relative to the project, of the module of a stage or subcommand and of all that it imports, without ``__init__.py``."""
    script = ROOT.joinpath(*package(name).split("."), f"{name}.py")
    return {path for path in imported_modules(script) if not path.endswith("__init__.py")}
