"""Projects whose dev and test rows have no labels, or only some: every stage ends well, and every score names the rows that it is of."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from babelcart import experiments
from babelcart.core.errors import UserError
from tests.support.project import Project, run, run_to
from tests.support.tables import table

STAGES_AFTER = ("attack", "resist", "baseline", "card")


def run_all(project: Project) -> dict[str, Any]:
    """Run all stages of QC; return the scores of evaluate."""
    project.change(tasks=["qc"], attack={"rows": 5}, predict={"splits": ["validation", "dev", "test"]})
    run_to("evaluate")
    for stage in STAGES_AFTER:
        run(stage, "--task", "qc", *(() if stage == "baseline" else ("--model", "tiny")))
    for stage in ("submit", "report"):
        run(stage, "--model", "tiny")
    return json.loads(Path("metrics/tiny/qc.json").read_text())


def answers() -> list[dict[str, Any]]:
    with zipfile.ZipFile("submissions/tiny/submit.zip") as archive:
        return [json.loads(line) for line in archive.read("submit_QC.txt").splitlines()]


def remove_labels(project: Project, *splits: str) -> None:
    """Remove the label files of splits from params.yaml."""
    from ruamel.yaml import YAML

    path = project.folder / "params.yaml"
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for split in splits:
        params["data"]["qc"][f"{split}_labels"] = []
    with path.open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)


def test_without_labels_all_outputs_show_the_scores_of_validation(project: Project) -> None:
    remove_labels(project, "dev", "test")
    scores = run_all(project)
    assert set(scores) == {"validation"}
    assert set(json.loads(Path("metrics/ngram/qc.json").read_text())) == {"validation"}
    assert set(json.loads(Path("metrics/tiny/qc_slices.json").read_text())) == {"validation"}
    assert [answer["id"] for answer in answers()] == [str(number) for number in range(1, 21)]
    rows = scores["validation"]["overall"]["rows"]
    card = Path("models/tiny/qc.md").read_text(encoding="utf-8")
    assert f"Scores on the validation set ({rows} rows).\nNo labelled row of test or dev was scored" in card
    assert "split: validation" in card
    assert "split: test" not in card
    assert "no labelled row of test or dev was scored" in Path("reports/tiny.html").read_text(encoding="utf-8")
    printed = run("results").output
    assert f"| QC | overall, {rows} validation rows | tiny |" in printed
    assert f"| QC | overall, {rows} validation rows | ngram |" in printed
    result = run("results", "--by", "language")
    assert "validation rows | tiny |" in result.output
    printed = run("results", "--split", "test", fails=True).output
    assert "metrics/ has no scores of the test rows" in printed


def test_without_test_labels_the_scores_are_those_of_dev(project: Project) -> None:
    remove_labels(project, "test")
    scores = run_all(project)
    assert set(scores) == {"validation", "dev"}
    assert len(answers()) == 20
    assert "Scores on the dev set (20 rows).\nNo labelled row of test was scored" in Path("models/tiny/qc.md").read_text(encoding="utf-8")
    result = run("results")
    assert "| QC | overall, 20 dev rows | tiny |" in result.output


@pytest.mark.parametrize("labelled", [1, 19])
def test_some_test_labels_give_scores_of_the_labelled_rows(project: Project, labelled: int) -> None:
    path = project.folder / "data/test_QC_labels.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: labelled + 1]), encoding="utf-8")
    scores = run_all(project)
    overall = scores["test"]["overall"]
    assert (overall["rows"], overall["all_rows"]) == (labelled, 20)
    assert "all_rows" not in scores["dev"]["overall"]
    assert json.loads(Path("metrics/ngram/qc.json").read_text())["test"]["overall"]["all_rows"] == 20
    assert len(answers()) == 20
    number = f"{labelled} of 20 rows labelled"
    assert f"Scores on the test set ({number})." in Path("models/tiny/qc.md").read_text(encoding="utf-8")
    assert number in Path("reports/tiny.html").read_text(encoding="utf-8")
    printed = run("results").output
    for model in ("tiny", "ngram"):
        assert f"| QC | overall, {number} | {model} |" in printed


def test_experiments_compare_the_labelled_test_rows() -> None:
    rows = table(100)
    partly = rows.assign(label=rows["label"].astype("Int8").mask(np.arange(len(rows)) % 4 == 0))
    spec = {"tasks": ["qc"], "models": ["m"], "cells": {"c": {}}, "seeds": [0], "subsets": {"qc": {"all": [], "German": ["de"]}}}

    def lines(test: pd.DataFrame) -> list[str]:
        tables = [rows.assign(split="validation"), test.assign(split="test")]
        return experiments.table(pd.concat(tables).assign(task="qc", model="m", cell="c", seed=0), spec, draws=20)

    labelled = partly[partly["label"].notna()]
    of_all, of_german = lines(partly)[2:]
    assert of_all.startswith(f"| QC | all, {len(labelled)} of {len(rows)} labelled | m | c |")
    german = (labelled["language"] == "de").sum()
    assert of_german.startswith(f"| QC | German, {german} of {(rows['language'] == 'de').sum()} labelled | m | c |")
    assert of_all.partition("labelled")[2] == lines(labelled)[2].partition(f"all, {len(labelled)}")[2]
    assert lines(rows)[2].startswith(f"| QC | all, {len(rows)} | m | c |")
    with pytest.raises(UserError, match="no test row has a label"):
        lines(partly.assign(label=pd.array([pd.NA] * len(rows), dtype="Int8")))
