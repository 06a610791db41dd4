"""The one exception whose message is written for the person at the keyboard, and what to say when the machine fails."""

from __future__ import annotations

import errno
import re
import sqlite3

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed (`ulimit -f`)",
}
_CLOSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "permission denied", errno.EPERM: "not permitted"}
_AGAIN = "then `dvc repro` again: it goes on where it was"
_HEAL = "`make heal`, then `dvc repro`, makes it again"


class UserError(Exception):
    """Something that the user can put right: the message says what was found, what is accepted and what to do."""


def explain(error: Exception) -> str | None:
    """What to tell the user of a failure of the machine; None of anything else, which is a bug and needs its traceback.

    Libraries raise the same failure in many types: it is known by its number (of the system, of SQLite, or in a message of
    Rust's), and want of memory by its message.
    """
    text = str(error)
    if isinstance(error, sqlite3.Error):
        return _of_database(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in text:
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
