"""Put right what a kill or a bad disk left of DVC's own files; ``dvc repro`` then makes again what is missing. Not a stage.

A ``dvc`` that is killed while it writes leaves dvc.lock or .dvc/tmp/rwlock cut short, and then refuses to start: the one comes back
from git, the other is removed. An object of the cache with other content than its name says, which DVC would take for whole,
is removed with its copy in the workspace.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.errors import UserError
from babelcart.files import write_text

LOCK, BUSY = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def is_lock(text: str) -> bool:
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
            raise UserError(f"{LOCK} holds both sides of a merge: `git checkout --theirs {LOCK}` (or --ours), then `dvc repro`")
        known = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, text=True).stdout
        if whole := is_lock(known):
            write_text(LOCK, known)
        else:
            LOCK.unlink()
        click.echo(f"{LOCK} was cut short: {'taken from git' if whole else 'removed'}; what ran since comes from the cache")
    if BUSY.exists():
        try:
            json.loads(BUSY.read_text(encoding="utf-8"))
        except ValueError:
            BUSY.unlink()
            click.echo(f"{BUSY} was cut short: removed")
    with objects.hashed_anew() as repo:
        for name in objects.remove_damaged(repo):
            click.echo(f"{name} had other content than its hash says: removed")
