"""The settings, prompt, tokenizer and weights of a model for one task, read and loaded in the same way everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babelcart.core import config
from babelcart.model.loading import ModelSettings, for_this_cpu, load_adapter, load_base, load_tokenizer
from babelcart.model.prompts import Prompt, PromptTokenizer


@dataclass(frozen=True)
class TaskModel:
    """A base model, its adapter for one task, and the prompt of the task. Weights and tokenizer are loaded only by the methods.

    Attributes
    ----------
    base : pathlib.Path
        Folder of the base model, written by the `base` stage.
    adapter : pathlib.Path
        Folder of the task's adapter, written by the `train` stage.
    settings : ModelSettings
        As written in params.yaml; see `local_settings`.
    prompt : Prompt
    """

    base: Path
    adapter: Path
    settings: ModelSettings
    prompt: Prompt

    @property
    def local_settings(self) -> ModelSettings:
        """The settings with the dtype that is used on this machine (see `babelcart.model.loading.for_this_cpu`)."""
        return for_this_cpu(self.settings)

    def load_tokenizer(self) -> PromptTokenizer:
        """Load the tokenizer of the base model and combine it with the prompt."""
        return PromptTokenizer(load_tokenizer(self.base), self.prompt)

    def load_base(self) -> Any:
        """Load the frozen base model with `local_settings`."""
        return load_base(self.base, self.local_settings)

    def load_adapted(self) -> Any:
        """Load the base model with `local_settings` and the trained adapter."""
        return load_adapter(self.load_base(), self.adapter)


def read_task_model(folder: Path, task: str) -> TaskModel:
    """Read the settings and the prompt of a model and a task from params.yaml.

    Parameters
    ----------
    folder : pathlib.Path
        ``models/NAME``, where NAME is a block under ``models:``. It holds ``base`` and one folder for each adapter.
    task : str
        Name of the adapter's folder and of the block under ``prompts:``.

    Raises
    ------
    UserError
        If params.yaml lacks one of the two blocks, or a setting is not accepted.
    """
    settings = config.load_section(ModelSettings, folder.name)
    return TaskModel(folder / "base", folder / task, settings, config.load_section(Prompt, task))
