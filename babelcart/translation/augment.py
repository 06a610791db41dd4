"""Translation augmentation: copies of labelled rows in the languages that train lacks, and every query in one pivot language.

A row whose texts have no good translation is left out and counted under the reason.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.rows.table import language_counts
from babelcart.rows.text import fold, normalise, query_key
from babelcart.translation.settings import Expansion, TranslateSettings
from babelcart.translation.translator import Answer, Refusal, Translator

if TYPE_CHECKING:
    import pandas as pd

# Language of item titles and category paths, regardless of the language of the query.
CANDIDATE_LANGUAGE = "en"


def python_values(column: pd.Series) -> list[Any]:
    """Return the values of a column as Python objects: ten times as fast as iterating over an Arrow column."""
    return list(column.to_numpy(object))


def shared_words(rows: pd.DataFrame, min_languages: int = 3) -> frozenset[str]:
    """Find words that occur in queries of several languages, such as brands, "usb" and "led".

    Parameters
    ----------
    rows : pandas.DataFrame
        ``language``, ``origin_query``.
    min_languages : int
        Number of languages in which a word must occur.

    Returns
    -------
    frozenset of str
        Words in normal form.
    """
    languages: dict[str, set[str]] = defaultdict(set)
    queries = rows[["language", "origin_query"]].drop_duplicates()
    for language, query in zip(python_values(queries["language"]), python_values(queries["origin_query"]), strict=True):
        for word in re.findall(r"[^\W_]+", normalise(query)):
            languages[word].add(language)
    return frozenset(word for word, word_languages in languages.items() if len(word_languages) >= min_languages)


def choose_rows(rows: pd.DataFrame, targets: Sequence[str], settings: Expansion, seed: int) -> dict[str, pd.DataFrame]:
    """Choose the rows to translate into each target language.

    Queries are chosen with all their candidates until there are about `rows_per_language` rows. The choice is stratified by source
    language and by the query's share of positive labels.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``language``, ``group``, ``label``.
    targets : sequence of str
        Languages to translate into.
    settings : Expansion
    seed : int

    Returns
    -------
    dict
        Target language -> rows, in the order of `rows`.

    """
    import numpy as np

    sources = rows[rows["language"].isin(settings.source_languages)] if settings.source_languages else rows
    if sources.empty:
        return {}
    rows_per_language = settings.rows_per_language
    if rows_per_language is None:
        rows_per_language = round(len(rows) / rows["language"].nunique())
    share = min(1.0, rows_per_language / len(sources))
    queries = sources.groupby(["language", "group"], sort=True)["label"].agg(["mean", "size"]).reset_index()
    source_queries = list(zip(python_values(sources["language"]), python_values(sources["group"]), strict=True))
    chosen: dict[str, pd.DataFrame] = {}
    for target in targets:
        # A seed for each language, so that languages get different queries.
        generator = np.random.default_rng([seed, *target.encode()])
        shuffled = queries.iloc[generator.permutation(len(queries))]
        # Stratified sampling: sort by stratum, then take queries at regular intervals.
        shuffled = shuffled[shuffled["language"] != target].sort_values(["language", "mean"], kind="stable")
        ranks = np.arange(len(shuffled))
        sampled = shuffled[np.floor((ranks + 1) * share) > np.floor(ranks * share)]
        sampled_queries = set(zip(sampled["language"], sampled["group"], strict=True))
        chosen[target] = sources[[query in sampled_queries for query in source_queries]]
    return chosen


def translate_rows(
    rows: pd.DataFrame, targets: Sequence[str], settings: Expansion, seed: int, translator: Translator, held_out: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make translated copies of labelled rows.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one part of the split, with a ``group`` column.
    targets : sequence of str
        Languages to translate into.
    settings : Expansion
    seed : int
        Seed of the choice of rows.
    translator : Translator
    held_out : collection of str
        Folded queries (`babelcart.rows.text.fold`); a copy with one of them is left out.

    Returns
    -------
    copies : pandas.DataFrame
        Rows in the ``group`` of their source, with ``source_id``, ``source_language``, ``engine``, and "translated" as ``origin``.
    counts : dict
        Target language -> number of rows ``asked``, ``translated``, ``held_out``, ``refused`` (by reason), and by ``engine``.
    """
    import numpy as np
    import pandas as pd

    parts: list[pd.DataFrame] = []
    counts: dict[str, Any] = {}
    for target, chosen in choose_rows(rows, targets, settings, seed).items():
        copies, refused = _copies(chosen, target, settings.candidates == "translate", translator)
        is_held_out = np.array([fold(query) in held_out for query in python_values(copies["origin_query"])], dtype=bool)
        counts[target] = {
            "asked": len(chosen), "translated": int((~is_held_out).sum()), "held_out": int(is_held_out.sum()),
            "refused": dict(sorted(refused.items())), "engine": dict(sorted(Counter(copies["engine"]).items())),
        }  # fmt: skip
        parts.append(copies[~is_held_out])
    if not parts:
        return rows.iloc[:0].assign(source_id="", source_language="", engine="", origin="translated"), counts
    return pd.concat(parts, ignore_index=True), counts


