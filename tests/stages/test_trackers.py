"""report_to: what trackers show is what DVCLive shows, also after a kill, and trackers change nothing else."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from babelcart.core.errors import UserError
from babelcart.training import trackers
from babelcart.training.trackers import Report, chosen_trackers, report_scores
from tests.support import trackers as support
from tests.support.imports import ROOT
from tests.support.project import Project, make_project, run, run_to
from tests.support.trackers import Run, need, runs

NAMES = ["mlflow", "wandb", "trackio"]
CHECKPOINT = Path("models/tiny/qc/adapter_model.safetensors")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the curves of DVCLive."""
    found = {}
    for path in (folder / "plots/tiny/qc_training").rglob("*.tsv"):
        with path.open(encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        found[f"{path.parent.name}/{path.stem}"] = [(int(row["step"]), float(row[path.stem])) for row in rows]
    return found


@dataclass
class Outcome:
    """A project that was trained without trackers and then again with all of them, in a process that was killed once."""

    project: Project
    trackers: tuple[str, ...]
    without: dict[str, bytes]
    training: list[str]
    killed_at: int


def stage(name: str, folder: Path, **variables: str) -> None:
    """Run a stage in a process of its own, because Trackio reads the folder of its runs once."""
    environment = {**support.environment(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads()), **variables}
    command = [sys.executable, "-m", f"stages.{name}", "--task", "qc", "--model", "tiny"]
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True)


def outputs() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for top in ("models/tiny/qc", "plots") for path in sorted(Path(top).rglob("*")) if path.is_file()}


