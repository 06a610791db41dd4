"""The translation memory: it stores every answer of every engine, so that no text is sent to an engine twice.

An entry is identified by the engine, its version, both languages and the normal form of the text. The store is one SQLite file in
write-ahead mode: a process that is killed loses no entry that was added, and several processes can add entries concurrently. People
share CSV files in a fixed order (`memory_files`): equal entries give equal bytes, and memories give the same result regardless of the
order in which they are merged (if two entries differ only in the translation, the one that sorts first is kept).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from babelcart.core.errors import UserError
from babelcart.core.files import sha256
from babelcart.rows.text import NORMAL_FORM, normalise
from babelcart.translation.memory_files import GIVEN, Entry, read_file

# `doubtful` holds answers that the engine has not confirmed yet, `identified` the verdicts of the language identifier.
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
_DELETE_IT = "delete the file: shared entries are read again from translate.memory and memory/"
# Errors that mean a damaged or foreign file. Others, such as a full disk or a lock, are no reason to delete it.
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
_INSERT_BATCH, _LOOKUP_BATCH = 50_000, 10_000  # rows


class EngineDirection(NamedTuple):
    """One version of an engine, translating from one language to another."""

    engine: str
    version: str
    source: str
    target: str


class Memory:
    """An SQLite store of translations, to be used as a context manager.

    Parameters
    ----------
    path : Path
        The SQLite file; it is created if it does not exist.

    Raises
    ------
    UserError
        If the file is not an SQLite database or is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Survives a killed process; a power failure can lose the last commits.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
            self._update_keys()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter if SQLite's own message quotes damaged bytes
            self._connection.close()
            # A text that is not UTF-8 raises an error without a code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) not in _DAMAGED:
                raise
            raise UserError(f"{path} is not a translation memory ({error}); {_DELETE_IT}") from error

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise UserError(f"{self.path}: {error}; if the file is damaged, {_DELETE_IT}") from error

    def _update_keys(self) -> None:
        """Bring the texts of a store that an earlier version wrote into the present normal form, in one transaction."""
        if self._connection.execute("PRAGMA user_version").fetchone() == (NORMAL_FORM,):
            return
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in ("entries", "doubtful"):
                rows = self._connection.execute(f"SELECT direction, text, translation FROM {table} WHERE typeof(text) = 'text'").fetchall()
                changed = [(direction, text, translation) for direction, text, translation in rows if normalise(text) != text]
                self._connection.executemany(f"DELETE FROM {table} WHERE direction = ? AND text = ?", (row[:2] for row in changed))
                renamed = ((direction, normalise(text), translation) for direction, text, translation in changed)
                self._connection.executemany(_ADD.format(table=table), renamed)
            self._connection.execute("DELETE FROM identified")
            self._connection.execute(f"PRAGMA user_version = {NORMAL_FORM}")

    def _direction_id(self, direction: Sequence[str]) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM directions WHERE engine = ? AND version = ? AND source = ? AND target = ?", direction
        ).fetchone()
        return None if row is None else int(row[0])

    def add(self, entries: Iterable[Entry], *, unconfirmed: bool = False) -> int:
        """Add entries in batches, each in one transaction.

        Parameters
        ----------
        entries : iterable of Entry
            If the store has an entry of the same text, the translation that sorts first is kept.
        unconfirmed : bool
            Store the entries separately, where `look_up` does not find them, until `confirm`.

        Returns
        -------
        int
            Number of entries given, including those that the store had.
        """
        table = "doubtful" if unconfirmed else "entries"
        remaining, entry_count = iter(entries), 0
        while batch := list(islice(remaining, _INSERT_BATCH)):
            with self._connection:  # commits, or rolls back after an exception
                self._connection.execute("BEGIN IMMEDIATE")
                ids: dict[tuple[str, ...], int | None] = {}
                for direction in {entry[:4] for entry in batch}:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO directions (engine, version, source, target) VALUES (?, ?, ?, ?)", direction
                    )
                    ids[direction] = self._direction_id(direction)
                rows = ((ids[entry[:4]], entry.text, entry.translation) for entry in batch)
                self._connection.executemany(_ADD.format(table=table), rows)
            entry_count += len(batch)
        return entry_count

    def unconfirmed(self, direction: EngineDirection) -> dict[str, str]:
        """Return text -> translation of the answers that still wait for `confirm`, because an earlier process was interrupted."""
        rows = self._connection.execute("SELECT text, translation FROM doubtful WHERE direction = ?", (self._direction_id(direction),))
        return dict(rows)

    def confirm(self, direction: EngineDirection, confirmed: Mapping[str, str], checked: Iterable[str]) -> None:
        """Add confirmed answers as entries and drop the unconfirmed answers of all checked texts, in one transaction.

        Parameters
        ----------
        direction : EngineDirection
        confirmed : mapping
            Text -> translation.
        checked : iterable of str
            Texts whose answers were confirmed or rejected.
        """
        direction_id = self._direction_id(direction)
        if direction_id is None:
            return
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_ADD.format(table="entries"), ((direction_id, *pair) for pair in confirmed.items()))
            self._connection.executemany(
                "DELETE FROM doubtful WHERE direction = ? AND text = ?", ((direction_id, text) for text in checked)
            )

    def remove(self, direction: EngineDirection, texts: Iterable[str]) -> None:
        """Remove the entries of these texts (in normal form), so that the engine is asked for them again."""
        rows = [(self._direction_id(direction), text) for text in texts]
        if rows:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("DELETE FROM entries WHERE direction = ? AND text = ?", rows)

    def remove_entries(self, entries: Iterable[Entry]) -> None:
        """Remove entries of any engine and direction, and all answers that wait for `confirm`. Files can then be imported again."""
        texts: dict[EngineDirection, list[str]] = {}
        for engine, version, source, target, text, _ in entries:
            texts.setdefault(EngineDirection(engine, version, source, target), []).append(text)
        for direction, direction_texts in texts.items():
            self.remove(direction, direction_texts)
        self._connection.execute("DELETE FROM doubtful")
        self._connection.execute("DELETE FROM files")

    def language_verdicts(self, target: str, texts: Sequence[str]) -> dict[str, bool]:
        """Return text -> whether it is in another language than `target`, for those of `texts` that have a stored verdict."""
        query = "SELECT i.text, i.other FROM json_each(?) AS j CROSS JOIN identified AS i ON i.target = ? AND i.text = j.value"
        return {text: bool(is_other) for text, is_other in self._select(query, target, texts)}

    def add_language_verdicts(self, target: str, verdicts: Mapping[str, bool]) -> None:
        """Store verdicts of the language identifier, which is deterministic and the slowest part of the quality gate."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            rows = ((target, text, is_other) for text, is_other in verdicts.items())
            self._connection.executemany("INSERT OR REPLACE INTO identified VALUES (?, ?, ?)", rows)

    def _select(self, query: str, parameter: int | str, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Run a query that takes a JSON list of texts and one more parameter, in batches."""
        ordered = sorted(set(texts))  # neighbours in the B-tree share a page
        for start in range(0, len(ordered), _LOOKUP_BATCH):
            batch = json.dumps(ordered[start : start + _LOOKUP_BATCH], ensure_ascii=False)
            yield from self._connection.execute(query, (batch, parameter))

    def import_file(self, path: Path) -> str:
        """Read a CSV or TMX file, unless a file with the same content was read before.

        Returns
        -------
        str
            Version of the entries for which the file names neither engine nor version. It is the start of the file's hash, so that a
            changed file replaces its earlier entries in `look_up`.
        """
        content_hash = sha256(path) if path.exists() else ""
        version = content_hash[:12]
        if not self._connection.execute("SELECT 1 FROM files WHERE sha256 = ?", (content_hash,)).fetchone():
            self.add(entry if entry.engine != GIVEN or entry.version else entry._replace(version=version) for entry in read_file(path))
            self._connection.execute("INSERT OR IGNORE INTO files VALUES (?)", (content_hash,))
        return version

    def look_up(self, direction: EngineDirection, texts: Sequence[str]) -> dict[str, str]:
        """Return text -> translation, for those of `texts` (in normal form) that the memory has in this direction."""
        direction_id = self._direction_id(direction)
        if direction_id is None:
            return {}
        query = "SELECT e.text, e.translation FROM json_each(?) AS j CROSS JOIN entries AS e ON e.direction = ? AND e.text = j.value"
        return dict(self._select(query, direction_id, texts))

    def entries(self, engine: str | None = None, version: str | None = None) -> Iterator[Entry]:
        """Yield all entries, or those of one engine or version, sorted by code points."""
        directions = self._connection.execute(
            "SELECT engine, version, source, target, id FROM directions WHERE engine = ifnull(?, engine) AND version = ifnull(?, version) "
            "ORDER BY engine, version, source, target",
            (engine, version),
        ).fetchall()
        for *direction, direction_id in directions:
            rows = self._connection.execute("SELECT text, translation FROM entries WHERE direction = ? ORDER BY text", (direction_id,))
            for text, translation in rows:
                yield Entry._make((*direction, text, translation))

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """Return engine, version, source, target and number of entries of each direction, sorted."""
        return self._connection.execute(
            "SELECT d.engine, d.version, d.source, d.target, count(*) FROM directions d JOIN entries e ON e.direction = d.id "
            "GROUP BY d.id ORDER BY 1, 2, 3, 4"
        ).fetchall()

    def delete(self, engine: str, version: str | None = None) -> int:
        """Delete the entries of an engine, or of one of its versions, and return their number."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            selected = "SELECT id FROM directions WHERE engine = ? AND version = ifnull(?, version)"
            deleted = self._connection.execute(f"DELETE FROM entries WHERE direction IN ({selected})", (engine, version)).rowcount
            self._connection.execute(f"DELETE FROM doubtful WHERE direction IN ({selected})", (engine, version))
            self._connection.execute("DELETE FROM directions WHERE engine = ? AND version = ifnull(?, version)", (engine, version))
            self._connection.execute("DELETE FROM files")  # so that the same files can be imported again
        return deleted
