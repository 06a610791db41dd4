"""Shared-prefix packing: many rows as one sequence in which shared tokens occur once, without padding.

The rows of a query share the prompt's instruction and the query itself. Their tokens form a tree: the instruction is the root,
each query is a child of it, and the candidates of a query are its children. The tree is laid out as one sequence. Position ids
restart after each shared prefix, and a token attends only to the tokens between the root and itself.

All matrix products of the model run over this sequence. Only attention is padded: it is computed for groups of segments of
similar length (`AttentionBlock`), and takes a few per cent of the time for rows this short.

The result equals that of running each row separately, up to rounding in the dtype (``tests/unit/test_packing.py``).

Shapes in this module use these letters:

====== ==========================================================================
``T``  tokens of the sequence
``R``  rows of the pack
``S``  segments of an attention block; a segment is a node of the tree
``Lq`` tokens of the longest segment of the block
``Lk`` tokens of the longest branch of the block; a branch ends with its segment
``H``  attention heads
``K``  key-value heads; ``G = H / K`` attention heads share each of them
``D``  head_dim
====== ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenRow:
    """The token ids of one row, divided where rows of the same query begin to differ.

    Attributes
    ----------
    query : tuple of int
        Instruction and query, equal for all candidates of the query.
    candidate : tuple of int
        Candidate and suffix of the prompt. The model answers after the last of these tokens.
    """

    query: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True)
class AttentionBlock:
    """Segments of a pack whose attention is computed together, padded to the longest one.

    Attributes
    ----------
    query_index : torch.Tensor
        ``(S, Lq)`` int64: index in the sequence of each token of a segment; 0 for padding.
    key_index : torch.Tensor
        ``(S, Lk)`` int64: index in the sequence of each token of the segment's branch, from the root; 0 for padding.
    distance : torch.Tensor
        ``(S, Lq, Lk)`` int64: position of the query token minus position of the key token. Negative for padding and for later
        tokens, which must not be attended to.
    """

    query_index: torch.Tensor
    key_index: torch.Tensor
    distance: torch.Tensor

    def to(self, device: torch.device | str) -> AttentionBlock:
        """Copy the block to a device."""
        return AttentionBlock(self.query_index.to(device), self.key_index.to(device), self.distance.to(device))


@dataclass(frozen=True)
class Pack:
    """One packed sequence, with the index tensors for its attention.

    Attributes
    ----------
    input_ids : torch.Tensor
        ``(1, T)`` int64.
    position_ids : torch.Tensor
        ``(1, T)`` int64: position of each token in its row.
    blocks : tuple of AttentionBlock
        One block of the prefixes and one of the candidates, so that neither is padded to the length of the other.
    output_index : torch.Tensor
        ``(T,)`` int64: index of each token of the sequence in the flattened queries of all blocks.
    last_block : AttentionBlock
        The last token of each row as a block with ``S = R`` and ``Lq = 1``. Its `query_index` counts rows (0 to ``R - 1``), not
        tokens of the sequence.
    last_index : torch.Tensor
        ``(R,)`` int64: index in the sequence of the last token of each row, in the order of the rows given to `pack_rows`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    blocks: tuple[AttentionBlock, ...]
    output_index: torch.Tensor
    last_block: AttentionBlock
    last_index: torch.Tensor

    def to(self, device: torch.device | str) -> Pack:
        """Copy the pack to a device."""
        return Pack(
            self.input_ids.to(device),
            self.position_ids.to(device),
            tuple(block.to(device) for block in self.blocks),
            self.output_index.to(device),
            self.last_block.to(device),
            self.last_index.to(device),
        )


@dataclass(frozen=True)
class _Segment:
    """A node of the tree: a run of tokens of the sequence.

    Attributes
    ----------
    indices : range
        Indices of its tokens in the sequence.
    branch : list of int
        Indices of the tokens of its ancestors, from the root, and of its own.
    """

    indices: range
    branch: list[int]


