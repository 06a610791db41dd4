"""Write the model card of an adapter: scores, languages, intended use, limits, base model, licence and hashes of the data.

The scores are those of test. If none of its rows has a label, they are those of dev, and otherwise those of validation.

Reads metrics/MODEL/TASK.json, the training set, the hashes of the raw files in build/raw_files/TASK.json, and models/MODEL/TASK.
Writes models/MODEL/TASK.md in the format of the Hugging Face hub. `babelcart export` copies it next to the weights.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import card
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json, write_text
from babelcart.rows.table import read_table
from babelcart.scores import metrics
from babelcart.weights import fetching


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    folder = Path("models") / model
    inputs = card.CardInputs(
        name=model,
        task=task,
        weights=config.load(f"models.{model}.weights", fetching.Weights),
        adapter=read_json(folder / task / "adapter_config.json", card.ADAPTER_SHAPE),
        rows_seen=read_json(folder / task / "training.json", {"rows": int})["rows"],
        training=read_table(Path(f"build/negatives/{task}.parquet"), "origin"),
        scores=read_json(Path("metrics") / model / f"{task}.json", metrics.SCORES),
        files=read_json(Path(f"build/raw_files/{task}.json"), {...: str}),
    )
    write_text(folder / f"{task}.md", str(card.render_card(inputs)))


if __name__ == "__main__":
    main()
