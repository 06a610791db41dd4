"""GitHub workflows: they are valid, request few permissions, and their scripts write the expected report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.imports import ROOT
from tests.support.processes import call

FLOWS = sorted(ROOT.joinpath(".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", FLOWS, ids=[path.stem for path in FLOWS])
def test_a_workflow_is_read_only_and_uses_only_actions_of_github(path: Path) -> None:
    flow = YAML(typ="safe").load(path)
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        assert job["timeout-minutes"] <= 30
        assert job.get("permissions", {}).keys() <= {"contents", "pull-requests"}
        for step in job["steps"]:
            assert step.get("uses", "actions/").startswith("actions/")
            # Text from a pull request reaches the shell only as an environment variable, never as part of the script.
            assert "${{" not in step.get("run", "")
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            for word in step.get("run", "").split():
                if word.startswith(".github/"):
                    assert os.access(ROOT / word, os.X_OK)


def test_the_report_lists_the_scores_that_a_branch_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores, curve = Path("metrics/tiny/qc.json"), Path("plots/curve.csv")
    for path in (scores, curve):
        path.parent.mkdir(parents=True)
    Path("params.yaml").write_text("run: [tiny]\ntasks: [qc]\n")
    Path("dvc.yaml").write_text(f"metrics: [{scores}]\nplots:\n  - {curve}: {{x: recall, y: precision}}\n")
    curve.write_text("recall,precision\n0,1\n1,0.5\n")
    found: dict[str, Any] = {
        "test": {"overall": {"f1": 0.5, "auc": 0.6, "recall": 0.7}, "language": {"de": {"f1": 0.1}}},
        "validation": {"threshold": 0.5},
    }
    scores.write_text(json.dumps(found))
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    call("git", "add", "--all")
    call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "run")
    script = str(ROOT / ".github/report.sh")

    call(script, "HEAD", "out", PYTHONPATH=str(ROOT))
    assert "No metric changes." in Path("out/comment.md").read_text()

    found["test"]["language"]["de"]["f1"] = 0.2
    scores.write_text(json.dumps(found))
    call(script, "HEAD", "out", PYTHONPATH=str(ROOT))
    assert "No score of test or dev rows changes; other metrics do." in Path("out/comment.md").read_text()

    found["test"]["overall"] = {"f1": 0.75, "auc": 0.6, "recall": 0.9}
    scores.write_text(json.dumps(found))
    curve.write_text("recall,precision\n0,1\n1,0.9\n")
    call(script, "HEAD", "out", PYTHONPATH=str(ROOT))
    comment, every = Path("out/comment.md").read_text(), Path("out/metrics.md").read_text()
    assert comment.startswith("<!-- babelcart report -->\n")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in comment.splitlines() if line.startswith("| metrics")]
    assert table == [["metrics/tiny/qc.json", "test.overall.f1", "0.5", "0.75", "0.25"]]
    assert "test.overall.recall" in every
    assert "test.language.de.f1" in every
    # Without predictions, the comment names the missing file, and the script succeeds.
    assert "predictions/tiny/qc/test.parquet" in comment
    assert "0.9" in Path("out/plots/index.html").read_text()
