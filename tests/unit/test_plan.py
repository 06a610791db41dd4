"""The plan predicts the packs, the memory and the operations of training and scoring."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from babelcart import plan
from babelcart.core import config
from babelcart.model import cost, loading, prefix_cache, prompts, scoring, workload
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import TokenRow, pack_rows
from tests.support.project import Project, run, run_to
from tests.support.tiny import PROMPT, SETTINGS, TEXTS, build, fit, plain


@pytest.fixture(scope="module", params=["gemma3_text", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    build(path, request.param, adapter=False)
    return path


def encoded_rows(folder: Path) -> list[TokenRow]:
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    return [tokenizer.encode(*text) for text in TEXTS]


@contextmanager
def saved_bytes(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that is saved for the backward pass and is not a parameter."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        yield saved


def resized(folder: Path, target: Path, layers: int, hidden_size: int) -> Path:
    """Write a base model of another depth and width to a folder."""
    shutil.copytree(folder, target)
    model_config = plan.read_config(folder, plain())
    model_config.num_hidden_layers, model_config.hidden_size, model_config.intermediate_size = layers, hidden_size, 3 * hidden_size
    model_config.layer_types = (model_config.layer_types * layers)[:layers]
    AutoModelForCausalLM.from_config(model_config).save_pretrained(target)
    return target


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("layers", "hidden_size"), [(5, 64), (9, 192)])
def test_two_and_three_layers_predict_the_cost_of_the_complete_model(
    folder: Path, tmp_path: Path, layers: int, hidden_size: int, quantization: str, checkpointing: bool
) -> None:
    """The plan counts on a device without data; here the same operations run on the loaded model, in NF4 with bitsandbytes.

    On a CPU, the pack needs most memory in attention, when no weight is dequantised.
    """
    base = resized(folder, tmp_path / "base", layers, hidden_size)
    model_settings, pack = plain(gradient_checkpointing=checkpointing, quantization=quantization, dtype="bfloat16"), encoded_rows(folder)
    model_config = plan.read_config(base, model_settings)
    adapted = loading.add_adapter(loading.load_base(base, model_settings), model_settings, 0)
    predicted_model = cost.ModelCost(model_config, model_settings)
    for train in (True, False):
        predicted, measured = predicted_model.pack([pack], train), cost.measure_pack(adapted, pack, train)
        assert predicted.peak_bytes == pytest.approx(measured.peak_bytes, rel=0.1)
        assert predicted.flops == pytest.approx(measured.flops, rel=0.02)
        assert predicted.tokens == measured.tokens == pack_rows(pack).input_ids.shape[1]
    if not checkpointing:
        adapted.train()
        with saved_bytes(adapted) as saved:
            loading.label_logits(adapted, pack_rows(pack), prompts.LabelTokens(0, 1)).sum().backward()
        assert 0.75 < sum(saved.values()) / predicted_model.pack([pack], train=True).peak_bytes < 1


def test_planned_steps_and_tokens_equal_those_of_the_run(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, batch_size=4, max_tokens=60, eval_steps=5)
    history, _ = fit(folder, settings, plain())
    rows = encoded_rows(folder)
    splits, predict = [rows, rows[:3]], scoring.Predict(max_tokens=60)
    planned = plan.make_plan(plan.read_config(folder, plain()), plain(), settings, predict, plan.PlannedRows(rows, rows, splits, rows))
    assert (planned.steps, planned.train.rows, planned.train.tokens) == (len(history.losses), history.rows, history.tokens)
    assert planned.train.padded_tokens > planned.train.tokens
    assert planned.train.packs > planned.steps
    packs = [[split[row_index] for row_index in pack] for split in splits for pack in scoring_packs(split, 60)]
    assert (planned.predict.rows, planned.predict.packs) == (len(rows) + 3, len(packs))
    assert planned.predict.tokens == sum(pack_rows(pack).input_ids.shape[1] for pack in packs)
    assert planned.validation_tokens == len(history.evaluations) * workload.scoring_workload([rows], predict).tokens


def test_planned_tokens_and_memory_of_a_prefix_cache_are_those_of_the_run(folder: Path) -> None:
    rows = encoded_rows(folder) * 2
    model, predict, computed = loading.load_base(folder, plain()), scoring.Predict(max_tokens=1000, chunk_rows=4), []
    model_config = plan.read_config(folder, plain())
    planned = plan.make_plan(model_config, plain(), SETTINGS, predict, plan.PlannedRows(rows, rows, [rows], rows))
    without = workload.scoring_workload([rows], predict)
    embed = model.get_decoder().embed_tokens
    embed.register_forward_hook(lambda module, inputs, output: computed.append(inputs[0].shape[1]))
    scoring.score(model, rows, prompts.LabelTokens(0, 1), predict)
    assert planned.predict.tokens == sum(computed) < without.tokens
    cache = prefix_cache.fill_cache(model, prefix_cache.recurring_prefixes(rows, 4, 10_000), 1000)
    cached_bytes = sum(tensor[1:].nbytes for tensor in (*cache.keys, *cache.values))
    assert planned.predict.cached_tokens * planned.cached_token_bytes == cached_bytes > 0


def test_parameters_are_counted_as_they_are_stored(folder: Path) -> None:
    model_settings = plain()
    adapted = loading.add_adapter(loading.load_base(folder, model_settings), model_settings, 0)
    base = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    model_config = plan.read_config(folder, model_settings)
    parameters = cost.ModelCost(model_config, model_settings).parameters
    assert parameters.base_bytes(model_settings) == sum(parameter.nbytes for parameter in base)
    assert parameters.adapter == sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    quantised = plain(quantization="nf4")
    assert parameters.base_bytes(quantised) == parameters.other * 4 + parameters.linear * 4.127 / 8


@pytest.mark.parametrize(("name", "billions"), [("gemma3-12b", 12.19), ("qwen25-14b", 14.77)])
def test_published_shapes_have_the_published_number_of_parameters(project: Project, name: str, billions: float) -> None:
    model_settings = config.load_section(loading.ModelSettings, name)
    parameters = cost.ModelCost(plan.read_config(Path("models") / name / "base", model_settings), model_settings).parameters
    assert (parameters.linear + parameters.other) / 1e9 == pytest.approx(billions, abs=0.005)


def test_the_command_prints_a_plan_and_writes_nothing(project: Project) -> None:
    printed = run("plan", fails=True).output
    assert "run `dvc repro base negatives`, or `python -m stages.base --model tiny`" in printed
    run("base", "--model", "tiny")
    printed = run("plan", fails=True).output
    assert "run `dvc repro negatives`" in printed
    run_to("negatives")
    before = sorted(Path().rglob("*"))
    printed = run("plan", "--task", "qc", "--gpu", "h100").output
    assert "qc, tiny\n" in printed
    assert f"train    {2 * len(pd.read_parquet('build/negatives/qc.parquet'))} rows" in printed
    assert "h100, 79.1 GiB: train 1.0 GiB, 0.0 min" in printed
    assert "this machine (" in printed
    assert "DOES NOT FIT" not in printed
    figures = r"train [\d.]+ \([\d,.]+ rows/s, [\d.]+ GiB\), predict [\d.]+ \([^)]+\), one query with all candidates [\d.]+"
    for order in ("query first", "candidate first"):
        assert re.search(f"{order}: {figures}", printed)
    assert re.search(r"fewest tokens: train: \w+ first; predict: \w+ first; one query with all candidates: query first", printed)
    assert sorted(Path().rglob("*")) == before


def test_a_model_that_does_not_fit_is_reported() -> None:
    model_settings = plain()
    parameters = cost.ParameterCounts(linear=10**10, largest_linear=10**8, other=10**9, adapter=10**7)
    packs = workload.Workload(10, 2, 1000, 2000, ())
    pack_cost = cost.PackCost(peak_bytes=5 * plan.GIB, flops=1e15, calls=1000, tokens=500)
    unquantised = plan.Plan(model_settings, 4096, parameters, 1, packs, packs, packs, 0, pack_cost, pack_cost, 100)
    lines = plan.plan_lines(unquantised, [(plan.gpu_machine(gpu), unquantised) for gpu in ("l4", "h200")])
    assert "DOES NOT FIT" in lines[-2]
    assert "quantization: nf4" in lines[-2]
    assert "DOES NOT FIT" not in lines[-1]
    quantised = dataclasses.replace(unquantised, model=dataclasses.replace(model_settings, quantization="nf4"))
    (line,) = plan.plan_lines(quantised, [(plan.gpu_machine("l4"), quantised)])[3:]
    assert "DOES NOT FIT" not in line
    smaller = dataclasses.replace(quantised, max_tokens=500)
    (line,) = plan.plan_lines(quantised, [(plan.gpu_machine("l4"), smaller)])[3:]
    assert line.endswith("; to fit, train divides steps into packs of 500 tokens, without gradient checkpointing")
