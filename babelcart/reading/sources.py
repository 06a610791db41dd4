"""The section ``data`` of params.yaml: the raw files of each split, and how to read them.

Reading options may be set for all files (in ``data``), for the files of a task (in ``data.qc``), or for some files of a split (in a
mapping with ``files``). The most specific level takes precedence. ``columns`` and ``constants`` are merged key by key; other options
replace those of the less specific level.
"""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from babelcart.core.errors import UserError, did_you_mean, short_repr
from babelcart.core.files import is_safe_path
from babelcart.core.tasks import CANDIDATE_FIELD
from babelcart.reading.containers import inner_name
from babelcart.reading.queries import QueryLimits
from babelcart.rows import languages
from babelcart.rows.labels import LabelRule
from babelcart.rows.text import normalise

SPLITS = ("train", "dev", "test")
# Suffix of a file name -> format.
SUFFIXES = {".txt": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".sql": "sql"}
# Columns of a row that a file can hold.
COLUMNS = ("id", "task", "language", "origin_query", "candidate", "label", "grade")
_MERGED = ("columns", "constants")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a raw file. None leaves an option to the less specific level, or to its default.

    Attributes
    ----------
    columns : dict, optional
        Column of a row (`COLUMNS`) -> name of the column in the file. None: the file has no such column; for ``id``, the line numbers are
        used. The default names are those of the competition's files.
    constants : dict, optional
        Column of a row -> its value in every row.
    languages : dict, optional
        Value in the file -> language code. Compared regardless of case. Other values must be language codes.
    labels : dict, optional
        Value in the file -> 1, 0 or null (not labelled); or ``at_least`` -> the lowest relevant grade. See `LabelRule`.
    where : dict, optional
        Column in the file -> accepted value or values. Other rows are not read.
    format : {"jsonl", "csv", "parquet"}, optional
        The default is given by the suffix of the file name.
    delimiter : str, optional
        One character. The default is a tab for ``.tsv`` and a comma otherwise.
    quoting : {"minimal", "none", "multiline"}, optional
        ``minimal``: a field in double quotes may contain the delimiter, quotes (doubled) and line breaks. A record whose lines all look
        like complete rows is refused, because a stray quote would merge them. ``multiline`` accepts such records. ``none``: quotes are
        ordinary characters. The default is ``minimal``; for tab-separated files, it is found from the content.
    escape : str, optional
        A character that makes the next one literal.
    encoding : str, optional
        Name of a Python codec. The default is UTF-8.
    header : list of str, optional
        Names of the columns of a delimited file without a header line.
    separator : str, optional
        Separator of the levels of category paths. The default is found from the content of the file.
    """

    columns: dict[str, str | None] | None = None
    constants: dict[str, str | int | float | bool] | None = None
    languages: dict[str, str] | None = None
    labels: dict[str, int | float | None] | None = None
    where: dict[str, str | int | float | bool | tuple[str | int | float | bool, ...]] | None = None
    format: Literal["jsonl", "csv", "parquet"] | None = None
    delimiter: str | None = None
    quoting: Literal["minimal", "none", "multiline"] | None = None
    escape: str | None = None
    encoding: str | None = None
    header: tuple[str, ...] | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        for option in _MERGED:
            for name in getattr(self, option) or {}:
                if name not in COLUMNS:
                    raise ValueError(f"{option} names {short_repr(name)}; accepted: {', '.join(COLUMNS)}{did_you_mean(name, COLUMNS)}")
        for name, column in (self.columns or {}).items():
            if not column and name in ("language", "origin_query", "candidate"):
                example = "language: en" if name == "language" else f"{name}: TEXT"
                raise ValueError(
                    f"columns.{name} is {short_repr(column)}; accepted: the name of a column. If all rows have the same value, set "
                    f"`constants: {{{example}}}` in its place"
                )
        if both := sorted(set(self.columns or {}) & set(self.constants or {})):
            raise ValueError(f"{both[0]} is in both columns and constants; remove it from one of them")
        for tag, code in (self.languages or {}).items():
            if languages.iso_code(code) is None:
                raise ValueError(f"languages maps {short_repr(tag)} to {short_repr(code)}; accepted: ISO 639-1 codes, such as en or pt")
        codes = [(normalise(tag), languages.iso_code(code)) for tag, code in (self.languages or {}).items()]
        if repeated := [tag for tag, code in codes if dict(codes)[tag] != code]:
            raise ValueError(f"languages maps {short_repr(repeated[0])} to two languages, because case does not matter; remove one of them")
        if (language := (self.constants or {}).get("language")) is not None and languages.iso_code(str(language)) is None:
            raise ValueError(f"constants.language is {short_repr(language)}; accepted: an ISO 639-1 code, such as en")
        if self.labels is not None:
            LabelRule(self.labels)
        for option in ("delimiter", "escape"):
            character = getattr(self, option)
            if character is not None and (len(character) != 1 or character in '"\r\n\0'):
                raise ValueError(f"{option} is {short_repr(character)}; accepted: one character, such as ';' or \"\\t\"")
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if self.separator is not None and not self.separator.strip():
            raise ValueError(f"separator is {short_repr(self.separator)}; accepted: a text such as ' / ', or null to find it from the file")

    def overridden_by(self, other: ReadOptions) -> ReadOptions:
        """These options where `other`, which is more specific, leaves them to this level."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(ReadOptions):
            general, specific = getattr(self, field.name), getattr(other, field.name)
            changes[field.name] = general if specific is None else specific
        named, fixed = other.columns or {}, other.constants or {}
        changes["columns"] = {key: name for key, name in (self.columns or {}).items() if key not in fixed} | named
        changes["constants"] = {key: value for key, value in (self.constants or {}).items() if key not in named} | fixed
        return ReadOptions(**changes)


