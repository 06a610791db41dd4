"""Faults: kill every stage at random moments and break what else can break; `dvc repro` must end with the bytes of an undisturbed run.

    python -m tests.support.faults --out faults.json                     # 20 kills of each stage and every scenario
    python -m tests.support.faults --kills 3 --stage train --scenario ""

A tiny project is run once, undisturbed. Then, for each kill, a copy of it whose stage has to run again is started, and killed with
SIGKILL: in turns the stage's process alone and the whole group with dvc in it, at a moment drawn from the stage's measured time (for the
group, until dvc has ended). Then `dvc repro` runs, and every file of the project, dvc.lock among them, is compared. Finished
kills in --out are not done again. tests/graph/test_faults.py is a short version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from ruamel.yaml import YAML
from tqdm import tqdm

from babelcart.core.files import write_json
from tests.support.libre_server import Server, online, running
from tests.support.project import Graph, make_project

STAGES = (
    "base", "prepare", "split", "translate", "negatives", "leaks", "baseline", "train", "predict", "evaluate", "attack", "resist", "card",
    "submit", "report",
)  # fmt: skip
SAVE_STEPS = 10
CONCURRENCY = 4


class Tree:
    """A project in a folder of its own and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        self.environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
            "OMP_NUM_THREADS": "1",
        }

    def copy(self, folder: Path) -> Tree:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["cp", "--archive", "--reflink=auto", self.folder, folder], check=True)
        return Tree(folder)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """A process in a group of its own; what it says goes to `log`."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options
            )

    def run(self, *command: str, **options: Any) -> tuple[bool, str]:
        """Whether it succeeded, and what it said."""
        process = self.start(*command, **options)
        process.wait()
        return process.returncode == 0, self.said()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def locked(self) -> dict[str, Any]:
        return YAML(typ="safe").load(self.folder / "dvc.lock")["stages"]

    def files(self) -> dict[str, str]:
        """Hashes of all that a run makes: everything but git, DVC's cache, checkpoints and timings."""
        found = {}
        for top, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in (".git", ".dvc", ".scratch", "runs", "__pycache__")]
            for path in (Path(top, name) for name in names if not name.endswith(".part")):
                found[path.relative_to(self.folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def objects(self, stage: dict[str, Any]) -> set[Path]:
        """Objects of the cache that belong to a stage's outputs."""
        found = set()
        for out in stage["outs"]:
            path = self.object(out["md5"])
            found.add(path)
            if out["md5"].endswith(".dir") and path.exists():
                found |= {self.object(entry["md5"]) for entry in json.loads(path.read_text())}
        return found

    def object(self, md5: str) -> Path:
        return self.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]

    def without(self, stage: str) -> str:
        """Make the stage run again, and nothing else if it gives the same bytes; returns its address."""
        locked = self.locked()
        address = next(name for name in locked if name.split("@")[0] == stage)
        command = locked[address]["cmd"]
        lock = self.folder / "dvc.lock"
        lock.write_text(lock.read_text(encoding="utf-8").replace(f"cmd: {command}\n", "cmd: another\n"), encoding="utf-8")
        for path in (self.folder / ".dvc/cache/runs").glob("*/*/*"):
            if path.read_text(encoding="utf-8").startswith(f"cmd: {command}\n"):
                shutil.rmtree(path.parent)
        others = set().union(*(self.objects(entry) for name, entry in locked.items() if name != address))
        for path in self.objects(locked[address]) - others:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / ".scratch", ignore_errors=True)
        if stage == "translate":  # it must ask again
            shutil.rmtree(self.folder / "memory")
        return address

    def wait_for(self, process: subprocess.Popen[bytes], ready: Callable[[], Any]) -> Any:
        """What `ready` gives once that is true; None if the process ends before."""
        while True:
            ended = process.poll() is not None
            if found := ready():
                return found
            if ended:
                return None
            time.sleep(0.005)

    def stage_started(self, process: subprocess.Popen[bytes]) -> Any:
        return self.wait_for(process, lambda: "Running stage" in self.said())


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of the stage that a dvc runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def script(tree: Tree, process: subprocess.Popen[bytes], name: str) -> psutil.Process:
    """The stage's own process, without the shell above it, as soon as it is there."""

    def find() -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one for one in workers(process) if f"stages.{name}" in one.cmdline()]
        return []

    found = tree.wait_for(process, find)
    assert found, tree.said()
    return found[0]