def _copies(chosen: pd.DataFrame, target: str, translate_candidates: bool, translator: Translator) -> tuple[pd.DataFrame, Counter[str]]:
    """Translate rows into one language. Return the copies without rows that were refused, and the number of refused rows by reason."""
    import numpy as np
    import pandas as pd

    source_languages = {"origin_query": chosen["language"]}
    if translate_candidates:
        source_languages["candidate"] = pd.Series(CANDIDATE_LANGUAGE, index=chosen.index)
    copies = chosen.assign(
        source_id=chosen["id"], source_language=chosen["language"], language=target, language_tag=target,
        id=[f"{row_id}-{target}" for row_id in python_values(chosen["id"])], origin="translated",
    )  # fmt: skip
    refused: Counter[str] = Counter()
    complete = [True] * len(chosen)
    for column, languages in source_languages.items():
        answers = _translate_column(chosen[column], languages, target, translator)
        for row_index, answer in enumerate(answers):
            if complete[row_index] and isinstance(answer, Refusal):
                complete[row_index] = False
                refused[answer.reason] += 1
        copies[column] = [answer.translation if isinstance(answer, Answer) else None for answer in answers]
        if column == "origin_query":
            copies["engine"] = [answer.engine if isinstance(answer, Answer) else "" for answer in answers]
    return copies[np.array(complete, dtype=bool)], refused


def _translate_column(texts: pd.Series, languages: pd.Series, target: str, translator: Translator) -> list[Answer | Refusal]:
    """Translate a column whose texts are in the given languages. A text that is in the target language is its own translation."""
    answers: dict[str, dict[str, Answer | Refusal]] = {}
    for language, language_texts in texts.groupby(languages):
        answers[language] = translator.translate((language, target), python_values(language_texts)) if language != target else {}
    return [
        answers[language].get(normalise(text), Answer(text, "native"))
        for language, text in zip(python_values(languages), python_values(texts), strict=True)
    ]


