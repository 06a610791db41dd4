"""Write the report of a model: reports/MODEL.html, one self-contained file with scores, charts and every labelled test row.

Where no test row has a label, the page shows the dev rows, and otherwise the validation rows.

Reads metrics/, plots/ and predictions/ of the model; the metrics of the n-gram baseline, of translation and of negative sampling; and the
training sets and languages of train in build/. Needs no torch and no network; neither does the page.
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json, write_text
from babelcart.core.tasks import Task
from babelcart.report import inputs, page
from babelcart.rows.table import read_table
from babelcart.scores import metrics
from babelcart.scores.metrics import Evaluate


def read(task: Task, model: str) -> inputs.TaskResults:
    """Read the results of a task."""
    scores_folder, predictions, plots = Path("metrics"), Path("predictions") / model / task, Path("plots") / model
    scores = read_json(scores_folder / model / f"{task}.json", metrics.SCORES)
    split = metrics.best_labelled_split(scores)
    curves = {
        "precision_recall": inputs.read_curve(plots / f"{task}_precision_recall.csv", "recall", "precision"),
        "calibration": inputs.read_curve(plots / f"{task}_calibration.csv", "probability", "share", "rows"),
    }
    training_curves = plots / f"{task}_training" / "plots" / "metrics"
    for path in sorted(training_curves.rglob("*.tsv")):
        curves[path.relative_to(training_curves).with_suffix("").as_posix()] = inputs.read_curve(path, "step", path.stem)
    return inputs.TaskResults(
        task=task,
        split=split,
        predictions=read_table(predictions / f"{split}.parquet", "probability"),
        validation=read_table(predictions / "validation.parquet", "probability", labelled=True),
        native_languages=read_json(Path(f"build/train_languages/{task}.json"), [str]),
        scores=scores,
        slices=read_json(scores_folder / model / f"{task}_slices.json", {split: {...: {...: metrics.SLICE_SCORES}}}),
        ngram=read_json(scores_folder / f"ngram/{task}.json", metrics.SCORES),
        translation=read_json(scores_folder / f"translate/{task}.json", inputs.TRANSLATION),
        negatives=read_json(scores_folder / f"negatives/{task}.json", inputs.NEGATIVES),
        examples=read_json(Path(f"build/negatives/{task}.examples.json"), inputs.EXAMPLES),
        training=read_table(Path(f"build/negatives/{task}.parquet"), "origin"),
        curves=curves,
    )


@cli.command
@cli.model
def main(model: str) -> None:
    tasks = [read(task, model) for task in config.load("tasks", tuple[Task, ...])]
    write_text(Path("reports") / f"{model}.html", page.render_page(model, tasks, config.load_section(Evaluate)))


if __name__ == "__main__":
    main()
