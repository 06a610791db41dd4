"""Add the gradient of a pack of rows to that of a training step, on a GPU by replaying CUDA graphs.

A step of a 12B model on short rows launches some ten thousand kernels. Launching them one by one takes several times as long as the
kernels run. A CUDA graph records them once for each size of a pack, and is then launched as a whole (NVIDIA, "CUDA C++ Programming
Guide", section "CUDA Graphs"). Packs are padded to one of few sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from babelcart.model.loading import label_logits
from babelcart.model.packing import Pack

if TYPE_CHECKING:
    from babelcart.model.prompts import LabelTokens

SIZE_STEP = 64  # tokens to a multiple of which a short pack is padded; rows, to a multiple of half of it


class Gradients:
    """Gradient of the cross-entropy of the two labels, for the trained parameters of a model.

    Parameters
    ----------
    model
        A peft model.
    labels : LabelTokens
        Token ids of the two answers.
    class_weights : torch.Tensor
        ``(2,)`` float32: weight of each label.
    label_smoothing : float
        As in `torch.nn.functional.cross_entropy`.
    graphs : bool
        Whether to replay CUDA graphs, if the model is on a GPU. The model must not use dropout or gradient checkpointing, whose random
        numbers cannot be recorded.
    """

    def __init__(self, model: Any, labels: LabelTokens, class_weights: Tensor, label_smoothing: float, graphs: bool) -> None:
        self.model, self.labels, self.label_smoothing = model, labels, label_smoothing
        self.device = next(model.parameters()).device
        self.class_weights = class_weights.to(self.device)
        self.uses_graphs = graphs and self.device.type == "cuda"
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._memory_pool: Any = None

    def add(self, pack: Pack, target: Tensor, step_rows: int) -> Tensor:
        """Add the gradient of a pack to ``grad`` of the trained parameters.

        Parameters
        ----------
        pack : Pack
            On the CPU.
        target : torch.Tensor
            ``(N,)`` int64: label of each row, 0 or 1.
        step_rows : int
            Rows of the step. The loss is divided by it, so that the gradient does not depend on how the step is divided into packs.

        Returns
        -------
        torch.Tensor
            ``()`` float64, on the device of the model: share of the pack in the loss of the step.
        """
        if self.uses_graphs:
            return self._replay(pack, target, step_rows)
        logits = label_logits(self.model, pack, self.labels)  # (N, 2)
        loss = self._cross_entropy(logits, target.to(logits.device), "sum") / step_rows
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().double()

    def release(self) -> None:
        """Drop all graphs and their memory, for example after memory ran out."""
        self._recordings.clear()
        self._memory_pool = None

    def _cross_entropy(self, logits: Tensor, target: Tensor, reduction: str) -> Tensor:
        weights, smoothing = self.class_weights, self.label_smoothing
        return functional.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing, reduction=reduction)

    def _replay(self, pack: Pack, target: Tensor, step_rows: int) -> Tensor:
        tokens, rows = padded_size(pack.input_ids.shape[1], SIZE_STEP), padded_size(len(target), SIZE_STEP // 2)
        numbers = padded_numbers(pack, target, step_rows, tokens, rows).pin_memory()
        if (tokens, rows) not in self._recordings:
            self._recordings[tokens, rows] = self._record(tokens, rows)
        recording = self._recordings[tokens, rows]
        recording.numbers.copy_(numbers, non_blocking=True)
        recording.graph.replay()
        return recording.loss.double()  # a copy; the next replay overwrites the loss

    def _record(self, tokens: int, rows: int) -> _Recording:
        """Record the forward and the backward pass of packs of a size."""
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # The kernels are compiled, and their workspaces allocated, in a pass over a pack without rows, whose gradient is zero.
        numbers = torch.zeros(3 * tokens + 3 * rows + 2, dtype=torch.int64, device=self.device)
        numbers[2 * tokens : 3 * tokens] = torch.arange(tokens, device=self.device)
        numbers[-1] = 1
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.padded_backward(numbers, tokens, rows)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory_pool):
            loss = self.padded_backward(numbers, tokens, rows)
        self._memory_pool = graph.pool()
        return _Recording(graph, numbers, loss)

    def padded_backward(self, numbers: Tensor, tokens: int, rows: int) -> Tensor:
        """Forward and backward pass of a padded pack, given as the result of `padded_numbers`; returns the loss, ``()``."""
        input_ids, positions, subtree_end, last_index, row_index, target, row_count, step_rows = torch.split(
            numbers, [tokens] * 3 + [rows] * 3 + [1, 1]
        )
        pack = Pack(input_ids[None], positions[None], subtree_end, last_index, row_index)
        logits = label_logits(self.model, pack, self.labels)  # (rows, 2)
        losses = self._cross_entropy(logits, target, "none")  # (rows,)
        is_row = torch.arange(rows, device=self.device) < row_count  # (rows,)
        loss = (losses * is_row).sum() / step_rows[0]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


@dataclass(frozen=True)
class _Recording:
    """A graph, the tensor that it reads (`padded_numbers`) and the loss ``()`` that it writes."""

    graph: Any
    numbers: Tensor
    loss: Tensor


def padded_size(size: int, step: int) -> int:
    """Round up to a multiple of `step`, or of an eighth of the next lower power of two, if this is more."""
    step = max(step, 2 ** (size.bit_length() - 1) // 8)
    return -(-size // step) * step


def padded_numbers(pack: Pack, target: Tensor, step_rows: int, tokens: int, rows: int) -> Tensor:
    """Concatenate the index tensors of a pack, padded to `tokens` and `rows`.

    A padding token attends to itself only, and no row ends at it. Padding rows repeat the last row; their loss is not counted.

    Returns
    -------
    torch.Tensor
        ``(3 * tokens + 3 * rows + 2,)`` int64: `input_ids`, `position_ids` and `subtree_end` of the pack, then `last_index`, `row_index`
        and `target`, then the number of rows and `step_rows`.
    """
    length = pack.input_ids.shape[1]
    numbers = torch.zeros(3 * tokens + 3 * rows + 2, dtype=torch.int64)
    input_ids, positions, subtree_end, last_index, row_index, targets, counts = torch.split(numbers, [tokens] * 3 + [rows] * 3 + [2])
    input_ids[:length], positions[:length], subtree_end[:length] = pack.input_ids[0], pack.position_ids[0], pack.subtree_end
    subtree_end[length:] = torch.arange(length, tokens)
    last_index[: len(pack.last_index)], last_index[len(pack.last_index) :] = pack.last_index, pack.last_index[-1]
    row_index[: len(target)], targets[: len(target)] = pack.row_index, target
    counts[0], counts[1] = len(target), step_rows
    return numbers
