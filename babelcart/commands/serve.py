"""Answer HTTP requests with a trained model.

The server listens on the loopback interface. To listen on another address, set the environment variable BABELCART_API_KEY to a secret
key, which every request must then send as `Authorization: Bearer KEY`. Queries are not logged. The page at / shows the answers in a
browser.

SIGHUP and POST /v1/reload load the current adapter of the workspace. SIGTERM and Ctrl-C stop the server after the requests in the queue
are complete. docs/serving.md describes the requests.

Example: babelcart serve --task qc --model gemma3-270m
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart.commands import cli
from babelcart.commands.options import language
from babelcart.core import config
from babelcart.core.errors import UserError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from babelcart.scorer import Scorer
    from babelcart.serving.engine import Engine, ServedModel

KEY = "BABELCART_API_KEY"
MAX_CONNECTIONS = 1000


@dataclass(frozen=True)
class _Adapter:
    """The adapter of a model that a request can choose by `label`; `folder` is None for that of the workspace."""

    label: str
    model: str
    task: str
    folder: Path | None

    @classmethod
    def of(cls, model: str, task: str, revision: str | None) -> _Adapter:
        from babelcart.commands.revisions import adapter_of_revision

        if not revision:
            return cls(model, model, task, None)
        return cls(f"{model}@{revision}", model, task, adapter_of_revision(revision, model, task))

    def load(self) -> Scorer:
        from babelcart.scorer import load_scorer

        return load_scorer(self.model, self.task, adapter=self.folder)


@cli.command
@cli.task
@cli.model
@click.option("--rev", "revision", help="Git branch, tag or commit of the adapter; default: the workspace.")
@click.option("--compare", metavar="MODEL[@REVISION]", help="A second model of the task; requests choose it with the field `model`.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on; 0 for any.")
@click.option("--candidates", type=click.Path(path_type=Path), help="File of categories, one on each line, to compute once at the start.")
@click.option("--translate-to", callback=language, help="Language, such as en, into which local engines translate queries.")
@click.option("--show-training-rows", is_flag=True, help="Show labelled training rows; needs a key and a loopback address.")
@click.option("--pack-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Maximum number of tokens computed at once.")
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Maximum number of waiting rows; further requests get status 429.",
)
@click.option(
    "--timeout", type=click.FloatRange(0, 3600, min_open=True), default=30, show_default=True, help="Time limit of a request in seconds."
)
def main(task: str, model: str, host: str, port: int, **options: Any) -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error}; install the packages of the server with `make setup`, or with `pip install 'babelcart[serve]'`"
        ) from error
    from babelcart.score import read_candidates
    from babelcart.serving.app import build_app
    from babelcart.serving.describe import Describer
    from babelcart.serving.guard import Limits
    from babelcart.serving.page import Page

    key = _checked_key(host, options["show_training_rows"])
    adapters = [_Adapter.of(model, task, options["revision"])]
    if options["compare"]:
        adapters.append(_compared(options["compare"], adapters[0]))
    candidates = read_candidates(options["candidates"]) if options["candidates"] else []
    engine, reload = _start_engine(adapters, candidates, options)
    describer = Describer(task, options["translate_to"], options["show_training_rows"])
    describer.start()
    limits = Limits(seconds=options["timeout"])
    app = build_app(engine, limits, key, reload, Page(engine, limits, describer, candidates))
    _run(app, host, port, engine, int(options["timeout"]) + 1)


def _checked_key(host: str, show_training_rows: bool) -> str | None:
    """Return the key of the environment; raise an error if it is missing where it must be set, or no header can contain it."""
    from babelcart.serving.guard import is_loopback

    key = os.environ.get(KEY)
    if not key and not is_loopback(host):
        raise UserError(
            f"--host is {host}, which other machines can reach: set {KEY} to a secret key that every request must send, or use 127.0.0.1"
        )
    if key and not re.fullmatch("[!-~]+", key):
        raise UserError(
            f"{KEY} contains a space or a character that is not ASCII, which clients cannot send in a header; use a key such as that of "
            "`openssl rand -hex 32`"
        )
    if show_training_rows and not (key and is_loopback(host)):
        raise UserError(f"--show-training-rows shows labelled data: set {KEY} to a secret key, and listen on 127.0.0.1")
    return key


def _compared(value: str, first: _Adapter) -> _Adapter:
    """Return the adapter of the option --compare."""
    name, _, revision = value.partition("@")
    if name not in (models := config.read_params().get("models", {})):
        raise UserError(f"--compare is {value!r}; accepted: MODEL or MODEL@REVISION with a MODEL out of {', '.join(models)}")
    adapter = _Adapter.of(name, first.task, revision)
    if (adapter.model, adapter.folder) == (first.model, first.folder):
        raise UserError(f"--compare is {value}, the adapter that the server has already; accepted: another model, or MODEL@REVISION")
    return adapter


def _start_engine(adapters: list[_Adapter], candidates: list[str], options: dict[str, Any]) -> tuple[Engine, Callable[[], None] | None]:
    """Start the engine; return it and the function that loads the adapters of the workspace again, if there are any."""
    from babelcart.serving.engine import Engine, ServedModel

    def load() -> list[ServedModel]:
        scorers = [(adapter.label, adapter.load()) for adapter in adapters]
        return [ServedModel(label, scorer, scorer.candidate_prefixes(candidates)) for label, scorer in scorers]

    def reload() -> None:
        current = [served for adapter, served in zip(adapters, engine.models, strict=True) if adapter.folder is None]
        new_adapters = [served.scorer.read_adapter() for served in current]  # if one of them does not fit, none is replaced
        for served, adapter in zip(current, new_adapters, strict=True):
            served.cache = served.scorer.candidate_prefixes([])
            served.scorer.use_adapter(adapter)
            served.cache = served.scorer.candidate_prefixes(candidates)

    engine = Engine(load, options["pack_tokens"], options["max_rows"], options["timeout"])
    reload_or_none = reload if any(adapter.folder is None for adapter in adapters) else None
    signal.signal(signal.SIGHUP, lambda *_: _reload(engine, reload_or_none))
    engine.start()
    return engine, reload_or_none


def _run(app: FastAPI, host: str, port: int, engine: Engine, shutdown_seconds: int) -> None:
    """Serve an application until a signal stops it."""
    import uvicorn

    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "limit_concurrency": MAX_CONNECTIONS}
    server = uvicorn.Server(uvicorn.Config(app, host, port, timeout_graceful_shutdown=shutdown_seconds, **settings))
    socket = server.config.bind_socket()
    socket.listen(server.config.backlog)  # requests that come before the server has started wait for it
    address, bound_port = socket.getsockname()[:2]
    url = f"http://[{address}]:{bound_port}" if ":" in address else f"http://{address}:{bound_port}"
    click.echo(f"{engine.models[0].scorer.task}: {_revisions(engine)}", err=True)
    click.echo(f"Open {url} in a browser; {url}/docs describes the requests", err=True)
    with suppress(KeyboardInterrupt):  # uvicorn has stopped in order, and raises it again
        server.run([socket])


def _reload(engine: Engine, reload: Callable[[], None] | None) -> None:
    """Load the current adapter; an adapter that does not fit is reported, and the previous one stays."""
    if reload is None or not engine.is_ready:
        _report("the adapter was not loaded again: the server is starting or stopping, or it serves revisions of --rev or --compare only")
        return
    try:
        future = engine.between_requests(reload)
    except Exception as error:  # an adapter is being loaded, or the server is stopping
        _report(str(error))
        return
    future.add_done_callback(lambda done: _report(f"{_revisions(engine)}: {done.exception() or 'loaded'}"))


def _revisions(engine: Engine) -> str:
    return ", ".join(f"{served.name}, revision {served.scorer.revision}" for served in engine.models)


def _report(message: str) -> None:
    """Print a message to standard error. A signal handler may interrupt a write, so that the buffer of Python is not used."""
    os.write(2, f"{message}\n".encode())
