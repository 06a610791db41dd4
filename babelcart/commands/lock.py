"""Check whether dvc.lock is up to date without data or cache: missing files are not counted as changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from babelcart.core.errors import UserError
from babelcart.core.files import parse_yaml


def read(text: str) -> dict[str, Any]:
    """Parse the ``stages`` of a dvc.lock.

    Raises
    ------
    UserError
        If the text is not a valid dvc.lock.
    """
    document = parse_yaml(text, "dvc.lock")
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict) or not all(
        isinstance(stage, dict) and all(_hashed(stage.get(kind, [])) for kind in ("outs", "deps")) for stage in stages.values()
    ):
        raise UserError("dvc.lock does not list stages with hashed outs and deps; restore it (git checkout dvc.lock) or run `dvc repro`")
    return stages


def read_tracked(text: str, name: str) -> list[dict[str, Any]]:
    """Parse the ``outs`` of a .dvc file.

    Raises
    ------
    UserError
        If the text is not a valid .dvc file.
    """
    document = parse_yaml(text, name)
    outs = document.get("outs") if isinstance(document, dict) else None
    if not outs or not _hashed(outs):
        raise UserError(f"{name} does not list hashed outs; restore it from git, or run `dvc add` again")
    return cast(list[dict[str, Any]], outs)


def _hashed(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("md5"), str) for entry in entries
    )


def status_entries(status: Mapping[str, list[Any]]) -> Iterator[tuple[str, str, str, Any]]:
    """Yield stage, kind, path and state of every entry in the output of ``dvc status --json``.

    Path and state are empty for an entry that does not concern a file, such as ``changed command``.
    """
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):
                yield stage, entry, "", ""
                continue
            files = ((kind, path, state) for kind, paths in entry.items() for path, state in paths.items())
            for kind, path, state in files:
                yield stage, kind, path, state


def missing_outs(status: Mapping[str, list[Any]]) -> list[str]:
    """List the outputs that are missing from the workspace or from the cache."""
    return [path for _, kind, path, state in status_entries(status) if kind == "changed outs" and state in ("deleted", "not in cache")]


def _related(path: str, other: str) -> bool:
    """Return whether two paths are equal or one contains the other."""
    first, second = PurePosixPath(path), PurePosixPath(other)
    return first == second or first in second.parents or second in first.parents


def behind(
    status: Mapping[str, list[Any]], locked: Mapping[str, Any], tracked: Mapping[str, list[dict[str, Any]]], absent: Collection[str]
) -> list[str]:
    """List what has changed since the stages ran, one line each; empty if the lock is up to date.

    For a missing file, the stage that wrote it and the stages that read it must have recorded the same hash. This does not detect a
    change of a file inside a missing folder that only one stage reads.

    Parameters
    ----------
    status : mapping
        As ``dvc status --json`` prints it.
    locked : mapping
        The ``stages`` of dvc.lock.
    tracked : mapping
        Name of a .dvc file -> its ``outs``.
    absent : collection of str
        Missing outputs that may be missing, because DVC keeps them in its cache.
    """
    changes = []
    for stage, entries in status.items():
        if stage not in tracked and stage not in locked:
            changes.append(f"{stage}: has not run")
        else:
            changes += [f"{stage}: {entry}" for entry in entries if isinstance(entry, str)]
    for stage, _, path, state in status_entries(status):
        if path and (stage in tracked or stage in locked) and not any(_related(path, other) for other in absent):
            changes.append(f"{stage}: {path}: {', '.join(state)} changed" if isinstance(state, Mapping) else f"{stage}: {path} is {state}")
    hashes: dict[str, str] = {}
    for stage in [*tracked, *(stage for stage in status if stage in locked)]:
        for entry in tracked.get(stage, []) or [*locked[stage].get("outs", []), *locked[stage].get("deps", [])]:
            path = (PurePosixPath(stage).parent / entry["path"]).as_posix() if stage in tracked else entry["path"]
            if hashes.setdefault(path, entry["md5"]) != entry["md5"]:
                changes.append(f"{stage}: {path} has been rebuilt since")
    return changes
