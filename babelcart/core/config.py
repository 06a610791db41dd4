"""Load params.yaml into frozen dataclasses that refuse unknown keys.

A dataclass of settings is defined next to the code that uses it, so that a stage depends only on its own settings. Its class variable
``SECTION`` names its section of params.yaml: ``train``, or ``models.*`` for blocks with names of their own. A key has the name of the
library argument that it sets.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from babelcart.core import graph
from babelcart.core.errors import UNWRITABLE, UserError, did_you_mean, short_repr
from babelcart.core.files import parse_yaml

Settings = TypeVar("Settings")

PARAMS = Path("params.yaml")
# Sections that are lists, not dataclasses.
LISTS = ("run", "tasks")
# Keys that no stage depends on: a change of them runs nothing again.
UNTRACKED = ("report_to",)
# An integer with leading zeros, or a date, without quotes.
_MISREAD = re.compile(r"(?<![\w.+-])(?:[-+]?0[0-9]+|(?P<date>\d{4}-\d\d?-\d\d?(?:[Tt ][\d:.+Z-]*)?))(?![\w.-])")
# An option whose value is one character, but # starts a comment.
_COMMENT = re.compile(r"\s*(delimiter|escape|separator):\s+#")
_DECLARATION = re.compile(r'^    SECTION: ClassVar\[str\] = "(\w+)', re.M)


class SettingError(UserError):
    """A setting that is not accepted; `where` is its dotted key."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{PARAMS}: {message}")
        self.where, self.message = where, message


def bounded(low: float, high: float, *, default: Any) -> Any:
    """Return a dataclass field for a number from `low` to `high`, both inclusive."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def _plain(key: Any) -> str:
    """Return a key of YAML for a message: as it is if it is short and printable, else its `short_repr`."""
    return key if isinstance(key, str) and key.isprintable() and len(key) < 100 else short_repr(key)


def _describe(kind: Any) -> str:
    """Return the values that a type accepts, for a message."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(member) for member in typing.get_args(kind))
    if origin is tuple:
        return f"a list, each item {_describe(typing.get_args(kind)[0])}"
    if origin is dict:
        return "a mapping"
    if kind is type(None):
        return "null"
    if dataclasses.is_dataclass(kind):
        return "a section with " + ", ".join(field.name for field in dataclasses.fields(kind))
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false"}.get(kind, str(kind))


def _refuse(kind: Any, value: Any, where: str) -> SettingError:
    """Return the error for a value of the wrong type, with the form to write if a list or one of some names is expected."""
    hint = did_you_mean(value, _choices(kind))
    if _has_list(kind) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        items = ", ".join(item.strip() for item in str(value).split(","))
        hint = f"; write a list: {where.rpartition('.')[2]}: [{items}]"
    return SettingError(where, f"{where} is {short_repr(value)}; accepted: {_describe(kind)}{hint}")


def _has_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple or any(_has_list(member) for member in typing.get_args(kind) if _is_union(kind))


