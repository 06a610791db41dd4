"""Balance the labels of a training set with sampled negatives.

Reads build/translate/TASK/train.parquet and negatives of params.yaml; writes the training set to
build/negatives/TASK.parquet. A known positive of a query, or of its translations, is never sampled.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import config, negatives
from babelcart.files import read_table, write_json, write_table
from stages import cli


@cli.command
@cli.task
def main(task: str) -> None:
    import pandas as pd

    rows = read_table(Path(f"build/translate/{task}/train.parquet"))
    settings = config.load("negatives", negatives.Negatives)
    sampled, counts = negatives.sample(rows, task, settings)
    training = pd.concat([rows, sampled], ignore_index=True).astype(rows.dtypes.to_dict())
    counts["negative_share"] = round(float((training["label"] == 0).mean()), 5)
    write_table(Path(f"build/negatives/{task}.parquet"), training)
    write_json(Path(f"metrics/negatives/{task}.json"), counts)


if __name__ == "__main__":
    main()
