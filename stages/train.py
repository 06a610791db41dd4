"""Fine-tune a LoRA adapter of a base model on a task's training set.

Reads build/negatives/TASK.parquet, build/translate/TASK/validation.parquet, models/MODEL/base, and train, prompts.TASK and
models.MODEL of params.yaml; writes the adapter in peft's format to models/MODEL/TASK, curves to
plots/MODEL/TASK_training, and time, memory and versions to runs/MODEL/TASK_train.json. A run that was stopped goes on from
.scratch/train.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.rows.table import read_table
from babelcart.weights.fetching import SOURCE_RECORD


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import run
    from babelcart.model import loading
    from babelcart.model.task_model import read_task_model
    from babelcart.training import checkpoints, loop
    from babelcart.training.curves import record_curves

    settings, task_model = config.load_section(loop.TrainSettings), read_task_model(Path("models") / model, task)
    model_settings, tokenizer = task_model.local_settings, task_model.load_tokenizer()
    tables = [
        read_table(Path(path), "pivot", labelled=True)
        for path in (f"build/negatives/{task}.parquet", f"build/translate/{task}/validation.parquet")
    ]
    data, validation = (loop.LabelledRows(tokenizer.encode_table(table), table["label"].astype(int).tolist()) for table in tables)
    pin = (task_model.base / SOURCE_RECORD).read_text(encoding="utf-8")
    name = checkpoints.fingerprint(Path(__file__), settings, model_settings, task_model.prompt, pin, data, validation)
    kept = checkpoints.Checkpoints(Path(".scratch/train") / f"{model}-{task}-{name}")
    with (
        run.measure_run(Path("runs") / model / f"{task}_train.json") as report,
        record_curves(Path("plots") / model / f"{task}_training") as log,
    ):
        adapted = loading.add_adapter(task_model.load_base(), model_settings, settings.seed)
        rate = settings.learning_rate if model_settings.learning_rate is None else model_settings.learning_rate
        ratio = model_settings.loraplus_lr_ratio
        history = loop.train(
            adapted, data, tokenizer.labels, settings, rate, validation=validation, checkpoints=kept, log=log, loraplus_lr_ratio=ratio
        )
        report |= {"rows": history.rows, "tokens": history.tokens, "steps": len(history.losses)}
    loading.save_adapter(adapted, task_model.adapter)
    write_json(task_model.adapter / "training.json", asdict(history))
    kept.finish()


if __name__ == "__main__":
    main()
