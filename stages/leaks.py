"""Stop the run if a validation, dev or test query, a near-duplicate or a translation of one stands in a task's training set.

Reads build/negatives/TASK.parquet, the held-out rows in build/translate/TASK, and both translation memories; writes what was
compared to metrics/leaks/TASK.json and, always with the same content, build/leaks/TASK.txt. `train` waits for that file, and does
not run again because of it.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from babelcart import leaks
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json, write_text
from babelcart.rows.table import read_table
from babelcart.translation import memory_files


@cli.command
@cli.task
def main(task: str) -> None:
    train = read_table(Path(f"build/negatives/{task}.parquet"), "group")
    held_out = {name: read_table(Path(f"build/translate/{task}/{name}.parquet")) for name in ("validation", "dev", "test")}
    counts = leaks.check_leaks(train, held_out, task)
    files = [Path(config.load("translate.memory", str)), Path(f"memory/{task}.csv")]
    entries = chain.from_iterable(map(memory_files.read_file, files))
    for name, number in leaks.known_by_translation(train, held_out, entries).items():
        counts[name]["known_in_another_language"] = number
    write_json(Path(f"metrics/leaks/{task}.json"), counts)
    write_text(
        Path(f"build/leaks/{task}.txt"),
        "No validation, dev or test query stands in train: not as it is, as a near-duplicate or translated.\n",
    )


if __name__ == "__main__":
    main()
