"""`imported_modules` finds exactly the modules that a script imports, wherever the package is installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from babelcart import imports
from babelcart.imports import imported_modules
from babelcart.model import decoder, loading, packing, prompts, scoring
from babelcart.training import loop, optimizer
from babelcart.training.checkpoints import fingerprint
from tests.support.imports import ROOT

TRAIN = Path("stages/train.py")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code. `imported_modules` finds the package there."""
    for name in ("babelcart", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(imports, "__file__", str(tmp_path / Path(imports.__file__).relative_to(ROOT)))
    return tmp_path


def file_of(definition: object) -> str:
    """File of a function or class, relative to the project."""
    return Path(str(sys.modules[definition.__module__].__file__)).relative_to(ROOT).as_posix()


def test_training_depends_on_the_code_that_affects_the_adapter() -> None:
    modules = imported_modules(ROOT / TRAIN)
    definitions: list[Callable[..., object]] = [
        loop.Trainer, loading.label_logits, loading.add_adapter, decoder.last_hidden, optimizer.MasterAdamW, optimizer.schedule_factor,
        prompts.PromptTokenizer, packing.pack_rows, scoring.score,
    ]  # fmt: skip
    assert {file_of(definition) for definition in definitions} <= modules.keys()
    assert {"stages/train.py", "babelcart/commands/cli.py", "babelcart/__init__.py"} <= modules.keys()
    assert not {"babelcart/report/charts.py", "babelcart/report/page.py", "babelcart/scores/metrics.py"} & modules.keys()
    assert all((ROOT / name).samefile(path) for name, path in modules.items())


def test_the_fingerprint_changes_only_with_the_code_of_training(checkout: Path) -> None:
    before = fingerprint(checkout / TRAIN, 1)
    for name in (file_of(loop.Trainer), file_of(optimizer.schedule_factor), file_of(loading.label_logits), "stages/train.py"):
        path = checkout / name
        source = path.read_bytes()
        path.write_bytes(source + b"\nCHANGED = 1\n")
        assert fingerprint(checkout / TRAIN, 1) != before, name
        path.write_bytes(source)
    assert fingerprint(checkout / TRAIN, 1) == before
    with (checkout / "babelcart/report/charts.py").open("a") as file:
        file.write("\nCHANGED = 1\n")
    (checkout / "babelcart/unused.py").write_text("CHANGED = 1\n")
    (checkout / "stages/unused.py").write_text("from babelcart import unused\n")
    assert fingerprint(checkout / TRAIN, 1) == before


def test_two_checkouts_have_the_same_fingerprint(checkout: Path) -> None:
    expected = fingerprint(checkout / TRAIN, 1)
    shutil.copytree(checkout / "babelcart", checkout / "elsewhere/babelcart")
    shutil.copytree(checkout / "stages", checkout / "elsewhere/stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imports, "__file__", str(checkout / "elsewhere" / Path(imports.__file__).relative_to(checkout)))
        assert fingerprint(checkout / "elsewhere" / TRAIN, 1) == expected


def test_the_installed_package_is_used_and_not_a_folder_next_to_the_script(checkout: Path) -> None:
    other = checkout / "other/stages"
    shutil.copytree(checkout / "stages", other)
    modules = imported_modules(other / "train.py")
    assert modules.keys() == imported_modules(checkout / TRAIN).keys()
    assert {path.is_relative_to(other) for name, path in modules.items() if name.startswith("stages/")} == {True}
    assert {path.parts[: len(checkout.parts) + 1] for name, path in modules.items() if name.startswith("babelcart/")} == {
        (*checkout.parts, "babelcart")
    }


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import babelcart.sub.inner", {"sub/__init__.py", "sub/inner.py", "deep.py"}),
        ("import os, babelcart.sub.inner as inner", {"sub/__init__.py", "sub/inner.py", "deep.py"}),
        ("from babelcart.sub import inner, VALUE", {"sub/__init__.py", "sub/inner.py", "deep.py"}),
        ("from babelcart import leaf, sub, __version__", {"leaf.py", "sub/__init__.py"}),
        ("from babelcart.sub.inner import *", {"sub/__init__.py", "sub/inner.py", "deep.py"}),
        ("def run():\n    if True:\n        from babelcart import leaf", {"leaf.py"}),
        ("from . import neighbour", {"stages/neighbour.py"}),
        ("from .neighbour import x", {"stages/neighbour.py"}),
        ("import torch, numpy.linalg", set()),
    ],
)
def test_every_form_of_import_is_found(checkout: Path, code: str, names: set[str]) -> None:
    package = checkout / "babelcart"
    (package / "sub").mkdir()
    (package / "sub/__init__.py").write_text("VALUE = 1\n")
    (package / "sub/inner.py").write_text("from ..deep import x\n")
    (package / "deep.py").write_text("x = 1\n")
    (package / "leaf.py").write_text("x = 1\n")
    (checkout / "stages/neighbour.py").write_text("x = 1\n")
    script = checkout / "stages/script.py"
    script.write_text(code + "\n")
    modules = set(imported_modules(script)) - {"stages/script.py", "stages/__init__.py", "babelcart/__init__.py"}
    assert modules == {name if name.startswith("stages/") else f"babelcart/{name}" for name in names}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import babelcart.absent", r"script\.py, line 2: babelcart\.absent has no source file"),
        ("from babelcart.absent import x", r"script\.py, line 2: babelcart\.absent has no source file"),
        ("from .absent import x", r"script\.py, line 2: stages\.absent has no source file"),
        ("from ... import x", r"script\.py, line 2: a relative import that leads out of"),
    ],
)
def test_an_import_without_a_source_file_is_refused(checkout: Path, code: str, message: str) -> None:
    script = checkout / "stages/script.py"
    script.write_text(f"import os\n{code}\n")
    with pytest.raises(ImportError, match=message):
        imported_modules(script)
