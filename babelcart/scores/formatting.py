"""Numbers of scores as text. Only display rounds: every computation uses the unrounded numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def format_probability(probability: float) -> str:
    """Format a probability or a threshold with three decimals, or with more where 0 or 1 is nearer than 0.001.

    A threshold of 0.99996 would otherwise be displayed as 1.000, which no row reaches.

    Examples
    --------
    >>> [format_probability(p) for p in (0.5, 1.0, 0.99996, 1 - 2**-53, 3.21e-5, 2e-12)]
    ['0.500', '1.000', '0.999960', '0.99999999999999989', '0.000032', '2.0e-12']
    """
    distance = min(probability, 1 - probability)
    if distance <= 0 or distance >= 0.001:
        return f"{probability:.3f}"
    if probability < 1e-6:
        return f"{probability:.1e}"
    return f"{probability:.{1 - math.floor(math.log10(distance))}f}"


def format_count(scores: Mapping[str, Any]) -> str:
    """Return the number of scored rows of a slice, for a column with the title "rows": ``3,000``, or ``19 of 20 labelled``."""
    rows, all_rows = scores["rows"], scores.get("all_rows", scores["rows"])
    return f"{rows:,}" if rows == all_rows else f"{rows:,} of {all_rows:,} labelled"


def format_rows(scores: Mapping[str, Any], of: str = "") -> str:
    """Format the number of scored rows of a slice.

    Parameters
    ----------
    scores : mapping
        ``rows``, the number of rows with a label, and ``all_rows`` if other rows have none.
    of : str
        Name of the split, if it is to be part of the text.

    Examples
    --------
    >>> format_rows({"rows": 3000}), format_rows({"rows": 19, "all_rows": 20})
    ('3,000 rows', '19 of 20 rows labelled')
    >>> format_rows({"rows": 3000}, "dev"), format_rows({"rows": 19, "all_rows": 20}, "dev")
    ('3,000 dev rows', '19 of 20 dev rows labelled')
    """
    rows, all_rows = scores["rows"], scores.get("all_rows", scores["rows"])
    name = f"{of} rows" if of else "rows"
    return f"{rows:,} {name}" if rows == all_rows else f"{rows:,} of {all_rows:,} {name} labelled"
