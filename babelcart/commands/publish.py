"""Publish an adapter or a merged model on the Hugging Face hub.

Without --upload, the command is a dry run: it checks and lists the files with their sizes, and sends nothing. With --upload, it sends the
files in one commit to the repository of --to, which is created if it does not exist. The upload needs `hf auth login` or HF_TOKEN.

The command refuses a model that differs from dvc.lock or the last commit, files that contain secrets, rows of the data or paths of this
machine, and a base model without a licence file. docs/publishing.md describes the checks.

Example: babelcart publish --task qc --model gemma3-270m --to hf:my-name/shop-queries --merge
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart.commands import checks, cli, current, export, lock
from babelcart.core import graph
from babelcart.core.errors import UserError, printable
from babelcart.core.files import temporary_folder

if TYPE_CHECKING:
    from babelcart.export import Dtype


def _folder_md5(folder: Path) -> str:
    """Return the hash by which dvc.lock knows a folder. The files are read: DVC itself trusts sizes and times of files it has hashed."""
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).parts)
    listing = [{"md5": checks.file_md5(path), "relpath": path.relative_to(folder).as_posix()} for path in paths]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def revision(task: str, model: str) -> tuple[str, str]:
    """Return the git commit that the model is reproduced from, and the hash of its adapter in dvc.lock.

    Raises
    ------
    UserError
        If the model, its scores or its card are not those of dvc.lock, or if dvc.lock, settings or code are not committed.
    """
    adapter = f"models/{model}/{task}"
    needed = [adapter, f"{adapter}.md", f"metrics/{model}/{task}.json", f"predictions/{model}/{task}", f"models/{model}/base"]
    lock_file = Path("dvc.lock")
    locked = lock.read(lock_file.read_text(encoding="utf-8")) if lock_file.exists() else {}
    written_by = {out["path"]: (stage, out["md5"]) for stage, entry in locked.items() for out in entry.get("outs", [])}
    for path in needed:
        if path not in written_by:
            raise UserError(f"{path} is not in dvc.lock; run `dvc repro`")
        if path in needed[:3] and not Path(path).exists():
            raise UserError(f"{path} does not exist; run `dvc repro`, or `dvc pull` to fetch what colleagues pushed")
    adapter_md5 = written_by[adapter][1]
    if _folder_md5(Path(adapter)) != adapter_md5:
        raise UserError(f"{adapter} is not the adapter of dvc.lock; run `dvc repro`, or `dvc checkout {adapter}` to restore it")
    if changed := current.changes(*{written_by[path][0] for path in needed}):
        raise UserError("the model is not up to date; run `dvc repro` and commit the changes\n  " + "\n  ".join(changed))
    recorded = ["dvc.yaml", "dvc.lock", "params.yaml", f"{adapter}.md", f"metrics/{model}/{task}.json", *graph.code_folders()]
    porcelain = ["git", "status", "--porcelain", "--untracked-files=normal"]  # the user's settings may leave out new files
    status = subprocess.run([*porcelain, "--", *recorded, "*.dvc"], capture_output=True, text=True)
    commit = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    if status.returncode or commit.returncode:
        raise UserError(f"git knows no commit of this project ({(status.stderr or commit.stderr).strip()}); commit the model first")
    if status.stdout:
        raise UserError(
            "the published model names a commit from which it can be reproduced, and these files are not committed; commit them first\n"
            + status.stdout.rstrip()
        )
    return commit.stdout.strip(), adapter_md5


def row_texts(task: str) -> list[str]:
    """Return the queries and candidates of the training set and of the held-out rows."""
    from babelcart.rows.table import read_table

    held_out = [Path(f"build/translate/{task}/{split}.parquet") for split in ("validation", "dev", "test")]
    tables = [read_table(path, "pivot") for path in (Path(f"build/negatives/{task}.parquet"), *held_out)]
    return [text for table in tables for column in ("origin_query", "candidate", "pivot") for text in table[column].unique()]


@cli.command
@cli.task
@cli.model
@click.option("--to", "target", required=True, metavar="hf:OWNER/NAME", help="Repository on the Hugging Face hub.")
@click.option("--merge", is_flag=True, help="Publish the base model with the adapter merged into its weights.")
@export.DTYPE
@click.option("--private/--public", default=True, help="Visibility of a new repository.  [default: private]")
@click.option(
    "--licence",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="File with the licence of the base model.",
)
@click.option("--upload", is_flag=True, help="Send the files; without it, the command is a dry run.")
def main(task: str, model: str, target: str, merge: bool, dtype: Dtype | None, private: bool, **options: Any) -> None:
    licence: tuple[Path, ...] = options["licence"]
    export.check_dtype(merge, dtype)
    from babelcart import publish
    from babelcart.model.task_model import read_task_model

    repo, task_model = publish.parse_target(target), read_task_model(Path("models") / model, task)
    list(checks.secrets([]))  # without detect-secrets, fail here, not after the merge
    publish.check_form(task_model, merge, licence)
    commit, adapter_md5 = revision(task, model)
    rows = row_texts(task)
    with temporary_folder(Path(".scratch"), "publish-") as folder:
        out = folder / "export"
        export.write_export(task, model, out, merge, dtype)
        for path in licence:
            shutil.copyfile(path, out / path.name)
        publish.finish(out, task_model, commit, adapter_md5)
        files, left = publish.select(out)
        found = [f"{path.name}:{line}: {kind}" for path, line, kind in checks.secrets(publish.texts(files))]
        if found := [*found, *publish.problems(files, rows)]:
            raise UserError("nothing was sent, because these texts must not be published; remove them\n  " + "\n  ".join(found))
        click.echo(f"{publish.address(repo)}, {'private' if private else 'public'} if it is created now")
        for path in files:
            click.echo(printable(f"{path.stat().st_size:15,} bytes  {path.name}"))
        click.echo(f"{sum(path.stat().st_size for path in files):15,} bytes  in {len(files)} files")
        if left:
            click.echo(printable(f"not sent: {', '.join(left)}"))
        if not options["upload"]:
            click.echo("Nothing was sent, and the hub was not asked whether the repository exists. --upload sends the files.")
            return
        message = f"{model}, {task}: {'merged model' if merge else 'adapter'} of commit {commit[:12]}"
        click.echo(publish.upload(files, repo, private, message, f"MD5 hash of the adapter in dvc.lock: {adapter_md5}"))
