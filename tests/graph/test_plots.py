"""`dvc plots` draws every plot of dvc.yaml, for one revision and for two."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pandas as pd

from tests.support.imports import ROOT
from tests.support.processes import call
from tests.support.project import Project, run, run_to

PLOTS = {f"plots/tiny/qc_{name}" for name in ("precision_recall.csv", "calibration.csv", "languages.csv", "confusion.csv")} | {
    f"plots/tiny/qc_training/plots/metrics/{name}.tsv" for name in ("train/loss", "eval/auc", "eval/f1")
}


def plots(*command: str) -> dict[str, tuple[dict[str, Any], set[str]]]:
    """Return the Vega-Lite specification and the revisions of each plot. DVC prints the specification as JSON inside of JSON."""
    specifications = {}
    for name, renderings in json.loads(call("dvc", "plots", *command, "--json").stdout)["data"].items():
        for rendering in renderings:
            content = rendering["content"]
            assert "DVC_METRIC" not in json.dumps(content), f"{name}: the template has an anchor that DVC does not fill"
            specifications[name] = (content if isinstance(content, dict) else json.loads(content), set(rendering["revisions"]))
    return specifications


def test_every_plot_is_drawn_and_compared(project: Project) -> None:
    project.change(tasks=["qc"], train={"eval_steps": 1})
    run_to("evaluate")
    shutil.copy(ROOT / "dvc.yaml", project.folder)
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")
    call("git", "add", "dvc.yaml", "params.yaml", "plots", "metrics", ".dvc")
    call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first")

    assert plots("show").keys() == PLOTS
    confusion = pd.read_csv("plots/tiny/qc_confusion.csv")
    assert confusion["rows"].sum() == len(pd.read_parquet("predictions/tiny/qc/test.parquet"))
    assert set(confusion["language"]) == {"en", "de"}

    project.change(evaluate={"threshold": 0.99, "calibrate": "temperature"})
    run("evaluate", "--task", "qc", "--model", "tiny")
    compared = plots("diff", "HEAD")
    assert compared.keys() == PLOTS
    for name, (content, revisions) in compared.items():
        assert revisions == {"HEAD", "workspace"}, name
        text = json.dumps(content)
        assert '"HEAD"' in text
        assert '"workspace"' in text
