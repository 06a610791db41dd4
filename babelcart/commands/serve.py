"""Answer HTTP requests with a trained model.

Listens on the loopback interface. On other interfaces, all requests need the key in the environment variable BABELCART_API_KEY, as
`Authorization: Bearer KEY`. Queries are not logged. SIGHUP, or POST /v1/reload, loads the current adapter; SIGTERM completes the
requests in the queue and stops. docs/serving.md describes the requests.
"""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError

if TYPE_CHECKING:
    from babelcart.model.prefix_cache import PrefixCache
    from babelcart.scorer import Scorer
    from babelcart.serving.engine import Engine

KEY = "BABELCART_API_KEY"


@cli.command
@cli.task
@cli.model
@click.option("--rev", "revision", help="Branch, tag or commit of the adapter, from git, the cache or the remote of DVC.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on; 0 for any.")
@click.option("--candidates", type=click.Path(path_type=Path), help="File with the shop's categories, one on each line, to compute once.")
@click.option("--pack-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Tokens that are computed at once.")
@click.option("--max-rows", type=click.IntRange(1), default=10_000, show_default=True, help="Rows that may wait; others get status 429.")
@click.option("--timeout", type=click.FloatRange(0, 3600, min_open=True), default=30, show_default=True, help="Seconds for an answer.")
def main(task: str, model: str, host: str, port: int, **options: Any) -> None:
    try:
        import uvicorn
        from fastapi import FastAPI  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}; install the packages of the server with `make setup EXTRAS=serve`") from error
    key = os.environ.get(KEY)
    if not key and not _is_loopback(host):
        raise UserError(
            f"{host} can be reached by others: set {KEY} to a secret key, which every request must have, or listen on 127.0.0.1"
        )

    from babelcart.commands.revisions import adapter_of_revision
    from babelcart.score import read_candidates
    from babelcart.scorer import load_scorer
    from babelcart.serving.app import build_app
    from babelcart.serving.engine import Engine
    from babelcart.serving.guard import Limits

    adapter = adapter_of_revision(options["revision"], model, task) if options["revision"] else None
    candidates = read_candidates(options["candidates"]) if options["candidates"] else []

    def load() -> tuple[Scorer, PrefixCache]:
        scorer = load_scorer(model, task, adapter=adapter)
        return scorer, scorer.candidate_prefixes(candidates)

    engine = Engine(load, options["pack_tokens"], options["max_rows"], options["timeout"])

    def reload() -> None:
        engine.cache = engine.scorer.candidate_prefixes([])
        engine.scorer.load_adapter_again()
        engine.cache = engine.scorer.candidate_prefixes(candidates)

    signal.signal(signal.SIGHUP, lambda *_: _reload(engine, None if adapter else reload))
    engine.start()
    app = build_app(engine, Limits(seconds=options["timeout"]), key, None if adapter else reload)
    server = uvicorn.Server(
        uvicorn.Config(app, host, port, log_level="warning", access_log=False, timeout_graceful_shutdown=int(options["timeout"]) + 1)
    )
    socket = server.config.bind_socket()
    socket.listen(server.config.backlog)  # requests that come before the server has started wait for it
    address, bound_port = socket.getsockname()[:2]
    click.echo(f"{model}, {task}, revision {engine.scorer.revision}: http://{address}:{bound_port}/docs", err=True)
    server.run([socket])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reload(engine: Engine, reload: Callable[[], None] | None) -> None:
    """Load the current adapter; an adapter that does not fit is reported, and the previous one stays."""
    if reload is None or not engine.is_ready:
        _report("no adapter is loaded: the server starts, stops, or has an adapter of a fixed revision")
        return
    try:
        future = engine.between_requests(reload)
    except Exception as error:  # an adapter is being loaded, or the server is stopping
        _report(str(error))
        return
    future.add_done_callback(lambda done: _report(f"revision {engine.scorer.revision}: {done.exception() or 'loaded'}"))


def _report(message: str) -> None:
    """Print a message to standard error. A signal handler may interrupt a write, so that the buffer of Python is not used."""
    os.write(2, f"{message}\n".encode())
