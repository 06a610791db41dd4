"""Shared-prefix packing: many (query, candidate) rows as one sequence without padding.

Rows of a query share the prompt's instruction and the query. Their tokens are a tree: the instruction once, below it
each query once, below each query its candidates. The tree is laid out as one sequence of ``T`` tokens; position ids
restart after the shared prefix, and a token attends only to its own branch. Every matrix product of the model then runs
over ``T`` real tokens. Only the attention itself, a few per cent of the work for rows this short, is padded: it runs on
``(segments, longest branch)`` gathered from the sequence.

The result equals running every row alone, up to the float error of the dtype (``tests/test_packing.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ATTENTION = "babelcart_packed"


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
class Pack:
    """One packed sequence and the tables that its attention needs.

    Attributes
    ----------
    input_ids, position_ids : torch.Tensor
        ``(1, T)`` int64.
    query_index : torch.Tensor
        ``(S, Lq)`` int64: where in the sequence the tokens of each segment stand (padded with 0).
    key_index : torch.Tensor
        ``(S, Lk)`` int64: the same for a segment's whole branch, its ancestors first.
    distance : torch.Tensor
        ``(S, Lq, Lk)`` int64: query position minus key position; negative where attention is not allowed.
    output_index : torch.Tensor
        ``(T,)`` int64: where in the flattened ``(S, Lq)`` each token of the sequence stands.
    last : torch.Tensor
        ``(rows,)`` int64: where the last token of each row stands in the sequence, in the order given to `pack_rows`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    query_index: torch.Tensor
    key_index: torch.Tensor
    distance: torch.Tensor
    output_index: torch.Tensor
    last: torch.Tensor

    def to(self, device: torch.device | str) -> Pack:
        """The same pack on another device."""
        return Pack(**{name: value.to(device) for name, value in vars(self).items()})


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
    # (first token in the sequence, length, the sequence indices of its ancestors)
    segments: list[tuple[int, int, list[int]]] = [(0, shared, [])] if shared else []
    trunk = list(range(shared))
    branches: dict[tuple[int, ...], list[int]] = {}
    last: list[int] = []
    for row in rows:
        if row.query not in branches:
            own = row.query[shared:]
            segments.append((len(tokens), len(own), trunk))
            branches[row.query] = trunk + list(range(len(tokens), len(tokens) + len(own)))
            tokens.extend(own)
            positions.extend(range(shared, shared + len(own)))
        branch = branches[row.query]
        segments.append((len(tokens), len(row.candidate), branch))
        tokens.extend(row.candidate)
        positions.extend(range(len(branch), len(branch) + len(row.candidate)))
        last.append(len(tokens) - 1)

    longest_query = max(length for _, length, _ in segments)
    longest_key = max(length + len(ancestors) for _, length, ancestors in segments)
    query_index = torch.zeros(len(segments), longest_query, dtype=torch.long)
    key_index = torch.zeros(len(segments), longest_key, dtype=torch.long)
    query_position = torch.full((len(segments), longest_query), -1, dtype=torch.long)
    # Padding keys stand after every query, so that their distance is negative.
    key_position = torch.full((len(segments), longest_key), max(positions) + 1, dtype=torch.long)
    output_index = torch.empty(len(tokens), dtype=torch.long)
    for number, (start, length, ancestors) in enumerate(segments):
        whole = len(ancestors) + length
        query_index[number, :length] = torch.arange(start, start + length)
        key_index[number, :whole] = torch.tensor([*ancestors, *range(start, start + length)])
        query_position[number, :length] = torch.arange(len(ancestors), whole)
        key_position[number, :whole] = torch.arange(whole)
        output_index[start : start + length] = torch.arange(length) + number * longest_query
    return Pack(
        input_ids=torch.tensor([tokens]),
        position_ids=torch.tensor([positions]),
        query_index=query_index,
        key_index=key_index,
        distance=query_position[:, :, None] - key_position[:, None, :],
        output_index=output_index,
        last=torch.tensor(last),
    )


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pack: Pack,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a `Pack`, in the form that transformers calls.

    Parameters
    ----------
    query : torch.Tensor
        ``(1, heads, T, head_dim)``; `key` and `value` ``(1, key_value_heads, T, head_dim)``.
    pack : Pack
        Handed through the model's keyword arguments.

    Returns
    -------
    tuple
        ``(1, T, heads, head_dim)`` and None in place of the weights.
    """
    from torch.nn.functional import scaled_dot_product_attention

    groups = query.shape[1] // key.shape[1]
    segments, longest = pack.query_index.shape
    # Summing the gradients of a shared prefix over many rows needs more than the 8 bits of bf16.
    gathered = [
        tensor[0].transpose(0, 1).float()[index.flatten()].view(segments, index.shape[1], tensor.shape[1], -1).transpose(1, 2)
        for tensor, index in ((query, pack.query_index), (key, pack.key_index), (value, pack.key_index))
    ]
    allowed = pack.distance >= 0
    if sliding_window is not None:
        allowed &= pack.distance < sliding_window
    # A padding query sees the first key, which keeps its (unused) softmax finite.
    allowed[:, :, 0] |= ~allowed.any(-1)
    output = scaled_dot_product_attention(
        gathered[0],
        gathered[1].repeat_interleave(groups, dim=1) if groups > 1 else gathered[1],
        gathered[2].repeat_interleave(groups, dim=1) if groups > 1 else gathered[2],
        attn_mask=allowed[:, None],
        scale=scaling,
    )
    flat = output.transpose(1, 2).reshape(segments * longest, query.shape[1], -1)
    return flat[pack.output_index][None].to(query.dtype), None


def use_packed_attention(model: Any) -> None:
    """Make a transformers model run `packed_attention`; its forward then needs ``pack=``."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    model.set_attn_implementation(ATTENTION)
