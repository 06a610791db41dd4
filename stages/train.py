"""Fine-tune a LoRA adapter of a base model on the training set of a task.

Reads build/negatives/TASK.parquet, build/translate/TASK/validation.parquet, models/MODEL/base, and train, prompts.TASK and models.MODEL
of params.yaml. Writes the adapter in peft's format to models/MODEL/TASK, the curves to plots/MODEL/TASK_training and the trackers of
`report_to`, and time, memory and versions to runs/MODEL/TASK_train.json. An interrupted run resumes from its checkpoint in .scratch/train.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.rows.table import read_table


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import run
    from babelcart.model import loading
    from babelcart.model.task_model import read_task_model
    from babelcart.training.checkpoints import Checkpoints, fingerprint
    from babelcart.training.curves import record_curves
    from babelcart.training.loop import LabelledRows, Trainer, TrainSettings
    from babelcart.training.memory import TrainingRun, fit_to_memory
    from babelcart.training.steps import limit_message
    from babelcart.training.trackers import chosen_trackers, report_training

    report_to = chosen_trackers()
    task_model, settings = read_task_model(Path("models") / model, task), config.load_section(TrainSettings)
    tokenizer = task_model.load_tokenizer()
    paths = f"build/negatives/{task}.parquet", f"build/translate/{task}/validation.parquet"
    tables = [read_table(Path(path), "pivot", labelled=True) for path in paths]
    examples, validation = (LabelledRows(tokenizer.encode_table(table), table["label"].astype(int).tolist()) for table in tables)
    if message := limit_message(task, len(examples.rows), settings):
        click.echo(message, err=True)
    training = fit_to_memory(TrainingRun(task_model.load_config(), task_model.local_settings, settings, examples.rows, validation.rows))
    configuration = training.settings, training.model, task_model.prompt, task_model.source_record(), examples, validation
    checkpoints = Checkpoints(Path(".scratch/train") / f"{model}-{task}-{fingerprint(Path(__file__), *configuration)}")
    with (
        report_training(report_to, checkpoints.folder.name, task_model.adapter, configuration[:3]) as report,
        run.measure_run(Path("runs") / model / f"{task}_train.json") as measured,
        record_curves(Path("plots") / model / f"{task}_training", report) as log,
    ):
        adapted = loading.add_adapter(task_model.load_base(), training.model, settings.seed)
        history = Trainer(adapted, training.model, examples, tokenizer.labels, training.settings, validation).train(checkpoints, log)
        measured |= {"rows": history.rows, "tokens": history.tokens, "steps": len(history.losses)}
        task_model.save_adapter(adapted)
    write_json(task_model.adapter / "training.json", asdict(history))
    checkpoints.finish()


if __name__ == "__main__":
    main()
