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
    from babelcart.model import loading, prompts
    from babelcart.training import checkpoints, loop
    from babelcart.training.curves import record_curves

    settings, block = config.load_section(loop.TrainSettings), loading.for_this_cpu(config.load_section(loading.ModelSettings, model))
    prompt, folder = config.load_section(prompts.Prompt, task), Path("models") / model
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(folder / "base"), prompt)
    tables = [
        read_table(Path(path), "pivot", labelled=True)
        for path in (f"build/negatives/{task}.parquet", f"build/translate/{task}/validation.parquet")
    ]
    data, validation = (loop.LabelledRows(encoder.encode_table(table), table["label"].astype(int).tolist()) for table in tables)
    pin = (folder / "base" / SOURCE_RECORD).read_text(encoding="utf-8")
    name = checkpoints.fingerprint(Path(__file__), settings, block, prompt, pin, data, validation)
    kept = checkpoints.Checkpoints(Path(".scratch/train") / f"{model}-{task}-{name}")
    with (
        run.measure_run(Path("runs") / model / f"{task}_train.json") as report,
        record_curves(Path("plots") / model / f"{task}_training") as log,
    ):
        adapted = loading.add_adapter(loading.load_base(folder / "base", block), block, settings.seed)
        rate = settings.learning_rate if block.learning_rate is None else block.learning_rate
        ratio = block.loraplus_lr_ratio
        history = loop.train(
            adapted, data, encoder.labels, settings, rate, validation=validation, checkpoints=kept, log=log, loraplus_lr_ratio=ratio
        )
        report |= {"rows": history.rows, "tokens": history.tokens, "steps": len(history.losses)}
    loading.save_adapter(adapted, folder / task)
    write_json(folder / task / "training.json", asdict(history))
    kept.finish()


if __name__ == "__main__":
    main()
