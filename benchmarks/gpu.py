"""Measure training and scoring of Gemma-3 12B and Qwen-2.5 14B at full size on a GPU, and compare training to transformers' Trainer.

    python benchmarks/gpu.py --model gemma3-12b --quantization nf4 --memory 22.5    # QLoRA, also as on a card of 24 GB
    python benchmarks/gpu.py --model gemma3-12b --quantization none --profile       # LoRA on a bfloat16 model, with a list of kernels
    python benchmarks/gpu.py --model tiny --quantization nf4 --rows 100             # runs this script on a CPU

The weights are random and are created on the device from the published shapes: nothing is downloaded, and speed does not depend on the
values. The rows are those of the sample, tokenised with Gemma's tokenizer; run `dvc repro negatives base` first.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
import sides
import torch

from babelcart import plan
from babelcart.core import config
from babelcart.model import loading, prompts, scoring
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import TokenRow
from babelcart.model.workload import scoring_workload
from babelcart.training import loop

TOKENIZER = Path("models/gemma3-270m/base")
PREDICT = scoring.Predict()
BATCH = 32
RATE = 1e-4
TINY: dict[str, Any] = dict(
    model_type="qwen2", hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    vocab_size=262208,
)  # fmt: skip

Quantization = Literal["none", "nf4"]


def build(shape: dict[str, Any], quantization: Quantization) -> Any:
    """Return a model with random weights on the device; with `nf4`, the linear layers of its decoder are in NF4."""
    from bitsandbytes.nn import modules
    from transformers import AutoConfig, AutoModelForCausalLM

    device = loading.device()
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.bfloat16)
    model.requires_grad_(False)
    if quantization == "nf4":
        for name in loading.text_linears(model):
            linear = model.get_submodule(name)
            layer = modules.Linear4bit(
                linear.in_features, linear.out_features, linear.bias is not None, torch.bfloat16, compress_statistics=True, quant_type="nf4"
            )
            layer.weight = modules.Params4bit(linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
            if linear.bias is not None:
                layer.bias = linear.bias
            layer.support_avx512bf16_for_cpu = False  # for the reason given in `loading.load_base`
            model.set_submodule(name, layer.to(device))
            del linear
        model.is_loaded_in_4bit = True
    return model


def matrix_peak() -> float:
    """Operations per second of the fastest of twenty large bfloat16 products."""
    size = 8192 if loading.device() == "cuda" else 1024
    a, b = (torch.randn(size, size, device=loading.device(), dtype=torch.bfloat16) for _ in range(2))
    return max(2 * size**3 / timed(lambda: a @ b) for _ in range(20))


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the device has finished the work."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """Peak memory of the GPU since the last call, in GiB; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return peak


