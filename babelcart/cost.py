"""What a pack costs in memory and operations, counted instead of guessed.

The code of training and scoring runs a real pack through copies of the model with two layers and with three, on torch's ``meta``
device, which works out shapes and computes nothing; the first and the last layer are special, every further one costs what the
one between them does. So a model that fits nowhere here, and is not downloaded yet, can be counted too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from babelcart.model.packing import TokenRow, pack_rows

if TYPE_CHECKING:
    from babelcart.model.loading import ModelSettings

# Bits of a weight in NF4 with double quantisation: 4, and 8/64 + 32/(64 * 256) for the scales (Dettmers et al., "QLoRA", 2023).
NF4_BITS = 4.127


@dataclass(frozen=True)
class Cost:
    """What one pack costs: bytes at the peak beside the model itself, floating-point operations, and calls that do them."""

    memory: float
    flops: float
    calls: float
    tokens: int


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters: in linear layers, in the largest of them, elsewhere, in the adapter."""

    linear: int
    largest: int
    other: int
    adapter: int

    def base_bytes(self, model: ModelSettings) -> float:
        """Bytes of the frozen model; the embeddings and the head are never quantised."""
        width = itemsize(model)
        return self.other * width + self.linear * (NF4_BITS / 8 if model.quantization == "nf4" else width)

    def adapter_bytes(self, model: ModelSettings) -> float:
        """Bytes of the adapter in training: it, its best copy, and in float32 its master, gradient and two moments."""
        return self.adapter * (2 * itemsize(model) + 4 * 4)


def itemsize(model: ModelSettings) -> int:
    """Bytes of a number of the model's dtype."""
    return 4 if model.dtype == "float32" else 2


def model_size(config: Any, model: ModelSettings) -> ModelSize:
    """Count the parameters of a model and its adapter."""
    import torch

    adapted = _on_meta(config, model)
    base = adapted.get_base_model()
    head = base.get_output_embeddings()
    linear = [
        module.weight.numel()
        for module in base.modules()
        if isinstance(module, torch.nn.Linear) and module is not head and not module.weight.requires_grad
    ]
    adapter = sum(parameter.numel() for parameter in base.parameters() if parameter.requires_grad)
    other = sum(map(torch.numel, base.parameters())) - sum(linear) - adapter
    return ModelSize(sum(linear), max(linear), other, adapter)


def pack_cost(config: Any, model: ModelSettings, packs: Iterable[list[TokenRow]], train: bool) -> Cost:
    """What a pack costs to train on or to score: the memory of the neediest of `packs`, the rest of the first."""
    found = [_cost(config, model, pack, train) for pack in packs]
    return replace(found[0], memory=max(one.memory for one in found))


def _cost(config: Any, model: ModelSettings, rows: list[TokenRow], train: bool) -> Cost:
    layers = config.get_text_config().num_hidden_layers
    two, three = (measure(_on_meta(_with_layers(config, number), model), rows, train) for number in (2, 3))
    memory, flops, calls = (
        getattr(two, name) + (layers - 2) * (getattr(three, name) - getattr(two, name)) for name in ("memory", "flops", "calls")
    )
    return Cost(memory, flops, calls, two.tokens)


def _with_layers(config: Any, layers: int) -> Any:
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return config


def _on_meta(config: Any, model: ModelSettings) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from babelcart.model import loading

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.dtype))
        base.requires_grad_(False)
        if model.quantization == "nf4":
            # As a quantised layer, a class of its own keeps peft's LoRA layer.
            quantised = type("Quantised", (torch.nn.Linear,), {})
            for module in base.modules():
                if type(module) is torch.nn.Linear and module is not base.get_output_embeddings():
                    module.__class__ = quantised
        return loading.add_adapter(base, model, seed=0)


def measure(adapted: Any, rows: list[TokenRow], train: bool) -> Cost:
    """Run one pack, forward and if `train` backward, and count.

    Parameters
    ----------
    adapted
        A peft model, on any device; on ``meta`` it takes neither memory nor time.
    rows : list of TokenRow
        The pack.
    """
    import torch

    from babelcart.model.loading import label_logits
    from babelcart.model.prompts import LabelTokens

    pack = pack_rows(rows)
    counter = _counter(adapted)
    adapted.train(train)
    with counter, torch.set_grad_enabled(train):
        logits = label_logits(adapted, pack, LabelTokens(0, 1))
        if train:
            logits.sum().backward()  # type: ignore[no-untyped-call]
    return Cost(counter.peak, counter.flops, counter.calls, pack.input_ids.shape[1])


def _counter(model: Any) -> Any:
    """A mode of torch under which every operation is counted, and every storage from its making to its end."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now = self.peak = self.flops = self.calls = 0
            self.known = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            self.calls += 1
            name = function.overloadpacket.__name__.removesuffix("_")  # addmm_ is an addmm
            formula = flop_registry.get(getattr(torch.ops.aten, name, None))
            if formula:
                self.flops += formula(*args, **(kwargs or {}), out_val=result)
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                    storage = tensor.untyped_storage()
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
            return result

        def _gone(self, key: int, size: int) -> None:
            self.known.discard(key)
            self.now -= size

    return Counter()
