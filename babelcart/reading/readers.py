"""Read rows and labels from raw files, which may contain malformed rows.

All text stays text: "nan", "null" and "007" are queries like any other. `babelcart.rows.table` describes the columns of a row, and
`babelcart.reading.sources` the options for reading a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.reading.batches import UNDECODED, Batch, Request
from babelcart.reading.encodings import detect_encoding
from babelcart.reading.formats import arrow_batches, batches
from babelcart.reading.parsing import TEXTS, RowParser
from babelcart.reading.sources import Data, RawFile, ReadOptions
from babelcart.rows import taxonomy
from babelcart.rows.table import PREPARED_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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
    """More rows are malformed than are allowed: ``prepare.max_broken_rows`` in train, none in dev and test."""

    def __init__(self, problems: Sequence[Problem], allowed: int, remedy: str) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  {problem}" for problem in self.problems[:20])
        more = f"\n  ... and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        hint = _encoding_hint(self.problems)
        super().__init__(f"{len(self.problems)} broken rows, {allowed} allowed:\n{listed}{more}\n{hint}{remedy}; nothing was written.")


def _encoding_hint(problems: Sequence[Problem]) -> str:
    """Return a sentence about the likely encoding of the first file with undecodable bytes, or an empty text."""
    undecoded = next((problem for problem in problems if problem.reason.startswith(UNDECODED)), None)
    if undecoded is None:
        return ""
    with Path(undecoded.file).open("rb") as handle:
        encoding = detect_encoding(b"".join(line for line in handle.readlines(1 << 20) if not line.isascii()))
    return f"{undecoded.file} seems to be {encoding} text: set `encoding: {encoding}` for it in data.\n" if encoding else ""


def refuse_broken(problems: Sequence[Problem], allowed: int) -> None:
    """Raise `BrokenRows` if there are more problems in train than allowed."""
    if len(problems) > allowed:
        remedy = "Fix the files, or raise prepare.max_broken_rows in params.yaml to leave out such rows of train"
        raise BrokenRows(problems, allowed, remedy)


def refuse_any_broken(problems: Sequence[Problem]) -> None:
    """Raise `BrokenRows` if there is a problem in dev or test, where every row needs an answer."""
    if problems:
        raise BrokenRows(problems, 0, "Fix the files: every row of dev and test needs an answer, so that none can be left out")


@dataclass
class FileFacts:
    """Facts about the files of a split.

    Attributes
    ----------
    records : int
        Number of records that were read, without those that ``where`` excludes.
    unlabelled : int
        Number of train rows that were left out because their value has no label.
    separators : dict of str to str
        File -> separator of its category paths.
    used_keys, unused_keys : set of (str, str)
        Option and key of the keys of `languages` and `labels` that some row has, and that no row of some file has.
    warnings : list of str
        Facts that may show a wrong option.
    """

    records: int = 0
    unlabelled: int = 0
    separators: dict[str, str] = field(default_factory=dict)
    used_keys: set[tuple[str, str]] = field(default_factory=set)
    unused_keys: set[tuple[str, str]] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


def read_rows(files: Sequence[RawFile], task: str, *, labelled: bool) -> tuple[pd.DataFrame, list[Problem], FileFacts]:
    """Read the rows of one task from one or more files.

    Parameters
    ----------
    files : sequence of RawFile
        See `babelcart.reading.sources.Data.raw_files`.
    task : {"qc", "qi"}
        If a file has a column ``task``, it must agree.
    labelled : bool
        Whether every row must have a label, as in train. Rows whose value the label rule maps to null are then left out, and ids need to
        be unique only within a file. A label that exists is always checked.

    Returns
    -------
    tuple
        The well-formed rows, in the order of the files, with the columns `PREPARED_COLUMNS`; one `Problem` for each other row; and facts
        about the files.

    Raises
    ------
    UserError
        If a file cannot be read (see `babelcart.reading.formats.batches`) or has no rows.
    """
    import pandas as pd

    facts, problems, tables, id_lines = FileFacts(), [], [], []
    for file in files:
        table, lines, file_problems = _read_file(file, task, labelled, facts)
        duplicated = table["id"].duplicated()
        if duplicated.any():
            file_problems += _duplicate_ids(table, lines, duplicated, file, task)
            table, lines = table[~duplicated], lines[~duplicated.to_numpy()]
        problems += sorted(file_problems, key=lambda problem: problem.line)
        tables.append(table)
        id_lines.append((file, lines))
    rows = pd.concat(tables, ignore_index=True) if tables else _empty_table()
    if len(tables) > 1 and rows["id"].duplicated().any():
        rows, more_problems = _ids_of_several_files(rows, tables, id_lines, task, labelled)
        problems += more_problems
    return rows, problems, facts


@dataclass(frozen=True)
class Records:
    """Consecutive well-formed rows of a file.

    Attributes
    ----------
    rows : pyarrow.Table
        The requested columns of `babelcart.rows.table`.
    records : pyarrow.Table
        The same rows with all fields of the file, as they are there (`babelcart.reading.batches.Batch.records`).
    problems : list of Problem
        The malformed rows between them.
    """

    rows: pa.Table
    records: pa.Table
    problems: list[Problem]


def read_records(files: Sequence[RawFile], task: str, texts: Sequence[str], *, with_labels: bool = False) -> Iterator[Records]:
    """Yield the rows of files of any size, with all their fields. Ids are not read.

    Parameters
    ----------
    files : sequence of RawFile
    task : {"qc", "qi"}
        If a file has a column ``task``, it must agree.
    texts : sequence of str
        Columns of a row, out of ``language``, ``origin_query`` and ``candidate``, that each row must have.
    with_labels : bool
        Whether to read labels and grades of the rows that have them, too.

    Raises
    ------
    UserError
        If a file cannot be read (see `babelcart.reading.formats.batches`) or has no rows.
    """
    import numpy as np
    import pyarrow as pa

    columns = [*texts, *(("label", "grade") if with_labels else ())]
    optional = ("task", "label", "grade") if with_labels else ("task",)
    for file in files:
        numbered = dataclasses.replace(file, options=file.options.overridden_by(ReadOptions(columns={"id": None})))
        parser = RowParser(numbered, task, ("id", *texts), labelled=False, optional=optional, records=True)
        for batch in _batches(numbered, parser.request):
            parsed, lines, malformed = parser.parse(batch)
            kept = np.searchsorted(np.asarray(batch.lines, np.int64), np.asarray(lines, np.int64))
            rows = pa.table({name: pa.array(parsed[name], _arrow_type(name)) for name in columns})
            yield Records(
                rows,
                batch.records.take(pa.array(kept)),
                [Problem(str(file.path), line, *error.args) for line, error in sorted(malformed, key=_line)],
            )
        _refuse_empty(parser, file)


def _line(numbered: tuple[int, Any]) -> int:
    return numbered[0]


def _refuse_empty(parser: RowParser, file: RawFile) -> None:
    """Raise UserError if a parser has read no record of a file."""
    if not parser.records:
        filtered = f" that `where` accepts; it has {parser.rejected}" if parser.rejected else ""
        raise UserError(f"{file.path} has no rows{filtered}; expected at least one")


def read_labels(files: Sequence[RawFile], task: str) -> tuple[pd.DataFrame, list[Problem], FileFacts]:
    """Read files of ids and labels.

    Returns
    -------
    tuple
        A table with the columns ``id``, ``label`` (Int8, missing where the label rule gives null) and ``grade``; one `Problem` for each
        malformed row; and facts about the files.
    """
    import pandas as pd

    facts, tables, problems, lines_of = FileFacts(), [], [], []
    for file in files:
        parser = RowParser(file, task, ("id",), labelled=True)
        columns, lines, file_problems = _read_columns(file, parser)
        facts.records += parser.records
        facts.used_keys |= parser.used_keys
        facts.unused_keys |= parser.unused_keys()
        problems += file_problems
        tables.append(pd.DataFrame({"id": columns["id"], "label": columns["label"], "grade": columns["grade"]}).astype(_DTYPES_OF_LABELS))
        lines_of += [(str(file.path), line) for line in lines.tolist()]
    labels = pd.concat(tables, ignore_index=True)
    for index in labels.index[labels["id"].duplicated()]:
        path, line = lines_of[index]
        problems.append(Problem(path, line, "id", labels["id"][index], "the id occurs twice"))
    return labels.drop_duplicates("id", ignore_index=True), problems, facts


def read_ids(data: Data, task: str, split: str) -> list[str]:
    """Return the ids of a split in the order of the raw files, without checking other columns.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    files = data.raw_files(task, split)
    parsers = [RowParser(file, task, ("id",), labelled=False, optional=()) for file in files]
    ids = [_read_columns(file, parser)[0]["id"].tolist() for file, parser in zip(files, parsers, strict=True)]
    flat = [identifier for file_ids in ids for identifier in file_ids]
    if len(set(flat)) < len(flat) and _are_numbered(files, task):
        return [prefix + identifier for prefix, file_ids in zip(_prefixes(files), ids, strict=True) for identifier in file_ids]
    return flat


