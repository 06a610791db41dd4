"""The one normal form of a text, used wherever two texts are asked to be the same; and a wider one, for near-duplicates."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def collapse_spaces(text: str) -> str:
    """Runs of white space made one space, none at the ends; all else as it was."""
    return " ".join(text.split())


@lru_cache(maxsize=1 << 18)  # the same queries come again and again: by row, by rule
def normalise(text: str) -> str:
    """Unicode NFKC, case-folded, runs of white space made one space.

    Examples
    --------
    >>> normalise("  iPhone　14  Case ")
    'iphone 14 case'
    """
    # Folding can undo NFKC (U+0345), so the form is taken again: normalise(normalise(x)) == normalise(x).
    return collapse_spaces(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def query_key(language: str, query: str) -> tuple[str, str]:
    """Identify a query by its language and its normal form.

    Examples
    --------
    >>> query_key("en", " Phone  Case")
    ('en', 'phone case')
    """
    return language, normalise(query)


@lru_cache(maxsize=1 << 18)
def fold(text: str) -> str:
    """The form that near-duplicates share: `normalise` without accents, punctuation and the order of words.

    Accents are those of Latin, Greek and Cyrillic; the vowel signs and voicing marks of other scripts make other words, and stay. A text
    of nothing but punctuation is its own form.

    Examples
    --------
    >>> folded("Câmera-3D 1,5 kg!"), folded("1.5 KG camera 3d")
    ('1.5 3d camera kg', '1.5 3d camera kg')
    """
    bare = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", normalise(text)))
    decimals = re.sub(r"(?<=\d)[.,](?=\d)", "\0", bare)  # a point between digits is no punctuation
    words = "".join(" " if unicodedata.category(one)[0] in "PS" else one for one in decimals).replace("\0", ".").split()
    # NFKD takes Hangul apart; NFKC puts it together again.
    return unicodedata.normalize("NFKC", " ".join(sorted(words))) or normalise(text)
