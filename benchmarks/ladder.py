"""Measure the optimisation ladder: the gain of each step, from a plain loop to the code of Babelcart, on the same rows.

    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/ladder.py            # after `dvc repro base negatives`

Each rung adds one optimisation to the rung before it. Training is a forward and a backward pass over the rows, without the optimiser.
Scoring is a forward pass. Both use an adapter of random values, in the size that the model's block in params.yaml defines.

*difference*: in scoring, the largest difference of a probability from the first rung; in training, the length of the difference of the
adapter's gradient from that of the first rung, relative to the length of the latter. Memory is the peak of the process (VmHWM). Every
rung runs in its own process, and the rungs take turns.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import sides
from sides import BASE, MODEL, System

from babelcart.core.tasks import TASKS

BATCH = 16  # with 32 rows, the logits of the first rung take 8 GiB and more
PADDED = 128
RUNGS: dict[str, dict[str, Any]] = {
    "padded to 128, logits of the whole vocabulary": {},
    "padded to the longest of the batch": {"dynamic": True},
    "batches of similar length": {"sorted": True},
    "last position, two rows of the output matrix": {"label_rows": True},
    "packed: no padding": {"packed": True},
    "tokens of a query once for its candidates": {"shared": True},
    "LoRA products fused": {"fused": True},
    "packs of 4,096 tokens": {"budget": 4096},
}


def ladder() -> list[System]:
    """Return the rungs, each with the settings of all rungs before it."""
    systems: list[System] = []
    settings: dict[str, Any] = {}
    for name, added in RUNGS.items():
        settings = {**settings, **added}
        systems.append(System(name, settings))
    return systems


@dataclass
class Rung:
    """A model with random adapter values, and the optimisations that it uses."""

    model: Any
    labels: Any  # babelcart.model.prompts.LabelTokens
    settings: dict[str, Any]

    def logits(self, rows: list[Any]) -> Any:
        """(rows, 2) float32 logits of the two answers."""
        if self.settings.get("packed"):
            from babelcart.model import loading
            from babelcart.model.packing import pack_rows

            return loading.label_logits(self.model, pack_rows(rows), self.labels)
        return self.padded_logits([list(row.tokens) for row in rows])

    def padded_logits(self, ids: list[list[int]]) -> Any:
        """`logits` of rows that are padded on the right."""
        import torch

        answers = [self.labels.negative, self.labels.positive]
        length = max(map(len, ids)) if self.settings.get("dynamic") else PADDED
        last = torch.tensor([len(row) - 1 for row in ids])  # (rows,)
        inputs = torch.tensor([row + [0] * (length - len(row)) for row in ids])  # (rows, length)
        mask = torch.arange(length) <= last[:, None]
        if not self.settings.get("label_rows"):
            logits = self.model(input_ids=inputs, attention_mask=mask.long()).logits  # (rows, length, vocabulary)
            return logits[torch.arange(len(last)), last][:, answers].float()
        base = self.model.get_base_model()
        hidden = base.get_decoder()(input_ids=inputs, attention_mask=mask.long()).last_hidden_state
        return (hidden[torch.arange(len(last)), last] @ base.get_output_embeddings().weight[answers].T).float()

    def gradient(self) -> np.ndarray:
        """Return the gradient of all parameters of the adapter, as one vector."""
        import torch

        return torch.cat([weight.grad.float().flatten() for weight in self.model.parameters() if weight.grad is not None]).numpy()


def build(task: str, settings: dict[str, Any], train: bool) -> tuple[Rung, Any]:
    """Return a rung and the tokenizer of its prompt."""
    import torch

    from babelcart.model import layers, loading

    model_settings, tokenizer = sides.load(task)
    model = loading.add_adapter(loading.load_base(BASE, model_settings), model_settings, seed=0).train(train)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero in an untrained adapter, so that the gradient of A would be zero
                parameter.normal_(std=0.02)
    if not settings.get("fused"):
        layers._is_plain_lora = lambda module: False
    return Rung(model, tokenizer.labels, settings), tokenizer


def encode(tokenizer: Any, rows: pd.DataFrame, settings: dict[str, Any]) -> tuple[list[Any], list[list[int]]]:
    """Return the rows as tokens, and the indices of the rows of each batch."""
    from babelcart.model import batching, packing

    encoded = tokenizer.encode_table(rows)
    if not settings.get("shared"):
        for module in (packing, batching):
            module.shared_length = lambda tokens, other: 0  # type: ignore[attr-defined]
    order = list(range(len(encoded)))
    if settings.get("sorted"):
        order = batching.sort_by_tokens(order, encoded)
    if settings.get("budget"):
        return encoded, list(batching.split_by_budget(order, encoded, settings["budget"]))
    return encoded, [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def run_rung(rows: pd.DataFrame, task: str, settings: dict[str, Any], train: bool) -> tuple[dict[str, float], np.ndarray]:
    """Return rows per second and peak memory of one rung, and its gradient (training) or its probabilities (scoring)."""
    import torch

    rung, tokenizer = build(task, settings, train)
    encoded, batches = encode(tokenizer, rows, settings)
    labels = torch.tensor(rows["label"].astype(int).tolist())

    def compute(batches: list[list[int]]) -> np.ndarray:
        probability = np.zeros(len(encoded))
        with torch.set_grad_enabled(train):
            for indices in batches:
                logits = rung.logits([encoded[index] for index in indices])
                if train:
                    torch.nn.functional.cross_entropy(logits, labels[indices], reduction="sum").backward()
                probability[indices] = torch.softmax(logits.detach().double(), dim=-1)[:, 1].numpy()
        return probability

    compute(batches[:1])  # warm up
    rung.model.zero_grad()
    start = time.perf_counter()
    probability = compute(batches)
    figures = {"steady": len(encoded) / (time.perf_counter() - start), "memory": sides.peak_memory()}
    return figures, rung.gradient() if train else probability


def compare(given: list[str], repeats: int, train: bool) -> None:
    """Print the table of training or of scoring."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*given, "--keep", folder, *(["--train"] if train else [])]
        results = sides.in_turns(__file__, ladder(), arguments, repeats)
    click.echo(f"| {'training' if train else 'scoring'} | rows/s | times the first | memory, GiB | difference |\n|---|---|---|---|---|")
    first = next(iter(results.values())).get("steady", float("nan"))
    for name, figures in results.items():
        if "failed" in figures:
            click.echo(f"| {name} | failed: {figures['failed']} | | | |")
            continue
        ratio = f"{figures['steady'] / first:.2f}"
        click.echo(f"| {name} | {figures['steady']:.3g} | {ratio} | {figures['memory']:.2f} | {figures['difference']:.1e} |")
    click.echo("")


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    data: Path
    task: str
    rows: int
    repeats: int
    system: str | None
    settings: str
    keep: Path | None
    train: bool


