"""Read rows and labels from raw files, which may contain malformed rows.

All text stays text: "nan", "null" and "007" are queries like any other. `babelcart.rows.table` describes the columns of a row.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import is_safe_path
from babelcart.core.tasks import CANDIDATE_FIELD
from babelcart.rows import languages
from babelcart.rows.table import PREPARED_COLUMNS, RAW_COLUMNS
from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "dev", "test")
FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
MAX_FIELD = 2**24  # characters of a CSV field


@dataclass(frozen=True)
class TaskFiles:
    """Names of a task's files, relative to ``data.path``; an empty tuple if the task has no such file."""

    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    # Files of ``id, label``, for rows without labels.
    dev_labels: tuple[str, ...] = ()
    test_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names():
            if not is_safe_path(name):
                raise ValueError(f"{name!r} is not a file inside data.path; accepted: names such as train.txt or more/train.csv")

    def names(self) -> list[str]:
        """Names of all files."""
        return [*self.train, *self.dev, *self.test, *self.dev_labels, *self.test_labels]


@dataclass(frozen=True)
class Data:
    """The section ``data`` of params.yaml."""

    SECTION: ClassVar[str] = "data"

    path: str
    qc: TaskFiles | None = None
    qi: TaskFiles | None = None

    def files(self, task: str) -> TaskFiles:
        """Names of the files of a task.

        Raises
        ------
        UserError
            If the section does not list the task.
        """
        files: TaskFiles | None = getattr(self, task)
        if files is None:
            raise UserError(f"params.yaml: tasks names {task!r}, but data.{task} lists no files; add them, or remove {task!r} from tasks")
        return files


@dataclass(frozen=True)
class Prepare:
    """The section ``prepare`` of params.yaml."""

    SECTION: ClassVar[str] = "prepare"

    # Column of a row -> name of the column in the files, where they differ.
    columns: dict[str, str] = field(default_factory=dict)
    max_broken_rows: int = bounded(0, 2**53, default=0)
    contradictions: Literal["majority", "drop"] = "majority"


@dataclass(frozen=True)
class Problem:
    """One malformed row: where it is and what is wrong."""

    file: str
    line: int
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        value = self.value if len(self.value) <= 80 else self.value[:77] + "..."
        return f"{self.file}, line {self.line}, {self.field}: {self.reason}; found {value!r}"


class BrokenRows(UserError):
    """More rows are malformed than ``prepare.max_broken_rows`` allows."""

    def __init__(self, problems: Sequence[Problem], allowed: int) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  {problem}" for problem in self.problems[:20])
        more = f"\n  ... and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        super().__init__(
            f"{len(self.problems)} broken rows, {allowed} allowed (prepare.max_broken_rows in params.yaml):\n{listed}{more}\n"
            "Fix the files, or raise prepare.max_broken_rows to leave out such rows; nothing was written."
        )


class _Malformed(Exception):
    """A row that cannot be used, as a field, its value and the reason."""

    def __init__(self, field: str, value: str, reason: str) -> None:
        super().__init__(field, value, reason)

    def at(self, path: Path, line: int) -> Problem:
        return Problem(str(path), line, *self.args)


# A row as its format gives it: field -> value. Formats that are read line by line give an exception for a malformed line.
_Record = Mapping[str, Any] | _Malformed


