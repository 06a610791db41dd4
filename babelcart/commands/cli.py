"""What every stage script shares: its options, and errors shown as a message instead of a traceback."""

from __future__ import annotations

import fcntl
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from babelcart.errors import UserError, explain

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


@contextmanager
def _told() -> Iterator[None]:
    """Show a `UserError`, a failure of the machine and Ctrl-C as a message; a bug keeps its traceback."""
    try:
        yield
    except UserError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nStopped. The next `dvc repro` goes on where it was.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        if message := explain(error):
            raise click.ClickException(message) from error
        raise


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse to run a stage beside itself: where DVC alone is killed, its stage lives on and would write into what the next run makes."""
    if not (stage := os.environ.get("DVC_STAGE")):
        yield
        return
    path = Path(".scratch/running") / f"{stage}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as held:  # the system frees it when the process ends, however it ends
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise UserError(f"{stage} still runs as process {held.read()}: wait until it ends, or `kill` it; then `dvc repro`") from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


def command(function: Callable[..., None]) -> click.Command:
    """A Click command whose help is the script's docstring and which shows as a message what is not a bug."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        with _told(), _alone():
            function(*args, **kwargs)

    help_text = (function.__globals__.get("__doc__") or "").replace("``", "")
    return click.command(help=help_text, context_settings={"max_content_width": 120})(run)


class Group(click.Group):
    """Commands of one script; what is not a bug is shown as a message."""

    def invoke(self, context: click.Context) -> Any:
        with _told():
            return super().invoke(context)
