"""Negative sampling: rows of label 0 that look like natural ones, easy or hard, and are never a hidden positive."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.embedding.encoders import LOCAL_MODEL, EncoderSettings
from babelcart.embedding.similarity import Vectors
from babelcart.rows import taxonomy
from babelcart.rows.text import normalise
from babelcart.weights.wheels import check_local

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

REASONS = ("known", "relative", "copy", "similar")


@dataclass(frozen=True)
class SamplingSettings:
    """How negatives of one task are made: ``negatives.qc`` and ``negatives.qi`` of params.yaml."""

    # none; easy: far from the query and from each of its positives; hard: near it, but under its positives; mixed: of both.
    strategy: Literal["none", "easy", "hard", "mixed"] = "easy"
    # Make until label 0 has this share of the rows ("minority-class creation"); null: `per_query` for every query.
    target_share: float | None = bounded(0, 0.95, default=None)
    per_query: int = bounded(0, 1000, default=1)
    max_per_query: int = bounded(0, 1000, default=4)
    # mixed: share of hard ones.
    hard_share: float = bounded(0, 1, default=0.5)
    # easy: highest similarity to the query and to each positive.
    easy_ceiling: float = bounded(-1, 1, default=0.3)
    # hard: places in the order of similarity to the query, positives left out, first is 1; and how far under each positive.
    first_rank: int = bounded(1, 10**6, default=5)
    last_rank: int = bounded(1, 10**6, default=60)
    margin: float = bounded(0, 1, default=0.05)
    # QC: whether categories with the same parent as a positive may be negatives.
    siblings: bool = True
    # QI: titles that share this much of their words with a positive are copies of it (Jaccard).
    copy_overlap: float = bounded(0, 1, default=0.8)

    def __post_init__(self) -> None:
        if self.last_rank < self.first_rank:
            raise ValueError(f"last_rank is {self.last_rank}, under first_rank {self.first_rank}")
        if self.target_share is None and self.per_query > self.max_per_query:
            raise ValueError(f"per_query is {self.per_query}, over max_per_query {self.max_per_query}")

    @property
    def neighbours(self) -> int | None:
        """Number of nearest candidates of each query that sampling needs; None if it needs none."""
        if self.strategy not in ("hard", "mixed"):
            return None
        # The nearest candidates include known ones and relatives of positives, which are refused: search for more than last_rank.
        return 2 * self.last_rank + 50


@dataclass(frozen=True)
class NegativesSettings:
    """The section ``negatives`` of params.yaml."""

    SECTION: ClassVar[str] = "negatives"

    qc: SamplingSettings = field(default_factory=SamplingSettings)
    qi: SamplingSettings = field(default_factory=SamplingSettings)
    encoder: EncoderSettings = field(default_factory=lambda: EncoderSettings(kind="lexical"))
    # Folder of the encoder's model if that is not downloaded; a file, or null, if it is.
    local_model: str | None = None
    # More candidates than this are searched with an approximate index.
    exact_limit: int = bounded(1, 10**9, default=1_000_000)
    seed: int = bounded(0, 2**63 - 1, default=0)

    def __post_init__(self) -> None:
        if self.encoder.local:
            check_local(LOCAL_MODEL, self.local_model, "the encoder", "negatives.encoder: model and revision")


class _Rules:
    """What may never be a negative of a group of queries: a query and its translations."""

    def __init__(self, rows: pd.DataFrame, task: str, settings: SamplingSettings) -> None:
        self.task, self.settings = task, settings
        self.known: dict[str, set[str]] = defaultdict(set)
        self.positives: dict[str, list[str]] = defaultdict(list)
        for group, candidate, label in zip(rows["group"], rows["candidate"], rows["label"], strict=True):
            self.known[group].add(normalise(candidate))
            if label == 1 and candidate not in self.positives[group]:
                self.positives[group].append(candidate)

    def refuse(self, group: str, candidate: str) -> str | None:
        if normalise(candidate) in self.known[group]:
            return "known"
        for positive in self.positives[group]:
            if self.task == "qc":
                if taxonomy.related(candidate, positive):
                    return "relative"
                if not self.settings.siblings and taxonomy.levels(candidate)[:-1] == taxonomy.levels(positive)[:-1]:
                    return "relative"
            elif word_overlap(candidate, positive) >= self.settings.copy_overlap:
                return "copy"
        return None


def word_overlap(first: str, second: str) -> float:
    """Jaccard overlap of the words of two titles; 1 for two without words.

    Examples
    --------
    >>> overlap("Red Dog Bed", "bed, dog, red"), overlap("red dog bed", "red cat bed")
    (1.0, 0.5)
    """
    a, b = (set(re.findall(r"\w+", normalise(text))) for text in (first, second))
    return len(a & b) / len(a | b) if a | b else 1.0


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """`total` divided in proportion to `sizes`, by largest remainder; the sum is exact."""
    whole = sum(sizes)
    if not whole:
        return [0] * len(sizes)
    exact = [total * size / whole for size in sizes]
    found = [math.floor(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda n: (found[n] - exact[n], n))
    for number in order[: total - sum(found)]:
        found[number] += 1
    return found


def negatives_needed(rows: pd.DataFrame, settings: SamplingSettings) -> int | None:
    """How many negatives bring label 0 to `target_share`; 0 if none are to be sampled, None if `per_query` decides."""
    if settings.strategy == "none" or rows.empty:
        return 0
    if settings.target_share is None:
        return None
    negatives = int((rows["label"] == 0).sum())
    return max(0, math.ceil((settings.target_share * len(rows) - negatives) / (1 - settings.target_share)))


def sample_negatives(
    rows: pd.DataFrame, task: str, settings: SamplingSettings, seed: int, vectors: Vectors | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make negatives for the queries of a training set from its own candidates.

    Easy ones are drawn as often as a candidate stands in natural negatives, hard ones from a window of the query's nearest, with
    the same weights, so that a candidate does not give its label away. Languages, and native and translated rows, get shares in
    proportion to their rows; queries with many natural negatives come first. Hard negatives stay under ``pos - |pos| * margin`` for each
    positive `pos` of the query (NV-Retriever: Moreira et al., 2024; the absolute value keeps the ceiling below a negative `pos`).

    Parameters
    ----------
    rows : pandas.DataFrame
        Train rows with ``group``, ``language``, ``origin``; nothing else is drawn from.
    task : str
        ``qc`` or ``qi``.
    vectors : Vectors or None
        Needed unless the strategy is ``none``.

    Returns
    -------
    tuple
        The sampled rows (``origin`` "easy" or "hard", in a stable order), and counts: ``asked``; ``made`` by kind; ``short``, asked
        but not made; ``failed``, tries that found no candidate; ``refused``, the candidates of all tries by reason.
    """
    import numpy as np
    import pandas as pd

    counts: dict[str, Any] = {"asked": 0, "made": {"easy": 0, "hard": 0}, "short": 0, "failed": 0, "refused": dict.fromkeys(REASONS, 0)}
    empty = rows.iloc[:0]
    total = negatives_needed(rows, settings)
    if total == 0:
        return empty, counts
    assert vectors is not None
    rules = _Rules(rows, task, settings)
    candidates = sorted(set(rows["candidate"]))
    natural = Counter(rows["candidate"][rows["label"] == 0])
    # One is added, so that a candidate that is never a natural negative can be drawn too.
    weight = np.array([natural[candidate] + 1.0 for candidate in candidates])
    vector_rows = np.array([vectors.candidates[candidate] for candidate in candidates])
    place = {int(row): number for number, row in enumerate(vector_rows)}
    made: list[dict[str, Any]] = []

    stratum = rows["language"] + "\0" + (rows["origin"] == "translated").astype(str)
    names = sorted(stratum.unique())
    sizes = [int((stratum == name).sum()) for name in names]
    shares = quotas(sizes, total) if total is not None else [None] * len(names)
    generator = np.random.default_rng(seed)
    cumulative = np.cumsum(weight) / weight.sum()

    for name, share in zip(names, shares, strict=True):
        mine = rows[stratum == name]
        units = mine.drop_duplicates("origin_query")
        per_query = settings.max_per_query if share is not None else settings.per_query
        asked = share if share is not None else per_query * len(units)
        counts["asked"] += asked
        # Queries come in the proportions in which they have natural negatives (Efraimidis and Spirakis, 2006: weighted order).
        own = mine.groupby("origin_query")["label"].agg(lambda labels: int((labels == 0).sum()))
        chance = np.array([own[query] + 0.5 for query in units["origin_query"]])
        records = units.to_dict("records")
        left = asked
        for _ in range(per_query):
            if not left:
                break
            order = np.argsort(-np.log(generator.random(len(records))) / chance, kind="stable")
            for number in order:
                if not left:
                    break
                unit = records[int(number)]
                kind = settings.strategy
                if kind == "mixed":
                    kind = "hard" if generator.random() < settings.hard_share else "easy"
                found = (
                    _hard(unit, rules, settings, vectors, candidates, place, weight, generator, counts["refused"])
                    if kind == "hard"
                    else _easy(unit, rules, settings, vectors, candidates, vector_rows, cumulative, generator, counts["refused"])
                )
                if found is None:
                    counts["failed"] += 1
                    continue
                rules.known[unit["group"]].add(normalise(found))
                made.append({**unit, "id": f"{unit['id']}-{kind}{len(made)}", "candidate": found, "label": 0, "origin": kind})
                counts["made"][kind] += 1
                left -= 1
        counts["short"] += left
    return pd.DataFrame(made, columns=rows.columns).astype(rows.dtypes.to_dict()) if made else empty, counts


