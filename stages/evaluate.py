"""Score the predictions of a model: F1, AUC and other metrics with confidence intervals, overall, by language and by slice.

Reads predictions/MODEL/TASK, build/train_languages/TASK.json and `evaluate` of params.yaml; writes metrics/MODEL/TASK.json and
TASK_slices.json, and the tables of plots/MODEL. Thresholds are chosen on validation. Of dev and test, the labelled rows are scored; a
split without labels gets no scores. Needs no torch. Reports F1 and AUC to the trackers in `report_to`.
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import atomic_write, read_json, write_json
from babelcart.rows.table import read_table
from babelcart.scores import metrics
from babelcart.training import trackers


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    report_to = trackers.chosen_trackers()
    settings = config.load_section(metrics.Evaluate)
    source, plots = Path("predictions") / model / task, Path("plots") / model
    native_languages = read_json(Path(f"build/train_languages/{task}.json"), [str])
    tables = {"validation": read_table(source / "validation.parquet", "probability", "origin", labelled=True)}
    for split in ("dev", "test"):
        if (source / f"{split}.parquet").exists():
            table = read_table(source / f"{split}.parquet", "probability")
            if table["label"].notna().any():
                tables[split] = table
    decision = metrics.decide(tables["validation"], settings)
    scores = {split: metrics.evaluate(table, decision, native_languages, settings) for split, table in tables.items()}
    plot_tables = metrics.plot_tables(metrics.labelled_rows(list(tables.values())[-1]), decision)
    write_json(Path("metrics") / model / f"{task}.json", {split: summary for split, (summary, _) in scores.items()})
    write_json(Path("metrics") / model / f"{task}_slices.json", {split: slices for split, (_, slices) in scores.items()})
    for name, plot_table in plot_tables.items():
        with atomic_write(plots / f"{task}_{name}.csv") as path:
            plot_table.to_csv(path, index=False)
    trackers.report_scores(report_to, Path("models") / model / task, {split: summary for split, (summary, _) in scores.items()})


if __name__ == "__main__":
    main()
