"""The formats of raw files: JSON Lines, delimited text and Parquet, read as batches of columns."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from babelcart.core.errors import UserError, short_repr
from babelcart.reading.batches import (
    BATCH_ROWS,
    DELIMITERS,
    JSON,
    Batch,
    Malformed,
    Request,
    Values,
    check_columns,
    check_unicode,
    text_lines,
)
from babelcart.reading.containers import inner_name, open_container, refusal
from babelcart.reading.delimited import delimited
from babelcart.reading.sources import RawFile

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


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
    readers = {"jsonl": _json_lines, "csv": delimited, "parquet": _parquet}
    path, kind = file.path, file.format
    try:
        if kind not in readers:
            if message := refusal(path):
                raise UserError(message)
            accepted = f"{', '.join(FORMATS)}, each also compressed"
            raise UserError(f"{path}: unknown format; accepted: {accepted}. Or set `format` in data to jsonl, csv or parquet")
        with open_container(path) as container, _seekable(container) as handle:
            yield from _with_progress(readers[kind](handle, file, request), handle, path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `data` in params.yaml names the files of rows (`dvc pull` fetches the sample)") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file") from None


@contextmanager
def _seekable(container: BinaryIO) -> Iterator[BinaryIO]:
    """The file itself, or a temporary copy of its content if it cannot seek, because Parquet is read from its end."""
    if container.seekable():
        yield container
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(container, copy)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _with_progress(file_batches: Iterator[Batch], handle: BinaryIO, path: Path) -> Iterator[Batch]:
    """Yield batches while a progress bar shows the bytes read; quiet if standard error is not a terminal."""
    from tqdm import tqdm

    # The size of a compressed file's content is not known.
    total = None if inner_name(path) != path.name else path.stat().st_size
    with tqdm(total=total, desc=f"read {path.name}", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for batch in file_batches:
            bar.update(max(0, handle.tell() - bar.n))
            yield batch


def _json_lines(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    numbered = enumerate(text_lines(handle, file, "\n"), 1)
    while chunk := list(itertools.islice(numbered, BATCH_ROWS)):
        line_numbers, records, malformed = [], [], []
        for line_number, line in chunk:
            if not (text := line.strip()):
                continue
            try:
                if request.records:
                    check_unicode("the line", text, file.options.encoding)
                record = _json_record(line, text, request)
            except Malformed as error:
                if line_number == 1:
                    _refuse_other_formats(file, text)
                malformed.append((line_number, error))
            else:
                line_numbers.append(line_number)
                records.append(record)
        columns: dict[str, Values] = {name: [record.get(name) for record in records] for name in request.fields}
        yield Batch(line_numbers, columns, malformed, _json_table(records) if request.records else None)


def _json_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return all fields of JSON objects as JSON texts; null where an object lacks the field."""
    import pyarrow as pa

    columns = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        columns[name] = pa.array([None if value is None else json.dumps(value) for value in values], pa.large_string())
    return pa.table(columns, pa.schema([pa.field(name, pa.large_string(), metadata=JSON) for name in columns]))


def _json_record(line: str, text: str, request: Request) -> dict[str, Any]:
    try:
        record = _JSON.decode(line)
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
    """Return a JSON object; raises ValueError if it has a key twice."""
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return record


# `json.loads` would make a decoder for each line.
_JSON = json.JSONDecoder(object_pairs_hook=_json_object)


def _refuse_other_formats(file: RawFile, first_line: str) -> None:
    """Raise UserError if the first line of a file that should be JSON Lines looks like that of another format."""
    if first_line.startswith("{"):
        return  # a damaged row
    for delimiter, name in DELIMITERS.items():
        if delimiter in first_line and first_line[0] not in "[{":
            suffix = {"\t": "name it .tsv or ", ",": "name it .csv or "}.get(delimiter, "")
            raise UserError(
                f"{file.path}, line 1: {short_repr(first_line)} is not JSON; the file seems to be separated by {name}: "
                f"{suffix}set `delimiter: {json.dumps(delimiter)}` for it in data"
            )


def _parquet(handle: BinaryIO, file: RawFile, request: Request) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(handle)
        names = parquet.schema_arrow.names
        check_columns(file, names, request)
        columns = names if request.records else [name for name in request.fields if name in names]
        yield from arrow_batches(parquet.iter_batches(BATCH_ROWS, columns=columns), request)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{file.path} is not a readable Parquet file ({error}); copy or download it again") from error


def arrow_batches(record_batches: Iterator[Any], request: Request) -> Iterator[Batch]:
    """Yield Arrow record batches as `Batch`; the line numbers are row numbers."""
    import pyarrow as pa

    first_row = 1
    for record_batch in record_batches:
        rows = record_batch.num_rows
        names = record_batch.schema.names
        columns = {name: _values(record_batch.column(names.index(name))) for name in request.fields if name in names}
        records = pa.Table.from_batches([record_batch]) if request.records else None
        yield Batch(range(first_row, first_row + rows), columns, records=records)
        first_row += rows


def _values(array: Any) -> Values:
    """Return the values of an Arrow array of any type.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a text is not valid UTF-8.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        texts = array.cast(pa.large_string())
        texts.validate(full=True)
        return texts
    if pa.types.is_float16(array.type) or pa.types.is_float32(array.type):
        return _shortest_decimals(array)
    return array if pa.types.is_integer(array.type) else list(map(_decoded, array.to_pylist()))


def _shortest_decimals(array: Any) -> list[float | None]:
    """Return float16 or float32 numbers as the shortest decimals that identify them: 2.33, not 2.3299999237060547."""
    number = array.type.to_pandas_dtype()
    return [None if value is None else float(str(number(value))) for value in array.to_pylist()]


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
