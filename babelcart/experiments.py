"""Experiments: one pipeline under several settings, models, seeds and tasks, and the table that compares their scores.

A specification is a mapping with these keys (experiments/paper.yaml is an example):

* ``models``, ``tasks``, ``seeds``: lists; every combination is run for every cell.
* ``cells``: name -> settings, as dotted keys of params.yaml and their values. The first cell is the reference of the differences.
* ``base``: settings that all cells share (optional).
* ``subsets``: task -> name -> languages of the test rows in this subset; no languages means all rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr
from babelcart.rows import languages
from babelcart.scores.formatting import format_count
from babelcart.scores.intervals import METRICS
from babelcart.scores.metrics import labelled_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Sections of params.yaml whose ``seed`` varies.
SEEDED = ("translate", "negatives", "train")
# The keys that a specification must have.
KEYS = frozenset({"models", "tasks", "seeds", "cells", "subsets"})
HEADER = ("task", "test rows", "model", "cell", "F1", "difference", "by seed", "precision", "recall", "AUC", "difference")


@dataclass(frozen=True)
class Job:
    """One experiment: a cell with a task, a model and a seed.

    Attributes
    ----------
    task, model, cell : str
        Names of the task, the model and the cell.
    seed : int
        Seed of all stages in `SEEDED`.
    changes : dict
        All settings that differ from params.yaml: dotted keys and their values.
    """

    task: str
    model: str
    cell: str
    seed: int
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """A readable name that ends with a hash of all changed settings."""
        digest = hashlib.sha256(json.dumps(self.changes, sort_keys=True).encode()).hexdigest()[:8]
        return re.sub(r"[^a-z0-9]+", "-", f"{self.task} {self.model} {self.cell} {self.seed} {digest}".lower())


def subset_languages(tags: Sequence[str], setting: str) -> tuple[str, ...]:
    """Return the ISO 639-1 codes of a subset of a specification; raises UserError if a tag is not a language."""
    try:
        return languages.codes(tags, setting)
    except ValueError as error:
        raise UserError(str(error)) from error


def check(spec: Mapping[str, Any]) -> None:
    """Check a specification before anything runs.

    Raises
    ------
    UserError
        If a key is unknown, missing or empty, a task has no subsets, or a subset names a language that does not exist.
    """
    if not isinstance(spec, Mapping):
        raise UserError(f"a specification of experiments is {short_repr(spec)}; accepted: a mapping with {', '.join(sorted(KEYS))}")
    if wrong := spec.keys() ^ (KEYS | ({"base"} & spec.keys())):
        raise UserError(
            f"a specification of experiments has unknown keys or lacks some: {', '.join(sorted(wrong))}; accepted: "
            f"{', '.join(sorted(KEYS))}, and optionally base"
        )
    for key, kind in (("models", list), ("tasks", list), ("seeds", list), ("cells", dict), ("subsets", dict)):
        if not isinstance(spec[key], kind) or not spec[key]:
            accepted = "a list with at least one entry" if kind is list else "a mapping with at least one key"
            raise UserError(f"{key} of a specification of experiments is {short_repr(spec[key])}; accepted: {accepted}")
    if missing := [task for task in spec["tasks"] if not spec["subsets"].get(task)]:
        raise UserError(f"subsets of a specification of experiments lacks {missing[0]}; each task needs its subsets, such as {{all: []}}")
    for task, subsets in spec["subsets"].items():
        for name, tags in subsets.items():
            subset_languages(tags, f"subsets.{task}.{name}")


def jobs(spec: Mapping[str, Any]) -> list[Job]:
    """Return all experiments of a specification, ordered so that those with equal ``translate`` settings follow each other.

    The stage `translate` has no run-cache, because its translation memory persists. Its output is reused only if the experiment before
    had the same settings.

    Parameters
    ----------
    spec : mapping
        A specification, see the docstring of this module.

    Raises
    ------
    UserError
        If the specification is not valid, see `check`.
    """
    check(spec)
    ordered = []
    for seed in spec["seeds"]:
        for task in spec["tasks"]:
            cells = [(name, {**spec.get("base", {}), **changes}) for name, changes in spec["cells"].items()]
            cells.sort(key=lambda cell: json.dumps({key: value for key, value in cell[1].items() if key.startswith("translate.")}))
            for cell, changes in cells:
                for model in spec["models"]:
                    seeds = {f"{section}.seed": seed for section in SEEDED}
                    ordered.append(Job(task, model, cell, seed, {**changes, "tasks": [task], "run": [model], **seeds}))
    return ordered


@dataclass(frozen=True)
class CellScores:
    """Scores of one cell with one model.

    Attributes
    ----------
    by_seed : dict
        By subset, the scores of each seed.
    draws : dict
        By subset, the bootstrap draws of each seed: ``(draws,)`` by metric.
    """

    by_seed: dict[str, list[dict[str, float]]]
    draws: dict[str, list[dict[str, np.ndarray]]]

    def mean(self, subset: str, metric: str) -> float:
        """Return the mean over the seeds, in points (hundredths)."""
        return statistics.fmean(100 * scores[metric] for scores in self.by_seed[subset])

    def mean_draws(self, subset: str, metric: str) -> np.ndarray:
        """Return the mean over the seeds in each bootstrap draw, ``(draws,)``, in points."""
        import numpy as np

        return 100 * np.mean([draws[metric] for draws in self.draws[subset]], axis=0)


class TaskPredictions:
    """Predictions of all experiments of one task.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Prediction tables of the task's experiments, with the columns ``model``, ``cell``, ``seed`` and ``split`` (validation or test).
    subsets : mapping
        Name -> languages; an empty list selects all rows.

    Raises
    ------
    UserError
        If no test row has a label.
    """

    def __init__(self, predictions: pd.DataFrame, subsets: Mapping[str, list[str]]) -> None:
        import numpy as np

        from babelcart.rows.text import normalise

        groups = predictions.groupby(["model", "cell", "seed", "split"], sort=False)
        self.tables = {key: labelled_rows(table) for key, table in groups}
        self.test, all_rows = next((self.tables[key], table) for key, table in groups if key[-1] == "test")
        if self.test.empty:
            raise UserError("no test row has a label, so experiments cannot be compared; use data with test labels, or split.test_share")
        # Queries with the same normal form are drawn together, in all languages.
        self.query = np.array([normalise(query) for query in self.test["origin_query"]])
        languages_of = {name: subset_languages(tags, name) if tags else set(all_rows["language"]) for name, tags in subsets.items()}
        self.masks = {name: self.test["language"].isin(chosen).to_numpy() for name, chosen in languages_of.items()}
        self.rows = {
            name: format_count({"rows": int(self.masks[name].sum()), "all_rows": int(all_rows["language"].isin(chosen).sum())})
            for name, chosen in languages_of.items()
        }

    def score(self, model: str, cell: str, seeds: list[int], draws: int) -> CellScores:
        """Score the test rows of a cell at the thresholds chosen on its validation rows.

        Parameters
        ----------
        model, cell : str
            Names of the model and the cell.
        seeds : list of int
        draws : int
            Number of bootstrap draws.

        Raises
        ------
        UserError
            If the test rows differ from those of the other experiments.
        """
        from babelcart.scores.intervals import bootstrap
        from babelcart.scores.metrics import best_threshold, compute_scores

        label = self.test["label"].to_numpy(int)
        cell_scores = CellScores({name: [] for name in self.masks}, {name: [] for name in self.masks})
        for seed in seeds:
            validation, test = self.tables[model, cell, seed, "validation"], self.tables[model, cell, seed, "test"]
            if not test["id"].equals(self.test["id"]):
                raise UserError(f"{model}, {cell}, seed {seed}: the test rows differ from those of the other experiments")
            threshold = best_threshold(validation["label"].to_numpy(int), validation["probability"].to_numpy(float))
            probability = test["probability"].to_numpy(float)
            drawn = bootstrap(label, probability, (probability >= threshold).astype(int), self.query, self.masks, draws)
            for name, mask in self.masks.items():
                cell_scores.by_seed[name].append(compute_scores(label[mask], probability[mask], threshold))
                cell_scores.draws[name].append(drawn[name])
        return cell_scores


def table(predictions: pd.DataFrame, spec: Mapping[str, Any], draws: int) -> list[str]:
    """Return lines of a Markdown table with one row per task, model, subset and cell.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Prediction tables with the columns ``task``, ``model``, ``cell``, ``seed`` and ``split``.
    spec : mapping
        The specification of the experiments.
    draws : int
        Number of bootstrap draws.
    """
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for task in spec["tasks"]:
        task_predictions = TaskPredictions(predictions[predictions["task"] == task], spec["subsets"][task])
        for model in spec["models"]:
            cells = {cell: task_predictions.score(model, cell, spec["seeds"], draws) for cell in spec["cells"]}
            reference = next(iter(cells.values()))
            for subset, rows in task_predictions.rows.items():
                for cell, scores in cells.items():
                    row = f"{task.upper()} | {subset}, {rows} | {model} | {cell}"
                    lines.append(f"| {row} | {_score_columns(scores, reference, subset)} |")
    return lines


def _score_columns(scores: CellScores, reference: CellScores, subset: str) -> str:
    """Return the columns from F1 on."""
    columns = {}
    for metric in METRICS:
        mean, drawn = scores.mean(subset, metric), scores.mean_draws(subset, metric)
        columns[metric] = f"{mean:.1f}{_interval(drawn, '.1f')} | "
        if scores is not reference:
            difference = drawn - reference.mean_draws(subset, metric)
            columns[metric] += f"{mean - reference.mean(subset, metric):+.1f}{_interval(difference, '+.1f')}"
    by_seed = ", ".join(f"{100 * seed_scores['f1']:.1f}" for seed_scores in scores.by_seed[subset])
    return f"{columns['f1']} | {by_seed} | {scores.mean(subset, 'precision'):.1f} | {scores.mean(subset, 'recall'):.1f} | {columns['auc']}"


def _interval(values: np.ndarray, form: str) -> str:
    """Return an interval in brackets; empty if too many draws are undefined."""
    from babelcart.scores.intervals import interval

    ends = interval(values)
    return f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends else ""
