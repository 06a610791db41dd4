"""Measure how many answers the attacks flip, and how many neutral texts of the same length flip.

Reads build/attack/MODEL/TASK.parquet, the thresholds in metrics/MODEL/TASK.json, and the section evaluate of params.yaml (draws and seed).
Writes metrics/MODEL/TASK_attacks.json, which `babelcart results --attacks` prints. Does not import torch.
"""

from __future__ import annotations

from pathlib import Path

from babelcart import resist
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json, write_json
from babelcart.rows.table import read_table
from babelcart.scores import metrics


@cli.command
@cli.task
@cli.model
def main(task: str, model: str) -> None:
    settings, folder = config.load_section(metrics.Evaluate), Path("metrics") / model
    decision = metrics.Decision.from_scores(read_json(folder / f"{task}.json", metrics.SCORES))
    table = read_table(Path(f"build/attack/{model}/{task}.parquet"))
    write_json(folder / f"{task}_attacks.json", resist.flip_rates(table, decision, settings.bootstrap_draws, settings.seed))


if __name__ == "__main__":
    main()
