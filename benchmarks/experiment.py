"""Run one pipeline under several settings, seeds and tasks, and compare: a table with intervals.

    python benchmarks/experiment.py benchmarks/translation.yaml

The YAML file names cells: dotted keys of params.yaml and their values. Each run is a `dvc repro` of `evaluate` in a clone of the
committed project under .scratch/experiments, with this project's cache, so that unchanged stages are shared; finished runs
are kept, so the command can be stopped and started again. F1 and AUC are means over the seeds; intervals are 95 % percentile
bootstraps that draw queries, not rows, and differences are paired with the first cell.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from sklearn.metrics import f1_score, roc_auc_score
from tqdm import tqdm

from babelcart.metrics import best_threshold
from babelcart.text import normalise

ROOT = Path(__file__).parent.parent
SEEDED = ("translate", "negatives", "train")


def dvc(*command: str, folder: Path) -> None:
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"), "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"dvc {' '.join(command)} in {folder}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def clone(folder: Path) -> None:
    """A clone of HEAD that shares this project's cache."""
    if folder.exists():
        shutil.rmtree(folder)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    dvc("cache", "dir", "--local", str(ROOT / ".dvc/cache"), folder=folder)
    dvc("checkout", "--quiet", "--allow-missing", folder=folder)


def edit(folder: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=folder, check=True, capture_output=True, text=True).stdout
    params = yaml.load(committed)
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    with (folder / "params.yaml").open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)


def run(spec: dict[str, Any], folder: Path) -> pd.DataFrame:
    """Predictions of every cell, seed and task: their columns, and cell, seed, task, part."""
    model = spec["model"]
    jobs = [(task, name, seed) for seed in spec["seeds"] for task in spec["tasks"] for name in spec["cells"]]
    made = []
    for task, name, seed in tqdm(jobs, desc="experiment", unit="run", disable=None):
        changes = {**spec.get("base", {}), **spec["cells"][name], "tasks": [task], "run": [model]}
        changes |= {f"{section}.seed": seed for section in SEEDED}
        identity = hashlib.sha256(json.dumps([changes, task], sort_keys=True).encode()).hexdigest()[:16]
        kept = folder / "runs" / identity
        if not (kept / "seconds.txt").exists():
            work = folder / "work"
            if not work.exists():
                clone(work)
            edit(work, changes)
            start = time.monotonic()
            dvc("repro", f"evaluate@{task}-{model}", folder=work)
            kept.mkdir(parents=True, exist_ok=True)
            for part in ("validation", "test"):
                shutil.copy(work / f"predictions/{model}/{task}/{part}.parquet", kept)
            (kept / "seconds.txt").write_text(f"{time.monotonic() - start:.0f}\n")
        for part in ("validation", "test"):
            made.append(pd.read_parquet(kept / f"{part}.parquet").assign(task=task, cell=name, seed=seed, part=part))
    return pd.concat(made, ignore_index=True)


def scores(label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    return 100 * f1_score(label[rows], predicted[rows]), 100 * roc_auc_score(label[rows], probability[rows])


def table(found: pd.DataFrame, spec: dict[str, Any], draws: int) -> list[str]:
    """Markdown lines: a row for each task, subset and cell."""
    lines = ["| task | test rows | cell | F1 | difference | AUC | difference |", "|---|---|---|---|---|---|---|"]
    generator = np.random.default_rng(0)
    for task in spec["tasks"]:
        mine = found[found["task"] == task]
        seeds, cells = spec["seeds"], list(spec["cells"])
        runs = {}
        for cell in cells:
            for seed in seeds:
                one = mine[(mine["cell"] == cell) & (mine["seed"] == seed)]
                validation, test = (one[one["part"] == part].reset_index(drop=True) for part in ("validation", "test"))
                threshold = best_threshold(validation["label"].to_numpy(int), validation["probability"].to_numpy(float))
                probability = test["probability"].to_numpy(float)
                runs[cell, seed] = (test, probability, probability >= threshold)
        test = runs[cells[0], seeds[0]][0]
        for other, _, _ in runs.values():
            assert other["id"].equals(test["id"]), "the cells were not tested on the same rows"
        label = test["label"].to_numpy(int)
        group = pd.factorize(pd.Series([normalise(query) for query in test["origin_query"]]))[0]
        members = pd.Series(np.arange(len(test))).groupby(group).apply(np.array).tolist()
        for subset, languages in spec["subsets"][task].items():
            inside = test["language"].isin(languages).to_numpy() if languages else np.ones(len(test), dtype=bool)
            queries = [rows for rows in members if inside[rows].any()]

            def means(
                rows: np.ndarray, runs: dict = runs, cells: list = cells, seeds: list = seeds, label: np.ndarray = label
            ) -> np.ndarray:
                return np.array([np.mean([scores(label, *runs[cell, seed][1:], rows) for seed in seeds], axis=0) for cell in cells])

            point = means(np.flatnonzero(inside))
            drawn = []
            for _ in range(draws):
                rows = np.concatenate([queries[n] for n in generator.integers(len(queries), size=len(queries))])
                drawn.append(means(rows[inside[rows]]))
            low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
            gain_low, gain_high = np.percentile(np.array(drawn) - np.array(drawn)[:, :1], [2.5, 97.5], axis=0)
            for number, cell in enumerate(cells):
                shown = []
                for metric in (0, 1):
                    shown.append(f"{point[number, metric]:.1f} ({low[number, metric]:.1f} - {high[number, metric]:.1f})")
                    gain = point[number, metric] - point[0, metric]
                    bounds = f"({gain_low[number, metric]:+.1f} - {gain_high[number, metric]:+.1f})"
                    shown.append(f"{gain:+.1f} {bounds}" if number else "")
                lines.append(f"| {task.upper()} | {subset}, {inside.sum():,} | {cell} | {' | '.join(shown)} |")
    return lines


@click.command(help=__doc__)
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="Experiments of the file to run; all if not given.")
@click.option("--draws", default=1000, show_default=True, help="Bootstrap draws.")
def main(path: Path, only: tuple[str, ...], draws: int) -> None:
    for name, spec in YAML(typ="safe").load(path).items():
        if only and name not in only:
            continue
        folder = ROOT / ".scratch/experiments" / f"{path.stem}-{name}"
        found = run(spec, folder)
        seconds = [float((kept / "seconds.txt").read_text()) for kept in (folder / "runs").iterdir()]
        click.echo(f"\n{name}: {len(spec['seeds'])} seeds, {len(seconds)} runs, {sum(seconds) / 60:.0f} minutes\n")
        click.echo("\n".join(table(found, spec, draws)))


if __name__ == "__main__":
    main()
