"""Measure the time and the peak memory of an SQL query over large Parquet files.

    export PYTHONPATH=. OMP_NUM_THREADS=1
    python benchmarks/queries.py --gigabytes 2 --memory 500MB
    python benchmarks/queries.py --gigabytes 0.5 --memory 150MB --threads 1 --threads 2

The script writes examples (query, product, grade) and products (title, description) as Parquet files of the given size in total, then
runs two queries in processes of their own: *join* adds the title and the description to each example; *window* also computes the mean
grade and the rank of each product. All rows are sorted. *peak* is the peak of the process (VmHWM); *start* is its memory after the
imports. Babelcart uses one thread; other numbers of threads only show what that costs.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from sides import peak_memory

PRODUCT_BYTES = 1150  # of a product in the Parquet file; its texts are random and do not compress
GROUP = 20_000  # rows of a row group
QUERIES = {
    "join": """
SELECT e.id, e.language, e.query AS origin_query, p.title || ' ' || p.description AS candidate, e.grade AS label
FROM 'examples.parquet' AS e JOIN 'products.parquet' AS p USING (product)
""",
    "window": """
WITH ranked AS (
  SELECT *, avg(grade) OVER (PARTITION BY product) AS mean, row_number() OVER (PARTITION BY query ORDER BY grade DESC, id) AS rank
  FROM 'examples.parquet'
)
SELECT r.id, r.language, r.query AS origin_query, p.title || ' ' || p.description AS candidate, r.mean AS label, r.rank AS grade
FROM ranked AS r JOIN 'products.parquet' AS p USING (product)
""",
}


def write_files(folder: Path, gigabytes: float) -> None:
    """Write products and as many examples, one for each product in another order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = int(gigabytes * 2**30 / PRODUCT_BYTES)
    random = np.random.default_rng(0)

    def texts(rows: int, length: int) -> pa.Array:
        letters = random.integers(97, 123, rows * length, dtype=np.uint8)
        offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
        return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])

    order = random.permutation(count)
    products, examples = None, None
    for start in range(0, count, GROUP):
        numbers = np.arange(start, min(start + GROUP, count))
        rows = len(numbers)
        table = pa.table({"product": numbers, "title": texts(rows, 120), "description": texts(rows, 1400)})
        products = products or pq.ParquetWriter(folder / "products.parquet", table.schema, compression="zstd")
        products.write_table(table)
        query = np.char.add("query ", (numbers // 20).astype(str))
        columns = {"id": np.char.add("e", numbers.astype(str)), "product": order[numbers], "query": query}
        table = pa.table({**columns, "language": np.full(rows, "en"), "grade": random.random(rows) * 4})
        examples = examples or pq.ParquetWriter(folder / "examples.parquet", table.schema)
        examples.write_table(table)
    for writer in (products, examples):
        if writer:
            writer.close()


def run(folder: Path, name: str, memory: str, threads: int, results: Any) -> None:
    """Run one query and put its figures into a queue."""
    import hashlib

    import duckdb  # noqa: F401 - imported before the start is measured
    import pyarrow as pa

    from babelcart.reading import queries

    queries.THREADS = threads
    before, start, digest, rows = time.perf_counter(), peak_memory(), hashlib.sha256(), 0
    required = ("id", "language", "origin_query", "candidate")
    for batch in queries.read_query(folder / f"{name}.sql", folder, required, queries.QueryLimits(memory, folder / "scratch")):
        rows += batch.num_rows
        for column in batch.columns:
            digest.update(json.dumps(column.to_pylist()).encode())
    seconds = time.perf_counter() - before
    results.put({"rows": rows, "seconds": seconds, "start": start, "peak": peak_memory(), "digest": digest.hexdigest()[:8]})
    del pa


@click.command(help=__doc__.partition("\n")[0] if __doc__ else "")
@click.option("--gigabytes", default=0.5, show_default=True, help="Size of the Parquet files.")
@click.option("--memory", default="150MB", show_default=True, help="Memory limit of DuckDB.")
@click.option("--threads", multiple=True, default=[1], show_default=True, help="Threads of DuckDB; may be repeated.")
@click.option("--query", "names", multiple=True, default=list(QUERIES), type=click.Choice(list(QUERIES)), show_default=True)
def main(gigabytes: float, memory: str, threads: tuple[int, ...], names: tuple[str, ...]) -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        write_files(folder, gigabytes)
        size = sum(path.stat().st_size for path in folder.glob("*.parquet")) / 2**30
        print(f"{size:.2f} GiB of Parquet, limit {memory}\n\n| query | threads | rows | seconds | start, GiB | peak, GiB | content |")
        print("|---|---|---|---|---|---|---|")
        for query in names:
            (folder / f"{query}.sql").write_text(QUERIES[query], encoding="utf-8")
            for count in threads:
                results = context.Queue()
                process = context.Process(target=run, args=(folder, query, memory, count, results))
                process.start()
                process.join()
                if process.exitcode:
                    raise click.ClickException(f"{query} failed at the limit of {memory}")
                figures = results.get()
                numbers = f"{figures['rows']:,} | {figures['seconds']:.0f} | {figures['start']:.2f} | {figures['peak']:.2f}"
                print(f"| {query} | {count} | {numbers} | {figures['digest']} |", flush=True)


if __name__ == "__main__":
    main()
