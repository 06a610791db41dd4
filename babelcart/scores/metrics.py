"""Metrics of predictions. F1 comes first, always next to its floor, which needs no model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.scores.intervals import bootstrap, interval, sampling_units
from babelcart.scores.slices import Key, labelled_masks, slice_masks, with_overall

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Shapes of the JSON of scores, for `babelcart.core.shapes.check_shape`: of a slice, of a split, and of a file.
SLICE_SCORES = {
    "rows": int, "all_rows?": int, "positive_share": float, "predicted_share?": float, "floor_f1": float, "f1": float,
    "precision": float, "recall": float, "brier": float, "ece": float, "auc?": float,
    "f1_low?": float, "f1_high?": float, "auc_low?": float, "auc_high?": float,
}  # fmt: skip
SPLIT_SCORES = {
    "threshold": float, "thresholds?": {...: float}, "temperature?": float,
    "overall": {**SLICE_SCORES, "f1_at_half": float}, "seen?": SLICE_SCORES, "unseen?": SLICE_SCORES, "language": {...: SLICE_SCORES},
}  # fmt: skip
SCORES = {"validation": SPLIT_SCORES, "dev?": SPLIT_SCORES, "test?": SPLIT_SCORES}
ANSWERS = {0: "not relevant", 1: "relevant"}
# Names of (label, prediction).
OUTCOMES = {(1, 1): "true_positive", (0, 1): "false_positive", (1, 0): "false_negative", (0, 0): "true_negative"}


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


def f1_curve(label: np.ndarray, probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return F1 at each of several thresholds. Rows with ``probability >= threshold`` are predicted relevant.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    thresholds : numpy.ndarray
        ``(thresholds,)``, in any order.

    Returns
    -------
    numpy.ndarray
        ``(thresholds,)`` float64; 0 where neither a label nor a prediction is positive.
    """
    import numpy as np

    ascending = np.argsort(probability, kind="stable")
    # True positives if the predicted positives are the rows from each position of the ascending order on.
    true_positives_from = np.append(np.cumsum(label[ascending][::-1])[::-1], 0)  # (rows + 1,)
    first_predicted = np.searchsorted(probability[ascending], thresholds, side="left")  # (thresholds,)
    return _f1(true_positives_from[first_predicted], len(label) - first_predicted, label.sum())


def _f1(true_positives: np.ndarray | int, predicted_positives: np.ndarray, actual_positives: np.ndarray) -> np.ndarray:
    """Return F1 from counts; 0 where there are neither predicted nor actual positives."""
    import numpy as np

    return 2 * true_positives / np.maximum(predicted_positives + actual_positives, 1)


def floor_f1(label: np.ndarray) -> float:
    """Return F1 of always answering "relevant"; `label` is ``(rows,)`` of 0 and 1, at least one row."""
    return float(2 * label.sum() / (len(label) + label.sum()))


def best_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold with the highest F1. Rows with ``probability >= threshold`` are predicted relevant.

    If several thresholds have the same F1, the highest one is returned. It is the midpoint of two adjacent probabilities, so that a
    rounding error does not flip a prediction. It is never rounded: the probabilities of a confident model differ only in late digits.

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
    if not label.sum():
        raise UserError(f"no threshold can be chosen: none of the {len(label)} validation rows is relevant")
    thresholds = _separating_thresholds(probability)
    return float(thresholds[np.argmax(f1_curve(label, probability, thresholds))])


def _separating_thresholds(probability: np.ndarray) -> np.ndarray:
    """Return one threshold for each distinct probability, which this probability and all higher ones reach; ``(distinct,)``, descending.

    It is the midpoint between the probability and the next lower one, or the probability itself if no float64 lies between the two.
    """
    import numpy as np

    descending = np.unique(probability)[::-1]
    next_lower = np.append(descending[1:], 0.0)
    midpoint = (descending + next_lower) / 2
    return np.where(midpoint > next_lower, midpoint, descending)


