"""Time and memory of evaluating 100,000 predictions with intervals of every slice.

python benchmarks/evaluation.py
"""

from __future__ import annotations

import time

import click
import numpy as np
import pandas as pd
from sides import peak_memory

from babelcart.scores.metrics import Decision, Evaluate, evaluate


@click.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--draws", default=1000, show_default=True)
def main(rows: int, draws: int) -> None:
    generator = np.random.default_rng(0)
    query = np.sort(generator.integers(0, rows // 4, rows))
    label = generator.integers(0, 2, rows)
    table = pd.DataFrame({
        "language": np.array(["en", "fr", "es", "ko", "pt", "ja", "de", "it", "pl", "ar"])[query % 10],
        "origin_query": [f"query {n} " + "word " * (n % 4) for n in query],
        "candidate": [f"top {n % 30},below" for n in generator.integers(0, 1000, rows)],
        "label": label,
        "probability": np.round(np.clip(generator.normal(0.4 + 0.2 * label, 0.2), 0, 1), 6),
    })  # fmt: skip
    start = time.perf_counter()
    summary, parts = evaluate(table, Decision(0.5, {}), ["en", "fr", "es", "ko", "pt", "ja"], Evaluate(bootstrap_draws=draws), "qc")
    seconds = time.perf_counter() - start
    slices = 3 + len(summary["language"]) + sum(map(len, parts.values()))
    print(f"{rows} rows, {draws} draws, {slices} slices: {seconds:.0f} s, {peak_memory():.2f} GiB")


if __name__ == "__main__":
    main()
