"""One page about a model: scores, charts and every test row, in one file that asks nothing of the network.

The page is report.html, report.css and report.js beside this module, filled by Jinja with escaping on. Rows travel as JSON that the
script shows as text, never as markup, and a Content-Security-Policy lets no other script run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.core.tasks import Task
from babelcart.report import charts
from babelcart.scores.intervals import bootstrap, interval
from babelcart.scores.metrics import Decision, Evaluate
from babelcart.scores.slices import slice_masks

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HERE = Path(__file__).parent
TITLES = {"qc": "query and category", "qi": "query and item"}
GROUPS = {
    "languages": "Languages in training",
    "query_words": "Words in the query",
    "candidates": "Candidates of the query",
    "top_category": "Top category",
}
MODEL, NGRAM, FLOOR = charts.KINDS
# Origins of rows of the training set, and kinds of example, as the page names them.
ORIGINS = {"native": "native", "translated": "translated", "easy": "easy negative", "hard": "hard negative"}
KINDS = {"positive": "positive", "natural_negative": "natural negative", "easy": "easy negative", "hard": "hard negative"}

# What JSON of `translate` and `negatives` holds, as far as the page shows it.
TRANSLATION = {"train?": {...: {"asked": int, "translated": int, "held_out": int, "refused": {...: int}}}}
_SHARES = {"language": {...: float}, "negative_share": float}
NEGATIVES = {
    "asked": int, "short": int, "made": {...: int}, "refused": {...: int}, "before": _SHARES, "after": _SHARES,
    "told_apart?": {...: float}, "similarity?": {...: {"q05": float, "q25": float, "q50": float, "q75": float, "q95": float}},
}  # fmt: skip
EXAMPLES = {...: [{"language": str, "query": str, "candidate": str, "similarity": (float, None)}]}


@dataclass(frozen=True)
class TaskResults:
    """What the stages wrote about one task.

    Attributes
    ----------
    split : str
        The labelled split that the page is about.
    predictions, validation : pandas.DataFrame
        Of that split and of validation: ``id``, ``language``, ``origin_query``, ``candidate``, ``label``, ``probability``.
    native_languages : sequence of str
        Languages with labelled rows in train.
    scores, parts, ngram : mapping
        ``TASK.json`` and ``TASK_slices.json`` of the model, and ``TASK.json`` of the n-gram regression, by split.
    translation, negatives, examples : mapping
        Counts of `translate` and `negatives`, and example rows by kind.
    training : pandas.DataFrame
        The training set: ``language``, ``origin``.
    curves : mapping of str to pandas.DataFrame
        ``precision_recall``, ``calibration``; of training ``train/loss`` and what was looked at on validation, as ``eval/auc``.
    """

    task: Task
    split: str
    predictions: pd.DataFrame
    validation: pd.DataFrame
    native_languages: Sequence[str]
    scores: Mapping[str, Any]
    parts: Mapping[str, Any]
    ngram: Mapping[str, Any]
    translation: Mapping[str, Any]
    negatives: Mapping[str, Any]
    examples: Mapping[str, Any]
    training: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]

    @property
    def decision(self) -> Decision:
        """As `evaluate` chose it on validation."""
        return Decision.from_scores(self.scores)


def best_labelled_split(scores: Mapping[str, Any]) -> str:
    """The split that a report is about: test where its labels are known, else dev, else validation."""
    return next(split for split in ("test", "dev", "validation") if split in scores)


def read_curve(path: Path, *columns: str) -> pd.DataFrame:
    """A curve as `evaluate` and `train` write it: CSV or, by its ending, TSV of numbers.

    Raises
    ------
    UserError
        If it is missing or is something else.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")[list(columns)].astype(float)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # those of pandas' parser are ValueErrors
        raise UserError(f"{path} is not a table of numbers with the columns {', '.join(columns)} ({error}); run `dvc repro`") from error
    if not len(table) or not (table.abs() < 1e300).all(axis=None):
        raise UserError(f"{path} has no rows, or a value that is no finite number; run `dvc repro`")
    return table


def f1_draws(outcome: TaskResults, settings: Evaluate) -> dict[str, np.ndarray]:
    """F1 in each draw of the bootstrap: at the ``chosen`` threshold, at one ``half``, and of answering always "relevant" (``floor``).

    The draws are those of `metrics.evaluate`, so their differences are paired.
    """
    import numpy as np

    rows = outcome.predictions
    label, probability = rows["label"].to_numpy(int), rows["probability"].to_numpy(float)
    limits = {"chosen": outcome.decision.thresholds(rows["language"]), "half": 0.5, "floor": 0.0}
    queries, everything = (rows["language"] + "\t" + rows["origin_query"]).to_numpy(), {"overall": np.ones(len(rows), dtype=bool)}
    return {
        name: bootstrap(
            label, probability, (probability >= limit).astype(int), queries, everything, settings.bootstrap_draws, settings.seed
        )["overall"]["f1"]
        for name, limit in limits.items()
    }


