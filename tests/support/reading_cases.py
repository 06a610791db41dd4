"""Random rows, written to a file by Python's csv module, json or pyarrow, with the options that read the same rows back.

`make_case` is the differential oracle of the fuzzer: what was written must be read, whatever the format, encoding, dialect and labels are.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from babelcart.core.errors import UserError
from babelcart.reading import readers
from babelcart.reading.sources import RawFile, ReadOptions

ENCODINGS = (None, None, None, "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "shift_jis", "gb18030", "koi8_r")
DELIMITERS = (",", ";", "\t", "|", "^", "~", ":")
# Characters that the readers of text formats treat in a special way, and ordinary ones.
CHARACTERS = [
    '"', '""', "'", ",", ";", "\t", "|", "\\", "\n", "\r\n", "\r", " ", "  ", "{", "}", "[", "#", "=", "-", "/", ">", "\x0b", "\x1c",
    "\x85", "\u2028", "\u200b", "\ufeff", "\u00ad", "é", "ß", "日本", "ー", "я", "ن", "😀", "nan", "null", "NA", "007", "1e3",
    '12"', "a", "b",
    "robe", "hose", "usb cable",
]  # fmt: skip
# Language tag in the file -> code; the first two are in the map of the options.
MAP = {"us": "en", "jp": "ja"}
TAGS = [("us", "en"), ("US ", "en"), ("Jp", "ja"), ("de", "de"), ("fr", "fr"), ("pt-BR", "pt")]
# Value in the file, and the text of its grade.
NUMBERS = [("3", "3"), ("3.0", "3"), ("2.50", "2.5"), ("0", "0"), ("-1", "-1"), ("1", "1"), ("10", "10")]
GRADES = {"Exact": 1, "Partial": 0, "E": 1, "相": 0, "unjudged": None, "not relevant": 0}


@dataclass
class Case:
    """A file and the rows that must be read from it.

    Attributes
    ----------
    rows : list of dict
        The columns ``id, language, language_tag, origin_query, candidate, label, grade``, and ``levels`` for categories.
    """

    name: str
    task: str
    content: bytes
    options: ReadOptions
    rows: list[dict[str, Any]]


@dataclass
class _Draft:
    """The parts of a case while it is being made: raw values by column of the file, and the expected rows."""

    random: Random
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    expected: list[dict[str, Any] | None] = field(default_factory=list)
    numbered: bool = False


def _text(random: Random, encoding: str | None) -> str:
    # At the beginning of a file, U+FEFF is a byte order mark and not part of the first text.
    text = "".join(random.choice(CHARACTERS) for _ in range(random.randint(1, 6))).lstrip("\ufeff")
    codec = encoding or "utf-8"
    return "".join(character for character in text if character.encode(codec, "ignore").decode(codec, "ignore") == character) or "x"


def _labels(draft: _Draft, rows: int, encoding: str | None) -> list[tuple[Any, int | None, str]]:
    """Value in the file, label and grade of each row; sets the option ``labels``."""
    random = draft.random
    kind = random.choice(["plain", "plain", "map", "cut", "boolean"])
    if kind == "map":
        draft.options["labels"] = dict(GRADES)
        grades = [random.choice([grade for grade in GRADES if grade.isascii() or not encoding]) for _ in range(rows)]
        return [(grade, GRADES[grade], grade) for grade in grades]
    if kind == "cut":
        draft.options["labels"] = {"at_least": random.choice([1, 2.5, 3])}
        cut = Decimal(str(draft.options["labels"]["at_least"]))
        numbers = [random.choice(NUMBERS) for _ in range(rows)]
        return [(value, int(Decimal(value) >= cut), grade) for value, grade in numbers]
    pairs = [("true", 1), ("False", 0)] if kind == "boolean" else [("1", 1), ("0", 0), ("1.0", 1), ("0.00", 0)]
    return [(*random.choice(pairs), "") for _ in range(rows)]


def _draft(random: Random, task: str, encoding: str | None) -> _Draft:
    """Random rows under random names of columns."""
    draft = _Draft(random)
    rows = random.randint(1, 8)
    names = ["id", "language", "origin_query", "item_title" if task == "qi" else "category_path", "label"]
    kinds = ["id", "language", "origin_query", "candidate", "label"]
    if random.random() < 0.5:
        names = [f"{name} {_text(random, encoding)}" if random.random() < 0.5 else name for name in names]
        names = [re.sub(r'[\r\n"\\\ufeff]', "", name).strip() for name in names]
        draft.options["columns"] = dict(zip(kinds, names, strict=True))
    draft.columns = dict(zip(kinds, names, strict=True))
    separator = random.choice([",", " / ", " > ", "|"])
    if task == "qc":
        draft.options["separator"] = separator
    if random.random() < 0.7:
        draft.options["languages"] = dict(MAP)
    where = random.random() < 0.3
    if where:
        draft.options["where"] = random.choice([{"fold": 3}, {"fold": ("train", 3)}, {"fold": "train"}])
    accepted = {str(value) for value in _as_tuple(draft.options.get("where", {}).get("fold", ()))}
    for index, (value, label, grade) in enumerate(_labels(draft, rows, encoding)):
        tag, code = random.choice(TAGS if "languages" in draft.options else TAGS[3:])
        levels = ["".join(random.choice("abcdefg") for _ in range(3)) for _ in range(random.randint(1, 4))]
        texts = {"id": f"{index}-{_text(random, encoding)}", "origin_query": _text(random, encoding)}
        texts["candidate"] = separator.join(levels) if task == "qc" else _text(random, encoding)
        fold, fold_key = random.choice([("train", "train"), ("test", "test"), ("3", "3"), ("3.0", "3")])
        record = {draft.columns[name]: text for name, text in {**texts, "language": tag, "label": value}.items()}
        draft.records.append({**record, "fold": fold})
        row: dict[str, Any] = {**texts, "language": code, "language_tag": tag, "label": label, "grade": grade}
        if task == "qc":
            row["levels"] = levels
        draft.expected.append(row if label is not None and (not where or fold_key in accepted) else None)
    _replace_columns(draft)
    return draft


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _replace_columns(draft: _Draft) -> None:
    """Sometimes, take ids from line numbers, and the language from a constant."""
    random = draft.random
    if random.random() < 0.15:
        draft.numbered = True
        draft.options["columns"] = {**draft.options.get("columns", {}), "id": None}
        for record in draft.records:
            record.pop(draft.columns["id"])
    if random.random() < 0.15:
        draft.options["constants"] = {"language": "pl"}
        draft.options["columns"] = {name: value for name, value in draft.options.get("columns", {}).items() if name != "language"}
        for record, row in zip(draft.records, draft.expected, strict=True):
            record.pop(draft.columns["language"])
            if row:
                row.update(language="pl", language_tag="pl")


def _csv(draft: _Draft, encoding: str | None) -> tuple[str, bytes, list[int]]:
    """File name, content and the first line of each record."""
    random = draft.random
    delimiter = random.choice(DELIMITERS)
    suffix = random.choice([".csv", ".tsv", ".txt", ".dat"])
    if delimiter != {".csv": ",", ".tsv": "\t"}.get(suffix) or random.random() < 0.3:
        draft.options["delimiter"] = delimiter
    if suffix == ".dat":
        draft.options["format"] = "csv"
    elif suffix == ".txt" and "delimiter" not in draft.options:
        draft.options["delimiter"] = delimiter
    plain = random.random() < 0.3 and delimiter not in draft.options.get("separator", "")
    escape = random.choice([None, None, "\\", "^"]) if delimiter != "^" else None
    if plain or escape or random.random() < 0.5:
        draft.options["quoting"] = "none" if plain else random.choice(["minimal", "multiline"])
    if escape:
        draft.options["escape"] = escape
    names = list(draft.records[0])
    table = [names, *([record[name] for name in names] for record in draft.records)]
    if plain:
        table = [[_without(value, delimiter if not escape else "") for value in row] for row in table]
    if plain or escape:
        _rename(draft, table)
    dialect: dict[str, Any] = {
        "delimiter": delimiter, "escapechar": escape, "lineterminator": random.choice(["\n", "\r\n"]),
        "quoting": csv.QUOTE_NONE if plain else random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), "quotechar": None if plain else '"',
    }  # fmt: skip
    if not _round_trips(table, dialect):
        table = [[re.sub(r'[\r\n"\\^]', "", value) or "x" for value in row] for row in table]
        _rename(draft, table)
    if random.random() < 0.2:
        draft.options["header"] = tuple(table.pop(0))
    buffer, lines = io.StringIO(newline=""), []
    writer = csv.writer(buffer, **dialect)
    for row in table:
        lines.append(len(re.findall("\r\n|\r|\n", buffer.getvalue())) + 1)
        writer.writerow(row)
    return f"rows{suffix}", buffer.getvalue().encode(encoding or "utf-8"), lines[-len(draft.records) :]


def _without(value: str, delimiter: str) -> str:
    """Return a value that can be written without quotes."""
    return re.sub(f"[\r\n{re.escape(delimiter)}]", "", value) or "x"


def _round_trips(table: list[list[str]], dialect: dict[str, Any]) -> bool:
    """Return whether Python's own reader reads what Python's writer writes; not so for some line breaks and escapes."""
    buffer = io.StringIO(newline="")
    try:
        csv.writer(buffer, **dialect).writerows(table)
        return list(csv.reader(io.StringIO(buffer.getvalue(), newline=""), strict=True, **dialect)) == table
    except csv.Error:
        return False


def _rename(draft: _Draft, table: Sequence[Sequence[str]]) -> None:
    """Take over changed names of columns and changed values of the rows."""
    kinds = {name: kind for kind, name in draft.columns.items()}
    old = list(draft.records[0])
    new = list(table[0])
    for before, after in zip(old, new, strict=True):
        if before != after and before in kinds:
            draft.columns[kinds[before]] = after
            draft.options["columns"] = {**draft.options.get("columns", {}), kinds[before]: after}
    for record, row, values in zip(draft.records, draft.expected, table[1:], strict=True):
        by_kind = {kinds.get(name, name): value for name, value in zip(old, values, strict=True)}
        record.clear()
        record.update(zip(new, values, strict=True))
        if row:
            row.update({name: by_kind[name] for name in ("id", "origin_query", "candidate") if name in by_kind})


def _json(draft: _Draft, encoding: str | None) -> tuple[str, bytes, list[int]]:
    random = draft.random
    lines, numbers = [], []
    for record in draft.records:
        lines += [""] * (random.random() < 0.1)
        values = {name: _retyped(random, name == draft.columns["label"], value) for name, value in record.items()}
        values |= {"other": random.choice([None, [1], {"a": 1}, 2.5])} if random.random() < 0.2 else {}
        lines.append(json.dumps(values, ensure_ascii=random.random() < 0.5))
        numbers.append(len(lines))
    suffix = random.choice([".txt", ".jsonl", ".ndjson", ".dat"])
    if suffix == ".dat":
        draft.options["format"] = "jsonl"
    end = random.choice(["\n", "\r\n"])
    return f"rows{suffix}", (end.join(lines) + end * random.randint(0, 1)).encode(encoding or "utf-8"), numbers


def _retyped(random: Random, is_label: bool, value: str) -> Any:
    """Sometimes, a label as a number or boolean."""
    if not is_label or random.random() < 0.5:
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    return float(value) if re.fullmatch(r"-?[0-9.]+", value) else value


def _parquet(draft: _Draft) -> tuple[str, bytes, list[int]]:
    random = draft.random
    arrays = {}
    for name in draft.records[0]:
        texts = [record[name] for record in draft.records]
        array = pa.array(texts)
        if name == draft.columns["label"] and all(re.fullmatch(r"-?[0-9.]+", text) for text in texts):
            decimals = pa.array([Decimal(text) for text in texts], pa.decimal128(9, 3))
            array = random.choice([array, pa.array([float(text) for text in texts]), decimals])
        elif name == draft.columns["label"] and all(text.lower() in ("true", "false") for text in texts):
            array = random.choice([array, pa.array([text.lower() == "true" for text in texts])])
        else:
            array = random.choice([array, array.cast(pa.large_string()), array.cast(pa.binary()), array.dictionary_encode()])
        arrays[name] = array
    if random.random() < 0.3:
        arrays["other"] = pa.array([random.choice([float("inf"), None]) for _ in draft.records], pa.float32())
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer, compression=random.choice(["none", "snappy", "zstd"]), row_group_size=random.randint(1, 5))
    return "rows.parquet", buffer.getvalue(), list(range(1, len(draft.records) + 1))


def _compressed(random: Random, name: str, content: bytes) -> tuple[str, bytes]:
    """Sometimes, the content inside of a compressed file, under the name of the compression or not."""
    kind = random.choice([None] * 12 + [".gz", ".bz2", ".xz", ".zip", ".zst"])
    if kind is None:
        return name, content
    if kind == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return name + kind, buffer.getvalue()
    if kind == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return name + kind, sink.getvalue().to_pybytes()
    compressors: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return random.choice([name, name + kind]), compressors[kind](content)


def make_case(random: Random) -> Case:
    """Return a random file, its options and the rows that must be read from it."""
    task = random.choice(["qc", "qi"])
    kind = random.choice(["csv", "csv", "csv", "jsonl", "parquet"])
    encoding = random.choice(ENCODINGS) if kind != "parquet" else None
    draft = _draft(random, task, encoding)
    if kind == "parquet":
        name, content, lines = _parquet(draft)
    else:
        name, content, lines = (_csv if kind == "csv" else _json)(draft, encoding)
        draft.options["encoding"] = encoding
    rows = []
    for row, line in zip(draft.expected, lines, strict=True):
        if row:
            rows.append({**row, "id": str(line)} if draft.numbered else row)
    name, content = _compressed(random, name, content)
    return Case(name, task, content, ReadOptions(**draft.options), rows)


class WrongRows(Exception):
    """The rows that were read are not those that were written."""


def check_case(case: Case, folder: Path) -> None:
    """Write the file of a case, and compare the rows that are read with those that were written.

    Raises
    ------
    UserError
        If the file is refused.
    WrongRows
        If other rows are read.
    """
    path = folder / case.name
    path.write_bytes(case.content)
    try:
        table, problems, _ = readers.read_rows([RawFile(path, case.options)], case.task, labelled=True)
    finally:
        path.unlink()
    readers.refuse_broken(problems, 0)
    names = ["id", "language", "language_tag", "origin_query", "candidate", "label", "grade"]
    read = table[names].to_dict("records")
    written = [{name: row[name] for name in names} for row in case.rows]
    if read != written:
        raise WrongRows(f"{case.name}, {describe(case.options)}:\nread    {read}\nwritten {written}")
    if case.task == "qc" and [list(levels) for levels in table["levels"]] != [row["levels"] for row in case.rows]:
        raise WrongRows(f"{case.name}, {describe(case.options)}: levels {table['levels'].tolist()}")


def read_with(options: ReadOptions, task: str, path: Path) -> None:
    """Read a file that may not fit the options; the rows that are accepted must be valid.

    Raises
    ------
    UserError
        If the file or a row of it is refused; the message must name the file.
    """
    try:
        table, problems, _ = readers.read_rows([RawFile(path, options)], task, labelled=True)
        readers.refuse_broken(problems, 0)
    except UserError as error:
        if path.name not in str(error):
            raise WrongRows(f"the message does not name the file: {error}") from error
        raise
    if not table["label"].isin([0, 1]).all() or table["id"].duplicated().any() or table[["origin_query", "candidate"]].isna().any().any():
        raise WrongRows(f"{describe(options)}: {table.to_dict('records')}")


def describe(options: ReadOptions) -> str:
    """Return the options that are set, for a message."""
    values = ((option.name, getattr(options, option.name)) for option in dataclasses.fields(ReadOptions))
    return ", ".join(f"{name}={value!r}" for name, value in values if value is not None)
