"""Read rows from an SQL query over the files in `data.path`.

DuckDB runs the query in a sandbox: it opens only the files that the query names, all of them in `data.path`; it has no network, no
extensions and a locked configuration. `babelcart.reading.query_syntax` checks the text first. Rows are sorted, and one thread computes
them, so that the same files give the same bytes on every machine.
"""

from __future__ import annotations

import codecs
import difflib
import io
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError, printable, short_repr
from babelcart.core.files import is_safe_path, temporary_folder
from babelcart.reading.containers import inner_name, is_utf8, open_container
from babelcart.reading.query_syntax import FileReference, QueryRefused, check_syntax, without_semicolon

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

COLUMNS = ("id", "task", "language", "origin_query", "candidate", "label", "grade")
BATCH_ROWS = 16384
# With more threads, sums of floating-point numbers and the order of equal rows would depend on the machine.
THREADS = 1

# Options of read_csv with which its quotes are those that the query states, or its lines are not those of the file.
_OTHER_DIALECTS = {"quote", "escape", "comment", "skip", "new_line", "null_padding", "strict_mode"}
_INTEGERS = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
_TEXTS = {"VARCHAR", "ENUM", "BLOB", "JSON", "UUID"}
_NUMBERS = {"BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL"}
_DATES = {"DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "INTERVAL"}
# Types that DuckDB detects in JSON texts; casting them back to text would change how they are written.
_DETECTED_TYPES = re.compile(r'"(?:[^"]|"")*"|\b(?:DATE|TIMESTAMP(?:_NS)?(?: WITH TIME ZONE)?|TIME|UUID)\b')


@dataclass(frozen=True)
class QueryLimits:
    """Resources of a query.

    Attributes
    ----------
    memory : str
        Memory that DuckDB may use, such as ``2GB``; larger intermediate results are written to `scratch`.
    scratch : Path
        Folder for temporary files, which are deleted after the query.
    """

    memory: str = "2GB"
    scratch: Path = Path(".scratch")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[1-9]\d{0,5}(\.\d+)? ?([KMGT]i?B)", self.memory, re.IGNORECASE):
            raise ValueError(f"query_memory is {self.memory!r}, which is not a size; accepted: a number and a unit, such as 500MB or 2GB")


def read_query(path: Path, folder: Path, required: Sequence[str], limits: QueryLimits | None = None) -> Iterator[pa.RecordBatch]:
    """Run a query and yield its rows.

    The rows are sorted by id, then by the other columns in the order of `COLUMNS`. Equal ids and missing values are not checked here.

    Parameters
    ----------
    path : Path
        A ``.sql`` file with one SELECT statement.
    folder : Path
        The folder of the files that the query names (`data.path`).
    required : sequence of str
        Columns that the query must have, out of `COLUMNS`. The others are optional.
    limits : QueryLimits, optional
        Default: ``QueryLimits()``.

    Yields
    ------
    pyarrow.RecordBatch
        Columns of the query, named and ordered as in `COLUMNS`. All are strings, except `label`, which is a boolean, an integer (int64 or
        decimal128), a decimal128, a float64 or a string. A value may be null.

    Raises
    ------
    UserError
        If the query is not accepted, lacks a required column, has an unknown one, or fails. The message names the query and the line.
    """
    limits = limits or QueryLimits()
    text = _read_text(path)
    references = _check(path, text)
    files = _resolve(path, text, folder, references)
    with temporary_folder(limits.scratch, "query-") as spill:
        for index, reference in enumerate(references):
            place, originals = _place(path, text, reference.start), files[index]
            files[index] = _decoded(place, reference, originals, spill)
            _check_quotes(place, reference, originals)
        with _explained(path, limits), _sandbox(sorted({name for names in files for name in names}), spill, limits) as connection:
            text = without_semicolon(_with_files(connection, text, references, files))
            columns = connection.execute(f"DESCRIBE {text}").fetchall()
            types = _check_columns(path, [(str(name), str(kind)) for name, kind, *_ in columns], required)
            yield from _batches(connection, text, types)


def files_read(path: Path, folder: Path) -> list[Path]:
    """Check a query without running it, and return the files that it reads.

    Parameters
    ----------
    path : Path
        A ``.sql`` file.
    folder : Path
        The folder of the files (`data.path`).

    Returns
    -------
    list of Path
        ``folder / name`` of each file, sorted, without repetitions; patterns such as ``train/*.parquet`` are expanded.

    Raises
    ------
    UserError
        If the query is not accepted, or a file does not exist or is outside `folder`.
    """
    text = _read_text(path)
    files = _resolve(path, text, folder, _check(path, text))
    return sorted({name for names in files for name in names})


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; queries are `.sql` files in the folder queries/") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file with one SELECT statement") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x}); save the query as UTF-8") from None


