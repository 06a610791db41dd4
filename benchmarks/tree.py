"""Measure a search: one query against every category of a shop, with each way of sharing tokens.

    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/tree.py                          # after `dvc repro base negatives`
    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/tree.py --data FOLDER/qc.csv

The categories are those of the rows of a file. *rows alone* computes each pair by itself, for `--alone` pairs of the first query. The
others compute a query with all categories in packs: with the query first in the prompt, with the candidate first, and with the
candidate first and the categories in a prefix cache. Filling the cache takes the time that is printed; it is filled once for all
queries. The adapter has random values. *difference* is the largest difference of a probability from that of the pair alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import sides
import torch

from babelcart.core.tasks import TASKS
from babelcart.model import batching, loading, scoring
from babelcart.model.packing import TokenRow, shared_length, trie_tokens
from babelcart.model.prefix_cache import PrefixCache, PrefixTree, fill_cache
from babelcart.model.prompts import RowTexts


@dataclass(frozen=True)
class Search:
    """Queries of a shop with all its categories, as rows of each query, and the model that scores them."""

    model: Any
    tokenizer: Any
    queries: list[list[TokenRow]]

    def score(self, rows: Sequence[TokenRow], cache: PrefixCache) -> np.ndarray:
        """Return p(relevant) of rows, with a cache that may be empty."""
        return scoring.score(self.model, rows, self.tokenizer.labels, scoring.Predict(), cache=cache)

    def computed_tokens(self, rows: Sequence[TokenRow], tree: PrefixTree) -> int:
        """Count the tokens that are computed for rows."""
        return sum(trie_tokens([rows[index] for index in pack], tree) for pack in batching.scoring_packs(rows, 4096, cache=tree))

    def fill(self) -> PrefixCache:
        """Return a cache with the tokens that the rows of the first two queries share."""
        tree = PrefixTree()
        for row, other in zip(*self.queries[:2], strict=True):
            tree.add(row.tokens[: shared_length(row.tokens[:-1], other.tokens[:-1])])
        return fill_cache(self.model, tree, 4096)


def load(data: Path, task: str, first: str, query_count: int, model: Any = None) -> Search:
    """Return the search with the query or the candidate first in the prompt; `model` if it is already loaded."""
    settings, tokenizer = sides.load(task, first)
    if model is None:
        model = loading.add_adapter(loading.load_base(sides.BASE, settings), settings, 0)
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
    table = sides.read_table(data)
    candidates = list(dict.fromkeys(table["candidate"]))
    queries = table.drop_duplicates("origin_query").head(query_count)
    columns = (queries["language"], queries["origin_query"], queries["pivot"])
    rows = [
        tokenizer.encode_many([RowTexts(language, query, candidate, pivot) for candidate in candidates])
        for language, query, pivot in zip(*columns, strict=True)
    ]
    return Search(model, tokenizer, rows)


def measure(search: Search, cache: PrefixCache) -> tuple[float, float, np.ndarray]:
    """Return the median of the computed tokens and of the seconds of a query, and p(relevant) of the first query."""
    seconds, probabilities = [], []
    for rows in search.queries:
        start = time.perf_counter()
        probabilities.append(search.score(rows, cache))
        seconds.append(time.perf_counter() - start)
    tokens = [search.computed_tokens(rows, cache.tree) for rows in search.queries]
    return statistics.median(tokens), statistics.median(seconds), probabilities[0]


def alone(search: Search, count: int) -> tuple[float, float, np.ndarray]:
    """As `measure`, for pairs that are computed one by one; `count` of them are computed, and their time stands for all."""
    rows = search.queries[0]
    places = np.linspace(0, len(rows) - 1, count).astype(int)
    probability = np.full(len(rows), np.nan)
    start = time.perf_counter()
    for place in places:
        probability[place] = search.score([rows[place]], PrefixCache(PrefixTree()))[0]
    seconds = (time.perf_counter() - start) / count * len(rows)
    return statistics.median(sum(len(row.tokens) for row in rows) for rows in search.queries), seconds, probability


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt.")
@click.option("--queries", default=5, show_default=True, help="Number of queries; the table has medians.")
@click.option("--alone", "alone_rows", default=100, show_default=True, help="Pairs that are computed alone.")
def main(data: Path, task: str, queries: int, alone_rows: int) -> None:
    query_first = load(data, task, "query", queries)
    candidate_first = load(data, task, "candidate", queries, query_first.model)
    empty = PrefixCache(PrefixTree())
    start = time.perf_counter()
    cache = candidate_first.fill()
    filled = time.perf_counter() - start
    gibibytes = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values)) / 2**30
    print(f"{len(query_first.queries[0]):,} categories; the cache has {len(cache.tree):,} tokens, {gibibytes:.2f} GiB, {filled:.1f} s\n")
    print("| | tokens of a query | seconds | speed-up | difference |\n|---|---|---|---|---|")
    for name, search in (("query first", query_first), ("candidate first", candidate_first)):
        reference = alone(search, alone_rows)
        systems = {f"{name}, rows alone": reference, name: measure(search, empty)}
        if search is candidate_first:
            systems[f"{name}, prefix cache"] = measure(search, cache)
        for system, (tokens, seconds, probability) in systems.items():
            difference = np.nanmax(abs(probability - reference[2]))
            print(f"| {system} | {tokens:,.0f} | {seconds:.2f} | {reference[1] / seconds:.1f}x | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
