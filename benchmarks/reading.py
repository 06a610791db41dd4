"""Measure the rate and the peak memory of reading raw files, next to pandas.

    PYTHONPATH=. python benchmarks/reading.py --rows 1000000

The script writes rows of the task qi as CSV, JSON Lines and Parquet, and reads each file in processes of their own: with pandas, with
`babelcart.reading.readers.read_rows`, and with `babelcart.prepare.prepare_task`, which also removes duplicates. *ratio* is the rate
relative to pandas in the same run. *peak* is the peak memory of the process.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pandas as pd
from sides import peak_memory

SUFFIXES = ("csv", "jsonl", "parquet")


def write_files(folder: Path, rows: int) -> None:
    """Write the same rows in every format."""
    chance = random.Random(0)
    words = [f"word{index}" for index in range(5000)]
    table = pd.DataFrame({
        "id": [str(index) for index in range(rows)], "language": chance.choices(["en", "de", "fr"], k=rows),
        "origin_query": [" ".join(chance.choices(words, k=3)) for _ in range(rows)],
        "item_title": [" ".join(chance.choices(words, k=9)) for _ in range(rows)], "label": chance.choices([0, 1], k=rows),
    })  # fmt: skip
    table.to_csv(folder / "rows.csv", index=False)
    table.to_json(folder / "rows.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "rows.parquet", index=False)


def with_pandas(path: Path) -> int:
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".csv": lambda: pd.read_csv(path, dtype=str, keep_default_na=False),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=False),
        ".parquet": lambda: pd.read_parquet(path),
    }
    return len(readers[path.suffix]())


def with_read_rows(path: Path) -> int:
    from babelcart.reading import readers, sources

    return len(readers.read_rows([sources.RawFile(path, sources.ReadOptions())], "qi", labelled=True)[0])


def with_prepare(path: Path) -> int:
    from babelcart import prepare
    from babelcart.reading.sources import Data, TaskFiles
    from babelcart.rows.cleaning import Prepare

    data = Data(path=str(path.parent), qi=TaskFiles(train=path.name))
    return len(prepare.prepare_task(data, Prepare(), "qi").tables["train"])


def measure(function: Callable[[Path], int], path: Path, results: Any) -> None:
    """Put seconds and peak memory, in GiB, into a queue."""
    start = time.perf_counter()
    function(path)
    results.put((time.perf_counter() - start, peak_memory()))


@click.command(help=__doc__.partition("\n")[0] if __doc__ else "")
@click.option("--rows", default=1_000_000, show_default=True)
def main(rows: int) -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), rows)
        print("| file | reader | seconds | ratio | peak, GiB |\n|---|---|---|---|---|")
        for suffix in SUFFIXES:
            seconds_of_pandas = 0.0
            for function in (with_pandas, with_read_rows, with_prepare):
                results = context.Queue()
                process = context.Process(target=measure, args=(function, Path(name) / f"rows.{suffix}", results))
                process.start()
                seconds, peak = results.get()
                process.join()
                seconds_of_pandas = seconds_of_pandas or seconds
                print(
                    f"| {suffix} | {function.__name__[5:]} | {seconds:.1f} | {seconds_of_pandas / seconds:.2f} | {peak:.2f} |", flush=True
                )


if __name__ == "__main__":
    main()
