"""The objects that dvc.lock and the .dvc files name: in the cache and on the remotes, read through DVC."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelcart.commands import checks
from babelcart.errors import UserError
from babelcart.files import whole


@contextmanager
def hashed_anew() -> Iterator[Any]:
    """The project as DVC sees it that remembers no hash, no size and no time of a file, and nothing of a remote."""
    from dvc.repo import Repo

    before = os.environ.get("DVC_SITE_CACHE_DIR")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["DVC_SITE_CACHE_DIR"] = empty
        try:
            with Repo() as repo:
                yield repo
        finally:
            os.environ.pop("DVC_SITE_CACHE_DIR")
            if before:
                os.environ["DVC_SITE_CACHE_DIR"] = before


def outputs(repo: Any) -> list[Any]:
    """Outputs that DVC keeps and that have been computed."""
    return [out for out in repo.index.outs if out.use_cache and out.hash_info]


def objects(repo: Any, out: Any) -> dict[str, str]:
    """Hash -> the file that it belongs to. Of a folder: its listing, and its files if the listing is in the cache.

    Raises
    ------
    UserError
        If the listing is not what its name says or leads out of its folder.
    """
    oid = out.hash_info.value
    found = {oid: str(out)}
    path = Path(repo.cache.local.oid_to_path(oid))
    if out.hash_info.isdir and path.exists():
        found |= {name: f"{out}/{file}" for file, name in checks.read_listing(path.read_bytes(), oid).items()}
    return found


def remote_of(repo: Any, out: Any) -> Any | None:
    """The store of the remote that keeps an output, or None.

    A default remote inside the workspace, as the sample's is, keeps what names it and nothing else.
    """
    from dvc.config import NoRemoteError

    try:
        remote = repo.cloud.get_remote_odb(out.remote)
    except NoRemoteError:
        return None
    inside = remote.fs.protocol == "local" and Path(remote.path).is_relative_to(repo.root_dir)
    return None if inside and not out.remote else remote


def fetch_listings(repo: Any) -> None:
    """Bring the listings of all folders into the cache, each checked before it is followed: DVC follows a remote's as it is.

    Raises
    ------
    UserError
        If a listing is not what its name says or leads out of its folder.
    """
    for out in outputs(repo):
        oid = out.hash_info.value
        path = Path(repo.cache.local.oid_to_path(oid))
        if not out.hash_info.isdir or path.exists() or not (remote := remote_of(repo, out)):
            continue
        try:
            content = remote.fs.cat_file(remote.oid_to_path(oid))
        except FileNotFoundError:
            continue
        try:
            checks.read_listing(content, oid)
        except UserError as error:
            raise UserError(
                f"{out}: {error}\nThe remote {remote.fs.unstrip_protocol(remote.path)} was damaged or tampered with: ask whoever keeps it."
            ) from error
        with whole(path) as temporary:
            temporary.write_bytes(content)
        path.chmod(0o444)


def _other_content(repo: Any, outs: list[Any]) -> Iterator[tuple[str, Path, str]]:
    """Name, object and true hash of what in the cache is not what its name says."""
    for out in outs:
        try:
            named = objects(repo, out)
        except UserError:
            named = {out.hash_info.value: str(out)}
        for oid, name in named.items():
            path = Path(repo.cache.local.oid_to_path(oid))
            if path.is_file():
                with path.open("rb") as handle:
                    found = checks.md5(handle)
                if found != oid.removesuffix(".dir"):
                    yield name, path, found


def damaged(repo: Any) -> Iterator[str]:
    """What in the cache is not what its name says, or leads out of its folder."""
    for out in outputs(repo):
        try:
            objects(repo, out)
        except UserError as error:
            yield f"{out}: {error}; delete it from the cache, then `dvc repro` or `make pull`"
            continue
        for name, path, _ in _other_content(repo, [out]):
            yield f"{name}: the cache has other content in {path}; `make heal`, then `dvc repro` or `make pull`"


def remove_damaged(repo: Any) -> Iterator[str]:
    """Remove what in the cache is not what its name says, and its copies in the workspace, which DVC takes for whole; gives the paths."""
    for folder in Path(repo.cache.legacy.path).glob("runs/??/*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # DVC stumbles over a folder of its run-cache without a run
    for name, path, found in list(_other_content(repo, [out for out in repo.index.outs if out.hash_info])):
        copy = Path(name)
        if copy.is_file():
            with copy.open("rb") as handle:
                same = checks.md5(handle) == found
            if same:
                copy.unlink()
                yield name
        if path.exists():
            path.unlink()
            yield str(path.relative_to(repo.root_dir) if path.is_relative_to(repo.root_dir) else path)


def changed(repo: Any) -> tuple[list[str], list[str]]:
    """What `dvc status` finds: changes, and what is not here."""
    changes, absent = [], set()
    outs = {str(out): out for out in repo.index.outs}
    for stage, entries in repo.status().items():
        for entry in entries:
            for kind, files in entry.items() if isinstance(entry, dict) else [(entry, {"": ""})]:
                for file, state in files.items():
                    if state == "not in cache":  # which hides the state of the workspace
                        state = outs[file].workspace_status().get(file)
                    if state == "deleted":
                        absent.add(file)
                    elif state is not None:
                        changes.append((stage, kind, file, state))
    # A folder above an output that is not here cannot have its hash.
    above = {str(parent) for file in absent for parent in Path(file).parents}
    return [f"{stage}: {kind} {file} {state}".rstrip() for stage, kind, file, state in changes if file not in above], sorted(absent)


def lacking(repo: Any, contents: bool) -> Iterator[str]:
    """What the remotes lack of what is pushed to them; with `contents`, every object is read and hashed too."""
    fetch_listings(repo)
    wanted: dict[str, dict[str, str]] = defaultdict(dict)
    stores: dict[str, Any] = {}
    for out in outputs(repo):
        if out.can_push and (store := remote_of(repo, out)):
            address = store.fs.unstrip_protocol(store.path)
            stores[address] = store
            wanted[address] |= objects(repo, out)
    for address, store in stores.items():
        there = set(store.oids_exist(list(wanted[address])))
        for oid, name in wanted[address].items():
            if oid not in there:
                yield f"{name} is not on {address}; `dvc push`, where it was made"
            elif contents:
                with store.fs.open(store.oid_to_path(oid), "rb") as handle:
                    if checks.md5(handle) != oid.removesuffix(".dir"):
                        path = store.oid_to_path(oid)
                        yield f"{name} has other content on {address}; delete {path} there, then `dvc push`, where it was made"
