"""Fit and score the character n-gram logistic regression that every model has to beat.

Reads the native train rows of build/split/TASK; writes metrics/ngram/TASK.json with the keys that evaluate writes. Its
threshold is always the one with the best F1 on validation.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import baseline
from babelcart.commands import cli
from babelcart.core.files import write_json
from babelcart.rows.table import read_table
from babelcart.scores import metrics


@cli.command
@cli.task
def main(task: str) -> None:
    folder = Path("build/split") / task
    train = read_table(folder / "train.parquet", labelled=True)
    tables = {name: read_table(folder / f"{name}.parquet", labelled=name == "validation") for name in ("validation", "dev", "test")}
    tables = {name: table for name, table in tables.items() if len(table) and table["label"].notna().all()}
    scored = dict(zip(tables, baseline.fit_predict(train, *tables.values()), strict=True))
    tables = {name: table.assign(probability=scored[name]) for name, table in tables.items()}
    native = sorted(train["language"].unique())
    settings = metrics.Evaluate()
    decision = metrics.decide(tables["validation"], settings)
    result = {name: metrics.evaluate(table, decision, native, settings, task)[0] for name, table in tables.items()}
    write_json(Path(f"metrics/ngram/{task}.json"), result)


if __name__ == "__main__":
    main()
