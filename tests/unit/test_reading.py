"""Reading files as people have them: column names, codes, grades, dialects, encodings, row filters, and labels in files of their own."""

from __future__ import annotations

import csv
import decimal
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.prepare import PreparedTask, prepare_task
from babelcart.reading import delimited, readers
from babelcart.reading.sources import Data, RawFile, ReadOptions
from babelcart.rows.cleaning import Prepare, drop_uninformative
from babelcart.rows.labels import LabelRule, grade_text

ROWS = [
    {"id": "1", "language": "en", "origin_query": "garden hose", "item_title": "Water Hose 15 m", "label": "1"},
    {"id": "2", "language": "en", "origin_query": "garden hose", "item_title": "Desk Lamp", "label": "0"},
    {"id": "3", "language": "de", "origin_query": "gartenschlauch", "item_title": "Schlauch 15 m", "label": "1"},
    {"id": "4", "language": "de", "origin_query": "gartenschlauch", "item_title": "Lampe", "label": "0"},
]


def read(path: Path, *, labelled: bool = True, task: str = "qi", **options: Any) -> pd.DataFrame:
    """Return the rows of a file without malformed ones."""
    table, problems, _ = readers.read_rows([RawFile(path, ReadOptions(**options))], task, labelled=labelled)
    assert not problems
    return table


