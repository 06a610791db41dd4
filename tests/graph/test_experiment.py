"""`babelcart experiments` with the tiny model: it is stopped, started again, and prints its table."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support.project import Graph, Project

SPEC = """
small:
  models: [tiny, nowhere]
  tasks: [qc]
  seeds: [0]
  base: {train.epochs: 1}
  cells:
    none: {negatives.qc.strategy: none}
    + easy: {negatives.qc.target_share: 0.6}
  subsets:
    qc: {all: [], unseen: [de]}
"""

# A model that cannot be downloaded, because the Hugging Face Hub is offline.
NOWHERE = """
  nowhere:
    weights: {licence: none, repo: nobody/nothing, revision: "0000000000000000000000000000000000000000"}
"""

# The test takes more than a minute: each cell is a real experiment in a clone.
pytestmark = pytest.mark.slow


def test_stopped_experiments_resume_and_print_a_table(project: Project) -> None:
    graph = Graph(project, real=True)
    (project.folder / "small.yaml").write_text(SPEC)
    params = (project.folder / "params.yaml").read_text(encoding="utf-8")
    (project.folder / "params.yaml").write_text(params + NOWHERE, encoding="utf-8")
    graph.commit("experiments")
    command = [sys.executable, "-m", "babelcart", "experiments", "small.yaml", "--draws", "50"]
    environment = {**graph.environment, "PYTHONPATH": str(project.folder), "HF_HUB_OFFLINE": "1"}

    def experiments() -> list[str]:
        return graph("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()

    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    while not experiments():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    # The second experiment is running when the process group is killed.
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert len(experiments()) == 1
    changes = graph("git", "status", "--porcelain")
    assert changes == "", "the workspace must not change"

    printed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stdout + printed.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.stdout.splitlines() if line.startswith("| QC")]
    assert [row[1:4] for row in rows] == [[name, "tiny", cell] for name in ("all, 20", "unseen, 10") for cell in ("none", "+ easy")]
    for row in rows:
        assert re.fullmatch(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", row[4])
        assert row[6] == row[4].split()[0], "the mean of one seed is its score"
        assert (row[5] == "") == (row[3] == "none")
    assert "nowhere is left out: cannot download nobody/nothing" in printed.stderr
    assert len(experiments()) == 2
    # Stages with equal inputs ran once, and the experiment that had finished before the stop did not run again.
    runs = json.loads((project.folder / ".scratch/experiments/small-small/runs.json").read_text())
    none, easy = (
        {stage.partition("@")[0] for stage in run["stages"]} for run in sorted(runs.values(), key=lambda run: -len(run["stages"]))
    )
    assert {"prepare", "split", "negatives", "train", "predict", "evaluate"} <= none
    assert not {"base", "prepare", "split"} & easy

    # The experiments are now in this project, with their settings and results, and a third call runs nothing.
    for name in experiments():
        difference = graph("dvc", "metrics", "diff", "HEAD", name)
        assert "test.overall.f1" in difference
    finished = set(experiments())
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.stdout == printed.stdout
    assert set(experiments()) == finished
