"""Forms of a text: the normal form, in which equal texts are the same text, and the folded form, which near-duplicates share."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def collapse_spaces(text: str) -> str:
    """Replace runs of white space by one space and strip the ends."""
    return " ".join(text.split())


@lru_cache(maxsize=1 << 18)  # most queries occur in several rows, and several checks normalise them
def normalise(text: str) -> str:
    """The normal form: Unicode NFKC, case-folded, with runs of white space replaced by one space.

    Examples
    --------
    >>> normalise("  iPhone　14  Case ")
    'iphone 14 case'
    """
    # NFKC twice, because case folding can undo it (U+0345); so normalise(normalise(x)) == normalise(x).
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
    """The form that near-duplicates share: the normal form without accents and punctuation, with its words sorted.

    Removes the accents of Latin, Greek and Cyrillic, but not the vowel signs and voicing marks of other scripts, which distinguish words.
    For a text that consists of punctuation, it is the normal form.

    Examples
    --------
    >>> fold("Câmera-3D 1,5 kg!"), fold("1.5 KG camera 3d")
    ('1.5 3d camera kg', '1.5 3d camera kg')
    """
    bare = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", normalise(text)))
    decimals = re.sub(r"(?<=\d)[.,](?=\d)", "\0", bare)  # keep the decimal point of numbers
    spaced = "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in decimals)
    words = spaced.replace("\0", ".").split()
    # NFKC again, because NFKD decomposes Hangul syllables.
    return unicodedata.normalize("NFKC", " ".join(sorted(words))) or normalise(text)
