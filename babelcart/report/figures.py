"""The charts of one task: which ones the page has, and the records that they draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from babelcart.report import charts
from babelcart.report.inputs import KINDS, ORIGINS, TaskResults
from babelcart.scores.formatting import format_probability
from babelcart.scores.metrics import f1_curve

if TYPE_CHECKING:
    import pandas as pd

MODEL, NGRAM, FLOOR = charts.KINDS
# Possible outcomes of a row chosen for translation: key of `TaskResults.translation_counts`, and title.
TRANSLATION_OUTCOMES = {"translated": "translated", "held_out": "held out", "refused": "refused", "missing": "no translation"}
METRIC_TITLES = {"auc": "AUC", "f1": "best F1"}


def task_charts(results: TaskResults) -> dict[str, str]:
    """Return all charts of a task for which there is data: SVG text by name."""
    precision_recall = results.curves["precision_recall"]
    svgs = {
        "languages": _language_chart(results),
        "slices": _slice_chart(results),
        "thresholds": _threshold_chart(results),
        "calibration": charts.calibration(results.curves["calibration"].to_dict("records")),
        "precision_recall": charts.lines(
            [{"kind": MODEL, "x": x, "y": y} for x, y in zip(precision_recall["recall"], precision_recall["precision"], strict=True)],
            "recall",
            "precision",
        ),
        **_training_charts(results.curves),
        "rows": _training_row_chart(results),
    }
    if counts := results.translation_counts():
        records = [
            {"name": row["language"], "kind": title, "rows": row[outcome]}
            for row in counts
            for outcome, title in TRANSLATION_OUTCOMES.items()
        ]
        svgs["translation"] = charts.stacked(records, list(TRANSLATION_OUTCOMES.values()), "rows chosen for translation")
    if similarity := results.negatives.get("similarity"):
        quantiles = [{"name": title, **similarity[kind]} for kind, title in KINDS.items() if kind in similarity]
        svgs["similarity"] = charts.quantiles(quantiles, "similarity of query and candidate")
    return svgs


def _interval_records(group: str, name: str, scores: Mapping[str, float], ngram: Mapping[str, float] | None) -> list[dict[str, Any]]:
    """Return the points of one line of `charts.intervals`: the floor, the model and, if there is one, the n-gram baseline."""
    line = {"group": group, "name": name}
    records: list[dict[str, Any]] = [
        {**line, "kind": FLOOR, "value": scores["floor_f1"]},
        {**line, "kind": MODEL, "value": scores["f1"], "low": scores.get("f1_low"), "high": scores.get("f1_high")},
    ]
    return records + ([{**line, "kind": NGRAM, "value": ngram["f1"]}] if ngram else [])


def _language_chart(results: TaskResults) -> str:
    """Return F1 by language, first of the languages that were seen in training."""
    scores, ngram_scores = results.split_scores["language"], results.ngram_scores.get("language", {})
    records = []
    for unseen, language in sorted((language not in results.native_languages, language) for language in scores):
        group = "unseen" if unseen else "seen in training"
        records += _interval_records(group, language, scores[language], ngram_scores.get(language))
    return charts.intervals(records, label_width=30)


def _slice_chart(results: TaskResults) -> str:
    """Return F1 by slice of the other groups."""
    records = [
        record
        for title, values in results.slice_scores().items()
        for name, scores in values.items()
        for record in _interval_records(title, name, scores, None)
    ]
    return charts.intervals(records, label_width=170)


def _threshold_chart(results: TaskResults) -> str:
    """Return F1 by threshold on validation and on the split of the page, down to 0.25 below the maximum."""
    import numpy as np

    chosen = results.decision.threshold
    thresholds = np.unique(np.append(np.linspace(0, 1, 101).round(2), chosen))  # the chosen threshold may lie between two of the others
    records = []
    for name, rows in {"validation": results.validation, results.split: results.labelled}.items():
        f1 = f1_curve(rows["label"].to_numpy(int), rows["probability"].to_numpy(float), thresholds)
        records += [{"kind": name, "x": x, "y": round(y, 5)} for x, y in zip(thresholds.tolist(), f1.tolist(), strict=True)]
    lowest = max(record["y"] for record in records) - 0.25
    rules = [{"x": chosen, "height": lowest, "text": f"chosen: {format_probability(chosen)}"}]
    return charts.lines([record for record in records if record["y"] >= lowest], "threshold", "F1", rules=rules)


def _training_charts(curves: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return the training loss and the metrics of the evaluation steps, if they were recorded."""
    svgs = {}
    if "train/loss" in curves:
        loss = curves["train/loss"]
        mean = loss["loss"].ewm(span=20).mean().round(5)
        svgs["loss"] = charts.loss(loss.assign(mean=mean).to_dict("records"))
    records = [
        {"kind": METRIC_TITLES.get(metric, metric), "x": int(step), "y": float(score)}
        for metric, curve in ((name.removeprefix("eval/"), curve) for name, curve in sorted(curves.items()) if name.startswith("eval/"))
        for step, score in zip(curve["step"], curve[metric], strict=True)
    ]
    if records:
        svgs["evaluations"] = charts.lines(records, "step", "score on validation rows", dots=True)
    return svgs


def _training_row_chart(results: TaskResults) -> str:
    """Training rows by language, stacked by origin."""
    rows = results.training_rows()
    origins = {origin: title for origin, title in ORIGINS.items() if any(row.get(origin) for row in rows.values())}
    records = [
        {"name": language, "kind": title, "rows": row.get(origin, 0)} for language, row in rows.items() for origin, title in origins.items()
    ]
    return charts.stacked(records, list(origins.values()), "rows of the training set")
