"""`babelcart score` and `babelcart ask` give the probabilities of `predict`, for files in any format and of any size."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from babelcart import score
from babelcart.commands import score as command
from babelcart.model import scoring
from babelcart.model.batching import PART_CHUNKS
from babelcart.reading import formats, readers
from tests.support.project import Project, run, run_to

MODEL = ("--task", "qc", "--model", "tiny")
ADDED = {"p_relevant", "relevant", "model", "revision", "notes"}


@pytest.fixture
def trained(project: Project) -> Project:
    """A project with a trained model, whose probabilities differ between rows."""
    project.change(train={"learning_rate": 0.01})
    run_to("evaluate")
    return project


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("data/test_QC.txt").read_text(encoding="utf-8").splitlines()]


def predicted() -> pd.DataFrame:
    return pd.read_parquet("predictions/tiny/qc/test.parquet")


def read(path: str) -> pd.DataFrame:
    kind = Path(path).suffix
    if kind == ".parquet":
        return pd.read_parquet(path)
    if kind == ".csv":
        return pd.read_csv(path, dtype={"id": str, "note": str}, keep_default_na=False)
    return pd.read_json(path, lines=True, dtype={"id": str}, precise_float=True)


@pytest.mark.parametrize("source", [".jsonl", ".csv", ".tsv", ".parquet", ".csv.gz"])
@pytest.mark.parametrize("target", [".jsonl", ".csv", ".parquet"])
def test_the_columns_of_a_file_are_kept_and_its_scores_are_those_of_predict(trained: Project, source: str, target: str) -> None:
    rows = pd.DataFrame(records()).assign(note='a "quoted", note\n=1+1'.replace("\n", " "))
    if source == ".jsonl":
        rows.to_json(f"pairs{source}", orient="records", lines=True, force_ascii=False)
    elif source == ".parquet":
        rows.assign(price=range(len(rows))).to_parquet(f"pairs{source}")
    else:
        rows.to_csv(f"pairs{source}", index=False, sep="\t" if source == ".tsv" else ",")
    output = run("score", f"pairs{source}", *MODEL, "-o", f"scores{target}").output
    scores = read(f"scores{target}")
    assert scores["p_relevant"].to_numpy().tobytes() == predicted()["probability"].to_numpy().tobytes()
    for name in rows:
        assert scores[name].tolist() == rows[name].tolist()
    assert set(scores) == {*rows, *ADDED} | ({"price"} if source == ".parquet" else set())
    threshold = json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
    assert scores["relevant"].tolist() == (predicted()["probability"] >= threshold).astype(int).tolist()
    assert f"{len(rows)} rows written, {scores['relevant'].sum()} relevant" in output
    assert [path.name for path in command.SCRATCH.iterdir()] == []


@pytest.mark.parametrize("chunk_rows", [1, 3])
def test_a_long_file_is_scored_in_the_parts_of_predict(trained: Project, chunk_rows: int) -> None:
    trained.change(predict={"chunk_rows": chunk_rows})
    run("predict", *MODEL)
    assert len(predicted()) > PART_CHUNKS * chunk_rows or chunk_rows > 1
    run("score", "data/test_QC.txt", *MODEL, "-o", "scores.parquet")
    assert read("scores.parquet")["p_relevant"].to_numpy().tobytes() == predicted()["probability"].to_numpy().tobytes()


def test_an_interrupted_run_continues_with_the_next_chunk(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.change(predict={"chunk_rows": 2})
    run("score", "data/test_QC.txt", *MODEL, "-o", "expected.parquet")
    computed: list[int] = []
    score_chunks = scoring.score_chunks

    def counted(model: Any, rows: Any, *rest: Any) -> Any:
        if len(computed) == limit:
            raise KeyboardInterrupt
        computed.append(len(rows))
        return score_chunks(model, rows, *rest)

    limit = 4
    monkeypatch.setattr(scoring, "score_chunks", counted)
    output = run("score", "data/test_QC.txt", *MODEL, "-o", "scores.parquet", fails=True).output
    assert "Stopped" in output
    assert not Path("scores.parquet").exists()
    computed.clear()
    limit = len(records())
    run("score", "data/test_QC.txt", *MODEL, "-o", "scores.parquet")
    assert sum(computed) == len(records()) - 4 * 2
    assert Path("scores.parquet").read_bytes() == Path("expected.parquet").read_bytes()


def test_standard_input_and_output(trained: Project) -> None:
    content = Path("data/test_QC.txt").read_bytes()
    result = CliRunner().invoke(command.main, ["-", *MODEL, "-o", "-"], input=content)
    assert result.exit_code == 0, result.output
    scores = [json.loads(line) for line in result.stdout.splitlines()]
    assert [score["p_relevant"] for score in scores] == predicted()["probability"].tolist()
    assert "rows written" in result.stderr


def test_a_query_is_scored(trained: Project) -> None:
    Path("queries").mkdir(exist_ok=True)
    text = "SELECT language, origin_query, category_path AS candidate FROM read_json('test_QC.txt')"
    Path("queries/pairs.sql").write_text(text, encoding="utf-8")
    run("score", "queries/pairs.sql", *MODEL, "-o", "scores.csv")
    by_row = predicted().set_index(["language", "origin_query", "candidate"])["probability"]
    scores = read("scores.csv").set_index(["language", "origin_query", "candidate"])["p_relevant"]
    assert scores.to_dict() == pytest.approx(by_row.to_dict(), abs=1e-6)


def test_labels_are_evaluated_as_by_evaluate(trained: Project) -> None:
    labels = dict(csv.reader(Path("data/test_QC_labels.csv").read_text().splitlines()))
    lines = [json.dumps({**record, "label": labels[record["id"]]}) for record in records()]
    Path("labelled.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    output = run("score", "labelled.jsonl", *MODEL, "-o", "scores.csv", "--evaluate").output
    overall = json.loads(Path("metrics/tiny/qc.json").read_text())["test"]["overall"]
    assert f"| languages | overall | {overall['rows']} | {overall['f1']:.3f} | {overall['floor_f1']:.3f} | {overall['auc']:.3f} |" in output
    assert "| language | de |" in output
    Path("wrong.jsonl").write_text("\n".join([*lines[:3], lines[3].replace('"label": "', '"label": "x'), *lines[4:]]), encoding="utf-8")
    output = run("score", "wrong.jsonl", *MODEL, "-o", "wrong.csv", "--evaluate", fails=True).output
    assert "wrong.jsonl, line 4, label" in " ".join(output.split())
    assert not Path("wrong.csv").exists()
    output = run("score", "data/test_QC.txt", *MODEL, "-o", "new.csv", "--evaluate", fails=True).output
    assert "no row has a label" in output
    assert "the fields are 'id', 'task', 'language', 'origin_query', 'category_path'" in " ".join(output.split())
    assert not Path("new.csv").exists()


def test_rows_unlike_the_training_rows_get_notes(trained: Project) -> None:
    record = {"task": "QC", "language": "en", "origin_query": "garden hose", "category_path": "home & garden,watering,hoses"}
    changes = [{}, {"language": "ja"}, {"category_path": "toys,balls"}, {"origin_query": "hose " * 60}, {"category_path": "hoses " * 90}]
    Path("pairs.jsonl").write_text("".join(json.dumps(record | change) + "\n" for change in changes), encoding="utf-8")
    output = run("score", "pairs.jsonl", *MODEL, "-o", "scores.csv").output
    assert read("scores.csv")["notes"].tolist() == [
        "", "language_not_trained", "candidate_not_trained", "query_truncated", "candidate_not_trained candidate_truncated"
    ]  # fmt: skip
    assert "candidate_not_trained: 2 rows (no training row has this category)" in output


@pytest.mark.parametrize("first", ["query", "candidate"])
def test_the_best_of_all_candidates_are_those_of_separate_pairs(project: Project, first: str) -> None:
    fields = ["{query}", "{candidate}"] if first == "query" else ["{candidate}", "{query}"]
    template = f"Relevant? {fields[0]}\n{fields[1]}\n:"
    project.change(train={"learning_rate": 0.01}, prompts={"qc": {"template": template, "positive": " yes", "negative": " no"}})
    run_to("evaluate")
    queries = [{"language": "en", "origin_query": query, "clicks": index} for index, query in enumerate(["dog bed", "led lamp", "dog bed"])]
    candidates = list(dict.fromkeys(record["category_path"] for record in records()))
    Path("queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    Path("tree.txt").write_text("\n\n".join([*candidates, candidates[0]]) + "\n", encoding="utf-8-sig")
    pairs = [{**query, "category_path": candidate} for query in queries for candidate in candidates]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    run("score", "pairs.jsonl", *MODEL, "-o", "pairs.parquet")
    run("score", "queries.jsonl", *MODEL, "-o", "best.parquet", "--against", "tree.txt", "--top", "2")
    expected = read("pairs.parquet").sort_values(["clicks", "p_relevant"], ascending=[True, False]).groupby("clicks").head(2)
    best = read("best.parquet")
    assert best["rank"].tolist() == [1, 2] * 3
    assert best["candidate"].tolist() == expected["category_path"].tolist()
    assert best["p_relevant"].tolist() == pytest.approx(expected["p_relevant"].tolist(), abs=1e-5)
    assert best["clicks"].tolist() == ["0", "0", "1", "1", "2", "2"]
    Path("tree.txt").write_text("\n")
    output = run("score", "queries.jsonl", *MODEL, "-o", "best.csv", "--against", "tree.txt", fails=True).output
    assert "tree.txt has no candidates" in output


HOSTILE = [
    "<script>alert(1)</script>",
    "<eos><bos>",
    "../../etc/passwd",
    "\x1b]0;x\x07",
    "{query}{candidate}",
    "=1+1",
    "\u202eabc",
    "a,b\nc",
    '"',
]


@pytest.mark.parametrize("target", [".jsonl", ".csv", ".parquet"])
def test_hostile_texts_are_scored_and_written_as_they_are(trained: Project, target: str) -> None:
    rows = [{"language": "en", "origin_query": text, "category_path": text, "id": text, text: text} for text in HOSTILE]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = set(Path().rglob("*"))
    run("score", "pairs.jsonl", *MODEL, "-o", f"scores{target}")
    scores = read(f"scores{target}")
    assert scores["origin_query"].tolist() == scores["id"].tolist() == HOSTILE
    assert all(scores[text][index] == text for index, text in enumerate(HOSTILE))
    assert set(Path().rglob("*")) - files <= {Path(f"scores{target}"), command.SCRATCH}
    output = run("ask", *MODEL, HOSTILE[3], HOSTILE[6]).output
    assert "\x1b" not in output
    assert "\u202e" not in output


def damaged(line: bytes) -> bytes:
    return line.replace(b'"origin_query"', b'"query"')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "line 3, origin_query: the field is missing"),
        (lambda line: line[:20], "line 3, the line: not JSON"),
        (lambda line: line.replace(b'"en"', b'"xx"').replace(b'"de"', b'"xx"'), "line 3, language: unknown language"),
        (lambda line: line.replace(b'"task"', b'"relevant": 1, "task"'), "already has the column 'relevant'"),
        (lambda line: line.replace(b'"id": "', b'"id": "\xff'), "line 3, the line: is not valid UTF-8"),
    ],
)
def test_a_broken_file_is_refused_before_it_is_scored(trained: Project, change: Callable[[bytes], bytes], message: str) -> None:
    lines = Path("data/test_QC.txt").read_bytes().splitlines()
    lines[2] = change(lines[2])
    Path("pairs.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    Path("scores.csv").write_text("old\n")
    shutil.rmtree("models/tiny/qc")  # is not read
    output = run("score", "pairs.jsonl", *MODEL, "-o", "scores.csv", fails=True).output
    assert message in " ".join(output.split())
    assert ("do not change params.yaml" in output) == ("already has the column" not in message)  # the advice is for errors of reading
    assert Path("scores.csv").read_text() == "old\n"


def test_a_file_with_very_many_broken_rows_is_not_read_to_its_end(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "MAX_PROBLEMS", 100)
    monkeypatch.setattr(formats, "BATCH_ROWS", 60)
    Path("pairs.jsonl").write_text("{}\n" * 1000)
    output = " ".join(run("score", "pairs.jsonl", *MODEL, "-o", "scores.csv", fails=True).output.split())
    assert "120 broken rows" in output
    assert "the files were read up to pairs.jsonl, line 120 only" in output


def test_scores_can_be_scored_again(trained: Project) -> None:
    run("score", "data/test_QC.txt", *MODEL, "-o", "first.jsonl")
    run("score", "first.jsonl", *MODEL, "-o", "second.jsonl", "--prefix", "again_", "--threshold", "0")
    scores = read("second.jsonl")
    assert scores["again_p_relevant"].tolist() == scores["p_relevant"].tolist()
    assert scores["again_relevant"].tolist() == [1] * len(scores)


def test_columns_can_be_named_on_the_command_line(trained: Project) -> None:
    rows = pd.DataFrame(records()).query("language == 'de'")
    names = {"origin_query": "q", "category_path": "path"}
    rows.rename(columns=names)[list(names.values())].to_csv("log.csv", index=False)
    columns = ("--column", "origin_query=q", "--column", "candidate=path")
    run("score", "log.csv", *MODEL, "-o", "scores.csv", *columns, "--language", "de")
    expected = predicted().query("language == 'de'")["probability"].tolist()
    assert read("scores.csv")["p_relevant"].tolist() == pytest.approx(expected, abs=1e-6)
    output = run("score", "log.csv", *MODEL, "-o", "scores.csv", *columns, "--language", "xx", fails=True).output
    assert "constants.language is 'xx'" in output
    output = run("score", "log.csv", *MODEL, "-o", "scores.csv", "--column", "query=q", fails=True).output
    assert "--column is 'query=q'" in output


def test_a_file_of_another_form_is_read_without_a_change_of_params(trained: Project) -> None:
    labels = dict(csv.reader(Path("data/test_QC_labels.csv").read_text().splitlines()))
    rows = pd.DataFrame(records()).assign(shop="köln")
    rows["clicked"] = ["yes" if labels[number] == "1" else "no" for number in rows["id"]]
    names = {"origin_query": "search_term", "category_path": "category", "language": "lang", "clicked": "clicked", "shop": "shop"}
    rows.rename(columns=names)[list(names.values())].to_csv("log.csv", index=False, sep=";", encoding="cp1252")
    output = run("score", "log.csv", *MODEL, "-o", "scores.csv", fails=True).output
    assert "such as --read delimiter=';'" in " ".join(output.split())
    options = ["--read", "delimiter=;", "--read", "encoding=cp1252", "--read", "labels={yes: 1, no: 0}"]
    for column in ("origin_query=search_term", "candidate=category", "language=lang", "label=clicked"):
        options += ["--column", column]
    output = run("score", "log.csv", *MODEL, "-o", "scores.csv", "--evaluate", *options).output
    scores = read("scores.csv")
    assert scores["p_relevant"].tolist() == predicted()["probability"].tolist()
    assert set(scores["shop"]) == {"köln"}
    overall = json.loads(Path("metrics/tiny/qc.json").read_text())["test"]["overall"]
    assert f"| languages | overall | {overall['rows']} | {overall['f1']:.3f} |" in output
    for option, message in (
        ("delimiters=;", "--read is 'delimiters=;'; accepted: NAME=VALUE with a name out of languages, labels"),
        ("delimiter=ab", "delimiter is 'ab'; accepted: one character"),
        ("labels=5", "Error: --read.labels is '5'; accepted: a mapping or null"),
    ):
        output = run("score", "log.csv", *MODEL, "-o", "scores.csv", "--read", option, fails=True).output
        assert message in " ".join(output.split())


def test_a_file_that_grows_while_it_is_scored_is_reported(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    load = readers.read_records

    def growing(files: Any, *arguments: Any, **options: Any) -> Any:
        yield from load(files, *arguments, **options)
        with Path("pairs.jsonl").open("ab") as log:
            log.write(Path("data/test_QC.txt").read_bytes())

    shutil.copy("data/test_QC.txt", "pairs.jsonl")
    monkeypatch.setattr(score, "read_records", growing)
    output = run("score", "pairs.jsonl", *MODEL, "-o", "scores.csv", fails=True).output
    assert "pairs.jsonl changed while it was scored" in output
    assert not Path("scores.csv").exists()


def test_an_output_that_is_an_input_is_refused(trained: Project) -> None:
    shutil.copy("data/test_QC.txt", "pairs.jsonl")
    output = run("score", "pairs.jsonl", *MODEL, "-o", "pairs.jsonl", fails=True).output
    assert "which is one of the files to score" in output
    output = run("score", "-", "-", *MODEL, "-o", "scores.csv", fails=True).output
    assert "can be read only once" in output


def test_an_unknown_output_format_is_refused(trained: Project) -> None:
    output = run("score", "data/test_QC.txt", *MODEL, "-o", "scores.xlsx", fails=True).output
    assert "accepted: names that end in .parquet, .csv, .jsonl" in " ".join(output.split())


def test_ask_answers_in_words(trained: Project) -> None:
    row = predicted().iloc[0]
    other = "toys,balls"
    output = run("ask", *MODEL, "--language", row["language"], row["origin_query"], row["candidate"], other).output
    assert f"p(relevant) {row['probability']:.3f}  {row['candidate']}" in output
    assert "no training row has this category" in output.split(other)[1]
    output = run("ask", *MODEL, "--language", "xx", "dress", "dresses", fails=True).output
    assert "Invalid value for '--language': 'xx' is not a language" in output
    output = run("ask", *MODEL, " ", "dresses", fails=True).output
    assert "the query is empty" in output


def test_a_prompt_with_a_translation_is_refused(trained: Project) -> None:
    trained.change(prompts={"qc": {"template": "{pivot}\n{candidate}\n:", "positive": " yes", "negative": " no"}})
    output = run("ask", *MODEL, "dress", "dresses", fails=True).output
    assert "train with {query} in its place" in output
