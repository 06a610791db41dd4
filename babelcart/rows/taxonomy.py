"""Category paths, whose levels are separated by commas without a space after them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from babelcart.rows.text import normalise

_SEPARATOR = re.compile(r",(?! )")


def find_separator(paths: Iterable[str]) -> str:
    """The separator of the levels of some category paths."""
    return ","


def levels(path: str, separator: str = ",") -> tuple[str, ...]:
    """The levels of a category path in normal form, from the top level down.

    A comma followed by a space is part of a name. About one real path in a hundred breaks this rule ("kitchen,dining & bar") and gets an
    additional level. This is harmless where paths are compared by their prefixes.

    Examples
    --------
    >>> levels("automobiles, parts & accessories,exterior parts,aerials")
    ('automobiles, parts & accessories', 'exterior parts', 'aerials')
    """
    return tuple(normalise(level) for level in _SEPARATOR.split(path))


def related(first: str, second: str) -> bool:
    """Whether two paths are equal or one is an ancestor of the other."""
    return all(a == b for a, b in zip(levels(first), levels(second), strict=False))
