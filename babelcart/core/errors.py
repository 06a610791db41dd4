"""The one exception whose message is for the person at the keyboard, what helps to write it, and what to say when the machine fails."""

from __future__ import annotations

import errno
import re
import reprlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 2
# Control characters but tab and line feed, line separators, bidirectional embeddings, overrides and isolates, lone surrogates.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What no file can hold, though JSON and YAML can give it: NUL, and halves of surrogate pairs.
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed (`ulimit -f`)",
}
_CLOSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "permission denied", errno.EPERM: "not permitted"}
_AGAIN = "then `dvc repro` again: it goes on where it was"
_HEAL = "`make heal`, then `dvc repro`, makes it again"


def printable(text: str) -> str:
    r"""A text for a terminal or a log: what would move the cursor, colour, hide or reorder other text is shown as its escape.

    Examples
    --------
    >>> printable("dress\x1b[2J")
    'dress\\x1b[2J'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class UserError(Exception):
    """Something that the user can put right: the message says what was found, what is accepted and what to do.

    It may quote data, whatever stands in it: as text, it is `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def short_repr(value: Any) -> str:
    """A value as a message quotes it: printable, and short whatever it holds."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number with more digits than Python writes
        return "a huge number"


def out_of_memory(error: Exception) -> bool:
    """Whether it was want of memory: of the system's, or of a device's, which torch tells by a type or by its message alone."""
    told = isinstance(error, RuntimeError) and ("out of memory" in str(error).lower() or "DefaultCPUAllocator" in str(error))
    return told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def readable_folder(folder: Path) -> Iterator[None]:
    """Say which folder it is that transformers or peft cannot read: they raise a dozen kinds, few of which name a file.

    Raises
    ------
    UserError
        For whatever they raise, but for memory that runs out.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if getattr(error, "errno", None):  # the system's errors have a number, those about content have none
            raise
        if out_of_memory(error):
            raise
        raise UserError(
            f"{folder} cannot be read ({type(error).__name__}: {str(error)[:500]}); `make heal`, then `dvc repro`, makes it again"
        ) from error


def explain(error: Exception) -> str | None:
    """What to tell the user of a failure of the machine; None of anything else, which is a bug and needs its traceback.

    Libraries raise the same failure in many types: it is known by its number (of the system, of SQLite, or in a message of
    Rust's), and want of memory by its message.
    """
    text = str(error)
    if isinstance(error, sqlite3.Error):
        return _of_database(error)
    if out_of_memory(error):
        return _of_memory(text)
    # SafetensorError and what tokenizers raises name the number in their message.
    rust = re.search(r"\(os error (\d+)\)", text)
    number = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else None
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if number in _FULL:
        return (
            f"{where}{_FULL[number]} ({text}). Make room (`df -h .`; `dvc gc --workspace` drops what this revision does not use), {_AGAIN}"
        )
    if number in _CLOSED:
        return f"{where}{_CLOSED[number]} ({text}). Make it writable for you (`ls -ld`, `mount` show why it is not), {_AGAIN}"
    if number == errno.ENOMEM:
        return _of_memory(text)
    if number == errno.EIO:
        return f"{where}the disk fails ({text}). Look at `dmesg`, move the project to another disk, {_AGAIN}"
    if isinstance(error, FileNotFoundError) and where:
        return f"{where}does not exist. `dvc repro` makes it again, or `make pull` fetches what others shared"
    if type(error).__name__ == "SafetensorError":
        return f"a file of weights is damaged ({text}). {_HEAL}"
    return None


def _of_memory(text: str) -> str:
    return (
        f"out of memory ({text or 'no more could be had'}). Close other programs, or lower train.max_tokens, predict.max_tokens or "
        f"negatives.encoder.batch_size, or take a smaller model, {_AGAIN}"
    )


def _of_database(error: sqlite3.Error) -> str | None:
    """Of the project's databases, in .scratch, and of DVC's, in .dvc/tmp: SQLite does not say which."""
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"the disk is full, or fails ({error}). Make room (`df -h .`; `dmesg` tells of a disk that fails), {_AGAIN}"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"a database cannot be written ({error}). Make .scratch and .dvc/tmp writable for you, {_AGAIN}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process holds a database of .scratch ({error}). Wait for it or end it, {_AGAIN}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return (
            f"a database of .scratch is damaged ({error}). Delete .scratch/vectors.sqlite (time is lost), or .scratch/memory.sqlite (what "
            f"memory/ and translate.memory hold is read in again, the rest is asked again), {_AGAIN}"
        )
    return None
