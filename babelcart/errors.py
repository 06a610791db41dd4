"""The one exception whose message is written for the person at the keyboard, and what of a text is safe to print."""

from __future__ import annotations

import re

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
