"""Whether dvc.lock is current, told without data and cache: what is merely absent is not what has changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from babelcart import config
from babelcart.errors import UserError


def read(text: str) -> dict[str, Any]:
    """The ``stages`` of a dvc.lock.

    Raises
    ------
    UserError
        If it is not such a file.
    """
    found = config.parse(text, "dvc.lock")
    stages = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(stages, dict) or not all(
        isinstance(stage, dict) and all(_hashed(stage.get(kind, [])) for kind in ("outs", "deps")) for stage in stages.values()
    ):
        raise UserError("dvc.lock does not list stages with hashed outs and deps; restore it (git checkout dvc.lock) or run `dvc repro`")
    return stages


def read_tracked(text: str, name: str) -> list[dict[str, Any]]:
    """The ``outs`` of a .dvc file.

    Raises
    ------
    UserError
        If it is not such a file.
    """
    found = config.parse(text, name)
    outs = found.get("outs") if isinstance(found, dict) else None
    if not outs or not _hashed(outs):
        raise UserError(f"{name} does not list hashed outs; restore it from git, or `dvc add` the data anew")
    return cast(list[dict[str, Any]], outs)


def _hashed(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        isinstance(one, dict) and isinstance(one.get("path"), str) and isinstance(one.get("md5"), str) for one in entries
    )


def _changes(status: Mapping[str, list[Any]]) -> Iterator[tuple[str, str, str, Any]]:
    for stage, found in status.items():
        for said in found:
            if isinstance(said, Mapping):
                for kind, paths in said.items():
                    for path, how in paths.items():
                        yield stage, kind, path, how


def missing_outs(status: Mapping[str, list[Any]]) -> list[str]:
    """Outputs that are neither here nor in the cache, or not here."""
    return [path for _, kind, path, how in _changes(status) if kind == "changed outs" and how in ("deleted", "not in cache")]


def _related(path: str, other: str) -> bool:
    one, two = PurePosixPath(path), PurePosixPath(other)
    return one == two or one in two.parents or two in one.parents


def behind(
    status: Mapping[str, list[Any]], locked: Mapping[str, Any], tracked: Mapping[str, list[dict[str, Any]]], absent: Collection[str]
) -> list[str]:
    """What has changed since the stages ran, a line each; empty if the lock is current.

    Of a file that is not here, what made it and what read it must have recorded the same hash. One thing cannot be seen so: the
    hash of a file inside a folder that is not here, unless two stages read it.

    Parameters
    ----------
    status : mapping
        As ``dvc status --json`` prints it.
    locked : mapping
        The ``stages`` of dvc.lock.
    tracked : mapping
        Name of a .dvc file -> its ``outs``.
    absent : collection of str
        Outputs that are not here and need not be, since they belong into the cache.
    """
    found = []
    for stage, said in status.items():
        if stage not in tracked and stage not in locked:
            found.append(f"{stage}: has not run")
        else:
            found += [f"{stage}: {one}" for one in said if isinstance(one, str)]
    for stage, _, path, how in _changes(status):
        if (stage in tracked or stage in locked) and not any(_related(path, other) for other in absent):
            found.append(f"{stage}: {path}: {', '.join(how)} changed" if isinstance(how, Mapping) else f"{stage}: {path} is {how}")
    hashes: dict[str, str] = {}
    for stage in [*tracked, *(stage for stage in status if stage in locked)]:
        for one in tracked.get(stage, []) or [*locked[stage].get("outs", []), *locked[stage].get("deps", [])]:
            path = (PurePosixPath(stage).parent / one["path"]).as_posix() if stage in tracked else one["path"]
            if hashes.setdefault(path, one["md5"]) != one["md5"]:
                found.append(f"{stage}: {path} was made anew since")
    return found
