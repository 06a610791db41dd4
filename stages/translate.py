"""Add labelled rows in the languages that train lacks, by translating queries.

Reads build/split/TASK, the translation memory and translate of params.yaml; writes train and validation, each with its
own translated copies, to build/translate/TASK. Asks a translation engine only if translate.allow_network is true; what is
missing is left out and counted in metrics/translate/TASK.json.
"""

from __future__ import annotations

import functools
from pathlib import Path

from babelcart import config, translation
from babelcart.files import read_table, write_json, write_table
from babelcart.text import normalise
from stages import cli


@cli.command
@cli.task
def main(task: str) -> None:
    import pandas as pd
    from tqdm import tqdm

    settings = config.load("translate", translation.Translate)
    source, out = Path(f"build/split/{task}"), Path(f"build/translate/{task}")
    parts = {name: read_table(source / f"{name}.parquet") for name in ("train", "validation", "dev", "test")}
    targets = settings.target_languages
    if targets is None:
        asked = parts["dev"] if len(parts["dev"]) else parts["test"]
        targets = tuple(sorted(set(asked["language"]) - set(parts["train"]["language"])))
    memory = translation.read_memory(Path(settings.memory))
    engine = translation.engine(settings.engine) if settings.allow_network else None
    held_out = {normalise(query) for name in ("validation", "dev", "test") for query in parts[name]["origin_query"]}
    counts = {}
    # Validation first: what train is given must not be one of its copies either.
    for name in ("validation", "train"):
        native = parts[name].assign(source_id="", source_language="", origin="native")
        progress = functools.partial(tqdm, desc=f"translate {name}", unit="query", disable=None)
        avoid = held_out if name == "train" else ()
        copies, counts[name] = translation.expand(native, targets, settings, memory, engine, avoid, progress)
        held_out |= {normalise(query) for query in copies["origin_query"]}
        write_table(out / f"{name}.parquet", pd.concat([native, copies], ignore_index=True).astype(native.dtypes.to_dict()))
    write_json(Path(f"metrics/translate/{task}.json"), counts)


if __name__ == "__main__":
    main()