def shortfall(counts: dict[str, Any], task: str, settings: SamplingSettings) -> str | None:
    """Why fewer negatives were made than asked for, and which setting to change; None if none is short.

    Parameters
    ----------
    counts : dict
        What `sample` returned.
    """
    if not counts["short"]:
        return None
    reason = max(REASONS, key=lambda name: counts["refused"][name])
    if 2 * counts["failed"] < counts["short"]:
        why, change = "every query has as many as it may have", "max_per_query"
    elif reason == "similar":
        why = "most candidates that were drawn are too similar"
        change = {"easy": "easy_ceiling", "hard": "margin (lower) or last_rank (raise)"}.get(settings.strategy, "easy_ceiling or margin")
    elif reason == "copy":
        why, change = "most candidates that were drawn are copies of a positive", "copy_overlap"
    elif reason == "relative" and not settings.siblings:
        why, change = "most candidates that were drawn are relatives of a positive", "siblings"
    else:
        why, change = "there are too few candidates that no query knows: more rows of train would help", "target_share or per_query (lower)"
    asked, made = counts["asked"], counts["asked"] - counts["short"]
    return f"{made:,} of {asked:,} negatives were made: {why}; params.yaml: negatives.{task}.{change} decides"


def _positive_vectors(unit: dict[str, Any], rules: _Rules, vectors: Vectors) -> np.ndarray:
    """``(positives, dimensions)``: the known positives of a query and of its translations."""
    return vectors.candidate_vectors[[vectors.candidates[positive] for positive in rules.positives[unit["group"]]]]


