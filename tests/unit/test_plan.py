"""The plan foretells what training and scoring then do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from babelcart import cost, plan
from babelcart.core import config
from babelcart.model import loading, prompts
from babelcart.model.packing import TokenRow, pack_rows
from tests.support.project import Project, run, run_to
from tests.support.tiny import PROMPT, SETTINGS, TEXTS, build, fit, plain


@pytest.fixture(scope="module", params=["gemma3_text", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    build(path, request.param, adapter=False)
    return path


def rows(folder: Path) -> list[TokenRow]:
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    return [encoder.encode(*row) for row in TEXTS]


@contextmanager
def saved(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that is kept for the backward pass and is not a parameter."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_and_three_layers_foretell_the_whole_model(folder: Path, checkpointing: bool) -> None:
    block, pack = plain(gradient_checkpointing=checkpointing), rows(folder) * 4
    shape = plan.read_config(folder, block)
    shape.num_hidden_layers = 8
    shape.layer_types = (shape.layer_types * 3)[:8]
    base = AutoModelForCausalLM.from_config(shape)
    base.requires_grad_(False)
    adapted = loading.add_adapter(base, block, 0)
    for train in (True, False):
        foretold = cost.pack_cost(shape, block, [pack], train)
        found = cost.measure(adapted, pack, train)
        assert foretold.memory == pytest.approx(found.memory, rel=0.2)
        assert foretold.flops == pytest.approx(found.flops, rel=0.02)
        assert foretold.tokens == found.tokens == pack_rows(pack).input_ids.shape[1]
    if not checkpointing:
        adapted.train()
        with saved(adapted) as kept:
            loading.label_logits(adapted, pack_rows(pack), prompts.LabelTokens(0, 1)).sum().backward()
        assert 0.75 < sum(kept.values()) / cost.pack_cost(shape, block, [pack], train=True).memory < 1


def test_steps_and_tokens_are_those_of_the_run(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, batch_size=4, max_tokens=60, eval_steps=5)
    history, _ = fit(folder, settings, plain())
    found = rows(folder)
    made = plan.make_plan(plan.read_config(folder, plain()), plain(), settings, 60, found, found, [found, found[:3]])
    assert (made.steps, made.train.rows, made.train.tokens) == (len(history.losses), history.rows, history.tokens)
    assert made.train.padded > made.train.tokens
    assert made.train.packs > made.steps
    scored = sum(pack_rows(pack).input_ids.shape[1] for part in (found, found[:3]) for pack in plan.scoring_packs(part, 60))
    assert (made.predict.rows, made.predict.tokens) == (len(found) + 3, scored)
    assert made.evaluate == len(history.evaluations) * plan.count_work(plan.scoring_packs(found, 60)).tokens


def test_parameters_are_counted_as_they_are_stored(folder: Path) -> None:
    block = plain()
    adapted = loading.add_adapter(loading.load_base(folder, block), block, 0)
    base = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    found = cost.model_size(plan.read_config(folder, block), block)
    assert found.base_bytes(block) == sum(parameter.nbytes for parameter in base)
    assert found.adapter == sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    quantised = plain(quantization="nf4")
    assert found.base_bytes(quantised) == found.other * 4 + found.linear * 4.127 / 8
    # A quantised layer keeps peft's own LoRA, which takes more operations than the fused one.
    shape, pack = plan.read_config(folder, block), rows(folder)
    assert cost.pack_cost(shape, quantised, [pack], True).calls > cost.pack_cost(shape, block, [pack], True).calls


@pytest.mark.parametrize(("name", "billions"), [("gemma3-12b", 12.19), ("qwen25-14b", 14.77)])
def test_published_shapes_have_the_published_number_of_parameters(project: Project, name: str, billions: float) -> None:
    block = config.load_section(loading.ModelSettings, name)
    found = cost.model_size(plan.read_config(Path("models") / name / "base", block), block)
    assert (found.linear + found.other) / 1e9 == pytest.approx(billions, abs=0.005)


def test_the_command_prints_a_plan_and_writes_nothing(project: Project) -> None:
    printed = run("plan", fails=True).output
    assert "python -m stages.base --model tiny" in printed
    run("base", "--model", "tiny")
    printed = run("plan", fails=True).output
    assert "run `dvc repro negatives`" in printed
    run_to("negatives")
    before = sorted(Path().rglob("*"))
    printed = run("plan", "--task", "qc", "--gpu", "h100").output
    assert "qc, tiny\n" in printed
    assert f"train    {2 * len(pd.read_parquet('build/negatives/qc.parquet'))} rows" in printed
    assert "h100, 80 GiB: train 1.0 GiB, 0.0 min" in printed
    assert "TOO MUCH" not in printed
    assert sorted(Path().rglob("*")) == before


def test_what_does_not_fit_is_said() -> None:
    block = plain()
    size = cost.ModelSize(linear=10**10, largest=10**8, other=10**9, adapter=10**7)
    work = plan.Work(10, 2, 1000, 2000, ())
    need = cost.Cost(memory=5 * plan.GIB, flops=1e15, calls=1000, tokens=500)
    lines = plan.plan_lines(plan.Plan(block, size, 1, work, work, 0, need, need), [plan.gpu_machine("l4"), plan.gpu_machine("h200")])
    assert "TOO MUCH" in lines[-2]
    assert "quantization: nf4" in lines[-2]
    assert "TOO MUCH" not in lines[-1]
    smaller = plan.Plan(dataclasses.replace(block, quantization="nf4"), size, 1, work, work, 0, need, need)
    assert "TOO MUCH" not in plan.plan_lines(smaller, [plan.gpu_machine("l4")])[-1]
