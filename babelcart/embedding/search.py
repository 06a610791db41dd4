"""Exact nearest neighbours by blocked matrix products, in bounded memory; an approximate index for very large sets of candidates.

Scores are first computed block by block in the data type that this machine multiplies fastest, often bfloat16. The rounding of the
vectors bounds the error of such a coarse score. Every candidate that could be one of the nearest within this bound is scored again in
float32. So the result is exact, although nearly all of the time is spent in the fast product. Of equal scores, the lower candidate index
comes first, and every float32 score is summed in the same order: the result depends on the vectors only, not on blocks, threads or data
type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from babelcart.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

# Pairs of a query and a candidate that are scored in float32 at once; bounds memory.
SCORE_CHUNK = 16_384


def no_progress(steps: Iterable[Any], total: int, desc: str) -> Iterable[Any]:
    """Iterate without showing progress; takes the arguments of tqdm."""
    return steps


def nearest(
    queries: np.ndarray,
    candidates: np.ndarray,
    count: int,
    *,
    query_block: int = 1024,
    candidate_block: int = 8192,
    coarse: str | None = None,
    progress: Callable[..., Iterable[Any]] = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `count` candidates with the highest inner product for each query.

    Parameters
    ----------
    queries, candidates : numpy.ndarray
        ``(rows, dimensions)`` float32, finite.
    count : int
        Reduced to the number of candidates if there are fewer.
    query_block, candidate_block : int
        Rows of a block. In addition to the result, the search needs at most ``4 * query_block * candidate_block`` bytes and one more copy
        of the candidates.
    coarse : {"float32", "bfloat16"}, optional
        Data type of the first pass; default: the faster one on this machine. It does not change the result.
    progress : callable
        Called as ``progress(iterable, total=..., desc=...)``, as tqdm is.

    Returns
    -------
    indices : numpy.ndarray
        ``(queries, count)`` int64 indices of candidates, highest score first.
    scores : numpy.ndarray
        ``(queries, count)`` float32.
    """
    import numpy as np
    import torch

    count = min(count, len(candidates))
    indices = np.empty((len(queries), count), dtype=np.int64)
    scores = np.empty((len(queries), count), dtype=np.float32)
    if not count or not len(queries):
        return indices, scores
    dtype = getattr(torch, coarse) if coarse else fastest_search()
    index = _CandidateIndex(torch.from_numpy(np.ascontiguousarray(candidates, dtype=np.float32)), dtype, candidate_block)
    starts = range(0, len(queries), query_block)
    with torch.inference_mode():
        for start in progress(starts, total=len(starts), desc="search"):
            block = torch.from_numpy(np.ascontiguousarray(queries[start : start + query_block], dtype=np.float32))
            best = index.search(block, count)
            indices[start : start + len(block)], scores[start : start + len(block)] = best.indices.numpy(), best.scores.numpy()
    return indices, scores


class _Best(NamedTuple):
    """The best candidates of each query so far: ``(queries, count)`` scores, highest first, and indices; -inf and -1 if there are fewer."""

    scores: torch.Tensor
    indices: torch.Tensor


class _Rounded(NamedTuple):
    """Vectors in a coarser data type."""

    vectors: torch.Tensor  # (rows, dimensions), coarse
    error: torch.Tensor  # (rows,) length of the difference to the original vector
    norm: torch.Tensor  # (rows,) length of the original vector


