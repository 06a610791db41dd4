"""The model card: true to what the stages wrote, and read back by the hub's own library."""

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
def test_the_card_says_what_the_stages_found(project: Project, task: str) -> None:
    run_to("evaluate", task)
    run("card", "--task", task, "--model", "tiny")
    written = ModelCard.load(Path(f"models/tiny/{task}.md"))
    scores = json.loads(Path(f"metrics/tiny/{task}.json").read_text())["test"]
    data = written.data.to_dict()
    assert (data["library_name"], data["base_model"], data["license"], data["license_name"]) == (
        "peft",
        "tiny",
        "other",
        "none-random-weights",
    )
    assert data["language"] == ["en", "fr", "de"], "German was trained on in translation only, so it comes last"
    assert "Of `de` it saw translated rows only" in written.text
    found = {(one.metric_type, one.metric_name): one.metric_value for one in written.data.eval_results}
    assert len(found) == len(written.data.eval_results) == 6
    assert sorted(found.values()) == sorted(scores[part][metric] for part in ("overall", "seen", "unseen") for metric in ("f1", "auc"))
    for language, one in scores["language"].items():
        assert f"| {language} | {one['rows']} | {card.format_score(one, 'f1')} | {one['floor_f1']:.3f} |" in written.text
    trained = json.loads(Path(f"models/tiny/{task}/training.json").read_text())["rows"]
    assert f"{trained} rows of a training set of {len(pd.read_parquet(f'build/negatives/{task}.parquet'))}" in written.text


def test_the_hashes_are_those_of_the_files(project: Project) -> None:
    run_to("evaluate")
    run("card", "--task", "qc", "--model", "tiny")
    first = ModelCard.load(Path("models/tiny/qc.md"))
    listed = [line.split() for line in first.text.splitlines() if line.startswith("    ")]
    assert {name for _, name in listed} == {f"{one}_QC.txt" for one in ("train", "dev", "test")} | {
        f"{one}_QC_labels.csv" for one in ("dev", "test")
    }
    for value, name in listed:
        assert value == hashlib.sha256(Path("data", name).read_bytes()).hexdigest()
    tag = next(one for one in first.data.tags if one.startswith("data-sha256:"))
    assert tag.endswith(hashlib.sha256("".join(f"{value}  {name}\n" for value, name in listed).encode()).hexdigest())
    assert first.data.eval_results[0].dataset_revision == tag.partition(":")[2]
    with Path("data/test_QC.txt").open("a", encoding="utf-8") as handle:
        handle.write("\n")
    run("prepare", "--task", "qc")
    run("card", "--task", "qc", "--model", "tiny")
    assert ModelCard.load(Path("models/tiny/qc.md")).data.tags != first.data.tags
    shutil.rmtree("data")  # the hashes are those of the files that prepare read
    run("card", "--task", "qc", "--model", "tiny")
    Path("build/raw_files/qc.json").unlink()
    assert "build/raw_files/qc.json does not exist; run `dvc repro`" in run("card", "--task", "qc", "--model", "tiny", fails=True).output


def test_without_scores_there_is_no_card(project: Project) -> None:
    project.change(predict={"splits": ["validation"]})
    run_to("evaluate")
    printed = run("card", "--task", "qc", "--model", "tiny", fails=True).output
    assert "no scores of test or dev rows" in printed
    assert not Path("models/tiny/qc.md").exists()


def test_licence_and_source_of_a_base_model() -> None:
    assert card.licence_metadata("Gemma Terms of Use; accept them on the model's page") == {"license": "gemma"}
    assert card.licence_metadata("Apache-2.0") == {"license": "apache-2.0"}
    assert card.licence_metadata("My Own, v1.0") == {"license": "other", "license_name": "my-own-v1.0"}
    hub = Weights("Apache-2.0", repo="Qwen/Qwen2.5-14B-Instruct", revision="cf98" * 10)
    assert card.describe_weights(hub) == f"`Qwen/Qwen2.5-14B-Instruct` at commit `{'cf98' * 10}`"


def test_a_score_with_and_without_its_interval() -> None:
    assert card.format_score({"f1": 0.88845, "f1_low": 0.876, "f1_high": 0.9}, "f1") == "0.888 (0.876 - 0.900)"
    assert card.format_score({"f1": 0.5}, "f1") == "0.500"
    assert card.format_score({"f1": 0.5}, "auc") == ""
