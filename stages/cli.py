"""What every stage script shares: its options, and errors shown as a message instead of a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from babelcart.errors import UserError

task = click.option("--task", type=click.Choice(["qc", "qi"]), required=True, help="Query-category or query-item relevance.")
model = click.option("--model", required=True, help="Name of a block under models: in params.yaml.")


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
