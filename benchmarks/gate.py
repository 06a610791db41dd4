"""Measure precision and recall of the quality checks of translations, on planted errors.

    python benchmarks/gate.py

Correct pairs come from the translation memory of the sample. The limits of the checks were set on the pairs whose text has an even hash;
this script measures on the others. Each planted error is made from one of those correct pairs.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click

from babelcart.translation import gate, memory_files

ROOT = Path(__file__).parent.parent
ERRORS_OF_A_KIND = 100
UNIT = re.compile(r"(?<=\d)(cm|ml|kg|gb|w|m)\b")
WRONG_UNIT = {"cm": "mm", "ml": "l", "kg": "g", "gb": "tb", "w": "kw", "m": "cm"}
CODE = re.compile(r"\b(?=\w*\d)(?=\w*[a-z])[a-z]+\d+\w*\b")
MARKUP = (" <br>", "&#39;s", " &quot;", "</b>", " <unk>", " \ufffd")

Pair = tuple[str, str, str, str]  # source language, target language, text, translation


class Errors:
    """Kinds of errors: each method of `kinds` returns a wrong translation of a pair, or None where the error is not possible.

    Parameters
    ----------
    pairs : list of Pair
        Correct pairs; the source of other translations.
    chance : random.Random
    """

    def __init__(self, pairs: list[Pair], chance: random.Random) -> None:
        self.pairs, self.chance = pairs, chance
        self.translations: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for source, target, text, translation in pairs:
            self.translations[source, text][target] = translation

    def kinds(self) -> dict[str, Callable[[Pair], str | None]]:
        """Return the name of each kind of error and its method."""
        chance = self.chance
        return {
            "empty": lambda pair: chance.choice(["", " ", "...", "-"]),
            "identical": lambda pair: pair[2] if pair[2] != pair[3] and len(pair[2].split()) > 1 else None,
            "another language": self.another_language,
            "a number changed": lambda pair: self.change_digit(pair[3]) if re.search(r"[0-9]", pair[3]) else None,
            "a number lost": lambda pair: re.sub(r"\s*\d+\S*", "", pair[3], count=1) if re.search(r"\d", pair[3]) else None,
            "a number invented": lambda pair: f"{pair[3]} {chance.randint(2, 99)}",
            "a unit changed": lambda pair: UNIT.sub(lambda unit: WRONG_UNIT[unit[1]], pair[3], count=1) if UNIT.search(pair[3]) else None,
            "a code changed": lambda pair: CODE.sub(lambda code: code[0] + "x", pair[3], count=1) if CODE.search(pair[3]) else None,
            "cut off to a sixth": lambda pair: pair[3][: max(1, len(pair[3]) // 6)] if len(pair[3]) > 24 else None,
            "eight queries long": lambda pair: " ".join(chance.choice(self.pairs)[3] for _ in range(8)),
            "a repeated word": lambda pair: " ".join([*pair[3].split(), *[pair[3].split()[-1]] * 4]),
            "markup": lambda pair: pair[3] + chance.choice(MARKUP),
            "another script": lambda pair: pair[3][: len(pair[3]) // 2] + chance.choice(["время", "时间", "χρόνος", "समय"]),
            "translation of another row": lambda pair: chance.choice([other for other in self.pairs if other[1] == pair[1]])[3],
        }

    def another_language(self, pair: Pair) -> str | None:
        """Return a translation of the same text into another language."""
        translations = self.translations[pair[0], pair[2]]
        others = [text for target, text in translations.items() if target != pair[1] and text != pair[3]]
        return self.chance.choice(others or [None])

    def change_digit(self, text: str) -> str:
        """Return the text with one of its digits changed."""
        index = self.chance.choice([n for n, character in enumerate(text) if character.isascii() and character.isdigit()])
        return text[:index] + str((int(text[index]) + self.chance.randint(1, 8)) % 10) + text[index + 1 :]


def planted(pairs: list[Pair], chance: random.Random) -> dict[str, list[Pair]]:
    """Return up to `ERRORS_OF_A_KIND` wrong pairs for each kind of error."""
    wrong_pairs: dict[str, list[Pair]] = {}
    for kind, plant in Errors(pairs, chance).kinds().items():
        wrong_pairs[kind] = []
        for pair in chance.sample(pairs, len(pairs)):
            wrong = plant(pair)
            if wrong is not None and wrong != pair[3]:
                wrong_pairs[kind].append((*pair[:3], wrong))
            if len(wrong_pairs[kind]) == ERRORS_OF_A_KIND:
                break
    return wrong_pairs


def verdicts(pairs: list[Pair], known: frozenset[str]) -> list[bool]:
    """Return whether the checks refuse each pair."""
    refused = [False] * len(pairs)
    for direction in {pair[:2] for pair in pairs}:
        indices = [index for index, pair in enumerate(pairs) if pair[:2] == direction]
        reasons = gate.check_many(*direction, [pairs[index][2:] for index in indices], known)
        for index, reason in zip(indices, reasons, strict=True):
            refused[index] = reason is not None
    return refused


def shared_words(entries: list[memory_files.Entry]) -> frozenset[str]:
    """Return the words that occur in at least three source languages, as the stage `translate` finds them."""
    languages: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for token in re.findall(r"[^\W_]+", entry.text):
            languages[token].add(entry.source)
    return frozenset(token for token, sources in languages.items() if len(sources) >= 3)


def false_alarm_rate(pairs: list[Pair], known: frozenset[str]) -> float:
    """Print how many correct pairs the checks refuse, by target language; return the overall share."""
    refused: dict[str, list[bool]] = defaultdict(list)
    for pair, verdict in zip(pairs, verdicts(pairs, known), strict=True):
        refused[pair[1]].append(verdict)
    click.echo("correct pairs refused, by target language:")
    for target, of_target in sorted(refused.items()):
        click.echo(f"  {target}  {sum(of_target):>4} of {len(of_target):>5}  {sum(of_target) / len(of_target):.3f}")
    return sum(map(sum, refused.values())) / len(pairs)


@click.command(help=__doc__)
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=ROOT / "data/memory.csv")
def main(path: Path) -> None:
    entries = list(memory_files.read_csv(path))
    known = shared_words(entries)
    pairs = [entry[2:] for entry in entries if zlib.crc32(entry.text.encode()) % 2]
    false_alarms = false_alarm_rate(pairs, known)
    click.echo("| error | planted | languages | caught |\n|---|---|---|---|")
    caught = total = 0
    for kind, wrong in planted(pairs, random.Random(0)).items():
        refused = verdicts(wrong, known)
        languages = len({language for pair in wrong for language in pair[:2]})
        click.echo(f"| {kind} | {len(wrong)} | {languages} | {sum(refused) / len(wrong):.2f} |")
        caught, total = caught + sum(refused), total + len(wrong)
    recall = caught / total
    click.echo(f"recall {recall:.3f} of {total} errors; correct pairs refused {false_alarms:.3f} of {len(pairs)}")
    for share in (0.5, 0.05):
        precision = recall * share / (recall * share + false_alarms * (1 - share))
        click.echo(f"precision {precision:.3f} if {share:.0%} of all pairs are wrong")


if __name__ == "__main__":
    main()
