"""Score rows whose query or candidate was made to turn the answer, and the same rows grown by neutral words.

Reads rows of build/translate/TASK, models/MODEL, and attack, predict and prompts.TASK of params.yaml; writes p(relevant) before, after
and of the control to build/attack/MODEL/TASK.parquet. Needs the model, and no threshold: `resist` counts what is turned.
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

    from babelcart.attack import RowTexts


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    from babelcart import attack
    from babelcart.model import loading, prompts, scoring

    settings, block = (
        config.load_section(attack.AttackSettings),
        loading.for_this_cpu(config.load_section(loading.ModelSettings, model)),
    )
    prompt, folder = config.load_section(prompts.Prompt, task), Path("models") / model
    max_tokens = config.load_section(scoring.Predict).max_tokens
    rows = read_table(Path(f"build/translate/{task}/{settings.split}.parquet"), "pivot")
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(folder / "base"), prompt)
    adapted = loading.load_adapter(loading.load_base(folder / "base", block), folder / task)

    def score(texts: Sequence[RowTexts]) -> np.ndarray:
        encoded = encoder.encode_many([text._asdict() for text in texts])
        return scoring.score(adapted, encoded, encoder.labels, max_tokens, "attack")

    write_table(Path(f"build/attack/{model}/{task}.parquet"), attack.score_attacks(rows, prompt, settings, score))


if __name__ == "__main__":
    main()
