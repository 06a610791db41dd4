"""Two sets of predictions, and two revisions of a repository, are compared row by row."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from babelcart import compare
from babelcart.core.errors import UserError
from babelcart.scores.metrics import Decision, compute_scores
from tests.support.processes import call
from tests.support.project import Project, run, run_to
from tests.support.tables import table


def test_a_better_model_has_higher_scores_and_only_fixed_answers() -> None:
    rows = table(300)
    better = rows.assign(probability=np.clip(rows["probability"] + 0.15 * (rows["label"] - 0.5), 0, 1))
    pairs, decision = compare.pair_predictions(rows, better), Decision(0.5, {})
    overall = compare.compare_slices(pairs, decision, decision, ["en"], draws=200).iloc[0]
    for metric in ("f1", "auc"):
        expected = [compute_scores(side["label"].to_numpy(), side["probability"].to_numpy(), 0.5)[metric] for side in (rows, better)]
        assert overall[f"{metric}_change"] == pytest.approx(expected[1] - expected[0])
        assert 0 < overall[f"{metric}_low"] < overall[f"{metric}_change"] < overall[f"{metric}_high"]
    flipped = compare.flips(pairs, decision, decision)
    assert flipped["fixed"].all()
    assert compare.mcnemar(len(flipped), 0) < 0.01
    assert len(flipped) == ((rows["probability"] >= 0.5) != (better["probability"] >= 0.5)).sum()


def test_a_model_does_not_differ_from_itself() -> None:
    rows, decision = table(50), Decision(0.5, {})
    pairs = compare.pair_predictions(rows, rows.sample(frac=1, random_state=0))
    differences = compare.compare_slices(pairs, decision, decision, ["en"], draws=50)
    assert (differences[["f1_change", "auc_change", "f1_low", "f1_high", "auc_low", "auc_high"]].dropna() == 0).all(axis=None)
    assert compare.flips(pairs, decision, decision).empty
    assert compare.mcnemar(0, 0) == 1


def test_the_labelled_rows_of_a_partly_labelled_split_are_compared() -> None:
    rows, decision = table(100), Decision(0.5, {})
    partly = rows.assign(label=rows["label"].astype("Int8").mask(np.arange(len(rows)) % 4 == 0))
    other = partly.assign(probability=1 - partly["probability"])
    pairs = compare.pair_predictions(partly, other)
    differences = compare.compare_slices(pairs, decision, decision, ["en"], draws=50)
    assert differences.loc[0, ["rows", "all_rows"]].tolist() == [partly["label"].notna().sum(), len(rows)]
    assert {"grade", "top_category"} <= set(differences["group"])
    flipped = compare.flips(pairs, decision, decision)
    assert set(flipped["id"]) <= set(partly.loc[partly["label"].notna(), "id"])
    assert "rows labelled" in "".join(compare.describe(differences, flipped, 1))
    with pytest.raises(UserError, match="labels of these rows are not known"):
        compare.pair_predictions(partly.assign(label=pd.NA), other.assign(label=pd.NA))


@pytest.mark.parametrize("change", ["label", "row", "query"])
def test_predictions_of_different_rows_are_refused(change: str) -> None:
    rows = table(20)
    other = rows.copy()
    if change == "row":
        other = other.iloc[1:]
    elif change == "label":
        other.loc[3, "label"] = 1 - other.loc[3, "label"]
    else:
        other.loc[3, "origin_query"] += "x"
    with pytest.raises(UserError, match="not scored on the same rows"):
        compare.pair_predictions(rows, other, ("main", "the workspace"))


def test_the_command_reads_revisions_through_dvc(project: Project) -> None:
    run_to("evaluate")
    path, formula = Path("predictions/tiny/qc/test.parquet"), '=HYPERLINK("http://x.test")\r=1'
    before = pd.read_parquet(path)
    before.loc[before["candidate"] == before.loc[0, "candidate"], "candidate"] = formula
    before.to_parquet(path)
    Path("dvc.yaml").unlink()  # else DVC refuses to add outputs of its stages
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    call("dvc", "add", "--quiet", "predictions", "build")
    call("git", "add", "predictions.dvc", "build.dvc", ".gitignore", "metrics", "params.yaml")
    call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first")
    call("git", "tag", "first")
    after = before.assign(probability=np.where(before["label"].astype(int) == 1, 1.0, 0.0))
    path.unlink()  # the file may be a link into the cache
    after.to_parquet(path)
    printed = run("compare", "first", "--task", "qc", "--out", "flipped.csv").output
    assert f"qc, tiny, {len(before)} rows of test: first -> the workspace" in printed
    assert "0 broken" in printed
    assert "-> 1.0000" in printed
    assert formula not in printed
    # No cell is a formula for a spreadsheet, and neither is the text after a line break in a cell.
    with Path("flipped.csv").open(encoding="utf-8", newline="") as handle:
        header, *lines = csv.reader(handle)
    assert {line[header.index("fixed")] for line in lines} == {"True"}
    assert f"'{formula}" in {line[header.index("candidate")] for line in lines}
    assert not [cell for line in lines for cell in line if cell.startswith("=")]
    shutil.rmtree("build/train_languages")
    printed = run("compare", "first", "--task", "qc", fails=True).output
    assert "build/train_languages/qc.json does not exist" in printed
    call("dvc", "add", "--quiet", "build")
    call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "older")
    printed = run("compare", "first", "HEAD", "--task", "qc", fails=True).output
    assert "HEAD is older than this file" in printed
    after.iloc[1:].to_parquet(path)
    printed = run("compare", "first", "--task", "qc", fails=True).output
    assert "not scored on the same rows" in printed
    shutil.rmtree(".dvc/cache")
    printed = run("compare", "first", "--task", "qc", fails=True).output
    assert "neither in the cache nor on the default remote" in printed
    printed = run("compare", "nowhere", "--task", "qc", fails=True).output
    assert "revision 'nowhere' does not exist" in printed