def row_browser(outcome: TaskResults) -> dict[str, Any]:
    """The rows of the page's browser, each text once, as columns of numbers.

    Returns
    -------
    dict
        ``languages``, ``queries``, ``candidates``: texts, and by row the place in them in ``language``, ``query``, ``candidate``;
        ``thresholds`` by language; ``kind`` by row, twice the label plus the answer; ``probability``; ``id``; ``slices``, each with
        its ``title``, ``values`` and the place in them by row, ``of``.

    Raises
    ------
    UserError
        If the predictions are not those that the scores were made of.
    """
    import numpy as np
    import pandas as pd

    rows, decision = outcome.predictions, outcome.decision
    answer = rows["probability"].to_numpy(float) >= decision.thresholds(rows["language"])
    expected = outcome.scores[outcome.split]["overall"]["rows"]
    if len(rows) != expected:
        raise UserError(f"{outcome.task}: {len(rows)} predictions of {outcome.split}, but scores of {expected}; run `dvc repro evaluate`")
    language, languages = pd.factorize(rows["language"], sort=True)
    query, queries = pd.factorize(rows["origin_query"])
    candidate, candidates = pd.factorize(rows["candidate"])
    found = []
    masks = slice_masks(rows, outcome.native_languages, outcome.task)
    for group in GROUPS:
        if group in masks:
            values = sorted(masks[group], key=_natural)
            places = np.argmax(np.stack([masks[group][value] for value in values]), axis=0)
            found.append({"title": GROUPS[group], "values": values, "of": places.tolist()})
    return {
        "task": outcome.task,
        "languages": list(languages),
        "thresholds": decision.thresholds(pd.Series(languages)).tolist(),
        "queries": list(queries),
        "candidates": list(candidates),
        "id": rows["id"].astype(str).tolist(),
        "language": language.tolist(),
        "query": query.tolist(),
        "candidate": candidate.tolist(),
        "kind": (2 * rows["label"].to_numpy(int) + answer).tolist(),
        "probability": rows["probability"].astype(float).round(4).tolist(),
        "slices": found,
    }


def _natural(name: str) -> tuple[int, str]:
    """Sorts 2-3 before 10+, and names by the alphabet."""
    number = re.match(r"\d+", name)
    return int(number[0]) if number else 0, name


def _parts(outcome: TaskResults) -> dict[str, dict[str, Any]]:
    """Scores by title of the group and by value, in reading order."""
    parts = outcome.parts[outcome.split]
    return {
        title: {name: parts[group][name] for name in sorted(parts[group], key=_natural)}
        for group, title in GROUPS.items()
        if group in parts
    }


def _against_the_floor(group: str, name: str, score: Mapping[str, float], ngram: Mapping[str, float] | None) -> list[dict[str, Any]]:
    """The points of one row of `charts.intervals`."""
    place = {"group": group, "name": name}
    points: list[dict[str, Any]] = [
        {**place, "kind": FLOOR, "value": score["floor_f1"]},
        {**place, "kind": MODEL, "value": score["f1"], "low": score.get("f1_low"), "high": score.get("f1_high")},
    ]
    return points + ([{**place, "kind": NGRAM, "value": ngram["f1"]}] if ngram else [])


def _threshold_chart(outcome: TaskResults) -> str:
    """F1 by threshold, on validation and on the split of the page, near its best."""
    import numpy as np

    records = []
    for name, rows in {"validation": outcome.validation, outcome.split: outcome.predictions}.items():
        label, probability = rows["label"].to_numpy(int), rows["probability"].to_numpy(float)
        for at in np.linspace(0, 1, 101).round(2).tolist():
            answer = probability >= at
            f1 = 2 * float((answer & (label == 1)).sum()) / max(1, int(answer.sum() + label.sum()))
            records.append({"kind": name, "x": at, "y": round(f1, 5)})
    least = max(record["y"] for record in records) - 0.25
    chosen = outcome.decision.threshold
    marks = [{"x": chosen, "height": least, "text": f"chosen: {chosen:.3f}"}]
    return charts.lines([record for record in records if record["y"] >= least], "threshold", "F1", marks=marks)


