"""The languages of texts and the meaning of language, locale and country codes."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from babelcart.rows import languages
from babelcart.rows.countries import COUNTRIES, RARE_AS_LANGUAGES
from babelcart.rows.scripts import SCRIPTS, script_counts

# Names of languages in lingua.
_NAMES = """
    ARABIC BENGALI BOKMAL BULGARIAN CATALAN CHINESE CROATIAN CZECH DANISH DUTCH ENGLISH ESTONIAN FINNISH FRENCH GERMAN GREEK HEBREW HINDI
    HUNGARIAN INDONESIAN ITALIAN JAPANESE KOREAN LATVIAN LITHUANIAN MALAY PERSIAN POLISH PORTUGUESE ROMANIAN RUSSIAN SERBIAN SLOVAK SLOVENE
    SPANISH SWEDISH TAGALOG THAI TURKISH UKRAINIAN URDU VIETNAMESE
""".split()  # noqa: SIM905
_CONFIDENCE = 0.25
_FLOOR = 0.005
_OTHER_SCRIPTS = {"sr"}  # lingua knows Serbian in Cyrillic only
_OTHER_CODES = {"tl": "fil", "nb": "no"}


def language_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the shares of the languages of some short texts, the most frequent first.

    Each text counts for the language that lingua finds, if its confidence is at least `_CONFIDENCE`.

    Parameters
    ----------
    texts : sequence of str
        A sample, such as a few hundred queries. A single query is often too short; the sum over many is reliable.
    """
    if not texts:
        return {}
    totals: Counter[str] = Counter()
    for ranking in _detector().compute_language_confidence_values_in_parallel([text[:300] for text in texts]):
        code = ranking[0].language.iso_code_639_1.name.lower()
        if ranking[0].value >= _CONFIDENCE:
            totals[_OTHER_CODES.get(code, code)] += 1
    total = totals.total()
    if not total:
        return {}
    return dict(sorted(((code, weight / total) for code, weight in totals.items()), key=lambda item: (-item[1], item[0])))


def guess_language(text: str) -> tuple[str, float] | None:
    """Return the most likely language of a short text and lingua's confidence, 0 to 1; None if that is below `_CONFIDENCE`."""
    best = _detector().compute_language_confidence_values(text[:300])[0]
    if best.value < _CONFIDENCE:
        return None
    code = best.language.iso_code_639_1.name.lower()
    return _OTHER_CODES.get(code, code), best.value


def joint_scores(texts: Sequence[str]) -> dict[str, float]:
    """Return log-likelihoods of the languages of some texts that are all in one language, the most likely first.

    The sum of the logarithms of lingua's confidences, which is reliable for a dozen of short texts. A confidence below `_FLOOR` counts as
    this, so that a few texts in other languages do not decide.
    """
    totals: dict[str, float] = {}
    for ranking in _detector().compute_language_confidence_values_in_parallel([text[:300] for text in texts]):
        for confidence in ranking:
            code = confidence.language.iso_code_639_1.name.lower()
            code = _OTHER_CODES.get(code, code)
            totals[code] = totals.get(code, 0.0) + math.log(max(confidence.value, _FLOOR))
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


@lru_cache(maxsize=1)
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in _NAMES)).build()


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the shares of the scripts of the letters of some texts, the most frequent first."""
    letters = Counter(_script(character) for text in texts for character in text if character.isalpha())
    return {script: count / letters.total() for script, count in sorted(letters.items(), key=lambda item: (-item[1], item[0]))}


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    return unicodedata.name(character, "OTHER").split()[0].split("-")[0].capitalize()


def map_tag(tag: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """Return the language of a tag in a file, and why, if it is a guess.

    Parameters
    ----------
    tag : str
        A language code, locale, country code, or the English name of a language.
    texts : sequence of str
        Queries with this tag. They decide between the language and the country that a code may mean.

    Returns
    -------
    tuple
        ISO 639-1 code, or None if the tag is unknown; and the reason, "" if the tag is a language code in agreement with the texts.
    """
    key = tag.strip().casefold()
    code = languages.iso_code(tag)
    countries = COUNTRIES[key].languages if key in COUNTRIES else ()
    if not countries or code in countries[:1]:
        if code is not None:
            return code, ""
        if name := _code_of_name(key):
            return name, "names of languages"
    scores = joint_scores(texts) if texts else {}
    if code and countries and texts and (code not in scores or code in _OTHER_SCRIPTS):  # lingua may not know the language of the texts
        is_country = key in RARE_AS_LANGUAGES or next(iter(scores)) in countries or not _may_be_written_in(texts, code)
        return (countries[0], "codes of countries") if is_country else (code, "")
    options = [*([code] if code else []), *countries] or list(scores)
    if not options:
        return None, ""
    best = max(options, key=lambda option: (scores.get(option, -math.inf), -options.index(option)))
    if best == code:
        return code, ""
    kind = "codes of countries" if countries else "unknown"
    return best, f"{kind}, mapped to the most likely language of their queries by lingua"


def _may_be_written_in(texts: Sequence[str], code: str) -> bool:
    """Return whether at least half of some texts have letters of a script that the language uses."""
    scripts = SCRIPTS.get(code, frozenset())
    return not scripts or 2 * sum(bool(scripts & script_counts(text).keys()) for text in texts) >= len(texts)


def _code_of_name(name: str) -> str | None:
    for language in _NAMES:
        if name == language.lower():
            from lingua import Language

            code = getattr(Language, language).iso_code_639_1.name.lower()
            return _OTHER_CODES.get(code, code)
    return None
