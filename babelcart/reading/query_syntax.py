"""Check the text of an SQL query before it runs.

A query must be one SELECT statement of DuckDB that reads files in the data folder, writes nothing and gives the same rows every time. The
checks use DuckDB's own parser: they walk its syntax tree (`json_serialize_sql`) and know functions from its catalogue, so that functions
of later versions are covered.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

MAX_BYTES = 2**20
MAX_DEPTH = 300  # of brackets; DuckDB's parser takes quadratic time for unclosed brackets
NO_LOCATION = 2**64 - 1

_CSV, _JSON, _PARQUET = "read_csv", "read_json", "read_parquet"
# Suffix of a file that is named as a table -> the function that reads it. Each may be followed by .gz or .zst.
TABLE_SUFFIXES = {".csv": _CSV, ".tsv": _CSV, ".json": _JSON, ".jsonl": _JSON, ".ndjson": _JSON, ".parquet": _PARQUET}
_READERS = {
    "read_csv": _CSV, "read_csv_auto": _CSV,
    "read_json": _JSON, "read_json_auto": _JSON, "read_ndjson": _JSON, "read_ndjson_auto": _JSON,
    "read_json_objects": None, "read_json_objects_auto": None, "read_ndjson_objects": None, "read_ndjson_objects_auto": None,
    "read_parquet": _PARQUET, "parquet_scan": _PARQUET,
}  # fmt: skip
_OTHER_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
_DROPPING_OPTIONS = {"ignore_errors", "store_rejects", "rejects_table", "rejects_scan", "rejects_limit"}
_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_NODES = {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"}

_ORDERED_AGGREGATES = {
    "first", "last", "any_value", "arbitrary", "list", "array_agg", "string_agg", "group_concat", "listagg", "json_group_array",
    "json_group_object",
}  # fmt: skip
_APPROXIMATE_AGGREGATES = {"approx_quantile", "approx_top_k", "reservoir_quantile"}
_AGGREGATE_BY_NAME = {"list_aggr", "list_aggregate", "array_aggr", "array_aggregate", "aggregate"}
_ORDERED_WINDOWS = {
    "WINDOW_ROW_NUMBER", "WINDOW_NTILE", "WINDOW_LEAD", "WINDOW_LAG", "WINDOW_FIRST_VALUE", "WINDOW_LAST_VALUE", "WINDOW_NTH_VALUE",
    "WINDOW_FILL",
}  # fmt: skip
_WHOLE_FRAMES = {("UNBOUNDED_PRECEDING", "CURRENT_ROW_RANGE"), ("UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING")}
# Functions that DuckDB lists as consistent, although they depend on its version or on settings.
_VERSION_FUNCTIONS = {"version", "json_serialize_plan", "get_block_size"}
# Values of the SQL standard that are written without parentheses.
_SQL_KEYWORDS = {
    "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "localtime",
    "localtimestamp", "session_user", "system_user", "user",
}  # fmt: skip


class QueryRefused(Exception):
    """A query that is not accepted: the reason, and the offset in bytes of the part that is wrong, if it is known."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = None if offset == NO_LOCATION else offset


@dataclass(frozen=True)
class Text:
    """A plain text in a query, and its position in bytes."""

    value: str
    start: int
    end: int


@dataclass(frozen=True)
class FileReference:
    """One place where a query names files.

    Attributes
    ----------
    start, end : int
        Position of the names in the text of the query, in bytes.
    names : tuple of str
        Names and patterns as written.
    function : str or None
        ``read_csv``, ``read_json`` or ``read_parquet`` if default options apply, else None.
    options : frozenset of str
        Options that the query sets.
    is_table : bool
        Whether the file is named as a table (``FROM 'a.csv'``) and not as the argument of a function.
    has_alias : bool
        Whether the table has an alias.
    texts : dict of str to Text
        Options with a plain text as value.
    """

    start: int
    end: int
    names: tuple[str, ...]
    function: str | None
    options: frozenset[str] = frozenset()
    is_table: bool = False
    has_alias: bool = False
    texts: dict[str, Text] = field(default_factory=dict)

    @property
    def encoding(self) -> str | None:
        """The option `encoding`."""
        return self.texts["encoding"].value if "encoding" in self.texts else None


