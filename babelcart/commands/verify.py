"""Check what was pulled and what is shared; say what is wrong and end with 1 if anything is.

Not a stage. Everything is hashed anew: sizes, times and what DVC remembers prove nothing. ``--contents`` also reads all objects of the
remote; ``--offline`` asks no remote. An output that was not pulled is no fault.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.errors import printable


def _report(what: str, problems: Iterable[str]) -> int:
    found = list(problems)
    click.echo(printable("\n  ".join((f"{'FAILED' if found else 'ok':8}{what}", *found))))
    return len(found)


@cli.command
@click.option("--contents", is_flag=True, help="Read and hash every object of the remote.")
@click.option("--offline", is_flag=True, help="Do not ask the remote.")
def main(contents: bool, offline: bool) -> None:
    from dvc.dirs import site_cache_dir
    from dvc.repo import Repo

    from babelcart.commands import checks, objects

    with Repo() as repo:
        memory = Path(site_cache_dir(repo.config["core"].get("site_cache_dir")))
    tracked = [Path(name) for name in subprocess.check_output(["git", "ls-files", "-z"], text=True).split("\0")[:-1]]
    with objects.hashed_anew() as repo:
        changes, absent = objects.changed(repo)
        places = [*(path for path in tracked if path.is_symlink()), *(Path(out.fs_path) for out in objects.outputs(repo))]
        leading = checks.outside(places, (Path(repo.root_dir), Path(repo.cache.local.path)))
        open_to = checks.writable_by_others(memory)
        failures = [
            _report("the cache has what its names say", objects.damaged(repo)),
            _report("the workspace is what dvc.lock says", changes),
            _report("nothing leads out of the workspace", (f"{path} leads to {target}" for path, target in leading)),
            _report("git holds no secrets", (f"{path}:{number}: {kind}" for path, number, kind in checks.secrets(tracked))),
            _report("DVC's own cache is closed to others", [f"any user may change {open_to}"] if open_to else []),
            0 if offline else _report("the remote is complete", objects.lacking(repo, contents)),
        ]
    if absent:
        click.echo(printable(f"not here (`make pull`, or `dvc repro`): {', '.join(absent)}"))
    if sum(failures):
        raise click.ClickException(f"{sum(failures)} problems; docs/sharing.md says what to do about each")
