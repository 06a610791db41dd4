"""Fail if dvc.lock is behind: if a stage's command, code, settings or data are not those that it was last run with.

Not a stage. Needs neither data nor cache, so it works in a fresh clone. (`dvc repro --dry --allow-missing` ends with 0 although
stages would run, and `dvc status` lists what is merely absent.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from babelcart.commands import cli, lock
from babelcart.errors import UserError


@cli.command
def main() -> None:
    locked = Path("dvc.lock")
    done = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc status: {done.stderr.strip()}")
    status = json.loads(done.stdout)
    # What DVC keeps in its cache, git ignores.
    gone = "\0".join(lock.missing_outs(status))
    ignored = subprocess.run(["git", "check-ignore", "-z", "--stdin"], input=gone, capture_output=True, text=True).stdout.split("\0")
    found = lock.behind(
        status,
        lock.read(locked.read_text(encoding="utf-8")) if locked.exists() else {},
        {name: lock.read_tracked(Path(name).read_text(encoding="utf-8"), name) for name in status if name.endswith(".dvc")},
        [path for path in ignored if path],
    )
    if found:
        raise UserError("dvc.lock is behind; run `dvc repro`, commit what it changes, `dvc push`\n  " + "\n  ".join(found))
    click.echo("dvc.lock is current: no stage would run")