def trainer_seconds(model: Any, data: loop.LabelledRows, answers: prompts.LabelTokens, batch: int) -> float:
    """Time of transformers' Trainer: same adapter, loss of the answer's token, batches padded to their longest row."""
    from transformers import Trainer, TrainingArguments

    rows = [
        {"ids": [*row.tokens, answers.positive if label else answers.negative]} for row, label in zip(data.rows, data.labels, strict=True)
    ]

    def collate(items: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(item["ids"]) for item in items)
        ids = torch.tensor([item["ids"] + [0] * (width - len(item["ids"])) for item in items])
        mask = torch.tensor([[1] * len(item["ids"]) + [0] * (width - len(item["ids"])) for item in items])
        labels = torch.full_like(ids, -100)
        for index, item in enumerate(items):
            labels[index, len(item["ids"]) - 1] = item["ids"][-1]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, gradient_accumulation_steps=max(1, BATCH // batch), num_train_epochs=1,
            learning_rate=RATE, bf16=torch.cuda.is_available(), save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        worker = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
        return timed(worker.train)


def read_rows(path: Path, count: int, vocabulary: int | None) -> tuple[loop.LabelledRows, prompts.LabelTokens]:
    """Return rows as tokens with their labels, and the tokens of the two answers, all below `vocabulary`."""
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(TOKENIZER), config.load("prompts.qc", prompts.Prompt))
    table, _ = sides.read_rows(path, count)
    rows, labels, answers = tokenizer.encode_table(table), table["label"].astype(int).tolist(), tokenizer.labels
    if vocabulary:  # that of Qwen is smaller; speed does not depend on the tokens

        def inside(tokens: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(token % vocabulary for token in tokens)

        rows = [TokenRow(inside(row.tokens), inside(row.query), inside(row.candidate)) for row in rows]
        answers = prompts.LabelTokens(answers.negative % vocabulary, answers.positive % vocabulary)
    return loop.LabelledRows(rows, labels), answers


def weights_of_linears(model: Any, quantization: Quantization) -> int:
    """Return the number of weights of the linear layers of the decoder."""
    return sum(
        module.weight.numel() if quantization == "none" else module.in_features * module.out_features
        for module in model.get_base_model().get_decoder().modules()
        if hasattr(module, "in_features") and not hasattr(module, "base_layer")
    )


def profile(name: str, work: Callable[[], Any]) -> None:
    """Print the number of kernels, their time and the time of the host of one step."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    work()  # warm up
    seconds = timed(work)
    with torch_profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        synchronize()
    kernels = [event for event in recorded.key_averages() if event.device_type == DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    count = sum(event.count for event in kernels)
    print(f"{name}: {seconds * 1e3:.0f} ms, of which kernels {busy * 1e3:.0f} ms; {count} kernels")
    for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:25]:
        print(f"    {event.self_device_time_total / 1e3:8.2f} ms {event.count:6} {event.key[:110]}")


def limit_memory(gibibytes: float) -> None:
    """Limit what this process may allocate on the GPU; a smaller card is simulated."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.memory.set_per_process_memory_fraction(gibibytes * 2**30 / torch.cuda.get_device_properties(0).total_memory)


@dataclass
class Bench:
    """A model on the device, the rows to measure it with, and the rate of the fastest matrix product in operations per second."""

    model: Any
    model_settings: loading.ModelSettings
    examples: loop.LabelledRows
    answers: prompts.LabelTokens
    weights: int
    peak: float

    def _figures(self, rows: int, tokens: int, seconds: float, operations: float) -> str:
        share = operations * self.weights * tokens / seconds / self.peak
        return f"{rows / seconds:.1f} rows/s, {tokens / seconds:.0f} tokens/s, {share:.0%} of the peak, {peak_memory():.1f} GiB"

    def score(self) -> None:
        """Print the speed of scoring."""
        rows = self.examples.rows
        tokens = scoring_workload([rows], PREDICT).tokens
        scoring.score(self.model, rows[:64], self.answers, PREDICT)  # warm up
        peak_memory()
        seconds = timed(lambda: scoring.score(self.model, rows, self.answers, PREDICT))
        print(f"score     {self._figures(len(rows), tokens, seconds, 2)}", flush=True)

    def train(self, graphs: bool, max_rows: int | None = None) -> float:
        """Print the speed of training, and return its rows per second without the first half of the steps, which record CUDA graphs."""
        settings = loop.TrainSettings(batch_size=BATCH, learning_rate=RATE, cuda_graphs=graphs, max_rows=max_rows)
        self.trainer(replace(settings, max_rows=64)).train()  # warm up
        trainer, times = self.trainer(settings), [time.perf_counter()]
        peak_memory()
        seconds = timed(lambda: trainer.train(log=lambda step, figures: times.append(time.perf_counter())))
        history, half = trainer.history, len(trainer.steps) // 2
        steady = sum(map(len, trainer.steps[half:])) / (times[-1] - times[half])
        figures = self._figures(history.rows, history.tokens, seconds, 4)
        print(f"train     {figures}, {steady:.1f} rows/s in the second half, CUDA graphs {'on' if graphs else 'off'}", flush=True)
        return steady

    def trainer(self, settings: loop.TrainSettings) -> loop.Trainer:
        """Return a new trainer of the model."""
        return loop.Trainer(self.model, self.model_settings, self.examples, self.answers, settings)

    def largest_step(self) -> None:
        """Print the memory of a step with a pack of as many tokens as the settings allow."""
        trainer = self.trainer(loop.TrainSettings(batch_size=len(self.examples.rows), max_rows=len(self.examples.rows)))
        peak_memory()
        trainer.train()
        history = trainer.history
        print(f"one step of {history.tokens} tokens, packs of at most {history.max_tokens}: {peak_memory():.1f} GiB", flush=True)

    def profile(self) -> None:
        """Print the kernels of a pack in scoring and of a step of training."""
        pack = [self.examples.rows[index] for index in next(iter(scoring_packs(self.examples.rows, PREDICT.max_tokens)))]
        profile("one pack of scoring", lambda: scoring.score(self.model, pack, self.answers, PREDICT))
        trainer = self.trainer(loop.TrainSettings(batch_size=BATCH, max_rows=BATCH))

        def step() -> None:
            trainer._accumulate_gradients(trainer.steps[0])
            trainer.optimizer.step(1.0, 1.0)

        profile("one step of training", step)

    def peer(self, rows: int, batch: int, ours: float) -> None:
        """Print the speed of transformers' Trainer."""
        examples = loop.LabelledRows(self.examples.rows[:rows], self.examples.labels[:rows])
        peak_memory()
        theirs = len(examples.rows) / trainer_seconds(self.model, examples, self.answers, batch)
        print(f"Trainer   batches of {batch}: {theirs:.1f} rows/s, {peak_memory():.1f} GiB; Babelcart is {ours / theirs:.2f}x", flush=True)


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--model", "name", type=click.Choice(["gemma3-12b", "qwen25-14b", "tiny"]), required=True, help="Shape of the model.")
@click.option("--quantization", type=click.Choice(["none", "nf4"]), required=True, help="bfloat16, or 4-bit linear layers.")
@click.option("--rows", default=1500, show_default=True, help="Approximate number of rows.")
@click.option("--peer-batch", default=[32], multiple=True, show_default=True, help="Rows of a batch of the Trainer; repeatable.")
@click.option("--memory", type=float, help="GiB of the GPU that may be used for the largest step, for example 22.5 for a card of 24 GB.")
@click.option("--profile", "with_profile", is_flag=True, help="Print kernels of one step and of one pack.")
def main(
    data: Path, name: str, quantization: Quantization, rows: int, peer_batch: tuple[int, ...], memory: float | None, with_profile: bool
) -> None:
    model_settings = config.load("models.gemma3-12b" if name == "tiny" else f"models.{name}", loading.ModelSettings)
    shape = TINY if name == "tiny" else plan.SHAPES[model_settings.weights.repo or ""]
    examples, answers = read_rows(data, rows, shape.get("vocab_size"))
    peak = matrix_peak()
    model = loading.add_adapter(build(shape, quantization), replace(model_settings, quantization=quantization), seed=0)
    bench = Bench(model, model_settings, examples, answers, weights_of_linears(model, quantization), peak)
    print(f"{name}, {quantization}, {len(examples.rows)} rows; fastest product {peak / 1e12:.2f} TFLOP/s", flush=True)
    bench.score()
    ours = max(bench.train(graphs=False, max_rows=384), bench.train(graphs=True))
    if with_profile:
        bench.profile()
    for batch in peer_batch:
        bench.peer(8 * batch, batch, ours)
    if memory:
        limit_memory(memory)
        bench.largest_step()


if __name__ == "__main__":
    main()
