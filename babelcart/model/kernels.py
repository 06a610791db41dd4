"""Triton kernels for GPUs: the same functions as in `babelcart.model.layers`, and attention over a trie.

On a GPU, a training step of short rows is limited by the number of kernels, not by arithmetic. Each function here is one kernel, or
three for the backward pass of attention. All of them compute in float32, use no atomic operation, and give the same bytes in every run.

With ``TRITON_INTERPRET=1``, Triton runs the kernels on a CPU, one program after another. The tests do so.

Shapes use the letters of `babelcart.model.packing`: ``T`` tokens, ``M`` queries, ``H`` attention heads, ``K`` key-value heads, ``D``
head_dim. All tensors are contiguous.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from babelcart.core.errors import UserError

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise UserError("a model on a GPU needs Triton; run `pip install triton`, on Windows `pip install triton-windows`") from error

NO_WINDOW = 2**30  # positions that a query can attend to in layers without a sliding window
ELEMENTS = 1024  # of a program of the elementwise kernels
# Arguments that change from pack to pack. By default, Triton compiles a kernel again for values and addresses that are multiples of 16.
VARYING = ["queries", "tokens", "window", "query_token", "subtree_end", "position", "tiles", "tile_counts"]


@triton.jit
def _normalise_kernel(x, weight, output, features, offset, epsilon, FEATURES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, FEATURES)
    inside = columns < features
    values = tl.load(x + row * features + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32) + offset
    inverse_rms = 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / features + epsilon)
    tl.store(output + row * features + columns, (values * inverse_rms * scale).to(output.dtype.element_ty), mask=inside)


@triton.jit
def _normalise_backward_kernel(gradient, x, weight, output, features, offset, epsilon, FEATURES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, FEATURES)
    inside = columns < features
    values = tl.load(x + row * features + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32) + offset
    scaled = tl.load(gradient + row * features + columns, mask=inside, other=0.0).to(tl.float32) * scale
    inverse_rms = 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / features + epsilon)
    unit = values * inverse_rms
    result = (scaled - unit * (tl.sum(scaled * unit, axis=0) / features)) * inverse_rms
    tl.store(output + row * features + columns, result.to(output.dtype.element_ty), mask=inside)


def normalise(x: Tensor, weight: Tensor, offset: float, epsilon: float) -> Tensor:
    """Return `x` ``(..., features)`` divided by its root mean square and multiplied by `weight` ``(features,)`` plus `offset`."""
    output = torch.empty_like(x)
    features = x.shape[-1]
    _normalise_kernel[(x.numel() // features,)](x, weight, output, features, offset, epsilon, triton.next_power_of_2(features))
    return output


def normalise_backward(gradient: Tensor, x: Tensor, weight: Tensor, offset: float, epsilon: float) -> Tensor:
    """Return the gradient of `normalise` for `x`, ``(..., features)``."""
    output = torch.empty_like(x)
    features = x.shape[-1]
    grid, size = (x.numel() // features,), triton.next_power_of_2(features)
    _normalise_backward_kernel[grid](gradient, x, weight, output, features, offset, epsilon, size)
    return output


@triton.jit
def _rotate_kernel(
    x, cosine, sine, weight, output, heads, half, offset, epsilon, HEADS: tl.constexpr, HALF: tl.constexpr, NORMALISE: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    place = token * heads * 2 * half + head * 2 * half + column
    first = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
    if NORMALISE:
        mean = (tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)) / (2 * half)
        inverse_rms = (1.0 / tl.sqrt(mean + epsilon))[:, None]
        first = first * inverse_rms * (tl.load(weight + column, mask=column < half, other=0.0).to(tl.float32) + offset)
        second = second * inverse_rms * (tl.load(weight + column + half, mask=column < half, other=0.0).to(tl.float32) + offset)
    cos = tl.load(cosine + token * half + column, mask=column < half, other=0.0)
    sin = tl.load(sine + token * half + column, mask=column < half, other=0.0)
    tl.store(output + place, (first * cos - second * sin).to(output.dtype.element_ty), mask=inside)
    tl.store(output + place + half, (second * cos + first * sin).to(output.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_backward_kernel(
    gradient, x, cosine, sine, weight, output, heads, half, offset, epsilon,
    HEADS: tl.constexpr, HALF: tl.constexpr, NORMALISE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    place = token * heads * 2 * half + head * 2 * half + column
    cos = tl.load(cosine + token * half + column, mask=column < half, other=0.0)
    sin = tl.load(sine + token * half + column, mask=column < half, other=0.0)
    grad_first = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    grad_second = tl.load(gradient + place + half, mask=inside, other=0.0).to(tl.float32)
    first = grad_first * cos + grad_second * sin
    second = grad_second * cos - grad_first * sin
    if NORMALISE:
        x_first = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        x_second = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
        mean = (tl.sum(x_first * x_first, axis=1) + tl.sum(x_second * x_second, axis=1)) / (2 * half)
        inverse_rms = (1.0 / tl.sqrt(mean + epsilon))[:, None]
        first = first * (tl.load(weight + column, mask=column < half, other=0.0).to(tl.float32) + offset)
        second = second * (tl.load(weight + column + half, mask=column < half, other=0.0).to(tl.float32) + offset)
        x_first, x_second = x_first * inverse_rms, x_second * inverse_rms
        product = ((tl.sum(first * x_first, axis=1) + tl.sum(second * x_second, axis=1)) / (2 * half))[:, None]
        first = (first - x_first * product) * inverse_rms
        second = (second - x_second * product) * inverse_rms
    tl.store(output + place, first.to(output.dtype.element_ty), mask=inside)
    tl.store(output + place + half, second.to(output.dtype.element_ty), mask=inside)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, weight: Tensor | None, offset: float, epsilon: float) -> Tensor:
    """Return the rotary position embedding of `x` ``(T, heads, D)``, each head normalised first if `weight` ``(D,)`` is given.

    `cosine` and `sine` are ``(T, 1, D / 2)`` float32.
    """
    output = torch.empty_like(x)
    tokens, heads, half = x.shape[0], x.shape[1], x.shape[2] // 2
    sizes = triton.next_power_of_2(heads), triton.next_power_of_2(half), weight is not None
    _rotate_kernel[(tokens,)](x, cosine, sine, x if weight is None else weight, output, heads, half, offset, epsilon, *sizes)
    return output


def rotate_backward(
    gradient: Tensor, x: Tensor, cosine: Tensor, sine: Tensor, weight: Tensor | None, offset: float, epsilon: float
) -> Tensor:
    """Return the gradient of `rotate` for `x`, ``(T, heads, D)``. Without a `weight`, `x` is not read."""
    output = torch.empty_like(gradient)
    tokens, heads, half = gradient.shape[0], gradient.shape[1], gradient.shape[2] // 2
    sizes = triton.next_power_of_2(heads), triton.next_power_of_2(half), weight is not None
    weight = x if weight is None else weight
    _rotate_backward_kernel[(tokens,)](gradient, x, cosine, sine, weight, output, heads, half, offset, epsilon, *sizes)
    return output


@triton.jit
def _activation_and_slope(gate, SILU: tl.constexpr):
    """Return the activation of `gate` and its derivative: SiLU, or GELU in its tanh form."""
    if SILU:
        sigmoid = tl.sigmoid(gate)
        return gate * sigmoid, sigmoid * (1.0 + gate * (1.0 - sigmoid))
    else:
        # (1 + tanh(inner)) / 2 is sigmoid(2 * inner)
        sigmoid = tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
        slope = sigmoid + gate * sigmoid * (1.0 - sigmoid) * 1.5957691216057308 * (1.0 + 0.134145 * gate * gate)
        return gate * sigmoid, slope


@triton.jit
def _gated_kernel(gate, up, output, count, SILU: tl.constexpr, SIZE: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = index < count
    activation, _ = _activation_and_slope(tl.load(gate + index, mask=inside, other=0.0).to(tl.float32), SILU)
    values = activation * tl.load(up + index, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + index, values.to(output.dtype.element_ty), mask=inside)


@triton.jit
def _gated_backward_kernel(gradient, gate, up, grad_gate, grad_up, count, SILU: tl.constexpr, SIZE: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = index < count
    activation, slope = _activation_and_slope(tl.load(gate + index, mask=inside, other=0.0).to(tl.float32), SILU)
    values = tl.load(gradient + index, mask=inside, other=0.0).to(tl.float32)
    up_values = tl.load(up + index, mask=inside, other=0.0).to(tl.float32)
    tl.store(grad_gate + index, (values * up_values * slope).to(grad_gate.dtype.element_ty), mask=inside)
    tl.store(grad_up + index, (values * activation).to(grad_up.dtype.element_ty), mask=inside)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """Return ``activation(gate) * up``; all tensors are ``(T, intermediate_size)``."""
    output = torch.empty_like(gate)
    _gated_kernel[(triton.cdiv(gate.numel(), ELEMENTS),)](gate, up, output, gate.numel(), activation == "silu", ELEMENTS)
    return output


def gated_backward(gradient: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Return the gradients of `gated` for `gate` and `up`."""
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    grid = (triton.cdiv(gate.numel(), ELEMENTS),)
    _gated_backward_kernel[grid](gradient, gate, up, grad_gate, grad_up, gate.numel(), activation == "silu", ELEMENTS)
    return grad_gate, grad_up


