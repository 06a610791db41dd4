"""Fine-tune the adapter of a model on labelled rows.

The loss is the cross-entropy of the two label tokens after the last token of each row; no other output is computed. The frozen base
and the adapter run in the model's dtype, the optimizer keeps the adapter in float32 (`babelcart.training.optimizer`). A run that
was interrupted resumes from its last checkpoint and ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.model.batching import smaller_budget, step_packs
from babelcart.model.packing import Pack, TokenRow, pack_rows
from babelcart.training.optimizer import MasterAdamW, Schedule, schedule_factor
from babelcart.training.steps import GroupBy, sample_queries, step_order

if TYPE_CHECKING:
    import numpy as np
    import torch

    from babelcart.model.loading import ModelSettings
    from babelcart.model.prompts import LabelTokens
    from babelcart.training.checkpoints import Checkpoints
    from babelcart.training.trackers import Log


@dataclass(frozen=True)
class TrainSettings:
    """The section ``train`` of params.yaml. Keys have the names of transformers' ``TrainingArguments`` where possible."""

    SECTION: ClassVar[str] = "train"

    epochs: float = bounded(0, 1000, default=1.0)
    max_rows: int | None = bounded(1, 2**53, default=None)
    batch_size: int = bounded(1, 65536, default=32)
    group_by: GroupBy = "neighbours"
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
    cuda_graphs: bool = True
    seed: int = bounded(0, 2**63 - 1, default=0)


@dataclass(frozen=True)
class LabelledRows:
    """Tokenised rows with their labels.

    Attributes
    ----------
    rows : sequence of TokenRow
    labels : sequence of int
        0 or 1 for each row.

    Raises
    ------
    ValueError
        If `rows` and `labels` differ in length.
    """

    rows: Sequence[TokenRow]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise ValueError(f"{len(self.rows)} rows, but {len(self.labels)} labels")


