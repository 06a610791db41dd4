"""Exact nearest neighbours by blocked matrix products, in bounded memory; beyond a limit, an approximate index.

Scores are computed block by block in the type that the machine multiplies fastest, often bfloat16. How far such a score can be
from the true one is known from the rounding of the vectors, so whatever could be among the nearest is kept and computed again
in float32: the result is exact, and nearly all of the time is the fast product's. Ties go to the lower number, and a score
is summed in the same way wherever it is computed: the result depends on the vectors alone, not on blocks, threads or type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch


def nearest(
    queries: np.ndarray,
    candidates: np.ndarray,
    count: int,
    *,
    query_block: int = 1024,
    candidate_block: int = 8192,
    coarse: str | None = None,
    progress: Callable[..., Iterable[Any]] = lambda found, total, desc: found,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` candidates with the highest inner product, for each query.

    Parameters
    ----------
    queries, candidates : numpy.ndarray
        ``(rows, dimensions)`` float32, finite.
    count : int
        Cut to the number of candidates.
    query_block, candidate_block : int
        Rows of a block; memory is at most ``4 * query_block * candidate_block`` bytes and the candidates once more, beside the result.
    coarse : str, optional
        ``float32`` or ``bfloat16`` for the first look; default: what is faster here. It does not change the result.

    Returns
    -------
    tuple
        ``(queries, count)`` int64 candidate numbers and float32 scores, highest first.
    """
    import numpy as np
    import torch

    count = min(count, len(candidates))
    numbers = np.empty((len(queries), count), dtype=np.int64)
    scores = np.empty((len(queries), count), dtype=np.float32)
    if not count or not len(queries):
        return numbers, scores
    dtype = getattr(torch, coarse) if coarse else fastest_search()
    index = _Index(torch.from_numpy(np.ascontiguousarray(candidates, dtype=np.float32)), dtype, candidate_block)
    starts = range(0, len(queries), query_block)
    with torch.inference_mode():
        for start in progress(starts, total=len(starts), desc="search"):
            mine = torch.from_numpy(np.ascontiguousarray(queries[start : start + query_block], dtype=np.float32))
            where, best = index.search(mine, count)
            numbers[start : start + len(mine)], scores[start : start + len(mine)] = where.numpy(), best.numpy()
    return numbers, scores


