"""The atlas on disk: a SQLite file with zstd blobs a feature, and columns to sort and filter by.

A feature's page is one indexed read; a list of features touches only the columns until the rows to
show are known. Token ids are stored, never text: the vocabulary's bytes are in the same file, so a
reader needs no model and no tokenizer.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import zstandard

from sememe.artefacts import read_manifest, verify_files
from sememe.errors import UsageError

FEATURES = "features.sqlite"
COLUMNS = "columns.safetensors"
STATUSES = ("alive", "dead", "dense", "ultralow")
SAMPLES = ("intervals",)
"""The part of a page that is stored apart: only the page itself shows it."""
SORTS = ("feature", "frequency", "maximum", "mean", "token")

Page = dict[str, Any]


class Atlas:
    """Reads a finished atlas; safe to share between threads.

    Attributes:
        path: The atlas's directory.
        manifest: What it was made from and with, and its headline facts.
        features: Number of features of the dictionary, dead ones included.
        columns: One array a statistic, feature-major: ``frequency`` (share of tokens), ``mean``
            (over the tokens on which it fires) and ``maximum`` in scaled units, ``status`` (index
            into ``STATUSES``), ``promotes`` and ``tokens`` (token ids, of the
            strongest examples; -1 where there are fewer).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path, "atlas")
        verify_files(path, self.manifest)
        self.features = int(self.manifest["features"])
        self.columns: dict[str, npt.NDArray[Any]] = safetensors.numpy.load_file(path / COLUMNS)
        self._local = threading.local()

    @classmethod
    def open(cls, path: Path | str) -> "Atlas":
        """Open the atlas in ``path``; SememeError if it is unfinished, altered or newer."""
        return cls(Path(path))

    @property
    def _database(self) -> sqlite3.Connection:
        if not hasattr(self._local, "database"):
            uri = (self.path / FEATURES).resolve().as_uri()
            self._local.database = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
        database: sqlite3.Connection = self._local.database
        return database

    def summary(self, number: int) -> Page:
        """Return a feature's page without the samples of its intervals, which most of it are."""
        return self._read(number, "page")

    def feature(self, number: int) -> Page:
        """Return the page of one feature; UsageError when there is no such feature."""
        return {**self._read(number, "page"), **self._read(number, "samples")}

    def _read(self, number: int, column: Literal["page", "samples"]) -> Page:
        if not 0 <= number < self.features:
            raise UsageError(f"feature {number}: expected a number from 0 to {self.features - 1}")
        query = f"SELECT {column} FROM feature WHERE id = ?"
        (blob,) = self._database.execute(query, (number,)).fetchone()
        page: Page = json.loads(zstandard.ZstdDecompressor().decompress(blob))
        return page

    @cached_property
    def vocabulary(self) -> list[bytes]:
        """The bytes of every token, by token id."""
        rows = self._database.execute("SELECT bytes FROM token ORDER BY id").fetchall()
        return [row[0] for row in rows]

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes of the tokens ``ids``."""
        return [self.vocabulary[token] for token in ids]

    @cached_property
    def _folded(self) -> list[str]:
        return [data.decode("utf-8", "replace").casefold() for data in self.vocabulary]

    @cached_property
    def _orders(self) -> dict[str, npt.NDArray[np.int64]]:
        """Every sort's ascending order of features; ties by feature number."""
        first = self.columns["promotes"][:, 0]
        names = np.array([self._folded[token].strip() if token >= 0 else "" for token in first])
        keys = {name: self.columns[name] for name in ("frequency", "maximum", "mean")}
        orders = {name: np.argsort(key, kind="stable") for name, key in keys.items()}
        orders["token"] = np.argsort(names, kind="stable")
        orders["feature"] = np.arange(self.features)
        return orders

    def rows(
        self,
        *,
        sort: str = "frequency",
        descending: bool = True,
        search: str = "",
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[int, list[Page]]:
        """Return how many features match, and summaries of ``limit`` of them from ``offset``.

        ``search`` is a feature's number, or text to look for, whatever its case, in the tokens that
        a feature promotes or fires on.
        """
        if sort not in SORTS:
            raise UsageError(f"sort {sort!r}: expected one of {', '.join(SORTS)}")
        order = self._orders[sort]
        if descending:
            order = order[::-1]
        if search:
            order = order[self._matches(search)[order]]
        chosen = order[max(offset, 0) : max(offset, 0) + max(limit, 0)]
        return len(order), [self.summary(int(number)) for number in chosen]

    def _matches(self, search: str) -> npt.NDArray[np.bool_]:
        matches = np.zeros(self.features, dtype=bool)
        if search.strip().isdecimal() and int(search) < self.features:
            matches[int(search)] = True
        wanted = search.casefold()
        found = np.array([wanted in text for text in self._folded] + [False])
        for column in ("promotes", "tokens"):
            matches |= found[self.columns[column]].any(axis=1)
        return matches
