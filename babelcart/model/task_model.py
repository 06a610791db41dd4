"""The settings, prompt, tokenizer and weights of a model for one task, read and loaded in the same way everywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.files import read_json, write_json
from babelcart.model.loading import ModelSettings, for_this_machine, load_adapter, load_base, load_config, load_tokenizer, save_adapter
from babelcart.model.prompts import Prompt, PromptTokenizer
from babelcart.weights.fetching import SOURCE_RECORD

# In the folder of an adapter: the prompt that it was trained with.
PROMPT_RECORD = "prompt.json"


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
        """The settings with the dtype that is used on this machine (see `babelcart.model.loading.for_this_machine`)."""
        return for_this_machine(self.settings)

    def source_record(self) -> str:
        """Return the text of base.json, which names the source and the hashes of the base model."""
        return (self.base / SOURCE_RECORD).read_text(encoding="utf-8")

    def load_config(self) -> Any:
        """Load the configuration of the base model."""
        return load_config(self.base)

    def load_tokenizer(self) -> PromptTokenizer:
        """Load the tokenizer of the base model and combine it with the prompt."""
        return PromptTokenizer(load_tokenizer(self.base), self.prompt)

    def load_base(self) -> Any:
        """Load the frozen base model with `local_settings`."""
        return load_base(self.base, self.local_settings)

    def load_adapted(self) -> Any:
        """Load the base model with `local_settings` and the trained adapter.

        Raises
        ------
        UserError
            If the adapter was trained with another prompt, or is not readable.
        """
        self.check_prompt()
        return load_adapter(self.load_base(), self.adapter)

    def save_adapter(self, model: Any) -> None:
        """Write the adapter of a trained model, and the prompt beside it."""
        save_adapter(model, self.adapter, self.base)
        write_json(self.adapter / PROMPT_RECORD, asdict(self.prompt))

    def check_prompt(self) -> None:
        """Raise UserError if the adapter was trained with another prompt, whose answers would mean nothing here."""
        recorded, current = read_json(self.adapter / PROMPT_RECORD, {...: object}), asdict(self.prompt)
        if different := [key for key in {**recorded, **current} if recorded.get(key) != current.get(key)]:
            key = different[0]
            raise UserError(
                f"{self.adapter} was trained with another prompt: {key} was {recorded.get(key)!r}, and params.yaml has "
                f"{current.get(key)!r}. Restore the prompt in params.yaml, or train again with `dvc repro`"
            )


def read_task_model(folder: Path, task: str) -> TaskModel:
    """Read the settings and the prompt of a model and a task from params.yaml.

    Parameters
    ----------
    folder : pathlib.Path
        ``models/NAME``, where NAME is a block under ``models:``. It holds ``base`` and one folder for each adapter.
    task : str
        Name of the adapter's folder and of the block under ``prompts:``, of the model or of params.yaml.

    Raises
    ------
    UserError
        If params.yaml lacks one of the two blocks, or a setting is not accepted.
    """
    settings = config.load_section(ModelSettings, folder.name)
    prompt = (settings.prompts or {}).get(task) or config.load_section(Prompt, task)
    return TaskModel(folder / "base", folder / task, settings, prompt)
