"""Tests of the model card: it agrees with the outputs of the stages, and the hub's library can read it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from babelcart import card
from babelcart.weights.fetching import Weights
from tests.support.project import Project, run, run_to


@pytest.mark.parametrize("task", ["qc", "qi"])
def test_the_card_agrees_with_the_outputs_of_the_stages(project: Project, task: str) -> None:
    run_to("evaluate", task)
    run("card", "--task", task, "--model", "tiny")
    written = ModelCard.load(Path(f"models/tiny/{task}.md"))
    scores = json.loads(Path(f"metrics/tiny/{task}.json").read_text())["test"]
    metadata = written.data.to_dict()
    assert (metadata["library_name"], metadata["base_model"], metadata["license"], metadata["license_name"]) == (
        "peft",
        "tiny",
        "other",
        "none-random-weights",
    )
    assert metadata["language"] == ["en", "fr", "de"], "German has translated rows only, so it comes last"
    assert "Its training rows in `de` are all translations" in written.text
    results = {(entry.metric_type, entry.metric_name): entry.metric_value for entry in written.data.eval_results}
    assert len(results) == len(written.data.eval_results) == 6
    assert sorted(results.values()) == sorted(scores[part][metric] for part in ("overall", "seen", "unseen") for metric in ("f1", "auc"))
    for language, metrics in scores["language"].items():
        assert f"| {language} | {metrics['rows']} | {card.format_score(metrics, 'f1')} | {metrics['floor_f1']:.3f} |" in written.text
    rows_seen = json.loads(Path(f"models/tiny/{task}/training.json").read_text())["rows"]
    training_rows = len(pd.read_parquet(f"build/negatives/{task}.parquet"))
    assert f"{rows_seen} rows, from a training set of {training_rows} rows" in written.text


def test_the_card_lists_the_hashes_of_the_raw_files(project: Project) -> None:
    run_to("evaluate")
    run("card", "--task", "qc", "--model", "tiny")
    first = ModelCard.load(Path("models/tiny/qc.md"))
    listed = [line.split() for line in first.text.splitlines() if line.startswith("    ")]
    rows = {f"{split}_QC.txt" for split in ("train", "dev", "test")}
    labels = {f"{split}_QC_labels.csv" for split in ("dev", "test")}
    assert {name for _, name in listed} == rows | labels
    for sha256, name in listed:
        assert sha256 == hashlib.sha256(Path("data", name).read_bytes()).hexdigest()
    tag = next(tag for tag in first.data.tags if tag.startswith("data-sha256:"))
    assert tag.endswith(hashlib.sha256("".join(f"{sha256}  {name}\n" for sha256, name in listed).encode()).hexdigest())
    assert first.data.eval_results[0].dataset_revision == tag.partition(":")[2]
    with Path("data/test_QC.txt").open("a", encoding="utf-8") as handle:
        handle.write("\n")
    run("prepare", "--task", "qc")
    run("card", "--task", "qc", "--model", "tiny")
    assert ModelCard.load(Path("models/tiny/qc.md")).data.tags != first.data.tags
    shutil.rmtree("data")  # the card shows the hashes of the files that `prepare` read
    run("card", "--task", "qc", "--model", "tiny")
    Path("build/raw_files/qc.json").unlink()
    printed = run("card", "--task", "qc", "--model", "tiny", fails=True).output
    assert "build/raw_files/qc.json does not exist; run `dvc repro`" in printed


@pytest.mark.parametrize("split", ["dev", "validation"])
def test_a_card_without_test_scores_names_the_source_of_its_scores(project: Project, split: str) -> None:
    project.change(predict={"splits": ["validation"] + ["dev"] * (split == "dev")})
    run_to("evaluate")
    run("card", "--task", "qc", "--model", "tiny")
    written = ModelCard.load(Path("models/tiny/qc.md"))
    rows = json.loads(Path("metrics/tiny/qc.json").read_text())[split]["overall"]["rows"]
    assert f"Scores on the {split} set ({rows} rows).\nNo labelled row of test" in written.text
    assert {entry.dataset_split for entry in written.data.eval_results} == {split}
    names = [entry.metric_name for entry in written.data.eval_results]
    assert all(("validation rows, on which the threshold was chosen" in name) == (split == "validation") for name in names)
    assert ("expect lower scores on new queries" in written.text) == (split == "validation")


def test_the_card_of_a_partly_labelled_test_set_shows_the_number_of_labels(project: Project) -> None:
    run_to("predict")
    path = Path("predictions/tiny/qc/test.parquet")
    table = pd.read_parquet(path)
    table.loc[[3, 7], "label"] = pd.NA
    table.to_parquet(path)
    run("evaluate", "--task", "qc", "--model", "tiny")
    run("card", "--task", "qc", "--model", "tiny")
    written = ModelCard.load(Path("models/tiny/qc.md"))
    assert "Scores on the test set (18 of 20 rows labelled)." in written.text
    assert "| overall | 18 of 20 labelled |" in written.text
    assert any("F1, 18 of 20 rows labelled" in entry.metric_name for entry in written.data.eval_results)


def test_the_card_names_the_licence_and_the_source_of_the_base_model() -> None:
    assert card.licence_metadata("Gemma Terms of Use; accept them on the model's page") == {"license": "gemma"}
    assert card.licence_metadata("Apache-2.0") == {"license": "apache-2.0"}
    assert card.licence_metadata("My Own, v1.0") == {"license": "other", "license_name": "my-own-v1.0"}
    hub = Weights("Apache-2.0", repo="Qwen/Qwen2.5-14B-Instruct", revision="cf98" * 10)
    assert card.describe_weights(hub) == f"`Qwen/Qwen2.5-14B-Instruct` at commit `{'cf98' * 10}`"


def test_a_score_is_formatted_with_and_without_its_interval() -> None:
    assert card.format_score({"f1": 0.88845, "f1_low": 0.876, "f1_high": 0.9}, "f1") == "0.888 (0.876 - 0.900)"
    assert card.format_score({"f1": 0.5}, "f1") == "0.500"
    assert card.format_score({"f1": 0.5}, "auc") == ""
