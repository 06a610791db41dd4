"""Print the results in metrics/ as a Markdown table: each model beside the n-gram baseline and the floor.

The floor is the F1 of always answering "relevant". Not a stage: it reads what git has.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.files import read_json
from stages import cli


@cli.command
@click.option("--split", type=click.Choice(["validation", "dev", "test"]), default="test", show_default=True)
def main(split: str) -> None:
    lines = ["| task | rows | model | F1 | floor | AUC | precision | recall |", "|---|---|---|---|---|---|---|---|"]
    for task in ("qc", "qi"):
        results = {path.parent.name: read_json(path) for path in sorted(Path("metrics").glob(f"*/{task}.json"))}
        results = {name: result for name, result in results.items() if "threshold" in result.get(split, {})}
        for part in ("overall", "seen", "unseen"):
            for name, result in results.items():
                if part in result[split]:
                    found = result[split][part]
                    numbers = " | ".join(f"{found.get(key, float('nan')):.3f}" for key in ("f1", "floor_f1", "auc", "precision", "recall"))
                    lines.append(f"| {task.upper()} | {part}, {found['rows']:,} rows | {name} | {numbers} |")
    if len(lines) == 2:
        raise click.ClickException(f"metrics/ has no scores of the {split} rows; run `dvc repro`, or try --split validation")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
