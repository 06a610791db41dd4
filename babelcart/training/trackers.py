"""Report a training run, and its final scores, to experiment trackers: MLflow, Weights & Biases and Trackio.

`report_to` of params.yaml names the trackers; the environment variable BABELCART_REPORT_TO overrides it. No stage depends on either, and
neither is part of the fingerprint of a checkpoint. Settings and figures are reported, never rows. A tracker that fails is left out for
the rest of the run, after one warning. `evaluate` needs this module, so that it never imports torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from babelcart.core import config
from babelcart.core.errors import UserError, did_you_mean, printable
from babelcart.core.files import read_json, sha256, write_json

Name = Literal["dvclive", "mlflow", "wandb", "trackio"]
Setting = str | int | float | bool | None
Result = TypeVar("Result")
Log = Callable[[int, Mapping[str, float]], None]

KEY = "report_to"
VARIABLE = "BABELCART_REPORT_TO"
PROJECT = "babelcart"  # name of the project or experiment in a tracker
FOLDER = Path(".scratch/report_to")
RECORD_SHAPE = {"run": str, "settings": {...: object}, "adapter": (str, None)}
# Tracker -> the packages of the extra with its name. The curves of DVCLive are an output of `train` and always written.
PACKAGES: dict[str, tuple[str, ...]] = {
    "dvclive": (),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}


def chosen_trackers() -> tuple[str, ...]:
    """Return the trackers to report to, without ``dvclive``, which is not optional.

    Raises
    ------
    UserError
        If a name is unknown, a package is not installed, or Weights & Biases would ask for an API key.
    """
    names: Sequence[str]
    if VARIABLE in os.environ:
        names = [name.strip() for name in os.environ[VARIABLE].split(",") if name.strip()]
        if unknown := [name for name in names if name not in PACKAGES]:
            raise UserError(
                f"{VARIABLE} contains {unknown[0]!r}; accepted: {', '.join(PACKAGES)}, separated by commas, or empty for none"
                f"{did_you_mean(unknown[0], PACKAGES)}"
            )
    else:
        names = config.load(KEY, tuple[Name, ...]) if KEY in config.read_params() else ()
    for name in names:
        if missing := [package for package in PACKAGES[name] if not _is_installed(package)]:
            raise UserError(
                f"{VARIABLE if VARIABLE in os.environ else f'params.yaml: {KEY}'} contains {name}, but the package {missing[0]} is not "
                f"installed: pip install 'babelcart[{name}]', or make setup EXTRAS={name}"
            )
    if "wandb" in names and _wandb_is_online() and not _wandb_is_logged_in():
        raise UserError(
            "WANDB_MODE is online, but Weights & Biases has no API key on this machine: run `wandb login`, or unset WANDB_MODE to keep "
            "the run on this machine"
        )
    return tuple(name for name in dict.fromkeys(names) if name != "dvclive")


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported. A folder of its name, such as wandb/ with the runs of this project, is not a package."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


class Tracker(Protocol):
    """A run in one tracker. Every method may fail; see `Report`."""

    def start(self, run: str, settings: Mapping[str, Setting], scores_only: bool) -> int:
        """Start the run of a name, or continue it, perhaps only to set its scores. Return its last step, 0 if it has none."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step that is later than those before."""

    def score(self, scores: Mapping[str, float]) -> None:
        """Set the final scores."""

    def finish(self, done: bool) -> None:
        """End the run; `done` is False if training was interrupted and may be continued."""


class Mlflow:
    """A run of MLflow, on the server that MLFLOW_TRACKING_URI names, by default in the file mlflow.db."""

    def start(self, run: str, settings: Mapping[str, Setting], scores_only: bool) -> int:
        # Read when mlflow is imported: no usage statistics, and a server that does not answer delays training by seconds, not minutes.
        for variable, value in (("DISABLE_TELEMETRY", "true"), ("HTTP_REQUEST_TIMEOUT", "10"), ("HTTP_REQUEST_MAX_RETRIES", "1")):
            os.environ.setdefault(f"MLFLOW_{variable}", value)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        runs = self.client.search_runs([experiment_id], f"attributes.run_name = '{run}'") or [
            self.client.create_run(experiment_id, run_name=run)
        ]
        self.run_id = runs[0].info.run_id
        self.last_step = max((point.step for point in self.client.get_metric_history(self.run_id, "train/loss")), default=0)
        params = [Param(key, str(value)) for key, value in settings.items() if key not in runs[0].data.params]
        for index in range(0, len(params), 100):  # the limit of a request
            self.client.log_batch(self.run_id, params=params[index : index + 100])
        return self.last_step

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(name, figure, now, step) for name, figure in figures.items()])

    def score(self, scores: Mapping[str, float]) -> None:
        self.log(self.last_step, scores)

    def finish(self, done: bool) -> None:
        if self.client.get_run(self.run_id).info.status != "FINISHED":
            self.client.set_terminated(self.run_id, "FINISHED" if done else "KILLED")