def _training_charts(curves: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    found = {}
    if "train/loss" in curves:
        loss = curves["train/loss"]
        mean = loss["loss"].ewm(span=20).mean().round(5)
        found["loss"] = charts.loss(loss.assign(mean=mean).to_dict("records"))
    looks = [
        {"kind": {"auc": "AUC", "f1": "best F1"}.get(column, column), "x": int(step), "y": float(value)}
        for column, curve in ((name.removeprefix("eval/"), curve) for name, curve in sorted(curves.items()) if name.startswith("eval/"))
        for step, value in zip(curve["step"], curve[column], strict=True)
    ]
    if looks:
        found["looks"] = charts.lines(looks, "step", "score on validation rows", dots=True)
    return found


def _translation(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of the rows that were to be translated, by language."""
    found = []
    for language, count in sorted(counts.items()):
        refused = dict(count["refused"])
        missing = refused.pop("missing", 0)
        outcome = {"translated": count["translated"], "no translation": missing, "refused": sum(refused.values())}
        found.append({"name": language, "asked": count["asked"], **outcome, "held out": count["held_out"], "reasons": refused})
    return found


def _training_rows(outcome: TaskResults) -> dict[str, dict[str, int]]:
    """Rows of the training set by language and origin."""
    counted = outcome.training.groupby(["language", "origin"]).size().unstack(fill_value=0)
    return {str(language): {str(origin): int(number) for origin, number in row.items()} for language, row in counted.iterrows()}


def _charts(outcome: TaskResults, translated: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The SVG of every chart for which there is data."""
    score, ngram = outcome.scores[outcome.split], outcome.ngram.get(outcome.split, {})
    seen = [(name in outcome.native_languages, name) for name in score["language"]]
    languages = [
        point
        for native, name in sorted(seen, key=lambda one: (not one[0], one[1]))
        for point in _against_the_floor(
            "seen in training" if native else "unseen", name, score["language"][name], ngram.get("language", {}).get(name)
        )
    ]
    parts = [
        point
        for group, values in _parts(outcome).items()
        for name, part in values.items()
        for point in _against_the_floor(group, name, part, None)
    ]
    curve = outcome.curves["precision_recall"]
    recall = [{"kind": MODEL, "x": x, "y": y} for x, y in zip(curve["recall"], curve["precision"], strict=True)]
    found = {
        "languages": charts.intervals(languages, labels=30),
        "slices": charts.intervals(parts, labels=170),
        "thresholds": _threshold_chart(outcome),
        "calibration": charts.calibration(outcome.curves["calibration"].to_dict("records")),
        "precision_recall": charts.lines(recall, "recall", "precision"),
        **_training_charts(outcome.curves),
    }
    rows = _training_rows(outcome)
    kinds = {kind: title for kind, title in ORIGINS.items() if any(row.get(kind) for row in rows.values())}
    counted = [{"name": name, "kind": title, "rows": row.get(kind, 0)} for name, row in rows.items() for kind, title in kinds.items()]
    found["rows"] = charts.stacked(counted, list(kinds.values()), "rows of the training set")
    if translated:
        ways = ("translated", "held out", "refused", "no translation")
        counted = [{"name": one["name"], "kind": way, "rows": one[way]} for one in translated for way in ways]
        found["translation"] = charts.stacked(counted, ways, "rows chosen for translation")
    if similarity := outcome.negatives.get("similarity"):
        boxes = [{"name": title, **similarity[kind]} for kind, title in KINDS.items() if kind in similarity]
        found["similarity"] = charts.quantiles(boxes, "similarity of query and candidate")
    return found


def _view(outcome: TaskResults, draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows of a task."""
    score, ngram = outcome.scores[outcome.split], outcome.ngram.get(outcome.split, {})
    translated = _translation(outcome.translation.get("train", {}))
    overall = score["overall"]
    return {
        "task": outcome.task,
        "name": outcome.task.upper(),
        "title": TITLES[outcome.task],
        "split": outcome.split,
        "score": score,
        "ngram": ngram,
        "validation": outcome.scores["validation"],
        "parts": _parts(outcome),
        "native": outcome.native_languages,
        "gains": {
            "half": {"value": overall["f1"] - overall["f1_at_half"], "ends": interval(draws["chosen"] - draws["half"])},
            "floor": {"value": overall["f1"] - overall["floor_f1"], "ends": interval(draws["chosen"] - draws["floor"])},
        },
        "origins": ORIGINS,
        "rows": _training_rows(outcome),
        "translated": translated,
        "negatives": outcome.negatives,
        "examples": {title: outcome.examples[kind] for kind, title in KINDS.items() if outcome.examples.get(kind)},
        "charts": _charts(outcome, translated),
    }


def _embed(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def render_page(model: str, outcomes: Sequence[TaskResults], settings: Evaluate) -> str:
    """The report as HTML; equal inputs give equal text.

    Parameters
    ----------
    model : str
        Its name.
    outcomes : sequence of Outcome
        One a task.
    settings : Evaluate
        Those that the scores were made with: the differences get the same draws.
    """
    import jinja2
    import numpy as np
    from markupsafe import Markup

    script = (HERE / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "−")
    environment.filters["number"] = lambda value: (
        "–" if value is None or isinstance(value, jinja2.Undefined) else f"{value:.3f}".replace("-", "−")
    )
    draws = [f1_draws(outcome, settings) for outcome in outcomes]
    mean = {
        "value": float(np.mean([outcome.scores[outcome.split]["overall"]["f1"] for outcome in outcomes])),
        "ends": interval(np.mean([drawn["chosen"] for drawn in draws], axis=0)),
    }
    return environment.get_template("report.html").render(
        model=model,
        mean=mean,
        draws=settings.bootstrap_draws,
        tasks=[_view(outcome, drawn) for outcome, drawn in zip(outcomes, draws, strict=True)],
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        rows=Markup(_embed([row_browser(outcome) for outcome in outcomes])),
        svg=Markup,
    )
