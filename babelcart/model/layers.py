"""Parts of a decoder layer as functions with hand-written backward passes.

They give the results of the modules of transformers and peft, but read and write memory less often: for rows this short, the
operations between the matrix products take as long as the products themselves. Norms and rotations are computed in float32,
whatever the dtype of their input. The base model is frozen, so no function returns a gradient for its weights.

On a GPU, norms, rotations and activations run in the kernels of `babelcart.model.kernels`.

``T`` is the number of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def runs_kernels(x: Tensor) -> bool:
    """Return whether functions of `x` run in `babelcart.model.kernels`."""
    return x.is_cuda


def _scale(weight: Tensor, offset: float) -> Tensor:
    """Scale of a norm, ``(features,)`` float32."""
    return offset + weight.float()


def _normalise(x: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return normalised `x` ``(..., features)`` and the reciprocal of its root mean square ``(..., 1)``; all tensors are float32."""
    inverse_rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()  # (..., 1)
    return (x * inverse_rms).mul_(scale), inverse_rms


def _normalise_backward(gradient: Tensor, x: Tensor, inverse_rms: Tensor, scale: Tensor) -> Tensor:
    """Gradient for `x`; `gradient` and `x` are ``(..., features)`` float32."""
    gradient, unit = gradient * scale, x * inverse_rms  # (..., features)
    return gradient.addcmul_(unit, (gradient * unit).mean(-1, keepdim=True), value=-1).mul_(inverse_rms)


class RmsNorm(torch.autograd.Function):
    """Root-mean-square normalisation (Zhang and Sennrich, 2019).

    Normalises ``(..., features)`` over the last dimension and multiplies by `weight` ``(features,)`` plus `offset`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: float, epsilon: float) -> Tensor:
        ctx.offset, ctx.epsilon = offset, epsilon
        if runs_kernels(x):
            from babelcart.model import kernels

            ctx.save_for_backward(x, weight)
            return kernels.normalise(x, weight, offset, epsilon)
        output, inverse_rms = _normalise(x.float(), _scale(weight, offset), epsilon)  # (..., features), (..., 1)
        ctx.save_for_backward(x, weight, inverse_rms)
        return output.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *norm_tensors = ctx.saved_tensors
        if not norm_tensors:
            from babelcart.model import kernels

            return kernels.normalise_backward(gradient.contiguous(), x, weight, ctx.offset, ctx.epsilon), None, None, None
        (inverse_rms,) = norm_tensors
        grad_x = _normalise_backward(gradient.float(), x.float(), inverse_rms, _scale(weight, ctx.offset))
        return grad_x.to(x.dtype), None, None, None


def _rotate_halves(x: Tensor, cosine: Tensor, sine: Tensor, sign: int) -> Tensor:
    """Rotate each pair of features ``(i, i + head_dim / 2)`` by its angle, or back with `sign` -1."""
    output = torch.empty_like(x)  # (T, heads, head_dim)
    half = cosine.shape[-1]
    first, second = x[..., :half], x[..., half:]  # (T, heads, head_dim / 2) each
    torch.mul(first, cosine, out=output[..., :half]).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=output[..., half:]).addcmul_(first, sine, value=sign)
    return output


class Rotate(torch.autograd.Function):
    """Rotary position embedding (Su et al., 2021) of ``(T, heads, head_dim)``.

    `cosine` and `sine` are ``(T, 1, head_dim / 2)`` float32. If `weight` ``(head_dim,)`` is given, each head is first normalised
    as by `RmsNorm`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, weight: Tensor | None, offset: float, epsilon: float) -> Tensor:
        ctx.offset, ctx.epsilon, ctx.kernels = offset, epsilon, runs_kernels(x)
        if ctx.kernels:
            from babelcart.model import kernels

            ctx.save_for_backward(cosine, sine, *(() if weight is None else (weight, x)))
            return kernels.rotate(x, cosine, sine, weight, offset, epsilon)
        heads = x.float()  # (T, heads, head_dim)
        if weight is not None:
            heads, inverse_rms = _normalise(heads, _scale(weight, offset), epsilon)
            ctx.save_for_backward(cosine, sine, weight, x, inverse_rms)
        else:
            ctx.save_for_backward(cosine, sine)
        ctx.dtype = x.dtype
        return _rotate_halves(heads, cosine, sine, 1).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine, *norm_tensors = ctx.saved_tensors
        if ctx.kernels:
            from babelcart.model import kernels

            weight, x = norm_tensors or (None, gradient)
            grad_x = kernels.rotate_backward(gradient.contiguous(), x, cosine, sine, weight, ctx.offset, ctx.epsilon)
            return grad_x, None, None, None, None, None
        grad_x = _rotate_halves(gradient.float(), cosine, sine, -1)  # (T, heads, head_dim)
        if norm_tensors:
            weight, x, inverse_rms = norm_tensors
            grad_x = _normalise_backward(grad_x, x.float(), inverse_rms, _scale(weight, ctx.offset))
        return grad_x.to(ctx.dtype), None, None, None, None, None