def lines(path: Path, *rows: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    """Write lines of text."""
    path.write_bytes(end.join([*rows, ""]).encode(encoding))
    return path


def parquet(path: Path, **columns: Any) -> Path:
    """Write the rows of `ROWS` as Parquet with some columns replaced."""
    table = {name: [row[name] for row in ROWS] for name in ROWS[0]} | columns
    pq.write_table(pa.table(table), path)
    return path


def prepare(folder: Path, data: dict[str, Any], task: str = "qi", **settings_of_prepare: Any) -> PreparedTask:
    section = config.build_section(Data, {"path": str(folder), task: data}, "data")
    return prepare_task(section, Prepare(**settings_of_prepare), task)


def write_rows(path: Path, rows: list[dict[str, str]], *columns: str) -> Path:
    """Write some columns of rows as CSV."""
    pd.DataFrame(rows)[list(columns) or list(rows[0])].to_csv(path, index=False)
    return path


# ---- columns, constants, codes


def test_one_file_is_cut_by_its_split_column_and_read_by_settings_alone(tmp_path: Path) -> None:
    table = pd.DataFrame({
        "example_id": np.arange(8), "query": [f"query {n // 2}" for n in range(8)], "product_title": [f"title {n}" for n in range(8)],
        "product_locale": ["us", "us", "jp", "jp", "es", "es", "us", "us"], "esci_label": list("EIEIESEC"),
        "split": ["train"] * 6 + ["test"] * 2,
    })  # fmt: skip
    table.to_parquet(tmp_path / "examples.parquet")
    before = (tmp_path / "examples.parquet").read_bytes()
    columns = {
        "id": "example_id",
        "language": "product_locale",
        "origin_query": "query",
        "candidate": "product_title",
        "label": "esci_label",
    }
    prepared = prepare(tmp_path, {
        "columns": columns, "languages": {"us": "en", "jp": "ja"}, "labels": {"E": 1, "S": 0, "C": 0, "I": 0},
        "train": {"files": "examples.parquet", "where": {"split": "train"}},
        "test": {"files": ["examples.parquet"], "where": {"split": ["test", "other"]}},
    })  # fmt: skip
    train, test = prepared.tables["train"], prepared.tables["test"]
    assert train["id"].tolist() == list("012345")
    assert train["language"].tolist() == ["en", "en", "ja", "ja", "es", "es"]
    assert train["language_tag"].tolist() == ["us", "us", "jp", "jp", "es", "es"]
    assert (train["label"].tolist(), train["grade"].tolist()) == ([1, 0, 1, 0, 1, 0], list("EIEIES"))
    assert (test["label"].tolist(), test["grade"].tolist()) == ([1, 0], ["E", "C"])
    assert (tmp_path / "examples.parquet").read_bytes() == before


def test_more_specific_options_win_key_by_key(tmp_path: Path) -> None:
    lines(tmp_path / "a.csv", "key,lang,q,item_title,label", "1,xx,a,b,1")
    lines(tmp_path / "b.csv", "id,q,item_title,label", "2,c,d,0")
    data = {
        "columns": {"id": "key", "language": "lang", "origin_query": "q"}, "constants": {"grade": "g"}, "languages": {"xx": "pl"},
        "train": ["a.csv", {"files": "b.csv", "columns": {"id": "id"}, "constants": {"language": "fr"}}],
    }  # fmt: skip
    table = prepare(tmp_path, data).tables["train"]
    assert table[["id", "language", "origin_query"]].to_numpy().tolist() == [["1", "pl", "a"], ["2", "fr", "c"]]


def test_constants_and_line_numbers_replace_missing_columns(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", "search,title", "hose,Water Hose", "", "hose,Lamp")
    names = {"id": None, "origin_query": "search", "candidate": "title"}
    table = read(path, columns=names, constants={"language": "pt-BR", "label": 1})
    assert table[["id", "language", "language_tag", "label"]].to_numpy().tolist() == [["2", "pt", "pt-BR", 1], ["4", "pt", "pt-BR", 1]]


@pytest.mark.parametrize("identifiers", [[1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], list(map(decimal.Decimal, "1234")), ["1", "2", "3", "4"]])
def test_whole_numbers_are_ids_under_any_name(tmp_path: Path, identifiers: list[Any]) -> None:
    path = parquet(tmp_path / "a.parquet", key=identifiers)
    assert read(path, columns={"id": "key"})["id"].tolist() == ["1", "2", "3", "4"]


def test_train_files_may_have_the_same_ids_but_dev_and_test_may_not(tmp_path: Path) -> None:
    for name in ("en.csv", "fr.csv"):
        write_rows(tmp_path / name, ROWS)
    files = [RawFile(tmp_path / name, ReadOptions()) for name in ("en.csv", "fr.csv")]
    table, problems, _ = readers.read_rows(files, "qi", labelled=True)
    assert (table["id"].tolist()[:5], problems) == (["en.csv:1", "en.csv:2", "en.csv:3", "en.csv:4", "fr.csv:1"], [])
    table, problems, _ = readers.read_rows(files, "qi", labelled=False)
    assert [(problem.line, problem.value) for problem in problems] == [(line, str(line - 1)) for line in range(2, 6)]
    assert f"already used in {tmp_path / 'en.csv'}, line 2" in str(problems[0])


def test_globs_and_folders_give_sorted_files(tmp_path: Path) -> None:
    (tmp_path / "parts/_temporary").mkdir(parents=True)
    (tmp_path / "parts/_SUCCESS").touch()
    (tmp_path / "parts/_temporary/half.csv").write_text("half")
    for number in (2, 1, 10):
        write_rows(tmp_path / f"parts/part-{number:02}.csv", [{**row, "id": f"{number}.{row['id']}"} for row in ROWS])
    data = config.build_section(Data, {"path": str(tmp_path), "qi": {"train": ["parts"], "test": "parts/part-*.csv"}}, "data")
    names = [file.path.name for file in data.raw_files("qi", "train")]
    assert names == ["part-01.csv", "part-02.csv", "part-10.csv"] == [file.path.name for file in data.raw_files("qi", "test")]
    assert readers.read_ids(data, "qi", "test") == [f"{number}.{row}" for number in (1, 2, 10) for row in range(1, 5)]
    with pytest.raises(UserError, match="matches no file"):
        prepare(tmp_path, {"train": "parts/*.tsv"})


# ---- labels and grades


@pytest.mark.parametrize(
    ("labels", "column", "expected"),
    [
        (None, ["1", "0", "1", "0"], [1, 0, 1, 0]),
        (None, [True, False, True, False], [1, 0, 1, 0]),
        (None, [1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0]),
        (None, list(map(decimal.Decimal, ["1", "0", "1.0", "0.00"])), [1, 0, 1, 0]),
        (None, ["true", "False", "TRUE", "0.0"], [1, 0, 1, 0]),
        (None, [b"1", b"0", b"1", b"0"], [1, 0, 1, 0]),
        ({"Exact": 1, "Partial": 0, "Irrelevant": 0}, ["Exact", "Partial", "Irrelevant", "Exact"], [1, 0, 0, 1]),
        ({"at_least": 2.33}, [3.0, 2.33, 2.0, 2.32], [1, 1, 0, 0]),
        ({"at_least": 3}, ["3", "4.00", "2.999", "1"], [1, 1, 0, 0]),
        ({"3": 1, "1": 0}, [3, 1, 3, 1], [1, 0, 1, 0]),
        ({"1": 1, "0.5": 1, "0": 0}, [1.0, 0.5, 0.0, 0.50], [1, 1, 0, 1]),
    ],
)
def test_label_values_and_grades(tmp_path: Path, labels: dict[str, Any] | None, column: list[Any], expected: list[int]) -> None:
    table = read(parquet(tmp_path / "a.parquet", label=column), labels=labels)
    assert table["label"].tolist() == expected
    assert table["grade"].tolist() == ([grade_text(value) for value in column] if labels else [""] * 4)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_grade_is_compared_as_the_decimal_that_its_type_stores(tmp_path: Path, kind: type[np.floating[Any]]) -> None:
    grades = np.array([2.33, 2.32, 1.67, 3], dtype=kind)
    path = parquet(tmp_path / "a.parquet", label=grades)
    table = read(path, labels={"at_least": 2.33})
    assert (table["label"].tolist(), table["grade"].tolist()) == ([1, 0, 0, 1], ["2.33", "2.32", "1.67", "3"])
    assert read(path, labels={"2.33": 1, "2.32": 0, "1.67": 0, "3": 1})["label"].tolist() == [1, 0, 0, 1]
    assert read(path, labels={"at_least": 2.33}, where={"label": (2.33, 3)})["label"].tolist() == [1, 1]


def test_a_null_label_is_left_out_of_train_and_kept_in_test(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", [{**row, "label": "?" if row["id"] == "2" else row["label"]} for row in ROWS])
    options: dict[str, Any] = {"labels": {"1": 1, "0": 0, "?": None}}
    prepared = prepare(tmp_path, {"train": "a.csv", "test": "a.csv", **options})
    assert prepared.tables["train"]["id"].tolist() == ["1", "3", "4"]
    assert prepared.counts["train"]["left_out_unlabelled"] == 1
    assert prepared.tables["test"]["label"].isna().tolist() == [False, True, False, False]
    assert (prepared.counts["test"]["rows"], prepared.counts["test"]["labelled"]) == (4, 3)


@pytest.mark.parametrize("value", ["2", "yes", "1.5", "-1", "nan", "inf", "１", "1e400", "0x1", "1_0"])
def test_a_value_that_no_rule_covers_is_refused(tmp_path: Path, value: str) -> None:
    path = write_rows(tmp_path / "a.csv", [{**ROWS[0], "label": value}])
    rules: tuple[dict[str, int | float | None] | None, ...] = (None, {"E": 1})
    for labels in rules:
        _, problems, _ = readers.read_rows([RawFile(path, ReadOptions(labels=labels))], "qi", labelled=False)
        assert [problem.field for problem in problems] == ["label"]


def test_keys_that_are_the_same_value_are_refused_if_they_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="labels has two values for '1'"):
        LabelRule({"1": 1, "1.0": 0})
    with pytest.raises(ValueError, match="languages maps 'uk' to two languages"):
        ReadOptions(languages={"UK": "en", "uk": "uk"})
    assert LabelRule({"1": 1, "1.0": 1, "0": 0})("1.00") == 1
    assert ReadOptions(languages={"UK": "en", "uk": "en"}).languages


@pytest.mark.parametrize("labels", [{}, {"E": 2}, {"at_least": None}, {"at_least": "x"}, {"E": 0.5}])
def test_a_wrong_label_rule_is_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="labels"):
        LabelRule(labels)


def test_the_mean_of_grades_is_exact() -> None:
    columns = {"language": "en", "origin_query": "hose", "candidate": ["a", "a", "a", "b", "b", "b", "c", "c", "c"]}
    grades = ["1", "1", "1.3", "1", "1", "1.2999999999999999", "0.9", "1.1", "1.3"]
    rows = pd.DataFrame({**columns, "id": list(map(str, range(9))), "label": 0, "grade": grades}).astype({"label": "Int8"})
    assert np.mean([1, 1, 1.3]) < 1.1  # in binary floating point
    kept, _ = drop_uninformative(rows, "mean", LabelRule({"at_least": 1.1}))
    assert kept["label"].tolist() == [1, 0, 1]


def test_grades_of_several_judgements_are_averaged() -> None:
    columns = {"language": "en", "origin_query": "hose", "candidate": ["a", "a", "a", "b", "b"]}
    rows = pd.DataFrame({"id": list("12345"), **columns, "label": pd.array([0, 1, 1, 0, 1], "Int8"), "grade": ["1", "4", "4", "1", "3"]})
    kept, counts = drop_uninformative(rows, "mean", LabelRule({"at_least": 2.5}))
    assert kept[["candidate", "label"]].to_numpy().tolist() == [["a", 1], ["b", 0]]
    assert counts["judged_repeatedly"] == 2
    assert counts["grade_spread"] == pytest.approx((np.std([1, 4, 4]) + np.std([1, 3])) / 2)
    with pytest.raises(UserError, match="needs grades"):
        drop_uninformative(rows, "mean")


# ---- labels in files of their own


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["9,1", "8,0"], "none of its 2 ids is the id of a row.*'9', '8'; the rows have '1', '2', '3'"),
        (["001,1", "002,0"], "2 ids differ only in leading zeros"),
        (["1.0,1", "2.0,0"], "2 ids differ only in a trailing `.0`"),
        ([" 1 ,1"], "1 ids differ only in case or spaces"),
        (["1,1", "1,0"], "the id occurs twice"),
        (["1,-1"], "neither 0 nor 1"),
    ],
)
def test_a_join_that_finds_nothing_is_an_error(tmp_path: Path, labels: list[str], message: str) -> None:
    write_rows(tmp_path / "rows.csv", ROWS)
    write_rows(tmp_path / "test.csv", ROWS, "id", "language", "origin_query", "item_title")
    lines(tmp_path / "labels.csv", "id,label", *labels)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path, {"train": "rows.csv", "test": "test.csv", "test_labels": "labels.csv"})