class _Index:
    """Candidates in a coarse type, and how far a coarse score may be from the true one."""

    def __init__(self, candidates: torch.Tensor, dtype: torch.dtype, block: int) -> None:
        self.candidates, self.dtype, self.block = candidates, dtype, block
        self.rough, self.error, self.norm = _rounded(candidates, dtype)
        self.buffer: torch.Tensor | None = None

    def search(self, mine: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers and scores of the `count` nearest of each query, highest first."""
        import torch

        rough, error, norm = _rounded(mine, self.dtype)
        # |qc - q'c'| <= |q - q'||c| + |q'||c - c'| (Cauchy-Schwarz), and the sum's own rounding (Higham, 2002, eq. 3.5).
        bound = error * self.norm.max() + (norm + error) * self.error.max()
        bound = bound + 2 * mine.shape[1] * torch.finfo(torch.float32).eps * norm * self.norm.max()
        kept = min(2 * count + 32, len(self.candidates))
        best = torch.full((len(mine), kept), -torch.inf)
        where = torch.full((len(mine), kept), -1, dtype=torch.int64)
        for offset, product in self.products(rough):
            if offset == 0 and product.shape[1] > kept:
                floor = torch.topk(product, kept).values[:, -1].float()
            else:
                floor = torch.maximum(best[:, -1], self.floor(best[:, count - 1], bound))
            rows, columns = (product >= floor.to(self.dtype)[:, None]).nonzero(as_tuple=True)
            best, where = _merge(best, where, rows, columns + offset, product[rows, columns].float())
        # True scores of all that may be among the nearest. Where more may be than were kept, all are looked at once more.
        floor = self.floor(best[:, count - 1], bound)
        full = (best[:, -1] >= floor) & (kept < len(self.candidates))
        possible = (best >= floor[:, None]) & ~full[:, None]
        rows, places = possible.nonzero(as_tuple=True)
        columns = where[rows, places]
        if full.any():
            lines = full.nonzero()[:, 0]
            for offset, product in self.products(rough[lines]):
                some, more = (product >= floor[lines].to(self.dtype)[:, None]).nonzero(as_tuple=True)
                rows, columns = torch.cat([rows, lines[some]]), torch.cat([columns, more + offset])
        order = torch.argsort(rows * len(self.candidates) + columns)
        rows, columns = rows[order], columns[order]
        best = torch.full((len(mine), count), -torch.inf)
        where = torch.full((len(mine), count), -1, dtype=torch.int64)
        best, where = _merge(best, where, rows, columns, _scores(mine, self.candidates, rows, columns))
        return where, best

    def products(self, rough: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Offset and coarse scores of each block of candidates; the next block overwrites them."""
        import torch

        if self.buffer is None:
            self.buffer = torch.empty(len(rough) * min(self.block, len(self.rough)), dtype=self.dtype)
        for offset in range(0, len(self.rough), self.block):
            block = self.rough[offset : offset + self.block]
            yield offset, torch.mm(rough, block.T, out=self.buffer[: len(rough) * len(block)].view(len(rough), len(block)))

    def floor(self, last: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        """The lowest coarse score of a candidate whose true one may reach the true score behind the coarse `last`."""
        import torch

        # Rounding a score to the coarse type moves it by half a unit in the last place at most; rounding is monotone.
        return last - last.abs() * torch.finfo(self.dtype).eps / 2 - 2 * bound


def _rounded(vectors: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors in a coarser type; the length of what each lost; the length of each."""
    rough = vectors.to(dtype)
    return rough, (vectors - rough.float()).norm(dim=1), vectors.norm(dim=1)


def _scores(mine: torch.Tensor, every: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, chunk: int = 16_384) -> torch.Tensor:
    """The float32 score of each pair, row by row: no block or thread changes the order of its sum."""
    import torch

    starts = range(0, max(1, len(rows)), chunk)
    return torch.cat([(mine[rows[at : at + chunk]] * every[columns[at : at + chunk]]).sum(dim=1) for at in starts])


def _merge(
    best: torch.Tensor, where: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each query has (sorted) and what it may get (columns ascending), sorted; on equal scores the lower number first."""
    import torch

    if not len(rows):
        return best, where
    each = torch.bincount(rows, minlength=len(best))
    place = torch.arange(len(rows)) - (each.cumsum(0) - each)[rows]
    found = torch.full((len(best), int(each.max())), -torch.inf)
    number = torch.full(found.shape, -1, dtype=torch.int64)
    found[rows, place] = scores
    number[rows, place] = columns
    # What it has comes first and has lower numbers: a stable sort settles ties.
    joined, order = torch.sort(torch.cat([best, found], dim=1), dim=1, descending=True, stable=True)
    count = best.shape[1]
    return joined[:, :count], torch.cat([where, number], dim=1).gather(1, order[:, :count])


@lru_cache(maxsize=1)
def fastest_search() -> torch.dtype:
    """The type of the faster matrix product on this machine, by trying both."""
    import torch

    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, two = torch.ones(512, 384, dtype=dtype), torch.ones(384, 4096, dtype=dtype)
        torch.mm(one, two)
        start = time.perf_counter()
        torch.mm(one, two)
        taken[dtype] = time.perf_counter() - start
    return min(taken, key=lambda dtype: taken[dtype])


def approximate_nearest(
    queries: np.ndarray, candidates: np.ndarray, count: int, *, sample: int = 1000
) -> tuple[np.ndarray, np.ndarray, float]:
    """`nearest` through an inverted-file index of faiss, and its recall against exact search on `sample` queries.

    Where the lists that are looked into hold fewer than `count` candidates, the last numbers of a query are -1.

    Raises
    ------
    UserError
        If faiss is not installed.
    """
    import numpy as np

    try:
        import faiss
    except ImportError:
        raise UserError("more candidates than negatives.exact_limit: pip install 'babelcart[ann]', or raise the limit") from None
    count = min(count, len(candidates))
    lists = max(1, min(int(4 * len(candidates) ** 0.5), len(candidates) // 39))  # faiss asks for 39 points a list
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(candidates.shape[1]), candidates.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    index.train(candidates[:: max(1, len(candidates) // (64 * lists))])
    index.add(candidates)
    index.nprobe = max(8, lists // 16)
    scores, numbers = index.search(queries, count)
    chosen = np.random.default_rng(0).permutation(len(queries))[:sample]
    exact, _ = nearest(queries[chosen], candidates, count)
    recall = float(np.mean([len(set(a) & set(b)) / count for a, b in zip(exact, numbers[chosen], strict=True)]))
    return numbers, scores, recall
