"""Read rows and labels from raw files, which may contain malformed rows.

All text stays text: "nan", "null" and "007" are queries like any other. `babelcart.rows.table` describes the columns of a row, and
`babelcart.rows.sources` the options for reading a file.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr
from babelcart.rows import languages, taxonomy
from babelcart.rows.formats import Batch, Malformed, Request, arrow_batches, batches, detect_encoding
from babelcart.rows.labels import LabelRule, grade_text
from babelcart.rows.sources import Data, RawFile, ReadOptions
from babelcart.rows.table import PREPARED_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

UNDECODED = "is not valid "
_TEXTS = ("id", "language", "origin_query", "candidate")


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
    """A sentence about the likely encoding of the first file with undecodable bytes, or an empty text."""
    undecoded = next((problem for problem in problems if problem.reason.startswith(UNDECODED)), None)
    if undecoded is None:
        return ""
    with Path(undecoded.file).open("rb") as handle:
        encoding = detect_encoding(handle.read(1 << 20))
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
    """

    records: int = 0
    unlabelled: int = 0
    separators: dict[str, str] = field(default_factory=dict)


def read_rows(files: Sequence[RawFile], task: str, *, labelled: bool) -> tuple[pd.DataFrame, list[Problem], FileFacts]:
    """Read the rows of one task from one or more files.

    Parameters
    ----------
    files : sequence of RawFile
        See `babelcart.rows.sources.Data.raw_files`.
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
        If a file cannot be read (see `babelcart.rows.formats.batches`) or has no rows.
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


def read_labels(files: Sequence[RawFile], task: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Read files of ids and labels.

    Returns
    -------
    tuple
        A table with the columns ``id``, ``label`` (Int8, missing where the label rule gives null) and ``grade``; and one `Problem` for
        each malformed row.
    """
    import pandas as pd

    tables, problems, lines_of = [], [], []
    for file in files:
        parser = _Parser(file.options, task, ("id",), labelled=True)
        columns, lines, file_problems = _read_columns(file, parser)
        problems += file_problems
        tables.append(pd.DataFrame({"id": columns["id"], "label": columns["label"], "grade": columns["grade"]}).astype(_DTYPES_OF_LABELS))
        lines_of += [(str(file.path), line) for line in lines]
    labels = pd.concat(tables, ignore_index=True)
    for index in labels.index[labels["id"].duplicated()]:
        path, line = lines_of[index]
        problems.append(Problem(path, line, "id", labels["id"][index], "the id occurs twice"))
    return labels.drop_duplicates("id", ignore_index=True), problems


