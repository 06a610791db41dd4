"""Measure the way from a public data set to F1, on look-alikes with invented rows.

    PYTHONPATH=. python benchmarks/public_data.py esci wands home-depot --rows 3000

For each data set, the script clones the committed project to a temporary folder, runs `make setup`, writes the look-alike to the folder
`shop`, and runs the three commands of docs/datasets.md: `babelcart inspect shop --write`, `make repro`, `babelcart results`. It prints the
time of each and the scores. `make repro` downloads the weights of the model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.support.datasets import WRITERS

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (("babelcart", "inspect", "shop", "--write"), ("make", "repro"), ("babelcart", "results"))


def run(command: tuple[str, ...], folder: Path) -> tuple[str, float]:
    """Run a command in the clone; returns its output and the seconds that it took. Exits with the end of the output if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{folder / '.venv/bin'}{os.pathsep}{environment['PATH']}"
    start = time.perf_counter()
    process = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stdout[-3000:]}")
    return process.stdout, time.perf_counter() - start


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True, type=click.Choice(sorted(WRITERS)))
@click.option("--rows", type=int, default=3000, show_default=True, help="Labelled rows of each look-alike.")
def main(names: tuple[str, ...], rows: int) -> None:
    for name in names:
        with tempfile.TemporaryDirectory(prefix="babelcart-") as temporary:
            clone = Path(temporary) / "babelcart"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
            _, seconds = run(("make", "setup"), clone)
            click.echo(f"## {name}, {rows:,} rows\n\nmake setup: {seconds:.0f} s")
            (clone / "shop").mkdir()
            WRITERS[name](clone / "shop", rows)
            for command in COMMANDS:
                output, seconds = run(command, clone)
                click.echo(f"{' '.join(command)}: {seconds:.0f} s")
            click.echo(f"\n{output}")


if __name__ == "__main__":
    main()
