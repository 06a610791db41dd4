"""Batches of records of raw files, with what the readers of text formats share: decoding, and checks of the columns."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from babelcart.core.errors import UserError, short_repr
from babelcart.reading.containers import is_utf8
from babelcart.reading.encodings import BYTE_ORDER_MARKS
from babelcart.reading.sources import RawFile

if TYPE_CHECKING:
    import pyarrow as pa

# The values of a column: an array where the format gives one, else a list.
Values: TypeAlias = "list[Any] | pa.Array"

BATCH_ROWS = 50_000
# The beginning of the reason for which undecodable texts are refused.
UNDECODED = "is not valid "
# Metadata of a column of `Batch.records` that holds JSON texts.
JSON = {b"content": b"json"}
DELIMITERS = {"\t": "tabs", ";": "';'", "|": "'|'", ",": "','"}


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
    lines : sequence of int
        Line number of each record; row number for Parquet.
    columns : dict of str to list or pyarrow.Array
        Requested field that the file has -> its value in each record, as the format gives it; None if it is missing. Arrays hold integers
        or texts (large_string) that are valid UTF-8.
    malformed : list of (int, Malformed)
        Line number and reason of records that could not be read.
    records : pyarrow.Table
        The records with all fields of the file; None unless the request asks for them. Their values are the texts of delimited files,
        JSON texts of JSON Lines (marked as `JSON`), and of any type in Parquet.
    """

    lines: Sequence[int] = field(default_factory=list)
    columns: dict[str, Values] = field(default_factory=dict)
    malformed: list[tuple[int, Malformed]] = field(default_factory=list)
    records: pa.Table = None


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
    records : bool
        Whether to give `Batch.records`, too.
    """

    fields: tuple[str, ...]
    required: tuple[str, ...]
    header: tuple[str, ...] = ()
    records: bool = False


def check_unicode(name: str, value: str, encoding: str | None) -> None:
    """Raise `Malformed` if a text has surrogates: undecodable bytes (see `text_lines`), or halves of pairs from JSON.

    Parameters
    ----------
    name : str
        Field of the text, for the message.
    value : str
    encoding : str, optional
        Encoding of the file; the default is UTF-8.
    """
    surrogates = [] if value.isascii() else [character for character in value if "\ud800" <= character <= "\udfff"]
    if surrogates:
        undecoded = all("\udc80" <= character <= "\udcff" for character in surrogates)
        content = value.encode("utf-8", "surrogateescape" if undecoded else "backslashreplace")
        shown = content.decode("utf-8", "backslashreplace")
        raise Malformed(
            name, shown, f"{UNDECODED}{encoding or 'UTF-8'}" if undecoded else "contains half a surrogate pair, and is not valid UTF-8"
        )


def as_list(values: Values) -> list[Any]:
    """Return the values of a column as objects of Python."""
    converted: list[Any] = values if isinstance(values, list) else values.to_pylist()
    return converted


def text_lines(handle: BinaryIO, file: RawFile, newline: str) -> Iterator[str]:
    """Yield decoded lines with their line ends, without a byte order mark.

    Undecodable bytes become surrogates from U+DC80 to U+DCFF, so that `babelcart.reading.readers` can name the field.

    Raises
    ------
    UserError
        If the file has the byte order mark of an encoding that is not set, or a byte sequence that the encoding cannot skip.
    """
    encoding = file.options.encoding or "utf-8"
    start = handle.read(4)
    handle.seek(0)
    for mark, name in BYTE_ORDER_MARKS.items():
        if start.startswith(mark) and file.options.encoding is None:
            raise UserError(f"{file.path} is {name} text, not UTF-8; set `encoding: {name.lower()}` for it in data")
    if file.options.encoding is None and b"\0" in start[:2]:
        raise UserError(
            f"{file.path} looks like UTF-16 text without a byte order mark; set `encoding: utf-16-le` or utf-16-be for it in data"
        )
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig") and is_utf8(handle):
        raise UserError(f"{file.path} is UTF-8 text, but its `encoding` in data is {encoding}; remove this option, or set it to utf-8")
    lines = io.TextIOWrapper(handle, encoding=encoding, errors="surrogateescape", newline=newline)
    try:
        first = next(lines, None)
        if first is not None:
            yield first.removeprefix("\ufeff")
        for line in lines:  # noqa: UP028 - `yield from` would close the file together with this generator
            yield line
    except UnicodeError as error:
        raise UserError(f"{file.path} is not valid {encoding} text ({error}); set another `encoding` for it in data") from error
    finally:
        with suppress(ValueError):
            lines.detach()


def check_columns(file: RawFile, columns: Sequence[str], request: Request) -> None:
    """Raise UserError if a required column is missing or a requested one occurs twice."""
    missing = [name for name in (*request.required, *request.header) if name not in columns]
    if missing:
        other = next((text for text in DELIMITERS if file.format == "csv" and len(columns) == 1 and text in columns[0]), None)
        if other:
            raise UserError(
                f"{file.path}: the header has a single column, {short_repr(columns[0])}; the file seems to be separated by "
                f"{DELIMITERS[other]}. Set `delimiter: {json.dumps(other)}` for it in data"
            )
        raise UserError(
            f"{file.path}: no column {', '.join(map(repr, dict.fromkeys(missing)))}; it has {short_repr(list(columns))}. "
            "If your columns have other names, set `columns` in data, for example columns: {origin_query: search_term}; "
            "`constants` sets a column to one value, and `columns: {id: null}` uses line numbers as ids"
        )
    repeated = [name for name in (columns if request.records else request.fields) if columns.count(name) > 1]
    if repeated:
        raise UserError(f"{file.path}: the column {repeated[0]!r} occurs twice")
