"""List, import, export and delete entries of the translation memory.

The memory is an SQLite file on this machine. Imported and exported files are TMX if their name ends with .tmx, otherwise CSV with the
columns engine, version, source, target, text and translation.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError, printable
from babelcart.translation import memory_files, translation_memory

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=cli.Group, help=__doc__)
@click.option("--store", type=FILE, default=Path(".scratch/memory.sqlite"), show_default=True, help="SQLite file that holds the memory.")
@click.pass_context
def main(context: click.Context, store: Path) -> None:
    context.obj = context.with_resource(translation_memory.Memory(store))


@main.command("list", help="Count the entries by engine, version and language pair.")
@click.pass_obj
def list_(store: translation_memory.Memory) -> None:
    lines = [f"{engine}\t{version}\t{source}-{target}\t{entry_count}" for engine, version, source, target, entry_count in store.counts()]
    click.echo(printable("\n".join(lines)))


@main.command("import", help="Merge FILES into the memory. If a text has two translations, the one that sorts first is kept.")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.pass_obj
def import_(store: translation_memory.Memory, files: tuple[Path, ...]) -> None:
    for path in files:
        store.import_file(path)


@main.command(help="Write the sorted entries to PATH.")
@click.argument("path", type=FILE)
@click.option("--engine", help="Export only the entries of this engine.")
@click.pass_obj
def export(store: translation_memory.Memory, path: Path, engine: str | None) -> None:
    click.echo(f"{memory_files.write_file(path, store.entries(engine))} entries")


@main.command(help="Delete the entries of ENGINE.")
@click.argument("engine")
@click.option("--version", help="Delete only the entries of this version of the engine.")
@click.pass_obj
def delete(store: translation_memory.Memory, engine: str, version: str | None) -> None:
    deleted = store.delete(engine, version)
    if not deleted:
        of_version = f" in version {version!r}" if version is not None else ""
        raise UserError(f"the memory has no entries of {engine!r}{of_version}; `babelcart memory list` lists engines and versions")
    click.echo(f"{deleted} entries deleted")
