"""Compare hard-negative search to sentence-transformers' `mine_hard_negatives` and to faiss, with the same embeddings for all.

    pip install sentence-transformers datasets faiss-cpu
    python benchmarks/negatives.py

Queries and candidates are drawn from Gaussian clusters on the unit sphere, which resemble the embeddings of a shop. Every query has one
positive. Each side runs in its own process.

The first table gives queries answered per second (text in, rows out), the peak memory in addition to the loaded embeddings, and the share
of queries with the same nearest neighbours as Babelcart. The second table gives time and memory of Babelcart by number of candidates,
and its rate relative to the fastest matrix product on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

OURS = "Babelcart"
SIDES = (OURS, "sentence-transformers exact", "sentence-transformers faiss", "faiss flat")
NEIGHBOURS = 50
NEGATIVES = 4  # negatives per query

Rows = list[tuple[str, str]]


def write_embeddings(folder: Path, queries: int, candidates: int, dimensions: int) -> None:
    """Write random unit vectors in 400 clusters: queries.npy and candidates.npy."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(400, dimensions)).astype(np.float32)
    for name, size in (("queries", queries), ("candidates", candidates)):
        noise_free = centres[generator.integers(len(centres), size=size)] * 0.7
        vectors = noise_free + generator.normal(size=(size, dimensions)).astype(np.float32)
        np.save(folder / f"{name}.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


def peak_memory() -> float:
    """Return the peak resident memory of this process, in GiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def rows_of(neighbours: np.ndarray, query_texts: list[str], candidate_texts: list[str]) -> Rows:
    """(query, negative) for the first neighbours of each query, without its positive."""
    return [
        (query_texts[query], candidate_texts[candidate])
        for query, row in enumerate(neighbours.tolist())
        for candidate in row[:NEGATIVES]
        if candidate != query % len(candidate_texts)
    ]


class GivenEmbeddings:
    """Replaces a SentenceTransformer and returns embeddings that already exist. Texts are ``q0``, ``q1`` ... and ``c0``, ``c1`` ..."""

    model_card_data = None

    def __init__(self, queries: np.ndarray, candidates: np.ndarray) -> None:
        import torch

        self.device = torch.device("cpu")
        self.queries, self.candidates = queries, candidates

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        return self.candidates[[int(text[1:]) for text in texts]]

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return self.queries[[int(text[1:]) for text in texts]]

    def similarity(self, a: Any, b: Any) -> Any:
        import torch

        return torch.mm(torch.as_tensor(a), torch.as_tensor(b).T)

    def similarity_pairwise(self, a: Any, b: Any) -> Any:
        import torch

        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(dim=-1)

    def get_embedding_dimension(self) -> int:
        return int(self.queries.shape[1])


def mine(queries: np.ndarray, candidates: np.ndarray, texts: tuple[list[str], list[str]], use_faiss: bool) -> Any:
    """Return the dataset that `mine_hard_negatives` returns, with a column for each negative."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    query_texts, candidate_texts = texts
    positives = [candidate_texts[query % len(candidate_texts)] for query in range(len(query_texts))]
    dataset = Dataset.from_dict({"anchor": query_texts, "positive": positives})
    return mine_hard_negatives(
        dataset, GivenEmbeddings(queries, candidates), corpus=candidate_texts, num_negatives=NEGATIVES, range_max=NEIGHBOURS - 1,
        use_faiss=use_faiss, verbose=False, output_format="n-tuple",
    )  # fmt: skip


def flat_search(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(queries, NEIGHBOURS) nearest candidates by faiss."""
    import faiss

    index = faiss.IndexFlatIP(queries.shape[1])
    index.add(candidates)
    return index.search(queries, NEIGHBOURS)[1]


def measure(name: str, folder: Path) -> dict[str, float]:
    """Run one side in this process; leave its neighbours in the folder."""
    import torch  # noqa: F401  (its memory belongs to no side)

    queries, candidates = np.load(folder / "queries.npy"), np.load(folder / "candidates.npy")
    texts = [f"q{n}" for n in range(len(queries))], [f"c{n}" for n in range(len(candidates))]
    before = peak_memory()
    start = time.perf_counter()
    if name == OURS:
        from babelcart.embedding.search import nearest

        neighbours, _ = nearest(queries, candidates, NEIGHBOURS)
        count = len(rows_of(neighbours, *texts))
    elif name == "faiss flat":
        neighbours = flat_search(queries, candidates)
        count = len(rows_of(neighbours, *texts))
    else:
        mined = mine(queries, candidates, texts, use_faiss=name.endswith("faiss"))
        count = len(mined)
    seconds = time.perf_counter() - start
    if name not in (OURS, "faiss flat"):
        columns = [[int(text[1:]) for text in mined[f"negative_{number}"]] for number in range(1, NEGATIVES + 1)]
        neighbours = np.array(columns).T
    np.save(folder / f"{name}.npy", neighbours)
    return {"seconds": seconds, "memory": peak_memory() - before, "rows": count}


def run(name: str, folder: Path) -> dict[str, Any]:
    """Return the figures of one side in a new process; ``error``, the last line of its errors, if it fails."""
    process = subprocess.run([sys.executable, __file__, "--side", name, "--folder", str(folder)], capture_output=True, text=True)
    if process.returncode:
        return {"seconds": float("nan"), "memory": float("nan"), "error": process.stderr.strip().splitlines()[-1:]}
    return json.loads(process.stdout.strip().splitlines()[-1])


def product_peak() -> float:
    """Return the highest rate of a large float32 matrix product on this machine, in GFLOP/s."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return best


def agreement(folder: Path, name: str) -> float:
    """Return the share of queries with the same neighbours as Babelcart; for `mine_hard_negatives`, with the same negatives."""
    ours, theirs = np.load(folder / f"{OURS}.npy"), np.load(folder / f"{name}.npy")
    if theirs.shape[1] != NEGATIVES:
        return float((ours == theirs).all(axis=1).mean())
    positives = np.arange(len(ours)) % (ours.max() + 1)
    triples = zip(ours, positives, theirs, strict=True)
    return float(np.mean([np.array_equal(row[row != positive][:NEGATIVES], other) for row, positive, other in triples]))


def compare_sides(folder: Path, queries: int, rounds: int) -> None:
    """Run all sides in turns and print their figures."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name in SIDES:
            results[name].append(run(name, folder))
    click.echo(f"| side | seconds | rows/s | {OURS} is | peak memory, GiB | same neighbours |\n|---|---|---|---|---|---|")
    ours = float(np.median([figures["seconds"] for figures in results[OURS]]))
    for name, all_figures in results.items():
        if "error" in all_figures[0]:
            click.echo(f"| {name} | did not run: {all_figures[0]['error']} | | | | |")
            continue
        seconds, memory = (float(np.median([figures[key] for figures in all_figures])) for key in ("seconds", "memory"))
        ratio, same = seconds / ours, agreement(folder, name)
        click.echo(f"| {name} | {seconds:.1f} | {queries / seconds:,.0f} | {ratio:.2f}x | {memory:.2f} | {same:.4f} |")


def compare_sizes(folder: Path, dimensions: int) -> None:
    """Print time and memory of Babelcart by number of candidates."""
    peak = product_peak()
    click.echo(f"\nmatrix-product peak {peak:.0f} GFLOP/s\n")
    click.echo("| candidates (10,000 queries) | seconds | peak memory, GiB | share of the peak |\n|---|---|---|---|")
    for size in (10_000, 100_000, 1_000_000):
        write_embeddings(folder, 10_000, size, dimensions)
        figures = run(OURS, folder)
        rate = 2 * 10_000 * size * dimensions / figures["seconds"] / 1e9
        click.echo(f"| {size:,} | {figures['seconds']:.1f} | {figures['memory']:.2f} | {rate / peak:.2f} |")


@click.command(help=__doc__)
@click.option("--queries", default=100_000, show_default=True, help="Number of queries.")
@click.option("--candidates", default=100_000, show_default=True, help="Number of candidates.")
@click.option("--dimensions", default=384, show_default=True, help="Length of the embeddings.")
@click.option("--rounds", default=3, show_default=True, help="Number of rounds.")
@click.option("--side", type=click.Choice(SIDES), hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(queries: int, candidates: int, dimensions: int, rounds: int, side: str | None, folder: Path | None) -> None:
    if side:
        assert folder is not None
        click.echo(json.dumps(measure(side, folder)))
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        write_embeddings(Path(name), queries, candidates, dimensions)
        click.echo(f"{queries:,} queries x {candidates:,} candidates x {dimensions} dimensions, median of {rounds} rounds\n")
        compare_sides(Path(name), queries, rounds)
        compare_sizes(Path(name), dimensions)


if __name__ == "__main__":
    main()