def _check(path: Path, text: str) -> list[FileReference]:
    try:
        with _explained(path, QueryLimits()):
            return check_syntax(text)
    except QueryRefused as error:
        raise UserError(f"{_place(path, text, error.offset)}: {error.reason}") from None


def _place(path: Path, text: str, offset: int | None) -> str:
    """Return the query file, with the line of an offset in bytes if it is known."""
    if offset is None:
        return str(path)
    line = text.encode()[:offset].count(b"\n") + 1
    return f"{path}, line {line}"


def _resolve(path: Path, text: str, folder: Path, references: Sequence[FileReference]) -> list[list[Path]]:
    """Return the files of each reference, in the order of its names; files of a pattern are sorted.

    Raises
    ------
    UserError
        If a file does not exist or is outside `folder`.
    """
    files = []
    for reference in references:
        place = _place(path, text, reference.start)
        files.append([file for name in reference.names for file in _resolve_name(place, folder, name)])
    return files


def _resolve_name(place: str, folder: Path, name: str) -> list[Path]:
    """Return the files of one name or pattern."""
    is_long = any(len(part.encode()) > 255 for part in name.split("/"))  # longer than file systems accept
    if name.startswith("~") or "://" in name or is_long or not is_safe_path(name):
        raise UserError(
            f"{place}: {short_repr(name)} is not a file in {folder} (data.path); write its name relative to {folder}, such as 'train.csv'"
        )
    literal = folder / name
    if literal.is_file() or literal.is_symlink():
        matches = [literal]
    elif literal.is_dir():
        raise UserError(f"{place}: {name!r} is a folder; write '{name.rstrip('/')}/*' with the suffix of its files, such as '*.parquet'")
    elif re.search(r"[*?\[]", name):
        matches = sorted(match for match in folder.glob(name) if match.is_file())
    else:
        matches = []
    if not matches:
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else f"; {folder} has {len(names)} files"
        raise UserError(f"{place}: {name!r} does not exist in {folder} (data.path){hint}")
    root = folder.resolve()
    for match in matches:
        if root not in match.resolve().parents:
            raise UserError(
                f"{place}: {match} is a link to a file outside {folder}, and queries read only files in {folder}; copy the file "
                "(if DVC made the link: `dvc config cache.type reflink,copy`, then `dvc checkout --relink`)"
            )
        if not match.is_file():
            raise UserError(f"{place}: {match} is a link to a file that does not exist")
    return matches


def _is_native(encoding: str | None) -> bool:
    """Return whether DuckDB reads an encoding by itself."""
    return encoding is None or codecs.lookup(encoding).name in ("utf-8", "iso8859-1")


def _decoded(place: str, reference: FileReference, files: list[Path], folder: Path) -> list[Path]:
    """Return the files of a reference; those in an encoding that DuckDB does not read are copied to a folder, in UTF-8.

    Raises
    ------
    UserError
        If the encoding is unknown, or a file is not valid in it, or is UTF-8.
    """
    if reference.encoding is None:
        return files
    try:
        codec = codecs.lookup(reference.encoding).name
    except LookupError:
        raise UserError(
            f"{place}: the encoding {reference.encoding!r} is unknown; accepted: the codecs of Python, such as latin-1, cp1252 and utf-16"
        ) from None
    for file in files:
        with open_container(file) as handle:
            if codec not in ("utf-8", "utf-8-sig") and is_utf8(handle):
                raise UserError(f"{place}: {file} is UTF-8 text, but its encoding is set to {reference.encoding}; remove this option")
    if _is_native(reference.encoding):
        return files
    copies = []
    for index, file in enumerate(files):
        copy = folder / f"{reference.start}-{index}-{inner_name(file)}"
        try:
            with open_container(file) as source, copy.open("w", encoding="utf-8", newline="") as target:
                shutil.copyfileobj(io.TextIOWrapper(source, encoding=reference.encoding, newline=""), target, 1 << 20)
        except UnicodeError as error:
            raise UserError(f"{place}: {file} is not valid {reference.encoding} text ({error}); set another encoding") from error
        copies.append(copy)
    return copies


