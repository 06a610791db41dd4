"""Check parsed JSON against a shape, a description of the expected keys and types."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from babelcart.core.errors import short_repr

_TOP = "the file"


def check_shape(content: Any, shape: Any, where: str = _TOP) -> None:
    """Check parsed JSON against a shape.

    Parameters
    ----------
    content
        As `json.loads` returns it.
    shape
        One of

        * ``str``, ``int``, ``float`` (any finite number), ``object`` (anything) or ``None``;
        * a tuple of shapes, one of which must match;
        * ``[shape]``: a list whose items have this shape;
        * ``{"name": shape, "optional?": shape}``: a mapping with at least these keys; keys that end with ``?`` may be missing;
        * ``{...: shape}``: a mapping with any keys.
    where : str
        Path to `content` within the file, for messages.

    Raises
    ------
    ValueError
        If the content has another shape; names the key, the value and the expected type.
    """
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            raise ValueError(f"{where} is {short_repr(content)}; expected a mapping")
        for key, inner in shape.items():
            for name in content if key is ... else (key.removesuffix("?"),):
                if name in content:
                    check_shape(content[name], inner, short_repr(name) if where == _TOP else f"{where}.{short_repr(name)}")
                elif not key.endswith("?"):
                    raise ValueError(f"{where} has no {name!r}, it has {short_repr(list(content))}")
    elif isinstance(shape, list):
        if not isinstance(content, list):
            raise ValueError(f"{where} is {short_repr(content)}; expected a list")
        for index, item in enumerate(content):
            check_shape(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, tuple):
        if not any(_fits(content, alternative) for alternative in shape):
            raise ValueError(f"{where} is {short_repr(content)}; expected {' or '.join(map(_describe, shape))}")
    elif not _fits(content, shape):
        raise ValueError(f"{where} is {short_repr(content)}; expected {_describe(shape)}")


def _fits(content: Any, shape: Any) -> bool:
    if isinstance(shape, (dict, list)):
        with suppress(ValueError):
            check_shape(content, shape)
            return True
        return False
    if shape is None:
        return content is None
    if shape is float:
        return type(content) in (int, float) and abs(content) < 1e300
    return isinstance(content, shape) and not (shape is int and isinstance(content, bool))


def _describe(shape: Any) -> str:
    names = {int: "an integer", float: "a finite number", str: "a text", None: "null"}
    return "a list" if isinstance(shape, list) else "a mapping" if isinstance(shape, dict) else names[shape]
