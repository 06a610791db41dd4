"""Read a task's raw files, check every row, and write clean tables to build/prepare/TASK.

Reads data.TASK and prepare of params.yaml; also writes the sha256 of each raw file to build/raw_files/TASK.json. Broken rows are
named by file, line, field and value; more than prepare.max_broken_rows stop the stage and nothing is written. Train loses empty,
duplicate and contradictory rows (counted in metrics/prepare/TASK.json); dev and test keep every row, since each must be answered.
"""

from __future__ import annotations

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import sha256, write_json
from babelcart.rows import readers
from babelcart.rows.table import write_table


@cli.command
@cli.task
def main(task: str) -> None:
    settings, data = config.load_section(readers.Prepare), config.load_section(readers.Data)
    files = data.files(task)
    tables, problems, counts = {}, [], {}
    for split in readers.SPLITS:
        paths = [Path(data.path) / name for name in getattr(files, split)]
        table, found = readers.read_rows(paths, task, settings.columns, labelled=split == "train")
        problems += found
        labels = [Path(data.path) / name for name in getattr(files, f"{split}_labels", ())]
        if labels:
            known, found = readers.read_labels(labels)
            problems += found
            table["label"] = table["id"].map(known).astype("Int8")
        counts[split] = {"rows": len(table), "broken": len(found)}
        tables[split] = table
    readers.refuse_broken(problems, settings.max_broken_rows)
    tables["train"], counts["train"] = readers.drop_uninformative(tables["train"], settings.contradictions)
    counts["broken"] = {"rows": len(problems)}
    names = {*files.train, *files.dev, *files.test, *files.dev_labels, *files.test_labels}
    hashes = {name: sha256(Path(data.path) / name) for name in names}

    for split, table in tables.items():
        write_table(Path(f"build/prepare/{task}/{split}.parquet"), table)
    write_json(Path(f"build/raw_files/{task}.json"), hashes)
    write_json(Path(f"metrics/prepare/{task}.json"), counts)


if __name__ == "__main__":
    main()
