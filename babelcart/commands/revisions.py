"""Read files of the workspace or of another revision through DVC."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.core.files import parse_json
from babelcart.rows.table import parse_table

if TYPE_CHECKING:
    import pandas as pd


def read_bytes(revision: str | None, path: str) -> bytes:
    """Read a file of a branch, tag or commit, from git, the cache or the remote.

    Parameters
    ----------
    revision
        Name or hash of the revision; None is the workspace.
    path
        Path of the file, relative to the project.

    Raises
    ------
    UserError
        If the revision does not exist or the file cannot be read.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError
    from dvc_data.index import DataIndexDirError

    if revision is None:
        try:
            return Path(path).read_bytes()
        except OSError:
            raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull {path}`") from None
    try:
        return bytes(DVCFileSystem(".", rev=revision).read_bytes(path))
    except RevError as error:
        raise UserError(f"revision {revision!r} does not exist: {error}") from error
    except (OSError, DvcException, DataIndexDirError) as error:
        raise UserError(
            f"{path} of {revision} cannot be read: {error}\n"
            f"Either {revision} is older than this file, or the file is neither in the cache nor on the default remote. "
            "In the second case, run `dvc push` on the machine that computed it."
        ) from error


def read_table(revision: str | None, path: str, *columns: str) -> pd.DataFrame:
    """Read a table of rows of a revision, with the checks of `rows.table.read_table`."""
    return parse_table(io.BytesIO(read_bytes(revision, path)), _named(revision, path), *columns)


def read_json(revision: str | None, path: str, shape: Any) -> Any:
    """Read a JSON file of a revision, with the checks of `core.files.read_json`."""
    return parse_json(read_bytes(revision, path), _named(revision, path), shape)


def _named(revision: str | None, path: str) -> str:
    return f"{path} of {revision}" if revision else path
