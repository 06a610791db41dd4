"""The same inputs give the same bytes: in two folders, under another hash seed, locale, time zone and umask."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.imports import ROOT
from tests.support.project import Project

# Every stage up to predict, and its outputs for QC.
STAGES = ("prepare", "split", "translate", "negatives", "leaks", "baseline", "base", "train", "predict")
WRITTEN = ("build", "memory", "metrics", "models", "plots", "predictions")
# Environments on one machine with one number of threads; all must give the same bytes.
ENVIRONMENTS = [
    {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC", "umask": "022"},
    {"PYTHONHASHSEED": "4711", "LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu", "umask": "077", "LANGUAGE": "de"},
]
# Largest measured change of a probability of the tiny model between 1 and 2 threads: 2.5e-7 (docs/determinism.md).
BOUND = 1e-5


def compute(project: Path, folder: Path, machine: dict[str, str], threads: int, stages: tuple[str, ...] = STAGES) -> dict[str, str]:
    """Run the stages in a copy of the project; return the sha256 of each file that they wrote, by path."""
    folder.mkdir(parents=True)
    subprocess.run(["cp", "-r", project / "params.yaml", project / "data", folder], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {name: value for name, value in machine.items() if name != "umask"}
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    for stage in stages:
        command = [sys.executable, "-m", f"stages.{stage}"]
        command += ["--task", "qc"] if stage != "base" else []
        command += ["--model", "tiny"] if stage in ("base", "train", "predict") else []
        done = subprocess.run(command, cwd=folder, env=environment, umask=int(machine["umask"], 8), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    files = [path for name in WRITTEN for path in folder.joinpath(name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def test_data_stages_give_the_same_bytes_anywhere(project: Project, tmp_path: Path) -> None:
    hashes_by_environment = [
        compute(project.folder, tmp_path / f"{n}/deep" / ("x" * n), machine, 1, STAGES[:2]) for n, machine in enumerate(ENVIRONMENTS, 1)
    ]
    assert len(hashes_by_environment[0]) == 11
    assert differing(*hashes_by_environment) == []


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_every_stage_up_to_predict_gives_the_same_bytes_anywhere(project: Project, tmp_path: Path, threads: int) -> None:
    hashes_by_environment = [compute(project.folder, tmp_path / f"{n}", machine, threads) for n, machine in enumerate(ENVIRONMENTS)]
    assert {name.split("/")[0] for name in hashes_by_environment[0]} == {*WRITTEN}
    assert differing(*hashes_by_environment) == []


@pytest.mark.slow
def test_the_number_of_threads_changes_no_label_and_probabilities_within_the_bound(project: Project, tmp_path: Path) -> None:
    one_thread, two_threads = (compute(project.folder, tmp_path / str(threads), ENVIRONMENTS[0], threads) for threads in (1, 2))
    # The outputs of the stages before the model do not depend on the number of threads.
    assert [name for name in differing(one_thread, two_threads) if not name.startswith(("models", "predictions", "plots"))] == []
    for split in ("validation", "test"):
        tables = [pd.read_parquet(tmp_path / str(threads) / f"predictions/tiny/qc/{split}.parquet") for threads in (1, 2)]
        largest_change = (tables[0]["probability"] - tables[1]["probability"]).abs().max()
        assert largest_change <= BOUND
        assert ((tables[0]["probability"] >= 0.5) == (tables[1]["probability"] >= 0.5)).all()
