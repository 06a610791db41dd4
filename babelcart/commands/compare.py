"""Compare the predictions of two revisions row by row.

Prints the differences of the scores with intervals, the slices that changed and the rows whose answer flipped. AFTER is the workspace
if it is omitted:

\b
    babelcart compare main
    babelcart compare main my-branch --task qc

Reads predictions/MODEL/TASK of each revision, and build/train_languages/TASK.json of the second one, from the DVC cache or the remote.
Each revision is scored at its own thresholds. Intervals are 95 % paired bootstraps that draw queries; expect about one false alarm in
twenty slices.
"""

from __future__ import annotations

import csv
from pathlib import Path

import click

from babelcart import compare, spreadsheet
from babelcart.commands import cli, revisions
from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.files import atomic_write
from babelcart.core.tasks import TASKS
from babelcart.scores import metrics
from babelcart.scores.formatting import format_rows

TEXTS = ("id", "language", "origin_query", "candidate", "grade")


@cli.command
@click.argument("before")
@click.argument("after", required=False)
@click.option("--task", "tasks", type=click.Choice(TASKS), multiple=True, help="Task to compare. Default: `tasks` of params.yaml.")
@click.option("--model", callback=lambda *args: args[2] and cli.model_name(args[2]), help="Model to compare. Default: the first in `run`.")
@click.option("--split", type=click.Choice(["validation", "dev", "test"]), default="test", show_default=True, help="Rows to compare.")
@click.option("--flipped", default=5, show_default=True, help="Number of fixed and of broken rows to print.")
@click.option("--out", type=click.Path(path_type=Path), help="CSV file for all flipped rows; spreadsheet formulas are escaped.")
def main(before: str, after: str | None, tasks: tuple[str, ...], model: str | None, split: str, flipped: int, out: Path | None) -> None:
    if out and len(tasks) != 1:
        raise UserError("--out holds the rows of one task; name it with --task")
    model = model or config.load("run", tuple[str, ...])[0]
    names = (before, after or "the workspace")
    for task in tasks or config.load("tasks", tuple[str, ...]):
        predictions, decisions = [], []
        for revision in (before, after):
            predictions.append(revisions.read_table(revision, f"predictions/{model}/{task}/{split}.parquet", "probability"))
            decisions.append(metrics.Decision.from_scores(revisions.read_json(revision, f"metrics/{model}/{task}.json", metrics.SCORES)))
        pairs = compare.pair_predictions(predictions[0], predictions[1], names)
        native_languages = revisions.read_json(after, f"build/train_languages/{task}.json", [str])
        differences = compare.compare_slices(pairs, decisions[0], decisions[1], native_languages)
        changed = compare.flips(pairs, decisions[0], decisions[1])
        click.echo(f"{task}, {model}, {format_rows(differences.iloc[0])} of {split}: {names[0]} -> {names[1]}")
        click.echo("".join(f"  {line}\n" for line in compare.describe(differences, changed, flipped)), nl=False)
        if out:
            columns = [name for name in changed if name != "levels"]
            texts = {name: changed[name].map(spreadsheet.escape_formula) for name in columns if name in TEXTS}
            with atomic_write(out) as path:
                changed[columns].assign(**texts).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)
