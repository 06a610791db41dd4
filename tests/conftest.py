"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

if not shutil.which("nvidia-smi"):  # read when Triton is imported: its interpreter runs the kernels of tests/unit/test_kernels.py
    os.environ["TRITON_INTERPRET"] = "1"

pytest.register_assert_rewrite("tests.support")

from tests.support import project as projects  # noqa: E402 - after the asserts of tests.support are registered
from tests.support import warm  # noqa: E402
from tests.support.project import Project, make_project  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all workers share the projects that `run_to` builds."""
    top = tmp_path_factory.getbasetemp()
    projects.built = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "built"
    projects.built.mkdir(exist_ok=True)


def pytest_unconfigure() -> None:
    warm.stop()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made
