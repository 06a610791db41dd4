"""A trained model with all that is needed to answer rows: tokenizer, thresholds, and what the training rows covered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.files import read_json, sha256
from babelcart.domain import TrainingDomain
from babelcart.model import scoring
from babelcart.model.task_model import TaskModel, read_task_model
from babelcart.scores import metrics

if TYPE_CHECKING:
    import numpy as np

    from babelcart.model.packing import TokenRow
    from babelcart.model.prefix_cache import PrefixCache
    from babelcart.model.prompts import PromptTokenizer, RowTexts

REVISION_LENGTH = 12  # hexadecimal digits


@dataclass
class Scorer:
    """Answers rows of one task with one model.

    Attributes
    ----------
    name, task : str
    task_model : TaskModel
    tokenizer : PromptTokenizer
    model
        The base model with the adapter, as `TaskModel.load_adapted` returns it.
    settings : babelcart.model.scoring.Predict
    decision : babelcart.scores.metrics.Decision
    domain : TrainingDomain, optional
    revision : str
        The beginning of the SHA-256 of the adapter's weights.
    """

    name: str
    task: str
    task_model: TaskModel
    tokenizer: PromptTokenizer
    model: Any
    settings: scoring.Predict
    decision: metrics.Decision
    domain: TrainingDomain | None
    revision: str

    def chunk_probability(self, rows: Sequence[TokenRow], cache: PrefixCache, update: Callable[[int], object]) -> np.ndarray:
        """Compute p(relevant) of rows, ``(rows,)``; see `babelcart.model.scoring.score_chunks`."""
        return scoring.score_chunks(self.model, rows, self.tokenizer.labels, self.settings, cache, update)

    def threshold(self, language: str) -> float:
        """Return the threshold for rows of a language."""
        return self.decision.languages.get(language, self.decision.threshold)

    def notes(self, rows: Sequence[RowTexts]) -> list[list[str]]:
        """Return the keys of `babelcart.domain.NOTES` that hold for each row."""
        truncated = self.tokenizer.truncated_fields(rows)
        domain = self.domain
        new = [domain.notes(row.language, row.candidate) if domain else [] for row in rows]
        return [[*notes, *(f"{field}_truncated" for field in fields)] for notes, fields in zip(new, truncated, strict=True)]


def load_scorer(name: str, task: str, threshold: float | None = None) -> Scorer:
    """Load a trained model.

    Parameters
    ----------
    name : str
        Name of a block under ``models:`` in params.yaml.
    task : str
    threshold : float, optional
        In place of the thresholds in metrics/NAME/TASK.json.

    Raises
    ------
    UserError
        If the prompt uses a translation of the query, or if the adapter, the base model or the thresholds are missing or not readable.
    """
    folder, scores = Path("models") / name, Path("metrics") / name / f"{task}.json"
    task_model = read_task_model(folder, task)
    if "{pivot}" in task_model.prompt.template:
        raise UserError(
            f"params.yaml: the prompt of {task} uses {{pivot}}, a translation of the query, which only the rows of the pipeline have; "
            "train with {query} in its place to score other rows"
        )
    if threshold is None and not scores.exists():
        raise UserError(f"{scores} does not exist, so that no threshold is known; run `dvc repro`, or choose one with --threshold")
    if threshold is None:
        decision = metrics.Decision.from_scores(read_json(scores, metrics.SCORES))
    else:
        decision = metrics.Decision(threshold, {})
    return Scorer(
        name,
        task,
        task_model,
        task_model.load_tokenizer(),
        task_model.load_adapted(),
        config.load_section(scoring.Predict),
        decision,
        TrainingDomain.read(task),
        sha256(task_model.adapter / "adapter_model.safetensors")[:REVISION_LENGTH],
    )