def test_partly_matching_labels_are_counted_and_warned_about(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ROWS)
    write_rows(tmp_path / "test.csv", ROWS, "id", "language", "origin_query", "item_title")
    lines(tmp_path / "labels.csv", "key,answer,Usage", "1,1,Private", "2,0,Public", "3,-1,Ignored", "99,0,Private")
    labels = {"files": "labels.csv", "columns": {"id": "key", "label": "answer"}, "where": {"Usage": ["Private", "Public"]}}
    prepared = prepare(tmp_path, {"train": "rows.csv", "test": "test.csv", "test_labels": labels})
    counts = prepared.counts["test"]
    assert [counts[name] for name in ("rows", "labelled", "label_rows", "matched", "unmatched")] == [4, 2, 3, 2, 1]
    assert prepared.warnings == ["test: 1 of 3 labels have an id that no row has, and 2 rows have a label in the label files."]


def test_a_partial_match_names_the_difference_of_the_other_ids(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ROWS)
    write_rows(tmp_path / "test.csv", ROWS, "id", "language", "origin_query", "item_title")
    lines(tmp_path / "labels.csv", "id,label", "1,1", "002,0", "003,0")
    (warning,) = prepare(tmp_path, {"train": "rows.csv", "test": "test.csv", "test_labels": "labels.csv"}).warnings
    assert warning.startswith("test: 2 of 3 labels have an id that no row has")
    assert warning.endswith("2 ids differ only in leading zeros.")


