"""Write settings into params.yaml, with its comments kept."""

from __future__ import annotations

import copy
import difflib
import io
from collections.abc import Mapping
from typing import Any

from babelcart.core.errors import UserError
from babelcart.core.files import parse_yaml
from babelcart.inspection.proposal import Proposal

_STEP = 2  # spaces of one level
_WIDTH = 140


def updated(text: str, proposal: Proposal) -> str:
    """Return the text of params.yaml with the settings of a proposal.

    Only the section ``data`` and the changed settings are rewritten, so that comments, order and spacing of the others stay. Guesses have
    a comment above them.

    Raises
    ------
    UserError
        If the file is not YAML, lacks a section, or writes a changed setting in a form that cannot be replaced.
    """
    expected = _expected(text, proposal)
    lines = text.splitlines(keepends=True)
    lines = _replace_data(lines, proposal)
    old = parse_yaml(text, "params.yaml")
    for key, value in proposal.settings.items():
        if _value(old, key) == value and key not in proposal.reasons:
            continue
        lines = _replace(lines, key, value, proposal.reasons.get(key))
    new_text = "".join(lines)
    if parse_yaml(new_text, "params.yaml") != expected:
        raise UserError("params.yaml has a form that cannot be changed without losing content; copy the proposed settings into it by hand")
    return new_text


def _expected(text: str, proposal: Proposal) -> Any:
    """Return the content of the new file."""
    content = copy.deepcopy(parse_yaml(text, "params.yaml"))
    if not isinstance(content, dict):
        raise UserError("params.yaml is not a mapping of sections")
    content["data"] = proposal.data
    for key, value in proposal.settings.items():
        *parents, name = key.split(".")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"params.yaml: {key} cannot be set, because {parent} is not a section")
        section[name] = value
    return content


def _value(content: Any, key: str) -> Any:
    """Return the value of a dotted key, or a value that equals none."""
    for name in key.split("."):
        if not isinstance(content, dict) or name not in content:
            return ...
        content = content[name]
    return content


def difference(old: str, new: str) -> str:
    """Return the unified difference of two versions of params.yaml."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), "params.yaml", "params.yaml (proposed)", n=2)
    return "".join(lines)


def render(section: str, content: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Return a section as YAML, with a comment above each guess.

    Parameters
    ----------
    reasons : mapping
        Dotted key -> reason.
    """
    return f"{section}:\n" + "".join(_mapping_lines(content, _STEP, section, reasons))


def _mapping_lines(content: Mapping[str, Any], indent: int, where: str, reasons: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for key, value in content.items():
        dotted = f"{where}.{key}"
        if dotted in reasons:
            lines += _comment(f"guess: {reasons[dotted]}", indent)
        name = _scalar(key)
        if isinstance(value, Mapping) and (_is_nested(value) or len(_flow(value)) > 100):
            lines.append(f"{' ' * indent}{name}:\n")
            lines += _mapping_lines(value, indent + _STEP, dotted, reasons)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{' ' * indent}{name}:\n")
            for item in value:
                item_lines = _mapping_lines(item, indent + 2 * _STEP, dotted, {})
                item_lines[0] = f"{' ' * (indent + _STEP)}- {item_lines[0].lstrip()}"
                lines += item_lines
        else:
            lines.append(f"{' ' * indent}{name}: {_flow(value)}\n")
    return lines


def _is_nested(value: Mapping[str, Any]) -> bool:
    """Return whether a mapping is written on several lines: it is a task, or files with options."""
    return "files" in value or "train" in value


def _comment(text: str, indent: int) -> list[str]:
    import textwrap

    prefix = f"{' ' * indent}# "
    text = " ".join(text.split())
    return [f"{line}\n" for line in textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)]


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Return a scalar in YAML, quoted where it needs to be also inside of a flow collection."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 1 << 20
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump([value], stream)
    return stream.getvalue().strip().removeprefix("[").removesuffix("]")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _block(lines: list[str], keys: list[str]) -> tuple[int, int] | None:
    """First line and end of the value of a key, without the comments and empty lines that belong to the next key; None without it."""
    start, end, depth = 0, len(lines), 0
    for key in keys:
        indents = [_indent(line) for line in lines[start:end] if _is_content(line)]
        depth = min(indents, default=0)
        first = next(
            (
                index
                for index in range(start, end)
                if _is_content(lines[index]) and _indent(lines[index]) == depth and _key_of(lines[index]) == key
            ),
            None,
        )
        if first is None:
            return None
        after = next(
            (
                index
                for index in range(first + 1, end)
                if _is_content(lines[index])
                and (_indent(lines[index]) < depth or (_indent(lines[index]) == depth and not _is_item(lines[index])))
            ),
            end,
        )
        while not _is_content(lines[after - 1]):
            after -= 1
        start, end = (first + 1, after) if key != keys[-1] else (first, after)
    return start, end


def _is_item(line: str) -> bool:
    return line.lstrip().startswith("- ") or line.strip() == "-"


def _key_of(line: str) -> str:
    return line.strip().partition(":")[0].strip("\"'")


def _replace(lines: list[str], key: str, value: Any, reason: str | None) -> list[str]:
    """Replace the value of a dotted key; a comment of an earlier guess above it is removed."""
    keys = key.split(".")
    place = _block(lines, keys)
    if place is None:
        parent = _block(lines, keys[:-1])
        if parent is None:
            raise UserError(f"params.yaml: the section {'.'.join(keys[:-1])} is missing or not in block style, so that {key} cannot be set")
        start = end = parent[1]
        indent = min((_indent(line) for line in lines[parent[0] + 1 : parent[1]] if _is_content(line)), default=_STEP)
    else:
        start, end = place
        indent = _indent(lines[start])
        while start and lines[start - 1].strip().startswith("# guess:"):
            start -= 1
    comment = _comment(f"guess: {reason}", indent) if reason else []
    return [*lines[:start], *comment, f"{' ' * indent}{_scalar(keys[-1])}: {_flow(value)}\n", *lines[end:]]


def _replace_data(lines: list[str], proposal: Proposal) -> list[str]:
    """Replace the section ``data``; comments before its first task stay."""
    place = _block(lines, ["data"])
    if place is None:
        raise UserError("params.yaml: the section data is missing or not in block style")
    start, end = place
    new = render("data", proposal.data, proposal.reasons).splitlines(keepends=True)
    path_comment, task_comment = _comments_before(lines[start:end], "path"), _comments_before(lines[start:end], "qc", "qi")
    result = [new[0], *path_comment, new[1], *task_comment, *new[2:]]
    return [*lines[:start], *result, *lines[end:]]


def _comments_before(block: list[str], *keys: str) -> list[str]:
    """Return the comments directly above the first of some keys in the section, without earlier guesses."""
    for index, line in enumerate(block):
        if _is_content(line) and _indent(line) == _STEP and _key_of(line) in keys:
            first = index
            while block[first - 1].lstrip().startswith("#"):
                first -= 1
            return [comment for comment in block[first:index] if not comment.lstrip().startswith("# guess:")]
    return []
