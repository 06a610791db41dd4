"""Remove training rows that are empty, duplicate or contradictory."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.rows.labels import LabelRule, grade_number
from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prepare:
    """The section ``prepare`` of params.yaml."""

    SECTION: ClassVar[str] = "prepare"

    max_broken_rows: int = bounded(0, 2**53, default=0)
    contradictions: Literal["majority", "mean", "drop"] = "majority"
    # The former name of `data.columns`; refused with the new form.
    columns: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.columns:
            mapping = ", ".join(f"{key}: {name}" for key, name in self.columns.items())
            raise ValueError(f"columns is now in the section data; remove it here, and write there `columns: {{{mapping}}}`")


def drop_uninformative(rows: pd.DataFrame, contradictions: str, rule: LabelRule | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Drop training rows that are empty, duplicate or contradictory.

    Drops, in this order: rows without a query or a candidate; contradictions, that is the same language, query and candidate with both
    labels; and duplicates, of which the first row is kept. Texts are compared in normal form.

    Parameters
    ----------
    rows : pandas.DataFrame
        Labelled rows.
    contradictions : {"majority", "mean", "drop"}
        ``majority`` keeps the more frequent label of contradictory rows, and neither on a tie; ``drop`` keeps neither. ``mean`` applies
        `rule` to the mean of the pair's grades and gives this label to all its rows.
    rule : LabelRule, optional
        For ``mean``: a rule with a cut.

    Returns
    -------
    tuple
        The remaining rows, in the order given; and the number of rows that each rule dropped, with ``judged_repeatedly``, the number of
        pairs with several rows, and, if they have numeric grades, the mean standard deviation of these grades, ``grade_spread``.

    Raises
    ------
    UserError
        If `contradictions` is ``mean`` and a grade is not a number, or there is no rule with a cut.
    """
    import pandas as pd

    counts: dict[str, Any] = {"rows": len(rows)}
    queries = pd.Series(list(map(normalise, rows["origin_query"].tolist())), rows.index, dtype=object)
    candidates = pd.Series(list(map(normalise, rows["candidate"].tolist())), rows.index, dtype=object)
    # The number of the pair: equal for rows with the same language, query and candidate.
    rows = rows.assign(_key=pd.factorize(rows["language"].astype(object) + "\0" + queries + "\0" + candidates)[0])
    has_query, has_candidate = queries.astype(bool), candidates.astype(bool)
    counts["empty_query"] = int((~has_query).sum())
    counts["empty_candidate"] = int((has_query & ~has_candidate).sum())
    rows = rows[has_query & has_candidate]

    repeated = rows[rows.duplicated("_key", keep=False)]
    counts["judged_repeatedly"] = int(repeated["_key"].nunique())
    if (spread := _grade_spread(repeated)) is not None:
        counts["grade_spread"] = spread
    if contradictions == "mean" and len(repeated):
        rows = rows.assign(label=_labels_of_means(rows, repeated, rule))
    votes = rows.groupby("_key", sort=False)["label"].agg(["sum", "count"]).astype("int64")
    contradictory = (votes["sum"] > 0) & (votes["sum"] < votes["count"])
    counts["contradictory_pairs"] = int(contradictory.sum())
    tie = 2 * votes["sum"] == votes["count"]
    kept_label = (2 * votes["sum"] > votes["count"]).astype("int8").mask(tie | (contradictions == "drop"), -1)
    dropped = rows["_key"].map(contradictory).to_numpy(bool) & (
        rows["label"].to_numpy("int8") != rows["_key"].map(kept_label).to_numpy("int8")
    )
    counts["contradictory"] = int(dropped.sum())
    rows = rows[~dropped]
    duplicate = rows.duplicated("_key")
    counts["duplicate"] = int(duplicate.sum())
    rows = rows[~duplicate].drop(columns="_key").reset_index(drop=True)
    counts["kept"] = len(rows)
    return rows, counts


def _grade_spread(repeated: pd.DataFrame) -> float | None:
    """Return the mean standard deviation of the grades of a pair; None without pairs or if a grade is not a number."""
    numbers = list(map(grade_number, repeated["grade"])) if "grade" in repeated else []
    if not numbers or None in numbers:
        return None
    grades = repeated["grade"].astype(float)
    return float(grades.groupby(repeated["_key"]).std(ddof=0).mean())


def _labels_of_means(rows: pd.DataFrame, repeated: pd.DataFrame, rule: LabelRule | None) -> pd.Series:
    """Return the label of every row, that of repeated pairs from the exact mean of their grades."""
    if rule is None or rule.cut is None:
        raise UserError("prepare.contradictions is mean, which needs grades: set labels.at_least in data, or use majority or drop")
    grades: dict[int, list[Fraction]] = {}
    for pair, identifier, text in zip(repeated["_key"], repeated["id"], repeated["grade"], strict=True):
        number = grade_number(text)
        if number is None:
            raise UserError(
                f"prepare.contradictions is mean, but row {identifier!r} has the grade {text!r}, which is not a number; "
                "use majority or drop"
            )
        grades.setdefault(pair, []).append(Fraction(number))
    cut = Fraction(rule.cut)
    label_of_pair = {pair: int(sum(numbers) >= cut * len(numbers)) for pair, numbers in grades.items()}
    labels = rows["label"].copy()
    labels[repeated.index] = repeated["_key"].map(label_of_pair).astype("Int8")
    return labels
