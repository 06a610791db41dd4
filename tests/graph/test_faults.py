"""A short version of tests/support/faults.py: a few kills under dvc, and the message of each failure of the machine."""

from __future__ import annotations

import errno
import fcntl
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from babelcart import split as split_module
from babelcart.core.errors import explain
from stages import split
from tests.support import faults
from tests.support.faults import Before, Ground, Tree
from tests.support.imports import ROOT
from tests.support.project import Graph, Project, make_project, run, run_to

KILLED = ("base@tiny", "prepare@qc", "split@qc", "translate@qc", "negatives@qc", "leaks@qc", "train@qc-tiny")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The pipeline up to train. The stages run in this process, which has imported torch, and `dvc commit` records them."""
    folder = tmp_path_factory.mktemp("faults")
    project = make_project(folder / "whole")
    project.change(tasks=["qc"], train={"epochs": 8, "batch_size": 8, "save_steps": 5})
    graph = Graph(project)
    file = project.folder / "dvc.yaml"
    yaml = YAML()
    graph_of = yaml.load(file)
    graph_of["stages"] = {
        name: stage for name, stage in graph_of["stages"].items() if any(address.startswith(f"{name}@") for address in KILLED)
    }
    yaml.dump(graph_of, file)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        run_to("train")
    torch.set_num_threads(threads)
    graph("dvc", "commit", "--force", *KILLED)
    graph.commit("run")
    tree = Tree(project.folder)
    return Ground(tree, tree.files(), folder)


@pytest.mark.parametrize(
    ("stage", "number", "seconds"), [("split", 0, 1.0), pytest.param("translate", 1, 1.0, marks=pytest.mark.slow), ("train", 2, 5.0)]
)
def test_a_killed_stage_ends_with_the_same_bytes(ground: Ground, stage: str, number: int, seconds: float) -> None:
    before = Before(stage, ground.tree(stage, f"before-{stage}"), seconds, seconds)
    outcome = faults.kill(before, number, 0, ground.expected)
    # DVC writes dvc.lock in place: a kill of its process may truncate it, and then `dvc repro` asks for `babelcart heal`.
    accepted = {"stage": ["repro"], "group": ["repro", "heal"]}
    assert outcome.different == [], outcome
    assert outcome.healed in accepted[outcome.whom], outcome
    if stage == "train":
        assert outcome.lost is not None
        assert 0 <= outcome.lost <= 5


def test_heal_repairs_the_truncated_files_of_dvc(ground: Ground) -> None:
    tree = ground.tree()
    path = "build/negatives/qc.parquet"
    md5 = next(out["md5"] for entry in tree.locked().values() for out in entry["outs"] if out["path"] == path)
    for damaged in (tree.object(md5), tree.folder / path):  # as if DVC had checked it out
        faults.cut(damaged, 1000)
    (tree.folder / ".dvc/tmp/rwlock").write_text('{"wri')
    lock = tree.folder / "dvc.lock"
    faults.cut(lock, lock.read_bytes().index(b"md5:", 900) + 2)  # inside a key, so that the rest is not a valid file
    empty = tree.folder / ".dvc/cache/runs/ab/abc"
    empty.mkdir(parents=True)
    _, output = tree.run(sys.executable, "-m", "babelcart", "heal")
    for expected in ("dvc.lock was truncated: restored from git", "rwlock was truncated: removed", f"{path} did not match its hash"):
        assert expected in output
    assert not empty.exists()
    succeeded, output = tree.run("dvc", "repro")
    assert succeeded, output
    assert tree.files() == ground.expected


def test_heal_does_not_change_a_lock_with_merge_conflicts(project: Project) -> None:
    lock = Path("dvc.lock")
    lock.write_text("schema: '2.0'\nstages:\n<<<<<<< HEAD\n=======\n>>>>>>> other\n")
    printed = run("heal", fails=True).output
    assert "both sides of a merge" in printed
    assert "<<<<<<<" in lock.read_text()


def test_two_concurrent_runs_of_a_stage_are_prevented(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run_to("prepare")
    monkeypatch.setenv("DVC_STAGE", "split@qc")
    Path(".scratch/running").mkdir(parents=True)
    with Path(".scratch/running/split@qc.lock").open("w") as held:
        held.write("4711")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        printed = run("split", "--task", "qc", fails=True).output
        assert "split@qc is still running as process 4711" in printed
        assert not Path("build/split").exists()
    run("split", "--task", "qc")


def test_damaged_files_are_named(project: Project) -> None:
    run_to("evaluate")
    for name in ("config.json", "tokenizer.json", "model.safetensors", "base.json"):
        path = Path("models/tiny/base") / name
        content = path.read_bytes()
        for damage in (b"", content[: len(content) // 2]):
            path.write_bytes(damage)
            printed = run("predict", "--task", "qc", "--model", "tiny", fails=True).output
            assert "models/tiny/base" in printed, name
        path.write_bytes(content)
    adapter = Path("models/tiny/qc/adapter_model.safetensors")
    adapter.write_bytes(adapter.read_bytes()[:1000])
    printed = run("predict", "--task", "qc", "--model", "tiny", fails=True).output
    assert "make heal" in printed
    Path("models/tiny/base/model.safetensors").unlink()
    printed = run("predict", "--task", "qc", "--model", "tiny", fails=True).output
    assert "holds no weights" in printed

    scores = Path("metrics/tiny/qc.json")
    scores.write_text(scores.read_text()[:100])
    printed = run("card", "--task", "qc", "--model", "tiny", fails=True).output
    assert "metrics/tiny/qc.json is not complete JSON" in printed
    table = Path("build/negatives/qc.parquet")
    table.write_bytes(table.read_bytes()[:-9])
    printed = run("leaks", "--task", "qc", fails=True).output
    assert "build/negatives/qc.parquet is not a complete Parquet file" in printed


def test_ctrl_c_ends_a_stage_with_a_one_line_message(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run_to("prepare")

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(split_module, "split_rows", pressed)
    result = run("split", "--task", "qc", fails=True)
    assert (result.exit_code, result.output) == (130, "\nStopped.\n")
    monkeypatch.setenv("DVC_STAGE", "split@qc")
    result = run("split", "--task", "qc", fails=True)
    assert result.exit_code == 130
    assert "`dvc repro` resumes where it stopped" in result.output


def test_a_full_disk_is_reported_and_leaves_no_file(project: Project) -> None:
    command = ["bash", "-c", f"ulimit -f 1; exec {shlex.quote(sys.executable)} -m stages.prepare --task qc"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Error: build/prepare/qc/train.parquet: the file would be larger than is allowed" in done.stderr
    assert not [path for path in Path("build").rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which has no room")
def test_a_full_disk_is_recognised_in_the_errors_of_every_library(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    store = sqlite3.connect(tmp_path / "store", isolation_level=None)
    store.execute("CREATE TABLE texts (text TEXT)")
    store.execute("PRAGMA max_page_count = 3")

    def text() -> None:
        with full.open("w") as handle:
            handle.write("text")

    writers = {
        "Python": text,
        "pyarrow": lambda: pd.DataFrame({"a": [1]}).to_parquet(full),
        "SQLite": lambda: store.execute("INSERT INTO texts VALUES (zeroblob(1000000))"),
    }
    for name, write in writers.items():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever type
            write()
        assert "the disk is full" in str(explain(caught.value)), name


def test_each_failure_of_the_machine_names_the_remedy() -> None:
    messages = {
        OSError(errno.EROFS, "Read-only file system", "runs/a.json"): "runs/a.json: the file system is read-only",
        PermissionError(errno.EACCES, "Permission denied", "runs/a.json"): "runs/a.json: permission denied",
        OSError(errno.EIO, "Input/output error", "data/a"): "data/a: the disk fails",
        FileNotFoundError(errno.ENOENT, "No such file", "build/a"): "build/a: does not exist",
        Exception("I/O error: No space left on device (os error 28)"): "the disk is full",
        MemoryError(): "out of memory",
        torch.OutOfMemoryError("CUDA out of memory."): "out of memory",
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"): "out of memory",
        OSError(errno.ENOMEM, "Cannot allocate memory"): "out of memory",
    }
    for error, expected in messages.items():
        message = explain(error)
        assert message is not None, error
        assert expected in message
        assert "dvc repro" in message
        assert message.count("a.json") < 2
    for bug in (ZeroDivisionError(), KeyError("a"), RuntimeError("shapes do not match"), ConnectionResetError(104, "reset"), OSError("?")):
        assert explain(bug) is None


def test_a_bug_keeps_its_traceback(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run_to("prepare")
    monkeypatch.setattr(split_module, "split_rows", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        split.main.main(["--task", "qc"], standalone_mode=False)
