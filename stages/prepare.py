"""Read and check a task's raw files; write clean tables to build/prepare/TASK.

Reads the sections data.TASK and prepare of params.yaml. Malformed rows are reported with file, line, field and value; if there are more
than prepare.max_broken_rows, the stage stops and writes nothing. Empty, duplicate and contradictory rows are removed from train and
counted in metrics/prepare/TASK.json; dev and test keep every row, because each needs an answer. Also writes the SHA-256 of each raw file
to build/raw_files/TASK.json.
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
    folder, files = Path(data.path), data.files(task)
    tables, problems, counts = {}, [], {}
    for split in readers.SPLITS:
        paths = [folder / name for name in getattr(files, split)]
        tables[split], split_problems = readers.read_rows(paths, task, settings.columns, labelled=split == "train")
        if label_paths := [folder / name for name in getattr(files, f"{split}_labels", ())]:
            labels, label_problems = readers.read_labels(label_paths)
            tables[split]["label"] = tables[split]["id"].map(labels).astype("Int8")
            split_problems += label_problems
        problems += split_problems
        counts[split] = {"rows": len(tables[split]), "broken": len(split_problems)}
    readers.refuse_broken(problems, settings.max_broken_rows)
    tables["train"], counts["train"] = readers.drop_uninformative(tables["train"], settings.contradictions)
    counts["broken"] = {"rows": len(problems)}
    hashes = {name: sha256(folder / name) for name in files.names()}

    for split, table in tables.items():
        write_table(Path(f"build/prepare/{task}/{split}.parquet"), table)
    write_json(Path(f"build/raw_files/{task}.json"), hashes)
    write_json(Path(f"metrics/prepare/{task}.json"), counts)


if __name__ == "__main__":
    main()
