"""Run one pipeline under several settings, models, seeds and tasks, and compare: a table with intervals.

    python benchmarks/experiment.py benchmarks/paper.yaml
    python benchmarks/experiment.py benchmarks/paper.yaml --only sample --model gemma3-12b --model qwen25-14b

The YAML file names cells: dotted keys of params.yaml and their values. Each run is a DVC experiment (`dvc exp run`) of the last commit
that changed the pipeline, in a clone under .scratch/experiments with this project's cache: the workspace stays as it is, and a stage
that has run with the same inputs, in any experiment, is not run again. A finished experiment is fetched into this project (`dvc exp show
--rev COMMIT`, `dvc exp apply NAME`, `python -m stages.compare NAME NAME`) and is not run twice, so the command can be stopped and started
again. Scores are means over the seeds, in points; intervals are 95 % bootstraps that draw queries, not rows, and differences are
paired with the first cell.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from tqdm import tqdm

from babelcart.files import write_json
from babelcart.intervals import bootstrap, interval
from babelcart.metrics import best_threshold, scores
from babelcart.text import normalise

ROOT = Path(__file__).parent.parent
SEEDED = ("translate", "negatives", "train")
# What an experiment depends on in git: a commit that changes none of it, of docs say, lets experiments stand.
PIPELINE = ("babelcart", "stages", "dvc.yaml", "params.yaml", "data.dvc")
METRICS = ("f1", "auc")
MEANS = (*METRICS, "precision", "recall")


def call(*command: str, folder: Path) -> str:
    """What a command prints; its message, and the end of this program, if it fails."""
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"), "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}, in {folder}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def dvc(*command: str, folder: Path) -> str:
    return call(sys.executable, "-m", "dvc", *command, folder=folder)


@dataclass(frozen=True)
class Job:
    """One experiment."""

    task: str
    model: str
    cell: str
    seed: int
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """Readable, and another one as soon as a setting is."""
        digest = hashlib.sha256(json.dumps(self.changes, sort_keys=True).encode()).hexdigest()[:8]
        return re.sub(r"[^a-z0-9]+", "-", f"{self.task} {self.model} {self.cell} {self.seed} {digest}".lower())


def jobs(spec: dict[str, Any]) -> list[Job]:
    """All experiments, those that share most next to each other.

    `translate` has no run-cache, since it keeps its memory; it is shared with the experiment before alone.
    """
    made = []
    for seed in spec["seeds"]:
        for task in spec["tasks"]:
            cells = [(name, {**spec.get("base", {}), **changes}) for name, changes in spec["cells"].items()]
            cells.sort(key=lambda cell: json.dumps({key: value for key, value in cell[1].items() if key.startswith("translate.")}))
            for cell, changes in cells:
                for model in spec["models"]:
                    seeds = {f"{section}.seed": seed for section in SEEDED}
                    made.append(Job(task, model, cell, seed, {**changes, "tasks": [task], "run": [model], **seeds}))
    return made


def baseline() -> str:
    """The last commit that changed the pipeline."""
    if call("git", "status", "--porcelain", "--", *PIPELINE, folder=ROOT):
        click.echo("changes that are not committed are left out of the experiments", err=True)
    return call("git", "log", "-1", "--format=%H", "--", *PIPELINE, folder=ROOT).strip()


def clone(commit: str, folder: Path) -> None:
    """Bring a clone with this project's cache to a commit."""
    if not (folder / ".dvc").exists():
        call("git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder), folder=ROOT)
    call("git", "fetch", "--quiet", str(ROOT), "HEAD", folder=folder)
    # What an experiment that was stopped has left behind.
    for ref in call("git", "for-each-ref", "--format=%(refname)", "refs/exps/exec", "refs/exps/stash", folder=folder).split():
        call("git", "update-ref", "-d", ref, folder=folder)
    call("git", "checkout", "--quiet", "--force", "--detach", commit, folder=folder)
    dvc("cache", "dir", "--local", dvc("cache", "dir", folder=ROOT).strip(), folder=folder)
    # By force: a stage that was killed may have left an output that DVC has not saved.
    dvc("checkout", "--quiet", "--force", "--allow-missing", folder=folder)


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Change the committed params.yaml of a clone."""
    yaml = YAML()
    params = yaml.load(call("git", "show", "HEAD:params.yaml", folder=folder))
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    with (folder / "params.yaml").open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)


def without_base(models: set[str], folder: Path) -> set[str]:
    """The models that cannot be had here, and why is said: one on the hub needs the network and perhaps an accepted licence."""
    missing = set()
    for model in sorted(models):
        edit(folder, {"run": [model]})
        try:
            dvc("repro", f"base@{model}", folder=folder)
        except click.ClickException as error:
            reason = re.search(r"^Error: (.*)", error.message, re.MULTILINE)
            click.echo(f"{model} is left out: {reason[1] if reason else error.message}", err=True)
            missing.add(model)
    return missing


def run(spec: dict[str, Any], folder: Path) -> tuple[pd.DataFrame, str]:
    """Predictions of all experiments (their columns, and task, model, cell, seed, part), and what they cost, in words.

    Models that cannot be had are taken out of `spec`.
    """
    from dvc.api import DVCFileSystem

    work, log, commit = folder / "work", folder / "runs.json", baseline()
    refs = f"refs/exps/{commit[:2]}/{commit[2:]}"
    done = set(call("git", "for-each-ref", "--format=%(refname)", refs, folder=ROOT).split())
    runs: dict[str, Any] = json.loads(log.read_text()) if log.exists() else {}
    if todo := [job for job in jobs(spec) if f"{refs}/{job.name}" not in done]:
        clone(commit, work)
        missing = without_base({job.model for job in todo}, work)
        spec["models"] = [model for model in spec["models"] if model not in missing]
        if not spec["models"]:
            raise click.ClickException("none of the models can be had here")
        for job in tqdm([job for job in todo if job.model not in missing], desc=folder.name, unit="experiment", disable=None):
            edit(work, job.changes)
            start = time.monotonic()
            said = dvc("exp", "run", "--name", job.name, f"evaluate@{job.task}-{job.model}", folder=work)
            before = runs.get(job.name, {"seconds": 0, "stages": []})
            ran = re.findall(r"Running stage '([^']+)'", said)
            runs[job.name] = {"seconds": before["seconds"] + round(time.monotonic() - start), "stages": before["stages"] + ran}
            write_json(log, runs)
            call("git", "fetch", "--quiet", str(work), f"{refs}/{job.name}:{refs}/{job.name}", folder=ROOT)
    made, all_jobs = [], jobs(spec)
    for job in all_jobs:
        files = DVCFileSystem(str(ROOT), rev=call("git", "rev-parse", f"{refs}/{job.name}", folder=ROOT).strip())
        for part in ("validation", "test"):
            with files.open(f"predictions/{job.model}/{job.task}/{part}.parquet") as handle:
                table = pd.read_parquet(handle)
            made.append(table.assign(task=job.task, model=job.model, cell=job.cell, seed=job.seed, part=part))
    mine = [runs[job.name] for job in all_jobs if job.name in runs]
    minutes, stages = sum(one["seconds"] for one in mine) / 60, sum(len(one["stages"]) for one in mine)
    return pd.concat(made, ignore_index=True), f"{len(all_jobs)} experiments, {stages} stages run, {minutes:.0f} minutes"


def table(found: pd.DataFrame, spec: dict[str, Any], draws: int) -> list[str]:
    """Markdown lines: a row for each task, subset, model and cell."""
    heads = ["task", "test rows", "model", "cell", "F1", "difference", "by seed", "precision", "recall", "AUC", "difference"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    cells, seeds = list(spec["cells"]), spec["seeds"]
    for task in spec["tasks"]:
        parts = {key: rows.reset_index(drop=True) for key, rows in found[found["task"] == task].groupby(["model", "cell", "seed", "part"])}
        test = parts[spec["models"][0], cells[0], seeds[0], "test"]
        label = test["label"].to_numpy(int)
        query = np.array([normalise(one) for one in test["origin_query"]])
        subsets = {
            name: test["language"].isin(languages).to_numpy() if languages else np.ones(len(test), dtype=bool)
            for name, languages in spec["subsets"][task].items()
        }
        for model in spec["models"]:
            points, drawn = {}, {}
            for cell in cells:
                for seed in seeds:
                    one, validation = parts[model, cell, seed, "test"], parts[model, cell, seed, "validation"]
                    if not one["id"].equals(test["id"]):
                        raise click.ClickException(f"{task}, {model}, {cell}, seed {seed}: the cells were not tested on the same rows")
                    threshold = best_threshold(validation["label"].to_numpy(int), validation["probability"].to_numpy(float))
                    probability = one["probability"].to_numpy(float)
                    drawn[cell, seed] = bootstrap(label, probability, (probability >= threshold).astype(int), query, subsets, draws)
                    for name, mask in subsets.items():
                        points[cell, seed, name] = scores(label[mask], probability[mask], threshold)
            for name, mask in subsets.items():
                first: dict[str, tuple[float, np.ndarray]] = {}
                for cell in cells:
                    shown = {}
                    means = {metric: 100 * np.mean([points[cell, seed, name][metric] for seed in seeds]) for metric in MEANS}
                    for metric in METRICS:
                        values = 100 * np.mean([drawn[cell, seed][name][metric] for seed in seeds], axis=0)
                        shown[metric] = f"{means[metric]:.1f}{ends(values, '.1f')} | "
                        if cell == cells[0]:
                            first[metric] = means[metric], values
                        else:
                            mean, drawn_first = first[metric]
                            shown[metric] += f"{means[metric] - mean:+.1f}{ends(values - drawn_first, '+.1f')}"
                    by_seed = ", ".join(f"{100 * points[cell, seed, name]['f1']:.1f}" for seed in seeds)
                    about = f"{task.upper()} | {name}, {mask.sum():,} | {model} | {cell}"
                    others = f"{means['precision']:.1f} | {means['recall']:.1f}"
                    lines.append(f"| {about} | {shown['f1']} | {by_seed} | {others} | {shown['auc']} |")
    return lines


def ends(values: np.ndarray, form: str) -> str:
    """An interval in brackets; nothing where too many draws are undefined."""
    found = interval(values)
    return f" ({found[0]:{form}} to {found[1]:{form}})" if found else ""


@click.command(help=__doc__)
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="Experiments of the file to run; all if not given.")
@click.option("--model", "models", multiple=True, help="Models instead of the file's; blocks under models: in params.yaml.")
@click.option("--draws", default=1000, show_default=True, help="Bootstrap draws.")
def main(path: Path, only: tuple[str, ...], models: tuple[str, ...], draws: int) -> None:
    for name, spec in YAML(typ="safe").load(path).items():
        if only and name not in only:
            continue
        spec["models"] = list(models) or spec["models"]
        found, cost = run(spec, ROOT / ".scratch/experiments" / f"{path.stem}-{name}")
        click.echo(f"\n{name}: {len(spec['seeds'])} seeds, {cost}\n")
        click.echo("\n".join(table(found, spec, draws)))


if __name__ == "__main__":
    main()
