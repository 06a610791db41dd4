"""Check every setting in params.yaml, and the raw data.

Each stage checks its own sections when it starts. This command checks all sections at once, before anything is computed, and reads the
raw files as the stage prepare does, without writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart.commands import checks, cli
from babelcart.core import config, graph
from babelcart.core.errors import UserError, did_you_mean, printable
from babelcart.core.files import parse_yaml

if TYPE_CHECKING:
    from babelcart.reading.sources import Data


def declared_sections() -> dict[str, type]:
    """Map each section of params.yaml to the dataclass of the package that declares it in ``SECTION``.

    A section with named blocks, such as ``models.*``, keeps its ``*``. Only modules with such a dataclass are imported.
    """
    import importlib

    import babelcart

    package = Path(babelcart.__file__).parent
    sections: dict[str, type] = {}
    for path in sorted(package.rglob("*.py")):
        if "SECTION: ClassVar" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(".".join(["babelcart", *path.relative_to(package).with_suffix("").parts]))
            sections |= {
                vars(kind)["SECTION"]: kind for kind in vars(module).values() if isinstance(kind, type) and "SECTION" in vars(kind)
            }
    return sections


def check_graph(declared: Mapping[str, Any], used: list[str]) -> None:
    """Check that every section that dvc.yaml uses is declared, and that every section of params.yaml is used.

    Parameters
    ----------
    declared : mapping
        As from `declared_sections`.
    used : list of str
        As from `babelcart.core.graph.read_sections`.

    Raises
    ------
    UserError
        If a section is not declared or not used; names it and what to do.
    """
    known = {section.partition(".")[0] for section in declared} | set(config.LISTS)
    if undeclared := sorted(set(used) - known):
        name = undeclared[0]
        raise UserError(f"dvc.yaml uses the section {name}, which no dataclass in babelcart/ declares; add one with SECTION = {name!r}")
    if unused := sorted(known.intersection(config.read_params()) - set(used)):
        raise UserError(
            f"no stage in dvc.yaml uses the section {unused[0]} of params.yaml, so that a change of it has no effect; "
            "add it to the `params` of the stage that reads it, or remove the section"
        )


def artifacts_of_other_models(run: Sequence[str]) -> Iterator[str]:
    """Yield a message for each artifact of dvc.yaml whose path is in the folder of a model that `run` lacks."""
    content = parse_yaml(graph.GRAPH.read_text(encoding="utf-8"), str(graph.GRAPH)) if graph.GRAPH.exists() else None
    for name, artifact in ((content or {}).get("artifacts") or {}).items():
        folder, _, rest = str((artifact or {}).get("path")).partition("/")
        model = rest.partition("/")[0]
        if folder == "models" and model not in run and "$" not in model:
            yield (
                f"dvc.yaml: the artifact {name} is the adapter of {model}, which `run` in params.yaml lacks; if you register versions "
                f"of it, change its path to models/{run[0] if run else 'MODEL'}/{name}"
            )


def check_data(data: Data, tasks: Sequence[str]) -> None:
    """Read the raw files of each task, and print the number of rows, warnings, and whether training will use all rows.

    Raises
    ------
    UserError
        As `babelcart.prepare.prepare_task` does.
    """
    from babelcart.prepare import prepare_task
    from babelcart.rows.cleaning import Prepare
    from babelcart.split import Split
    from babelcart.training.loop import TrainSettings
    from babelcart.training.steps import limit_message

    split = config.load_section(Split)
    train_share = 1 - split.validation_share - split.test_share
    for task in tasks:
        prepared = prepare_task(data, config.load_section(Prepare), task)
        counts = prepared.counts
        parts = [f"train {counts['train']['kept']:,} of {counts['train']['rows']:,} rows"]
        parts += [f"{split} {counts[split]['rows']:,} rows, {counts[split]['labelled']:,} labelled" for split in ("dev", "test")]
        click.echo(f"{task}: {'; '.join(parts)}")
        for warning in prepared.warnings:
            click.echo(f"warning: {task}: {warning}", err=True)
        # Without the rows that translation and the sampling of negatives add.
        if message := limit_message(task, round(train_share * counts["train"]["kept"]), config.load_section(TrainSettings)):
            click.echo(message)


@cli.command
def main() -> None:
    from babelcart.core.tasks import TASKS, Task
    from babelcart.reading.sources import Data
    from babelcart.split import Split, check_test_rows
    from babelcart.training.trackers import chosen_trackers

    declared = declared_sections()
    if used := graph.read_sections():
        check_graph(declared, used)
    tasks, run = config.load("tasks", tuple[Task, ...]), config.load("run", tuple[str, ...])
    required_blocks = {"models": run, "prompts": tasks}
    for section, kind in sorted(declared.items()):
        parent, _, wildcard = section.partition(".")
        if used and parent not in used:
            continue  # the stage was removed from dvc.yaml, and its section from params.yaml
        if not wildcard:
            config.load_section(kind)
            continue
        blocks = config.load(parent, dict[str, kind])  # type: ignore[valid-type]
        for name in [*blocks, *run] if parent == "models" else []:
            cli.model_name(name)
        for name in blocks if parent == "prompts" else []:
            if name not in TASKS:
                raise UserError(f"params.yaml: unknown key prompts.{name}; accepted: {', '.join(TASKS)}{did_you_mean(name, TASKS)}")
        for name in required_blocks[parent]:
            config.load_section(kind, name)
    chosen_trackers()
    data = config.load_section(Data)
    for task in tasks:
        check_test_rows(config.load_section(Split).test_share, task, bool(data.files(task).sources("test")))
    for message in [*artifacts_of_other_models(run), *checks.rows_on_shipped_remotes(Path.cwd())]:
        click.echo(printable(f"warning: {message}"), err=True)
    if Path(data.path).exists():
        check_data(data, tasks)
    else:
        click.echo(f"{data.path} does not exist, so that only the settings were checked; `dvc pull` fetches the sample's data")
