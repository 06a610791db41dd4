"""Measure training and scoring of Gemma-3 12B and Qwen-2.5 14B at full size on a GPU, and compare training to transformers' Trainer.

    python benchmarks/gpu.py --model gemma3-12b --quantization none     # LoRA on a bfloat16 model
    python benchmarks/gpu.py --model gemma3-12b --quantization nf4      # QLoRA; the same for qwen25-14b
    python benchmarks/gpu.py --model tiny --quantization nf4            # runs every line of this script on a CPU

The weights are random and are created on the device from the published shapes: nothing is downloaded, and speed does not depend on the
values. The rows are those of the sample, tokenised with Gemma's tokenizer; run `dvc repro negatives base` first.

This script has not been run on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
import sides
import torch

from babelcart import plan
from babelcart.core import config
from babelcart.model import loading, prompts, scoring
from babelcart.model.packing import TokenRow
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
            layer.weight = modules.Params4bit(linear.weight.data.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
            if linear.bias is not None:
                layer.bias = linear.bias
            layer.support_avx512bf16_for_cpu = False  # for the reason given in `loading.load_base`
            model.set_submodule(name, layer.to(device))
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


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--model", "name", type=click.Choice(["gemma3-12b", "qwen25-14b", "tiny"]), required=True, help="Shape of the model.")
@click.option("--quantization", type=click.Choice(["none", "nf4"]), required=True, help="bfloat16, or 4-bit linear layers.")
@click.option("--rows", default=2000, show_default=True, help="Approximate number of rows.")
@click.option("--peer-batch", default=8, show_default=True, help="Rows of a batch of the Trainer.")
def main(data: Path, name: str, quantization: Quantization, rows: int, peer_batch: int) -> None:
    model_settings = config.load("models.gemma3-12b" if name == "tiny" else f"models.{name}", loading.ModelSettings)
    shape = TINY if name == "tiny" else plan.SHAPES[model_settings.weights.repo or ""]
    labelled, answers = read_rows(data, rows, shape.get("vocab_size"))
    encoded, count = labelled.rows, len(labelled.rows)
    peak = matrix_peak()
    model = loading.add_adapter(build(shape, quantization), replace(model_settings, quantization=quantization), seed=0)
    peak_memory()
    tokens = plan.scoring_workload([encoded], PREDICT).tokens
    weights = weights_of_linears(model, quantization)

    scoring.score(model, encoded[:64], answers, PREDICT)  # warm up
    print(f"{name}, {quantization}, {count} rows, {tokens} tokens; fastest product {peak / 1e12:.2f} TFLOP/s")
    seconds = timed(lambda: scoring.score(model, encoded, answers, PREDICT))
    share = 2 * weights * tokens / seconds / peak
    print(f"score     {count / seconds:.1f} rows/s, {tokens / seconds:.0f} tokens/s, {share:.0%} of the peak, {peak_memory():.1f} GiB")

    history: list[loop.History] = []
    settings = loop.TrainSettings(batch_size=BATCH, learning_rate=RATE)
    ours = timed(lambda: history.append(loop.Trainer(model, model_settings, labelled, answers, settings).train()))
    rate = history[0].tokens / ours
    share = 4 * weights * rate / peak
    print(f"train     {count / ours:.1f} rows/s, {rate:.0f} tokens/s, {share:.0%} of the peak, {peak_memory():.1f} GiB")
    theirs = trainer_seconds(model, labelled, answers, peer_batch)
    print(f"Trainer   {count / theirs:.1f} rows/s, {peak_memory():.1f} GiB; Babelcart is {theirs / ours:.2f}x")


if __name__ == "__main__":
    main()
