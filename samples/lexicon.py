"""Read the hand-written word lists of the sample shop (``samples/words/*.txt``).

A list consists of blocks separated by blank lines. The first line of a block is ``# `` and its name; every other line is
``key: value | value``. ``categories-*.txt`` define category paths; ``attributes.txt`` and ``devices.txt`` define the attributes
of products. Run ``python samples/lexicon.py`` to validate the lists.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

LANGUAGES = ("en", "fr", "es", "pt", "ja", "ko", "th", "de", "it", "pl", "ar", "vi", "id")
WORDS = Path(__file__).parent / "words"
KINDS = ("group", "product", "accessory", "part", "supply")
AUDIENCES = ("", "men", "women", "kids", "baby", "pets")
FITS = ("", "phone", "tablet", "laptop", "smartwatch", "camera", "console", "printer", "car", "motorcycle")
MEASURES = ("", "ml", "cm", "m", "kg", "gb", "w", "inch", "size", "shoe", "pcs", "v")


@dataclass(frozen=True)
class Entry:
    """A category path and the words that people use for its products."""

    path: str
    kind: str
    audience: str = ""
    fits: str = ""
    measure: str = ""
    colored: bool = False
    materials: tuple[str, ...] = ()
    of: str = ""
    also: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    terms: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def top(self) -> str:
        return levels(self.path)[0]


def levels(path: str) -> list[str]:
    """Split a category path into its levels. A comma followed by a space is part of a name."""
    return re.split(r",(?! )", path)


def blocks(path: Path) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """Read the blocks of a word list as ``(name, {key: values})``, in file order."""
    found: list[tuple[str, dict[str, tuple[str, ...]]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        if line.startswith("# "):
            found.append((line[2:].strip(), {}))
            continue
        key, separator, value = line.partition(":")
        if not separator or not found:
            raise ValueError(f"{path.name}:{number}: expected 'key: value | value', found {line!r}")
        if key.strip() in found[-1][1]:
            raise ValueError(f"{path.name}:{number}: key {key.strip()!r} occurs twice in block {found[-1][0]!r}")
        found[-1][1][key.strip()] = tuple(part.strip() for part in value.split("|") if part.strip())
    return found


def one(values: dict[str, tuple[str, ...]], key: str) -> str:
    return values.get(key, ("",))[0]


def read_products(folder: Path = WORDS, pattern: str = "categories-*.txt") -> list[Entry]:
    """Read all category entries and check them against each other.

    Raises
    ------
    ValueError
        If a block breaks a rule. The message names every such block.
    """
    entries: list[Entry] = []
    errors: list[str] = []
    for path in sorted(folder.glob(pattern)):
        for name, values in blocks(path):
            where = f"{path.name}: {name!r}"
            terms = {language: values[language] for language in LANGUAGES if language in values}
            unknown = set(values) - set(LANGUAGES) - {
                "kind", "audience", "fits", "measure", "colored", "materials", "of", "also", "titles"
            }  # fmt: skip
            errors += [f"{where}: unknown key {key!r}" for key in sorted(unknown)]
            errors += [f"{where}: no terms in {language!r}" for language in LANGUAGES if not terms.get(language)]
            entry = Entry(
                path=name, kind=one(values, "kind"), audience=one(values, "audience"), fits=one(values, "fits"),
                measure=one(values, "measure"), colored=one(values, "colored") == "yes", materials=values.get("materials", ()),
                of=one(values, "of"), also=values.get("also", ()), titles=values.get("titles", ()), terms=terms,
            )  # fmt: skip
            for key, allowed in (("kind", KINDS), ("audience", AUDIENCES), ("fits", FITS), ("measure", MEASURES)):
                if getattr(entry, key) not in allowed:
                    errors.append(f"{where}: {key} {getattr(entry, key)!r} is not accepted; accepted: {allowed}")
            if entry.kind == "group" and len(levels(name)) < 2:
                errors.append(f"{where}: a group needs at least two levels")
            if entry.kind != "group" and len(levels(name)) < 3:
                errors.append(f"{where}: a leaf needs at least three levels")
            if entry.kind != "group" and len(entry.titles) < 3:
                errors.append(f"{where}: a leaf needs at least three titles")
            entries.append(entry)
    paths = [entry.path for entry in entries]
    groups = {entry.path for entry in entries if entry.kind == "group"}
    errors += [f"{path!r} is defined twice" for path in sorted({path for path in paths if paths.count(path) > 1})]
    for entry in entries:
        if entry.kind != "group" and not any(entry.path.startswith(group + ",") for group in groups):
            errors.append(f"{entry.path!r}: no block of kind group for a path above it")
        if pattern == "categories-*.txt":
            for other in (*entry.also, *([entry.of] if entry.of else [])):
                if other not in paths:
                    errors.append(f"{entry.path!r}: refers to {other!r}, which has no block")
    if errors:
        raise ValueError("\n".join(errors))
    return entries


if __name__ == "__main__":
    # Validate all lists, or one: python samples/lexicon.py categories-home.txt
    try:
        checked = read_products(pattern=sys.argv[1] if len(sys.argv) > 1 else "categories-*.txt")
    except ValueError as error:
        sys.exit(str(error))
    leaves = [entry for entry in checked if entry.kind != "group"]
    print(f"{len({entry.top for entry in checked})} top levels, {len(checked) - len(leaves)} groups, {len(leaves)} leaves, "
          f"{sum(len(terms) for entry in checked for terms in entry.terms.values())} terms")  # fmt: skip
