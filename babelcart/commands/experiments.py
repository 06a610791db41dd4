"""Run the pipeline under several settings and compare the scores.

PATH is a YAML file of cells: settings as dotted keys of params.yaml and their values.

\b
    babelcart experiments experiments/paper.yaml
    babelcart experiments experiments/paper.yaml --only sample --model gemma3-12b
    babelcart experiments experiments/paper.yaml --only real --data FOLDER

Each run is a DVC experiment (`dvc exp run`) of the last commit that changed the pipeline. It runs in a clone under .scratch/experiments
with this project's cache: the workspace does not change, and a stage that has already run with the same inputs is not run again. Finished
experiments are fetched into this project (`dvc exp show --rev COMMIT`, `dvc exp apply NAME`, `babelcart compare NAME NAME`) and are not
run again, so that the command can be stopped and restarted.

Prints a table for each specification. Scores are means over the seeds, in points. Intervals are 95 % bootstraps that draw queries, not
rows; differences are paired with the first cell.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart import experiments
from babelcart.commands import cli
from babelcart.core import graph
from babelcart.core.errors import UserError, did_you_mean
from babelcart.core.files import write_json
from babelcart.experiments import Job

if TYPE_CHECKING:
    import pandas as pd


def call(*command: str, folder: Path) -> str:
    """Run a command in a folder and return its output.

    Raises
    ------
    UserError
        If the command fails; the message holds its output.
    """
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"), "PYTHONPATH": str(folder)}
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if completed.returncode:
        raise UserError(f"{' '.join(command)}, in {folder}:\n{completed.stdout[-2000:]}\n{completed.stderr[-4000:]}")
    return completed.stdout


def dvc(*command: str, folder: Path) -> str:
    """Run a DVC command in a folder and return its output."""
    return call(sys.executable, "-m", "dvc", *command, folder=folder)


def last_commit(root: Path) -> str:
    """Return the last commit that changed the pipeline: its code, its settings or its data.

    Experiments belong to this commit, so that a commit that changes only docs does not invalidate them.
    """
    pipeline = [*graph.code_folders(), "dvc.yaml", "params.yaml", *sorted(path.name for path in root.glob("*.dvc"))]
    if call("git", "status", "--porcelain", "--", *pipeline, folder=root):
        click.echo("uncommitted changes are not part of the experiments", err=True)
    return call("git", "log", "-1", "--format=%H", "--", *pipeline, folder=root).strip()


def clone(root: Path, commit: str, folder: Path) -> None:
    """Check out a commit in a clone that uses this project's cache."""
    if not (folder / ".dvc").exists():
        call("git", "clone", "--quiet", "--no-checkout", str(root), str(folder), folder=root)
    call("git", "fetch", "--quiet", str(root), "HEAD", folder=folder)
    # An experiment that was stopped leaves these references behind.
    for ref in call("git", "for-each-ref", "--format=%(refname)", "refs/exps/exec", "refs/exps/stash", folder=folder).split():
        call("git", "update-ref", "-d", ref, folder=folder)
    call("git", "checkout", "--quiet", "--force", "--detach", commit, folder=folder)
    # As a relative path, because DVC writes only ASCII to its configuration, and the path of the project may contain other characters.
    cache = os.path.relpath(os.path.realpath(dvc("cache", "dir", folder=root).strip()), os.path.realpath(folder))
    dvc("cache", "dir", "--local", cache, folder=folder)
    # --force, because a stage that was killed may leave an output that DVC has not saved.
    dvc("checkout", "--quiet", "--force", "--allow-missing", folder=folder)


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Write params.yaml in a clone: the committed one with some settings changed.

    Parameters
    ----------
    folder : Path
        The clone.
    changes : dict
        Dotted keys and their values.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    params = yaml.load(call("git", "show", "HEAD:params.yaml", folder=folder))
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = params
        for parent in parents:
            if not isinstance(section, dict) or parent not in section:
                keys = list(section) if isinstance(section, dict) else []
                raise UserError(f"the setting {name} of an experiment: params.yaml has no {parent} there{did_you_mean(parent, keys)}")
            section = section[parent]
        section[last] = value
    with (folder / "params.yaml").open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)


def unavailable(models: set[str], folder: Path) -> set[str]:
    """Return the models whose base model cannot be fetched, and print the reasons, such as a missing network or licence."""
    missing = set()
    for model in sorted(models):
        edit(folder, {"run": [model]})
        try:
            dvc("repro", f"base@{model}", folder=folder)
        except UserError as error:
            reason = re.search(r"^Error: (.*)", str(error), re.MULTILINE)
            click.echo(f"{model} is left out: {reason[1] if reason else error}", err=True)
            missing.add(model)
    return missing


def run_job(job: Job, folder: Path) -> dict[str, Any]:
    """Run one experiment in a clone.

    Returns
    -------
    dict
        ``seconds`` that it took, and the names of the ``stages`` that ran.
    """
    edit(folder, job.changes)
    start = time.monotonic()
    output = dvc("exp", "run", "--name", job.name, f"evaluate@{job.task}-{job.model}", folder=folder)
    return {"seconds": round(time.monotonic() - start), "stages": re.findall(r"Running stage '([^']+)'", output)}


