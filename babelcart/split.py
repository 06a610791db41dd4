"""Split rows by query, so that train contains no held-out query and no near-duplicate of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.rows import languages
from babelcart.rows.table import language_counts
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

    def __post_init__(self) -> None:
        if not self.validation_share:
            raise ValueError(
                "validation_share is 0; accepted: more than 0, to 0.9, because the threshold and the best adapter are chosen on validation"
            )
        object.__setattr__(self, "train_languages", languages.codes(self.train_languages, "train_languages"))


def check_test_rows(test_share: float, task: str, has_test_rows: bool) -> None:
    """Check that test rows come from exactly one place: files of their own, or a share of train.

    Raises
    ------
    UserError
        If both settings are set, or neither.
    """
    if test_share and has_test_rows:
        raise UserError(
            f"params.yaml: split.test_share is {test_share:g}, and data.{task}.test lists files, whose rows would not be used. "
            f"Set split.test_share to 0, or remove data.{task}.test (split.test_share applies to all tasks)"
        )
    if not test_share and not has_test_rows:
        raise UserError(
            f"params.yaml: {task} has no test rows: data.{task}.test lists no files, and split.test_share is 0. "
            "List test files, or set split.test_share, for example to 0.1"
        )


def query_group(query: str) -> str:
    """Return the group of a query: its normal form, regardless of its language tag."""
    return normalise(query)


def hash_position(name: str, seed: int, purpose: str) -> float:
    """Return a pseudo-random number in [0, 1) for a group.

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
        ISO 639-1 codes of the languages of train and validation; empty for all. Test keeps every language, to measure languages unseen
        in training.
    seed : int

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test`` (empty if `test_share` is 0), each in the order of `rows`, with a new column ``group``.

    Raises
    ------
    UserError
        If no row is in one of `train_languages`; if train is empty, or a part with a share above 0.
    """
    if absent := [language for language in train_languages if not (rows["language"] == language).any()]:
        raise UserError(
            f"split.train_languages lists {', '.join(absent)}, but no train row has this language; the rows have {language_counts(rows)}. "
            "Remove it from split.train_languages, or map the values of the language column with `languages` in data"
        )
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


def one_label_warnings(parts: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return one warning for train and validation each if all of its rows have the same label."""
    warnings = []
    for name, need in (("train", "a model cannot be trained"), ("validation", "neither a threshold nor the best adapter can be chosen")):
        labels = parts[name]["label"].dropna().unique()
        if len(labels) == 1:
            warnings.append(f"all {len(parts[name]):,} rows of {name} have the label {int(labels[0])}, so that {need}")
    return warnings


def without_near_duplicates(train: pd.DataFrame, held_out: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the train rows whose query is not a near-duplicate of a held-out query (`babelcart.rows.text.fold`).

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
