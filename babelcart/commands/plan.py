"""Estimate rows, tokens, steps, memory and minutes of training and scoring.

Covers the tasks and models that params.yaml lists, on this machine and on every GPU given by --gpu. Reads the tables in
build/negatives and build/translate, and the base model if it has been downloaded. Writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from babelcart import plan
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.tasks import TASKS

# Used for models that have not been downloaded. All Gemma-3 models share this vocabulary; for other models the token counts are estimates.
STANDIN = "gemma3-270m"


@cli.command
@click.option("--task", "tasks", type=click.Choice(TASKS), multiple=True, help="Task to plan. Default: `tasks` of params.yaml.")
@click.option("--model", "names", multiple=True, help="Model to plan: a block under `models`. Default: `run` of params.yaml.")
@click.option("--gpu", "gpus", type=click.Choice(list(plan.GPUS)), multiple=True, help="GPU to plan for, in addition to this machine.")
def main(tasks: tuple[str, ...], names: tuple[str, ...], gpus: tuple[str, ...]) -> None:
    from babelcart.model import loading, scoring
    from babelcart.model.task_model import read_task_model
    from babelcart.rows.table import read_table
    from babelcart.training import loop
    from babelcart.weights.fetching import SOURCE_RECORD

    settings, predict = config.load_section(loop.TrainSettings), config.load_section(scoring.Predict)
    for name in names or config.load("run", tuple[str, ...]):
        model_settings, base = config.load_section(loading.ModelSettings, cli.model_name(name)), Path("models") / name / "base"
        shape, downloaded = plan.read_config(base, model_settings), (base / SOURCE_RECORD).exists()
        tokenizer_folder = base if downloaded else Path("models") / STANDIN / "base"
        note = "" if downloaded or shape.model_type.startswith("gemma3") else f" (tokens estimated with the tokenizer of {STANDIN})"
        for task in tasks or config.load("tasks", tuple[str, ...]):
            tokenizer = replace(read_task_model(base.parent, task), base=tokenizer_folder).load_tokenizer()
            paths = [f"build/negatives/{task}.parquet"]
            paths += [f"build/translate/{task}/{split}.parquet" for split in ("validation", *predict.splits)]
            if missing := [path for path in paths if not Path(path).exists()]:
                raise UserError(f"{missing[0]} does not exist; run `dvc repro negatives`")
            train, validation, *splits = (tokenizer.encode_table(read_table(Path(path), "pivot")) for path in paths)
            click.echo(f"{task}, {name}{note}")
            here = loading.for_this_cpu(model_settings)
            # `here` equals `model_settings` if this machine supports the model's dtype; one plan then serves both.
            plans = {
                one: plan.make_plan(shape, one, settings, predict.max_tokens, train, validation, splits)
                for one in dict.fromkeys((here, model_settings) if gpus else (here,))
            }
            click.echo("\n".join(plan.plan_lines(plans[here], [plan.this_machine(shape, here, plans[here].train_cost.tokens)])))
            if gpus:
                click.echo("\n".join(plan.plan_lines(plans[model_settings], map(plan.gpu_machine, gpus))))
    click.echo(plan.assumptions())
