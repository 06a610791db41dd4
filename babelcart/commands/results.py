"""Print the scores in metrics/ as a Markdown table.

Each model is shown next to the n-gram baseline and the floor, the F1 of always answering "relevant". With --by, print the scores of the
slices of a group. With --attacks, print how many answers hostile text flips.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from babelcart import resist
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.errors import printable
from babelcart.core.files import read_json
from babelcart.core.tasks import Task
from babelcart.scores import metrics
from babelcart.scores.formatting import format_rows
from babelcart.scores.slices import reading_order

# Metrics that the tables show, and the titles of their columns.
COLUMNS = {"f1": "F1", "floor_f1": "floor", "auc": "AUC", "precision": "precision", "recall": "recall"}
SLICE_COLUMNS = {"positive_share": "relevant", "predicted_share": "predicted relevant"}
GROUPS = ("language", "query_words", "candidates", "top_category", "grade", "origin")
# Shape of metrics/MODEL/TASK_slices.json.
SLICES = {...: {...: {...: metrics.SLICE_SCORES}}}


def header(first: str, columns: Mapping[str, str]) -> list[str]:
    """Return the two lines above the rows of a Markdown table."""
    titles = [*first.split(", "), *columns.values()]
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def cells(scores: Mapping[str, float], columns: Mapping[str, str]) -> str:
    """Return the scores with three decimals, "nan" where they are not defined."""
    return " | ".join(f"{scores.get(metric, float('nan')):.3f}" for metric in columns)


def read_scores(task: str) -> dict[str, Any]:
    """Return the content of metrics/MODEL/TASK.json, by name of the model: those under ``run`` in params.yaml, and the n-gram baseline.

    Metrics of other models are not shown, because they may be those of other data, such as the sample's.
    """
    paths = {name: Path(f"metrics/{name}/{task}.json") for name in sorted({*config.load("run", tuple[str, ...]), "ngram"})}
    return {name: read_json(path, metrics.SCORES) for name, path in paths.items() if path.exists()}


def shown_split(scores: Mapping[str, Any], split: str | None) -> tuple[str, str]:
    """Return the split to print, and its name for the column of rows, which is empty if it is the expected one.

    Without a choice of the user, it is test, and where no test row has a label, dev or validation.
    """
    if split:
        return split, ""
    models = {name: content for name, content in scores.items() if name != "ngram"} or scores
    best = metrics.best_labelled_split({name: None for content in models.values() for name in content})
    return best, "" if best == "test" else best


def score_table(split: str | None) -> list[str]:
    """Return lines of the table of scores, overall and for seen and unseen languages."""
    lines = header("task, rows, model", COLUMNS)
    for task in config.load("tasks", tuple[Task, ...]):
        if not (scores := read_scores(task)):
            continue
        task_split, name_of_split = shown_split(scores, split)
        for group in ("overall", "seen", "unseen"):
            for name, content in scores.items():
                if group in content.get(task_split, {}):
                    slice_scores = content[task_split][group]
                    rows = format_rows(slice_scores, name_of_split)
                    lines.append(f"| {task.upper()} | {group}, {rows} | {name} | {cells(slice_scores, COLUMNS)} |")
    return lines


def slice_table(split: str | None, group: str) -> list[str]:
    """Return lines of the table of scores of the slices of a group, with the shares of relevant rows and of rows predicted relevant."""
    columns = {**COLUMNS, **SLICE_COLUMNS}
    lines = header(f"task, {group}, model", columns)
    for task in config.load("tasks", tuple[Task, ...]):
        scores = {name: content for name, content in read_scores(task).items() if name != "ngram"}
        if not scores:
            continue
        task_split, name_of_split = shown_split(scores, split)
        for name, content in scores.items():
            if group == "language":
                slices = content.get(task_split, {}).get("language", {})
            else:
                slices = read_json(Path(f"metrics/{name}/{task}_slices.json"), SLICES).get(task_split, {}).get(group, {})
            for value in sorted(slices, key=reading_order):
                slice_scores, title = slices[value], printable(value).replace("|", "\\|")
                rows = format_rows(slice_scores, name_of_split)
                lines.append(f"| {task.upper()} | {title}, {rows} | {name} | {cells(slice_scores, columns)} |")
    return lines


def attack_table() -> list[str]:
    """Return lines of the table of attacks: the answers flipped by each attack and by its control, neutral text of equal length."""
    lines = ["| task | model | attack | sought | rows | flipped | 95 % | control | excess |", "|---|---|---|---|---|---|---|---|---|"]
    models, tasks = sorted(config.load("run", tuple[str, ...])), config.load("tasks", tuple[str, ...])
    paths = (Path(f"metrics/{model}/{task}_attacks.json") for model in models for task in sorted(tasks))
    for path in filter(Path.exists, paths):
        for attack, directions in read_json(path, resist.SHAPE).items():
            for direction, counts in directions.items():
                shares = [counts.get(key, float("nan")) for key in ("flipped", "flipped_low", "flipped_high", "control", "excess")]
                columns = "{:.1%} | {:.1%} to {:.1%} | {:.1%} | {:+.1%}".format(*shares)
                name = f"{path.name.partition('_')[0].upper()} | {path.parent.name} | {attack} | {direction.removeprefix('to_')}"
                lines.append(f"| {name} | {counts['rows']:,} | {columns} |")
    return lines


@cli.command
@click.option(
    "--split",
    type=click.Choice(["validation", "dev", "test"]),
    help="Rows to report. Default: test, or dev or validation where no test row has a label.",
)
@click.option("--by", type=click.Choice(GROUPS), help="Print the scores of the slices of a group instead.")
@click.option("--attacks", "show_attacks", is_flag=True, help="Print the answers flipped by hostile text instead.")
def main(split: str | None, by: str | None, show_attacks: bool) -> None:
    lines = attack_table() if show_attacks else slice_table(split, by) if by else score_table(split)
    if len(lines) == 2:
        rows = f"the {split} rows" if split else "labelled rows"
        slices = f" by {by}" if by else ""
        raise click.ClickException(f"metrics/ has no scores of {rows}{slices}; run `dvc repro`, or try another --split")
    click.echo("\n".join(lines))
