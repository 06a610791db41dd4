"""A new stage touches its script, its settings and dvc.yaml; commands and checks find it there."""

from __future__ import annotations

from tests.support.project import Graph, Project

SETTINGS = '''"""Settings of the stage `greet`."""

from dataclasses import dataclass
from typing import ClassVar

from babelcart.core.config import bounded


@dataclass(frozen=True)
class Greet:
    """The section ``greet`` of params.yaml."""

    SECTION: ClassVar[str] = "greet"

    times: int = bounded(1, 9, default=1)
'''
SCRIPT = '''"""Write a greeting."""

from pathlib import Path

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.greet import Greet


@cli.command
def main() -> None:
    write_json(Path("metrics/greet/count.json"), {"times": config.load_section(Greet).times})


if __name__ == "__main__":
    main()
'''
STAGE = """
  greet:
    desc: Write a greeting
    cmd: python -m stages.greet
    deps:
    params: [greet]
    metrics:
      - metrics/greet/count.json: {cache: false}
"""


def add(graph: Graph, section: str) -> None:
    (graph.folder / "babelcart/greet.py").write_text(SETTINGS)
    (graph.folder / "stages/greet.py").write_text(SCRIPT)
    for name, text in (("dvc.yaml", STAGE), ("params.yaml", section)):
        path = graph.folder / name
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def babelcart(graph: Graph, *arguments: str, fails: bool = False) -> str:
    return graph("python", "-m", "babelcart", *arguments, fails=fails)


def test_a_new_stage_runs_and_its_settings_are_checked(project: Project) -> None:
    graph = Graph(project)
    add(graph, "\ngreet: {times: 3}\n")
    assert "updated" in babelcart(graph, "deps")
    assert "      - babelcart/greet.py\n" in (graph.folder / "dvc.yaml").read_text(encoding="utf-8")
    babelcart(graph, "check")
    graph("dvc", "repro", "greet")
    assert "times" in (graph.folder / "metrics/greet/count.json").read_text(encoding="utf-8")

    project.change(greet={"times": 10})
    assert "greet.times is 10; accepted: 1 to 9" in babelcart(graph, "check", fails=True)
    project.change(greet={"times": 3}, run=["greet"])
    assert "a model is named 'greet'" in babelcart(graph, "check", fails=True)


def test_a_stage_without_settings_or_settings_without_a_stage_are_reported(project: Project) -> None:
    graph = Graph(project)
    add(graph, "\ngreet: {times: 3}\n")
    (graph.folder / "babelcart/greet.py").write_text(SETTINGS.replace("SECTION", "NAME"))
    assert "dvc.yaml uses the section greet, which no dataclass" in babelcart(graph, "check", fails=True)
    (graph.folder / "babelcart/greet.py").write_text(SETTINGS)
    path = graph.folder / "dvc.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("    params: [greet]\n", ""), encoding="utf-8")
    assert "no stage in dvc.yaml uses the section greet" in babelcart(graph, "check", fails=True)
