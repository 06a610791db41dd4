"""Gemma-3 12B and Qwen-2.5 14B at full size on a GPU: training and scoring, beside transformers' Trainer, in the same run.

    python benchmarks/gpu.py --model gemma3-12b --quantization none     # bfloat16 LoRA
    python benchmarks/gpu.py --model gemma3-12b --quantization nf4      # QLoRA; likewise qwen25-14b
    python benchmarks/gpu.py --model tiny --quantization nf4            # every line of it, on a CPU

The weights are random, made on the device from the published shapes: nothing is downloaded, and speed does not depend on them.
The rows are the sample's, tokenised with Gemma's tokenizer after `dvc repro negatives base`. Not run on a GPU by us.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
import torch
from sides import read_rows

from babelcart import plan
from babelcart.core import config
from babelcart.model import loading, prompts, scoring
from babelcart.model.batching import by_length, token_budget
from babelcart.training import loop

TOKENIZER = Path("models/gemma3-270m/base")
TINY: dict[str, Any] = dict(
    model_type="qwen2", hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    vocab_size=262208,
)  # fmt: skip


def build(shape: dict[str, Any], quantization: str) -> Any:
    """A model with random weights on the device; its decoder's linear layers in NF4 if asked for."""
    from bitsandbytes.nn import modules
    from transformers import AutoConfig, AutoModelForCausalLM

    where = loading.device()
    with torch.device(where):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.bfloat16)
    model.requires_grad_(False)
    if quantization == "nf4":
        for name in loading.text_linears(model):
            linear = model.get_submodule(name)
            made = modules.Linear4bit(
                linear.in_features, linear.out_features, linear.bias is not None, torch.bfloat16, compress_statistics=True, quant_type="nf4"
            )
            made.weight = modules.Params4bit(linear.weight.data.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
            if linear.bias is not None:
                made.bias = linear.bias
            made.support_avx512bf16_for_cpu = False  # as `models.load_base` does, and says why
            model.set_submodule(name, made.to(where))
        model.is_loaded_in_4bit = True
    return model


def matrix_peak() -> float:
    """Operations a second of the best of twenty large bfloat16 products."""
    size = 8192 if loading.device() == "cuda" else 1024
    a, b = (torch.randn(size, size, device=loading.device(), dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(20):
        seconds = timed(lambda: a @ b)
        best = max(best, 2 * size**3 / seconds)
    return best


def timed(work: Any) -> float:
    """Seconds until the device has done it."""
    sync()
    start = time.perf_counter()
    work()
    sync()
    return time.perf_counter() - start


def sync() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> float:
    """Peak GiB of the device since the last call; 0 without one."""
    if not torch.cuda.is_available():
        return 0.0
    found = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return found


def trainer(model: Any, rows: list[Any], labels: list[int], answers: prompts.LabelTokens, batch: int) -> float:
    """Seconds of transformers' Trainer: the same adapter, the loss of the answer's token, batches padded to their longest row."""
    from transformers import Trainer, TrainingArguments

    data = [
        {"ids": [*row.query, *row.candidate, answers.positive if label else answers.negative]}
        for row, label in zip(rows, labels, strict=True)
    ]

    def collate(items: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(item["ids"]) for item in items)
        ids = torch.tensor([item["ids"] + [0] * (width - len(item["ids"])) for item in items])
        mask = torch.tensor([[1] * len(item["ids"]) + [0] * (width - len(item["ids"])) for item in items])
        wanted = torch.full_like(ids, -100)
        for number, item in enumerate(items):
            wanted[number, len(item["ids"]) - 1] = item["ids"][-1]
        return {"input_ids": ids, "attention_mask": mask, "labels": wanted}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, gradient_accumulation_steps=max(1, 32 // batch), num_train_epochs=1,
            learning_rate=1e-4, bf16=torch.cuda.is_available(), save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        worker = Trainer(model, arguments, train_dataset=data, data_collator=collate)
        return timed(worker.train)


@click.command()
@click.option("--model", "name", type=click.Choice(["gemma3-12b", "qwen25-14b", "tiny"]), required=True)
@click.option("--quantization", type=click.Choice(["none", "nf4"]), required=True)
@click.option("--rows", default=2000, show_default=True)
@click.option("--peer-batch", default=8, show_default=True)
def main(name: str, quantization: Literal["none", "nf4"], rows: int, peer_batch: int) -> None:
    block = config.load("models.gemma3-12b" if name == "tiny" else f"models.{name}", loading.ModelSettings)
    block = replace(block, quantization=quantization)
    shape = TINY if name == "tiny" else plan.SHAPES[block.weights.repo or ""]
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(TOKENIZER), config.load("prompts.qc", prompts.Prompt))
    table, _ = read_rows(Path("build/negatives/qc.parquet"), rows)
    found, labels = encoder.encode_table(table), table["label"].astype(int).tolist()
    if vocabulary := shape.get("vocab_size"):  # Qwen's is smaller: which of its tokens they are does not matter
        found = [
            replace(row, query=tuple(n % vocabulary for n in row.query), candidate=tuple(n % vocabulary for n in row.candidate))
            for row in found
        ]
    answers = (
        prompts.LabelTokens(encoder.labels.negative % vocabulary, encoder.labels.positive % vocabulary) if vocabulary else encoder.labels
    )
    peak = matrix_peak()
    model = loading.add_adapter(build(shape, quantization), block, seed=0)
    memory()
    packs = token_budget([[n for group in by_length(found) for n in group]], found, 4096)
    tokens = plan.count_work([[found[n] for n in pack] for pack in packs]).tokens
    weights = sum(
        module.weight.numel() if quantization == "none" else module.in_features * module.out_features
        for module in model.get_base_model().get_decoder().modules()
        if hasattr(module, "in_features") and not hasattr(module, "base_layer")
    )
    scoring.score(model, found[:64], answers, 4096)
    print(f"{name}, {quantization}, {len(found)} rows, {tokens} tokens; best product {peak / 1e12:.2f} TFLOP/s")
    seconds = timed(lambda: scoring.score(model, found, answers, 4096))
    share = 2 * weights * tokens / seconds / peak
    print(f"score     {len(found) / seconds:.1f} rows/s, {tokens / seconds:.0f} tokens/s, {share:.0%} of the peak, {memory():.1f} GiB")
    settings = loop.TrainSettings(batch_size=32, learning_rate=1e-4)
    history: list[loop.History] = []
    data = loop.LabelledRows(found, labels)
    seconds = timed(lambda: history.append(loop.train(model, data, answers, settings, 1e-4)))
    rate = history[0].tokens / seconds
    share = 4 * weights * history[0].tokens / seconds / peak
    print(f"train     {len(found) / seconds:.1f} rows/s, {rate:.0f} tokens/s, {share:.0%} of the peak, {memory():.1f} GiB")
    ours = seconds
    seconds = trainer(model, found, labels, answers, peer_batch)
    print(f"Trainer   {len(found) / seconds:.1f} rows/s, {memory():.1f} GiB; ours is {seconds / ours:.2f}x")


if __name__ == "__main__":
    main()
