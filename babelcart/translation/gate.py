"""The quality gate: rules that reject wrong translations of short shop texts.

The rules compare a translation with its source text and need no reference translation. Their limits were set on translations of the
sample. `benchmarks/gate.py` measures precision and recall on planted errors; docs/translation.md has the figures.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from babelcart.rows.scripts import script_counts, script_of
from babelcart.rows.text import normalise
from babelcart.translation import notices

REASONS = ("empty", "notice", "markup", "repeated", "numbers", "units", "codes", "script", "identical", "length", "language")

# (target language, texts) -> the texts that are in another language.
LanguageIdentifier = Callable[[str, Sequence[str]], set[str]]

_SCRIPTS: dict[str, tuple[str, ...]] = {
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "he": ("HEBREW",), "th": ("THAI",), "ko": ("HANGUL",), "el": ("GREEK",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"), "zh": ("CJK",), "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",),
    "hi": ("DEVANAGARI",), "bn": ("BENGALI",), "ta": ("TAMIL",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",),
}  # fmt: skip
_MARKUP = re.compile(
    r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z]{2,8}|#x?[0-9a-fA-F]{1,6});|[{<]{2}|[}>]{2}|�|▁|@@|<unk>|\\u[0-9a-f]{4}"
    r"|[ÃÂÐ][\x80-\xbf]|â€"  # UTF-8 that was read as ISO 8859-1 or Windows-1252
)
_NUMBER = re.compile(r"\d+(?:[.,٫٬]\d+)*")
# Runs of ASCII letters and digits, which may have the separators - . / inside.
_SEPARATOR = re.compile(r"[-./]")
_ASCII_RUN = re.compile(r"[a-z0-9]+(?:[-./][a-z0-9]+)*")
# A number with its unit, a count or dimensions, which languages write differently: 12v, 3in1, 30x40cm.
_QUANTITY = re.compile(r"\d+[a-z]{1,5}|\d+in\d+|\d+x\d+(?:x\d+)?[a-z]{0,2}")
_REPETITION = re.compile(r"(.{2,12}?)\1{3,}")
_WORD = re.compile(r"[^\W_]+(?:[-./][^\W_]+)*")
# A unit as the target languages write it -> the unit.
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "mm": "mm مم มม ミリ 밀리", "cm": "cm سم ซม センチ 센치 센티", "m": "m متر م เมตร ม メートル 미터", "ml": "ml مل มล", "cl": "cl",
        "l": "l لتر ลิตร リットル 리터", "mg": "mg", "g": "g gr جم غرام กรัม ก グラム 그램", "kg": "kg كجم كغ كغم กก キロ 킬로", "mb": "mb",
        "gb": "gb جيجا 기가", "tb": "tb", "mah": "mah", "hz": "hz", "khz": "khz", "mhz": "mhz", "ghz": "ghz", "kw": "kw", "mp": "mp",
        "w": "w واط วัตต์ ワット 와트", "v": "v فولت โวลต์ ボルト 볼트",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_MEASURE = re.compile(
    r"(\d+(?:[.,]\d+)*)[\s\-]?(" + "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True)) + r")(?![^\W\d_])", re.I
)
# Scripts in which one character carries as much information as two or three of other scripts.
_DENSE_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def _ascii_digits(text: str) -> str:
    """Replace the digits and decimal signs of all scripts by those of ASCII."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).replace("٫", ".").replace("٬", ",")


def _numbers(text: str) -> Counter[str]:
    """Count numbers in one notation: 12,5 is 12.5, and 1.000 is 1000 (three digits after a separator are thousands)."""
    numbers: Counter[str] = Counter()
    for number in _NUMBER.findall(text):
        first, *groups = re.split(r"[.,]", number)
        integer = "".join([first, *(digits for digits in groups if len(digits) == 3)]).lstrip("0") or "0"
        decimals = [digits.rstrip("0") for digits in groups if len(digits) != 3]
        numbers[integer + "".join(f".{digits}" for digits in decimals if digits)] += 1
    return numbers


