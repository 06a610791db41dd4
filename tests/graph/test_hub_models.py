"""The complete pipeline with the models of the paper, in NF4, from a hub on loopback that serves tiny models under their names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support import hub_server
from tests.support.hub_server import Hub
from tests.support.project import Graph, make_project


def _files(folder: Path) -> dict[str, int]:
    """Return the paths below a folder and the times of their last change, in nanoseconds."""
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("name", "family"), [("gemma3-12b", "gemma3"), ("qwen25-14b", "qwen2")])
def test_only_base_needs_the_hub_and_only_one_stage_reads_the_weights(tmp_path: Path, name: str, family: str) -> None:
    project = make_project(tmp_path / "project")
    project.change(run=[name], tasks=["qc"], attack={"rows": 4}, train={"max_rows": 16}, evaluate={"bootstrap_draws": 0})
    graph = Graph(project, real=True)
    weights = YAML(typ="safe").load(graph.folder / "params.yaml")["models"][name]["weights"]
    hub_server.write_stand_in(family, tmp_path / "stand-in")
    with hub_server.serve(Hub(tmp_path / "stand-in", weights["repo"], weights["revision"])) as hub:
        graph.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        graph("dvc", "repro", f"base@{name}")
        assert hub.requests
        licence = hub.files["LICENSE"]
        hub.files["LICENSE"] = b"other terms"
        shutil.rmtree(tmp_path / "cache")
        printed = graph("dvc", "repro", "--force", f"base@{name}", fails=True)
        assert f"delete the stage base@{name} from dvc.lock" in printed
        hub.files["LICENSE"] = licence
        shutil.rmtree(tmp_path / "cache")
        # A host without an address, which only the proxy knows: the server takes the requests of a proxy too.
        graph.environment |= {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.url}
        graph("dvc", "repro", "--force", f"base@{name}")
    cached = _files(tmp_path / "cache")
    graph("dvc", "repro", f"train@qc-{name}")  # the hub does not answer any more
    (weights_file,) = {path.resolve() for path in (tmp_path / "cache").rglob("*.safetensors")}
    content, times = weights_file.read_bytes(), (weights_file.stat().st_atime_ns, weights_file.stat().st_mtime_ns)
    weights_file.write_bytes(bytes(len(content)))  # the later stages cannot read it
    ran = {stage.split("@")[0] for stage in graph.repro()}
    weights_file.write_bytes(content)
    os.utime(weights_file, ns=times)
    assert ran >= {"predict", "attack", "evaluate", "resist", "card", "report"}
    assert len(list((graph.folder / ".scratch/nf4").iterdir())) == 1
    assert _files(tmp_path / "cache") == cached  # which other users may share, without the right to write
    printed = graph("dvc", "status")
    assert "up to date" in printed
