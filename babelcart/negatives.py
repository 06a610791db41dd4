"""Negative sampling: more rows of label 0, never a hidden positive."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from babelcart import taxonomy
from babelcart.config import within
from babelcart.text import normalise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Negatives:
    """The section ``negatives`` of params.yaml."""

    strategy: Literal["none", "easy"] = "easy"
    target_share: float = within(0, 0.95, default=0.4)
    max_per_query: int = within(0, 1000, default=2)
    seed: int = 0


def sample(rows: pd.DataFrame, task: str, settings: Negatives) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Easy negatives: candidates of other queries, drawn as often as they occur in train.

    Drawing by popularity keeps a sampled candidate from giving its label away. Excluded are every known candidate of the
    query's group (its translations stand in the same group) and, for QC, ancestors and descendants of its positives.

    Parameters
    ----------
    rows : pandas.DataFrame
        Train rows with a ``group`` column; nothing else is drawn from.
    task : str
        ``qc`` or ``qi``.
    settings : Negatives
        `target_share` of label 0 is aimed at; no query gets more than `max_per_query`.

    Returns
    -------
    tuple
        The sampled rows (``origin`` "easy"), and counts: ``asked``, ``made``, ``no_candidate``.
    """
    import numpy as np
    import pandas as pd

    negatives = int((rows["label"] == 0).sum())
    asked = 0
    if settings.strategy != "none":
        asked = max(0, math.ceil((settings.target_share * len(rows) - negatives) / (1 - settings.target_share)))
    counts = {"rows": len(rows), "negatives_before": negatives, "asked": asked, "made": 0, "no_candidate": 0}
    if not asked or rows.empty:
        return rows.iloc[:0].assign(origin="easy"), counts

    keys = [normalise(candidate) for candidate in rows["candidate"]]
    candidates = rows["candidate"].to_numpy(object)
    known: dict[str, set[str]] = defaultdict(set)
    positives: dict[str, list[str]] = defaultdict(list)
    for group, key, candidate, label in zip(rows["group"], keys, candidates, rows["label"], strict=True):
        known[group].add(key)
        if label == 1:
            positives[group].append(candidate)

    # A query in one language: the unit that a negative is made for. Shuffled rounds spread them evenly.
    units = rows.drop_duplicates(["group", "language"])
    generator = np.random.default_rng(settings.seed)
    made: list[dict[str, Any]] = []
    for _ in range(settings.max_per_query):
        for number in generator.permutation(len(units)):
            if len(made) == asked:
                break
            unit = units.iloc[int(number)]
            drawn = _draw(generator, keys, candidates, known[unit["group"]], positives[unit["group"]], task)
            if drawn is None:
                counts["no_candidate"] += 1
                continue
            known[unit["group"]].add(keys[drawn])
            identifier = f"{unit['id']}-easy{len(made)}"
            made.append(unit.to_dict() | {"id": identifier, "candidate": candidates[drawn], "label": 0, "origin": "easy"})
    counts["made"] = len(made)
    return pd.DataFrame(made, columns=[*rows.columns, *([] if "origin" in rows else ["origin"])]).astype(rows.dtypes.to_dict()), counts


def _draw(generator: Any, keys: list[str], candidates: Any, known: set[str], positives: list[str], task: str) -> int | None:
    for number in generator.integers(len(keys), size=32):
        if keys[number] in known:
            continue
        if task == "qc" and any(taxonomy.related(candidates[number], positive) for positive in positives):
            continue
        return int(number)
    return None
