"""Export: the exported adapter and the merged model give the scores of `predict` in plain peft and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.project import Project, run, run_to


def probabilities(model: torch.nn.Module, contract: dict[str, Any], tokenizer: AutoTokenizer, table: pd.DataFrame) -> list[float]:
    """p(relevant) of each row, from one forward pass of transformers per row with the prompt and label tokens of babelcart.json."""
    prompt, labels = contract["prompt"], contract["label_tokens"]
    scores = []
    for row in table.itertuples():
        ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        for part in prompt["query"].partition("{query}"):
            ids += tokenizer(row.origin_query if part == "{query}" else part, add_special_tokens=False)["input_ids"]
        for part in (row.candidate, prompt["suffix"]):
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, [labels["negative"], labels["positive"]]]  # (2,)
        scores.append(float(torch.softmax(logits.double(), -1)[1]))
    return scores


def test_the_adapter_and_the_merged_model_give_the_scores_of_predict(project: Project) -> None:
    project.change(train={"learning_rate": 0.01})
    run_to("evaluate")
    run("card", "--task", "qc", "--model", "tiny")
    table = pd.read_parquet("predictions/tiny/qc/test.parquet")
    assert table["probability"].std() > 0.001
    run("export", "--task", "qc", "--model", "tiny", "--out", "out/adapter")
    run("export", "--task", "qc", "--model", "tiny", "--out", "out/merged", "--merge")
    base = AutoModelForCausalLM.from_pretrained("models/tiny/base")
    adapted = PeftModel.from_pretrained(base, "out/adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained("out/merged").eval()
    for model, folder in ((adapted, "adapter"), (merged, "merged")):
        contract = json.loads(Path(f"out/{folder}/babelcart.json").read_text())
        card = ModelCard.load(Path(f"out/{folder}/README.md"))
        assert card.data.library_name == {"adapter": "peft", "merged": "transformers"}[folder]
        assert card.text == ModelCard.load(Path("models/tiny/qc.md")).text
        assert contract["threshold"] == json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
        tokenizer = AutoTokenizer.from_pretrained("models/tiny/base" if folder == "adapter" else "out/merged")
        assert probabilities(model, contract, tokenizer, table) == pytest.approx(table["probability"].tolist(), abs=1e-5)


def test_a_failed_export_writes_nothing_and_overwrites_nothing(project: Project) -> None:
    run_to("base")
    printed = run("export", "--task", "qc", "--model", "tiny", "--out", "out", fails=True).output
    assert "adapter_config.json does not exist" in printed
    assert not Path("out").exists()
    Path("out").mkdir()
    printed = run("export", "--task", "qc", "--model", "tiny", "--out", "out", fails=True).output
    assert "out exists" in printed
    assert not list(Path("out").iterdir())
