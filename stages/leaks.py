"""Stop if train contains a held-out query: the same query, a near-duplicate, or a translation.

Held-out queries are those of validation, dev and test. Reads build/negatives/TASK.parquet, the held-out rows in build/translate/TASK,
and both translation memories. Writes the numbers of compared queries to metrics/leaks/TASK.json, and build/leaks/TASK.txt, which has
constant content: `train` waits for this check but is never invalidated by it.
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
    for split, query_count in leaks.known_by_translation(train, held_out, entries).items():
        counts[split]["known_in_another_language"] = query_count
    write_json(Path(f"metrics/leaks/{task}.json"), counts)
    write_text(
        Path(f"build/leaks/{task}.txt"),
        "No validation, dev or test query is in train: neither as it is, nor as a near-duplicate, nor translated.\n",
    )


if __name__ == "__main__":
    main()