def read_ids(data: Data, task: str, split: str) -> list[str]:
    """The ids of a split in the order of the raw files, without checking other columns.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    ids: list[str] = []
    for file in data.raw_files(task, split):
        parser = _Parser(file.options, task, ("id",), labelled=False, optional=())
        ids += _read_columns(file, parser)[0]["id"]
    return ids


_DTYPES_OF_LABELS = {"id": "str", "label": "Int8", "grade": "str"}


def _empty_table() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=list(PREPARED_COLUMNS)).astype(_dtypes())


def _dtypes() -> dict[Hashable, str]:
    dtypes: dict[Hashable, str] = {name: "str" for name in PREPARED_COLUMNS if name not in ("label", "levels")}
    return {**dtypes, "label": "Int8", "levels": "object"}


def _read_file(file: RawFile, task: str, labelled: bool, facts: FileFacts) -> tuple[pd.DataFrame, Any, list[Problem]]:
    """The rows of a file, the line number of each as an int64 array, and its problems; adds to `facts`."""
    import numpy as np
    import pandas as pd

    parser = _Parser(file.options, task, _TEXTS, labelled=labelled)
    columns, lines, problems = _read_columns(file, parser)
    if not parser.records:
        filtered = f" that `where` accepts; it has {parser.rejected}" if parser.rejected else ""
        raise UserError(f"{file.path} has no rows{filtered}; expected at least one")
    table = pd.DataFrame({"task": task, **columns}).reindex(columns=list(PREPARED_COLUMNS))
    if task == "qc":
        paths = table["candidate"].unique()
        separator = file.options.separator or taxonomy.find_separator(paths)
        facts.separators[str(file.path)] = separator
        levels = {path: taxonomy.levels(path, separator) for path in paths}
        table["levels"] = [levels[path] for path in table["candidate"]]
    else:
        table["levels"] = [()] * len(table)
    facts.records += parser.records
    facts.unlabelled += parser.unlabelled
    return table.astype(_dtypes()), np.asarray(lines, dtype=np.int64), problems


def _read_columns(file: RawFile, parser: _Parser) -> tuple[dict[str, Any], list[int], list[Problem]]:
    """Parse all batches of a file: column -> values of the well-formed rows, their line numbers, and the problems."""
    import pyarrow as pa

    parts: dict[str, list[Any]] = {name: [] for name in parser.output}
    lines: list[int] = []
    problems: list[Problem] = []
    for batch in _batches(file, parser.request):
        columns, batch_lines, malformed = parser.parse(batch)
        for name, values in columns.items():
            parts[name].append(pa.array(values, type=pa.int8() if name == "label" else pa.large_string()))
        lines += batch_lines
        problems += [Problem(str(file.path), line, *error.args) for line, error in malformed]
    arrays = {name: pa.chunked_array(chunks, type=pa.int8() if name == "label" else pa.large_string()) for name, chunks in parts.items()}
    return (
        {name: array.to_pandas(**_ARROW_INTEGERS) if name == "label" else array.to_pandas() for name, array in arrays.items()},
        lines,
        problems,
    )


def _arrow_integers(dtype: Any) -> Any:
    import pandas as pd

    return pd.Int8Dtype()


_ARROW_INTEGERS = {"types_mapper": _arrow_integers}


def _batches(file: RawFile, request: Request) -> Iterator[Batch]:
    if file.format == "sql":
        from babelcart.rows.queries import read_query

        return arrow_batches(read_query(file.path, file.folder), request)
    return batches(file, request)


def _duplicate_ids(table: pd.DataFrame, lines: Any, duplicated: pd.Series, file: RawFile, task: str) -> list[Problem]:
    """One `Problem` for each repeated id of a file."""
    repeated = set(table["id"][duplicated])
    first_lines: dict[str, int] = {}
    problems = []
    name = file.options.names(task)["id"] or "id"
    for identifier, line in zip(table["id"], lines.tolist(), strict=True):
        if identifier not in repeated:
            continue
        if identifier in first_lines:
            reason = f"the id is already used in {file.path}, line {first_lines[identifier]}"
            problems.append(Problem(str(file.path), line, name, identifier, reason))
        else:
            first_lines[identifier] = line
    return problems


def _ids_of_several_files(
    rows: pd.DataFrame, tables: Sequence[pd.DataFrame], id_lines: Sequence[tuple[RawFile, Any]], task: str, labelled: bool
) -> tuple[pd.DataFrame, list[Problem]]:
    """Rows of several files with unique ids; ids that files share get the file's name in train and where ids are line numbers.

    In dev and test, ids are part of the submission, so that a shared id is a problem of the later row.
    """
    import pandas as pd

    numbered = all(file.options.names(task)["id"] is None and "id" not in (file.options.constants or {}) for file, _ in id_lines)
    if labelled or numbered:
        names = [f"{file.path.name}:" for file, _ in id_lines]
        if len(set(names)) < len(names):
            names = [f"{file.path}:" for file, _ in id_lines]
        renamed = [name + table["id"] for name, table in zip(names, tables, strict=True)]
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


class _Parser:
    """Parses batches of one file.

    Parameters
    ----------
    options : ReadOptions
    task : str
    texts : sequence of str
        The columns of `_TEXTS` to read; all of them must exist.
    labelled : bool
        Whether every row must have a label.
    optional : sequence of str
        Other columns to read if they exist.
    """

    def __init__(
        self, options: ReadOptions, task: str, texts: Sequence[str], *, labelled: bool, optional: Sequence[str] = ("task", "label", "grade")
    ) -> None:
        self.options, self.task, self.labelled, self.texts = options, task, labelled, texts
        self.names = options.names(task)
        self.constants = {name: str(value) for name, value in (options.constants or {}).items()}
        self.rule = LabelRule(options.labels)
        self.records = self.unlabelled = 0
        # The first values that `where` rejects, for a message.
        self.rejected: dict[str, str] = {}
        self.where = {name: _accepted_values(values) for name, values in (options.where or {}).items()}
        self.language_map = {tag.strip().casefold(): languages.iso_code(code) for tag, code in (options.languages or {}).items()}
        self._codes: dict[str, str | None] = {}
        self._labels: dict[tuple[type, Any], int | Malformed | None] = {}
        self.wants_label = "label" in optional
        self.checks_task = "task" in optional
        required = tuple(name for column in texts if (name := self.names[column]) is not None)
        labels = (self.names["label"], self.names["grade"]) if labelled and self.wants_label else ()
        header = tuple(name for name in (*labels, *self.where) if name is not None)
        others = tuple(name for column in optional if (name := self.names[column]) is not None)
        self.request = Request(tuple(dict.fromkeys((*required, *others, *self.where))), required, header)
        self.output = [
            name for name in ("id", "language", "language_tag", "origin_query", "candidate") if name.removesuffix("_tag") in texts
        ]
        self.output += ["label", "grade"] if self.wants_label else []

    def parse(self, batch: Batch) -> tuple[dict[str, list[Any]], list[int], list[tuple[int, Malformed]]]:
        """Column -> values of the well-formed rows, their line numbers, and line number and reason of the others."""
        if self.where:
            batch = self._filtered(batch)
        rows = len(batch.lines)
        self.records += rows + len(batch.malformed)
        errors: dict[int, Malformed] = {}
        columns: dict[str, list[Any]] = {}
        for column in self.texts:
            columns[column] = self._texts(column, batch, errors)
        self._check_ids(columns["id"], errors)
        if self.checks_task and self.names["task"] in batch.columns:
            self._check_task(batch.columns[str(self.names["task"])], errors)
        if "language" in columns:
            columns["language_tag"] = columns["language"]
            columns["language"] = self._languages(columns["language_tag"], errors)
        left_out: list[bool] = []
        if self.wants_label:
            columns["label"], columns["grade"], left_out = self._parse_labels(batch, rows, errors)
        malformed = [*batch.malformed, *((batch.lines[index], error) for index, error in errors.items())]
        if errors or any(left_out):
            kept = [index for index in range(rows) if index not in errors and not (left_out and left_out[index])]
            self.unlabelled += rows - len(errors) - len(kept)
            columns = {name: [values[index] for index in kept] for name, values in columns.items()}
            return {name: columns[name] for name in self.output}, [batch.lines[index] for index in kept], malformed
        return {name: columns[name] for name in self.output}, batch.lines, malformed

    def _filtered(self, batch: Batch) -> Batch:
        """The records whose values `where` accepts."""
        kept = list(range(len(batch.lines)))
        for name, accepted in self.where.items():
            texts = list(map(grade_text, batch.columns[name]))
            for text in set(texts) - accepted:
                self.rejected.setdefault(name, text)
            kept = [index for index in kept if texts[index] in accepted]
        columns = {name: [values[index] for index in kept] for name, values in batch.columns.items()}
        return Batch([batch.lines[index] for index in kept], columns, batch.malformed)

    def _texts(self, column: str, batch: Batch, errors: dict[int, Malformed]) -> list[str]:
        name = self.names[column]
        if name is None:
            if column == "id" and column not in self.constants:
                return list(map(str, batch.lines))
            return [self.constants[column]] * len(batch.lines)
        values = batch.columns[name]
        return (
            values if _are_clean(values) else _checked(values, partial_text(name, self.options.encoding, integers=column == "id"), errors)
        )

    def _check_ids(self, ids: Sequence[str], errors: dict[int, Malformed]) -> None:
        for index, identifier in enumerate(ids):
            if not identifier or identifier.isspace():
                errors.setdefault(index, Malformed(self.names["id"] or "id", identifier, "the id is empty"))

    def _check_task(self, values: Sequence[Any], errors: dict[int, Malformed]) -> None:
        for index, value in enumerate(values):
            if value is not None and grade_text(value).lower() != self.task:
                name = str(self.names["task"])
                reason = f"expected {self.task.upper()}; if the column {name} has another meaning, set `columns: {{task: null}}` in data"
                errors.setdefault(index, Malformed(name, grade_text(value), reason))

    def _languages(self, tags: Sequence[str], errors: dict[int, Malformed]) -> list[str | None]:
        codes = self._codes
        for tag in set(tags) - codes.keys():
            codes[tag] = self.language_map.get(tag.strip().casefold()) or languages.iso_code(tag)
        parsed = [codes[tag] for tag in tags]
        if None in parsed:
            name = self.names["language"] or "language"
            reason = (
                "unknown language; accepted: ISO 639-1 codes and aliases (babelcart/rows/languages.py). `languages` in data maps others"
            )
            for index, code in enumerate(parsed):
                if code is None:
                    errors.setdefault(index, Malformed(name, tags[index], reason))
        return parsed

    def _parse_labels(self, batch: Batch, rows: int, errors: dict[int, Malformed]) -> tuple[list[int | None], list[str], list[bool]]:
        """Labels, grades, and whether a row is left out because the rule gives it no label."""
        name = self.names["label"]
        values: Sequence[Any] = [self.constants.get("label")] * rows if name is None else batch.columns[name]
        grade_name = self.names["grade"]
        grades = values if grade_name is None else batch.columns[grade_name]
        labels: list[int | None] = []
        left_out: list[bool] = []
        for index, value in enumerate(values):
            label = self._label(value, name or "label")
            if isinstance(label, Malformed):
                errors.setdefault(index, label)
                label = None
            labels.append(label)
            left_out.append(self.labelled and label is None and index not in errors)
        if self.rule.is_default and grade_name is None:
            return labels, [""] * rows, left_out
        texts = list(map(grade_text, grades))
        if not _are_clean(texts):
            texts = _checked(texts, partial_text(grade_name or name or "label", self.options.encoding, integers=False), errors)
        return labels, texts, left_out

    def _label(self, value: Any, name: str) -> int | Malformed | None:
        if not isinstance(value, (str, int, float, Decimal)) or value != value:  # a list, a missing value, NaN
            return self._new_label(value, name)
        key = (type(value), value)
        if key not in self._labels:
            self._labels[key] = self._new_label(value, name)
        return self._labels[key]

    def _new_label(self, value: Any, name: str) -> int | Malformed | None:
        text = grade_text(value)
        if not text and text not in self.rule.values:
            return Malformed(name, "", "the label is missing") if self.labelled else None
        try:
            return self.rule(value)
        except ValueError as error:
            return Malformed(name, str(value) if isinstance(value, str) else short_repr(value), str(error))


def _accepted_values(values: Any) -> set[str]:
    return {grade_text(value) for value in (values if isinstance(values, tuple) else (values,))}


def _are_clean(values: Sequence[Any]) -> bool:
    """Whether all values are texts without NUL bytes and undecoded bytes."""
    if set(map(type, values)) - {str}:
        return False
    joined = "".join(values)
    if "\0" in joined:
        return False
    if joined.isascii():
        return True
    try:
        joined.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(values: Sequence[Any], text: Callable[[Any], str], errors: dict[int, Malformed]) -> list[str]:
    """Each value as text; "" and an entry in `errors` if it is not accepted."""
    checked = []
    for index, value in enumerate(values):
        try:
            checked.append(text(value))
        except Malformed as error:
            errors.setdefault(index, error)
            checked.append("?")
    return checked


def partial_text(name: str, encoding: str | None, *, integers: bool) -> Callable[[Any], str]:
    """A function that checks one value of a column of texts; whole numbers are accepted if `integers` is true."""

    def text(value: Any) -> str:
        if value is None:
            raise Malformed(name, "", "the field is missing")
        if integers and _is_whole_number(value):
            return str(int(value))
        if not isinstance(value, str):
            raise Malformed(name, short_repr(value), "expected a text")
        if "\0" in value:
            raise Malformed(name, value, "contains a NUL byte")
        surrogates = [] if value.isascii() else [character for character in value if "\ud800" <= character <= "\udfff"]
        if surrogates:
            # Undecodable bytes are surrogates from U+DC80 to U+DCFF; JSON may contain any surrogate.
            undecoded = all("\udc80" <= character <= "\udcff" for character in surrogates)
            content = value.encode("utf-8", "surrogateescape" if undecoded else "backslashreplace")
            shown = content.decode("utf-8", "backslashreplace")
            raise Malformed(
                name, shown, f"{UNDECODED}{encoding or 'UTF-8'}" if undecoded else "contains half a surrogate pair, and is not valid UTF-8"
            )
        return value

    return text


def _is_whole_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return False
    return isinstance(value, int) or (value == value and abs(float(value)) < 2**53 and value == int(value))
