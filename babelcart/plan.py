"""What training and scoring will cost, before anything is spent: tokens, memory and time.

Rows are tokenised and packed as `train` and `predict` do it, and counted; `babelcart.cost` counts what a pack costs. From there
to memory and minutes of a machine lead the assumptions below, which the report states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError, readable_folder
from babelcart.cost import Cost, ModelSize, itemsize, model_size, pack_cost
from babelcart.model.batching import by_length, by_query, token_budget
from babelcart.model.packing import TokenRow, common_prefix

if TYPE_CHECKING:
    from babelcart.model.loading import ModelSettings
    from babelcart.training.loop import TrainSettings

GIB = 2**30
# Shares of the rate of a single matrix product that training and scoring reach here, and of the data sheet's rate on a GPU.
TRAIN_SHARE, SCORE_SHARE, GPU_SHARE = 0.45, 0.5, 0.35
# Bytes of the process for each byte that a pack needs: between packs of many sizes the allocator of a CPU keeps gaps. Measured.
CPU_ALLOCATOR = 4.0
# Seconds of the host for each operation, however small: what small packs cost on a fast GPU.
CALL_SECONDS = 6e-6
# GiB that CUDA itself and its allocator's gaps take.
CUDA_GIB = 1.0

# GiB of memory and TFLOP/s in dense bfloat16. NVIDIA's data sheets (H100, H200 and A100: SXM; where one gives the rate with
# sparsity, half of it); GeForce: the white papers of GA102 and Ada. The T4 has no bfloat16: its rate in float32.
GPUS = {
    "h100": (80, 989.0),
    "h200": (141, 989.0),
    "a100-80gb": (80, 312.0),
    "a100-40gb": (40, 312.0),
    "l40s": (48, 362.0),
    "a10": (24, 125.0),
    "l4": (24, 121.0),
    "rtx4090": (24, 165.0),
    "rtx3090": (24, 71.0),
    "t4": (16, 8.1),
}

# Published shapes of models that need not be downloaded to be planned for, by their name on the Hugging Face hub.
SHAPES: dict[str, dict[str, Any]] = {
    "google/gemma-3-12b-it": dict(
        model_type="gemma3",
        text_config=dict(hidden_size=3840, num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=8, head_dim=256,
                         intermediate_size=15360, vocab_size=262208, sliding_window=1024),
        vision_config=dict(hidden_size=1152, num_hidden_layers=27, num_attention_heads=16, intermediate_size=4304, image_size=896,
                           patch_size=14, vision_use_head=False),
    ),
    "Qwen/Qwen2.5-14B-Instruct": dict(
        model_type="qwen2", hidden_size=5120, num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8,
        intermediate_size=13824, vocab_size=152064, tie_word_embeddings=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Rows in packs.

    Attributes
    ----------
    rows, packs : int
    tokens : int
        Tokens computed, shared prefixes counted once.
    padded : int
        Tokens had each row been alone, padded to the longest of its pack.
    largest : tuple of list of TokenRow
        The packs with the most tokens and with the largest attention: one of them needs the most memory.
    """

    rows: int
    packs: int
    tokens: int
    padded: int
    largest: tuple[list[TokenRow], ...]


def count_work(packs: Iterable[Sequence[TokenRow]]) -> Work:
    """Count rows and tokens of packs, at least one."""
    rows = number = tokens = padded = most = widest = 0
    longest: list[TokenRow] = []
    wide: list[TokenRow] = []
    for pack in packs:
        shared = common_prefix(pack)
        own = shared + sum(len(query) - shared for query in {row.query for row in pack}) + sum(len(row.candidate) for row in pack)
        candidate, query = max(len(row.candidate) for row in pack), max(len(row.query) for row in pack)
        area = len(pack) * candidate * (candidate + query)
        if own > most:
            most, longest = own, list(pack)
        if area > widest:
            widest, wide = area, list(pack)
        rows, number, tokens = rows + len(pack), number + 1, tokens + own
        padded += len(pack) * max(len(row.query) + len(row.candidate) for row in pack)
    return Work(rows, number, tokens, padded, (longest, wide) if wide != longest else (longest,))


def training_packs(rows: Sequence[TokenRow], settings: TrainSettings) -> list[list[list[TokenRow]]]:
    """The packs of each optimiser step of `babelcart.training.loop.train`."""
    from babelcart.training.loop import step_order

    steps = []
    for step in step_order(rows, settings):
        groups = [[step[n] for n in group] for group in by_query([rows[n] for n in step])]
        steps.append([[rows[n] for n in pack] for pack in token_budget(groups, rows, settings.max_tokens)])
    return steps


