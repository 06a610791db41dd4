"""Files of the workspace or of another revision, read through DVC."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart import files
from babelcart.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def read_bytes(revision: str | None, path: str) -> bytes:
    """A file of a branch, tag or commit, from git, the cache or the remote; None is the workspace."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError
    from dvc_data.index import DataIndexDirError

    if revision is None:
        try:
            return Path(path).read_bytes()
        except OSError:
            raise UserError(f"{path} is not there; run `dvc repro`, or `dvc pull {path}`") from None
    try:
        return bytes(DVCFileSystem(".", rev=revision).read_bytes(path))
    except RevError as error:
        raise UserError(f"there is no revision {revision!r} here: {error}") from error
    except (OSError, DvcException, DataIndexDirError) as error:
        raise UserError(
            f"{path} of {revision} cannot be read: {error}\n"
            "It is neither in the cache nor in the default remote. Where it was made: `dvc push`."
        ) from error


def read_table(revision: str | None, path: str, *columns: str) -> pd.DataFrame:
    """A table of rows of a revision, checked as `files.read_table` does."""
    return files.parse_table(io.BytesIO(read_bytes(revision, path)), _named(revision, path), *columns)


def read_json(revision: str | None, path: str, shape: Any) -> Any:
    """A JSON file of a revision, checked as `files.read_json` does."""
    return files.parse_json(read_bytes(revision, path), _named(revision, path), shape)


def _named(revision: str | None, path: str) -> str:
    return f"{path} of {revision}" if revision else path
