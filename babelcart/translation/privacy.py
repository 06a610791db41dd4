"""What is never sent to a third party: texts that seem to hold an e-mail or postal address, a telephone number or a card-like number."""

from __future__ import annotations

import re
import unicodedata

from babelcart.rows.text import normalise

# An @ between two words, however it is written; spelt out, only where it looks like nothing else.
_EMAIL = re.compile(
    r"[^\s@]\s*(?:@|%40|&#0*64;|&#x0*40;|&commat;)\s*[\w\[\"]"
    r"|\w\s*[(\[{<]\s*(?:at|arroba|arobase)\s*[)\]}>]\s*\w"
    r"|\w\s+(?:at|arroba|arobase)\s+[\w-]+(?:\.|\s+(?:dot|punto|ponto|point|punkt)\s+)[a-z]{2,}"
)
# Seven digits or more with little between two of them; years, sizes of tyres and model numbers are told apart below.
_DIGITS = re.compile(r"[+(]?\d(?:[\W_]{0,3}\d){6,}")
_YEARS = re.compile(r"(?:19|20)\d\d(?:[\W_]+(?:19|20)\d\d)+")
_TYRE = re.compile(r"[1-3]\d5\W{1,3}[2-9][05]\W{1,3}(?:1[2-9]|2[0-4])")
_HAN_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")

_NUMBER = r"\d{1,5}[a-z]?"
_WORDS = r"(?:[^\W\d_][\w.'’-]*,?\s+)"
_ADDRESS = re.compile(
    "|".join(
        (
            # A house number, then a word for a street: 221b baker street. Not: 64 gb usb drive.
            rf"\b{_NUMBER},?\s+(?!(?:[gtmk]b|inch|in|mm|cm|ft|v|w|pcs?|pack|piece|set|port|bay)\b){_WORDS}{{1,3}}"
            r"(?:street|avenue|ave|road|rd|lane|ln|boulevard|blvd|crescent|terrace|parkway|pkwy|highway|hwy|mews|court"
            r"|(?<!usb )(?<!hard )(?<!flash )(?<!wheel )drive)\b",
            rf"\b{_NUMBER},?\s+(?:bis\s+|ter\s+)?(?:rue|chemin|impasse|quai|avenue|boulevard|allée|place|cours)\s+[^\W\d_]",
            rf"\b{_NUMBER},?\s+(?:đường|phố|ngõ|ngách|hẻm)\b",
            # A word for a street, then the house number: rue de rivoli 10, via roma 3, hauptstrasse 5.
            rf"\b(?:rue|calle|avenida|av|carrera|paseo|plaza|rua|travessa|alameda|praça|via|viale|piazza|corso|vicolo|ulica|ul|aleja|al"
            rf"|osiedle|jalan|jl|jln|gang|đường|phố|ngõ)\b\.?\s*{_WORDS}{{1,4}}(?:(?:no|nº|n°|nr|num|số)\b\.?\s*)?{_NUMBER}\b",
            rf"\w\w[ -]?(?:strasse|str\.?|gasse|allee|platz|weg|straat|laan)\s+{_NUMBER}\b",
            r"\b(?:p\.?\s?o\.?\s?box|postfach|postbus|apartado(?:\s+postal)?|caixa\s+postal|boîte\s+postale)\s*\d",
            # Words and signs that stand in addresses alone.
            r"شارع\D{0,40}\d|\d\D{0,20}شارع|(?:ถนน|ซอย|หมู่ที่|ตำบล|แขวง)\D{0,40}\d|\d\D{0,20}(?:ถนน|ซอย|ตำบล|แขวง)",
            r"〒|\d\s*(?:丁目|番地)|\d番\d+号|[都道府県市区町村郡][^\s\d]{0,20}\d+-\d+",
            r"[가-힣](?<![가세으])(?:로|길)\s?\d|[가-힣]\s?\d+(?:-\d+)?번(?:지|길)",
        )
    )
)


def personal_data(text: str) -> str | None:
    """What personal data a text seems to hold, or None.

    Errs towards keeping a text at home: seven digits in a row, or in groups, are taken for a telephone number, twelve for a card; a list
    of years, a tyre's size or a model number of letters and up to eight digits are not. A postal address is a house number beside a word
    for a street. Digits of any script count. Not found: numbers and addresses spelt out in words, telephone numbers of fewer than seven
    digits.

    Examples
    --------
    >>> private("write to jo@example.org"), private("+49 170 1234567"), private("iphone 14 128gb 10000 mah")
    ('e-mail', 'telephone number', None)
    """
    plain = _plain(text)
    if _EMAIL.search(plain):
        return "e-mail"
    for found in _DIGITS.finditer(plain):
        run = found.group()
        digits = sum(character.isdigit() for character in run)
        # Letters that touch the only group of digits make it a model number: sm9900123.
        model = digits < 9 and run.isdigit() and plain[max(0, found.start() - 1) : found.start()].isalpha()
        if not (model or _YEARS.fullmatch(run) or _TYRE.fullmatch(run)):
            return "card-like number" if digits >= 12 else "telephone number"
    return "postal address" if _ADDRESS.search(plain) else None


def _plain(text: str) -> str:
    """Normal form without invisible characters, digits of every script as 0 to 9."""
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    plain = "".join(str(unicodedata.decimal(character, character)) for character in normalise(visible))
    return plain.translate(_HAN_DIGITS) if re.search("[〇零一二三四五六七八九]{7}", plain) else plain