def run_in_this_process(options: Options, rows: pd.DataFrame) -> dict[str, float]:
    """Figures of the rung that ``--system`` names; the first rung leaves its numbers in the folder ``--keep`` for the others."""
    assert options.keep is not None
    figures, numbers = run_rung(rows, options.task, json.loads(options.settings), options.train)
    if options.system == next(iter(RUNGS)):
        np.save(options.keep / "first.npy", numbers)
    first = np.load(options.keep / "first.npy")
    difference = np.linalg.norm(numbers - first) / np.linalg.norm(first) if options.train else np.abs(numbers - first).max()
    return {**figures, "difference": float(difference)}


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt.")
@click.option("--rows", default=192, show_default=True, help="Approximate number of rows.")
@click.option("--repeats", default=3, show_default=True, help="Number of rounds.")
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--keep", type=click.Path(path_type=Path), hidden=True)
@click.option("--train", is_flag=True, hidden=True)
def main(**given: Any) -> None:
    options = Options(**given)
    rows, _ = sides.read_rows(options.data, options.rows)
    if options.system:
        click.echo(json.dumps(run_in_this_process(options, rows)))
        return
    click.echo(
        f"{MODEL} in {sides.precision()}, {options.data}, {len(rows)} rows, {sides.threads()} threads, median of {options.repeats} rounds\n"
    )
    for train in (True, False):
        compare(["--data", str(options.data), "--task", options.task, "--rows", str(options.rows)], options.repeats, train)


if __name__ == "__main__":
    main()
