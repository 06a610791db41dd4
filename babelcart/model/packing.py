"""Shared-prefix packing: many (query, candidate) rows as one sequence without padding.

Rows of a query share the prompt's instruction and the query. Their tokens are a tree: the instruction once, below it
each query once, below each query its candidates. The tree is laid out as one sequence of ``T`` tokens; position ids
restart after the shared prefix, and a token attends only to its own branch. Every matrix product of the model then runs
over ``T`` real tokens. Only the attention itself, a few per cent of the work for rows this short, is padded: it runs on
``(segments, longest branch)`` gathered from the sequence.

The result equals running every row alone, up to the float error of the dtype (``tests/unit/test_packing.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenRow:
    """The token ids of one row, in the three parts of the tree.

    Attributes
    ----------
    query : tuple of int
        Instruction and query: equal for every candidate of the query.
    candidate : tuple of int
        Candidate and the prompt's suffix. Its last token is the position whose next token is the label.
    """

    query: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True)
class AttentionBlock:
    """Segments of a pack whose attention is computed together.

    Attributes
    ----------
    query_index : torch.Tensor
        ``(S, Lq)`` int64: where in the sequence the tokens of each segment stand (padded with 0).
    key_index : torch.Tensor
        ``(S, Lk)`` int64: the same for a segment's whole branch, its ancestors first.
    distance : torch.Tensor
        ``(S, Lq, Lk)`` int64: query position minus key position; negative where attention is not allowed.
    """

    query_index: torch.Tensor
    key_index: torch.Tensor
    distance: torch.Tensor

    def to(self, device: torch.device | str) -> AttentionBlock:
        """The same block on another device."""
        return AttentionBlock(self.query_index.to(device), self.key_index.to(device), self.distance.to(device))


@dataclass(frozen=True)
class Pack:
    """One packed sequence and the tables that its attention needs.

    Attributes
    ----------
    input_ids, position_ids : torch.Tensor
        ``(1, T)`` int64.
    blocks : tuple of Block
        Prefixes apart from candidates, so that neither is padded to the other's length.
    final : Block
        The last token of each row alone, as query ``0 .. rows - 1``, over its branch.
    output_index : torch.Tensor
        ``(T,)`` int64: where each token of the sequence stands in the flattened queries of all blocks.
    last : torch.Tensor
        ``(rows,)`` int64: where the last token of each row stands in the sequence, in the order given to `pack_rows`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    blocks: tuple[AttentionBlock, ...]
    final: AttentionBlock
    output_index: torch.Tensor
    last: torch.Tensor

    def to(self, device: torch.device | str) -> Pack:
        """The same pack on another device."""
        return Pack(
            self.input_ids.to(device),
            self.position_ids.to(device),
            tuple(block.to(device) for block in self.blocks),
            self.final.to(device),
            self.output_index.to(device),
            self.last.to(device),
        )


def common_prefix(rows: Sequence[TokenRow]) -> int:
    """The number of first tokens that the queries of all rows share; at least one token of each is left over."""
    shortest = min(len(row.query) for row in rows) - 1
    first = rows[0].query
    for length in range(shortest):
        if any(row.query[length] != first[length] for row in rows):
            return length
    return max(shortest, 0)


def pack_rows(rows: Sequence[TokenRow]) -> Pack:
    """Lay rows out as a tree of three levels: common prefix, queries, candidates.

    Parameters
    ----------
    rows : sequence of TokenRow
        At least one. Rows with equal ``query`` share it wherever they stand in the sequence.

    Raises
    ------
    ValueError
        If there is no row, or a row has an empty part.
    """
    import torch

    if not rows:
        raise ValueError("pack_rows needs at least one row")
    if any(not row.query or not row.candidate for row in rows):
        raise ValueError("every row needs at least one query token and one candidate token")

    shared = common_prefix(rows)
    tokens: list[int] = list(rows[0].query[:shared])
    positions = list(range(shared))
    trunk = list(range(shared))
    # Of each segment: its first token in the sequence, its length, the sequence indices of its ancestors.
    prefixes: list[tuple[int, int, list[int]]] = [(0, shared, [])] if shared else []
    candidates: list[tuple[int, int, list[int]]] = []
    branches: dict[tuple[int, ...], list[int]] = {}
    last: list[int] = []
    for row in rows:
        if row.query not in branches:
            own = row.query[shared:]
            prefixes.append((len(tokens), len(own), trunk))
            branches[row.query] = trunk + list(range(len(tokens), len(tokens) + len(own)))
            tokens.extend(own)
            positions.extend(range(shared, shared + len(own)))
        branch = branches[row.query]
        candidates.append((len(tokens), len(row.candidate), branch))
        tokens.extend(row.candidate)
        positions.extend(range(len(branch), len(branch) + len(row.candidate)))
        last.append(len(tokens) - 1)

    output_index = torch.empty(len(tokens), dtype=torch.long)
    blocks = []
    offset = 0
    for segments in (prefixes, candidates):
        block = _block(segments)
        longest = block.query_index.shape[1]
        for number, (start, length, _) in enumerate(segments):
            output_index[start : start + length] = torch.arange(length) + (offset + number * longest)
        offset += len(segments) * longest
        blocks.append(block)
    # The candidates' block again, with one query a segment: segments stand in the order of the rows.
    numbers = torch.arange(len(rows))
    ends = torch.tensor([len(row.candidate) - 1 for row in rows])
    final = AttentionBlock(numbers[:, None], blocks[1].key_index, blocks[1].distance[numbers, ends][:, None])
    return Pack(torch.tensor([tokens]), torch.tensor([positions]), tuple(blocks), final, output_index, torch.tensor(last))


