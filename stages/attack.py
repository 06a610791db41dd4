"""Score rows under attack: texts that try to flip the model's answer, and neutral texts of the same length as their controls.

Reads rows of build/translate/TASK, models/MODEL, and the sections attack, predict and prompts.TASK of params.yaml. Writes p(relevant)
before and after each attack, and of its control, to build/attack/MODEL/TASK.parquet. Needs the model; `resist` needs only this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from babelcart.commands import cli
from babelcart.core import config
from babelcart.rows.table import read_table, write_table

if TYPE_CHECKING:
    import numpy as np

    from babelcart.model.prompts import RowTexts


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import attack
    from babelcart.model import scoring
    from babelcart.model.task_model import read_task_model

    settings = config.load_section(attack.AttackSettings)
    task_model = read_task_model(Path("models") / model, task)
    predict = config.load_section(scoring.Predict)
    rows = read_table(Path(f"build/translate/{task}/{settings.split}.parquet"), "pivot")
    tokenizer, adapted = task_model.load_tokenizer(), task_model.load_adapted()

    def score(texts: Sequence[RowTexts]) -> np.ndarray:
        token_rows = tokenizer.encode_many(texts)
        return scoring.score(adapted, token_rows, tokenizer.labels, predict, "attack")

    write_table(Path(f"build/attack/{model}/{task}.parquet"), attack.score_attacks(rows, task_model.prompt, settings, score))


if __name__ == "__main__":
    main()
