"""Read the hand-written word lists of the sample shop (``samples/words/*.txt``).

A list is blocks separated by a blank line. The first line of a block is ``# `` and its name; every other line is
``key: value | value``. ``categories-*.txt`` name category paths, ``attributes.txt`` and ``devices.txt`` what may be said of
a product. Run it to check the lists: ``python samples/lexicon.py``.
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
    """A category path and the words that people use for what is in it."""

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
    """The levels of a category path; a comma followed by a space is part of a name."""
    return re.split(r",(?! )", path)


def blocks(path: Path) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """``(name, {key: values})`` of each block of a word list, in file order."""
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
            raise ValueError(f"{path.name}:{number}: {key.strip()!r} stands twice in {found[-1][0]!r}")
        found[-1][1][key.strip()] = tuple(part.strip() for part in value.split("|") if part.strip())
    return found


def one(values: dict[str, tuple[str, ...]], key: str) -> str:
    return values.get(key, ("",))[0]


def read_products(folder: Path = WORDS, pattern: str = "categories-*.txt") -> list[Entry]:
    """All category entries, checked against one another.

    Raises
    ------
    ValueError
        Names every block that breaks a rule.
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
                    errors.append(f"{where}: {key} {getattr(entry, key)!r} is none of {allowed}")
            if entry.kind == "group" and len(levels(name)) < 2:
                errors.append(f"{where}: a group has at least two levels")
            if entry.kind != "group" and len(levels(name)) < 3:
                errors.append(f"{where}: a leaf has at least three levels")
            if entry.kind != "group" and len(entry.titles) < 3:
                errors.append(f"{where}: a leaf has at least three titles")
            entries.append(entry)
    paths = [entry.path for entry in entries]
    groups = {entry.path for entry in entries if entry.kind == "group"}
    errors += [f"{path!r} stands twice" for path in sorted({path for path in paths if paths.count(path) > 1})]
    for entry in entries:
        if entry.kind != "group" and not any(entry.path.startswith(group + ",") for group in groups):
            errors.append(f"{entry.path!r}: no group block for the path above it")
        if pattern == "categories-*.txt":
            for other in (*entry.also, *([entry.of] if entry.of else [])):
                if other not in paths:
                    errors.append(f"{entry.path!r}: refers to {other!r}, which has no block")
    if errors:
        raise ValueError("\n".join(errors))
    return entries


if __name__ == "__main__":
    # One list alone (python samples/lexicon.py categories-home.txt), or all of them.
    try:
        checked = read_products(pattern=sys.argv[1] if len(sys.argv) > 1 else "categories-*.txt")
    except ValueError as error:
        sys.exit(str(error))
    leaves = [entry for entry in checked if entry.kind != "group"]
    print(f"{len({entry.top for entry in checked})} top levels, {len(checked) - len(leaves)} groups, {len(leaves)} leaves, "
          f"{sum(len(terms) for entry in checked for terms in entry.terms.values())} terms")  # fmt: skip
