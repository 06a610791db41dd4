"""Negative sampling: add rows of label 0, easy or hard, whose candidate is never a known positive of the query."""

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

# Reasons to refuse a candidate. known: the query already has it; relative: an ancestor, a descendant or (as the settings say) a sibling of
# a positive; copy: nearly the title of a positive; similar: its similarity to the query or to a positive is too high.
REASONS = ("known", "relative", "copy", "similar")
# Candidates drawn for one easy negative; the first that is not refused is taken.
EASY_DRAWS = 64


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of one task: ``negatives.qc`` and ``negatives.qi`` of params.yaml."""

    # none; easy: dissimilar to the query and to its positives; hard: similar to the query, less than its positives; mixed: both.
    strategy: Literal["none", "easy", "hard", "mixed"] = "easy"
    # Sample until label 0 has this share of the rows ("minority-class creation"); null: sample `per_query` for each query.
    target_share: float | None = bounded(0, 0.95, default=None)
    per_query: int = bounded(0, 1000, default=1)
    max_per_query: int = bounded(0, 1000, default=4)
    # mixed: share of hard negatives.
    hard_share: float = bounded(0, 1, default=0.5)
    # easy: maximum similarity to the query and to each positive.
    easy_ceiling: float = bounded(-1, 1, default=0.3)
    # hard: ranks by similarity to the query, from 1, refused candidates excluded; and the minimum distance below each positive.
    first_rank: int = bounded(1, 10**6, default=5)
    last_rank: int = bounded(1, 10**6, default=60)
    margin: float = bounded(0, 1, default=0.05)
    # QC: whether categories with the same parent as a positive may be negatives.
    siblings: bool = True
    # QI: titles whose word overlap (Jaccard) with a positive reaches this are treated as copies of it.
    copy_overlap: float = bounded(0, 1, default=0.8)

    def __post_init__(self) -> None:
        if self.last_rank < self.first_rank:
            raise ValueError(f"last_rank is {self.last_rank}; accepted: at least first_rank, {self.first_rank}")
        if self.target_share is None and self.per_query > self.max_per_query:
            raise ValueError(f"per_query is {self.per_query}; accepted: at most max_per_query, {self.max_per_query}")

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
    # Folder of the encoder's model if it is not downloaded; otherwise a file, or null.
    local_model: str | None = None
    # Number of candidates above which an approximate index replaces exact search.
    exact_limit: int = bounded(1, 10**9, default=1_000_000)
    seed: int = bounded(0, 2**63 - 1, default=0)

    def __post_init__(self) -> None:
        if self.encoder.local:
            check_local(LOCAL_MODEL, self.local_model, "the encoder", "negatives.encoder: model and revision")


class CandidateRules:
    """Rules that decide which candidates may be negatives of a group of queries (a query and its translations).

    Attributes
    ----------
    known : dict of str to set of str
        Normal forms of all candidates of each group, sampled negatives included.
    positives : dict of str to list of str
        Relevant candidates of each group.
    levels : dict of str to tuple of str
        QC: the levels of each candidate's category path. A translated candidate has the levels of its source.
    """

    def __init__(self, rows: pd.DataFrame, task: str, settings: SamplingSettings) -> None:
        self.task, self.settings = task, settings
        self.known: dict[str, set[str]] = defaultdict(set)
        self.positives: dict[str, list[str]] = defaultdict(list)
        self.levels: dict[str, tuple[str, ...]] = {}
        if task == "qc":
            self.levels = dict(zip(rows["candidate"], map(tuple, rows["levels"]), strict=True))
        for group, candidate, label in zip(rows["group"], rows["candidate"], rows["label"], strict=True):
            self.add_known(group, candidate)
            if label == 1 and candidate not in self.positives[group]:
                self.positives[group].append(candidate)

    def add_known(self, group: str, candidate: str) -> None:
        self.known[group].add(normalise(candidate))

    def refusal(self, group: str, candidate: str) -> str | None:
        """Return the reason, one of `REASONS`, for which the group must not get this candidate as a negative; None if it may."""
        if normalise(candidate) in self.known[group]:
            return "known"
        for positive in self.positives[group]:
            if self.task == "qc" and self._related(candidate, positive):
                return "relative"
            if self.task == "qi" and word_overlap(candidate, positive) >= self.settings.copy_overlap:
                return "copy"
        return None

    def _related(self, candidate: str, positive: str) -> bool:
        first, second = self.levels[candidate], self.levels[positive]
        return taxonomy.related(first, second) or (not self.settings.siblings and first[:-1] == second[:-1])


def word_overlap(first: str, second: str) -> float:
    """Return the Jaccard overlap of the words of two titles; 1 if neither has words.

    Examples
    --------
    >>> word_overlap("Red Dog Bed", "bed, dog, red"), word_overlap("red dog bed", "red cat bed")
    (1.0, 0.5)
    """
    first_words, second_words = (set(re.findall(r"\w+", normalise(text))) for text in (first, second))
    union = first_words | second_words
    return len(first_words & second_words) / len(union) if union else 1.0


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` in proportion to `sizes` by the largest remainder method; the quotas add up to `total`."""
    size_sum = sum(sizes)
    if not size_sum:
        return [0] * len(sizes)
    exact = [total * size / size_sum for size in sizes]
    rounded = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (rounded[index] - exact[index], index))
    for index in by_remainder[: total - sum(rounded)]:
        rounded[index] += 1
    return rounded


