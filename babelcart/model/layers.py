"""Parts of a decoder layer as functions with hand-written backward passes.

They give the results of the modules of transformers and peft, but read and write memory less often: for rows this short, the
operations between the matrix products take as long as the products themselves. Norms and rotations are computed in float32,
whatever the dtype of their input. The base model is frozen, so no function returns a gradient for its weights.

On a GPU, norms, rotations and activations run in the kernels of `babelcart.model.kernels`.

``T`` is the number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

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


def _normalise_backward(gradient: Tensor, unit: Tensor, inverse_rms: Tensor, scale: Tensor) -> Tensor:
    """Gradient for `x`, of which `unit` is ``x * inverse_rms``; `gradient` and `unit` are ``(..., features)`` float32."""
    gradient = gradient * scale  # (..., features)
    return gradient.addcmul_(unit, (gradient * unit).mean(-1, keepdim=True), value=-1).mul_(inverse_rms)


class Operation(Protocol):
    """An elementwise operation whose output can be computed again from its inputs, instead of being kept for the backward pass."""

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output, and small tensors to keep for `prepare`."""

    def prepare(self, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute what `output` and `backward` both need."""

    def output(self, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> Tensor:
        """Return the output of `forward` again, with the same bits."""

    def backward(self, gradient: Tensor, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the gradient of each input for the `gradient` of the output. `prepared` is not used after it."""


class Identity(NamedTuple):
    """Return the only input."""

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return inputs[0], ()

    def prepare(self, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return ()

    def output(self, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> Tensor:
        return inputs[0]

    def backward(self, gradient: Tensor, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        return (gradient,)


class Norm(NamedTuple):
    """Root-mean-square normalisation (Zhang and Sennrich, 2019).

    Normalises ``(..., features)`` over the last dimension and multiplies by a weight ``(features,)`` plus `offset`.
    """

    offset: float
    epsilon: float

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, weight = inputs
        if runs_kernels(x):
            from babelcart.model import kernels

            return kernels.normalise(x, weight, self.offset, self.epsilon), ()
        output, inverse_rms = _normalise(x.float(), _scale(weight, self.offset), self.epsilon)  # (..., features), (..., 1)
        return output.to(x.dtype), (inverse_rms,)

    def prepare(self, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (inputs[0].float() * kept[0], kept[0]) if kept else ()

    def output(self, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> Tensor:
        x, weight = inputs
        if not prepared:
            return self.forward(inputs)[0]
        return (prepared[0] * _scale(weight, self.offset)).to(x.dtype)

    def backward(self, gradient: Tensor, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        x, weight = inputs
        if not prepared:
            from babelcart.model import kernels

            return kernels.normalise_backward(gradient.contiguous(), x, weight, self.offset, self.epsilon), None
        unit, inverse_rms = prepared  # (..., features), (..., 1)
        return _normalise_backward(gradient.float(), unit, inverse_rms, _scale(weight, self.offset)).to(x.dtype), None


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
    as by `Norm`.
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
            grad_x = _normalise_backward(grad_x, x.float() * inverse_rms, inverse_rms, _scale(weight, ctx.offset))
        return grad_x.to(ctx.dtype), None, None, None, None, None


class Gated(NamedTuple):
    """``activation(gate) * up`` of a gated feed-forward layer (Shazeer, 2020); all tensors are ``(T, intermediate_size)``."""

    activation: str

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        gate, up = inputs
        if runs_kernels(gate):
            from babelcart.model import kernels

            return kernels.gated(gate, up, self.activation), ()
        return self._activate(gate).mul_(up), ()

    def prepare(self, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return () if runs_kernels(inputs[0]) else (self._activate(inputs[0]),)

    def output(self, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> Tensor:
        return prepared[0] * inputs[1] if prepared else self.forward(inputs)[0]

    def backward(self, gradient: Tensor, inputs: Sequence[Tensor], prepared: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        gate, up = inputs
        if not prepared:
            from babelcart.model import kernels

            return kernels.gated_backward(gradient.contiguous(), gate, up, self.activation)
        (activated,) = prepared  # (T, intermediate_size)
        grad_gate = gradient * up
        if self.activation == "silu":
            grad_gate = torch.ops.aten.silu_backward(grad_gate, gate)
        else:
            grad_gate = torch.ops.aten.gelu_backward(grad_gate, gate, approximate="tanh")
        return grad_gate, activated.mul_(gradient)

    def _activate(self, gate: Tensor) -> Tensor:
        return functional.silu(gate) if self.activation == "silu" else functional.gelu(gate, approximate="tanh")


class Apply(torch.autograd.Function):
    """An `Operation` without linear layers. The arguments are the operation and its inputs."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, *inputs: Tensor) -> Tensor:
        output, kept = operation.forward(inputs)
        ctx.save_for_backward(*inputs, *kept)
        ctx.operation, ctx.input_count = operation, len(inputs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, kept = saved[: ctx.input_count], saved[ctx.input_count :]
        return None, *ctx.operation.backward(gradient, inputs, ctx.operation.prepare(inputs, kept))


def apply(operation: Operation, *inputs: Tensor) -> Tensor:
    """Return the output of an operation."""
    return Apply.apply(operation, *inputs)  # type: ignore[no-untyped-call]


class LoraLinears(torch.autograd.Function):
    """Linear layers of the same input x, each ``x W' + bias + scaling * x A' B'`` (Hu et al., "LoRA", 2021, equation 3).

    x is the output of an `Operation`, which the backward pass computes again. BLAS adds the low-rank products to the outputs in place.
    The A matrices of all layers are concatenated, so that their product and its gradient take one call each. Weights in NF4 are
    dequantised for each product. Returns gradients for the inputs of the operation, A and B.

    The arguments after `scalings` are the inputs of the operation, then the weights of all layers, their biases (or None), their A and
    their B matrices. Shapes: x ``(T, in_features)``, weight ``(out_features, in_features)``, bias ``(out_features,)``,
    A ``(r, in_features)``, B ``(out_features, r)``.
    """

    @staticmethod
    def forward(ctx: Any, operation: Operation, scalings: tuple[float, ...], *tensors: Any) -> tuple[Tensor, ...]:
        count = len(scalings)
        input_count = len(tensors) - 4 * count
        inputs = tensors[:input_count]
        weights, biases, a_matrices, b_matrices = (tensors[input_count + part * count :][:count] for part in range(4))
        x, kept = operation.forward(inputs)  # (T, in_features)
        a_all = torch.cat(a_matrices) if count > 1 else a_matrices[0]  # (sum of r, in_features)
        low = functional.linear(x, a_all)  # (T, sum of r)
        outputs, start = [], 0
        for weight, bias, b, scaling in zip(weights, biases, b_matrices, scalings, strict=True):
            output = functional.linear(x, _dense(weight), bias)  # (T, out_features)
            output.addmm_(low[:, start : start + b.shape[1]], b.T, alpha=scaling)
            start += b.shape[1]
            outputs.append(output)
        ctx.save_for_backward(*inputs, *kept, low, a_all, *b_matrices)
        ctx.operation, ctx.scalings, ctx.input_count, ctx.kept_count = operation, scalings, input_count, len(kept)
        ctx.weights = weights  # a saved tensor would lose the quant_state of NF4
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked once: gradient checkpointing allows no more
        inputs, kept = saved[: ctx.input_count], saved[ctx.input_count :][: ctx.kept_count]
        low, a_all, *b_matrices = saved[ctx.input_count + ctx.kept_count :]
        prepared = ctx.operation.prepare(inputs, kept)
        ranks = [b.shape[1] for b in b_matrices]
        grad_low = torch.cat([(g @ b).mul_(scaling) for g, b, scaling in zip(gradients, b_matrices, ctx.scalings, strict=True)], dim=1)
        grad_a = (grad_low.T @ ctx.operation.output(inputs, prepared)).split(ranks)  # (r, in_features) each
        low_parts = low.split(ranks, dim=1)  # (T, r) each
        grad_b = [(g.T @ part).mul_(scaling) for g, part, scaling in zip(gradients, low_parts, ctx.scalings, strict=True)]
        grad_inputs: tuple[Tensor | None, ...] = (None,) * ctx.input_count
        if any(ctx.needs_input_grad[2 : 2 + ctx.input_count]):
            grad_x = grad_low @ a_all  # (T, in_features)
            for gradient, weight in zip(gradients, ctx.weights, strict=True):
                grad_x.addmm_(gradient, _dense(weight))
            grad_inputs = ctx.operation.backward(grad_x, inputs, prepared)
        return None, None, *grad_inputs, *([None] * (2 * len(ranks))), *grad_a, *grad_b


def _dense(weight: Tensor) -> Tensor:
    """Weight of a linear layer, ``(out_features, in_features)``; dequantised if it is in NF4."""
    if not hasattr(weight, "quant_state"):
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def linears(operation: Operation, inputs: tuple[Tensor, ...], *modules: Any) -> tuple[Tensor, ...]:
    """Apply several linear layers to the output of an operation.

    LoRA layers of peft are computed together by `LoraLinears` if none of them has dropout or DoRA. Otherwise each module is called
    separately.

    Parameters
    ----------
    operation : Operation
        Its output is ``(T, in_features)``.
    inputs : tuple of torch.Tensor
        The inputs of the operation.
    *modules : torch.nn.Module
        Linear layers of torch, bitsandbytes (NF4) or peft.

    Returns
    -------
    tuple of torch.Tensor
        ``(T, out_features)`` for each module.
    """
    if not all(_is_plain_lora(module) for module in modules):
        x = apply(operation, *inputs)
        return tuple(module(x) for module in modules)
    bases = [module.base_layer for module in modules]
    return LoraLinears.apply(  # type: ignore[no-untyped-call]
        operation,
        tuple(module.scaling["default"] for module in modules),
        *inputs,
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
        if runs_kernels(gradient):
            total.index_put_((index,), gradient.float(), accumulate=True)
        else:  # the same terms in the order of `index`, and faster
            total.index_add_(0, index, gradient.float())
        return total.to(ctx.dtype), None


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Select rows of `x`, ``(rows, ...)``, by index ``(M,)`` int64, with the backward pass of `Gather`."""
    if not x.requires_grad:
        return x.index_select(0, index)
    return Gather.apply(x, index)  # type: ignore[no-untyped-call]
