"""Read and write files.

Files are written atomically: to a temporary file in the same folder, which then replaces the target. A file that exists is complete.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from babelcart.core.errors import UserError
from babelcart.core.shapes import check_shape

MAX_ALIASES = 32


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds and is removed if it fails.

    Raises
    ------
    OSError
        With `path` as its file name, also where a library gives no name or that of the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename).endswith(".part"):
            error.filename = str(path)
        raise
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `parent`, and delete it at the end. Those that killed processes left are deleted first.

    Parameters
    ----------
    parent : Path
        Created if it does not exist.
    prefix : str
        Start of the folder's name, which no other files or folders in `parent` have.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError), _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_locked:
            if is_locked:
                shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with _lock(folder, fcntl.LOCK_SH):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path, operation: int) -> Iterator[bool]:
    """Lock a folder, and yield whether that succeeded. The system releases the lock when the process ends, for whatever reason."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, operation)
            is_locked = True
        except OSError:  # another process has the lock, or the file system has no locks
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys and indentation, so that git shows readable differences.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.
    """
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, shape: Any) -> Any:
    """Read a JSON file and check its content against a shape.

    Parameters
    ----------
    path : Path
    shape
        See `babelcart.core.shapes.check_shape`.

    Raises
    ------
    UserError
        If the file does not exist, is not JSON or has another shape.
    """
    try:
        return parse_json(path.read_bytes(), str(path), shape)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None


def parse_json(content: bytes, name: str, shape: Any) -> Any:
    """Parse JSON and check it as `read_json` does; messages call the file `name`."""
    try:
        parsed = json.loads(content)
        json.dumps(parsed, ensure_ascii=False).encode()  # halves of surrogate pairs could not be written again
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not complete JSON ({str(error)[:200]}); `make heal`, then `dvc repro`, writes it again") from error
    try:
        check_shape(parsed, shape)
    except ValueError as error:
        raise UserError(
            f"{name}: {error}. The file was edited or written by another version; run `dvc repro`, or restore it with `git checkout`"
        ) from None
    return parsed


@functools.lru_cache(maxsize=4)  # a command reads params.yaml and dvc.yaml several times
def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML 1.2, as DVC does (so that ``1e-4`` is a number); messages call the file `name`.

    Returns
    -------
    Any
        The parsed content. It is cached: do not change it.

    Raises
    ------
    UserError
        If the text is not YAML, or merges so many aliases that it would grow out of proportion.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.events import AliasEvent

    try:
        # Aliases in merge keys (<<) are copied and multiply with each level of nesting; other aliases cost nothing.
        if "<<" in text and sum(isinstance(event, AliasEvent) for event in YAML(typ="safe").parse(text)) > MAX_ALIASES:
            raise UserError(f"{name} merges (<<) and has more than {MAX_ALIASES} aliases (*name); write some of them out")
        return YAML(typ="safe").load(text)
    except UserError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.context or ''} {error.problem or ''}".strip()
        remedy = "; indent with spaces" if "'\\t'" in problem else "; keep one of them" if "duplicate key" in problem else ""
        raise UserError(f"{name} is not YAML: {f'line {mark.line + 1}: ' if mark else ''}{problem}{remedy}") from error
    except Exception as error:  # includes the errors of Python for an invalid date, number or tag, and for deep nesting
        raise UserError(f"{name} is not YAML: {type(error).__name__}: {error}") from error


def is_safe_path(name: str) -> bool:
    """Return whether a relative path is printable and stays inside its folder."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of the content of a file."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