@dataclass
class History:
    """Record of a training run.

    Attributes
    ----------
    losses : list of float
        Mean cross-entropy of each optimizer step, in nats per row.
    evaluations : list of dict
        ``step``, ``auc`` and ``f1`` (at the best threshold) of each evaluation step, on validation rows.
    rows : int
        Rows trained on. Each epoch counts.
    tokens : int
        Tokens computed. Tokens that rows of a pack share count once.
    max_tokens : int
        Token budget of a pack: the setting, or less if memory ran out.
    best_step : int
        Step of the adapter that was restored at the end; 0 if the last adapter was kept.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    max_tokens: int = 0
    best_step: int = 0


def balanced_weights(labels: Sequence[int]) -> list[float]:
    """Weights of the labels 0 and 1 that give both labels the same total weight, as scikit-learn's ``class_weight="balanced"``.

    Raises
    ------
    UserError
        If all labels are equal.
    """
    positives = sum(labels)
    if not 0 < positives < len(labels):
        raise UserError("params.yaml: train.class_weight is balanced, but all rows of the training set have the same label; set it to null")
    return [len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)]


def auc_and_f1(labels: Sequence[int], probability: np.ndarray) -> dict[str, float]:
    """ROC AUC, and F1 at the best threshold. Both are ratios of counts and not rounded, because they decide which adapter is kept.

    Not imported from `babelcart.scores.metrics`, so that editing metrics does not retrain models.

    Parameters
    ----------
    labels : sequence of int
        0 and 1, each at least once.
    probability : numpy.ndarray
        ``(rows,)`` p(relevant).

    Returns
    -------
    dict
        ``auc`` and ``f1``.
    """
    import numpy as np
    from scipy.stats import rankdata

    label, probability = np.asarray(labels), np.asarray(probability, dtype=float)
    positives, negatives = int(label.sum()), int((1 - label).sum())
    ranks = rankdata(probability)  # equal probabilities share their mean rank
    descending = np.argsort(-probability, kind="stable")
    predicted_positives = 1 + np.flatnonzero(np.append(np.diff(probability[descending]) != 0, True))  # by each distinct threshold
    true_positives = np.cumsum(label[descending])[predicted_positives - 1]
    return {
        "auc": float((ranks[label == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives)),
        "f1": float(np.max(2 * true_positives / (predicted_positives + positives))),
    }


class Trainer:
    """Train the adapter of a model in place.

    Parameters
    ----------
    model
        A peft model (see `babelcart.model.loading.add_adapter`).
    model_settings : ModelSettings
        `learning_rate`, if set, overrides that of `settings`; `loraplus_lr_ratio` is used, too.
    examples : LabelledRows
        At least one row to train on.
    labels : LabelTokens
        Token ids of the two answers.
    settings : TrainSettings
        `max_tokens` divides a step into packs whose gradients are summed. It limits memory and changes the gradient by rounding errors
        at most. When memory runs out, it is halved and the step is repeated.
    validation : LabelledRows, optional
        Rows of which `eval_rows` are scored every `eval_steps` steps. With `load_best_model_at_end`, the adapter of the best
        evaluation step is restored at the end.

    Raises
    ------
    UserError
        If the validation rows, or with ``class_weight: balanced`` the training rows, have only one label.
    """

    def __init__(
        self,
        model: Any,
        model_settings: ModelSettings,
        examples: LabelledRows,
        labels: LabelTokens,
        settings: TrainSettings,
        validation: LabelledRows | None = None,
    ) -> None:
        import torch

        from babelcart.training.gradients import Gradients

        self.model, self.examples, self.labels, self.settings = model, examples, labels, settings
        learning_rate = settings.learning_rate if model_settings.learning_rate is None else model_settings.learning_rate
        self.optimizer = MasterAdamW(model, learning_rate, settings.weight_decay, model_settings.loraplus_lr_ratio)
        class_weights = torch.tensor(balanced_weights(examples.labels) if settings.class_weight else [1.0, 1.0])  # (2,)
        graphs = settings.cuda_graphs and not model_settings.gradient_checkpointing and not model_settings.lora_dropout
        self.gradients = Gradients(model, labels, class_weights, settings.label_smoothing_factor, graphs)
        self.steps = list(step_order(examples.rows, settings))
        self.validation = self._validation_sample(validation)
        self.history = History(max_tokens=settings.max_tokens)
        self.best_adapter: list[torch.Tensor] = []
        self._next_packs: list[tuple[list[int], Pack]] | None = None

    def _validation_sample(self, validation: LabelledRows | None) -> LabelledRows | None:
        if validation is None or self.settings.eval_steps is None:
            return None
        indices = sample_queries(validation.rows, self.settings.eval_rows, self.settings.seed)
        sample = LabelledRows([validation.rows[index] for index in indices], [validation.labels[index] for index in indices])
        if len(set(sample.labels)) < 2:
            raise UserError(
                f"all {len(sample.labels)} validation rows of train.eval_rows have the same label, so that AUC and F1 are not defined; "
                "raise train.eval_rows or split.validation_share, or set train.eval_steps to null"
            )
        return sample

    def train(self, checkpoints: Checkpoints | None = None, log: Log | None = None) -> History:
        """Run all steps that are left, and restore the best adapter.

        Parameters
        ----------
        checkpoints : Checkpoints, optional
            Written every `save_steps` steps. If one exists, training resumes from it.
        log : callable, optional
            Called with a step and its figures (``train/loss``, ``eval/auc``, ``eval/f1``), in the order of the steps. When training
            resumes, the figures of earlier steps are logged first.

        Raises
        ------
        FloatingPointError
            If the loss is not finite. The message names the step.
        UserError
            If memory is too small for a single row.
        """
        from tqdm import tqdm

        if checkpoints:
            self._resume(checkpoints)
        log = log or (lambda step, figures: None)
        self._log_history(log)
        losses = self.history.losses
        with tqdm(total=sum(map(len, self.steps)), initial=self.history.rows, desc="train", unit="row", disable=None) as bar:
            while len(losses) < len(self.steps) and not self._stops_early():
                row_indices = self.steps[len(losses)]
                self._optimizer_step(row_indices)
                log(len(losses), {"train/loss": losses[-1]})
                bar.update(len(row_indices))
                bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}")
                if self.validation and self._is_due(self.settings.eval_steps):
                    _log_evaluation(log, self._evaluate(self.validation))
                if checkpoints and self._is_due(self.settings.save_steps):
                    self._save(checkpoints)
        self._restore_best()
        return self.history

    def _is_due(self, interval: int | None) -> bool:
        """Return whether to act after the current step: every `interval` steps and after the last one."""
        step = len(self.history.losses)
        return interval is not None and (step % interval == 0 or step == len(self.steps))

    def _log_history(self, log: Log) -> None:
        evaluations = {int(evaluation["step"]): evaluation for evaluation in self.history.evaluations}
        for step, loss in enumerate(self.history.losses, 1):
            log(step, {"train/loss": loss})
            if step in evaluations:
                _log_evaluation(log, evaluations[step])

    def _optimizer_step(self, row_indices: list[int]) -> None:
        step_index = len(self.history.losses)
        while (loss_and_tokens := self._accumulate_gradients(row_indices)) is None:
            self.optimizer.zero_grad()
        loss, tokens = loss_and_tokens
        factor = schedule_factor(step_index, len(self.steps), self.settings.warmup_ratio, self.settings.lr_scheduler_type)
        self.optimizer.step(factor, self.settings.max_grad_norm)
        if step_index + 1 < len(self.steps):
            self._next_packs = self._packs(self.steps[step_index + 1])  # before the loss is read, while a GPU still computes the step
        if not math.isfinite(float(loss)):
            raise FloatingPointError(f"the loss is {float(loss)} at step {step_index + 1} of {len(self.steps)}; lower the learning rate")
        self.history.losses.append(float(loss))
        self.history.rows += len(row_indices)
        self.history.tokens += tokens

    def _accumulate_gradients(self, row_indices: list[int]) -> tuple[torch.Tensor, int] | None:
        """Loss ``()`` and number of tokens of a step; None, with a smaller token budget for the next attempt, if memory runs out."""
        import torch

        self.model.train()
        packs, self._next_packs = self._next_packs or self._packs(row_indices), None
        loss = torch.zeros((), dtype=torch.float64, device=self.gradients.device)
        for pack_indices, pack in packs:
            target = torch.tensor([int(self.examples.labels[index]) for index in pack_indices])  # (rows of the pack,)
            try:
                loss += self.gradients.add(pack, target, len(row_indices))
            except RuntimeError as error:
                self.gradients.release()
                rows = [self.examples.rows[index] for index in pack_indices]
                self.history.max_tokens = smaller_budget(error, self.history.max_tokens, rows)
                return None
        return loss, sum(pack.input_ids.shape[1] for _, pack in packs)

    def _packs(self, row_indices: list[int]) -> list[tuple[list[int], Pack]]:
        """Row indices and tokens of the packs of a step."""
        parts = step_packs(row_indices, self.examples.rows, self.history.max_tokens)
        return [(part, pack_rows([self.examples.rows[index] for index in part])) for part in parts]

    def _evaluate(self, validation: LabelledRows) -> dict[str, float]:
        """Score validation rows; copy the adapter if it is the best one so far."""
        from babelcart.model.scoring import Predict, score

        probability = score(self.model, validation.rows, self.labels, Predict(max_tokens=self.history.max_tokens))  # (rows,)
        evaluation = {"step": len(self.history.losses), **auc_and_f1(validation.labels, probability)}
        metric = self.settings.metric_for_best_model
        if all(evaluation[metric] > earlier[metric] for earlier in self.history.evaluations):
            self.history.best_step = len(self.history.losses)
            self.best_adapter = [parameter.detach().clone() for parameter in self.optimizer.working]
        self.history.evaluations.append(evaluation)
        return evaluation

    def _stops_early(self) -> bool:
        """Return whether the last `early_stopping_patience` evaluations brought no improvement."""
        patience = self.settings.early_stopping_patience
        evaluations_since_best = sum(evaluation["step"] > self.history.best_step for evaluation in self.history.evaluations)
        return patience is not None and evaluations_since_best >= patience

    def _restore_best(self) -> None:
        import torch

        if not self.best_adapter or not self.settings.load_best_model_at_end:
            self.history.best_step = 0
            return
        with torch.no_grad():
            for parameter, best in zip(self.optimizer.working, self.best_adapter, strict=True):
                parameter.copy_(best)

    def _save(self, checkpoints: Checkpoints) -> None:
        import torch

        tensors = self.optimizer.tensors() | {f"best.{index}": tensor for index, tensor in enumerate(self.best_adapter)}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random_cuda"] = torch.cuda.get_rng_state()
        checkpoints.save(len(self.history.losses), tensors, asdict(self.history))

    def _resume(self, checkpoints: Checkpoints) -> None:
        import torch
        from tqdm import tqdm

        checkpoint = checkpoints.load()
        if checkpoint is None:
            return
        tensors, state = checkpoint
        self.history = History(**state)
        self.optimizer.load(tensors)
        best_count = sum(name.startswith("best.") for name in tensors)
        self.best_adapter = [tensors[f"best.{index}"] for index in range(best_count)]
        torch.set_rng_state(tensors["random"])
        if "random_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random_cuda"])
        tqdm.write(f"resuming after step {len(self.history.losses)} of {len(self.steps)}", file=sys.stderr)


def _log_evaluation(log: Log, evaluation: dict[str, float]) -> None:
    log(int(evaluation["step"]), {f"eval/{name}": figure for name, figure in evaluation.items() if name != "step"})
