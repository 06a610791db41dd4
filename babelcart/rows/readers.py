"""Read rows and labels from raw files, which may be malformed.

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
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, cast

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


@dataclass(frozen=True)
class TaskFiles:
    """Where the rows of a task are, relative to ``data.path``; an empty list means that there are none."""

    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    # Labels kept apart from the rows they belong to: files of ``id, label``.
    dev_labels: tuple[str, ...] = ()
    test_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for names in (self.train, self.dev, self.test, self.dev_labels, self.test_labels):
            for name in names:
                if not is_safe_path(name):
                    raise ValueError(f"{name!r} is no file inside data.path; accepted: names like train.txt or more/train.csv")


@dataclass(frozen=True)
class Data:
    """The section ``data`` of params.yaml."""

    SECTION: ClassVar[str] = "data"

    path: str
    qc: TaskFiles | None = None
    qi: TaskFiles | None = None

    def files(self, task: str) -> TaskFiles:
        found = getattr(self, task)
        if found is None:
            raise UserError(f"params.yaml: tasks names {task!r}, but data.{task} says no files; add them or take it out of tasks")
        return cast(TaskFiles, found)


@dataclass(frozen=True)
class Prepare:
    """The section ``prepare`` of params.yaml."""

    SECTION: ClassVar[str] = "prepare"

    # Field of the contract -> name of the column in the files, where they differ.
    columns: dict[str, str] = field(default_factory=dict)
    max_broken_rows: int = bounded(0, 2**53, default=0)
    contradictions: Literal["majority", "drop"] = "majority"


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row, and where."""

    file: str
    line: int
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 80 else self.value[:77] + "..."
        return f"{self.file}, line {self.line}, {self.field}: {self.reason}; found {shown!r}"


class BrokenRows(UserError):
    """More rows are broken than `prepare.max_broken_rows` tolerates."""

    def __init__(self, problems: Sequence[Problem], tolerated: int) -> None:
        self.problems = list(problems)
        shown = "\n".join(f"  {problem}" for problem in self.problems[:20])
        more = f"\n  ... and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        super().__init__(
            f"{len(self.problems)} broken rows, {tolerated} tolerated (prepare.max_broken_rows in params.yaml):\n{shown}{more}\n"
            "Mend the files, or raise prepare.max_broken_rows to leave such rows out; nothing was written."
        )


