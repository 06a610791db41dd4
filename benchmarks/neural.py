"""The neural engine on the sample's queries: chrF against the sample's own Portuguese, and texts a second.

    python benchmarks/neural.py

200 needs are drawn and said in English as a shopper types them and in Portuguese as a translator writes them; the engine of
translate.engines.neural (downloaded, 35 MB) translates the English ones. chrF: Popović, "chrF: character n-gram F-score for
automatic MT evaluation", WMT 2015, as in sacrebleu. Copying the English text is the floor.
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
from babelcart.translation import augment, engines, gate  # noqa: E402


@click.command(help=__doc__)
@click.option("--texts", default=200, show_default=True)
def main(texts: int) -> None:
    from sacrebleu.metrics import CHRF

    os.chdir(ROOT)
    shop = Shop()
    pairs = []
    for number in range(texts):
        writer = Writer(shop, f"neural {number}")
        need = writer.need("QI")
        pairs.append((writer.say(need, "en", plain=True), writer.say(need, "pt", plain=True)))
    settings = config.load("translate", augment.Translate)
    engine = engines.build("neural", settings.engines["neural"], Path(".scratch"), 60.0)
    translate = engine.client("en", "pt")
    translate(["red dress"])
    start = time.perf_counter()
    made = translate([english for english, _ in pairs])
    seconds = time.perf_counter() - start
    references = [[portuguese for _, portuguese in pairs]]
    verdicts = gate.check_many("en", "pt", [(english, answer) for (english, _), answer in zip(pairs, made, strict=True)])
    passed = [number for number, verdict in enumerate(verdicts) if verdict is None]
    chrf = CHRF()
    click.echo(f"{texts} queries, {texts / seconds:.0f} a second")
    click.echo(
        f"chrF {chrf.corpus_score(made, references).score:.1f}; of copying {chrf.corpus_score([e for e, _ in pairs], references).score:.1f}"
    )
    kept = chrf.corpus_score([made[n] for n in passed], [[references[0][n] for n in passed]]).score
    refused = dict(Counter(verdict for verdict in verdicts if verdict))
    click.echo(f"the gate lets {len(passed)} through, chrF {kept:.1f}; refuses {refused}")
    for (english, portuguese), answer in list(zip(pairs, made, strict=True))[:8]:
        click.echo(f"  {english} -> {answer}   ({portuguese})")


if __name__ == "__main__":
    main()
