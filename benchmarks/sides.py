"""Compare systems side by side: every run in its own process, and systems in turns, so that all of them meet the same machine noise."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import pandas as pd

MODEL = "gemma3-270m"
BASE = Path("models") / MODEL / "base"
OURS = "Babelcart"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class System:
    """One side of a comparison.

    Attributes
    ----------
    name : str
        Accepted by the option ``--system`` of its script.
    settings : dict
        Passed to the script as JSON. ``spin`` is the GOMP_SPINCOUNT of the process; "" keeps the default of libgomp.
    choices : dict
        Values to try for each setting. Each setting is tried in turn, with the best values of the settings before it (`tune`).
    python : str
        The interpreter.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[Any]] = field(default_factory=dict)
    python: str = sys.executable


def peak_memory() -> float:
    """Peak resident memory of this process (VmHWM), in GiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def started() -> float:
    """Time at which the parent started this process, as `time.time`."""
    return float(os.environ["STARTED"])


def threads() -> str:
    """Return the number of threads that torch uses."""
    return os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))


def run(script: str, system: System, arguments: Sequence[str], timeout: float = 3600) -> dict[str, Any]:
    """Run a system in a new process.

    Returns
    -------
    dict
        The JSON object on the last line that the process prints. If the process fails: ``failed``, the last line of its errors.
    """
    command = [system.python, script, "--system", system.name, "--settings", json.dumps(system.settings), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    spin = system.settings.get("spin", "20000")
    environment |= {"GOMP_SPINCOUNT": spin} if spin else {}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "STARTED": repr(time.time())}
    if system.python != sys.executable:
        environment.pop("PYTHONPATH", None)  # another environment has its own packages
    try:
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {timeout:.0f} s"}
    try:
        figures = json.loads(process.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        figures = None
    if process.returncode or not isinstance(figures, dict):
        return {"failed": (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1][:200]}
    return figures


def log(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def tune(script: str, system: System, arguments: Sequence[str]) -> list[str]:
    """Set `system.settings` to the fastest of `choices`; return the settings that were tried as rows of a Markdown table."""
    lines: list[str] = []
    speeds: dict[str, float] = {}

    def speed(settings: dict[str, Any]) -> float:
        key = json.dumps(settings, sort_keys=True)
        if key not in speeds:
            figures = run(script, System(system.name, settings, python=system.python), arguments)
            speeds[key] = float(figures.get("steady", 0.0))
            words = ", ".join(f"{name} {value}" for name, value in settings.items())
            lines.append(f"| {system.name} | {words} | {figures.get('failed') or format(figures['steady'], '.3g')} |")
            log(lines[-1])
        return speeds[key]

    for name, values in system.choices.items():
        system.settings = max(({**system.settings, name: value} for value in values), key=speed)
    return lines


def tuning_table(lines: Sequence[str]) -> str:
    """Markdown table of the rows that `tune` returned."""
    return "\n".join(["| peer | settings tried | rows/s |", "|---|---|---|", *lines])


def in_turns(script: str, systems: Sequence[System], arguments: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Run all systems once a round; return the median of each figure of each system, or ``failed`` if it failed in any round."""
    rounds: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    for round_index in range(repeats):
        for system in systems:
            figures = run(script, system, arguments)
            log(f"round {round_index + 1}, {system.name}: {figures}")
            rounds[system.name].append(figures)
    medians = {}
    for name, all_figures in rounds.items():
        failed = [figures for figures in all_figures if "failed" in figures]
        keys = [key for key, value in all_figures[0].items() if isinstance(value, int | float)]
        medians[name] = failed[0] if failed else {key: statistics.median(figures[key] for figures in all_figures) for key in keys}
    return medians


def read_table(path: Path) -> pd.DataFrame:
    """Read all rows of a file, Parquet or CSV with the columns of docs/data.md, in the columns that prompts need."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    table = table.rename(columns={"category_path": "candidate", "item_title": "candidate"})
    return table if "pivot" in table else table.assign(pivot="")


def read_rows(path: Path, count: int, held: int = 0, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw complete queries from a file, with their translations.

    Parameters
    ----------
    path : pathlib.Path
        As for `read_table`.
    count, held : int
        Approximate numbers of rows to use and of rows to hold out.

    Returns
    -------
    tuple of pandas.DataFrame
        The rows to use and the held-out rows, in the columns that prompts need.
    """
    table = read_table(path)
    key = table["group"] if "group" in table else table["language"] + "\t" + table["origin_query"]
    order = key.drop_duplicates().sample(frac=1, random_state=seed)
    size = key.value_counts()[order].cumsum()
    if size.iloc[-1] < held + count // 2:
        sys.exit(f"{path} has {len(table):,} rows, too few for {count:,} and {held:,} held-out rows; use other --rows or --held")
    # Held-out rows are drawn first, so that they do not depend on `count`.
    held_out, rest = order[(size <= held).to_numpy()], order[((size > held) & (size <= held + count)).to_numpy()]
    return table[key.isin(rest)].reset_index(drop=True), table[key.isin(held_out)].reset_index(drop=True)


