"""Write the code that each stage depends on into dvc.yaml.

A stage depends on its script and on the modules that the script imports, directly or through other modules. A package is named as a
folder where the stage uses all of its modules. Data dependencies are not changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core.errors import UserError
from babelcart.core.files import write_text
from babelcart.imports import imported_modules

GRAPH = Path("dvc.yaml")
_STAGE = re.compile(r"^  (\w+):$")
_CODE = re.compile(r"^      - (babelcart|stages)/")


def code_deps(script: Path) -> list[str]:
    """Return the code that a stage depends on.

    Parameters
    ----------
    script : Path
        ``stages/NAME.py``.

    Returns
    -------
    list of str
        Files, and folders of packages that are used completely; sorted. ``__init__.py`` files are left out: they are empty.
    """
    modules = {name: path for name, path in imported_modules(script).items() if path.name != "__init__.py"}
    deps = set(modules)
    for folder in {path.parent for name, path in modules.items() if name.count("/") == 2}:
        in_folder = {f"babelcart/{folder.name}/{path.name}" for path in folder.glob("*.py") if path.name != "__init__.py"}
        if in_folder <= set(modules) and len(in_folder) > 1:
            deps = deps - in_folder | {f"babelcart/{folder.name}"}
    return sorted(deps)


def update_deps(text: str, stages: Path = Path("stages")) -> str:
    """Return the text of dvc.yaml with the code dependencies of every stage replaced by those that its script has now."""
    lines: list[str] = []
    stage = ""
    for line in text.splitlines():
        if name := _STAGE.match(line):
            stage = name[1]
        if _CODE.match(line):
            continue
        lines.append(line)
        if line == "    deps:":
            lines += [f"      - {dep}" for dep in code_deps(stages / f"{stage}.py")]
    return "\n".join(lines) + "\n"


@cli.command
@click.option("--check", is_flag=True, help="Change nothing; fail if a list is out of date.")
def main(check: bool) -> None:
    current = GRAPH.read_text(encoding="utf-8")
    updated = update_deps(current)
    if updated == current:
        click.echo(f"{GRAPH} is up to date")
    elif check:
        before, after = set(current.splitlines()), set(updated.splitlines())
        changes = [f"+{line}" for line in sorted(after - before)] + [f"-{line}" for line in sorted(before - after)]
        raise UserError("\n".join([f"the code dependencies in {GRAPH} are out of date; run `make deps`", *changes]))
    else:
        write_text(GRAPH, updated)
        click.echo(f"{GRAPH}: code dependencies updated; `dvc repro` reruns the stages whose code changed")


if __name__ == "__main__":
    main()
