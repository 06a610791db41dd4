"""Delimited text (CSV, TSV): records without rows that a stray quote merged."""

from __future__ import annotations

import csv
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from babelcart.core.errors import UserError
from babelcart.reading.batches import BATCH_ROWS, Batch, Malformed, Request, check_columns, check_unicode, text_lines
from babelcart.reading.containers import inner_name
from babelcart.reading.sources import RawFile, ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FIELD = 2**24  # characters of a field
# A quoted field of a tab-separated line, with its quotes.
_QUOTED = re.compile(r'(?:^|\t)"((?:[^"]|"")*)"(?=\t|\r?\n?$)', re.M)
# A first line by which Excel declares the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=.?"?\r?\n?', re.I)


class _RecordedLines(Iterator[str]):
    """Lines of a file, with their count; those read since `pending` was last cleared are kept in it."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.count = 0
        self.pending: list[str] = []

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        self.pending.append(line)
        return line


def _dialect(options: ReadOptions, delimiter: str, quoting: str) -> dict[str, Any]:
    """Return the arguments of `csv.reader`."""
    plain = quoting == "none"
    return {
        "delimiter": delimiter, "escapechar": options.escape, "strict": True,
        "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, "quotechar": None if plain else '"',
    }  # fmt: skip


def delimited(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    """Yield the records of a delimited file.

    Raises
    ------
    UserError
        If a column is missing or occurs twice, the header cannot be read, or a quote merges rows.
    """
    import pyarrow as pa

    delimiter = delimiter_of(file)
    quoting = file.options.quoting or ("minimal" if delimiter != "\t" else tab_quoting(handle, file))
    dialect = _dialect(file.options, delimiter, quoting)
    csv.field_size_limit(MAX_FIELD)
    lines = text_lines(handle, file, "")
    header, line_count = _header(lines, file, request, dialect)
    check_columns(file, header, request)
    while chunk := list(itertools.islice(lines, BATCH_ROWS)):
        columns = _one_record_a_line(chunk, header, header if request.records else request.fields, dialect)
        if columns is not None:
            records = pa.table(columns) if request.records else None
            requested = {name: columns[name] for name in request.fields if name in columns}
            yield Batch(range(line_count + 1, line_count + len(chunk) + 1), requested, records=records)
            line_count += len(chunk)
            continue
        recorded = _RecordedLines(itertools.chain(chunk, lines))
        line_numbers, rows, malformed = [], [], []
        for line_number, values in _records(recorded, file, len(header), dialect, line_count, quoting):
            if request.records and isinstance(values, list):
                values = _decoded(header, values, file)
            if isinstance(values, Malformed):
                malformed.append((line_number, values))
            else:
                line_numbers.append(line_number)
                rows.append(values)
            if recorded.count >= len(chunk):
                break
        line_count += recorded.count
        fields = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
        requested = {name: list(fields.get(name, ())) for name in request.fields if name in header}
        yield Batch(line_numbers, requested, malformed, _text_table(header, rows) if request.records else None)


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    """Return the texts of records, all of which are valid Unicode."""
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return pa.table({name: pa.array(column, pa.large_string()) for name, column in zip(header, columns, strict=True)})


def _decoded(header: Sequence[str], values: list[str], file: RawFile) -> list[str] | Malformed:
    """Return the values of a record, or the first one that is not valid Unicode."""
    try:
        for name, value in zip(header, values, strict=True):
            check_unicode(name, value, file.options.encoding)
    except Malformed as error:
        return error
    return values


def _header(lines: Iterator[str], file: RawFile, request: Request, dialect: dict[str, Any]) -> tuple[list[str], int]:
    """Return the names of the columns, and the number of lines that hold them."""
    if file.options.header is not None:
        return list(file.options.header), 0
    recorded = _RecordedLines(lines)
    try:
        header = next(csv.reader(recorded, **dialect), None)
        if len(recorded.pending) == 1 and _SEPARATOR_LINE.fullmatch(recorded.pending[0]):  # written by Excel; not part of the table
            header = next(csv.reader(recorded, **dialect), None)
    except csv.Error as error:
        raise UserError(f"{file.path}, line 1: not a header ({error})") from error
    if header is None:
        raise UserError(f"{file.path} is empty; expected a header with {', '.join(request.required)}")
    return header, recorded.count


def _one_record_a_line(
    lines: Sequence[str], header: Sequence[str], fields: Sequence[str], dialect: dict[str, Any]
) -> dict[str, pa.Array] | None:
    """Return the columns of `fields` if each line is a complete record; None if the csv module might read the lines differently."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text, delimiter = "".join(lines), dialect["delimiter"]
    has_quotes = dialect["quotechar"] is not None and '"' in text
    if len(header) < 2 or dialect["escapechar"] or not delimiter.isascii() or text.startswith("\ufeff"):
        return None
    if text.count("\r") != text.count("\r\n") or (has_quotes and '"' in _quoted_fields(delimiter).sub("", text)):
        return None
    if min(map(len, lines)) <= len("\r\n") or (len(text) > MAX_FIELD and max(map(len, lines)) > MAX_FIELD):
        return None  # an empty line is not a record; a long line may have a field that is too large
    positions = {name: str(header.index(name)) for name in fields if name in header}
    try:
        content = text.encode()
        table = arrow_csv.read_csv(
            pa.py_buffer(content),
            read_options=arrow_csv.ReadOptions(
                column_names=list(map(str, range(len(header)))), block_size=len(content) + 1, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if has_quotes else False, ignore_empty_lines=False, newlines_in_values=False
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(positions.values()) or ["0"],
                column_types={position: pa.large_string() for position in positions.values()},
                strings_can_be_null=False,
            ),
        )
    except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
        return None
    if len(table) != len(lines):
        return None
    return {name: table[position].combine_chunks() for name, position in positions.items()}


