"""Measure the server under load, beside a plain endpoint (`benchmarks/plain_endpoint.py`): latency and pairs per second.

    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/serving.py --seconds 60                        # after `dvc repro`
    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/serving.py --soak 600 --users 4 --candidates 10

locust sends the requests over loopback, from a process of its own on the same machine. Each user sends a request, waits for the answer,
and sends the next one. The categories of a request are drawn at random from those of the test rows. *categories computed once* is the
server with the option --candidates. *llama.cpp* is its own server (benchmarks/llama_server.py). *pack alone* is the time of a pack with
the candidates of one request, in this process, without a server. --soak loads the adapter again every 20 seconds, and keeps a connection
open that never completes its request.
"""

from __future__ import annotations

import csv
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
import sides

from babelcart.core.tasks import TASKS

WARM_UP = 5  # seconds before the measurements of a system, and packs before those of a pack alone
ALONE = 60  # packs that are timed alone
LLAMA_CPP = "llama.cpp"
RELOAD = 20  # seconds between two loads of the adapter in a soak


@dataclass(frozen=True)
class Load:
    """What the users send, and for how long."""

    users: int
    candidates: int
    seconds: int


def systems(task: str, categories: Path, port: int) -> dict[str, list[str]]:
    """Return the command of each system that listens on a port."""
    serve = [sys.executable, "-m", "babelcart", "serve", "--task", task, "--model", sides.MODEL, "--port", str(port)]
    return {
        "Babelcart": serve,
        "Babelcart, categories computed once": [*serve, "--candidates", str(categories)],
        "plain endpoint": [sys.executable, "benchmarks/plain_endpoint.py", "--task", task, "--port", str(port)],
        LLAMA_CPP: [sys.executable, "benchmarks/llama_server.py", "--task", task, "--port", str(port)],
    }


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a server until the block ends."""
    path = "/health" if "benchmarks/llama_server.py" in command else "/readyz"
    with subprocess.Popen(command, env={**os.environ, "GOMP_SPINCOUNT": "20000"}) as process:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
                    break
                except OSError:
                    if process.poll() is not None:
                        raise click.ClickException(f"{command[2]} ended with status {process.returncode}") from None
                    time.sleep(0.5)
            yield
        finally:
            process.terminate()
            process.wait()


def time_alone(task: str, rows: Path, load: Load) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the seconds of packs with the candidates of a request, with and without the prefixes of all categories."""
    from babelcart.model.prompts import RowTexts
    from babelcart.scorer import load_scorer

    scorer, table = load_scorer(sides.MODEL, task), pd.read_parquet(rows)
    queries, categories = sorted(set(table["origin_query"])), sorted(set(table["candidate"]))
    for name, known in (("pack alone", []), ("pack alone, categories computed once", categories)):
        prefixes, draws, seconds = scorer.candidate_prefixes(known), random.Random(0), []
        for _ in range(ALONE):
            query = draws.choice(queries)
            pack = scorer.tokenizer.encode_many([RowTexts("", query, category) for category in draws.sample(categories, load.candidates)])
            start = time.perf_counter()
            scorer.chunk_probability(pack, prefixes)
            seconds.append(time.perf_counter() - start)
        yield name, np.array(seconds[WARM_UP:])


def measure(load: Load, rows: Path, port: int, name: str, task: str) -> dict[str, float]:
    """Run locust; return requests per second, the number of failures, and quantiles of the latency in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "locust", "-f", "benchmarks/load.py", "--headless", "--only-summary", "--loglevel", "ERROR"]
        command += ["--host", f"http://127.0.0.1:{port}", "-u", str(load.users), "-r", str(load.users), "-t", f"{load.seconds}s"]
        command += ["--csv", f"{folder}/load", "--reset-stats", "--stop-timeout", "120"]
        environment = {**os.environ, "CANDIDATES": str(load.candidates), "ROWS": str(rows), "FORM": name, "TASK": task}
        subprocess.run(command, env=environment, check=False, capture_output=True)
        with Path(folder, "load_stats.csv").open(newline="") as handle:
            total = next(row for row in csv.DictReader(handle) if row["Name"] == "Aggregated")
    names = {"requests/s": "Requests/s", "failed": "Failure Count", "p50": "50%", "p95": "95%", "p99": "99%", "requests": "Request Count"}
    return {name: float(total[column]) for name, column in names.items()}


@contextmanager
def disturbed(port: int) -> Iterator[None]:
    """Load the adapter again and again, and hold a request that never ends."""
    stop = threading.Event()

    def disturb() -> None:
        hanging: list[socket.socket] = []
        while not stop.wait(RELOAD):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/reload", method="POST")
            urllib.request.urlopen(request, timeout=120).read()
            hanging.append(socket.create_connection(("127.0.0.1", port)))
            hanging[-1].sendall(b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def print_row(name: str, load: Load, pairs: float, figures: Sequence[float]) -> None:
    """Print a line of the table."""
    cells = [f"{figure:,.0f}" for figure in figures]
    print(f"| {name} | {load.users} | {load.candidates} | {pairs:.1f} | {' | '.join(cells)} |", flush=True)


@click.command(help=__doc__)
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task; its test rows give queries and categories.")
@click.option("--users", multiple=True, default=(1, 4, 16), show_default=True, help="Concurrent users; repeatable.")
@click.option("--candidates", multiple=True, default=(10, 100), show_default=True, help="Candidates of a request; repeatable.")
@click.option("--seconds", default=60, show_default=True, help="Seconds of each measurement.")
@click.option("--soak", default=0, show_default=True, help="Seconds of one undisturbed and one disturbed run, in place of the table.")
@click.option("--only", multiple=True, help="Run only this system; repeatable.")
@click.option("--port", default=8123, show_default=True, help="Port of the servers.")
def main(task: str, users: tuple[int, ...], candidates: tuple[int, ...], seconds: int, soak: int, only: tuple[str, ...], port: int) -> None:
    rows = Path(f"build/translate/{task}/test.parquet")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(sorted(set(pd.read_parquet(rows)["candidate"]))))
        file.flush()
        commands = systems(task, Path(file.name), port)
        print("| system | users | candidates | pairs/s | p50, ms | p95, ms | p99, ms | requests | failed |")
        print("|---" * 9 + "|")
        for load in [Load(1, count, 0) for count in candidates if not soak]:
            for name, times in time_alone(task, rows, load):
                print_row(name, load, load.candidates / times.mean(), [*1000 * np.quantile(times, [0.5, 0.95, 0.99]), len(times), 0])
        for name in only or (commands if not soak else list(commands)[:1]):
            with running(commands[name], port):
                measure(Load(1, 10, WARM_UP), rows, port, name, task)
                for load in [Load(user, count, soak or seconds) for count in candidates for user in users]:
                    if soak:
                        with disturbed(port):
                            figures = measure(load, rows, port, name, task)
                    else:
                        figures = measure(load, rows, port, name, task)
                    quantiles_and_counts = [figures[key] for key in ("p50", "p95", "p99", "requests", "failed")]
                    print_row(name, load, figures["requests/s"] * load.candidates, quantiles_and_counts)


if __name__ == "__main__":
    main()