def _measures(text: str) -> set[tuple[str, str]]:
    """Pairs of a number and its unit."""
    return {(number.replace(",", "."), _UNITS[unit.lower()]) for number, unit in _MEASURE.findall(text)}


def _ascii_runs(text: str) -> list[str]:
    """Runs of ASCII letters and digits without separators: "wh-1000xm4" and "wh 1000xm4" are the same code."""
    return [_SEPARATOR.sub("", run) for run in _ASCII_RUN.findall(text)]


def _codes(runs: list[str]) -> set[str]:
    """Model codes: runs with letters and digits, except quantities, which languages write differently."""
    mixed = (run for run in runs if not run.isalpha() and not run.isdigit())
    return {run for run in mixed if not _QUANTITY.fullmatch(run)}


def _contains(runs: list[str], codes: set[str]) -> bool:
    """Return whether a text contains all codes, each as one run or divided into two or three consecutive runs."""
    if codes <= set(runs):
        return True
    return codes <= {"".join(runs[start : start + length]) for length in (1, 2, 3) for start in range(len(runs))}


def _is_repeated(text: str) -> bool:
    """Return whether a word occurs three times, or a group of characters four times in a row."""
    words = Counter(word for word in text.split() if len(word) > 1)
    return any(count >= 3 for count in words.values()) or _REPETITION.search(text) is not None


def _length(text: str) -> float:
    """Length in characters of scripts such as Latin."""
    return sum(2.4 if script_of(character) in _DENSE_SCRIPTS else 1.0 for character in text)


def _is_international(text: str, shared_words: Collection[str]) -> bool:
    """Return whether a text is the same in all languages: it has only codes, numbers, and words that several languages share."""
    return all(not word.isalpha() or len(word) == 1 or word in shared_words for word in _WORD.findall(text))


def check(source: str, target: str, text: str, translation: str, shared_words: Collection[str] = ()) -> str | None:
    """Check one translation; see `check_many`."""
    return check_many(source, target, [(text, translation)], shared_words)[0]


def check_many(
    source: str,
    target: str,
    pairs: Sequence[tuple[str, str]],
    shared_words: Collection[str] = (),
    identify: LanguageIdentifier | None = None,
) -> list[str | None]:
    """Check translations from one language to another.

    Parameters
    ----------
    source, target : str
        ISO 639-1 codes.
    pairs : sequence of tuple
        A short text, such as a query, and its translation.
    shared_words : collection of str
        Normal forms of words that several languages share (brands, "usb"). A translation may equal its source if it has no other words.
    identify : callable, optional
        `other_languages`, or a version of it with a cache.

    Returns
    -------
    list of (str or None)
        None for an accepted translation, otherwise one of `REASONS`: ``empty``; a ``notice`` of a server; ``markup`` that the source
        lacks; a ``repeated`` word or group of characters; ``numbers``, ``units`` or model ``codes`` that were lost, changed or invented;
        wrong ``script``; ``identical`` to the source; ``length`` out of proportion; wrong ``language``, if the identifier is certain.
    """
    verdicts = [_check(source, target, text, translation, shared_words) for text, translation in pairs]
    # Languages with a script of their own are recognised by the script.
    if target not in _SCRIPTS:
        accepted = {index: normalise(pairs[index][1]) for index, reason in enumerate(verdicts) if reason is None}
        to_identify = {index: text for index, text in accepted.items() if not _is_international(text, shared_words)}
        in_other_language = (identify or other_languages)(target, sorted(set(to_identify.values())))
        for index, text in to_identify.items():
            if text in in_other_language:
                verdicts[index] = "language"
    return verdicts


def _check(source: str, target: str, text: str, translation: str, shared_words: Collection[str]) -> str | None:
    """Apply all rules except the language identifier."""
    before, after = _ascii_digits(normalise(text)), _ascii_digits(normalise(translation))
    if not any(character.isalnum() for character in after):
        return None if after and not any(character.isalnum() for character in before) else "empty"
    if notices.notice(text, translation):
        return "notice"
    if set(_MARKUP.findall(translation)) - set(_MARKUP.findall(text)):
        return "markup"
    if _is_repeated(after) and not _is_repeated(before):
        return "repeated"
    if reason := _check_digits(before, after):
        return reason
    is_international = _is_international(before, shared_words)
    if _has_wrong_script(source, target, before, after, is_international):
        return "script"
    if before == after and source != target and not is_international:
        return "identical"
    length_before, length_after = _length(before), _length(after)
    if length_after > 2.2 * length_before + 10 or length_before > 2.2 * length_after + 10:
        return "length"
    return None


