"""Systems measured side by side: each run in a process of its own, in turns, so that noise of the machine meets all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd

MODEL = "gemma3-270m"
BASE = Path("models") / MODEL / "base"


@dataclass
class System:
    """A side of a comparison.

    Attributes
    ----------
    name : str
        What its script's ``--system`` accepts.
    settings : dict
        Given to it as JSON. ``spin`` is GOMP_SPINCOUNT of its process, "" for libgomp's own.
    choices : dict
        Settings to try, each in turn with the best of those before it (`tune`).
    python : str
        Its interpreter.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[Any]] = field(default_factory=dict)
    python: str = sys.executable


def peak_memory() -> float:
    """Peak resident memory of this process (VmHWM), GiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def started() -> float:
    """When the parent started this process, as `time.time`."""
    return float(os.environ["STARTED"])


def run(script: str, system: System, arguments: Sequence[str], timeout: float = 3600) -> dict[str, Any]:
    """The JSON object of the last line that a system prints; or ``failed``, the last line of its errors."""
    command = [system.python, script, "--system", system.name, "--settings", json.dumps(system.settings), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    spin = system.settings.get("spin", "20000")
    environment |= {"GOMP_SPINCOUNT": spin} if spin else {}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "STARTED": repr(time.time())}
    if system.python != sys.executable:
        environment.pop("PYTHONPATH", None)  # its packages are its own
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end in {timeout:.0f} s"}
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        found = None
    if done.returncode or not isinstance(found, dict):
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]}
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tune(script: str, system: System, arguments: Sequence[str]) -> list[str]:
    """Leave in `system.settings` the fastest of `choices`; return what was tried as Markdown table rows."""
    lines, speeds = [], {}

    def speed(settings: dict[str, Any]) -> float:
        key = json.dumps(settings, sort_keys=True)
        if key not in speeds:
            found = run(script, System(system.name, settings, python=system.python), arguments)
            speeds[key] = found.get("steady", 0.0)
            words = ", ".join(f"{name} {value}" for name, value in settings.items())
            lines.append(f"| {system.name} | {words} | {found.get('failed') or format(found['steady'], '.3g')} |")
            say(lines[-1])
        return float(speeds[key])

    for name, values in system.choices.items():
        system.settings = max(({**system.settings, name: value} for value in values), key=speed)
    return lines


def in_turns(script: str, systems: Sequence[System], arguments: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """The median of each figure of each system over `repeats` rounds; ``failed`` for one that failed in any."""
    found: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    for number in range(repeats):
        for system in systems:
            result = run(script, system, arguments)
            say(f"round {number + 1}, {system.name}: {result}")
            found[system.name].append(result)
    medians = {}
    for name, results in found.items():
        failed = [result for result in results if "failed" in result]
        keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
        medians[name] = failed[0] if failed else {key: statistics.median(result[key] for result in results) for key in keys}
    return medians


def read_rows(path: Path, count: int, held: int = 0, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """About `count` rows of whole queries and `held` of others, in the columns that prompts need; a query's translations go with it."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    table = table.rename(columns={"category_path": "candidate", "item_title": "candidate"})
    if "pivot" not in table:
        table["pivot"] = ""
    key = table["group"] if "group" in table else table["language"] + "\t" + table["origin_query"]
    order = key.drop_duplicates().sample(frac=1, random_state=seed)
    size = key.value_counts()[order].cumsum()
    if size.iloc[-1] < held + count // 2:
        sys.exit(f"{path} has {len(table):,} rows: too few for {count:,} and {held:,} held out")
    # Those held out first: they stay the same whatever is trained on.
    out, rest = order[(size <= held).to_numpy()], order[((size > held) & (size <= held + count)).to_numpy()]
    return table[key.isin(rest)].reset_index(drop=True), table[key.isin(out)].reset_index(drop=True)


