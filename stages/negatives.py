"""Add sampled negatives, easy, hard or both, to the training set.

Reads build/translate/TASK/train.parquet and the section negatives of params.yaml. Writes the training set to build/negatives/TASK.parquet,
examples to build/negatives/TASK.examples.json and counts to metrics/negatives/TASK.json. A candidate that is a known positive of a query,
or of its translations, is never sampled. The stage warns if a classifier can distinguish sampled from natural negatives.
"""

from __future__ import annotations

import functools
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.embedding import similarity
from babelcart.negatives import audit, sampling
from babelcart.rows.table import read_table, write_table

SCRATCH = Path(".scratch")


@cli.command
@cli.task
def main(task: str) -> None:
    import pandas as pd
    from tqdm import tqdm

    settings = config.load_section(sampling.NegativesSettings)
    task_settings = getattr(settings, task)
    rows = read_table(Path(f"build/translate/{task}/train.parquet"), "group", "origin", labelled=True)
    vectors = None
    if sampling.negatives_needed(rows, task_settings) != 0:
        vectors = similarity.embed_rows(
            rows,
            settings.encoder,
            SCRATCH,
            local_model=settings.local_model,
            neighbours=task_settings.neighbours,
            exact_limit=settings.exact_limit,
            progress=functools.partial(tqdm, unit="batch", disable=None),
        )
    sampled, counts = sampling.sample_negatives(rows, task, task_settings, settings.seed, vectors)
    shortcuts = audit.shortcut_auc(rows[rows["label"] == 0], sampled)
    if len(sampled) and not shortcuts:
        click.echo(f"shortcuts were not measured: this needs {audit.MIN_ROWS} natural and sampled negatives, of {audit.FOLDS} queries")
    for warning in filter(None, (sampling.shortfall(counts, task, task_settings), *audit.shortcut_warnings(shortcuts))):
        click.echo(f"warning: {warning}")
    counts |= audit.training_set_report(rows, sampled, vectors)
    counts["told_apart"] = {name: shortcut["auc"] for name, shortcut in shortcuts.items()}
    training = pd.concat([rows, sampled], ignore_index=True)
    write_table(Path(f"build/negatives/{task}.parquet"), training.astype(rows.dtypes.to_dict()))
    write_json(Path(f"build/negatives/{task}.examples.json"), audit.example_rows(rows, sampled, vectors))
    write_json(Path(f"metrics/negatives/{task}.json"), counts)


if __name__ == "__main__":
    main()