def _wandb_mode() -> str:
    """Return the mode of Weights & Biases: that of the environment, or else offline."""
    return os.environ.get("WANDB_MODE") or "offline"


def _wandb_is_online() -> bool:
    return _wandb_mode() not in ("offline", "dryrun", "disabled")


def _wandb_is_logged_in() -> bool:
    """Return whether there is an API key. Otherwise Weights & Biases would ask for it, also in the middle of a pipeline."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # there is a key, but the server does not answer or refuses it: a warning of `Report`, not an error
        return True


class Wandb:
    """A run of Weights & Biases: in the folder wandb/, and on the server only if WANDB_MODE is online."""

    def start(self, run: str, settings: Mapping[str, Setting], scores_only: bool) -> int:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")
        import wandb

        # Offline, a run cannot be continued: each process writes a folder of its own. `wandb sync` replaces a run by the later folder
        # unless the folder says that it resumes. A training writes all its steps again; an evaluation only adds scores.
        mode: Any = _wandb_mode()
        nothing_else = wandb.Settings(
            console="off", disable_git=True, disable_job_creation=True, finish_timeout=60, host="", save_code=False,
            x_disable_machine_info=True, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run, id=run, config=dict(settings), mode=mode,
            resume="allow" if scores_only or _wandb_is_online() else None, settings=nothing_else,
        )  # fmt: skip
        return max(self.run.step - 1, 0)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def score(self, scores: Mapping[str, float]) -> None:
        self.run.summary.update(dict(scores))

    def finish(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)


class Trackio:
    """A run of Trackio: in the folder TRACKIO_DIR, or on the server or the Space that the environment names."""

    def start(self, run: str, settings: Mapping[str, Setting], scores_only: bool) -> int:
        import trackio

        with _without_hub() if not {"TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"} & os.environ.keys() else nullcontext():
            self.run = trackio.init(
                PROJECT, run, config=dict(settings), resume="allow", embed=False, auto_log_cpu=False, auto_log_gpu=False
            )
        self.last_step = max(self.run._next_step - 1, 0)  # there is no public name for it
        return self.last_step

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def score(self, scores: Mapping[str, float]) -> None:
        self.run.log(dict(scores), step=self.last_step)

    def finish(self, done: bool) -> None:
        self.run.finish()


@contextmanager
def _without_hub() -> Iterator[None]:
    """Keep Trackio from asking the hub for the name of the user, which it also does for a run on this machine."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


TRACKERS: dict[str, Callable[[], Tracker]] = {"mlflow": Mlflow, "wandb": Wandb, "trackio": Trackio}


