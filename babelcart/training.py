"""Fine-tuning an adapter: label-token loss on the last position of each row, nothing else computed.

The frozen base and the adapter run in the model's dtype; the optimiser keeps the adapter in float32 (Micikevicius et al.,
"Mixed Precision Training", 2018) and the working copy is refreshed after each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from babelcart.batching import by_query, token_budget
from babelcart.config import within
from babelcart.models import label_logits
from babelcart.packing import TokenRow, pack_rows

if TYPE_CHECKING:
    import numpy as np

    from babelcart.prompts import LabelTokens


@dataclass(frozen=True)
class Train:
    """The section ``train`` of params.yaml."""

    epochs: float = within(0, 1000, default=1.0)
    max_rows: int | None = within(1, 2**53, default=None)
    batch_size: int = within(1, 65536, default=32)
    learning_rate: float = within(0, 1, default=3e-4)
    warmup_ratio: float = within(0, 1, default=0.05)
    weight_decay: float = within(0, 1, default=0.0)
    max_grad_norm: float = within(0, 1e6, default=1.0)
    max_tokens: int = within(1, 2**31, default=4096)
    seed: int = 0


@dataclass
class History:
    """What training saw.

    Attributes
    ----------
    losses : list of float
        Mean cross-entropy (nats a row) of each optimiser step.
    rows : int
        Rows seen, counting every epoch.
    tokens : int
        Tokens computed, shared prefixes counted once.
    """

    losses: list[float] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0


def order(rows: Sequence[TokenRow], settings: Train) -> Iterator[list[int]]:
    """Row numbers of each optimiser step: about `batch_size` rows, queries shuffled anew each epoch, kept whole.

    `max_rows` and a fractional `epochs` end it early. Depends on the rows and `seed` alone.
    """
    import numpy as np

    generator = np.random.default_rng(settings.seed)
    groups = by_query(rows)
    total = math.ceil(settings.epochs * len(rows))
    if settings.max_rows is not None:
        total = min(total, settings.max_rows)
    seen = 0
    while seen < total:
        step: list[int] = []
        for number in generator.permutation(len(groups)):
            step.extend(groups[number][: total - seen - len(step)])
            if len(step) >= settings.batch_size or seen + len(step) >= total:
                yield step
                seen += len(step)
                step = []
            if seen >= total:
                return
        if step:
            yield step
            seen += len(step)


def rate(step: int, steps: int, settings: Train) -> float:
    """Share of the learning rate at a step: linear warm-up, then linear to zero at the end."""
    warm = math.ceil(settings.warmup_ratio * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return (steps - step) / max(1, steps - warm)


def train(
    model: Any, rows: Sequence[TokenRow], labels: Sequence[int] | np.ndarray, tokens: LabelTokens, settings: Train, learning_rate: float
) -> History:
    """Train the adapter of `model` in place.

    Parameters
    ----------
    model
        A peft model with packed attention (`babelcart.models.add_adapter`).
    rows : sequence of TokenRow
        At least one.
    labels : sequence of int
        0 or 1 for each row.
    settings : Train
        `max_tokens` divides a step into packs whose gradients are summed; it bounds memory and changes nothing else.

    Raises
    ------
    FloatingPointError
        If the loss is not finite, naming the step.
    """
    import torch
    from tqdm import tqdm

    steps = list(order(rows, settings))
    working = [parameter for parameter in model.parameters() if parameter.requires_grad]
    master = [parameter.detach().float().clone().requires_grad_() for parameter in working]
    optimizer = torch.optim.AdamW(master, lr=learning_rate, weight_decay=settings.weight_decay)
    history = History()
    model.train()
    with tqdm(total=sum(map(len, steps)), desc="train", unit="row", disable=None) as bar:
        for number, step in enumerate(steps):
            loss = 0.0
            for part in token_budget(by_query_order(step, rows), rows, settings.max_tokens):
                pack = pack_rows([rows[n] for n in part])
                logits = label_logits(model, pack, tokens)
                target = torch.tensor([int(labels[n]) for n in part], device=logits.device)
                # Summed and divided by the step's rows: the same gradient however the step is divided.
                part_loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum") / len(step)
                part_loss.backward()  # type: ignore[no-untyped-call]
                loss += part_loss.item()
                history.tokens += pack.input_ids.shape[1]
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {number + 1} of {len(steps)}; lower the learning rate")
            for kept, parameter in zip(master, working, strict=True):
                kept.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
            torch.nn.utils.clip_grad_norm_(master, settings.max_grad_norm or math.inf)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate(number, len(steps), settings)
            optimizer.step()
            with torch.no_grad():
                for kept, parameter in zip(master, working, strict=True):
                    parameter.copy_(kept)
            history.losses.append(loss)
            history.rows += len(step)
            bar.update(len(step))
            bar.set_postfix(loss=f"{sum(history.losses[-20:]) / len(history.losses[-20:]):.3f}")
    return history


def by_query_order(step: Sequence[int], rows: Sequence[TokenRow]) -> list[list[int]]:
    """The row numbers of a step grouped by query."""
    return [[step[n] for n in group] for group in by_query([rows[n] for n in step])]
