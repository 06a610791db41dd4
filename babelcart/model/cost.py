"""Count the memory and the operations that one pack of rows needs.

The code of training and scoring runs a real pack through copies of the model with two and with three layers. The copies are on
torch's ``meta`` device, where tensors have shapes but no content. The first and the last layer are special; each further layer
is assumed to cost what the third one adds. This works for models that are not downloaded, and on machines that are too small for
them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from babelcart.model.packing import TokenRow, pack_rows

if TYPE_CHECKING:
    from babelcart.model.loading import ModelSettings

Number = TypeVar("Number", int, float)

# Bits per weight in NF4 with double quantisation: 4, plus 8/64 + 32/(64 * 256) for the scales (Dettmers et al., "QLoRA", 2023).
NF4_BITS = 4.127
# Bytes of the process per byte that a pack needs on a CPU, by dtype: the allocator leaves gaps between packs of different sizes, and
# products in bfloat16 need copies. Measured.
CPU_ALLOCATOR = {"bfloat16": 4.0, "float32": 1.5}


@dataclass(frozen=True)
class PackCost:
    """Memory and operations of one pack.

    Attributes
    ----------
    peak_bytes : float
        Peak memory in bytes, without the parameters of the model.
    flops : float
        Floating-point operations.
    calls : float
        Calls of torch operations.
    tokens : int
        Tokens of the pack.
    """

    peak_bytes: float
    flops: float
    calls: float
    tokens: int


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a model with its adapter.

    Attributes
    ----------
    linear : int
        Parameters of the linear layers of the base model, without the head.
    largest_linear : int
        Parameters of the largest of these layers.
    other : int
        All other parameters of the base model: embeddings, head and norms.
    adapter : int
        Trained parameters.
    """

    linear: int
    largest_linear: int
    other: int
    adapter: int

    def base_bytes(self, model: ModelSettings) -> float:
        """Return the bytes of the frozen base model. Embeddings and head are never quantised."""
        width = dtype_bytes(model)
        return self.other * width + self.linear * (NF4_BITS / 8 if model.quantization == "nf4" else width)

    def weight_traffic(self, model: ModelSettings) -> float:
        """Return the bytes of a pass over the linear layers. NF4 weights are read, written in the model's dtype and read again."""
        width = dtype_bytes(model)
        return self.linear * (NF4_BITS / 8 + 2 * width if model.quantization == "nf4" else width)

    def dequantised_bytes(self, model: ModelSettings) -> float:
        """Return the bytes of the largest NF4 weight in the model's dtype: one weight at a time is dequantised. 0 without NF4."""
        return self.largest_linear * dtype_bytes(model) if model.quantization == "nf4" else 0.0

    def training_adapter_bytes(self, model: ModelSettings) -> float:
        """Return the bytes of the adapter in training: two copies in the model's dtype (current and best), four in float32 (optimizer)."""
        return self.adapter * (2 * dtype_bytes(model) + 4 * 4)

    def training_bytes(self, model: ModelSettings) -> float:
        """Return the bytes of training without those of a pack."""
        return self.base_bytes(model) + self.training_adapter_bytes(model) + self.dequantised_bytes(model)


def dtype_bytes(model: ModelSettings) -> int:
    """Return the bytes of one number in the model's dtype."""
    return 4 if model.dtype == "float32" else 2


