"""The meaning of the columns of a file: which of them holds the query, the candidate, the label and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from babelcart.inspection.labels import propose_labels
from babelcart.inspection.names import (
    FREQUENT_LANGUAGES,
    LABEL_WORDS,
    LONG_TEXTS,
    NAMES,
    SPLIT_PARTS,
    SPLIT_WORDS,
    UNSPECIFIC_LABELS,
    UNSPECIFIC_TITLES,
)
from babelcart.inspection.tables import Column, Table
from babelcart.rows import languages

MOST_CODES = 0.9  # share of the values from which a column holds codes
_LONGEST_CODE = 64
_MAX_GRADES = 11  # different values of a column of labels whose name also means other things


@dataclass
class Roles:
    """Columns of a file by meaning.

    Attributes
    ----------
    columns : dict of str to str
        ``id``, ``language``, ``origin_query``, ``qc``, ``qi``, ``label``, ``split`` -> column.
    guesses : dict of str to str
        Meaning -> why a column was chosen although its name does not tell.
    others : dict of str to str
        ``description`` -> column of long texts.
    """

    columns: dict[str, str] = field(default_factory=dict)
    guesses: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def candidate(self, task: str) -> str | None:
        """Return the column of candidates of a task."""
        return self.columns.get(task)


def plain_name(name: str) -> str:
    """Return the form in which names of columns are compared: lower case, with words separated by underscores."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"\W+", "_", spaced.casefold()).strip("_") or name


def is_known_name(name: str) -> bool:
    """Return whether a text is a usual name of a column."""
    plain = plain_name(name)
    return plain in LONG_TEXTS or any(plain in names for names in NAMES.values()) or plain.endswith(("_id", "_title", "_name"))


def split_of_value(value: str) -> str | None:
    """Return the split that a value of a column means: train, dev, test or None."""
    return SPLIT_WORDS.get(value.strip().casefold())


def split_of_name(name: str) -> str | None:
    """Return the split that the name of a file or folder states, or None."""
    plain = name.casefold()
    words = re.split(r"[\W\d_]+", plain)
    stated = next((split for word in words if (split := SPLIT_WORDS.get(word))), None)
    return stated or next((split for part, split in SPLIT_PARTS.items() if part in plain), None)


def folder_values(name: str) -> dict[str, str]:
    """Return the values that the folders of a path state, as Hive does in ``split=train/lang=de/part-0.parquet``.

    Returns
    -------
    dict of str to str
        ``split`` or ``language`` -> value.
    """
    values = {}
    for folder in name.split("/")[:-1]:
        key, equals, value = folder.partition("=")
        role = next((role for role in ("split", "language") if plain_name(key) in NAMES[role]), None)
        if equals and value and role:
            values[role] = value
    return values


def find_roles(table: Table) -> Roles:
    """Find the meaning of the columns of a file from their names, and where a name does not tell, from their content."""
    roles = Roles()
    plain = {plain_name(name): name for name in reversed(table.columns)}
    for role, names in NAMES.items():
        columns = {name: plain[name] for name in names if name in plain and plain[name] not in roles.columns.values()}
        fitting = {name: table.columns[column] for name, column in columns.items() if _fits(role, table.columns[column], table.rows)}
        if fitting:
            _choose(roles, role, fitting)
    for name in LONG_TEXTS:
        if name in plain:
            roles.others["description"] = plain[name]
            break
    _add_from_content(table, roles)
    return roles


def _choose(roles: Roles, role: str, fitting: Mapping[str, Column]) -> None:
    """Choose one of the columns whose names have a meaning; the choice is a guess if another could have been meant."""
    name = next(iter(fitting))
    if role == "qi" and name in UNSPECIFIC_TITLES:
        name = max(fitting, key=lambda name: (fitting[name].mean_length, fitting[name].distinct))
    roles.columns[role] = fitting[name].name
    others = [column.name for other, column in fitting.items() if other != name]
    if role == "label" and name in UNSPECIFIC_LABELS:
        roles.guesses[role] = f"the column {fitting[name].name!r} may also have another meaning"
    if others and (role == "label" or (role == "qi" and name in UNSPECIFIC_TITLES)):
        roles.guesses[role] = f"the column {fitting[name].name!r}, and not {' or '.join(map(repr, others))}"