class Report:
    """A run in several trackers. One that fails is left out from then on, after one warning.

    Parameters
    ----------
    names : sequence of str
        As from `chosen_trackers`.
    run : str
        The name of the run. A run that has it already is continued.
    settings : mapping
        Reported with the run.
    scores_only : bool
        Whether the run gets scores and no figures of steps.
    """

    def __init__(self, names: Sequence[str], run: str, settings: Mapping[str, Setting], scores_only: bool = False) -> None:
        self._trackers = {name: TRACKERS[name]() for name in names}
        self._last_steps = {name: self._attempt(name, lambda tracker: tracker.start(run, settings, scores_only)) or 0 for name in names}
        self._step, self._figures = 0, dict[str, float]()

    def _attempt(self, name: str, call: Callable[[Tracker], Result]) -> Result | None:
        """Call a method of a tracker. A failure is not one of training: the tracker is left out."""
        from tqdm import tqdm

        if name not in self._trackers:
            return None
        try:
            return call(self._trackers[name])
        except Exception as error:
            del self._trackers[name]
            reason = printable(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            tqdm.write(f"warning: {KEY}: {name} failed, and nothing more of this run is reported to it ({reason})", file=sys.stderr)
            return None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Report the figures of a step, in one or more calls. Steps never decrease; those that a tracker already has are left out."""
        if step != self._step:
            self._send()
        self._step = step
        self._figures |= figures

    def _send(self) -> None:
        step, figures, self._figures = self._step, self._figures, {}
        for name, last_step in self._last_steps.items():
            if figures and step > last_step:
                self._attempt(name, lambda tracker: tracker.log(step, figures))

    def score(self, scores: Mapping[str, float]) -> None:
        """Report the final scores."""
        for name in self._last_steps:
            self._attempt(name, lambda tracker: tracker.score(scores))

    def finish(self, done: bool) -> None:
        """Report the last step and end the run."""
        self._send()
        for name in self._last_steps:
            self._attempt(name, lambda tracker: tracker.finish(done))


@contextmanager
def report_training(names: Sequence[str], training: str, adapter: Path, settings: Sequence[Any]) -> Iterator[Log | None]:
    """Report a training. A training that was interrupted continues its run.

    Parameters
    ----------
    names : sequence of str
        As from `chosen_trackers`. If it is empty, nothing is done.
    training : str
        ``MODEL-TASK-FINGERPRINT``, the name of the folder of its checkpoints.
    adapter : Path
        Folder of the adapter, which must be written before the block ends, so that `report_scores` finds its run.
    settings : sequence
        Sections of params.yaml, such as `TrainSettings`. Their keys are reported with the run.

    Yields
    ------
    callable or None
        `Report.log`; None without trackers.
    """
    if not names:
        yield None
        return
    path = FOLDER / f"{training}.json"
    record = _read_record(path) or {
        "run": _new_run(training.rpartition("-")[0]),
        "settings": {key: value for section in settings for key, value in _flat(asdict(section), section.SECTION.partition(".")[0])},
        "adapter": None,
    }
    write_json(path, record)
    report = Report(names, record["run"], record["settings"])
    try:
        yield report.log
    except BaseException:
        report.finish(done=False)
        raise
    report.finish(done=True)
    write_json(path, record | {"adapter": _adapter_hash(adapter)})


def report_scores(names: Sequence[str], adapter: Path, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Report the final scores to the run that trained an adapter, or to a new run if another machine trained it.

    Parameters
    ----------
    names : sequence of str
        As from `chosen_trackers`.
    adapter : Path
        Folder of the adapter, ``models/MODEL/TASK``.
    scores : mapping
        Split -> its scores, as in metrics/MODEL/TASK.json; ``f1`` and ``auc`` are reported.
    """
    if not names:
        return
    digest, name = _adapter_hash(adapter), f"{adapter.parent.name}-{adapter.name}"
    records = [record for path in sorted(FOLDER.glob(f"{name}-*.json")) if (record := _read_record(path))]
    known = [record for record in records if digest and record["adapter"] == digest]
    record = known[0] if known else {"run": _new_run(name), "settings": {}}
    report = Report(names, record["run"], record["settings"], scores_only=True)
    overall = [(split, summary["overall"]) for split, summary in scores.items()]
    report.score({f"{split}/{metric}": figures[metric] for split, figures in overall for metric in ("f1", "auc") if metric in figures})
    report.finish(done=True)


def _new_run(name: str) -> str:
    """Return a name that no other run has: trackers may be shared. It takes nothing from the random numbers of training."""
    return f"{name}-{os.urandom(4).hex()}"


def _read_record(path: Path) -> dict[str, Any] | None:
    with suppress(UserError):
        return read_json(path, RECORD_SHAPE)
    return None


def _adapter_hash(adapter: Path) -> str | None:
    path = adapter / "adapter_model.safetensors"
    return sha256(path) if path.exists() else None


def _flat(settings: Mapping[str, Any], name: str) -> Iterator[tuple[str, Setting]]:
    """Yield the dotted keys and plain values of a section; a list is one text in JSON."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", json.dumps(value) if isinstance(value, (list, tuple)) else value
