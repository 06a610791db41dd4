"""Two models on the same rows: how far apart they are, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from babelcart.core.errors import UserError, printable
from babelcart.rows.table import RAW_COLUMNS
from babelcart.scores.intervals import bootstrap, interval
from babelcart.scores.metrics import Decision, compute_scores
from babelcart.scores.slices import slice_masks

if TYPE_CHECKING:
    import pandas as pd

KEY = list(RAW_COLUMNS)


def pair_predictions(before: pd.DataFrame, after: pd.DataFrame, names: tuple[str, str] = ("the first", "the second")) -> pd.DataFrame:
    """The rows of both with their two probabilities, ``before`` and ``after``.

    Raises
    ------
    UserError
        If they are not the same rows with the same labels: scores of different rows are not to be compared.
    """
    both = before[[*KEY, "probability"]].merge(
        after[[*KEY, "probability"]], on=KEY, how="outer", suffixes=("_before", "_after"), indicator=True
    )
    if (other := both["_merge"] != "both").any():
        row = both[other].iloc[0]
        where = names[0] if row["_merge"] == "left_only" else names[1]
        raise UserError(
            f"{names[0]} and {names[1]} were not scored on the same rows: {int(other.sum())} rows stand in one of them alone, the first "
            f"(id {row['id']!r}, {row['language']}, {row['origin_query']!r}, {row['candidate']!r}, label {row['label']}) in {where}; "
            "compare revisions with the same data and split"
        )
    if both["label"].isna().any():
        raise UserError("the labels of these rows are not known; compare a split with labels")
    return both.drop(columns="_merge").rename(columns={"probability_before": "before", "probability_after": "after"})


def compare_slices(
    rows: pd.DataFrame, before: Decision, after: Decision, native_languages: Sequence[str], task: str, draws: int = 1000
) -> pd.DataFrame:
    """F1 and AUC of both by slice, their differences, and 95 % intervals of the differences.

    Parameters
    ----------
    rows : pandas.DataFrame
        From `pair`.
    before, after : Decision
        Each is judged at its own thresholds.

    Returns
    -------
    pandas.DataFrame
        ``group``, ``value``, ``rows``, and of both metrics ``*_before``, ``*_after``, ``*_change``, ``*_low``, ``*_high`` (missing
        where undefined). Paired bootstrap by query: both are scored on the same draws.
    """
    import numpy as np
    import pandas as pd

    label = rows["label"].to_numpy(int)
    sides = {name: rows[name].to_numpy(float) for name in ("before", "after")}
    limits = {"before": before.thresholds(rows["language"]), "after": after.thresholds(rows["language"])}
    masks = {("overall", "all"): np.ones(len(rows), dtype=bool)}
    masks |= {(group, value): mask for group, values in slice_masks(rows, native_languages, task).items() for value, mask in values.items()}
    named = {"\t".join(key): mask for key, mask in masks.items()}
    query = (rows["language"] + "\t" + rows["origin_query"]).to_numpy()
    drawn = {
        name: bootstrap(label, sides[name], (sides[name] >= limits[name]).astype(int), query, named, draws) for name in ("before", "after")
    }
    found = []
    for (group, value), mask in masks.items():
        record: dict[str, object] = {"group": group, "value": value, "rows": int(mask.sum())}
        scored = {name: compute_scores(label[mask], sides[name][mask], limits[name][mask]) for name in sides}
        for metric in ("f1", "auc"):
            if metric in scored["before"]:
                change = scored["after"][metric] - scored["before"][metric]
                record |= {f"{metric}_{name}": scored[name][metric] for name in sides} | {f"{metric}_change": change}
                values = drawn["after"]["\t".join((group, value))][metric] - drawn["before"]["\t".join((group, value))][metric]
                record[f"{metric}_low"], record[f"{metric}_high"] = interval(values) or (float("nan"), float("nan"))
        found.append(record)
    return pd.DataFrame(found)


def flips(rows: pd.DataFrame, before: Decision, after: Decision) -> pd.DataFrame:
    """Rows whose answer changed, the surest first: ``mended`` is True where it was wrong and is right now."""
    was = rows["before"].to_numpy(float) >= before.thresholds(rows["language"])
    now = rows["after"].to_numpy(float) >= after.thresholds(rows["language"])
    found = rows.assign(mended=now == (rows["label"].astype(int) == 1))[was != now]
    moved = (found["after"] - found["before"]).abs()
    return found.loc[moved.sort_values(ascending=False, kind="stable").index]


def mcnemar(mended: int, broken: int) -> float:
    """The exact two-sided p of McNemar's test (1947): as many answers mended as broken by chance?"""
    from scipy.stats import binomtest

    return float(binomtest(mended, mended + broken).pvalue) if mended + broken else 1.0


def describe(found: pd.DataFrame, changed: pd.DataFrame, most: int) -> list[str]:
    """Lines for people: the whole, the slices whose interval leaves 0 out, and at most `most` flipped rows of each kind.

    Parameters
    ----------
    found, changed : pandas.DataFrame
        From `compare` and `flips`.
    """
    lines = []
    for metric in ("f1", "auc"):
        for number, row in found.iterrows():
            low, high = row[f"{metric}_low"], row[f"{metric}_high"]
            if number == 0 or low > 0 or high < 0:
                name = "overall" if number == 0 else f"{row['group']} {row['value']}, {row['rows']} rows"
                pair = f"{row[f'{metric}_before']:.4f} -> {row[f'{metric}_after']:.4f}, {row[f'{metric}_change']:+.4f}"
                lines.append(f"{metric.upper():4}{name}: {pair} ({low:+.4f} to {high:+.4f})")
    mended = int(changed["mended"].sum())
    broken = len(changed) - mended
    lines.append(f"flipped: {mended} mended, {broken} broken; McNemar's p {mcnemar(mended, broken):.3g}")
    for name, part in (("mended", changed[changed["mended"]]), ("broken", changed[~changed["mended"]])):
        for flip in part.head(most).itertuples():
            text = f"{flip.language} {flip.origin_query!r} | {flip.candidate!r}, label {flip.label}"
            lines.append(f"  {name}: {text}: {flip.before:.3f} -> {flip.after:.3f}")
    return [printable(line) for line in lines]