class _CandidateIndex:
    """Candidates in a coarse data type, searched in blocks.

    Parameters
    ----------
    candidates : torch.Tensor
        ``(candidates, dimensions)`` float32.
    dtype : torch.dtype
        Data type of the coarse scores.
    block : int
        Candidates of one block.
    """

    def __init__(self, candidates: torch.Tensor, dtype: torch.dtype, block: int) -> None:
        self.candidates, self.dtype, self.block = candidates, dtype, block
        self.coarse = _round(candidates, dtype)
        self.buffer: torch.Tensor | None = None

    def search(self, queries: torch.Tensor, count: int) -> _Best:
        """Find the `count` nearest candidates of each query; ``(queries, count)`` exact float32 scores and indices."""
        import torch

        coarse_queries = _round(queries, self.dtype)
        bound = self._error_bound(coarse_queries, queries.shape[1])
        best = self._coarse_best(coarse_queries.vectors, bound, count)
        pairs = self._possible_pairs(coarse_queries.vectors, best, bound, count)
        # Ascending candidates for each query, as _merge needs them.
        query_rows, columns = pairs[:, torch.argsort(pairs[0] * len(self.candidates) + pairs[1])]
        return _merge(_no_best(len(queries), count), query_rows, columns, _exact_scores(queries, self.candidates, query_rows, columns))

    def _error_bound(self, queries: _Rounded, dimensions: int) -> torch.Tensor:
        """``(queries,)``: the largest difference between a coarse score, before it is rounded, and the exact score."""
        import torch

        # |qc - q'c'| <= |q - q'||c| + |q'||c - c'| (Cauchy-Schwarz), and the rounding of the sum itself (Higham, 2002, eq. 3.5).
        longest = self.coarse.norm.max()
        bound = queries.error * longest + (queries.norm + queries.error) * self.coarse.error.max()
        return bound + 2 * dimensions * torch.finfo(torch.float32).eps * queries.norm * longest

    def _coarse_best(self, queries: torch.Tensor, bound: torch.Tensor, count: int) -> _Best:
        """Return the best coarse scores of each query; more than `count` of them, since the exact scores may have another order."""
        import torch

        size = min(2 * count + 32, len(self.candidates))
        best = _no_best(len(queries), size)
        for offset, scores in self._products(queries):
            if offset == 0 and scores.shape[1] > size:
                floor = torch.topk(scores, size).values[:, -1].float()
            else:
                floor = torch.maximum(best.scores[:, -1], self._floor(best.scores[:, count - 1], bound))
            query_rows, columns = (scores >= floor.to(self.dtype)[:, None]).nonzero(as_tuple=True)
            best = _merge(best, query_rows, columns + offset, scores[query_rows, columns].float())
        return best

    def _possible_pairs(self, queries: torch.Tensor, best: _Best, bound: torch.Tensor, count: int) -> torch.Tensor:
        """``(2, pairs)`` int64: query rows and candidate indices of all pairs whose exact score may be one of the `count` highest."""
        import torch

        floor = self._floor(best.scores[:, count - 1], bound)
        # If even the last of the best reaches the floor, more candidates may reach it: these queries need a second pass.
        overflow = (best.scores[:, -1] >= floor) & (best.scores.shape[1] < len(self.candidates))  # (queries,)
        query_rows, ranks = ((best.scores >= floor[:, None]) & ~overflow[:, None]).nonzero(as_tuple=True)
        pairs = [torch.stack([query_rows, best.indices[query_rows, ranks]])]
        if overflow.any():
            overflow_rows = overflow.nonzero()[:, 0]
            for offset, scores in self._products(queries[overflow_rows]):
                rows, columns = (scores >= floor[overflow_rows].to(self.dtype)[:, None]).nonzero(as_tuple=True)
                pairs.append(torch.stack([overflow_rows[rows], columns + offset]))
        return torch.cat(pairs, dim=1)

    def _products(self, queries: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the offset and ``(queries, block)`` coarse scores of each block of candidates; the next block overwrites the scores."""
        import torch

        candidates = self.coarse.vectors
        if self.buffer is None:
            self.buffer = torch.empty(len(queries) * min(self.block, len(candidates)), dtype=self.dtype)
        for offset in range(0, len(candidates), self.block):
            block = candidates[offset : offset + self.block]
            yield offset, torch.mm(queries, block.T, out=self.buffer[: len(queries) * len(block)].view(len(queries), len(block)))

    def _floor(self, coarse_score: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        """Return the lowest coarse score of a candidate whose exact score may reach the exact score behind `coarse_score`."""
        import torch

        # Rounding to the coarse type moves a score by at most half a unit in the last place, and rounding is monotone.
        return coarse_score - coarse_score.abs() * torch.finfo(self.dtype).eps / 2 - 2 * bound


def _round(vectors: torch.Tensor, dtype: torch.dtype) -> _Rounded:
    rounded = vectors.to(dtype)
    return _Rounded(rounded, (vectors - rounded.float()).norm(dim=1), vectors.norm(dim=1))


def _no_best(queries: int, count: int) -> _Best:
    import torch

    return _Best(torch.full((queries, count), -torch.inf), torch.full((queries, count), -1, dtype=torch.int64))


def _exact_scores(queries: torch.Tensor, candidates: torch.Tensor, query_rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``(pairs,)`` float32 scores, each summed on its own: neither blocks nor threads change the order of the sum."""
    import torch

    starts = range(0, max(1, len(query_rows)), SCORE_CHUNK)
    chunks = [slice(start, start + SCORE_CHUNK) for start in starts]
    return torch.cat([(queries[query_rows[chunk]] * candidates[columns[chunk]]).sum(dim=1) for chunk in chunks])


def _merge(best: _Best, query_rows: torch.Tensor, columns: torch.Tensor, scores: torch.Tensor) -> _Best:
    """Add pairs of queries and candidates to the best ones of each query.

    Parameters
    ----------
    best : _Best
        All of its indices are lower than `columns`.
    query_rows, columns, scores : torch.Tensor
        ``(pairs,)``: query row, candidate index and score; sorted by query row, then by candidate index.

    Returns
    -------
    _Best
        Of the same shape. Of equal scores, the lower index comes first.
    """
    import torch

    if not len(query_rows):
        return best
    pairs_of_query = torch.bincount(query_rows, minlength=len(best.scores))  # (queries,)
    position = torch.arange(len(query_rows)) - (pairs_of_query.cumsum(0) - pairs_of_query)[query_rows]  # (pairs,)
    added = _no_best(len(best.scores), int(pairs_of_query.max()))
    added.scores[query_rows, position] = scores
    added.indices[query_rows, position] = columns
    # The present candidates come first and have lower indices: a stable sort settles ties.
    merged, order = torch.sort(torch.cat([best.scores, added.scores], dim=1), dim=1, descending=True, stable=True)
    count = best.scores.shape[1]
    return _Best(merged[:, :count], torch.cat([best.indices, added.indices], dim=1).gather(1, order[:, :count]))


@lru_cache(maxsize=1)
def fastest_search() -> torch.dtype:
    """Return the data type, float32 or bfloat16, with the faster matrix product on this machine; both are timed once."""
    import torch

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        queries, candidates = torch.ones(512, 384, dtype=dtype), torch.ones(384, 4096, dtype=dtype)
        torch.mm(queries, candidates)
        start = time.perf_counter()
        torch.mm(queries, candidates)
        seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=lambda dtype: seconds[dtype])


