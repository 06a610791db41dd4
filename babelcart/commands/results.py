"""Print the scores in metrics/ as a Markdown table.

Each model is shown next to the n-gram baseline and the floor, the F1 of always answering "relevant". With --attacks, print how many
answers hostile text flips.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart import resist
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json
from babelcart.core.graph import metrics_folders
from babelcart.core.tasks import Task
from babelcart.scores import metrics

METRICS = ("f1", "floor_f1", "auc", "precision", "recall")


def score_table(split: str) -> list[str]:
    """Lines of the table of scores of the given split, overall and for seen and unseen languages, for the tasks of params.yaml."""
    lines = ["| task | rows | model | F1 | floor | AUC | precision | recall |", "|---|---|---|---|---|---|---|---|"]
    for task in config.load("tasks", tuple[Task, ...]):
        paths = {path.parent.name: path for path in sorted(Path("metrics").glob(f"*/{task}.json"))}
        models = [name for name in paths if name == "ngram" or name not in metrics_folders()]
        files = {name: read_json(paths[name], metrics.SCORES) for name in models}
        scores = {name: content[split] for name, content in files.items() if "threshold" in content.get(split, {})}
        for group in ("overall", "seen", "unseen"):
            for name, model_scores in scores.items():
                if group in model_scores:
                    row = model_scores[group]
                    columns = " | ".join(f"{row.get(metric, float('nan')):.3f}" for metric in METRICS)
                    lines.append(f"| {task.upper()} | {group}, {row['rows']:,} rows | {name} | {columns} |")
    return lines


def attack_table() -> list[str]:
    """Lines of the table of attacks: the answers flipped by each attack and by its control, neutral text of equal length."""
    lines = ["| task | model | attack | sought | rows | flipped | 95 % | control | excess |", "|---|---|---|---|---|---|---|---|---|"]
    for path in sorted(Path("metrics").glob("*/*_attacks.json")):
        for attack, directions in read_json(path, resist.SHAPE).items():
            for direction, counts in directions.items():
                shares = [counts.get(key, float("nan")) for key in ("flipped", "flipped_low", "flipped_high", "control", "excess")]
                columns = "{:.1%} | {:.1%} to {:.1%} | {:.1%} | {:+.1%}".format(*shares)
                name = f"{path.name.partition('_')[0].upper()} | {path.parent.name} | {attack} | {direction.removeprefix('to_')}"
                lines.append(f"| {name} | {counts['rows']:,} | {columns} |")
    return lines


@cli.command
@click.option("--split", type=click.Choice(["validation", "dev", "test"]), default="test", show_default=True, help="Rows to report.")
@click.option("--attacks", "show_attacks", is_flag=True, help="Print the answers flipped by hostile text instead.")
def main(split: str, show_attacks: bool) -> None:
    lines = attack_table() if show_attacks else score_table(split)
    if len(lines) == 2:
        raise click.ClickException(f"metrics/ has no scores of the {split} rows; run `dvc repro`, or try --split validation")
    click.echo("\n".join(lines))