@pytest.mark.parametrize("column", ["language", "origin_query", "candidate"])
def test_a_column_that_every_row_needs_cannot_be_null(column: str) -> None:
    with pytest.raises(ValueError, match=rf"columns\.{column} is null; .*`constants: "):
        ReadOptions(columns={column: None})


def test_a_column_of_a_file_has_one_meaning(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ROWS)
    with pytest.raises(UserError, match="both origin_query and candidate are the column 'item_title'; set `columns`"):
        prepare(tmp_path, {"train": "rows.csv", "columns": {"origin_query": "item_title"}})


def test_options_without_effect_are_reported(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    warnings = prepare(tmp_path, {"train": "a.parquet", "encoding": "cp1252", "delimiter": ";"}).warnings
    assert warnings == [
        f"qi: `{name}` in data has no effect on files in the format parquet; remove it" for name in ("delimiter", "encoding")
    ]
    write_rows(tmp_path / "b.csv", ROWS)
    assert not prepare(tmp_path, {"train": "a.parquet", "test": "b.csv", "delimiter": ","}).warnings


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MÃ¼sli", "UTF-8"), ("dâ€™or", "UTF-8"), ("ÐºÐ°Ð¼ÐµÑ€Ð°", "UTF-8"), ("caf\ufffd", "could not be decoded"),
        ("#NAME?", "spreadsheet"),
        ("SÃO PAULO", ""), ("#1 dad mug", ""), ("château", ""), ("Â la carte", ""), ("Ñandú", ""), ("Müsli", ""),
    ],
)  # fmt: skip
def test_texts_that_were_damaged_before_are_reported(tmp_path: Path, text: str, kind: str) -> None:
    write_rows(tmp_path / "rows.csv", [*ROWS, {**ROWS[0], "id": "9", "item_title": text}])
    warnings = [warning for warning in prepare(tmp_path, {"train": "rows.csv"}).warnings if "distinct texts" in warning]
    assert [kind in warning for warning in warnings] == ([True] if kind else [])