@functools.cache
def _quoted_fields(delimiter: str) -> re.Pattern[str]:
    """Return the pattern of a quoted field that ends on its line. If the lines have no other quotes, each line is a record."""
    separator = re.escape(delimiter)
    return re.compile(rf'(?:^|{separator})"[^"\r\n]*(?:""[^"\r\n]*)*"(?={separator}|\r?\n|\Z)', re.M)


def delimiter_of(file: RawFile) -> str:
    """Return the delimiter of a delimited file: that of its options, else a tab for ``.tsv`` and a comma for other names."""
    return file.options.delimiter or ("\t" if inner_name(file.path).lower().endswith(".tsv") else ",")


def _records(
    lines: _RecordedLines, file: RawFile, width: int, dialect: dict[str, Any], first_line: int, quoting: str
) -> Iterator[tuple[int, list[str] | Malformed]]:
    """Yield line number and values of each record; `first_line` is the number of lines before the first."""
    reader = csv.reader(lines, **dialect)
    while True:
        line_number = first_line + lines.count + 1  # of the first line of the record: quoted fields may contain line breaks
        lines.pending.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if len(lines.pending) > 1:
                raise _merged_rows(file, line_number, len(lines.pending), str(error)) from error
            yield line_number, Malformed("the line", "", f"not {_kind(file)} ({error})")
            continue
        if len(lines.pending) > 1:
            if len(values) != width:
                raise _merged_rows(file, line_number, len(lines.pending), f"it has {len(values)} of {width} fields")
            if quoting == "minimal" and _look_like_rows(lines.pending, dialect["delimiter"], width):
                raise _merged_rows(file, line_number, len(lines.pending), f"most lines have {width} fields or more")
        if values and len(values) != width:
            yield line_number, Malformed("the line", f"{len(values)} fields", f"expected {width} fields, one for each column")
        elif values:
            yield line_number, values


def _kind(file: RawFile) -> str:
    return "TSV" if delimiter_of(file) == "\t" else "CSV"


def _look_like_rows(lines: Sequence[str], delimiter: str, width: int) -> bool:
    """Return whether the lines of one record look like complete rows, if quotes are read as characters.

    The first line and more than half of all lines must have the delimiters of a row, or more: merged rows may contain a delimiter in a
    field, or a broken row between them.
    """
    complete = [line.count(delimiter) >= width - 1 for line in lines]
    return complete[0] and 2 * sum(complete) > len(lines)


def _merged_rows(file: RawFile, first: int, count: int, reason: str) -> UserError:
    return UserError(
        f"{file.path}, lines {first} to {first + count - 1}: a double quote opens a field that does not end on its line, so that the lines "
        f"become one record ({reason}). If quotes are ordinary characters in this file, such as inch marks, set `quoting: none` for it "
        "in data. If the field does contain line breaks, set `quoting: multiline`. Otherwise, correct the quotes."
    )


def tab_quoting(handle: BinaryIO, file: RawFile) -> str:
    """Return whether the quotes of a tab-separated file delimit fields (``minimal``) or are ordinary characters (``none``).

    They delimit fields if the whole file can be read so without merged rows, and in every record either each quoted field needs its quotes
    (it contains a tab, quote, comma or line break) or all text is quoted. This is how spreadsheets and libraries write such files.
    """
    lines = _RecordedLines(text_lines(handle, file, ""))
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
    """Return whether the quoted fields of a record need their quotes, or all its texts are quoted."""
    quoted = _QUOTED.findall(record)
    if all(re.search('[\t",\r\n]', content) for content in quoted):
        return True
    texts = sum(not re.fullmatch(r"[-+]?[0-9.]+", value) for value in values)
    return len(quoted) >= texts