def read_rows(
    paths: Sequence[Path], task: str, columns: Mapping[str, str] | None = None, *, labelled: bool
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read the rows of one task from one or more files.

    Parameters
    ----------
    paths : sequence of Path
        ``.txt`` and ``.jsonl`` (JSON lines), ``.csv``, ``.tsv``, ``.parquet``; each may end in ``.gz`` too.
    task : str
        ``qc`` or ``qi``. A file's own ``task`` column, where it has one, must agree.
    columns : mapping, optional
        Field of the contract -> column name in the files, where it differs from the competition's.
    labelled : bool
        Whether every row must have a label; if not, a label that is there is still checked.

    Returns
    -------
    tuple
        The rows in file order, and one `Problem` for each row that was left out.

    Raises
    ------
    UserError
        If a file cannot be read at all: missing, empty, of an unknown format, truncated, or without a needed column.
    """
    import pandas as pd

    names = {"candidate": CANDIDATE_FIELD[task], **(columns or {})}
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    seen: dict[str, tuple[str, int]] = {}
    for path in paths:
        count = 0
        for line, record in _records(path, _needed(names, labelled)):
            count += 1
            found = record if isinstance(record, Problem) else _check(record, names, task, labelled, str(path), line)
            if isinstance(found, tuple) and found[0] in seen:
                first, where = seen[found[0]]
                found = Problem(str(path), line, names.get("id", "id"), found[0], f"id stands already in {first}, line {where}")
            if isinstance(found, Problem):
                problems.append(found)
            else:
                seen[found[0]] = (str(path), line)
                rows.append(found)
        if not count:
            raise UserError(f"{path} has no rows; expected at least one")
    table = pd.DataFrame(rows, columns=list(PREPARED_COLUMNS))
    table = table.astype({name: "str" for name in PREPARED_COLUMNS if name != "label"} | {"label": "Int8"})
    return table, problems


def read_labels(paths: Sequence[Path]) -> tuple[dict[str, int], list[Problem]]:
    """Read files of ``id, label`` into a mapping; formats and checks as in `read_rows`."""
    labels: dict[str, int] = {}
    problems: list[Problem] = []
    for path in paths:
        for line, record in _records(path, ("id", "label")):
            if isinstance(record, Problem):
                problems.append(record)
                continue
            identifier = _text(record, "id", str(path), line)
            label = _label(record, "label", str(path), line)
            if isinstance(identifier, Problem) or isinstance(label, Problem):
                problems += [value for value in (identifier, label) if isinstance(value, Problem)][:1]
            elif identifier in labels:
                problems.append(Problem(str(path), line, "id", identifier, "id stands twice"))
            else:
                labels[identifier] = label
    return labels, problems


def refuse_broken(problems: Sequence[Problem], tolerated: int) -> None:
    """Raise `BrokenRows` if there are more problems than are tolerated."""
    if len(problems) > tolerated:
        raise BrokenRows(problems, tolerated)


def drop_uninformative(rows: pd.DataFrame, contradictions: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop training rows that teach nothing or contradict one another.

    The rule, in this order: rows without a query or a candidate go; of rows with the same language, query, candidate
    and label (in normal form) the first stays; where labels contradict, ``majority`` keeps one row of the label that
    stood more often (none on a tie) and ``drop`` keeps none.

    Parameters
    ----------
    rows : pandas.DataFrame
        Labelled rows in the contract's columns.
    contradictions : str
        ``majority`` or ``drop``.

    Returns
    -------
    tuple
        The rows kept, in the order given, and how many went by which rule.
    """
    counts = {"rows": len(rows)}
    text = [(normalise(query), normalise(candidate)) for query, candidate in zip(rows.origin_query, rows.candidate, strict=True)]
    rows = rows.assign(_key=[f"{language}\0{q}\0{c}" for language, (q, c) in zip(rows.language, text, strict=True)])
    empty_query = [not q for q, _ in text]
    empty_candidate = [bool(q) and not c for q, c in text]
    counts["empty_query"], counts["empty_candidate"] = sum(empty_query), sum(empty_candidate)
    rows = rows[[not (a or b) for a, b in zip(empty_query, empty_candidate, strict=True)]]

    votes = rows.groupby("_key", sort=False)["label"].agg(["sum", "count"])
    positive, total = votes["sum"].astype("int64"), votes["count"].astype("int64")
    contradictory = (positive > 0) & (positive < total)
    winner = (2 * positive > total).astype("int8")
    undecided = contradictory & ((2 * positive == total) | (contradictions == "drop"))
    key_contradictory = rows["_key"].map(contradictory).to_numpy(bool)
    counts["contradictory_pairs"] = int(contradictory.sum())
    loses = (rows["_key"].map(undecided).to_numpy(bool)) | (
        key_contradictory & (rows["label"].to_numpy("int8") != rows["_key"].map(winner).to_numpy("int8"))
    )
    counts["contradictory"] = int(loses.sum())
    rows = rows[~loses]
    duplicate = rows.duplicated("_key")
    counts["duplicate"] = int(duplicate.sum())
    rows = rows[~duplicate].drop(columns="_key").reset_index(drop=True)
    counts["kept"] = len(rows)
    return rows, counts


def _needed(names: Mapping[str, str], labelled: bool) -> tuple[str, ...]:
    return tuple(names.get(name, name) for name in RAW_COLUMNS if name != "label" or labelled)


def _check(
    record: Mapping[str, Any], names: Mapping[str, str], task: str, labelled: bool, file: str, line: int
) -> tuple[Any, ...] | Problem:
    texts = {}
    for name in RAW_COLUMNS[:-1]:
        value = _text(record, names.get(name, name), file, line)
        if isinstance(value, Problem):
            return value
        texts[name] = value
    if not texts["id"].strip():
        return Problem(file, line, names.get("id", "id"), texts["id"], "the id is empty")
    task_field = names.get("task", "task")
    if task_field in record and str(record[task_field]).strip().lower() != task:
        return Problem(file, line, task_field, str(record[task_field]), f"expected {task.upper()}")
    language = languages.iso_code(texts["language"])
    if language is None:
        reason = "unknown language; accepted: ISO 639-1 codes and the aliases in babelcart/rows/languages.py"
        return Problem(file, line, names.get("language", "language"), texts["language"], reason)
    label: int | Problem | None = None
    label_field = names.get("label", "label")
    if labelled or record.get(label_field) not in (None, ""):
        label = _label(record, label_field, file, line)
        if isinstance(label, Problem):
            return label
    return (texts["id"], task, language, texts["language"], texts["origin_query"], texts["candidate"], label)


def _text(record: Mapping[str, Any], name: str, file: str, line: int) -> str | Problem:
    if name not in record or record[name] is None:
        return Problem(file, line, name, "", f"the field is missing; the row has {short_repr(list(record))}")
    value = record[name]
    if isinstance(value, int) and not isinstance(value, bool) and name == "id":
        value = str(value)
    if not isinstance(value, str):
        return Problem(file, line, name, repr(value), "expected a text")
    return _characters(value, name, file, line) or value


def _characters(value: str, name: str, file: str, line: int) -> Problem | None:
    if "\0" in value:
        return Problem(file, line, name, value, "holds a NUL byte")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        shown = value.encode("utf-8", "surrogateescape" if _escaped(value) else "backslashreplace").decode("utf-8", "backslashreplace")
        return Problem(file, line, name, shown, "is not valid UTF-8")
    return None


def _escaped(value: str) -> bool:
    return all("\udc80" <= character <= "\udcff" for character in value if "\ud800" <= character <= "\udfff")


def _label(record: Mapping[str, Any], name: str, file: str, line: int) -> int | Problem:
    value = record.get(name)
    if value in ("0", "1") or (type(value) is int and value in (0, 1)):
        return int(value)
    reason = "the label is missing" if value is None else "the label is neither 0 nor 1"
    return Problem(file, line, name, "" if value is None else str(value), reason)


def _records(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
    """``(line, record or problem)`` of each row of a file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    readers: dict[str, Callable[[BinaryIO, Path, Sequence[str]], Iterator[tuple[int, Any]]]] = {
        ".txt": _json_lines, ".jsonl": _json_lines, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet,
    }  # fmt: skip
    if not kind or kind[0] not in readers:
        raise UserError(f"{path}: unknown format; accepted: {', '.join(FORMATS)}, each also with .gz")
    try:
        with path.open("rb") as raw:
            # Seekable either way: Parquet reads from the end.
            yield from readers[kind[0]](gzip.GzipFile(fileobj=raw) if zipped else raw, path, needed)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; params.yaml: data says where the rows are (`dvc pull` fetches the sample)") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not whole ({error}); fetch it again") from error


def _lines(handle: BinaryIO) -> Iterator[str]:
    # Bytes that are not UTF-8 become lone surrogates, so that the field that holds them can be named later.
    for number, line in enumerate(handle):
        text = line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if number == 0 else text


def _json_lines(handle: BinaryIO, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(handle), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_no_twice)
        except (ValueError, RecursionError) as error:
            reason = f"not JSON ({error})" if "\0" not in line else "holds a NUL byte"
            yield number, Problem(str(path), number, "the line", line.strip().encode("utf-8", "replace").decode("utf-8"), reason)
            continue
        if not isinstance(record, dict):
            yield number, Problem(str(path), number, "the line", line.strip(), "expected a JSON object")
            continue
        yield number, record


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return record


def _separated(handle: BinaryIO, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Any]]:
    tabs = ".tsv" in [suffix.lower() for suffix in path.suffixes]
    # A line number is that of the first line of a record: quoted fields may hold line breaks.
    reader = csv.reader(_lines(handle), delimiter="\t" if tabs else ",", strict=True)
    csv.field_size_limit(2**24)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{path}, line 1: not a header ({error})") from error
    if header is None:
        raise UserError(f"{path} is empty; expected a header with {', '.join(needed)}")
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(map(repr, missing))}; it has {short_repr(header)}. "
            "Name the file's own columns in params.yaml: prepare.columns"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} stands twice")
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, Problem(str(path), line, "the line", "", f"not {'TSV' if tabs else 'CSV'} ({error})")
            continue
        if not fields:
            continue
        if len(fields) != len(header):
            reason = f"expected {len(header)} fields, one for each column"
            yield line, Problem(str(path), line, "the line", f"{len(fields)} fields", reason)
            continue
        yield line, dict(zip(header, fields, strict=True))


def _parquet(handle: BinaryIO, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(handle)
        missing = [name for name in needed if name not in file.schema_arrow.names]
        if missing:
            raise UserError(f"{path}: no column {', '.join(map(repr, missing))}; it has {short_repr(file.schema_arrow.names)}")
        line = 0
        for batch in file.iter_batches():
            for record in batch.to_pylist():
                line += 1
                yield line, {name: value for name, value in record.items() if value is not None}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}); fetch it again") from error
