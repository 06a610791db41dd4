"""The complete pipeline with the tiny model, run by dvc: which stages a change reruns."""

from __future__ import annotations

import re
from pathlib import Path

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
