"""Fine-tuning an adapter: label-token loss on the last position of each row, nothing else computed.

The frozen base and the adapter run in the model's dtype; the optimiser keeps the adapter in float32 (`babelcart.training.optimizer`).
A run that was stopped goes on from its last checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.model.batching import by_query, smaller_budget, token_budget
from babelcart.model.loading import label_logits
from babelcart.model.packing import TokenRow, pack_rows
from babelcart.training.optimizer import MasterAdamW, Schedule, schedule_factor

if TYPE_CHECKING:
    import numpy as np
    import torch

    from babelcart.model.prompts import LabelTokens
    from babelcart.training.checkpoints import Checkpoints
    from babelcart.training.curves import Log


@dataclass(frozen=True)
class TrainSettings:
    """The section ``train`` of params.yaml; names are those of transformers' ``TrainingArguments`` where it has them."""

    SECTION: ClassVar[str] = "train"

    epochs: float = bounded(0, 1000, default=1.0)
    max_rows: int | None = bounded(1, 2**53, default=None)
    batch_size: int = bounded(1, 65536, default=32)
    learning_rate: float = bounded(0, 1, default=3e-4)
    lr_scheduler_type: Schedule = "linear"
    warmup_ratio: float = bounded(0, 1, default=0.05)
    weight_decay: float = bounded(0, 1, default=0.0)
    max_grad_norm: float = bounded(0, 1e6, default=1.0)
    class_weight: Literal["balanced"] | None = None
    label_smoothing_factor: float = bounded(0, 0.99, default=0.0)
    eval_steps: int | None = bounded(1, 2**31, default=None)
    eval_rows: int = bounded(2, 2**31, default=500)
    metric_for_best_model: Literal["auc", "f1"] = "auc"
    load_best_model_at_end: bool = True
    early_stopping_patience: int | None = bounded(1, 2**31, default=None)
    save_steps: int = bounded(1, 2**31, default=50)
    max_tokens: int = bounded(1, 2**31, default=4096)
    seed: int = bounded(0, 2**63 - 1, default=0)


@dataclass(frozen=True)
class LabelledRows:
    """Rows of tokens and the label, 0 or 1, of each.

    Raises
    ------
    ValueError
        If there are more of one than of the other.
    """

    rows: Sequence[TokenRow]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise ValueError(f"{len(self.rows)} rows, but {len(self.labels)} labels")


@dataclass
class History:
    """What training saw.

    Attributes
    ----------
    losses : list of float
        Mean cross-entropy (nats a row) of each optimiser step.
    evaluations : list of dict
        ``step``, ``auc`` and ``f1`` (at its best threshold) on validation rows.
    rows : int
        Rows seen, counting every epoch.
    tokens : int
        Tokens computed, shared prefixes counted once.
    max_tokens : int
        Tokens of a pack, less than asked for if memory ran out.
    best_step : int
        The step whose adapter was kept; 0 if the last was.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    max_tokens: int = 0
    best_step: int = 0


def step_order(rows: Sequence[TokenRow], settings: TrainSettings) -> Iterator[list[int]]:
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


def balanced_weights(labels: Sequence[int]) -> list[float]:
    """Weights of the labels 0 and 1 that make both count equally, as scikit-learn's ``class_weight="balanced"``."""
    positives = sum(labels)
    if not 0 < positives < len(labels):
        raise UserError("params.yaml: train.class_weight is balanced, but all rows of the training set have the same label")
    return [len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)]


def auc_and_f1(labels: Sequence[int], probability: np.ndarray) -> dict[str, float]:
    """ROC AUC, and the F1 of the best threshold. (Not from `babelcart.scores.metrics`: a new metric there shall not train again.)"""
    import numpy as np
    from sklearn.metrics import precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(labels, probability)
    f1 = float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    return {"auc": round(float(roc_auc_score(labels, probability)), 6), "f1": round(f1, 6)}


