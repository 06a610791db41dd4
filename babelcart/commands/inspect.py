"""Find out what files are, and propose the settings that read them.

FILES are files, folders or globs, all files that belong together in one command. Prints the format, encoding, columns, languages, labels
and repetitions of each file, the settings that read them, and the rows that would be dropped. --write puts the settings into params.yaml;
without it, nothing is written. --against compares the rows that params.yaml reads with those of another revision.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import click

from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.errors import UserError, printable
from babelcart.core.files import parse_yaml, write_text
from babelcart.core.tasks import TASKS
from babelcart.inspection import params_file
from babelcart.inspection.proposal import MEMORY, Proposal

_MEMORY_HEADER = "source,target,text,translation\n"


@cli.command
@click.argument("files", nargs=-1)
@click.option("--task", type=click.Choice(TASKS), help="The task of the files, if they have titles and categories.")
@click.option("--relevant", multiple=True, metavar="VALUE", help="A relevant value of the label column, or the lowest relevant grade.")
@click.option("--write", is_flag=True, help="Write the settings to params.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--against", metavar="REVISION", help="Compare the rows of the project with those of a branch, tag or commit.")
def main(files: tuple[str, ...], task: str | None, relevant: tuple[str, ...], write: bool, as_json: bool, against: str | None) -> None:
    if against:
        if files or write:
            raise UserError("--against compares the files that params.yaml names: give neither FILES nor --write")
        _print_changes(against, task, as_json)
        return
    if not files:
        raise UserError("no files: give files, folders or globs, for example `babelcart inspect shop/*.csv`, or --against REVISION")
    content, proposal = _inspect(files, task, relevant, show=not as_json)
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    if proposal.problems:
        raise UserError("the settings cannot be used yet:\n" + "\n".join(f"  {problem}" for problem in proposal.problems))
    if write:
        for line in _write(proposal):
            click.echo(line, err=as_json)
    elif not as_json:
        click.echo("\nNothing was written. Repeat the command with --write to put the settings into params.yaml.")


def _inspect(names: tuple[str, ...], task: str | None, relevant: tuple[str, ...], *, show: bool) -> tuple[dict[str, Any], Proposal]:
    """Return everything about the files, and the proposal; prints it if `show`."""
    from babelcart.inspection import summary
    from babelcart.inspection.files import expand, identify
    from babelcart.inspection.proposal import Wishes, propose
    from babelcart.inspection.roles import find_roles
    from babelcart.inspection.tables import open_database
    from babelcart.inspection.verification import Verification, verify

    formats = [identify(path) for path in expand(names)]
    with open_database() as database:
        tables = [database.load(file) for file in formats]
        facts = [summary.describe(database, table, find_roles(table)) for table in tables]
        for description in facts if show else []:
            click.echo("\n".join([*summary.file_lines(description), ""]))
        proposal = propose(database, tables, Wishes(task, relevant))
    verification = verify(proposal, tables) if not proposal.problems else Verification()
    if show:
        _print_proposal(proposal)
        if lines := summary.row_lines(verification):
            click.echo("\n".join(["", "Rows that these settings read:", *lines]))
        if proposal.remarks:
            click.echo(printable("\n".join(["", "Remarks:", *(f"  {remark}" for remark in proposal.remarks)])))
    return summary.as_json(facts, proposal, verification), proposal


def _print_proposal(proposal: Proposal) -> None:
    click.echo("Proposed settings (params.yaml):\n")
    click.echo(printable(params_file.render("data", proposal.data, proposal.reasons)), nl=False)
    for key, value in proposal.settings.items():
        reason = f"  # guess: {proposal.reasons[key]}" if key in proposal.reasons else ""
        click.echo(printable(f"{key}: {json.dumps(value, ensure_ascii=False)}{reason}"))
    for name, query in proposal.queries.items():
        click.echo(printable(f"\n{name}:\n{query}"), nl=False)


def _write(proposal: Proposal) -> list[str]:
    """Write the queries, the empty translation memory and params.yaml; returns lines about them and the next commands.

    Raises
    ------
    UserError
        If params.yaml cannot be changed, a query exists with other content, or the files are in the top folder of the project. Nothing is
        written then.
    """
    data_path = proposal.data["path"]
    if data_path in (".", ""):
        raise UserError(
            "the files are in the top folder of the project, which contains the outputs of the pipeline; move them into a folder of their "
            "own, for example `mkdir shop`, and inspect them there"
        )
    if (top := Path(data_path).parts[0]) in _OWN_FOLDERS:
        raise UserError(f"the files are in {top}/, a folder of the pipeline; move them into a folder of their own, and inspect them there")
    old = config.PARAMS.read_text(encoding="utf-8")
    memory = config.read_params()["translate"]["memory"]
    inside_old_data = Path(memory).is_relative_to(config.read_params()["data"]["path"])
    if (
        proposal.settings["translate.memory"] == MEMORY
        and Path(memory).is_file()
        and (not inside_old_data or config.read_params()["data"]["path"] == data_path)
    ):
        del proposal.settings["translate.memory"]  # the memory of the user
    if config.read_params()["translate"].get("chain") or "translate.memory" not in proposal.settings:
        proposal.settings = {key: value for key, value in proposal.settings.items() if not key.endswith("target_languages")}
    new = params_file.updated(old, proposal)
    for name, query in proposal.queries.items():
        if Path(name).exists() and Path(name).read_text(encoding="utf-8") != query:
            raise UserError(f"{name} exists with other content; delete or rename it, then repeat the command. Nothing was written.")
    lines = _track(data_path)
    for name, query in proposal.queries.items():
        write_text(Path(name), query)
        lines.append(f"Wrote {name}.")
    if proposal.settings.get("translate.memory") == MEMORY and not Path(MEMORY).exists():
        write_text(Path(MEMORY), _MEMORY_HEADER)
        lines.append(f"Wrote {MEMORY}, a translation memory without entries.")
    write_text(config.PARAMS, new)
    return ["", params_file.difference(old, new), *lines, "Wrote params.yaml.", "", *_next_commands(data_path)]


_OWN_FOLDERS = {"build", "models", "predictions", "submissions", "reports", "memory", "metrics", "plots", ".scratch", ".dvc", "samples"}


def _track(data_path: str) -> list[str]:
    """Record the content of a folder that a .dvc file tracks, without the remote of the sample."""
    tracked = Path(f"{data_path}.dvc")
    if not tracked.is_file():
        return []
    from dvc.repo import Repo

    with Repo() as repo:
        repo.scm_context.quiet = True  # DVC's advice on `git add` would stand above the difference; the next commands include it
        repo.add(data_path)
    text = tracked.read_text(encoding="utf-8")
    without = re.sub(r"^ *remote: sample\n", "", text, flags=re.M)
    if without == text:
        return [f"Recorded {data_path} in {tracked}."]
    write_text(tracked, without)
    return [f"Recorded {data_path} in {tracked}, without `remote: sample`, so that `dvc push` does not send it to samples/remote."]


def _next_commands(data_path: str) -> list[str]:
    inside = not Path(data_path).is_absolute()
    lines = ["Next:", "  make repro                  # checks the settings, runs the pipeline, prints the scores"]
    if inside and not Path(f"{data_path}.dvc").is_file():
        lines.append(f"  dvc add {data_path}".ljust(30) + "# versions the files; without it, do not commit them to git")
    lines.append("  git add --all && git commit".ljust(30) + "# after a look at `git status`")
    if inside:
        lines.append("  dvc remote add --default team URL, then dvc push   # shares files and results (docs/sharing.md)")
    return lines


def _print_changes(revision: str, task: str | None, as_json: bool) -> None:
    """Print how the rows of the workspace differ from those of a revision."""
    from babelcart.inspection.changes import compare_rows
    from babelcart.prepare import prepare_task
    from babelcart.reading.sources import Data
    from babelcart.rows.cleaning import Prepare

    data = config.load_section(Data)
    tasks = [task] if task else config.load("tasks", tuple[str, ...])
    changes: dict[str, Any] = {}
    settings = Prepare(max_broken_rows=2**53)
    now = {name: prepare_task(data, settings, name) for name in tasks}
    with tempfile.TemporaryDirectory() as folder:
        old_data = _fetch(revision, Path(folder))
        with contextlib.chdir(folder):
            for name in tasks:
                if getattr(old_data, name) is None:
                    changes[name] = None
                    continue
                before = prepare_task(old_data, settings, name)
                changes[name] = {split: compare_rows(before.tables[split], table) for split, table in now[name].tables.items()}
    if as_json:
        click.echo(json.dumps(changes, indent=2, ensure_ascii=False))
        return
    for name, splits in changes.items():
        if splits is None:
            click.echo(f"{name}: {revision} has no rows of this task")
        for split, change in (splits or {}).items():
            click.echo(printable("\n".join(_change_lines(f"{name} {split}", change))))


def _fetch(revision: str, folder: Path) -> Any:
    """Copy the settings, queries and files of a revision into a folder; returns its section ``data``."""
    from dvc.api import DVCFileSystem

    from babelcart.commands import revisions
    from babelcart.reading.sources import Data

    content = parse_yaml(revisions.read_bytes(revision, "params.yaml").decode("utf-8"), f"params.yaml of {revision}")
    section = dict(content["data"])
    if columns := (content.get("prepare") or {}).get("columns"):
        section["columns"] = columns  # where older revisions have them
    data = config.build_section(Data, section, "data")
    path = Path(data.path)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"data.path of {revision} is {data.path}, outside of the project, so that its former content is not recorded")
    files = DVCFileSystem(".", rev=revision)
    for name in (data.path, "queries"):
        if not files.exists(name):
            continue
        for file in files.find(name):
            target = folder / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(revisions.read_bytes(revision, file.lstrip("/")))
    return data


def _change_lines(name: str, change: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{change[kind]:,} {kind}" for kind in ("added", "removed", "relabelled"))
    lines = [f"{name}: {change['before']:,} -> {change['after']:,} rows; {counts}"]
    for kind in ("languages", "labels"):
        if change[kind]:
            lines.append(f"  {kind}: " + ", ".join(f"{value} {before:,} -> {after:,}" for value, (before, after) in change[kind].items()))
    lines += [f"  {language}: {query!r}, {candidate!r}: {old} -> {new}" for language, query, candidate, old, new in change["examples"]]
    return lines
