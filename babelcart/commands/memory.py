"""Look after the translation memory of this machine: list, import, export, merge, delete.

Not a stage. Files are CSV (engine, version, source, target, text, translation) or, by their ending, TMX.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart import memory
from babelcart.commands import cli
from babelcart.errors import UserError, printable

file = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=cli.Group, help=__doc__)
@click.option("--store", type=file, default=Path(".scratch/memory.sqlite"), show_default=True)
@click.pass_context
def main(context: click.Context, store: Path) -> None:
    context.obj = context.with_resource(memory.Memory(store))


@main.command("list", help="Entries by engine, version and direction.")
@click.pass_obj
def list_(store: memory.Memory) -> None:
    click.echo(printable("\n".join(f"{engine}\t{version}\t{a}-{b}\t{count}" for engine, version, a, b, count in store.counts())))


@main.command("import", help="Merge files into the memory; where both know a text, the translation that sorts first stays.")
@click.argument("files", nargs=-1, required=True, type=file)
@click.pass_obj
def import_(store: memory.Memory, files: tuple[Path, ...]) -> None:
    for path in files:
        store.import_file(path)


@main.command(help="Write all entries, or an engine's, in a fixed order.")
@click.argument("path", type=file)
@click.option("--engine")
@click.pass_obj
def export(store: memory.Memory, path: Path, engine: str | None) -> None:
    write = memory.write_tmx if path.suffix == ".tmx" else memory.write_csv
    click.echo(f"{write(path, store.entries(engine))} entries")


@main.command(help="Forget what an engine said, or one version of it.")
@click.argument("engine")
@click.option("--version")
@click.pass_obj
def delete(store: memory.Memory, engine: str, version: str | None) -> None:
    if not (removed := store.delete(engine, version)):
        raise UserError(f"no entries of {engine!r}; `list` shows what there is")
    click.echo(f"{removed} entries deleted")
