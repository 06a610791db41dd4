"""Parts of the test rows that are scored apart. Each group covers every row once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from babelcart.rows.taxonomy import levels

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# A top category with fewer rows is counted under "other".
LEAST_ROWS = 50


def slice_masks(rows: pd.DataFrame, native_languages: Sequence[str], task: str) -> dict[str, dict[str, np.ndarray]]:
    """Masks by group and value.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``language``, ``origin_query``, ``candidate``; with ``origin`` (native or translated) that is a group too.
    native_languages : sequence of str
        Languages with labelled rows in train.
    task : {"qc", "qi"}
        The top category is a group of QC.

    Returns
    -------
    dict of dict of numpy.ndarray
        ``(rows,)`` bool.
    """
    import numpy as np
    import pandas as pd

    words = rows["origin_query"].str.split().str.len()
    candidates = rows.groupby(["language", "origin_query"])["candidate"].transform("size")
    groups = {
        "languages": pd.Series(np.where(rows["language"].isin(native_languages), "seen", "unseen"), rows.index),
        "language": rows["language"],
        "query_words": words.clip(1, 4).map({1: "1", 2: "2", 3: "3", 4: "4+"}),
        "candidates": pd.cut(candidates, [0, 1, 3, 9, np.inf], labels=["1", "2-3", "4-9", "10+"]).astype(str),
    }
    if "origin" in rows:
        groups["origin"] = rows["origin"]
    if task == "qc":
        top = rows["candidate"].map(lambda path: levels(path)[0])
        groups["top_category"] = top.where(top.map(top.value_counts()) >= LEAST_ROWS, "other")
    return {name: {value: (column == value).to_numpy() for value in sorted(column.unique())} for name, column in groups.items()}