def sample_queries(data: LabelledRows, count: int, seed: int) -> LabelledRows:
    """About `count` rows of whole queries, drawn by `seed`; all if there are no more."""
    import numpy as np

    groups = by_query(data.rows)
    chosen: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) >= count:
            break
        chosen.extend(groups[number])
    return LabelledRows([data.rows[n] for n in chosen], [data.labels[n] for n in chosen])


def train(
    model: Any,
    data: LabelledRows,
    tokens: LabelTokens,
    settings: TrainSettings,
    learning_rate: float,
    *,
    validation: LabelledRows | None = None,
    checkpoints: Checkpoints | None = None,
    log: Log | None = None,
    loraplus_lr_ratio: float = 1.0,
) -> History:
    """Train the adapter of `model` in place.

    Parameters
    ----------
    model
        A peft model (`babelcart.model.loading.add_adapter`).
    data : Labelled
        At least one row.
    settings : Train
        `max_tokens` divides a step into packs whose gradients are summed; it bounds memory and changes nothing else. Where
        memory runs out it is halved and the step is done again.
    validation : Labelled, optional
        Scored every `eval_steps`; the adapter that did best is kept, if `load_best_model_at_end`.
    checkpoints : Checkpoints, optional
        Written every `save_steps`; if there is one, training goes on from it.
    log : callable, optional
        Called with a step and its figures (``train/loss``, ``eval/auc`` ...), after a resumption with the earlier ones first.
    loraplus_lr_ratio : float
        See `babelcart.training.optimizer.MasterAdamW`.

    Raises
    ------
    FloatingPointError
        If the loss is not finite, naming the step.
    UserError
        If validation is asked for and its rows have one label only, or memory does not suffice for a single row.
    """
    run = _Run(model, data, tokens, settings, MasterAdamW(model, learning_rate, settings.weight_decay, loraplus_lr_ratio))
    if validation is not None and settings.eval_steps is not None:
        run.validation = sample_queries(validation, settings.eval_rows, settings.seed)
        if len(set(run.validation.labels)) < 2:
            raise UserError(
                f"the {len(run.validation.labels)} validation rows of train.eval_rows have one label only: nothing can be compared; "
                "raise train.eval_rows or split.validation_share, or set train.eval_steps to null"
            )
    run.resume(checkpoints)
    run.go(checkpoints, log or (lambda step, values: None))
    return run.history


