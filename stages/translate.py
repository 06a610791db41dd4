"""Add translated copies of labelled rows in the languages that train lacks, and every query in the pivot language.

Reads build/split/TASK, the translation memory, and the section translate of params.yaml. Writes train, validation, dev and test to
build/translate/TASK, and the answers of engines to memory/TASK.csv, so that later runs and colleagues reuse them. Engines are asked only
for texts that no memory has, and engines on the network only if translate.allow_network is true.
"""

from __future__ import annotations

import functools
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import write_json
from babelcart.rows.table import read_table, write_table
from babelcart.translation import augment, engines, memory_files
from babelcart.translation.meaning import MeaningCheck
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import Memory
from babelcart.translation.translator import Source, Translator

SCRATCH = Path(".scratch")


@cli.command
@cli.task
def main(task: str) -> None:
    import pandas as pd
    from tqdm import tqdm

    settings = config.load_section(TranslateSettings)
    shared_memory = Path(f"memory/{task}.csv")
    folder = Path("build/split") / task
    parts = {name: read_table(folder / f"{name}.parquet", "group", labelled=True) for name in ("train", "validation")}
    parts |= {name: read_table(folder / f"{name}.parquet") for name in ("dev", "test")}
    with Memory(SCRATCH / "memory.sqlite") as memory:
        sources = [Source(memory_files.GIVEN, memory.import_file(Path(settings.memory)))]
        if shared_memory.exists():
            memory.import_file(shared_memory)
        for name in settings.chain:
            engine = engines.build(name, settings.engines[name], SCRATCH, settings.network.timeout, settings.local_model)
            sources.append(Source(name, engine.version, engine))
        progress = functools.partial(tqdm, unit="text", disable=None)
        shared_words = augment.shared_words(pd.concat(parts.values()))
        meaning = MeaningCheck.from_settings(settings.min_similarity, SCRATCH, progress) if settings.chain else None
        translator = Translator(memory, sources, settings, shared_words, progress, meaning)
        extended, counts = augment.add_translations(parts, getattr(settings, task), settings, translator)
    for name, rows in extended.items():
        write_table(Path(f"build/translate/{task}/{name}.parquet"), rows)
    memory_files.write_csv(shared_memory, sorted(entry for entry in translator.used if entry.engine != memory_files.GIVEN))
    write_json(Path(f"metrics/translate/{task}.json"), counts)
    answers = ", ".join(f"{count} from {name}" for name, count in translator.answer_counts.items()) or "none"
    click.echo(f"{len(translator.used)} translations used; new answers of engines: {answers}")


if __name__ == "__main__":
    main()