def check_syntax(text: str) -> list[FileReference]:
    """Check a query and return the files that it names, in the order of the text.

    Raises
    ------
    QueryRefused
        If the text is not one SELECT statement, could write, does not name its files plainly, or could give other rows next time.
    duckdb.Error
        If the text is not SQL.
    """
    content = text.encode()
    _check_text(text, content)
    connection = _connection()
    statements = connection.extract_statements(text)
    if not statements:
        raise QueryRefused("the file contains no statement; write one SELECT statement")
    if len(statements) > 1:
        raise QueryRefused(f"the file contains {len(statements)} statements; keep one SELECT statement")
    kind = statements[0].type.name
    if kind != "SELECT":
        hint = "; write PIVOT as aggregates with FILTER (WHERE ...)" if kind == "MULTI" else ""
        raise QueryRefused(f"the statement is {kind}; only one SELECT statement is accepted{hint}")
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    try:
        tree = json.loads(row[0] if row else "")
    except RecursionError:
        raise QueryRefused("the query is nested too deeply; split it with WITH") from None
    if tree.get("error"):
        raise QueryRefused(f"the query cannot be checked: {tree.get('error_message')}")
    return _Checker(content, tree["statements"]).references()


def without_semicolon(text: str) -> str:
    """Return the text up to the semicolon that ends the statement, or up to the last token."""
    import duckdb

    content = text.encode()
    tokens = [offset for offset, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    while tokens and content[tokens[-1] : tokens[-1] + 1] == b";":
        content = content[: tokens.pop()]
    return content.decode()


def _check_text(text: str, content: bytes) -> None:
    import duckdb

    if len(content) > MAX_BYTES:
        raise QueryRefused(f"the file has {len(content)} bytes; at most {MAX_BYTES} are accepted")
    if "\0" in text:
        raise QueryRefused("the file contains a NUL byte", len(text[: text.index("\0")].encode()))
    depth = 0
    for offset, kind in duckdb.tokenize(text):
        if kind == duckdb.token_type.operator:
            character = content[offset : offset + 1]
            depth += (character in b"([{") - (character in b")]}")
            if depth > MAX_DEPTH:
                raise QueryRefused(f"brackets are nested more than {MAX_DEPTH} times; split the query with WITH", offset)


def _connection() -> duckdb.DuckDBPyConnection:
    """Return a connection that can only parse: no files, no extensions."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False, "threads": 1, "autoload_known_extensions": False, "lock_configuration": True,
    }  # fmt: skip
    return duckdb.connect(":memory:", config=config)


@dataclass(frozen=True)
class _Catalogue:
    """Names that a query must not use, from the catalogue of the installed DuckDB.

    Attributes
    ----------
    functions : frozenset of str
        Functions that may give another value next time.
    keywords : frozenset of str
        Those of them that are also written without parentheses, such as ``current_date``.
    views : frozenset of str
        Views of the catalogue.
    """

    functions: frozenset[str]
    keywords: frozenset[str]
    views: frozenset[str]


@functools.cache
def catalogue() -> _Catalogue:
    """Return the names that a query must not use, in lower case."""
    import duckdb

    connection = _connection()
    rows = connection.execute(
        "SELECT lower(function_name), function_type, stability, schema_name, macro_definition FROM duckdb_functions()"
    ).fetchall()
    plain = [(name, stability) for name, kind, stability, _, _ in rows if kind in ("scalar", "aggregate", "window")]
    consistent = {name for name, stability in plain if stability == "CONSISTENT"}
    refused = {name for name, stability in plain if stability == "VOLATILE" or name not in consistent} | _VERSION_FUNCTIONS
    refused.discard("error")  # always fails, with the same message
    macros = [(name, schema, definition) for name, kind, _, schema, definition in rows if kind == "macro"]
    refused |= {name for name, schema, _ in macros if schema != "main" and name not in consistent}
    used: dict[str, set[str]] = {}
    for name, _, definition in macros:
        used.setdefault(name, set()).update(_names_in(connection, definition or "NULL"))
    refused |= _SQL_KEYWORDS
    while new := {name for name, names in used.items() if names & refused} - refused:
        refused |= new
    keywords = set(_SQL_KEYWORDS)
    for name in refused - keywords:
        try:
            connection.execute(f'DESCRIBE SELECT "{name}"').fetchall()
            keywords.add(name)
        except duckdb.Error:
            continue
    views = connection.execute("SELECT lower(view_name) FROM duckdb_views()").fetchall()
    return _Catalogue(frozenset(refused), frozenset(keywords), frozenset(name for (name,) in views))


def _names_in(connection: duckdb.DuckDBPyConnection, expression: str) -> set[str]:
    """Functions and columns that an expression names, in lower case."""
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT {expression}"]).fetchone()
    nodes = list(_nodes(json.loads(row[0] if row else "{}")))
    columns = {str(node["column_names"][0]).lower() for node in nodes if len(node.get("column_names", [])) == 1}
    return columns | {str(node["function_name"]).lower() for node in nodes if node.get("function_name")}


class _Checker:
    """Walk the syntax tree of one query."""

    def __init__(self, content: bytes, tree: Any) -> None:
        self._content, self._tree, self._catalogue = content, tree, catalogue()
        self._references: list[FileReference] = []
        self._queries = {
            str(entry.get("key", "")).lower()
            for node in _nodes(tree)
            if isinstance(node.get("cte_map"), dict)
            for entry in node["cte_map"].get("map", [])
        } | {str(node["cte_name"]).lower() for node in _nodes(tree) if node.get("cte_name")}
        self._queries |= {str(node["ctename"]).lower() for node in _nodes(tree) if node.get("ctename")}

    def references(self) -> list[FileReference]:
        """Check all nodes and return the files."""
        for name in sorted(self._queries & self._catalogue.views):
            raise QueryRefused(f"WITH {name}: this is the name of a table of DuckDB; choose another name")
        for node in _nodes(self._tree):
            self._check(node)
        return sorted(self._references, key=lambda reference: reference.start)

    def _check(self, node: dict[str, Any]) -> None:
        kind, where = node.get("type"), node.get("query_location")
        if node.get("named_param_map") or node.get("class") == "PARAMETER":
            raise QueryRefused("parameters (`?`, `$name`) are not accepted; write the value", where)
        if node.get("sample"):
            raise QueryRefused(
                "samples are not accepted, because they differ from run to run; select by a column, e.g. hash(id) % 10 = 0", where
            )
        if "cte_map" in node:
            self._check_query(node, str(kind))
        elif "class" in node:
            self._check_expression(node)
        elif "sample" in node:
            self._check_table(node, str(kind))

    def _check_query(self, node: dict[str, Any], kind: str) -> None:
        if kind not in _QUERY_NODES:
            raise QueryRefused(f"{kind.removesuffix('_NODE').removesuffix('_QUERY')} inside a query is not accepted; a query may only read")
        modifiers = {modifier["type"]: modifier for modifier in node.get("modifiers", [])}
        if "ORDER_MODIFIER" in modifiers:
            return
        if any("LIMIT" in name for name in modifiers):
            raise QueryRefused("LIMIT and OFFSET need ORDER BY, because the order of the rows is not defined without it")
        if modifiers.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets"):
            raise QueryRefused("DISTINCT ON needs ORDER BY, because it is not defined otherwise which row remains")

    def _check_table(self, node: dict[str, Any], kind: str) -> None:
        where = node.get("query_location")
        if kind not in _TABLE_NODES:
            name = "DESCRIBE, SHOW or SUMMARIZE" if kind == "SHOW_REF" else kind
            raise QueryRefused(f"{name} is not accepted in FROM; use files, subqueries and joins", where)
        if kind == "BASE_TABLE":
            self._check_base_table(node)
        elif kind == "TABLE_FUNCTION":
            self._check_table_function(node)

    def _check_base_table(self, node: dict[str, Any]) -> None:
        name, where = str(node["table_name"]), node["query_location"]
        if node.get("catalog_name") or node.get("schema_name"):
            full_name = ".".join(filter(None, (node.get("catalog_name"), node.get("schema_name"), name)))
            raise QueryRefused(f"there is no table {full_name}; write the name of a file in quotes, e.g. FROM 'examples.parquet'", where)
        if node.get("at_clause"):
            raise QueryRefused("AT is not accepted; files have no earlier versions", where)
        if name.lower() in self._queries:
            return
        suffix = re.search(r"(\.\w+)(\.gz|\.zst)?$", name.lower())
        function = TABLE_SUFFIXES.get(suffix[1]) if suffix else None
        if function is None:
            accepted = ", ".join(TABLE_SUFFIXES)
            raise QueryRefused(
                f"{name!r} is neither a file that can be read as a table ({accepted}, each also with .gz or .zst) nor a name defined by "
                "WITH; read other files with read_csv('...'), read_json('...') or read_parquet('...')",
                where,
            )
        length = self._quoted_length(name, where)
        self._references.append(FileReference(where, where + length, (name,), function, is_table=True, has_alias=bool(node.get("alias"))))

    def _quoted_length(self, name: str, start: int) -> int:
        """Length in bytes of a quoted name in the text."""
        for quote in ("'", '"'):
            literal = (quote + name.replace(quote, quote * 2) + quote).encode()
            if start != NO_LOCATION and self._content.startswith(literal, start):
                return len(literal)
        raise QueryRefused(f"write the file as FROM '{name}', in plain quotes", start)

    def _check_table_function(self, node: dict[str, Any]) -> None:
        call, where = node["function"], node["query_location"]
        name = str(call.get("function_name", "")).lower()
        if name in _OTHER_TABLE_FUNCTIONS:
            return
        if name not in _READERS:
            accepted = ", ".join(sorted({*_READERS, *_OTHER_TABLE_FUNCTIONS}))
            raise QueryRefused(f"the table function {name or '?'} is not accepted; accepted: {accepted}", where)
        arguments = call.get("arguments", [])
        options = frozenset(_option(argument) or "" for argument in arguments[1:])
        if "" in options or not arguments or _option(arguments[0]):
            raise QueryRefused(f"{name} takes the names of the files first, then options as name = value", where)
        for option in sorted(options & _DROPPING_OPTIONS):
            raise QueryRefused(f"{name}: the option {option} drops rows silently; correct the file, or select the columns as text", where)
        names = _strings(arguments[0]["expression"])
        if names is None:
            raise QueryRefused(f"{name}: the names of files must be plain texts, e.g. {name}('a.csv') or {name}(['a.csv', 'b.csv'])", where)
        position = arguments[0]["expression"]["query_location"]
        if position == NO_LOCATION:
            raise QueryRefused(f"write the file as {name}('...') in plain quotes", where)
        end = position + arguments[0]["expression"]["query_location_length"]
        texts = _texts(arguments[1:])
        if "encoding" in options and "encoding" not in texts:
            raise QueryRefused("write the encoding as a plain text, such as encoding = 'cp1252'", where)
        self._references.append(FileReference(position, end, names, _READERS[name], options, texts=texts))

    def _check_expression(self, node: dict[str, Any]) -> None:
        where = node.get("query_location")
        if node["class"] == "COLUMN_REF":
            names = node.get("column_names", [])
            if len(names) == 1 and str(names[0]).lower() in self._catalogue.keywords:
                raise QueryRefused(
                    f"{names[0]} is not accepted, because its value differs from run to run or machine to machine; if it is a column, "
                    f"write it with its table: t.{names[0]}",
                    where,
                )
        elif node["class"] == "FUNCTION":
            self._check_function(node, where)
        elif node["class"] == "WINDOW":
            self._check_window(node, where)

    def _check_function(self, node: dict[str, Any], where: int | None) -> None:
        name = str(node.get("function_name", "")).lower()
        arguments = node.get("arguments", [])
        if name in _AGGREGATE_BY_NAME and len(arguments) > 1:
            name = (_strings(arguments[1]["expression"]) or ("",))[0].lower()
            if not name:
                raise QueryRefused("the name of the aggregate must be a plain text, e.g. list_aggregate(x, 'max')", where)
        elif name in _ORDERED_AGGREGATES and not (node.get("order_bys") or {}).get("orders"):
            raise QueryRefused(
                f"{name}() needs ORDER BY inside its parentheses, because its value depends on the order of the rows: "
                f"{name}(x ORDER BY x); or use min(x) or max(x)",
                where,
            )
        if name in self._catalogue.functions or name in _APPROXIMATE_AGGREGATES or (name == "age" and len(arguments) == 1):
            raise QueryRefused(f"{name}() is not accepted, because its value differs from run to run or machine to machine", where)

    def _check_window(self, node: dict[str, Any], where: int | None) -> None:
        name = str(node.get("function_name", "")).lower()
        if name in self._catalogue.functions or name in _APPROXIMATE_AGGREGATES:
            raise QueryRefused(f"{name}() is not accepted, because its value differs from run to run or machine to machine", where)
        ordered = (
            node["type"] in _ORDERED_WINDOWS or name in _ORDERED_AGGREGATES or (node.get("start"), node.get("end")) not in _WHOLE_FRAMES
        )
        if ordered and not node.get("orders") and not node.get("arg_orders"):
            raise QueryRefused(f"{name}() OVER (...) needs ORDER BY, because its value depends on the order of the rows", where)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all dicts of a JSON value, outer ones first."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += reversed(part.values())
        elif isinstance(part, list):
            waiting += reversed(part)


def _option(argument: dict[str, Any]) -> str | None:
    """Name of an option, ``name = value`` or ``name := value``, in lower case; None for another argument."""
    expression = argument["expression"]
    if argument.get("name"):
        return str(argument["name"]).lower()
    left = expression.get("left") or {}
    if expression.get("type") == "COMPARE_EQUAL" and left.get("class") == "COLUMN_REF" and len(left["column_names"]) == 1:
        return str(left["column_names"][0]).lower()
    return None


def _texts(arguments: list[dict[str, Any]]) -> dict[str, Text]:
    """Options whose values are plain texts."""
    texts = {}
    for argument in arguments:
        value = argument["expression"] if argument.get("name") else argument["expression"]["right"]
        names, start = _strings(value), value["query_location"]
        if value.get("class") == "CONSTANT" and names and start != NO_LOCATION:
            texts[_option(argument) or ""] = Text(names[0], start, start + value["query_location_length"])
    return texts


def _strings(expression: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the texts of a literal or of a list of literals; None for any other expression."""
    literal = expression.get("literal") or {}
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "STRING":
        return (str(literal["text"]),)
    if expression.get("class") == "FUNCTION" and expression.get("function_name") == "list_value" and expression["arguments"]:
        parts = [_strings(argument["expression"]) for argument in expression["arguments"]]
        if all(part is not None and len(part) == 1 for part in parts):
            return tuple(part[0] for part in parts if part)
    return None