def scoring_packs(rows: Sequence[TokenRow], max_tokens: int) -> list[list[TokenRow]]:
    """The packs of `babelcart.model.scoring.score`."""
    order = [n for group in by_length(rows) for n in group]
    return [[rows[n] for n in pack] for pack in token_budget([order], rows, max_tokens)]


def read_config(folder: Path, model: ModelSettings) -> Any:
    """The configuration of a base model: of the files in `folder`, or as published.

    Raises
    ------
    UserError
        If neither is known.
    """
    from transformers import AutoConfig

    from babelcart.model.loading import base_source
    from babelcart.weights.fetching import SOURCE_RECORD

    if (folder / SOURCE_RECORD).exists():
        with readable_folder(folder):
            return AutoConfig.from_pretrained(**base_source(folder))
    if model.weights.repo in SHAPES:
        return AutoConfig.for_model(**SHAPES[model.weights.repo])
    raise UserError(f"{folder} holds no base model; run `python -m stages.base --model {folder.parent.name}`")


@dataclass(frozen=True)
class Machine:
    """Where a plan is carried out.

    Attributes
    ----------
    name : str
    memory, process : float
        Bytes that it has, and that are taken before there is a model.
    allocator : float
        Bytes taken for each that a pack needs.
    train_flops, score_flops : float
        Operations a second that training and scoring reach.
    call_seconds : float
        Least time of an operation.
    """

    name: str
    memory: float
    process: float
    allocator: float
    train_flops: float
    score_flops: float
    call_seconds: float = 0.0


def gpu_machine(name: str) -> Machine:
    """A machine with one of `GPUS`."""
    memory, tflops = GPUS[name]
    flops = tflops * 1e12 * GPU_SHARE
    return Machine(name, memory * GIB, CUDA_GIB * GIB, 1.0, flops, flops, CALL_SECONDS)


def this_machine(config: Any, model: ModelSettings, tokens: int) -> Machine:
    """The machine at hand, after a second of the widest product of a layer on `tokens` tokens."""
    import torch

    from babelcart.model.loading import device

    text = config.get_text_config()
    rate = _product_rate(tokens, text.hidden_size, text.intermediate_size, getattr(torch, model.dtype), device())
    shares = rate * TRAIN_SHARE, rate * SCORE_SHARE
    if device() == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        return Machine(
            f"here ({torch.cuda.get_device_name()}, {rate / 1e12:.0f} TFLOP/s)", memory, CUDA_GIB * GIB, 1.0, *shares, CALL_SECONDS
        )
    name = f"here ({torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s)"
    return Machine(name, _installed(), _resident(), CPU_ALLOCATOR, *shares)


def _product_rate(rows: int, inner: int, columns: int, dtype: Any, device: str) -> float:
    """Operations a second of the best of the products that one second holds."""
    import time

    import torch

    x, weight = torch.randn(rows, inner, dtype=dtype, device=device), torch.randn(columns, inner, dtype=dtype, device=device)
    times: list[float] = []
    while sum(times) < 1:
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / min(times)


def _installed() -> float:
    import os

    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _resident() -> float:
    """Bytes of this process: Python, the libraries, the tokenizer, the rows."""
    import os
    import resource
    import sys

    try:
        return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:  # macOS; there the peak is told in bytes
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


@dataclass(frozen=True)
class Plan:
    """One training run and the scoring after it.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    train, predict : Work
        Its packs; those of all splits that `predict` scores.
    evaluate : int
        Tokens scored on validation rows while training.
    train_cost, score_cost : Cost
        Of the largest pack to train on and to score.
    """

    model: ModelSettings
    size: ModelSize
    steps: int
    train: Work
    predict: Work
    evaluate: int
    train_cost: Cost
    score_cost: Cost

    def memory(self, machine: Machine, train: bool) -> float:
        """Bytes at the peak of training or of scoring."""
        width = itemsize(self.model)
        pack = max(self.train_cost.memory, self.score_cost.memory) if train else self.score_cost.memory
        if self.model.quantization == "nf4":
            pack += self.size.largest * width  # one weight, dequantised
        adapter = self.size.adapter_bytes(self.model) if train else self.size.adapter * width
        return machine.process + self.size.base_bytes(self.model) + adapter + pack * machine.allocator

    def seconds(self, machine: Machine, train: bool) -> float:
        """Time of training, its looks at validation among it, or of scoring; without loading the model."""
        scored = self.evaluate if train else self.predict.tokens
        scoring = _seconds(self.score_cost, scored, self.predict, machine.score_flops, machine.call_seconds)
        return scoring + train * _seconds(self.train_cost, self.train.tokens, self.train, machine.train_flops, machine.call_seconds)


