"""The one normal form of a text, used wherever two texts are asked to be the same."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=1 << 18)  # the same queries come again and again: by row, by rule
def normalise(text: str) -> str:
    """Unicode NFKC, case-folded, runs of white space made one space.

    Examples
    --------
    >>> normalise("  iPhone　14  Case ")
    'iphone 14 case'
    """
    # Folding can undo NFKC (U+0345), so the form is taken again: normalise(normalise(x)) == normalise(x).
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
