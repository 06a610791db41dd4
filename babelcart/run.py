"""Time, peak memory and versions of a run. They differ from run to run, so they are not part of outputs or metrics."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from babelcart.core.files import write_json


@contextmanager
def measure_run(path: Path) -> Iterator[dict[str, Any]]:
    """Measure a block and, if it succeeds, write a report to `path`.

    Yields
    ------
    dict
        The report, to which the block may add keys. Seconds are wall-clock time; memory is in GiB.
    """
    report: dict[str, Any] = {}
    start = time.monotonic()
    yield report
    import torch

    seconds = time.monotonic() - start
    report |= {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    if torch.cuda.is_available():
        report["peak_device_memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    write_json(path, report)
