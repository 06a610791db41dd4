"""Writing files whole: a temporary file beside the target, then a rename. A file that exists is complete."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def whole(path: Path) -> Iterator[Path]:
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
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON that a person and git can read; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    with whole(path) as temporary:
        table.reset_index(drop=True).to_parquet(temporary, index=False, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises
    ------
    UserError
        If the file is missing or is not Parquet.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None
    except (OSError, ValueError, pa.ArrowNotImplementedError) as error:
        if getattr(error, "errno", None):  # of the system; what pyarrow says of a damaged file has no number
            raise
        raise UserError(f"{path} is not a whole Parquet file ({error}); `make heal`, then `dvc repro`, makes it again") from error


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises
    ------
    UserError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch it") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); `make heal`, then `dvc repro`, makes it again") from error


def sha256(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
