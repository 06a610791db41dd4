"""The formats of raw files: JSON Lines, delimited text and Parquet, read as batches of columns."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from babelcart.core.errors import UserError, short_repr
from babelcart.rows.sources import RawFile, ReadOptions

FORMATS = (".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
MAX_FIELD = 2**24  # characters of a CSV field
BATCH_ROWS = 50_000
_DELIMITERS = {"\t": "tabs", ";": "';'", "|": "'|'", ",": "','"}
# A quoted field of a tab-separated line, with its quotes.
_QUOTED = re.compile(r'(?:^|\t)"((?:[^"]|"")*)"(?=\t|\r?\n?$)', re.M)
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


class Malformed(Exception):
    """A row that cannot be used, as a field, its value and the reason."""

    def __init__(self, field: str, value: str, reason: str) -> None:
        super().__init__(field, value, reason)
        self.field, self.value, self.reason = field, value, reason


@dataclass
class Batch:
    """Consecutive records of a file.

    Attributes
    ----------
    lines : list of int
        Line number of each record; row number for Parquet.
    columns : dict of str to list
        Requested field -> its value in each record, as the format gives it; None if it is missing.
    malformed : list of (int, Malformed)
        Line number and reason of records that could not be read.
    """

    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    malformed: list[tuple[int, Malformed]] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """The fields to read from a file.

    Attributes
    ----------
    fields : tuple of str
        All fields to read, if they exist.
    required : tuple of str
        Columns that a delimited or Parquet file must have, and fields that every record of JSON Lines must have.
    header : tuple of str
        Further columns that a delimited or Parquet file must have.
    """

    fields: tuple[str, ...]
    required: tuple[str, ...]
    header: tuple[str, ...] = ()


def batches(file: RawFile, request: Request) -> Iterator[Batch]:
    """Yield the records of a file.

    Parameters
    ----------
    file : RawFile
        Of the format ``jsonl``, ``csv`` or ``parquet``.
    request : Request

    Raises
    ------
    UserError
        If the file does not exist, is truncated, has an unknown format or another encoding, lacks a column, or if a quote merges rows.
    """
    readers: dict[str, Callable[[BinaryIO, RawFile, Request], Iterator[Batch]]]
    readers = {"jsonl": _json_lines, "csv": _delimited, "parquet": _parquet}
    path, kind = file.path, file.format
    if kind not in readers:
        raise UserError(
            f"{path}: unknown format; accepted: {', '.join(FORMATS)}, each also with .gz. Or set `format` in data to jsonl, csv or parquet"
        )
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b" or path.suffix.lower() == ".gz"
            raw.seek(0)
            handle = gzip.GzipFile(fileobj=raw) if zipped else raw  # both can seek: Parquet is read from its end
            yield from readers[kind](handle, file, request)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `data` in params.yaml names the files of rows (`dvc pull` fetches the sample)") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a complete gzip file ({error}); copy or download it again") from error


def detect_encoding(sample: bytes) -> str | None:
    """The likely encoding of a text that is not UTF-8, for messages; None if it cannot be determined."""
    from charset_normalizer import from_bytes

    for mark, name in _BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return name
    best = from_bytes(sample[: 1 << 20]).best()
    return None if best is None else best.encoding


def _text_lines(handle: BinaryIO, file: RawFile, newline: str) -> Iterator[str]:
    """Yield decoded lines with their line ends, without a byte order mark.

    Undecodable bytes become surrogates from U+DC80 to U+DCFF, so that `babelcart.rows.readers` can name the field.

    Raises
    ------
    UserError
        If the file has the byte order mark of an encoding that is not set, or a byte sequence that the encoding cannot skip.
    """
    encoding = file.options.encoding or "utf-8"
    start = handle.read(4)
    handle.seek(0)
    for mark, name in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark) and file.options.encoding is None:
            raise UserError(f"{file.path} is {name} text, not UTF-8; set `encoding: {name.lower()}` for it in data")
    if file.options.encoding is None and b"\0" in start[:2]:
        raise UserError(
            f"{file.path} looks like UTF-16 text without a byte order mark; set `encoding: utf-16-le` or utf-16-be for it in data"
        )
    lines = io.TextIOWrapper(handle, encoding=encoding, errors="surrogateescape", newline=newline)
    try:
        first = next(lines, None)
        if first is not None:
            yield first.removeprefix("\ufeff")
        yield from lines
    except UnicodeError as error:
        raise UserError(f"{file.path} is not valid {encoding} text ({error}); set another `encoding` for it in data") from error
    finally:
        with suppress(ValueError):
            lines.detach()


def _check_columns(file: RawFile, columns: Sequence[str], request: Request) -> None:
    """Raise UserError if a required column is missing or a requested one occurs twice."""
    missing = [name for name in (*request.required, *request.header) if name not in columns]
    if missing:
        other = next((text for text in _DELIMITERS if file.format == "csv" and len(columns) == 1 and text in columns[0]), None)
        if other:
            raise UserError(
                f"{file.path}: the header has a single column, {short_repr(columns[0])}; the file seems to be separated by "
                f"{_DELIMITERS[other]}. Set `delimiter: {json.dumps(other)}` for it in data"
            )
        raise UserError(
            f"{file.path}: no column {', '.join(map(repr, dict.fromkeys(missing)))}; it has {short_repr(list(columns))}. "
            "If your columns have other names, set `columns` in data, for example columns: {origin_query: search_term}; "
            "`constants` sets a column to one value, and `columns: {id: null}` uses line numbers as ids"
        )
    repeated = [name for name in request.fields if columns.count(name) > 1]
    if repeated:
        raise UserError(f"{file.path}: the column {repeated[0]!r} occurs twice")


def _json_lines(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    numbered = enumerate(_text_lines(handle, file, "\n"), 1)
    while chunk := list(itertools.islice(numbered, BATCH_ROWS)):
        batch, records = Batch(), []
        for line_number, line in chunk:
            if not (text := line.strip()):
                continue
            try:
                record = _json_record(line, text, request)
            except Malformed as error:
                if line_number == 1:
                    _refuse_other_formats(file, text)
                batch.malformed.append((line_number, error))
            else:
                batch.lines.append(line_number)
                records.append(record)
        batch.columns = {name: [record.get(name) for record in records] for name in request.fields}
        yield batch


def _json_record(line: str, text: str, request: Request) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_json_object)
    except (ValueError, RecursionError) as error:
        reason = f"not JSON ({error})" if "\0" not in line else "contains a NUL byte"
        raise Malformed("the line", text.encode("utf-8", "replace").decode("utf-8"), reason) from None
    if not isinstance(record, dict):
        raise Malformed("the line", text, "expected a JSON object")
    for name in request.required:
        if record.get(name) is None:
            raise Malformed(name, "", f"the field is missing; the row has {short_repr(list(record))}")
    return record


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if it has a key twice."""
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return record


