"""Generate the sample data set in the competition's format from hand-written word lists.

Run ``python samples/generate.py data``. No text is copied from another source. The generator draws a *need* (a category and
possibly a colour, a device, a size, ...), writes it as a query in the way that speakers of a language would type it, and pairs
it with candidates. The label follows from the meaning of both and never from their wording. The same code gives the same bytes.

For each task it writes ``train_``, ``dev_`` and ``test_QC.txt`` (``_QI.txt``), and the labels of dev and test in separate files.
For both tasks together it writes ``memory.csv``, a translation memory of the train queries.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import sys
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from lexicon import WORDS, Entry, blocks, levels, read_products

# Languages of the competition and their share of label 1 in train. The sample has a fortieth of the competition's rows.
NATIVE = {
    "QC": {"en": 0.66, "fr": 0.70, "es": 0.71, "ko": 0.585, "pt": 0.69, "ja": 0.787},
    "QI": {"en": 0.63, "fr": 0.64, "es": 0.68, "ko": 0.61, "pt": 0.65, "ja": 0.62, "th": 0.547},
}
UNSEEN = {
    "QC": {"de": 0.67, "it": 0.66, "pl": 0.68, "ar": 0.69},
    "QI": {"de": 0.63, "it": 0.62, "pl": 0.62, "ar": 0.63, "vi": 0.62, "id": 0.61},
}
ROWS = {"train": 12_000, "dev": 3_000, "test": 3_000}
CANDIDATE = {"QC": "category_path", "QI": "item_title"}
TAG = {"vi": "vn"}
SPACELESS = ("ja", "th")
AFTER = ("fr", "es", "pt", "it", "th", "ar", "vi", "id")  # languages in which an adjective follows its noun
MEASURES: dict[str, list[str]] = {
    "ml": ["100ml", "250ml", "350ml", "500ml", "750ml", "1000ml"],
    "cm": ["20cm", "30cm", "45cm", "60cm", "90cm", "120cm"],
    "m": ["1m", "2m", "3m", "5m", "10m"],
    "kg": ["0.5kg", "1kg", "2kg", "5kg", "10kg"],
    "gb": ["32gb", "64gb", "128gb", "256gb", "512gb"],
    "w": ["9w", "12w", "20w", "65w", "100w", "800w"],
    "inch": ["7 inch", "10 inch", "14 inch", "24 inch", "27 inch"],
    "size": ["s", "m", "l", "xl", "xxl", "3xl"],
    "shoe": ["36", "38", "40", "42", "44"],
    "pcs": ["2pcs", "5pcs", "10pcs", "20pcs", "100pcs"],
    "v": ["5v", "12v", "24v", "110v", "220v"],
}
TYPO_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Need:
    """What a shopper is looking for. Empty fields are not constrained; without a path, any product for a device or of a brand fits."""

    path: str
    audience: str = ""
    color: str = ""
    material: str = ""
    feature: str = ""
    device: str = ""
    measure: str = ""
    brand: str = ""


@dataclass(frozen=True)
class Item:
    """A product of the shop. The fields hold its true properties, whatever its title states."""

    path: str
    audience: str
    color: str
    material: str
    features: tuple[str, ...]
    device: str
    measure: str
    brand: str
    title: str


class Shop:
    """The word lists, and the rules that decide which candidates answer a need."""

    def __init__(self) -> None:
        entries = read_products()
        self.entries = {entry.path: entry for entry in entries}
        self.leaves = [entry for entry in entries if entry.kind != "group"]
        self.groups = [entry for entry in entries if entry.kind == "group"]
        self.domain: dict[str, str] = {}
        for path in sorted(WORDS.glob("categories-*.txt")):
            for name, _ in blocks(path):
                self.domain[name] = path.stem.removeprefix("categories-")
        self.group_of: dict[str, str] = {}
        for leaf in self.leaves:
            above = [group.path for group in self.groups if leaf.path.startswith(group.path + ",")]
            self.group_of[leaf.path] = max(above, key=len)
        self.inside: dict[str, list[str]] = defaultdict(list)
        for leaf in self.leaves:
            for group in self.groups:
                if leaf.path.startswith(group.path + ","):
                    self.inside[group.path].append(leaf.path)
        self.words: dict[str, dict[str, dict[str, tuple[str, ...]]]] = defaultdict(dict)
        for name, values in blocks(WORDS / "attributes.txt"):
            kind, _, value = name.partition(": ")
            self.words[kind][value] = values
        devices = dict(blocks(WORDS / "devices.txt"))
        self.devices = {name: list(values["models"]) for name, values in devices.items() if "models" in values}
        self.brands = {name.split(": ")[1]: list(values["names"]) for name, values in devices.items() if name.startswith("brands: ")}
        self.aliases = {family: dict(form.split("=", 1) for form in forms) for family, forms in devices.get("aliases", {}).items()}
        # English words of each path, to draw candidates that share words with a path but not its meaning.
        self.sharing: dict[str, set[str]] = defaultdict(set)
        for entry in entries:
            for word in self.english(entry):
                self.sharing[word].add(entry.path)
        self.popularity = {
            entry.path: 1 + 4 * (int(hashlib.sha256(entry.path.encode()).hexdigest()[:8], 16) / 2**32) ** 2 for entry in entries
        }

    def english(self, entry: Entry) -> set[str]:
        text = " ".join([*entry.terms["en"], levels(entry.path)[-1]])
        return {word.rstrip("s") for word in text.replace(",", " ").split() if len(word) > 3}

    def answers(self, need: Need) -> set[str]:
        """Paths of leaves and groups that answer the need."""
        if not need.path:
            kinds = {kind for kind, names in self.devices.items() if need.device in names}
            return {
                leaf.path
                for leaf in self.leaves
                if leaf.fits in kinds or (need.brand and need.brand in self.brands[self.domain[leaf.path]])
            }
        entry = self.entries[need.path]
        found = set(self.inside[need.path]) if entry.kind == "group" else {need.path, *entry.also}
        if need.audience:
            found = {path for path in found if self.entries[path].audience in ("", need.audience)}
        return found | {self.group_of[path] for path in found if self.group_of[path] in self.entries}

    def category_answers(self, need: Need, path: str) -> bool:
        return path in self.answers(need)

    def item_answers(self, need: Need, item: Item) -> bool:
        if item.path not in self.answers(need):
            return False
        if need.audience and item.audience and item.audience != need.audience:
            return False
        asked = ("color", "material", "device", "measure", "brand")
        if any(getattr(need, name) and getattr(need, name) != getattr(item, name) for name in asked):
            return False
        return not need.feature or need.feature in item.features


class Writer:
    """Draws needs and items and writes them as text. All random choices depend on `seed`."""

    def __init__(self, shop: Shop, seed: str) -> None:
        self.shop = shop
        self.random = random.Random(seed)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def weighted(self, paths: list[str]) -> str:
        return self.random.choices(paths, [self.shop.popularity[path] for path in paths])[0]

    def need(self, task: str) -> Need:
        r, shop = self.random, self.shop
        if r.random() < 0.03:
            return Need("", device=r.choice([name for names in shop.devices.values() for name in names]))
        if task == "QI" and r.random() < 0.03:
            return Need("", brand=r.choice([name for names in shop.brands.values() for name in names]))
        if r.random() < (0.3 if task == "QC" else 0.12):
            need = Need(self.weighted([group.path for group in shop.groups]))
        else:
            need = Need(self.weighted([leaf.path for leaf in shop.leaves]))
        entry = shop.entries[need.path]
        chances = {"color": 0.16, "material": 0.12, "feature": 0.12, "device": 0.55, "measure": 0.15, "audience": 0.3, "brand": 0.05}
        wanted = [name for name, chance in chances.items() if r.random() < chance][: r.choice((1, 1, 2, 2, 3))]
        return replace(need, **{name: self.attribute(entry, name) for name in wanted})

    def attribute(self, entry: Entry, name: str) -> str:
        """Return a value that is plausible for the category, or an empty string."""
        r, shop = self.random, self.shop
        if name == "color":
            return r.choice(list(shop.words["color"])) if entry.colored else ""
        if name == "material":
            known = [value for value in entry.materials if value in shop.words["material"]]
            return r.choice(known) if known else ""
        if name == "feature":
            return r.choice(list(shop.words["feature"]))
        if name == "device":
            return r.choice(shop.devices[entry.fits]) if entry.fits else ""
        if name == "measure":
            return r.choice(MEASURES[entry.measure]) if entry.measure else ""
        if name == "brand":
            return r.choice(shop.brands[shop.domain[entry.path]])
        return entry.audience

    def item(self, path: str, need: Need | None = None) -> Item:
        """Draw an item of a leaf; with a need, an item that has the attributes of the need."""
        r, shop = self.random, self.shop
        entry = shop.entries[path]
        asked = need or Need(path)
        if asked.device and asked.device not in shop.devices.get(entry.fits, ()):
            asked = replace(asked, device="")  # the device belongs to another kind of product
        features = {r.choice(list(shop.words["feature"])) for _ in range(r.choice((0, 1, 1, 2, 3)))} | ({asked.feature} - {""})
        item = Item(
            path=path,
            audience=asked.audience or entry.audience,
            color=asked.color or (self.attribute(entry, "color") if r.random() < 0.6 else ""),
            material=asked.material or (self.attribute(entry, "material") if r.random() < 0.7 else ""),
            features=tuple(sorted(features)),
            device=asked.device or self.attribute(entry, "device"),
            measure=asked.measure or (self.attribute(entry, "measure") if r.random() < 0.6 else ""),
            brand=asked.brand or (self.attribute(entry, "brand") if r.random() < 0.5 else ""),
            title="",
        )
        return replace(item, title=self.title(item))

    # --- words -------------------------------------------------------------------------------------------------------

    def form(self, kind: str, value: str, language: str, *, plain: bool = False) -> str:
        forms = self.shop.words[kind][value].get(language) or self.shop.words[kind][value]["en"]
        return forms[0] if plain else self.random.choice(forms)

    def term(self, entry: Entry, language: str, *, plain: bool = False) -> str:
        terms = entry.terms[language]
        if plain or len(terms) == 1:
            return terms[0]
        return self.random.choices(terms, [3, *[2] * (len(terms) - 1)])[0]

    def device(self, name: str, language: str, *, plain: bool = False) -> str:
        family, _, rest = name.partition(" ")
        alias = self.shop.aliases.get(family, {}).get(language)
        if alias and not plain and self.random.random() < 0.5:
            return f"{alias} {rest}".strip()
        return name

    def say(self, need: Need, language: str, *, plain: bool = False) -> str:
        """Write the need as a query. With `plain`, write it as a translator would: first forms, correct spelling, no typing errors."""
        r = self.random
        if not need.path:
            text = self.device(need.device, language, plain=plain) if need.device else need.brand.lower()
            return text if plain else self.slip(text, language)
        entry = self.shop.entries[need.path]
        # Some queries in other languages use the English noun.
        mixed = not plain and language != "en" and r.random() < 0.05
        noun = self.term(entry, "en" if mixed else language, plain=plain)
        adjectives = [
            self.form(kind, getattr(need, kind), language, plain=plain) for kind in ("feature", "color", "material") if getattr(need, kind)
        ]
        if not plain:
            r.shuffle(adjectives)
        after = language in AFTER or (language in ("pl", "en", "de") and not plain and r.random() < 0.2)
        words = [noun, *adjectives] if after else [*adjectives, noun]
        if need.audience:
            audience = self.form("audience", need.audience, language, plain=plain)
            first = language in ("en", "de", "ja", "ko") if plain else r.random() < (0.6 if language in ("en", "ja", "ko", "de") else 0.1)
            words = [audience, *words] if first else [*words, audience]
        if need.device:
            device = self.device(need.device, language, plain=plain)
            link = self.form("word", "for", language, plain=True)
            if language in ("ja", "ko") or (not plain and r.random() < 0.45):
                words = [device, *words] if language not in AFTER or r.random() < 0.2 else [*words, device]
            else:
                words = [*words, *([link] if link != "_" else []), device]
        if need.brand:
            words = [need.brand.lower(), *words] if plain or r.random() < 0.6 else [*words, need.brand.lower()]
        if need.measure:
            words = [*words, need.measure] if plain or r.random() < 0.8 else [need.measure, *words]
        if not plain and r.random() < 0.06:
            words.append(self.form("intent", r.choice(list(self.shop.words["intent"])), language))
        space = " "
        if language in SPACELESS and (plain or r.random() < 0.5):
            space = "" if language == "th" or not plain else " "
        text = space.join(words)
        return text if plain else self.slip(text, language)

    def slip(self, text: str, language: str) -> str:
        """Add the typing errors, missing accents and stray characters of real queries."""
        r = self.random
        text = text.lower()
        if language in ("fr", "es", "pt", "de", "it", "pl", "vi") and r.random() < 0.35:
            text = "".join(
                c for c in unicodedata.normalize("NFD", text.replace("ł", "l").replace("đ", "d")) if not unicodedata.combining(c)
            )
        places = [n for n, c in enumerate(text) if c in TYPO_ALPHABET and 0 < n < len(text) - 1]
        if len(places) > 5 and r.random() < 0.09:
            place = r.choice(places)
            kind = r.choice(("drop", "swap", "double", "other"))
            if kind == "drop":
                text = text[:place] + text[place + 1 :]
            elif kind == "swap":
                text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
            elif kind == "double":
                text = text[:place] + text[place] + text[place:]
            else:
                text = text[:place] + r.choice(TYPO_ALPHABET) + text[place + 1 :]
        if language == "ja" and r.random() < 0.3:
            text = text.replace(" ", "　")
        if r.random() < 0.008:
            text = r.choice(('"' + text, text + "%", text + " .", text + "  "))
        return text

    def title(self, item: Item) -> str:
        """Write a title as marketplaces do: in English, sometimes in Thai, with unnecessary words."""
        r, shop = self.random, self.shop
        entry = shop.entries[item.path]
        thai = r.random() < 0.06
        if thai:
            parts = [self.term(entry, "th")]
            parts += [self.form(kind, getattr(item, kind), "th") for kind in ("color", "material") if getattr(item, kind)]
            parts += [self.form("feature", feature, "th") for feature in item.features]
            filler = list(shop.words["thai title words"][""]["th"])
        else:
            phrase = r.choice(entry.titles) if r.random() < 0.75 else r.choice(entry.terms["en"]).title()
            parts = [phrase]
            parts += [r.choice(shop.words["feature"][feature].get("title", (feature.title(),))) for feature in item.features]
            if item.material:
                parts.insert(
                    r.choice((0, len(parts))), r.choice(shop.words["material"][item.material].get("title", (item.material.title(),)))
                )
            if item.color:
                parts.append(item.color.title())
            filler = list(shop.words["noise"]["title"]["en"])
        if item.audience:
            parts.insert(
                0 if r.random() < 0.4 else len(parts),
                r.choice(shop.words["audience"][item.audience].get("title", (item.audience.title(),))),
            )
        if item.device:
            parts.append(("สำหรับ " if thai else "For ") + item.device.title())
        if item.measure:
            parts.append(item.measure.upper() if entry.measure in ("size", "gb", "w", "v") else item.measure)
        if item.brand:
            parts.insert(0, item.brand)
        for _ in range(r.choice((0, 1, 1, 2, 3))):
            parts.insert(r.randrange(len(parts) + 1), r.choice(filler))
        if r.random() < 0.25:
            parts.append("".join(r.choice("ABCDEFGHKLMNPRSTVX") for _ in range(2)) + str(r.randrange(100, 9999)))
        return " ".join(parts)[:300]

    # --- candidates --------------------------------------------------------------------------------------------------

    def other_path(self, need: Need, *, leaf: bool) -> str:
        """Draw a path that does not answer the need: close to it, with similar words, or any other.

        The path is an answer to another drawn need, so that each path is as frequent in negatives as in positives.
        """
        r, shop = self.random, self.shop
        answers = shop.answers(need)
        entry = shop.entries[need.path or self.weighted(sorted(answers))]
        group = entry.path if entry.kind == "group" else shop.group_of[entry.path]
        for _ in range(100):
            kind = r.choices(("sibling", "top", "belongs", "wording", "any"), (22, 20, 12, 16, 30))[0]
            if kind == "sibling":
                found = shop.inside[group]
            elif kind == "top":
                found = [other.path for other in shop.leaves if other.top == entry.top]
            elif kind == "belongs":
                found = [other.path for other in shop.leaves if other.of in (entry.path, group) or other.path == entry.of]
            elif kind == "wording":
                found = sorted({path for word in shop.english(entry) for path in shop.sharing[word]})
            else:
                found = list(shop.entries)
            found = [path for path in found if path not in answers]
            if not found:
                continue
            path = self.weighted(sorted(shop.answers(Need(self.weighted(found)))))
            part = any(path.startswith(answer + ",") for answer in answers)
            whole = any(answer.startswith(path + ",") for answer in answers)
            # A path above or below an answer is not a clear negative.
            if path not in answers and not part and not whole and not (leaf and shop.entries[path].kind == "group"):
                return path
        raise ValueError(f"no negative for {need}")

    def categories(self, need: Need, share: float, count: int) -> list[tuple[str, int]]:
        """Draw distinct candidates of a need as ``(category path, label)``."""
        r, shop = self.random, self.shop
        answers = sorted(shop.answers(need))
        wanted = sum(r.random() < share for _ in range(count))
        positives: list[str] = []
        while len(positives) < min(wanted, len(answers)):
            path = self.weighted([path for path in answers if path not in positives])
            positives.append(path)
        # With fewer answers than wanted, draw fewer negatives too; otherwise a narrow query would have almost only negatives.
        left = count - wanted if not wanted else (count - wanted) * len(positives) / wanted
        negatives: list[str] = []
        while len(negatives) < int(left + r.random()):
            path = self.other_path(need, leaf=False)
            if path in negatives:
                break
            negatives.append(path)
        chosen = positives + negatives
        r.shuffle(chosen)
        return [(path, int(shop.category_answers(need, path))) for path in chosen]

    def items(self, need: Need, share: float, count: int) -> list[tuple[str, int]]:
        """Draw distinct candidates of a need as ``(item title, label)``."""
        r, shop = self.random, self.shop
        leaves = [path for path in sorted(shop.answers(need)) if shop.entries[path].kind != "group"]
        chosen: dict[str, int] = {}
        while len(chosen) < count:
            if r.random() < share:
                item = self.item(self.weighted(leaves), need)
            elif r.random() < 0.3:
                item = self.conflict(need, self.weighted(leaves))
            else:
                item = self.item(self.other_path(need, leaf=True))
            chosen.setdefault(item.title, int(shop.item_answers(need, item)))
        return list(chosen.items())

    def conflict(self, need: Need, path: str) -> Item:
        """Draw an item of the right kind with one wrong attribute, such as its colour; an unrelated item if the need has no attribute."""
        asked = [name for name in ("color", "material", "device", "measure", "brand") if getattr(need, name)]
        if not asked or not need.path:
            return self.item(self.other_path(need, leaf=True))
        name = self.random.choice(asked)
        item = self.item(path, need)
        for _ in range(20):
            value = self.attribute(self.shop.entries[path], name)
            if value and value != getattr(need, name):
                item = replace(item, **{name: value})  # type: ignore[arg-type]
                break
        return replace(item, title=self.title(item))


def count_of(generator: random.Random) -> int:
    """Draw the number of candidates of a query: one to ten, four on average."""
    return generator.choices(range(1, 11), (14, 16, 16, 14, 12, 9, 7, 5, 4, 3))[0]


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def make(shop: Shop, task: str, folder: Path) -> dict[tuple[str, str, str], str]:
    """Write the files of one task and return the translations of its train queries."""
    taken: dict[str, str] = {}
    memory: dict[tuple[str, str, str], str] = {}
    for split, rows in ROWS.items():
        languages = NATIVE[task] if split == "train" else NATIVE[task] | UNSEEN[task]
        records: list[dict[str, Any]] = []
        for language, share in languages.items():
            writer = Writer(shop, f"{task} {split} {language}")
            wanted = round(rows / len(languages))
            mine: list[dict[str, Any]] = []
            mine_queries: set[str] = set()
            while len(mine) < wanted:
                need = writer.need(task)
                slipped = language == "en" and writer.random.random() < 0.08
                spoken = writer.random.choice(("fr", "es", "pt")) if slipped else language
                query = writer.say(need, spoken)
                # A query occurs in one split only, across all languages, and once in a language.
                if not normal(query) or taken.get(normal(query), split) != split or query in mine_queries:
                    continue
                taken[normal(query)] = split
                mine_queries.add(query)
                pairs = (writer.categories if task == "QC" else writer.items)(need, share, count_of(writer.random))
                mine += [
                    {"language": TAG.get(language, language), "origin_query": query, CANDIDATE[task]: candidate, "label": str(label)}
                    for candidate, label in pairs
                ]
                if split == "train" and writer.random.random() < 0.95:
                    for target in UNSEEN[task]:
                        plain = Writer(shop, f"memory {task} {language} {target} {query}").say(need, target, plain=True)
                        memory.setdefault((language, target, normal(query)), plain)
            records += mine[:wanted]
        if split == "train":
            records = spoil(records, task)
        write(records, task, split, folder)
    return memory


def spoil(records: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """Add the defects of raw logs: duplicate rows, rows with both labels, and items without a title."""
    generator = random.Random(f"spoil {task}")
    for record in generator.sample(records, 24):
        records.insert(records.index(record), dict(record))
    for record in generator.sample(records, 6):
        records.insert(records.index(record), record | {"label": "10"[int(record["label"])]})
    if task == "QI":
        for record in generator.sample(records, 16):
            record["item_title"] = ""
    return records


def write(records: list[dict[str, Any]], task: str, split: str, folder: Path) -> None:
    hidden = split != "train"
    lines, labels = [], []
    for number, record in enumerate(records, 1):
        fields = {"id": str(number), "task": task, **record}
        if hidden:
            labels.append((fields["id"], fields.pop("label")))
        lines.append(json.dumps(fields, ensure_ascii=False))
    (folder / f"{split}_{task}.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    if hidden:
        with (folder / f"{split}_{task}_labels.csv").open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerows([("id", "label"), *labels])


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shop = Shop()
    memory: dict[tuple[str, str, str], str] = {}
    for task in NATIVE:
        memory |= make(shop, task, folder)
    with (folder / "memory.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("source", "target", "text", "translation"))
        writer.writerows((*key, memory[key]) for key in sorted(memory))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python samples/generate.py FOLDER")
    main(Path(sys.argv[1]))