def add_pivot(rows: pd.DataFrame, pivot: str | None, translator: Translator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add a column with every query in the pivot language.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``language``, ``origin_query``.
    pivot : str or None
        Language code; None for an empty column.
    translator : Translator

    Returns
    -------
    rows : pandas.DataFrame
        With the column ``pivot``, which is empty where a query has no good translation.
    counts : dict
        Language -> number of ``queries``, of those ``translated``, and of those ``refused`` by reason.
    """
    if pivot is None or rows.empty:
        return rows.assign(pivot=""), {}
    translations: dict[tuple[str, str], str] = {}
    counts: dict[str, Any] = {}
    for language, queries in rows["origin_query"].groupby(rows["language"]):
        if language == pivot:
            translations |= {query_key(language, query): query for query in queries.unique()}
            continue
        answers = translator.translate((language, pivot), queries)
        refused = Counter(answer.reason for answer in answers.values() if isinstance(answer, Refusal))
        counts[language] = {
            "queries": len(answers),
            "translated": len(answers) - refused.total(),
            "refused": dict(sorted(refused.items())),
        }
        translations |= {query_key(language, query): answer.translation for query, answer in answers.items() if isinstance(answer, Answer)}
    texts = [
        translations.get(query_key(language, query), "")
        for language, query in zip(python_values(rows["language"]), python_values(rows["origin_query"]), strict=True)
    ]
    return rows.assign(pivot=texts), counts


def add_translations(
    parts: Mapping[str, pd.DataFrame], expansion: Expansion, settings: TranslateSettings, translator: Translator
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Add the pivot column to all parts of a split, and translated copies to train and validation.

    Parameters
    ----------
    parts : mapping
        ``train``, ``validation``, ``dev`` and ``test`` -> rows.
    expansion : Expansion
        Settings of the task.
    settings : TranslateSettings
    translator : Translator

    Returns
    -------
    parts : dict
        Name of a part -> rows.
    counts : dict
        Counts for metrics/: those of `add_pivot` under ``pivot``, those of `translate_rows` under ``train`` and ``validation``.

    Raises
    ------
    UserError
        If train has no row in one of the source languages, or a smaller share of a language than `min_coverage` is translated.
    """
    import pandas as pd

    extended, counts = dict(parts), dict[str, Any](pivot={})
    for name, rows in parts.items():
        extended[name], pivot_counts = add_pivot(rows, settings.pivot, translator)
        if pivot_counts:
            counts["pivot"][name] = pivot_counts
    targets = expansion.target_languages
    if targets is None:
        evaluated = parts["dev"] if len(parts["dev"]) else parts["test"]
        targets = tuple(sorted(set(evaluated["language"]) - set(parts["train"]["language"])))
    _check_source_languages(parts["train"], expansion.source_languages)
    folded = {name: {fold(query) for query in python_values(rows["origin_query"])} for name, rows in parts.items()}
    # No copy in train repeats a query of another part, and no copy in validation a query of train. Validation comes first, because
    # copies in train must not repeat copies in validation either.
    held_out = {"validation": folded["train"], "train": folded["validation"] | folded["dev"] | folded["test"]}
    for name in ("validation", "train"):
        native = extended[name].assign(source_id="", source_language="", engine="native", origin="native")
        copies, counts[name] = translate_rows(native, targets, expansion, settings.seed, translator, held_out[name])
        check_coverage(counts[name], settings.min_coverage, name, translator.unavailable)
        held_out["train"] |= {fold(query) for query in python_values(copies["origin_query"])}
        extended[name] = pd.concat([native, copies], ignore_index=True).astype(native.dtypes.to_dict())
    return extended, counts


def _check_source_languages(train: pd.DataFrame, source_languages: Sequence[str]) -> None:
    """Raise UserError if train has no row in one of the source languages of the settings."""
    absent = [language for language in source_languages if not (train["language"] == language).any()]
    if absent and len(train):
        raise UserError(
            f"params.yaml: translate: source_languages lists {', '.join(absent)}, but no train row has this language; train has "
            f"{language_counts(train)}. Remove it from source_languages, or use an empty list for all languages"
        )


def check_coverage(counts: Mapping[str, Mapping[str, Any]], min_coverage: float, part: str, unavailable: Mapping[str, str]) -> None:
    """Check that enough rows of each language were translated.

    Parameters
    ----------
    counts : mapping
        Target language -> counts of `translate_rows`.
    min_coverage : float
        Minimum share of the chosen rows, 0 to 1. Copies that were left out as held-out queries count as translated.
    part : str
        Name of the part, for the message.
    unavailable : mapping
        Engine -> error, for the message.

    Raises
    ------
    UserError
        With a table of all languages: rows asked and translated, their share, and reasons.
    """
    coverage = {language: (count["translated"] + count["held_out"]) / max(1, count["asked"]) for language, count in counts.items()}
    insufficient = [language for language, count in counts.items() if count["asked"] and coverage[language] < min_coverage]
    if not insufficient:
        return
    lines = [
        f"translation of {part}: below translate.min_coverage {min_coverage} in {', '.join(insufficient)}",
        "language  asked  translated  share  refused",
    ]
    for language, count in counts.items():
        reasons = ", ".join(f"{reason} {row_count}" for reason, row_count in count["refused"].items())
        lines.append(f"{language:<8}  {count['asked']:>5}  {count['translated']:>10}  {coverage[language]:>5.2f}  {reasons}")
    lines += [f"{engine}: {error}" for engine, error in unavailable.items()]
    lines.append("Add translations to translate.memory, add an engine to translate.chain, allow the network, or lower min_coverage.")
    raise UserError("\n".join(lines))
