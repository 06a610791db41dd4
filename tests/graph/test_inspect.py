"""`babelcart inspect` in a project with git and DVC: from files to scores, and from revision to revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support import datasets
from tests.support.project import Graph, Project


@pytest.fixture
def graph(project: Project) -> Graph:
    return Graph(project)


@pytest.mark.parametrize("name", ["esci", "wands", "home-depot"])
def test_public_data_sets_reach_scores_in_three_commands(graph: Graph, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    datasets.WRITERS[name](folder, 400)
    graph("python", "-m", "babelcart", "inspect", str(folder), "--write")
    graph("python", "-m", "babelcart", "check")
    graph.repro()
    scores = graph("python", "-m", "babelcart", "results")
    assert "| QI | overall" in scores
    assert "| QC |" not in scores


def test_files_in_the_tracked_folder_leave_the_remote_of_the_sample(graph: Graph) -> None:
    record = graph.folder / "data.dvc"
    record.write_text(record.read_text(encoding="utf-8").rstrip("\n") + "\n  remote: sample\n", encoding="utf-8")
    data = graph.folder / "data"
    shutil.rmtree(data)
    data.mkdir()
    datasets.WRITERS["crowdflower"](data, 200)
    printed = graph("python", "-m", "babelcart", "inspect", "data", "--write")
    assert "Recorded data in data.dvc" in printed
    assert "dvc config" not in printed  # advice of DVC
    tracked = YAML(typ="safe").load(record.read_text(encoding="utf-8"))
    assert "remote" not in tracked["outs"][0]
    status = graph("dvc", "status", "data.dvc")
    assert "up to date" in status
    graph("python", "-m", "babelcart", "check")


def test_changes_since_a_revision_are_counted(graph: Graph) -> None:
    path = graph.folder / "data/train_QC.txt"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["label"] = "0" if lines[0]["label"] == "1" else "1"
    lines[1]["language"] = "de"
    path.unlink()  # a link to the cache
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    changes = json.loads(graph("python", "-m", "babelcart", "inspect", "--against", "main", "--task", "qc", "--json"))["qc"]
    assert (changes["train"]["relabelled"], changes["train"]["added"], changes["train"]["removed"]) == (1, 1, 1)
    assert changes["train"]["languages"]["de"] == [0, 1]
    assert changes["test"]["relabelled"] == changes["test"]["added"] == 0
    printed = graph("python", "-m", "babelcart", "inspect", "--against", "main")
    assert "qc train: 20 -> 20 rows; 1 added, 1 removed, 1 relabelled" in printed
