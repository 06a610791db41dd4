"""dvc.yaml: every stage depends on exactly the code that it imports; scripts are short and start fast."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from babelcart.commands import deps
from babelcart.commands.main import COMMANDS
from babelcart.embedding import encoders
from babelcart.translation import engines
from tests.support.imports import ROOT, modules

STAGES = YAML(typ="safe").load(ROOT.joinpath("dvc.yaml"))["stages"]
SCRIPTS = sorted(path.stem for path in ROOT.joinpath("stages").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_of_a_stage_are_the_modules_that_it_imports(stage: str) -> None:
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("babelcart/", "stages/"))]
    files = [path for dep in code for path in ([ROOT / dep] if dep.endswith(".py") else ROOT.joinpath(dep).glob("*.py"))]
    assert {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"} == modules(stage)
    assert code == sorted(code)


def test_babelcart_deps_writes_the_lists_of_dvc_yaml() -> None:
    text = ROOT.joinpath("dvc.yaml").read_text(encoding="utf-8")
    assert deps.update_deps(text, ROOT / "stages") == text
    outdated = text.replace("      - babelcart/core\n", "").replace("      - stages/prepare.py\n", "      - babelcart/nowhere.py\n")
    assert deps.update_deps(outdated, ROOT / "stages") == text


def test_a_package_is_listed_as_a_folder_only_if_the_stage_uses_all_of_it(tmp_path: Path) -> None:
    for name in ("babelcart", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from pathlib import Path; from babelcart.commands.deps import code_deps; print(*code_deps(Path('stages/split.py')))"

    def listed() -> list[str]:
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert "babelcart/core" in listed()
    (tmp_path / "babelcart/core/unused.py").touch()
    assert "babelcart/core" not in listed()
    assert "babelcart/core/files.py" in listed()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_script_of_its_name_and_has_a_description(stage: str) -> None:
    assert STAGES[stage]["cmd"].startswith(f"python -m stages.{stage}")
    assert STAGES[stage]["desc"]
    assert (ROOT / "stages" / f"{stage}.py").exists()


@pytest.mark.parametrize("key", [engines.LOCAL_MODEL, encoders.LOCAL_MODEL])
def test_an_optional_input_is_a_dependency_whose_default_is_another_dependency_of_the_stage(key: str) -> None:
    stage, name = key.split(".")
    assert f"${{{key}}}" in STAGES[stage]["deps"]
    assert YAML(typ="safe").load(ROOT / "params.yaml")[stage][name] in STAGES[stage]["deps"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_its_help_imports_no_heavy_library(script: str) -> None:
    assert len((ROOT / "stages" / f"{script}.py").read_text(encoding="utf-8").splitlines()) <= 60
    command = [sys.executable, "-X", "importtime", "-m", f"stages.{script}", "--help"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    docstring = (ROOT / "stages" / f"{script}.py").read_text(encoding="utf-8").split('"""')[1]
    assert docstring.split()[0] in completed.stdout
    # Check the imports that make a start slow instead of the time, which depends on the load of the machine.
    imported = {line.split("|")[-1].strip() for line in completed.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "pandas", "sklearn", "peft", "dvc", "numpy"}


@pytest.mark.parametrize("module", ["scores.metrics", "submit", "reading.readers", "prepare", "split"])
def test_modules_that_need_no_model_do_not_import_torch(module: str) -> None:
    code = f"import sys, babelcart.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_module_is_used_by_a_stage_or_a_command() -> None:
    commands = [name for group in COMMANDS.values() for name in group]
    # `babelcart export` copies published_example.py.
    used = set().union(
        {"babelcart/__main__.py", "babelcart/published_example.py"}, *(modules(name) for name in (*SCRIPTS, *commands, "main"))
    )
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.joinpath("babelcart").rglob("*.py") if path.name != "__init__.py"}
    assert package <= used
