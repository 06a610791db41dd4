"""LoRA layers without their overhead: the same result as peft's, in matrix products alone.

peft computes ``W x + (B A x) * scaling`` as separate steps, which read and write the full-sized output three times more
than needed and remember each for the backward pass. On short rows that costs as much as the products themselves. Here the
low-rank product is accumulated into the output (BLAS ``addmm``), and the backward pass is written out (Hu et al., "LoRA",
2021, equation 3).
"""

from __future__ import annotations

import types
from typing import Any

import torch


class LoraLinear(torch.autograd.Function):
    """``x W' + bias + scaling * x A' B'`` for a frozen weight; gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.T
        output = torch.nn.functional.linear(flat, weight, bias)
        output.addmm_(low, b.T, alpha=scaling)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scaling = scaling
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, low, weight, a, b = ctx.saved_tensors
        upper = gradient.reshape(-1, gradient.shape[-1])
        inner = (upper @ b) * ctx.scaling
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = upper @ weight
            grad_x.addmm_(inner, a)
            grad_x = grad_x.view(*gradient.shape[:-1], -1)
        return grad_x, None, None, inner.T @ flat, (upper.T @ low) * ctx.scaling, None


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    base = self.base_layer
    a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
    return LoraLinear.apply(x, base.weight, base.bias, a, b, self.scaling["default"])  # type: ignore[no-untyped-call]


def use_fused_lora(model: Any) -> int:
    """Replace the forward of every plain LoRA layer of a peft model; returns how many.

    Layers with dropout, DoRA or a quantised base keep peft's own.
    """
    from peft.tuners.lora import Linear

    count = 0
    for module in model.modules():
        plain = (
            isinstance(module, Linear)
            and type(module.base_layer) is torch.nn.Linear
            and isinstance(module.lora_dropout["default"], torch.nn.Identity)
            and not module.use_dora["default"]
        )
        if plain:
            module.forward = types.MethodType(_forward, module)
            count += 1
    return count
