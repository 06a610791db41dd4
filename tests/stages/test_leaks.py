"""The check for held-out queries in train: each kind of planted leak stops the run, and a run without leaks passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from babelcart import leaks
from babelcart.rows import text
from babelcart.translation.memory_files import Entry
from tests.support.project import Project, run, run_to

TRAIN = Path("build/negatives/qc.parquet")


def held_out_row(split: str) -> pd.Series:
    """Return the first English row of a held-out split."""
    rows = pd.read_parquet(f"build/translate/qc/{split}.parquet")
    return rows[rows["language"] == "en"].iloc[0]


def full_width(text: str) -> str:
    return "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text)


def plant(**fields: Any) -> None:
    """Append a copy of the first row of train with changed fields."""
    rows = pd.read_parquet(TRAIN)
    row = rows.iloc[[0]].assign(**{"id": "planted", **fields})
    pd.concat([rows, row], ignore_index=True).to_parquet(TRAIN)


@pytest.mark.parametrize("split", ["validation", "dev", "test"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (str, "the same query"),
        (str.upper, "the same query"),
        (lambda query: "  " + query.replace(" ", "\u3000 ") + "\n", "the same query"),
        (full_width, "the same query"),
        (lambda query: "\u200b".join(query) + "\ufe0f", "the same query"),
        (lambda query: query.replace("e", "é"), "a near-duplicate"),
        (lambda query: f'"{query}"!', "a near-duplicate"),
        (lambda query: query.replace(" ", "-"), "a near-duplicate"),
        (lambda query: " ".join(reversed(query.split())), "a near-duplicate"),
    ],
    ids=["unchanged", "case", "space", "width", "invisible characters", "accents", "punctuation", "hyphen", "order"],
)
def test_a_held_out_query_in_train_stops_the_run(project: Project, split: str, change: Any, kind: str) -> None:
    run_to("negatives")
    query = held_out_row(split)["origin_query"]
    planted = change(query)
    assert planted == query or text.normalise(planted) != planted or kind == "a near-duplicate"
    plant(origin_query=planted, group=text.normalise(planted))
    output = run("leaks", "--task", "qc", fails=True).output
    assert f"train row planted, {planted!r}, is {kind} of {split} row" in output
    assert "dvc repro --force --downstream split@qc" in output
    assert not Path("build/leaks/qc.txt").exists()


@pytest.mark.parametrize("split", ["validation", "dev", "test"])
def test_a_translation_of_a_held_out_query_stops_the_run(project: Project, split: str) -> None:
    run_to("negatives")
    query = held_out_row(split)["origin_query"]
    plant(
        origin_query="tuyau d'arrosage",
        language="fr",
        group=text.normalise(query),
        source_id=held_out_row(split)["id"],
        origin="translated",
    )
    output = run("leaks", "--task", "qc", fails=True).output
    assert "is a translation of" in output


def test_a_translated_copy_that_equals_a_test_query_stops_the_run(project: Project) -> None:
    project.change(translate={"qc": {"rows_per_language": 20, "source_languages": ["en"]}})
    run_to("negatives")
    rows = pd.read_parquet(TRAIN)
    copy = rows.index[rows["origin"] == "translated"][0]
    tests = pd.read_parquet("build/translate/qc/test.parquet")
    rows.loc[copy, "origin_query"] = tests.loc[tests["language"] == "de", "origin_query"].iloc[0]
    rows.to_parquet(TRAIN)
    output = run("leaks", "--task", "qc", fails=True).output
    assert f"train row {rows.loc[copy, 'id']}" in output
    assert "is the same query of test row" in output


def test_a_translated_validation_query_that_equals_a_train_query_stops_the_run(project: Project) -> None:
    run_to("negatives")
    path = Path("build/translate/qc/validation.parquet")
    rows = pd.read_parquet(path)
    train_query = pd.read_parquet(TRAIN)["origin_query"].iloc[0]
    pd.concat([rows, rows.iloc[[0]].assign(id="1-de", origin_query=train_query, origin="translated")], ignore_index=True).to_parquet(path)
    output = run("leaks", "--task", "qc", fails=True).output
    assert "of validation row 1-de" in output


def test_split_leaves_out_near_duplicates_of_test_queries(project: Project) -> None:
    path = Path("data/train_QC.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    tests = [json.loads(line)["origin_query"] for line in Path("data/test_QC.txt").read_text(encoding="utf-8").splitlines()]
    extra = [
        {**first, "id": "same", "origin_query": tests[0].upper()},
        {**first, "id": "near", "origin_query": f"¡{tests[2].replace('e', 'ê')}!"},
    ]
    path.write_text("\n".join([*lines, *map(json.dumps, extra)]) + "\n", encoding="utf-8")
    run_to("split")
    assert not {"same", "near"} & set(pd.read_parquet("build/split/qc/train.parquet")["id"])
    assert json.loads(Path("metrics/split/qc.json").read_text())["train"]["left_out_as_near_duplicates"] == 2


@pytest.mark.parametrize("part", ["train", "validation"])
def test_translate_leaves_out_near_duplicates_of_other_splits(project: Project, part: str) -> None:
    other = "validation" if part == "train" else "train"
    project.change(translate={"qc": {"rows_per_language": 40, "source_languages": ["en"], "target_languages": ["de"]}})
    run_to("split")
    source = pd.read_parquet(f"build/split/qc/{part}.parquet").query("language == 'en'")["origin_query"].iloc[0]
    other_query = pd.read_parquet(f"build/split/qc/{other}.parquet")["origin_query"].iloc[0]
    # The translation passes the gate, and is a near-duplicate of the other query because it differs in accents and punctuation.
    Path("data/memory.csv").write_text(
        f"source,target,text,translation\nen,de,{source},{other_query.replace('a', 'ä')}!\n", encoding="utf-8"
    )
    run("translate", "--task", "qc")
    counts = json.loads(Path("metrics/translate/qc.json").read_text())[part]["de"]
    assert counts["translated"] == 0
    assert counts["held_out"] == 2
    run("negatives", "--task", "qc")
    run("leaks", "--task", "qc")


def test_a_run_without_leaks_counts_the_compared_queries(project: Project) -> None:
    run_to("leaks")
    counts = json.loads(Path("metrics/leaks/qc.json").read_text())
    train = pd.read_parquet(TRAIN)["origin_query"]
    assert counts["train"]["queries"] == len({text.normalise(query) for query in train})
    assert counts["test"] == {"queries": 10, "known_in_another_language": 0}
    assert "No validation" in Path("build/leaks/qc.txt").read_text()


def test_queries_that_the_memory_connects_with_train_are_counted() -> None:
    columns = ["language", "origin_query"]
    train = pd.DataFrame([("en", "Printer"), ("de", "lampe")], columns=columns)
    parts = {"test": pd.DataFrame([("de", "drucker"), ("en", "lamp"), ("it", "drucker")], columns=columns)}
    entries = [Entry("given", "", "en", "de", "printer", "Drucker"), Entry("given", "", "en", "de", "lamp", "Lampe")]
    assert leaks.known_by_translation(train, parts, entries) == {"test": 2}
