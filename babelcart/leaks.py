"""Whether a held-out query stands in the training set: as it is, as a near-duplicate, or translated.

`splits` and `translation` leave such rows out; this looks at what they, and all that came after them, made of the training set.
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

# From the narrowest to the widest; a row is named by the first that fits.
KINDS = ("the same query", "a near-duplicate", "a translation")


@dataclass(frozen=True)
class Leak:
    """A row of train and the held-out row that it gives away."""

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
    """Every train query that gives a held-out one away, once for each held-out part.

    Parameters
    ----------
    train : pandas.DataFrame
        The training set: ``id``, ``origin_query`` and ``group``, the normal form of the query that a row was translated from (its own,
        where it was not translated).
    held_out : mapping
        Name of a part -> its rows, with ``group`` where rows of it were translated.

    Returns
    -------
    list of Leak
        In the order of `held_out`, then of `train`. The same query: equal in `text.normalise`, in whatever language. A near-duplicate:
        equal in `text.folded`. A translation: of one group.
    """
    found = []
    columns = ["id", "origin_query", "group"]
    queries = train[columns].drop_duplicates(["origin_query", "group"])
    for split, rows in held_out.items():
        if "group" not in rows:
            rows = rows.assign(group=[normalise(query) for query in rows["origin_query"]])
        known: dict[str, dict[str, tuple[str, str]]] = {kind: {} for kind in KINDS}
        for identifier, query, group in rows[columns].itertuples(index=False):
            for kind, form in _forms(query, group):
                known[kind].setdefault(form, (identifier, query))
        for identifier, query, group in queries.itertuples(index=False):
            for kind, form in _forms(query, group):
                if form in known[kind]:
                    found.append(Leak(kind, identifier, query, split, *known[kind][form]))
                    break
    return found


def _forms(query: str, group: str) -> Iterator[tuple[str, str]]:
    return zip(KINDS, (normalise(query), fold(query), fold(group)), strict=True)


def check_leaks(train: pd.DataFrame, held_out: Mapping[str, pd.DataFrame], task: str) -> dict[str, Any]:
    """Count the queries compared.

    Returns
    -------
    dict
        Name of a part -> ``queries``, the distinct ones (normal form).

    Raises
    ------
    UserError
        If there is a leak: the rows, and what to do.
    """
    leaks = find_leaks(train, held_out)
    if leaks:
        shown = "\n".join(f"  {leak}" for leak in leaks[:20])
        more = f"\n  ... and {len(leaks) - 20} more" if len(leaks) > 20 else ""
        raise UserError(
            f"{task.upper()}: held-out queries stand in train ({len(leaks)}), so no score of this run could be believed:\n{shown}{more}\n"
            "`split` and `translate` leave such rows out, so a later step or a hand put them there. "
            f"Take them out, or make the tables anew: dvc repro --force --downstream split@{task}"
        )
    return {
        name: {"queries": len({normalise(query) for query in rows["origin_query"]})} for name, rows in {"train": train, **held_out}.items()
    }


def known_by_translation(train: pd.DataFrame, held_out: Mapping[str, pd.DataFrame], entries: Iterable[Entry]) -> dict[str, int]:
    """Held-out queries that a translation memory gives as the translation of a train query, or the other way round.

    Not a leak by itself: that "printer" was labelled in English is what a model should use for "Drucker". It tells how much of a part asks
    for what train knows in another language.

    Returns
    -------
    dict
        Name of a part -> distinct held-out queries.
    """

    def spoken(rows: pd.DataFrame) -> set[tuple[str, str]]:
        return {query_key(language, query) for language, query in zip(rows["language"], rows["origin_query"], strict=True)}

    known, asked = spoken(train), {name: spoken(rows) for name, rows in held_out.items()}
    told: dict[str, set[tuple[str, str]]] = {name: set() for name in held_out}
    for entry in entries:
        one, other = query_key(entry.source, entry.text), query_key(entry.target, entry.translation)
        for name, queries in asked.items():
            told[name].update(query for query, relative in ((one, other), (other, one)) if query in queries and relative in known)
    return {name: len(found) for name, found in told.items()}
