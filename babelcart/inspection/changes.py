"""Differences between the rows of two revisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = 5


def compare_rows(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Compare two tables of rows.

    Rows are identified by language, query and candidate in normal form, so that new ids are no change.

    Parameters
    ----------
    before, after : pandas.DataFrame
        Tables as `babelcart.prepare.prepare_task` gives.

    Returns
    -------
    dict
        ``before``, ``after``: numbers of rows; ``added``, ``removed``, ``relabelled``: numbers of pairs; ``languages``: language ->
        rows before and after, where they differ; ``labels``: the same for labels; ``examples``: up to five relabelled pairs.
    """
    old, new = _labels_by_pair(before), _labels_by_pair(after)
    changed = [pair for pair, label in new.items() if pair in old and old[pair] != label]
    return {
        "before": len(before),
        "after": len(after),
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "relabelled": len(changed),
        "languages": _differing(_counts(before, "language"), _counts(after, "language")),
        "labels": _differing(_counts(before, "label"), _counts(after, "label")),
        "examples": [[*pair, _label(old[pair]), _label(new[pair])] for pair in sorted(changed)[:_EXAMPLES]],
    }


def _labels_by_pair(table: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Language, query and candidate -> mean label; -1 without label."""
    labels: dict[tuple[str, str, str], list[float]] = {}
    values = table["label"].fillna(-1).astype(float).tolist()
    for language, query, candidate, label in zip(table["language"], table["origin_query"], table["candidate"], values, strict=True):
        labels.setdefault((language, normalise(query), normalise(candidate)), []).append(label)
    return {pair: sum(values) / len(values) for pair, values in labels.items()}


def _counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    counts = table[column].value_counts(dropna=False)
    return {"none" if value is None or value != value or str(value) == "<NA>" else str(value): int(rows) for value, rows in counts.items()}


def _differing(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, list[int]]:
    names = sorted({*before, *after})
    return {name: [before.get(name, 0), after.get(name, 0)] for name in names if before.get(name, 0) != after.get(name, 0)}


def _label(label: float) -> str:
    return "none" if label < 0 else f"{label:g}"