def build(folder: Path, url: str) -> Tree:
    """The project, run to its end undisturbed; its translations come from the server at `url`."""
    project = make_project(folder)
    with contextlib.chdir(folder):
        online(project, url)
    project.change(
        tasks=["qc"],
        translate={"network": {"concurrency": CONCURRENCY, "per_second": 0.0}},
        train={"epochs": 6, "max_rows": 2400, "batch_size": 8, "save_steps": SAVE_STEPS, "eval_steps": 20, "eval_rows": 40},
    )
    graph = Graph(project)
    tree = Tree(folder)
    good, said = tree.run("dvc", "repro")
    assert good, said
    graph.commit("run")
    return tree


@dataclass
class Before:
    """A tree in which one stage has to run, and how long that takes."""

    stage: str
    tree: Tree
    alone: float  # seconds from dvc's announcement until the stage's process has ended
    group: float  # until dvc has ended


def prepare(whole: Tree, expected: dict[str, str], stage: str, folder: Path) -> Before:
    tree = whole.copy(folder / f"before-{stage}")
    address = tree.without(stage)
    trial = tree.copy(folder / "trial")
    process = trial.start("dvc", "repro")
    started = trial.stage_started(process)
    assert started, trial.said()
    start = time.monotonic()
    while process.poll() is None and not workers(process):
        time.sleep(0.002)
    while process.poll() is None and workers(process):
        time.sleep(0.002)
    alone = time.monotonic() - start
    process.wait()
    group = time.monotonic() - start
    ran = re.findall(r"Running stage '([^']+)'", trial.said())
    assert ran == [address], f"{ran} ran instead of {address}"
    assert trial.files() == expected, different(trial.files(), expected)
    return Before(stage, tree, alone, group)


