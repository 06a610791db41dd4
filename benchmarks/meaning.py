"""Measure how many translations of other texts the check of meaning refuses, and how many correct ones.

    export PYTHONPATH=. OMP_NUM_THREADS=1
    python benchmarks/meaning.py

The pairs are those of the sample's memory. Each text gets the translation of another text of its direction. The column *even half* is the
similarity below which 4.5 % of the correct pairs with an even hash lie, from which the limits of `translate.min_similarity` were set. The
rates are measured on the pairs with an odd hash, at the limits of params.yaml, or at that of the even half for a language without one.
*passing* counts only wrong translations that the other checks of the gate accept.
"""

from __future__ import annotations

import random
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import click
import numpy as np

from babelcart.core import config
from babelcart.embedding.encoders import EncoderSettings, build_encoder, embed_texts
from babelcart.translation import gate, memory_files
from babelcart.translation.meaning import SOURCES
from babelcart.translation.settings import TranslateSettings

REFUSED = 0.045  # share of the correct pairs below the limit


def directions(path: Path, sources: Collection[str]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the source and target language -> texts and translations."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for entry in memory_files.read_file(path):
        if entry.source in sources:
            pairs[entry.source, entry.target].append((entry.text, entry.translation))
    return pairs


def measure(
    target: str, vectors: dict[str, np.ndarray], pairs: dict[tuple[str, str], list[tuple[str, str]]], limits: Mapping[str, float]
) -> str:
    """Return a line of the table."""
    chance = random.Random(0)
    correct: dict[bool, list[float]] = {True: [], False: []}
    wrong, passing = [], []
    for (source, other_target), texts in sorted(pairs.items()):
        if other_target != target:
            continue
        swapped = [translation for _, translation in texts]
        chance.shuffle(swapped)
        wrong_pairs = [
            (text, other) for (text, own), other in zip(texts, swapped, strict=True) if own != other and zlib.crc32(text.encode()) % 2
        ]
        for text, translation in texts:
            correct[zlib.crc32(text.encode()) % 2 == 0].append(float(vectors[text] @ vectors[translation]))
        similarities = [float(vectors[text] @ vectors[other]) for text, other in wrong_pairs]
        wrong += similarities
        verdicts = gate.check_many(source, target, wrong_pairs)
        passing += [similarity for similarity, reason in zip(similarities, verdicts, strict=True) if reason is None]
    measured = float(np.quantile(correct[True], REFUSED))
    limit = limits.get(target, measured)
    shares = [np.mean(np.array(values) < limit) for values in (correct[False], wrong, passing)]
    return (
        f"| {target} | {measured:.3f} | {limit if target in limits else 'not checked'} | {len(correct[False]):,} | {shares[0]:.1%} | "
        f"{shares[1]:.1%} | {shares[2]:.1%} |"
    )


@click.command(help=__doc__)
@click.option("--memory", type=click.Path(exists=True, path_type=Path), default=Path("data/memory.csv"), show_default=True)
@click.option("--source", "sources", multiple=True, help="Measure with these source languages instead of those that are checked.")
def main(memory: Path, sources: tuple[str, ...]) -> None:
    encoder = build_encoder(config.load("negatives.encoder", EncoderSettings), Path(".scratch"), lambda: ())
    limits = config.load_section(TranslateSettings).min_similarity
    pairs = directions(memory, sources or SOURCES)
    texts = {text for direction in pairs.values() for pair in direction for text in pair}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        vectors = dict(zip(*embed_texts(texts, encoder, Path(folder) / "vectors.sqlite"), strict=True))
        click.echo(f"{len(texts):,} texts encoded at {len(texts) / (time.perf_counter() - start):,.0f} a second\n")
    click.echo("| target | even half | limit | correct pairs | correct refused | wrong refused | wrong refused, passing the gate |")
    click.echo("|---|---|---|---|---|---|---|")
    for target in sorted({target for _, target in pairs}):
        click.echo(measure(target, vectors, pairs, limits))


if __name__ == "__main__":
    main()
