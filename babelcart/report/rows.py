"""The rows that the page's script shows, filters and sorts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.report.inputs import GROUPS, TaskResults
from babelcart.scores.slices import labelled_masks, reading_order, slice_masks

if TYPE_CHECKING:
    import numpy as np


def row_browser(results: TaskResults) -> dict[str, Any]:
    """Return the labelled rows of the page's split as columns; repeated texts are stored once.

    Returns
    -------
    dict
        ``task``; ``languages``, ``queries`` and ``candidates``: distinct texts; ``thresholds``: the threshold of each language;
        ``slices``: groups with their ``title`` and ``values``, and for each row an index into these values, ``value_index``.

        One value for each row: ``id``; ``language``, ``query`` and ``candidate``: indices into the distinct texts; ``kind``: twice the
        label plus the prediction; ``probability``, not rounded, because the page computes the distance from the threshold.

    Raises
    ------
    UserError
        If there are more or fewer labelled predictions than scored rows.
    """
    import pandas as pd

    rows, decision = results.labelled, results.decision
    scored_rows = results.split_scores["overall"]["rows"]
    if len(rows) != scored_rows:
        raise UserError(
            f"{results.task}: {len(rows)} labelled rows of {results.split}, but scores of {scored_rows}; run `dvc repro evaluate`"
        )
    language, languages = pd.factorize(rows["language"], sort=True)
    query, queries = pd.factorize(rows["origin_query"])
    candidate, candidates = pd.factorize(rows["candidate"])
    labelled = results.predictions["label"].notna().to_numpy()
    groups = slice_masks(results.predictions, results.native_languages)
    masks = {group: labelled_masks(group_masks, labelled) for group, group_masks in groups.items()}
    return {
        "task": results.task,
        "languages": list(languages),
        "thresholds": decision.thresholds(pd.Series(languages)).tolist(),
        "queries": list(queries),
        "candidates": list(candidates),
        "id": rows["id"].astype(str).tolist(),
        "language": language.tolist(),
        "query": query.tolist(),
        "candidate": candidate.tolist(),
        "kind": (2 * rows["label"].to_numpy(int) + decision.predict(rows)).tolist(),
        "probability": rows["probability"].astype(float).tolist(),
        "slices": [_slice_filter(title, masks[group]) for group, title in GROUPS.items() if group in masks],
    }


def _slice_filter(title: str, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the values of one group of slices in reading order, and the index of each row's value."""
    import numpy as np

    values = sorted(masks, key=reading_order)
    value_index = np.argmax(np.stack([masks[value] for value in values]), axis=0)  # (rows,)
    return {"title": title, "values": values, "value_index": value_index.tolist()}
