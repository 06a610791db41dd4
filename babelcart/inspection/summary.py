"""What people read about files and proposed settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from babelcart.core.errors import printable
from babelcart.inspection.languages import language_shares, script_shares
from babelcart.inspection.proposal import Proposal
from babelcart.inspection.roles import Roles
from babelcart.inspection.tables import Database, Table, quoted
from babelcart.inspection.verification import Verification

_SAMPLE_WIDTH = 60
_REASONS = {
    "broken": "broken", "left_out_unlabelled": "without a label", "empty_query": "empty query", "empty_candidate": "empty candidate",
    "contradictory": "contradictory labels", "duplicate": "duplicate",
}  # fmt: skip


def describe(database: Database, table: Table, roles: Roles) -> dict[str, Any]:
    """Facts about a file, for people and as JSON."""
    facts: dict[str, Any] = {
        "file": str(table.path),
        "format": table.file.description,
        "rows": table.rows,
        "broken": table.broken,
        "columns": [
            {
                "name": column.name,
                "meaning": next((role for role, name in roles.columns.items() if name == column.name), None),
                "filled": column.filled,
                "different": column.distinct,
                "longest": column.longest,
                "samples": list(column.samples),
            }
            for column in table.columns.values()
        ],
        "values": {
            roles.columns[role]: table.columns[roles.columns[role]].values
            for role in ("language", "label", "split")
            if role in roles.columns and table.columns[roles.columns[role]].values
        },
        "texts": {},
    }
    for role in ("origin_query", "qi", "qc"):
        if (column := roles.columns.get(role)) is not None:
            texts = database.sample(table, column)
            facts["texts"][column] = {"languages": _rounded(language_shares(texts)), "scripts": _rounded(script_shares(texts))}
    if (query := roles.columns.get("origin_query")) is not None:
        candidate = roles.columns.get("qi") or roles.columns.get("qc")
        facts |= _repetitions(database, table, query, candidate, roles.columns.get("language"))
    return facts


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 3) for name, share in list(shares.items())[:5] if share >= 0.005}


def _repetitions(database: Database, table: Table, query: str, candidate: str | None, language: str | None) -> dict[str, Any]:
    """Return rows per query, and pairs that occur again."""
    grouped = f"SELECT count(*) AS rows FROM {table.name} WHERE {quoted(query)} <> '' GROUP BY {quoted(query)}"
    queries, mean, most = database.query(f"SELECT count(*), avg(rows), max(rows) FROM ({grouped})")[0]
    facts: dict[str, Any] = {"queries": queries, "rows_per_query": {"mean": round(mean or 0.0, 1), "most": most or 0}}
    if candidate:
        names = ", ".join(quoted(name) for name in (language, query, candidate) if name)
        facts["repeated_pairs"] = table.rows - database.query(f"SELECT count(DISTINCT ({names})) FROM {table.name}")[0][0]
    return facts


def file_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines about a file."""
    lines = [f"{facts['file']}: {facts['format']}, {facts['rows']:,} rows"]
    heading = ("column", "meaning", "filled", "different", "longest", "samples")
    rows = [
        (
            _short(column["name"], 30), _MEANINGS.get(column["meaning"], column["meaning"]) or "", f"{column['filled']:,}",
            f"{column['different']:,}", f"{column['longest']:,}", _short(" | ".join(column["samples"]), _SAMPLE_WIDTH),
        )
        for column in facts["columns"]
    ]  # fmt: skip
    lines += [f"  {line}" for line in _aligned([heading, *rows], right=(2, 3, 4))]
    for column, values in facts["values"].items():
        counts = ", ".join(f"{value or '(empty)'} {rows:,}" for value, rows in list(values.items())[:12])
        lines.append(f"  {column}: {_short(counts, 120)}{', ...' if len(values) > 12 else ''}")
    for column, shares in facts["texts"].items():
        parts = [f"{kind}: {_percent(shares[kind])}" for kind in ("languages", "scripts") if shares[kind]]
        lines.append(f"  {column}: {'; '.join(parts)}")
    if "queries" in facts:
        per_query = facts["rows_per_query"]
        repeated = f"; {facts['repeated_pairs']:,} rows repeat a query and candidate" if facts.get("repeated_pairs") else ""
        lines.append(f"  {facts['queries']:,} queries, {per_query['mean']:g} rows per query, at most {per_query['most']:,}{repeated}")
    if facts["broken"]:
        lines.append(f"  {len(facts['broken']):,} broken rows: {_short('; '.join(facts['broken'][:3]), 120)}")
    return [printable(line) for line in lines]


_MEANINGS = {"origin_query": "query", "qi": "item", "qc": "category"}


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:4] if share >= 0.01)


def _short(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


def _aligned(rows: Sequence[Sequence[str]], right: Iterable[int]) -> list[str]:
    """Return rows as columns of equal width; the last column is not padded."""
    right = set(right)
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width) for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def row_lines(verification: Verification) -> list[str]:
    """Return the lines about the rows that the pipeline would read and drop."""
    lines = []
    for task, splits in verification.counts.items():
        for split, counts in splits.items():
            if split == "broken" or not counts.get("rows"):
                continue
            kept = counts.get("kept", counts["rows"])
            labelled = "" if split == "train" or counts["labelled"] == counts["rows"] else f", {counts['labelled']:,} with a label"
            dropped = [f"{counts[key]:,} {reason}" for key, reason in _REASONS.items() if counts.get(key)]
            languages = ", ".join(f"{code} {rows:,}" for code, rows in list(verification.languages[task][split].items())[:12])
            left_out = f"; left out: {', '.join(dropped)}" if dropped else ""
            lines.append(f"  {task} {split}: {kept:,} rows{labelled} ({languages}){left_out}")
    lines += [f"  {problem}" for problem in verification.broken]
    return [printable(line) for line in lines]


def as_json(files: Sequence[Mapping[str, Any]], proposal: Proposal, verification: Verification) -> dict[str, Any]:
    """Everything as one object."""
    return {
        "files": list(files),
        "data": proposal.data,
        "settings": proposal.settings,
        "guesses": proposal.reasons,
        "queries": proposal.queries,
        "remarks": proposal.remarks,
        "problems": proposal.problems,
        "rows": verification.counts,
        "languages": verification.languages,
        "broken": verification.broken,
    }
