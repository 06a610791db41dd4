"""Pull outputs from the DVC remote and verify them.

Works like `dvc pull`, but hashes every fetched file and refuses directory listings and links that lead out of the workspace. Pulls
TARGETS, or all shared outputs if none are given.

With --listings, fetch only the directory listings, so that DVC can pull the files itself when it needs them:

\b
    babelcart pull --listings && dvc repro --pull --allow-missing evaluate
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError


@cli.command
@click.argument("targets", nargs=-1)
@click.option("--listings", is_flag=True, help="Fetch and verify only the directory listings.")
def main(targets: tuple[str, ...], listings: bool) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from babelcart.commands import checks, objects

    with Repo() as repo:
        # By default, DVC does not hash the files that it fetches.
        for remote in repo.config["remote"].values():
            remote["verify"] = True
        outs = objects.outputs(repo)
        for path, target in checks.outside([Path(out.fs_path) for out in outs], (Path(repo.root_dir), Path(repo.cache.local.path))):
            raise UserError(f"{path} leads out of the workspace, to {target}; nothing was pulled")
        objects.fetch_listings(repo)
        if listings:
            return
        paths = targets or [out.fs_path for out in outs if out.can_push and objects.remote_of(repo, out)]
        try:
            fetched = repo.pull(paths)["stats"]["fetched"] if paths else 0
        except DvcException as error:
            raise UserError(f"{error}\n`babelcart verify --contents` names the files that are missing or damaged on the remote") from error
        click.echo(f"{fetched} files fetched")
