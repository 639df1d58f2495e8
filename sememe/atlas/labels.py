"""Texts that describe features, and search in them: one SQLite file, durable at every write."""

import re
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from sememe.atlas.query import Ranked
from sememe.errors import SememeError

NAME = "labels.sqlite"
RANKED = 5_000
"""Up to so many hits are ranked by bm25; of more, these many are given in order of number."""


class Labels:
    """One label a feature; safe to share between threads.

    Raises SememeError for a file that is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._database.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;"
                "CREATE TABLE IF NOT EXISTS label(feature INTEGER PRIMARY KEY, text TEXT NOT NULL);"
                "CREATE VIRTUAL TABLE IF NOT EXISTS words USING"
                " fts5(text, content='label', content_rowid='feature');"
                "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON label BEGIN INSERT INTO"
                " words(rowid, text) VALUES (new.feature, new.text); END;"
                "CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON label BEGIN INSERT INTO"
                " words(words, rowid, text) VALUES ('delete', old.feature, old.text); END;"
            )
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise SememeError(f"{path} cannot be opened ({error}); move it away") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def put(self, labels: Iterable[tuple[int, str]]) -> None:
        """Set the labels of features, in place of those they had; all or none."""
        with self._lock:
            self._database.execute("BEGIN")
            try:
                for feature, text in labels:
                    self._database.execute("DELETE FROM label WHERE feature = ?", (feature,))
                    self._database.execute("INSERT INTO label VALUES (?, ?)", (feature, text))
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def get(self, feature: int) -> str | None:
        """Return the label of ``feature``, None if it has none."""
        with self._lock:
            query = "SELECT text FROM label WHERE feature = ?"
            row = self._database.execute(query, (feature,)).fetchone()
        return row[0] if row else None

    def all(self) -> dict[int, str]:
        """Return every label, by feature."""
        with self._lock:
            query = "SELECT feature, text FROM label ORDER BY feature"
            return dict(self._database.execute(query).fetchall())

    def search(self, text: str) -> Ranked:
        """Return the features whose labels have every word of ``text``, best first."""
        with self._lock:
            return matching(self._database, "words", text)


def matching(database: sqlite3.Connection, table: str, text: str) -> Ranked:
    """Return the rows of an FTS5 table that have every word of ``text``, best first by bm25.

    Ranking takes as long as there are hits, so of a common word's only the first are given.
    """
    words = " ".join(f'"{word}"' for word in re.findall(r"\w+", text))
    if not words:
        return Ranked(np.empty(0, np.int32))
    # One row of all: at each row SQLite lets go of the interpreter lock and waits for it.
    hits = f"SELECT rowid FROM {table} WHERE {table} MATCH ?"
    try:
        numbers = _numbers(database, f"{hits} LIMIT {RANKED + 1}", words)
        if more := len(numbers) > RANKED:
            numbers.pop()
        else:
            numbers = _numbers(database, f"{hits} ORDER BY rank, rowid", words)
    except sqlite3.DatabaseError as error:
        raise SememeError(f"cannot search for {text[:80]!r}: {error}") from error
    return Ranked(np.array(numbers, np.int32), more)


def _numbers(database: sqlite3.Connection, query: str, words: str) -> list[int]:
    """Return the numbers that a query gives, in its order."""
    (found,) = database.execute(
        f"SELECT json_group_array(rowid) FROM ({query})", (words,)
    ).fetchone()
    return msgspec.json.decode(found, type=list[int])
