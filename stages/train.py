"""Fine-tune a LoRA adapter of a base model on a task's training set.

Reads build/negatives/TASK.parquet, models/MODEL/base, and train, prompts.TASK and models.MODEL of params.yaml; writes the
adapter in peft's format to models/MODEL/TASK, and time, memory and versions to runs/MODEL/TASK_train.json.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import config
from babelcart.files import read_table, write_json
from stages import cli


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import models, prompts, run, training

    settings, block = config.load("train", training.Train), config.load(f"models.{model}", models.Model)
    folder = Path("models") / model
    rows = read_table(Path(f"build/negatives/{task}.parquet"))
    encoder = prompts.Encoder(models.load_tokenizer(folder / "base"), config.load(f"prompts.{task}", prompts.Prompt))
    encoded = encoder.encode_table(rows)
    with run.measured(Path("runs") / model / f"{task}_train.json") as report:
        base = models.load_base(folder / "base", block)
        adapted = models.add_adapter(base, block, settings.seed)
        rate = settings.learning_rate if block.learning_rate is None else block.learning_rate
        history = training.train(adapted, encoded, rows["label"].to_numpy(int), encoder.labels, settings, rate)
        report |= {"rows": history.rows, "tokens": history.tokens, "steps": len(history.losses)}
    models.save_adapter(adapted, folder / task)
    write_json(folder / task / "losses.json", [round(loss, 6) for loss in history.losses])


if __name__ == "__main__":
    main()
