"""Escape cells of CSV files that a spreadsheet would run as formulas (OWASP, "CSV Injection").

A cell that begins with ``=``, ``+``, ``-``, ``@``, their full-width forms, a tab or a line break gets an apostrophe in front. So does a
cell that begins with apostrophes followed by one of these, so that every change can be undone. Other cells do not change.
"""

from __future__ import annotations

import re

_FORMULA = re.compile("'*[=+\\-@＝＋－＠\t\r\n]")
_ESCAPED = re.compile("'" + _FORMULA.pattern)


def escape_formula(cell: str) -> str:
    """Escape a cell, so that every spreadsheet shows it as text.

    Examples
    --------
    >>> escape_formula("=1+1"), escape_formula("'90s dress")
    ("'=1+1", "'90s dress")
    """
    return "'" + cell if _FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """Undo `escape_formula`."""
    return cell[1:] if _ESCAPED.match(cell) else cell
