"""Recognise answers of a translation server that are no translations: notices about quotas and limits, error and consent pages.

Such answers often come with status 200, in the place of the translation. They are never stored, so that the text is sent again in the
next run. `notice` finds known wordings; `SameAnswers` finds unknown ones, because a notice is the same for every text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from typing import Any

from babelcart.rows.text import collapse_spaces, fold, normalise
from babelcart.translation.wordings import OTHER_LANGUAGES

# Names of services, addresses, and wordings of notices. None of them occurs in the translation of a text that lacks it.
_NOTICE = re.compile(
    "|".join(
        (
            r"<!doctype\b", r"</?(?:html|head|body|script|title|meta|iframe)\b", r"^[\[{]\s*[\"\[{]",  # a page, or JSON
            r"https?://", r"\bwww\.\w", r"\.php\b", r"[\w.]+@[\w-]+\.\w",
            r"\bmymemory\b", r"\blibre ?translate\b", r"\bcloudflare\b", r"\bre?captcha\b", r"\bdeepl\b", r"\blangpair\b", r"\brfc ?3066\b",
            r"\bused all available\b", r"\bavailable free translations\b", r"\bnext available in\b",
            r"\b(?:quota|limits?) (?:is |was |has been |have been )?(?:exceeded|reached|used up|exhausted)\b",
            r"\bexceed(?:s|ed|ing)? (?:\w+ ){0,4}(?:limit|quota)\b", r"\bout of (?:quota|credits)\b",
            r"\binsufficient (?:quota|credits|balance|funds)\b",
            r"\btoo many requests?\b", r"\brate limit(?:ed|s|ing)? (?:exceeded|reached|error)\b", r"\bslow ?down:", r"\brequest limits?\b",
            r"\binvalid (?:language|source|target|email|api|auth\w*|request|key|token)\b", r"\bis an invalid\b",
            r"\binvalid \w+ language\b",
            r"\bselect two distinct languages\b", r"\bno query specified\b", r"\bauthenticat\w+ fail\w*\b", r"\bapi[ -]?keys?\b",
            r"\b(?:language|pair) (?:is )?not supported\b", r"\bcannot translate text\b", r"\btranslation (?:failed|error|not found)\b",
            r"\bbefore you continue\b", r"\bunusual traffic\b", r"\bautomated queries\b", r"\bverify (?:that )?you are (?:a )?human\b",
            r"\bnot a robot\b", r"\bchecking your browser\b", r"\bjust a moment\.\.\.", r"\benable (?:javascript|cookies)\b",
            r"\bterms of (?:service|use)\b", r"\bprivacy policy\b", r"\baccept all cookies\b", r"\bclick here if you are not redirected\b",
            r"\b(?:server|client) error\b", r"\berror:? \d{3}\b", r"\bthat's an error\b", r"\bbad gateway\b", r"\bgateway time-?out\b",
            r"\bservice (?:is )?(?:temporarily )?unavailable\b", r"\btemporarily (?:unavailable|blocked|out of service)\b",
            r"\b(?:try|please try) again (?:later|in|tomorrow)\b", r"\baccess (?:is |was )?denied\b", r"\bpayment required\b",
            r"\bunauthori[sz]ed\b",
            r"\b(?:maintenance mode|(?:performing|scheduled|under) maintenance)\b", r"\bplease slow down\b", r"\bhas been blocked\b",
            r"\bupgrade your (?:plan|account)\b", r"\bsubscription (?:has )?expired\b", r"\b(?:log|sign) in to continue\b",
            r"\bplease (?:log|sign) in\b", r"\brequest (?:id|timed out|timeout)\b", r"\bsomething went wrong\b",
            r"\ban error (?:has )?occurred\b", r"\bno translation (?:available|found)\b",
            r"\btranslation (?:is )?(?:unavailable|not available)\b", r"\busage limits?\b", r"\bquota used\b",
            r"\A(?:undefined|null|nan|none|n/a|\[object object\]|error|forbidden|not found|bad request|time-?out)[.!]*\Z",
            r"\A(?:quota|captcha|oops)[.!]*\Z",
            *OTHER_LANGUAGES,
            r"\bas an ai\b", r"\b(?:i am|i'm) sorry\b", r"\bi (?:cannot|can't|am unable to)\b",
            r"\bhere(?: is|'s) (?:the|your|a) translation\b",
        )
    ),
    re.IGNORECASE,
)  # fmt: skip
# A text that is refused because of its length, although the server works.
_TOO_LONG = re.compile(r"\bquery length limit\b|\bexceeds? (?:the )?(?:character|text) limit\b", re.IGNORECASE)
# Fields of JSON answers that report an error, in the APIs that deep-translator uses.
_ERROR_FIELDS = ("error", "errors", "error_code", "error_msg", "error_message", "errorCode", "errorMessage", "exception_code")
_MESSAGE_FIELDS = ("responseDetails", "error_msg", "error_message", "errorMessage", "message", "error")
_FALSE = ("", "0", "false", "null", "none", "[]", "{}")
# Clearly different texts that may not share an answer.
SUSPICIOUS_TEXTS = 3


def notice(text: str, answer: str) -> str | None:
    """Find the wording of a notice in an answer.

    Parameters
    ----------
    text : str
        The text that was sent.
    answer : str

    Returns
    -------
    str or None
        The words that identify the notice, without its details; None if the answer may be a translation. A wording that also occurs in
        the text is no notice.

    Examples
    --------
    >>> notice("phone case", "MYMEMORY WARNING: YOU USED ALL AVAILABLE FREE TRANSLATIONS FOR TODAY.")
    'MYMEMORY'
    >>> notice("captcha for dummies book", "captcha für dummies buch") is None
    True
    """
    answer = collapse_spaces(answer).replace("’", "'")
    matches = [match[0] for match in _NOTICE.finditer(answer)]
    if not matches:
        return None
    text = normalise(text).replace("’", "'")
    return next((words for words in matches if normalise(words) not in text), None)


def is_too_long(text: str, answer: str) -> bool:
    """Return whether an answer is the notice that the text is too long."""
    return _TOO_LONG.search(answer) is not None and _TOO_LONG.search(text) is None


def reported_error(body: Any) -> str | None:
    """Find an error that a JSON answer reports although its HTTP status is 200.

    Parameters
    ----------
    body
        The parsed answer.

    Returns
    -------
    str or None
        The field that reports the error, its content and the server's message; None if no error is reported.

    Examples
    --------
    >>> reported_error({"responseData": {"translatedText": "x"}, "responseStatus": "403", "responseDetails": "INVALID LANGUAGE PAIR"})
    'responseStatus 403: INVALID LANGUAGE PAIR'
    >>> reported_error({"translatedText": "Gartenschlauch"}) is None
    True
    """
    if not isinstance(body, dict):
        return None
    field = next((name for name in _ERROR_FIELDS if _is_true(body.get(name))), None)
    if _is_true(body.get("quotaFinished")):
        field = "quotaFinished"
    status = body.get("responseStatus", 200)
    if str(status).strip() not in ("200", "200.0"):
        field = "responseStatus"
    if field is None:
        return None
    message = next((text for name in _MESSAGE_FIELDS if name != field and isinstance(text := body.get(name), str) and text.strip()), "")
    content = collapse_spaces(str(body[field]))[:60]
    return f"{field} {content}" + (f": {collapse_spaces(message)[:60]}" if message else "")


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() not in _FALSE


class SameAnswers:
    """Find answers that an engine gave for several clearly different texts.

    A notice is the same for every text, and a translation rarely is for three texts that have few letter pairs in common. Words with
    digits are ignored, because notices contain times, counters and identifiers of requests.

    Parameters
    ----------
    max_count : int
        The number of texts after which `add` stops counting.
    """

    def __init__(self, max_count: int = SUSPICIOUS_TEXTS) -> None:
        self._max_count = max(SUSPICIOUS_TEXTS, max_count)
        self._texts: defaultdict[str, list[str]] = defaultdict(list)  # answer -> texts that clearly differ from each other

    def add(self, text: str, answer: str) -> int:
        """Add an answer; return the number of clearly different texts that have it, at most `max_count`."""
        texts = self._texts[_form(text, answer)]
        if len(texts) < self._max_count and all(_differ(text, other) for other in texts):
            texts.append(text)
        return len(texts)

    def is_suspicious(self, text: str, answer: str) -> bool:
        """Return whether `SUSPICIOUS_TEXTS` clearly different texts have this answer."""
        return len(self._texts.get(_form(text, answer), ())) >= SUSPICIOUS_TEXTS


def _form(text: str, answer: str) -> str:
    """Return the form in which equal answers are the same: without digits, and with a placeholder for the text that it repeats."""
    text, answer = normalise(text), normalise(answer)
    if text and text != answer:
        answer = answer.replace(text, "\0")
    return _without_digits(answer)


@lru_cache(maxsize=1 << 16)
def _without_digits(text: str) -> str:
    """Replace runs of ASCII letters and digits that have digits, such as times, counters, addresses and identifiers of requests."""
    return re.sub(r"[a-z0-9._:-]*[0-9][a-z0-9._:-]*", "0", text)


@lru_cache(maxsize=1 << 16)
def _bigrams(text: str) -> frozenset[str]:
    """Pairs of neighbouring letters, without spaces and digits."""
    letters = re.sub(r"[\W\d_]", "", fold(text)) or text
    return frozenset(letters[start : start + 2] for start in range(max(1, len(letters) - 1)))


def _differ(first: str, second: str) -> bool:
    """Return whether two texts share less than a third of the letter pairs of the shorter one."""
    first_pairs, second_pairs = _bigrams(first), _bigrams(second)
    return len(first_pairs & second_pairs) * 3 < min(len(first_pairs), len(second_pairs))