def test_labels_that_contradict_the_rows_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ROWS)
    lines(tmp_path / "labels.csv", "id,label", "1,0", "2,0")
    with pytest.raises(UserError, match="1 labels differ from the labels in the rows, first for the id '1'"):
        prepare(tmp_path, {"train": "rows.csv", "test": "rows.csv", "test_labels": "labels.csv"})


def test_train_labels_may_be_in_a_file_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", ROWS, "id", "language", "origin_query", "item_title")
    lines(tmp_path / "labels.csv", "id,label", "1,1", "2,0")
    prepared = prepare(tmp_path, {"train": "rows.csv", "train_labels": "labels.csv"})
    assert prepared.tables["train"][["id", "label"]].to_numpy().tolist() == [["1", 1], ["2", 0]]
    assert prepared.counts["train"]["left_out_unlabelled"] == 2


# ---- tolerance


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_tolerance_for_broken_rows_holds_for_train_only(tmp_path: Path, split: str) -> None:
    broken = [*ROWS, {**ROWS[0], "id": "5", "language": "klingon"}]
    write_rows(tmp_path / "good.csv", ROWS)
    write_rows(tmp_path / "broken.csv", broken)
    prepared = prepare(tmp_path, {"train": "broken.csv", "test": "good.csv"}, max_broken_rows=1)
    assert (prepared.counts["train"]["broken"], len(prepared.tables["train"])) == (1, 4)
    with pytest.raises(UserError, match="every row of dev and test needs an answer"):
        prepare(tmp_path, {"train": "good.csv", split: "broken.csv"}, max_broken_rows=100)


def test_dev_and_test_keep_every_row(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "id": "5"}, {**ROWS[0], "id": "6", "label": "0"}, {**ROWS[0], "id": "7", "item_title": ""}]
    write_rows(tmp_path / "good.csv", ROWS)
    write_rows(tmp_path / "all.csv", rows)
    assert prepare(tmp_path, {"train": "good.csv", "test": "all.csv"}).tables["test"]["id"].tolist() == list("1234567")


def test_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", ROWS)
    with pytest.raises(UserError, match="all 4 train rows have the label 1"):
        prepare(tmp_path, {"train": "a.csv", "labels": {"1": 1, "0": 1}})


# ---- delimited text: quotes, delimiters, encodings


INCHES = [
    "id\tlanguage\torigin_query\titem_title\tlabel",
    '1\ten\t"led tv mount\tBracket\t1',
    '2\ten\ttv mount 55"\tHose\t0',
    '3\ten\t"exact phrase"\tx\t1',
]


