"""Keys that join tables: columns of two tables that name the same thing, such as ``product_id`` and the ``id`` of a file of products.

Equal values are not enough, because small whole numbers occur in every column of ids. The names of the columns therefore decide which pairs
are considered, and the values which of them is a key.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from babelcart.inspection.roles import Roles, is_code
from babelcart.inspection.tables import Database, Table

ENOUGH = 0.5  # share of the rows that a key must match
_MAX_LENGTH = 200  # characters of a value of a key
# Words in names of columns -> the thing that the column names.
_ENTITIES = {
    word: entity
    for entity, words in {
        "query": "query search request keyword topic term question q",
        "item": """product prod item doc document offer listing article sku asin ean gtin isbn candidate result goods category cat node leaf
            p i d""",
        "other": """user customer visitor client session judge judgement judgment annotator annotation assessor rater rating worker hit task
            order shop seller vendor merchant store brand position rank page click time date batch pair row line index example label locale
            language""",
    }.items()
    for word in words.split()
}
# Names of ids that do not state of what.
_GENERIC = {"id", "ids", "_id", "uid", "uuid", "guid", "key", "code", "pk", "identifier", "number", "no", "nr", "ref"}
_SUFFIXES = (*sorted(_GENERIC - {"no", "ids"}, key=len, reverse=True), "id")
_CODES = {"sku", "asin", "ean", "gtin", "isbn"}


@dataclass(frozen=True)
class Key:
    """Columns that identify a row of one table for each row of another.

    Attributes
    ----------
    pairs : tuple of (str, str)
        Columns of the first and of the second table; empty if there is no key.
    share : float
        Share of the rows of the first table that the key matches.
    guess : str
        Why the key is a guess; empty if the names prove it.
    problem : str
        Why there is no key although the tables belong together; empty otherwise.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    share: float = 0.0
    guess: str = ""
    problem: str = ""


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case, with the endings of ids separated.

    Examples
    --------
    >>> words_of("mainProductId"), words_of("docid"), words_of("qid")
    (['main', 'product', 'id'], ['doc', 'id'], ['q', 'id'])
    """
    words: list[str] = []
    for word in re.findall(r"[^\W_]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)):
        plain = word.casefold()
        suffix = next((suffix for suffix in _SUFFIXES if plain.endswith(suffix) and plain[: -len(suffix)] in _ENTITIES), "")
        words += [plain.removesuffix(suffix), suffix] if suffix else [plain]
    return words


def entity_of(name: str) -> str:
    """Return what a column of ids names: ``query``, ``item``, ``other``, or an empty text if its name does not tell."""
    return next((_ENTITIES[word] for word in reversed(words_of(name)) if word in _ENTITIES), "")


def _entity_of_table(roles: Roles) -> str:
    """Return what the rows of a table are."""
    if "origin_query" in roles.columns:
        return "" if {"qc", "qi"} & roles.columns.keys() else "query"
    return "item" if {"qc", "qi"} & roles.columns.keys() or "description" in roles.others else ""


def _is_generic(name: str) -> bool:
    return name.casefold() in _GENERIC or words_of(name) in (["id"], ["u", "id"])


def _is_key(table: Table, name: str) -> bool:
    """Return whether a column holds ids, by its name, or by codes under the name of a thing, such as ``product``."""
    words = words_of(name)
    if _is_generic(name) or (len(words) > 1 and words[-1] in _GENERIC) or _CODES & set(words):
        return True
    return len(words) > 0 and words[-1] in _ENTITIES and is_code(table.columns[name])


def find_key(database: Database, facts: Table, other: Table, roles: dict[str, Roles]) -> Key:
    """Find the columns that identify a row of `other` for each row of `facts`.

    Parameters
    ----------
    database : Database
    facts : Table
        Judgements.
    other : Table
        Queries or products.
    roles : dict of str to Roles
        Name of a table -> its roles.

    Returns
    -------
    Key
        The first of: ids with equal names, or of the same thing; several columns with equal names; other columns, if only one fits.
    """
    pairs = [(a, b) for a in facts.columns for b in other.columns if _may_be_key(facts, a) and _may_be_key(other, b)]
    ranks = {pair: rank for pair in pairs if (rank := _rank(facts, pair[0], other, pair[1], roles)) is not None}
    repeated: list[tuple[str, str]] = []
    for rank in (0, 1):
        keys, not_unique = _keys(database, facts, other, [(pair,) for pair in pairs if ranks.get(pair) == rank])
        repeated += [pairs_of_key[0] for pairs_of_key in not_unique]
        if keys:
            return max(keys, key=lambda key: key.share)
    for a, b in (pair for pair in pairs if ranks.get(pair) == 0):
        if not repeated and database.overlap(facts, [a], other, [b], loosely=True) >= ENOUGH:
            values = " and ".join(repr(table.columns[name].samples[0]) for table, name in ((facts, a), (other, b)))
            return Key(
                problem=f"{other.path}: {b} differs from {a} of {facts.path.name} in case, leading zeros or a trailing `.0`: {values}"
            )
    same = [pair for pair in pairs if pair[0].casefold() == pair[1].casefold()]
    several = [*itertools.combinations(same, 2), *itertools.combinations(same, 3)]
    with_ids = [group for group in several if not repeated or set(group) & set(repeated)]
    keys, _ = _keys(database, facts, other, with_ids)
    if keys:
        return max(keys, key=lambda key: (-len(key.pairs), key.share))
    if repeated:
        a, b = repeated[0]
        return Key(
            problem=f"{other.path}: several rows have the same {b}, which {a} of {facts.path.name} names; leave one row for each {b}"
        )
    return _guess(database, facts, other, ranks)


def _guess(database: Database, facts: Table, other: Table, ranks: dict[tuple[str, str], int]) -> Key:
    """Return the key among pairs whose names do not prove that they name the same thing."""
    for rank in (2, 3, 4):
        keys, _ = _keys(database, facts, other, [(pair,) for pair, own in ranks.items() if own == rank])
        if len({pair[0] for key in keys for pair in key.pairs}) > 1 and rank != 3:
            names = ", ".join(f"{a} = {b}" for key in keys for a, b in key.pairs)
            return Key(problem=f"{facts.path} could be joined with {other.path.name} by {names}; give the right two columns the same name")
        if keys:
            key = max(keys, key=lambda key: key.share)
            reason = "" if rank == 3 else "the names of the columns do not tell that they name the same thing"
            return Key(key.pairs, key.share, reason)
    return Key()


def _keys(
    database: Database, facts: Table, other: Table, candidates: Sequence[tuple[tuple[str, str], ...]]
) -> tuple[list[Key], list[tuple[tuple[str, str], ...]]]:
    """Return the candidates that match enough rows: those that are unique in `other`, and those that are not."""
    keys: list[Key] = []
    repeated: list[tuple[tuple[str, str], ...]] = []
    for pairs in candidates:
        share = database.overlap(facts, [column for column, _ in pairs], other, [name for _, name in pairs])
        if share >= ENOUGH and database.is_unique(other, *(name for _, name in pairs)):
            keys.append(Key(pairs, share))
        elif share >= ENOUGH:
            repeated.append(pairs)
    return keys, repeated


def _may_be_key(table: Table, name: str) -> bool:
    return table.columns[name].filled > 0 and table.columns[name].longest <= _MAX_LENGTH


def _rank(facts: Table, a: str, other: Table, b: str, roles: dict[str, Roles]) -> int | None:
    """Return how surely two columns name the same thing, 0 for surely to 4; None if they do not."""
    same = a.casefold() == b.casefold()
    if not (_is_key(facts, a) and _is_key(other, b)):
        return 3 if same and entity_of(a) != "other" else None
    first, second, rows = entity_of(a), entity_of(b), _entity_of_table(roles[other.name])
    if _is_generic(a) or _is_generic(b):
        return _rank_of_generic(a, b, first, rows, has_own_key=any(_names_rows(facts, column, rows) for column in facts.columns))
    if same:
        return 0 if first != "other" else None
    if first != second or first == "other":
        return None
    a_words, b_words = words_of(a), words_of(b)
    is_longer = a_words[-len(b_words) :] == b_words or b_words[-len(a_words) :] == a_words
    return 1 if first and is_longer else 2 if first and first == rows else None


def _rank_of_generic(a: str, b: str, first: str, rows: str, *, has_own_key: bool) -> int | None:
    """Return the rank of a pair with a name such as ``id``, for a table whose rows are queries or items."""
    if not _is_generic(b):
        return None
    if not _is_generic(a):
        if first:
            return 0 if first == rows else None
        return 2
    return 4 if a.casefold() == b.casefold() and not has_own_key else None


def _names_rows(facts: Table, column: str, rows: str) -> bool:
    """Return whether a column of the judgements names a row of a table by its name."""
    return _is_key(facts, column) and not _is_generic(column) and entity_of(column) == rows


def joined_names(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the pairs of a key for people, such as ``query_id, product_id = id``."""
    return ", ".join(_joined(pairs))


def _joined(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for first, second in pairs:
        yield first if first == second else f"{first} = {second}"
