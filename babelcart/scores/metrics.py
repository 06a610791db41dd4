"""Scores of predictions: F1 first, always beside the floor that needs no model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.scores.intervals import bootstrap, interval
from babelcart.scores.slices import slice_masks

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# What JSON of scores holds (`babelcart.core.shapes.check_shape`): of a part of the rows, of a split, and in all.
SLICE_SCORES = {
    "rows": int, "positive_share": float, "floor_f1": float, "f1": float, "precision": float, "recall": float, "brier": float, "ece": float,
    "auc?": float, "f1_low?": float, "f1_high?": float, "auc_low?": float, "auc_high?": float,
}  # fmt: skip
SPLIT_SCORES = {
    "threshold": float, "thresholds?": {...: float}, "temperature?": float,
    "overall": {**SLICE_SCORES, "f1_at_half": float}, "seen?": SLICE_SCORES, "unseen?": SLICE_SCORES, "language": {...: SLICE_SCORES},
}  # fmt: skip
SCORES = {"validation": SPLIT_SCORES, "dev?": SPLIT_SCORES, "test?": SPLIT_SCORES}
ANSWERS = {0: "not relevant", 1: "relevant"}


@dataclass(frozen=True)
class Evaluate:
    """The section ``evaluate`` of params.yaml."""

    SECTION: ClassVar[str] = "evaluate"

    threshold: float | Literal["best_f1"] = bounded(0, 1, default="best_f1")
    per_language: bool = False
    shrink_rows: int = bounded(0, 10**9, default=500)
    calibrate: Literal["temperature"] | None = None
    bootstrap_draws: int = bounded(0, 100_000, default=1000)
    seed: int = bounded(0, 2**63 - 1, default=0)


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


def language_thresholds(validation: pd.DataFrame, shrink_rows: int) -> dict[str, float]:
    """A threshold for each language, drawn towards the task's where its validation rows are few.

    It maximises ``(n F1_language(t) + k F1_task(t)) / (n + k)`` for the ``n`` rows of the language and ``k = shrink_rows``: with few
    rows the curve of the whole task decides, with many their own.

    Parameters
    ----------
    validation : pandas.DataFrame
        Columns ``language``, ``label``, ``probability``.
    """
    import numpy as np

    label, probability = validation["label"].to_numpy(int), validation["probability"].to_numpy(float)
    distinct = np.unique(probability)
    at = np.append(distinct[:1], (distinct[1:] + distinct[:-1]) / 2)
    whole = _f1_curve(label, probability, at)
    found = {}
    for language, rows in validation.groupby("language"):
        own = _f1_curve(rows["label"].to_numpy(int), rows["probability"].to_numpy(float), at)
        found[str(language)] = round(float(at[int(np.argmax(len(rows) * own + shrink_rows * whole))]), 6)
    return found


def _f1_curve(label: np.ndarray, probability: np.ndarray, at: np.ndarray) -> np.ndarray:
    """F1 at each threshold."""
    import numpy as np

    ordered = np.argsort(probability, kind="stable")
    hits = np.append(np.cumsum(label[ordered][::-1])[::-1], 0)
    first = np.searchsorted(probability[ordered], at, side="left")
    return 2 * hits[first] / np.maximum(len(label) - first + label.sum(), 1)


def temperature(label: np.ndarray, probability: np.ndarray) -> float:
    """What the logits are to be divided by for the least log loss (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    logit = _logit(probability)
    sign = np.where(np.asarray(label) == 1, -1.0, 1.0)
    found = minimize_scalar(lambda log: np.logaddexp(0, sign * logit / np.exp(log)).mean(), bounds=(-4, 4), method="bounded")
    return float(np.exp(found.x))


def _logit(probability: np.ndarray) -> np.ndarray:
    import numpy as np

    inside = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.log(inside) - np.log1p(-inside)


def calibration_bins(label: np.ndarray, probability: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Mean probability and share of relevant rows in bins of about equal size: ``probability``, ``share``, ``rows``.

    Equal scores stay in one bin, so there may be fewer than `bins`.
    """
    import numpy as np
    import pandas as pd

    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    number = np.searchsorted(edges, probability, side="right")
    table = pd.DataFrame({"number": number, "probability": probability, "share": label})
    found = table.groupby("number").agg(probability=("probability", "mean"), share=("share", "mean"), rows=("share", "size"))
    return found.reset_index(drop=True)


def expected_calibration_error(label: np.ndarray, probability: np.ndarray) -> float:
    """The mean distance of probability and share in 15 bins of equal size (Nixon et al., "Measuring Calibration", 2019)."""
    found = calibration_bins(label, probability)
    return float(((found["probability"] - found["share"]).abs() * found["rows"]).sum() / found["rows"].sum())


def compute_scores(label: np.ndarray, probability: np.ndarray, threshold: float | np.ndarray) -> dict[str, float]:
    """F1 and its company for one set of rows.

    Parameters
    ----------
    label, probability : numpy.ndarray
        ``(rows,)``, at least one row.
    threshold : float or numpy.ndarray
        One, or one a row.

    Returns
    -------
    dict
        ``rows``, ``positive_share``, ``floor_f1`` (F1 of always answering "relevant"), ``f1``, ``precision``, ``recall``,
        ``brier``, ``ece`` (`expected_calibration_error`), and ``auc`` and ``average_precision`` where both labels occur.
        Precision without any predicted positive is 0, as in scikit-learn.

    Raises
    ------
    UserError
        If there is no row, or a probability is not in [0, 1].
    """
    import numpy as np
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    label, probability = np.asarray(label, dtype=int), np.asarray(probability, dtype=float)
    if not len(label):
        raise UserError("there are no rows to score")
    if wrong := int((~((probability >= 0) & (probability <= 1))).sum()):
        raise UserError(f"{wrong} of {len(probability)} probabilities are not finite numbers from 0 to 1; predict again")
    precision, recall, f1, _ = precision_recall_fscore_support(label, probability >= threshold, average="binary", zero_division=0)
    share = float(label.mean())
    found = {
        "rows": len(label),
        "positive_share": share,
        "floor_f1": 2 * share / (1 + share),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "brier": float(np.mean((probability - label) ** 2)),
        "ece": expected_calibration_error(label, probability),
    }
    if 0 < share < 1:
        found["auc"] = float(roc_auc_score(label, probability))
        found["average_precision"] = float(average_precision_score(label, probability))
    return {name: round(value, 5) for name, value in found.items()}


@dataclass(frozen=True)
class Decision:
    """What was chosen on validation: when a probability means "relevant", and how it is calibrated.

    Attributes
    ----------
    threshold : float
        Of the task.
    languages : dict
        Thresholds of languages that have their own.
    temperature : float, optional
        The logits are divided by it before Brier score and calibration error; F1 and AUC do not depend on it.
    """

    threshold: float
    languages: dict[str, float]
    temperature: float | None = None

    @classmethod
    def from_scores(cls, scores: Mapping[str, Any]) -> Decision:
        """What `decide` chose, from metrics/MODEL/TASK.json."""
        chosen = scores["validation"]
        return cls(chosen["threshold"], chosen.get("thresholds", {}), chosen.get("temperature"))

    def thresholds(self, language: pd.Series) -> np.ndarray:
        """The threshold of each row."""
        return language.map(self.languages).fillna(self.threshold).to_numpy(float)

    def calibrated(self, probability: np.ndarray) -> np.ndarray:
        """Probabilities after temperature scaling."""
        import numpy as np

        return probability if self.temperature is None else 1 / (1 + np.exp(-_logit(probability) / self.temperature))


def decide(validation: pd.DataFrame, settings: Evaluate) -> Decision:
    """Choose thresholds and temperature on validation rows (``language``, ``label``, ``probability``)."""
    label, probability = validation["label"].to_numpy(int), validation["probability"].to_numpy(float)
    if settings.threshold != "best_f1":
        threshold, languages = float(settings.threshold), {}
    else:
        threshold = best_threshold(label, probability)
        languages = language_thresholds(validation, settings.shrink_rows) if settings.per_language else {}
    found = round(temperature(label, probability), 5) if settings.calibrate else None
    return Decision(round(threshold, 6), languages, found)


def evaluate(
    predictions: pd.DataFrame, decision: Decision, native_languages: Sequence[str], settings: Evaluate, task: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of labelled predictions.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Columns ``language``, ``origin_query``, ``candidate``, ``label``, ``probability``; every label known.
    decision : Decision
        From `decide`, on validation.
    native_languages : sequence of str
        Languages with labelled rows in train; the others are "unseen".

    Returns
    -------
    summary : dict
        ``threshold``, then the `scores` of ``overall``, ``seen``, ``unseen`` (where there are rows) and each language, with
        ``f1_low``, ``f1_high``, ``auc_low``, ``auc_high`` where there are enough queries; overall also ``f1_at_half``.
    parts : dict
        The same scores for every other group of `babelcart.scores.slices`.
    """
    import numpy as np

    label, probability = predictions["label"].to_numpy(int), predictions["probability"].to_numpy(float)
    thresholds = decision.thresholds(predictions["language"])
    groups = slice_masks(predictions, native_languages, task)
    masks = {"overall": np.ones(len(predictions), dtype=bool)}
    masks |= {f"{group}\t{value}": mask for group, values in groups.items() for value, mask in values.items()}
    queries = (predictions["language"] + "\t" + predictions["origin_query"]).to_numpy()
    drawn = bootstrap(label, probability, (probability >= thresholds).astype(int), queries, masks, settings.bootstrap_draws, settings.seed)

    def score(name: str) -> dict[str, float]:
        mask = masks[name]
        found = compute_scores(label[mask], probability[mask], thresholds[mask])
        if decision.temperature is not None:
            calibrated = compute_scores(label[mask], decision.calibrated(probability[mask]), thresholds[mask])
            found |= {key: calibrated[key] for key in ("brier", "ece")}
        for metric, values in drawn[name].items():
            if (ends := interval(values)) is not None and metric in found:
                found |= {f"{metric}_low": round(ends[0], 5), f"{metric}_high": round(ends[1], 5)}
        return found

    summary: dict[str, Any] = {"threshold": decision.threshold}
    if decision.temperature is not None:
        summary["temperature"] = decision.temperature
    if decision.languages:
        summary["thresholds"] = decision.languages
    summary["overall"] = score("overall") | {"f1_at_half": compute_scores(label, probability, 0.5)["f1"]}
    summary |= {value: score(f"languages\t{value}") for value in groups.pop("languages")}
    summary["language"] = {value: score(f"language\t{value}") for value in groups.pop("language")}
    return summary, {group: {value: score(f"{group}\t{value}") for value in values} for group, values in groups.items()}


def curves(predictions: pd.DataFrame, decision: Decision) -> dict[str, pd.DataFrame]:
    """What `dvc plots` draws of labelled predictions: ``precision_recall``, ``calibration``, ``languages``, ``confusion``."""
    import pandas as pd

    label, probability = predictions["label"].to_numpy(int), predictions["probability"].to_numpy(float)
    predicted = (probability >= decision.thresholds(predictions["language"])).astype(int)
    answers = pd.DataFrame({"language": predictions["language"], "actual": label, "predicted": predicted})
    counted = answers.groupby(["language", "actual", "predicted"]).size().rename("rows").reset_index()
    names = {(1, 1): "true_positive", (0, 1): "false_positive", (1, 0): "false_negative", (0, 0): "true_negative"}
    languages = []
    for language, rows in answers.groupby("language"):
        counts = {name: int(((rows["actual"] == a) & (rows["predicted"] == p)).sum()) for (a, p), name in names.items()}
        share = rows["actual"].mean()
        f1 = 2 * counts["true_positive"] / max(1, rows["actual"].sum() + rows["predicted"].sum())
        languages.append(
            {"language": language, "rows": len(rows), "f1": round(f1, 5), "floor_f1": round(2 * share / (1 + share), 5), **counts}
        )
    return {
        "precision_recall": precision_recall(label, probability),
        "calibration": calibration_bins(label, decision.calibrated(probability)).round(5),
        "languages": pd.DataFrame(languages),
        "confusion": counted.replace({"actual": ANSWERS, "predicted": ANSWERS}),
    }


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
