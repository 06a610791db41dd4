"""Score the predictions of a model: F1, AUC and their company with intervals, overall, by language, by slice.

Reads predictions/MODEL/TASK, build/train_languages/TASK.json and evaluate of params.yaml; writes metrics/MODEL/TASK.json,
TASK_slices.json next to it, and plots. Thresholds are chosen on validation; dev and test count where their labels are known.
Needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import atomic_write, read_json, write_json
from babelcart.rows.table import read_table
from babelcart.scores import metrics


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    settings = config.load_section(metrics.Evaluate)
    source, plots = Path("predictions") / model / task, Path("plots") / model
    native = read_json(Path(f"build/train_languages/{task}.json"), [str])
    tables = {"validation": read_table(source / "validation.parquet", "probability", "origin", labelled=True)}
    for split in ("dev", "test"):
        if (source / f"{split}.parquet").exists():
            table = read_table(source / f"{split}.parquet", "probability")
            if len(table) and table["label"].notna().all():
                tables[split] = table
    decision = metrics.decide(tables["validation"], settings)
    found = {name: metrics.evaluate(table, decision, native, settings, task) for name, table in tables.items()}
    curves = metrics.plot_tables(list(tables.values())[-1], decision)
    write_json(Path("metrics") / model / f"{task}.json", {name: summary for name, (summary, _) in found.items()})
    write_json(Path("metrics") / model / f"{task}_slices.json", {name: parts for name, (_, parts) in found.items()})
    for name, curve in curves.items():
        with atomic_write(plots / f"{task}_{name}.csv") as path:
            curve.to_csv(path, index=False)


if __name__ == "__main__":
    main()
