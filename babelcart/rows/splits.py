"""Split rows by query, so that train contains no held-out query and no near-duplicate of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.rows.text import fold, normalise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Split:
    """The section ``split`` of params.yaml."""

    SECTION: ClassVar[str] = "split"

    validation_share: float = bounded(0, 0.9, default=0.1)
    test_share: float = bounded(0, 0.9, default=0.0)
    train_languages: tuple[str, ...] = ()
    seed: int = bounded(0, 2**63 - 1, default=0)


def query_group(query: str) -> str:
    """The group of a query: its normal form, regardless of its language tag."""
    return normalise(query)


def hash_position(name: str, seed: int, purpose: str) -> float:
    """A pseudo-random number in [0, 1) for a group.

    It depends only on the arguments, so that a group stays in its part when rows are added or reordered.

    Parameters
    ----------
    name : str
        The group.
    seed : int
    purpose : str
        Gives independent numbers for different purposes, such as ``test`` and ``validation``.
    """
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_rows(
    rows: pd.DataFrame, *, validation_share: float, test_share: float, train_languages: Sequence[str], seed: int
) -> dict[str, pd.DataFrame]:
    """Split labelled rows into train, validation and test.

    Parameters
    ----------
    rows : pandas.DataFrame
        Labelled rows.
    validation_share, test_share : float
        Share of the groups of queries (not of the rows).
    train_languages : sequence of str
        Languages of train and validation; empty for all. Test keeps every language, to measure languages unseen in training.
    seed : int

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test`` (empty if `test_share` is 0), each in the order of `rows`, with a new column ``group``.

    Raises
    ------
    UserError
        If train is empty, or a part with a share above 0.
    """
    rows = rows.assign(group=[query_group(query) for query in rows.origin_query])
    groups = rows["group"].unique()
    test_groups = {group for group in groups if hash_position(group, seed, "test") < test_share}
    validation_groups = {group for group in groups if hash_position(group, seed, "validation") < validation_share}
    in_test = rows["group"].isin(test_groups)
    in_validation = rows["group"].isin(validation_groups) & ~in_test
    native = rows["language"].isin(train_languages) if train_languages else rows["language"].notna()
    parts = {"train": rows[~in_test & ~in_validation & native], "validation": rows[in_validation & native], "test": rows[in_test]}
    for name, share in (("train", 1.0), ("validation", validation_share), ("test", test_share)):
        if share > 0 and parts[name].empty:
            raise UserError(
                f"the {name} part is empty: {len(groups)} groups of queries, split.validation_share {validation_share}, "
                f"split.test_share {test_share}, split.train_languages {list(train_languages) or 'all'}; change one of them"
            )
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def without_near_duplicates(train: pd.DataFrame, held_out: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Train rows whose query is not a near-duplicate of a held-out query (`babelcart.rows.text.fold`).

    Dev and test may be files of their own, so that their queries can also occur in train, perhaps with other accents.

    Parameters
    ----------
    train : pandas.DataFrame
    held_out : iterable of pandas.DataFrame
        Tables of validation, dev and test rows.

    Raises
    ------
    UserError
        If no row is left.
    """
    held_out_forms = {fold(query) for table in held_out for query in table["origin_query"].unique()}
    distinct = [fold(query) not in held_out_forms for query in train["origin_query"]]
    if not any(distinct):
        raise UserError("every train query also occurs in validation, dev or test; name other rows for train under `data` in params.yaml")
    return train[distinct].reset_index(drop=True)
