"""Forms of a text: the normal form, in which equal texts are the same text, and the folded form, which near-duplicates share.

All comparisons of texts use one of these forms. Models, translation engines and submissions get the text as it was written.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

# The version of the normal form, which files with texts in normal form record. Increase it when `normalise` changes.
NORMAL_FORM = 2

# Characters that are not read: control characters except white space; format characters (category Cf), such as the soft hyphen, joiners,
# marks of direction and the byte order mark; other characters that Unicode ignores by default (Default_Ignorable_Code_Point), such as
# variation selectors and the combining grapheme joiner; the Arabic tatweel, which stretches a word; and the object replacement character.
INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u0640\u06dd\u070f\u0890\u0891\u08e2\u115f\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffc"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
# Characters that look like a space, but that `str.split` does not split at: the Hangul filler, to which NFKC maps the other fillers of
# Hangul, and the empty Braille pattern.
HANGUL_FILLER, EMPTY_BRAILLE = "\u1160", "\u2800"
# Letters without a decomposition in Unicode whose names do not contain their base letters, as _LATIN_NAME expects.
_BASE_LETTERS = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
# Arabic letters that are written in place of each other, as the normalisers of Apache Lucene for Arabic and Persian map them.
_ARABIC_LETTERS = {"ی": "ي", "ى": "ي", "ې": "ي", "ک": "ك", "ڪ": "ك", "ة": "ه", "ہ": "ه", "ە": "ه", "ٱ": "ا"}
# A character reference of HTML, with its semicolon: &gt; and &#62; but not &c.
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_LATIN_NAME = re.compile(r"LATIN (?:SMALL LETTER|LETTER SMALL CAPITAL) (?:DOTLESS )?([A-Z])(?: WITH .+)?")


def collapse_spaces(text: str) -> str:
    """Replace runs of white space by one space and strip the ends."""
    return " ".join(text.split())


@lru_cache(maxsize=1 << 18)  # most queries occur in several rows, and several checks normalise them
def normalise(text: str) -> str:
    """Return the normal form: Unicode NFKC, case-folded, without invisible characters, and with runs of white space replaced by one space.

    This is NFKC_Casefold of the Unicode Standard (section 3.13), which removes all characters that Unicode ignores by default, and in
    addition the rest of `INVISIBLE`. Two words of Persian or Hindi that differ only in a joiner have the same normal form.

    Examples
    --------
    >>> normalise("  iPhone　14  Case "), normalise("wire\xadless\u200b Mouse")
    ('iphone 14 case', 'wireless mouse')
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.lower().split())
    folded = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    # NFKC again, because case folding can undo it (U+0345), and because an invisible character can separate a letter and its accent.
    composed = folded if folded.isascii() else unicodedata.normalize("NFKC", folded)
    return collapse_spaces(composed.replace(HANGUL_FILLER, " ").replace(EMPTY_BRAILLE, " "))


def query_key(language: str, query: str) -> tuple[str, str]:
    """Identify a query by its language and its normal form.

    Examples
    --------
    >>> query_key("en", " Phone  Case")
    ('en', 'phone case')
    """
    return language, normalise(query)


class _BaseLetters(dict[int, str]):
    """Code point -> its replacement in the folded form; computed when `str.translate` looks up a character for the first time."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        name = _LATIN_NAME.fullmatch(unicodedata.name(character, ""))
        digit = unicodedata.decimal(character, None)
        if unicodedata.category(character)[0] in "PS":
            replacement = " "
        elif 0x300 <= code <= 0x36F or 0x64B <= code <= 0x655 or unicodedata.category(character) == "Me":
            replacement = ""  # accents of Latin, Greek and Cyrillic, vowels and hamza of Arabic, enclosing signs
        elif digit is not None:
            replacement = str(digit)
        else:
            replacement = name[1].lower() if name else _BASE_LETTERS.get(character) or _ARABIC_LETTERS.get(character, character)
        self[code] = replacement
        return replacement


_base_letters = _BaseLetters()


def replace_references(text: str) -> str:
    """Replace the character references of HTML, such as ``&amp;`` and ``&#39;``."""
    return _REFERENCE.sub(lambda reference: html.unescape(reference[0]), text) if "&" in text else text


@lru_cache(maxsize=1 << 18)
def fold(text: str) -> str:
    """Return the form that near-duplicates share: the normal form without accents and punctuation, with its words sorted.

    Removes the accents of Latin, Greek and Cyrillic and the vowels and hamza of Arabic, but not the vowel signs and voicing marks of other
    scripts, which distinguish words. Latin letters with a stroke or a hook become their base letters; variants of Arabic letters become
    one letter, and digits of all scripts ASCII digits. Character references of HTML are replaced. Letters of other scripts that look like
    Latin letters stay, because words in both scripts can differ in nothing else. For a text of punctuation only, it is the normal form.

    Examples
    --------
    >>> fold("Câmera-3D 1,5 kg!"), fold("1.5 KG camera 3d"), fold("Łódź"), fold("Tom &amp; Jerry")
    ('1.5 3d camera kg', '1.5 3d camera kg', 'lodz', 'jerry tom')
    """
    normal = normalise(replace_references(text))
    decomposed = normal if normal.isascii() else unicodedata.normalize("NFKD", normal)
    decimals = re.sub(r"(?<=\d)[.,٫](?=\d)", "\0", decomposed)  # keep the decimal point of numbers
    words = decimals.translate(_base_letters).replace("\0", ".").split()
    folded = " ".join(sorted(words))
    # NFKC again, because NFKD decomposes Hangul syllables.
    return (folded if folded.isascii() else unicodedata.normalize("NFKC", folded)) or normal
