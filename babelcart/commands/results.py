"""Print the results in metrics/ as a Markdown table: each model beside the n-gram baseline and the floor; or what attacks turn.

The floor is the F1 of always answering "relevant". Not a stage: it reads what git has.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart import metrics, resistance
from babelcart.commands import cli
from babelcart.files import read_json


def scores(split: str) -> list[str]:
    """The table of scores."""
    lines = ["| task | rows | model | F1 | floor | AUC | precision | recall |", "|---|---|---|---|---|---|---|---|"]
    for task in ("qc", "qi"):
        paths = {path.parent.name: path for path in sorted(Path("metrics").glob(f"*/{task}.json"))}
        models = [name for name in paths if name == "ngram" or name not in cli.RESERVED]
        results = {name: read_json(paths[name], metrics.SCORES) for name in models}
        results = {name: result for name, result in results.items() if "threshold" in result.get(split, {})}
        for part in ("overall", "seen", "unseen"):
            for name, result in results.items():
                if part in result[split]:
                    found = result[split][part]
                    numbers = " | ".join(f"{found.get(key, float('nan')):.3f}" for key in ("f1", "floor_f1", "auc", "precision", "recall"))
                    lines.append(f"| {task.upper()} | {part}, {found['rows']:,} rows | {name} | {numbers} |")
    return lines


def attacks() -> list[str]:
    """The table of attacks: the answers that each turned, and that its control, neutral text of equal length, turned."""
    lines = ["| task | model | attack | sought | rows | turned | 95 % | control | excess |", "|---|---|---|---|---|---|---|---|---|"]
    for path in sorted(Path("metrics").glob("*/*_attacks.json")):
        for attack, found in read_json(path, resistance.SHAPE).items():
            for way, one in found.items():
                shares = [one.get(key, float("nan")) for key in ("flipped", "flipped_low", "flipped_high", "control", "excess")]
                numbers = "{:.1%} | {:.1%} to {:.1%} | {:.1%} | {:+.1%}".format(*shares)
                name = f"{path.name.partition('_')[0].upper()} | {path.parent.name} | {attack} | {way.removeprefix('to_')}"
                lines.append(f"| {name} | {one['rows']:,} | {numbers} |")
    return lines


@cli.command
@click.option("--split", type=click.Choice(["validation", "dev", "test"]), default="test", show_default=True)
@click.option("--attacks", "attacked", is_flag=True, help="Print instead how many answers hostile text turned.")
def main(split: str, attacked: bool) -> None:
    lines = attacks() if attacked else scores(split)
    if len(lines) == 2:
        raise click.ClickException(f"metrics/ has no scores of the {split} rows; run `dvc repro`, or try --split validation")
    click.echo("\n".join(lines))
