"""Writing files whole: a temporary file beside the target, then a rename. A file that exists is complete."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr

if TYPE_CHECKING:
    import pandas as pd


# Columns of every table that goes from stage to stage; all text but the label (rows.py says what they mean).
ROW = ("id", "language", "language_tag", "origin_query", "candidate", "label")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it takes the place of `path`, on failure it is removed."""
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
        # Some libraries do not say which file, and nobody knows the temporary one.
        if error.filename is None or str(error.filename).endswith(".part"):
            error.filename = str(path)
        raise
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON that a person and git can read; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    with atomic_write(path) as temporary:
        table.reset_index(drop=True).to_parquet(temporary, index=False, compression="zstd")


def read_table(path: Path, *columns: str, labelled: bool = False) -> pd.DataFrame:
    """Read a table of rows that `write_table` wrote.

    Parameters
    ----------
    path : Path
    *columns : str
        What it must have beside the columns of a row: ``probability``, or texts such as ``origin``.
    labelled : bool
        Whether there must be rows and every one must have a label.

    Raises
    ------
    UserError
        If the file is missing or is not Parquet, if a column is missing, or a value in it is not what the column is for.
    """
    try:
        with path.open("rb") as handle:
            return parse_table(handle, str(path), *columns, labelled=labelled)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None


def parse_table(content: IO[bytes], name: str, *columns: str, labelled: bool = False) -> pd.DataFrame:
    """As `read_table`, of bytes that are called `name` in messages."""
    import pandas as pd

    try:
        table = pd.read_parquet(content)
    except Exception as error:  # of pyarrow and pandas, a dozen kinds
        if getattr(error, "errno", None):  # of the system; what pyarrow says of a damaged file has no number
            raise
        raise UserError(f"{name} is not a whole Parquet file ({error}); `make heal`, then `dvc repro`, makes it again") from error
    again = "made by another version, or changed? Run `dvc repro`, or `dvc checkout` to have it back"
    for column in (*ROW, *columns):
        if column not in table:
            raise UserError(f"{name} has no column {column}, it has {short_repr(list(table))}; {again}")
        values = table[column]
        if column == "label":
            right = bool((values if labelled else values.dropna()).isin([0, 1]).all())
            accepted = "0 or 1" if labelled else "0, 1 or missing"
        elif column == "probability":
            right = pd.api.types.is_float_dtype(values) and bool(values.between(0, 1).all())
            accepted = "numbers from 0 to 1"
        else:
            right, accepted = pd.api.types.is_string_dtype(values) and not values.isna().any(), "texts, none missing"
        if not right:
            raise UserError(f"{name}: the column {column} has other values than {accepted}; {again}")
    if labelled and not len(table):
        raise UserError(f"{name} has no rows; at least one is needed")
    return table


def read_json(path: Path, shape: Any) -> Any:
    """Read JSON that `write_json` or a library wrote, and that `expect` finds to be of a shape.

    Raises
    ------
    UserError
        If the file is missing or is something else.
    """
    try:
        return parse_json(path.read_bytes(), str(path), shape)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None


def parse_json(content: bytes, name: str, shape: Any) -> Any:
    """As `read_json`, of bytes that are called `name` in messages."""
    try:
        found = json.loads(content)
        json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs cannot be written again
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not whole JSON ({str(error)[:200]}); `make heal`, then `dvc repro`, makes it again") from error
    try:
        check_shape(found, shape)
    except ValueError as error:
        raise UserError(f"{name}: {error}; made by another version, or changed? Run `dvc repro`, or `git checkout` it") from None
    return found


def check_shape(value: Any, shape: Any, where: str = "the file") -> None:
    """Check what JSON gave against a shape.

    Parameters
    ----------
    value
    shape
        ``str``; ``int``; ``float``, any finite number; ``object``, anything; ``None``; a tuple, one of several shapes; ``[shape]``, a
        list of it; ``{"name": shape, "other?": shape}``, a mapping with these keys, the marked ones perhaps, and any others;
        ``{...: shape}``, a mapping with any keys.

    Raises
    ------
    ValueError
        Says where another thing was found.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {short_repr(value)}; expected a mapping")
        for key, inner in shape.items():
            for name in value if key is ... else (key.removesuffix("?"),):
                if name in value:
                    check_shape(value[name], inner, short_repr(name) if where == "the file" else f"{where}.{short_repr(name)}")
                elif not key.endswith("?"):
                    raise ValueError(f"{where} has no {name!r}, it has {short_repr(list(value))}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {short_repr(value)}; expected a list")
        for number, one in enumerate(value):
            check_shape(one, shape[0], f"{where}[{number}]")
    elif isinstance(shape, tuple):
        if not any(_fits(value, one) for one in shape):
            raise ValueError(f"{where} is {short_repr(value)}; expected {' or '.join(_name(one) for one in shape)}")
    elif not _fits(value, shape):
        raise ValueError(f"{where} is {short_repr(value)}; expected {_name(shape)}")


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, (dict, list)):
        with suppress(ValueError):
            check_shape(value, shape)
            return True
        return False
    if shape is None:
        return value is None
    if shape is float:
        return type(value) in (int, float) and abs(value) < 1e300
    return isinstance(value, shape) and not (shape is int and isinstance(value, bool))


def _name(shape: Any) -> str:
    names = {int: "a whole number", float: "a finite number", str: "a text", None: "null"}
    return "a list" if isinstance(shape, list) else "a mapping" if isinstance(shape, dict) else names[shape]


def is_safe_path(name: str) -> bool:
    """Whether a relative path stays in its folder and is a plain, printable one."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def sha256(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
