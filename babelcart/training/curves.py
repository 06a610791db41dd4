"""Record the curves of a training run with DVCLive. `dvc plots show` draws them during and after the run.

The figures are rounded here, once, so that all trackers (`babelcart.training.trackers`) show the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from babelcart.training.trackers import Log


@contextmanager
def record_curves(folder: Path, report: Log | None = None) -> Iterator[Log]:
    """Yield a function that appends the figures of a step to the curves in `folder`. Curves of an earlier run are deleted.

    Parameters
    ----------
    folder : Path
    report : callable, optional
        Called with each step and its figures, as they are in the curves.
    """
    from dvclive.live import Live

    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:

        def log(step: int, figures: Mapping[str, float]) -> None:
            rounded = {name: round(figure, 6) for name, figure in figures.items()}
            live.step = step
            for name, figure in rounded.items():
                live.log_metric(name, figure)
            if report:
                report(step, rounded)

        yield log
    # DVCLive's summary of the last step is not a curve, but `dvc plots` would draw it.
    (folder / "metrics.json").unlink()