class Gated(torch.autograd.Function):
    """``activation(gate) * up`` of a gated feed-forward layer (Shazeer, 2020); all tensors are ``(T, intermediate_size)``.

    Only the two inputs are saved for the backward pass, which computes the activation again.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        if runs_kernels(gate):
            from babelcart.model import kernels

            return kernels.gated(gate, up, activation)
        return _activate(gate, activation).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        if runs_kernels(gate):
            from babelcart.model import kernels

            return *kernels.gated_backward(gradient.contiguous(), gate, up, ctx.activation), None
        grad_gate = gradient * up
        if ctx.activation == "silu":
            grad_gate = torch.ops.aten.silu_backward(grad_gate, gate)
        else:
            grad_gate = torch.ops.aten.gelu_backward(grad_gate, gate, approximate="tanh")
        return grad_gate, _activate(gate, ctx.activation).mul_(gradient), None


def _activate(gate: Tensor, activation: str) -> Tensor:
    return functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")


class LoraLinears(torch.autograd.Function):
    """Linear layers of the same input, each ``x W' + bias + scaling * x A' B'`` (Hu et al., "LoRA", 2021, equation 3).

    BLAS adds the low-rank products to the outputs in place. The A matrices of all layers are concatenated, so that their product
    and its gradient take one call each. Weights in NF4 are dequantised for each product. Returns gradients for x, A and B.

    The arguments after `scalings` are the weights of all layers, their biases (or None), their A and their B matrices. Shapes:
    x ``(T, in_features)``, weight ``(out_features, in_features)``, bias ``(out_features,)``, A ``(r, in_features)``,
    B ``(out_features, r)``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: tuple[float, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        count = len(scalings)
        weights, biases, a_matrices, b_matrices = (tensors[part * count : (part + 1) * count] for part in range(4))
        a_all = torch.cat(a_matrices) if count > 1 else a_matrices[0]  # type: ignore[arg-type]  # (sum of r, in_features)
        low = functional.linear(x, a_all)  # type: ignore[arg-type]  # (T, sum of r)
        outputs, start = [], 0
        for weight, bias, b, scaling in zip(weights, biases, b_matrices, scalings, strict=True):
            output = functional.linear(x, _dense(weight), bias)  # type: ignore[arg-type]  # (T, out_features)
            output.addmm_(low[:, start : start + b.shape[1]], b.T, alpha=scaling)  # type: ignore[union-attr]
            start += b.shape[1]  # type: ignore[union-attr]
            outputs.append(output)
        ctx.save_for_backward(x, low, a_all, *b_matrices)
        ctx.scalings, ctx.weights = scalings, weights  # a saved tensor would lose the quant_state of NF4
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, low, a_all, *b_matrices = ctx.saved_tensors
        count = len(ctx.scalings)
        ranks = [b.shape[1] for b in b_matrices]
        grad_low = torch.cat([(g @ b).mul_(scaling) for g, b, scaling in zip(gradients, b_matrices, ctx.scalings, strict=True)], dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_low @ a_all  # (T, in_features)
            for gradient, weight in zip(gradients, ctx.weights, strict=True):
                grad_x.addmm_(gradient, _dense(weight))
        grad_a = (grad_low.T @ x).split(ranks)  # (r, in_features) each
        low_parts = low.split(ranks, dim=1)  # (T, r) each
        grad_b = [(g.T @ part).mul_(scaling) for g, part, scaling in zip(gradients, low_parts, ctx.scalings, strict=True)]
        return grad_x, None, *([None] * (2 * count)), *grad_a, *grad_b


def _dense(weight: Tensor) -> Tensor:
    """Weight of a linear layer, ``(out_features, in_features)``; dequantised if it is in NF4."""
    if not hasattr(weight, "quant_state"):
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def linears(x: Tensor, *modules: Any) -> tuple[Tensor, ...]:
    """Apply several linear layers to the same input.

    LoRA layers of peft are computed together by `LoraLinears` if none of them has dropout or DoRA. Otherwise each module is called
    separately.

    Parameters
    ----------
    x : torch.Tensor
        ``(T, in_features)``.
    *modules : torch.nn.Module
        Linear layers of torch, bitsandbytes (NF4) or peft.

    Returns
    -------
    tuple of torch.Tensor
        ``(T, out_features)`` for each module.
    """
    if not all(_is_plain_lora(module) for module in modules):
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


def _is_plain_lora(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    return (
        isinstance(module, LoraLayer)
        and (type(module.base_layer) is torch.nn.Linear or hasattr(module.base_layer.weight, "quant_state"))
        and module.active_adapters == ["default"]
        and isinstance(module.lora_dropout["default"], torch.nn.Identity)
        and not module.use_dora["default"]
        and not module.disable_adapters
        and not module.merged
    )


class Gather(torch.autograd.Function):
    """Select rows by index; the backward pass adds up the gradients of a row in float32 and in a fixed order.

    The gradient of a shared token is the sum over many rows, for which bfloat16 has too few digits. The backward pass of
    ``index_select`` adds with atomic operations on CUDA, so that the order of the terms, and the rounding, change from run to run;
    ``index_put`` with ``accumulate`` sorts them first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows, ctx.dtype = len(x), x.dtype
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        total = torch.zeros(ctx.rows, *gradient.shape[1:], dtype=torch.float32, device=gradient.device)
        if gradient.is_cuda:
            total.index_put_((index,), gradient.float(), accumulate=True)
        else:  # the same terms in the order of `index`, and faster
            total.index_add_(0, index, gradient.float())
        return total.to(ctx.dtype), None


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Select rows of `x`, ``(rows, ...)``, by index ``(M,)`` int64, with the backward pass of `Gather`."""
    if not x.requires_grad:
        return x.index_select(0, index)
    return Gather.apply(x, index)  # type: ignore[no-untyped-call]
