"""Find the modules of this project that a script imports, read from the source code.

Decides which code a result depends on: the dependencies in dvc.yaml and the fingerprint of a training run. Imports inside
functions and for type checking only are included. Imports whose name is computed at run time (``importlib``) are not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = __name__.partition(".")[0]


def source_root(path: Path) -> Path:
    """The folder from which a file is imported: its closest parent folder without ``__init__.py``."""
    folder = path.resolve().parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _names(path: Path, package: tuple[str, ...]) -> Iterator[tuple[str, bool, int]]:
    """Absolute name, whether it must be a module (and not a class, say), and line of each import in a file of `package`."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, True, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package):
                raise ImportError(f"{path}, line {node.lineno}: a relative import that leads out of the top-level package")
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module, True, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", False, node.lineno


def _file(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


def imported_modules(script: Path) -> dict[str, Path]:
    """The script and the project's modules that it imports, directly or through other modules.

    The project's modules are those of this package, wherever it is installed, and those next to the script, such as ``stages``.
    The ``__init__.py`` of each package on the way is included, since Python runs it.

    Parameters
    ----------
    script : Path
        A Python file.

    Returns
    -------
    dict
        Path relative to the folder from which the module is imported (``babelcart/core/files.py``) -> the file. Sorted; the same in
        every checkout.

    Raises
    ------
    ImportError
        If one of these modules has no source file, or if a relative import leads out of the top-level package.
    """
    roots = {PACKAGE: source_root(Path(__file__))}
    script_root = source_root(script)
    found: dict[str, Path] = {}
    waiting = [(script_root, script.resolve())]
    while waiting:
        root, path = waiting.pop()
        key = path.relative_to(root).as_posix()
        if key in found:
            continue
        found[key] = path
        package = path.relative_to(root).parent.parts
        for name, is_module, line in _names(path, package):
            parts = name.split(".")
            target = roots.get(parts[0], script_root)
            modules = [_file(target, ".".join(parts[:end])) for end in range(1, len(parts) + 1)]
            if is_module and any(modules) and not modules[-1]:
                raise ImportError(f"{path}, line {line}: {name} has no source file in {target}")
            waiting.extend((target, module) for module in modules if module)
    return dict(sorted(found.items()))
