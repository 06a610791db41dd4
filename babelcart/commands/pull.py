"""Pull as `dvc pull` does, and trust nothing that comes: contents are hashed, and no listing may lead out of the workspace.

Not a stage. All outputs that are shared, or those named; ``--listings`` fetches only the lists of files, for what DVC pulls later itself:
``python -m stages.pull --listings && dvc repro --pull --allow-missing evaluate``.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.errors import UserError


@cli.command
@click.argument("targets", nargs=-1)
@click.option("--listings", is_flag=True, help="Fetch and check the lists of files, and nothing else.")
def main(targets: tuple[str, ...], listings: bool) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from babelcart.commands import checks, objects

    with Repo() as repo:
        # DVC hashes what it fetches only if it is told to.
        for remote in repo.config["remote"].values():
            remote["verify"] = True
        outs = objects.outputs(repo)
        for path, target in checks.outside([Path(out.fs_path) for out in outs], (Path(repo.root_dir), Path(repo.cache.local.path))):
            raise UserError(f"{path} leads out of the workspace, to {target}; nothing was pulled")
        objects.fetch_listings(repo)
        if listings:
            return
        wanted = targets or [out.fs_path for out in outs if out.can_push and objects.remote_of(repo, out)]
        try:
            fetched = repo.pull(wanted)["stats"]["fetched"] if wanted else 0
        except DvcException as error:
            raise UserError(f"{error}\n`python -m stages.verify --contents` names what the remote lacks or has in other content") from error
        click.echo(f"{fetched} files fetched")