def _seconds(cost: Cost, tokens: int, work: Work, flops: float, call: float) -> float:
    return max(cost.flops / cost.tokens * tokens / flops, cost.calls * tokens * work.packs / work.tokens * call)


def make_plan(
    config: Any, model: ModelSettings, settings: TrainSettings, max_tokens: int, train: Sequence[TokenRow], validation: Sequence[TokenRow],
    predict: Sequence[Sequence[TokenRow]],
) -> Plan:  # fmt: skip
    """Plan a training run and the scoring after it.

    Parameters
    ----------
    config
        See `read_config`.
    max_tokens : int
        Of a pack in scoring.
    train, validation : sequence of TokenRow
        The rows that `babelcart.training.loop.train` is given.
    predict : sequence of sequence of TokenRow
        The rows of each split.
    """
    from babelcart.training.loop import LabelledRows, sample_queries

    steps = training_packs(train, settings)
    work = count_work(pack for step in steps for pack in step)
    scored = count_work(pack for rows in predict for pack in scoring_packs(rows, max_tokens))
    evaluate = 0
    if settings.eval_steps is not None:
        drawn = sample_queries(LabelledRows(validation, [0] * len(validation)), settings.eval_rows, settings.seed)
        looks = -(-len(steps) // settings.eval_steps)  # there is always one after the last step
        evaluate = looks * count_work(scoring_packs(drawn.rows, settings.max_tokens)).tokens
    train_cost, score_cost = pack_cost(config, model, work.largest, train=True), pack_cost(config, model, scored.largest, train=False)
    return Plan(model, model_size(config, model), len(steps), work, scored, evaluate, train_cost, score_cost)


def plan_lines(plan: Plan, machines: Iterable[Machine]) -> list[str]:
    """The plan in lines to print."""
    train, predict, size = plan.train, plan.predict, plan.size
    how = f"{plan.model.dtype}, linear layers in NF4" if plan.model.quantization == "nf4" else plan.model.dtype
    lines = [
        f"  model    {(size.linear + size.other) / 1e6:,.0f} M parameters in {how}; adapter {size.adapter / 1e6:.1f} M",
        f"  train    {train.rows:,} rows, {train.tokens:,} tokens (each row padded: {train.padded:,}), {train.packs:,} packs in "
        f"{plan.steps:,} steps; {plan.evaluate:,} tokens of validation",
        f"  predict  {predict.rows:,} rows, {predict.tokens:,} tokens (each row padded: {predict.padded:,}), {predict.packs:,} packs",
    ]
    for machine in machines:
        needs = [(name, plan.memory(machine, train), plan.seconds(machine, train)) for name, train in (("train", True), ("predict", False))]
        words = "; ".join(f"{name} {memory / GIB:.1f} GiB, {_duration(seconds)}" for name, memory, seconds in needs)
        fits = all(memory <= machine.memory for _, memory, _ in needs)
        lines.append(f"  {machine.name}, {machine.memory / GIB:.0f} GiB: {words}{'' if fits else '; TOO MUCH: ' + _advice(plan.model)}")
    return lines


def _advice(model: ModelSettings) -> str:
    ways = ["a smaller train.max_tokens"]
    ways += ["gradient_checkpointing: true"] if not model.gradient_checkpointing else []
    ways += ["quantization: nf4"] if model.quantization == "none" else []
    return "try " + ", ".join(ways)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"


def assumptions() -> str:
    """What the report takes for granted, in a sentence."""
    return (
        f"Assumed: {TRAIN_SHARE:.0%} (train) and {SCORE_SHARE:.0%} (predict) of the rate that one matrix product reaches here, "
        f"{GPU_SHARE:.0%} of a GPU's data sheet and at least {CALL_SECONDS * 1e6:.0f} µs an operation there; "
        f"{CPU_ALLOCATOR:g} bytes of a CPU's memory for each byte of a pack; {CUDA_GIB:g} GiB for CUDA. Loading is not counted."
    )
