"""Write one page about a model: reports/MODEL.html, a single file to open, send or keep, with every test row in it.

Reads what the other stages wrote: metrics/, plots/ and predictions/ of the model, metrics of the n-gram regression, of translation
and of sampling, and the training sets in build/. Needs no torch and no network, nor does the page.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import config, report
from babelcart.files import read_json, read_table, write_text
from babelcart.metrics import Evaluate
from babelcart.tasks import Task
from stages import cli


def read(task: Task, model: str) -> report.Outcome:
    import pandas as pd

    scores, predictions = read_json(Path(f"metrics/{model}/{task}.json")), Path("predictions") / model / task
    split = report.last_labelled(scores)
    plots = Path("plots") / model
    training = plots / f"{task}_training" / "plots" / "metrics"
    curves = {name: pd.read_csv(plots / f"{task}_{name}.csv") for name in ("precision_recall", "calibration")}
    curves |= {path.relative_to(training).with_suffix("").as_posix(): pd.read_table(path) for path in sorted(training.rglob("*.tsv"))}
    return report.Outcome(
        task=task,
        split=split,
        predictions=read_table(predictions / f"{split}.parquet"),
        validation=read_table(predictions / "validation.parquet"),
        native_languages=sorted(read_table(Path(f"build/split/{task}/train.parquet"))["language"].unique()),
        scores=scores,
        parts=read_json(Path(f"metrics/{model}/{task}_slices.json")),
        ngram=read_json(Path(f"metrics/ngram/{task}.json")),
        translation=read_json(Path(f"metrics/translate/{task}.json")),
        negatives=read_json(Path(f"metrics/negatives/{task}.json")),
        examples=read_json(Path(f"build/negatives/{task}.examples.json")),
        training=read_table(Path(f"build/negatives/{task}.parquet")),
        curves=curves,
    )


@cli.command
@cli.model
def main(model: str) -> None:
    outcomes = [read(task, model) for task in config.load("tasks", tuple[Task, ...])]
    write_text(Path("reports") / f"{model}.html", report.page(model, outcomes, config.load("evaluate", Evaluate)))


if __name__ == "__main__":
    main()
