"""CSV and TMX files of translations, which people edit and share; `translation_memory` merges them into its store."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import atomic_write
from babelcart.rows import languages
from babelcart.rows.text import collapse_spaces, normalise
from babelcart.spreadsheet import escape_formula, unescape_formula

HEADER = ("engine", "version", "source", "target", "text", "translation")
# Columns that every CSV file must have; the other two are optional.
REQUIRED = HEADER[2:]
# Engine of the entries in a file that does not name one.
GIVEN = "given"
_TMX_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class Entry(NamedTuple):
    """One translation and the engine that made it.

    `source` and `target` are ISO 639-1 codes; `text` is in normal form (`babelcart.rows.text.normalise`) and `translation` on one line.
    """

    engine: str
    version: str
    source: str
    target: str
    text: str
    translation: str


def read_file(path: Path) -> Iterator[Entry]:
    """Read a memory: as TMX if its name ends with ``.tmx``, otherwise as CSV.

    Raises
    ------
    UserError
        If the file does not exist or cannot be read; the message names the line or unit.
    """
    return read_tmx(path) if path.suffix == ".tmx" else read_csv(path)


def write_file(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries in the given order, in the format that `read_file` expects under this name. Return their number."""
    return write_tmx(path, entries) if path.suffix == ".tmx" else write_csv(path, entries)


def write_csv(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries as CSV in the given order and return their number.

    People open these files in spreadsheets, so cells that look like formulas are escaped; `read_csv` restores them.
    """
    entry_count = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(HEADER)
        for entry in entries:
            writer.writerow(map(escape_formula, entry))
            entry_count += 1
    return entry_count


def read_csv(path: Path) -> Iterator[Entry]:
    """Read a CSV file with the columns ``source``, ``target``, ``text``, ``translation`` and optionally ``engine``, ``version``.

    Yields
    ------
    Entry
        In the order of the file. Without an engine, an entry belongs to `GIVEN`.

    Raises
    ------
    UserError
        If the file does not exist, is not CSV in UTF-8, or has a wrong header, row or language; the message names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            yield from _csv_entries(handle, str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; check the path in translate.memory of params.yaml or on the command line (a CSV file that has only "
            "the header is an empty memory)"
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV of UTF-8 text: {error}") from error


def _csv_entries(handle: IO[str], name: str) -> Iterator[Entry]:
    reader = csv.reader(handle, strict=True)
    header = next(reader, [])
    if not set(REQUIRED) <= set(header) <= set(HEADER) or len(set(header)) != len(header):
        raise UserError(
            f"{name}, line 1: expected the columns {', '.join(HEADER)} (the first two are optional); found {short_repr(header)}"
        )
    defaults = {"engine": GIVEN, "version": ""}
    for record in reader:
        location = f"{name}, line {reader.line_num}"
        if len(record) != len(header):
            raise UserError(f"{location}: expected {len(header)} fields; found {len(record)}")
        fields = dict(zip(header, map(unescape_formula, record), strict=True))
        yield _clean(Entry(**{**defaults, **fields}), location)


def _clean(entry: Entry, location: str) -> Entry:
    """Bring the fields of a file into the form that `Entry` describes."""
    source, target = languages.iso_code(entry.source), languages.iso_code(entry.target)
    if source is None or target is None:
        raise UserError(
            f"{location}: unknown language in {short_repr([entry.source, entry.target])}; accepted: ISO 639-1 codes and the aliases in "
            "babelcart/rows/languages.py"
        )
    engine, version, translation = map(collapse_spaces, (entry.engine, entry.version, entry.translation))
    return Entry(engine or GIVEN, version, source, target, normalise(entry.text), translation)


def write_tmx(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries as TMX 1.4, the exchange format of translation tools, and return their number."""
    entry_count = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write('<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4">\n<header creationtool="babelcart" ')
        handle.write('creationtoolversion="1" segtype="phrase" o-tmf="csv" adminlang="en" srclang="*all*" datatype="plaintext"/>\n<body>\n')
        for entry in entries:
            properties = f'<prop type="x-engine">{_xml(entry.engine)}</prop><prop type="x-version">{_xml(entry.version)}</prop>'
            handle.write(f"<tu srclang={quoteattr(entry.source)}>{properties}")
            for language, text in ((entry.source, entry.text), (entry.target, entry.translation)):
                handle.write(f"<tuv xml:lang={quoteattr(language)}><seg>{_xml(text)}</seg></tuv>")
            handle.write("</tu>\n")
            entry_count += 1
        handle.write("</body>\n</tmx>\n")
    return entry_count


def _xml(text: str) -> str:
    # XML 1.0 cannot represent control characters, not even escaped.
    return escape("".join(character for character in text if character >= " " or character in "\t\n\r"))


def read_tmx(path: Path) -> Iterator[Entry]:
    """Read a TMX file.

    Yields
    ------
    Entry
        One for each language of a unit except its source language.

    Raises
    ------
    UserError
        If the file does not exist, is not TMX, or names an unknown language.
    """
    try:
        default_source = "en"
        for _, element in ElementTree.iterparse(path, events=("end",)):
            if element.tag == "header":
                default_source = element.get("srclang", default_source)
            elif element.tag == "tu":
                yield from _unit_entries(element, default_source, str(path))
                element.clear()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check its name, or export a memory with `babelcart memory export`") from None
    except (ElementTree.ParseError, AttributeError, ValueError, LookupError) as error:  # the last two come from text encodings
        raise UserError(f"{path} is not TMX: {error}") from error


def _unit_entries(unit: ElementTree.Element, default_source: str, name: str) -> Iterator[Entry]:
    """Yield the entries of one translation unit (``tu``)."""
    properties = {prop.get("type"): prop.text or "" for prop in unit.iter("prop")}
    engine, version = properties.get("x-engine", GIVEN), properties.get("x-version", "")
    texts: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        language = variant.get(_TMX_LANGUAGE) or variant.get("lang") or ""
        texts[language] = "".join(variant.find("seg").itertext())  # type: ignore[union-attr]  # read_tmx reports a missing seg
    source = unit.get("srclang", default_source)
    source = source if source in texts else next(iter(texts), "")
    for target in texts:
        if target != source:
            entry = Entry(engine, version, source, target, texts[source], texts[target])
            yield _clean(entry, f"{name}, unit of {short_repr(texts[source])}")
