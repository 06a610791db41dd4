"""Read the runs that trackers keep on this machine."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {"mlflow": ("mlflow", "alembic"), "wandb": ("wandb",), "trackio": ("trackio",)}


@dataclass
class Run:
    """What a tracker shows of a run: figure -> its (step, value) in the order in which they came, settings, and final scores."""

    figures: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    state: str = ""

    def add(self, step: int, figures: dict[str, float]) -> None:
        for name, figure in figures.items():
            if name.split("/")[0] in ("train", "eval"):
                self.figures.setdefault(name, []).append((step, figure))
            else:
                self.scores[name] = figure


def need(*trackers: str) -> None:
    """Skip a test unless the packages of the trackers are installed."""
    for tracker in trackers:
        for package in PACKAGES[tracker]:
            pytest.importorskip(package, reason=f"{tracker} is not installed: pip install 'babelcart[{tracker}]'")


def runs(tracker: str, folder: Path) -> dict[str, Run]:
    """Read the runs of a tracker in a project that ran with the environment of `environment`, by name."""
    return {"mlflow": _mlflow_runs, "wandb": _wandb_runs, "trackio": _trackio_runs}[tracker](folder)


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which Trackio keeps its runs in the project; the others do so by default."""
    return {"TRACKIO_DIR": str(folder / "trackio")}


def _mlflow_runs(folder: Path) -> dict[str, Run]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = {}
    for stored in client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]):
        run = found[stored.info.run_name] = Run(settings=stored.data.params, state=stored.info.status)
        for name in stored.data.metrics:
            for point in client.get_metric_history(stored.info.run_id, name):
                run.add(point.step, {name: point.value})
    return found


def _wandb_runs(folder: Path) -> dict[str, Run]:
    """Read the folders as `wandb sync` does: a later one replaces the run unless it says that it resumes."""
    from wandb.proto import wandb_internal_pb2 as messages

    found: dict[str, Run] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        name = path.stem.removeprefix("run-")
        for content in _records(path.read_bytes()):
            record = messages.Record.FromString(content)
            if record.HasField("run"):
                if not record.run.resume or name not in found:
                    found[name] = Run()
                found[name].settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update if item.key[0] != "_"}
            if record.HasField("history"):
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                found[name].add(row["_step"], {key: figure for key, figure in row.items() if key[0] != "_"})
            if record.HasField("summary"):
                items = [(item.key or item.nested_key[0], item.value_json) for item in record.summary.update]
                found[name].scores |= {key: json.loads(value) for key, value in items if key.split("/")[0] in ("validation", "test")}
            if record.HasField("exit"):
                found[name].state = f"exit {record.exit.exit_code}"
    return found


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, with the header of 7 bytes that wandb writes."""
    position, record = 7, b""
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:  # a record does not begin in the last bytes of a block
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a complete record, or the last part of one
            yield record
            record = b""


def _trackio_runs(folder: Path) -> dict[str, Run]:
    found: dict[str, Run] = {}
    with sqlite3.connect(folder / "trackio/babelcart.db") as database:
        for name, config in database.execute("select run_name, config from configs order by id"):
            found[name] = Run(settings={key: value for key, value in json.loads(config).items() if key[0] != "_"})
        for name, step, figures in database.execute("select run_name, step, metrics from metrics order by id"):
            found.setdefault(name, Run()).add(step, json.loads(figures))
    return found