def test_quotes_of_unquoted_tab_separated_text_are_characters(tmp_path: Path) -> None:
    table = read(lines(tmp_path / "a.tsv", *INCHES))
    assert table["origin_query"].tolist() == ['"led tv mount', 'tv mount 55"', '"exact phrase"']
    alone = lines(tmp_path / "b.tsv", INCHES[0], INCHES[3])
    assert read(alone)["origin_query"].tolist() == ['"exact phrase"']


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_quoted_tab_separated_text_of_usual_writers_is_unquoted(tmp_path: Path, quoting: Any) -> None:
    queries = ["plain", 'a "b"', "tab\there", "two\nlines", "comma, too", '"']
    frame = pd.DataFrame([{**ROWS[0], "id": str(n), "origin_query": query} for n, query in enumerate(queries)])
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=quoting)
    assert read(tmp_path / "a.tsv")["origin_query"].tolist() == queries


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("rows_between", [0, 1, 70_000])
def test_a_stray_quote_never_swallows_rows(tmp_path: Path, suffix: str, rows_between: int) -> None:
    delimiter = "," if suffix == "csv" else "\t"
    rows = [f"{n},en,plain {n},x,0" for n in range(rows_between)]
    text = ["id,language,origin_query,item_title,label", 'a,en,"led tv mount,x,1', *rows, 'b,en,tv mount 55",y,0']
    path = lines(tmp_path / f"a.{suffix}", *(line.replace(",", delimiter) for line in text))
    for quoting in ("minimal", None) if suffix == "csv" else ("minimal",):
        with pytest.raises(UserError, match=rf"lines 2 to {3 + rows_between}: a double quote opens .*set `quoting: none`"):
            read(path, quoting=quoting)
    assert len(read(path, quoting="none")) == rows_between + 2


@pytest.mark.parametrize(
    ("first", "between", "last"),
    [
        ('a,en,"led tv mount,x,1', ["1,en,lamp,x,0"], 'b,en,tv mount 55","home, garden",0'),
        ('a,en,"led tv mount,x,1', ["1,en,lamp,home, garden,0", "2,en,hose,x,0"], 'b,en,tv mount 55",y,0'),
        ('a,en,"led tv mount,home, garden,1', ["1,en,lamp,x,0"], 'b,en,tv mount 55",0'),
        ('a,en,"led tv mount,x,1', ["1,en,lamp", "", "2,en,hose,x,0", "3,en,hose,x,0"], 'b,en,tv mount 55",y,0'),
    ],
)
def test_a_stray_quote_never_swallows_rows_with_more_or_fewer_delimiters(tmp_path: Path, first: str, between: list[str], last: str) -> None:
    path = lines(tmp_path / "a.csv", "id,language,origin_query,item_title,label", first, *between, last)
    with pytest.raises(UserError, match=f"lines 2 to {3 + len(between)}: a double quote opens"):
        read(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("last", [True, False])
def test_a_header_in_the_middle_of_a_file_is_refused(tmp_path: Path, suffix: str, last: bool) -> None:
    header = {"origin_query": "search_term", "item_title": "item_title"}
    texts = [*ROWS[:2], header] if last else [*ROWS[:2], header, *ROWS[2:]]
    rows = [{"search_term": row["origin_query"], "item_title": row["item_title"]} for row in texts]
    table, path = pd.DataFrame(rows), tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, sep="," if suffix == "csv" else "\t", index=False)
    options: dict[str, Any] = {"columns": {"id": None, "origin_query": "search_term"}, "constants": {"language": "en"}}
    table, problems, _ = readers.read_rows([RawFile(path, ReadOptions(**options))], "qi", labelled=False)
    assert [(problem.field, problem.reason[:24]) for problem in problems] == [("the line", "the row repeats the head")]
    assert "search_term" not in table["origin_query"].tolist()
    assert len(table) == len(rows) - 1


def test_a_header_in_the_middle_of_a_file_of_labels_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "labels.csv", "id,label", "1,1", "id,label", "2,0")
    labels, problems, _ = readers.read_labels([RawFile(path, ReadOptions())], "qi")
    assert (labels["id"].tolist(), [problem.line for problem in problems]) == (["1", "2"], [3])


