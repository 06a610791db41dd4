"""Systems measured side by side: each run in a process of its own, in turns, so that noise of the machine meets all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

MODEL = "gemma3-270m"


def peak_memory() -> float:
    """Peak resident memory of this process, GiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def started() -> float:
    """When the parent started this process, as `time.time`."""
    return float(os.environ["STARTED"])


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON object of the last line that a process prints, and its ``seconds``; or ``failed``, the last line of its errors."""
    start = time.time()
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {}), "STARTED": repr(start)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "seconds": time.time() - start}


def in_turns(script: str, names: Sequence[str], arguments: Iterable[str], repeats: int) -> dict[str, dict[str, Any]]:
    """The median of each figure of each system over `repeats` rounds."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names:
            result = run([sys.executable, script, "--system", name, *arguments])
            print(f"round {number + 1}, {name}: {result}", file=sys.stderr, flush=True)
            found[name].append(result)
    medians = {}
    for name, results in found.items():
        good = [result for result in results if "failed" not in result]
        medians[name] = (
            {key: statistics.median(result[key] for result in good) for key, value in good[0].items() if value is not None}
            if good
            else results[0]
        )
    return medians


def read_rows(path: Path, count: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """About `count` rows of whole queries, and a tenth as many (200 at least) of other queries, in the columns that prompts need."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    table = table.rename(columns={"category_path": "candidate", "item_title": "candidate"})
    if "pivot" not in table:
        table["pivot"] = ""
    key = table["language"] + "\t" + table["origin_query"]
    order = key.drop_duplicates().sample(frac=1, random_state=seed)
    size = key.value_counts()[order].cumsum()
    held = max(200, count // 10)
    train, rest = order[(size <= count).to_numpy()], order[((size > count) & (size <= count + held)).to_numpy()]
    return table[key.isin(train)].reset_index(drop=True), table[key.isin(rest)].reset_index(drop=True)


def matrix_peak() -> float:
    """Operations a second of the best of several bfloat16 matrix products, in a process of its own."""
    code = """if 1:
        import json, time, torch
        best = 0
        for m, k, n in ((512, 640, 2048), (2048, 640, 2048), (2048, 2048, 640), (2048, 2048, 2048), (4096, 4096, 4096)):
            a, b = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16()
            end = time.perf_counter() + 2
            while time.perf_counter() < end:
                start = time.perf_counter()
                torch.nn.functional.linear(a, b)
                best = max(best, 2 * m * k * n / (time.perf_counter() - start))
        print(json.dumps({'peak': best}))
    """
    return float(run([sys.executable, "-c", code])["peak"])


def table(results: dict[str, dict[str, Any]], columns: dict[str, str], ratio: str) -> str:
    """A Markdown table; the first system's `ratio` figure over each other's is the last column."""
    ours = next(iter(results.values()))
    lines = [f"| system | {' | '.join(columns.values())} | ours is |", "|---" * (len(columns) + 2) + "|"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"| {name} | failed: {result['failed']} |")
            continue
        cells = [f"{result[key]:.3g}" if result.get(key) is not None else "" for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {ours[ratio] / result[ratio]:.2f}x |")
    return "\n".join(lines)
