"""The optimisation ladder: what each step of ours brings, from the plainest loop to the product's, on the same rows.

    PYTHONPATH=. OMP_NUM_THREADS=2 python benchmarks/ladder.py            # after `dvc repro base negatives`

Each rung keeps what the rung before has. Training is a forward and a backward pass over the rows, without the optimiser;
scoring is a forward pass; both with an adapter of random values, of the size that the model's block asks for. *Apart*: for
scoring the largest difference of a probability from that of the first rung; for training the difference of the adapter's whole
gradient, relative to its length. Memory is the process's peak (VmHWM). Every rung runs in a process of its own, in turns.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from sides import BASE, MODEL, System, in_turns, load, peak_memory, precision, read_rows

BATCH = 16  # at 32, the first rung's logits alone are 8 GiB and more
PADDED = 128
RUNGS: dict[str, dict[str, Any]] = {
    "padded to 128, logits of the whole vocabulary": {},
    "padded to the longest of the batch": {"dynamic": True},
    "batches of like length": {"sorted": True},
    "last position, two rows of the output matrix": {"label_rows": True},
    "packed: no padding": {"packed": True},
    "a query's tokens once for its candidates": {"shared": True},
    "LoRA products fused": {"fused": True},
    "packs of 4,096 tokens": {"budget": 4096},
}


def gradient(model: Any) -> np.ndarray:
    import torch

    return torch.cat([one.grad.float().flatten() for one in model.parameters() if one.grad is not None]).numpy()


def run_rung(rows: Any, task: str, settings: dict[str, Any], train: bool) -> tuple[dict[str, float], np.ndarray]:
    """Rows a second and peak memory of one rung; its gradient, or its probabilities."""
    import torch

    from babelcart.model import batching, layers, loading
    from babelcart.model.packing import TokenRow

    block, encoder = load(task)
    model = loading.add_adapter(loading.load_base(BASE, block), block, seed=0).train(train)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros in an untrained adapter, which would leave A without a gradient
                parameter.normal_(std=0.02)
    if not settings.get("fused"):
        layers._plain = lambda module: False
    encoded = encoder.encode_table(rows)
    if not settings.get("shared"):  # all but the first token belongs to the candidate
        encoded = [TokenRow(row.query[:1], (*row.query[1:], *row.candidate)) for row in encoded]
    order = list(range(len(encoded)))
    if settings.get("sorted"):
        order = [number for group in batching.by_length(encoded) for number in group]
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    if settings.get("budget"):
        batches = list(batching.token_budget([order], encoded, settings["budget"]))
    answers = [encoder.labels.negative, encoder.labels.positive]
    labels = torch.tensor(rows["label"].astype(int).tolist())

    def logits(numbers: list[int]) -> torch.Tensor:
        mine = [encoded[n] for n in numbers]
        if settings.get("packed"):
            from babelcart.model.packing import pack_rows

            return loading.label_logits(model, pack_rows(mine), encoder.labels)
        whole = [[*row.query, *row.candidate] for row in mine]
        length = max(map(len, whole)) if settings.get("dynamic") else PADDED
        ends = torch.tensor([len(ids) - 1 for ids in whole])
        inputs = torch.tensor([ids + [0] * (length - len(ids)) for ids in whole])
        mask = torch.arange(length) <= ends[:, None]
        if not settings.get("label_rows"):
            return model(input_ids=inputs, attention_mask=mask.long()).logits[torch.arange(len(ends)), ends][:, answers].float()
        base = model.get_base_model()
        hidden = base.get_decoder()(input_ids=inputs, attention_mask=mask.long()).last_hidden_state[torch.arange(len(ends)), ends]
        return (hidden @ base.get_output_embeddings().weight[answers].T).float()

    def once(batches: list[list[int]]) -> np.ndarray:
        probability = np.zeros(len(encoded))
        with torch.set_grad_enabled(train):
            for numbers in batches:
                found = logits(numbers)
                if train:
                    torch.nn.functional.cross_entropy(found, labels[numbers], reduction="sum").backward()
                probability[numbers] = torch.softmax(found.detach().double(), dim=-1)[:, 1].numpy()
        return probability

    once(batches[:1])
    model.zero_grad()
    start = time.perf_counter()
    probability = once(batches)
    found = {"steady": len(encoded) / (time.perf_counter() - start), "memory": peak_memory()}
    return found, gradient(model) if train else probability


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("build/negatives/qc.parquet"), show_default=True)
@click.option("--task", type=click.Choice(["qc", "qi"]), default="qc", show_default=True)
@click.option("--rows", default=192, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--keep", type=click.Path(path_type=Path), hidden=True)
@click.option("--train", is_flag=True, hidden=True)
def main(data: Path, task: str, rows: int, repeats: int, system: str | None, settings: str, keep: Path | None, train: bool) -> None:
    found, _ = read_rows(data, rows)
    if system:
        assert keep is not None
        result, made = run_rung(found, task, json.loads(settings), train)
        if system == next(iter(RUNGS)):
            np.save(keep / "first.npy", made)
        first = np.load(keep / "first.npy")
        result["apart"] = float(np.linalg.norm(made - first) / np.linalg.norm(first) if train else np.abs(made - first).max())
        click.echo(json.dumps(result))
        return
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    click.echo(f"{MODEL} in {precision()}, {data}, {len(found)} rows, {threads} threads, median of {repeats}\n")
    systems: list[System] = []
    settings_so_far: dict[str, Any] = {}
    for name, more in RUNGS.items():
        settings_so_far = {**settings_so_far, **more}
        systems.append(System(name, settings_so_far))
    for train in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            given = ["--data", str(data), "--task", task, "--rows", str(rows), "--keep", folder, *(["--train"] if train else [])]
            results = in_turns(__file__, systems, given, repeats)
        click.echo(f"| {'training' if train else 'scoring'} | rows/s | times the first | memory, GiB | apart |\n|---|---|---|---|---|")
        slowest = next(iter(results.values())).get("steady", float("nan"))
        for name, result in results.items():
            if "failed" in result:
                click.echo(f"| {name} | failed: {result['failed']} | | | |")
                continue
            ratio = f"{result['steady'] / slowest:.2f}"
            click.echo(f"| {name} | {result['steady']:.3g} | {ratio} | {result['memory']:.2f} | {result['apart']:.1e} |")
        click.echo("")


if __name__ == "__main__":
    main()
