"""Count the packs that training and scoring compute, without computing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from babelcart.model.batching import scoring_packs, step_packs
from babelcart.model.packing import TokenRow, trie_tokens
from babelcart.model.prefix_cache import recurring_prefixes

if TYPE_CHECKING:
    from babelcart.model.prefix_cache import PrefixTree
    from babelcart.model.scoring import Predict


@dataclass(frozen=True)
class Workload:
    """Size of the rows that one stage computes.

    Attributes
    ----------
    rows, packs : int
        Numbers of rows and of packs.
    tokens : int
        Computed tokens; tokens that rows of a pack share count once, as do those in the prefix cache.
    padded_tokens : int
        Tokens if each row carried its complete prompt and were padded to the longest row of its pack.
    largest_packs : tuple of list of TokenRow
        The pack with the most tokens and the pack with the largest attention matrix, which can be the same. One of them needs the
        most memory.
    cached_tokens : int
        Tokens of the largest prefix cache.
    """

    rows: int
    packs: int
    tokens: int
    padded_tokens: int
    largest_packs: tuple[list[TokenRow], ...]
    cached_tokens: int = 0

    @property
    def tokens_per_row(self) -> float:
        """Computed tokens of a row, on average."""
        return self.tokens / self.rows


def training_workload(rows: Sequence[TokenRow], steps: Iterable[Sequence[int]], max_tokens: int) -> Workload:
    """Count the packs of a training run.

    Parameters
    ----------
    rows : sequence of TokenRow
        The training rows.
    steps : iterable of sequence of int
        Row indices of each optimizer step, from `babelcart.training.steps.step_order`. At least one step.
    max_tokens : int
        Token budget of a pack.
    """
    return _count(([rows[row_index] for row_index in pack], None) for step in steps for pack in step_packs(step, rows, max_tokens))


def scoring_workload(splits: Iterable[Sequence[TokenRow]], settings: Predict, cache_tokens: int = 0) -> Workload:
    """Count the packs of scoring.

    Parameters
    ----------
    splits : iterable of sequence of TokenRow
        Rows of each split; splits are scored one after another. At least one row.
    settings : Predict
        `max_tokens`, `chunk_rows` and `part_rows` are used.
    cache_tokens : int
        Tokens that fit into the prefix cache.
    """
    row_lists = [rows[start : start + settings.part_rows] for rows in splits for start in range(0, len(rows), settings.part_rows)]
    caches = [recurring_prefixes(rows, settings.chunk_rows, cache_tokens) for rows in row_lists]
    packs = (
        ([rows[row_index] for row_index in pack], cache)
        for rows, cache in zip(row_lists, caches, strict=True)
        for pack in scoring_packs(rows, settings.max_tokens, settings.chunk_rows, cache=cache)
    )
    workload = _count(packs)
    return replace(workload, tokens=workload.tokens + sum(map(len, caches)), cached_tokens=max(map(len, caches), default=0))


def _count(packs: Iterable[tuple[list[TokenRow], PrefixTree | None]]) -> Workload:
    """Count packs, each with the prefixes in the cache."""
    row_count = pack_count = tokens = padded_tokens = most_tokens = largest_area = 0
    longest_pack: list[TokenRow] = []
    widest_pack: list[TokenRow] = []
    for pack, cache in packs:
        pack_tokens, area = trie_tokens(pack, cache), _attention_area(pack)
        if pack_tokens > most_tokens:
            most_tokens, longest_pack = pack_tokens, pack
        if area > largest_area:
            largest_area, widest_pack = area, pack
        row_count, pack_count, tokens = row_count + len(pack), pack_count + 1, tokens + pack_tokens
        padded_tokens += len(pack) * max(len(row.tokens) for row in pack)
    largest_packs = (longest_pack,) if widest_pack == longest_pack else (longest_pack, widest_pack)
    return Workload(row_count, pack_count, tokens, padded_tokens, largest_packs)


def _attention_area(pack: Sequence[TokenRow]) -> int:
    """Upper bound of the entries of the attention matrices of a pack."""
    return len(pack) * max(len(row.tokens) for row in pack) ** 2
