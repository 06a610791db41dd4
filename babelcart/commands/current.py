"""Fail if dvc.lock is out of date.

It is out of date if the command, code, settings or data of any stage differ from those of its last run. Needs neither the data nor the
cache, so it works in a fresh clone. (`dvc repro --dry --allow-missing` exits with 0 even if stages would run, and `dvc status` also lists
files that are only missing.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from babelcart.commands import cli, lock
from babelcart.core.errors import UserError


def changes(*stages: str) -> list[str]:
    """List what has changed since the stages ran, one line each; all stages if none is named.

    Raises
    ------
    UserError
        If DVC cannot read the project.
    """
    lock_file = Path("dvc.lock")
    completed = subprocess.run([sys.executable, "-m", "dvc", "status", "--json", *stages], capture_output=True, text=True)
    if completed.returncode:
        raise UserError(f"dvc status: {completed.stderr.strip()}")
    status = json.loads(completed.stdout)
    # git ignores the outputs that DVC caches; these may be missing.
    missing = "\0".join(lock.missing_outs(status))
    ignored = subprocess.run(["git", "check-ignore", "-z", "--stdin"], input=missing, capture_output=True, text=True).stdout.split("\0")
    return lock.behind(
        status,
        lock.read(lock_file.read_text(encoding="utf-8")) if lock_file.exists() else {},
        {name: lock.read_tracked(Path(name).read_text(encoding="utf-8"), name) for name in status if name.endswith(".dvc")},
        [path for path in ignored if path],
    )


@cli.command
def main() -> None:
    if found := changes():
        raise UserError("dvc.lock is out of date; run `dvc repro`, commit the changes, and run `dvc push`\n  " + "\n  ".join(found))
    click.echo("dvc.lock is up to date: no stage would run")
