"""Every target of the Makefile runs in a folder whose path contains spaces and other characters that a shell or make interprets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.imports import ROOT

TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
NAMES = ["my shop", "it's #1 & (50%); 'so'", "-shop", "[ü] *?", "~"]
# Stands for Python: logs its arguments and environment, makes a virtual environment of itself, and does nothing else.
PYTHON = """#!/bin/sh
{ printf '%s\\t' "$@"; printf '%s\\t%s\\n' "${PATH%%:*}" "$DVC_SITE_CACHE_DIR"; } >> "$LOG"
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder on PATH with programs that only log or do nothing."""
    folder = tmp_path / "my tools"
    folder.mkdir()
    for name, script in {"python3": PYTHON, "tred": "#!/bin/sh\n", "dot": "#!/bin/sh\n"}.items():
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def make(folder: Path, tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "LOG": str(tools / "log")}
    environment = {name: value for name, value in environment.items() if not name.startswith("MAKE") and name != "DATA"}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def make_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    for file in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    for subfolder in ("docs", "reports"):
        (folder / subfolder).mkdir()
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_target_runs_in_a_folder_with_any_name(tmp_path: Path, tools: Path, name: str) -> None:
    folder = make_folder(tmp_path / name, name)
    for target in [*TARGETS, "clean"]:
        done = make(folder, tools, target, f"PYTHON={tools}/python3")
        assert done.returncode == 0, (target, done.stdout, done.stderr)
    calls = [line.split("\t") for line in (tools / "log").read_text(encoding="utf-8").splitlines()]
    assert all(call[-1] == f"{folder}/.dvc/tmp/site" for call in calls)
    assert all(call[-2] == f"{folder}/.venv/bin" for call in calls)
    assert (folder / ".dvc/tmp/site").is_dir()
    assert ["-m", "dvc", "repro"] in [call[:3] for call in calls]
    configured = ["-m", "dvc", "config", "--local", "core.site_cache_dir", f"{folder}/.dvc/tmp/site"] in [call[:6] for call in calls]
    assert configured == folder.as_posix().isascii()  # DVC cannot store other paths
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, tools.name])
    assert [path.name for path in (tmp_path / name).iterdir()] == [name]


@pytest.mark.parametrize("data", ["my rows", "it's $my `rows`", '"rows"'])
def test_the_folder_of_an_experiment_is_one_argument(tmp_path: Path, tools: Path, data: str) -> None:
    folder = make_folder(tmp_path, "shop")
    assert make(folder, tools, "experiments", f"DATA={data}").returncode == 0
    assert f"experiments\texperiments/paper.yaml\t--only\tsample\t--data\t{data}\t" in (tools / "log").read_text(encoding="utf-8")
    assert make(folder, tools, "experiments").returncode == 0
    assert "--data" not in (tools / "log").read_text(encoding="utf-8").splitlines()[-1]


@pytest.mark.parametrize("name", ["a:b", "a$b", "a`b", 'a"b', "a\\b", "a{b", "a\nb"])
def test_a_path_that_a_program_does_not_accept_is_refused_at_once(tmp_path: Path, tools: Path, name: str) -> None:
    folder = make_folder(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    done = make(folder, tools, "setup")
    assert done.returncode == 2
    assert f"the path of this folder contains {'line-break' if name == 'a' + chr(10) + 'b' else name[1]}, which" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
