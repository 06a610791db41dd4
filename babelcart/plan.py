"""Estimate tokens, memory and time of training and scoring before they run.

Rows are divided into the steps and packs that `train` and `predict` compute, and the packs are counted. `babelcart.model.cost` counts
the memory and operations of a pack. The constants below convert them to memory and time on a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.model.cost import CPU_ALLOCATOR, ModelCost, PackCost, ParameterCounts, dtype_bytes
from babelcart.model.packing import TokenRow
from babelcart.model.prefix_cache import token_bytes
from babelcart.model.workload import Workload, scoring_workload, training_workload

if TYPE_CHECKING:
    from babelcart.model.loading import ModelSettings
    from babelcart.model.scoring import Predict
    from babelcart.training.loop import TrainSettings

GIB = 2**30
# Fraction of the rate of a single matrix product that training and scoring reach on this machine, by dtype. In bfloat16, products are
# so fast that the other operations take a larger share. Measured on CPUs.
TRAIN_SHARE = {"bfloat16": 0.45, "float32": 0.58}
SCORE_SHARE = {"bfloat16": 0.5, "float32": 0.7}
# Fraction of the data sheet's rate of a GPU, and the least time of an operation there in seconds, which determines the time of small
# packs. Measured on an H200 with benchmarks/gpu.py, Gemma-3 12B (docs/gpu.md).
GPU_SHARE = 0.45
CALL_SECONDS = 3.6e-6
PUBLISHED_BYTES = 2  # bytes of a weight in the files on the hub, which are in bfloat16
# GiB that CUDA itself and the gaps of its allocator take.
CUDA_GIB = 1.0

# GiB of memory that torch can use (as its message on lack of memory states it), TFLOP/s in dense bfloat16 and TB/s of memory, from
# NVIDIA's data sheets (H100, H200 and A100: SXM; half of the rate where the data sheet gives it with sparsity) and the white papers of
# GA102 and Ada (GeForce). The T4 has no bfloat16; its rate is float32.
GPUS = {
    "h100": (79.1, 989.0, 3.35),
    "h200": (139.8, 989.0, 4.8),
    "a100-80gb": (79.1, 312.0, 2.04),
    "a100-40gb": (39.4, 312.0, 1.56),
    "l40s": (44.4, 362.0, 0.86),
    "a10": (22.0, 125.0, 0.6),
    "l4": (22.0, 121.0, 0.3),
    "rtx4090": (23.5, 165.0, 1.01),
    "rtx3090": (23.6, 71.0, 0.94),
    "t4": (14.6, 8.1, 0.32),
}

# Published shapes of models, so that a plan needs no download. The keys are their names on the Hugging Face hub.
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


def read_config(folder: Path, model: ModelSettings) -> Any:
    """Configuration of a base model: read from `folder` if the model is downloaded, else its published shape.

    Parameters
    ----------
    folder : Path
        Folder of the base model, ``models/MODEL/base``.
    model : ModelSettings
        Its `weights` name the repository of a published shape.

    Returns
    -------
    transformers.PretrainedConfig

    Raises
    ------
    UserError
        If the model is not downloaded and its shape is not one of `SHAPES`, or if the files cannot be read.
    """
    from transformers import AutoConfig

    from babelcart.model.loading import load_config
    from babelcart.weights.fetching import SOURCE_RECORD

    if (folder / SOURCE_RECORD).exists():
        return load_config(folder)
    if model.weights.repo in SHAPES:
        return AutoConfig.for_model(**SHAPES[model.weights.repo])
    raise UserError(
        f"{folder} holds no base model; a plan needs it and the training set: run `dvc repro base negatives`, "
        f"or `python -m stages.base --model {folder.parent.name}` for a model that is not in `run`"
    )


@dataclass(frozen=True)
class Machine:
    """A machine that training and scoring could run on.

    Attributes
    ----------
    name : str
        Name to print.
    memory_bytes : float
        Memory of the machine, or memory of its GPU that torch can use.
    process_bytes : float
        Memory in use before the model is loaded.
    allocator_factor : float
        Bytes of the process per byte that a pack needs.
    train_flops, score_flops : float
        Floating-point operations per second of training and of scoring.
    call_seconds : float
        Minimum time of an operation in seconds.
    bytes_per_second : float
        Rate at which a GPU reads and writes weights. Infinite on a CPU, where this time is part of the rates above.
    """

    name: str
    memory_bytes: float
    process_bytes: float
    allocator_factor: float
    train_flops: float
    score_flops: float
    call_seconds: float = 0.0
    bytes_per_second: float = math.inf


def gpu_machine(name: str) -> Machine:
    """Return a machine with one of the GPUs in `GPUS`."""
    memory_gib, tflops, terabytes = GPUS[name]
    flops = tflops * 1e12 * GPU_SHARE
    return Machine(name, memory_gib * GIB, CUDA_GIB * GIB, 1.0, flops, flops, CALL_SECONDS, terabytes * 1e12)


def this_machine(config: Any, model: ModelSettings, tokens: int) -> Machine:
    """Describe this machine, after timing matrix products for one second.

    Parameters
    ----------
    config
        Configuration of the base model; the widest matrix product of one of its layers is timed.
    model : ModelSettings
        Its dtype is that of the product.
    tokens : int
        Number of rows of the product: the tokens of a pack.
    """
    import torch

    from babelcart.model.loading import device

    text_config = config.get_text_config()
    rate = _product_flops(tokens, text_config.hidden_size, text_config.intermediate_size, getattr(torch, model.dtype), device())
    train_flops, score_flops = rate * TRAIN_SHARE[model.dtype], rate * SCORE_SHARE[model.dtype]
    if device() == "cuda":
        name = f"this machine ({torch.cuda.get_device_name()}, {rate / 1e12:.0f} TFLOP/s)"
        memory_bytes = torch.cuda.get_device_properties(0).total_memory
        return Machine(name, memory_bytes, CUDA_GIB * GIB, 1.0, train_flops, score_flops, CALL_SECONDS, _copied_bytes_per_second())
    name = f"this machine ({torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s)"
    return Machine(name, _installed_bytes(), _resident_bytes(), CPU_ALLOCATOR[model.dtype], train_flops, score_flops)


def _product_flops(rows: int, inner: int, columns: int, dtype: Any, device: str) -> float:
    """Operations per second of the fastest of the matrix products that fit into one second."""
    import torch

    x = torch.randn(rows, inner, dtype=dtype, device=device)
    weight = torch.randn(columns, inner, dtype=dtype, device=device)
    return 2 * rows * inner * columns / _fastest_seconds(lambda: torch.nn.functional.linear(x, weight))


def _copied_bytes_per_second() -> float:
    """Bytes that a GPU reads and writes per second in the fastest of the copies that fit into one second."""
    import torch

    source = torch.zeros(GIB // 4, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest_seconds(lambda: target.copy_(source))


def _fastest_seconds(work: Callable[[], Any]) -> float:
    """Time of the fastest of the calls that fit into one second."""
    import time

    import torch

    times: list[float] = []
    while sum(times) < 1:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _installed_bytes() -> float:
    import os

    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _resident_bytes() -> float:
    """Memory of this process: Python, the libraries, the tokenizer and the rows."""
    import os
    import resource
    import sys

    try:
        return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:  # macOS has no /proc. It reports the peak in bytes, other systems in KiB.
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


@dataclass(frozen=True)
class Estimate:
    """Peak memory in bytes and time in seconds of a stage on a machine, without loading the model."""

    memory_bytes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Size of one training run and of the scoring after it.

    Attributes
    ----------
    model : ModelSettings
        The model that is trained.
    max_tokens : int
        Token budget of the packs of training.
    parameters : ParameterCounts
        Its numbers of parameters.
    steps : int
        Optimizer steps.
    train, predict, one_query : Workload
        The packs of training, those of all splits that `predict` scores, and those of one query with all candidates.
    validation_tokens : int
        Tokens that the evaluation steps of training score.
    train_cost, score_cost : PackCost
        Cost of the largest pack in training and in scoring.
    cached_token_bytes : int
        Memory of a token in the prefix cache.
    """

    model: ModelSettings
    max_tokens: int
    parameters: ParameterCounts
    steps: int
    train: Workload
    predict: Workload
    one_query: Workload
    validation_tokens: int
    train_cost: PackCost
    score_cost: PackCost
    cached_token_bytes: int

    def train_estimate(self, machine: Machine) -> Estimate:
        """Memory and time of training, including its evaluation steps."""
        adapter_bytes = self.parameters.training_adapter_bytes(self.model)
        memory_bytes = self._memory_bytes(machine, adapter_bytes, max(self.train_cost.peak_bytes, self.score_cost.peak_bytes))
        seconds = self._scoring_seconds(machine, self.validation_tokens)
        seconds += self._seconds(self.train_cost, self.train.tokens, self.train, machine, machine.train_flops)
        seconds += self._weight_seconds(machine, self.train.packs)  # of the backward pass
        return Estimate(memory_bytes, seconds)

    def predict_estimate(self, machine: Machine) -> Estimate:
        """Memory and time of scoring the splits of `predict`."""
        adapter_bytes = self.parameters.adapter * dtype_bytes(self.model)
        memory_bytes = self._memory_bytes(machine, adapter_bytes, self.score_cost.peak_bytes)
        memory_bytes += self.predict.cached_tokens * self.cached_token_bytes
        return Estimate(memory_bytes, self._scoring_seconds(machine, self.predict.tokens))

    def _memory_bytes(self, machine: Machine, adapter_bytes: float, pack_bytes: float) -> float:
        pack_bytes += self.parameters.dequantised_bytes(self.model)
        return machine.process_bytes + self.parameters.base_bytes(self.model) + adapter_bytes + pack_bytes * machine.allocator_factor

    def _scoring_seconds(self, machine: Machine, tokens: int) -> float:
        return self._seconds(self.score_cost, tokens, self.predict, machine, machine.score_flops)

    def _seconds(self, cost: PackCost, tokens: int, workload: Workload, machine: Machine, flops: float) -> float:
        """Time of `tokens` tokens in packs of the workload's average size: the weights, and what takes longer, operations or calls."""
        packs = tokens * workload.packs / workload.tokens
        work = max(cost.flops / cost.tokens * tokens / flops, cost.calls * packs * machine.call_seconds)
        return work + self._weight_seconds(machine, packs)

    def _weight_seconds(self, machine: Machine, packs: float) -> float:
        """Time of reading, or dequantising, all weights once a pack."""
        return packs * self.parameters.weight_traffic(self.model) / machine.bytes_per_second