def trainings() -> list[str]:
    """Return the names of the folders of checkpoints, which contain the fingerprint."""
    return sorted(path.name for path in Path(".scratch/train").iterdir())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    installed = tuple(name for name in NAMES if all(map(trackers._is_installed, trackers.PACKAGES[name])))
    if not installed:
        pytest.skip("no tracker is installed: make setup EXTRAS='mlflow trackio wandb'")
    project = make_project(tmp_path_factory.mktemp("trackers") / "project")
    project.change(train={"epochs": 12, "batch_size": 8, "save_steps": 5, "eval_steps": 7}, models={"tiny": {**TINY, "lora_dropout": 0.1}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        run_to("train")
        without, training = outputs(), trainings()
        shutil.rmtree(".scratch/train")
        shutil.rmtree("models/tiny/qc")
        project.change(report_to=["dvclive", *installed])
        killed_at = train_and_kill(project.folder)
        stage("train", project.folder)
        assert trainings() == training, "the list of trackers is part of the fingerprint"
        assert outputs() == without, "a tracker changed an output of the training"
        run("predict", "--task", "qc", "--model", "tiny")
        stage("evaluate", project.folder)
    return Outcome(project, installed, without, training, killed_at)


TINY = {"weights": {"licence": "none (random weights)", "random": "gemma3_text"}, "dtype": "float32", "r": 8, "lora_alpha": 16}


def train_and_kill(folder: Path) -> int:
    """Start a training, and kill it when it has written a checkpoint. Return the step of the checkpoint."""
    environment = {**os.environ, **support.environment(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "stages.train", "--task", "qc", "--model", "tiny"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 300
        while not (saved := list(Path(".scratch/train").glob("*/*.json"))) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, printed
    assert not CHECKPOINT.exists()
    return int(saved[0].stem)


@pytest.fixture
def reported(outcome: Outcome, request: pytest.FixtureRequest) -> tuple[Outcome, Run]:
    """The only run of a tracker after a training that was killed once, and an evaluation."""
    need(request.param)
    found = runs(request.param, outcome.project.folder)
    assert len(found) == 1, "a training that was killed has one run"
    (name,) = found
    assert name.startswith("tiny-qc-")
    return outcome, found[name]


every_tracker = pytest.mark.parametrize("reported", NAMES, indirect=True)


@every_tracker
def test_a_run_that_was_killed_has_the_figures_of_one_that_was_not(reported: tuple[Outcome, Run]) -> None:
    outcome, shown = reported
    expected = curves(outcome.project.folder)
    assert expected.keys() == {"train/loss", "eval/auc", "eval/f1"}
    assert 0 < outcome.killed_at < len(expected["train/loss"])
    assert shown.figures == expected
    assert shown.state in ("FINISHED", "exit 0", "")


@every_tracker
def test_the_run_has_the_settings_and_the_final_scores(reported: tuple[Outcome, Run]) -> None:
    outcome, shown = reported
    settings = {key: str(value) for key, value in shown.settings.items()}
    assert {"train.epochs": "12.0", "models.lora_dropout": "0.1", "models.r": "8", "prompts.positive": " yes"}.items() <= settings.items()
    metrics = json.loads((outcome.project.folder / "metrics/tiny/qc.json").read_text(encoding="utf-8"))
    expected = {f"{split}/{name}": metrics[split]["overall"][name] for split in ("validation", "test") for name in ("f1", "auc")}
    assert shown.scores == expected


def test_no_tracker_stores_a_row_or_the_name_of_a_data_file(outcome: Outcome) -> None:
    folder = outcome.project.folder
    content = b"".join(path.read_bytes() for top in ("wandb", "trackio") for path in (folder / top).rglob("*") if path.is_file())
    content += (folder / "mlflow.db").read_bytes() if "mlflow" in outcome.trackers else b""
    assert b"train/loss" in content
    for secret in ("garden hose", "gartenschlauch", "abendkleid", "Elegant Satin", "train_QC", "watering"):
        assert secret.encode() not in content


def test_scores_of_an_adapter_that_another_machine_trained_are_a_new_run(outcome: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(outcome.project.folder, folder)
    shutil.rmtree(folder / ".scratch/report_to")
    stage("evaluate", folder)
    for name in outcome.trackers:
        found = runs(name, folder)
        with_curves = [shown for shown in found.values() if shown.figures]
        without_curves = [shown for shown in found.values() if not shown.figures]
        assert (len(with_curves), len(without_curves)) == (1, 1)
        assert without_curves[0].scores == with_curves[0].scores


def test_the_variable_replaces_the_list_and_may_be_empty(outcome: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(outcome.project.folder, folder, ignore=shutil.ignore_patterns("mlflow.db", "wandb", "trackio", "report_to"))
    stage("evaluate", folder, BABELCART_REPORT_TO="")
    assert not [name for name in ("mlflow.db", "wandb", "trackio", ".scratch/report_to") if (folder / name).exists()]


def test_a_server_that_does_not_answer_does_not_stop_the_training(
    outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("mlflow")
    shutil.copytree(outcome.project.folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    shutil.rmtree(".scratch/train")
    CHECKPOINT.unlink()
    for name, value in {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "BABELCART_REPORT_TO": "mlflow"}.items():
        monkeypatch.setenv(name, value)
    result = run("train", "--task", "qc", "--model", "tiny")
    assert (result.output + capfd.readouterr().err).count("warning: report_to: mlflow failed") == 1
    assert CHECKPOINT.read_bytes() == outcome.without[str(CHECKPOINT)]


# What breaks a tracker between two steps.
BREAK = {
    "mlflow": "Path('mlflow.db').write_text('not a database')",
    "wandb": "[child.kill() for child in psutil.Process().children() if child.name() == 'wandb-core']",
    "trackio": "pass",  # its folder cannot be written from the start; its thread writes each half second
}
SCRIPT = """
from pathlib import Path
import psutil
from babelcart.training.trackers import Report
report = Report([{name!r}], "tiny-qc-1", {{"train.epochs": 1}})
for step in range(1, 20):
    if step == 5:
        {breaks}
    report.log(step, {{"train/loss": 1 / step}})
report.score({{"test/f1": 0.5}})
report.finish(True)
print("done")
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_fails_in_the_middle_gets_one_warning(project: Project, name: str) -> None:
    need(name)
    environment = {**os.environ, "TRACKIO_DIR": "/dev/null/trackio", "PYTHONPATH": str(ROOT)}
    script = SCRIPT.format(name=name, breaks=BREAK[name])
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert "done" in done.stdout
    # The thread of Trackio prints its failures itself.
    assert done.stderr.count("warning: report_to:") + done.stderr.count("UserWarning: trackio failed") == 1, done.stderr


def check(values: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the message with which `chosen_trackers` refuses an environment."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        chosen_trackers()
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["mlflw"], "report_to[0] is 'mlflw'; accepted: one of 'dvclive', 'mlflow', 'wandb', 'trackio'. Did you mean mlflow?"),
        ("wandb", "write a list: report_to: [wandb]"),
        ({"mlflow": True}, "accepted: a list"),
        (None, "report_to is null; accepted: a list"),
    ],
)
def test_the_check_command_refuses_what_no_tracker_is(project: Project, value: Any, message: str) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("report_to: []", f"report_to: {json.dumps(value)}"), encoding="utf-8")
    printed = run("check", fails=True).output
    assert message in printed
    assert "params.yaml, line" in printed


def test_dvclive_is_accepted_and_duplicates_are_not_started_twice(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.change(report_to=["dvclive"])
    assert chosen_trackers() == ()
    run("check")
    monkeypatch.setitem(trackers.PACKAGES, "trackio", ())
    monkeypatch.setenv(trackers.VARIABLE, " trackio, trackio,dvclive ,")
    assert chosen_trackers() == ("trackio",)


def test_an_unknown_name_in_the_variable_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    message = check({trackers.VARIABLE: "wandb,mlfow"}, monkeypatch)
    assert message.startswith("BABELCART_REPORT_TO contains 'mlfow'; accepted: dvclive, mlflow, wandb, trackio")
    assert message.endswith("Did you mean mlflow?")


def test_a_missing_package_is_an_error_before_training(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("no_such_tracker").mkdir()  # as wandb/, the folder of runs, which Python could import
    monkeypatch.syspath_prepend(str(project.folder))
    monkeypatch.setitem(trackers.PACKAGES, "wandb", ("no_such_tracker",))
    project.change(report_to=["wandb"])
    for command in (["check"], ["train", "--task", "qc", "--model", "tiny"]):
        printed = run(*command, fails=True).output
        assert "report_to contains wandb, but the package no_such_tracker is not installed: pip install 'babelcart[wandb]'" in printed


def test_wandb_never_asks_for_a_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    need("wandb")
    monkeypatch.setenv("NETRC", str(project.folder / "none"))
    monkeypatch.setenv("HOME", str(project.folder))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert "wandb login" in check({trackers.VARIABLE: "wandb", "WANDB_MODE": "online"}, monkeypatch)


def test_without_trackers_nothing_is_done(project: Project) -> None:
    report_scores((), Path("models/tiny/qc"), {"test": {"overall": {"f1": 0.5}}})
    Report((), "tiny-qc-1", {}).finish(True)
    assert not trackers.FOLDER.exists()
