"""Record the curves of a training run with DVCLive. `dvc plots show` draws them during and after the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def record_curves(folder: Path) -> Iterator[Log]:
    """Yield a function that appends the figures of a step to the curves in `folder`. Curves of an earlier run are deleted."""
    from dvclive.live import Live

    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:

        def log(step: int, figures: Mapping[str, float]) -> None:
            live.step = step
            for name, figure in figures.items():
                live.log_metric(name, round(figure, 6))

        yield log
    # DVCLive's summary of the last step is not a curve, but `dvc plots` would draw it.
    (folder / "metrics.json").unlink()
