"""The inputs of the report: the shapes of the files it reads, and the results of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.core.tasks import Task
from babelcart.scores.metrics import Decision, labelled_rows
from babelcart.scores.slices import reading_order

if TYPE_CHECKING:
    import pandas as pd

# Groups of slices that the page shows, and their titles.
GROUPS = {
    "languages": "Languages in training",
    "query_words": "Words in the query",
    "candidates": "Candidates of the query",
    "top_category": "Top category",
    "grade": "Grade",
}
# Groups whose rows mostly have the same label, so that the page shows the share predicted relevant instead of F1.
SAME_LABEL_GROUPS = ("grade",)
# Origins of training rows, and kinds of example rows, with their titles.
ORIGINS = {"native": "native", "translated": "translated", "easy": "easy negative", "hard": "hard negative"}
KINDS = {"positive": "positive", "natural_negative": "natural negative", "easy": "easy negative", "hard": "hard negative"}

# Shapes of the JSON of `translate` and `negatives`, for `babelcart.core.shapes.check_shape`: the keys that the page shows.
TRANSLATION = {"train?": {...: {"asked": int, "translated": int, "held_out": int, "refused": {...: int}}}}
_SHARES = {"language": {...: float}, "negative_share": float}
NEGATIVES = {
    "asked": int, "short": int, "made": {...: int}, "refused": {...: int}, "before": _SHARES, "after": _SHARES,
    "told_apart?": {...: float}, "similarity?": {...: {"q05": float, "q25": float, "q50": float, "q75": float, "q95": float}},
}  # fmt: skip
EXAMPLES = {...: [{"language": str, "query": str, "candidate": str, "similarity": (float, None)}]}


@dataclass(frozen=True)
class TaskResults:
    """The outputs of the other stages for one task.

    Attributes
    ----------
    task : {"qc", "qi"}
    split : str
        The split that the page shows, from `babelcart.scores.metrics.best_labelled_split`.
    predictions, validation : pandas.DataFrame
        Predictions of that split and of validation: ``id``, ``language``, ``origin_query``, ``candidate``, ``label`` and
        ``probability``. Labels of `predictions` may be missing.
    native_languages : sequence of str
        Languages with labelled rows in train.
    scores, slices : mapping
        By split, the scores of the model: the content of ``TASK.json`` and ``TASK_slices.json``.
    ngram : mapping
        By split, the scores of the n-gram baseline: the content of its ``TASK.json``.
    translation, negatives : mapping
        Counts of the stages `translate` and `negatives`.
    examples : mapping
        Example rows by kind, a key of `KINDS`.
    training : pandas.DataFrame
        The training set: ``language`` and ``origin``.
    curves : mapping of str to pandas.DataFrame
        ``precision_recall`` and ``calibration``; ``train/loss``; and the metrics of the evaluation steps, such as ``eval/auc``.
    """

    task: Task
    split: str
    predictions: pd.DataFrame
    validation: pd.DataFrame
    native_languages: Sequence[str]
    scores: Mapping[str, Any]
    slices: Mapping[str, Any]
    ngram: Mapping[str, Any]
    translation: Mapping[str, Any]
    negatives: Mapping[str, Any]
    examples: Mapping[str, Any]
    training: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]

    @property
    def decision(self) -> Decision:
        """Thresholds and calibration that the stage `evaluate` chose on validation."""
        return Decision.from_scores(self.scores)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """The predictions of the rows that have a label, which are the rows that the page shows."""
        return labelled_rows(self.predictions)

    @property
    def split_scores(self) -> Mapping[str, Any]:
        """Scores of the model on the split of the page."""
        return self.scores[self.split]

    @property
    def ngram_scores(self) -> Mapping[str, Any]:
        """Scores of the n-gram baseline on the split of the page; empty if it has none."""
        return self.ngram.get(self.split, {})

    def slice_scores(self, same_label: bool = False) -> dict[str, dict[str, Any]]:
        """Return the scores on the split of the page, by title of the group and by value of the slice, in reading order.

        Parameters
        ----------
        same_label : bool
            Whether to return the groups of `SAME_LABEL_GROUPS` instead of the others.
        """
        groups = self.slices[self.split]
        return {
            title: {name: groups[group][name] for name in sorted(groups[group], key=reading_order)}
            for group, title in GROUPS.items()
            if group in groups and (group in SAME_LABEL_GROUPS) == same_label
        }

    def training_rows(self) -> dict[str, dict[str, int]]:
        """Return the number of training rows by language and origin."""
        counts = self.training.groupby(["language", "origin"]).size().unstack(fill_value=0)
        return {str(language): {str(origin): int(rows) for origin, rows in row.items()} for language, row in counts.iterrows()}

    def translation_counts(self) -> list[dict[str, Any]]:
        """Return the outcomes of the rows chosen for translation, by language.

        Returns
        -------
        list of dict
            ``language``, ``asked`` (the rows chosen), and how many were ``translated``, ``held_out`` (the translation is a query of
            another split), ``refused`` (by the quality gate) or ``missing`` (the engine gave no translation); ``reasons`` of refusal,
            with their counts.
        """
        rows = []
        for language, counts in sorted(self.translation.get("train", {}).items()):
            reasons = dict(counts["refused"])
            missing = reasons.pop("missing", 0)
            refused = sum(reasons.values())
            totals = {key: counts[key] for key in ("asked", "translated", "held_out")}
            rows.append({"language": language, **totals, "refused": refused, "missing": missing, "reasons": reasons})
        return rows


def read_curve(path: Path, *columns: str) -> pd.DataFrame:
    """Read a curve that the stage `evaluate` or `train` wrote.

    Parameters
    ----------
    path : Path
        A CSV file, or a TSV file if its name ends with ``.tsv``.
    *columns : str
        The columns to read, all float64.

    Raises
    ------
    UserError
        If the file does not exist, is not a table with these columns, is empty, or holds a value that is not a finite number.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")[list(columns)].astype(float)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `dvc repro`") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # the errors of pandas' parser are ValueErrors
        raise UserError(f"{path} is not a table of numbers with the columns {', '.join(columns)} ({error}); run `dvc repro`") from error
    if not len(table) or not (table.abs() < 1e300).all(axis=None):
        raise UserError(f"{path} has no rows, or a value that is not a finite number; run `dvc repro`")
    return table
