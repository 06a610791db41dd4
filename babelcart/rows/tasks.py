"""The two tasks: query-category (QC) and query-item (QI) relevance."""

from __future__ import annotations

from typing import Literal

Task = Literal["qc", "qi"]

# The competition's name of the candidate field of each task.
CANDIDATE_FIELD: dict[str, str] = {"qc": "category_path", "qi": "item_title"}
