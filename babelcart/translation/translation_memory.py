"""The translation memory: every translation that was ever paid for, found again without asking.

An entry is keyed by the engine, its version, both languages and the text in normal form. The working store is one SQLite file in
write-ahead mode, so that a process killed at any moment loses nothing that was added, and several processes may add at once.
What is shared is a CSV file in a fixed order: the same entries give the same bytes, and two memories merge without
conflict in any order (where both know a text, the translation that sorts first stays).
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import atomic_write, sha256
from babelcart.rows import languages
from babelcart.rows.text import collapse_spaces, normalise
from babelcart.spreadsheet import escape_formula, unescape_formula

HEADER = ("engine", "version", "source", "target", "text", "translation")
# The engine of entries that a file gives without saying who made them.
GIVEN = "given"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS directions (
    id INTEGER PRIMARY KEY, engine TEXT NOT NULL, version TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
    UNIQUE (engine, version, source, target));
CREATE TABLE IF NOT EXISTS entries (
    direction INTEGER NOT NULL, text TEXT NOT NULL, translation TEXT NOT NULL, PRIMARY KEY (direction, text)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doubtful (
    direction INTEGER NOT NULL, text TEXT NOT NULL, translation TEXT NOT NULL, PRIMARY KEY (direction, text)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identified (
    target TEXT NOT NULL, text TEXT NOT NULL, other INTEGER NOT NULL, PRIMARY KEY (target, text)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_ADD = "INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET translation = min(translation, excluded.translation)"


class Entry(NamedTuple):
    """One translation and who made it."""

    engine: str
    version: str
    source: str
    target: str
    text: str
    translation: str


class Memory:
    """A store of translations.

    Parameters
    ----------
    path : Path
        SQLite file, made if there is none. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._open = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            self._open.execute("PRAGMA journal_mode = WAL")
            self._open.execute("PRAGMA synchronous = NORMAL")  # survives a killed process; a power cut may lose the last commits
            self._open.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite's own message quotes damaged bytes
            self._open.close()
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode not in (
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_ERROR,
            ):
                raise  # a full disk, a busy file: nothing to delete
            raise UserError(f"{path} is not a translation memory ({error}); delete it: what was shared is read in again") from error

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._open.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise UserError(f"{self.path}: {error}; if the file is damaged, delete it: what was shared is read in again") from error

    def _direction(self, engine: str, version: str, source: str, target: str) -> int | None:
        found = self._open.execute(
            "SELECT id FROM directions WHERE engine = ? AND version = ? AND source = ? AND target = ?", (engine, version, source, target)
        ).fetchone()
        return None if found is None else int(found[0])

    def add(self, entries: Iterable[Entry], *, doubtful: bool = False) -> int:
        """Add entries (texts in normal form, translations in one line) in batches, each all or nothing; returns how many were given.

        Doubtful ones are kept apart until `settle` says which of them are right.
        """
        table = "doubtful" if doubtful else "entries"
        entries, total = iter(entries), 0
        while batch := list(islice(entries, 50_000)):
            with self._open:  # commits, or rolls back
                self._open.execute("BEGIN IMMEDIATE")
                known: dict[tuple[str, ...], int | None] = {}
                for way in {entry[:4] for entry in batch}:
                    self._open.execute("INSERT OR IGNORE INTO directions (engine, version, source, target) VALUES (?, ?, ?, ?)", way)
                    known[way] = self._direction(*way)
                self._open.executemany(_ADD.format(table=table), ((known[entry[:4]], entry.text, entry.translation) for entry in batch))
            total += len(batch)
        return total

    def doubtful(self, engine: str, version: str, source: str, target: str) -> dict[str, str]:
        """Answers of an engine that were added as doubtful and never settled, because the process ended."""
        direction = self._direction(engine, version, source, target)
        return dict(self._open.execute("SELECT text, translation FROM doubtful WHERE direction = ?", (direction,)))

    def settle(self, engine: str, version: str, source: str, target: str, sure: Mapping[str, str], tried: Iterable[str]) -> None:
        """Make the `sure` ones entries, and forget the doubts about all that were `tried`; both or neither."""
        direction = self._direction(engine, version, source, target)
        if direction is None:
            return
        with self._open:
            self._open.execute("BEGIN IMMEDIATE")
            self._open.executemany(_ADD.format(table="entries"), ((direction, *pair) for pair in sure.items()))
            self._open.executemany("DELETE FROM doubtful WHERE direction = ? AND text = ?", ((direction, text) for text in tried))

    def identified(self, target: str, texts: Sequence[str]) -> dict[str, bool]:
        """Text -> whether it is in another language than `target`, for those of `texts` of which `add_identified` was told."""
        query = "SELECT i.text, i.other FROM json_each(?) AS j CROSS JOIN identified AS i ON i.target = ? AND i.text = j.value"
        return {text: bool(other) for text, other in self._batched(query, target, texts)}

    def add_identified(self, target: str, verdicts: Mapping[str, bool]) -> None:
        """Remember what the language identifier said: it is the slowest part of the gate, and always says the same."""
        with self._open:
            self._open.execute("BEGIN IMMEDIATE")
            rows = ((target, text, other) for text, other in verdicts.items())
            self._open.executemany("INSERT OR REPLACE INTO identified VALUES (?, ?, ?)", rows)

    def _batched(self, query: str, value: int | str, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
        ordered = sorted(set(texts))  # neighbours in the tree: one page serves many
        for start in range(0, len(ordered), 10_000):
            yield from self._open.execute(query, (json.dumps(ordered[start : start + 10_000], ensure_ascii=False), value))

    def import_file(self, path: Path) -> str:
        """Read a CSV or TMX file, unless the same content was read before.

        Returns
        -------
        str
            The version under which entries without an engine stand: a changed file replaces what it said before.
        """
        content = sha256(path) if path.exists() else ""
        version = content[:12]
        if not self._open.execute("SELECT 1 FROM files WHERE sha256 = ?", (content,)).fetchone():
            read = read_tmx if path.suffix == ".tmx" else read_csv
            self.add(entry if entry.engine != GIVEN or entry.version else entry._replace(version=version) for entry in read(path))
            self._open.execute("INSERT OR IGNORE INTO files VALUES (?)", (content,))
        return version

    def look_up(self, engine: str, version: str, source: str, target: str, texts: Sequence[str]) -> dict[str, str]:
        """Text -> translation of those of `texts` (in normal form) that one engine has translated."""
        direction = self._direction(engine, version, source, target)
        if direction is None:
            return {}
        query = "SELECT e.text, e.translation FROM json_each(?) AS j CROSS JOIN entries AS e ON e.direction = ? AND e.text = j.value"
        return dict(self._batched(query, direction, texts))

    def entries(self, engine: str | None = None, version: str | None = None) -> Iterator[Entry]:
        """All entries, or one engine's, ordered by their key (code point order)."""
        ways = self._open.execute(
            "SELECT engine, version, source, target, id FROM directions WHERE engine = ifnull(?, engine) AND version = ifnull(?, version) "
            "ORDER BY engine, version, source, target",
            (engine, version),
        ).fetchall()
        for *way, direction in ways:
            rows = self._open.execute("SELECT text, translation FROM entries WHERE direction = ? ORDER BY text", (direction,))
            for text, translation in rows:
                yield Entry(way[0], way[1], way[2], way[3], text, translation)

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """(engine, version, source, target, entries) of each direction, ordered."""
        return self._open.execute(
            "SELECT d.engine, d.version, d.source, d.target, count(*) FROM directions d JOIN entries e ON e.direction = d.id "
            "GROUP BY d.id ORDER BY 1, 2, 3, 4"
        ).fetchall()

    def delete(self, engine: str, version: str | None = None) -> int:
        """Forget what an engine (or one version of it) said; returns how many entries that were."""
        with self._open:
            self._open.execute("BEGIN IMMEDIATE")
            which = "SELECT id FROM directions WHERE engine = ? AND version = ifnull(?, version)"
            removed = self._open.execute(f"DELETE FROM entries WHERE direction IN ({which})", (engine, version)).rowcount
            self._open.execute(f"DELETE FROM doubtful WHERE direction IN ({which})", (engine, version))
            self._open.execute("DELETE FROM directions WHERE engine = ? AND version = ifnull(?, version)", (engine, version))
            self._open.execute("DELETE FROM files")  # what was read before may be read again
        return removed


def write_csv(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries as CSV in the order given; returns how many. People open it: formulas are guarded, and `read_csv` undoes it."""
    total = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(HEADER)
        for entry in entries:
            writer.writerow(map(escape_formula, entry))
            total += 1
    return total


def read_csv(path: Path) -> Iterator[Entry]:
    """Entries of a CSV with the columns ``source``, ``target``, ``text``, ``translation`` and perhaps ``engine``, ``version``.

    Raises
    ------
    UserError
        Names the line and what is wrong with it.
    """
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = next(reader, [])
            if not set(HEADER[2:]) <= set(header) <= set(HEADER) or len(set(header)) != len(header):
                raise UserError(
                    f"{path}, line 1: expected the columns {', '.join(HEADER)} (the first two may lack); found {short_repr(header)}"
                )
            column = {name: header.index(name) for name in header}
            for record in reader:
                fields = [unescape_formula(field) for field in record]
                if len(fields) != len(header):
                    raise UserError(f"{path}, line {reader.line_num}: expected {len(header)} fields; found {len(fields)}")
                engine = fields[column["engine"]] if "engine" in column else GIVEN
                version = fields[column["version"]] if "version" in column else ""
                named = {name: fields[column[name]] for name in HEADER[2:]}
                yield _entry(f"{path}, line {reader.line_num}", engine, version, **named)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; params.yaml: translate.memory names it (a file with the header alone is an empty memory)"
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV of UTF-8 text: {error}") from error


def _entry(where: str, engine: str, version: str, source: str, target: str, text: str, translation: str) -> Entry:
    codes = [languages.iso_code(code) for code in (source, target)]
    if codes[0] is None or codes[1] is None:
        raise UserError(f"{where}: unknown language in {short_repr([source, target])}")
    engine, version, translation = (collapse_spaces(one) for one in (engine, version, translation))
    return Entry(engine or GIVEN, version, codes[0], codes[1], normalise(text), translation)


def write_tmx(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries as TMX 1.4, which translation tools read; returns how many."""
    total = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write('<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4">\n<header creationtool="babelcart" ')
        handle.write('creationtoolversion="1" segtype="phrase" o-tmf="csv" adminlang="en" srclang="*all*" datatype="plaintext"/>\n<body>\n')
        for entry in entries:
            origin = f'<prop type="x-engine">{_xml(entry.engine)}</prop><prop type="x-version">{_xml(entry.version)}</prop>'
            handle.write(f"<tu srclang={quoteattr(entry.source)}>{origin}")
            for language, text in ((entry.source, entry.text), (entry.target, entry.translation)):
                handle.write(f"<tuv xml:lang={quoteattr(language)}><seg>{_xml(text)}</seg></tuv>")
            handle.write("</tu>\n")
            total += 1
        handle.write("</body>\n</tmx>\n")
    return total


def _xml(text: str) -> str:
    # XML 1.0 cannot carry control characters, not even escaped.
    return escape("".join(character for character in text if character >= " " or character in "\t\n\r"))


def read_tmx(path: Path) -> Iterator[Entry]:
    """Entries of a TMX file; a unit in several languages gives one entry for each language but its source.

    Raises
    ------
    UserError
        If the file is not TMX or names an unknown language.
    """
    lang = "{http://www.w3.org/XML/1998/namespace}lang"
    try:
        default = "en"
        for _, element in ElementTree.iterparse(path, events=("end",)):
            if element.tag == "header":
                default = element.get("srclang", default)
            if element.tag != "tu":
                continue
            properties = {one.get("type"): one.text or "" for one in element.iter("prop")}
            texts = {(one.get(lang) or one.get("lang") or ""): "".join(one.find("seg").itertext()) for one in element.iter("tuv")}
            source = element.get("srclang", default)
            source = source if source in texts else next(iter(texts), "")
            for target in texts:
                if target != source:
                    named = (properties.get("x-engine", GIVEN), properties.get("x-version", ""))
                    yield _entry(f"{path}, unit of {short_repr(texts[source])}", *named, source, target, texts[source], texts[target])
            element.clear()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ElementTree.ParseError, AttributeError, ValueError, LookupError) as error:  # the last two: of encodings
        raise UserError(f"{path} is not TMX: {error}") from error