def _refuse_other_formats(file: RawFile, first_line: str) -> None:
    """Raise UserError if the first line of a file that should be JSON Lines looks like that of another format."""
    if first_line.startswith("{"):
        return  # a damaged row
    if first_line == "[" or first_line.startswith("[{"):
        raise UserError(f"{file.path} is one JSON array, not JSON Lines; convert it with `jq -c '.[]' {file.path.name} > rows.jsonl`")
    for delimiter, name in _DELIMITERS.items():
        if delimiter in first_line and first_line[0] not in "[{":
            suffix = {"\t": "name it .tsv or ", ",": "name it .csv or "}.get(delimiter, "")
            raise UserError(
                f"{file.path}, line 1: {short_repr(first_line)} is not JSON; the file seems to be separated by {name}: "
                f"{suffix}set `delimiter: {json.dumps(delimiter)}` for it in data"
            )


class _RecordedLines(Iterator[str]):
    """Lines of a file; those read since the last `clear` are kept in `pending`."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.pending: list[str] = []

    def __next__(self) -> str:
        line = next(self._lines)
        self.pending.append(line)
        return line


def _dialect(options: ReadOptions, delimiter: str, quoting: str) -> dict[str, Any]:
    """The arguments of `csv.reader`."""
    plain = quoting == "none"
    return {
        "delimiter": delimiter, "escapechar": options.escape, "strict": True,
        "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, "quotechar": None if plain else '"',
    }  # fmt: skip


def _delimited(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    delimiter = delimiter_of(file)
    quoting = file.options.quoting or ("minimal" if delimiter != "\t" else _tab_quoting(handle, file))
    lines = _RecordedLines(_text_lines(handle, file, ""))
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines, **_dialect(file.options, delimiter, quoting))
    if file.options.header is None:
        header = _read_header(reader, file, request)
        lines.pending.clear()
    else:
        header = list(file.options.header)
    _check_columns(file, header, request)
    positions = {name: header.index(name) for name in request.fields if name in header}
    records = _records(reader, lines, file, len(header), delimiter if quoting == "minimal" else None)
    while True:
        batch, rows = Batch(), []
        for line_number, values in itertools.islice(records, BATCH_ROWS):
            if isinstance(values, Malformed):
                batch.malformed.append((line_number, values))
            else:
                batch.lines.append(line_number)
                rows.append(values)
        if not batch.lines and not batch.malformed:
            return
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        batch.columns = {name: list(columns[positions[name]]) if name in positions else [None] * len(rows) for name in request.fields}
        yield batch


def delimiter_of(file: RawFile) -> str:
    """The delimiter of a delimited file: that of its options, else a tab for ``.tsv`` and a comma for other names."""
    return file.options.delimiter or ("\t" if ".tsv" in [suffix.lower() for suffix in file.path.suffixes] else ",")


def _read_header(reader: Any, file: RawFile, request: Request) -> list[str]:
    try:
        header: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{file.path}, line 1: not a header ({error})") from error
    if header is None:
        raise UserError(f"{file.path} is empty; expected a header with {', '.join(request.required)}")
    return header


def _records(
    reader: Any, lines: _RecordedLines, file: RawFile, width: int, quoted_delimiter: str | None
) -> Iterator[tuple[int, list[str] | Malformed]]:
    """Yield line number and values of each record; `quoted_delimiter` is the delimiter if merged rows are to be refused."""
    while True:
        line_number = reader.line_num + 1  # of the first line of the record: quoted fields may contain line breaks
        lines.pending.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if len(lines.pending) > 1:
                raise _merged_rows(file, line_number, reader.line_num, str(error)) from error
            yield line_number, Malformed("the line", "", f"not {_kind(file)} ({error})")
            continue
        if not values:
            continue
        if (
            len(lines.pending) > 1
            and quoted_delimiter
            and (len(values) != width or _look_like_rows(lines.pending, quoted_delimiter, width))
        ):
            raise _merged_rows(file, line_number, reader.line_num, f"the record has {len(values)} of {width} fields")
        if len(values) != width:
            yield line_number, Malformed("the line", f"{len(values)} fields", f"expected {width} fields, one for each column")
        else:
            yield line_number, values


def _kind(file: RawFile) -> str:
    return "TSV" if delimiter_of(file) == "\t" else "CSV"


def _look_like_rows(lines: Sequence[str], delimiter: str, width: int) -> bool:
    """Whether each line of a record with line breaks has the fields of a complete row, if quotes are read as characters."""
    return all(line.count(delimiter) == width - 1 for line in lines)


def _merged_rows(file: RawFile, first: int, last: int, reason: str) -> UserError:
    return UserError(
        f"{file.path}, lines {first} to {last}: a double quote opens a field that does not end on its line, so that the lines become one "
        f"record ({reason}). If quotes are ordinary characters in this file, such as inch marks, set `quoting: none` for it in data. "
        "If the field does contain line breaks, set `quoting: multiline`. Otherwise, correct the quotes."
    )


def _tab_quoting(handle: BinaryIO, file: RawFile) -> str:
    """Whether the quotes of a tab-separated file delimit fields (``minimal``) or are ordinary characters (``none``).

    They delimit fields if the whole file can be read so without merged rows, and in every record either each quoted field needs its quotes
    (it contains a tab, quote, comma or line break) or all text is quoted. This is how spreadsheets and libraries write such files.
    """
    lines = _RecordedLines(_text_lines(handle, file, ""))
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines, **_dialect(file.options, "\t", "minimal"))
    width, quoting = None, "minimal"
    try:
        for values in reader:
            width = len(values) if width is None else width
            if any('"' in line for line in lines.pending):
                merged = len(lines.pending) > 1 and _look_like_rows(lines.pending, "\t", width)
                if len(values) != width or merged or not _quotes_delimit("".join(lines.pending), values):
                    quoting = "none"
                    break
            lines.pending.clear()
    except csv.Error:
        quoting = "none"
    handle.seek(0)
    return quoting


def _quotes_delimit(record: str, values: Sequence[str]) -> bool:
    """Whether the quoted fields of a record need their quotes, or all its texts are quoted."""
    quoted = _QUOTED.findall(record)
    if all(re.search('[\t",\r\n]', content) for content in quoted):
        return True
    texts = sum(not re.fullmatch(r"[-+]?[0-9.]+", value) for value in values)
    return len(quoted) >= texts


def _parquet(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(handle)
        names = parquet.schema_arrow.names
        _check_columns(file, names, request)
        yield from arrow_batches(parquet.iter_batches(BATCH_ROWS, columns=[name for name in request.fields if name in names]), request)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{file.path} is not a readable Parquet file ({error}); copy or download it again") from error


def arrow_batches(record_batches: Iterator[Any], request: Request) -> Iterator[Batch]:
    """Yield Arrow record batches as `Batch`; the line numbers are row numbers."""
    first_row = 1
    for record_batch in record_batches:
        rows = record_batch.num_rows
        names = record_batch.schema.names
        columns = {name: record_batch.column(names.index(name)).to_pylist() if name in names else [None] * rows for name in request.fields}
        yield Batch(list(range(first_row, first_row + rows)), {name: list(map(_decoded, values)) for name, values in columns.items()})
        first_row += rows


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
