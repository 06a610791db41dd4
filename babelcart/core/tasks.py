"""The two tasks: query-category (QC) and query-item (QI) relevance."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["qc", "qi"]
TASKS: tuple[str, ...] = get_args(Task)

# Task -> field of the candidate in the competition's files.
CANDIDATE_FIELD = {"qc": "category_path", "qi": "item_title"}
