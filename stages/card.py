"""Write the card of an adapter: base model and licence, data and their hashes, languages, scores with intervals, use and limits.

Reads metrics/MODEL/TASK.json, the training set, the raw files that data of params.yaml names (to hash them), and how
models/MODEL/TASK was trained; writes models/MODEL/TASK.md in the form of the Hugging Face hub. Export puts it beside the weights.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import card, config, metrics, rows, weights
from babelcart.commands import cli
from babelcart.files import read_json, read_table, sha256, write_text


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    data, folder = config.load("data", rows.Data), Path("models") / model
    files = data.files(task)
    names = sorted({*files.train, *files.dev, *files.test, *files.dev_labels, *files.test_labels})
    made = card.card(
        model,
        task,
        config.load(f"models.{model}.weights", weights.Weights),
        read_json(folder / task / "adapter_config.json", card.ADAPTER),
        read_json(folder / task / "training.json", {"rows": int})["rows"],
        read_table(Path(f"build/negatives/{task}.parquet"), "origin"),
        read_json(Path("metrics") / model / f"{task}.json", metrics.SCORES),
        {name: sha256(Path(data.path) / name) for name in names},
        f"babelcart-{task}",
    )
    write_text(folder / f"{task}.md", str(made))


if __name__ == "__main__":
    main()
