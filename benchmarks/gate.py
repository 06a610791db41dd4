"""Precision and recall of the translation gate on planted errors.

    python benchmarks/gate.py

Right pairs are drawn from the sample's translation memory, half to set the limits on (those of even hash, which is what was looked at
when the rules were written) and half to measure on (odd). Every error is made from a right pair of the second half.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click

from babelcart.translation import gate, translation_memory

ROOT = Path(__file__).parent.parent
Pair = tuple[str, str, str, str]  # source, target, text, translation


def planted(pairs: list[Pair], chance: random.Random) -> dict[str, list[Pair]]:
    """Kind of error -> pairs that have it."""
    by_text: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for source, target, text, translation in pairs:
        by_text[source, text][target] = translation

    def digit(text: str) -> str:
        places = [place for place, character in enumerate(text) if character.isascii() and character.isdigit()]
        place = chance.choice(places)
        return text[:place] + str((int(text[place]) + chance.randint(1, 8)) % 10) + text[place + 1 :]

    unit = re.compile(r"(?<=\d)(cm|ml|kg|gb|w|m)\b")
    swaps = {"cm": "mm", "ml": "l", "kg": "g", "gb": "tb", "w": "kw", "m": "cm"}
    code = re.compile(r"\b(?=\w*\d)(?=\w*[a-z])[a-z]+\d+\w*\b")

    def words(text: str) -> list[str]:
        return text.split()

    makers: dict[str, Callable[[Pair], str | None]] = {
        "empty": lambda pair: chance.choice(["", " ", "...", "-"]),
        "identical": lambda pair: pair[2] if pair[2] != pair[3] and len(words(pair[2])) > 1 else None,
        "another language": lambda pair: chance.choice(
            [text for target, text in by_text[pair[0], pair[2]].items() if target != pair[1] and text != pair[3]] or [None]
        ),
        "a number changed": lambda pair: digit(pair[3]) if re.search(r"[0-9]", pair[3]) else None,
        "a number lost": lambda pair: re.sub(r"\s*\d+\S*", "", pair[3], count=1) if re.search(r"\d", pair[3]) else None,
        "a number invented": lambda pair: f"{pair[3]} {chance.randint(2, 99)}",
        "a unit changed": lambda pair: unit.sub(lambda found: swaps[found[1]], pair[3], count=1) if unit.search(pair[3]) else None,
        "a code changed": lambda pair: code.sub(lambda found: found[0] + "x", pair[3], count=1) if code.search(pair[3]) else None,
        "cut off": lambda pair: pair[3][: max(1, len(pair[3]) // 6)] if len(pair[3]) > 24 else None,
        "far too long": lambda pair: " ".join(chance.choice(pairs)[3] for _ in range(8)),
        "a repeated word": lambda pair: " ".join([*words(pair[3]), *[words(pair[3])[-1]] * 4]),
        "markup": lambda pair: pair[3] + chance.choice([" <br>", "&#39;s", " &quot;", "</b>", " <unk>", " \ufffd"]),
        "another script": lambda pair: pair[3][: len(pair[3]) // 2] + chance.choice(["время", "时间", "χρόνος", "समय"]),
        "another row's answer": lambda pair: chance.choice([other for other in pairs if other[1] == pair[1]])[3],
    }
    made: dict[str, list[Pair]] = {kind: [] for kind in makers}
    for kind, make in makers.items():
        for pair in chance.sample(pairs, len(pairs)):
            wrong = make(pair)
            if wrong is not None and wrong != pair[3]:
                made[kind].append((*pair[:3], wrong))
            if len(made[kind]) == 100:
                break
    return made


def verdicts(pairs: list[Pair], known: frozenset[str]) -> list[bool]:
    """Whether the gate refuses each pair."""
    refused = [False] * len(pairs)
    for way in {pair[:2] for pair in pairs}:
        numbers = [number for number, pair in enumerate(pairs) if pair[:2] == way]
        for number, reason in zip(numbers, gate.check_many(*way, [pairs[number][2:] for number in numbers], known), strict=True):
            refused[number] = reason is not None
    return refused


@click.command(help=__doc__)
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=ROOT / "data/memory.csv")
def main(path: Path) -> None:
    entries = list(translation_memory.read_csv(path))
    # Words that languages share, as the stage finds them.
    sources: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for token in re.findall(r"[^\W_]+", entry.text):
            sources[token].add(entry.source)
    known = frozenset(token for token, languages in sources.items() if len(languages) >= 3)
    pairs = [entry[2:] for entry in entries if zlib.crc32(entry.text.encode()) % 2]
    refused: dict[str, list[bool]] = defaultdict(list)
    for pair, verdict in zip(pairs, verdicts(pairs, known), strict=True):
        refused[pair[1]].append(verdict)
    click.echo("right pairs refused, by target language:")
    for target, found in sorted(refused.items()):
        click.echo(f"  {target}  {sum(found):>4} of {len(found):>5}  {sum(found) / len(found):.3f}")
    false_alarms = sum(map(sum, refused.values())) / len(pairs)
    click.echo("| error | planted | languages | caught |\n|---|---|---|---|")
    caught = total = 0
    for kind, wrong in planted(pairs, random.Random(0)).items():
        found = verdicts(wrong, known)
        click.echo(
            f"| {kind} | {len(wrong)} | {len({pair[1] for pair in wrong} | {pair[0] for pair in wrong})} | {sum(found) / len(wrong):.2f} |"
        )
        caught, total = caught + sum(found), total + len(wrong)
    recall = caught / total
    click.echo(f"recall {recall:.3f} of {total} errors; right pairs refused {false_alarms:.3f} of {len(pairs)}")
    click.echo(f"precision {recall / (recall + false_alarms):.3f} where half of all pairs are wrong")
    share = 0.05
    click.echo(f"precision {recall * share / (recall * share + false_alarms * (1 - share)):.3f} where {share:.0%} are")


if __name__ == "__main__":
    main()
