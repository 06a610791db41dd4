"""Exact nearest neighbours by blocked matrix products, in bounded memory; beyond a limit, an approximate index.

Scores are computed block by block into one buffer. Only those above what a query already has are looked at again, so nearly
all of the time is the matrix product's (Johnson et al., "Billion-scale similarity search with GPUs", 2017, does the same on a
GPU). Ties go to the lower number: the result depends on the vectors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from babelcart.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def nearest(
    queries: np.ndarray,
    candidates: np.ndarray,
    count: int,
    *,
    query_block: int = 1024,
    candidate_block: int = 8192,
    progress: Callable[..., Iterable[Any]] = lambda found, total, desc: found,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` candidates with the highest inner product, for each query.

    Parameters
    ----------
    queries, candidates : numpy.ndarray
        ``(rows, dimensions)`` float32.
    count : int
        Cut to the number of candidates.
    query_block, candidate_block : int
        Rows of a block; memory is about ``4 * query_block * candidate_block`` bytes beside the result.

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
    if not count:
        return numbers, scores
    every = torch.from_numpy(np.ascontiguousarray(candidates, dtype=np.float32))
    buffer = torch.empty(query_block * candidate_block)
    starts = range(0, len(queries), query_block)
    with torch.inference_mode():
        for start in progress(starts, total=len(starts), desc="search"):
            mine = torch.from_numpy(np.ascontiguousarray(queries[start : start + query_block], dtype=np.float32))
            best = torch.full((len(mine), count), -torch.inf)
            where = torch.full((len(mine), count), -1, dtype=torch.int64)
            for offset in range(0, len(every), candidate_block):
                block = every[offset : offset + candidate_block]
                product = torch.mm(mine, block.T, out=buffer[: len(mine) * len(block)].view(len(mine), len(block)))
                best, where = _merge(best, where, product, offset)
            numbers[start : start + len(mine)], scores[start : start + len(mine)] = where.numpy(), best.numpy()
    return numbers, scores


def _merge(best: Any, where: Any, product: Any, offset: int) -> tuple[Any, Any]:
    """The best of what a query has (sorted) and of a block, sorted; on equal scores the lower number first."""
    import torch

    count = best.shape[1]
    least = best[:, -1]
    if offset == 0 and product.shape[1] > count:
        # All would pass: only the best of the block are let through, with all that equal the last of them.
        floor = torch.topk(product, count, sorted=True).values[:, -1:]
        rows, columns = (product >= floor).nonzero(as_tuple=True)
    else:
        rows, columns = (product > least[:, None]).nonzero(as_tuple=True)
    if not len(rows):
        return best, where
    each = torch.bincount(rows, minlength=len(best))
    place = torch.arange(len(rows)) - (each.cumsum(0) - each)[rows]
    found = torch.full((len(best), int(each.max())), -torch.inf)
    number = torch.full(found.shape, -1, dtype=torch.int64)
    found[rows, place] = product[rows, columns]
    number[rows, place] = columns + offset
    # What it has comes first and has lower numbers, and a block's columns ascend: a stable sort settles ties.
    joined, order = torch.sort(torch.cat([best, found], dim=1), dim=1, descending=True, stable=True)
    return joined[:, :count], torch.cat([where, number], dim=1).gather(1, order[:, :count])


def approximate(queries: np.ndarray, candidates: np.ndarray, count: int, *, sample: int = 1000) -> tuple[np.ndarray, np.ndarray, float]:
    """`nearest` through an inverted-file index of faiss, and its recall against exact search on `sample` queries.

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
    lists = int(4 * len(candidates) ** 0.5)
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
