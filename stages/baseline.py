"""Fit and score the baseline, a logistic regression on character n-grams.

Reads build/split/TASK; fits on the native rows of train. Writes metrics/ngram/TASK.json with the keys that `evaluate` writes; a split
without labels gets no scores. The threshold is always the one with the best F1 on validation.
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
    splits = {name: read_table(folder / f"{name}.parquet", labelled=name == "validation") for name in ("validation", "dev", "test")}
    labelled = {name: rows for name, rows in splits.items() if rows["label"].notna().any()}
    probabilities = baseline.fit_predict(train, *labelled.values())
    scored = {name: rows.assign(probability=values) for (name, rows), values in zip(labelled.items(), probabilities, strict=True)}
    train_languages = sorted(train["language"].unique())
    settings = metrics.Evaluate()
    decision = metrics.decide(scored["validation"], settings)
    scores = {name: metrics.evaluate(rows, decision, train_languages, settings)[0] for name, rows in scored.items()}
    write_json(Path(f"metrics/ngram/{task}.json"), scores)


if __name__ == "__main__":
    main()