def test_a_quote_that_is_never_closed_is_refused_whatever_the_tolerance(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", "id,language,origin_query,item_title,label", '1,en,"open,x,1', *(f"{n},en,q,x,0" for n in range(2, 9)))
    with pytest.raises(UserError, match="lines 2 to 9"):
        prepare(tmp_path, {"train": path.name}, max_broken_rows=100)


def test_a_field_with_line_breaks_is_read(tmp_path: Path) -> None:
    rows = ["id,language,origin_query,item_title,label", '1,en,q,"first line', 'second, line"', ""]
    path = lines(tmp_path / "a.csv", rows[0], rows[1], rows[2] + ",1", end="\r\n")
    assert read(path)["candidate"].tolist() == ["first line\r\nsecond, line"]
    like_rows = lines(tmp_path / "b.csv", rows[0], '1,en,q,"first,x', 'a,b,c,d",1')
    with pytest.raises(UserError, match="multiline"):
        read(like_rows)
    assert read(like_rows, quoting="multiline")["candidate"].tolist() == ["first,x\na,b,c,d"]


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=2, max_size=2), min_size=1
    ),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_text_written_by_a_library_is_read_with_the_same_options(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]], data: st.DataObject
) -> None:
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
    path = tmp_path_factory.mktemp("text") / "a.csv"
    with path.open("w", encoding=encoding, newline="") as handle:
        writer = csv.writer(handle, delimiter=delimiter, quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])))
        writer.writerow(["language", "origin_query", "item_title", "label"])
        writer.writerows(["en", *pair, "1"] for pair in texts)
    table = read(path, delimiter=delimiter, encoding=encoding, quoting="multiline", columns={"id": None})
    assert table[["origin_query", "candidate"]].to_numpy().tolist() == texts


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", "câble"), ("utf-16-le", "câble"), ("utf-32", "câble"), ("cp1252", "câble – €"), ("latin-1", "câble"),
        ("shift_jis", "犬 ベッド"), ("gb18030", "狗床"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_encodings_are_read_if_set_and_refused_if_not(tmp_path: Path, encoding: str, text: str, suffix: str) -> None:
    row = {**ROWS[0], "origin_query": text * 20}
    if suffix == "csv":
        path = lines(tmp_path / "a.csv", ",".join(row), ",".join(row.values()), encoding=encoding)
    else:
        path = lines(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False), encoding=encoding)
    assert read(path, encoding=encoding)["origin_query"].tolist() == [text * 20]
    with pytest.raises(UserError, match=r"encoding|UTF-8|UTF-16|JSON") as error:
        prepare(tmp_path, {"train": path.name})
    assert path.name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "id;language;origin_query;item_title;label", {}, r"separated by ';'. Set `delimiter: \";\"`"),
        ("a.txt", "id\tlanguage\torigin_query", {}, r"separated by tabs: name it .tsv or set `delimiter: \"\\t\"`"),
        ("a.txt", "id,language,origin_query", {}, "separated by ',': name it .csv or set `delimiter"),
        ("a.jsonl", '[{"id": 1},', {}, "is a JSON array; .*convert it"),
        ("a.csv", "id,lang,q", {}, "no column 'language', 'origin_query', 'item_title', 'label'; it has"),
        ("a.csv", "key,language,origin_query,item_title,label", {"where": {"split": "train"}}, "no column 'id', 'split'"),
    ],
)
def test_messages_say_what_the_file_is(tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(lines(tmp_path / name, content), **options)


def test_dialects_are_read_by_settings(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt", r"1;en;a \"b\";one\;two;1", r"2;en;c;d;0")
    names = ("id", "language", "origin_query", "item_title", "label")
    table = read(path, delimiter=";", quoting="none", escape="\\", header=names)
    assert table[["origin_query", "candidate"]].to_numpy().tolist() == [['a "b"', "one;two"], ["c", "d"]]


def test_the_line_by_which_excel_declares_the_delimiter_is_skipped(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", "sep=;", ";".join(ROWS[0]), ";".join(ROWS[0].values()), end="\r\n")
    assert read(path, delimiter=";")["origin_query"].tolist() == ["garden hose"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "shift_jis"])
def test_an_encoding_that_would_garble_utf8_is_refused(tmp_path: Path, encoding: str) -> None:
    path = lines(tmp_path / "a.csv", ",".join(ROWS[0]), "1,en,câble,x,1")
    with pytest.raises(UserError, match="is UTF-8 text, but its `encoding` in data is"):
        read(path, encoding=encoding)


# ---- Parquet


def test_only_the_needed_columns_of_parquet_are_read(tmp_path: Path) -> None:
    infinity = pa.array([2**63 - 1] * 4, pa.timestamp("us"))
    nested = pa.array([{"brand": "x", "sizes": [1, 2]}] * 4)
    assert read(parquet(tmp_path / "a.parquet", valid_to=infinity, attributes=nested))["id"].tolist() == ["1", "2", "3", "4"]
    with pytest.raises(AssertionError):
        read(tmp_path / "a.parquet", columns={"origin_query": "attributes"})


@pytest.mark.parametrize("kind", [pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()])
def test_texts_of_every_arrow_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([row["origin_query"] for row in ROWS]).cast(kind)
    assert read(parquet(tmp_path / "a.parquet", origin_query=texts))["origin_query"].tolist() == texts.cast(pa.string()).to_pylist()


def test_missing_labels_of_parquet_are_missing(tmp_path: Path) -> None:
    for column in ([1.0, None, 0.0, float("nan")], pa.nulls(4)):
        table = read(parquet(tmp_path / "a.parquet", label=column), labelled=False)
        assert table["label"].isna().tolist()[1::2] == [True, True]


# ---- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"querry": "q"}}, "columns names 'querry'; accepted: id, task"),
        ({"columns": {"id": "a"}, "constants": {"id": "b"}}, "id is in both columns and constants"),
        ({"languages": {"kr": "klingon"}}, "languages maps 'kr' to 'klingon'"),
        ({"constants": {"language": "english"}}, "constants.language is 'english'"),
        ({"encoding": "klingon"}, "encoding is 'klingon'"),
        ({"encoding": "base64"}, "encoding is 'base64'"),
        ({"delimiter": ", "}, "delimiter is ', '; accepted: one character"),
        ({"separator": ""}, "separator is ''"),
        ({"labels": {"E": 3}}, "labels maps 'E' to 3"),
        ({"train": []}, "train lists no files"),
        ({"train": {"files": "a.csv", "wher": {}}}, "unknown key data.qi.train.wher"),
        ({"train": [{"files": "a.csv", "wher": {}}]}, r"unknown key data.qi.train\[0\].wher"),
    ],
)
def test_wrong_reading_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.build_section(Data, {"path": "data", "qi": {"train": "a.csv", **options}}, "data")


