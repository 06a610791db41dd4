"""A trained model with all that is needed to answer rows: tokenizer, thresholds, and what the training rows covered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core import config
from babelcart.core.errors import UserError, readable_folder
from babelcart.core.files import read_json, sha256
from babelcart.domain import TrainingDomain
from babelcart.model import scoring
from babelcart.model.loading import check_adapter
from babelcart.model.prefix_cache import PrefixCache, PrefixTree
from babelcart.model.prompts import RowTexts
from babelcart.model.task_model import TaskModel, read_task_model
from babelcart.scores import metrics

if TYPE_CHECKING:
    import numpy as np

    from babelcart.model.packing import TokenRow
    from babelcart.model.prompts import PromptTokenizer

WEIGHTS = "adapter_model.safetensors"
SCORES = "metrics.json"  # in the folder of an adapter that is not that of the workspace
REVISION_LENGTH = 12  # hexadecimal digits


@dataclass(frozen=True)
class NewAdapter:
    """An adapter that was read and is not used yet; the attributes are those of `Scorer`.

    Attributes
    ----------
    weights : dict of str to torch.Tensor
    decision : babelcart.scores.metrics.Decision
    domain : TrainingDomain, optional
    revision : str
    """

    weights: dict[str, Any]
    decision: metrics.Decision
    domain: TrainingDomain | None
    revision: str


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
        That of the training rows in the workspace; None if they are missing.
    revision : str
        The beginning of the SHA-256 of the adapter's weights.
    scores : pathlib.Path
        The file of the thresholds.
    adapter_config : dict
        Content of the adapter's adapter_config.json.
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
    scores: Path
    adapter_config: Any

    @property
    def needs_language(self) -> bool:
        """Whether an answer depends on the language of the query."""
        return "{language}" in self.task_model.prompt.template or bool(self.decision.languages)

    def read_adapter(self) -> NewAdapter:
        """Read the adapter and the thresholds that the workspace has now, without using them.

        Raises
        ------
        UserError
            If the adapter has another shape or prompt than the loaded one.
        """
        from safetensors.torch import load

        folder = self.task_model.adapter
        self.task_model.check_prompt()
        check_adapter(folder)
        if read_json(folder / "adapter_config.json", {...: object}) != self.adapter_config:
            raise UserError(f"{folder} has other settings of LoRA than the adapter that was loaded; start the server again")
        content = (folder / WEIGHTS).read_bytes()
        with readable_folder(folder):
            weights = load(content)
        revision = hashlib.sha256(content).hexdigest()[:REVISION_LENGTH]
        return NewAdapter(weights, _decision(self.scores), TrainingDomain.read(self.task), revision)

    def use_adapter(self, adapter: NewAdapter) -> None:
        """Replace the weights, the thresholds and the facts about the training rows."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, adapter.weights)
        self.decision, self.domain, self.revision = adapter.decision, adapter.domain, adapter.revision

    def chunk_probability(
        self, rows: Sequence[TokenRow], cache: PrefixCache, update: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Compute p(relevant) of rows, ``(rows,)``; see `babelcart.model.scoring.score_chunks`."""
        return scoring.score_chunks(self.model, rows, self.tokenizer.labels, self.settings, cache, update)

    def candidate_prefixes(self, candidates: Sequence[str]) -> PrefixCache:
        """Compute the prefixes of candidates that do not depend on the query, within the memory of ``predict.prefix_cache_gib``.

        They are those that the rows of two queries without a common token share. With the query first in the prompt, there are none
        except the instruction. Without candidates, the cache is empty.
        """
        if not candidates:
            return PrefixCache(PrefixTree())
        rows = self.tokenizer.encode_many([RowTexts("", query, candidate) for query in ("0", "?") for candidate in candidates])
        return scoring.part_prefixes(self.model, rows, replace(self.settings, chunk_rows=len(candidates)))  # a chunk for each query

    def threshold(self, language: str) -> float:
        """Return the threshold for rows of a language."""
        return self.decision.threshold_of(language)

    def notes(self, rows: Sequence[RowTexts]) -> list[list[str]]:
        """Return the keys of `babelcart.domain.NOTES` that hold for each row."""
        truncated = self.tokenizer.truncated_fields(rows)
        domain = self.domain
        new = [domain.notes(row.language, row.candidate) if domain else [] for row in rows]
        return [[*notes, *(f"{field}_truncated" for field in fields)] for notes, fields in zip(new, truncated, strict=True)]


def load_scorer(name: str, task: str, threshold: float | None = None, adapter: Path | None = None) -> Scorer:
    """Load a trained model.

    Parameters
    ----------
    name : str
        Name of a block under ``models:`` in params.yaml.
    task : str
    threshold : float, optional
        In place of the thresholds in metrics/NAME/TASK.json.
    adapter : pathlib.Path, optional
        Folder of another adapter of the same base model, with its thresholds in `SCORES`.

    Raises
    ------
    UserError
        If the prompt uses a translation of the query, or if the adapter, the base model or the thresholds are missing or not readable.
    """
    scores = adapter / SCORES if adapter else Path("metrics") / name / f"{task}.json"
    task_model = read_task_model(Path("models") / name, task)
    if adapter:
        task_model = replace(task_model, adapter=adapter)
    if "{pivot}" in task_model.prompt.template:
        raise UserError(
            f"params.yaml: the prompt of {task} uses {{pivot}}, a translation of the query, which only the rows of the pipeline have; "
            "train with {query} in its place to score other rows"
        )
    decision = _decision(scores) if threshold is None else metrics.Decision(threshold, {})
    return Scorer(
        name,
        task,
        task_model,
        task_model.load_tokenizer(),
        task_model.load_adapted(),
        config.load_section(scoring.Predict),
        decision,
        TrainingDomain.read(task),
        adapter_revision(task_model.adapter),
        scores,
        read_json(task_model.adapter / "adapter_config.json", {...: object}),
    )


def _decision(scores: Path) -> metrics.Decision:
    if not scores.exists():
        raise UserError(
            f"{scores} does not exist, so that no threshold is known; run `dvc repro` (`score` and `ask` also accept --threshold)"
        )
    return metrics.Decision.from_scores(read_json(scores, metrics.SCORES))


def adapter_revision(adapter: Path) -> str:
    """Return the revision of an adapter in a folder: the beginning of the SHA-256 of its weights."""
    return sha256(adapter / WEIGHTS)[:REVISION_LENGTH]
