"""Reading params.yaml into frozen dataclasses that refuse what they do not know.

Each section of params.yaml is a dataclass beside the code that uses it (`training.Train`, `metrics.Evaluate` ...), so that a
stage depends on its own settings and on nobody else's. A key has the name of the library argument that it feeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from babelcart.core.errors import UNWRITABLE, UserError, short_repr

Section = TypeVar("Section")

PARAMS = Path("params.yaml")
MAX_ALIASES = 32
SECTIONS = (
    "tasks", "run", "data", "prepare", "split", "translate", "negatives", "prompts", "train", "predict", "evaluate", "attack", "submit",
    "models",
)  # fmt: skip


def bounded(low: float, high: float, *, default: Any) -> Any:
    """A dataclass field whose number lies between `low` and `high`, both allowed."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def _plain(key: Any) -> str:
    """A key as people write it, if it is one that they write."""
    return key if isinstance(key, str) and key.isprintable() and len(key) < 100 else short_repr(key)


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
            return {
                _convert(str, str(key) if type(key) is int else key, where): _convert(member, item, f"{where}.{key}")
                for key, item in value.items()
            }
    elif dataclasses.is_dataclass(kind):
        return build_section(typing.cast(Any, kind), value, where)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and abs(value) != float("inf"):
            with contextlib.suppress(OverflowError):
                return float(value)
    elif kind is str:
        if isinstance(value, str) and not UNWRITABLE.search(value):
            return value
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UserError(f"params.yaml: {where} is {short_repr(value)}; accepted: {_describe(kind)}")


def build_section(kind: type[Section], values: Any, where: str) -> Section:
    """Build one section from what YAML gave.

    Raises
    ------
    UserError
        Names the key: unknown, missing, or of the wrong kind, and says what is accepted.
    """
    if not isinstance(values, dict):
        raise UserError(f"params.yaml: {where} is {short_repr(values)}; accepted: {_describe(kind)}")
    hints = typing.get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(typing.cast(Any, kind))}
    for key in values:
        if key not in fields:
            raise UserError(f"params.yaml: unknown key {where}.{_plain(key)}; accepted: {', '.join(fields)}")
    built = {}
    for name, one in fields.items():
        if name in values:
            value = built[name] = _convert(hints[name], values[name], f"{where}.{name}")
            low, high = one.metadata.get("range", (None, None))
            if low is not None and isinstance(value, (int, float)) and not low <= value <= high:
                raise UserError(f"params.yaml: {where}.{name} is {short_repr(value)}; accepted: {low} to {high}")
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise UserError(f"params.yaml: {where}.{name} is missing; accepted: {_describe(hints[name])}")
    try:
        return kind(**built)
    except ValueError as error:
        raise UserError(f"params.yaml: {where}: {error}") from error


def read_params() -> dict[str, Any]:
    """The sections of params.yaml as YAML 1.2 gives them, as DVC reads them (so ``1e-4`` is a number).

    Raises
    ------
    UserError
        If the file is missing, is not YAML, or has a section that is not one of `SECTIONS`.
    """
    try:
        values = parse_yaml(PARAMS.read_text(encoding="utf-8"), str(PARAMS))
    except FileNotFoundError:
        raise UserError(f"{PARAMS} does not exist; run from the top folder of the project") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{PARAMS} is not UTF-8 text: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"params.yaml: the file is {short_repr(values)}; accepted: sections {', '.join(SECTIONS)}")
    for key in values:
        if key not in SECTIONS:
            raise UserError(f"params.yaml: unknown key {_plain(key)}; accepted: {', '.join(SECTIONS)}")
    return values


@functools.lru_cache(maxsize=1)  # a stage loads several sections
def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text that is called `name` in messages; it is not to be changed.

    Raises
    ------
    UserError
        If it is not YAML, or says more by aliases than anybody writes.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.events import AliasEvent

    try:
        # Aliases in merge keys are copied, and multiply from level to level; elsewhere they cost nothing.
        if "<<" in text and sum(isinstance(event, AliasEvent) for event in YAML(typ="safe").parse(text)) > MAX_ALIASES:
            raise UserError(f"{name} merges (<<) and has more than {MAX_ALIASES} aliases (*name); write some of them out")
        return YAML(typ="safe").load(text)
    except UserError:
        raise
    except Exception as error:  # the parser lets through what Python says of a bad date, number or tag, and of a deep nesting
        raise UserError(f"{name} is not YAML: {type(error).__name__}: {error}") from error


def load(where: str, kind: type[Section]) -> Section:
    """One section of params.yaml: ``load("train", Train)``, ``load("models.tiny", Model)``, ``load("tasks", tuple[str, ...])``.

    Raises
    ------
    UserError
        Names the key: unknown, missing, or of the wrong kind, and says what is accepted.
    """
    values: Any = read_params()
    names = where.split(".")
    for depth, name in enumerate(names):
        if not isinstance(values, dict) or name not in values:
            parent = "".join(f"{one}: " for one in names[:depth]) or "the file "
            there = ", ".join(map(_plain, values)) if isinstance(values, dict) else short_repr(values)
            raise UserError(f"params.yaml: no {where}; {parent}has {there}")
        values = values[name]
    return typing.cast(Section, _convert(kind, values, where))
