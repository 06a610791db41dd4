"""Score the predictions of a model: F1, precision, recall and AUC, overall, by language, seen and unseen.

Reads predictions/MODEL/TASK and evaluate of params.yaml; writes metrics/MODEL/TASK.json and a precision-recall curve. The
threshold is chosen on validation; dev and test count where their labels are known. Needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import config, metrics
from babelcart.files import read_table, whole, write_json
from stages import cli


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    settings = config.load("evaluate", metrics.Evaluate)
    source = Path("predictions") / model / task
    native = sorted(read_table(Path(f"build/split/{task}/train.parquet"))["language"].unique())
    validation = read_table(source / "validation.parquet")
    tables = {"validation": validation}
    for split in ("dev", "test"):
        if (source / f"{split}.parquet").exists():
            table = read_table(source / f"{split}.parquet")
            if len(table) and table["label"].notna().all():
                tables[split] = table
    result = {name: metrics.evaluate(table, validation, native, settings) for name, table in tables.items()}
    last = list(tables.values())[-1]
    curve = metrics.precision_recall(last["label"].to_numpy(int), last["probability"].to_numpy(float))
    write_json(Path("metrics") / model / f"{task}.json", result)
    with whole(Path("plots") / model / f"{task}_precision_recall.csv") as path:
        curve.to_csv(path, index=False)


if __name__ == "__main__":
    main()