def different(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


@dataclass
class Kill:
    """What one kill did."""

    stage: str
    number: int
    whom: str  # "stage" or "group"
    seconds: float  # after dvc had announced the stage
    healed: str  # "repro", or "heal" if `babelcart heal` was needed first, or "no"
    different: list[str]  # files whose bytes are not those of the undisturbed run
    lost: int | None = None  # train: steps done again; translate: texts asked again
    message: str = ""


def error_of(said: str) -> str:
    """The first error in what a command said."""
    found = re.search(r"^(?:Error|ERROR|Stopped)[^\n]*", said, re.MULTILINE)
    return found[0] if found else (said.strip().splitlines() or [""])[-1]


def kill(before: Before, number: int, seed: int, expected: dict[str, str], server: Server | None = None) -> Kill:
    """Kill a stage, or its whole group, once, and run again."""
    chance = random.Random(f"{seed} {before.stage} {number}")
    whom = ("group", "stage")[number % 2]
    while True:
        tree = before.tree.copy(before.tree.folder.with_name("killed"))
        if server:
            server.correct_answers.clear()
        moment = chance.uniform(0, before.group if whom == "group" else before.alone)
        process = tree.start("dvc", "repro")
        tree.stage_started(process)
        if whom == "stage":
            while process.poll() is None and not workers(process):
                time.sleep(0.002)
        time.sleep(moment)
        victims = workers(process)
        if process.poll() is None and (whom == "group" or victims):
            if whom == "group":
                os.killpg(process.pid, signal.SIGKILL)
            for one in victims if whom == "stage" else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            if process.wait() != 0:
                break
        process.wait()  # it had ended by itself: another moment
    done = steps_done(tree.folder) if before.stage == "train" else 0
    result = Kill(before.stage, number, whom, round(moment, 3), "repro", [])
    good, said = tree.run("dvc", "repro")
    if not good:
        result.message = error_of(said)
        tree.run(sys.executable, "-m", "babelcart", "heal")
        good, said = tree.run("dvc", "repro")
        result.healed = "heal" if good else "no"
    result.different = different(tree.files(), expected)
    if before.stage == "train":
        resumed = re.search(r"resuming after step (\d+)", said)
        result.lost = done - int(resumed[1] if resumed else 0)
    if server:
        result.lost = sum(server.correct_answers.values()) - len(server.correct_answers)
    return result


def steps_done(folder: Path) -> int:
    """Optimiser steps that the curves show; more than the run's checkpoint holds."""
    curve = next(folder.glob("plots/*/*_training/plots/metrics/train/loss.tsv"), None)
    return max(0, len(curve.read_text(encoding="utf-8").splitlines()) - 1) if curve else 0


@dataclass
class Ground:
    """Where scenarios take place."""

    whole: Tree
    expected: dict[str, str]
    folder: Path

    def tree(self, stage: str | None = None, name: str = "scenario") -> Tree:
        """A copy of the undisturbed run, in which `stage` has to run again."""
        tree = self.whole.copy(self.folder / name)
        if stage:
            tree.without(stage)
        return tree


@dataclass
class Outcome:
    """What a scenario showed."""

    scenario: str
    injected: str
    message: str = ""
    healed: str = ""  # what was run until every byte was that of the undisturbed run; "no"; or "skipped: ..."


def heal(ground: Ground, tree: Tree, *first: str) -> str:
    """Run the commands in `first`, then `dvc repro`; say so if that healed."""
    for stage in first:
        tree.run(sys.executable, "-m", f"stages.{stage}")
    good, said = tree.run("dvc", "repro")
    wrong = different(tree.files(), ground.expected)
    if not good or wrong:
        return f"no: {error_of(said) if not good else wrong}"
    return " and ".join([*(f"`make {stage}`" for stage in first), "`dvc repro`"])


def disk_full(ground: Ground, name: str) -> Outcome:
    """The project lies on a file system of its own, which is filled to the last byte when the stage has started."""
    outcome = Outcome(f"disk full in {name}", f"a tmpfs, filled while {name} runs")
    mount = ground.folder / "mount"
    mount.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", mount], capture_output=True).returncode:
        outcome.healed = "skipped: only root may mount"
        return outcome
    try:
        tree = ground.tree(name, "mount/project")
        tree.log = ground.folder / "mount.log"
        process = tree.start("dvc", "repro")
        tree.wait_for(process, lambda: list(tree.folder.glob(".scratch/running/*")))
        filler = mount / "filler"
        with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                handle.write(bytes(1 << 12))
        process.wait()
        outcome.message = error_of(tree.said())
        filler.unlink()
        outcome.healed = heal(ground, tree)
        if outcome.healed.startswith("no"):  # dvc too had no room, for its own files
            outcome.healed = heal(ground, tree, "heal")
    finally:
        subprocess.run(["umount", mount], check=True)
    return outcome


def read_only(ground: Ground) -> Outcome:
    """A folder that a stage writes into, and dvc does not, cannot be written."""
    outcome = Outcome("read-only output", "runs/ on a read-only mount while predict runs")
    tree = ground.tree("predict")
    runs = tree.folder / "runs"
    if subprocess.run(["mount", "--bind", runs, runs], capture_output=True).returncode:
        outcome.healed = "skipped: only root may mount"
        return outcome
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True)
        outcome.message = error_of(tree.run("dvc", "repro")[1])
    finally:
        subprocess.run(["umount", runs], check=True)
    outcome.healed = heal(ground, tree)
    return outcome


def cut(path: Path, length: int) -> None:
    path.chmod(0o644)
    os.truncate(path, length)


def truncated_parquet(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "build/negatives/qc.parquet", 1000)
    _, said = tree.run(sys.executable, "-m", "stages.leaks", "--task", "qc")
    return Outcome(
        "truncated Parquet file", "build/negatives/qc.parquet cut to 1,000 bytes; leaks run by hand", error_of(said), heal(ground, tree)
    )


