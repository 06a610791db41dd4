"""Slices: parts of the test rows that are scored separately. The slices of one group cover every row exactly once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from babelcart.rows.taxonomy import levels

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Top categories with fewer rows are merged into "other".
MIN_CATEGORY_ROWS = 50


def slice_masks(rows: pd.DataFrame, native_languages: Sequence[str], task: str) -> dict[str, dict[str, np.ndarray]]:
    """Masks of the rows of each slice, by group and by value.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``language``, ``origin_query`` and ``candidate``. If the column ``origin`` (native or translated) exists, it is a group
        too.
    native_languages : sequence of str
        Languages with labelled rows in train.
    task : {"qc", "qi"}
        The top category is a group of QC only.

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
    if task == "qc":
        top_category = rows["candidate"].map(lambda path: levels(path)[0])
        groups["top_category"] = top_category.where(top_category.map(top_category.value_counts()) >= MIN_CATEGORY_ROWS, "other")
    return {name: {value: (column == value).to_numpy() for value in sorted(column.unique())} for name, column in groups.items()}


def with_overall(groups: Mapping[str, Mapping[str, np.ndarray]], rows: int) -> dict[tuple[str, str], np.ndarray]:
    """The masks of `slice_masks` by (group, value), after a mask of all rows under ("overall", "all")."""
    import numpy as np

    masks = {("overall", "all"): np.ones(rows, dtype=bool)}
    return masks | {(group, value): mask for group, values in groups.items() for value, mask in values.items()}
