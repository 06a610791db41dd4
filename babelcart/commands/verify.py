"""Verify the cache, the workspace, the remote and the repository.

Recomputes every hash; does not rely on file sizes, modification times or DVC's own records. Also reports links that lead out of the
workspace, secrets in git, and a DVC cache that other users can write to. Exits with 1 if there is any problem. Outputs that have not been
pulled are listed, but are not a problem.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import printable


def _report(check: str, problems: Iterable[str]) -> int:
    """Print the outcome of one check; returns the number of problems."""
    messages = list(problems)
    click.echo(printable("\n  ".join((f"{'FAILED' if messages else 'ok':8}{check}", *messages))))
    return len(messages)


@cli.command
@click.option("--contents", is_flag=True, help="Also download and hash every object on the remote.")
@click.option("--offline", is_flag=True, help="Skip the checks of the remote.")
def main(contents: bool, offline: bool) -> None:
    from dvc.dirs import site_cache_dir
    from dvc.repo import Repo

    from babelcart.commands import checks, objects

    with Repo() as repo:
        site_cache = Path(site_cache_dir(repo.config["core"].get("site_cache_dir")))
    tracked = [Path(name) for name in subprocess.check_output(["git", "ls-files", "-z"], text=True).split("\0")[:-1]]
    with objects.fresh_repo() as repo:
        changes, absent = objects.changed(repo)
        paths = [*(path for path in tracked if path.is_symlink()), *(Path(out.fs_path) for out in objects.outputs(repo))]
        leaving = checks.outside(paths, (Path(repo.root_dir), Path(repo.cache.local.path)))
        writable = checks.writable_by_others(site_cache)
        problem_counts = [
            _report("cached files match their hashes", objects.damaged(repo)),
            _report("the workspace matches dvc.lock", changes),
            _report("no link leads out of the workspace", (f"{path} leads to {target}" for path, target in leaving)),
            _report("git contains no secrets", (f"{path}:{line}: {kind}" for path, line, kind in checks.secrets(tracked))),
            _report("no data of your own belongs to the sample's remote", checks.rows_on_shipped_remotes(Path(repo.root_dir))),
            _report("other users cannot write to DVC's cache", [f"any user can write to {writable}"] if writable else []),
            0 if offline else _report("the remote is complete", objects.lacking(repo, contents)),
        ]
    if absent:
        click.echo(printable(f"missing (`make pull` or `dvc repro` restores them): {', '.join(absent)}"))
    if sum(problem_counts):
        raise click.ClickException(f"{sum(problem_counts)} problems; docs/sharing.md explains how to fix each of them")
