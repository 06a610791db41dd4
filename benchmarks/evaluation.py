"""Measure time and memory of evaluating 100,000 predictions, with confidence intervals for every slice.

    python benchmarks/evaluation.py

The predictions are random, with about four rows a query.
"""

from __future__ import annotations

import time

import click
import numpy as np
import pandas as pd
from sides import peak_memory

from babelcart.scores.metrics import Decision, Evaluate, evaluate

SEEN = ["en", "fr", "es", "ko", "pt", "ja"]
LANGUAGES = [*SEEN, "de", "it", "pl", "ar"]


def random_predictions(rows: int) -> pd.DataFrame:
    """Return a table of predictions with about four rows a query, in ten languages and 30 top categories."""
    generator = np.random.default_rng(0)
    query = np.sort(generator.integers(0, rows // 4, rows))
    label = generator.integers(0, 2, rows)
    return pd.DataFrame({
        "language": np.array(LANGUAGES)[query % 10],
        "origin_query": [f"query {n} " + "word " * (n % 4) for n in query],
        "candidate": [f"item {n}" for n in range(rows)],
        "levels": [(f"top {n}", "below") for n in generator.integers(0, 30, rows)],
        "label": label,
        "probability": np.round(np.clip(generator.normal(0.4 + 0.2 * label, 0.2), 0, 1), 6),
    })  # fmt: skip


@click.command(help=__doc__)
@click.option("--rows", default=100_000, show_default=True, help="Number of predictions.")
@click.option("--draws", default=1000, show_default=True, help="Number of bootstrap draws.")
def main(rows: int, draws: int) -> None:
    table = random_predictions(rows)
    start = time.perf_counter()
    summary, parts = evaluate(table, Decision(0.5, {}), SEEN, Evaluate(bootstrap_draws=draws))
    seconds = time.perf_counter() - start
    slices = 3 + len(summary["language"]) + sum(map(len, parts.values()))
    print(f"{rows} rows, {draws} draws, {slices} slices: {seconds:.0f} s, {peak_memory():.2f} GiB")


if __name__ == "__main__":
    main()
