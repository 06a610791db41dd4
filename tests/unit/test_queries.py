"""Queries as sources: they read files of the data folder only, write nothing, and give the same rows every time."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from babelcart.core.errors import UserError
from babelcart.reading import queries
from babelcart.reading.queries import QueryLimits, files_read, read_query
from tests.support import mutations

REQUIRED = ("id", "origin_query", "candidate")
GOOD = "SELECT id, query AS origin_query, title AS candidate, grade AS label FROM 'rows.csv'"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with data/rows.csv, data/more/titles.jsonl and a file outside data/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/more").mkdir(parents=True)
    (tmp_path / "queries").mkdir()
    (tmp_path / "secret.csv").write_text("id,query,title,grade\n9,secret,x,1\n")
    (tmp_path / "data/rows.csv").write_text("id,query,title,grade\n10,b,y,2\n2,a,x,3\n007,NULL,,\n")
    (tmp_path / "data/more/titles.jsonl").write_text('{"key": "2", "title": "Hose"}\n{"key": "10", "title": "Lamp"}\n')
    return Path("data")


def run(sql: str, folder: Path = Path("data"), memory: str = "2GB") -> list[dict[str, object]]:
    path = Path("queries/q.sql")
    path.write_text(sql, encoding="utf-8")
    return [row for batch in read_query(path, folder, REQUIRED, QueryLimits(memory)) for row in batch.to_pylist()]


def test_rows_are_texts_sorted_by_id(folder: Path) -> None:
    rows = run(GOOD)
    assert [row["id"] for row in rows] == ["007", "10", "2"]
    assert rows[0] == {"id": "007", "origin_query": "NULL", "candidate": None, "label": None}
    assert files_read(Path("queries/q.sql"), folder) == [folder / "rows.csv"]
    assert not list(Path(".scratch").iterdir())


def test_files_are_joined(folder: Path) -> None:
    sql = "SELECT r.id, query AS origin_query, t.title AS candidate FROM 'rows.csv' r JOIN read_json('more/*.jsonl') t ON t.key = r.id"
    rows = run(sql)
    assert [row["candidate"] for row in rows] == ["Lamp", "Hose"]
    assert files_read(Path("queries/q.sql"), folder) == [folder / "more/titles.jsonl", folder / "rows.csv"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("COPY (SELECT 1) TO 'data/out.csv'", "only one SELECT"),
        (f"{GOOD}; COPY (SELECT 1) TO 'data/out.csv'", "2 statements"),
        ("ATTACH 'data/x.db'", "only one SELECT"),
        ("INSTALL httpfs", "only one SELECT"),
        ("SET threads = 8", "only one SELECT"),
        ("PRAGMA database_list", "only one SELECT"),
        ("CREATE TABLE t AS SELECT 1", "only one SELECT"),
        ("INSERT INTO t VALUES (1)", "only one SELECT"),
        ("EXPORT DATABASE 'data/x'", "only one SELECT|cannot be checked|statements"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("SELEC 1", r"queries/q.sql, line 1"),
        (f"\n\n{GOOD.replace('title', 'titel')}", r"queries/q.sql, line 3.*titel"),
        (GOOD.replace("rows.csv", "row.csv"), r"line 1: 'row.csv' does not exist in data .*did you mean 'rows.csv'"),
        (GOOD.replace("rows.csv", "../secret.csv"), "is not a file in data"),
        (GOOD.replace("rows.csv", "/etc/passwd.csv"), "is not a file in data"),
        (GOOD.replace("'rows.csv'", "read_text('rows.csv')"), "the table function read_text is not accepted"),
        (GOOD.replace("'rows.csv'", "read_blob('/etc/passwd')"), "the table function read_blob is not accepted"),
        (GOOD.replace("'rows.csv'", "glob('*')"), "the table function glob is not accepted"),
        (GOOD.replace("'rows.csv'", "duckdb_settings()"), "is not accepted"),
        (GOOD.replace("'rows.csv'", "information_schema.tables"), "no table"),
        (GOOD.replace("'rows.csv'", "read_csv('https://example.org/a.csv')"), "is not a file in data"),
        (GOOD.replace("'rows.csv'", "read_csv('rows.csv' || '')"), "must be plain texts"),
        (GOOD.replace("'rows.csv'", "read_csv('rows.csv', ignore_errors = true)"), "drops rows silently"),
        (GOOD.replace("grade", "getenv('HOME')"), "getenv"),
        (GOOD.replace("grade", "random()"), r"random\(\) is not accepted"),
        (GOOD.replace("grade", "uuid()"), r"uuid\(\) is not accepted"),
        (GOOD.replace("grade", "now()"), r"now\(\) is not accepted"),
        (GOOD.replace("grade", "current_date"), "current_date is not accepted"),
        (GOOD.replace("grade", "current_timestamp"), "current_timestamp is not accepted"),
        (GOOD.replace("grade", "(SELECT max(random()) FROM 'rows.csv')"), r"random\(\) is not accepted"),
        (f"WITH t AS (SELECT *, random() AS r FROM 'rows.csv') {GOOD.replace(chr(39) + 'rows.csv' + chr(39), 't')}", r"random\(\) is not"),
        (f"{GOOD} USING SAMPLE 1", "samples are not accepted"),
        (f"{GOOD} TABLESAMPLE 10%", "samples are not accepted"),
        (f"{GOOD} LIMIT 1", "LIMIT and OFFSET need ORDER BY"),
        (GOOD.replace("grade", "row_number() OVER ()"), "needs ORDER BY"),
        (GOOD.replace("title", "first(title)"), "needs ORDER BY"),
        (GOOD.replace("grade", "version()"), "version"),
        ("SELECT id, query AS origin_query FROM 'rows.csv'", "has no column candidate; it has id, origin_query"),
        ("SELECT *, query AS origin_query, title AS candidate FROM 'rows.csv'", "unknown column query, title"),
        (GOOD.replace("grade", "[1, 2]"), "column label: the type INTEGER"),
        (GOOD.replace("SELECT id", "SELECT 1.5 AS id"), "column id: the type DECIMAL"),
        (GOOD.replace("grade", "CAST(query AS INTEGER)"), "(?i)could not convert string 'b'"),
    ],
)
def test_other_statements_files_and_functions_are_refused(folder: Path, sql: str, message: str) -> None:
    Path("queries/q.sql").touch()
    before = set(Path().rglob("*"))
    with pytest.raises(UserError, match=message) as error:
        run(sql)
    assert str(error.value).startswith("queries/q.sql")
    assert {path for path in Path().rglob("*") if path.parts[0] != ".scratch"} == before


def test_a_link_that_leaves_the_data_folder_is_refused(folder: Path) -> None:
    (folder / "link.csv").symlink_to("../secret.csv")
    with pytest.raises(UserError, match="is a link to a file outside data"):
        run(GOOD.replace("rows.csv", "link.csv"))
    (folder / "inside.csv").symlink_to("rows.csv")
    rows = run(GOOD.replace("rows.csv", "inside.csv"))
    assert len(rows) == 3


def test_the_sandbox_itself_refuses_other_files(folder: Path) -> None:
    """Without the check of the text, too: no file outside the list, no writing, no settings, no extensions."""
    connection = queries._sandbox([folder / "rows.csv"], Path(".scratch"), QueryLimits())
    assert connection.execute(f"SELECT count(*) FROM '{(folder / 'rows.csv').resolve()}'").fetchall() == [(3,)]
    for statement in (
        f"SELECT * FROM '{Path('secret.csv').resolve()}'",
        "SELECT * FROM read_text('/etc/passwd')",
        f"COPY (SELECT 1) TO '{(folder / 'out.csv').resolve()}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "INSTALL httpfs",
        "ATTACH 'x.db'",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement).fetchall()


def test_one_thread_and_eight_give_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows = 60_000
    table = pd.DataFrame(
        {"id": np.arange(rows), "query": random.integers(0, 900, rows), "grade": random.random(rows), "rater": random.integers(0, 3, rows)}
    )
    table.to_parquet(folder / "big.parquet")
    sql = """
        SELECT any_value(id ORDER BY id) AS id, CAST(query AS VARCHAR) AS origin_query, CAST(rater AS VARCHAR) AS candidate,
               avg(grade) AS label, sum(avg(grade)) OVER (ORDER BY query, rater) AS grade
        FROM 'big.parquet' GROUP BY query, rater
    """
    digests = set()
    for threads in (1, 8):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        monkeypatch.setattr(os, "cpu_count", lambda count=threads: count)
        digests.add(str(run(sql)))
    assert len(digests) == 1


def test_results_larger_than_the_limit_are_spilled(folder: Path) -> None:
    rows = 400_000
    texts = pa.array([f"query {n % 70_000} " + "x" * 40 for n in range(rows)])
    pd.DataFrame({"id": [f"{n:07}" for n in reversed(range(rows))], "query": texts.to_pylist()}).to_parquet(folder / "big.parquet")
    sql = "SELECT id, query AS origin_query, query AS candidate FROM 'big.parquet'"
    path = Path("queries/q.sql")
    path.write_text(sql)
    first = next(iter(read_query(path, folder, REQUIRED, QueryLimits(memory="60MB"))))
    assert first.column(0)[0].as_py() == "0000000"
    with pytest.raises(UserError, match=r"out of memory at the limit of 2MB \(data.query_memory in params.yaml\)"):
        run(sql, memory="2MB")


@pytest.mark.parametrize("memory", ["0GB", "lots", "-1GB", "2", "2 PB"])
def test_a_wrong_memory_limit_is_refused(memory: str) -> None:
    with pytest.raises(ValueError, match="query_memory is"):
        QueryLimits(memory=memory)


def test_mutated_queries_give_rows_or_a_message(folder: Path) -> None:
    random = Random(0)
    seeds = [GOOD, *(path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "queries").glob("*.sql"))]
    accepted, messages = 0, []
    for _ in range(300):
        content = mutations.mutate_bytes(random, random.choice(seeds).encode())
        path = Path("queries/q.sql")
        path.write_bytes(content)
        try:
            accepted += sum(batch.num_rows for batch in read_query(path, folder, REQUIRED)) > 0
        except UserError as error:
            messages.append(str(error))
    assert accepted
    assert [message for message in messages if not message.startswith("queries/q.sql")] == []


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "windows-1250"])
def test_csv_files_are_read_in_any_encoding(folder: Path, encoding: str) -> None:
    (folder / "rows.csv").write_bytes('id,query,title\n1,"lampe 5"" – weiß",Tür\n'.encode(encoding))
    rows = run(f"SELECT id, query AS origin_query,\ntitle AS candidate FROM read_csv('rows.csv', encoding = '{encoding}')")
    assert rows == [{"id": "1", "origin_query": 'lampe 5" – weiß', "candidate": "Tür"}]
    assert not list(Path(".scratch").iterdir())


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("'shift_jis'", "line 2: data/rows.csv is not valid shift_jis text"),
        ("'utf-16'", "line 2: data/rows.csv is not valid utf-16 text"),
        ("'klingon'", "line 2: the encoding 'klingon' is unknown"),
        ("concat('cp', '1252')", "line 2: write the encoding as a plain text"),
    ],
)
def test_a_wrong_encoding_is_refused(folder: Path, encoding: str, message: str) -> None:
    (folder / "rows.csv").write_text("id,query,title\n1,lámpara,título\n", encoding="cp1252")
    with pytest.raises(UserError, match=message):
        run(f"SELECT id, query AS origin_query, title AS candidate FROM\nread_csv('rows.csv', encoding = {encoding})")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_a_file_in_utf8_is_not_read_in_another_encoding(folder: Path, encoding: str) -> None:
    (folder / "rows.csv").write_text("id,query,title\n1,lámpara,título\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"line 1: data/rows.csv is UTF-8 text, but its encoding is set to {encoding}"):
        run(f"SELECT id, query AS origin_query, title AS candidate FROM read_csv('rows.csv', encoding = '{encoding}')")


SWALLOWED = 'id\tquery\ttitle\n1\t"led tv mount\tA\n2\tlamp\tB\n3\tlamp 5"\tC\n4\tsofa\tD\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.tsv", SWALLOWED, "line 1: the double quotes in data/rows.tsv are not those of quoted fields. .*quote = ''"),
        ("rows.csv", SWALLOWED.replace("\t", ","), "line 1: data/rows.csv, lines 2 to 4: a double quote opens .*quote = ''"),
        ("rows.csv", 'id,query,title\n1,"a\n2,b,c\n', "line 1: data/rows.csv, lines 2 to 3: a double quote opens"),
    ],
)
def test_quotes_that_merge_rows_are_refused(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    for source in (f"'{name}'", f"read_csv('{name}')"):
        with pytest.raises(UserError, match=message):
            run(f"SELECT id, query AS origin_query, title AS candidate FROM {source}")


def test_a_query_may_state_the_meaning_of_quotes(folder: Path) -> None:
    (folder / "rows.tsv").write_text(SWALLOWED)
    sql = "SELECT id, query AS origin_query, title AS candidate FROM read_csv('rows.tsv', {})"
    characters = run(sql.format("quote = ''"))
    quoted = run(sql.format("quote = '\"'"))
    assert [row["origin_query"] for row in characters] == ['"led tv mount', "lamp", 'lamp 5"', "sofa"]
    assert len(quoted) == 2


@pytest.mark.parametrize("options", ["", "delim = '\\t'", "sep := E'\\t'"])
def test_quoted_fields_are_read(folder: Path, options: str) -> None:
    delimiter = "\t" if options else ","
    (folder / "rows.csv").write_text('id,query,title\n1,"lamp 5""","two\nlines"\n2,sofa,D\n'.replace(",", delimiter))
    rows = run(f"SELECT id, query AS origin_query, title AS candidate FROM read_csv('rows.csv', {options})".replace(", )", ")"))
    assert [(row["origin_query"], row["candidate"]) for row in rows] == [('lamp 5"', "two\nlines"), ("sofa", "D")]