def missing_model(ground: Ground) -> Outcome:
    tree = ground.tree()
    (tree.folder / "models/tiny/base/model.safetensors").unlink()
    _, said = tree.run(sys.executable, "-m", "stages.predict", "--task", "qc", "--model", "tiny")
    return Outcome(
        "missing model file", "models/tiny/base/model.safetensors removed; predict run by hand", error_of(said), heal(ground, tree)
    )


def damaged_adapter(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "models/tiny/qc/adapter_model.safetensors", 1000)
    _, said = tree.run(sys.executable, "-m", "stages.predict", "--task", "qc", "--model", "tiny")
    return Outcome(
        "damaged adapter", "adapter_model.safetensors cut to 1,000 bytes; predict run by hand", error_of(said), heal(ground, tree)
    )


def corrupted_object(ground: Ground) -> Outcome:
    """DVC trusts the object; `babelcart verify` and `babelcart heal` do not."""
    tree = ground.tree()
    path = "build/negatives/qc.parquet"
    md5 = next(out["md5"] for entry in tree.locked().values() for out in entry["outs"] if out["path"] == path)
    cut(tree.object(md5), 1000)
    tree.object(md5).chmod(0o444)
    (tree.folder / path).unlink()
    tree.run("dvc", "repro")
    _, said = tree.run(sys.executable, "-m", "stages.leaks", "--task", "qc")
    injected = f"the object of {path} cut to 1,000 bytes, the file removed; `dvc repro`, then leaks by hand"
    return Outcome("corrupted cache object", injected, error_of(said), heal(ground, tree, "heal"))


def corrupted_checkpoint(ground: Ground) -> Outcome:
    """Training is killed after a checkpoint, whose tensors are then altered."""
    tree = ground.tree("train")
    process = tree.start("dvc", "repro")
    tree.wait_for(process, lambda: len(list(tree.folder.glob(".scratch/train/*/*.json"))) > 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    newest = max(tree.folder.glob(".scratch/train/*/*.safetensors"))
    with newest.open("r+b") as handle:
        handle.seek(-8, os.SEEK_END)
        handle.write(b"damaged!")
    healed = heal(ground, tree)
    said = re.search(r"resuming after .*", tree.said())
    return Outcome(
        "corrupted checkpoint", "8 bytes of the newest checkpoint altered", f"none: {said and said[0]}, from the one before", healed
    )


def hook(ground: Ground, tree: Tree, code: str) -> None:
    """Run code at the start of every Python process of the tree."""
    folder = ground.folder / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    tree.environment["PYTHONPATH"] = str(folder)


def jumping_clock(ground: Ground) -> Outcome:
    """Every Python process sees a clock that jumps by years at each look, and files have times from the past and the future."""
    chance = random.Random(0)
    tree = ground.tree("train")
    tree.without("translate")
    for path in tree.folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (moment := chance.choice([1, 1e9, 4e9]), moment))
    hook(ground, tree, "import random, time\nreal = time.time\ntime.time = lambda: real() + random.choice([-3e8, 0, 3e8])\n")
    return Outcome(
        "clock that jumps", "time.time jumps by ten years at each call, files are from 1970, 2001 and 2096", "none", heal(ground, tree)
    )


def two_at_once(ground: Ground) -> Outcome:
    tree = ground.tree("train")
    first = tree.start("dvc", "repro")
    tree.wait_for(first, lambda: workers(first))
    other = Tree(tree.folder)
    other.log = ground.folder / "other.log"
    message = error_of(other.run("dvc", "repro")[1])
    first.wait()
    return Outcome("two `dvc repro` at once", "a second one while train runs", message, heal(ground, tree))


def dvc_alone_killed(ground: Ground) -> Outcome:
    """The stage lives on, and must not be run beside itself."""
    tree = ground.tree("train")
    process = tree.start("dvc", "repro")
    orphan = script(tree, process, "train")
    time.sleep(1)
    process.kill()
    process.wait()
    again = Tree(tree.folder)
    again.log = ground.folder / "other.log"
    message = error_of(again.run("dvc", "repro")[1])
    psutil.wait_procs([orphan])
    return Outcome("dvc killed, its stage lives on", "`dvc repro` again while train still runs", message, heal(ground, tree))


