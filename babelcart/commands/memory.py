"""List, import, export and delete entries of the translation memory.

The memory is an SQLite file of this machine. Files are CSV with the columns engine, version, source, target, text and translation, or TMX
if their name ends with .tmx.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError, printable
from babelcart.translation import translation_memory

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=cli.Group, help=__doc__)
@click.option("--store", type=FILE, default=Path(".scratch/memory.sqlite"), show_default=True, help="SQLite file of the memory.")
@click.pass_context
def main(context: click.Context, store: Path) -> None:
    context.obj = context.with_resource(translation_memory.Memory(store))


@main.command("list", help="Count the entries by engine, version and language pair.")
@click.pass_obj
def list_(store: translation_memory.Memory) -> None:
    lines = [f"{engine}\t{version}\t{source}-{target}\t{count}" for engine, version, source, target, count in store.counts()]
    click.echo(printable("\n".join(lines)))


@main.command("import", help="Merge FILES into the memory. Of two translations of a text, the first in sort order is kept.")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.pass_obj
def import_(store: translation_memory.Memory, files: tuple[Path, ...]) -> None:
    for path in files:
        store.import_file(path)


@main.command(help="Write the entries to PATH, sorted.")
@click.argument("path", type=FILE)
@click.option("--engine", help="Export only the entries of this engine.")
@click.pass_obj
def export(store: translation_memory.Memory, path: Path, engine: str | None) -> None:
    write = translation_memory.write_tmx if path.suffix == ".tmx" else translation_memory.write_csv
    click.echo(f"{write(path, store.entries(engine))} entries")


@main.command(help="Delete the entries of ENGINE.")
@click.argument("engine")
@click.option("--version", help="Delete only the entries of this version of the engine.")
@click.pass_obj
def delete(store: translation_memory.Memory, engine: str, version: str | None) -> None:
    if not (removed := store.delete(engine, version)):
        raise UserError(f"no entries of {engine!r}; `babelcart memory list` lists the engines")
    click.echo(f"{removed} entries deleted")
