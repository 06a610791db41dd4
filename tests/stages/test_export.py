"""Export: the exported adapter and the merged model give the scores of `predict` in plain peft and transformers."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelcart import published_example
from babelcart.core.files import write_json
from babelcart.export import licence_files
from babelcart.model.loading import load_tokenizer
from babelcart.model.prompts import Prompt, PromptTokenizer
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


def example_of(folder: Path) -> Any:
    """The module example.py of an export."""
    spec = importlib.util.spec_from_file_location("example", folder / "example.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_adapter_and_the_merged_model_give_the_scores_of_predict(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
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
        introduction, use, rest = card.text.partition("\n## Use\n")
        assert introduction + rest[rest.index("\n## Scores\n") :] == ModelCard.load(Path("models/tiny/qc.md")).text
        assert ("`peft`" in use + rest, "--base FOLDER_OF_THE_BASE_MODEL" in rest) == (folder == "adapter", folder == "adapter")
        assert contract["threshold"] == json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
        tokenizer = AutoTokenizer.from_pretrained("models/tiny/base" if folder == "adapter" else "out/merged")
        assert probabilities(model, contract, tokenizer, table) == pytest.approx(table["probability"].tolist(), abs=1e-5)
        capsys.readouterr()
        query, candidate = table["origin_query"][0], table["candidate"][0]
        example_of(Path("out") / folder).main([query, candidate, "other", "--base", "models/tiny/base"])
        first, second = capsys.readouterr().out.splitlines()
        probability, decision, printed = first.split("\t")
        assert float(probability) == pytest.approx(table["probability"][0], abs=1e-5)
        assert (decision, printed) == ("relevant" if table["probability"][0] >= contract["threshold"] else "not relevant", candidate)
        assert second.endswith("relevant\tother")


TEMPLATE = "<bos>Shop in {language}: {candidate} for {query}, which is {pivot}?\n:"


def test_the_example_encodes_any_template_as_the_pipeline_does(project: Project) -> None:
    run_to("base")
    prompt = Prompt(template=TEMPLATE, positive=" yes", negative=" no", max_query_tokens=3, max_candidate_tokens=4)
    tokenizer = load_tokenizer(Path("models/tiny/base"))
    for query, candidate, pivot in (
        ("a <eos> query that is long", "toys,<bos> and more toys", ""),
        ("", "a", "b c d e f g h"),
        ("ñ", "", ""),
    ):
        texts = {"query": query, "candidate": candidate, "pivot": pivot or query}
        expected = PromptTokenizer(tokenizer, prompt).encode("de", query, candidate, pivot)
        assert published_example.encode(tokenizer, asdict(prompt), "de", texts) == list(expected.tokens)


def test_the_merged_weights_have_the_dtype_of_the_option(project: Project) -> None:
    run_to("evaluate")
    for dtype in ("float32", "bfloat16"):
        run("export", "--task", "qc", "--model", "tiny", "--out", f"out/{dtype}", "--merge", "--dtype", dtype)
        weights = load_file(f"out/{dtype}/model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {getattr(torch, dtype)}
    output = run("export", "--task", "qc", "--model", "tiny", "--out", "out/adapter", "--dtype", "float32", fails=True).output
    assert "add --merge" in output


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
    assert contract["quantization"] == "none"  # of the merged weights
    run("card", "--task", "qc", "--model", "tiny")
    run("export", "--task", "qc", "--model", "tiny", "--out", "adapter")
    assert json.loads(Path("adapter/babelcart.json").read_text())["quantization"] == "nf4"
    assert "`peft` and `bitsandbytes`" in Path("adapter/README.md").read_text()
    example, table = example_of(Path("adapter")), pd.read_parquet("predictions/tiny/qc/test.parquet")
    loaded, tokenizer = example.load("models/tiny/base", "float32", "nf4")
    for row in table.head(3).itertuples():
        texts = {"query": row.origin_query, "candidate": row.candidate}
        tokens = example.encode(tokenizer, contract["prompt"], row.language, texts)
        assert example.p_relevant(loaded, contract["label_tokens"], tokens) == pytest.approx(row.probability, abs=1e-5)


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
    assert "no licence file (none (random weights))" in printed


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