def interrupted(ground: Ground, name: str) -> Outcome:
    tree = ground.tree(name)
    process = tree.start("dvc", "repro")
    worker = script(tree, process, name)
    # Its work has begun when it has its libraries.
    tree.wait_for(process, lambda: not worker.is_running() or worker.memory_info().rss > 100 * 2**20)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    return Outcome(f"Ctrl-C in {name}", "SIGINT to the group", error_of(tree.said()), heal(ground, tree))


def out_of_memory(ground: Ground) -> Outcome:
    """An allocation fails while a stage writes its first file. (The halving of packs is in tests/unit/test_training.py.)"""
    tree = ground.tree("predict")
    hook(
        ground,
        tree,
        "import os, sys\nif any(one.startswith('stages.') for one in sys.orig_argv):\n    os.fsync = lambda handle: bytearray(1 << 60)\n",
    )
    message = error_of(tree.run("dvc", "repro")[1])
    tree.environment.pop("PYTHONPATH")
    injected = "an allocation of 2^60 bytes while predict writes its first file"
    return Outcome("out of memory", injected, message, heal(ground, tree))


def killed_for_memory(ground: Ground) -> Outcome:
    tree = ground.tree("train")
    process = tree.start("dvc", "repro")
    tree.wait_for(process, lambda: workers(process))
    for one in workers(process):
        one.kill()
    process.wait()
    return Outcome("killed by the system for want of memory", "SIGKILL to train's process", error_of(tree.said()), heal(ground, tree))


def lock_cut_short(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "dvc.lock", 0)
    message = tree.run("dvc", "repro")[1].strip().replace("\n\n", " ")
    return Outcome("dvc killed while it writes dvc.lock", "dvc.lock of 0 bytes", message, heal(ground, tree, "heal"))


def busy_file_cut_short(ground: Ground) -> Outcome:
    tree = ground.tree("split")
    (tree.folder / ".dvc/tmp/rwlock").write_text('{"wri')
    message = error_of(tree.run("dvc", "repro")[1])
    return Outcome("dvc killed while it writes its own locks", ".dvc/tmp/rwlock cut short", message, heal(ground, tree, "heal"))


def empty_run(ground: Ground) -> Outcome:
    tree = ground.tree()
    runs = tree.folder / ".dvc/cache/runs"
    run = next(path.parent for path in runs.glob("*/*/*") if "stages.split" in path.read_text(encoding="utf-8").splitlines()[0])
    tree.without("split")
    run.mkdir(parents=True)
    message = error_of(tree.run("dvc", "repro")[1])
    return Outcome(
        "dvc killed while it writes its run-cache", "a folder of the run-cache without a run", message, heal(ground, tree, "heal")
    )


def damaged_memory(ground: Ground) -> Outcome:
    tree = ground.tree("translate")
    (tree.folder / ".scratch").mkdir()
    (tree.folder / ".scratch/memory.sqlite").write_bytes(b"SQLite format 3\0" + b"\1" * 8000)
    message = error_of(tree.run("dvc", "repro")[1])
    (tree.folder / ".scratch/memory.sqlite").unlink(missing_ok=True)
    outcome = Outcome("damaged translation memory", ".scratch/memory.sqlite overwritten", message, heal(ground, tree))
    outcome.healed = outcome.healed.replace("`dvc repro`", "deleting it and `dvc repro`")
    return outcome