def linear_operations(decoder: Any, rows: int, tokens: int, train: bool) -> float:
    """Least floating-point operations of the linear layers for `rows` rows, packed in `tokens` tokens.

    Forward: 2 for each weight and token. The last layer needs only one position per row, except for its keys and values.

    Training: another 2 for the gradient of each layer's input; frozen weights need no gradient. The queries, keys and values of the
    first layer need none, because their input is frozen. The matrices of the adapter take 2 forward, 2 for their own gradient and 2
    for that of their input.

    Scoring counts nothing for the adapter, which could be merged. Attention products, norms and the head are not counted.
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
        positions = rows if module in last and not any(part in name for part in ("k_proj", "v_proj")) else tokens
        frozen_input = module in first and "o_proj" not in name and "lora_B" not in name
        factor = 2 if not train else (4 if adapter else 2) + (0 if frozen_input else 2)
        operations += factor * module.in_features * module.out_features * positions
    return operations


def model_settings() -> Any:
    """Return the settings of `MODEL`, with the dtype that is used on this machine."""
    from babelcart.core import config
    from babelcart.model import loading

    return loading.for_this_machine(config.load_section(loading.ModelSettings, MODEL))


def precision() -> Any:
    """Return the dtype of all sides: bfloat16 if the machine has instructions for it, otherwise float32."""
    import torch

    return getattr(torch, model_settings().dtype)


def load(task: str, first: str | None = None) -> Any:
    """Return the settings of the model and its tokenizer; `first`, or the options of `prompt_options`, change the prompt."""
    from babelcart.model.task_model import read_task_model

    task_model = read_task_model(BASE.parent, task)
    prompt = task_model.prompt
    if path := os.environ.get("INSTRUCTION"):
        prompt = replace(prompt, template=Path(path).read_text(encoding="utf-8") + prompt.template)
    first = first or os.environ.get("FIRST")
    if first and prompt.query_first() != (first == "query"):
        prompt = prompt.other_order()
    task_model = replace(task_model, prompt=prompt)
    return task_model.local_settings, task_model.load_tokenizer()


def _export(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name:
        os.environ[parameter.name.upper()] = str(value)  # the processes of all sides inherit it


def prompt_options(command: Command) -> Command:
    """Add the options ``--instruction`` and ``--first``, which change the prompt of all sides."""
    instruction = click.option(
        "--instruction",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_export,
        help="File with a text that all sides put before the prompt, such as benchmarks/instruction.txt.",
    )
    first = click.option(
        "--first",
        type=click.Choice(["query", "candidate"]),
        expose_value=False,
        callback=_export,
        help="What is first in the prompt of all sides. Default: as in params.yaml.",
    )
    return instruction(first(command))


def data_option(default: str) -> Callable[[Command], Command]:
    """Return the option ``--data`` of a benchmark, with the rows of the sample as default."""
    return click.option(
        "--data",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=Path(default),
        show_default=True,
        help="Rows to use: Parquet, or CSV with the columns of docs/data.md. The default needs `dvc repro`.",
    )


def print_profile(work: Callable[[], object]) -> None:
    """Print the torch operations that take most of the time of a function in its second call, each without the operations that it calls."""
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recorded:
        work()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("| operation | share | calls |\n|---|---|---|")
    for event in events[:20]:
        print(f"| `{event.key}` | {event.self_cpu_time_total / total:.1%} | {event.count:,} |")


def matrix_peak(hidden: int, intermediate: int, tokens: int = 2048, square: int = 4096, device: str = "cpu") -> dict[str, float]:
    """Highest rate of matrix products in `precision`, in operations per second.

    Returns
    -------
    dict
        ``layer``: the faster of the two products of a feed-forward layer; ``square``: the product of square matrices.
    """
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


def peak_of_model() -> dict[str, float]:
    """`matrix_peak` in the shapes of the base model."""
    shape = json.loads((BASE / "config.json").read_text())
    return matrix_peak(shape["hidden_size"], shape["intermediate_size"])


def table(results: dict[str, dict[str, Any]], columns: dict[str, str], ratios: dict[str, str], peak: float) -> str:
    """Markdown table of figures.

    Parameters
    ----------
    results : dict
        Name of a system -> its figures. The first system is the one that the others are compared with.
    columns, ratios : dict
        Key of a figure -> head of its column. A ratio is the figure of the first system divided by that of each system; ``{}`` in its
        head becomes the name of the first system.
    peak : float
        Operations per second; shares of it are computed with the useful operations of the first system.
    """
    first, ours = next(iter(results.items()))
    heads = [*columns.values(), "share of peak", *(head.format(first) for head in ratios.values())]
    lines = [f"| system | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, figures in results.items():
        if "failed" in figures:
            lines.append(f"| {name} | failed: {figures['failed'].replace('|', '/')}" + " |" * len(heads))
            continue
        cells = [f"{figures[key]:.3g}" if key in figures else "" for key in columns]
        cells.append(f"{ours['flops'] * figures['steady'] / peak:.1%}" if "flops" in ours else "")
        cells += [f"{ours[key] / figures[key]:.2f}x" if key in ours else "" for key in ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report_peak(peaks: Sequence[dict[str, float]]) -> float:
    """Print the rates of the matrix products; return the highest, which is the reference of the shares."""
    layer, square = (max(peak[key] for peak in peaks) for key in ("layer", "square"))
    rates = f"{layer / 1e9:,.0f} GFLOP/s in the shape of a layer, {square / 1e9:,.0f} GFLOP/s for square matrices"
    print(f"\n{precision()} products: {rates}; shares are relative to the higher rate.\n")
    return max(layer, square)