def _check_quotes(place: str, reference: FileReference, files: Sequence[Path]) -> None:
    """Refuse delimited files in which a stray quote merges rows, unless the query sets `quote`.

    Raises
    ------
    UserError
        If rows are merged, or the quotes of a tab-separated file are ordinary characters.
    """
    from babelcart.reading.batches import Request
    from babelcart.reading.delimited import delimited, delimiter_of, tab_quoting
    from babelcart.reading.sources import RawFile, ReadOptions

    if reference.function != "read_csv" or reference.options & _OTHER_DIALECTS:
        return
    given = next((reference.texts[name].value for name in ("delim", "delimiter", "sep") if name in reference.texts), None)
    delimiter = None if given is None else given.replace("\\t", "\t")
    if delimiter is not None and len(delimiter) != 1:
        return
    remedy = "In a query, write quote = '' if quotes are ordinary characters, and quote = '\"' if fields contain line breaks"
    for path in files:
        file = RawFile(path, ReadOptions(format="csv", delimiter=delimiter, quoting="minimal", encoding=reference.encoding))
        with open_container(path) as handle:
            if not any(b'"' in chunk for chunk in iter(lambda: handle.read(1 << 20), b"")):
                continue
            handle.seek(0)
            if delimiter_of(file) == "\t" and tab_quoting(handle, file) == "none":
                raise UserError(f"{place}: the double quotes in {path} are not those of quoted fields. {remedy}")
            try:
                for _ in delimited(handle, file, Request((), ())):
                    pass
            except UserError as error:
                raise UserError(f"{place}: {error} {remedy}") from error


def _sandbox(files: Sequence[Path], spill: Path, limits: QueryLimits) -> duckdb.DuckDBPyConnection:
    """Return a connection that can open only `files`, and its own temporary files in `spill`."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": THREADS,
        "memory_limit": limits.memory,
        "temp_directory": str(spill.resolve()),
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute(f"SET allowed_paths = {_list([file.resolve() for file in files])}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _quote(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _list(texts: Sequence[object]) -> str:
    return f"[{', '.join(map(_quote, texts))}]"


def _with_files(
    connection: duckdb.DuckDBPyConnection, text: str, references: Sequence[FileReference], files: Sequence[Sequence[Path]]
) -> str:
    """Return the query with the paths of the files in place of their names. Lines keep their numbers."""
    content = text.encode()
    for reference, paths in sorted(zip(references, files, strict=True), key=lambda pair: -pair[0].start):
        arguments = ", ".join([_list(paths), *(f"{name} := {value}" for name, value in _options(connection, reference, paths).items())])
        if reference.is_table:
            alias = reference.names[0].rpartition("/")[2].partition(".")[0].replace('"', '""')
            call = f"{reference.function}({arguments})"
            arguments = call if reference.has_alias or not alias else f'{call} AS "{alias}"'
        if not _is_native(reference.encoding):
            text_of_encoding = reference.texts["encoding"]
            content = content[: text_of_encoding.start] + b"'utf-8'" + content[text_of_encoding.end :]
        line_ends = b"\n" * content.count(b"\n", reference.start, reference.end)
        content = content[: reference.start] + arguments.encode() + line_ends + content[reference.end :]
    return content.decode()


def _options(connection: duckdb.DuckDBPyConnection, reference: FileReference, paths: Sequence[Path]) -> dict[str, str]:
    """Options that replace DuckDB's guesses: name -> value in SQL."""
    if reference.function == "read_csv":
        tabs = all(re.search(r"\.tsv(\.gz|\.zst)?$", path.name.lower()) for path in paths)
        defaults = [
            ({"delim", "delimiter", "sep"}, {"delim": r"E'\t'" if tabs else "','"}),
            ({"quote", "escape"}, {"quote": "'\"'", "escape": "'\"'"}),
            ({"header", "names", "columns"}, {"header": "true"}),
            ({"all_varchar", "columns", "auto_type_candidates"}, {"all_varchar": "true"}),
            ({"comment"}, {"comment": "''"}),
            ({"skip"}, {"skip": "0"}),
        ]
        return {name: value for names, default in defaults if not names & reference.options for name, value in default.items()}
    if reference.function == "read_json" and not reference.options:
        fields = connection.execute(f"DESCRIBE SELECT * FROM read_json({_list(paths)})").fetchall()
        types = {
            str(name): _DETECTED_TYPES.sub(lambda match: match[0] if match[0][0] == '"' else "VARCHAR", str(kind))
            for name, kind, *_ in fields
        }
        if any(types[str(name)] != kind for name, kind, *_ in fields):
            return {"columns": "{" + ", ".join(f"{_quote(name)}: {_quote(kind)}" for name, kind in types.items()) + "}"}
    return {}