def _choices(kind: Any) -> list[Any]:
    """Return the values of a Literal, also inside of a union."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [choice for member in typing.get_args(kind) if _is_union(kind) for choice in _choices(member)]


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _accepts(kind: Any, value: Any) -> bool:
    """Return whether a value of YAML is of a scalar type. Booleans are not numbers, and numbers are finite."""
    if typing.get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is not None:
        return False
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is str:
        return isinstance(value, str) and not UNWRITABLE.search(value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Convert a value of YAML to a type; `where` is its dotted key, for messages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_any(arguments, value, where, kind)
    if dataclasses.is_dataclass(kind):
        return build_section(typing.cast(Any, kind), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        if None in value:
            raise SettingError(where, f'{where} has the key null, which is not a text; quote it: "null"')
        return {_convert(str, _key(key), where): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if _accepts(kind, value):
        return float(value) if kind is float else value
    raise _refuse(kind, value, where)


def _key(key: Any) -> Any:
    """Return a number or boolean as a key of a mapping, as text: ``3``, ``2.5``, ``true``."""
    return str(key).lower() if isinstance(key, (int, float)) else key


def _convert_to_any(members: tuple[Any, ...], value: Any, where: str, kind: Any) -> Any:
    """Convert a value to the first member of a union that accepts it."""
    if value is None and type(None) in members:
        return None
    sections = [member for member in members if dataclasses.is_dataclass(member)]
    if sections and isinstance(value, dict):
        return _convert(sections[0], value, where)
    for container, parsed in ((tuple, list), (dict, dict)):  # so that the message is about the item that is not accepted
        containers = [member for member in members if typing.get_origin(member) is container]
        if containers and isinstance(value, parsed):
            return _convert(containers[0], value, where)
    for member in members:
        with contextlib.suppress(UserError):
            return _convert(member, value, where)
    raise _refuse(kind, value, where)


def build_section(kind: type[Settings], values: Any, where: str) -> Settings:
    """Build a dataclass from a mapping of YAML.

    Parameters
    ----------
    kind : type
        A dataclass.
    values
        As YAML parses it.
    where : str
        The dotted key of the mapping in params.yaml, for messages.

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value is of the wrong type or out of range; names the key, the value and what is accepted.
    """
    if not isinstance(values, dict):
        raise _refuse(kind, values, where)
    former_keys = getattr(kind, "former_keys", None)  # a function of a section whose keys changed
    if former_keys and (message := former_keys(values)):
        raise SettingError(where, f"{where}: {message}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    for key in values:
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise SettingError(f"{where}.{key}", f"unknown key {where}.{_plain(key)}; accepted: {', '.join(fields)}{hint}")
    arguments = {}
    for name, field in fields.items():
        if name in values:
            value = arguments[name] = _convert(hints[name], values[name], f"{where}.{name}")
            low, high = field.metadata.get("range", (None, None))
            if low is not None and isinstance(value, (int, float)) and not low <= value <= high:
                raise SettingError(f"{where}.{name}", f"{where}.{name} is {short_repr(value)}; accepted: {low} to {high}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingError(where, f"{where}.{name} is missing; accepted: {_describe(hints[name])}")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise UserError(f"params.yaml: {where}: {error}") from error


@functools.cache
def _declared_names() -> frozenset[str]:
    """Return the sections that a dataclass of this package declares, read from the source code, which is faster than importing it."""
    modules = Path(__file__).parents[1].rglob("*.py")
    return frozenset(name for path in modules for name in _DECLARATION.findall(path.read_text(encoding="utf-8")))


def known_sections() -> list[str]:
    """Return the keys that params.yaml may have; sorted.

    They are the sections that a dataclass of this package declares in ``SECTION``, those that dvc.yaml uses, and the other keys.
    """
    return sorted({*_declared_names(), *graph.read_sections(), *LISTS, *UNTRACKED})


def read_params() -> dict[str, Any]:
    """Read params.yaml.

    Raises
    ------
    UserError
        If the file does not exist, is not a mapping in YAML, or has a section that is not one of `known_sections`.
    """
    try:
        text = _decode(PARAMS.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{PARAMS} does not exist; run from the top folder of the project") from None
    values = parse_yaml(text, str(PARAMS))
    _check_scalars(text)
    sections = known_sections()
    if not isinstance(values, dict):
        raise UserError(f"params.yaml: the file is {short_repr(values)}; accepted: the sections {', '.join(sections)}")
    for key in values:
        if key not in sections:
            hint = did_you_mean(key, sections)
            raise _with_line(SettingError(str(key), f"unknown key {_plain(key)}; accepted: {', '.join(sections)}{hint}"))
    return values


def _decode(content: bytes) -> str:
    """Return the text of params.yaml, which DVC reads as UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{PARAMS} is UTF-16 text, which DVC does not read; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = content[: error.start].count(b"\n") + 1
        raise UserError(f"{PARAMS} is not UTF-8 text: line {line_number}: {error}; save the file as UTF-8") from error


