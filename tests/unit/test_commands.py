"""The command `babelcart`: its help is fast and consistent, and the old names of moved commands print the new ones."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from babelcart import __version__
from babelcart import experiments as specifications
from babelcart.commands import experiments
from babelcart.commands.main import COMMANDS
from babelcart.core.errors import UserError
from tests.support.imports import ROOT

HELP = {name: text for group in COMMANDS.values() for name, text in group.items()}
HEAVY = {"torch", "transformers", "pandas", "sklearn", "peft", "dvc"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def show_help(*names: str) -> tuple[str, set[str]]:
    """Return the text of --help, and the modules that it imports."""
    completed = python("-X", "importtime", "-m", "babelcart", *names, "--help")
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, {line.split("|")[-1].strip() for line in completed.stderr.splitlines()}


def test_the_help_lists_every_subcommand_and_imports_none() -> None:
    text, imported = show_help()
    for heading, group in COMMANDS.items():
        assert f"{heading}:" in text
        for name, line in group.items():
            assert f"  {name} " in text
            assert line in text
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & (HEAVY | {"numpy", "ruamel", "tqdm", "jinja2"})
    assert {name for name in imported if name.startswith("babelcart.")} == {"babelcart.commands", "babelcart.commands.main"}


@pytest.mark.parametrize("name", HELP)
def test_the_help_of_a_subcommand_is_fast_and_starts_with_its_line_of_the_list(name: str) -> None:
    command = importlib.import_module(f"babelcart.commands.{name}").main
    assert command.help.strip().splitlines()[0] == HELP[name]
    text, imported = show_help(name)
    assert text.startswith(f"Usage: babelcart {name} ")
    assert HELP[name] in text
    assert not {module.partition(".")[0] for module in imported} & HEAVY


def test_every_module_with_a_command_is_listed() -> None:
    commands = {
        path.stem
        for path in ROOT.joinpath("babelcart/commands").glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8") and path.stem != "main"
    }
    assert commands == HELP.keys()


def test_an_unknown_subcommand_is_refused_and_the_version_is_printed() -> None:
    completed = python("-m", "babelcart", "chek")
    assert completed.returncode == 2
    assert "No such command 'chek'" in completed.stderr
    assert __version__ in python("-m", "babelcart", "--version").stdout


@pytest.mark.parametrize("name", ["check", "compare", "current", "export", "heal", "memory", "plan", "pull", "results", "verify"])
def test_the_old_name_of_a_moved_command_prints_the_new_one(name: str) -> None:
    completed = python("-m", f"stages.{name}", "--help")
    assert completed.returncode == 1
    assert completed.stderr == f"`python -m stages.{name}` is now `babelcart {name}`\n"
    assert name in HELP
    assert not (ROOT / "stages" / f"{name}.py").exists()


def test_the_old_script_of_experiments_prints_the_new_command() -> None:
    completed = python("benchmarks/experiment.py", "benchmarks/paper.yaml")
    assert completed.returncode == 1
    assert completed.stderr == "`python benchmarks/experiment.py` is now `babelcart experiments`\n"


SPEC = {"models": ["tiny"], "tasks": ["qc"], "seeds": [0], "cells": {"a": {}}, "subsets": {"qc": {"all": []}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ["tiny"]}, "unknown keys or lacks some: model;"),
        ({"tasks": ["qc", "qi"]}, "subsets of a specification of experiments lacks qi"),
        ({"seeds": 3}, "seeds of a specification of experiments is 3; accepted: a list"),
        ({"cells": {}}, "cells of a specification of experiments is"),
        ({"subsets": {"qc": {"new": ["klingon"]}}}, "klingon"),
    ],
)
def test_specifications_of_experiments_are_checked(change: dict[str, Any], message: str) -> None:
    specifications.check(SPEC)
    with pytest.raises(UserError, match=message):
        specifications.check({**SPEC, **change})


@pytest.mark.parametrize(
    ("content", "only", "message"),
    [
        ("sample: {}", "sampel", "no specification 'sampel'. Did you mean sample"),
        ("- 1", "a", "has no specifications"),
        ("sample: 1", "sample", "is 1;"),
    ],
)
def test_a_file_of_experiments_without_the_specification_is_refused(tmp_path: Path, content: str, only: str, message: str) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(experiments.main, [str(path), "--only", only])
    assert result.exit_code == 1
    assert message in result.stderr


def test_the_folder_of_real_rows_is_an_option(tmp_path: Path) -> None:
    spec = {"base": {"data.path": None, "data.qc": {"train": ["qc.csv"]}}}
    folder, clone = tmp_path / "rows", tmp_path / "project/.scratch/experiments/real/work"
    assert experiments.with_data("real", spec, folder, clone)["base"]["data.path"] == "../../../../../rows"
    assert experiments.with_data("sample", {"base": {}}, folder, clone) == {"base": {}}
    with pytest.raises(UserError, match="real runs on rows of your own; pass their folder with --data"):
        experiments.with_data("real", spec, None, clone)


def test_a_setting_of_an_experiment_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "call", lambda *command, folder: "translate:\n  qc: {}\n")
    with pytest.raises(
        UserError, match=r"translat\.qc\.candidates of an experiment: params.yaml has no translat there. Did you mean translate"
    ):
        experiments.edit(tmp_path, {"translat.qc.candidates": "keep"})
