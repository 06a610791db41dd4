"""Compare two models on the same rows: differences of their scores with confidence intervals, and the rows whose answer flipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from babelcart.core.errors import UserError, printable
from babelcart.rows.table import RAW_COLUMNS
from babelcart.scores.formatting import format_probability, format_rows
from babelcart.scores.intervals import METRICS, bootstrap, interval, sampling_units
from babelcart.scores.metrics import Decision, compute_scores, labelled_rows
from babelcart.scores.slices import labelled_masks, slice_masks, with_overall

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

KEY = list(RAW_COLUMNS)
SLICE_COLUMNS = ("origin", "grade", "levels")


def pair_predictions(before: pd.DataFrame, after: pd.DataFrame, names: tuple[str, str] = ("the first", "the second")) -> pd.DataFrame:
    """Join the predictions of two models row by row.

    Parameters
    ----------
    before, after : pandas.DataFrame
        Columns ``id``, ``language``, ``origin_query``, ``candidate``, ``label`` and ``probability``, and in `before` those of
        `SLICE_COLUMNS` that exist.
    names : tuple of str
        Names of the models in messages.

    Returns
    -------
    pandas.DataFrame
        The columns of a row, and the two probabilities as ``before`` and ``after``. Labels may be missing.

    Raises
    ------
    UserError
        If the rows or their labels differ, because scores of different rows cannot be compared, or if no label is known.
    """
    slice_columns = [name for name in SLICE_COLUMNS if name in before]
    pairs = before[[*KEY, *slice_columns, "probability"]].merge(
        after[[*KEY, "probability"]], on=KEY, how="outer", suffixes=("_before", "_after"), indicator=True
    )
    if (unpaired := pairs["_merge"] != "both").any():
        row = pairs[unpaired].iloc[0]
        name = names[0] if row["_merge"] == "left_only" else names[1]
        raise UserError(
            f"{names[0]} and {names[1]} were not scored on the same rows: {int(unpaired.sum())} rows occur in only one of them. "
            f"The first is id {row['id']!r}, {row['language']}, {row['origin_query']!r}, {row['candidate']!r}, label {row['label']}, "
            f"in {name}; compare revisions with the same data and split"
        )
    if pairs["label"].isna().all():
        raise UserError("the labels of these rows are not known; compare a split with labels")
    return pairs.drop(columns="_merge").rename(columns={"probability_before": "before", "probability_after": "after"})


def compare_slices(
    pairs: pd.DataFrame, before: Decision, after: Decision, native_languages: Sequence[str], draws: int = 1000
) -> pd.DataFrame:
    """Return F1 and AUC of both models on the labelled rows of each slice, with 95 % confidence intervals of the differences.

    The bootstrap is paired and draws queries: both models are scored on the same draws.

    Parameters
    ----------
    pairs : pandas.DataFrame
        From `pair_predictions`.
    before, after : Decision
        Thresholds of each model; each is scored at its own.
    native_languages : sequence of str
        Languages with labelled rows in train.
    draws : int
        Number of bootstrap draws.

    Returns
    -------
    pandas.DataFrame
        One row for each slice, the first for all rows: ``group``, ``value``, ``rows`` (those with a label), ``all_rows``, and for both
        metrics ``*_before``, ``*_after``, ``*_change``, ``*_low`` and ``*_high`` (missing where undefined).
    """
    import pandas as pd

    masks_of_all_rows = with_overall(slice_masks(pairs, native_languages), len(pairs))
    masks = labelled_masks(masks_of_all_rows, pairs["label"].notna().to_numpy())
    pairs = labelled_rows(pairs)
    label = pairs["label"].to_numpy(int)
    scores, drawn = {}, {}
    for side, decision in (("before", before), ("after", after)):
        probability, thresholds = pairs[side].to_numpy(float), decision.thresholds(pairs["language"])
        scores[side] = {key: compute_scores(label[mask], probability[mask], thresholds[mask]) for key, mask in masks.items()}
        drawn[side] = bootstrap(label, probability, (probability >= thresholds).astype(int), sampling_units(pairs), masks, draws)
    records = []
    for (group, value), mask in masks.items():
        key = (group, value)
        all_rows = int(masks_of_all_rows[key].sum())
        record: dict[str, object] = {"group": group, "value": value, "rows": int(mask.sum()), "all_rows": all_rows}
        for metric in METRICS:
            if metric in scores["before"][key]:
                differences = drawn["after"][key][metric] - drawn["before"][key][metric]
                record |= _difference(metric, scores["before"][key][metric], scores["after"][key][metric], differences)
        records.append(record)
    return pd.DataFrame(records)


def _difference(metric: str, before: float, after: float, drawn: np.ndarray) -> dict[str, float]:
    """Return the columns of one metric; `drawn` are the differences in each bootstrap draw, ``(draws,)``."""
    low, high = interval(drawn) or (float("nan"), float("nan"))
    return {
        f"{metric}_before": before,
        f"{metric}_after": after,
        f"{metric}_change": after - before,
        f"{metric}_low": low,
        f"{metric}_high": high,
    }


def flips(pairs: pd.DataFrame, before: Decision, after: Decision) -> pd.DataFrame:
    """Return the labelled rows whose answer differs, with the largest change of probability first.

    Parameters
    ----------
    pairs : pandas.DataFrame
        From `pair_predictions`.
    before, after : Decision
        Thresholds of each model.

    Returns
    -------
    pandas.DataFrame
        The columns of `pairs`, and ``fixed``: True if the answer was wrong and is now right, False if it was right and is now wrong.
    """
    pairs = labelled_rows(pairs)
    answer_before = pairs["before"].to_numpy(float) >= before.thresholds(pairs["language"])
    answer_after = pairs["after"].to_numpy(float) >= after.thresholds(pairs["language"])
    flipped = pairs.assign(fixed=answer_after == (pairs["label"].astype(int) == 1))[answer_before != answer_after]
    change = (flipped["after"] - flipped["before"]).abs()
    return flipped.loc[change.sort_values(ascending=False, kind="stable").index]


def mcnemar(fixed: int, broken: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) of the hypothesis that fixed and broken answers are equally likely.

    Parameters
    ----------
    fixed, broken : int
        Number of answers that only the second model, and only the first model, gets right.
    """
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def describe(differences: pd.DataFrame, flipped: pd.DataFrame, max_rows: int) -> list[str]:
    """Return lines to print: the overall scores, the slices whose interval excludes 0, and flipped rows.

    Parameters
    ----------
    differences : pandas.DataFrame
        From `compare_slices`.
    flipped : pandas.DataFrame
        From `flips`.
    max_rows : int
        How many fixed rows, and how many broken rows, to print at most.
    """
    lines = []
    for metric in METRICS:
        for slice_index, row in differences.iterrows():
            low, high = row[f"{metric}_low"], row[f"{metric}_high"]
            if slice_index == 0 or low > 0 or high < 0:
                name = "overall" if slice_index == 0 else f"{row['group']} {row['value']}, {format_rows(row)}"
                change = f"{row[f'{metric}_before']:.4f} -> {row[f'{metric}_after']:.4f}, {row[f'{metric}_change']:+.4f}"
                lines.append(f"{metric.upper():4}{name}: {change} ({low:+.4f} to {high:+.4f})")
    fixed, broken = flipped[flipped["fixed"]], flipped[~flipped["fixed"]]
    lines.append(f"flipped: {len(fixed)} fixed, {len(broken)} broken; McNemar's p {mcnemar(len(fixed), len(broken)):.3g}")
    for name, rows in (("fixed", fixed), ("broken", broken)):
        for row in rows.head(max_rows).itertuples():
            text = f"{row.language} {row.origin_query!r} | {row.candidate!r}, label {row.label}"
            lines.append(f"  {name}: {text}: {format_probability(row.before)} -> {format_probability(row.after)}")
    return [printable(line) for line in lines]
