"""Scores of predictions: F1 first, always beside the floor that needs no model. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from babelcart.config import within
from babelcart.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Evaluate:
    """The section ``evaluate`` of params.yaml."""

    threshold: float | Literal["best_f1"] = within(0, 1, default="best_f1")


def best_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest F1; rows with ``probability >= threshold`` are predicted relevant.

    Between two scores the middle is taken, so that a rounding of a score does not flip a row.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1, at least one 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].

    Raises
    ------
    UserError
        If no row is positive: F1 is then 0 for every threshold.
    """
    import numpy as np

    label, probability = np.asarray(label), np.asarray(probability, dtype=float)
    positives = int(label.sum())
    if not positives:
        raise UserError(f"no threshold can be chosen: none of the {len(label)} validation rows is relevant")
    ordered = np.argsort(-probability, kind="stable")
    scores = probability[ordered]
    hits = np.cumsum(label[ordered])
    # Only where the score changes can a threshold stand.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    f1 = 2 * hits[ends] / (ends + 1 + positives)
    best = ends[int(np.argmax(f1))]
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    middle = float((scores[best] + below) / 2)
    return middle if middle > below else float(scores[best])


def scores(label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """F1 and its company for one set of rows.

    Returns
    -------
    dict
        ``rows``, ``positive_share``, ``floor_f1`` (F1 of always answering "relevant"), ``f1``, ``precision``, ``recall``,
        and ``auc`` where both labels occur. Precision without any predicted positive is 0, as in scikit-learn.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    label, probability = np.asarray(label, dtype=int), np.asarray(probability, dtype=float)
    if not np.isfinite(probability).all():
        raise UserError(f"{int((~np.isfinite(probability)).sum())} of {len(probability)} probabilities are not finite; predict again")
    precision, recall, f1, _ = precision_recall_fscore_support(label, probability >= threshold, average="binary", zero_division=0)
    share = float(label.mean())
    found = {
        "rows": len(label),
        "positive_share": share,
        "floor_f1": 2 * share / (1 + share),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
    }
    if 0 < share < 1:
        found["auc"] = float(roc_auc_score(label, probability))
    return {name: round(value, 5) for name, value in found.items()}


def evaluate(predictions: pd.DataFrame, validation: pd.DataFrame, native_languages: Sequence[str], settings: Evaluate) -> dict[str, Any]:
    """Scores of labelled predictions, with a threshold that was chosen on validation.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Columns ``language``, ``label``, ``probability``; every label known.
    validation : pandas.DataFrame
        The same for the validation rows; used for the threshold only.
    native_languages : sequence of str
        Languages with labelled rows in train; the others are "unseen".

    Returns
    -------
    dict
        ``threshold``, then the `scores` of ``overall``, ``seen``, ``unseen`` (where there are rows) and each language.
    """
    label = predictions["label"].to_numpy(int)
    probability = predictions["probability"].to_numpy(float)
    if settings.threshold == "best_f1":
        threshold = best_threshold(validation["label"].to_numpy(int), validation["probability"].to_numpy(float))
    else:
        threshold = float(settings.threshold)
    seen = predictions["language"].isin(native_languages).to_numpy()
    result: dict[str, Any] = {"threshold": round(threshold, 6), "overall": scores(label, probability, threshold)}
    for name, mask in (("seen", seen), ("unseen", ~seen)):
        if mask.any():
            result[name] = scores(label[mask], probability[mask], threshold)
    result["language"] = {
        language: scores(label[mask], probability[mask], threshold)
        for language in sorted(predictions["language"].unique())
        if (mask := (predictions["language"] == language).to_numpy()).any()
    }
    return result


def precision_recall(label: np.ndarray, probability: np.ndarray, points: int = 101) -> pd.DataFrame:
    """The precision-recall curve at evenly spaced recalls, small enough for git: columns ``recall``, ``precision``."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(label, probability)
    # Best precision at that recall or more, as in interpolated precision.
    at = np.linspace(0, 1, points)
    best = np.maximum.accumulate(precision)[np.searchsorted(-recall, -at, side="right") - 1]
    return pd.DataFrame({"recall": at.round(4), "precision": best.round(5)})
