"""Kill every stage at random moments and inject other faults; `dvc repro` must then produce the bytes of an undisturbed run.

    python -m tests.support.faults --out faults.json                     # 20 kills of each stage and every scenario
    python -m tests.support.faults --kills 3 --stage train --scenario ""

A tiny project runs once without disturbance. For each kill, the script copies it, invalidates one stage, starts `dvc repro`, and sends
SIGKILL alternately to the process of the stage and to the process group that includes dvc. The moment is drawn from the measured time of
the stage (for the group, the time until dvc ends). Then `dvc repro` runs again, and every file of the project, including dvc.lock, is
compared. Kills and scenarios that --out already contains are skipped. tests/graph/test_faults.py is a short version.
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
    """A project in its own folder, and the commands that run in it."""

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
        """Start a process in a new process group; its output goes to `log`."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options
            )

    def run(self, *command: str, **options: Any) -> tuple[bool, str]:
        """Run a command to its end; return whether it succeeded, and its output."""
        process = self.start(*command, **options)
        process.wait()
        return process.returncode == 0, self.output()

    def output(self) -> str:
        """Output of the last command."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def locked(self) -> dict[str, Any]:
        """Return the stages in dvc.lock."""
        return YAML(typ="safe").load(self.folder / "dvc.lock")["stages"]

    def files(self) -> dict[str, str]:
        """Hashes of all files that a run creates, without git, DVC's cache, checkpoints and timings."""
        hashes = {}
        for top, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in (".git", ".dvc", ".scratch", "runs", "__pycache__")]
            for path in (Path(top, name) for name in names if not name.endswith(".part")):
                hashes[path.relative_to(self.folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        return hashes

    def objects(self, stage: dict[str, Any]) -> set[Path]:
        """Objects in the cache that belong to the outputs of a stage."""
        paths = set()
        for out in stage["outs"]:
            path = self.object(out["md5"])
            paths.add(path)
            if out["md5"].endswith(".dir") and path.exists():
                paths |= {self.object(entry["md5"]) for entry in json.loads(path.read_text())}
        return paths

    def object(self, md5: str) -> Path:
        """Path of an object in the cache."""
        return self.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]

    def invalidate(self, stage: str) -> str:
        """Make one stage run again, but no later stage if its bytes are the same; return its address."""
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
        if stage == "translate":  # so that the server is asked again
            shutil.rmtree(self.folder / "memory")
        return address

    def wait_for(self, process: subprocess.Popen[bytes], ready: Callable[[], Any]) -> Any:
        """Return the first true value that `ready` returns; None if the process ends first."""
        while True:
            ended = process.poll() is not None
            if value := ready():
                return value
            if ended:
                return None
            time.sleep(0.005)

    def stage_started(self, process: subprocess.Popen[bytes]) -> Any:
        """Wait until dvc announces a stage; return a true value unless it ends first."""
        return self.wait_for(process, lambda: "Running stage" in self.output())


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes of the stage that dvc runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def script(tree: Tree, process: subprocess.Popen[bytes], name: str) -> psutil.Process:
    """Return the Python process of the stage, without the shell that started it, as soon as it exists."""

    def find() -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [worker for worker in workers(process) if f"stages.{name}" in worker.cmdline()]
        return []

    scripts = tree.wait_for(process, find)
    assert scripts, tree.output()
    return scripts[0]


def build(folder: Path, url: str) -> Tree:
    """Return the project after an undisturbed run; its translations come from the server at `url`."""
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
    succeeded, output = tree.run("dvc", "repro")
    assert succeeded, output
    graph.commit("run")
    return tree


@dataclass
class Before:
    """A tree in which one stage is invalidated, and the measured time of that stage."""

    stage: str
    tree: Tree
    alone: float  # seconds from the announcement by dvc until the process of the stage ends
    group: float  # seconds from the announcement until dvc ends


def prepare(undisturbed: Tree, expected: dict[str, str], stage: str, folder: Path) -> Before:
    """Invalidate a stage in a copy of the undisturbed run, and measure its time in a trial."""
    tree = undisturbed.copy(folder / f"before-{stage}")
    address = tree.invalidate(stage)
    trial = tree.copy(folder / "trial")
    process = trial.start("dvc", "repro")
    started = trial.stage_started(process)
    assert started, trial.output()
    start = time.monotonic()
    while process.poll() is None and not workers(process):
        time.sleep(0.002)
    while process.poll() is None and workers(process):
        time.sleep(0.002)
    alone = time.monotonic() - start
    process.wait()
    group = time.monotonic() - start
    ran = re.findall(r"Running stage '([^']+)'", trial.output())
    assert ran == [address], f"{ran} ran instead of {address}"
    assert trial.files() == expected, different(trial.files(), expected)
    return Before(stage, tree, alone, group)


def different(actual: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the names of the files that exist on one side only or differ in their hash."""
    return sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))


@dataclass
class Kill:
    """The effect of one kill."""

    stage: str
    number: int
    whom: str  # "stage" or "group"
    seconds: float  # after dvc announced the stage
    healed: str  # "repro", or "heal" if `babelcart heal` was needed first, or "no"
    different: list[str]  # files whose bytes differ from the undisturbed run
    lost: int | None = None  # train: repeated steps; translate: texts that were requested again
    message: str = ""


def error_of(output: str) -> str:
    """Return the first error in the output of a command; without one, the last line."""
    match = re.search(r"^(?:Error|ERROR|Stopped)[^\n]*", output, re.MULTILINE)
    return match[0] if match else (output.strip().splitlines() or [""])[-1]


def kill(before: Before, number: int, seed: int, expected: dict[str, str], server: Server | None = None) -> Kill:
    """Kill a stage, or its process group, once, and run `dvc repro` again."""
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
            for victim in victims if whom == "stage" else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            if process.wait() != 0:
                break
        process.wait()  # it ended before the kill: draw another moment
    done = steps_done(tree.folder) if before.stage == "train" else 0
    result = Kill(before.stage, number, whom, round(moment, 3), "repro", [])
    succeeded, output = tree.run("dvc", "repro")
    if not succeeded:
        result.message = error_of(output)
        tree.run(sys.executable, "-m", "babelcart", "heal")
        succeeded, output = tree.run("dvc", "repro")
        result.healed = "heal" if succeeded else "no"
    result.different = different(tree.files(), expected)
    if before.stage == "train":
        resumed = re.search(r"resuming after step (\d+)", output)
        result.lost = done - int(resumed[1] if resumed else 0)
    if server:
        result.lost = sum(server.correct_answers.values()) - len(server.correct_answers)
    return result


def steps_done(folder: Path) -> int:
    """Optimiser steps in the training curves, which may be ahead of the last checkpoint."""
    curve = next(folder.glob("plots/*/*_training/plots/metrics/train/loss.tsv"), None)
    return max(0, len(curve.read_text(encoding="utf-8").splitlines()) - 1) if curve else 0


@dataclass
class Ground:
    """The undisturbed run, the hashes of its files, and a folder for the copies that scenarios damage."""

    undisturbed: Tree
    expected: dict[str, str]
    folder: Path

    def tree(self, stage: str | None = None, name: str = "scenario") -> Tree:
        """Return a copy of the undisturbed run, in which `stage` is invalidated."""
        tree = self.undisturbed.copy(self.folder / name)
        if stage:
            tree.invalidate(stage)
        return tree


@dataclass
class Outcome:
    """The outcome of a scenario, as a row of the table in docs/faults.md."""

    scenario: str
    injected: str
    message: str = ""
    healed: str = ""  # commands that restored the bytes of the undisturbed run; "no: ..."; or "skipped: ..."


def heal(ground: Ground, tree: Tree, *first: str) -> str:
    """Run the modules of stages/ named in `first`, then `dvc repro`; return the commands, or "no" with the reason."""
    for stage in first:
        tree.run(sys.executable, "-m", f"stages.{stage}")
    succeeded, output = tree.run("dvc", "repro")
    wrong = different(tree.files(), ground.expected)
    if not succeeded or wrong:
        return f"no: {error_of(output) if not succeeded else wrong}"
    return " and ".join([*(f"`make {stage}`" for stage in first), "`dvc repro`"])


def disk_full(ground: Ground, name: str) -> Outcome:
    """The project is on a separate file system, which is filled completely once the stage has started."""
    outcome = Outcome(f"disk full in {name}", f"a tmpfs, filled while {name} runs")
    mount = ground.folder / "mount"
    mount.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", mount], capture_output=True).returncode:
        outcome.healed = "skipped: mounting needs root"
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
        outcome.message = error_of(tree.output())
        filler.unlink()
        outcome.healed = heal(ground, tree)
        if outcome.healed.startswith("no"):  # the disk was also full for the files of dvc
            outcome.healed = heal(ground, tree, "heal")
    finally:
        subprocess.run(["umount", mount], check=True)
    return outcome


def read_only(ground: Ground) -> Outcome:
    """A folder that a stage writes to, but dvc does not, is read-only."""
    outcome = Outcome("read-only output", "runs/ on a read-only mount while predict runs")
    tree = ground.tree("predict")
    runs = tree.folder / "runs"
    if subprocess.run(["mount", "--bind", runs, runs], capture_output=True).returncode:
        outcome.healed = "skipped: mounting needs root"
        return outcome
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True)
        outcome.message = error_of(tree.run("dvc", "repro")[1])
    finally:
        subprocess.run(["umount", runs], check=True)
    outcome.healed = heal(ground, tree)
    return outcome


def cut(path: Path, length: int) -> None:
    """Truncate a file, also one that is read-only."""
    path.chmod(0o644)
    os.truncate(path, length)


def truncated_parquet(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "build/negatives/qc.parquet", 1000)
    _, output = tree.run(sys.executable, "-m", "stages.leaks", "--task", "qc")
    return Outcome(
        "truncated Parquet file",
        "build/negatives/qc.parquet truncated to 1,000 bytes; leaks started manually",
        error_of(output),
        heal(ground, tree),
    )


def missing_model(ground: Ground) -> Outcome:
    tree = ground.tree()
    (tree.folder / "models/tiny/base/model.safetensors").unlink()
    _, output = tree.run(sys.executable, "-m", "stages.predict", "--task", "qc", "--model", "tiny")
    return Outcome(
        "missing model file", "models/tiny/base/model.safetensors removed; predict started manually", error_of(output), heal(ground, tree)
    )


def damaged_adapter(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "models/tiny/qc/adapter_model.safetensors", 1000)
    _, output = tree.run(sys.executable, "-m", "stages.predict", "--task", "qc", "--model", "tiny")
    return Outcome(
        "damaged adapter",
        "adapter_model.safetensors truncated to 1,000 bytes; predict started manually",
        error_of(output),
        heal(ground, tree),
    )


def corrupted_object(ground: Ground) -> Outcome:
    """DVC uses a damaged object without verifying it; `babelcart verify` and `babelcart heal` hash it."""
    tree = ground.tree()
    path = "build/negatives/qc.parquet"
    md5 = next(out["md5"] for entry in tree.locked().values() for out in entry["outs"] if out["path"] == path)
    cut(tree.object(md5), 1000)
    tree.object(md5).chmod(0o444)
    (tree.folder / path).unlink()
    tree.run("dvc", "repro")
    _, output = tree.run(sys.executable, "-m", "stages.leaks", "--task", "qc")
    injected = f"the object of {path} truncated to 1,000 bytes and the file removed; `dvc repro`, then leaks started manually"
    return Outcome("damaged cache object", injected, error_of(output), heal(ground, tree, "heal"))


def corrupted_checkpoint(ground: Ground) -> Outcome:
    """Training is killed after a checkpoint, and the tensors of the checkpoint are changed."""
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
    resumed = re.search(r"resuming after .*", tree.output())
    return Outcome(
        "damaged checkpoint", "8 bytes of the newest checkpoint changed", f"none; {resumed and resumed[0]}, from the previous one", healed
    )


def hook(ground: Ground, tree: Tree, code: str) -> None:
    """Run `code` at the start of every Python process in the tree."""
    folder = ground.folder / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    tree.environment["PYTHONPATH"] = str(folder)


def jumping_clock(ground: Ground) -> Outcome:
    """The clock of every Python process jumps by ten years at each call, and files are dated in the past and the future."""
    chance = random.Random(0)
    tree = ground.tree("train")
    tree.invalidate("translate")
    for path in tree.folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (moment := chance.choice([1, 1e9, 4e9]), moment))
    hook(ground, tree, "import random, time\nreal = time.time\ntime.time = lambda: real() + random.choice([-3e8, 0, 3e8])\n")
    return Outcome(
        "jumping clock", "time.time jumps by ten years at each call; files are dated 1970, 2001 and 2096", "none", heal(ground, tree)
    )


def two_at_once(ground: Ground) -> Outcome:
    tree = ground.tree("train")
    first = tree.start("dvc", "repro")
    tree.wait_for(first, lambda: workers(first))
    other = Tree(tree.folder)
    other.log = ground.folder / "other.log"
    message = error_of(other.run("dvc", "repro")[1])
    first.wait()
    return Outcome("two concurrent `dvc repro`", "a second one while train runs", message, heal(ground, tree))


def dvc_only_killed(ground: Ground) -> Outcome:
    """dvc is killed but its stage continues; a second concurrent run of the stage must be refused."""
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
    return Outcome("dvc killed, stage continues", "`dvc repro` again while train still runs", message, heal(ground, tree))


def interrupted(ground: Ground, name: str) -> Outcome:
    tree = ground.tree(name)
    process = tree.start("dvc", "repro")
    worker = script(tree, process, name)
    # The stage has loaded its libraries and started its work once it uses 100 MiB.
    tree.wait_for(process, lambda: not worker.is_running() or worker.memory_info().rss > 100 * 2**20)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    return Outcome(f"Ctrl-C in {name}", "SIGINT to the process group", error_of(tree.output()), heal(ground, tree))


def out_of_memory(ground: Ground) -> Outcome:
    """An allocation fails while a stage writes its first file. (tests/unit/test_training.py tests that packs are halved.)"""
    tree = ground.tree("predict")
    hook(
        ground,
        tree,
        "import os, sys\nif any(word.startswith('stages.') for word in sys.orig_argv):\n    os.fsync = lambda handle: bytearray(1 << 60)\n",
    )
    message = error_of(tree.run("dvc", "repro")[1])
    tree.environment.pop("PYTHONPATH")
    injected = "an allocation of 2^60 bytes while predict writes its first file"
    return Outcome("out of memory", injected, message, heal(ground, tree))


def killed_for_memory(ground: Ground) -> Outcome:
    tree = ground.tree("train")
    process = tree.start("dvc", "repro")
    tree.wait_for(process, lambda: workers(process))
    for worker in workers(process):
        worker.kill()
    process.wait()
    return Outcome("killed by the operating system", "SIGKILL to the process of train", error_of(tree.output()), heal(ground, tree))


def lock_cut_short(ground: Ground) -> Outcome:
    tree = ground.tree()
    cut(tree.folder / "dvc.lock", 0)
    message = tree.run("dvc", "repro")[1].strip().replace("\n\n", " ")
    return Outcome("dvc killed while it writes dvc.lock", "dvc.lock truncated to 0 bytes", message, heal(ground, tree, "heal"))


def busy_file_cut_short(ground: Ground) -> Outcome:
    tree = ground.tree("split")
    (tree.folder / ".dvc/tmp/rwlock").write_text('{"wri')
    message = error_of(tree.run("dvc", "repro")[1])
    return Outcome("dvc killed while it writes its locks", ".dvc/tmp/rwlock truncated", message, heal(ground, tree, "heal"))


def empty_run(ground: Ground) -> Outcome:
    tree = ground.tree()
    runs = tree.folder / ".dvc/cache/runs"
    run = next(path.parent for path in runs.glob("*/*/*") if "stages.split" in path.read_text(encoding="utf-8").splitlines()[0])
    tree.invalidate("split")
    run.mkdir(parents=True)
    message = error_of(tree.run("dvc", "repro")[1])
    return Outcome("dvc killed while it writes its run-cache", "an empty folder in the run-cache", message, heal(ground, tree, "heal"))


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
    "orphan": dvc_only_killed,
    "interrupt-translate": lambda ground: interrupted(ground, "translate"),
    "interrupt-train": lambda ground: interrupted(ground, "train"),
    "out-of-memory": out_of_memory,
    "oom-killer": killed_for_memory,
    "lock": lock_cut_short,
    "busy": busy_file_cut_short,
    "run-cache": empty_run,
}


def tables(kills: list[dict[str, Any]], outcomes: dict[str, dict[str, Any]]) -> str:
    """Return the tables of kills and of scenarios in Markdown."""
    heads = (
        "stage", "kills of the stage", "kills of stage and `dvc`", "different bytes", "recovered by `dvc repro`",
        "by `make heal` and `dvc repro`", "most work lost",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in STAGES:
        if stage_kills := [entry for entry in kills if entry["stage"] == name]:
            counts = [sum(entry["whom"] == whom for entry in stage_kills) for whom in ("stage", "group")]
            counts.append(sum(bool(entry["different"]) for entry in stage_kills))
            counts += [sum(entry["healed"] == how for entry in stage_kills) for how in ("repro", "heal")]
            unit = {"train": f"steps (a checkpoint every {SAVE_STEPS})", "translate": f"texts ({CONCURRENCY} concurrent requests)"}.get(
                name
            )
            lost = f"{max(entry['lost'] for entry in stage_kills)} {unit}" if unit else ""
            lines.append(f"| {' | '.join(map(str, (name, *counts, lost)))} |")
    lines += ["", "| fault | how it was produced | message | recovered by |", "|---|---|---|---|"]
    for name in SCENARIOS:
        if name in outcomes:
            cells = (outcomes[name][key].replace("|", "\\|").replace("\n", " ") for key in ("scenario", "injected", "message", "healed"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--kills", default=20, show_default=True, help="Number of kills of each stage.")
@click.option("--stage", "stages", type=click.Choice(STAGES), multiple=True, help="Stage to kill; repeatable. Default: all stages.")
@click.option(
    "--scenario", "scenarios", multiple=True, help=f"Scenario to run; repeatable. Default: all; '' for none. One of {', '.join(SCENARIOS)}."
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the outcomes, which the next call resumes from."
)
def main(kills: int, stages: tuple[str, ...], scenarios: tuple[str, ...], seed: int, out: Path | None) -> None:
    state: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else {"kills": [], "scenarios": {}}
    done = {(entry["stage"], entry["number"]) for entry in state["kills"]}
    left = [(name, number) for name in stages or STAGES for number in range(kills) if (name, number) not in done]
    chosen = [name for name in scenarios or SCENARIOS if name and name not in state["scenarios"]]
    with tempfile.TemporaryDirectory() as scratch, running(delay=0.01) as server, tqdm(total=len(left) + len(chosen), disable=None) as bar:
        folder = Path(scratch)
        undisturbed = build(folder / "whole", server.url)
        expected = undisturbed.files()
        before: Before | None = None
        for name, number in left:
            if before is None or before.stage != name:
                before = prepare(undisturbed, expected, name, folder)
            bar.set_description(f"kill {name}")
            outcome = kill(before, number, seed, expected, server if name == "translate" else None)
            state["kills"].append(dataclasses.asdict(outcome))
            save(out, state)
            bar.update()
        for name in chosen:
            bar.set_description(name)
            state["scenarios"][name] = dataclasses.asdict(SCENARIOS[name](Ground(undisturbed, expected, folder)))
            save(out, state)
            bar.update()
    click.echo(tables(state["kills"], state["scenarios"]))
    limits = {"train": SAVE_STEPS, "translate": CONCURRENCY}
    failures = [
        entry
        for entry in state["kills"]
        if entry["different"] or entry["healed"] == "no" or (entry["lost"] or 0) > limits.get(entry["stage"], 0)
    ]
    failures += [entry for entry in state["scenarios"].values() if entry["healed"].startswith("no")]
    if failures:
        raise click.ClickException(f"{len(failures)} kills or scenarios were not recovered: {failures}")


def save(out: Path | None, state: dict[str, Any]) -> None:
    if out:
        write_json(out, state)


if __name__ == "__main__":
    main()
