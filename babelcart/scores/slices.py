"""Slices: parts of the rows that are scored separately. The slices of one group cover every row exactly once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Key = TypeVar("Key", bound=Hashable)

# Top categories with fewer rows are merged into "other".
MIN_CATEGORY_ROWS = 50
# Grades are a group if they have at most this number of distinct values; more are measurements rather than grades.
MAX_GRADES = 20
NO_GRADE = "no grade"


def slice_masks(rows: pd.DataFrame, native_languages: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return the masks of the rows of each slice, by group and by value.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``language``, ``origin_query`` and ``candidate``. Three further columns form a group of their own if they exist:
        ``origin`` (native or translated), ``levels`` (levels of the category path, from the top; empty for items) and ``grade`` (the
        label as written in the raw file, "" if it has none).
    native_languages : sequence of str
        Languages with labelled rows in train.

    Returns
    -------
    dict of dict of numpy.ndarray
        ``(rows,)`` bool. The values of a group are in alphabetical order.
    """
    import numpy as np
    import pandas as pd

    from babelcart.scores.intervals import sampling_units

    words = rows["origin_query"].str.split().str.len()
    candidates = rows.groupby(sampling_units(rows))["candidate"].transform("size")
    groups = {
        "languages": pd.Series(np.where(rows["language"].isin(native_languages), "seen", "unseen"), rows.index),
        "language": rows["language"],
        "query_words": words.clip(1, 4).map({1: "1", 2: "2", 3: "3", 4: "4+"}),
        "candidates": pd.cut(candidates, [0, 1, 3, 9, np.inf], labels=["1", "2-3", "4-9", "10+"]).astype(str),
    }
    if "origin" in rows:
        groups["origin"] = rows["origin"]
    if "levels" in rows and any(map(len, rows["levels"])):
        top_category = rows["levels"].map(lambda levels: levels[0] if len(levels) else "other")
        groups["top_category"] = top_category.where(top_category.map(top_category.value_counts()) >= MIN_CATEGORY_ROWS, "other")
    if "grade" in rows and 2 <= rows.loc[rows["grade"] != "", "grade"].nunique() <= MAX_GRADES:
        groups["grade"] = rows["grade"].mask(rows["grade"] == "", NO_GRADE)
    return {name: {value: (column == value).to_numpy() for value in sorted(column.unique())} for name, column in groups.items()}


def reading_order(name: str) -> tuple[float, str]:
    """Return a sort key of the values of a group: "2-3" comes before "10+", "2.67" before "10", and names are in alphabetical order."""
    leading_number = re.match(r"-?\d+(\.\d+)?", name)
    return float(leading_number[0]) if leading_number else 0, name


def labelled_masks(masks: Mapping[Key, np.ndarray], labelled: np.ndarray) -> dict[Key, np.ndarray]:
    """Return the masks over the labelled rows only, ``(labelled rows,)`` each; slices without a labelled row are left out.

    The slices are those of all rows, so that a missing label does not move the other rows of its query into another slice.

    Parameters
    ----------
    masks : mapping
        ``(rows,)`` bool, by any key.
    labelled : numpy.ndarray
        ``(rows,)`` bool.
    """
    return {key: mask[labelled] for key, mask in masks.items() if mask[labelled].any()}


def with_overall(groups: Mapping[str, Mapping[str, np.ndarray]], rows: int) -> dict[tuple[str, str], np.ndarray]:
    """Return the masks of `slice_masks` by (group, value), after a mask of all rows under ("overall", "all")."""
    import numpy as np

    masks = {("overall", "all"): np.ones(rows, dtype=bool)}
    return masks | {(group, value): mask for group, values in groups.items() for value, mask in values.items()}
