"""Queries that join tables: judgements with the texts of queries and products."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from babelcart.inspection.keys import Key, find_key
from babelcart.inspection.roles import Roles
from babelcart.inspection.tables import Database, Table, literal, quoted
from babelcart.reading.containers import compression
from babelcart.reading.sources import RawFile

DESCRIPTION_LENGTH = 200


@dataclass
class Joined:
    """A table of judgements with the tables that complete it.

    Attributes
    ----------
    facts : Table
        The judgements: one row each.
    parts : list of (Table, Key)
        Joined table, and the key that joins it.
    columns : dict of str to tuple of (Table, str)
        Meaning, as in `Roles` -> table and column.
    problems : list of str
        Why tables that belong to the judgements cannot be joined.
    """

    facts: Table
    parts: list[tuple[Table, Key]] = field(default_factory=list)
    columns: dict[str, tuple[Table, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def find_join(database: Database, tables: Sequence[Table], roles: dict[str, Roles], facts: Table, wanted: Sequence[str]) -> Joined:
    """Complete a table by those that share a key with it; of several tables with the same texts, the one that matches most rows is used.

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
    keys = []
    for other in tables:
        if other is not facts and any(_gains(joined, other, roles, wanted)):
            key = find_key(database, facts, other, roles)
            if key.problem:
                joined.problems.append(key.problem)
            elif key.pairs:
                keys.append((other, key))
    for other, key in sorted(keys, key=lambda item: -item[1].share):
        lacking, describes = _gains(joined, other, roles, wanted)
        if not lacking and not describes:
            continue
        joined.parts.append((other, key))
        joined.columns |= {role: (other, roles[other.name].columns[role]) for role in lacking}
        if describes and not lacking:
            joined.columns["description"] = other, roles[other.name].others["description"]
    return joined


def _gains(joined: Joined, other: Table, roles: dict[str, Roles], wanted: Sequence[str]) -> tuple[list[str], bool]:
    """Return the meanings that a table adds to a join, and whether it adds descriptions of items."""
    lacking = [role for role in wanted if role not in joined.columns and role in roles[other.name].columns]
    has_description = "description" in roles[joined.facts.name].others or "description" in joined.columns
    return lacking, "description" in roles[other.name].others and not has_description and "qi" in wanted


def write_query(joined: Joined, task: str, folder_names: dict[str, str], where: dict[str, list[str]], unique_id: bool) -> str:
    """Return the text of a query that gives the columns of a row.

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
    aliases = {joined.facts.name: "judgements"} | {part.name: _alias(part, index) for index, (part, _) in enumerate(joined.parts)}

    def column(role: str) -> str:
        table, name = joined.columns[role]
        return f"{aliases[table.name]}.{quoted(name)}"

    def text(role: str) -> str:
        return f"coalesce({column(role)}, '')" if _may_lack(joined, role) else column(role)

    candidate = text(task)
    lines = [f"-- {joined.facts.path.name}, with the texts of {', '.join(part.path.name for part, _ in joined.parts)}."]
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
    for part, key in joined.parts:
        others = "; the texts of the others are empty" if key.share < 1 else ""
        typed = part.file.raw_file.format != joined.facts.file.raw_file.format
        sides = [(f"judgements.{quoted(first)}", f"{aliases[part.name]}.{quoted(second)}") for first, second in key.pairs]
        condition = " AND ".join(f"CAST({a} AS VARCHAR) = CAST({b} AS VARCHAR)" if typed else f"{a} = {b}" for a, b in sides)
        lines += [
            *([f"-- guess: {key.guess}."] if key.guess else []),
            f"-- {key.share:.1%} of the judgements have a row in {part.path.name}{others}.",
            f"LEFT JOIN {_source(part, folder_names)} AS {aliases[part.name]} ON {condition}",
        ]
    if where:
        conditions = [f"judgements.{quoted(name)} IN ({', '.join(map(literal, values))})" for name, values in where.items()]
        lines.append(f"WHERE {' AND '.join(conditions)}")
    return "\n".join(lines) + "\n"


def _may_lack(joined: Joined, role: str) -> bool:
    """Return whether some judgements have no text of a role."""
    table, name = joined.columns[role]
    share = next((key.share for part, key in joined.parts if part is table), 1.0)
    return share < 1 or table.columns[name].filled < table.rows


def not_readable(table: Table) -> str | None:
    """Return why DuckDB cannot read a file in a query, with the command that converts it; None if it can."""
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
    """Return the table function of DuckDB that reads a file."""
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
