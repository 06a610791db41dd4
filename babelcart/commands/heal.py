"""Repair DVC's files after a crash or disk failure.

If `dvc` is killed while it writes dvc.lock or .dvc/tmp/rwlock, the file may be truncated, and DVC refuses to start. This command restores
dvc.lock from git and removes a truncated rwlock. It also removes cached objects whose content does not match their hash, which DVC would
use as they are, and their copies in the workspace. Run `dvc repro` afterwards to restore the removed files.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError
from babelcart.core.files import write_text

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def is_lock(text: str) -> bool:
    """Return whether DVC accepts a text as a dvc.lock."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        return bool(COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text)))
    except (YAMLError, Invalid):
        return False


@cli.command
def main() -> None:
    from babelcart.commands import objects

    if LOCK.exists() and not is_lock(text := LOCK.read_text(encoding="utf-8", errors="replace")):
        if "\n<<<<<<< " in text:
            raise UserError(f"{LOCK} contains both sides of a merge: run `git checkout --theirs {LOCK}` (or --ours), then `dvc repro`")
        committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, text=True).stdout
        if valid := is_lock(committed):
            write_text(LOCK, committed)
        else:
            LOCK.unlink()
        outcome = "restored from git" if valid else "removed"
        click.echo(f"{LOCK} was truncated: {outcome}; `dvc repro` takes the results of later runs from the cache")
    if RWLOCK.exists():
        try:
            json.loads(RWLOCK.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            RWLOCK.unlink()
            click.echo(f"{RWLOCK} was truncated: removed")
    with objects.fresh_repo() as repo:
        for name in objects.remove_damaged(repo):
            click.echo(f"{name} did not match its hash: removed")
