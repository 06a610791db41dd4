"""Cells that a spreadsheet would run as formulas, in CSV files that people open (OWASP, "CSV Injection").

A cell that begins with ``=``, ``+``, ``-``, ``@``, their full-width forms, a tab or a line break gets an apostrophe in front, and so
does one that begins with apostrophes before those: so the change can be undone, and nothing else is touched.
"""

from __future__ import annotations

import re

_FORMULA = re.compile("'*[=+\\-@＝＋－＠\t\r\n]")
_GUARDED = re.compile("'" + _FORMULA.pattern)


def escape_formula(cell: str) -> str:
    """The cell as text in every spreadsheet.

    Examples
    --------
    >>> guard("=1+1"), guard("'90s dress")
    ("'=1+1", "'90s dress")
    """
    return "'" + cell if _FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """What `guard` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell
