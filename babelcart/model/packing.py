"""Packing: many rows as one sequence in which the tokens that they share occur once, without padding.

The tokens of the rows form a trie: rows share their tokens up to the first one that differs. Nothing is declared about what is shared.
With the query first, the rows of a query share the instruction and the query; with the candidate first, the rows of a category share
its path, and categories share the upper levels of their paths. A run of tokens without a branch is a segment; the trie is laid
out as one sequence of segments. Position ids restart after each shared prefix, and a token attends only to the tokens between
the root and itself. Rows with equal tokens are computed once.

All matrix products of the model run over this sequence. On a CPU, only attention is padded: it is computed for groups of segments of
similar length (`AttentionBlock`), and takes a few per cent of the time for rows this short. On a GPU, a kernel computes it without
padding (`babelcart.model.kernels.TrieAttention`).

Tokens at the start of rows whose keys and values are in a prefix cache (`babelcart.model.prefix_cache`) are part of the sequence, but
are not computed again.

The result equals that of running each row separately, up to rounding in the dtype (``tests/unit/test_packing.py``).

Shapes in this module use these letters:

====== ==========================================================================
``T``  tokens of the sequence
``C``  computed tokens: all ``T``, or those that are not in the prefix cache
``N``  rows of the pack
``R``  different rows of the pack
``S``  segments of an attention block
``Lq`` tokens of the longest segment of the block
``Lk`` tokens of the longest branch of the block; a branch is a segment with its ancestors
``H``  attention heads
``K``  key-value heads; ``G = H / K`` attention heads share each of them
``D``  head_dim
====== ==========================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch

    from babelcart.model.prefix_cache import PrefixTree

# Entries of an attention matrix that take as long as the calls of one more block. Fewer, larger blocks pad more.
_BLOCK_ENTRIES = 20_000


@dataclass(frozen=True)
class TokenRow:
    """The token ids of one row.

    Attributes
    ----------
    tokens : tuple of int
        The complete prompt. The model answers after the last of these tokens.
    query : tuple of int
        The prompt without the candidate. It is equal for all candidates of a query.
    candidate : tuple of int
        The tokens of the candidate.
    """

    tokens: tuple[int, ...]
    query: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True)
class AttentionBlock:
    """Segments of a pack whose attention is computed together, padded to the longest one.

    Attributes
    ----------
    query_index : torch.Tensor
        ``(S, Lq)`` int64: index among the computed tokens of each token of a segment; 0 for padding.
    key_index : torch.Tensor
        ``(S, Lk)`` int64: index in the sequence of each token of the segment's branch, from the root; 0 for padding.
    distance : torch.Tensor
        ``(S, Lq, Lk)`` int32: position of the query token minus position of the key token. Negative for padding and for later
        tokens, which must not be attended to.
    """

    query_index: torch.Tensor
    key_index: torch.Tensor
    distance: torch.Tensor

    def to(self, device: torch.device | str) -> AttentionBlock:
        """Copy the block to a device."""
        return AttentionBlock(self.query_index.to(device), self.key_index.to(device), self.distance.to(device))

    def mask(self, sliding_window: int | None) -> torch.Tensor:
        """Numbers to add to the scores, ``(S, 1, 1, Lq, Lk)`` float32: 0 where a query token attends to a key token.

        The others are finite, because the softmax of a padding query, whose result is not used, would be NaN with -inf.

        Parameters
        ----------
        sliding_window : int, optional
            Number of positions that a query can attend to, its own included. None for no limit.
        """
        import torch

        allowed = self.distance >= 0  # (S, Lq, Lk)
        if sliding_window is not None:
            allowed &= self.distance < sliding_window
        return torch.where(allowed, 0.0, -1e30)[:, None, None]


class CachedTokens(NamedTuple):
    """The tokens of a pack whose keys and values are in a prefix cache.

    Attributes
    ----------
    computed : torch.Tensor
        ``(C,)`` int64: index in the sequence of the tokens to compute, ascending.
    reused : torch.Tensor
        ``(T - C,)`` int64: index in the sequence of the cached tokens, ascending.
    node : torch.Tensor
        ``(T - C,)`` int64: node of each cached token in the `PrefixTree` of the cache.
    """

    computed: torch.Tensor
    reused: torch.Tensor
    node: torch.Tensor


@dataclass(frozen=True)
class Pack:
    """One packed sequence, with the index tensors for its attention.

    Attributes
    ----------
    input_ids : torch.Tensor
        ``(1, T)`` int64.
    position_ids : torch.Tensor
        ``(1, T)`` int64: position of each token in its row.
    subtree_end : torch.Tensor
        ``(T,)`` int64: index in the sequence of the last descendant of each token; its own index if no token follows it.
    last_index : torch.Tensor
        ``(R,)`` int64: index among the computed tokens of the last token of each different row.
    row_index : torch.Tensor
        ``(N,)`` int64: index in `last_index` of each row, in the order of the rows given to `pack_rows`.
    blocks : tuple of AttentionBlock
        Blocks of segments of similar length, so that short segments are not padded to the length of long ones. Empty on a GPU.
    output_index : torch.Tensor, optional
        ``(C,)`` int64: index of each computed token in the flattened queries of all blocks. None on a GPU.
    last_block : AttentionBlock, optional
        The last token of each different row as a block with ``S = R`` and ``Lq = 1``. Its `query_index` counts rows (0 to ``R - 1``),
        not tokens of the sequence. None on a GPU.
    cached : CachedTokens, optional
        None if all tokens are computed.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    subtree_end: torch.Tensor
    last_index: torch.Tensor
    row_index: torch.Tensor
    blocks: tuple[AttentionBlock, ...] = ()
    output_index: torch.Tensor | None = None
    last_block: AttentionBlock | None = None
    cached: CachedTokens | None = None

    def to(self, device: torch.device | str) -> Pack:
        """Copy the pack to a device."""
        import torch

        if torch.device(device) == self.input_ids.device:
            return self
        tensors = (self.input_ids, self.position_ids, self.subtree_end, self.last_index, self.row_index, *(self.cached or ()))
        if torch.device(device).type == "cuda":
            # One copy, which does not wait for the GPU.
            numbers = torch.cat([tensor.flatten() for tensor in tensors]).pin_memory().to(device, non_blocking=True)
            parts = torch.split(numbers, [tensor.numel() for tensor in tensors])
            copies = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
            return Pack(*copies[:5], (), None, None, CachedTokens(*copies[5:]) if self.cached else None)  # type: ignore[call-arg, arg-type]
        copies = [tensor.to(device) for tensor in tensors]
        blocks = tuple(block.to(device) for block in self.blocks)
        output_index, last_block = (None if part is None else part.to(device) for part in (self.output_index, self.last_block))
        cached = CachedTokens(*copies[5:]) if self.cached else None
        return Pack(*copies[:5], blocks, output_index, last_block, cached)  # type: ignore[call-arg, arg-type]


def shared_length(tokens: Sequence[int], other: Sequence[int]) -> int:
    """Count the leading tokens that two rows have in common."""
    length = 0
    for token, other_token in zip(tokens, other, strict=False):
        if token != other_token:
            break
        length += 1
    return length


def trie_tokens(rows: Sequence[TokenRow], cache: PrefixTree | None = None) -> int:
    """Count the tokens of the sequence that `pack_rows` builds of these rows: shared prefixes count once, cached prefixes do not count."""
    count = 0
    previous: tuple[int, ...] = ()
    for tokens in sorted({row.tokens for row in rows}):
        count += new_tokens(tokens, previous, cache)
        previous = tokens
    return count


def new_tokens(tokens: Sequence[int], previous: Sequence[int], cache: PrefixTree | None) -> int:
    """Count the tokens of a row that are neither in the row before it in the sorted order nor in a prefix cache."""
    cached_length = len(cache.path(tokens[:-1])) if cache else 0
    return len(tokens) - max(cached_length, shared_length(tokens, previous))


@dataclass
class _Segment:
    """A run of tokens of the sequence without a branch, with all tokens of its branch.

    Attributes
    ----------
    branch : numpy.ndarray
        ``(Lk,)`` int64: indices in the sequence of its ancestors' tokens, from the root, and of its own.
    depth : int
        Number of its ancestors' tokens, which is also the position of its first token.
    query_start : int
        Index of its first token among the computed tokens; the others follow.
    """

    branch: np.ndarray
    depth: int
    query_start: int

    @property
    def length(self) -> int:
        """Number of its own tokens."""
        return len(self.branch) - self.depth


@dataclass
class _Trie:
    """The sequence of a trie.

    Attributes
    ----------
    tokens, positions : list of int
        Tokens of the sequence and their positions in their rows.
    subtree_end : list of int
        `Pack.subtree_end`.
    segments : list of _Segment
        In the order of the sequence.
    branches : list of numpy.ndarray
        For each different row, the indices in the sequence of its tokens.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    subtree_end: list[int] = field(default_factory=list)
    segments: list[_Segment] = field(default_factory=list)
    branches: list[np.ndarray] = field(default_factory=list)


def _trie(rows: Sequence[tuple[int, ...]]) -> _Trie:
    """Lay out different rows, in lexicographic order, as a compressed trie.

    In this order, the tokens that a row adds to the sequence follow those that it shares with the row before. A row branches where a
    later row leaves it: at the running minima of the shared lengths of the rows after it.
    """
    import numpy as np

    shared = [0, *(shared_length(row, previous) for previous, row in itertools.pairwise(rows))]
    forks: list[list[int]] = []  # for each row, the last row first: the lengths at which later rows leave it
    minima: list[int] = []  # running minima of `shared` of the rows after the current one, the nearest and largest last
    for length in reversed(shared):
        row_forks: list[int] = []
        while minima and minima[-1] >= length:
            row_forks.insert(0, minima.pop())
        minima.append(length)
        forks.append(row_forks)
    trie = _Trie()
    branch = np.zeros(0, dtype=np.int64)
    for row, start, row_forks in zip(rows, shared, reversed(forks), strict=True):
        for index in branch[start:]:  # tokens of the row before that no later row shares
            trie.subtree_end[index] = len(trie.tokens) - 1
        new_indices = np.arange(len(trie.tokens), len(trie.tokens) + len(row) - start)
        branch = np.concatenate([branch[:start], new_indices])
        trie.tokens.extend(row[start:])
        trie.positions.extend(range(start, len(row)))
        trie.subtree_end.extend(itertools.repeat(0, len(row) - start))
        ends = [fork for fork in row_forks if start < fork < len(row)] + [len(row)]
        for depth, end in zip([start, *ends], ends, strict=False):
            trie.segments.append(_Segment(branch[:end], depth, int(branch[depth])))
        trie.branches.append(branch)
    for index in branch:
        trie.subtree_end[index] = len(trie.tokens) - 1
    return trie


def pack_rows(rows: Sequence[TokenRow], cache: PrefixTree | None = None) -> Pack:
    """Lay out rows as a compressed trie.

    Parameters
    ----------
    rows : sequence of TokenRow
        At least one, in any order.
    cache : PrefixTree, optional
        The prefixes in a prefix cache. Their tokens are not computed again, except for the last token of a row.

    Returns
    -------
    Pack
        On the CPU. It depends on the set of the different rows; their order is in `Pack.row_index` only.

    Raises
    ------
    ValueError
        If there are no rows, or a row has no tokens.
    """
    import numpy as np
    import torch

    if not rows or not all(row.tokens for row in rows):
        raise ValueError("pack_rows needs at least one row, and at least one token in every row")
    different = sorted({row.tokens for row in rows})
    trie = _trie(different)
    last_index = np.array([branch[-1] for branch in trie.branches])  # (R,)
    cached = _cached_tokens(trie, last_index, cache) if cache else None
    segments = trie.segments
    if cached:
        computed = cached.computed.numpy()
        segments, last_index = _computed_segments(trie.segments, computed), np.searchsorted(computed, last_index)
    groups = _groups(segments)
    blocks = tuple(_attention_block(group) for group in groups)
    positions = {tokens: index for index, tokens in enumerate(different)}
    return Pack(
        torch.tensor([trie.tokens]),  # (1, T)
        torch.tensor([trie.positions]),  # (1, T)
        torch.tensor(trie.subtree_end),  # (T,)
        torch.from_numpy(last_index),  # (R,)
        torch.tensor([positions[row.tokens] for row in rows]),  # (N,)
        blocks,
        _output_index(groups, blocks, sum(segment.length for segment in segments)),  # (C,)
        _last_block(trie.branches),
        cached,
    )


def _cached_tokens(trie: _Trie, last_index: np.ndarray, cache: PrefixTree) -> CachedTokens | None:
    """Find the tokens of a trie that are in a prefix cache. None if there are none."""
    import numpy as np
    import torch

    nodes = np.array(cache.nodes_of(trie.tokens, trie.positions))  # (T,)
    nodes[last_index] = -1  # the hidden states of these tokens are not in the cache
    if not (nodes >= 0).any():
        return None
    (computed,), (reused,) = np.nonzero(nodes < 0), np.nonzero(nodes >= 0)
    return CachedTokens(torch.from_numpy(computed), torch.from_numpy(reused), torch.from_numpy(nodes[reused]))


def _computed_segments(segments: Sequence[_Segment], computed: np.ndarray) -> list[_Segment]:
    """Return the segments without their cached tokens, which are at their start; segments without other tokens are left out."""
    import numpy as np

    first = np.searchsorted(computed, [segment.branch[segment.depth] for segment in segments])  # next computed token of each segment
    after = np.searchsorted(computed, [segment.branch[-1] + 1 for segment in segments])
    return [
        _Segment(segment.branch, len(segment.branch) - int(end - start), int(start))
        for segment, start, end in zip(segments, first, after, strict=True)
        if start < end
    ]


def _groups(segments: Sequence[_Segment]) -> list[list[_Segment]]:
    """Divide segments into groups of similar length: up to 1, 2, 4, 8 ... tokens, without groups that save less than their calls cost."""
    by_size: dict[int, list[_Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.length):
        by_size.setdefault((segment.length - 1).bit_length(), []).append(segment)
    groups: list[list[_Segment]] = []
    for group in by_size.values():
        if groups and _entries([*groups[-1], *group]) <= _entries(groups[-1]) + _entries(group) + _BLOCK_ENTRIES:
            groups[-1].extend(group)
        else:
            groups.append(group)
    return groups


def _entries(segments: Sequence[_Segment]) -> int:
    """Entries of the padded attention matrix of a block."""
    return len(segments) * max(segment.length for segment in segments) * max(len(segment.branch) for segment in segments)


def _padded(branches: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of branches, ``(S, Lk)`` with 0 for padding, and positions ``(S, Lk)``, which are behind all tokens for padding."""
    import numpy as np

    longest = max(map(len, branches))
    indices = np.zeros((len(branches), longest), dtype=np.int64)
    positions = np.full((len(branches), longest), longest, dtype=np.int32)
    for number, branch in enumerate(branches):
        indices[number, : len(branch)] = branch
        positions[number, : len(branch)] = np.arange(len(branch))
    return indices, positions


def _attention_block(segments: Sequence[_Segment]) -> AttentionBlock:
    import numpy as np
    import torch

    longest = max(segment.length for segment in segments)
    query_index = np.zeros((len(segments), longest), dtype=np.int64)  # (S, Lq)
    query_position = np.full((len(segments), longest), -1, dtype=np.int32)  # (S, Lq); padding is in front of all tokens
    for number, segment in enumerate(segments):
        query_index[number, : segment.length] = np.arange(segment.query_start, segment.query_start + segment.length)
        query_position[number, : segment.length] = np.arange(segment.depth, len(segment.branch))
    key_index, key_position = _padded([segment.branch for segment in segments])  # (S, Lk) each
    distance = query_position[:, :, None] - key_position[:, None, :]  # (S, Lq, Lk)
    return AttentionBlock(torch.from_numpy(query_index), torch.from_numpy(key_index), torch.from_numpy(distance))


def _output_index(groups: Sequence[Sequence[_Segment]], blocks: Sequence[AttentionBlock], tokens: int) -> torch.Tensor:
    """`Pack.output_index`, ``(C,)``, of the segments of each block."""
    import numpy as np
    import torch

    output_index = np.empty(tokens, dtype=np.int64)  # (C,)
    offset = 0  # of the segment in the flattened queries of all blocks
    for segments, block in zip(groups, blocks, strict=True):
        padded_length = block.query_index.shape[1]
        for segment in segments:
            output_index[segment.query_start : segment.query_start + segment.length] = np.arange(offset, offset + segment.length)
            offset += padded_length
    return torch.from_numpy(output_index)