class _Run:
    """One training: what changes while it runs, so that it can be kept and taken up again."""

    def __init__(self, model: Any, data: LabelledRows, tokens: LabelTokens, settings: TrainSettings, optimizer: MasterAdamW) -> None:
        import torch

        self.model, self.data, self.tokens, self.settings, self.optimizer = model, data, tokens, settings, optimizer
        self.validation: LabelledRows | None = None
        self.steps = list(step_order(data.rows, settings))
        self.history = History(max_tokens=settings.max_tokens)
        self.best: list[torch.Tensor] = []
        weights = balanced_weights(data.labels) if settings.class_weight else [1.0, 1.0]
        self.weights = torch.tensor(weights)

    def go(self, checkpoints: Checkpoints | None, log: Log) -> None:
        from tqdm import tqdm

        history, settings, total = self.history, self.settings, len(self.steps)
        for step, loss in enumerate(history.losses, 1):
            log(step, {"train/loss": loss})
        for figures in history.evaluations:
            log(int(figures["step"]), {f"eval/{name}": value for name, value in figures.items() if name != "step"})
        with tqdm(total=sum(map(len, self.steps)), initial=history.rows, desc="train", unit="row", disable=None) as bar:
            while len(history.losses) < total and not self._stale():
                number = len(history.losses)
                history.losses.append(self._step(self.steps[number], number))
                history.rows += len(self.steps[number])
                log(number + 1, {"train/loss": history.losses[-1]})
                bar.update(len(self.steps[number]))
                bar.set_postfix(loss=f"{sum(history.losses[-20:]) / len(history.losses[-20:]):.3f}")
                if self.validation and ((number + 1) % settings.eval_steps == 0 or number + 1 == total):  # type: ignore[operator]
                    figures = self._evaluate(number + 1)
                    log(number + 1, {f"eval/{name}": value for name, value in figures.items() if name != "step"})
                if checkpoints and ((number + 1) % settings.save_steps == 0 or number + 1 == total):
                    self._save(checkpoints)
        self._keep_best()

    def _step(self, step: list[int], number: int) -> float:
        while True:
            loss, tokens = 0.0, 0
            self.model.train()
            for part in token_budget(_grouped(step, self.data.rows), self.data.rows, self.history.max_tokens):
                try:
                    part_loss, part_tokens = self._backward(part, len(step))
                except RuntimeError as error:
                    self.history.max_tokens = smaller_budget(error, self.history.max_tokens, part, self.data.rows)
                    self.optimizer.zero_grad()
                    break
                loss, tokens = loss + part_loss, tokens + part_tokens
            else:
                break
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {number + 1} of {len(self.steps)}; lower the learning rate")
        share = schedule_factor(number, len(self.steps), self.settings.warmup_ratio, self.settings.lr_scheduler_type)
        self.optimizer.step(share, self.settings.max_grad_norm)
        self.history.tokens += tokens
        return loss

    def _backward(self, part: list[int], rows: int) -> tuple[float, int]:
        import torch

        pack = pack_rows([self.data.rows[n] for n in part])
        logits = label_logits(self.model, pack, self.tokens)
        target = torch.tensor([int(self.data.labels[n]) for n in part], device=logits.device)
        # Summed and divided by the step's rows: the same gradient however the step is divided.
        loss = torch.nn.functional.cross_entropy(
            logits,
            target,
            weight=self.weights.to(logits.device),
            label_smoothing=self.settings.label_smoothing_factor,
            reduction="sum",
        )
        loss = loss / rows
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), pack.input_ids.shape[1]

    def _evaluate(self, step: int) -> dict[str, float]:
        from babelcart.model.scoring import score

        assert self.validation is not None
        probability = score(self.model, self.validation.rows, self.tokens, self.history.max_tokens)
        figures = {"step": step, **auc_and_f1(self.validation.labels, probability)}
        metric = self.settings.metric_for_best_model
        if all(figures[metric] > earlier[metric] for earlier in self.history.evaluations):
            self.history.best_step = step
            self.best = [parameter.detach().clone() for parameter in self.optimizer.working]
        self.history.evaluations.append(figures)
        return figures

    def _stale(self) -> bool:
        """Whether the last `early_stopping_patience` evaluations brought nothing better."""
        patience = self.settings.early_stopping_patience
        late = sum(figures["step"] > self.history.best_step for figures in self.history.evaluations)
        return patience is not None and late >= patience

    def _keep_best(self) -> None:
        import torch

        if not self.best or not self.settings.load_best_model_at_end:
            self.history.best_step = 0
            return
        with torch.no_grad():
            for parameter, kept in zip(self.optimizer.working, self.best, strict=True):
                parameter.copy_(kept)

    def _save(self, checkpoints: Checkpoints) -> None:
        import torch

        tensors = self.optimizer.tensors() | {f"best.{number}": kept for number, kept in enumerate(self.best)}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random_cuda"] = torch.cuda.get_rng_state()
        checkpoints.save(len(self.history.losses), tensors, asdict(self.history))

    def resume(self, checkpoints: Checkpoints | None) -> None:
        import torch
        from tqdm import tqdm

        found = checkpoints.load() if checkpoints else None
        if found is None:
            return
        tensors, state = found
        self.history = History(**state)
        self.optimizer.load(tensors)
        self.best = [tensors[f"best.{number}"] for number in range(sum(name.startswith("best.") for name in tensors))]
        torch.set_rng_state(tensors["random"])
        tqdm.write(f"going on after step {len(self.history.losses)} of {len(self.steps)}", file=sys.stderr)
        if "random_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random_cuda"])


def _grouped(step: Sequence[int], rows: Sequence[TokenRow]) -> list[list[int]]:
    """The row numbers of a step grouped by query."""
    return [[step[n] for n in group] for group in by_query([rows[n] for n in step])]
