"""Measure how many translations of other texts the check of meaning refuses, and how many correct ones.

    export PYTHONPATH=. OMP_NUM_THREADS=1
    python benchmarks/meaning.py

The pairs are those of the sample's memory. Each text gets the translation of another text of its direction. The limits of
`translate.min_similarity` are the similarities below which 4.5 % of the correct pairs with an even hash lie; the table is measured on the
pairs with an odd hash. *passing* counts only wrong translations that the other checks of the gate accept.
"""

from __future__ import annotations

import random
import time
import zlib
from collections import defaultdict
from pathlib import Path

import click
import numpy as np

from babelcart.core import config
from babelcart.embedding.encoders import EncoderSettings, build_encoder
from babelcart.translation import gate, memory_files
from babelcart.translation.meaning import SOURCES

REFUSED = 0.045  # share of the correct pairs below the limit


def directions(path: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Source and target language -> texts and translations."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for entry in memory_files.read_file(path):
        if entry.source in SOURCES:
            pairs[entry.source, entry.target].append((entry.text, entry.translation))
    return pairs


def measure(target: str, vectors: dict[str, np.ndarray], pairs: dict[tuple[str, str], list[tuple[str, str]]]) -> str:
    """A line of the table."""
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
    limit = float(np.quantile(correct[True], REFUSED))
    shares = [np.mean(np.array(values) < limit) for values in (correct[False], wrong, passing)]
    return f"| {target} | {limit:.2f} | {len(correct[False]):,} | {shares[0]:.1%} | {shares[1]:.1%} | {shares[2]:.1%} |"


@click.command(help=__doc__.partition("\n")[0] if __doc__ else "")
@click.option("--memory", type=click.Path(exists=True, path_type=Path), default=Path("data/memory.csv"), show_default=True)
def main(memory: Path) -> None:
    encoder = build_encoder(config.load("negatives.encoder", EncoderSettings), Path(".scratch"), lambda: ())
    pairs = directions(memory)
    texts = sorted({text for direction in pairs.values() for pair in direction for text in pair})
    start = time.perf_counter()
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    print(f"{len(texts):,} texts encoded at {len(texts) / (time.perf_counter() - start):,.0f} a second\n")
    print(
        "| target | limit | correct pairs | correct refused | wrong refused | wrong refused, passing the gate |\n|---|---|---|---|---|---|"
    )
    for target in sorted({target for _, target in pairs}):
        print(measure(target, vectors, pairs), flush=True)


if __name__ == "__main__":
    main()