def _last_block(branches: Sequence[np.ndarray]) -> AttentionBlock:
    """`Pack.last_block` of the branches of the different rows."""
    import numpy as np
    import torch

    key_index, key_position = _padded(branches)  # (R, Lk) each
    lengths = np.array([len(branch) for branch in branches], dtype=np.int32)  # (R,)
    distance = (lengths - 1)[:, None] - key_position  # (R, Lk)
    return AttentionBlock(torch.arange(len(branches))[:, None], torch.from_numpy(key_index), torch.from_numpy(distance)[:, None])


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Sequence[AttentionBlock],
    masks: Sequence[torch.Tensor],
    output_index: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Compute attention within each branch of a `Pack`, on a CPU.

    Uses matrix products and a float32 softmax. On a CPU, for segments this short, they take a third to half of the time of the
    fused kernel and its backward pass.

    Parameters
    ----------
    query : torch.Tensor
        ``(M, H, D)``: one query for each index in `blocks`; `M` is ``C``, or ``R`` with `Pack.last_block`.
    key, value : torch.Tensor
        ``(T, K, D)``.
    blocks : sequence of AttentionBlock
        `Pack.blocks`, or only `Pack.last_block`.
    masks : sequence of torch.Tensor
        `AttentionBlock.mask` of each block, for the sliding window of the layer.
    output_index : torch.Tensor, optional
        `Pack.output_index`, ``(M,)``. None if the queries of the blocks are in order and have no padding.
    scaling : float
        Factor of the scores before the softmax.

    Returns
    -------
    torch.Tensor
        ``(M, H, D)`` in the dtype of `query`.
    """
    import torch

    pairs = zip(blocks, masks, strict=True)
    outputs = [_block_attention(query, key, value, block, mask, scaling) for block, mask in pairs]  # (S * Lq, H, D) each
    output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return output if output_index is None else output.index_select(0, output_index)


def _block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block: AttentionBlock, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention of one block, ``(S * Lq, H, D)``; the parameters are those of `attention`."""
    import torch

    from babelcart.model.layers import gather

    heads, key_heads = query.shape[1], key.shape[1]  # H, K
    group = heads // key_heads  # G
    segments, length = block.query_index.shape  # S, Lq
    span = block.key_index.shape[1]  # Lk
    # The heads that share a key-value head become further queries of that head.
    q = gather(query, block.query_index.flatten()).view(segments, length, key_heads, group, -1)  # (S, Lq, K, G, D)
    q = q.permute(0, 2, 3, 1, 4).reshape(segments * key_heads, group * length, -1)  # (S * K, G * Lq, D)
    k, v = (  # (S * K, Lk, D) each
        gather(tensor, block.key_index.flatten()).view(segments, span, key_heads, -1).transpose(1, 2).flatten(0, 1)
        for tensor in (key, value)
    )
    scores = torch.baddbmm(torch.zeros((), dtype=q.dtype, device=q.device), q, k.transpose(1, 2), beta=0, alpha=scaling)
    masked = scores.float().view(segments, key_heads, group, length, span) + mask  # (S, K, G, Lq, Lk)
    weights = torch.softmax(masked, dim=-1).to(query.dtype).view(scores.shape)  # (S * K, G * Lq, Lk)
    output = (weights @ v).view(segments, key_heads, group, length, -1)  # (S, K, G, Lq, D)
    return output.permute(0, 3, 1, 2, 4).reshape(segments * length, heads, -1)  # (S * Lq, H, D)