def _fits(role: str, column: Column, rows: int) -> bool:
    """Return whether the content of a column is possible for a meaning."""
    if role == "split":
        return bool(column.values) and any(split_of_value(value) for value in column.values)
    if role == "label" and plain_name(column.name) in UNSPECIFIC_LABELS and not 1 < len(column.values) <= _MAX_GRADES:
        return False
    if role == "label":
        return len(column.values) > 1 or (column.filled > 0 and column.distinct > 1 and _numeric(column))
    if role == "language":
        return column.filled > 0 and column.longest <= 24 and bool(column.values)
    if role in ("qc", "qi") and is_code(column):
        return False
    if role in ("origin_query", "qc", "qi"):
        return column.filled > 0 and not _numeric(column) and not is_nested(column)
    return column.filled > 0 or not rows


def _numeric(column: Column) -> bool:
    texts = list(column.values) or list(column.samples)
    return bool(texts) and all(re.fullmatch(r"\s*[-+]?\d+(?:\.\d+)?\s*", text) for text in texts if text)


def _add_from_content(table: Table, roles: Roles) -> None:
    """Find the language, label, query and candidate by content, if the names of the columns do not tell them."""
    free = {name: column for name, column in table.columns.items() if name not in roles.columns.values()}
    if "language" not in roles.columns:
        for name, column in free.items():
            if _are_languages([value for value in column.values if value]):
                roles.columns["language"] = name
                roles.guesses["language"] = f"the values of {name!r} are language codes"
                break
    if "qi" in roles.columns or "qc" in roles.columns:
        if "origin_query" in roles.columns:
            _add_label_from_content(table, roles)
        return
    if "origin_query" not in roles.columns and any(is_known_name(name) for name in table.columns):
        return
    texts = [column for name, column in free.items() if name not in roles.columns.values() and _is_text(column, table.rows)]
    wanted = 1 if "origin_query" in roles.columns else 2
    if len(texts) < wanted:
        return
    if wanted == 2:
        query = min(texts, key=lambda column: (column.mean_length, column.distinct))
        texts.remove(query)
        roles.columns["origin_query"] = query.name
        roles.guesses["origin_query"] = f"{query.name!r} has the shorter texts"
    candidate = next((column for column in texts if "title" in plain_name(column.name) or "name" in plain_name(column.name)), texts[0])
    task = "qc" if _looks_like_paths(candidate) else "qi"
    roles.columns[task] = candidate.name
    roles.guesses[task] = f"{candidate.name!r} has longer texts than the query"
    _add_label_from_content(table, roles)


def _are_languages(tags: Sequence[str]) -> bool:
    """Return whether values are certainly languages. Units (kg, st) and yes and no (si, no; da, ne) are also codes of languages."""
    codes = {languages.iso_code(tag) if re.fullmatch(r"[A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})*", tag) else None for tag in tags}
    return bool(codes) and codes <= FREQUENT_LANGUAGES


def _add_label_from_content(table: Table, roles: Roles) -> None:
    """Find the label among the columns without a meaning: by a part of its name, or as the only one with few values."""
    if "label" in roles.columns:
        return
    free = [column for name, column in table.columns.items() if name not in (*roles.columns.values(), *roles.others.values())]
    few_values = [column for column in free if 1 < len([value for value in column.values if value]) <= 10 and column.longest <= 24]
    known = [column for column in few_values if not propose_labels(column.values).unknown]
    named = [column for column in known if LABEL_WORDS.search(column.name.casefold())]
    binary = [column for column in known if not _numeric(column) or {value for value in column.values if value} == {"0", "1"}]
    if len(named) == 1 or (len(few_values) == len(binary) == 1):
        column = (named or binary)[0]
        roles.columns["label"] = column.name
        roles.guesses["label"] = f"the values of {column.name!r} are {', '.join(list(column.values)[:4])}"


def _is_text(column: Column, rows: int) -> bool:
    if re.search(r"(^|_)(id|asin|sku|url|link|image|path|key|date|time|timestamp)$", plain_name(column.name)):
        return False
    if is_nested(column):
        return False
    has_words = 2 * sum(" " in text or not text.isascii() for text in column.samples) > len(column.samples)
    return has_words and not _numeric(column) and column.distinct > min(20, rows // 4)


def is_code(column: Column) -> bool:
    """Return whether the values of a column are codes, such as article numbers, and not texts."""
    return column.codes > MOST_CODES and column.longest <= _LONGEST_CODE


def is_nested(column: Column) -> bool:
    """Return whether the values of a column are lists or mappings of JSON."""
    return bool(column.samples) and all(text.startswith(('["', "[{", '{"', "[[")) or text in ("[]", "{}") for text in column.samples)


def _looks_like_paths(column: Column) -> bool:
    samples = column.samples
    return bool(samples) and all(re.search(r" > | / |\||[^ ]/[^ ].*/|,(?! )", text) for text in samples)
