"""Training chooses its token budget and gradient checkpointing from the memory that is free."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from babelcart import plan
from babelcart.core import config
from babelcart.model import cost, loading
from babelcart.model.packing import TokenRow
from babelcart.model.workload import training_workload
from babelcart.training.loop import TrainSettings
from babelcart.training.memory import FreeMemory, TrainingRun, available_bytes
from babelcart.training.steps import step_order
from tests.support.project import Project
from tests.support.tiny import token_row

GIB = 2**30
MEMORY = "MemTotal:    9 kB\nMemAvailable:    7 kB\nHugePages_Total:       0\n"
GROUP = tuple(f"sys/fs/cgroup/memory.{name}" for name in ("max", "current", "stat"))
# Rows of 130 tokens that share their first 10. 32 of them make a step of 3,850 tokens, about the longest pack of the shipped settings.
LONG_ROWS = [token_row(tuple(range(10)), tuple(range(1000 * index, 1000 * index + 120))) for index in range(1, 129)]


def long_run(model_name: str, rows: list[TokenRow] = LONG_ROWS) -> TrainingRun:
    """A run with the shipped settings on a model whose weights are not needed."""
    model = config.load_section(loading.ModelSettings, model_name)
    settings = dataclasses.replace(config.load_section(TrainSettings), group_by="query")
    return TrainingRun(plan.read_config(Path("models") / model_name / "base", model), model, settings, rows, rows[:40])


def counted_bytes(run: TrainingRun) -> float:
    """Memory of the model, the optimizer and the largest pack."""
    model_cost = cost.ModelCost(run.config, run.model)
    packs = training_workload(run.rows, step_order(run.rows, run.settings), run.settings.max_tokens).largest_packs
    return model_cost.parameters.training_bytes(run.model) + model_cost.pack(packs, train=True).peak_bytes


@pytest.mark.parametrize("name", ["gemma3-12b", "qwen25-14b"])
def test_the_longest_packs_of_the_large_models_are_fitted_to_24_gb(project: Project, name: str) -> None:
    run = long_run(name)
    assert counted_bytes(run) > 24 * GIB
    fitting = run.fit(FreeMemory(22.0 * GIB, 1.0))  # of an L4
    assert fitting.settings.max_tokens < run.settings.max_tokens or fitting.model.gradient_checkpointing
    assert counted_bytes(fitting) <= 21.5 * GIB
    assert run.fit(FreeMemory(79.0 * GIB, 1.0)) is run


@pytest.mark.parametrize(("name", "kilobytes", "checkpointed"), [("gemma3-12b", 150, 8), ("qwen25-14b", 139, 11)])
def test_a_token_keeps_few_bytes_of_a_layer(project: Project, name: str, kilobytes: float, checkpointed: float) -> None:
    """The rows of this pack are long, so that attention needs more than with those of the sample."""
    run = long_run(name)
    pack, text_config = list(run.rows[:8]), run.config.get_text_config()
    for checkpointing, limit in ((False, kilobytes), (True, checkpointed)):
        model, costs = dataclasses.replace(run.model, gradient_checkpointing=checkpointing), []
        for layers in (4, 8):
            text_config.num_hidden_layers = layers
            costs.append(cost.ModelCost(run.config, model).pack([pack], train=True))
        assert (costs[1].peak_bytes - costs[0].peak_bytes) / 4 / costs[0].tokens < 1000 * limit


def test_the_run_with_the_fewest_operations_is_chosen(project: Project) -> None:
    run = long_run("gemma3-12b")
    roomy, tight = (run.fit(FreeMemory(gib * GIB, 1.0)) for gib in (26.0, 13.0))
    assert (roomy.model.gradient_checkpointing, tight.model.gradient_checkpointing) == (False, True)
    assert tight.settings.max_tokens > 1000
    assert run.fit(FreeMemory(1.0 * GIB, 1.0)) is run  # nothing fits


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"proc/meminfo": MEMORY}, 7168),
        ({"proc/meminfo": MEMORY, **dict.fromkeys(GROUP, "max\n"), "sys/fs/cgroup/memory.stat": "inactive_file 5\n"}, 7168),
        ({"proc/meminfo": MEMORY, **dict(zip(GROUP, ("900\n", "500\n", "anon 100\ninactive_file 300\n"), strict=True))}, 700),
    ],
)
def test_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert available_bytes(tmp_path) == expected
