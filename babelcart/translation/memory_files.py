"""CSV and TMX files of translations, which people edit and share; `translation_memory` merges them into its store."""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
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
    return read_tmx(path) if path.suffix.lower() == ".tmx" else read_csv(path)


def write_file(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries in the given order, in the format that `read_file` expects under this name. Return their number."""
    return write_tmx(path, entries) if path.suffix.lower() == ".tmx" else write_csv(path, entries)


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

    Files of spreadsheets are read as well: a byte order mark, UTF-16, ``;`` or tabs as the delimiter, a first line such as ``sep=;``, names
    of columns in any case, and empty lines.

    Yields
    ------
    Entry
        In the order of the file. Without an engine, an entry belongs to `GIVEN`.

    Raises
    ------
    UserError
        If the file does not exist, is not CSV in UTF-8 or UTF-16, has a wrong header, row or language, or a quote merged several rows; the
        message names the line.
    """
    encoding = "utf-8-sig"
    try:
        with path.open("rb") as binary:
            start = binary.read(64)
        if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            encoding = "utf-16"
        elif b"\0" in start:
            raise UserError(f"{path} has zero bytes and no byte order mark, as UTF-16 without one; save it as CSV in UTF-8")
        with path.open(encoding=encoding, newline="") as handle:
            yield from _csv_entries(handle, str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; check the path in translate.memory of params.yaml or on the command line (a CSV file that has only "
            "the header is an empty memory)"
        ) from None
    except UnicodeError as error:
        raise UserError(
            f"{path}, line {_undecodable_line(path, encoding)}: is not {encoding.removesuffix('-sig').upper()} text ({error}); save the "
            "file as CSV in UTF-8"
        ) from error


def _undecodable_line(path: Path, encoding: str) -> int:
    """Return the number of the first line with bytes that are not text in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line_number = 1
    with path.open("rb") as binary:
        for block in iter(lambda: binary.read(1), b""):
            try:
                line_number += decoder.decode(block).count("\n")
            except UnicodeError:
                break
    return line_number


def _csv_entries(handle: IO[str], name: str) -> Iterator[Entry]:
    first_line = handle.readline()
    skipped = 1 if re.match(r"\"?sep=.\"?\s*$", first_line, re.IGNORECASE) else 0  # Excel's line that declares the delimiter
    if skipped:
        first_line = handle.readline()
    delimiter = next((character for character in ",;\t" if len(first_line.split(character)) >= len(REQUIRED)), ",")
    reader = csv.reader(itertools.chain([first_line], handle), strict=True, delimiter=delimiter)
    header = [column.strip().lower() for column in _next_record(reader, name, skipped) or []]
    if not set(REQUIRED) <= set(header) <= set(HEADER) or len(set(header)) != len(header):
        raise UserError(
            f"{name}, line {skipped + 1}: expected the columns {', '.join(HEADER)} (the first two are optional), separated by commas, "
            f"semicolons or tabs; found {short_repr(header)}"
        )
    defaults = {"engine": GIVEN, "version": ""}
    start = reader.line_num + skipped + 1
    while (record := _next_record(reader, name, skipped)) is not None:
        location, start = f"{name}, line {start}", reader.line_num + skipped + 1
        if not record:
            continue
        if len(record) != len(header):
            raise UserError(f"{location}: expected {len(header)} fields; found {len(record)}")
        if any(line.count(delimiter) >= len(header) - 1 for field in record for line in field.splitlines()[1:]):
            raise UserError(
                f"{location}: a field contains other lines of the file; close its quotes, or double a quote that is a character"
            )
        fields = dict(zip(header, map(unescape_formula, record), strict=True))
        yield _clean(Entry(**{**defaults, **fields}), location)


def _next_record(reader: Any, name: str, skipped: int) -> list[str] | None:
    """Return the next record of a CSV reader, or None at the end; `skipped` is the number of lines that were read before."""
    try:
        record: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num + skipped}: is not CSV: {error}") from error
    return record


def _clean(entry: Entry, location: str) -> Entry:
    """Bring the fields of a file into the form that `Entry` describes."""
    source, target = languages.iso_code(entry.source), languages.iso_code(entry.target)
    if source is None or target is None:
        raise UserError(
            f"{location}: unknown language in {short_repr([entry.source, entry.target])}; accepted: ISO 639-1 codes and the aliases in "
            "babelcart/rows/languages.py"
        )
    if source == target:
        raise UserError(
            f"{location}: {short_repr([entry.source, entry.target])} are the same language, {source}, because Babelcart has no regions; "
            "delete this translation"
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

    Tags of languages are compared regardless of case, and a source language also matches a variant with another region (``en`` and
    ``en-US``). Of several variants of one language, such as ``pt-PT`` and ``pt-BR``, the one without region is read, or else the first.
    With the source language ``*all*``, a unit gives entries in all directions. Private tags, such as ``x-none``, are no languages, and
    their variants are left out. Inline codes (``bpt``, ``ept``, ``it``, ``ph``, ``ut``) are markup and are removed.

    Yields
    ------
    Entry
        One for each language of a unit except its source language.

    Raises
    ------
    UserError
        If the file does not exist, is not TMX, names an unknown language, or a unit has no variant in its source language; the message
        names the unit.
    """
    try:
        default_source, root, units = "en", None, 0
        for event, element in ElementTree.iterparse(path, events=("start", "end")):
            tag = _local_name(element)
            if event == "start":
                root = root or tag
            elif tag == "header":
                default_source = element.get("srclang", default_source)
            elif tag == "tu":
                units += 1
                yield from _unit_entries(element, default_source, f"{path}, unit {units}")
                element.clear()
        if root != "tmx":
            raise UserError(f"{path} is not TMX: its root element is {root}; accepted: tmx")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check its name, or export a memory with `babelcart memory export`") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two come from text encodings
        raise UserError(f"{path} is not TMX: {error}") from error


def _local_name(element: ElementTree.Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def _unit_entries(unit: ElementTree.Element, default_source: str, name: str) -> Iterator[Entry]:
    """Yield the entries of one translation unit (``tu``)."""
    properties = {prop.get("type"): prop.text or "" for prop in unit if _local_name(prop) == "prop"}
    engine, version = properties.get("x-engine", GIVEN), properties.get("x-version", "")
    variants: dict[str, str] = {}  # tag in normal form -> text
    for variant in unit:
        if _local_name(variant) == "tuv":
            tag = _normal_tag(variant.get(_TMX_LANGUAGE) or variant.get("lang") or "")
            segment = next((child for child in variant if _local_name(child) == "seg"), None)
            if segment is None or not tag:
                raise UserError(f"{name}: a tuv has no {'seg' if tag else 'xml:lang'}; each variant needs its language and its text")
            variants.setdefault(tag, "".join(_text_parts(segment)))
    texts: dict[str, str] = {}  # language -> text
    for tag in sorted(variants, key=lambda tag: "-" in tag):  # tags without a region first; the sort is stable
        if not tag.startswith("x-"):
            texts.setdefault(_language(tag, name), variants[tag])
    source_tag = _normal_tag(unit.get("srclang", default_source))
    sources = list(texts) if source_tag == "*all*" else [_language(source_tag, name)]
    if len(texts) > 1 and sources[0] not in texts:
        raise UserError(f"{name}: the source language is {source_tag}, but the unit has only {', '.join(variants)}; correct srclang")
    for source in sources if len(texts) > 1 else ():
        if source_tag in variants:  # the variant with the region of the source language itself
            texts[source] = variants[source_tag]
        for target in texts:
            if target != source:
                yield _clean(Entry(engine, version, source, target, texts[source], texts[target]), name)


def _normal_tag(tag: str) -> str:
    return tag.strip().lower().replace("_", "-")


def _language(tag: str, name: str) -> str:
    """Return the ISO 639-1 code of a tag."""
    code = languages.iso_code(tag)
    if code is None:
        raise UserError(
            f"{name}: unknown language {short_repr(tag)}; accepted: ISO 639-1 codes, also with a region, and the aliases in "
            "babelcart/rows/languages.py"
        )
    return code


def _text_parts(element: ElementTree.Element) -> Iterator[str]:
    """Yield the texts of a segment without its inline codes; a placeholder becomes a space. Other elements, such as ``hi``, contain
    text.
    """
    yield element.text or ""
    for child in element:
        if _local_name(child) in ("ph", "it", "ut"):
            yield " "
        elif _local_name(child) not in ("bpt", "ept"):
            yield from _text_parts(child)
        yield child.tail or ""
