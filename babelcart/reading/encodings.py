"""The likely encoding of bytes that are not UTF-8, for `babelcart inspect` and for messages. A run never depends on it."""

from __future__ import annotations

import codecs
import re

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Encodings of shops' files, by the names that chardet and Python both know.
_CANDIDATES = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp850", "cp852", "cp866", "cp874", "cp932",
    "cp949", "big5hkscs", "gb18030", "euc_jis_2004", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-15", "koi8-r", "koi8-u",
    "mac-roman",
)  # fmt: skip
# More usual names of encodings that have the same characters.
_NAMES = {"cp932": "shift_jis", "euc_jis_2004": "euc_jp", "big5hkscs": "big5", "cp949": "euc_kr"}
# Signs of cp1252 that texts in English have, and those of them between two letters, which are letters of another encoding.
_ONLY_SIGNS = re.compile("[\0-\x7f\xa0“”‘’–—•…™®©°½¼¾²³£€¥§«»×±´·¿¡ºª¨µ]*")
_SIGN_IN_WORD = re.compile("[a-zA-Z][^\0-\x7f\xa0’´–—×][a-zA-Z]")
_SIGN_AT_LETTER = re.compile(r"[^\W\d_][\x80-\xbf]|[\x80-\xbf][^\W\d_]")
_LATIN, _OTHER_ALPHABETS = "A-Za-zÀ-ɏ", "Ͱ-ԯ\u0590-\u06ff"
_MIXED_WORD = re.compile(f"[{_LATIN}][{_OTHER_ALPHABETS}]|[{_OTHER_ALPHABETS}][{_LATIN}]")
_WORD_OF_OTHERS = re.compile(f"\\w*[{_OTHER_ALPHABETS}]\\w*")


def detect_encoding(sample: bytes) -> str | None:
    """Return the likely encoding of a text that is not UTF-8, as the name of a codec of Python.

    English text with signs such as ``½`` and ``’`` is Western. For others, chardet decides among the encodings that files of shops have.
    Its choice is refused if words would mix the Latin with another alphabet.

    Parameters
    ----------
    sample : bytes
        Lines of the text, best those with bytes above 127.

    Returns
    -------
    str or None
        None if no encoding fits.

    Examples
    --------
    >>> detect_encoding("łóżko dla psa, żółta lampka nocna".encode("cp1250"))
    'cp1250'
    """
    import chardet

    for mark, name in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return name
    if _has_only_signs(sample):
        return _usual_name(sample, "cp1252")
    candidates = list(_CANDIDATES)
    while candidates:
        best = chardet.detect(sample, include_encodings=[*candidates, "ascii"], compat_names=False, no_match_encoding="ascii")["encoding"]
        if best in (None, "ascii"):
            return None
        if best not in candidates or not _mixes_alphabets(sample.decode(best, "replace")):
            return _usual_name(sample, best)
        candidates.remove(best)
    return None


def _has_only_signs(sample: bytes) -> bool:
    """Return whether a text is English with signs such as ``½`` and ``’`` in a Western encoding."""
    text = sample.decode("cp1252", "replace")
    return _ONLY_SIGNS.fullmatch(text) is not None and _SIGN_IN_WORD.search(text) is None


def _mixes_alphabets(text: str) -> bool:
    """Return whether most words with Greek, Cyrillic, Hebrew or Arabic letters also have Latin letters."""
    words = _WORD_OF_OTHERS.findall(text)
    return 2 * sum(_MIXED_WORD.search(word) is not None for word in words) > len(words)


def _usual_name(sample: bytes, name: str) -> str:
    """Return the most usual encoding that decodes a sample as `name` does."""
    if name == "cp1253" and _signs_at_letters(sample, "iso8859-7") < _signs_at_letters(sample, name):
        return "iso8859-7"  # it differs in the capital alpha with an accent
    text = sample.decode(name, "replace")
    for usual in ("latin-1", "cp1252", _NAMES.get(name, name)):
        try:
            if sample.decode(usual) == text:
                return usual
        except UnicodeError:
            continue
    return name


def _signs_at_letters(sample: bytes, encoding: str) -> int:
    """Return the number of signs, such as ``¶``, directly before or after a letter."""
    return len(_SIGN_AT_LETTER.findall(sample.decode(encoding, "replace")))