def _check_encoding(name: str) -> None:
    """Raise ValueError if a name is not that of a codec from bytes to text."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not codec._is_text_encoding:
        raise ValueError(f"encoding is {short_repr(name)}; accepted: names of Python codecs, such as utf-8, utf-16, cp1252 or shift_jis")


@dataclass(frozen=True, kw_only=True)
class Source(ReadOptions):
    """Some files of a split, with reading options of their own."""

    files: tuple[str, ...] | str


Sources = Source | str | tuple[Source | str, ...]


# Format -> options that have no effect on its files. A query states the format of the files that it reads.
_TEXT_OPTIONS = ("delimiter", "quoting", "escape", "header")
_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "jsonl": _TEXT_OPTIONS,
    "parquet": (*_TEXT_OPTIONS, "encoding"),
    "sql": (*_TEXT_OPTIONS, "encoding"),
}


@dataclass(frozen=True)
class RawFile:
    """A raw file, or a query over the files in `folder`, and the options that apply to it."""

    path: Path
    options: ReadOptions
    folder: Path = Path()
    query_memory: str = "2GB"

    @property
    def format(self) -> str | None:
        """``jsonl``, ``csv``, ``parquet`` or ``sql``; None if neither the options nor the suffix of the name give it."""
        if self.options.format:
            return self.options.format
        kind = SUFFIXES.get(self.path.suffix.lower())
        if kind == "sql":
            return kind
        kind = SUFFIXES.get(Path(inner_name(self.path)).suffix.lower())
        if kind in (None, "jsonl") and (self.options.delimiter or self.options.header):
            return "csv"
        return kind

    def names(self, task: str) -> dict[str, str | None]:
        """Column of a row -> name of the column in the file, None if the file has no such column.

        The columns of a query have the names of `COLUMNS`; the option ``columns`` can only leave one out.
        """
        renamed = self.options.columns or {}
        names: dict[str, str | None] = {name: name for name in COLUMNS}
        if self.format == "sql":
            renamed = {name: None for name, column in renamed.items() if column is None}
        else:
            names |= {"candidate": CANDIDATE_FIELD[task], "grade": None}
        return names | dict.fromkeys(self.options.constants or {}) | renamed

    def files_read(self) -> list[Path]:
        """Return the file, and for a query those that it reads, too."""
        if self.format != "sql":
            return [self.path]
        from babelcart.reading.queries import files_read

        return [self.path, *files_read(self.path, self.folder)]

    def unused_options(self) -> set[str]:
        """Return the options that are set, but have no effect on this file."""
        return {option for option in _WITHOUT_EFFECT.get(self.format or "", ()) if getattr(self.options, option) is not None}


@dataclass(frozen=True, kw_only=True)
class TaskFiles(ReadOptions):
    """The files of a task; a split without files has an empty tuple."""

    train: Sources
    dev: Sources = ()
    test: Sources = ()
    # Files of ``id, label``, for rows without labels.
    train_labels: Sources = ()
    dev_labels: Sources = ()
    test_labels: Sources = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.patterns():
            if not is_safe_path(name):
                raise ValueError(
                    f"{name!r} is not a file inside data.path; accepted: names such as train.txt, more/*.csv or queries/train.sql"
                )
        if not self.sources("train"):
            raise ValueError("train lists no files")

    def sources(self, split: str) -> list[Source]:
        """Return the sources of a split, or of its labels (``dev_labels``)."""
        value: Sources = getattr(self, split)
        items = value if isinstance(value, tuple) else (value,)
        return [Source(files=(item,)) if isinstance(item, str) else item for item in items]

    def patterns(self, *splits: str) -> list[str]:
        """Return names, globs and folders of the given splits (all by default), as written."""
        splits = splits or (*SPLITS, *(f"{split}_labels" for split in SPLITS))
        return [name for split in splits for source in self.sources(split) for name in _as_list(source.files)]


@dataclass(frozen=True, kw_only=True)
class Data(ReadOptions):
    """The section ``data`` of params.yaml."""

    SECTION: ClassVar[str] = "data"

    path: str
    # Memory that a query may use; larger intermediate results are written to the disk.
    query_memory: str = "2GB"
    qc: TaskFiles | None = None
    qi: TaskFiles | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        QueryLimits(self.query_memory)

    def files(self, task: str) -> TaskFiles:
        """Return the files of a task.

        Raises
        ------
        UserError
            If the section does not list the task.
        """
        files: TaskFiles | None = getattr(self, task)
        if files is None:
            raise UserError(f"params.yaml: tasks names {task!r}, but data.{task} lists no files; add them, or remove {task!r} from tasks")
        return files

    def raw_file(self, task: str, path: Path) -> RawFile:
        """Return a file of any folder, with the options that apply to all files of the task."""
        files: TaskFiles | None = getattr(self, task)
        options = ReadOptions().overridden_by(self)
        return RawFile(path, options.overridden_by(files) if files else options, Path(self.path), self.query_memory)

    def raw_files(self, task: str, split: str) -> list[RawFile]:
        """Return the files of a split, or of its labels (``dev_labels``), in the order listed; globs and folders give sorted names.

        Raises
        ------
        UserError
            If a glob or folder contains no file, or the section does not list the task.
        """
        files = self.files(task)
        inherited = ReadOptions().overridden_by(self).overridden_by(files)
        return [
            RawFile(path, inherited.overridden_by(source), Path(self.path), self.query_memory)
            for source in files.sources(split)
            for name in _as_list(source.files)
            for path in _expand(Path(self.path), name)
        ]


def _as_list(files: Sequence[str] | str) -> list[str]:
    return [files] if isinstance(files, str) else list(files)


def _expand(folder: Path, name: str) -> list[Path]:
    """Return the files of one entry: a query in the project folder, a file, the files of a folder, or those that match a glob."""
    if name.lower().endswith(".sql"):
        return [Path(name)]
    path = folder / name
    if path.is_dir():
        paths = [entry for entry in path.rglob("*") if not any(part[0] in "._" for part in entry.relative_to(path).parts)]
    elif any(character in name for character in "*?[") and not path.exists():
        paths = list(folder.glob(name))
    else:
        return [path]
    if not (files := sorted(entry for entry in paths if entry.is_file())):
        raise UserError(f"{path} matches no file; `data` in params.yaml names the files of rows (`dvc pull` fetches the sample)")
    return files
