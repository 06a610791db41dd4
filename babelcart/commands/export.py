"""Export an adapter or a merged model to a folder for serving.

The folder also contains the prompt, the label tokens, the thresholds, an example script that does not need Babelcart, the model card and
the licence files of the base model. docs/serving.md shows how to use it.

Example: babelcart export --task qc --model gemma3-270m --out served/qc
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from babelcart.commands import cli
from babelcart.core.errors import printable
from babelcart.core.files import read_json
from babelcart.rows.table import read_table
from babelcart.scores import metrics

if TYPE_CHECKING:
    from babelcart.export import Dtype

DTYPE = click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), help="Dtype of the merged weights; default: that of the model in params.yaml."
)


def check_dtype(merge: bool, dtype: Dtype | None) -> None:
    """Refuse a dtype for an adapter, whose weights are written as they are."""
    if dtype and not merge:
        raise click.UsageError("--dtype applies only to merged weights: add --merge")


def write_export(task: str, model: str, out: Path, merge: bool, dtype: Dtype | None) -> list[str]:
    """Write a model of the workspace with its thresholds and its card, as far as they exist; see `babelcart.export.export_model`."""
    from babelcart import export
    from babelcart.model.task_model import read_task_model

    folder, scores = Path("models") / model, Path("metrics") / model / f"{task}.json"
    card = folder / f"{task}.md"
    decision = metrics.Decision.from_scores(read_json(scores, metrics.SCORES)) if scores.exists() else None
    task_model = read_task_model(folder, task)
    validation = None
    if merge and decision and task_model.settings.quantization != "none":
        validation = read_table(Path(f"build/translate/{task}/validation.parquet"), "pivot", labelled=True)
    existing_card = card if card.exists() else None
    return export.export_model(task_model, out, merge=merge, dtype=dtype, decision=decision, card=existing_card, validation=validation)


@cli.command
@cli.task
@cli.model
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to create; it must not exist.")
@click.option("--merge", is_flag=True, help="Merge the adapter into the base model, so that peft is not needed to load it.")
@DTYPE
def main(task: str, model: str, out: Path, merge: bool, dtype: Dtype | None) -> None:
    from babelcart import export
    from babelcart.model.task_model import read_task_model

    check_dtype(merge, dtype)
    licences = write_export(task, model, out, merge, dtype)
    click.echo(f"{out}: {'model' if merge else 'adapter'} and {', '.join([export.CONTRACT, export.EXAMPLE, *licences])}")
    if not licences:
        licence = printable(read_task_model(Path("models") / model, task).settings.weights.licence)
        click.echo(
            f"the base model has no licence file ({licence}); add the text of the licence before you give the export to others", err=True
        )
