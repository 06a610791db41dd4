"""Read files of the workspace or of another revision through DVC."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.core.files import atomic_write, parse_json, parse_yaml
from babelcart.model.task_model import PROMPT_RECORD
from babelcart.rows.table import parse_table
from babelcart.scorer import SCORES, WEIGHTS

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


def adapter_of_revision(revision: str, model: str, task: str) -> Path:
    """Fetch the adapter of a revision, with its thresholds, into a folder of .scratch.

    Raises
    ------
    UserError
        If the revision or one of the files does not exist, or if the revision has another base model.
    """
    block = parse_yaml(read_bytes(revision, "params.yaml").decode(), f"params.yaml of {revision}").get("models", {}).get(model)
    current = parse_yaml(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml").get("models", {}).get(model)
    different = [key for key in ("weights", "dtype", "quantization") if (block or {}).get(key) != (current or {}).get(key)]
    if block is None or different:
        what = f"another `{different[0]}`" if block else "no such model"
        raise UserError(f"{revision} has {what} under models.{model} in params.yaml; check it out, and start the server there")
    names = {name: f"models/{model}/{task}/{name}" for name in (WEIGHTS, "adapter_config.json", PROMPT_RECORD)}
    names[SCORES] = f"metrics/{model}/{task}.json"
    contents = {name: read_bytes(revision, path) for name, path in names.items()}
    folder = Path(".scratch/serve") / hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
    for name, content in contents.items():
        with atomic_write(folder / name) as path:
            path.write_bytes(content)
    return folder


def read_table(revision: str | None, path: str, *columns: str) -> pd.DataFrame:
    """Read a table of rows of a revision, with the checks of `rows.table.read_table`."""
    return parse_table(io.BytesIO(read_bytes(revision, path)), _named(revision, path), *columns)


def read_json(revision: str | None, path: str, shape: Any) -> Any:
    """Read a JSON file of a revision, with the checks of `core.files.read_json`."""
    return parse_json(read_bytes(revision, path), _named(revision, path), shape)


def _named(revision: str | None, path: str) -> str:
    return f"{path} of {revision}" if revision else path