class ModelCost:
    """Counts the parameters of a model with its adapter, and the cost of packs, without loading weights.

    Parameters
    ----------
    config
        Configuration of the base model, as `babelcart.plan.read_config` returns it.
    model : ModelSettings
        Dtype, quantization and adapter of the model.

    Attributes
    ----------
    parameters : ParameterCounts
    """

    def __init__(self, config: Any, model: ModelSettings) -> None:
        self._further_layers = config.get_text_config().num_hidden_layers - 2
        self._two, self._three = (meta_model(_with_layers(config, layers), model) for layers in (2, 3))
        two, three = (_count_parameters(copy_of_model.get_base_model()) for copy_of_model in (self._two, self._three))
        self.parameters = ParameterCounts(
            self._extrapolate(two.linear, three.linear),
            two.largest_linear,
            self._extrapolate(two.other, three.other),
            self._extrapolate(two.adapter, three.adapter),
        )

    def pack(self, packs: Iterable[list[TokenRow]], train: bool) -> PackCost:
        """Estimate the cost of training on a pack or of scoring it.

        Parameters
        ----------
        packs : iterable of list of TokenRow
            At least one pack.
        train : bool
            Whether to include the backward pass.

        Returns
        -------
        PackCost
            Cost of the first pack, with the highest peak memory of all `packs`.
        """
        costs = [self._cost(pack, train) for pack in packs]
        return replace(costs[0], peak_bytes=max(cost.peak_bytes for cost in costs))

    def _cost(self, rows: list[TokenRow], train: bool) -> PackCost:
        two, three = (measure_pack(copy_of_model, rows, train) for copy_of_model in (self._two, self._three))
        peak_bytes = self._extrapolate(two.peak_bytes, three.peak_bytes)
        return PackCost(peak_bytes, self._extrapolate(two.flops, three.flops), self._extrapolate(two.calls, three.calls), two.tokens)

    def _extrapolate(self, two: Number, three: Number) -> Number:
        """Quantity of the complete model, from that of copies with two and with three layers."""
        return two + self._further_layers * (three - two)


def _count_parameters(base: Any) -> ParameterCounts:
    """Count the parameters of a base model with an adapter."""
    import torch

    head = base.get_output_embeddings()
    linear = [
        module.weight.numel()
        for module in base.modules()
        if isinstance(module, torch.nn.Linear) and module is not head and not module.weight.requires_grad
    ]
    adapter = sum(parameter.numel() for parameter in base.parameters() if parameter.requires_grad)
    other = sum(map(torch.numel, base.parameters())) - sum(linear) - adapter
    return ParameterCounts(sum(linear), max(linear), other, adapter)


def _with_layers(config: Any, layer_count: int) -> Any:
    """Return a copy of a model configuration with the first `layer_count` layers."""
    config = copy.deepcopy(config)
    text_config = config.get_text_config()
    text_config.num_hidden_layers = layer_count
    if getattr(text_config, "layer_types", None):
        text_config.layer_types = text_config.layer_types[:layer_count]
    return config


def meta_model(config: Any, model: ModelSettings) -> Any:
    """Return the peft model of a configuration on torch's ``meta`` device."""
    import torch
    from transformers import AutoModelForCausalLM

    from babelcart.model import loading

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.dtype))
        base.requires_grad_(False)
        # On this device, peft leaves the adapter in float32.
        return loading.add_adapter(base, model, seed=0).to(getattr(torch, model.dtype))


def measure_pack(model: Any, rows: list[TokenRow], train: bool) -> PackCost:
    """Run one pack through a model and count memory and operations.

    Parameters
    ----------
    model
        A peft model on any device. On ``meta``, the run takes neither memory nor time.
    rows : list of TokenRow
        The rows of the pack.
    train : bool
        Whether to run the backward pass, too.
    """
    import torch

    from babelcart.model.loading import label_logits
    from babelcart.model.prompts import LabelTokens

    pack = pack_rows(rows)
    counter = _operation_counter(model)
    model.train(train)
    with counter, torch.set_grad_enabled(train):
        logits = label_logits(model, pack, LabelTokens(0, 1))  # (rows, 2)
        if train:
            logits.sum().backward()  # type: ignore[no-untyped-call]
    return PackCost(counter.peak_bytes, counter.flops, counter.calls, pack.input_ids.shape[1])


def _operation_counter(model: Any) -> Any:
    """Return a torch dispatch mode that counts operations and tracks the memory of all tensors except the parameters of `model`."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.live_bytes = self.peak_bytes = self.flops = self.calls = 0
            self.known_storages = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            self.calls += 1
            operation = function.overloadpacket.__name__.removesuffix("_")  # in-place variants such as addmm_ have the same cost
            if formula := flop_registry.get(getattr(torch.ops.aten, operation, None)):
                self.flops += formula(*args, **(kwargs or {}), out_val=output)
            for leaf in tree_leaves(output):
                if isinstance(leaf, torch.Tensor):
                    self._track(leaf.untyped_storage())
            return output

        def _track(self, storage: torch.UntypedStorage) -> None:
            if storage._cdata in self.known_storages:
                return
            self.known_storages.add(storage._cdata)
            self.live_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

        def _release(self, key: int, size: int) -> None:
            self.known_storages.discard(key)
            self.live_bytes -= size

    return OperationCounter()
