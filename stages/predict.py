"""Write p(relevant) of the validation, dev and test rows of a task.

Reads models/MODEL, the tables of build/translate/TASK, and the sections predict, prompts.TASK and models.MODEL of params.yaml.
Writes one table for each split to predictions/MODEL/TASK: the columns of a row, the origin of each validation row (native or
translated), and p(relevant).
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.rows.table import ROW_COLUMNS, read_table, write_table


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import run
    from babelcart.model import scoring
    from babelcart.model.task_model import read_task_model

    settings, task_model = config.load_section(scoring.Predict), read_task_model(Path("models") / model, task)
    tokenizer = task_model.load_tokenizer()
    tables = {split: read_table(Path(f"build/translate/{task}/{split}.parquet"), "pivot") for split in settings.splits}
    with run.measure_run(Path("runs") / model / f"{task}_predict.json") as report:
        adapted = task_model.load_adapted()
        for split, rows in tables.items():
            token_rows = tokenizer.encode_table(rows)
            probability = scoring.score(adapted, token_rows, tokenizer.labels, settings, f"predict {split}")
            columns = [name for name in (*ROW_COLUMNS, "origin") if name in rows]  # only validation has the column origin
            write_table(Path("predictions") / model / task / f"{split}.parquet", rows[columns].assign(probability=probability))
            report[f"{split}_rows"] = len(rows)


if __name__ == "__main__":
    main()