def negatives_needed(rows: pd.DataFrame, settings: SamplingSettings) -> int | None:
    """Return the number of negatives that brings label 0 to `target_share`; 0 if none are to be sampled, None if `per_query` decides."""
    if settings.strategy == "none" or rows.empty:
        return 0
    if settings.target_share is None:
        return None
    negatives = int((rows["label"] == 0).sum())
    return max(0, math.ceil((settings.target_share * len(rows) - negatives) / (1 - settings.target_share)))


def sample_negatives(
    rows: pd.DataFrame, task: str, settings: SamplingSettings, seed: int, vectors: Vectors | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Sample negatives for the queries of a training set from its own candidates.

    Each stratum (a language, native or translated rows) gets a share of the negatives in proportion to its rows. See `NegativeSampler`
    for the way in which queries and candidates are drawn.

    Parameters
    ----------
    rows : pandas.DataFrame
        The training set, with the columns ``group``, ``language`` and ``origin``. Queries and candidates come from these rows only.
    task : {"qc", "qi"}
    settings : SamplingSettings
    seed : int
    vectors : Vectors or None
        Vectors of `rows`, with `SamplingSettings.neighbours` neighbours; may be None if `negatives_needed` is 0.

    Returns
    -------
    sampled : pandas.DataFrame
        The sampled rows in a deterministic order, with the columns of `rows`; ``origin`` is "easy" or "hard".
    counts : dict
        ``asked``: negatives requested; ``made``: negatives sampled, by kind; ``short``: requested but not sampled; ``failed``: attempts
        that accepted no candidate; ``refused``: candidates refused in all attempts, by reason.
    """
    total = negatives_needed(rows, settings)
    if total == 0:
        return rows.iloc[:0], _zero_counts()
    assert vectors is not None
    sampler = NegativeSampler(rows, task, settings, seed, vectors)
    stratum_names = rows["language"] + "\0" + (rows["origin"] == "translated").astype(str)
    strata = [rows[stratum_names == name] for name in sorted(stratum_names.unique())]
    shares: Sequence[int | None] = [None] * len(strata) if total is None else quotas([len(stratum) for stratum in strata], total)
    for stratum, share in zip(strata, shares, strict=True):
        sampler.sample_stratum(stratum, share)
    return sampler.to_frame(), sampler.counts


def _zero_counts() -> dict[str, Any]:
    return {"asked": 0, "made": {"easy": 0, "hard": 0}, "short": 0, "failed": 0, "refused": dict.fromkeys(REASONS, 0)}


class NegativeSampler:
    """Draws negatives for the queries of one training set.

    Queries are drawn in proportion to their natural negatives, and candidates in proportion to how often they are natural negatives,
    so that neither reveals the label of a sampled row. An easy negative is drawn from all candidates. A hard negative is drawn from a
    window of the query's nearest candidates; its similarity to the query is at most ``pos - |pos| * margin`` for the similarity ``pos``
    of each positive (positive-aware mining: Moreira et al., "NV-Retriever", 2024; with the absolute value, the limit also lies below a
    negative ``pos``).

    Attributes
    ----------
    counts : dict
        As `sample_negatives` returns them.
    candidates : list of str
        The distinct candidates, in the order of ``vectors.candidate_vectors``.
    weights : numpy.ndarray
        ``(candidates,)`` float64: natural negatives with this candidate, plus 1, so that every candidate can be drawn.
    """

    def __init__(self, rows: pd.DataFrame, task: str, settings: SamplingSettings, seed: int, vectors: Vectors) -> None:
        import numpy as np

        self.rows, self.settings, self.vectors = rows, settings, vectors
        self.rules = CandidateRules(rows, task, settings)
        self.generator = np.random.default_rng(seed)
        self.counts = _zero_counts()
        self.sampled: list[dict[str, Any]] = []
        self.candidates = list(vectors.candidates)
        natural = Counter(rows["candidate"][rows["label"] == 0])
        self.weights = np.array([natural[candidate] + 1.0 for candidate in self.candidates])  # (candidates,)
        self.cumulative = np.cumsum(self.weights) / self.weights.sum()  # (candidates,)

    def to_frame(self) -> pd.DataFrame:
        """Return the sampled rows, with the columns and dtypes of the training set."""
        import pandas as pd

        if not self.sampled:
            return self.rows.iloc[:0]
        return pd.DataFrame(self.sampled, columns=self.rows.columns).astype(self.rows.dtypes.to_dict())

    def sample_stratum(self, stratum: pd.DataFrame, quota: int | None) -> None:
        """Sample `quota` negatives for the queries of some rows, at most one for each query in a round.

        Parameters
        ----------
        stratum : pandas.DataFrame
            Rows of the training set.
        quota : int or None
            None: `per_query` negatives for each query.
        """
        normal_forms = stratum["origin_query"].map(normalise)
        queries = stratum[~normal_forms.duplicated()].to_dict("records")
        rounds = self.settings.per_query if quota is None else self.settings.max_per_query
        remaining = rounds * len(queries) if quota is None else quota
        self.counts["asked"] += remaining
        natural = (stratum["label"] == 0).groupby(normal_forms).sum()
        query_weights = [natural[normalise(query["origin_query"])] + 0.5 for query in queries]
        for _ in range(rounds):
            if remaining:
                remaining -= self._sample_round(queries, query_weights, remaining)
        self.counts["short"] += remaining

    def _sample_round(self, queries: Sequence[dict[str, Any]], query_weights: Sequence[float], limit: int) -> int:
        """Sample one negative for each query, in a weighted random order, until `limit` are sampled; return their number."""
        import numpy as np

        # A weighted random permutation (Efraimidis and Spirakis, 2006).
        order = np.argsort(-np.log(self.generator.random(len(queries))) / np.array(query_weights), kind="stable")
        sampled = 0
        for query_index in order:
            if sampled == limit:
                break
            sampled += self._sample_one(queries[int(query_index)])
        return sampled

    def _sample_one(self, query: dict[str, Any]) -> bool:
        """Sample one negative for the query of a row; return whether a candidate was accepted."""
        kind = self.settings.strategy
        if kind == "mixed":
            kind = "hard" if self.generator.random() < self.settings.hard_share else "easy"
        candidate = self._draw_hard(query) if kind == "hard" else self._draw_easy(query)
        if candidate is None:
            self.counts["failed"] += 1
            return False
        self.rules.add_known(query["group"], candidate)
        row_id = f"{query['id']}-{kind}{len(self.sampled)}"
        new = {
            "id": row_id,
            "candidate": candidate,
            "levels": self.rules.levels.get(candidate, ()),
            "label": 0,
            "grade": "",
            "origin": kind,
        }
        self.sampled.append({**query, **new})
        self.counts["made"][kind] += 1
        return True

    def _draw_easy(self, query: dict[str, Any]) -> str | None:
        """Draw a candidate whose similarity to the query and to each of its positives is at most `easy_ceiling`."""
        import numpy as np

        uniform = self.generator.random(EASY_DRAWS)
        drawn = np.minimum(np.searchsorted(self.cumulative, uniform, side="right"), len(self.candidates) - 1)  # (EASY_DRAWS,)
        references = np.vstack([self._query_vector(query)[None], self._positive_vectors(query)])  # (1 + positives, dimensions)
        highest = (self.vectors.candidate_vectors[drawn] @ references.T).max(axis=1)  # (EASY_DRAWS,)
        for candidate_index, similarity in zip(drawn, highest, strict=True):
            candidate = self.candidates[candidate_index]
            reason = "similar" if similarity > self.settings.easy_ceiling else self.rules.refusal(query["group"], candidate)
            if reason is None:
                return candidate
            self.counts["refused"][reason] += 1
        return None

    def _draw_hard(self, query: dict[str, Any]) -> str | None:
        """Draw a candidate from the query's nearest ones that are less similar to it than its positives are."""
        window = self._hard_window(query)
        if not window:
            return None
        probabilities = self.weights[window] / self.weights[window].sum()
        return self.candidates[window[int(self.generator.choice(len(window), p=probabilities))]]

    def _hard_window(self, query: dict[str, Any]) -> list[int]:
        """Return the candidates from `first_rank` to `last_rank`, as indices; only candidates that the rules accept are ranked."""
        query_vector, ceiling = self._query_vector(query), self._hard_ceiling(query)
        window: list[int] = []
        rank = 0
        for candidate_index in self.vectors.neighbours[self.vectors.queries[query["origin_query"]]]:
            if candidate_index < 0:
                break
            reason = self.rules.refusal(query["group"], self.candidates[candidate_index])
            if reason is None:
                rank += 1
                if rank > self.settings.last_rank:
                    break
                if rank < self.settings.first_rank:
                    continue
                if float(self.vectors.candidate_vectors[candidate_index] @ query_vector) > ceiling:
                    reason = "similar"
            if reason is None:
                window.append(int(candidate_index))
            else:
                self.counts["refused"][reason] += 1
        return window

    def _hard_ceiling(self, query: dict[str, Any]) -> float:
        """Return the highest similarity to the query that a hard negative may have."""
        import numpy as np

        similarities = self._positive_vectors(query) @ self._query_vector(query)  # (positives,)
        return float((similarities - np.abs(similarities) * self.settings.margin).min()) if len(similarities) else math.inf

    def _query_vector(self, query: dict[str, Any]) -> np.ndarray:
        """``(dimensions,)``."""
        return self.vectors.query_vectors[self.vectors.queries[query["origin_query"]]]

    def _positive_vectors(self, query: dict[str, Any]) -> np.ndarray:
        """``(positives, dimensions)``: the known positives of the query and of its translations."""
        return self.vectors.of_candidates(self.rules.positives[query["group"]])


def shortfall(counts: dict[str, Any], task: str, settings: SamplingSettings) -> str | None:
    """Explain why fewer negatives were sampled than requested, and which setting to change.

    Parameters
    ----------
    counts : dict
        As `sample_negatives` returns them.
    task : {"qc", "qi"}
    settings : SamplingSettings

    Returns
    -------
    str or None
        None if all requested negatives were sampled.
    """
    if not counts["short"]:
        return None
    key = f"negatives.{task}."
    raise_ceiling = f"raise {key}easy_ceiling"
    lower_margin = f"lower {key}margin or raise {key}last_rank"
    reason = max(REASONS, key=lambda name: counts["refused"][name])
    if 2 * counts["failed"] < counts["short"]:
        cause, remedy = "every query has its maximum number of negatives", f"raise {key}max_per_query"
    elif reason == "similar":
        cause = "most of the drawn candidates are too similar to the query or to a positive"
        remedy = {"easy": raise_ceiling, "hard": lower_margin}.get(settings.strategy, f"{raise_ceiling}, or {lower_margin}")
    elif reason == "copy":
        cause, remedy = "most of the drawn candidates are copies of a positive", f"raise {key}copy_overlap"
    elif reason == "relative" and not settings.siblings:
        cause, remedy = "most of the drawn candidates are relatives of a positive", f"set {key}siblings to true"
    else:
        cause = "there are too few candidates that the queries do not have yet"
        remedy = f"add training rows, or lower {key}target_share or {key}per_query"
    requested, sampled = counts["asked"], counts["asked"] - counts["short"]
    return f"only {sampled:,} of {requested:,} negatives were sampled: {cause}; to change this, {remedy} in params.yaml"
