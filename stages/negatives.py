"""Add sampled negatives to a training set: easy, hard or both, until the labels are balanced as asked.

Reads build/translate/TASK/train.parquet and negatives of params.yaml; writes the training set to build/negatives/TASK.parquet, counts to
metrics/negatives/TASK.json and examples to build/negatives/TASK.examples.json. A known positive of a query, or of its
translations, is never sampled. Warns when sampled rows can be told from natural ones by what should not matter.
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
    if short := sampling.shortfall(counts, task, task_settings):
        click.echo(f"warning: {short}")
    training = pd.concat([rows, sampled], ignore_index=True).astype(rows.dtypes.to_dict())
    told = audit.shortcut_auc(rows[rows["label"] == 0], sampled)
    for name, found in told.items():
        if found["auc"] > audit.AUC_LIMIT:
            click.echo(
                f"warning: by the {name} alone, sampled negatives are told from natural ones: AUC {found['auc']:.2f}, {found['features']}"
            )
    counts |= audit.training_set_report(rows, sampled, vectors) | {"told_apart": {name: found["auc"] for name, found in told.items()}}
    write_table(Path(f"build/negatives/{task}.parquet"), training)
    write_json(Path(f"build/negatives/{task}.examples.json"), audit.example_rows(rows, sampled, vectors))
    write_json(Path(f"metrics/negatives/{task}.json"), counts)


if __name__ == "__main__":
    main()