@triton.jit
def _load_rows(tensor, index, count, row_size, offset, D: tl.constexpr, WIDTH: tl.constexpr):
    """Load ``D`` numbers from `offset` of each row of a matrix, ``(rows, WIDTH)``; 0 for padding."""
    column = tl.arange(0, WIDTH)[None, :]
    return tl.load(tensor + index[:, None] * row_size + offset + column, mask=(index < count)[:, None] & (column < D), other=0.0)


@triton.jit
def _load_two(first, second, index, count, row_size, offset, D: tl.constexpr, WIDTH: tl.constexpr):
    """Load the same rows of two matrices with `_load_rows`."""
    loaded = _load_rows(first, index, count, row_size, offset, D, WIDTH)
    return loaded, _load_rows(second, index, count, row_size, offset, D, WIDTH)


@triton.jit
def _store_rows(tensor, values, index, count, row_size, offset, D: tl.constexpr, WIDTH: tl.constexpr):
    """Store what `_load_rows` would load."""
    column = tl.arange(0, WIDTH)[None, :]
    mask = (index < count)[:, None] & (column < D)
    tl.store(tensor + index[:, None] * row_size + offset + column, values.to(tensor.dtype.element_ty), mask=mask)


@triton.jit
def _scores(q, k, row, other, query_token, subtree_end, position, queries, tokens, window, scaling, PRECISION: tl.constexpr):
    """Scaled products of queries ``(rows, D)`` and keys ``(columns, D)``, float32; very small where a query does not attend to a key."""
    token = tl.load(query_token + row, mask=row < queries, other=-1).to(tl.int32)[:, None]
    end = tl.load(subtree_end + other, mask=other < tokens, other=-1).to(tl.int32)[None, :]
    query_position = tl.load(position + token, mask=token >= 0, other=0).to(tl.int32)
    distance = query_position - tl.load(position + other, mask=other < tokens, other=0).to(tl.int32)[None, :]
    allowed = (other[None, :] <= token) & (token <= end) & (distance < window)
    return tl.where(allowed, tl.dot(q, tl.trans(k), input_precision=PRECISION) * scaling, -1e30)