def run(root: Path, jobs: list[Job], folder: Path) -> tuple[list[Job], pd.DataFrame, str]:
    """Run the experiments that have not been run yet.

    Parameters
    ----------
    root : Path
        The project.
    jobs : list of Job
        All experiments of a specification.
    folder : Path
        Holds the clone in which the experiments run, and a log of their cost.

    Returns
    -------
    jobs : list of Job
        The experiments without those of unavailable models.
    predictions : pandas.DataFrame
        Their predictions, from `read_predictions`.
    cost : str
        A description of the cost.
    """
    from tqdm import tqdm

    clone_folder, log, commit = folder / "work", folder / "runs.json", last_commit(root)
    refs = f"refs/exps/{commit[:2]}/{commit[2:]}"
    finished = set(call("git", "for-each-ref", "--format=%(refname)", refs, folder=root).split())
    runs: dict[str, Any] = json.loads(log.read_text()) if log.exists() else {}
    if todo := [job for job in jobs if f"{refs}/{job.name}" not in finished]:
        clone(root, commit, clone_folder)
        missing = unavailable({job.model for job in todo}, clone_folder)
        jobs = [job for job in jobs if job.model not in missing]
        if not jobs:
            raise UserError("none of the models is available; see the reasons above")
        for job in tqdm([job for job in todo if job.model not in missing], desc=folder.name, unit="experiment", disable=None):
            cost, earlier = run_job(job, clone_folder), runs.get(job.name, {"seconds": 0, "stages": []})
            runs[job.name] = {key: earlier[key] + cost[key] for key in cost}
            write_json(log, runs)
            call("git", "fetch", "--quiet", str(clone_folder), f"{refs}/{job.name}:{refs}/{job.name}", folder=root)
    logged = [runs[job.name] for job in jobs if job.name in runs]
    minutes, stage_count = sum(entry["seconds"] for entry in logged) / 60, sum(len(entry["stages"]) for entry in logged)
    return jobs, read_predictions(root, jobs, refs), f"{len(jobs)} experiments, {stage_count} stages run, {minutes:.0f} minutes"


def read_predictions(root: Path, jobs: list[Job], refs: str) -> pd.DataFrame:
    """Read the validation and test predictions of finished experiments.

    Parameters
    ----------
    root : Path
        The project.
    jobs : list of Job
    refs : str
        Prefix of the git references of the experiments.

    Returns
    -------
    pandas.DataFrame
        All predictions, with the columns ``task``, ``model``, ``cell``, ``seed`` and ``split`` added.
    """
    import pandas as pd
    from dvc.api import DVCFileSystem

    tables = []
    for job in jobs:
        files = DVCFileSystem(str(root), rev=call("git", "rev-parse", f"{refs}/{job.name}", folder=root).strip())
        for split in ("validation", "test"):
            with files.open(f"predictions/{job.model}/{job.task}/{split}.parquet") as handle:
                table = pd.read_parquet(handle)
            tables.append(table.assign(task=job.task, model=job.model, cell=job.cell, seed=job.seed, split=split))
    return pd.concat(tables, ignore_index=True)


def with_data(name: str, spec: dict[str, Any], data: Path | None, clone_folder: Path) -> dict[str, Any]:
    """Return the specification with ``data.path`` set to `data`, relative to the clone, if the file leaves it null.

    Raises
    ------
    UserError
        If the specification needs a folder and none is given.
    """
    base = spec.get("base", {})
    if base.get("data.path", "") is not None:
        return spec
    if data is None:
        raise UserError(f"{name} runs on rows of your own; pass their folder with --data, or choose other specifications with --only")
    return {**spec, "base": {**base, "data.path": os.path.relpath(data.resolve(), clone_folder.resolve())}}


@cli.command
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="Specification of the file to run. Default: all.")
@click.option("--model", "models", multiple=True, help="Model to run instead of those in the file: a block under `models` of params.yaml.")
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of rows, for specifications with data.path: null."
)
@click.option("--draws", default=1000, show_default=True, help="Number of bootstrap draws.")
def main(path: Path, only: tuple[str, ...], models: tuple[str, ...], data: Path | None, draws: int) -> None:
    from ruamel.yaml import YAML

    root = Path.cwd()
    if not (root / "dvc.yaml").exists():
        raise UserError("dvc.yaml does not exist; run from the top folder of the project")
    specs = YAML(typ="safe").load(path)
    if not isinstance(specs, dict):
        raise UserError(f"{path} has no specifications; accepted: a mapping of names to specifications, as in experiments/paper.yaml")
    if unknown := [name for name in only if name not in specs]:
        raise UserError(f"{path} has no specification {unknown[0]!r}{did_you_mean(unknown[0], specs)}; it has {', '.join(map(str, specs))}")
    specs = {name: spec for name, spec in specs.items() if not only or name in only}
    for spec in specs.values():
        experiments.check(spec)
    folders = {name: root / ".scratch/experiments" / f"{path.stem}-{name}" for name in specs}
    specs = {name: with_data(name, spec, data, folders[name] / "work") for name, spec in specs.items()}  # before anything runs
    for name, spec in specs.items():
        planned = experiments.jobs({**spec, "models": list(models) or spec["models"]})
        jobs, predictions, cost = run(root, planned, folders[name])
        available = list(dict.fromkeys(job.model for job in jobs))
        click.echo(f"\n{name}: {len(spec['seeds'])} seeds, {cost}\n")
        click.echo("\n".join(experiments.table(predictions, {**spec, "models": available}, draws)))