def _check_columns(path: Path, columns: Sequence[tuple[str, str]], required: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Check names and types of the columns; return column of `COLUMNS` -> name in the query and type."""
    names = [name.lower() for name, _ in columns]
    listed = ", ".join(name for name, _ in columns)
    missing = [name for name in required if name not in names]
    unknown = [name for name, _ in columns if name.lower() not in COLUMNS]
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    accepted = f"needed: {', '.join(required)}; optional: {', '.join(name for name in COLUMNS if name not in required)}"
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {listed} ({accepted}). Name columns with AS, such as title AS candidate"
        )
    if unknown:
        raise UserError(f"{path} has the unknown column {', '.join(unknown)} ({accepted}). Select only these columns")
    if twice:
        raise UserError(f"{path} has the column {twice[0]} twice; select it once")
    types = {name.lower(): (name, re.split(r"[( ]", kind)[0].strip('"')) for name, kind in columns}
    for name, (_, kind) in types.items():
        full = dict(columns)[types[name][0]]
        scalar = "[" not in full.partition("(")[0] and not full.endswith("]")
        allowed = _TEXTS | _INTEGERS | {"NULL"} | (set() if name == "id" else _NUMBERS | _DATES)
        if not scalar or kind not in allowed:
            hint = (
                f"CAST({name} AS BIGINT) or CAST({name} AS VARCHAR)"
                if name == "id"
                else f"a text or a number, such as {name}[1] or {name}.field"
            )
            raise UserError(f"{path}, column {name}: the type {full} is not accepted; write {hint}")
    return {name: types[name] for name in COLUMNS if name in types}


def _batches(connection: duckdb.DuckDBPyConnection, text: str, types: Mapping[str, tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """Run the checked query, cast and sort its rows.

    The rows are stored before they are sorted, so that the memory of joins and window functions is free for the sort.
    """
    import duckdb

    quoted = {name: '"' + own.replace('"', '""') + '"' for name, (own, _) in types.items()}
    casts = ", ".join(f"{_cast(name, quoted[name], types[name][1], quoted.get('id'))} AS {name}" for name in types)
    order = ", ".join(f'{name} COLLATE "binary" NULLS FIRST' if name != "label" else "label NULLS FIRST" for name in types)
    query = f"SELECT {casts} FROM ({text}\n) AS query"
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise AssertionError("a checked query is one SELECT statement")
    connection.execute(f"CREATE TEMP TABLE rows AS {query}")
    reader: Any = connection.sql(f"SELECT * FROM temp.rows ORDER BY {order}").to_arrow_reader(BATCH_ROWS)
    yield from reader


def _cast(name: str, column: str, kind: str, identifier: str | None) -> str:
    """Return the SQL expression that converts a column: texts to text, labels to a number where they are one."""
    row = f" in the row with the id ' || coalesce(CAST({identifier} AS VARCHAR), 'NULL')" if identifier and name != "id" else "'"
    if kind == "BLOB":
        invalid = f"{column} IS NOT NULL AND TRY(decode({column})) IS NULL"
        return f"CASE WHEN {invalid} THEN error('column {name}: not valid UTF-8{row}) ELSE decode({column}) END"
    if kind == "JSON":
        nested = f"json_type({column}) IN ('OBJECT', 'ARRAY')"
        return f"CASE WHEN {nested} THEN error('column {name}: a JSON object or list{row}) ELSE json_extract_string({column}, '$') END"
    if name == "label" and kind in {"BOOLEAN", "DOUBLE", "DECIMAL", "HUGEINT", "UHUGEINT"}:
        return column
    if name == "label" and kind == "FLOAT":  # by its text, so that 2.33 stays 2.33
        return f"CAST(CAST({column} AS VARCHAR) AS DOUBLE)"
    return f"CAST({column} AS {'BIGINT' if name == 'label' and kind in _INTEGERS else 'VARCHAR'})"


@contextmanager
def _explained(path: Path, limits: QueryLimits) -> Iterator[None]:
    """Translate errors of DuckDB into messages that name the query and its line."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (duckdb.OutOfMemoryException, MemoryError, OSError) as error:
        if isinstance(error, OSError) and "Out of Memory" not in str(error):  # Arrow raises OSError for errors of DuckDB
            raise UserError(_explain(path, error)) from error
        if re.search(r"No space left|max_temp_directory_size", str(error)):
            raise UserError(
                f"{path}: no space for temporary files in {limits.scratch}; free some space (`df -h {limits.scratch}`)"
            ) from error
        raise UserError(
            f"{path}: out of memory at the limit of {limits.memory} (data.query_memory in params.yaml); raise the limit, or let the "
            "query join and sort fewer or shorter columns"
        ) from error
    except (duckdb.Error, pa.ArrowException, UnicodeError, RuntimeError) as error:
        raise UserError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    line = re.search(r"^LINE (\d+):", text, re.MULTILINE)
    place = f"{path}, line {line[1]}" if line else str(path)
    summary = re.split(r"\n\s*\n|\nLINE \d+:|\nPossible |\n\s*Candidate functions|\nThis type was|\nThe search space", text)[0]
    summary = re.sub(r"\AINTERNAL Error: ", "internal error of DuckDB: ", summary)
    summary = re.sub(r"\A[A-Z]\w*(?: \w+){0,3} Error: ", "", summary)
    file = re.search(r"^\s*file = (.+)$", text, re.MULTILINE)
    where = f" (file {file[1].strip()})" if file else ""
    return printable(f"{place}: {' '.join(summary.split())[:600]}{where}")
