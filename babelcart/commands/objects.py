"""Objects of the DVC cache and remotes: those that dvc.lock and the .dvc files refer to."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelcart.commands import checks, lock
from babelcart.core.errors import UserError
from babelcart.core.files import atomic_write


@contextmanager
def fresh_repo() -> Iterator[Any]:
    """Open the DVC repository with an empty site cache, so that DVC recomputes every hash and asks the remote again."""
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
    """List the outputs that DVC caches and that have been computed."""
    return [out for out in repo.index.outs if out.use_cache and out.hash_info]


def objects(repo: Any, out: Any) -> dict[str, str]:
    """Map hash to file name for an output. For a folder: its listing and, if the listing is cached, its files.

    Raises
    ------
    UserError
        If the listing does not match its hash or names a path outside its folder.
    """
    oid = out.hash_info.value
    names = {oid: str(out)}
    path = Path(repo.cache.local.oid_to_path(oid))
    if out.hash_info.isdir and path.exists():
        names |= {file_oid: f"{out}/{file}" for file, file_oid in checks.read_listing(path.read_bytes(), oid).items()}
    return names


def remote_of(repo: Any, out: Any) -> Any | None:
    """Return the object store of the remote that keeps an output, or None.

    A default remote inside the workspace, such as the sample's, keeps only the outputs that name it as their remote.
    """
    from dvc.config import NoRemoteError

    try:
        remote = repo.cloud.get_remote_odb(out.remote)
    except NoRemoteError:
        return None
    inside = remote.fs.protocol == "local" and Path(remote.path).is_relative_to(repo.root_dir)
    return None if inside and not out.remote else remote


def fetch_listings(repo: Any) -> None:
    """Fetch the listings of all folders into the cache and verify them, since DVC itself trusts a remote's listings.

    Raises
    ------
    UserError
        If a listing does not match its hash or names a path outside its folder.
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
                f"{out}: {error}\nThe remote {remote.fs.unstrip_protocol(remote.path)} was damaged or tampered with: ask its owner."
            ) from error
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        path.chmod(0o444)


def _mismatches(repo: Any, outs: list[Any]) -> Iterator[tuple[str, Path, str]]:
    """Yield the file name, cache path and actual MD5 of every cached object that does not match its hash."""
    for out in outs:
        try:
            names = objects(repo, out)
        except UserError:
            names = {out.hash_info.value: str(out)}
        cached = ((oid, name, Path(repo.cache.local.oid_to_path(oid))) for oid, name in names.items())
        for oid, name, path in cached:
            if path.is_file() and (actual := checks.file_md5(path)) != oid.removesuffix(".dir"):
                yield name, path, actual


def damaged(repo: Any) -> Iterator[str]:
    """Yield a message for every cached object that does not match its hash or is a listing that leads out of its folder."""
    for out in outputs(repo):
        try:
            objects(repo, out)
        except UserError as error:
            yield f"{out}: {error}; delete it from the cache, then run `dvc repro` or `make pull`"
            continue
        for name, path, _ in _mismatches(repo, [out]):
            yield f"{name}: {path} in the cache does not match its hash; run `make heal`, then `dvc repro` or `make pull`"


def remove_damaged(repo: Any) -> Iterator[str]:
    """Remove cached objects that do not match their hash, and their copies in the workspace; yields the paths.

    DVC does not notice such copies, because it trusts the cache.
    """
    for folder in Path(repo.cache.legacy.path).glob("runs/??/*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # DVC fails on an empty folder in its run-cache
    for name, path, actual in list(_mismatches(repo, [out for out in repo.index.outs if out.hash_info])):
        copy = Path(name)
        if copy.is_file() and checks.file_md5(copy) == actual:
            copy.unlink()
            yield name
        if path.exists():
            path.unlink()
            yield str(path.relative_to(repo.root_dir) if path.is_relative_to(repo.root_dir) else path)


def changed(repo: Any) -> tuple[list[str], list[str]]:
    """Return the changes that `dvc status` reports, and the outputs that are missing from the workspace."""
    changes, absent = [], set()
    outs = {str(out): out for out in repo.index.outs}
    for stage, kind, file, status in lock.status_entries(repo.status()):
        # "not in cache" hides the state of the workspace.
        state = outs[file].workspace_status().get(file) if status == "not in cache" else status
        if state == "deleted":
            absent.add(file)
        elif state is not None:
            changes.append((stage, kind, file, state))
    # The hash of a folder that contains a missing output differs too; this is not a change.
    above = {str(parent) for file in absent for parent in Path(file).parents}
    return [f"{stage}: {kind} {file} {state}".rstrip() for stage, kind, file, state in changes if file not in above], sorted(absent)


def lacking(repo: Any, contents: bool) -> Iterator[str]:
    """Yield a message for every pushed object that its remote lacks; with `contents`, also for every one that does not match its hash."""
    fetch_listings(repo)
    expected: dict[str, dict[str, str]] = defaultdict(dict)
    stores: dict[str, Any] = {}
    for out in outputs(repo):
        if out.can_push and (store := remote_of(repo, out)):
            address = store.fs.unstrip_protocol(store.path)
            stores[address] = store
            expected[address] |= objects(repo, out)
    for address, store in stores.items():
        present = set(store.oids_exist(list(expected[address])))
        for oid, name in expected[address].items():
            if oid not in present:
                yield f"{name} is not on {address}; run `dvc push` where it was computed"
            elif contents and _remote_md5(store, oid) != oid.removesuffix(".dir"):
                path = store.oid_to_path(oid)
                yield f"{name} does not match its hash on {address}; delete {path} there, then run `dvc push` where it was computed"


def _remote_md5(store: Any, oid: str) -> str:
    with store.fs.open(store.oid_to_path(oid), "rb") as handle:
        return checks.md5(handle)
