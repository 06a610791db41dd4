"""Queries that join tables: judgements with the texts of queries and products."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from babelcart.inspection.roles import Roles
from babelcart.inspection.tables import Database, Table, literal, quoted
from babelcart.reading.containers import compression
from babelcart.reading.sources import RawFile

_ENOUGH = 0.5  # share of the rows that a key must match
DESCRIPTION_LENGTH = 200


@dataclass
class Joined:
    """A table of judgements with the tables that complete it.

    Attributes
    ----------
    facts : Table
        The judgements: one row each.
    parts : list of (Table, list of (str, str), float)
        Joined table, pairs of a column of `facts` and of it, and the share of the rows of `facts` that it matches.
    columns : dict of str to tuple of (Table, str)
        Meaning, as in `Roles` -> table and column.
    """

    facts: Table
    parts: list[tuple[Table, list[tuple[str, str]], float]] = field(default_factory=list)
    columns: dict[str, tuple[Table, str]] = field(default_factory=dict)


def find_join(database: Database, tables: Sequence[Table], roles: dict[str, Roles], facts: Table, wanted: Sequence[str]) -> Joined:
    """Complete a table by those that share a key with it.

    Parameters
    ----------
    database : Database
    tables : sequence of Table
    roles : dict of str to Roles
        Name of a table -> its roles.
    facts : Table
    wanted : sequence of str
        Meanings to look for in other tables, if `facts` lacks them.
    """
    joined = Joined(facts, columns={role: (facts, column) for role, column in roles[facts.name].columns.items()})
    for other in tables:
        lacking = [role for role in wanted if role not in joined.columns and role in roles[other.name].columns]
        describes = "description" in roles[other.name].others and "description" not in roles[facts.name].others and "qi" in wanted
        if other is facts or not (lacking or describes):
            continue
        key, share = _find_key(database, facts, other)
        if key:
            joined.parts.append((other, key, share))
            joined.columns |= {role: (other, roles[other.name].columns[role]) for role in lacking}
            if describes and not lacking:
                joined.columns["description"] = other, roles[other.name].others["description"]
    return joined


def _find_key(database: Database, facts: Table, other: Table) -> tuple[list[tuple[str, str]], float]:
    """The columns that identify a row of `other` for each row of `facts`, and the share of rows that match."""
    pairs = [(a, b) for a in facts.columns for b in other.columns if _may_match(a, b, other) and _comparable(facts, a, other, b)]
    pairs.sort(key=lambda pair: (pair[0].casefold() != pair[1].casefold(), not _is_id(pair[1])))
    candidates: list[list[tuple[str, str]]] = [[pair] for pair in pairs]
    same = [pair for pair in pairs if pair[0].casefold() == pair[1].casefold()]
    candidates += [list(group) for size in (2, 3) for group in itertools.combinations(same, size)]
    for key in candidates:
        if database.is_unique(other, *(name for _, name in key)):
            share = database.overlap(facts, [column for column, _ in key], other, [name for _, name in key])
            if share >= _ENOUGH:
                return key, share
    return [], 0.0


def _is_id(name: str) -> bool:
    return re.search(
        r"(^|_|\b|doc|item|product|query|article|offer|listing)(u?id|asin|sku|key|code|number)$", name.casefold()
    ) is not None or name.endswith("Id")


def _may_match(column: str, name: str, other: Table) -> bool:
    """Whether the names of two columns allow that they are a key: equal, or `doc_id` and `id` (of docs.jsonl, or of any file)."""
    first, second = column.casefold(), name.casefold()
    if first == second:
        return True
    if second.strip("_") in ("id", "docid", "doc_id", "sku", "asin", "key", "code", "uid") and _is_id(column):
        return first.strip("_") != "id"
    return _is_id(column) and _is_id(name) and (first.endswith(f"_{second}") or second.endswith(f"_{first}"))


def _comparable(facts: Table, column: str, other: Table, name: str) -> bool:
    return facts.columns[column].filled > 0 and other.columns[name].filled > 0 and facts.columns[column].longest <= 200


def write_query(joined: Joined, task: str, folder_names: dict[str, str], where: dict[str, list[str]], unique_id: bool) -> str:
    """The text of a query that gives the columns of a row.

    Parameters
    ----------
    joined : Joined
    task : {"qc", "qi"}
    folder_names : dict of str to str
        Name of a table -> name of its file relative to ``data.path``.
    where : dict of str to list of str
        Column of the judgements -> accepted values.
    unique_id : bool
        Whether the column of ids is unique; otherwise the rows are numbered.
    """
    aliases = {joined.facts.name: "judgements"} | {part.name: _alias(part, index) for index, (part, _, _) in enumerate(joined.parts)}

    def column(role: str) -> str:
        table, name = joined.columns[role]
        return f"{aliases[table.name]}.{quoted(name)}"

    def text(role: str) -> str:
        return f"coalesce({column(role)}, '')" if _may_lack(joined, role) else column(role)

    candidate = text(task)
    lines = [f"-- {joined.facts.path.name}, with the texts of {', '.join(part.path.name for part, _, _ in joined.parts)}."]
    if "description" in joined.columns:
        candidate = f"concat_ws(' ', {column(task)}, left({column('description')}, {DESCRIPTION_LENGTH}))"
        lines.append(f"-- guess: the candidate is the title and the first {DESCRIPTION_LENGTH} characters of the description.")
    selected = [f"{column('id') if unique_id else _numbered(joined)} AS id"]
    if "language" in joined.columns:
        selected.append(f"{column('language')} AS language")
    selected += [f"{text('origin_query')} AS origin_query", f"{candidate} AS candidate"]
    if "label" in joined.columns:
        selected.append(f"{column('label')} AS label")
    lines += ["SELECT", ",\n".join(f"    {text}" for text in selected), f"FROM {_source(joined.facts, folder_names)} AS judgements"]
    for part, key, share in joined.parts:
        typed = part.file.raw_file.format != joined.facts.file.raw_file.format
        sides = [(f"judgements.{quoted(first)}", f"{aliases[part.name]}.{quoted(second)}") for first, second in key]
        condition = " AND ".join(f"CAST({a} AS VARCHAR) = CAST({b} AS VARCHAR)" if typed else f"{a} = {b}" for a, b in sides)
        lines += [
            f"-- {share:.1%} of the judgements have a row in {part.path.name}{'; the texts of the others are empty' if share < 1 else ''}.",
            f"LEFT JOIN {_source(part, folder_names)} AS {aliases[part.name]} ON {condition}",
        ]
    if where:
        conditions = [f"judgements.{quoted(name)} IN ({', '.join(map(literal, values))})" for name, values in where.items()]
        lines.append(f"WHERE {' AND '.join(conditions)}")
    return "\n".join(lines) + "\n"


def _may_lack(joined: Joined, role: str) -> bool:
    """Whether some judgements have no text of a role."""
    table, name = joined.columns[role]
    share = next((share for part, _, share in joined.parts if part is table), 1.0)
    return share < 1 or table.columns[name].filled < table.rows


def not_readable(table: Table) -> str | None:
    """Why DuckDB cannot read a file in a query, with the command that converts it; None if it can."""
    file, path = table.file.raw_file, table.path
    encoding = file.options.encoding
    if encoding is not None and file.format != "csv":
        return f"queries read JSON in UTF-8, not in {encoding}; convert it: iconv -f {encoding} -t utf-8 {path.name} > utf8-{path.name}"
    with path.open("rb") as handle:
        packed = compression(handle.read(512))
    if packed and (packed, path.suffix.lower()) not in (("gzip", ".gz"), ("zstd", ".zst")):
        return f"queries do not read {packed} files; decompress it"
    return None


def _numbered(joined: Joined) -> str:
    keys = ", ".join(f"judgements.{quoted(name)}" for name in joined.facts.columns)
    return f"row_number() OVER (ORDER BY {keys})"


def _alias(table: Table, index: int) -> str:
    stem = re.sub(r"\W+", "_", table.path.stem.casefold()).strip("_")
    return stem if re.fullmatch(r"[a-z]\w{0,30}", stem) and stem != "judgements" else f"part{index + 1}"


def _source(table: Table, names: dict[str, str]) -> str:
    """The table function of DuckDB that reads a file."""
    file: RawFile = table.file.raw_file
    options, name = file.options, literal(names[table.name])
    if file.format == "parquet":
        return f"read_parquet({name})"
    if file.format == "jsonl":
        return f"read_json({name}, format = 'newline_delimited')"
    from babelcart.reading.delimited import delimiter_of

    arguments = [f"delim = {literal(delimiter_of(file))}", "all_varchar = true"]
    if options.quoting in ("none", "multiline"):  # otherwise, the query checks whether quotes merge rows
        arguments.append("quote = '', escape = ''" if options.quoting == "none" else "quote = '\"', escape = '\"'")
    if options.header:
        arguments.append(f"header = false, names = [{', '.join(map(literal, options.header))}]")
    else:
        arguments.append("header = true")
    if options.encoding:
        arguments.append(f"encoding = {literal(options.encoding)}")
    return f"read_csv({name}, {', '.join(arguments)})"
