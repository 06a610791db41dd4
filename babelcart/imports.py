"""Find the modules of this project that a script imports, by reading the source code.

`babelcart deps` lists these modules in dvc.yaml, and a training run includes them in its fingerprint. Imports inside functions and
under ``TYPE_CHECKING`` count. Imports with a name computed at run time (``importlib``) are not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]


class ImportedName(NamedTuple):
    """A name in an import statement.

    Attributes
    ----------
    name : str
        Absolute name, such as ``babelcart.core.files``.
    is_module : bool
        Whether the name must be a module. ``x`` in ``from babelcart import x`` can be a class, too.
    line : int
        Line of the import statement.
    """

    name: str
    is_module: bool
    line: int


def source_root(path: Path) -> Path:
    """Return the folder from which a file is imported: its closest parent folder without ``__init__.py``."""
    folder = path.resolve().parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _imported_names(path: Path, package: tuple[str, ...]) -> Iterator[ImportedName]:
    """Yield the names that a file imports. Relative imports are resolved against the parts of its `package`."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield ImportedName(alias.name, True, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute_module(node, package, path)
            yield ImportedName(module, True, node.lineno)
            for alias in node.names:
                yield ImportedName(f"{module}.{alias.name}", False, node.lineno)


def _absolute_module(node: ast.ImportFrom, package: tuple[str, ...], path: Path) -> str:
    """Return the absolute name of the module of a ``from ... import`` statement."""
    if node.level > len(package):
        raise ImportError(f"{path}, line {node.lineno}: a relative import that leads out of the top-level package")
    parents = package[: len(package) - node.level + 1] if node.level else ()
    return ".".join([*parents, *([node.module] if node.module else [])])


def _module_file(root: Path, name: str) -> Path | None:
    """Return the source file of a module, or None if there is none below `root`."""
    base = root.joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


def imported_modules(script: Path) -> dict[str, Path]:
    """Return the script and all modules of the project that it imports, directly or through other modules.

    The modules of the project are those of this package, wherever it is installed, and those next to the script, such as
    ``stages``. The ``__init__.py`` of every package that an import statement names is included, because Python runs it; that of the
    script's own package is not, unless a module imports it.

    Parameters
    ----------
    script : Path
        A Python file.

    Returns
    -------
    dict of str to Path
        Path relative to the folder from which the module is imported (``babelcart/core/files.py``) -> the file. Sorted, and with
        equal keys in every checkout.

    Raises
    ------
    ImportError
        If one of these modules has no source file, or if a relative import leads out of the top-level package.
    """
    script_root = source_root(script)
    roots = {PACKAGE: source_root(Path(__file__))}
    modules: dict[str, Path] = {}
    unread = [(script_root, script.resolve())]
    while unread:
        root, path = unread.pop()
        key = path.relative_to(root).as_posix()
        if key in modules:
            continue
        modules[key] = path
        for imported in _imported_names(path, path.relative_to(root).parent.parts):
            target_root = roots.get(imported.name.partition(".")[0], script_root)
            unread.extend((target_root, file) for file in _files_of_import(imported, target_root, path))
    return dict(sorted(modules.items()))


def _files_of_import(imported: ImportedName, root: Path, importer: Path) -> list[Path]:
    """Return the source files of an imported name and of its parent packages. Empty if the name is not below `root`."""
    parts = imported.name.split(".")
    files = [_module_file(root, ".".join(parts[:end])) for end in range(1, len(parts) + 1)]
    if imported.is_module and any(files) and not files[-1]:
        raise ImportError(f"{importer}, line {imported.line}: {imported.name} has no source file in {root}")
    return [file for file in files if file]
