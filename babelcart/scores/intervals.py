"""95 % confidence intervals of F1 and ROC AUC from a bootstrap that draws queries instead of rows.

Rows of one query are not independent, so queries are the sampling units (cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and
their Application", 1997, section 3.8). The intervals are percentile intervals. All slices share the draws, and equal queries with an
equal seed give equal draws, so that differences between two models are paired. `tests/unit/test_metrics.py` simulates the coverage.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Key = TypeVar("Key", bound=Hashable)

# Metrics with confidence intervals, which `babelcart compare`, the experiments and the model card show, and their names.
METRICS = {"f1": "F1", "auc": "ROC AUC"}
# Upper bound of rows times draws in one batch, which bounds memory.
MAX_CELLS = 2_000_000


def sampling_units(rows: pd.DataFrame) -> np.ndarray:
    """Return the query that each row belongs to, as `bootstrap` draws them: language and normal form, ``(rows,)`` of str.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``language`` and ``origin_query``.
    """
    return (rows["language"] + "\t" + rows["origin_query"].map(normalise)).to_numpy()


@dataclass(frozen=True)
class _Slice:
    """Statistics of one slice from which F1 and AUC follow for any weights of the queries.

    Attributes
    ----------
    counts : numpy.ndarray
        ``(queries, 3)`` float64: true positives, predicted positives and actual positives of each query.
    query_index : numpy.ndarray
        ``(slice rows,)`` int: the query of each row, in descending order of probability.
    positive : numpy.ndarray
        ``(slice rows,)`` float64 of 0 and 1: the labels, in the same order.
    run_starts : numpy.ndarray
        ``(distinct probabilities,)`` int: the first row of each run of equal probabilities.
    """

    counts: np.ndarray
    query_index: np.ndarray
    positive: np.ndarray
    run_starts: np.ndarray

    def f1(self, weights: np.ndarray) -> np.ndarray:
        """Return F1 in each draw, ``(draws,)`` float64; `weights` is ``(draws, queries)``, how often each query was drawn."""
        import numpy as np

        true_positives, predicted_positives, actual_positives = (weights @ self.counts).T  # (draws,) each
        with np.errstate(invalid="ignore", divide="ignore"):
            return 2 * true_positives / (predicted_positives + actual_positives)

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """Return the weighted ROC AUC in each draw, ``(draws,)`` float64; `weights` as in `f1`."""
        import numpy as np

        if not len(self.positive):
            return np.full(len(weights), np.nan)
        row_weights = weights[:, self.query_index]  # (draws, slice rows)
        positives = row_weights * self.positive
        negatives = row_weights - positives
        if len(self.run_starts) < len(self.positive):
            positives = np.add.reduceat(positives, self.run_starts, axis=1)  # (draws, distinct probabilities)
            negatives = np.add.reduceat(negatives, self.run_starts, axis=1)
        total_negatives = negatives.sum(axis=1)
        # Negatives ranked below each positive; those with the same probability count half.
        negatives_below = total_negatives[:, None] - np.cumsum(negatives, axis=1) + negatives / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("ij,ij->i", positives, negatives_below) / (positives.sum(axis=1) * total_negatives)


def bootstrap(
    label: np.ndarray,
    probability: np.ndarray,
    predicted: np.ndarray,
    query: np.ndarray,
    slices: Mapping[Key, np.ndarray],
    draws: int = 1000,
    seed: int = 0,
) -> dict[Key, dict[str, np.ndarray]]:
    """Return F1 and AUC of each slice in each bootstrap draw.

    Parameters
    ----------
    label, predicted : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` float.
    query : numpy.ndarray
        ``(rows,)`` of any type, such as `sampling_units`. Rows with equal values are drawn together.
    slices : mapping
        Boolean masks, ``(rows,)``, by any key.
    draws : int
        Number of draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        ``f1`` and ``auc`` by slice: ``(draws,)`` float64, NaN where a draw leaves them undefined.
    """
    import numpy as np
    import pandas as pd

    query_index, queries = pd.factorize(query)
    descending = np.argsort(-probability, kind="stable")
    statistics: dict[Key, _Slice] = {}
    for key, mask in slices.items():
        counts = [
            np.bincount(query_index[mask], weights=values[mask].astype(float), minlength=len(queries))
            for values in (label * predicted, predicted, label)
        ]
        ranked = descending[mask[descending]]  # (slice rows,)
        run_starts = np.flatnonzero(np.append(True, np.diff(probability[ranked]) != 0)[: len(ranked)])
        statistics[key] = _Slice(np.stack(counts, axis=1), query_index[ranked], label[ranked].astype(float), run_starts)

    drawn = {key: {"f1": np.full(draws, np.nan), "auc": np.full(draws, np.nan)} for key in slices}
    generator = np.random.default_rng(seed)
    batch_size = max(1, MAX_CELLS // max(1, len(label)))
    for start in range(0, draws, batch_size):
        batch = slice(start, min(start + batch_size, draws))
        weights = np.stack([_draw_weights(generator, len(queries)) for _ in range(batch.stop - start)])  # (batch, queries)
        for key, slice_statistics in statistics.items():
            drawn[key]["f1"][batch] = slice_statistics.f1(weights)
            drawn[key]["auc"][batch] = slice_statistics.auc(weights)
    return drawn


def _draw_weights(generator: np.random.Generator, queries: int) -> np.ndarray:
    """Draw as many queries as there are, with replacement; return how often each was drawn, ``(queries,)`` float64."""
    import numpy as np

    return np.bincount(generator.integers(queries, size=queries), minlength=queries).astype(float)


def bootstrap_means(values: np.ndarray, query: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Return the mean of some values in each bootstrap draw.

    Parameters
    ----------
    values : numpy.ndarray
        ``(rows,)`` float.
    query : numpy.ndarray
        ``(rows,)`` of any type. Rows with equal values are drawn together.
    draws : int
        Number of draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        ``(draws,)`` float64.
    """
    import numpy as np
    import pandas as pd

    query_index, queries = pd.factorize(query)
    sums, rows = np.bincount(query_index, weights=values), np.bincount(query_index)  # (queries,) each
    generator = np.random.default_rng(seed)
    drawn_queries = (generator.integers(len(queries), size=len(queries)) for _ in range(draws))
    return np.array([sums[drawn].sum() / rows[drawn].sum() for drawn in drawn_queries])


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """Return the 2.5 % and 97.5 % percentiles of bootstrap draws, or None if more than 1 % of the draws are undefined (NaN)."""
    import numpy as np

    defined = values[np.isfinite(values)]
    if not len(values) or len(defined) < 0.99 * len(values):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
