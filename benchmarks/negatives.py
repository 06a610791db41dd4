"""Hard-negative search beside sentence-transformers' `mine_hard_negatives` and faiss, embeddings given to all.

    pip install sentence-transformers datasets faiss-cpu
    python benchmarks/negatives.py

Queries and candidates are mixtures of Gaussian clusters on the unit sphere, as embeddings of a shop are; every query has one
positive. Each side runs in a process of its own, so that its peak memory is its own; the table gives rows a second (queries
answered, with text in and rows out), peak memory over that of the loaded embeddings, and whether the 50 nearest are the same as those
of our search. Then time and memory of our search by size, and its share of the machine's measured matrix-product peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

SIDES = ("ours", "sentence-transformers exact", "sentence-transformers faiss", "faiss flat")
COUNT = 50


def make(folder: Path, queries: int, candidates: int, dimensions: int) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(400, dimensions)).astype(np.float32)
    for name, size in (("queries", queries), ("candidates", candidates)):
        found = centres[generator.integers(len(centres), size=size)] * 0.7 + generator.normal(size=(size, dimensions)).astype(np.float32)
        np.save(folder / f"{name}.npy", (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32))


def peak() -> float:
    """Peak resident memory of this process, GiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def side(name: str, folder: Path) -> dict[str, object]:
    """Run one side in this process."""
    queries, candidates = np.load(folder / "queries.npy"), np.load(folder / "candidates.npy")
    one, two = [f"q{n}" for n in range(len(queries))], [f"c{n}" for n in range(len(candidates))]
    positives = [two[n % len(two)] for n in range(len(one))]
    import torch

    before = peak()
    start = time.perf_counter()
    if name == "ours":
        from babelcart.embedding.search import nearest

        numbers, _ = nearest(queries, candidates, COUNT)
        rows = [(one[n], two[found]) for n, row in enumerate(numbers.tolist()) for found in row[:4] if found != n % len(two)]
    elif name == "faiss flat":
        import faiss

        index = faiss.IndexFlatIP(queries.shape[1])
        index.add(candidates)
        _, numbers = index.search(queries, COUNT)
        rows = [(one[n], two[found]) for n, row in enumerate(numbers.tolist()) for found in row[:4] if found != n % len(two)]
    else:
        from datasets import Dataset
        from sentence_transformers.util import mine_hard_negatives

        class Given:
            """Stands where a SentenceTransformer would; gives the vectors that are there."""

            device = torch.device("cpu")
            model_card_data = None

            def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
                return candidates[[int(text[1:]) for text in texts]]

            def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
                return queries[[int(text[1:]) for text in texts]]

            def similarity(self, a: object, b: object) -> torch.Tensor:
                return torch.mm(torch.as_tensor(a), torch.as_tensor(b).T)

            def similarity_pairwise(self, a: object, b: object) -> torch.Tensor:
                return (torch.as_tensor(a) * torch.as_tensor(b)).sum(dim=-1)

            def get_embedding_dimension(self) -> int:
                return queries.shape[1]

        dataset = Dataset.from_dict({"anchor": one, "positive": positives})
        made = mine_hard_negatives(
            dataset, Given(), corpus=two, num_negatives=4, range_max=COUNT - 1, use_faiss=name.endswith("faiss"), verbose=False,
            output_format="n-tuple",
        )  # fmt: skip
        rows = made
        numbers = None
    seconds = time.perf_counter() - start
    np.save(folder / f"{name}.npy", numbers if numbers is not None else negatives_of(rows))
    return {"seconds": seconds, "memory": peak() - before, "rows": len(rows)}


def negatives_of(made: object) -> np.ndarray:
    return np.array([[int(text[1:]) for text in made[f"negative_{number}"]] for number in range(1, 5)]).T  # type: ignore[index]


def run(name: str, folder: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--side", name, "--folder", str(folder)], capture_output=True, text=True)
    if done.returncode:
        return {"seconds": float("nan"), "memory": float("nan"), "error": done.stderr.strip().splitlines()[-1:]}  # type: ignore[dict-item]
    return json.loads(done.stdout.strip().splitlines()[-1])


def product_peak() -> float:
    """Best rate of a large float32 matrix product on this machine, GFLOP/s."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return best


def same(folder: Path, name: str) -> float:
    """Share of queries whose first four negatives are ours."""
    mine, theirs = np.load(folder / "ours.npy"), np.load(folder / f"{name}.npy")
    if theirs.shape[1] != 4:
        return float((mine == theirs).all(axis=1).mean())
    positive = np.arange(len(mine)) % (mine.max() + 1)
    agree = [np.array_equal(row[row != own][:4], other) for row, own, other in zip(mine, positive, theirs, strict=True)]
    return float(np.mean(agree))


@click.command(help=__doc__)
@click.option("--queries", default=100_000, show_default=True)
@click.option("--candidates", default=100_000, show_default=True)
@click.option("--dimensions", default=384, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--side", "only", type=click.Choice(SIDES), hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(queries: int, candidates: int, dimensions: int, rounds: int, only: str | None, folder: Path | None) -> None:
    if only:
        assert folder is not None
        click.echo(json.dumps(side(only, folder)))
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        make(here, queries, candidates, dimensions)
        results: dict[str, list[dict[str, float]]] = {one: [] for one in SIDES}
        for _ in range(rounds):
            for one in SIDES:  # side by side: each round meets the same machine
                results[one].append(run(one, here))
        click.echo(f"{queries:,} queries x {candidates:,} candidates x {dimensions}, median of {rounds}\n")
        click.echo("| side | seconds | rows/s | ratio | peak memory, GiB | same |\n|---|---|---|---|---|---|")
        mine = float(np.median([found["seconds"] for found in results["ours"]]))
        for one, found in results.items():
            if "error" in found[0]:
                click.echo(f"| {one} | did not run: {found[0]['error']} | | | | |")
                continue
            seconds, memory = (float(np.median([row[key] for row in found])) for key in ("seconds", "memory"))
            agree = same(here, one)
            click.echo(f"| {one} | {seconds:.1f} | {queries / seconds:,.0f} | {seconds / mine:.2f} | {memory:.2f} | {agree:.4f} |")
        best = product_peak()
        click.echo(f"\nmatrix-product peak {best:.0f} GFLOP/s\n")
        click.echo("| candidates (10,000 queries) | seconds | peak memory, GiB | share of the peak |\n|---|---|---|---|")
        for size in (10_000, 100_000, 1_000_000):
            make(here, 10_000, size, dimensions)
            once = run("ours", here)
            rate = 2 * 10_000 * size * dimensions / once["seconds"] / 1e9
            click.echo(f"| {size:,} | {once['seconds']:.1f} | {once['memory']:.2f} | {rate / best:.2f} |")


if __name__ == "__main__":
    main()
