"""The kernels for GPUs, which Triton's interpreter runs on a CPU where there is no GPU, equal the functions for CPUs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from babelcart.model import layers, loading, packing, prompts
from babelcart.model.packing import pack_rows
from babelcart.training import gradients, optimizer
from tests.support.imports import ROOT
from tests.support.tiny import PROMPT, TEXTS, build, plain, token_row

pytest.importorskip("triton")

# Operators that may give other bits in the next run on a GPU: the list in the documentation of `torch.use_deterministic_algorithms`,
# without those for images, speech and sparse tensors. The operators behind the backward passes of indexing are index_add and scatter_add.
# index_put with accumulate sorts its indices on a GPU, without it equal indices would compete.
NONDETERMINISTIC = {
    "index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "scatter", "scatter_", "index_copy",
    "index_copy_", "put_", "cumsum", "cumsum_", "histc", "bincount", "kthvalue", "median", "embedding_dense_backward", "_embedding_bag",
    "resize_", "index_put_ without accumulate",
}  # fmt: skip


class OperatorNames(TorchDispatchMode):
    """Record the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        accumulates = name != "index_put_" or (len(args) > 3 and args[3]) or (kwargs or {}).get("accumulate")
        self.names.add(name if accumulates else f"{name} without accumulate")
        return function(*args, **(kwargs or {}))


def both(monkeypatch: pytest.MonkeyPatch, function: object, inputs: list[torch.Tensor | None], options: tuple[object, ...]) -> None:
    """Compare the output and the gradients of a function with kernels and without."""
    results = []
    gradient = None
    for kernels in (True, False):
        device = loading.device() if kernels else "cpu"
        tensors = [tensor if tensor is None else tensor.clone().to(device).requires_grad_() for tensor in inputs]
        monkeypatch.setattr(layers, "runs_kernels", lambda x, kernels=kernels: kernels)
        output = function(*tensors, *(value.to(device) if isinstance(value, torch.Tensor) else value for value in options))  # type: ignore[operator]
        gradient = torch.randn(output.shape) if gradient is None else gradient
        output.backward(gradient.to(device))
        results.append(
            [output.detach().cpu(), *(tensor.grad.cpu() for tensor in tensors if tensor is not None and tensor.grad is not None)]
        )
    assert len(results[0]) == len(results[1]) > 1
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_the_kernels_compile_for_gpus_and_fit_their_shared_memory() -> None:
    """A100 (8.0), L4 and GeForce RTX 4090 (8.9) and H100 (9.0); the least shared memory is that of 8.9."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.support.compile_kernels", "80", "89", "90"]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    compiled = json.loads(process.stdout)
    assert len(compiled) == 18
    assert all(0 < shared <= 99 * 1024 for *_, shared in compiled), compiled


@pytest.mark.parametrize("shape", [(5, 12), (3, 2, 64), (1, 100)])
def test_norms(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape[-1])
    both(monkeypatch, partial(layers.apply, layers.Norm(1.0, 1e-6)), [torch.randn(shape)], (weight,))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 8), (3, 24), (4, 16)])
def test_rotations(monkeypatch: pytest.MonkeyPatch, heads: int, head_dim: int, normalised: bool) -> None:
    torch.manual_seed(0)
    angles = torch.rand(5, 1, head_dim // 2) * 6
    weight = torch.randn(head_dim) if normalised else None
    both(monkeypatch, layers.Rotate.apply, [torch.randn(5, heads, head_dim)], (angles.cos(), angles.sin(), weight, 1.0, 1e-6))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_activations(monkeypatch: pytest.MonkeyPatch, activation: str) -> None:
    torch.manual_seed(0)
    both(monkeypatch, partial(layers.apply, layers.Gated(activation)), [torch.randn(7, 333) * 3, torch.randn(7, 333)], ())


@pytest.mark.parametrize("seed", range(4))
def test_attention_over_a_trie(seed: int) -> None:
    """Kernels and padded blocks, for all tokens and for the last token of each row, with and without a sliding window."""
    from babelcart.model.kernels import TrieAttention, find_tiles

    torch.manual_seed(seed)
    generator = random.Random(seed)
    rows = [token_row((), tuple(generator.randrange(3) for _ in range(generator.randrange(1, 30)))) for _ in range(8)]
    pack, window, device = pack_rows(rows), (None, 5)[seed % 2], loading.device()
    tokens, kv_heads, group, head_dim = pack.input_ids.shape[1], 2, (1, 2)[seed // 2], 24
    assert pack.last_block is not None
    for query_token, blocks, output_index in (
        (torch.arange(tokens), pack.blocks, pack.output_index),
        (pack.last_index, (pack.last_block,), None),
    ):
        query = torch.randn(len(query_token), kv_heads * group, head_dim, requires_grad=True)
        key, value = (torch.randn(tokens, kv_heads, head_dim, requires_grad=True) for _ in range(2))
        masks = [attention_block.mask(window) for attention_block in blocks]
        expected = packing.attention(query, key, value, blocks, masks, output_index, 0.3)
        gradient = torch.randn_like(expected)
        places = [index.to(device) for index in (query_token, pack.subtree_end, pack.position_ids[0])]
        moved = [tensor.detach().to(device).requires_grad_() for tensor in (query, key, value)]
        output = TrieAttention.apply(*moved, find_tiles(places[0], places[1], places[2], side=16), window, 0.3)
        torch.testing.assert_close(output.cpu(), expected, rtol=1e-4, atol=1e-5)
        expected_gradients = torch.autograd.grad(expected, (query, key, value), gradient)
        for result, expected_gradient in zip(torch.autograd.grad(output, moved, gradient.to(device)), expected_gradients, strict=True):
            torch.testing.assert_close(result.cpu(), expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2", "qwen3"])
def test_a_padded_pack_has_the_loss_and_gradient_of_the_pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str) -> None:
    """The complete model with kernels, on packs padded as for CUDA graphs, against the model without them."""
    build(tmp_path, family, adapter=False)
    model = loading.add_adapter(loading.load_base(tmp_path, plain()), plain(), 0)
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(tmp_path), PROMPT)
    texts = [TEXTS[2], TEXTS[3], TEXTS[6]]  # two that share a query, and the shortest
    pack = pack_rows([tokenizer.encode(*text) for text in texts])
    target, class_weights = torch.tensor([1, 0, 1]), torch.tensor([0.5, 2.0])
    results = []
    for padding in (5, None):
        monkeypatch.setattr(layers, "runs_kernels", lambda x, padding=padding: padding is not None)
        if padding is None:
            model = model.cpu()
        worker = gradients.Gradients(model, tokenizer.labels, class_weights, label_smoothing=0.1, graphs=False)
        model.zero_grad()
        if padding is None:
            loss = float(worker.add(pack, target, step_rows=20))
        else:
            sizes = pack.input_ids.shape[1] + padding, len(target) + padding
            numbers = gradients.padded_numbers(pack, target, 20, *sizes).to(worker.device)
            with OperatorNames() as called:
                loss = float(worker.padded_backward(numbers, *sizes))
            assert "index_put_" in called.names
            assert not called.names & NONDETERMINISTIC
        trained = [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
        results.append([torch.tensor(loss), *trained])
    assert any(gradient.abs().max() > 0 for gradient in results[1][1:])
    for tensor, expected in zip(*results, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-6)
    with OperatorNames() as called:
        optimizer.MasterAdamW(model, 1e-3, 0.1, 2.0).step(1.0, max_grad_norm=1.0)
    assert not called.names & NONDETERMINISTIC
