"""What every stage script shares: its options, and errors shown as a message instead of a traceback."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from babelcart.errors import UserError

# Folders of metrics/ that are not a model's.
RESERVED = ("prepare", "split", "translate", "negatives", "leaks", "ngram")


def model_name(name: str) -> str:
    """A model's name becomes a folder and a part of a command line: nothing but a plain word is let in.

    Raises
    ------
    UserError
        If it is another thing, or is taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name.lower() in RESERVED:
        raise UserError(f"params.yaml: a model is named {name!r}; accepted: letters, digits, - and _, and not {', '.join(RESERVED)}")
    return name


def _checked(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return model_name(value)
    except UserError as error:
        raise click.BadParameter(str(error)) from error


task = click.option("--task", type=click.Choice(["qc", "qi"]), required=True, help="Query-category or query-item relevance.")
model = click.option("--model", required=True, callback=_checked, help="Name of a block under models: in params.yaml.")


def command(function: Callable[..., None]) -> click.Command:
    """A Click command whose help is the script's docstring and which shows a `UserError` as its message."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            raise click.ClickException(str(error)) from error

    help_text = (function.__globals__.get("__doc__") or "").replace("``", "")
    return click.command(help=help_text, context_settings={"max_content_width": 120})(run)


class Group(click.Group):
    """Commands of one script; a `UserError` of any of them is shown as its message."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            raise click.ClickException(str(error)) from error
