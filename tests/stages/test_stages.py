"""Each stage, run through its Click command on twenty rows."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from babelcart.core.tasks import TASKS
from babelcart.rows import text
from tests.support.project import Project, run, run_to


def hashes(folder: str) -> dict[str, str]:
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_prepare_writes_clean_tables(project: Project) -> None:
    path = Path("data/train_QI.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    extra = {**json.loads(lines[0]), "id": "98"}, {**json.loads(lines[0]), "id": "99", "item_title": ""}
    path.write_text("\n".join([*lines, *map(json.dumps, extra)]) + "\n", encoding="utf-8")
    run("prepare", "--task", "qi")
    train = pd.read_parquet("build/prepare/qi/train.parquet")
    assert len(train) == 20
    counts = json.loads(Path("metrics/prepare/qi.json").read_text())
    assert (counts["train"]["duplicate"], counts["train"]["empty_candidate"]) == (1, 1)
    test = pd.read_parquet("build/prepare/qi/test.parquet")
    assert test["label"].tolist() == [1, 0] * 10


def test_prepare_refuses_a_broken_row_and_writes_nothing(project: Project) -> None:
    with Path("data/train_QC.txt").open("a", encoding="utf-8") as handle:
        handle.write('{"id": "x", "label": "3"}\n')
    result = run("prepare", "--task", "qc", fails=True)
    assert "train_QC.txt, line 21" in result.output
    assert "max_broken_rows" in result.output
    assert not Path("build").exists()
    assert not Path("metrics").exists()
    project.change(prepare={"max_broken_rows": 1})
    run("prepare", "--task", "qc")
    assert json.loads(Path("metrics/prepare/qc.json").read_text())["broken"]["rows"] == 1


def test_a_stage_refuses_an_unknown_setting(project: Project) -> None:
    project.change(split={"seeds": 1})
    printed = run("split", "--task", "qc", fails=True).output
    assert "unknown key split.seeds" in printed


def test_split_keeps_all_rows_of_a_query_in_one_part(project: Project) -> None:
    project.change(split={"test_share": 0.2}, data={"qc": {"train": ["train_QC.txt"]}})
    run_to("split")
    parts = {name: pd.read_parquet(f"build/split/qc/{name}.parquet") for name in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 20
    groups = [{text.normalise(query) for query in part["origin_query"]} for part in parts.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert json.loads(Path("build/train_languages/qc.json").read_text()) == sorted(parts["train"]["language"].unique())


def test_a_test_share_beside_a_test_file_is_refused_before_anything_is_computed(project: Project) -> None:
    project.change(split={"test_share": 0.2})
    message = "split.test_share is 0.2, and data.qc.test lists files, whose rows would not be used"
    result = run("check", fails=True)
    assert message in result.output
    run("prepare", "--task", "qc")
    result = run("split", "--task", "qc", fails=True)
    assert message in result.output
    assert not Path("build/split").exists()


def test_a_task_without_test_rows_is_refused_before_anything_is_computed(project: Project) -> None:
    project.change(tasks=["qc"], data={"qc": {"train": ["train_QC.txt"]}})
    message = "qc has no test rows: data.qc.test lists no files, and split.test_share is 0"
    result = run("check", fails=True)
    assert message in result.output
    run("prepare", "--task", "qc")
    result = run("split", "--task", "qc", fails=True)
    assert message in result.output


def test_settings_take_the_language_tags_of_files(project: Project) -> None:
    tags = sorted({json.loads(line)["language"] for line in Path("data/train_QC.txt").read_text(encoding="utf-8").splitlines()})
    project.change(split={"train_languages": [f" {tag.upper()}-XX " for tag in tags]})
    run_to("split")
    assert json.loads(Path("build/train_languages/qc.json").read_text()) == tags
    project.change(split={"train_languages": ["klingon"]})
    result = run("check", fails=True)
    assert "train_languages: 'klingon' is not a language" in result.output


def test_translate_uses_the_memory_and_counts_missing_translations(project: Project) -> None:
    project.change(translate={"qc": {"rows_per_language": 20, "source_languages": ["en"]}, "min_coverage": 0.0})
    run_to("translate")
    before = pd.read_parquet("build/split/qc/train.parquet")
    after = pd.read_parquet("build/translate/qc/train.parquet")
    copies = after[after["origin"] == "translated"]
    assert set(copies["language"]) == {"de"}
    source = before.set_index("id")
    for copy in copies.itertuples():
        assert copy.label == source.loc[copy.source_id, "label"]
        assert copy.candidate == source.loc[copy.source_id, "candidate"]
        assert copy.group == source.loc[copy.source_id, "group"]
        assert copy.source_language == "en"
    counts = json.loads(Path("metrics/translate/qc.json").read_text())["train"]["de"]
    assert counts["asked"] == counts["translated"] + sum(counts["refused"].values()) + counts["held_out"]
    assert counts["translated"] == len(copies) > 0


def test_a_translation_equal_to_a_held_out_query_is_left_out(project: Project) -> None:
    project.change(translate={"qc": {"rows_per_language": 20, "source_languages": ["en"]}, "min_coverage": 0.0})
    run_to("split")
    train = pd.read_parquet("build/split/qc/train.parquet")
    source = train[train["language"] == "en"]["origin_query"].iloc[0]
    held_out = pd.read_parquet("build/split/qc/test.parquet")["origin_query"].iloc[0]
    Path("data/memory.csv").write_text(f"source,target,text,translation\nen,de,{source},{held_out.upper()}\n", encoding="utf-8")
    run("translate", "--task", "qc")
    assert held_out.upper() not in set(pd.read_parquet("build/translate/qc/train.parquet")["origin_query"])
    assert json.loads(Path("metrics/translate/qc.json").read_text())["train"]["de"]["held_out"] == 2


def test_translate_reports_a_missing_memory_file(project: Project) -> None:
    run_to("split")
    Path("data/memory.csv").unlink()
    printed = run("translate", "--task", "qc", fails=True).output
    assert "memory.csv does not exist" in printed


@pytest.mark.parametrize("task", TASKS)
def test_negatives_are_never_known_candidates_of_the_query(project: Project, task: str) -> None:
    project.change(negatives={task: {"target_share": 0.7, "max_per_query": 3, "easy_ceiling": 0.95}})
    run_to("negatives", task)
    rows = pd.read_parquet(f"build/negatives/{task}.parquet")
    negatives = rows[rows["origin"] == "easy"]
    assert len(negatives)
    assert set(negatives["label"]) == {0}
    pairs = [(group, text.normalise(candidate)) for group, candidate in zip(rows["group"], rows["candidate"], strict=True)]
    native = {pair for pair, origin in zip(pairs, rows["origin"], strict=True) if origin != "easy"}
    sampled = [pair for pair, origin in zip(pairs, rows["origin"], strict=True) if origin == "easy"]
    assert not native & set(sampled)
    assert len(sampled) == len(set(sampled))
    assert set(negatives["candidate"]) <= set(rows.loc[rows["origin"] != "easy", "candidate"])


def test_negatives_can_be_switched_off(project: Project) -> None:
    project.change(negatives={"qc": {"strategy": "none"}})
    run_to("negatives")
    assert "easy" not in set(pd.read_parquet("build/negatives/qc.parquet")["origin"])


def test_baseline_scores_every_labelled_split(project: Project) -> None:
    run_to("split")
    run("baseline", "--task", "qc")
    result = json.loads(Path("metrics/ngram/qc.json").read_text())
    assert set(result) == {"validation", "dev", "test"}
    assert result["test"]["overall"]["rows"] == 20


def test_base_refuses_an_unknown_model(project: Project) -> None:
    printed = run("base", "--model", "gemma9", fails=True).output
    assert "models: has gemma3-270m" in printed


def test_training_is_deterministic_and_reduces_the_loss(project: Project) -> None:
    project.change(train={"epochs": 40, "batch_size": 8, "learning_rate": 0.01})
    run_to("train")
    first = hashes("models/tiny/qc")
    losses = json.loads(Path("models/tiny/qc/training.json").read_text())["losses"]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    run("train", "--task", "qc", "--model", "tiny")
    assert hashes("models/tiny/qc") == first


def test_an_adapter_is_not_scored_with_another_prompt(project: Project) -> None:
    run_to("train")
    prompt = json.loads(Path("models/tiny/qc/prompt.json").read_text())
    assert "{query}" in prompt["template"]
    project.change(prompts={"qc": {**prompt, "template": "Another prompt: {query} {candidate}\n:"}})
    failed = run("predict", "--task", "qc", "--model", "tiny", fails=True)
    assert "models/tiny/qc was trained with another prompt: template was" in failed.output
    assert "params.yaml has 'Another prompt: {query} {candidate}\\n:'" in failed.output
    assert not Path("predictions").exists()
    weights = {"licence": "none (random weights)", "random": "gemma3_text"}
    project.change(models={"tiny": {"weights": weights, "dtype": "float32", "prompts": {"qc": prompt}}})
    run("predict", "--task", "qc", "--model", "tiny")


def test_train_without_a_base_model_names_the_stage_to_run(project: Project) -> None:
    run_to("negatives")
    printed = run("train", "--task", "qc", "--model", "tiny", fails=True).output
    assert "dvc repro base" in printed


def test_predictions_metrics_and_submission_agree(project: Project) -> None:
    for task in TASKS:
        run_to("evaluate", task)
    predictions = pd.read_parquet("predictions/tiny/qc/test.parquet")
    assert predictions["probability"].between(0, 1).all()
    result = json.loads(Path("metrics/tiny/qc.json").read_text())
    assert set(result["test"]) == {"threshold", "overall", "seen", "unseen", "language"}
    assert result["test"]["seen"]["rows"] + result["test"]["unseen"]["rows"] == 20
    assert result["test"]["threshold"] == result["validation"]["threshold"]

    run("submit", "--model", "tiny")
    with zipfile.ZipFile("submissions/tiny/submit.zip") as archive:
        assert archive.namelist() == ["submit_QC.txt", "submit_QI.txt"]
        lines = [json.loads(line) for line in archive.read("submit_QC.txt").decode("utf-8").splitlines()]
    expected = (predictions["probability"] >= result["test"]["threshold"]).astype(int).tolist()
    assert [line["prediction"] for line in lines] == expected
    assert list(lines[0]) == ["id", "language", "origin_query", "category_path", "prediction"]

    printed = run("results").output
    assert "| QC | unseen, 10 rows | tiny |" in printed
    first = hashes("submissions")
    run("submit", "--model", "tiny")
    assert hashes("submissions") == first


def test_evaluate_reads_the_origin_of_rows_from_the_predictions(project: Project) -> None:
    project.change(split={"validation_share": 0.5}, translate={"qc": {"rows_per_language": 20, "source_languages": ["en"]}})
    run_to("predict")
    path, translated = Path("predictions/tiny/qc/validation.parquet"), pd.read_parquet("build/translate/qc/validation.parquet")
    table = pd.read_parquet(path)
    assert table["origin"].tolist() == translated["origin"].tolist()
    assert set(table["origin"]) == {"native", "translated"}
    assert "origin" not in pd.read_parquet("predictions/tiny/qc/test.parquet")
    for name in ("split", "translate"):
        shutil.rmtree(Path("build", name))
    run("evaluate", "--task", "qc", "--model", "tiny")
    parts = json.loads(Path("metrics/tiny/qc_slices.json").read_text())
    assert {name: part["rows"] for name, part in parts["validation"]["origin"].items()} == table["origin"].value_counts().to_dict()
    assert "origin" not in parts["test"]
    table.drop(columns="origin").to_parquet(path)  # as an older version wrote it
    printed = run("evaluate", "--task", "qc", "--model", "tiny", fails=True).output
    assert "has no column origin" in printed


def test_evaluate_without_predictions_names_the_command_to_run(project: Project) -> None:
    run_to("split")
    result = run("evaluate", "--task", "qc", "--model", "tiny", fails=True)
    assert "dvc repro" in result.output
