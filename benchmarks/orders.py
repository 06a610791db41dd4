"""Compare orders of query and candidate in the prompt, and ways to draw rows into steps: AUC on held-out queries, tokens and speed.

    python benchmarks/orders.py --seeds 5 --out orders.json                               # the rows of build/negatives/qc.parquet
    python benchmarks/orders.py --data FOLDER/qc.csv --rows 6000 --seeds 5 --out orders.json

For each seed, the rows are divided anew into training rows and held-out rows (no query is in both), and each setting is trained on the
same training rows with the settings of params.yaml. Differences are paired by seed. --out keeps the result of every run, and runs that
it already contains are skipped, so that a study can be continued and extended.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import sides
from scipy import stats
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.core.tasks import TASKS
from babelcart.model import loading, scoring
from babelcart.model.workload import scoring_workload
from babelcart.training import loop

# Settings by name: what is first in the prompt, and train.group_by.
SETTINGS = {
    "query first, by query": ("query", "query"),
    "candidate first, by query": ("candidate", "query"),
    "candidate first, by candidate": ("candidate", "candidate"),
    "candidate first, neighbours": ("candidate", "neighbours"),
    "candidate first, single rows": ("candidate", "none"),
}


@dataclass(frozen=True)
class Run:
    """One training run and its evaluation.

    Attributes
    ----------
    data, task, setting : str
        The file, the task and the key of `SETTINGS`.
    rows, seed : int
        Rows trained on, and the seed of the division of the rows and of the training.
    auc : float
        On held-out rows.
    train_tokens, score_tokens : float
        Computed tokens of a row.
    train_rows, score_rows : float
        Rows per second. Runs of one invocation can be compared, if the machine runs nothing else.
    """

    data: str
    task: str
    setting: str
    rows: int
    seed: int
    auc: float
    train_tokens: float
    score_tokens: float
    train_rows: float
    score_rows: float


def run(data: Path, task: str, setting: str, rows: int, held: int, seed: int) -> Run:
    """Train one setting and score the held-out rows."""
    first, group_by = SETTINGS[setting]
    model_settings, tokenizer = sides.load(task, first)
    train, held_out = sides.read_rows(data, rows, held, seed)
    changes = {"group_by": group_by, "seed": seed, "eval_steps": None, "max_rows": rows, "epochs": 1}
    settings = replace(config.load_section(loop.TrainSettings), **changes)  # type: ignore[arg-type]
    model = loading.add_adapter(loading.load_base(sides.BASE, model_settings), model_settings, seed)
    examples = loop.LabelledRows(tokenizer.encode_table(train), train["label"].astype(int).tolist())
    start = time.perf_counter()
    history = loop.Trainer(model, model_settings, examples, tokenizer.labels, settings).train()
    trained = time.perf_counter()
    encoded, predict = tokenizer.encode_table(held_out), config.load_section(scoring.Predict)
    probability = scoring.score(model, encoded, tokenizer.labels, predict)
    scored = time.perf_counter()
    return Run(
        data.name, task, setting, rows, seed,
        float(roc_auc_score(held_out["label"].astype(int), probability)),
        history.tokens / history.rows, scoring_workload([encoded], predict).tokens_per_row,
        history.rows / (trained - start), len(encoded) / (scored - trained),
    )  # fmt: skip


def interval(differences: list[float], confidence: float = 0.9) -> tuple[float, float]:
    """Student's interval of the mean of paired differences."""
    mean, error = float(np.mean(differences)), stats.sem(differences)
    width = float(stats.t.ppf((1 + confidence) / 2, len(differences) - 1) * error)
    return mean - width, mean + width


def table(runs: list[Run], reference: str) -> str:
    """Format the runs of one file and task as a Markdown table; differences are those to the setting `reference`."""
    by_setting = {name: {run.seed: run for run in runs if run.setting == name} for name in SETTINGS}
    lines = [
        "| setting | seeds | AUC | difference, 90 % interval | tokens a row: training, scoring | rows/s: training, scoring |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in by_setting.items():
        if not by_seed:
            continue
        common = [seed for seed in by_seed if seed in by_setting[reference]]
        differences = [by_seed[seed].auc - by_setting[reference][seed].auc for seed in common]
        difference = "{:+.3f} to {:+.3f}".format(*interval(differences)) if name != reference and len(common) > 1 else ""
        means = {key: np.mean([getattr(run, key) for run in by_seed.values()]) for key in ("auc", "train_tokens", "score_tokens")}
        speeds = [np.median([getattr(run, key) for run in by_seed.values()]) for key in ("train_rows", "score_rows")]
        lines.append(
            f"| {name} | {len(by_seed)} | {means['auc']:.3f} | {difference} | {means['train_tokens']:.1f}, {means['score_tokens']:.1f} | "
            f"{speeds[0]:.1f}, {speeds[1]:.1f} |"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt.")
@click.option("--rows", default=6000, show_default=True, help="Approximate number of rows to train on.")
@click.option("--held", default=2000, show_default=True, help="Approximate number of held-out rows.")
@click.option("--seeds", default=5, show_default=True, help="Number of seeds: 0, 1, 2 ...")
@click.option("--setting", "settings", multiple=True, type=click.Choice(list(SETTINGS)), help="Run only this setting; repeatable.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="JSON file with the result of every run.")
def main(data: Path, task: str, rows: int, held: int, seeds: int, settings: tuple[str, ...], out: Path) -> None:
    runs = [Run(**entry) for entry in json.loads(out.read_text(encoding="utf-8"))] if out.exists() else []
    names = settings or tuple(SETTINGS)
    chosen = [entry for entry in runs if (entry.data, entry.task, entry.rows) == (data.name, task, rows)]
    done = {(entry.setting, entry.seed) for entry in chosen}
    planned = [(name, seed) for seed in range(seeds) for name in names if (name, seed) not in done]
    for name, seed in tqdm(planned, desc="runs", unit="run", disable=None):
        chosen.append(run(data, task, name, rows, held, seed))
        runs.append(chosen[-1])
        write_json(out, [asdict(entry) for entry in runs])
    print(table(chosen, names[0]))


if __name__ == "__main__":
    main()
