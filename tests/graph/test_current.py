"""`babelcart current` on a small pipeline: in a clone without data and cache, as on a build server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import call
from tests.support.project import run

PIPELINE = """
stages:
  cut:
    cmd: 'python code.py raw/rows.txt cut/rows.txt'
    deps: [code.py, raw]
    params: [cut]
    outs: [cut]
  count:
    cmd: 'python code.py cut/rows.txt counts.json'
    deps: [code.py, cut/rows.txt]
    metrics:
      - counts.json:
          cache: false
  pack:
    cmd: 'python code.py counts.json packed/all.txt'
    deps: [code.py, cut, counts.json]
    outs: [packed]
"""
CODE = "import pathlib, sys\nout = pathlib.Path(sys.argv[2])\nout.parent.mkdir(exist_ok=True)\nout.write_text('{\"rows\": 1}')\n"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "raw").mkdir()
    (folder / "raw/rows.txt").write_text("1\n")
    (folder / "code.py").write_text(CODE)
    (folder / "params.yaml").write_text("cut: {share: 0.5}\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("git", "init", "--quiet")
        call("dvc", "init", "--quiet")
        call("dvc", "add", "--quiet", "raw")
        call("dvc", "repro", "--quiet")
        call("git", "add", "--all")
        call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "run")
    return folder


@pytest.fixture
def clone(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("git", "clone", "--quiet", str(finished_run), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def test_the_lock_of_a_fresh_clone_is_up_to_date(clone: None) -> None:
    assert not Path("cut").exists()
    assert not Path("raw").exists()
    printed = run("current").output
    assert "dvc.lock is up to date" in printed


def test_the_lock_is_up_to_date_where_the_pipeline_ran(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_run)
    printed = run("current").output
    assert "dvc.lock is up to date" in printed


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "code": (lambda: edit("code.py", "import", "# new\nimport"), "count: code.py is modified"),
    "code removed": (lambda: Path("code.py").unlink(), "count: code.py is deleted"),
    "setting": (lambda: edit("params.yaml", "0.5", "0.6"), "cut: params.yaml: cut changed"),
    "command": (lambda: edit("dvc.yaml", "code.py cut", "code.py  cut"), "count: changed command"),
    "data": (lambda: edit("raw.dvc", "md5: ", "md5: 0"), "cut: raw has been rebuilt since"),
    "result in git": (lambda: edit("counts.json", "1", "2"), "counts.json is modified"),
    "result in git removed": (lambda: Path("counts.json").unlink(), "count: counts.json is deleted"),
    "stage": (lambda: edit("dvc.yaml", "  count:", "  again:\n    cmd: 'true'\n    deps: [cut/rows.txt]\n  count:"), "again: has not run"),
    "no lock": (lambda: Path("dvc.lock").unlink(), "cut: has not run"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_change_without_a_run_is_reported(clone: None, change: Callable[[], object], message: str) -> None:
    change()
    printed = run("current", fails=True).output
    assert "dvc.lock is out of date" in printed
    assert message in printed


def test_a_lock_merged_from_two_runs_is_out_of_date(clone: None) -> None:
    """One branch reran `cut`, the other `pack`: each entry is valid, but they do not fit together."""
    lock = Path("dvc.lock").read_text()
    head, _, tail = lock.partition("  cut:\n")
    outs = tail.index("outs:")
    Path("dvc.lock").write_text(
        head + "  cut:\n" + tail[:outs] + tail[outs:].replace("md5: ", "md5: 0", 1).replace("md5: 0md5", "md5: md5")
    )
    printed = run("current", fails=True).output
    assert "pack: cut has been rebuilt since" in printed