_DTYPES_OF_LABELS = {"id": "str", "label": "Int8", "grade": "str"}


def _empty_table() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=list(PREPARED_COLUMNS)).astype(_dtypes())


def _dtypes() -> dict[Hashable, str]:
    dtypes: dict[Hashable, str] = {name: "str" for name in PREPARED_COLUMNS if name not in ("label", "levels")}
    return {**dtypes, "label": "Int8", "levels": "object"}


def _read_file(file: RawFile, task: str, labelled: bool, facts: FileFacts) -> tuple[pd.DataFrame, Any, list[Problem]]:
    """Return the rows of a file, the line number of each as an int64 array, and its problems; adds to `facts`."""
    import pandas as pd

    parser = RowParser(file, task, TEXTS, labelled=labelled)
    columns, lines, problems = _read_columns(file, parser)
    _refuse_empty(parser, file)
    table = pd.DataFrame({"task": task, **columns}).reindex(columns=list(PREPARED_COLUMNS))
    if task == "qc":
        paths = table["candidate"].unique()
        separator = file.options.separator or taxonomy.find_separator(paths)
        facts.separators[str(file.path)] = separator
        facts.warnings += [f"{file.path}: {warning}" for warning in taxonomy.odd_levels(paths, separator)]
        levels = {path: taxonomy.levels(path, separator) for path in paths}
        table["levels"] = [levels[path] for path in table["candidate"]]
    else:
        table["levels"] = [()] * len(table)
    facts.records += parser.records
    facts.unlabelled += parser.unlabelled
    facts.used_keys |= parser.used_keys
    facts.unused_keys |= parser.unused_keys()
    return table.astype(_dtypes()), lines, problems


