"""Draw the training rows of each optimizer step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from babelcart.model.batching import sort_by_tokens
from babelcart.model.packing import TokenRow

if TYPE_CHECKING:
    import numpy as np

    from babelcart.training.loop import TrainSettings

GroupBy = Literal["neighbours", "query", "candidate", "none"]
# A group fills at most a quarter of a step. A step with the rows of one query or category only would learn worse (docs/training.md).
GROUPS_PER_STEP = 4


def limit_message(task: str, row_count: int, settings: TrainSettings) -> str | None:
    """Return a sentence for people if ``train.max_rows`` leaves out training rows, None if all rows are used."""
    rows_of_all_epochs = math.ceil(settings.epochs * row_count)
    if settings.max_rows is None or rows_of_all_epochs <= settings.max_rows:
        return None
    return (
        f"{task}: train.max_rows is {settings.max_rows:,}, so that training uses only a part of the {rows_of_all_epochs:,} rows of all "
        "epochs; set it to null in params.yaml to use all of them"
    )


def step_order(rows: Sequence[TokenRow], settings: TrainSettings) -> Iterator[list[int]]:
    """Divide all epochs into optimizer steps of about `batch_size` rows.

    Groups of rows are shuffled in each epoch, and the rows of a group belong to the same step, in which they share tokens. A group has at
    most a quarter of `batch_size` rows. `max_rows` and a fractional `epochs` end the last epoch early. The order depends only on the rows
    and on these settings. `group_by` is one of the following:

    * ``neighbours``: rows that follow each other when rows are sorted by their tokens, such as the rows of a query, or those of a category
      and of its siblings. The limits of the groups change in each epoch.
    * ``query``: rows of a query. If there are more than fit into a group, they are divided anew in each epoch.
    * ``candidate``: rows of a candidate, in the same way.
    * ``none``: single rows.

    Parameters
    ----------
    rows : sequence of TokenRow
        The training rows.
    settings : TrainSettings
        `epochs`, `max_rows`, `batch_size`, `group_by` and `seed` are used.

    Yields
    ------
    list of int
        Row indices of one step.
    """
    import numpy as np

    generator = np.random.default_rng(settings.seed)
    epochs = _epochs(rows, settings, generator)
    total_rows = math.ceil(settings.epochs * len(rows))
    if settings.max_rows is not None:
        total_rows = min(total_rows, settings.max_rows)
    rows_left = total_rows
    while rows_left > 0:
        step: list[int] = []
        groups = next(epochs)
        for group_index in generator.permutation(len(groups)):
            step.extend(groups[group_index][: rows_left - len(step)])
            if len(step) >= min(settings.batch_size, rows_left):
                yield step
                rows_left -= len(step)
                step = []
            if rows_left == 0:
                return
        if step:
            yield step
            rows_left -= len(step)


def _epochs(rows: Sequence[TokenRow], settings: TrainSettings, generator: np.random.Generator) -> Iterator[list[list[int]]]:
    """Yield the groups of rows of one epoch after another, without end."""
    size = max(1, settings.batch_size // GROUPS_PER_STEP)
    if settings.group_by == "none":
        yield from itertools.repeat([[row_index] for row_index in range(len(rows))])
    elif settings.group_by == "neighbours":
        order = sort_by_tokens(range(len(rows)), rows)
        while True:
            first = int(generator.integers(1, size + 1))  # rows of the first group
            yield [order[:first], *_divide(order[first:], size)]
    else:
        groups = _group(row.query if settings.group_by == "query" else row.candidate for row in rows)
        while True:
            shuffled = ([group[position] for position in generator.permutation(len(group))] for group in groups)
            yield [part for group in shuffled for part in _divide(group, size)]


def _group(keys: Iterable[tuple[int, ...]]) -> list[list[int]]:
    """Group the indices of equal keys, in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _divide(indices: list[int], size: int) -> list[list[int]]:
    """Consecutive parts of at most `size` indices."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def sample_queries(rows: Sequence[TokenRow], row_count: int, seed: int) -> list[int]:
    """Row indices of random queries with all their rows, until there are at least `row_count` rows or none are left."""
    import numpy as np

    groups = _group(row.query for row in rows)
    row_indices: list[int] = []
    for group_index in np.random.default_rng(seed).permutation(len(groups)):
        if len(row_indices) >= row_count:
            break
        row_indices.extend(groups[group_index])
    return row_indices
