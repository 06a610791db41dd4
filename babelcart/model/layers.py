"""The layers of a decoder as functions whose backward passes are written out.

The same results as transformers' and peft's modules, in fewer passes over memory: on rows this short, what surrounds the
matrix products costs as much as they do. Norms and rotations are computed in float32 whatever the dtype. The base is frozen:
no function here gives a gradient for its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def _normed(wide: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).mul_(scale), inverse


def _normed_backward(gradient: Tensor, wide: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    gradient, unit = gradient * scale, wide * inverse
    return gradient.addcmul_(unit, (gradient * unit).mean(-1, keepdim=True), value=-1).mul_(inverse)


class RmsNorm(torch.autograd.Function):
    """Root-mean-square normalisation (Zhang and Sennrich, 2019) of the last dimension, times `scale` (float32)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        output, inverse = _normed(x.float(), scale, eps)
        ctx.save_for_backward(x, inverse, scale)
        return output.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, scale = ctx.saved_tensors
        return _normed_backward(gradient.float(), x.float(), inverse, scale).to(x.dtype), None, None


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor, sign: int) -> Tensor:
    output = torch.empty_like(x)
    half = cosine.shape[-1]
    first, second = x[..., :half], x[..., half:]
    torch.mul(first, cosine, out=output[..., :half]).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=output[..., half:]).addcmul_(first, sine, value=sign)
    return output


class Rotate(torch.autograd.Function):
    """Rotary position embedding (Su et al., 2021) of ``(T, heads, head_dim)``, after a norm of each head if `scale` is given.

    `cosine` and `sine` are ``(T, 1, head_dim / 2)`` float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, scale: Tensor | None, eps: float) -> Tensor:
        wide, inverse = x.float(), None
        if scale is not None:
            wide, inverse = _normed(wide, scale, eps)
            ctx.save_for_backward(cosine, sine, scale, x, inverse)
        else:
            ctx.save_for_backward(cosine, sine)
        ctx.dtype = x.dtype
        return _rotated(wide, cosine, sine, 1).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine, *normed = ctx.saved_tensors
        wide = _rotated(gradient.float(), cosine, sine, -1)
        if normed:
            scale, x, inverse = normed
            wide = _normed_backward(wide, x.float(), inverse, scale)
        return wide.to(ctx.dtype), None, None, None, None


class Gated(torch.autograd.Function):
    """``activation(gate) * up`` of a gated feed-forward layer (Shazeer, 2020); only its two inputs are remembered."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _activated(gate, activation).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        inner = gradient * up
        if ctx.activation == "silu":
            inner = torch.ops.aten.silu_backward(inner, gate)
        else:
            inner = torch.ops.aten.gelu_backward(inner, gate, approximate="tanh")
        return inner, _activated(gate, ctx.activation).mul_(gradient), None


def _activated(gate: Tensor, activation: str) -> Tensor:
    return functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")


class LoraLinears(torch.autograd.Function):
    """Linear layers of the same input, each ``x W' + bias + scaling * x A' B'`` (Hu et al., "LoRA", 2021, equation 3).

    The low-rank products are accumulated into the outputs by BLAS; the A matrices of all layers are one product, forward and
    backward, and so are their gradients. Gradients for x, A and B.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: tuple[float, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        count = len(scalings)
        weights, biases, downs, ups = (tensors[n * count : (n + 1) * count] for n in range(4))
        down = torch.cat(downs) if count > 1 else downs[0]  # type: ignore[arg-type]
        low = functional.linear(x, down)  # type: ignore[arg-type]
        outputs, start = [], 0
        for weight, bias, up, scaling in zip(weights, biases, ups, scalings, strict=True):
            output = functional.linear(x, weight, bias)  # type: ignore[arg-type]
            output.addmm_(low[:, start : start + up.shape[1]], up.T, alpha=scaling)  # type: ignore[union-attr]
            start += up.shape[1]  # type: ignore[union-attr]
            outputs.append(output)
        ctx.save_for_backward(x, low, down, *weights, *ups)
        ctx.scalings = scalings
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, *others = ctx.saved_tensors
        count = len(ctx.scalings)
        weights, ups = others[:count], others[count:]
        ranks = [up.shape[1] for up in ups]
        inner = torch.cat([(g @ up).mul_(scaling) for g, up, scaling in zip(gradients, ups, ctx.scalings, strict=True)], dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = inner @ down
            for gradient, weight in zip(gradients, weights, strict=True):
                grad_x.addmm_(gradient, weight)
        grad_downs = (inner.T @ x).split(ranks)
        lows = low.split(ranks, dim=1)
        grad_ups = [(g.T @ part).mul_(scaling) for g, part, scaling in zip(gradients, lows, ctx.scalings, strict=True)]
        return grad_x, None, *([None] * (2 * count)), *grad_downs, *grad_ups


def linears(x: Tensor, *modules: Any) -> tuple[Tensor, ...]:
    """The outputs of linear layers for ``x`` ``(T, in_features)``; plain LoRA layers of peft together, all others by themselves.

    Layers with dropout, DoRA or a quantised base are not plain.
    """
    if not all(_plain(module) for module in modules):
        return tuple(module(x) for module in modules)
    bases = [module.base_layer for module in modules]
    return LoraLinears.apply(  # type: ignore[no-untyped-call]
        x,
        tuple(module.scaling["default"] for module in modules),
        *(base.weight for base in bases),
        *(base.bias for base in bases),
        *(module.lora_A["default"].weight for module in modules),
        *(module.lora_B["default"].weight for module in modules),
    )


def _plain(module: Any) -> bool:
    from peft.tuners.lora import Linear

    return (
        isinstance(module, Linear)
        and type(module.base_layer) is torch.nn.Linear
        and module.active_adapters == ["default"]
        and isinstance(module.lora_dropout["default"], torch.nn.Identity)
        and not module.use_dora["default"]
        and not module.disable_adapters
        and not module.merged
    )