@dataclass(frozen=True)
class PlannedRows:
    """The rows of a training run and of the scoring after it.

    Attributes
    ----------
    train, validation : sequence of TokenRow
        The rows that `babelcart.training.loop.Trainer` is given.
    predict : sequence of sequence of TokenRow
        The rows of each split that `predict` scores.
    one_query : sequence of TokenRow
        One query with every candidate of these splits, as a search page or a classifier of queries scores it.
    """

    train: Sequence[TokenRow]
    validation: Sequence[TokenRow]
    predict: Sequence[Sequence[TokenRow]]
    one_query: Sequence[TokenRow]


def make_plan(config: Any, model: ModelSettings, settings: TrainSettings, predict: Predict, rows: PlannedRows) -> Plan:
    """Plan a training run and the scoring after it.

    Parameters
    ----------
    config
        Configuration of the base model, as `read_config` returns it.
    model : ModelSettings
        The model to train.
    settings : TrainSettings
        Settings of the training run.
    predict : Predict
        Settings of scoring.
    rows : PlannedRows
        The rows to train on and to score.
    """
    from babelcart.training.steps import step_order

    steps = list(step_order(rows.train, settings))
    cost, number_bytes = ModelCost(config, model), dtype_bytes(model)
    train = training_workload(rows.train, steps, settings.max_tokens)
    scored = scoring_workload(rows.predict, predict, predict.cache_tokens(config, number_bytes))
    return Plan(
        model,
        settings.max_tokens,
        cost.parameters,
        len(steps),
        train,
        scored,
        scoring_workload([rows.one_query], predict),
        _validation_tokens(rows.validation, settings, len(steps)),
        cost.pack(train.largest_packs, train=True),
        cost.pack(scored.largest_packs, train=False),
        token_bytes(config, number_bytes),
    )


