"""Which rows go into one pack: whole queries, up to a budget of tokens that shrinks where memory runs out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from babelcart.core.errors import UserError, out_of_memory
from babelcart.model.packing import TokenRow


def by_query(rows: Sequence[TokenRow]) -> list[list[int]]:
    """Row numbers grouped by equal query tokens, in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.query, []).append(number)
    return list(groups.values())


def by_length(rows: Sequence[TokenRow]) -> list[list[int]]:
    """`by_query`, sorted by length, so that the attention of a pack pads little."""
    groups = by_query(rows)
    return sorted(groups, key=lambda group: (max(len(rows[n].candidate) for n in group), len(rows[group[0]].query), group[0]))


def token_budget(groups: Iterable[Sequence[int]], rows: Sequence[TokenRow], max_tokens: int) -> Iterator[list[int]]:
    """Row numbers of one pack after another, each within `max_tokens` (a row longer than that goes alone).

    The query's tokens count once for the rows of a pack that share it. A group that does not fit is divided.
    """
    batch: list[int] = []
    used = 0
    query: tuple[int, ...] | None = None
    for group in groups:
        for number in group:
            row = rows[number]
            cost = len(row.candidate) + (0 if row.query == query else len(row.query))
            if batch and used + cost > max_tokens:
                yield batch
                batch, used = [], 0
                cost = len(row.candidate) + len(row.query)
            batch.append(number)
            used += cost
            query = row.query
    if batch:
        yield batch


def smaller_budget(error: RuntimeError, max_tokens: int, numbers: Sequence[int], rows: Sequence[TokenRow]) -> int:
    """The budget to try after `error`: half of the tokens of the pack that failed, if that was for want of memory.

    Parameters
    ----------
    error : RuntimeError
        What computing a pack raised; raised again if it is about anything but memory.
    max_tokens : int
        The budget under which it was.
    numbers : sequence of int
        The rows of the pack.

    Raises
    ------
    UserError
        If the pack held a single row, which cannot be divided.
    """
    import torch

    if not out_of_memory(error):
        raise error
    used = sum(map(len, {rows[n].query for n in numbers})) + sum(len(rows[n].candidate) for n in numbers)
    if len(numbers) == 1:
        raise UserError(
            f"out of memory with a single row of {used} tokens; set gradient_checkpointing: true or quantization: nf4 for this model, "
            "lower max_query_tokens and max_candidate_tokens of its prompt, or take a smaller model"
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, min(max_tokens, used) // 2)
