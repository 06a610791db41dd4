"""The complete pipeline with the tiny model, run by dvc: which stages a change reruns."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.imports import ROOT
from tests.support.project import Graph, make_project, run

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# Stages that run for each model: train and those after it.
MODEL_STAGES = {name for name, stage in STAGES.items() if "model" in stage["matrix"]} - {"base"}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, list[str]]:
    """The graph of two tasks after its first run, and the stages that ran."""
    project = make_project(tmp_path_factory.mktemp("first") / "project")
    project.change(train={"epochs": 1})
    graph = Graph(project)
    return graph, graph.repro()


@pytest.fixture
def graph(first_run: tuple[Graph, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    graph = first_run[0].copy(tmp_path / "project")
    monkeypatch.chdir(graph.folder)
    return graph


def test_a_change_reruns_only_the_stages_that_depend_on_it(first_run: tuple[Graph, list[str]], graph: Graph) -> None:
    assert {stage.split("@")[0] for stage in first_run[1]} == STAGES.keys()
    graph.commit("run")
    printed = graph("git", "status", "--porcelain")
    assert printed == ""
    printed = run("results", "--attacks").output
    assert len(re.findall(r"\| Q[CI] \| tiny \| \w+ \| (?:yes|no) \|", printed)) == 2 * 13
    ran = graph.repro()
    assert ran == []
    printed = graph("dvc", "status")
    assert "up to date" in printed

    graph.project.change(evaluate={"threshold": 0.5})
    ran = graph.repro()
    assert {stage.split("@")[0] for stage in ran} == {"evaluate", "resist", "card", "submit", "report"}
    printed = graph("dvc", "metrics", "diff", "main")
    assert "test.threshold" in printed

    # Train another adapter on a branch: no stage before train runs, and checking out the first branch restores the first adapter.
    graph("git", "checkout", "--quiet", "--force", "main")
    graph("dvc", "checkout", "--quiet")
    adapter = graph.folder / "models/tiny/qc/adapter_model.safetensors"
    first = adapter.read_bytes()
    graph("git", "checkout", "--quiet", "-b", "rank")
    params = graph.folder / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("    r: 8\n", "    r: 2\n"), encoding="utf-8")
    ran = graph.repro()
    assert {stage.split("@")[0] for stage in ran} <= MODEL_STAGES
    graph.commit("r 2")
    assert adapter.read_bytes() != first
    graph("git", "checkout", "--quiet", "main")
    graph("dvc", "checkout", "--quiet")
    assert adapter.read_bytes() == first


def test_a_second_model_does_not_rerun_the_first(graph: Graph) -> None:
    graph.project.change(tasks=["qc"])
    graph.repro()
    params = (graph.folder / "params.yaml").read_text(encoding="utf-8")
    block = params[params.index("  tiny:") :]
    other = block.replace("tiny:", "tiny-qwen:").replace("gemma3_text", "qwen2")
    (graph.folder / "params.yaml").write_text(params + "\n" + other, encoding="utf-8")
    graph.project.change(run=["tiny", "tiny-qwen"])
    ran = graph.repro()
    assert all(stage.endswith("tiny-qwen") for stage in ran)
    assert Path(graph.folder / "models/tiny-qwen/qc/adapter_model.safetensors").exists()


def test_translate_depends_on_the_model_of_a_local_engine(graph: Graph) -> None:
    graph.project.change(
        tasks=["qc"],
        translate={"chain": ["llm"], "local_model": "models/tiny/base", "qc": {"rows_per_language": 4}},
    )
    ran = graph("dvc", "repro", "translate@qc")
    assert ran.index("Stage 'base@tiny' didn't change") < ran.index("Running stage 'translate@qc'")
    assert " from llm" in ran
    printed = graph("dvc", "status", "translate@qc")
    assert "up to date" in printed
    params = graph.folder / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("random: gemma3_text", "random: qwen2"), encoding="utf-8")
    graph("dvc", "repro", "base@tiny")
    printed = graph("dvc", "status", "translate@qc")
    assert "models/tiny/base" in printed
    printed = graph("dvc", "repro", "translate@qc")
    assert " from llm" in printed


def test_no_stage_depends_on_the_list_of_trackers(graph: Graph) -> None:
    before = graph("dvc", "status")
    graph.project.change(report_to=["dvclive", "mlflow", "wandb", "trackio"])
    after = graph("dvc", "status")
    stages = graph.repro()
    assert (before, after) == ("Data and pipelines are up to date.\n",) * 2
    assert stages == []


def parse(printed: str) -> Any:
    """Parse the JSON of a command, the last line that it prints."""
    return json.loads(printed.strip().splitlines()[-1])


# The commands and the keys are those of extension/src/cli/dvc/reader.ts and contract.ts in github.com/iterative/vscode-dvc, version 1.2.29.
def test_the_extension_of_vs_code_can_read_the_project(graph: Graph) -> None:
    shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")  # templates of the plots
    graph.commit("run")
    head = graph("git", "rev-parse", "HEAD").strip()
    version, root, stages, dag = graph("dvc", "--version"), graph("dvc", "root"), graph("dvc", "stage", "list"), graph("dvc", "dag", "--md")
    assert re.match(r"\d+\.\d+\.\d+", version)
    assert root.strip() == "."
    assert "train@qc-tiny" in stages
    assert "flowchart TD" in dag

    data = parse(graph("dvc", "data", "status", "--granular", "--unchanged", "--json"))
    assert data.keys() <= {"committed", "uncommitted", "not_in_cache", "unchanged", "git"}
    assert "models/tiny/qc/adapter_model.safetensors" in data["unchanged"]

    workspace, commit = parse(graph("dvc", "exp", "show", "--rev", head, "--json"))
    assert (workspace["rev"], commit["rev"]) == ("workspace", head)
    for shown in (workspace, commit):
        assert shown["data"].keys() >= {"rev", "timestamp", "params", "metrics", "deps", "outs", "meta"}
        assert shown["data"]["params"]["params.yaml"]["data"]["train"]["epochs"] == 1
        assert 0 <= shown["data"]["metrics"]["metrics/tiny/qc.json"]["data"]["test"]["overall"]["f1"] <= 1
        assert all(dep.keys() >= {"hash", "size", "nfiles"} for dep in shown["data"]["deps"].values())
        assert all(out.keys() >= {"hash", "size", "nfiles", "use_cache", "is_data_source"} for out in shown["data"]["outs"].values())

    plots = parse(graph("dvc", "plots", "diff", head, "workspace", "-o", ".dvc/tmp/plots", "--split", "--json"))
    assert "errors" not in plots
    (curve,) = [plot for name, plot in plots["data"].items() if name.endswith("tiny/qc_training/plots/metrics/train/loss.tsv")]
    assert curve[0].keys() >= {"type", "revisions", "content", "anchor_definitions"}
    assert curve[0]["type"] == "vega"
    assert set(curve[0]["revisions"]) == {head, "workspace"}