@dataclass
class _Sequence:
    """The sequence while segments are appended to it."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def append(self, tokens: Sequence[int], ancestors: list[int]) -> _Segment:
        indices = range(len(self.tokens), len(self.tokens) + len(tokens))
        branch = [*ancestors, *indices]
        self.tokens.extend(tokens)
        self.positions.extend(range(len(ancestors), len(branch)))
        return _Segment(indices, branch)


def common_prefix(rows: Sequence[TokenRow]) -> int:
    """Count the leading tokens that the queries of all rows have in common.

    At least one token of each query is not counted, so that no query becomes an empty segment.
    """
    longest = min(len(row.query) for row in rows) - 1
    first = rows[0].query
    for length in range(longest):
        if any(row.query[length] != first[length] for row in rows):
            return length
    return max(longest, 0)


def pack_rows(rows: Sequence[TokenRow]) -> Pack:
    """Lay out rows as a tree with three levels: common prefix, queries, candidates.

    Parameters
    ----------
    rows : sequence of TokenRow
        At least one. Rows with equal ``query`` share its tokens, also when other rows are between them.

    Returns
    -------
    Pack
        On the CPU.

    Raises
    ------
    ValueError
        If there are no rows, or a row has an empty part.
    """
    import torch

    if not rows:
        raise ValueError("pack_rows needs at least one row")
    if any(not row.query or not row.candidate for row in rows):
        raise ValueError("every row needs at least one query token and one candidate token")

    shared = common_prefix(rows)
    sequence = _Sequence()
    root = sequence.append(rows[0].query[:shared], [])
    queries: dict[tuple[int, ...], _Segment] = {}
    candidates: list[_Segment] = []
    for row in rows:
        if row.query not in queries:
            queries[row.query] = sequence.append(row.query[shared:], root.branch)
        candidates.append(sequence.append(row.candidate, queries[row.query].branch))

    levels = ([*([root] if shared else []), *queries.values()], candidates)
    blocks = tuple(_attention_block(segments) for segments in levels)
    return Pack(
        torch.tensor([sequence.tokens]),  # (1, T)
        torch.tensor([sequence.positions]),  # (1, T)
        blocks,
        _output_index(levels, blocks, len(sequence.tokens)),  # (T,)
        _last_block(candidates, blocks[1]),
        torch.tensor([segment.indices[-1] for segment in candidates]),  # (R,)
    )


def _attention_block(segments: Sequence[_Segment]) -> AttentionBlock:
    import torch

    longest_segment = max(len(segment.indices) for segment in segments)
    longest_branch = max(len(segment.branch) for segment in segments)
    query_index = torch.zeros(len(segments), longest_segment, dtype=torch.long)  # (S, Lq)
    key_index = torch.zeros(len(segments), longest_branch, dtype=torch.long)  # (S, Lk)
    # Padding is in front of all tokens as a query and behind all tokens as a key: its distances are negative.
    query_position = torch.full((len(segments), longest_segment), -1, dtype=torch.long)  # (S, Lq)
    key_position = torch.full((len(segments), longest_branch), longest_branch, dtype=torch.long)  # (S, Lk)
    for segment_index, segment in enumerate(segments):
        length, branch_length = len(segment.indices), len(segment.branch)
        query_index[segment_index, :length] = torch.arange(segment.indices.start, segment.indices.stop)
        key_index[segment_index, :branch_length] = torch.tensor(segment.branch)
        query_position[segment_index, :length] = torch.arange(branch_length - length, branch_length)
        key_position[segment_index, :branch_length] = torch.arange(branch_length)
    return AttentionBlock(query_index, key_index, query_position[:, :, None] - key_position[:, None, :])


def _output_index(levels: Sequence[Sequence[_Segment]], blocks: Sequence[AttentionBlock], tokens: int) -> torch.Tensor:
    """`Pack.output_index`, ``(T,)``, of the segments of each block."""
    import torch

    output_index = torch.empty(tokens, dtype=torch.long)  # (T,)
    offset = 0  # of the segment in the flattened queries of all blocks
    for segments, block in zip(levels, blocks, strict=True):
        padded_length = block.query_index.shape[1]
        for segment in segments:
            length = len(segment.indices)
            output_index[segment.indices.start : segment.indices.stop] = torch.arange(offset, offset + length)
            offset += padded_length
    return output_index


def _last_block(candidates: Sequence[_Segment], block: AttentionBlock) -> AttentionBlock:
    """`Pack.last_block`: the attention block of the candidates, reduced to the last token of each."""
    import torch

    rows = torch.arange(len(candidates))  # (R,)
    last_tokens = torch.tensor([len(segment.indices) - 1 for segment in candidates])  # (R,), index in the segment
    return AttentionBlock(rows[:, None], block.key_index, block.distance[rows, last_tokens][:, None])


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Sequence[AttentionBlock],
    output_index: torch.Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Compute attention within each branch of a `Pack`.

    Uses matrix products and a float32 softmax. On a CPU, for segments this short, they take a third to half of the time of the
    fused kernel and its backward pass.

    Parameters
    ----------
    query : torch.Tensor
        ``(N, H, D)``: one query for each index in `blocks`; `N` is ``T``, or ``R`` with `Pack.last_block`.
    key, value : torch.Tensor
        ``(T, K, D)``.
    blocks : sequence of AttentionBlock
        `Pack.blocks`, or only `Pack.last_block`.
    output_index : torch.Tensor, optional
        `Pack.output_index`, ``(N,)``. None if the queries of the blocks are in order and have no padding.
    scaling : float
        Factor of the scores before the softmax.
    sliding_window : int, optional
        Number of positions that a query can attend to, its own included. None for no limit.

    Returns
    -------
    torch.Tensor
        ``(N, H, D)`` in the dtype of `query`.
    """
    import torch

    outputs = [_block_attention(query, key, value, block, scaling, sliding_window) for block in blocks]  # (S * Lq, H, D) each
    output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return output if output_index is None else output.index_select(0, output_index)


