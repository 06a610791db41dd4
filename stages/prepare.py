"""Read and check a task's raw files; write clean tables to build/prepare/TASK.

Reads the sections data and prepare of params.yaml. Malformed rows are reported with file, line, field and value; if train has more than
prepare.max_broken_rows, or dev or test has one, the stage stops and writes nothing. Empty, duplicate and contradictory rows are removed
from train and counted in metrics/prepare/TASK.json; dev and test keep every row, because each needs an answer. Also writes the SHA-256 of
each raw file to build/raw_files/TASK.json.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.prepare import prepare_task
from babelcart.reading.sources import Data
from babelcart.rows.cleaning import Prepare
from babelcart.rows.table import write_table


@cli.command
@cli.task
def main(task: str) -> None:
    prepared = prepare_task(config.load_section(Data), config.load_section(Prepare), task)
    for warning in prepared.warnings:
        click.echo(f"warning: {warning}", err=True)
    for split, table in prepared.tables.items():
        write_table(Path(f"build/prepare/{task}/{split}.parquet"), table)
    write_json(Path(f"build/raw_files/{task}.json"), prepared.hashes)
    write_json(Path(f"metrics/prepare/{task}.json"), prepared.counts)


if __name__ == "__main__":
    main()