def _check_digits(before: str, after: str) -> str | None:
    """Compare numbers, units and model codes."""
    if not any(character.isdigit() for character in before + after):
        return None
    if _numbers(before) != _numbers(after):
        return "numbers"
    if _has_wrong_units(before, after):
        return "units"
    runs_before, runs_after = _ascii_runs(before), _ascii_runs(after)
    if not (_contains(runs_after, _codes(runs_before)) and _contains(runs_before, _codes(runs_after))):
        return "codes"
    return None


def _has_wrong_units(before: str, after: str) -> bool:
    measures_before, measures_after = _measures(before), _measures(after)
    changed = {number for number, _ in measures_before - measures_after} & {number for number, _ in measures_after}
    # A number without a known unit is accepted: languages have spellings of units that `_UNITS` lacks.
    return bool(changed) and not measures_before <= measures_after


def _has_wrong_script(source: str, target: str, before: str, after: str, is_international: bool) -> bool:
    """Return whether a translation has letters that neither its language nor its source explains, or none of its language's script."""
    letters = script_counts(after)
    expected = _SCRIPTS.get(target, ())
    foreign = {script for script in letters if script != "LATIN" and script not in expected}
    # A word may stay in the script of the source language, but only up to a third of the letters.
    explained = set(script_counts(before)) & set(_SCRIPTS.get(source, ())) | {"LATIN"}
    if foreign - explained or 3 * sum(letters[script] for script in foreign) > letters.total():
        return True
    return bool(expected) and not any(letters[script] for script in expected) and not is_international


def other_languages(target: str, texts: Sequence[str]) -> set[str]:
    """Find texts that are certainly not in the language `target`, but in another language with Latin script.

    The identifier is lingua (Stahl, https://github.com/pemistahl/lingua-rs), which supports texts as short as queries.

    Parameters
    ----------
    target : str
        ISO 639-1 code.
    texts : sequence of str
        Texts in normal form.

    Returns
    -------
    set of str
        The texts in another language; texts with fewer than six letters are never among them.
    """
    from lingua import IsoCode639_1, Language

    code = getattr(IsoCode639_1, target.upper(), None)
    words = {text: " ".join(word for word in _WORD.findall(text) if word.isalpha() and len(word) > 1) for text in texts}
    long_enough = [text for text in texts if len(words[text]) >= 6]
    if code is None or not long_enough:
        return set()
    target_language = Language.from_iso_code_639_1(code)
    identifier = _identifier(target_language)
    confidences = identifier.compute_language_confidence_values_in_parallel([words[text] for text in long_enough])
    in_other_language = set()
    for text, ranking in zip(long_enough, confidences, strict=True):
        best = ranking[0]
        target_confidence = next((confidence.value for confidence in ranking if confidence.language == target_language), 0.0)
        # Limits set on the even half of the sample's memory (benchmarks/gate.py): 1 % of its correct translations are refused.
        if best.language != target_language and best.value >= 0.4 and best.value >= 10 * target_confidence:
            in_other_language.add(text)
    return in_other_language


@lru_cache(maxsize=32)
def _identifier(target_language: Any) -> Any:
    """Return a lingua detector for the languages of shops in Latin script and `target_language`."""
    from lingua import Language, LanguageDetectorBuilder

    shop_languages = "DUTCH ENGLISH FRENCH GERMAN INDONESIAN ITALIAN POLISH PORTUGUESE SPANISH TURKISH VIETNAMESE".split()  # noqa: SIM905
    return LanguageDetectorBuilder.from_languages(*{target_language, *(getattr(Language, name) for name in shop_languages)}).build()
