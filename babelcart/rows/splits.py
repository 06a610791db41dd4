"""Splits by group of query: no relative of a held-out query stands in train."""

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
    """The group of a query: its normal form, whatever the language it is tagged with."""
    return normalise(query)


def hash_position(name: str, seed: int, purpose: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a group.

    It depends on nothing but its arguments, so that a group stays on its side when rows are added, whatever their order.
    """
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_rows(
    rows: pd.DataFrame, *, validation_share: float, test_share: float, train_languages: Sequence[str], seed: int
) -> dict[str, pd.DataFrame]:
    """Split labelled rows into train, validation and (where a share is asked for) test.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows in the contract of `babelcart.rows.readers`.
    validation_share, test_share : float
        Share of the groups, not of the rows.
    train_languages : sequence of str
        If given, other languages are left out of train and validation; they stay in test, as languages never seen.
    seed : int
        Another seed gives another split.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test`` (empty without `test_share`), in the order of `rows`, each with a column
        ``group``.

    Raises
    ------
    UserError
        If a part that was asked for is empty.
    """
    rows = rows.assign(group=[query_group(query) for query in rows.origin_query])
    names = rows["group"].unique()
    in_test = {name for name in names if hash_position(name, seed, "test") < test_share}
    in_validation = {name for name in names if hash_position(name, seed, "validation") < validation_share}
    test = rows["group"].isin(in_test)
    native = rows["language"].isin(train_languages) if train_languages else rows["language"].notna()
    validation = rows["group"].isin(in_validation) & ~test
    parts = {"train": rows[~test & ~validation & native], "validation": rows[validation & native], "test": rows[test]}
    for name, share in (("train", 1.0), ("validation", validation_share), ("test", test_share)):
        if share > 0 and parts[name].empty:
            raise UserError(
                f"the {name} part is empty: {len(names)} groups of queries, split.validation_share {validation_share}, "
                f"split.test_share {test_share}, split.train_languages {list(train_languages) or 'all'}; change one of them"
            )
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def without_near_duplicates(train: pd.DataFrame, held_out: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Train rows whose query is no near-duplicate (`text.folded`) of a held-out query.

    The test rows may come with the data, and a query of them may be asked in train too, or with other accents.

    Raises
    ------
    UserError
        If no row is left.
    """
    taken = {fold(query) for table in held_out for query in table["origin_query"].unique()}
    apart = [fold(query) not in taken for query in train["origin_query"]]
    if not any(apart):
        raise UserError("every train query stands in validation, dev or test too; data in params.yaml must name other rows for train")
    return train[apart].reset_index(drop=True)
