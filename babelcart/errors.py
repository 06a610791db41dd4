"""The one exception whose message is written for the person at the keyboard, and what helps to write the message."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 2
# Control characters but tab and line feed, line separators, bidirectional embeddings, overrides and isolates, lone surrogates.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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


def shown(value: Any) -> str:
    """A value as a message quotes it: printable, and short whatever it holds."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number with more digits than Python writes
        return "a huge number"


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Say which folder it is that transformers or peft cannot read: they raise a dozen kinds, few of which name a file.

    Raises
    ------
    UserError
        For whatever they raise, but for memory that runs out.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            raise
        raise UserError(
            f"{folder} cannot be read ({type(error).__name__}: {str(error)[:500]}); `dvc checkout {folder}` brings it back, "
            "or delete it and run `dvc repro`"
        ) from error
