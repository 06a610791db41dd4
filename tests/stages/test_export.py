"""Export: the exported adapter and the merged model give the scores of `predict` in plain peft and transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from sklearn.metrics import f1_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelcart.core.files import write_json
from babelcart.export import licence_files
from tests.support.project import Project, run, run_to


def probabilities(model: Any, contract: dict[str, Any], tokenizer: AutoTokenizer, table: pd.DataFrame) -> list[float]:
    """p(relevant) of each row, from one forward pass of transformers per row with the prompt and label tokens of babelcart.json."""
    prompt, labels = contract["prompt"], contract["label_tokens"]
    scores = []
    for row in table.itertuples():
        ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        for part in re.split(r"(\{\w+\})", prompt["template"]):
            text = {"{query}": row.origin_query, "{candidate}": row.candidate}.get(part, part)
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            hidden = model.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].float()  # (hidden_size,)
            head = model.get_output_embeddings().weight[[labels["negative"], labels["positive"]]].float()  # (2, hidden_size)
        scores.append(float(torch.softmax((head @ hidden).double(), -1)[1]))
    return scores


def test_the_adapter_and_the_merged_model_give_the_scores_of_predict(project: Project) -> None:
    project.change(train={"learning_rate": 0.01})
    run_to("evaluate")
    run("card", "--task", "qc", "--model", "tiny")
    table = pd.read_parquet("predictions/tiny/qc/test.parquet")
    assert table["probability"].std() > 0.001
    terms = {"LICENSE": "Permission is granted", "GEMMA_TERMS.html": "<p>terms</p>", "NOTICE.txt": "© the authors"}
    for name, text in terms.items():
        Path("models/tiny/base", name).write_text(text, encoding="utf-8")
    run("export", "--task", "qc", "--model", "tiny", "--out", "out/adapter")
    run("export", "--task", "qc", "--model", "tiny", "--out", "out/merged", "--merge")
    base = AutoModelForCausalLM.from_pretrained("models/tiny/base")
    adapted = PeftModel.from_pretrained(base, "out/adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained("out/merged").eval()
    for model, folder in ((adapted, "adapter"), (merged, "merged")):
        contract = json.loads(Path(f"out/{folder}/babelcart.json").read_text())
        card = ModelCard.load(Path(f"out/{folder}/README.md"))
        assert {name: Path(f"out/{folder}", name).read_text(encoding="utf-8") for name in terms} == terms
        assert card.data.library_name == {"adapter": "peft", "merged": "transformers"}[folder]
        assert card.text == ModelCard.load(Path("models/tiny/qc.md")).text
        assert contract["threshold"] == json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
        tokenizer = AutoTokenizer.from_pretrained("models/tiny/base" if folder == "adapter" else "out/merged")
        assert probabilities(model, contract, tokenizer, table) == pytest.approx(table["probability"].tolist(), abs=1e-5)


def test_the_thresholds_of_a_merged_nf4_model_are_its_own(project: Project) -> None:
    project.change(train={"learning_rate": 0.01})
    weights = {"licence": "none", "random": "gemma3_text"}
    project.change(models={"tiny": {"weights": weights, "dtype": "float32", "r": 8, "lora_alpha": 16, "quantization": "nf4"}})
    run_to("evaluate")
    run("export", "--task", "qc", "--model", "tiny", "--out", "out", "--merge")
    contract = json.loads(Path("out/babelcart.json").read_text())
    trained = json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
    merged, tokenizer = AutoModelForCausalLM.from_pretrained("out").eval(), AutoTokenizer.from_pretrained("out")
    validation = pd.read_parquet("build/translate/qc/validation.parquet")
    probability = np.array(probabilities(merged, contract, tokenizer, validation))
    label = validation["label"].to_numpy(int)
    best_f1 = max(f1_score(label, probability >= threshold) for threshold in probability)
    assert f1_score(label, probability >= contract["threshold"]) == best_f1
    assert contract["threshold"] != trained


def test_a_failed_export_writes_nothing_and_overwrites_nothing(project: Project) -> None:
    run_to("base")
    printed = run("export", "--task", "qc", "--model", "tiny", "--out", "out", fails=True).output
    assert "adapter_config.json does not exist" in printed
    assert not Path("out").exists()
    Path("out").mkdir()
    printed = run("export", "--task", "qc", "--model", "tiny", "--out", "out", fails=True).output
    assert "out exists" in printed
    assert not list(Path("out").iterdir())


def test_a_base_model_without_a_licence_file_causes_a_warning(project: Project) -> None:
    run_to("train")
    printed = run("export", "--task", "qc", "--model", "tiny", "--out", "out", "--merge").output
    assert "without a file of its licence (none (random weights))" in printed


def test_licence_files_of_a_model_from_the_hub_are_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    snapshot = tmp_path / "hub/models--a--b/snapshots" / commit
    snapshot.mkdir(parents=True)
    for name in ("License.txt", "config.json", "USE_POLICY.md"):
        (snapshot / name).write_text("x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "base").mkdir()
    write_json(tmp_path / "base/base.json", {"licence": "", "repo": "a/b", "revision": commit, "files": {}})
    assert [path.name for path in licence_files(tmp_path / "base")] == ["License.txt", "USE_POLICY.md"]
