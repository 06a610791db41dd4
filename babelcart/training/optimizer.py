"""AdamW on a float32 copy of an adapter, and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Schedule = Literal["linear", "cosine", "constant"]


def schedule_factor(step_index: int, step_count: int, warmup_ratio: float, schedule: Schedule) -> float:
    """Return the factor of the learning rate at an optimizer step.

    The factor rises linearly over the warm-up steps. Then it falls to zero linearly or along a half cosine, or stays at 1.

    Parameters
    ----------
    step_index : int
        Index of the step, from 0.
    step_count : int
        Steps of the complete run.
    warmup_ratio : float
        Fraction of the steps that warm up.
    schedule : {"linear", "cosine", "constant"}

    Returns
    -------
    float
        In (0, 1].
    """
    warmup_steps = math.ceil(warmup_ratio * step_count)
    if step_index < warmup_steps:
        return (step_index + 1) / (warmup_steps + 1)
    remaining = (step_count - step_index) / max(1, step_count - warmup_steps)
    if schedule == "cosine":
        return (1 - math.cos(math.pi * remaining)) / 2
    return remaining if schedule == "linear" else 1.0


class MasterAdamW:
    """AdamW that updates float32 copies of the trained parameters and copies them back into the model after each step.

    An update is often smaller than the difference between two neighbouring bfloat16 numbers. The float32 copy does not lose it
    (Micikevicius et al., "Mixed Precision Training", 2018).

    Parameters
    ----------
    model
        A peft model. Its parameters that require a gradient are trained.
    learning_rate, weight_decay : float
        As in `torch.optim.AdamW`.
    loraplus_lr_ratio : float
        Learning rate of the B matrices, relative to that of the A matrices (Hayou et al., "LoRA+", 2024). 1 is plain LoRA.

    Attributes
    ----------
    working : list of torch.Tensor
        The trained parameters of the model, in the model's dtype.
    master : list of torch.Tensor
        Their float32 copies.
    """

    def __init__(self, model: Any, learning_rate: float, weight_decay: float, loraplus_lr_ratio: float = 1.0) -> None:
        import torch

        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.working = [parameter for _, parameter in trained]
        self.master = [parameter.detach().float().clone().requires_grad_() for parameter in self.working]
        rates = [learning_rate * (loraplus_lr_ratio if ".lora_B." in name else 1.0) for name, _ in trained]
        groups = [
            {"params": [master for master, rate in zip(self.master, rates, strict=True) if rate == group_rate], "full_rate": group_rate}
            for group_rate in sorted(set(rates))
        ]
        fused = True if self.master[0].is_cuda else None  # one kernel for many parameters
        self._optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=fused)

    def zero_grad(self) -> None:
        """Drop the gradients of the trained parameters, for example after a step that ran out of memory.

        On a GPU they are set to zero, because CUDA graphs keep their addresses (`babelcart.training.gradients`).
        """
        import torch

        for parameter in self.working:
            if not parameter.is_cuda:
                parameter.grad = None
        if gradients := [parameter.grad for parameter in self.working if parameter.grad is not None]:
            torch._foreach_zero_(gradients)

    def step(self, factor: float, max_grad_norm: float) -> None:
        """Update the parameters with their current gradients, and drop the gradients.

        Parameters
        ----------
        factor : float
            Factor of the learning rate, from `schedule_factor`.
        max_grad_norm : float
            Gradients with a larger norm are scaled down to it. With 0 they are not clipped.
        """
        import torch

        pairs = [(master, parameter) for master, parameter in zip(self.master, self.working, strict=True) if parameter.grad is not None]
        for master, _ in pairs:
            if master.grad is None:
                master.grad = torch.empty_like(master)
        torch._foreach_copy_([master.grad for master, _ in pairs], [parameter.grad for _, parameter in pairs])
        self.zero_grad()
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.master, max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor
        self._optimizer.step()
        self._copy_to_model()

    def _copy_to_model(self) -> None:
        import torch

        with torch.no_grad():
            torch._foreach_copy_(self.working, self.master)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state that `load` needs to resume: the float32 copies and both moments."""
        tensors = {f"master.{index}": master.detach() for index, master in enumerate(self.master)}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"moment.{index}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore the state that `tensors` returned. Other keys are ignored."""
        import torch

        with torch.no_grad():
            for index, master in enumerate(self.master):
                master.copy_(tensors[f"master.{index}"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("moment."):
                _, index_text, name = key.split(".")
                moments.setdefault(int(index_text), {})[name] = tensor
        self._optimizer.load_state_dict({"state": moments, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._copy_to_model()
