"""Reading rows: valid rows in every format, and messages that name file, line, field and value of malformed ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.core.errors import UserError
from babelcart.reading import readers
from babelcart.reading.sources import RawFile, ReadOptions
from babelcart.rows import text
from babelcart.rows.cleaning import drop_uninformative
from babelcart.rows.table import PREPARED_COLUMNS

VALID = {"id": "1", "task": "QC", "language": "vn", "origin_query": "nan", "category_path": "a,b", "label": "1"}
HEADER = "id,task,language,origin_query,category_path,label\n"


def json_line(**changes: object) -> bytes:
    """Return a valid row with other values; ``...`` removes a field."""
    record = {key: value for key, value in {**VALID, **changes}.items() if value is not ...}
    return json.dumps(record).encode()


def read(path: Path, content: bytes, labelled: bool = True, task: str = "qc", **options: Any) -> tuple[pd.DataFrame, list[readers.Problem]]:
    path.write_bytes(content)
    return readers.read_rows([RawFile(path, ReadOptions(**options))], task, labelled=labelled)[:2]


# name of the case, file name, content, line, field, part of the message
BROKEN = [
    ("bad JSON", "a.txt", b'{"id": "1",', 1, "the line", "not JSON"),
    ("JSON that is no object", "a.txt", b"12", 1, "the line", "expected a JSON object"),
    ("a repeated key", "a.txt", b'{"id": "1", "id": "2"}', 1, "the line", "occurs twice"),
    ("deep JSON", "a.txt", b'{"a":' + b"[" * 100_000, 1, "the line", "not JSON"),
    ("a missing field", "a.txt", json_line(category_path=...), 1, "category_path", "missing"),
    ("a null query", "a.txt", json_line(origin_query=None), 1, "origin_query", "missing"),
    ("a query that is a number", "a.txt", json_line(origin_query=5), 1, "origin_query", "expected a text"),
    ("a query that is a list", "a.txt", json_line(origin_query=["a"]), 1, "origin_query", "expected a text"),
    ("an id that is true", "a.txt", json_line(id=True), 1, "id", "expected a text"),
    ("an empty id", "a.txt", json_line(id=" "), 1, "id", "empty"),
    ("label 2", "a.txt", json_line(label="2"), 1, "label", "neither 0 nor 1"),
    ("label 1.5", "a.txt", json_line(label=1.5), 1, "label", "neither 0 nor 1"),
    ("label yes", "a.txt", json_line(label="yes"), 1, "label", "neither 0 nor 1"),
    ("no label", "a.txt", json_line(label=...), 1, "label", "label is missing"),
    ("an unknown language", "a.txt", json_line(language="klingon"), 1, "language", "unknown language"),
    ("an empty language", "a.txt", json_line(language=""), 1, "language", "unknown language"),
    ("another task", "a.txt", json_line(task="QI"), 1, "task", "expected QC"),
    ("a NUL byte in JSON", "a.txt", json_line(origin_query="a\0b"), 1, "origin_query", "NUL"),
    ("a raw NUL byte", "a.txt", b'{"id": "1\0"}', 1, "the line", "NUL"),
    ("bad UTF-8", "a.txt", json_line().replace(b"nan", b"\xff\xfe"), 1, "origin_query", "not valid UTF-8"),
    ("half a surrogate pair", "a.txt", json_line().replace(b"nan", b"\\ud83d"), 1, "origin_query", "not valid UTF-8"),
    ("a repeated id", "a.txt", json_line() + b"\n\n" + json_line(), 3, "id", "already used"),
    ("a short CSV line", "a.csv", HEADER.encode() + b"1,QC,en,q\n", 2, "the line", "expected 6 fields"),
    ("a long CSV line", "a.csv", HEADER.encode() + b"1,QC,en,q,c,1,7\n", 2, "the line", "expected 6 fields"),
    ("an open quote", "a.csv", HEADER.encode() + b'1,QC,en,"q,c,1\n', 2, "the line", "not CSV"),
    ("bad UTF-8 in CSV", "a.csv", HEADER.encode() + b"1,QC,en,\xe9t\xe9,c,1\n", 2, "origin_query", "not valid UTF-8"),
    ("a NUL byte in CSV", "a.csv", HEADER.encode() + b"1,QC,en,a\0b,c,1\n", 2, "origin_query", "NUL"),
    ("an empty label in CSV", "a.csv", HEADER.encode() + b"1,QC,en,q,c,\n", 2, "label", "label is missing"),
    ("a bad label in TSV", "a.tsv", HEADER.replace(",", "\t").encode() + b"1\tQC\ten\tq\tc\tx\n", 2, "label", "neither 0 nor 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line", "field", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_malformed_row_is_reported_with_its_line(tmp_path: Path, name: str, content: bytes, line: int, field: str, message: str) -> None:
    table, problems = read(tmp_path / name, content)
    assert len(problems) == 1
    problem = problems[0]
    assert (problem.file, problem.line, problem.field) == (str(tmp_path / name), line, field)
    assert message in str(problem)
    str(problem).encode("utf-8")  # can be printed
    assert len(table) == content.count(b'"id": "1"') - 1 if "already used" in message else table.empty


BROKEN_FILES = [
    ("no file", "a.txt", None, "does not exist"),
    ("an empty file", "a.txt", b"", "has no rows"),
    ("blank lines only", "a.txt", b"\n\n", "has no rows"),
    ("an unknown format", "a.xlsx", b"x", "unknown format"),
    ("no suffix", "rows", b"x", "unknown format"),
    ("an empty CSV", "a.csv", b"", "is empty"),
    ("only a header", "a.csv", HEADER.encode(), "has no rows"),
    ("a missing column", "a.csv", b"id,language,origin_query,label\n1,en,q,1\n", "no column 'category_path'"),
    ("a repeated column", "a.csv", HEADER.replace("task", "id").encode() + b"1,1,en,q,c,1\n", "occurs twice"),
    ("a truncated gzip", "a.txt.gz", gzip.compress(json_line() * 50)[:-9], "is not a complete gzip file"),
    ("not gzip", "a.txt.gz", json_line(), "is named .gz but does not contain gzip data"),
    ("a JSON array", "a.txt", b"[1, 2]", "is a JSON array"),
    ("not Parquet", "a.parquet", b"PAR1", "not a readable Parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), [case[1:] for case in BROKEN_FILES], ids=[case[0] for case in BROKEN_FILES])
def test_an_unreadable_file_is_reported(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        readers.read_rows([RawFile(tmp_path / name, ReadOptions())], "qc", labelled=True)
    assert name in str(error.value)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet", "txt.gz", "csv.gz", "parquet.gz"])
def test_every_format_reads_the_same_rows(tmp_path: Path, suffix: str) -> None:
    queries = ["nan", "null", "None", "NA", "", "007", "1e5", 'a "quoted", one', "两\tlines\nhere", "-", "true"]
    table = pd.DataFrame([{**VALID, "id": str(n), "origin_query": query} for n, query in enumerate(queries)])
    path = tmp_path / f"rows.{suffix}"
    kind = suffix.removesuffix(".gz")
    plain = tmp_path / f"plain.{kind}"
    if kind in ("txt", "jsonl"):
        plain.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")), encoding="utf-8")
    elif kind == "parquet":
        table.to_parquet(plain)
    else:
        table.to_csv(plain, index=False, sep="\t" if kind == "tsv" else ",")
    path.write_bytes(gzip.compress(plain.read_bytes()) if suffix.endswith(".gz") else plain.read_bytes())

    rows, problems, _ = readers.read_rows([RawFile(path, ReadOptions())], "qc", labelled=True)
    assert not problems
    assert rows["origin_query"].tolist() == queries
    assert set(rows["language"]) == {"vi"}
    assert set(rows["language_tag"]) == {"vn"}
    assert rows["label"].tolist() == [1] * len(queries)


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    content = b"key,lang,search,product,answer\n7,pt-BR,caneca,mug,0\n"
    names: dict[str, Any] = {"id": "key", "language": "lang", "origin_query": "search", "candidate": "product", "label": "answer"}
    rows, problems = read(tmp_path / "own.csv", content, columns=names)
    assert not problems
    assert rows.iloc[0].tolist() == ["7", "qc", "pt", "pt-BR", "caneca", "mug", 0, "", ("mug",)]


def test_an_optional_label_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    content = json_line(label=...) + b"\n" + json_line(id="2", label="7")
    rows, problems = read(tmp_path / "dev.txt", content, labelled=False)
    assert rows["label"].isna().tolist() == [True]
    assert [problem.line for problem in problems] == [2]


def test_a_byte_order_mark_is_not_part_of_the_first_field(tmp_path: Path) -> None:
    rows, problems = read(tmp_path / "bom.csv", b"\xef\xbb\xbf" + HEADER.encode() + b"1,QC,en,q,c,1\n")
    assert not problems
    assert rows["id"].tolist() == ["1"]


def test_too_many_broken_rows_raise_an_error_that_counts_all() -> None:
    problems = [readers.Problem("f", n, "label", "x", "bad") for n in range(30)]
    readers.refuse_broken(problems, 30)
    with pytest.raises(readers.BrokenRows, match="30 broken rows, 29 allowed") as error:
        readers.refuse_broken(problems, 29)
    assert "f, line 19, label: bad; found 'x'" in str(error.value)
    assert "and 10 more" in str(error.value)


def table(*triples: tuple[str, str, int]) -> pd.DataFrame:
    records = [(str(n), "qc", "en", "en", query, candidate, label, "", ()) for n, (query, candidate, label) in enumerate(triples)]
    return pd.DataFrame(records, columns=list(PREPARED_COLUMNS)).astype({"label": "Int8"})


def test_empty_contradictory_and_duplicate_rows_are_dropped() -> None:
    given_rows = table(
        ("a", "x", 1), ("A ", "X", 1), ("", "x", 1), ("a", " ", 0),
        ("b", "x", 1), ("b", "x", 1), ("b", "x", 0),
        ("c", "x", 1), ("c", "x", 0),
    )  # fmt: skip
    kept, counts = drop_uninformative(given_rows, "majority")
    assert list(zip(kept["origin_query"], kept["label"], strict=True)) == [("a", 1), ("b", 1)]
    assert counts == {
        "rows": 9, "empty_query": 1, "empty_candidate": 1, "contradictory_pairs": 2, "judged_repeatedly": 3, "contradictory": 3,
        "duplicate": 2, "kept": 2,
    }  # fmt: skip
    kept, counts = drop_uninformative(given_rows, "drop")
    assert kept["origin_query"].tolist() == ["a"]
    assert counts["contradictory"] == 5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab \u3000A"), st.sampled_from("xyX"), st.integers(0, 1)), min_size=1, max_size=12))
def test_the_counts_of_dropped_rows_add_up_and_no_pair_occurs_twice(triples: list[tuple[str, str, int]]) -> None:
    kept, counts = drop_uninformative(table(*triples), "majority")
    assert counts["rows"] == sum(counts[name] for name in ("empty_query", "empty_candidate", "contradictory", "duplicate", "kept"))
    pairs = [(text.normalise(q), text.normalise(c)) for q, c in zip(kept["origin_query"], kept["candidate"], strict=True)]
    assert len(pairs) == len(set(pairs))
