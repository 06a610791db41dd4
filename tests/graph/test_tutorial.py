"""The notebook docs/tutorial.ipynb runs from its first to its last cell, and the stored one is complete."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import warm
from tests.support.imports import ROOT
from tests.support.processes import call
from tests.support.project import SHELF, Graph, Project

NOTEBOOK = ROOT / "docs/tutorial.ipynb"
MISSING = [name for name in ("altair", "ipykernel", "nbclient") if not importlib.util.find_spec(name)]
# The cells that print or show something.
SHOWS = {
    "files", "inspect", "write", "shorten", "check-settings", "plan", "repro", "results", "loss", "histogram", "languages", "ask", "score",
    "table", "candidates",
}  # fmt: skip
CHARTS = {"loss", "histogram", "languages", "candidates"}
WORDS = ["blue", "small", "cheap", "new", "best", "large"]


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """Text of the outputs of a cell, in all forms."""
    texts = [output.get("text", "") for output in cell["outputs"]]
    texts += ["".join(text) for output in cell["outputs"] for text in output.get("data", {}).values()]
    return "\n".join("".join(text) for text in texts)


def faults(cells: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the cells of an executed notebook."""
    found = [f"{cell['id']}: is not cell {number}" for number, cell in enumerate(cells, 1) if cell["execution_count"] != number]
    for cell in cells:
        if bool(cell["outputs"]) != (cell["id"] in SHOWS):
            found.append(f"{cell['id']}: outputs are missing or unexpected")
        for output in cell["outputs"]:
            if output["output_type"] == "error" or output.get("name") == "stderr":
                found.append(f"{cell['id']}: {output.get('ename', 'stderr')}")
        if "\x1b" in printed(cell):
            found.append(f"{cell['id']}: control characters of a terminal")
        pictures = [svg for output in cell["outputs"] if (svg := "".join(output.get("data", {}).get("image/svg+xml", "")))]
        if len(pictures) != (cell["id"] in CHARTS):
            found.append(f"{cell['id']}: {len(pictures)} pictures")
        found += [f"{cell['id']}: a picture without a description" for svg in pictures if not re.search(r'aria-label="[^"]{20,}"', svg)]
    return found


def scored_rows(cells: list[dict[str, Any]]) -> list[str]:
    """Numbers of rows that `babelcart score` reports and that its file has."""
    return re.findall(r"^(\d+) rows (?:written|in scored\.csv)", "\n".join(map(printed, cells)), re.MULTILINE)


def write_sample(folder: Path) -> None:
    """Write 240 train rows and 80 labelled test rows of the task qc, with the columns and file names of the sample."""
    for split, languages, words in (("train", ("en", "fr"), WORDS[:4]), ("test", ("en", "de"), WORDS[4:])):
        rows = [
            {"task": "QC", "language": language, "origin_query": f"{word} {entry[0]} {language}", "category_path": SHELF[other][2]}
            | {"label": str(int(other == shelf))}
            for language in languages
            for word in words
            for shelf, entry in enumerate(SHELF)
            for other in (shelf, (shelf + 2) % 5, (shelf + 3) % 5)
        ]
        lines = [{"id": str(number), **row} for number, row in enumerate(rows, 1)]
        if split == "test":
            labels = "".join(f"{line['id']},{line.pop('label')}\n" for line in lines)
            (folder / "test_QC_labels.csv").write_text("id,label\n" + labels, encoding="utf-8")
        (folder / f"{split}_QC.txt").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def graph(project: Project) -> Graph:
    """A repository with the notebook, and with a remote inside of it, as the sample has one."""
    write_sample(project.folder / "data")
    graph = Graph(project)
    (graph.folder / "docs").mkdir()
    shutil.copy(NOTEBOOK, graph.folder / "docs")
    graph("dvc", "remote", "add", "--default", "sample", "samples/remote")
    graph("dvc", "push", "--quiet")
    graph.commit()
    return graph


@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed; `make test EXTRAS=notebook` installs the packages")
def test_the_notebook_runs_and_leaves_the_repository_as_it_is(graph: Graph, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in graph.folder.rglob("*") if ".git" not in path.parts}
    out = tmp_path / "executed.ipynb"
    # The commands of the notebook find the fast `python` of tests.support.warm first.
    path = os.pathsep.join([warm.path(), str(Path(sys.executable).parent)])
    script = str(ROOT / "benchmarks/tutorial.py")
    call(sys.executable, script, "docs/tutorial.ipynb", "--out", str(out), TUTORIAL_MODEL="tiny", PATH=path)
    assert {path: path.stat().st_mtime_ns for path in graph.folder.rglob("*") if ".git" not in path.parts} == before
    changes = graph("git", "status", "--porcelain")
    assert changes == ""
    cells = code_cells(out)
    assert faults(cells) == []
    outputs = {cell["id"]: printed(cell) for cell in cells}
    assert [int(rows) for rows in scored_rows(cells)] == [60, 60]
    assert outputs["table"].count("<tr") > 12
    assert "| QC | overall" in outputs["results"]
    assert outputs["ask"].count("p(relevant)") == 2
    assert str(tmp_path) not in "".join(outputs.values())


def test_the_stored_notebook_is_complete() -> None:
    cells = code_cells(NOTEBOOK)
    assert faults(cells) == []
    assert {cell["id"] for cell in cells if cell["outputs"]} == SHOWS
    written, read = scored_rows(cells)
    assert written == read
    assert NOTEBOOK.stat().st_size < 500_000
    metadata = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["metadata"]
    assert metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell["id"] for cell in cells if cell["metadata"]] == []


def test_links_of_the_notebook_exist() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 5
    assert [target for target in targets if not (NOTEBOOK.parent / target).exists()] == []


def test_the_stored_outputs_name_no_machine_no_user_and_no_warning() -> None:
    outputs = "\n".join(map(printed, code_cells(NOTEBOOK)))
    assert re.findall(r"(?<![\w.:/<])/(?:home|root|tmp|var|work|opt|usr|Users|mnt)/\S*", outputs) == []
    names = [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4]
    assert [name for name in names if re.search(rf"\b{re.escape(name)}\b", outputs)] == []
    assert re.findall(r"\w*Warning\b.*|\bwarning:.*", outputs) == []


def test_faults_of_a_notebook_are_found() -> None:
    (first, second, *rest) = code_cells(NOTEBOOK)
    assert faults([first, {**second, "execution_count": 7}, *rest]) == [f"{second['id']}: is not cell 2"]
    error = {"output_type": "error", "ename": "KeyError"}
    assert len(faults([{**first, "outputs": [error]}, second, *rest])) == 2
    without = [cell if cell["id"] != "loss" else {**cell, "outputs": []} for cell in (first, second, *rest)]
    assert faults(without) == ["loss: outputs are missing or unexpected", "loss: 0 pictures"]
