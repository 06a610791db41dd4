"""Curves of a running training, written by DVCLive: `dvc plots show` draws them while it runs and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def record_curves(folder: Path) -> Iterator[Log]:
    """Give a function that adds a step's figures to the curves in `folder`, which starts empty."""
    from dvclive.live import Live

    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:

        def log(step: int, figures: Mapping[str, float]) -> None:
            live.step = step
            for name, value in figures.items():
                live.log_metric(name, round(value, 6))

        yield log
    # DVCLive's summary of the last step: not a curve, and `dvc plots` would take it for one.
    (folder / "metrics.json").unlink()
