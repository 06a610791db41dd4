"""Checks of pulled files: contents that do not match their hash, paths out of the workspace, secrets in git."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from babelcart.commands import lock
from babelcart.core.errors import UserError

_MD5 = re.compile(r"[0-9a-f]{32}")
# Options of `dvc remote modify` that hold credentials.
_CREDENTIAL = re.compile(
    r"^\s*(password|passphrase|token|access_key_id|secret_access_key|session_token|account_key|sas_token|connection_string|client_secret"
    r"|gdrive_client_secret|oss_key_id|oss_key_secret|sse_customer_key|custom_auth_header)\s*=\s*\S"
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


def md5(handle: Any) -> str:
    """Hex MD5 of the rest of a binary file, which is the name that DVC gives to an object.

    It detects damage and later changes. It does not detect collisions: an author can prepare two contents with the same MD5.
    """
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := handle.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def file_md5(path: Path) -> str:
    """Hex MD5 of a file."""
    with path.open("rb") as handle:
        return md5(handle)


def read_listing(content: bytes, oid: str) -> dict[str, str]:
    """Parse and check DVC's listing of a folder: path within the folder -> MD5 of the file.

    Parameters
    ----------
    content
        The object's bytes: JSON, a list of ``{"md5": ..., "relpath": ...}``.
    oid
        The name of the object: its MD5 and ``.dir``.

    Raises
    ------
    UserError
        If the content does not match its hash, is not a listing, or names a path outside the folder or an invalid MD5.
    """
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != oid.removesuffix(".dir"):
        raise UserError(f"the listing {oid} was changed: its content does not match its hash")
    try:
        entries = json.loads(content)
        if not isinstance(entries, list):
            raise TypeError("not a list")
        listing = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"the object {oid} is not a listing of files: {error!r}") from error
    for path, digest in listing.items():
        parts = path.split("/") if isinstance(path, str) else []
        if not parts or {"", ".", ".."} & set(parts) or re.search(r"[\\\0]|^[A-Za-z]:", path):
            raise UserError(f"the listing {oid} leads out of its folder: {path!r}")
        if not (isinstance(digest, str) and _MD5.fullmatch(digest)):
            raise UserError(f"the listing {oid} gives {path!r} the hash {digest!r}; accepted: 32 hexadecimal digits")
    return listing


def outside(paths: Iterable[Path], allowed: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
    """Yield every path, and every link below it, that resolves to a target outside the allowed folders, with that target."""
    roots = [root.resolve() for root in allowed]
    for top in paths:
        below = [Path(folder) / name for folder, folders, files in os.walk(top) for name in (*folders, *files)]
        for path in (top, *(entry for entry in below if entry.is_symlink())):
            if not any((target := path.resolve()).is_relative_to(root) for root in roots):
                yield path, target


def secrets(paths: Iterable[Path]) -> Iterator[tuple[Path, int, str]]:
    """Yield file, line number and kind of every line that seems to hold a key, a password or a token.

    Uses the patterns of detect-secrets without its entropy tests, which report every hash. Lines that end with its comment
    ``pragma: allowlist secret`` are skipped.

    Raises
    ------
    UserError
        If detect-secrets is not installed.
    """
    try:
        from detect_secrets.core.scan import scan_file
        from detect_secrets.settings import default_settings
    except ImportError:
        raise UserError("the search for secrets needs detect-secrets: pip install 'babelcart[verify]'") from None

    with default_settings() as settings:
        settings.disable_plugins("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector")
        for path in paths:
            if path.is_symlink() or not path.is_file():
                continue
            matches = {(secret.line_number, secret.type) for secret in scan_file(str(path))}
            for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if path.parts[-2:] == (".dvc", "config") and (option := _CREDENTIAL.match(line)):
                    matches.add((line_number, f"{option[1]} of a remote"))
                if _HUB_TOKEN.search(line):
                    matches.add((line_number, "Hugging Face token"))
            yield from ((path, line_number, kind) for line_number, kind in sorted(matches))


def writable_by_others(folder: Path) -> Path | None:
    """Return the folder through which users outside its group can change files in `folder`, or None."""
    for path in (*reversed(folder.absolute().parents), folder.absolute()):
        if not path.exists():
            return None
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:  # other users cannot enter it, nor anything below it
            return None
        if mode & stat.S_IWOTH and not (mode & stat.S_ISVTX and path != folder.absolute()):  # with a sticky bit, only owners can rename
            return path
    return None


def rows_on_shipped_remotes(project: Path) -> Iterator[str]:
    """Yield a message for every .dvc file with data of the user's own whose remote is part of the repository, as that of the sample is.

    ``dvc add`` keeps the line ``remote: sample``; ``dvc push`` would then write the rows into a folder that git tracks, and would not send
    them to the default remote.
    """
    for file in sorted(project.glob("*.dvc")):
        for out in lock.read_tracked(file.read_text(encoding="utf-8"), file.name) if file.is_file() else []:
            name, oid = out.get("remote"), out["md5"]
            folder = _remote_folder(project, str(name)) if name else None
            if folder is None:
                continue
            listing = subprocess.run(["git", "ls-files", "-z", "--full-name", "--", folder], cwd=project, capture_output=True, text=True)
            tracked = {Path(path).parts[-2:] for path in listing.stdout.split("\0")[:-1]}
            if tracked and (oid[:2], oid[2:]) not in tracked:
                yield (
                    f"{file.name}: {out['path']} has changed, but its remote is still {name!r}, a folder of this repository; "
                    f"`dvc push` would not send it to a remote of your own. Remove the line `remote: {name}`: "
                    f"dvc remove {file.name} && dvc add {out['path']}"
                )


def _remote_folder(project: Path, name: str) -> str | None:
    """Folder of a DVC remote inside the project, or None if the remote is elsewhere or is not configured."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([project / ".dvc/config", project / ".dvc/config.local"], encoding="utf-8")
    except configparser.Error:
        return None  # DVC refuses the file
    url = config.get(f"'remote \"{name}\"'", "url", fallback="")
    folder = (project / ".dvc" / url).resolve()
    return str(folder) if url and "://" not in url and folder.is_relative_to(project.resolve()) else None