def _block(segments: Sequence[tuple[int, int, list[int]]]) -> AttentionBlock:
    import torch

    longest_query = max(length for _, length, _ in segments)
    longest_key = max(length + len(ancestors) for _, length, ancestors in segments)
    query_index = torch.zeros(len(segments), longest_query, dtype=torch.long)
    key_index = torch.zeros(len(segments), longest_key, dtype=torch.long)
    query_position = torch.full((len(segments), longest_query), -1, dtype=torch.long)
    # Padding keys stand after every query, so that their distance is negative.
    key_position = torch.full((len(segments), longest_key), longest_key, dtype=torch.long)
    for number, (start, length, ancestors) in enumerate(segments):
        whole = len(ancestors) + length
        query_index[number, :length] = torch.arange(start, start + length)
        key_index[number, :whole] = torch.tensor([*ancestors, *range(start, start + length)])
        query_position[number, :length] = torch.arange(len(ancestors), whole)
        key_position[number, :whole] = torch.arange(whole)
    return AttentionBlock(query_index, key_index, query_position[:, :, None] - key_position[:, None, :])


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Sequence[AttentionBlock],
    output_index: torch.Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Attention over the blocks of a `Pack`.

    Plain products and a float32 softmax: for segments this short they are two to three times as fast on a CPU as the fused
    kernel and its backward pass.

    Parameters
    ----------
    query : torch.Tensor
        ``(Q, heads, head_dim)``; `key` and `value` ``(T, key_value_heads, head_dim)``.
    blocks : sequence of Block
        Whose indices point into `query` and `key`.
    output_index : torch.Tensor, optional
        `Pack.output_index`; without it the queries of the blocks stand in order and are not padded.
    sliding_window : int, optional
        Keys this many positions or more before a query are not attended to.

    Returns
    -------
    torch.Tensor
        ``(Q, heads, head_dim)``.
    """
    import torch

    heads, key_heads = query.shape[1], key.shape[1]
    group = heads // key_heads
    outputs = []
    for block in blocks:
        segments, length = block.query_index.shape
        span = block.key_index.shape[1]
        # Heads that share a key head become more queries of it: (segments * key_heads, group * length, head_dim).
        q = _gather(query, block.query_index.flatten()).view(segments, length, key_heads, group, -1)
        q = q.permute(0, 2, 3, 1, 4).reshape(segments * key_heads, group * length, -1)
        k, v = (_gather(tensor, block.key_index.flatten()).view(segments, span, key_heads, -1).transpose(1, 2) for tensor in (key, value))
        k, v = k.reshape(segments * key_heads, span, -1), v.reshape(segments * key_heads, span, -1)
        allowed = block.distance >= 0
        if sliding_window is not None:
            allowed &= block.distance < sliding_window
        # Finite, so that the (unused) rows of padding queries stay finite too.
        bias = torch.where(allowed, 0.0, -1e30)[:, None, None].expand(segments, key_heads, group, length, span)
        weights = torch.baddbmm(torch.zeros((), dtype=q.dtype, device=q.device), q, k.transpose(1, 2), beta=0, alpha=scaling)
        weights = torch.softmax(weights.float() + bias.reshape(weights.shape), dim=-1).to(query.dtype)
        output = (weights @ v).view(segments, key_heads, group, length, -1).permute(0, 3, 1, 2, 4)
        outputs.append(output.reshape(segments * length, heads, -1))
    whole = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return whole if output_index is None else whole.index_select(0, output_index)


def _gather(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows by index. In float32 where gradients flow: a shared prefix sums those of many rows, for which bf16 is too short."""
    if not tensor.requires_grad:
        return tensor.index_select(0, index)
    return tensor.float().index_select(0, index).to(tensor.dtype)
