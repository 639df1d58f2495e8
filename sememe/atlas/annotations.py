"""Notes and tags that people put on features: one SQLite file, durable at every write."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from sememe.errors import SememeError, UsageError

NAME = "annotations.sqlite"
NOTE_LENGTH = 20_000
TAG_LENGTH = 64
TAGS = 32


class Annotation(NamedTuple):
    """What somebody has put on a feature."""

    feature: int
    note: str
    tags: tuple[str, ...]
    changed: str
    """When, in UTC, ISO 8601."""


class Annotations:
    """Notes and tags of one dictionary's features; safe to share between threads.

    A write has reached the disk when the call returns: WAL with ``synchronous=full``.

    Raises SememeError for a file of another dictionary, or one that is no such file.
    """

    def __init__(self, path: Path, dictionary: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._database.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;"
                "CREATE TABLE IF NOT EXISTS of(dictionary TEXT NOT NULL);"
                "CREATE TABLE IF NOT EXISTS annotation(feature INTEGER PRIMARY KEY,"
                " note TEXT NOT NULL, tags TEXT NOT NULL, changed TEXT NOT NULL);"
            )
            found = self._database.execute("SELECT dictionary FROM of").fetchone()
            if found is None:
                self._database.execute("INSERT INTO of VALUES (?)", (dictionary,))
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise SememeError(f"{path} cannot be opened ({error}); move it away") from error
        if found is not None and found[0] != dictionary:
            self._database.close()
            raise SememeError(
                f"{path} holds notes on dictionary {found[0]}, this is {dictionary}: move it away"
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def get(self, feature: int) -> Annotation | None:
        """Return what is noted on ``feature``, None if nothing."""
        return next(iter(self._select("WHERE feature = ?", (feature,))), None)

    def put(self, feature: int, note: str, tags: Sequence[str]) -> Annotation:
        """Note this on ``feature`` in place of what was noted; nothing at all removes it.

        UsageError where it is too long, or a tag is empty.
        """
        kept = tuple(dict.fromkeys(tag.strip() for tag in tags))
        if len(note) > NOTE_LENGTH:
            raise UsageError(f"note of {len(note)} characters: expected at most {NOTE_LENGTH}")
        if len(kept) > TAGS or any(not 0 < len(tag) <= TAG_LENGTH for tag in kept):
            raise UsageError(f"tags: expected at most {TAGS}, each of 1 to {TAG_LENGTH} characters")
        changed = datetime.now(UTC).isoformat(timespec="seconds")
        if not note and not kept:
            self.delete(feature)
        else:
            row = (feature, note, msgspec.json.encode(kept).decode(), changed)
            self._write("INSERT OR REPLACE INTO annotation VALUES (?, ?, ?, ?)", row)
        return Annotation(feature, note, kept, changed)

    def delete(self, feature: int) -> bool:
        """Remove what is noted on ``feature``; False if nothing was."""
        return self._write("DELETE FROM annotation WHERE feature = ?", (feature,)) > 0

    def all(self) -> list[Annotation]:
        """Return everything noted, the latest first."""
        return self._select("ORDER BY changed DESC, feature", ())

    def tags(self) -> dict[str, int]:
        """Return every tag with the number of features that have it, the most frequent first."""
        return dict(Counter(tag for item in self.all() for tag in item.tags).most_common())

    def features(self, tag: str | None = None) -> tuple[int, ...]:
        """Return the features with this tag, or with any note or tag."""
        return tuple(item.feature for item in self.all() if tag is None or tag in item.tags)

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        try:
            with self._lock, closing(self._database.execute(statement, values)) as done:
                return done.rowcount
        except sqlite3.Error as error:
            raise SememeError(f"cannot write {self.path}: {error}") from error

    def _select(self, condition: str, values: tuple[object, ...]) -> list[Annotation]:
        query = f"SELECT feature, note, tags, changed FROM annotation {condition}"
        with self._lock:
            rows = self._database.execute(query, values).fetchall()
        return [
            Annotation(feature, note, msgspec.json.decode(tags, type=tuple[str, ...]), changed)
            for feature, note, tags, changed in rows
        ]