def language_thresholds(validation: pd.DataFrame, shrink_rows: int) -> dict[str, float]:
    """Return a threshold for each language, shrunk towards the task's threshold where the language has few validation rows.

    It maximises ``(n F1_language(t) + k F1_task(t)) / (n + k)``, where ``n`` is the number of rows of the language and
    ``k = shrink_rows``. With few rows, the F1 curve of the task decides; with many, that of the language.

    Parameters
    ----------
    validation : pandas.DataFrame
        Columns ``language``, ``label`` and ``probability``.
    shrink_rows : int
        Weight of the task's F1 curve, in rows.

    Returns
    -------
    dict of str to float
        Thresholds by language.
    """
    import numpy as np

    label, probability = validation["label"].to_numpy(int), validation["probability"].to_numpy(float)
    candidates = _separating_thresholds(probability)
    task_f1 = f1_curve(label, probability, candidates)
    thresholds = {}
    for language, rows in validation.groupby("language"):
        language_f1 = f1_curve(rows["label"].to_numpy(int), rows["probability"].to_numpy(float), candidates)
        best = int(np.argmax(len(rows) * language_f1 + shrink_rows * task_f1))
        thresholds[str(language)] = float(candidates[best])
    return thresholds


def temperature(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the divisor of the logits that minimises the log loss (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    logit = _logit(probability)
    sign = np.where(np.asarray(label) == 1, -1.0, 1.0)

    def log_loss(log_temperature: float) -> float:
        return np.logaddexp(0, sign * logit / np.exp(log_temperature)).mean()

    return float(np.exp(minimize_scalar(log_loss, bounds=(-4, 4), method="bounded").x))


def _logit(probability: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities. 0 and 1 are replaced by the nearest float64 between them, so that every logit is finite."""
    import numpy as np

    inside = np.clip(np.asarray(probability, dtype=float), np.finfo(float).tiny, np.nextafter(1, 0))
    return np.log(inside) - np.log1p(-inside)


def calibration_bins(label: np.ndarray, probability: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Return the mean probability and share of relevant rows in bins of about equal size.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    bins : int
        Number of bins. Equal probabilities stay in one bin, so there may be fewer.

    Returns
    -------
    pandas.DataFrame
        Columns ``probability``, ``share`` and ``rows``, one row for each bin.
    """
    import numpy as np
    import pandas as pd

    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    rows = pd.DataFrame({"bin": np.searchsorted(edges, probability, side="right"), "probability": probability, "share": label})
    table = rows.groupby("bin").agg(probability=("probability", "mean"), share=("share", "mean"), rows=("share", "size"))
    return table.reset_index(drop=True)


def expected_calibration_error(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean difference of probability and share of relevant rows in 15 bins of equal size.

    See Nixon et al., "Measuring Calibration in Deep Learning", 2019.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    """
    bins = calibration_bins(label, probability)
    return float(((bins["probability"] - bins["share"]).abs() * bins["rows"]).sum() / bins["rows"].sum())


def compute_scores(label: np.ndarray, probability: np.ndarray, threshold: float | np.ndarray) -> dict[str, float]:
    """Return F1 and the other metrics of one set of rows.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1, at least one row.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    threshold : float or numpy.ndarray
        One threshold, or ``(rows,)``, one for each row.

    Returns
    -------
    dict
        ``rows``, ``positive_share``, ``predicted_share`` (the share predicted relevant), ``floor_f1`` (`floor_f1`), ``f1``,
        ``precision``, ``recall``, ``brier`` and ``ece`` (`expected_calibration_error`); ``auc`` and ``average_precision`` if both labels
        occur. Precision without predicted positives is 0, as in scikit-learn. Not rounded.

    Raises
    ------
    UserError
        If there are no rows, or a probability is not in [0, 1].
    """
    import numpy as np
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    label, probability = np.asarray(label, dtype=int), np.asarray(probability, dtype=float)
    if not len(label):
        raise UserError("there are no rows to score")
    if invalid := int((~((probability >= 0) & (probability <= 1))).sum()):
        raise UserError(f"{invalid} of {len(probability)} probabilities are not finite numbers from 0 to 1; predict again")
    predicted = probability >= threshold
    precision, recall, f1, _ = precision_recall_fscore_support(label, predicted, average="binary", zero_division=0)
    positive_share = float(label.mean())
    scores = {
        "rows": len(label),
        "positive_share": positive_share,
        "predicted_share": float(predicted.mean()),
        "floor_f1": floor_f1(label),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "brier": float(np.mean((probability - label) ** 2)),
        "ece": expected_calibration_error(label, probability),
    }
    if 0 < positive_share < 1:
        scores["auc"] = float(roc_auc_score(label, probability))
        scores["average_precision"] = float(average_precision_score(label, probability))
    return scores


@dataclass(frozen=True)
class Decision:
    """Thresholds and calibration, as chosen on validation rows.

    Attributes
    ----------
    threshold : float
        The task's threshold: rows with ``probability >= threshold`` are predicted relevant.
    languages : dict of str to float
        Thresholds of the languages that have their own.
    temperature : float, optional
        Divisor of the logits before the Brier score and the calibration error are computed. F1 and AUC do not depend on it.
    """

    threshold: float
    languages: dict[str, float]
    temperature: float | None = None

    @classmethod
    def from_scores(cls, scores: Mapping[str, Any]) -> Decision:
        """Read the decision from the scores of a task, the content of metrics/MODEL/TASK.json."""
        validation = scores["validation"]
        return cls(validation["threshold"], validation.get("thresholds", {}), validation.get("temperature"))

    def threshold_of(self, language: str) -> float:
        """Return the threshold for rows of one language."""
        return self.languages.get(language, self.threshold)

    def thresholds(self, language: pd.Series) -> np.ndarray:
        """Return the threshold of each row, ``(rows,)`` float64, by its language."""
        return language.map(self.languages).fillna(self.threshold).to_numpy(float)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """Return whether each row is predicted relevant, ``(rows,)`` bool, from the columns ``language`` and ``probability``."""
        return rows["probability"].to_numpy(float) >= self.thresholds(rows["language"])

    def calibrated(self, probability: np.ndarray) -> np.ndarray:
        """Return the probabilities after temperature scaling, ``(rows,)`` float64."""
        from scipy.special import expit

        return probability if self.temperature is None else expit(_logit(probability) / self.temperature)


def decide(validation: pd.DataFrame, settings: Evaluate) -> Decision:
    """Choose thresholds and temperature on validation rows.

    Parameters
    ----------
    validation : pandas.DataFrame
        Columns ``language``, ``label`` and ``probability``; every label known.
    settings : Evaluate

    Raises
    ------
    UserError
        If the threshold with the best F1 is required and no row is relevant.
    """
    label, probability = validation["label"].to_numpy(int), validation["probability"].to_numpy(float)
    if settings.threshold != "best_f1":
        threshold, languages = float(settings.threshold), {}
    else:
        threshold = best_threshold(label, probability)
        languages = language_thresholds(validation, settings.shrink_rows) if settings.per_language else {}
    return Decision(threshold, languages, temperature(label, probability) if settings.calibrate else None)


def best_labelled_split(scores: Mapping[str, Any]) -> str:
    """Return the split whose scores are shown: test if it has labelled rows, otherwise dev, otherwise validation."""
    return next(split for split in ("test", "dev", "validation") if split in scores)


def labelled_rows(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose label is known."""
    return predictions[predictions["label"].notna()].reset_index(drop=True)


def evaluate(
    predictions: pd.DataFrame, decision: Decision, native_languages: Sequence[str], settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores of the labelled rows, overall and by slice.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Columns ``language``, ``origin_query``, ``candidate``, ``label`` and ``probability``, and those of further slices (`slice_masks`).
        At least one label is known.
    decision : Decision
        Thresholds and calibration, from `decide` on validation rows.
    native_languages : sequence of str
        Languages with labelled rows in train. The others are "unseen".
    settings : Evaluate

    Returns
    -------
    summary : dict
        ``threshold`` (and ``temperature`` and ``thresholds`` if they were chosen), and the scores of ``overall``, ``seen`` and
        ``unseen`` languages (if there are such rows) and each ``language``: those of `compute_scores`, with ``f1_low``, ``f1_high``,
        ``auc_low`` and ``auc_high`` if there are enough queries, and ``all_rows`` if some rows of the slice have no label.
        ``overall`` also has ``f1_at_half``, F1 at a threshold of 0.5. Slices without a labelled row are left out.
    slices : dict
        The same scores for every other group of `babelcart.scores.slices`.
    """
    masks = with_overall(slice_masks(predictions, native_languages), len(predictions))
    scored = labelled_rows(predictions)
    scores = _score_slices(scored, decision, labelled_masks(masks, predictions["label"].notna().to_numpy()), settings)
    for key, slice_scores in scores.items():
        if (all_rows := int(masks[key].sum())) > slice_scores["rows"]:
            slice_scores["all_rows"] = all_rows
    label, probability = scored["label"].to_numpy(int), scored["probability"].to_numpy(float)
    summary: dict[str, Any] = {"threshold": decision.threshold}
    if decision.temperature is not None:
        summary["temperature"] = decision.temperature
    if decision.languages:
        summary["thresholds"] = decision.languages
    by_group: dict[str, dict[str, dict[str, float]]] = {}
    for (group, value), slice_scores in scores.items():
        by_group.setdefault(group, {})[value] = slice_scores
    summary["overall"] = by_group.pop("overall")["all"] | {"f1_at_half": compute_scores(label, probability, 0.5)["f1"]}
    summary |= by_group.pop("languages")
    summary["language"] = by_group.pop("language")
    return summary, by_group


def _score_slices(
    predictions: pd.DataFrame, decision: Decision, masks: Mapping[Key, np.ndarray], settings: Evaluate
) -> dict[Key, dict[str, float]]:
    """Return the scores of each slice, with the ends of the intervals of F1 and AUC that are defined."""
    label, probability = predictions["label"].to_numpy(int), predictions["probability"].to_numpy(float)
    thresholds, predicted = decision.thresholds(predictions["language"]), decision.predict(predictions).astype(int)
    drawn = bootstrap(label, probability, predicted, sampling_units(predictions), masks, settings.bootstrap_draws, settings.seed)
    slice_scores = {}
    for key, mask in masks.items():
        scores = compute_scores(label[mask], probability[mask], thresholds[mask])
        if decision.temperature is not None:
            calibrated = compute_scores(label[mask], decision.calibrated(probability[mask]), thresholds[mask])
            scores |= {name: calibrated[name] for name in ("brier", "ece")}
        for metric, values in drawn[key].items():
            if metric in scores and (ends := interval(values)):
                scores |= {f"{metric}_low": ends[0], f"{metric}_high": ends[1]}
        slice_scores[key] = scores
    return slice_scores


def plot_tables(predictions: pd.DataFrame, decision: Decision) -> dict[str, pd.DataFrame]:
    """Return the tables that `dvc plots` draws, by name of the plot.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Columns ``language``, ``label`` and ``probability``; every label known.
    decision : Decision

    Returns
    -------
    dict of str to pandas.DataFrame
        ``precision_recall`` (`precision_recall`), ``calibration`` (`calibration_bins`), ``languages`` (scores and confusion counts of
        each language) and ``confusion`` (rows by language, label and prediction).
    """
    import pandas as pd

    label, probability = predictions["label"].to_numpy(int), predictions["probability"].to_numpy(float)
    predicted = decision.predict(predictions).astype(int)
    answers = pd.DataFrame({"language": predictions["language"], "actual": label, "predicted": predicted})
    confusion = answers.groupby(["language", "actual", "predicted"]).size().rename("rows").reset_index()
    return {
        "precision_recall": precision_recall(label, probability),
        "calibration": calibration_bins(label, decision.calibrated(probability)).round(5),
        "languages": pd.DataFrame([{"language": language, **_confusion_scores(rows)} for language, rows in answers.groupby("language")]),
        "confusion": confusion.replace({"actual": ANSWERS, "predicted": ANSWERS}),
    }


def _confusion_scores(answers: pd.DataFrame) -> dict[str, float]:
    """Return the rows, F1, floor and confusion counts from the columns ``actual`` and ``predicted``, of 0 and 1."""
    counts = {
        name: int(((answers["actual"] == label) & (answers["predicted"] == prediction)).sum())
        for (label, prediction), name in OUTCOMES.items()
    }
    f1 = _f1(counts["true_positive"], answers["predicted"].sum(), answers["actual"].sum())
    return {"rows": len(answers), "f1": float(f1.round(5)), "floor_f1": round(floor_f1(answers["actual"].to_numpy()), 5), **counts}


def precision_recall(label: np.ndarray, probability: np.ndarray, points: int = 101) -> pd.DataFrame:
    """Return the precision-recall curve at evenly spaced recalls, which keeps the file small enough for git.

    Parameters
    ----------
    label : numpy.ndarray
        ``(rows,)`` of 0 and 1.
    probability : numpy.ndarray
        ``(rows,)`` in [0, 1].
    points : int
        Number of recalls from 0 to 1.

    Returns
    -------
    pandas.DataFrame
        Columns ``recall`` and ``precision``, the highest precision at this recall or a higher one (interpolated precision).
    """
    import numpy as np
    import pandas as pd
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(label, probability)
    grid = np.linspace(0, 1, points)
    highest = np.maximum.accumulate(precision)[np.searchsorted(-recall, -grid, side="right") - 1]
    return pd.DataFrame({"recall": grid.round(4), "precision": highest.round(5)})
