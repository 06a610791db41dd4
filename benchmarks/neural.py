"""Measure the engine `neural` on queries of the sample: chrF against the sample's own Portuguese, and queries per second.

    python benchmarks/neural.py

The script draws 200 shopping needs. Each is written in English as a shopper types it, and in Portuguese as a translator writes it.
The engine of translate.engines.neural (a download of 35 MB) translates the English queries. Copying the English text is the floor.

chrF: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015, as implemented in sacrebleu.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "samples"))
from generate import Shop, Writer  # noqa: E402

from babelcart.core import config  # noqa: E402
from babelcart.translation import engines, gate  # noqa: E402
from babelcart.translation.settings import TranslateSettings  # noqa: E402


def queries(count: int) -> tuple[list[str], list[str]]:
    """`count` queries in English and in Portuguese."""
    shop = Shop()
    english, portuguese = [], []
    for query_index in range(count):
        writer = Writer(shop, f"neural {query_index}")
        need = writer.need("QI")
        english.append(writer.say(need, "en", plain=True))
        portuguese.append(writer.say(need, "pt", plain=True))
    return english, portuguese


@click.command(help=__doc__)
@click.option("--texts", default=200, show_default=True, help="Number of queries.")
def main(texts: int) -> None:
    from sacrebleu.metrics import CHRF

    os.chdir(ROOT)
    english, portuguese = queries(texts)
    settings = config.load_section(TranslateSettings)
    engine = engines.build("neural", settings.engines["neural"], Path(".scratch"), 60.0)
    translate = engine.client("en", "pt")
    translate(["red dress"])  # loads the model
    start = time.perf_counter()
    translations = translate(english)
    seconds = time.perf_counter() - start
    verdicts = gate.check_many("en", "pt", list(zip(english, translations, strict=True)))
    accepted = [index for index, verdict in enumerate(verdicts) if verdict is None]

    def chrf(hypotheses: list[str], references: list[str]) -> float:
        return float(CHRF().corpus_score(hypotheses, [references]).score)

    click.echo(f"{texts} queries, {texts / seconds:.0f} per second")
    click.echo(f"chrF {chrf(translations, portuguese):.1f}; of copies of the source {chrf(english, portuguese):.1f}")
    accepted_chrf = chrf([translations[index] for index in accepted], [portuguese[index] for index in accepted])
    refused = dict(Counter(verdict for verdict in verdicts if verdict))
    click.echo(f"the quality checks accept {len(accepted)}, chrF {accepted_chrf:.1f}, and refuse {refused}")
    for index in range(min(8, texts)):
        click.echo(f"  {english[index]} -> {translations[index]}   ({portuguese[index]})")


if __name__ == "__main__":
    main()