def linear_operations(decoder: Any, rows: int, tokens: int, train: bool) -> float:
    """Floating-point operations of the linear layers that `rows` need at least, packed in `tokens` tokens.

    Forward, 2 for each weight and token. Of the last layer all but the keys and values is needed at one position a row. In
    training another 2 for the gradient of a layer's input (its frozen weight needs none), save in the queries, keys and
    values of the first layer, whose input is frozen too; and for the adapter's matrices 2 forward, 2 for their gradient, 2
    for that of their input. In scoring the adapter could be merged, so it counts nothing. Attention's own products, norms and
    the head count nothing.
    """
    import torch

    first, last = set(decoder.layers[0].self_attn.modules()), set(decoder.layers[-1].modules())
    operations = 0.0
    for name, module in decoder.named_modules():
        if not hasattr(module, "in_features") or isinstance(getattr(module, "base_layer", None), torch.nn.Module):
            continue
        adapter = "lora_" in name
        if adapter and not train:
            continue
        at = rows if module in last and not any(part in name for part in ("k_proj", "v_proj")) else tokens
        frozen_input = module in first and "o_proj" not in name and "lora_B" not in name
        factor = 2 if not train else (4 if adapter else 2) + (0 if frozen_input else 2)
        operations += factor * module.in_features * module.out_features * at
    return operations


def block() -> Any:
    """The settings of `MODEL`, with the dtype in which it is computed here."""
    from babelcart.core import config
    from babelcart.model import loading

    return loading.for_this_cpu(config.load(f"models.{MODEL}", loading.ModelSettings))


def precision() -> Any:
    """The dtype of all sides: bfloat16 where the machine has instructions for it."""
    import torch

    return getattr(torch, block().dtype)


def load(task: str) -> Any:
    """Settings of the model and its encoder, whose prompt follows the `instruction`, if there is one."""
    from babelcart.core import config
    from babelcart.model import loading, prompts

    prompt = config.load(f"prompts.{task}", prompts.Prompt)
    if path := os.environ.get("INSTRUCTION"):
        prompt = replace(prompt, query=Path(path).read_text(encoding="utf-8") + prompt.query)
    return block(), prompts.PromptTokenizer(loading.load_tokenizer(BASE), prompt)


def _keep(context: Any, parameter: Any, path: Path | None) -> None:
    if path:
        os.environ["INSTRUCTION"] = str(path)  # for the processes of all sides


instruction = click.option(
    "--instruction",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    expose_value=False,
    callback=_keep,
    help="A file whose text stands before the prompt, for all sides: benchmarks/instruction.txt.",
)


def matrix_peak(hidden: int, intermediate: int, tokens: int = 2048, square: int = 4096, device: str = "cpu") -> dict[str, float]:
    """Operations a second of products in `precision`: the best of the feed-forward layer's two, and of square matrices."""
    import torch

    dtype = precision()

    def best(m: int, k: int, n: int, seconds: float = 3.0) -> float:
        a, b = (torch.randn(size, k, device=device, dtype=dtype) for size in (m, n))
        least, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.nn.functional.linear(a, b)
            if device == "cuda":
                torch.cuda.synchronize()
            least = min(least, time.perf_counter() - start)
        return 2 * m * k * n / least

    layer = max(best(tokens, hidden, intermediate), best(tokens, intermediate, hidden))
    return {"layer": layer, "square": best(square, square, square)}


def table(results: dict[str, dict[str, Any]], columns: dict[str, str], ratios: dict[str, str], peak: float) -> str:
    """A Markdown table: figures, share of `peak` by the useful operations of the first system, the first's ratio to each."""
    ours = next(iter(results.values()))
    heads = [*columns.values(), "share of peak", *ratios.values()]
    lines = [f"| system | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"| {name} | failed: {result['failed'].replace('|', '/')}" + " |" * len(heads))
            continue
        cells = [f"{result[key]:.3g}" if key in result else "" for key in columns]
        cells.append(f"{ours['flops'] * result['steady'] / peak:.1%}" if "flops" in ours else "")
        cells += [f"{ours[key] / result[key]:.2f}x" if key in ours else "" for key in ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report_peak(peaks: Sequence[dict[str, float]]) -> float:
    """Print the matrix products' rates; return the best, of which shares are given."""
    layer, square = (max(peak[key] for peak in peaks) for key in ("layer", "square"))
    rates = f"{layer / 1e9:,.0f} GFLOP/s in a layer's shape, {square / 1e9:,.0f} square"
    print(f"\n{precision()} products: {rates}; shares are of the higher.\n")
    return max(layer, square)