def _validation_tokens(rows: Sequence[TokenRow], settings: TrainSettings, step_count: int) -> int:
    """Tokens that the evaluation steps of a training run score."""
    from babelcart.model.scoring import Predict
    from babelcart.training.steps import sample_queries

    if settings.eval_steps is None:
        return 0
    sample = [rows[row_index] for row_index in sample_queries(rows, settings.eval_rows, settings.seed)]
    evaluations = math.ceil(step_count / settings.eval_steps)  # the last optimizer step is always evaluated
    return evaluations * scoring_workload([sample], Predict(max_tokens=settings.max_tokens)).tokens


def plan_lines(plan: Plan, fitted: Iterable[tuple[Machine, Plan]], downloaded: bool = True) -> list[str]:
    """Format a plan as lines to print: the model, the workloads of `train` and `predict`, and an estimate for each machine.

    Parameters
    ----------
    plan : Plan
        The plan with the settings of params.yaml.
    fitted : iterable of tuple of Machine and Plan
        Each machine with the plan that is fitted to its memory (`babelcart.training.memory`).
    downloaded : bool
        Whether the base model has been downloaded.
    """
    train, predict, parameters = plan.train, plan.predict, plan.parameters
    precision = f"{plan.model.dtype}, linear layers in NF4" if plan.model.quantization == "nf4" else plan.model.dtype
    weights = parameters.linear + parameters.other
    download = "" if downloaded else f"; {weights * PUBLISHED_BYTES / 1e9:.1f} GB to download"
    lines = [
        f"  model    {weights / 1e6:,.0f} M parameters in {precision}; adapter {parameters.adapter / 1e6:.1f} M{download}",
        f"  train    {train.rows:,} rows, {train.tokens:,} tokens (each row padded: {train.padded_tokens:,}), {train.packs:,} packs in "
        f"{plan.steps:,} steps; {plan.validation_tokens:,} tokens of validation",
        f"  predict  {predict.rows:,} rows, {predict.tokens:,} tokens (each row padded: {predict.padded_tokens:,}), "
        f"{predict.packs:,} packs",
    ]
    for machine, fitting in fitted:
        estimates = {"train": fitting.train_estimate(machine), "predict": fitting.predict_estimate(machine)}
        summary = "; ".join(
            f"{stage} {estimate.memory_bytes / GIB:.1f} GiB, {_format_duration(estimate.seconds)}" for stage, estimate in estimates.items()
        )
        if any(estimate.memory_bytes > machine.memory_bytes for estimate in estimates.values()):
            summary += f"; DOES NOT FIT: {_advice(plan.model)}"
        elif fitting != plan:
            checkpointing = "with" if fitting.model.gradient_checkpointing else "without"
            summary += f"; to fit, train divides steps into packs of {fitting.max_tokens:,} tokens, {checkpointing} gradient checkpointing"
        lines.append(f"  {machine.name}, {machine.memory_bytes / GIB:.1f} GiB: {summary}")
    return lines


