"""Compare the time of training and scoring with the time of their matrix products alone.

    export PYTHONPATH=. OMP_NUM_THREADS=2
    python benchmarks/products.py                                            # rows of the sample, after `dvc repro`
    python benchmarks/products.py --data FOLDER/qc.csv --first candidate     # rows of your own

A dispatch mode records the operands of every matrix product (shapes, strides, dtype) in one optimizer step and in one scoring pack. Each
round then runs the step or the pack, and afterwards the recorded products alone, on random numbers. The ratio of the two times is what
the operations between the products cost. It is near 1 if only the products take time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import sides
import torch
from sides import BASE
from torch.utils._python_dispatch import TorchDispatchMode

from babelcart.core import config
from babelcart.core.tasks import TASKS
from babelcart.model import batching, loading, packing, scoring
from babelcart.training import loop

PRODUCTS = {"linear", "mm", "addmm", "addmm_", "bmm", "baddbmm"}


class RecordProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the operation and the arguments of every matrix product.

    Attributes
    ----------
    calls : list of tuple
        The operation, its positional arguments and its keyword arguments. Tensors are replaced by their shape, strides and dtype.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, list[Any], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            self.calls.append((func, [_layout(argument) for argument in args], dict(kwargs or {})))
        return func(*args, **kwargs or {})


def _layout(argument: Any) -> Any:
    """Shape, strides and dtype of a tensor; anything else unchanged."""
    return (tuple(argument.shape), argument.stride(), argument.dtype) if isinstance(argument, torch.Tensor) else argument


def products_alone(run: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that computes the matrix products of `run` on random numbers.

    Operands of the same layout share their memory, so that they come from the cache more often than those of `run`.
    """
    with RecordProducts() as recorded:
        run()
    operands: dict[Any, torch.Tensor] = {}

    def operand(argument: Any) -> Any:
        if not (isinstance(argument, tuple) and len(argument) == 3 and isinstance(argument[2], torch.dtype)):
            return argument
        if argument not in operands:
            shape, strides, dtype = argument
            operands[argument] = torch.empty_strided(shape, strides, dtype=dtype).normal_(std=0.01)
        return operands[argument]

    calls = [(function, [operand(argument) for argument in arguments], names) for function, arguments, names in recorded.calls]

    def compute() -> None:
        for function, arguments, names in calls:
            function(*arguments, **names)

    return compute


def compare(name: str, run: Callable[[], Any], tokens: int, rounds: int) -> str:
    """Measure `run` and its products in turns; return a row of the table."""
    products = products_alone(run)
    run()
    seconds: dict[Callable[[], Any], list[float]] = {run: [], products: []}
    for _ in range(rounds):
        for function, times in seconds.items():
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    ratio = statistics.median(one / other for one, other in zip(seconds[run], seconds[products], strict=True))
    return f"| {name} | {tokens:,} | {statistics.median(seconds[run]):.3f} | {statistics.median(seconds[products]):.3f} | {ratio:.2f} |"


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt.")
@click.option("--rows", default=2000, show_default=True, help="Approximate number of rows.")
@click.option("--rounds", default=9, show_default=True, help="Number of rounds; the table has medians.")
@sides.prompt_options
def main(data: Path, task: str, rows: int, rounds: int) -> None:
    settings, tokenizer = sides.load(task)
    table, _ = sides.read_rows(data, rows)
    encoded = tokenizer.encode_table(table)
    model = loading.add_adapter(loading.load_base(BASE, settings), settings, 0)
    examples = loop.LabelledRows(encoded, table["label"].astype(int).tolist())
    trainer = loop.Trainer(model, settings, examples, tokenizer.labels, config.load_section(loop.TrainSettings))
    step = max(trainer.steps[: len(trainer.steps) - 1], key=len)
    step_tokens = sum(packing.trie_tokens([encoded[index] for index in part]) for part in batching.step_packs(step, encoded, 4096))
    predict = scoring.Predict()
    pack = next(batching.scoring_packs(encoded, predict.max_tokens))
    pack_encoded = [encoded[index] for index in pack]

    def train() -> None:
        trainer._optimizer_step(step)
        trainer._next_packs = None

    print(f"{data}, {sides.precision()}, {sides.threads()} threads, {rounds} rounds\n")
    print("| | tokens | seconds | products alone, seconds | ratio |\n|---|---|---|---|---|", flush=True)
    print(compare("training, one step", train, step_tokens, rounds), flush=True)
    tokens = packing.trie_tokens(pack_encoded)
    print(compare("scoring, one pack", lambda: scoring.score(model, pack_encoded, tokenizer.labels, predict), tokens, rounds))


if __name__ == "__main__":
    main()
