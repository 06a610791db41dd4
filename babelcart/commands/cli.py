"""Options and error handling shared by the stage scripts and the subcommands of `babelcart`."""

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

from babelcart.core.errors import UserError, explain
from babelcart.core.graph import metrics_folders
from babelcart.core.tasks import TASKS


def model_name(name: str) -> str:
    """Check the name of a model, which is used as a folder name and in command lines.

    Raises
    ------
    UserError
        If the name contains characters other than letters, digits, - and _, or is that of a folder of metrics/.
    """
    reserved = metrics_folders()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name.lower() in reserved:
        taken = f", and not {', '.join(sorted(reserved))}" if reserved else ""
        raise UserError(f"params.yaml: a model is named {name!r}; accepted: letters, digits, - and _{taken}")
    return name


def _checked(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return model_name(value)
    except UserError as error:
        raise click.BadParameter(str(error)) from error


task = click.option("--task", type=click.Choice(TASKS), required=True, help="Query-category or query-item relevance.")
model = click.option("--model", required=True, callback=_checked, help="Name of a block under models: in params.yaml.")


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Print a message for a `UserError`, a failure of the machine or Ctrl-C. Other exceptions are bugs and keep their traceback."""
    try:
        yield
    except UserError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nStopped." + (" The next `dvc repro` resumes where it stopped." if "DVC_STAGE" in os.environ else ""), err=True)
        raise SystemExit(130) from None
    except Exception as error:
        if message := explain(error):
            raise click.ClickException(message) from error
        raise


@contextmanager
def _single_run() -> Iterator[None]:
    """Prevent two concurrent runs of one stage: if `dvc` is killed, its stage keeps running and would write the same outputs."""
    if not (stage := os.environ.get("DVC_STAGE")):
        yield
        return
    path = Path(".scratch/running") / f"{stage}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:  # the system releases the lock when the process ends, for whatever reason
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{stage} is still running as process {lock.read()}: wait until it ends, or `kill` it; then run `dvc repro`"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def command(function: Callable[..., None]) -> click.Command:
    """Make a Click command of a function. Its help is the docstring of the module; errors other than bugs are printed as messages."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        with _errors_as_messages(), _single_run():
            function(*args, **kwargs)

    help_text = (function.__globals__.get("__doc__") or "").replace("``", "")
    return click.command(help=help_text, context_settings={"max_content_width": 120})(run)


class Group(click.Group):
    """A group of commands; errors other than bugs are printed as messages."""

    def invoke(self, context: click.Context) -> Any:
        with _errors_as_messages():
            return super().invoke(context)
