"""95 % intervals of F1 and ROC AUC by the bootstrap, drawing queries instead of rows.

Rows of one query stand or fall together, so the query is the unit that is drawn (cluster bootstrap: Davison and Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8); the interval is between percentiles. All slices share the draws, and equal
queries and seed give equal draws: differences of two models are paired. `tests/unit/test_metrics.py` simulates the coverage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Rows times draws that are held at once; bounds memory.
MAX_CELLS = 2_000_000


def bootstrap(
    label: np.ndarray,
    probability: np.ndarray,
    predicted: np.ndarray,
    query: np.ndarray,
    slices: Mapping[str, np.ndarray],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """F1 and AUC of every slice in every draw.

    Parameters
    ----------
    label, predicted : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` float.
    query : numpy.ndarray
        ``(rows,)`` of any values; rows with equal ones are drawn together.
    slices : mapping of str to numpy.ndarray
        ``(rows,)`` bool masks.

    Returns
    -------
    dict
        By slice, ``f1`` and ``auc``: ``(draws,)`` float64, NaN where a draw leaves them undefined.
    """
    import numpy as np
    import pandas as pd

    codes, known = pd.factorize(query)
    descending = np.argsort(-probability, kind="stable")
    counted = np.zeros((len(known), len(slices), 3))
    ranked = []
    for number, mask in enumerate(slices.values()):
        for part, chosen in enumerate((label * predicted, predicted, label)):
            counted[:, number, part] = np.bincount(codes[mask], weights=chosen[mask].astype(float), minlength=len(known))
        rows = descending[mask[descending]]
        ties = np.flatnonzero(np.append(True, np.diff(probability[rows]) != 0)[: len(rows)])
        ranked.append((codes[rows], label[rows].astype(float), ties))
    generator = np.random.default_rng(seed)
    found = {name: {"f1": np.full(draws, np.nan), "auc": np.full(draws, np.nan)} for name in slices}
    step = max(1, MAX_CELLS // max(1, len(label)))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weights = np.stack(
            [np.bincount(generator.integers(len(known), size=len(known)), minlength=len(known)) for _ in range(size)]
        ).astype(float)
        sums = (weights @ counted.reshape(len(known), -1)).reshape(size, len(slices), 3)
        for number, (name, (code, positive, ties)) in enumerate(zip(slices, ranked, strict=True)):
            hits, said, there = sums[:, number].T
            with np.errstate(invalid="ignore", divide="ignore"):
                found[name]["f1"][start : start + size] = 2 * hits / (said + there)
                found[name]["auc"][start : start + size] = _auc(weights[:, code], positive, ties)
    return found


def bootstrap_means(values: np.ndarray, query: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """``(draws,)`` means of `values`, whose rows of one `query` are drawn together."""
    import numpy as np
    import pandas as pd

    codes, known = pd.factorize(query)
    sums, rows = np.bincount(codes, weights=values), np.bincount(codes)
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(known), size=len(known)) for _ in range(draws))
    return np.array([sums[one].sum() / rows[one].sum() for one in drawn])


def _auc(weights: np.ndarray, positive: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Weighted AUC, a draw a row of `weights`, columns in descending order of the score; `ties` begin a new score each."""
    import numpy as np

    if not len(positive):
        return np.full(len(weights), np.nan)
    ups = weights * positive
    downs = weights - ups
    if len(ties) < len(positive):
        ups, downs = np.add.reduceat(ups, ties, axis=1), np.add.reduceat(downs, ties, axis=1)
    total = downs.sum(axis=1)
    # Negatives below each positive, those at the same score by half.
    below = total[:, None] - np.cumsum(downs, axis=1) + downs / 2
    return np.einsum("ij,ij->i", ups, below) / (ups.sum(axis=1) * total)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 2.5 % and 97.5 % percentiles of draws; None if more than a hundredth of them are undefined."""
    import numpy as np

    good = values[np.isfinite(values)]
    if not len(values) or len(good) < 0.99 * len(values):
        return None
    low, high = np.quantile(good, [0.025, 0.975])
    return float(low), float(high)
