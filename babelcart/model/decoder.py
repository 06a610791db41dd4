"""The forward pass of a decoder over a `Pack`, with the modules that transformers loaded and peft adapted.

It differs from the forward pass of transformers in three ways:

* Attention follows the trie of the pack (`babelcart.model.packing`). Its masks are computed once a pack, not once a layer.
* The last layer computes keys and values for all tokens, and everything else only for the last token of each different row.
* Norms, rotations and activations run in fused functions (`babelcart.model.layers`).

Shapes in this module use the letters of `babelcart.model.packing`: ``T`` tokens, ``R`` different rows, ``H`` attention heads, ``K``
key-value heads, ``D`` head_dim. ``C`` is the number of computed tokens, which is ``T`` without a prefix cache. ``M`` is the number of
positions that a layer returns: ``R`` in the last layer, else ``C``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from babelcart.core.errors import UserError
from babelcart.model import layers
from babelcart.model.layers import Gated, Identity, Norm, Rotate, linears
from babelcart.model.packing import Pack, attention

if TYPE_CHECKING:
    from babelcart.model.kernels import Tiles

FAMILIES = ("gemma3_text", "llama", "qwen2", "qwen3")
# Tokens of which a CPU computes the feed-forward layer at once in scoring. The intermediate tensors of more tokens leave the cache, and
# are so large that the C library returns them to the operating system each time.
CACHED_TOKENS = 512
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "silu": "silu"}


class Cache(Protocol):
    """Adds the keys and values of earlier packs to those of a pack (`babelcart.model.prefix_cache`)."""

    def extend(self, layer: int, key: Tensor, value: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """Return the keys and values ``(T, K, D)`` of all tokens of a pack, given those of its computed tokens, ``(C, K, D)``."""


def last_hidden(decoder: Any, pack: Pack, cache: Cache | None = None) -> Tensor:
    """Compute the final hidden state of the last token of each different row.

    Parameters
    ----------
    decoder
        The result of ``get_decoder()`` of a transformers model. Its linear layers may be those of peft.
    pack : Pack
        On the device of the decoder.
    cache : Cache, optional
        Contains the keys and values of `Pack.cached`.

    Returns
    -------
    torch.Tensor
        ``(R, hidden_size)`` in the dtype of the model.

    Raises
    ------
    UserError
        If the architecture of the model or its activation function is not supported.
    """
    config = decoder.config
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if config.model_type not in FAMILIES or activation not in ACTIVATIONS:
        raise UserError(f"models of the family {config.model_type} ({activation}) are not supported; accepted: {', '.join(FAMILIES)}")
    input_ids, position_ids = pack.input_ids, pack.position_ids
    if pack.cached:
        input_ids, position_ids = input_ids[:, pack.cached.computed], position_ids[:, pack.cached.computed]  # (1, C) each
    hidden = decoder.embed_tokens(input_ids)[0]  # (C, hidden_size)
    kinds: dict[tuple[str, int | None], _LayerKind] = {}
    tiles = _tiles(hidden, pack, decoder.layers[0].self_attn.head_dim)
    inputs = _Inputs(pack, cache, *tiles, ACTIVATIONS[activation])
    for layer_index, layer in enumerate(decoder.layers):
        kind = (getattr(layer.self_attn, "layer_type", None) or "", getattr(layer.self_attn, "sliding_window", None))
        if kind not in kinds:
            masks = () if inputs.tiles else tuple(block.mask(kind[1]) for block in pack.blocks)
            kinds[kind] = _LayerKind(*_angles(decoder.rotary_emb, position_ids, kind[0]), masks)
        is_last = layer_index == len(decoder.layers) - 1
        if getattr(layer, "gradient_checkpointing", False) and decoder.training:
            hidden = checkpoint(_layer, layer, hidden, inputs, kinds[kind], is_last, use_reentrant=False)
        else:
            hidden = _layer(layer, hidden, inputs, kinds[kind], is_last)
    return _norm(hidden, decoder.norm)


class _Inputs(NamedTuple):
    """What all layers share: the pack, the cache, tiles of the attention of all tokens and of the last layer, and the activation."""

    pack: Pack
    cache: Cache | None
    tiles: Tiles | None
    last_tiles: Tiles | None
    activation: str


class _LayerKind(NamedTuple):
    """What layers with the same rotation and sliding window share: cosine and sine, ``(C, 1, D / 2)`` each, and masks of the blocks."""

    cosine: Tensor
    sine: Tensor
    masks: tuple[Tensor, ...]


def _tiles(hidden: Tensor, pack: Pack, head_dim: int) -> tuple[Tiles | None, Tiles | None]:
    """Tiles of the attention of all computed tokens and of the last layer; None without kernels."""
    if not layers.runs_kernels(hidden):
        return None, None
    from babelcart.model.kernels import find_tiles, tile_side

    places = pack.subtree_end, pack.position_ids[0], tile_side(head_dim, hidden.dtype)
    computed = pack.cached.computed if pack.cached else torch.arange(len(hidden), device=hidden.device)  # (C,)
    return find_tiles(computed, *places), find_tiles(computed[pack.last_index], *places)


def _layer(layer: Any, hidden: Tensor, inputs: _Inputs, kind: _LayerKind, is_last: bool) -> Tensor:
    """One layer of the decoder: ``(C, hidden_size)`` to ``(M, hidden_size)``."""
    module, pack, (cosine, sine, masks) = layer.self_attn, inputs.pack, kind
    query_norm, key_norm = getattr(module, "q_norm", None), getattr(module, "k_norm", None)
    input_norm, norm_inputs = _norm_operation(hidden, layer.input_layernorm)
    if is_last:
        # The other positions of this layer's output are never read.
        normed = layers.apply(input_norm, *norm_inputs)  # (C, hidden_size)
        key, value = linears(Identity(), (normed,), module.k_proj, module.v_proj)  # (C, K * D) each
        (query,) = linears(Identity(), (layers.gather(normed, pack.last_index),), module.q_proj)  # (R, H * D)
        query = _rotate(query, query_norm, module.head_dim, cosine[pack.last_index], sine[pack.last_index])  # (R, H, D)
        hidden = layers.gather(hidden, pack.last_index)  # (R, hidden_size)
    else:
        projections = module.q_proj, module.k_proj, module.v_proj
        query, key, value = linears(input_norm, norm_inputs, *projections)  # (C, H * D), then (C, K * D) each
        query = _rotate(query, query_norm, module.head_dim, cosine, sine)  # (C, H, D)
    key = _rotate(key, key_norm, module.head_dim, cosine, sine)  # (C, K, D)
    value = value.view(len(value), -1, module.head_dim)  # (C, K, D)
    if inputs.cache:
        key, value = inputs.cache.extend(module.layer_idx, key, value, pack)  # (T, K, D) each
    window = getattr(module, "sliding_window", None)
    if tiles := inputs.last_tiles if is_last else inputs.tiles:
        from babelcart.model.kernels import TrieAttention

        output = TrieAttention.apply(query, key, value, tiles, window, module.scaling)  # type: ignore[no-untyped-call]
    elif is_last and pack.last_block:
        last_mask = pack.last_block.mask(window)
        output = attention(query, key, value, (pack.last_block,), (last_mask,), None, module.scaling)  # (R, H, D)
    else:
        output = attention(query, key, value, pack.blocks, masks, pack.output_index, module.scaling)  # (C, H, D)
    output = output.flatten(1)  # (M, H * D)
    if hidden.device.type == "cpu" and torch.is_inference_mode_enabled():
        for part, output_part in zip(torch.split(hidden, CACHED_TOKENS), torch.split(output, CACHED_TOKENS), strict=True):
            part.copy_(_after_attention(layer, part, output_part, inputs.activation))
        return hidden
    return _after_attention(layer, hidden, output, inputs.activation)


def _after_attention(layer: Any, hidden: Tensor, output: Tensor, activation: str) -> Tensor:
    """The rest of a layer: hidden state ``(M, hidden_size)`` and attention output ``(M, H * D)`` to ``(M, hidden_size)``."""
    (output,) = linears(Identity(), (output,), layer.self_attn.o_proj)  # (M, hidden_size)
    if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma normalises before and after attention and feed-forward
        hidden = hidden + _norm(output, layer.post_attention_layernorm)
        output = _feed_forward(layer.mlp, hidden, layer.pre_feedforward_layernorm, activation)
        return hidden + _norm(output, layer.post_feedforward_layernorm)
    hidden = hidden + output
    return hidden + _feed_forward(layer.mlp, hidden, layer.post_attention_layernorm, activation)


def _feed_forward(mlp: Any, hidden: Tensor, norm: Any, activation: str) -> Tensor:
    """Normalise and transform ``(M, hidden_size)`` to ``(M, hidden_size)``."""
    gate_and_up = linears(*_norm_operation(hidden, norm), mlp.gate_proj, mlp.up_proj)  # (M, intermediate_size) each
    return linears(Gated(activation), gate_and_up, mlp.down_proj)[0]


def _norm_arguments(norm: Any) -> tuple[Tensor, float, float]:
    """Weight ``(features,)``, offset and epsilon of an RMS norm of transformers. Gemma stores the scale minus 1."""
    if type(norm).__name__.startswith("Gemma"):
        return norm.weight, 1.0, norm.eps
    return norm.weight, 0.0, norm.variance_epsilon


def _norm_operation(x: Tensor, norm: Any) -> tuple[Norm, tuple[Tensor, Tensor]]:
    """Return an RMS norm of transformers as an operation, and its inputs for `x`."""
    weight, offset, epsilon = _norm_arguments(norm)
    return Norm(offset, epsilon), (x, weight)


def _norm(x: Tensor, norm: Any) -> Tensor:
    """``(M, hidden_size)`` to ``(M, hidden_size)``."""
    operation, inputs = _norm_operation(x, norm)
    return layers.apply(operation, *inputs)


def _rotate(x: Tensor, norm: Any, head_dim: int, cosine: Tensor, sine: Tensor) -> Tensor:
    """``(M, heads * D)`` to ``(M, heads, D)``: normalise each head if `norm` is not None, then rotate it."""
    arguments = (None, 0.0, 0.0) if norm is None else _norm_arguments(norm)
    return Rotate.apply(x.view(len(x), -1, head_dim), cosine, sine, *arguments)  # type: ignore[no-untyped-call]


def _angles(rotary: Any, positions: Tensor, layer_type: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines, ``(T, 1, D / 2)`` each in float32, of positions ``(1, T)``."""
    like = torch.empty(0, dtype=torch.float32, device=positions.device)  # transformers returns the tables in the dtype of this tensor
    has_layer_types = hasattr(rotary, f"{layer_type}_inv_freq")
    tables = rotary(like, positions, layer_type) if has_layer_types else rotary(like, positions)  # (1, T, D) each
    cosine, sine = (table[0, :, None, : table.shape[-1] // 2].contiguous() for table in tables)
    return cosine, sine
