"""List, import, export and delete entries of the translation memory.

The memory is an SQLite file on this machine. Imported and exported files are TMX if their name ends with .tmx, otherwise CSV with the
columns engine, version, source, target, text and translation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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


@main.command(help="Delete the entries of ENGINE, or those that match --pattern, such as notices of a server.")
@click.argument("engine", required=False)
@click.option("--version", help="Delete only the entries of this version of the engine.")
@click.option("--pattern", help="Regular expression: delete the entries whose translation contains it, here and in memory/*.csv.")
@click.option("--dry-run", is_flag=True, help="Print the entries that --pattern matches, and delete nothing.")
@click.pass_obj
def delete(store: translation_memory.Memory, engine: str | None, version: str | None, pattern: str | None, dry_run: bool) -> None:
    if pattern is not None:
        _delete_matching(store, _matcher(pattern, engine, version), dry_run)
        return
    if engine is None or dry_run:
        raise UserError("name an ENGINE, or give --pattern, alone or with --dry-run")
    deleted = store.delete(engine, version)
    if not deleted:
        of_version = f" in version {version!r}" if version is not None else ""
        raise UserError(f"the memory has no entries of {engine!r}{of_version}; `babelcart memory list` lists engines and versions")
    click.echo(f"{deleted} entries deleted")


def _matcher(pattern: str, engine: str | None, version: str | None) -> Callable[[memory_files.Entry], bool]:
    """Return whether an entry is of the engine and version, if they are given, and its translation contains the pattern."""
    try:
        expression = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"--pattern is {pattern!r}, which is not a regular expression: {error}") from error
    return lambda entry: engine in (None, entry.engine) and version in (None, entry.version) and bool(expression.search(entry.translation))


def _delete_matching(store: translation_memory.Memory, matches: Callable[[memory_files.Entry], bool], dry_run: bool) -> None:
    """Delete entries from the store and from the files that `dvc repro` would import again; print them if `dry_run`."""
    files = sorted(Path("memory").glob("*.csv"))
    entries = {entry for entry in store.entries() if matches(entry)}
    entries |= {entry for path in files for entry in memory_files.read_file(path) if matches(entry)}
    if not entries:
        raise UserError("no entry of the memory matches; nothing was deleted")
    if dry_run:
        for entry in sorted(entries):
            click.echo(printable("\t".join(entry)))
        click.echo(f"{len(entries)} entries would be deleted")
        return
    store.remove_entries(entries)
    for path in files:
        all_entries = list(memory_files.read_file(path))
        kept = [entry for entry in all_entries if entry not in entries]
        if len(kept) < len(all_entries):
            memory_files.write_file(path, kept)
    click.echo(f"{len(entries)} entries deleted; the next `dvc repro` asks the engines again")
    if given := sum(entry.engine == memory_files.GIVEN for entry in entries):
        click.echo(f"{given} of them come from files of your own, such as translate.memory; delete them there, or they are read again")
