"""Facts about the columns of raw files, computed by DuckDB in a temporary database, so that files may be larger than memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.inspection.files import FileFormat, to_text
from babelcart.reading import formats
from babelcart.reading.batches import Request, as_list

if TYPE_CHECKING:
    import duckdb

MAX_VALUES = 60  # a column with more different values has no table of values
_EXACT_ROWS = 2_000_000  # more different values are counted approximately
_MEMORY = "1GB"
_CODE = r"\s*[\w.:/#-]*[0-9][\w.:/#-]*\s*"


@dataclass(frozen=True)
class Column:
    """Facts about one column of a file.

    Attributes
    ----------
    filled : int
        Number of values that are neither missing nor empty.
    distinct : int
        Number of different values; approximate in files of more than two million rows.
    longest, mean_length : float
        Length of the values in characters.
    codes : float
        Share of the filled values that are codes: one word with a digit, such as ``B07X1`` and ``4711``.
    integer : bool
        Whether the type of the column in the file allows ids: text or integer.
    values : dict of str to int
        Value -> number of rows, the most frequent first; empty if there are more than `MAX_VALUES`. A missing value is "".
    samples : tuple of str
        The first different values.
    """

    name: str
    filled: int
    distinct: int
    longest: int
    mean_length: float
    integer: bool
    codes: float = 0.0
    values: dict[str, int] = field(default_factory=dict)
    samples: tuple[str, ...] = ()


@dataclass
class Table:
    """A raw file, loaded into the database as the table `name`, with facts about its columns."""

    name: str
    file: FileFormat
    rows: int
    columns: dict[str, Column]
    broken: list[str]

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path


class Database:
    """A temporary database of raw files; every column is text."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._tables = 0

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.connection.execute(sql, list(parameters)).fetchall()

    def load(self, file: FileFormat) -> Table:
        """Load a file.

        Raises
        ------
        UserError
            If the file cannot be read.
        """
        import duckdb

        names: dict[str, str] = {}
        for column in file.columns:
            if names.setdefault(column.casefold(), column) != column:
                raise UserError(
                    f"{file.path}: the columns {names[column.casefold()]!r} and {column!r} differ only in case; rename one of them"
                )
        if repeated := [column for column in file.columns if file.columns.count(column) > 1]:
            raise UserError(f"{file.path}: the column {repeated[0]!r} occurs twice; rename one of them")
        if not names:
            raise UserError(f"{file.path} has no columns; expected rows with a query and a candidate")
        self._tables += 1
        name = f"file{self._tables}"
        try:
            if file.description.startswith("Parquet") and "compressed" not in file.description:
                types, broken = self._view_parquet(name, file), []
            else:
                types, broken = {}, self._insert(name, file)
            return Table(name, file, *self._profile(name, file, types), broken)
        except duckdb.Error as error:
            raise UserError(f"{file.path} cannot be read completely ({str(error)[:300]}); copy or download it again") from error

    def _view_parquet(self, name: str, file: FileFormat) -> dict[str, str]:
        """Make a view of a Parquet file; returns column -> type."""
        source = f"read_parquet({literal(str(file.path))})"
        types = {column: kind for column, kind, *_ in self.query(f"DESCRIBE SELECT * FROM {source}")}
        columns = [f"{_as_text(column, kind)} AS {quoted(column)}" for column, kind in types.items()]
        self.connection.execute(f"CREATE VIEW {name} AS SELECT {', '.join(columns)} FROM {source}")
        return types

    def _insert(self, name: str, file: FileFormat) -> list[str]:
        """Load the records that Babelcart's own readers give; returns descriptions of broken rows."""
        import pyarrow as pa

        self.connection.execute(f"CREATE TABLE {name} ({', '.join(f'{quoted(column)} VARCHAR' for column in file.columns)})")
        broken: list[str] = []
        for batch in formats.batches(file.raw_file, Request(file.columns, ())):
            broken += [f"line {line}: {error.reason}" for line, error in batch.malformed]
            if not batch.lines:
                continue
            arrays = [pa.array(list(map(_clean, as_list(batch.columns[column]))), pa.large_string()) for column in file.columns]
            self.connection.register("batch", pa.Table.from_arrays(arrays, names=list(file.columns)))
            self.connection.execute(f"INSERT INTO {name} SELECT * FROM batch")
            self.connection.unregister("batch")
        return broken

    def _profile(self, name: str, file: FileFormat, types: dict[str, str]) -> tuple[int, dict[str, Column]]:
        """Return the number of rows, and facts about each column."""
        rows = self.query(f"SELECT count(*) FROM {name}")[0][0]
        distinct_count = "count(DISTINCT {})" if rows <= _EXACT_ROWS else "approx_count_distinct({})"
        facts = [
            f"count(nullif({quoted(column)}, '')), {distinct_count.format(quoted(column))}, max(length({quoted(column)})), "
            f"avg(length({quoted(column)})), avg(CASE WHEN {quoted(column)} <> '' THEN "
            f"CAST(regexp_full_match({quoted(column)}, {literal(_CODE)}) AS DOUBLE) END)"
            for column in file.columns
        ]
        numbers = self.query(f"SELECT {', '.join(facts)} FROM {name}")[0] if facts else ()
        columns = {}
        for index, column in enumerate(file.columns):
            filled, distinct, longest, mean, codes = numbers[5 * index : 5 * index + 5]
            values: dict[str, int] = {}
            if distinct <= 2 * MAX_VALUES:
                values = dict(self.query(_VALUES.format(column=quoted(column), table=name, limit=MAX_VALUES + 1)))
                distinct, values = len(values), values if len(values) <= MAX_VALUES else {}
            samples = self.query(f"SELECT {quoted(column)} FROM {name} WHERE {quoted(column)} <> '' LIMIT 50")
            kind = types.get(column, "VARCHAR")
            is_id = "INT" in kind or kind in ("VARCHAR", "BLOB")
            first = tuple(dict.fromkeys(text[:200] for (text,) in samples))[:3]
            columns[column] = Column(column, filled, distinct, longest or 0, mean or 0.0, is_id, codes or 0.0, values, first)
        return rows, columns

    def is_unique(self, table: Table, *columns: str) -> bool:
        """Return whether no combination of values of some columns occurs twice, and none is missing."""
        names = ", ".join(map(quoted, columns))
        if any(table.columns[column].filled < table.rows for column in columns):
            return False
        return bool(self.query(f"SELECT count(*) = count(DISTINCT ({names})) FROM {table.name}")[0][0])

    def overlap(self, table: Table, columns: Sequence[str], other: Table, others: Sequence[str], *, loosely: bool = False) -> float:
        """Return the share of the rows of a table whose values occur in columns of another.

        With `loosely`, values may differ in case, in leading zeros and in a trailing ``.0``.
        """
        if not table.rows:
            return 0.0
        form = r"regexp_replace(lower(trim({})), '^0+|\.0$', '', 'g')" if loosely else "{}"
        pairs = [(form.format(f"a.{quoted(a)}"), form.format(f"b.{quoted(b)}")) for a, b in zip(columns, others, strict=True)]
        condition = " AND ".join(f"{first} = {second}" for first, second in pairs)
        matched = self.query(f"SELECT count(*) FROM {table.name} a SEMI JOIN {other.name} b ON {condition}")[0][0]
        return float(matched / table.rows)

    def values(self, table: Table, column: str, where: dict[str, list[str]] | None = None) -> dict[str, int]:
        """Value -> number of rows, the most frequent first; a missing value is ""."""
        conditions = " AND ".join([f"{quoted(name)} IN ({', '.join(map(literal, values))})" for name, values in (where or {}).items()])
        source = f"{table.name} WHERE {conditions}" if conditions else table.name
        return dict(self.query(_VALUES.format(column=quoted(column), table=source, limit=10_000)))

    def sample(self, table: Table, column: str, where: dict[str, str] | None = None, limit: int = 300) -> list[str]:
        """Different values of a column in a fixed pseudo-random order, which depends on the values only."""
        conditions = [f"{quoted(column)} <> ''", *(f"{quoted(name)} = {literal(value)}" for name, value in (where or {}).items())]
        different = f"SELECT DISTINCT {quoted(column)} AS text FROM {table.name} WHERE {' AND '.join(conditions)}"
        return [text for (text,) in self.query(f"SELECT text FROM ({different}) ORDER BY md5(text) LIMIT {limit}")]


# Results are named by their positions: the file may have columns with any name.
_VALUES = "SELECT coalesce({column}, ''), count(*) FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}"


@contextmanager
def open_database() -> Iterator[Database]:
    """Open a temporary database with bounded memory; it is deleted afterwards."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"memory_limit": _MEMORY, "temp_directory": folder, "autoinstall_known_extensions": False}
        with duckdb.connect(str(Path(folder) / "files.duckdb"), config=settings) as connection:
            yield Database(connection)


def quoted(name: str) -> str:
    """Return a name of a column or table in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _as_text(column: str, kind: str) -> str:
    if kind == "BLOB":
        return f"decode({quoted(column)})"
    if kind.startswith("DECIMAL") or kind in ("DOUBLE", "FLOAT"):
        return f"regexp_replace(CAST({quoted(column)} AS VARCHAR), '\\.0*$', '')"
    return f"CAST({quoted(column)} AS VARCHAR)"


def _clean(value: Any) -> str | None:
    text = to_text(value)
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
