"""Write the card of an adapter: base model and licence, data and their hashes, languages, scores with intervals, use and limits.

Reads metrics/MODEL/TASK.json, the training set, the hashes of the raw files in build/raw_files/TASK.json, and how models/MODEL/TASK
was trained; writes models/MODEL/TASK.md in the form of the Hugging Face hub. Export puts it next to the weights.
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
    made = card.render_card(
        model,
        task,
        config.load(f"models.{model}.weights", fetching.Weights),
        read_json(folder / task / "adapter_config.json", card.ADAPTER_SHAPE),
        read_json(folder / task / "training.json", {"rows": int})["rows"],
        read_table(Path(f"build/negatives/{task}.parquet"), "origin"),
        read_json(Path("metrics") / model / f"{task}.json", metrics.SCORES),
        read_json(Path(f"build/raw_files/{task}.json"), {...: str}),
        f"babelcart-{task}",
    )
    write_text(folder / f"{task}.md", str(made))


if __name__ == "__main__":
    main()