SCENARIOS: dict[str, Callable[[Ground], Outcome]] = {
    "full-base": lambda ground: disk_full(ground, "base"),
    "full-translate": lambda ground: disk_full(ground, "translate"),
    "full-train": lambda ground: disk_full(ground, "train"),
    "read-only": read_only,
    "parquet": truncated_parquet,
    "model": missing_model,
    "adapter": damaged_adapter,
    "object": corrupted_object,
    "checkpoint": corrupted_checkpoint,
    "memory": damaged_memory,
    "clock": jumping_clock,
    "two": two_at_once,
    "orphan": dvc_alone_killed,
    "interrupt-translate": lambda ground: interrupted(ground, "translate"),
    "interrupt-train": lambda ground: interrupted(ground, "train"),
    "out-of-memory": out_of_memory,
    "oom-killer": killed_for_memory,
    "lock": lock_cut_short,
    "busy": busy_file_cut_short,
    "run-cache": empty_run,
}


def tables(kills: list[dict[str, Any]], outcomes: dict[str, dict[str, Any]]) -> str:
    """Both tables in Markdown."""
    heads = ("stage", "killed alone", "killed with dvc", "other bytes", "healed by `dvc repro`", "by `make heal` and it", "most work lost")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in STAGES:
        if of := [one for one in kills if one["stage"] == name]:
            counts = [sum(one["whom"] == whom for one in of) for whom in ("stage", "group")]
            counts.append(sum(bool(one["different"]) for one in of))
            counts += [sum(one["healed"] == how for one in of) for how in ("repro", "heal")]
            unit = {"train": f"steps (a checkpoint every {SAVE_STEPS})", "translate": f"texts (asked {CONCURRENCY} at once)"}.get(name)
            lost = f"{max(one['lost'] for one in of)} {unit}" if unit else ""
            lines.append(f"| {' | '.join(map(str, (name, *counts, lost)))} |")
    lines += ["", "| fault | how it was made | message | healed by |", "|---|---|---|---|"]
    for name in SCENARIOS:
        if name in outcomes:
            cells = (outcomes[name][key].replace("|", "\\|").replace("\n", " ") for key in ("scenario", "injected", "message", "healed"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--kills", default=20, show_default=True, help="Kills of each stage.")
@click.option("--stage", "stages", type=click.Choice(STAGES), multiple=True, help="Stages to kill; all if not named.")
@click.option("--scenario", "scenarios", multiple=True, help=f"Scenarios ('' for none): {', '.join(SCENARIOS)}.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write to, and to go on from.")
def main(kills: int, stages: tuple[str, ...], scenarios: tuple[str, ...], seed: int, out: Path | None) -> None:
    state: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else {"kills": [], "scenarios": {}}
    done = {(one["stage"], one["number"]) for one in state["kills"]}
    left = [(name, number) for name in stages or STAGES for number in range(kills) if (name, number) not in done]
    chosen = [name for name in scenarios or SCENARIOS if name and name not in state["scenarios"]]
    with tempfile.TemporaryDirectory() as scratch, running(delay=0.01) as server, tqdm(total=len(left) + len(chosen), disable=None) as bar:
        folder = Path(scratch)
        whole = build(folder / "whole", server.url)
        expected = whole.files()
        before: Before | None = None
        for name, number in left:
            if before is None or before.stage != name:
                before = prepare(whole, expected, name, folder)
            bar.set_description(f"kill {name}")
            found = kill(before, number, seed, expected, server if name == "translate" else None)
            state["kills"].append(dataclasses.asdict(found))
            keep(out, state)
            bar.update()
        for name in chosen:
            bar.set_description(name)
            state["scenarios"][name] = dataclasses.asdict(SCENARIOS[name](Ground(whole, expected, folder)))
            keep(out, state)
            bar.update()
    click.echo(tables(state["kills"], state["scenarios"]))
    most = {"train": SAVE_STEPS, "translate": CONCURRENCY}
    bad = [one for one in state["kills"] if one["different"] or one["healed"] == "no" or (one["lost"] or 0) > most.get(one["stage"], 0)]
    bad += [one for one in state["scenarios"].values() if one["healed"].startswith("no")]
    if bad:
        raise click.ClickException(f"{len(bad)} did not heal: {bad}")


def keep(out: Path | None, state: dict[str, Any]) -> None:
    if out:
        write_json(out, state)


if __name__ == "__main__":
    main()
