"""Estimate rows, tokens, steps, memory and minutes of training and scoring.

Covers the tasks and models that params.yaml lists, on this machine and on every GPU given by --gpu. Reads the tables in
build/negatives and build/translate, and the base model if it has been downloaded. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from babelcart import plan
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

    from babelcart.model.prompts import PromptTokenizer
    from babelcart.training.steps import GroupBy

# Its tokenizer is used for models that are not downloaded. All Gemma-3 models share it; for other models, token counts are estimates.
SUBSTITUTE_MODEL = "gemma3-270m"
# Rows that are grouped by one field are grouped by the other one when it is first in the prompt.
OTHER_GROUPS: dict[GroupBy, GroupBy] = {"query": "candidate", "candidate": "query"}


@cli.command
@click.option("--task", "tasks", type=click.Choice(TASKS), multiple=True, help="Task to plan. Default: `tasks` of params.yaml.")
@click.option("--model", "names", multiple=True, help="Model to plan: a block under `models`. Default: `run` of params.yaml.")
@click.option("--gpu", "gpus", type=click.Choice(list(plan.GPUS)), multiple=True, help="GPU to plan for, in addition to this machine.")
def main(tasks: tuple[str, ...], names: tuple[str, ...], gpus: tuple[str, ...]) -> None:
    for name in names or config.load("run", tuple[str, ...]):
        for task in tasks or config.load("tasks", tuple[str, ...]):
            _print_plan(Path("models") / cli.model_name(name), task, gpus)
    click.echo(plan.assumptions())


def _print_plan(folder: Path, task: str, gpus: Sequence[str]) -> None:
    """Print the plan of one model and task for this machine and for GPUs."""
    from babelcart.model import scoring
    from babelcart.model.task_model import read_task_model
    from babelcart.training import loop
    from babelcart.training.memory import FreeMemory, TrainingRun
    from babelcart.weights.fetching import SOURCE_RECORD

    task_model, predict = read_task_model(folder, task), config.load_section(scoring.Predict)
    settings = config.load_section(loop.TrainSettings)
    model_config = plan.read_config(task_model.base, task_model.settings)
    note, downloaded = "", (task_model.base / SOURCE_RECORD).exists()
    if downloaded:
        tokenizer = task_model.load_tokenizer()
    else:
        tokenizer = replace(task_model, base=Path("models") / SUBSTITUTE_MODEL / "base").load_tokenizer()
        if not model_config.model_type.startswith("gemma3"):
            note = f" (tokens estimated with the tokenizer of {SUBSTITUTE_MODEL})"
    tables = _read_tables(task, predict.splits)
    click.echo(f"{task}, {folder.name}{note}")
    # The local settings differ from those for a GPU only if this machine does not support the dtype. If they are equal, one plan suffices.
    local, for_gpu = task_model.local_settings, task_model.settings
    rows = _encode(tables, tokenizer)
    local_plan = plan.make_plan(model_config, local, settings, predict, rows)
    machine = plan.this_machine(model_config, local, local_plan.train_cost.tokens)

    def fitted(planned: plan.Plan, machines: Iterable[plan.Machine]) -> Iterator[tuple[plan.Machine, plan.Plan]]:
        run = TrainingRun(model_config, planned.model, settings, rows.train, rows.validation)
        for machine in machines:
            fitting = run.fit(FreeMemory(machine.memory_bytes - machine.process_bytes, machine.allocator_factor))
            yield machine, planned if fitting is run else plan.make_plan(model_config, fitting.model, fitting.settings, predict, rows)

    click.echo("\n".join(plan.plan_lines(local_plan, fitted(local_plan, [machine]), downloaded)))
    if gpus:
        gpu_plan = local_plan if for_gpu == local else plan.make_plan(model_config, for_gpu, settings, predict, rows)
        click.echo("\n".join(plan.plan_lines(gpu_plan, fitted(gpu_plan, map(plan.gpu_machine, gpus)), downloaded)))
    other = replace(tokenizer, prompt=tokenizer.prompt.other_order())
    other_settings = replace(settings, group_by=OTHER_GROUPS.get(settings.group_by, settings.group_by))
    other_plan = plan.make_plan(model_config, local, other_settings, predict, _encode(tables, other))
    plans = {_order(tokenizer): local_plan, _order(other): other_plan}
    click.echo("\n".join(plan.order_lines(plans, machine, (settings.group_by, other_settings.group_by))))


def _order(tokenizer: PromptTokenizer) -> str:
    return "query first" if tokenizer.prompt.query_first() else "candidate first"


def _read_tables(task: str, splits: Sequence[str]) -> list[pd.DataFrame]:
    """Read the tables of `train` (training and validation rows) and of the splits of `predict`."""
    from babelcart.rows.table import read_table

    paths = [Path(f"build/negatives/{task}.parquet")]
    paths += [Path(f"build/translate/{task}/{split}.parquet") for split in ("validation", *splits)]
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]} does not exist; run `dvc repro negatives`")
    return [read_table(path, "pivot") for path in paths]


def _encode(tables: Sequence[pd.DataFrame], tokenizer: PromptTokenizer) -> plan.PlannedRows:
    """Tokenise the rows of `_read_tables`, and the first query of the last split with rows, with every candidate of all splits."""
    from babelcart.model.prompts import RowTexts

    train, validation, *predict = (tokenizer.encode_table(table) for table in tables)
    first = next(table for table in reversed(tables) if len(table)).iloc[0]
    candidates = dict.fromkeys(candidate for table in tables[2:] for candidate in table["candidate"])
    one_query = [RowTexts(first["language"], first["origin_query"], candidate, first["pivot"]) for candidate in candidates]
    return plan.PlannedRows(train, validation, predict, tokenizer.encode_many(one_query))