def read_rows(
    paths: Sequence[Path], task: str, columns: Mapping[str, str] | None = None, *, labelled: bool
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read the rows of one task from one or more files.

    Parameters
    ----------
    paths : sequence of Path
        ``.txt`` and ``.jsonl`` (JSON Lines), ``.csv``, ``.tsv`` or ``.parquet`` files, each optionally with ``.gz``.
    task : str
        ``qc`` or ``qi``. If a file has a column ``task``, it must agree.
    columns : mapping, optional
        Column of a row -> name of the column in the files, where it differs from the competition's.
    labelled : bool
        Whether every row must have a label. A label that exists is always checked.

    Returns
    -------
    tuple
        The well-formed rows, in the order of the files, with the columns `PREPARED_COLUMNS`; and one `Problem` for each other row.

    Raises
    ------
    UserError
        If a file does not exist, is empty or truncated, has an unknown format, or lacks a required column.
    """
    import pandas as pd

    names = {name: name for name in PREPARED_COLUMNS} | {"candidate": CANDIDATE_FIELD[task]} | dict(columns or {})
    required = [names[name] for name in RAW_COLUMNS if name != "label" or labelled]
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    first_uses: dict[str, str] = {}
    for path in paths:
        record_count = 0
        for line, record in _records(path, required):
            record_count += 1
            try:
                row = _parse_row(record, names, task, labelled)
                if row[0] in first_uses:
                    raise _Malformed(names["id"], row[0], f"the id is already used in {first_uses[row[0]]}")
            except _Malformed as error:
                problems.append(error.at(path, line))
            else:
                first_uses[row[0]] = f"{path}, line {line}"
                rows.append(row)
        if not record_count:
            raise UserError(f"{path} has no rows; expected at least one")
    table = pd.DataFrame(rows, columns=list(PREPARED_COLUMNS))
    return table.astype({name: "str" for name in PREPARED_COLUMNS if name != "label"} | {"label": "Int8"}), problems


def read_labels(paths: Sequence[Path]) -> tuple[dict[str, int], list[Problem]]:
    """Read files of ``id, label``, with the formats and checks of `read_rows`.

    Returns
    -------
    tuple
        Id -> label (0 or 1), and one `Problem` for each malformed row.
    """
    labels: dict[str, int] = {}
    problems: list[Problem] = []
    for path in paths:
        for line, record in _records(path, ("id", "label")):
            try:
                fields = _fields(record)
                identifier, label = _text(fields, "id"), _label(fields, "label")
                if identifier in labels:
                    raise _Malformed("id", identifier, "the id occurs twice")
            except _Malformed as error:
                problems.append(error.at(path, line))
            else:
                labels[identifier] = label
    return labels, problems


def refuse_broken(problems: Sequence[Problem], allowed: int) -> None:
    """Raise `BrokenRows` if there are more problems than allowed."""
    if len(problems) > allowed:
        raise BrokenRows(problems, allowed)


def drop_uninformative(rows: pd.DataFrame, contradictions: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop training rows that are empty, duplicate or contradictory.

    Drops, in this order: rows without a query or a candidate; contradictions, that is the same language, query and candidate with both
    labels; and duplicates, of which the first row is kept. Texts are compared in normal form.

    Parameters
    ----------
    rows : pandas.DataFrame
        Labelled rows.
    contradictions : str
        ``majority`` keeps the more frequent label of contradictory rows, and neither on a tie; ``drop`` keeps neither.

    Returns
    -------
    tuple
        The remaining rows, in the order given, and the number of rows that each rule dropped.
    """
    counts = {"rows": len(rows)}
    texts = [(normalise(query), normalise(candidate)) for query, candidate in zip(rows.origin_query, rows.candidate, strict=True)]
    rows = rows.assign(_key=[f"{language}\0{query}\0{item}" for language, (query, item) in zip(rows.language, texts, strict=True)])
    counts["empty_query"] = sum(not query for query, _ in texts)
    counts["empty_candidate"] = sum(bool(query) and not candidate for query, candidate in texts)
    rows = rows[[bool(query) and bool(candidate) for query, candidate in texts]]

    votes = rows.groupby("_key", sort=False)["label"].agg(["sum", "count"]).astype("int64")
    contradictory = (votes["sum"] > 0) & (votes["sum"] < votes["count"])
    counts["contradictory_pairs"] = int(contradictory.sum())
    tie = 2 * votes["sum"] == votes["count"]
    kept_label = (2 * votes["sum"] > votes["count"]).astype("int8").mask(tie | (contradictions == "drop"), -1)
    dropped = rows["_key"].map(contradictory).to_numpy(bool) & (
        rows["label"].to_numpy("int8") != rows["_key"].map(kept_label).to_numpy("int8")
    )
    counts["contradictory"] = int(dropped.sum())
    rows = rows[~dropped]
    duplicate = rows.duplicated("_key")
    counts["duplicate"] = int(duplicate.sum())
    rows = rows[~duplicate].drop(columns="_key").reset_index(drop=True)
    counts["kept"] = len(rows)
    return rows, counts


def _fields(record: _Record) -> Mapping[str, Any]:
    if isinstance(record, _Malformed):
        raise record
    return record


def _parse_row(record: _Record, names: Mapping[str, str], task: str, labelled: bool) -> tuple[Any, ...]:
    """The values of `PREPARED_COLUMNS` of one row.

    Parameters
    ----------
    names : mapping
        Column of a row -> field of the record.

    Raises
    ------
    _Malformed
        If a field is missing or has a value that is not accepted.
    """
    fields = _fields(record)
    identifier, tag, query, candidate = (_text(fields, names[name]) for name in ("id", "language", "origin_query", "candidate"))
    if not identifier.strip():
        raise _Malformed(names["id"], identifier, "the id is empty")
    if names["task"] in fields and str(fields[names["task"]]).strip().lower() != task:
        raise _Malformed(names["task"], str(fields[names["task"]]), f"expected {task.upper()}")
    language = languages.iso_code(tag)
    if language is None:
        reason = "unknown language; accepted: ISO 639-1 codes and the aliases in babelcart/rows/languages.py"
        raise _Malformed(names["language"], tag, reason)
    has_label = labelled or fields.get(names["label"]) not in (None, "")
    return identifier, task, language, tag, query, candidate, _label(fields, names["label"]) if has_label else None


def _text(fields: Mapping[str, Any], name: str) -> str:
    """A field of text; an id may also be an integer."""
    value = fields.get(name)
    if value is None:
        raise _Malformed(name, "", f"the field is missing; the row has {short_repr(list(fields))}")
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _Malformed(name, repr(value), "expected a text")
    if "\0" in value:
        raise _Malformed(name, value, "contains a NUL byte")
    surrogates = [] if value.isascii() else [character for character in value if "\ud800" <= character <= "\udfff"]
    if surrogates:
        # `_lines` maps a byte that is not UTF-8 to a surrogate from U+DC80 to U+DCFF; JSON may contain any surrogate.
        undecoded = all("\udc80" <= character <= "\udcff" for character in surrogates)
        content = value.encode("utf-8", "surrogateescape" if undecoded else "backslashreplace")
        raise _Malformed(name, content.decode("utf-8", "backslashreplace"), "is not valid UTF-8")
    return value


def _label(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if value in ("0", "1") or (type(value) is int and value in (0, 1)):
        return int(value)
    reason = "the label is missing" if value is None else "the label is neither 0 nor 1"
    raise _Malformed(name, "" if value is None else str(value), reason)


def _records(path: Path, required: Sequence[str]) -> Iterator[tuple[int, _Record]]:
    """Yield line number and record of each row of a file.

    Parameters
    ----------
    path : Path
    required : sequence of str
        Columns that a CSV, TSV or Parquet file must have.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = "".join((suffixes[:-1] if zipped else suffixes)[-1:])
    parsers: dict[str, Callable[[BinaryIO, Path, Sequence[str]], Iterator[tuple[int, _Record]]]] = {
        ".txt": _json_lines, ".jsonl": _json_lines, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet,
    }  # fmt: skip
    if kind not in parsers:
        raise UserError(f"{path}: unknown format; accepted: {', '.join(FORMATS)}, each also with .gz")
    try:
        with path.open("rb") as raw:
            handle = gzip.GzipFile(fileobj=raw) if zipped else raw  # both can seek: Parquet is read from its end
            yield from parsers[kind](handle, path, required)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `data` in params.yaml names the files of rows (`dvc pull` fetches the sample)") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a complete gzip file ({error}); copy or download it again") from error


def _lines(handle: BinaryIO) -> Iterator[str]:
    """Yield decoded lines without a byte order mark. Bytes that are not UTF-8 become surrogates, so that `_text` can name the field."""
    for index, line in enumerate(handle):
        text = line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if index == 0 else text


def _json_lines(handle: BinaryIO, path: Path, required: Sequence[str]) -> Iterator[tuple[int, _Record]]:
    for line_number, line in enumerate(_lines(handle), 1):
        text = line.strip()
        if not text:
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            reason = f"not JSON ({error})" if "\0" not in line else "contains a NUL byte"
            yield line_number, _Malformed("the line", text.encode("utf-8", "replace").decode("utf-8"), reason)
        else:
            yield line_number, record if isinstance(record, dict) else _Malformed("the line", text, "expected a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if it has a key twice."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError(f"the key {_repeated([name for name, _ in pairs])[0]!r} occurs twice")
    return record


def _repeated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order."""
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _separated(handle: BinaryIO, path: Path, required: Sequence[str]) -> Iterator[tuple[int, _Record]]:
    kind, delimiter = ("TSV", "\t") if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ("CSV", ",")
    reader = csv.reader(_lines(handle), delimiter=delimiter, strict=True)
    csv.field_size_limit(MAX_FIELD)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{path}, line 1: not a header ({error})") from error
    if header is None:
        raise UserError(f"{path} is empty; expected a header with {', '.join(required)}")
    _check_columns(path, header, required)
    if repeated := sorted(_repeated(header)):
        raise UserError(f"{path}: the column {repeated[0]!r} occurs twice")
    while True:
        line_number = reader.line_num + 1  # of the first line of the record: quoted fields may contain line breaks
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line_number, _Malformed("the line", "", f"not {kind} ({error})")
            continue
        if values and len(values) != len(header):
            yield line_number, _Malformed("the line", f"{len(values)} fields", f"expected {len(header)} fields, one for each column")
        elif values:
            yield line_number, dict(zip(header, values, strict=True))


def _parquet(handle: BinaryIO, path: Path, required: Sequence[str]) -> Iterator[tuple[int, _Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(handle)
        _check_columns(path, file.schema_arrow.names, required)
        records = (record for batch in file.iter_batches() for record in batch.to_pylist())
        for row_number, record in enumerate(records, 1):
            yield row_number, {name: value for name, value in record.items() if value is not None}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}); copy or download it again") from error


def _check_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    """Raise UserError if a required column is missing."""
    if missing := [name for name in required if name not in columns]:
        raise UserError(
            f"{path}: no column {', '.join(map(repr, missing))}; it has {short_repr(columns)}. "
            "If your columns have other names, set prepare.columns in params.yaml"
        )
