"""Category paths: levels joined by a comma without a space after it."""

from __future__ import annotations

import re

from babelcart.rows.text import normalise

_SEPARATOR = re.compile(r",(?! )")


def levels(path: str) -> tuple[str, ...]:
    """The levels of a category path, top first, in normal form.

    A comma followed by a space is part of a name. About one real path in a hundred breaks that rule
    ("kitchen,dining & bar"); it then gets one level more, which does no harm where paths are compared as prefixes.

    Examples
    --------
    >>> levels("automobiles, parts & accessories,exterior parts,aerials")
    ('automobiles, parts & accessories', 'exterior parts', 'aerials')
    """
    return tuple(normalise(level) for level in _SEPARATOR.split(path))


def related(first: str, second: str) -> bool:
    """Whether one path is the other, or an ancestor of the other."""
    a, b = levels(first), levels(second)
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]
