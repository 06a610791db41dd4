"""Random tables of scored rows, reproducible by a seed."""

from __future__ import annotations

import numpy as np
import pandas as pd


def table(queries: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return rows with two to five candidates per query, in four languages; scores agree with most of the labels."""
    generator = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), generator.integers(2, 6, queries))
    label = generator.integers(0, 2, len(query))
    return pd.DataFrame({
        "id": [str(n) for n in range(len(query))],
        "language": np.array(["de", "en", "fr", "ja"])[query % 4],
        "origin_query": [f"query {n} " + "word " * (n % 5) for n in query],
        "candidate": [f"{'abc'[n % 3]},{n}" for n in range(len(query))],
        "label": label,
        "grade": [(["Partial", "Irrelevant"], ["Exact", "Partial"])[value][n % 2] for n, value in enumerate(label)],
        "levels": [("abc"[n % 3], str(n)) for n in range(len(query))],
        "probability": np.clip(0.3 * label + 0.7 * generator.random(len(query)), 0, 1),
    })  # fmt: skip
