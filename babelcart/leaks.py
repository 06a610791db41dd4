"""Find held-out queries in the training set: the same query, a near-duplicate, or a translation.

`split` and `translate` leave such rows out. This check looks at the final training set, so it also covers the steps after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.rows.text import fold, normalise, query_key
from babelcart.translation.memory_files import Entry

if TYPE_CHECKING:
    import pandas as pd

# From the strictest relation to the widest; a leak is reported under the first that applies.
KINDS = ("the same query", "a near-duplicate", "a translation")
MAX_REPORTED = 20


@dataclass(frozen=True)
class Leak:
    """A train row and a held-out row with related queries; `kind` is one of `KINDS`."""

    kind: str
    train_id: str
    train_query: str
    split: str
    held_out_id: str
    held_out_query: str

    def __str__(self) -> str:
        held_out = f"{self.split} row {self.held_out_id}, {self.held_out_query!r}"
        return f"train row {self.train_id}, {self.train_query!r}, is {self.kind} of {held_out}"


def find_leaks(train: pd.DataFrame, held_out: Mapping[str, pd.DataFrame]) -> list[Leak]:
    """Find all train queries that are related to a held-out query.

    Parameters
    ----------
    train : pandas.DataFrame
        ``id``, ``origin_query``, and ``group``: the normal form of the query, or of the source query if the row was translated.
    held_out : mapping
        Name of a split -> rows; ``group`` is optional if no row was translated.

    Returns
    -------
    list of Leak
        At most one for each train query and split, in the order of `held_out` and then of `train`. The same query: equal in normal form
        (`babelcart.rows.text.normalise`), regardless of language. A near-duplicate: equal after `babelcart.rows.text.fold`. A
        translation: groups that are equal after `fold`.
    """
    leaks = []
    columns = ["id", "origin_query", "group"]
    train_queries = train[columns].drop_duplicates(["origin_query", "group"])
    for split, rows in held_out.items():
        if "group" not in rows:
            rows = rows.assign(group=[normalise(query) for query in rows["origin_query"]])
        held_out_rows: dict[str, dict[str, tuple[str, str]]] = {kind: {} for kind in KINDS}  # kind -> form -> id and query
        for row_id, query, group in rows[columns].itertuples(index=False):
            for kind, form in _forms(query, group):
                held_out_rows[kind].setdefault(form, (row_id, query))
        for row_id, query, group in train_queries.itertuples(index=False):
            matches = [(kind, held_out_rows[kind][form]) for kind, form in _forms(query, group) if form in held_out_rows[kind]]
            if matches:
                kind, held_out_row = matches[0]
                leaks.append(Leak(kind, row_id, query, split, *held_out_row))
    return leaks


def _forms(query: str, group: str) -> Iterator[tuple[str, str]]:
    """Return for each of `KINDS` the form of a query that is equal for related queries."""
    return zip(KINDS, (normalise(query), fold(query), fold(group)), strict=True)


def check_leaks(train: pd.DataFrame, held_out: Mapping[str, pd.DataFrame], task: str) -> dict[str, Any]:
    """Check that no train query is related to a held-out query.

    Parameters
    ----------
    train, held_out
        As in `find_leaks`.
    task : str
        ``qc`` or ``qi``, for the message.

    Returns
    -------
    dict
        ``train`` and name of each split -> ``queries``, the number of distinct queries (in normal form) that were compared.

    Raises
    ------
    UserError
        If there is a leak; the message lists the rows.
    """
    leaks = find_leaks(train, held_out)
    if leaks:
        listed = "\n".join(f"  {leak}" for leak in leaks[:MAX_REPORTED])
        more = f"\n  ... and {len(leaks) - MAX_REPORTED} more" if len(leaks) > MAX_REPORTED else ""
        raise UserError(
            f"{task.upper()}: train contains {len(leaks)} held-out queries or relatives of them, so scores would be too high:\n"
            f"{listed}{more}\n"
            "`split` and `translate` leave such rows out, so a later step or a manual edit added them. Remove them, or rebuild the tables: "
            f"dvc repro --force --downstream split@{task}"
        )
    tables = {"train": train, **held_out}
    return {name: {"queries": len({normalise(query) for query in rows["origin_query"]})} for name, rows in tables.items()}


def known_by_translation(train: pd.DataFrame, held_out: Mapping[str, pd.DataFrame], entries: Iterable[Entry]) -> dict[str, int]:
    """Count held-out queries that a translation memory connects with a train query, in either direction.

    These are not leaks: a model should use the label of "printer" in English for "Drucker" in German. The count shows how much of a split
    is covered by train in another language.

    Parameters
    ----------
    train : pandas.DataFrame
        ``language``, ``origin_query``.
    held_out : mapping
        Name of a split -> rows.
    entries : iterable of Entry
        All entries of the memories.

    Returns
    -------
    dict
        Name of a split -> number of distinct queries.
    """
    train_queries, held_out_queries = _query_keys(train), {split: _query_keys(rows) for split, rows in held_out.items()}
    connected: dict[str, set[tuple[str, str]]] = {split: set() for split in held_out}
    for entry in entries:
        source, target = query_key(entry.source, entry.text), query_key(entry.target, entry.translation)
        related = {query for query, translation in ((source, target), (target, source)) if translation in train_queries}
        for split, queries in held_out_queries.items():
            connected[split] |= related & queries
    return {split: len(queries) for split, queries in connected.items()}


def _query_keys(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return {query_key(language, query) for language, query in zip(rows["language"], rows["origin_query"], strict=True)}
