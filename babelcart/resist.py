"""How many answers hostile text turns, and how many neutral text. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from babelcart.scores.intervals import bootstrap_means, interval
from babelcart.scores.metrics import Decision

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = {0: "to_no", 1: "to_yes"}
# Shape of what `flip_rates` returns, for `babelcart.core.shapes.check_shape`.
SHAPE = {...: {...: {...: float}}}


def flip_rates(table: pd.DataFrame, decision: Decision, draws: int = 1000, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """How many answers each attack turns.

    Parameters
    ----------
    table : pandas.DataFrame
        From `babelcart.attack.score_attacks`.
    decision : Decision
        When a probability means "relevant".

    Returns
    -------
    dict
        By attack and ``to_yes`` or ``to_no``: ``rows`` that were answered otherwise before; the share of them ``flipped`` by the attack
        and by its ``control``; ``excess``, the difference; ``shift`` and ``control_shift``, how far the probability moved towards the
        answer sought, on average. ``*_low``, ``*_high``: 95 % intervals of a bootstrap by query.
    """
    limits = decision.thresholds(table["language"])
    before = table["before"].to_numpy(float) >= limits
    queries = (table["language"] + "\t" + table["origin_query"]).to_numpy()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (attack, answer), _ in table.groupby(["attack", "answer"]):
        mask = ((table["attack"] == attack) & (table["answer"] == answer)).to_numpy() & (before != answer)
        record: dict[str, float] = {"rows": int(mask.sum())}
        if mask.any():
            after, other = (table[name].to_numpy(float)[mask] for name in ("after", "control"))
            flipped, neutral = (((values >= limits[mask]) == answer).astype(float) for values in (after, other))
            for name, values in (("flipped", flipped), ("control", neutral), ("excess", flipped - neutral)):
                record[name] = float(values.mean())
                if ends := interval(bootstrap_means(values, queries[mask], draws, seed)):
                    record[f"{name}_low"], record[f"{name}_high"] = ends
            for name, values in (("shift", after), ("control_shift", other)):
                record[name] = float((values - table["before"].to_numpy(float)[mask]).mean()) * (1 if answer else -1)
        found.setdefault(str(attack), {})[DIRECTIONS[answer]] = {name: round(value, 5) for name, value in record.items()}
    return found
