"""Warnings about language columns that hold something else, such as country codes.

The code of a country may be that of another language: ``kr`` is Kanuri, not Korean. Three checks look for that: codes that are better
known as a country's, queries in a script that the language does not use, and queries that the language identifier lingua (Stahl,
https://github.com/pemistahl/lingua-rs) finds to be in another language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from babelcart.rows.countries import COUNTRIES, RARE_AS_LANGUAGES, THREE_LETTERS, Country
from babelcart.rows.languages import iso_code

if TYPE_CHECKING:
    import pandas as pd

# Script -> the languages that use it (Unicode CLDR, supplemental data, primary scripts). Scripts have the first word of the Unicode names
# of their letters. Languages that are not listed here are not checked.
_LANGUAGES_OF_SCRIPTS = {
    "LATIN": """af ak ay az bi bm br bs ca ch co cs cy da de ee en eo es et eu ff fi fil fj fo fr fy ga gd gl gn ha ho hr ht hu hz ia id ie
        ig ik io is it jv kg ki kj kl kr ku kw la lb lg li ln lt lu lv mg mh mi ms mt na nb nd ng nl nn no nr nv ny oc om pl pt qu rm rn
        ro rw sc se sg sk sl sm sn so sq sr ss st su sv sw tk tn to tr ts tw ty uz ve vi vo wa wo xh yo za zu""",
    "CYRILLIC": "ab av ba be bg ce cu cv kk kv ky mk mn os ru sr tg tt uk uz",
    "ARABIC": "ar fa ks ku pa ps sd ug ur",
    "HEBREW": "he yi",
    "GREEK": "el",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am ti",
    "DEVANAGARI": "bh hi ks mr ne pi sa sd",
    "BENGALI": "as bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAANA": "dv",
    "THAI": "th",
    "LAO": "lo",
    "TIBETAN": "bo dz",
    "MYANMAR": "my",
    "KHMER": "km",
    "MONGOLIAN": "mn",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "ja ko zh",
    "BOPOMOFO": "zh",
}
SCRIPTS: dict[str, frozenset[str]] = {
    language: frozenset(script for script, languages in _LANGUAGES_OF_SCRIPTS.items() if language in languages.split())
    for language in sorted({language for languages in _LANGUAGES_OF_SCRIPTS.values() for language in languages.split()})
}
# Subtags of scripts in language tags (sr-Latn) -> script.
_SCRIPT_SUBTAGS = {"latn": "LATIN", "cyrl": "CYRILLIC", "arab": "ARABIC", "deva": "DEVANAGARI"}


# Names of languages that lingua does not know.
_NAMES = {
    "as": "Assamese", "bi": "Bislama", "bm": "Bambara", "cv": "Chuvash", "gd": "Scottish Gaelic", "ki": "Kikuyu", "na": "Nauruan",
    "nr": "South Ndebele", "ps": "Pashto", "sc": "Sardinian", "sm": "Samoan", "ss": "Swati", "tk": "Turkmen",
    "ae": "Avestan", "an": "Aragonese", "bh": "Bihari", "br": "Breton", "ch": "Chamorro", "ce": "Chechen", "co": "Corsican", "cr": "Cree",
    "cu": "Church Slavic", "dz": "Dzongkha", "ee": "Ewe", "gl": "Galician", "gn": "Guarani", "ie": "Interlingue", "kg": "Kongo",
    "kr": "Kanuri", "kw": "Cornish", "lb": "Luxembourgish", "li": "Limburgish", "lu": "Luba-Katanga", "ng": "Ndonga", "om": "Oromo",
    "sa": "Sanskrit", "se": "Northern Sami", "sg": "Sango", "tw": "Twi", "ve": "Venda", "za": "Zhuang",
}  # fmt: skip
# Distinct queries of a language that are looked at.
MAX_QUERIES = 500
# Distinct queries below which a script is no evidence, unless the code is a country's, too.
MIN_QUERIES = 3
# Distinct queries below which the language identifier is not asked.
MIN_IDENTIFIED = 20
# The identifier chooses between the language of the code and languages of shops that share its script.
_IDENTIFIED = {
    "LATIN": "cs da de en es fr hu id it nl pl pt ro sv tr vi",
    "CYRILLIC": "bg ru uk",
    "ARABIC": "ar fa ur",
    "CJK": "ja zh",
}
# lingua has the two written forms of Norwegian, but not `no`; it knows Serbian in Cyrillic only.
_IDENTIFIED_AS = {"no": "nb", "fil": "tl"}


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """Return the script of a letter, as the first word of its Unicode name (``LATIN``, ``CJK``); "" for other characters."""
    if character.isascii():
        return "LATIN" if character.isalpha() else ""
    category = unicodedata.category(character)
    if category[0] != "L" or category == "Lm":
        return ""
    return unicodedata.name(character, "").split(" ")[0].split("-")[0]


def script_counts(text: str) -> Counter[str]:
    """Return the number of letters of each script.

    Examples
    --------
    >>> script_counts("iPhone ケース 15")
    Counter({'LATIN': 6, 'KATAKANA': 2})
    """
    letters = Counter(map(script_of, text))
    del letters[""]
    return letters


def check_languages(table: pd.DataFrame) -> list[str]:
    """Warn about values of the language column that seem to be country codes or to be wrong.

    Brands and model numbers are Latin in every language. So a language without Latin script is reported only if more than half of its
    queries have no letter of its script. At most `MAX_QUERIES` distinct queries of each value are looked at.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``language``, ``language_tag`` and ``origin_query``.

    Returns
    -------
    list of str
        At most one warning for each value of the column, with the number of rows and the setting that corrects it, in alphabetical order.
    """
    warnings = []
    tags = table["language_tag"].str.strip()
    for (tag, language), rows in table.groupby([tags.str.casefold(), table["language"]], sort=True):
        queries = rows["origin_query"].drop_duplicates()
        step = max(1, -(-len(queries) // MAX_QUERIES))
        sample = [query for query in queries.iloc[::step] if script_counts(query)]
        if warning := _check_tag(tag, language, sample):
            example = rows["language_tag"].iloc[0].strip()
            setting = f"set `languages: {{{example}: {warning.suggestion}}}` in data"
            warnings.append(f"`{example}` is read as {name_of(language)} ({len(rows):,} rows){warning.reason}, {setting}")
    return warnings


class _Warning(NamedTuple):
    """Why a value of the language column seems to be wrong, and the language code that it should have, or "CODE"."""

    reason: str
    suggestion: str


def _check_tag(tag: str, language: str, queries: Sequence[str]) -> _Warning | None:
    """Return the warning about one value of the language column, in lower case, if there is one."""
    primary, *subtags = re.split("[-_.@]", tag)
    is_mapped = iso_code(tag) != language  # by a setting
    country = _other_country(primary, language) if not is_mapped and set(subtags) <= {primary} else None
    scripts = SCRIPTS.get(language, frozenset()) | {_SCRIPT_SUBTAGS[subtag] for subtag in subtags if subtag in _SCRIPT_SUBTAGS}
    contradiction = _script_contradiction(language, scripts, queries, 1 if country else MIN_QUERIES)
    contradiction = contradiction or _language_contradiction(language, scripts, queries)
    if not contradiction and not (country and primary in RARE_AS_LANGUAGES):
        return None
    reason = f", but {contradiction.reason}" if contradiction else ""
    suggestion = contradiction.suggestion if contradiction else "CODE"
    if country:
        reason += f". `{primary.upper()}` is also the code of {country.name}: if that is meant"
        suggestion = country.languages[0] if suggestion == "CODE" else suggestion
    else:
        reason += ". If this is wrong"
    return _Warning(reason, suggestion)


def _other_country(code: str, language: str) -> Country | None:
    """Return the country with a code that is also the code of a language, if its shops use other languages."""
    country = COUNTRIES.get(code) or THREE_LETTERS.get(code)
    return country if country is not None and language not in country.languages else None


def _script_contradiction(language: str, scripts: frozenset[str], queries: Sequence[str], minimum: int) -> _Warning | None:
    """Return a warning if more than half of the queries have no letter of a script that the language uses."""
    counts = [script_counts(query) for query in queries]
    foreign = [letters for letters in counts if not scripts & letters.keys()]
    if not scripts or len(queries) < minimum or 2 * len(foreign) <= len(queries):
        return None
    (other, _), *_ = sum(foreign, Counter[str]()).most_common(1)
    reason = f"{len(foreign):,} of {len(queries):,} distinct queries have only letters of other scripts, mostly {other.title()}"
    users = _LANGUAGES_OF_SCRIPTS.get(other, "").split()
    return _Warning(reason, users[0] if len(users) == 1 else "CODE")


def _language_contradiction(language: str, scripts: frozenset[str], queries: Sequence[str]) -> _Warning | None:
    """Return a warning if the language identifier assigns far more queries to one other language than to this one."""
    group = next((group for group in _IDENTIFIED if group in scripts), None)
    target = _IDENTIFIED_AS.get(language, language)
    if group is None or len(queries) < MIN_IDENTIFIED or _identified_language(target) is None or (language, group) == ("sr", "LATIN"):
        return None
    identifier = _identifier(frozenset({target, *_IDENTIFIED[group].split()}))
    languages = identifier.detect_languages_in_parallel_of(list(queries))
    counts = Counter(language.iso_code_639_1.name.lower() for language in languages if language is not None)
    others = Counter({code: count for code, count in counts.items() if code != target}).most_common(1)
    # In 500 queries of each language of the sample, at least 33 % are assigned to their own language and at most 17 % to one other.
    if not others or others[0][1] < max(3 * counts[target], 0.25 * len(queries)):
        return None
    other, count = others[0]
    reason = (
        f"{count:,} of {len(queries):,} distinct queries seem to be in {name_of(other)} and {counts[target]:,} in {name_of(language)} "
        "(found by the language identifier lingua, which often errs in short queries)"
    )
    return _Warning(reason, other)


def name_of(language: str) -> str:
    """Return the English name of a language, or its code in quotes if the name is not known here."""
    known = _identified_language(language)
    return _NAMES.get(language) or (known.name.capitalize() if known is not None else f"the language `{language}`")


def _identified_language(code: str) -> Any:
    """Return the language of lingua with an ISO 639-1 code, None if it has none."""
    from lingua import IsoCode639_1, Language

    known = getattr(IsoCode639_1, code.upper(), None)
    return None if known is None else Language.from_iso_code_639_1(known)


@lru_cache(maxsize=64)
def _identifier(languages: frozenset[str]) -> Any:
    """Return a detector in low-accuracy mode, which needs 40 MB instead of 600 MB and is accurate enough for many queries."""
    from lingua import LanguageDetectorBuilder

    candidates = [_identified_language(language) for language in sorted(languages)]
    return LanguageDetectorBuilder.from_languages(*candidates).with_low_accuracy_mode().build()
