"""Translation augmentation: labelled rows in the languages that train lacks.

Queries are translated, candidates and labels are kept. Translations come from a translation memory, a file; what it
lacks is asked of deep-translator, if the network is allowed, and is otherwise left out and counted.
"""

from __future__ import annotations

import csv
import html
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart import languages
from babelcart.config import within
from babelcart.errors import UserError
from babelcart.text import normalise

if TYPE_CHECKING:
    import pandas as pd

HEADER = ("source", "target", "text", "translation")

# (source language, target language, text in normal form)
Key = tuple[str, str, str]

# What deep-translator's engines call a language, where it is not the ISO code.
ENGINE_CODES = {"he": "iw", "jv": "jw", "zh": "zh-CN", "nb": "no", "fil": "tl"}


@dataclass(frozen=True)
class Translate:
    """The section ``translate`` of params.yaml."""

    memory: str
    source_languages: tuple[str, ...] = ()
    target_languages: tuple[str, ...] | None = None
    rows_per_language: int | None = within(0, 2**53, default=None)
    engine: str = "google"
    allow_network: bool = False
    seed: int = 0


def read_memory(path: Path) -> dict[Key, str]:
    """Read a translation memory: CSV with the columns ``source``, ``target``, ``text``, ``translation``.

    Raises
    ------
    UserError
        Names the line and what is wrong with it.
    """
    memory: dict[Key, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = next(reader, None)
            if header is None or tuple(header) != HEADER:
                raise UserError(f"{path}, line 1: expected the header {','.join(HEADER)}; found {header}")
            for fields in reader:
                if len(fields) != len(HEADER):
                    raise UserError(f"{path}, line {reader.line_num}: expected {len(HEADER)} fields; found {len(fields)}")
                source, target = (languages.normalise(code) for code in fields[:2])
                if source is None or target is None:
                    raise UserError(f"{path}, line {reader.line_num}: unknown language in {fields[:2]}")
                memory[source, target, normalise(fields[2])] = fields[3]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; params.yaml: translate.memory names it, null goes without") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV of UTF-8 text: {error}") from error
    return memory


def engine(name: str) -> Callable[[str, str, str], str | None]:
    """``translate(source, target, text)`` of one deep-translator engine; None where it has no answer.

    A translator object is made for each call: shared between threads, one returns another row's answer.
    """
    import deep_translator

    classes = {"google": "GoogleTranslator", "mymemory": "MyMemoryTranslator", "libre": "LibreTranslator"}
    if name not in classes:
        raise UserError(f"params.yaml: translate.engine is {name!r}; accepted: {', '.join(classes)}")
    kind = getattr(deep_translator, classes[name])

    def translate(source: str, target: str, text: str) -> str | None:
        translator = kind(source=ENGINE_CODES.get(source, source), target=ENGINE_CODES.get(target, target))
        try:
            answer = translator.translate(text)
        except Exception:  # each engine raises its own kinds; a text without a translation is counted, not fatal
            return None
        return html.unescape(answer).strip() if isinstance(answer, str) and answer.strip() else None

    return translate


def choose(rows: pd.DataFrame, targets: Sequence[str], settings: Translate) -> dict[str, pd.DataFrame]:
    """The rows to translate into each target language.

    Whole queries, with all their candidates, until `rows_per_language` (default: as many rows as a native language has
    on average); each source language and, within it, each mix of labels gives its share.

    Returns
    -------
    dict
        Target language -> rows, in the order of `rows`.
    """
    import numpy as np

    sources = rows[rows["language"].isin(settings.source_languages)] if settings.source_languages else rows
    if sources.empty:
        raise UserError(f"translate.source_languages is {list(settings.source_languages)}, but train has no such rows")
    wanted = settings.rows_per_language
    if wanted is None:
        wanted = round(len(rows) / rows["language"].nunique())
    queries = sources.groupby(["language", "group"], sort=True)["label"].agg(["mean", "size"]).reset_index()
    chosen: dict[str, pd.DataFrame] = {}
    for target in targets:
        # Another seed for each language: they should not all translate the same queries.
        generator = np.random.default_rng([settings.seed, *target.encode()])
        shuffled = queries.iloc[generator.permutation(len(queries))]
        # Stratified: sorted by stratum, then every k-th query.
        shuffled = shuffled.sort_values(["language", "mean"], kind="stable")
        share = min(1.0, wanted / len(sources))
        picked = shuffled[np.floor(np.arange(1, len(shuffled) + 1) * share) > np.floor(np.arange(len(shuffled)) * share)]
        index = set(zip(picked["language"], picked["group"], strict=True))
        mask = [(language, group) in index for language, group in zip(sources["language"], sources["group"], strict=True)]
        chosen[target] = sources[mask]
    return chosen


def expand(
    rows: pd.DataFrame,
    targets: Sequence[str],
    settings: Translate,
    memory: Mapping[Key, str],
    translate: Callable[[str, str, str], str | None] | None,
    held_out: Collection[str] = (),
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Translated copies of labelled rows.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one part of the split, with a ``group`` column.
    targets : sequence of str
        Languages to make.
    memory : mapping
        Looked up first.
    translate : callable or None
        Asked for what the memory lacks; None leaves such rows out.
    held_out : collection of str
        Normal forms of queries that must not come up: those of validation, dev and test. A copy that is one is left out.

    Returns
    -------
    tuple
        The copies, each with ``source_id``, ``source_language`` and ``origin`` "translated", in their source's group; and
        per target the rows ``asked``, ``translated``, ``missing`` and ``held_out``, and the distinct
        queries ``from_memory`` and ``from_engine``.
    """
    import numpy as np
    import pandas as pd

    made: list[pd.DataFrame] = []
    counts: dict[str, Any] = {}
    for target, chosen in choose(rows, targets, settings).items():
        queries = chosen.drop_duplicates(["language", "origin_query"])
        found: dict[tuple[str, str], str] = {}
        from_memory = from_engine = 0
        for language, query in progress(list(zip(queries["language"], queries["origin_query"], strict=True))):
            answer = memory.get((language, target, normalise(query)))
            from_memory += answer is not None
            if answer is None and translate is not None:
                answer = translate(language, target, query)
                from_engine += answer is not None
            if answer is not None and normalise(answer):
                found[language, query] = answer
        texts = [found.get(key) for key in zip(chosen["language"], chosen["origin_query"], strict=True)]
        copies = chosen.assign(
            origin_query=texts, source_id=chosen["id"], source_language=chosen["language"], language=target, language_tag=target,
            id=[f"{identifier}-{target}" for identifier in chosen["id"]], origin="translated",
        )  # fmt: skip
        copies = copies[copies["origin_query"].notna()]
        missing = len(chosen) - len(copies)
        copies = copies[np.array([normalise(query) not in held_out for query in copies["origin_query"]], dtype=bool)]
        made.append(copies)
        counts[target] = {
            "asked": len(chosen), "translated": len(copies), "missing": missing, "held_out": len(chosen) - missing - len(copies),
            "from_memory": from_memory, "from_engine": from_engine,
        }  # fmt: skip
    result = pd.concat(made, ignore_index=True) if made else rows.iloc[:0].assign(source_id="", source_language="", origin="translated")
    return result, counts
