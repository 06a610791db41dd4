"""`UserError`, the exception with a message for users, and messages for failures of the machine, such as a full disk."""

from __future__ import annotations

import difflib
import errno
import re
import reprlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _Repr(reprlib.Repr):
    """Write null, true and false as the files of users do, not as Python does."""

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return str(value).lower()


_SHORT = _Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 2
# Control characters except tab and line feed; line separators; bidirectional embeddings, overrides and isolates; lone surrogates.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters that JSON and YAML can contain but that cannot be written to a UTF-8 file or passed to the system: NUL and lone surrogates.
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed (`ulimit -f`)",
}
_CLOSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "permission denied", errno.EPERM: "not permitted"}
_RESUME = "then run `dvc repro` again: it resumes where it stopped"
_REBUILD = "`make heal`, then `dvc repro`, writes it again"


def printable(text: str) -> str:
    r"""Escape the characters of a text that would move the cursor, change colours, or hide or reorder text in a terminal.

    Examples
    --------
    >>> printable("dress\x1b[2J")
    'dress\\x1b[2J'
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class UserError(Exception):
    """An error that the user can fix. The message states what was found, what is accepted and what to do.

    The message may quote any data; ``str(error)`` is `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def short_repr(value: Any) -> str:
    """Return a `repr` of at most a few hundred characters, for messages; null, true and false are those of YAML and JSON."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers with more than 4300 digits
        return "a huge number"


def did_you_mean(name: Any, accepted: Iterable[Any]) -> str:
    """Return a question that proposes the most similar accepted name, to append to a message; empty if none is similar.

    Examples
    --------
    >>> did_you_mean("batch_sise", ["epochs", "batch_size"])
    '. Did you mean batch_size?'
    """
    names = {choice.lower(): choice for choice in accepted if isinstance(choice, str)}
    matches = difflib.get_close_matches(name.lower(), names, 1) if isinstance(name, str) and len(name) < 100 else []
    return f". Did you mean {names[matches[0]]}?" if matches else ""


def out_of_memory(error: Exception) -> bool:
    """Return whether an error means that the system or a device is out of memory. Some errors of torch state it only in their text."""
    messages = ("out of memory", "defaultcpuallocator", "cublas_status_alloc_failed")
    in_message = isinstance(error, RuntimeError) and any(message in str(error).lower() for message in messages)
    return in_message or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def readable_folder(folder: Path) -> Iterator[None]:
    """Name the folder if transformers or peft cannot read it: they raise a dozen types, most of which do not name the file.

    Raises
    ------
    UserError
        In place of any error of the block, except an error of the operating system or lack of memory.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) or out_of_memory(error):
            raise
        raise UserError(f"{folder} cannot be read ({type(error).__name__}: {str(error)[:500]}); {_REBUILD}") from error


def explain(error: Exception) -> str | None:
    """Return a message for a failure of the machine, or None for any other error, which is a bug and needs its traceback.

    Libraries raise the same failure as different types. It is recognised by its error number (of the operating system, of SQLite, or in
    the message of a library in Rust), and lack of memory by its message.
    """
    text = str(error)
    if isinstance(error, sqlite3.Error):
        return _explain_database(error)
    if out_of_memory(error):
        return _explain_memory(text)
    # safetensors and tokenizers, which are written in Rust, raise their own types with the number in the message.
    rust = re.search(r"\(os error (\d+)\)", text)
    code = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else None
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if code in _FULL:
        return (
            f"{where}{_FULL[code]} ({text}). Free some space (`df -h .`; `dvc gc --workspace` deletes cached files that this revision does "
            f"not use), {_RESUME}"
        )
    if code in _CLOSED:
        return f"{where}{_CLOSED[code]} ({text}). Make it writable for your user (see `ls -ld` and `mount`), {_RESUME}"
    if code == errno.ENOMEM:
        return _explain_memory(text)
    if code == errno.EIO:
        return f"{where}the disk fails ({text}). Check `dmesg`, move the project to another disk, {_RESUME}"
    if isinstance(error, FileNotFoundError) and where:
        return f"{where}does not exist. `dvc repro` writes it again, or `make pull` fetches it from the remote"
    if type(error).__name__ == "SafetensorError":
        return f"a file of weights is damaged ({text}). {_REBUILD}"
    return None


def _explain_memory(text: str) -> str:
    return (
        f"out of memory ({text or 'an allocation failed'}). Close other programs, lower train.max_tokens, predict.max_tokens or "
        f"negatives.encoder.batch_size, or use a smaller model, {_RESUME}"
    )


def _explain_database(error: sqlite3.Error) -> str | None:
    """Return a message for an error of SQLite, which does not name the file: a database in .scratch, or one of DVC in .dvc/tmp."""
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"the disk is full, or fails ({error}). Free some space (`df -h .`), or check `dmesg` for a failing disk, {_RESUME}"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"a database cannot be written ({error}). Make .scratch and .dvc/tmp writable for your user, {_RESUME}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process has locked a database in .scratch ({error}). Wait until it ends, or end it, {_RESUME}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return (
            f"a database in .scratch is damaged ({error}). Delete .scratch/vectors.sqlite (vectors are computed again) or "
            f".scratch/memory.sqlite (translations are read from memory/ and translate.memory, and others requested again), {_RESUME}"
        )
    return None
