"""What is never sent to a third party: texts that hold an e-mail address, a telephone number or a card-like number."""

from __future__ import annotations

import re

_EMAIL = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,250}\.[^\W\d_]{2,}", re.UNICODE)
# Digits with at most one separator between two of them.
_DIGITS = re.compile(r"(?<![\w.,])\+?\(?\d(?:[\s().\-/]{0,2}\d){6,}(?!\w)")


def private(text: str) -> str | None:
    """What personal data a text seems to hold, or None.

    Errs towards keeping a text at home: a barcode that could be a card number is not sent either.

    Examples
    --------
    >>> private("write to jo@example.org"), private("+49 170 1234567"), private("iphone 14 128gb 10000 mah")
    ('e-mail', 'telephone number', None)
    """
    if _EMAIL.search(text):
        return "e-mail"
    for found in _DIGITS.finditer(text):
        digits = re.sub(r"\D", "", found.group())
        if 12 <= len(digits) <= 19 and _luhn(digits):
            return "card-like number"
        # Between seven and fifteen digits (ITU-T E.164), written as numbers of things seldom are.
        if len(digits) <= 15 and (found.group().startswith(("+", "(", "00")) or (len(digits) >= 9 and digits.startswith("0"))):
            return "telephone number"
        if 9 <= len(digits) <= 15 and re.search(r"\d[\s().\-/]\d", found.group()) and len(re.findall(r"\d+", found.group())) >= 3:
            return "telephone number"
    return None


def _luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(int(character) for character in reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
