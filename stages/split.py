"""Split a task's train rows by query into train and validation, and into test if split.test_share is above 0.

Reads build/prepare/TASK and the section split of params.yaml. Writes train, validation, dev and test to build/split/TASK, and the
languages of train to build/train_languages/TASK.json. All rows of a query (by its normal form, in any language) are in one part, and
train contains no near-duplicate of a held-out query.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart import split
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.rows.table import read_table, write_table


@cli.command
@cli.task
def main(task: str) -> None:
    settings = config.load_section(split.Split)
    source, out = Path(f"build/prepare/{task}"), Path(f"build/split/{task}")
    test = read_table(source / "test.parquet")
    split.check_test_rows(settings.test_share, task, bool(len(test)))
    parts = split.split_rows(
        read_table(source / "train.parquet"),
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        train_languages=settings.train_languages,
        seed=settings.seed,
    )
    if not settings.test_share:
        parts["test"] = test
    parts["dev"] = read_table(source / "dev.parquet")
    with_duplicates = parts["train"]
    parts["train"] = split.without_near_duplicates(with_duplicates, [parts[name] for name in ("validation", "dev", "test")])
    for warning in split.one_label_warnings(parts):
        click.echo(f"warning: {task}: {warning}", err=True)
    for name, table in parts.items():
        write_table(out / f"{name}.parquet", table)
    write_json(Path(f"build/train_languages/{task}.json"), sorted(parts["train"]["language"].unique()))
    counts = {name: {"rows": len(table), "languages": table["language"].nunique()} for name, table in parts.items()}
    counts["train"]["left_out_as_near_duplicates"] = len(with_duplicates) - len(parts["train"])
    write_json(Path(f"metrics/split/{task}.json"), counts)


if __name__ == "__main__":
    main()