def _easy(
    unit: dict[str, Any], rules: _Rules, settings: SamplingSettings, vectors: Vectors, candidates: list[str], vector_rows: np.ndarray,
    cumulative: np.ndarray, generator: np.random.Generator, refused: dict[str, int],
) -> str | None:  # fmt: skip
    import numpy as np

    drawn = np.minimum(np.searchsorted(cumulative, generator.random(64), side="right"), len(candidates) - 1)
    query = vectors.query_vectors[vectors.queries[unit["origin_query"]]]
    against = np.vstack([query[None], _positive_vectors(unit, rules, vectors)])
    nearest = (vectors.candidate_vectors[vector_rows[drawn]] @ against.T).max(axis=1)
    for number, similarity in zip(drawn, nearest, strict=True):
        reason = "similar" if similarity > settings.easy_ceiling else rules.refuse(unit["group"], candidates[number])
        if reason is None:
            return candidates[number]
        refused[reason] += 1
    return None


def _hard(
    unit: dict[str, Any], rules: _Rules, settings: SamplingSettings, vectors: Vectors, candidates: list[str], place: dict[int, int],
    weight: np.ndarray, generator: np.random.Generator, refused: dict[str, int],
) -> str | None:  # fmt: skip
    import numpy as np

    query_row = vectors.queries[unit["origin_query"]]
    positives = _positive_vectors(unit, rules, vectors) @ vectors.query_vectors[query_row]
    ceiling = float((positives - np.abs(positives) * settings.margin).min()) if len(positives) else np.inf
    window: list[int] = []
    rank = 0
    for row in vectors.neighbours[query_row]:
        if row < 0:
            break
        number = place[int(row)]
        reason = rules.refuse(unit["group"], candidates[number])
        if reason is not None:
            refused[reason] += 1
            continue
        rank += 1
        if rank > settings.last_rank:
            break
        if rank < settings.first_rank:
            continue
        if float(vectors.candidate_vectors[row] @ vectors.query_vectors[query_row]) > ceiling:
            refused["similar"] += 1
            continue
        window.append(number)
    if not window:
        return None
    chance = weight[window] / weight[window].sum()
    return candidates[window[int(generator.choice(len(window), p=chance))]]
