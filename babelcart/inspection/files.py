"""The format, encoding and dialect of a raw file, found from its content."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from babelcart.core.errors import UserError
from babelcart.inspection import encodings
from babelcart.reading import containers, formats
from babelcart.reading.batches import Request
from babelcart.reading.sources import RawFile, ReadOptions

Quoting = Literal["minimal", "none", "multiline"]
_SAMPLE = 1 << 20  # bytes for the choice of the dialect
_DELIMITERS = (",", "\t", ";", "|")
_TITLE_LINES = 20  # lines in which names of columns are searched
_KEY_LINES = 2000  # lines of JSON whose keys are collected


@dataclass(frozen=True)
class FileFormat:
    """What a file is, and how to read it.

    Attributes
    ----------
    path : Path
    options : ReadOptions
        ``format``, ``delimiter``, ``quoting``, ``encoding`` and ``header``; None where the default reads the file.
    description : str
        For people, such as "CSV, cp1252, separated by ';'".
    columns : tuple of str
        Names of the columns.
    reasons : dict of str to str
        Option -> why it was chosen, where the content does not prove it.
    """

    path: Path
    options: ReadOptions
    description: str
    columns: tuple[str, ...]
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def raw_file(self) -> RawFile:
        """The file with its options."""
        return RawFile(self.path, self.options)


def identify(path: Path) -> FileFormat:
    """Find the format of a file.

    Raises
    ------
    UserError
        If the file is empty or not text, or has a format that is not read; names the command that converts it.
    """
    if message := containers.refusal(path):
        raise UserError(message)
    with containers.open_container(path) as handle:
        head = handle.read(_SAMPLE)
    if not head:
        raise UserError(f"{path} is empty")
    packed = f", compressed by {kind}" if (kind := _compression(path)) else ""
    if head.startswith(b"PAR1"):
        return _parquet(path, packed)
    encoding, reason = encodings.find_encoding(path)
    text = head.decode(encoding, "ignore").removeprefix("\ufeff")
    if "\0" in text:
        raise UserError(f"{path} is neither text nor Parquet; accepted: JSON Lines, delimited text and Parquet")
    options = ReadOptions(encoding=None if encoding in ("utf-8", "ascii") else encoding)
    reasons = {"encoding": reason} if reason else {}
    start = text.lstrip()
    if start[:1] in ("{", "["):
        _check_json_lines(path, start)
        return _json_lines(path, options, packed, reasons)
    return _delimited(path, options, text, packed, reasons)


def _compression(path: Path) -> str | None:
    with path.open("rb") as handle:
        return containers.compression(handle.read(512))


def _named_format(path: Path) -> str | None:
    return RawFile(path, ReadOptions()).format


def _parquet(path: Path, packed: str) -> FileFormat:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with containers.open_container(path) as handle:
            schema = pq.ParquetFile(handle).schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}); copy or download it again") from error
    options = ReadOptions(format=None if _named_format(path) == "parquet" else "parquet")
    return FileFormat(path, options, f"Parquet{packed}", tuple(schema.names))


def _check_json_lines(path: Path, start: str) -> None:
    """Raise UserError if a text that starts like JSON is not one object a line."""
    name = path.name
    if start.startswith("["):
        raise UserError(f"{path} is a JSON array; convert it to JSON Lines: jq -c '.[]' {name} > {path.stem}.jsonl")
    first = start.partition("\n")[0]
    try:
        json.loads(first)
    except RecursionError:
        raise UserError(f"{path}, line 1 is JSON that is nested too deeply; write rows as one flat object a line") from None
    except ValueError:
        if first.rstrip() == "{" or start.count("\n") < 2:
            raise UserError(
                f"{path} is one JSON object on several lines, not JSON Lines; convert it: jq -c . {name} > {path.stem}.jsonl "
                "(if the rows are in a list inside, jq -c '.NAME_OF_THE_LIST[]')"
            ) from None


def _json_lines(path: Path, options: ReadOptions, packed: str, reasons: dict[str, str]) -> FileFormat:
    keys: dict[str, None] = {}
    with containers.open_container(path) as handle:
        lines = io.TextIOWrapper(handle, encoding=options.encoding or "utf-8", errors="replace", newline="\n")
        for line in itertools.islice(lines, _KEY_LINES):
            with suppress(ValueError, RecursionError):
                record = json.loads(line.removeprefix("\ufeff"))
                keys |= dict.fromkeys(record if isinstance(record, dict) else ())
    named = _named_format(path) == "jsonl"
    description = f"JSON Lines{_encoding_name(options)}{packed}"
    return FileFormat(path, replace(options, format=None if named else "jsonl"), description, tuple(keys), reasons)


def _encoding_name(options: ReadOptions) -> str:
    return f", {options.encoding}" if options.encoding else ""


def _delimited(path: Path, options: ReadOptions, text: str, packed: str, reasons: dict[str, str]) -> FileFormat:
    sample = text if len(text) < _SAMPLE // 4 else text[: text.rfind("\n") + 1] or text
    delimiter, quoting = _dialect(path, options, sample)
    header, has_header = _header(path, sample, delimiter, quoting)
    default = "\t" if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","
    is_named = _named_format(path) == "csv"
    options = replace(
        options,
        format=None if is_named or (_named_format(path) == "jsonl" and delimiter != ",") else "csv",
        delimiter=None if is_named and delimiter == default else delimiter,
        quoting=quoting if quoting != "minimal" or (delimiter == "\t" and '"' in text) else None,
        header=None if has_header else tuple(header),
    )
    if not has_header:
        reasons = reasons | {"header": "the first line is a row, not names of columns"}
    if quoting == "none":
        reasons = reasons | {"quoting": "quotes are characters: read as delimiters, they would merge or break rows"}
    separator = {"\t": "tabs"}.get(delimiter, f"'{delimiter}'")
    quotes = {"none": ", quotes are characters", "multiline": ", fields with line breaks"}.get(quoting, "")
    heading = "" if has_header else ", no header line"
    description = f"text separated by {separator}{_encoding_name(options)}{quotes}{heading}{packed}"
    return FileFormat(path, options, description, tuple(header), reasons)


def _dialect(path: Path, options: ReadOptions, sample: str) -> tuple[str, Quoting]:
    """Delimiter and quoting. DuckDB's sniffer proposes a delimiter, and the choice is verified by reading the rows.

    The delimiter gives most rows equal numbers of fields, and more than one. For its quoting, the complete file is read: ``minimal`` if no
    row is broken or merged, else the value that breaks the fewest rows.
    """
    sniffed = _sniff(sample)
    lines = _lines(sample)[:2000]
    scores = {}
    for delimiter in dict.fromkeys((*([sniffed] if sniffed else []), *_DELIMITERS)):
        for quoting in ("minimal", "none"):
            scores[delimiter, quoting] = _regularity(lines, delimiter, quoting)
    delimiter = max(scores, key=lambda choice: (scores[choice], choice[0] == sniffed, choice[1] == "minimal"))[0]
    if max(scores.values())[0] == 0:
        delimiter = "\t" if ".tsv" in path.suffixes else ","
    broken: dict[Quoting, float] = {}
    for quoting in get_args(Quoting):
        broken[quoting] = _broken_rows(path, replace(options, format="csv", delimiter=delimiter, quoting=quoting))
        if broken[quoting] == 0:
            return delimiter, quoting
    return delimiter, min(broken, key=lambda quoting: broken[quoting])


def _lines(text: str) -> list[str]:
    """Lines as the readers split them: not at the other line separators of Unicode, as `str.splitlines` does."""
    return list(io.StringIO(text, newline=""))


def _sniff(sample: str) -> str | None:
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.csv"
        path.write_text(sample, encoding="utf-8", errors="replace", newline="")
        try:
            with duckdb.connect(config={"threads": 1}) as connection:
                row = connection.execute("SELECT Delimiter FROM sniff_csv(?, strict_mode = false)", [str(path)]).fetchone()
        except duckdb.Error:
            return None
    return row[0] if row and isinstance(row[0], str) and len(row[0]) == 1 and not row[0].isalnum() else None


def _regularity(lines: list[str], delimiter: str, quoting: str) -> tuple[float, int]:
    """Return the share of rows with the most frequent number of fields, to one digit, and this number; zeros if it is one."""
    plain = quoting == "none"
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL))
    except csv.Error:
        return 0.0, 0
    widths = Counter(len(row) for row in rows if row)
    if not widths:
        return 0.0, 0
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
    return (round(count / widths.total(), 1), width) if width > 1 else (0.0, 0)


def _broken_rows(path: Path, options: ReadOptions) -> float:
    """Return the number of rows that a reader refuses; infinite if it refuses the file."""
    try:
        return sum(len(batch.malformed) for batch in formats.batches(RawFile(path, options), Request((), ())))
    except UserError:
        return float("inf")


def _header(path: Path, sample: str, delimiter: str, quoting: str) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the file has them in its first line.

    Raises
    ------
    UserError
        If other lines, such as a title, are before the names.
    """
    from babelcart.inspection.roles import is_known_name

    plain = quoting == "none"
    rows = list(
        itertools.islice(csv.reader(_lines(sample), delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL), 200)
    )
    first = rows[0] if rows else []
    if any(map(is_known_name, first)):
        return first, True
    for index, row in enumerate(rows[:_TITLE_LINES]):
        if len(list(filter(is_known_name, row))) > 1:
            raise UserError(
                f"{path}, line {index + 1}: the names of the columns are here, after other lines, but must be in the first line; delete "
                f"the lines before it: tail -n +{index + 1} {path.name} > rows-{path.name}"
            )
    is_name = [bool(re.fullmatch(r"[^\W\d][^,;|\t]{0,60}|_\w+", cell.strip())) for cell in first]
    numeric = [len(rows) > 1 and all(_is_number(row[index]) for row in rows[1:] if len(row) > index) for index in range(len(first))]
    distinct = len(set(first)) == len(first)
    if first and all(is_name) and distinct and (any(numeric) or not _repeats_later(rows)):
        return first, True
    return [f"column{index}" for index in range(1, len(first) + 1)], False


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+(?:[.,]\d+)?\s*", text) is not None


def _repeats_later(rows: list[list[str]]) -> bool:
    """Return whether a cell of the first row occurs again in its column."""
    return any(cell == name for row in rows[1:] for cell, name in zip(row, rows[0], strict=False))


def expand(names: tuple[str, ...]) -> list[Path]:
    """Return the files that names, folders and globs stand for, sorted, each once.

    Raises
    ------
    UserError
        If a name matches no file.
    """
    paths: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        found = sorted(_files_in(path)) if path.is_dir() else [path] if path.exists() else sorted(map(Path, _glob(name)))
        if not found:
            raise UserError(f"{name} matches no file")
        paths |= dict.fromkeys(found)
    return list(paths)


def _glob(name: str) -> list[str]:
    import glob

    return [path for path in glob.glob(name, recursive=True) if Path(path).is_file()]


def _files_in(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(folder).parts):
            yield path


def to_text(value: Any) -> str | None:
    """Return a value of a file as text; nested values as JSON, None if it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, (list, dict)) else str(value)
