"""Write one page about a model: reports/MODEL.html, a single file to open, send or keep, with every test row in it.

Reads what the other stages wrote: metrics/, plots/ and predictions/ of the model, metrics of the n-gram regression, of translation
and of sampling, the training sets and the languages of train in build/. Needs no torch and no network, nor does the page.
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json, write_text
from babelcart.core.tasks import Task
from babelcart.report import page
from babelcart.rows.table import read_table
from babelcart.scores import metrics
from babelcart.scores.metrics import Evaluate


def read(task: Task, model: str) -> page.TaskResults:
    numbers, predictions, plots = Path("metrics"), Path("predictions") / model / task, Path("plots") / model
    scores = read_json(numbers / model / f"{task}.json", metrics.SCORES)
    split = page.best_labelled_split(scores)
    curves = {
        "precision_recall": page.read_curve(plots / f"{task}_precision_recall.csv", "recall", "precision"),
        "calibration": page.read_curve(plots / f"{task}_calibration.csv", "probability", "share", "rows"),
    }
    training = plots / f"{task}_training" / "plots" / "metrics"
    for path in sorted(training.rglob("*.tsv")):
        curves[path.relative_to(training).with_suffix("").as_posix()] = page.read_curve(path, "step", path.stem)
    return page.TaskResults(
        task=task,
        split=split,
        predictions=read_table(predictions / f"{split}.parquet", "probability", labelled=True),
        validation=read_table(predictions / "validation.parquet", "probability", labelled=True),
        native_languages=read_json(Path(f"build/train_languages/{task}.json"), [str]),
        scores=scores,
        parts=read_json(numbers / model / f"{task}_slices.json", {split: {...: {...: metrics.SLICE_SCORES}}}),
        ngram=read_json(numbers / f"ngram/{task}.json", metrics.SCORES),
        translation=read_json(numbers / f"translate/{task}.json", page.TRANSLATION),
        negatives=read_json(numbers / f"negatives/{task}.json", page.NEGATIVES),
        examples=read_json(Path(f"build/negatives/{task}.examples.json"), page.EXAMPLES),
        training=read_table(Path(f"build/negatives/{task}.parquet"), "origin"),
        curves=curves,
    )


@cli.command
@cli.model
def main(model: str) -> None:
    outcomes = [read(task, model) for task in config.load("tasks", tuple[Task, ...])]
    write_text(Path("reports") / f"{model}.html", page.render_page(model, outcomes, config.load_section(Evaluate)))


if __name__ == "__main__":
    main()
