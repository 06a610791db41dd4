"""Add labelled rows in the languages that train lacks, and every query in the pivot language, by translation.

Reads build/split/TASK, the translation memory and translate of params.yaml; writes train, validation, dev and test to
build/translate/TASK, and what engines said of it to memory/TASK.csv, from where the next run and colleagues take them.
Asks engines only for what no memory has, and those on the network only if translate.allow_network is true.
"""

from __future__ import annotations

import functools
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.rows.table import read_table, write_table
from babelcart.translation import augment, engines, translation_memory

SCRATCH = Path(".scratch")


@cli.command
@cli.task
def main(task: str) -> None:
    import pandas as pd
    from tqdm import tqdm

    settings = config.load_section(augment.Translate)
    shared = Path(f"memory/{task}.csv")
    folder = Path("build/split") / task
    parts = {name: read_table(folder / f"{name}.parquet", "group", labelled=True) for name in ("train", "validation")}
    parts |= {name: read_table(folder / f"{name}.parquet") for name in ("dev", "test")}
    with translation_memory.Memory(SCRATCH / "memory.sqlite") as store:
        sources = [augment.Source(translation_memory.GIVEN, store.import_file(Path(settings.memory)))]
        if shared.exists():
            store.import_file(shared)
        for name in settings.chain:
            engine = engines.build(name, settings.engines[name], SCRATCH, settings.network.timeout, settings.local_model)
            sources.append(augment.Source(name, engine.version, engine))
        progress = functools.partial(tqdm, unit="text", disable=None)
        known = augment.shared_words(pd.concat(parts.values()))
        translator = augment.Translator(store, sources, settings, known, progress)
        made, counts = augment.add_translations(parts, getattr(settings, task), settings, translator)
    for name, rows in made.items():
        write_table(Path(f"build/translate/{task}/{name}.parquet"), rows)
    translation_memory.write_csv(shared, sorted(entry for entry in translator.used if entry.engine != translation_memory.GIVEN))
    write_json(Path(f"metrics/translate/{task}.json"), counts)
    asked = ", ".join(f"{number} of {name}" for name, number in translator.asked.items()) or "nothing"
    click.echo(f"{len(translator.used)} translations used; asked: {asked}")


if __name__ == "__main__":
    main()
