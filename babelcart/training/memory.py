"""Choose the token budget and gradient checkpointing of a training run from the memory that is free, before its first step."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.model.cost import CPU_ALLOCATOR, ModelCost
from babelcart.model.packing import TokenRow
from babelcart.model.scoring import Predict
from babelcart.model.workload import scoring_workload, training_workload
from babelcart.training.steps import sample_queries, step_order

if TYPE_CHECKING:
    from babelcart.model.loading import ModelSettings
    from babelcart.training.loop import TrainSettings

# Share of the free memory that is used. The rest is for gaps of the allocator and for the padding of CUDA graphs.
USED_SHARE = 0.9
# Passes over a pack: forward and backward; with gradient checkpointing, the forward pass twice.
PASSES, CHECKPOINTED_PASSES = 2, 3
# Tokens whose products take as long as it takes to read or dequantise all weights, which each pass over a pack needs. On an H100 and
# Gemma-3 12B in NF4: 48 GB at 3.35 TB/s, and 22 GFLOP for a token at 45 % of 989 TFLOP/s.
PACK_TOKENS = 300


@dataclass(frozen=True)
class FreeMemory:
    """Memory for a training run.

    Attributes
    ----------
    free_bytes : float
        Memory that is free before the model is loaded.
    allocator_factor : float
        Bytes of the process per byte that a pack needs.
    """

    free_bytes: float
    allocator_factor: float


def free_memory(model: ModelSettings) -> FreeMemory:
    """Return the free memory of the GPU, or of this machine if it has none."""
    import torch

    if torch.cuda.is_available():
        return FreeMemory(float(torch.cuda.mem_get_info()[0]), 1.0)
    return FreeMemory(available_bytes(), CPU_ALLOCATOR[model.dtype])


def available_bytes(root: Path = Path("/")) -> float:
    """Memory in bytes that this process can allocate: that of the machine, or of its control group (a container) if it is less.

    Parameters
    ----------
    root : pathlib.Path
        Folder that contains ``proc`` and ``sys``.

    Returns
    -------
    float
        Infinity on a system without ``/proc/meminfo``, such as macOS.
    """
    try:
        machine = _numbers(root / "proc/meminfo")["MemAvailable:"] * 1024
    except OSError:
        return math.inf
    group = root / "sys/fs/cgroup"
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = _numbers(group / "memory.stat")["inactive_file"]  # given back when a process needs memory
    except OSError:
        return machine
    return machine if limit == "max" else min(machine, float(limit) - float(used) + cached)


def _numbers(path: Path) -> dict[str, float]:
    """Read lines of a name and a number."""
    fields = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {name: float(number) for name, number, *_ in fields}


@dataclass(frozen=True)
class TrainingRun:
    """What is trained.

    Attributes
    ----------
    config
        Configuration of the base model.
    model : ModelSettings
    settings : TrainSettings
    rows, validation : sequence of TokenRow
        Rows to train on and validation rows.
    """

    config: Any
    model: ModelSettings
    settings: TrainSettings
    rows: Sequence[TokenRow]
    validation: Sequence[TokenRow]

    def fit(self, memory: FreeMemory) -> TrainingRun:
        """Lower `max_tokens`, and switch gradient checkpointing on, as far as the free memory requires.

        The memory of the largest packs is counted by `babelcart.model.cost`. Smaller packs share fewer tokens, and checkpointing computes
        the forward pass twice. The run with the fewest operations of those that fit is returned. The result changes by rounding at most.
        """
        fitting = self._with_largest_budget(memory)
        if fitting is self or self.model.gradient_checkpointing:
            return fitting or self
        checkpointed = replace(self, model=replace(self.model, gradient_checkpointing=True))._with_largest_budget(memory)
        # If not even a single row fits by this estimate, the run is tried as it is. It halves its packs when memory runs out.
        return min(filter(None, (fitting, checkpointed)), key=TrainingRun._operations, default=self)

    def _operations(self) -> int:
        """Operations of the run, in forward passes of a token."""
        workload = training_workload(self.rows, self._steps, self.settings.max_tokens)
        passes = CHECKPOINTED_PASSES if self.model.gradient_checkpointing else PASSES
        return (workload.tokens + workload.packs * PACK_TOKENS) * passes

    @cached_property
    def _steps(self) -> list[list[int]]:
        return list(step_order(self.rows, self.settings))

    @cached_property
    def _cost(self) -> ModelCost:
        return ModelCost(self.config, self.model)

    def _with_largest_budget(self, memory: FreeMemory) -> TrainingRun | None:
        """Return the run with the largest token budget that fits, None if a single row does not fit."""
        cost, settings = self._cost, self.settings
        sample = [self.validation[index] for index in sample_queries(self.validation, settings.eval_rows, settings.seed)]
        pack_bytes = (memory.free_bytes * USED_SHARE - cost.parameters.training_bytes(self.model)) / memory.allocator_factor
        budget = settings.max_tokens
        while True:
            train = training_workload(self.rows, self._steps, budget)
            packs = [cost.pack(train.largest_packs, train=True)]
            if sample and settings.eval_steps is not None:
                score = scoring_workload([sample], Predict(max_tokens=budget))
                packs.append(cost.pack(score.largest_packs, train=False))
            peak_bytes = max(pack.peak_bytes for pack in packs)
            if peak_bytes <= pack_bytes:
                return self if budget == settings.max_tokens else replace(self, settings=replace(settings, max_tokens=budget))
            smaller = int(max(pack.tokens for pack in packs) * min(0.9 * pack_bytes / peak_bytes, 0.9))
            if smaller < max(len(row.tokens) for row in (*self.rows, *sample)):
                return None
            budget = smaller


def fit_to_memory(run: TrainingRun) -> TrainingRun:
    """Fit a run to the memory that is free now (see `TrainingRun.fit`), and say what was changed."""
    from tqdm import tqdm

    memory = free_memory(run.model)
    fitting = run.fit(memory)
    if fitting is not run:
        checkpointing = "with" if fitting.model.gradient_checkpointing else "without"
        tqdm.write(
            f"{memory.free_bytes / 2**30:.1f} GiB of memory are free: packs have at most {fitting.settings.max_tokens:,} tokens, "
            f"{checkpointing} gradient checkpointing",
            file=sys.stderr,
        )
    return fitting