def approximate_nearest(
    queries: np.ndarray, candidates: np.ndarray, count: int, *, sample: int = 1000
) -> tuple[np.ndarray, np.ndarray, float]:
    """Search as `nearest` does, with an inverted-file index of faiss, and measure its recall.

    Parameters
    ----------
    queries, candidates : numpy.ndarray
        ``(rows, dimensions)`` float32, finite.
    count : int
        Reduced to the number of candidates if there are fewer.
    sample : int
        Number of queries whose neighbours are compared with those of an exact search.

    Returns
    -------
    indices : numpy.ndarray
        ``(queries, count)`` int64 indices of candidates, highest score first; -1 at the end of a row if the probed lists hold fewer.
    scores : numpy.ndarray
        ``(queries, count)`` float32.
    recall : float
        Share of the true neighbours that were found.

    Raises
    ------
    UserError
        If faiss is not installed.
    """
    import numpy as np

    try:
        import faiss
    except ImportError:
        raise UserError(
            f"there are {len(candidates):,} candidates, more than negatives.exact_limit, and faiss is not installed: "
            "run `pip install 'babelcart[ann]'`, or raise negatives.exact_limit in params.yaml"
        ) from None
    count = min(count, len(candidates))
    lists = max(1, min(int(4 * len(candidates) ** 0.5), len(candidates) // 39))  # faiss requires 39 training vectors for each list
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(candidates.shape[1]), candidates.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    index.train(candidates[:: max(1, len(candidates) // (64 * lists))])
    index.add(candidates)
    index.nprobe = max(8, lists // 16)
    scores, indices = index.search(queries, count)
    sampled = np.random.default_rng(0).permutation(len(queries))[:sample]
    exact, _ = nearest(queries[sampled], candidates, count)
    overlaps = [len(set(true) & set(approximate)) / count for true, approximate in zip(exact, indices[sampled], strict=True)]
    return indices, scores, float(np.mean(overlaps))
