"""Divide rows into packs that fit a token budget, for training and for scoring.

Training and scoring compute the packs of `step_packs` and `scoring_packs`; `babelcart.plan` counts the same packs. In both, rows are
sorted by their tokens, so that rows with a common prefix are next to each other and share it (`babelcart.model.packing`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from babelcart.core.errors import UserError, out_of_memory
from babelcart.model.packing import TokenRow, new_tokens, trie_tokens

if TYPE_CHECKING:
    from babelcart.model.prefix_cache import PrefixTree

Result = TypeVar("Result")

# Consecutive rows that are sorted together in scoring. More rows share more, and need more memory.
CHUNK_ROWS = 16_384
# Consecutive chunks with a common prefix cache.
PART_CHUNKS = 8


def sort_by_tokens(indices: Iterable[int], rows: Sequence[TokenRow]) -> list[int]:
    """Sort row indices by the tokens of their rows; equal rows keep their order."""
    return sorted(indices, key=lambda row_index: rows[row_index].tokens)


def split_by_budget(
    order: Sequence[int], rows: Sequence[TokenRow], max_tokens: int, cache: PrefixTree | None = None
) -> Iterator[list[int]]:
    """Divide rows into packs of at most `max_tokens` computed tokens, without changing their order.

    A prefix counts once for consecutive rows of a pack that share it, and not at all if it is in the cache. A row longer than
    `max_tokens` gets its own pack.

    Parameters
    ----------
    order : sequence of int
        Row indices, as `sort_by_tokens` returns them.
    rows : sequence of TokenRow
        The rows that `order` points into.
    max_tokens : int
        Token budget of a pack.
    cache : PrefixTree, optional
        The prefixes in a prefix cache.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    pack: list[int] = []
    pack_tokens = 0
    previous: tuple[int, ...] = ()
    for row_index in order:
        tokens = rows[row_index].tokens
        row_tokens = new_tokens(tokens, previous, cache)
        if pack and pack_tokens + row_tokens > max_tokens:
            yield pack
            pack, pack_tokens, row_tokens = [], 0, new_tokens(tokens, (), cache)
        pack.append(row_index)
        pack_tokens += row_tokens
        previous = tokens
    if pack:
        yield pack


def step_packs(step: Sequence[int], rows: Sequence[TokenRow], max_tokens: int) -> Iterator[list[int]]:
    """Divide the rows of one optimizer step into packs.

    Parameters
    ----------
    step : sequence of int
        Row indices of the step, as `babelcart.training.steps.step_order` yields them.
    rows : sequence of TokenRow
        The rows that `step` points into.
    max_tokens : int
        Token budget of a pack.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    return split_by_budget(sort_by_tokens(step, rows), rows, max_tokens)


def scoring_packs(
    rows: Sequence[TokenRow], max_tokens: int, chunk_rows: int = CHUNK_ROWS, scored: int = 0, cache: PrefixTree | None = None
) -> Iterator[list[int]]:
    """Divide rows into packs for scoring.

    The packs of a chunk depend on the rows of this chunk only, so that a file of any length is scored in the same packs, whether
    at once, in parts or on several machines, if it is divided between chunks.

    Parameters
    ----------
    rows : sequence of TokenRow
        All rows to score.
    max_tokens : int
        Token budget of a pack.
    chunk_rows : int
        Number of consecutive rows that are sorted together.
    scored : int
        Number of rows in the packs that are already scored. They are skipped.
    cache : PrefixTree, optional
        The prefixes in a prefix cache.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    for start in range(scored - scored % chunk_rows, len(rows), chunk_rows):
        chunk = sort_by_tokens(range(start, min(start + chunk_rows, len(rows))), rows)
        yield from split_by_budget(chunk[max(0, scored - start) :], rows, max_tokens, cache)


def run_packs(
    rows: Sequence[TokenRow],
    compute: Callable[[list[TokenRow]], Result],
    max_tokens: int,
    chunk_rows: int = CHUNK_ROWS,
    cache: PrefixTree | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Compute the packs of `scoring_packs`. When memory runs out, the remaining packs become smaller.

    Parameters
    ----------
    rows : sequence of TokenRow
        All rows.
    compute : callable
        Computes the rows of one pack.
    max_tokens, chunk_rows, cache
        As for `scoring_packs`.

    Yields
    ------
    tuple
        Row indices of one pack, and what `compute` returned.

    Raises
    ------
    UserError
        If memory is too small for a single row.
    """
    done = 0
    while done < len(rows):
        for row_indices in scoring_packs(rows, max_tokens, chunk_rows, done, cache):
            pack = [rows[row_index] for row_index in row_indices]
            try:
                result = compute(pack)
            except RuntimeError as error:
                max_tokens = smaller_budget(error, max_tokens, pack)
                break
            done += len(row_indices)
            yield row_indices, result


def smaller_budget(error: RuntimeError, max_tokens: int, pack: Sequence[TokenRow]) -> int:
    """Token budget for the next attempt after a pack ran out of memory: half of the tokens of that pack.

    Parameters
    ----------
    error : RuntimeError
        The error raised while the pack was computed. If it does not report a lack of memory, it is raised again.
    max_tokens : int
        Token budget of the failed attempt.
    pack : sequence of TokenRow
        The rows of the pack.

    Returns
    -------
    int
        The budget, at least 1.

    Raises
    ------
    UserError
        If all rows of the pack are equal, so that it cannot be divided.
    """
    import torch

    if not out_of_memory(error):
        raise error
    pack_tokens = trie_tokens(pack)
    if len({row.tokens for row in pack}) == 1:
        raise UserError(
            f"out of memory with a single row of {pack_tokens} tokens; set gradient_checkpointing: true or quantization: nf4 for this "
            "model, lower max_query_tokens and max_candidate_tokens of its prompt, or use a smaller model"
        ) from error
    traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed attempt
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, min(max_tokens, pack_tokens) // 2)
