"""The forward pass of a decoder over a `Pack`, from the modules that transformers loaded and peft adapted.

Three things set it apart from transformers' own: attention follows the tree of the pack; the last layer, but for its keys and
values, runs at the label positions alone; and what stands between the matrix products is fused (`babelcart.model.layers`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from babelcart.core.errors import UserError
from babelcart.model.layers import Gated, RmsNorm, Rotate, linears
from babelcart.model.packing import Pack, attention

FAMILIES = ("gemma3_text", "llama", "qwen2")
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "silu": "silu"}


def last_hidden(decoder: Any, pack: Pack) -> Tensor:
    """Final hidden states of the last token of each row.

    Parameters
    ----------
    decoder
        What ``get_decoder()`` of a transformers model gives; its linear layers may be peft's.
    pack : Pack
        On the decoder's device.

    Returns
    -------
    torch.Tensor
        ``(rows, hidden_size)`` in the model's dtype.

    Raises
    ------
    UserError
        If the model is of a family that this file does not know.
    """
    config = decoder.config
    name = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if config.model_type not in FAMILIES or name not in ACTIVATIONS:
        raise UserError(f"models of the family {config.model_type} ({name}) are not supported; accepted: {', '.join(FAMILIES)}")
    hidden = decoder.embed_tokens(pack.input_ids)[0]
    angles: dict[str, tuple[Tensor, Tensor]] = {}
    last = len(decoder.layers) - 1
    for number, layer in enumerate(decoder.layers):
        kind = getattr(layer.self_attn, "layer_type", None) or ""
        if kind not in angles:
            angles[kind] = _angles(decoder.rotary_emb, pack.position_ids, kind)
        inputs = (layer, hidden, *angles[kind], pack, ACTIVATIONS[name], number == last)
        if getattr(layer, "gradient_checkpointing", False) and decoder.training:
            hidden = checkpoint(_layer, *inputs, use_reentrant=False)
        else:
            hidden = _layer(*inputs)
    return _norm(hidden, decoder.norm)


def _layer(layer: Any, hidden: Tensor, cosine: Tensor, sine: Tensor, pack: Pack, activation: str, last: bool) -> Tensor:
    own = layer.self_attn
    normed = _norm(hidden, layer.input_layernorm)
    if last:
        # Nothing reads the other positions of this layer's output.
        key, value = linears(normed, own.k_proj, own.v_proj)
        (query,) = linears(normed.index_select(0, pack.last_index), own.q_proj)
        query = _rotate(query, getattr(own, "q_norm", None), own.head_dim, cosine[pack.last_index], sine[pack.last_index])
        hidden = hidden.index_select(0, pack.last_index)
    else:
        query, key, value = linears(normed, own.q_proj, own.k_proj, own.v_proj)
        query = _rotate(query, getattr(own, "q_norm", None), own.head_dim, cosine, sine)
    key = _rotate(key, getattr(own, "k_norm", None), own.head_dim, cosine, sine)
    value = value.view(len(value), -1, own.head_dim)
    blocks, output_index = ((pack.last_block,), None) if last else (pack.blocks, pack.output_index)
    output = attention(query, key, value, blocks, output_index, own.scaling, getattr(own, "sliding_window", None))
    (output,) = linears(output.flatten(1), own.o_proj)
    if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma: a norm before and after each half of the layer
        hidden = hidden + _norm(output, layer.post_attention_layernorm)
        output = _feed_forward(layer.mlp, _norm(hidden, layer.pre_feedforward_layernorm), activation)
        return hidden + _norm(output, layer.post_feedforward_layernorm)
    hidden = hidden + output
    return hidden + _feed_forward(layer.mlp, _norm(hidden, layer.post_attention_layernorm), activation)


def _feed_forward(mlp: Any, x: Tensor, activation: str) -> Tensor:
    gate, up = linears(x, mlp.gate_proj, mlp.up_proj)
    return linears(Gated.apply(gate, up, activation), mlp.down_proj)[0]  # type: ignore[no-untyped-call]


def _scale(norm: Any) -> tuple[Tensor, float]:
    """The factors and the epsilon of a transformers RMS norm; Gemma's weights are the factors less 1."""
    if type(norm).__name__.startswith("Gemma"):
        return 1.0 + norm.weight.float(), norm.eps
    return norm.weight.float(), norm.variance_epsilon


def _norm(x: Tensor, norm: Any) -> Tensor:
    return RmsNorm.apply(x, *_scale(norm))  # type: ignore[no-untyped-call]


def _rotate(x: Tensor, norm: Any, head_dim: int, cosine: Tensor, sine: Tensor) -> Tensor:
    scale, eps = (None, 0.0) if norm is None else _scale(norm)
    return Rotate.apply(x.view(len(x), -1, head_dim), cosine, sine, scale, eps)  # type: ignore[no-untyped-call]


def _angles(rotary: Any, positions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``(T, 1, head_dim / 2)`` in float32."""
    wide = torch.empty(0, dtype=torch.float32, device=positions.device)  # transformers casts them to the dtype of this
    found = rotary(wide, positions, kind) if hasattr(rotary, f"{kind}_inv_freq") else rotary(wide, positions)
    cosine, sine = (table[0, :, None, : table.shape[-1] // 2] for table in found)
    return cosine, sine
