"""AdamW on a float32 copy of an adapter, and its learning rate over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Schedule = Literal["linear", "cosine", "constant"]


def schedule_factor(step: int, steps: int, warmup_ratio: float, schedule: Schedule) -> float:
    """Share of the learning rate at a step: linear warm-up, then linear or by a half cosine to zero at the end, or constant."""
    warm = math.ceil(warmup_ratio * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    left = (steps - step) / max(1, steps - warm)
    if schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return left if schedule == "linear" else 1.0


class MasterAdamW:
    """AdamW that updates float32 copies of the trained parameters and refreshes the working ones from them.

    An update is often smaller than a bfloat16 parameter can show; in the copy it is not lost (Micikevicius et al., "Mixed
    Precision Training", 2018).

    Parameters
    ----------
    model
        A peft model; its parameters that require a gradient are trained.
    learning_rate, weight_decay : float
        As in `torch.optim.AdamW`.
    loraplus_lr_ratio : float
        The B matrices learn this many times as fast as the A matrices (Hayou et al., "LoRA+", 2024); 1 is plain LoRA.
    """

    def __init__(self, model: Any, learning_rate: float, weight_decay: float, loraplus_lr_ratio: float = 1.0) -> None:
        import torch

        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.working = [parameter for _, parameter in named]
        self.master = [parameter.detach().float().clone().requires_grad_() for parameter in self.working]
        self._rates = [learning_rate * (loraplus_lr_ratio if ".lora_B." in name else 1.0) for name, _ in named]
        groups = [
            {"params": [kept for kept, own in zip(self.master, self._rates, strict=True) if own == one], "full_rate": one}
            for one in sorted(set(self._rates))
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)

    def zero_grad(self) -> None:
        """Forget gradients, such as those of a step that ran out of memory midway."""
        for parameter in self.working:
            parameter.grad = None

    def step(self, share: float, max_grad_norm: float) -> None:
        """Move by the gradients of the working parameters, at `share` of the learning rate; 0 for `max_grad_norm` clips nothing."""
        import torch

        for kept, parameter in zip(self.master, self.working, strict=True):
            kept.grad = None if parameter.grad is None else parameter.grad.float()
        self.zero_grad()
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.master, max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_rate"] * share
        self._optimizer.step()
        self._refresh()

    def _refresh(self) -> None:
        import torch

        with torch.no_grad():
            for kept, parameter in zip(self.master, self.working, strict=True):
                parameter.copy_(kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that is needed to go on later: the float32 copies and both moments."""
        found = {f"master.{number}": kept.detach() for number, kept in enumerate(self.master)}
        for number, state in self._optimizer.state_dict()["state"].items():
            found |= {f"moment.{number}.{name}": value for name, value in state.items()}
        return found

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave."""
        import torch

        with torch.no_grad():
            for number, kept in enumerate(self.master):
                kept.copy_(tensors[f"master.{number}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("moment."):
                _, number_text, name = key.split(".")
                state.setdefault(int(number_text), {})[name] = value
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._refresh()
