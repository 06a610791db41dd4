"""Shares of answers that attacks flip, and shares that neutral text flips. Does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from babelcart.scores.intervals import bootstrap_means, interval, sampling_units
from babelcart.scores.metrics import Decision

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# The answer that an attack tries to get -> its key in the metrics.
DIRECTIONS = {0: "to_no", 1: "to_yes"}
# Shape of the result of `flip_rates`, for `babelcart.core.shapes.check_shape`.
SHAPE = {...: {...: {...: float}}}


def flip_rates(table: pd.DataFrame, decision: Decision, draws: int = 1000, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Measure how many answers each attack flips.

    Parameters
    ----------
    table : pandas.DataFrame
        The result of `babelcart.attack.score_attacks`.
    decision : Decision
        The thresholds from which a probability means "relevant".
    draws : int
        Draws of the bootstrap; 0 for no intervals.
    seed : int

    Returns
    -------
    dict
        By attack, then ``to_yes`` or ``to_no``: ``rows``, the number of rows that had the other answer before; ``flipped``, the share
        of these rows whose answer the attack flips; ``control``, the same share for the control text; ``excess``, the difference of the
        two shares; ``shift`` and ``control_shift``, the mean change of p(relevant) towards the answer that the attack tries to get.
        ``*_low`` and ``*_high`` are 95 % confidence intervals of a bootstrap by query.
    """
    limits = decision.thresholds(table["language"])  # (rows,)
    before = table["before"].to_numpy(float) >= limits
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for (attack, answer), _ in table.groupby(["attack", "answer"]):
        mask = ((table["attack"] == attack) & (table["answer"] == answer)).to_numpy() & (before != answer)
        metrics: dict[str, float] = _attack_metrics(table[mask], limits[mask], answer, draws, seed) if mask.any() else {"rows": 0}
        rates.setdefault(str(attack), {})[DIRECTIONS[answer]] = metrics
    return rates


def _attack_metrics(rows: pd.DataFrame, limits: np.ndarray, answer: int, draws: int, seed: int) -> dict[str, float]:
    """Return the metrics of one attack, from the rows that had the other answer before it."""
    before, after, control = (rows[name].to_numpy(float) for name in ("before", "after", "control"))
    flipped, control_flipped = (((probability >= limits) == answer).astype(float) for probability in (after, control))
    queries = sampling_units(rows)
    sign = 1 if answer else -1
    metrics: dict[str, float] = {
        "rows": len(rows),
        "shift": float((after - before).mean()) * sign,
        "control_shift": float((control - before).mean()) * sign,
    }
    for name, flips in (("flipped", flipped), ("control", control_flipped), ("excess", flipped - control_flipped)):
        metrics[name] = float(flips.mean())
        if ends := interval(bootstrap_means(flips, queries, draws, seed)):
            metrics[f"{name}_low"], metrics[f"{name}_high"] = ends
    return metrics