def test_the_former_setting_of_column_names_is_refused_with_the_new_form() -> None:
    with pytest.raises(UserError, match=r"write there `columns: \{origin_query: search_term\}`"):
        config.build_section(Prepare, {"columns": {"origin_query": "search_term"}}, "prepare")


@pytest.mark.parametrize("quoting", ["minimal", "none"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_lines_that_arrow_reads_have_the_records_of_the_csv_module(delimiter: str, quoting: str) -> None:
    chance, accepted = Random(0), 0
    pieces = ["a", "é", " ", '"', '""', delimiter, delimiter, "\r", "\0", "\ufeff", "\u2028", '"a"', f'"b{delimiter}"', "null", "7"]
    dialect = delimited._dialect(ReadOptions(), delimiter, quoting)
    for _ in range(4000):
        rows = [
            "".join(chance.choices(pieces, k=chance.randint(1, 6))) + chance.choice(["\n", "\r\n"]) for _ in range(chance.randint(1, 3))
        ]
        lines = list(io.StringIO("".join(rows), newline=""))
        columns = delimited._one_record_a_line(lines, ["x", "y"], ["x", "y"], dialect)
        if columns is not None:
            accepted += 1
            records = zip(columns["x"].to_pylist(), columns["y"].to_pylist(), strict=True)
            assert list(map(list, records)) == list(csv.reader(lines, **dialect)), lines
    assert accepted > 100


def test_keys_of_mappings_that_no_row_has_cause_a_warning(tmp_path: Path) -> None:
    rows = [{**row, "language": "UK" if row["language"] == "en" else row["language"], "label": "EI"[int(row["label"]) - 1]} for row in ROWS]
    write_rows(tmp_path / "train.csv", rows)
    write_rows(tmp_path / "test.csv", rows[:1], "id", "language", "origin_query", "item_title")
    write_rows(tmp_path / "labels.csv", [{"id": "1", "label": "S"}])
    mappings = {"languages": {"uk": "en", "jq": "ja"}, "labels": {"E": 0, "I": 1, "S": 0, "Exakt": 1}}
    warnings = prepare(tmp_path, {"train": "train.csv", "test": "test.csv", "test_labels": "labels.csv", **mappings}).warnings
    of_keys = [warning for warning in warnings if "which no row has" in warning]
    assert [warning.partition("maps ")[2].partition(",")[0] for warning in of_keys] == ["'Exakt'", "'jq'"]