def _block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block: AttentionBlock, scaling: float, sliding_window: int | None
) -> torch.Tensor:
    """Attention of one block, ``(S * Lq, H, D)``; the parameters are those of `attention`."""
    import torch

    heads, key_heads = query.shape[1], key.shape[1]  # H, K
    group = heads // key_heads  # G
    segments, length = block.query_index.shape  # S, Lq
    span = block.key_index.shape[1]  # Lk
    # The heads that share a key-value head become further queries of that head.
    q = _gather(query, block.query_index.flatten()).view(segments, length, key_heads, group, -1)  # (S, Lq, K, G, D)
    q = q.permute(0, 2, 3, 1, 4).reshape(segments * key_heads, group * length, -1)  # (S * K, G * Lq, D)
    k = _gather_branches(key, block)  # (S * K, Lk, D)
    v = _gather_branches(value, block)  # (S * K, Lk, D)
    allowed = block.distance >= 0  # (S, Lq, Lk)
    if sliding_window is not None:
        allowed &= block.distance < sliding_window
    # A finite number instead of -inf: the softmax of a padding query, whose result is not used, would be NaN.
    bias = torch.where(allowed, 0.0, -1e30)[:, None, None].expand(segments, key_heads, group, length, span)
    scores = torch.baddbmm(torch.zeros((), dtype=q.dtype, device=q.device), q, k.transpose(1, 2), beta=0, alpha=scaling)
    weights = torch.softmax(scores.float() + bias.reshape(scores.shape), dim=-1).to(query.dtype)  # (S * K, G * Lq, Lk)
    output = (weights @ v).view(segments, key_heads, group, length, -1)  # (S, K, G, Lq, D)
    return output.permute(0, 3, 1, 2, 4).reshape(segments * length, heads, -1)  # (S * Lq, H, D)


def _gather_branches(tensor: torch.Tensor, block: AttentionBlock) -> torch.Tensor:
    """Keys or values ``(T, K, D)`` of the branch of each segment, ``(S * K, Lk, D)``."""
    segments, span = block.key_index.shape
    key_heads = tensor.shape[1]
    branches = _gather(tensor, block.key_index.flatten()).view(segments, span, key_heads, -1)  # (S, Lk, K, D)
    return branches.transpose(1, 2).reshape(segments * key_heads, span, -1)


def _gather(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Select rows by index.

    Where gradients flow, the selection is done in float32: the gradient of a shared token is the sum over many rows, for which
    bfloat16 has too few digits.
    """
    if not tensor.requires_grad:
        return tensor.index_select(0, index)
    return tensor.float().index_select(0, index).to(tensor.dtype)
