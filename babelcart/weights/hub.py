"""Models on the Hugging Face hub: download a commit, verify its files, and find them again without network.

The files stay in the cache of the hub. The folder of the model holds only a record of them: their names, sizes and hashes.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from babelcart.core.errors import UserError
from babelcart.core.files import sha256
from babelcart.weights.quiet import silence_libraries

# Files beside the weights that state the terms under which they may be passed on.
LICENCE_FILES = ("LICEN[CS]E*", "Licen[cs]e*", "licen[cs]e*", "COPYING*", "NOTICE*", "Notice*", "*TERMS*", "*USE_POLICY*")
# Files to download. Weights as safetensors only: reading a pickle can run code.
DOWNLOADED = ("*.safetensors", "*.json", "*.model", "*.txt", *LICENCE_FILES)


def download_commit(repo: str, revision: str) -> dict[str, dict[str, Any]]:
    """Download the files of a commit into the cache of the hub, and verify them.

    Parameters
    ----------
    repo : str
        Name of the repository, ``owner/name``.
    revision : str
        Hash of the commit.

    Returns
    -------
    dict of str to dict
        For each file, its ``bytes`` and ``sha256``.

    Raises
    ------
    UserError
        If the disk is too small, the download fails, a file differs from the one in the commit, or the repository has no safetensors.
    """
    silence_libraries()  # before tqdm is imported, which reads its settings then
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    try:
        _check_disk(repo, revision)
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(DOWNLOADED)))
    except UserError:
        raise
    except Exception as error:  # the client raises a dozen types
        raise UserError(f"cannot download {repo} at {revision}: {_explanation(error, repo)}") from error
    paths = model_files(folder, f"{repo} at {revision}")
    return {path.relative_to(folder).as_posix(): _verified(path, repo) for path in tqdm(paths, desc="verify", unit="file", disable=None)}


def is_named(path: Path, patterns: Iterable[str]) -> bool:
    """Return whether a path is a file whose name matches one of the patterns, with exact case."""
    return path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in patterns)


def file_record(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as base.json lists them."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def model_files(folder: Path, source: str) -> list[Path]:
    """Return the files of a model in a folder, sorted; raise UserError if no weights are among them. `source` names it in the message."""
    paths = [path for path in sorted(folder.rglob("*")) if is_named(path, DOWNLOADED)]
    if not any(path.suffix == ".safetensors" for path in paths):
        raise UserError(f"{source} has no safetensors; weights in pickles are not used, because they can run code")
    return paths


def _check_disk(repo: str, revision: str) -> None:
    """Print the size of the files that are not in the cache yet; raise UserError if they do not fit onto its disk."""
    from huggingface_hub import constants, errors, snapshot_download
    from tqdm.auto import tqdm

    class NoBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    try:
        files = snapshot_download(repo, revision=revision, allow_patterns=list(DOWNLOADED), dry_run=True, tqdm_class=NoBar)
    except errors.DryRunError:  # the hub cannot be reached; the files may all be in the cache
        return
    missing_bytes = sum(file.file_size for file in files if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    disk = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free_bytes = shutil.disk_usage(disk).free
    if missing_bytes > free_bytes:
        raise UserError(
            f"{repo}: {missing_bytes / 1e9:.1f} GB are to be downloaded, and {free_bytes / 1e9:.1f} GB are free in {cache}; free some, or "
            "set HF_HOME to a folder on a larger disk"
        )
    if missing_bytes:
        tqdm.write(f"{repo}: downloading {missing_bytes / 1e9:.1f} GB to {cache}", file=sys.stderr)


def _explanation(error: Exception, repo: str) -> str:
    """Explain an error of the client of the hub and what to do about it."""
    from huggingface_hub import constants, errors

    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return f"no space is left in {constants.HF_HUB_CACHE}; free some, or set HF_HOME to a folder on a larger disk"
    if any(isinstance(cause, PermissionError) for cause in causes):
        return (
            f"it is not, or only in part, in {constants.HF_HUB_CACHE}, where you may not write: ask its owner to run the same command, or "
            "set HF_HOME to a folder of your own"
        )
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return (
            f"it is not, or only in part, in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set: unset it for the download, or set "
            "HF_HOME to the folder of a cache that holds the model"
        )
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return f"its licence must be accepted first, on https://huggingface.co/{repo}; then log in with `hf auth login`"
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return "the repository has no such commit; correct `revision` in params.yaml"
    statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    if statuses & {401, 403} or any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return (
            "the repository does not exist, or the hub refuses access to it: check `repo` in params.yaml, and log in with `hf auth login`"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub cannot be reached ({causes[-1]}); without network, use a model from packages"
    return f"{error}; run the command again, which continues the download"


def _verified(path: Path, repo: str) -> dict[str, Any]:
    """Return size and SHA-256 of a file in the cache, after comparing the hash with that of the commit.

    The cache names a file by the hash that the hub states: the SHA-256 of a large file, the git hash of a small one. A damaged file is
    deleted, so that the next attempt downloads it again.
    """
    blob, record = path.resolve(), file_record(path)
    actual = record["sha256"]
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        actual = hashlib.sha1(b"blob %d\0" % record["bytes"] + path.read_bytes(), usedforsecurity=False).hexdigest()
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) and blob.name != actual:
        advice = "It was deleted from the cache; run the command again, which downloads it again"
        try:
            blob.unlink()
        except PermissionError:
            advice = f"Ask the owner of {blob} to run the same command, which deletes it and downloads it again"
        raise UserError(f"{path.name} of {repo} is damaged: its hash is {actual}, and the hub states {blob.name}. {advice}")
    return record


def folder_of(record: dict[str, Any], model: str) -> Path:
    """Return the folder that holds the files of a record: in the cache of the hub, from which nothing is requested, or a local folder.

    Parameters
    ----------
    record : dict
        As the stage `base` writes it, with ``files``, and with ``repo`` and ``revision`` or ``folder``.
    model : str
        Name of the model's block in params.yaml, for messages.

    Raises
    ------
    UserError
        If a file is missing or has another size than in the record.
    """
    from huggingface_hub import constants, snapshot_download

    advice = f"run `python -m stages.base --model {model}`, which "
    if "folder" in record:
        folder, advice = Path(record["folder"]), advice + "records it again"
    else:
        repo, revision, advice = record["repo"], record["revision"], advice + "downloads it again"
        try:
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(DOWNLOADED), local_files_only=True))
        except Exception as error:  # LocalEntryNotFoundError, IncompleteSnapshotError
            raise UserError(f"{repo} at {revision} is not, or only in part, in the cache {constants.HF_HUB_CACHE}; {advice}") from error
    for name, file in record["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != file["bytes"]:
            state = f"has {path.stat().st_size:,} bytes instead of {file['bytes']:,}" if path.exists() else "is missing"
            raise UserError(f"{path} {state}; {advice}")
    return folder
