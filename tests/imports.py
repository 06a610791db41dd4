"""Which files of this project a stage imports, read from the source, imports inside functions included."""

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


def modules(stage: str) -> set[str]:
    """Paths, relative to the project, of the script of a stage and of all that it imports, packages' __init__ left out."""
    waiting, seen = {ROOT / "stages" / f"{stage}.py"}, set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= _imported(path) - seen
    return {path.relative_to(ROOT).as_posix() for path in seen if path.name != "__init__.py"}
