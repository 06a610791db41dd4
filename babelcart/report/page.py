"""The report of one model: scores, charts and every test row in one HTML file that loads nothing from the network.

Jinja fills report.html, with escaping, and inserts report.css, common.js and report.js. The rows are embedded as JSON, which the script
inserts as text, never as markup. A Content-Security-Policy allows only this script and blocks all requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.report.figures import task_charts
from babelcart.report.inputs import KINDS, ORIGINS, TaskResults
from babelcart.report.rows import row_browser
from babelcart.scores.formatting import format_count, format_probability, format_rows
from babelcart.scores.intervals import bootstrap, interval, sampling_units
from babelcart.scores.metrics import Evaluate

if TYPE_CHECKING:
    import jinja2
    import numpy as np

TEMPLATES = Path(__file__).parent
TASK_TITLES = {"qc": "query and category", "qi": "query and item"}


def render_page(model: str, tasks: Sequence[TaskResults], settings: Evaluate) -> str:
    """Render the report as HTML; equal inputs give equal text.

    Parameters
    ----------
    model : str
        Name of the model.
    tasks : sequence of TaskResults
        The results of each task.
    settings : Evaluate
        The settings of the scores; intervals of differences use the same draws.

    Raises
    ------
    UserError
        If there are more or fewer labelled predictions than scored rows.
    """
    from markupsafe import Markup

    draws = [f1_draws(results, settings) for results in tasks]
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("common.js", "report.js"))
    return (
        _environment()
        .get_template("report.html")
        .render(
            model=model,
            mean=_mean_f1(tasks, draws) if len({results.split for results in tasks}) == 1 else None,
            splits=list(dict.fromkeys(results.split for results in tasks)),
            draws=settings.bootstrap_draws,
            tasks=[_task_view(results, task_draws) for results, task_draws in zip(tasks, draws, strict=True)],
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            rows=Markup(_script_json([row_browser(results) for results in tasks])),
            svg=Markup,
        )
    )


def f1_draws(results: TaskResults, settings: Evaluate) -> dict[str, np.ndarray]:
    """Return F1 in each bootstrap draw, ``(draws,)`` float64, at three thresholds.

    The draws are those of `babelcart.scores.metrics.evaluate`, so that differences are paired.

    Returns
    -------
    dict
        ``chosen``: at the chosen thresholds; ``half``: at 0.5; ``floor``: if every answer is "relevant".
    """
    import numpy as np

    rows = results.labelled
    label, probability = rows["label"].to_numpy(int), rows["probability"].to_numpy(float)
    all_rows = {"overall": np.ones(len(rows), dtype=bool)}
    draws = {}
    for name, threshold in {"chosen": results.decision.thresholds(rows["language"]), "half": 0.5, "floor": 0.0}.items():
        predicted = (probability >= threshold).astype(int)
        drawn = bootstrap(label, probability, predicted, sampling_units(rows), all_rows, settings.bootstrap_draws, settings.seed)
        draws[name] = drawn["overall"]["f1"]
    return draws


def _mean_f1(tasks: Sequence[TaskResults], draws: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return the mean F1 of the tasks, with its interval."""
    import numpy as np

    return {
        "value": float(np.mean([results.split_scores["overall"]["f1"] for results in tasks])),
        "ends": interval(np.mean([task_draws["chosen"] for task_draws in draws], axis=0)),
    }


def _task_view(results: TaskResults, draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the variables of the template for one task."""
    overall = results.split_scores["overall"]
    return {
        "task": results.task,
        "name": results.task.upper(),
        "title": TASK_TITLES[results.task],
        "split": results.split,
        "scores": results.split_scores,
        "ngram": results.ngram_scores,
        "validation": results.scores["validation"],
        "slices": results.slice_scores(),
        "grades": results.slice_scores(same_label=True),
        "native": results.native_languages,
        "gains": {
            "half": {"value": overall["f1"] - overall["f1_at_half"], "ends": interval(draws["chosen"] - draws["half"])},
            "floor": {"value": overall["f1"] - overall["floor_f1"], "ends": interval(draws["chosen"] - draws["floor"])},
        },
        "origins": ORIGINS,
        "training_rows": results.training_rows(),
        "translation": results.translation_counts(),
        "negatives": results.negatives,
        "examples": {title: results.examples[kind] for kind, title in KINDS.items() if results.examples.get(kind)},
        "charts": task_charts(results),
    }


def _environment() -> jinja2.Environment:
    """Return a Jinja environment with escaping, and with the filters that format scores."""
    import jinja2

    def number(score: float | None) -> str:
        return "–" if score is None or isinstance(score, jinja2.Undefined) else f"{score:.3f}".replace("-", "−")

    def signed(difference: float) -> str:
        return f"{difference:+.3f}".replace("-", "−")

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "probability": format_probability}
    environment.filters |= {"count": format_count, "rows": format_rows}
    return environment


def _script_json(content: Any) -> str:
    """Return JSON for a script element. It holds no "<", so that text from the data cannot end the element."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
