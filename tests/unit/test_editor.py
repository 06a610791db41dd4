"""The settings of VS Code and of its container fit the project; `test_pipeline.py` runs the commands of its DVC extension."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from packaging.specifiers import SpecifierSet

from tests.support.imports import ROOT

# MIN_CLI_VERSION in extension/src/cli/dvc/contract.ts of github.com/iterative/vscode-dvc, version 1.2.29. It was tested there up to 3.64.0.
OLDEST_DVC = (3, 33, 3)


def read(path: str) -> Any:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def test_the_locked_dvc_is_new_enough_for_the_extension() -> None:
    locked = re.search(r"^dvc==(\d+)\.(\d+)\.(\d+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked
    assert tuple(map(int, locked.groups())) >= OLDEST_DVC


def test_the_interpreter_is_the_one_that_make_setup_creates() -> None:
    interpreter = read(".vscode/settings.json")["python.defaultInterpreterPath"]
    folder = interpreter.removeprefix("${workspaceFolder}/").removesuffix("/bin/python")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"BIN := {folder}/bin\n" in makefile
    assert f"-m venv {folder}" in makefile


def test_the_container_and_the_workspace_have_the_same_extensions() -> None:
    extensions = read(".vscode/extensions.json")["recommendations"]
    assert "iterative.dvc" in extensions
    assert read(".devcontainer/devcontainer.json")["customizations"]["vscode"]["extensions"] == extensions


def test_the_container_runs_targets_of_make_with_an_accepted_python_and_its_tools() -> None:
    container = read(".devcontainer/devcontainer.json")
    program, target = container["postCreateCommand"].split()
    assert program == "make"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    dockerfile = (ROOT / ".devcontainer" / container["build"]["dockerfile"]).read_text(encoding="utf-8")
    (version,) = re.findall(r"^FROM python:([\d.]+)-slim$", dockerfile, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert SpecifierSet(project["requires-python"]).contains(version)
    assert {"git", "make"} <= set(re.findall(r"([\w-]+)=[\d.*:]+", dockerfile))
    assert f" {container['remoteUser']}\n" in dockerfile
