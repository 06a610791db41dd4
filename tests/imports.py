"""Files of this project that a stage or a subcommand of `babelcart` imports, read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("babelcart", "stages")


def _file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def _imported(path: Path) -> set[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in PACKAGES and (file := _file(name)):
                found.add(file)
    return found


def package(name: str) -> str:
    """The package of a stage or subcommand."""
    return "stages" if (ROOT / "stages" / f"{name}.py").exists() else "babelcart.commands"


def modules(name: str) -> set[str]:
    """Paths, relative to the project, of the module of a stage or subcommand and of all that it imports, without __init__.py."""
    waiting, seen = {ROOT.joinpath(*package(name).split("."), f"{name}.py")}, set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= _imported(path) - seen
    return {path.relative_to(ROOT).as_posix() for path in seen if path.name != "__init__.py"}
