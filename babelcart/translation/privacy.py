"""Detect personal data, which is never sent to a server: e-mail and postal addresses, telephone numbers and card numbers."""

from __future__ import annotations

import re
import unicodedata

from babelcart.rows.text import normalise

# An @ between two words, also encoded, in brackets, or spelled out before a domain.
_EMAIL = re.compile(
    r"[^\s@]\s*(?:@|%40|&#0*64;|&#x0*40;|&commat;)\s*[\w\[\"]"
    r"|\w\s*[(\[{<]\s*(?:at|arroba|arobase)\s*[)\]}>]\s*\w"
    r"|\w\s+(?:at|arroba|arobase)\s+[\w-]+(?:\.|\s+(?:dot|punto|ponto|point|punkt)\s+)[a-z]{2,}"
)
# At least seven digits with at most three other characters between two of them.
_DIGITS = re.compile(r"[+(]?\d(?:[\W_]{0,3}\d){6,}")
# Digit runs that are no personal data: lists of years, sizes of tyres.
_YEARS = re.compile(r"(?:19|20)\d\d(?:[\W_]+(?:19|20)\d\d)+")
_TYRE = re.compile(r"[1-3]\d5\W{1,3}[2-9][05]\W{1,3}(?:1[2-9]|2[0-4])")
_HAN_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")

_NUMBER = r"\d{1,5}[a-z]?"
_WORDS = r"(?:[^\W\d_][\w.'’-]*,?\s+)"
_ADDRESS = re.compile(
    "|".join(
        (
            # A house number before a word for a street: 221b baker street, but not 64 gb usb drive.
            rf"\b{_NUMBER},?\s+(?!(?:[gtmk]b|inch|in|mm|cm|ft|v|w|pcs?|pack|piece|set|port|bay)\b){_WORDS}{{1,3}}"
            r"(?:street|avenue|ave|road|rd|lane|ln|boulevard|blvd|crescent|terrace|parkway|pkwy|highway|hwy|mews|court"
            r"|(?<!usb )(?<!hard )(?<!flash )(?<!wheel )drive)\b",
            rf"\b{_NUMBER},?\s+(?:bis\s+|ter\s+)?(?:rue|chemin|impasse|quai|avenue|boulevard|allée|place|cours)\s+[^\W\d_]",
            rf"\b{_NUMBER},?\s+(?:đường|phố|ngõ|ngách|hẻm)\b",
            # A house number after a word for a street: rue de rivoli 10, via roma 3, hauptstrasse 5.
            rf"\b(?:rue|calle|avenida|av|carrera|paseo|plaza|rua|travessa|alameda|praça|via|viale|piazza|corso|vicolo|ulica|ul|aleja|al"
            rf"|osiedle|jalan|jl|jln|gang|đường|phố|ngõ)\b\.?\s*{_WORDS}{{1,4}}(?:(?:no|nº|n°|nr|num|số)\b\.?\s*)?{_NUMBER}\b",
            rf"\w\w[ -]?(?:strasse|str\.?|gasse|allee|platz|weg|straat|laan)\s+{_NUMBER}\b",
            r"\b(?:p\.?\s?o\.?\s?box|postfach|postbus|apartado(?:\s+postal)?|caixa\s+postal|boîte\s+postale)\s*\d",
            # Words and characters that occur only in addresses.
            r"شارع\D{0,40}\d|\d\D{0,20}شارع|(?:ถนน|ซอย|หมู่ที่|ตำบล|แขวง)\D{0,40}\d|\d\D{0,20}(?:ถนน|ซอย|ตำบล|แขวง)",
            r"〒|\d\s*(?:丁目|番地)|\d番\d+号|[都道府県市区町村郡][^\s\d]{0,20}\d+-\d+",
            r"[가-힣](?<![가세으])(?:로|길)\s?\d|[가-힣]\s?\d+(?:-\d+)?번(?:지|길)",
        )
    )
)


def personal_data(text: str) -> str | None:
    """Return the kind of personal data that a text seems to contain, or None.

    In doubt, a text is taken for personal data. A run of seven digits, with or without separators, is taken for a telephone number, and
    a run of twelve for a card number, unless it is a list of years, the size of a tyre, or up to eight digits after a letter (a model
    number). A postal address is a house number next to a word for a street. Digits of all scripts are recognised. Not recognised:
    numbers and addresses that are spelled out, and telephone numbers with fewer than seven digits.

    Examples
    --------
    >>> personal_data("write to jo@example.org"), personal_data("+49 170 1234567"), personal_data("iphone 14 128gb 10000 mah")
    ('e-mail', 'telephone number', None)
    """
    plain = _plain(text)
    if _EMAIL.search(plain):
        return "e-mail"
    for match in _DIGITS.finditer(plain):
        run = match.group()
        digit_count = sum(character.isdigit() for character in run)
        # A letter directly before a single group of digits makes it a model number: sm9900123.
        is_model_number = digit_count < 9 and run.isdigit() and plain[max(0, match.start() - 1) : match.start()].isalpha()
        if not (is_model_number or _YEARS.fullmatch(run) or _TYRE.fullmatch(run)):
            return "card-like number" if digit_count >= 12 else "telephone number"
    return "postal address" if _ADDRESS.search(plain) else None


def _plain(text: str) -> str:
    """Return the normal form of a text, without invisible characters and with ASCII digits."""
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    plain = "".join(str(unicodedata.decimal(character, character)) for character in normalise(visible))
    return plain.translate(_HAN_DIGITS) if re.search("[〇零一二三四五六七八九]{7}", plain) else plain
