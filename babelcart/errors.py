"""The one exception whose message is written for the person at the keyboard, and what helps to write the message."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 2


class UserError(Exception):
    """Something that the user can put right: the message says what was found, what is accepted and what to do."""


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