@functools.lru_cache(maxsize=4)
def _check_scalars(text: str) -> None:
    """Refuse values that YAML silently reads as something else than what is written."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import ScalarEvent

    if re.match(r"\s*%YAML\s+1\.[01]", text):
        raise UserError(f"{PARAMS}, line 1: %YAML 1.1 makes true and false of yes, no, on and off; remove this line")
    for line_number, line in enumerate(text.splitlines(), 1):
        if comment := _COMMENT.match(line):
            raise UserError(f'{PARAMS}, line {line_number}: {comment[1]} is empty, because # starts a comment; quote it: {comment[1]}: "#"')
    if not _MISREAD.search(text):
        return  # the usual case, without parsing the file again
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, ScalarEvent) and event.implicit[0] and (misread := _MISREAD.fullmatch(event.value)):
            read_as = "a date" if misread["date"] else f"the number {int(event.value)}"
            raise UserError(
                f"{PARAMS}, line {event.start_mark.line + 1}: {event.value} without quotes is {read_as}; to write a text, quote it: "
                f'"{event.value}"'
            )


def _with_line(error: SettingError) -> UserError:
    """Return the error with the line of the setting in params.yaml, and a remedy if quotes are missing around a text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode

    text = _decode(PARAMS.read_bytes())
    node, line = _find(YAML(typ="safe").compose(text), error.where)
    hint = ""
    if isinstance(node, ScalarNode) and "a text" in error.message and not str(node.tag).endswith(":str"):
        hint = f'; to write a text, quote it: "{node.value}"'
    return UserError(f"{PARAMS}{f', line {line}' if line else ''}: {error.message}{hint}")


def _find(node: Any, where: str) -> tuple[Any, int | None]:
    """Return the node of a dotted key, or its nearest parent, and the line of its key."""
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    line = None
    while where and node is not None:
        if isinstance(node, SequenceNode) and (index := re.match(r"\[(\d+)\]\.?", where)) and int(index[1]) < len(node.value):
            node, where = node.value[int(index[1])], where[index.end() :]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, MappingNode) else []
        for key, value in pairs:
            name = str(key.value)
            if where == name or where.startswith((f"{name}.", f"{name}[")):
                node, line, where = value, key.start_mark.line + 1, where[len(name) :].removeprefix(".")
                break
        else:
            return None, line
    return node, line


def load(where: str, kind: type[Settings]) -> Settings:
    """Load one key of params.yaml.

    Parameters
    ----------
    where : str
        A dotted key, such as ``tasks`` or ``translate.memory``.
    kind : type
        The type to convert it to, such as ``tuple[str, ...]``.

    Raises
    ------
    UserError
        If the key is missing, or its value is of the wrong type or out of range; names the key, the value and what is accepted.
    """
    values: Any = read_params()
    names = where.split(".")
    for depth, name in enumerate(names):
        if not isinstance(values, dict) or name not in values:
            parent = "".join(f"{ancestor}: " for ancestor in names[:depth]) or "the file "
            content = ", ".join(map(_plain, values)) if isinstance(values, dict) else short_repr(values)
            hint = did_you_mean(name, values if isinstance(values, dict) else ())
            raise UserError(f"params.yaml: no {where}; {parent}has {content}{hint}")
        values = values[name]
    try:
        return typing.cast(Settings, _convert(kind, values, where))
    except SettingError as error:
        raise _with_line(error) from error


def load_section(kind: type[Settings], name: str | None = None) -> Settings:
    """Load the section of params.yaml that a dataclass declares: ``load_section(TrainSettings)``, ``load_section(ModelSettings, "tiny")``.

    Parameters
    ----------
    kind : type
        A dataclass with a class variable ``SECTION``.
    name : str, optional
        The name that replaces the ``*`` in it.

    Raises
    ------
    UserError
        As `load` does.
    """
    section: str = vars(kind)["SECTION"]
    return load(section.replace("*", name) if name else section, kind)
