"""Divide rows into packs that fit a token budget, for training and for scoring.

Training and scoring compute the packs of `step_packs` and `scoring_packs`; `babelcart.plan` counts the same packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from babelcart.core.errors import UserError, out_of_memory
from babelcart.model.packing import TokenRow


def group_by_query(rows: Sequence[TokenRow]) -> list[list[int]]:
    """Group row indices by equal query tokens, in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row_index, row in enumerate(rows):
        groups.setdefault(row.query, []).append(row_index)
    return list(groups.values())


def sort_by_length(rows: Sequence[TokenRow]) -> list[int]:
    """Row indices with the rows of a query next to each other and the queries sorted by length, so that attention pads little."""
    groups = group_by_query(rows)
    groups.sort(key=lambda group: (max(len(rows[index].candidate) for index in group), len(rows[group[0]].query), group[0]))
    return [row_index for group in groups for row_index in group]


def split_by_budget(order: Sequence[int], rows: Sequence[TokenRow], max_tokens: int) -> Iterator[list[int]]:
    """Divide rows into packs of at most `max_tokens` tokens, without changing their order.

    Tokens of a query count once for consecutive rows of that query in a pack. A row longer than `max_tokens` gets its own pack.

    Parameters
    ----------
    order : sequence of int
        Row indices.
    rows : sequence of TokenRow
        The rows that `order` points into.
    max_tokens : int
        Token budget of a pack.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    pack: list[int] = []
    pack_tokens = 0
    previous_query: tuple[int, ...] | None = None
    for row_index in order:
        row = rows[row_index]
        new_tokens = len(row.candidate) + (0 if row.query == previous_query else len(row.query))
        if pack and pack_tokens + new_tokens > max_tokens:
            yield pack
            pack, pack_tokens = [], 0
            new_tokens = len(row.candidate) + len(row.query)
        pack.append(row_index)
        pack_tokens += new_tokens
        previous_query = row.query
    if pack:
        yield pack


def step_packs(step: Sequence[int], rows: Sequence[TokenRow], max_tokens: int) -> Iterator[list[int]]:
    """Divide the rows of one optimizer step into packs; the rows of a query are next to each other.

    Parameters
    ----------
    step : sequence of int
        Row indices of the step, as `babelcart.training.loop.step_order` yields them.
    rows : sequence of TokenRow
        The rows that `step` points into.
    max_tokens : int
        Token budget of a pack.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    groups = group_by_query([rows[row_index] for row_index in step])
    return split_by_budget([step[position] for group in groups for position in group], rows, max_tokens)


def scoring_packs(rows: Sequence[TokenRow], max_tokens: int, scored: int = 0) -> Iterator[list[int]]:
    """Divide rows into packs of similar length for scoring.

    Parameters
    ----------
    rows : sequence of TokenRow
        All rows to score.
    max_tokens : int
        Token budget of a pack.
    scored : int
        Number of rows in the packs that are already scored. They are skipped.

    Yields
    ------
    list of int
        Row indices of one pack.
    """
    return split_by_budget(sort_by_length(rows)[scored:], rows, max_tokens)


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
        If the pack holds a single row, which cannot be divided.
    """
    import torch

    if not out_of_memory(error):
        raise error
    pack_tokens = sum(map(len, {row.query for row in pack})) + sum(len(row.candidate) for row in pack)
    if len(pack) == 1:
        raise UserError(
            f"out of memory with a single row of {pack_tokens} tokens; set gradient_checkpointing: true or quantization: nf4 for this "
            "model, lower max_query_tokens and max_candidate_tokens of its prompt, or use a smaller model"
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, min(max_tokens, pack_tokens) // 2)