@triton.jit(do_not_specialize=VARYING)
def _attention_kernel(
    query, key, value, output, log_sum, query_token, subtree_end, position, tiles, tile_counts, queries, tokens, window, scaling,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    row = tile * SIDE + tl.arange(0, SIDE)
    q = _load_rows(query, row, queries, H * D, head * D, D, WIDTH)
    largest = tl.full((SIDE,), -1e30, tl.float32)
    total = tl.zeros((SIDE,), tl.float32)
    result = tl.zeros((SIDE, WIDTH), tl.float32)
    for number in range(0, tl.load(tile_counts + tile)):
        other = tl.load(tiles + tile * tl.cdiv(tokens, SIDE) + number) * SIDE + tl.arange(0, SIDE)
        k, v = _load_two(key, value, other, tokens, (H // G) * D, (head // G) * D, D, WIDTH)
        scores = _scores(q, k, row, other, query_token, subtree_end, position, queries, tokens, window, scaling, PRECISION)
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp(scores - new_largest[:, None])
        factor = tl.exp(largest - new_largest)
        total = total * factor + tl.sum(weights, axis=1)
        result = result * factor[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        largest = new_largest
    _store_rows(output, result / total[:, None], row, queries, H * D, head * D, D, WIDTH)
    tl.store(log_sum + row * H + head, largest + tl.log(total), mask=row < queries)


@triton.jit(do_not_specialize=VARYING)
def _query_gradient_kernel(
    gradient, query, key, value, grad_query, log_sum, delta, query_token, subtree_end, position, tiles, tile_counts,
    queries, tokens, window, scaling,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    row = tile * SIDE + tl.arange(0, SIDE)
    q, g = _load_two(query, gradient, row, queries, H * D, head * D, D, WIDTH)
    row_log_sum = tl.load(log_sum + row * H + head, mask=row < queries, other=0.0)[:, None]
    row_delta = tl.load(delta + row * H + head, mask=row < queries, other=0.0)[:, None]
    result = tl.zeros((SIDE, WIDTH), tl.float32)
    for number in range(0, tl.load(tile_counts + tile)):
        other = tl.load(tiles + tile * tl.cdiv(tokens, SIDE) + number) * SIDE + tl.arange(0, SIDE)
        k, v = _load_two(key, value, other, tokens, (H // G) * D, (head // G) * D, D, WIDTH)
        scores = _scores(q, k, row, other, query_token, subtree_end, position, queries, tokens, window, scaling, PRECISION)
        grad_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        grad_scores = tl.exp(scores - row_log_sum) * (grad_weights - row_delta) * scaling
        result += tl.dot(grad_scores.to(k.dtype), k, input_precision=PRECISION)
    _store_rows(grad_query, result, row, queries, H * D, head * D, D, WIDTH)


@triton.jit(do_not_specialize=VARYING)
def _key_gradient_kernel(
    gradient, query, key, value, grad_key, grad_value, log_sum, delta, query_token, subtree_end, position, tiles, tile_counts,
    queries, tokens, window, scaling,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    other = tile * SIDE + tl.arange(0, SIDE)
    k, v = _load_two(key, value, other, tokens, (H // G) * D, kv_head * D, D, WIDTH)
    key_result = tl.zeros((SIDE, WIDTH), tl.float32)
    value_result = tl.zeros((SIDE, WIDTH), tl.float32)
    for number in range(0, tl.load(tile_counts + tile)):
        row = tl.load(tiles + tile * tl.cdiv(queries, SIDE) + number) * SIDE + tl.arange(0, SIDE)
        for group in range(G):
            head = kv_head * G + group
            q, g = _load_two(query, gradient, row, queries, H * D, head * D, D, WIDTH)
            row_log_sum = tl.load(log_sum + row * H + head, mask=row < queries, other=0.0)[:, None]
            row_delta = tl.load(delta + row * H + head, mask=row < queries, other=0.0)[:, None]
            scores = _scores(q, k, row, other, query_token, subtree_end, position, queries, tokens, window, scaling, PRECISION)
            weights = tl.exp(scores - row_log_sum)
            value_result += tl.dot(tl.trans(weights).to(g.dtype), g, input_precision=PRECISION)
            grad_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
            grad_scores = weights * (grad_weights - row_delta) * scaling
            key_result += tl.dot(tl.trans(grad_scores).to(q.dtype), q, input_precision=PRECISION)
    _store_rows(grad_key, key_result, other, tokens, (H // G) * D, kv_head * D, D, WIDTH)
    _store_rows(grad_value, value_result, other, tokens, (H // G) * D, kv_head * D, D, WIDTH)


class Tiles(NamedTuple):
    """Which tiles of scores contain a query and a key that it attends to.

    Attributes
    ----------
    query_token : torch.Tensor
        ``(M,)`` int64, ascending: index in the sequence of the token of each query.
    subtree_end : torch.Tensor
        ``(T,)`` int64: index of the last descendant of each token.
    position : torch.Tensor
        ``(T,)`` int64: position of each token in its row.
    of_queries, of_keys : tuple of torch.Tensor
        For each tile of queries, the tiles of keys that it needs, and their number; the same for each tile of keys.
    side : int
        Queries and keys of a tile.
    """

    query_token: Tensor
    subtree_end: Tensor
    position: Tensor
    of_queries: tuple[Tensor, Tensor]
    of_keys: tuple[Tensor, Tensor]
    side: int


def tile_side(head_dim: int, dtype: torch.dtype) -> int:
    """Queries and keys of a tile, for which the backward pass fits the registers and the shared memory of an SM (100 KiB and more)."""
    row_bytes = _padded_width(head_dim) * dtype.itemsize
    return 64 if row_bytes <= 128 else 32 if row_bytes <= 512 else 16


def _padded_width(head_dim: int) -> int:
    return int(max(16, triton.next_power_of_2(head_dim)))


def find_tiles(query_token: Tensor, subtree_end: Tensor, position: Tensor, side: int) -> Tiles:
    """Return the tiles that `TrieAttention` computes; the parameters are those of `Tiles`."""
    last_end = functional.pad(subtree_end, (0, -len(subtree_end) % side), value=-1).view(-1, side).amax(1)  # (tiles of keys,)
    padding = -len(query_token) % side
    tokens = torch.cat([query_token, query_token[-1:].expand(padding)]).view(-1, side)  # (tiles of queries, side)
    first_key = torch.arange(len(last_end), device=query_token.device) * side
    needed = (first_key <= tokens[:, -1:]) & (last_end >= tokens[:, :1])  # (tiles of queries, tiles of keys)

    def lists(matrix: Tensor) -> tuple[Tensor, Tensor]:
        return (~matrix).int().argsort(dim=1, stable=True).int().contiguous(), matrix.sum(1).int()

    return Tiles(query_token, subtree_end, position, lists(needed), lists(needed.T), side)


class TrieAttention(torch.autograd.Function):
    """Attention of each query to the keys between the root of a trie and itself, in the manner of FlashAttention (Dao et al., 2022).

    The tokens of the sequence are in depth-first order. Token ``j`` is an ancestor of token ``i``, or the token itself, if
    ``j <= i <= subtree_end[j]``. Tiles of scores without such a pair are skipped. The matrix of scores is never stored.

    Parameters of `forward`
    -----------------------
    query : torch.Tensor
        ``(M, H, D)``.
    key, value : torch.Tensor
        ``(T, K, D)`` in the dtype of `query`.
    tiles : Tiles
        With the `tile_side` of D and the dtype.
    window : int, optional
        Number of positions that a query can attend to, its own included. None for no limit.
    scaling : float
        Factor of the scores before the softmax.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: Tiles, window: int | None, scaling: float) -> Tensor:
        (queries, heads, head_dim), (tokens, kv_heads, _) = query.shape, key.shape
        output = torch.empty_like(query)  # (M, H, D)
        log_sum = torch.empty(queries, heads, dtype=torch.float32, device=query.device)
        width = _padded_width(head_dim)
        ctx.tiles, ctx.warps = tiles, 8 if width > 64 else 4
        ctx.numbers = queries, tokens, NO_WINDOW if window is None else window, scaling
        ctx.sizes = heads, heads // kv_heads, head_dim, width, tiles.side, "ieee"
        grid = (len(tiles.of_queries[1]), heads)
        _attention_kernel[grid](
            query, key, value, output, log_sum, *tiles[:3], *tiles.of_queries, *ctx.numbers, *ctx.sizes, num_warps=ctx.warps
        )
        ctx.save_for_backward(query, key, value, output, log_sum)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, log_sum = ctx.saved_tensors
        gradient = gradient.contiguous()
        delta = (gradient.float() * output.float()).sum(-1)  # (M, H)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        tiles, inputs = ctx.tiles, (gradient, query, key, value)
        _query_gradient_kernel[(len(tiles.of_queries[1]), query.shape[1])](
            *inputs, grad_query, log_sum, delta, *tiles[:3], *tiles.of_queries, *ctx.numbers, *ctx.sizes, num_warps=ctx.warps
        )
        _key_gradient_kernel[(len(tiles.of_keys[1]), key.shape[1])](
            *inputs, grad_key, grad_value, log_sum, delta, *tiles[:3], *tiles.of_keys, *ctx.numbers, *ctx.sizes, num_warps=ctx.warps
        )
        return grad_query, grad_key, grad_value, None, None, None