def _read_columns(file: RawFile, parser: RowParser) -> tuple[dict[str, Any], Any, list[Problem]]:
    """Parse all batches of a file: column -> values of the well-formed rows, their line numbers (int64), and the problems."""
    import numpy as np
    import pyarrow as pa

    parts: dict[str, list[Any]] = {name: [] for name in parser.output}
    lines: list[Any] = []
    problems: list[Problem] = []
    for batch in _batches(file, parser.request):
        columns, batch_lines, malformed = parser.parse(batch)
        for name, values in columns.items():
            parts[name].append(pa.array(values, type=_arrow_type(name)) if isinstance(values, list) else values)
        lines.append(np.asarray(batch_lines, dtype=np.int64))
        problems += [Problem(str(file.path), line, *error.args) for line, error in malformed]
    arrays = {name: pa.chunked_array(chunks, type=_arrow_type(name)).to_pandas() for name, chunks in parts.items()}
    if "label" in arrays:
        arrays["label"] = arrays["label"].astype("Int8")
    return arrays, np.concatenate(lines) if lines else np.empty(0, dtype=np.int64), problems


def _arrow_type(column: str) -> Any:
    import pyarrow as pa

    return pa.int8() if column == "label" else pa.large_string()


def _batches(file: RawFile, request: Request) -> Iterator[Batch]:
    if file.format != "sql":
        return batches(file, request)
    from babelcart.reading.queries import QueryLimits, read_query

    if file.options.where:
        raise UserError(f"{file.path}: `where` in data does not apply to queries; write WHERE in the query")
    return arrow_batches(read_query(file.path, file.folder, request.required, QueryLimits(file.query_memory)), request)


def _duplicate_ids(table: pd.DataFrame, lines: Any, duplicated: pd.Series, file: RawFile, task: str) -> list[Problem]:
    """One `Problem` for each repeated id of a file."""
    repeated = set(table["id"][duplicated])
    first_lines: dict[str, int] = {}
    problems = []
    name = file.names(task)["id"] or "id"
    for identifier, line in zip(table["id"], lines.tolist(), strict=True):
        if identifier not in repeated:
            continue
        if identifier in first_lines:
            reason = f"the id is already used in {file.path}, line {first_lines[identifier]}"
            problems.append(Problem(str(file.path), line, name, identifier, reason))
        else:
            first_lines[identifier] = line
    return problems


def _are_numbered(files: Sequence[RawFile], task: str) -> bool:
    """Return whether the ids of all files are line numbers."""
    return all(file.names(task)["id"] is None and "id" not in (file.options.constants or {}) for file in files)


def _prefixes(files: Sequence[RawFile]) -> list[str]:
    """For each file, a prefix that makes its ids unique: its name, or its path if two files have the same name."""
    names = [f"{file.path.name}:" for file in files]
    return names if len(set(names)) == len(names) else [f"{file.path}:" for file in files]


def _ids_of_several_files(
    rows: pd.DataFrame, tables: Sequence[pd.DataFrame], id_lines: Sequence[tuple[RawFile, Any]], task: str, labelled: bool
) -> tuple[pd.DataFrame, list[Problem]]:
    """Return rows of several files with unique ids; ids that files share get the file's name in train and where ids are line numbers.

    In dev and test, ids are part of the submission, so that a shared id is a problem of the later row.
    """
    import pandas as pd

    files = [file for file, _ in id_lines]
    if labelled or _are_numbered(files, task):
        renamed = [prefix + table["id"] for prefix, table in zip(_prefixes(files), tables, strict=True)]
        return rows.assign(id=pd.concat(renamed, ignore_index=True).astype("str")), []
    places = [(str(file.path), line) for file, lines in id_lines for line in lines.tolist()]
    first: dict[str, str] = {}
    problems = []
    for identifier, (path, line) in zip(rows["id"], places, strict=True):
        if identifier in first:
            problems.append(Problem(path, line, "id", identifier, f"the id is already used in {first[identifier]}"))
        else:
            first[identifier] = f"{path}, line {line}"
    return rows.drop_duplicates("id", ignore_index=True), problems