def order_lines(plans: Mapping[str, Plan], machine: Machine, group_by: Sequence[str]) -> list[str]:
    """Compare orders of query and candidate in the prompt, as lines to print.

    Parameters
    ----------
    plans : mapping of str to Plan
        A plan for each order, by its name; the first is the order in params.yaml.
    machine : Machine
        The machine whose speed and memory are printed.
    group_by : sequence of str
        ``train.group_by`` of each plan.
    """
    workloads = ("train", "predict", "one_query")
    names = {"train": "train", "predict": "predict", "one_query": "one query with all candidates"}
    groups = " and ".join(dict.fromkeys(group_by))
    lines = [f"  order of the prompt (train.group_by: {groups}): tokens a row, rows/s and memory on this machine"]
    for order, plan in plans.items():
        figures = []
        for workload in workloads:
            estimate = {"train": plan.train_estimate, "predict": plan.predict_estimate}.get(workload)
            text = f"{names[workload]} {getattr(plan, workload).tokens_per_row:.1f}"
            if estimate:
                cost = estimate(machine)
                rate = getattr(plan, workload).rows / cost.seconds
                text += f" ({rate:,.{0 if rate >= 10 else 2}f} rows/s, {cost.memory_bytes / GIB:.1f} GiB)"
            figures.append(text)
        lines.append(f"    {order}: {', '.join(figures)}")
    cheaper = {workload: min(plans, key=lambda order: getattr(plans[order], workload).tokens) for workload in workloads}
    lines.append("    fewest tokens: " + "; ".join(f"{names[workload]}: {order}" for workload, order in cheaper.items()))
    return lines


def _advice(model: ModelSettings) -> str:
    """Settings that lower the memory of training and are not in use yet."""
    options = ["a smaller train.max_tokens"]
    if not model.gradient_checkpointing:
        options.append("gradient_checkpointing: true")
    if model.quantization == "none":
        options.append("quantization: nf4")
    return "try " + ", ".join(options)


def _format_duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"


def assumptions() -> str:
    """State the assumptions behind the estimates in one line."""
    shares = "; ".join(
        f"in {dtype}, training reaches {TRAIN_SHARE[dtype]:.0%} and scoring {SCORE_SHARE[dtype]:.0%} of the rate of one matrix product on "
        f"this machine, and a CPU needs {CPU_ALLOCATOR[dtype]:g} bytes per byte of a pack"
        for dtype in TRAIN_SHARE
    )
    return (
        f"Assumptions: {shares}; a GPU reaches {GPU_SHARE:.0%} of its data sheet and takes at least {CALL_SECONDS * 1e6:.1f} µs per "
        f"operation; CUDA takes {CUDA_GIB:g} GiB. Loading the model is not included."
    )
