"""The atlas on disk: a SQLite file with zstd blobs a feature, and columns to sort and filter by.

A feature's page is one indexed read; a list of features touches only the columns until the rows to
show are known. Token ids are stored, never text: the vocabulary's bytes are in the same file, so a
reader needs no model and no tokenizer.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from sememe.artefacts import read_manifest, size_of, verify_files
from sememe.errors import SememeError, UsageError

FEATURES = "features.sqlite"
COLUMNS = "columns.safetensors"
OTHER = "other.safetensors"
STATUSES = ("alive", "dead", "dense", "ultralow")
SAMPLES = ("intervals", "inactive")
"""The part of a page that is stored apart: only the page itself shows it."""
_DTYPES = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8)}
"""NumPy's names of the number types of safetensors."""

Page = dict[str, Any]


class _Counts(msgspec.Struct):
    counts: list[int]


class _Digest(msgspec.Struct):
    """The part of a page that lists of features show."""

    histogram: _Counts
    top: list[msgspec.Raw]


_PAGE = msgspec.json.Decoder(Page)
_DIGEST = msgspec.json.Decoder(_Digest)


class OtherAtlas(NamedTuple):
    """Another dictionary's features on the map of an atlas, as far as the map shows them."""

    name: str
    """Of the run that it is the dictionary of."""
    columns: dict[str, npt.NDArray[Any]]
    """``x`` and ``y``, NaN for those that are not on the map; ``tokens`` where the vocabulary is
    the same."""

    @property
    def features(self) -> int:
        """Number of its features, dead ones included."""
        return len(self.columns["x"])


class Atlas:
    """Reads a finished atlas; safe to share between threads.

    Opening it takes as long for a million features as for one: columns are mapped, not read, and
    of the pages only the size is compared. Each page carries a checksum of its own, which is
    compared when it is read.

    Attributes:
        path: The atlas's directory.
        manifest: What it was made from and with, and its headline facts.
        features: Number of features of the dictionary, dead ones included.
        columns: One read-only array a statistic, feature-major: ``frequency`` (share of tokens),
            ``mean`` (over the tokens on which it fires) and ``maximum`` in scaled units, ``status``
            (index into ``STATUSES``), ``promotes`` and ``tokens`` (token ids, of the strongest
            examples; -1 where there are fewer).
        other: The dictionary on whose map the features were placed, None if the map is their own.
            Then the columns ``other`` and ``other_cosine`` have its feature nearest to each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path, "atlas")
        beside = self.manifest.get("other")
        verify_files(path, self.manifest, [COLUMNS] if beside is None else [COLUMNS, OTHER])
        _check_size(path / FEATURES, self.manifest["files"][FEATURES]["bytes"])
        self.features = int(self.manifest["features"])
        self.columns = mapped(path / COLUMNS)
        self.other = None if beside is None else OtherAtlas(beside, mapped(path / OTHER))
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
        page: Page = self._read(number, "page")
        return page

    def feature(self, number: int) -> Page:
        """Return the page of one feature; UsageError when there is no such feature."""
        return {**self._read(number, "page"), **self._read(number, "samples")}

    def strongest(self, number: int) -> tuple[list[int], Iterator[Page]]:
        """Return the counts of a feature's histogram, and its strongest examples one by one.

        For lists of features: nothing else of its page is decoded.
        """
        page = self._read(number, "page", _DIGEST)
        return page.histogram.counts, map(msgspec.json.decode, page.top)

    def _read(
        self,
        number: int,
        column: Literal["page", "samples"],
        decoder: msgspec.json.Decoder[Any] = _PAGE,
    ) -> Any:  # noqa: ANN401 - what the decoder makes
        if not 0 <= number < self.features:
            raise UsageError(f"feature {number}: expected a number from 0 to {self.features - 1}")
        query = f"SELECT {column} FROM feature WHERE id = ?"
        try:
            (blob,) = self._database.execute(query, (number,)).fetchone()
            return decoder.decode(zstandard.ZstdDecompressor().decompress(blob))
        except (sqlite3.DatabaseError, zstandard.ZstdError, msgspec.DecodeError) as error:
            raise SememeError(
                f"{self.path / FEATURES} is altered: feature {number} cannot be read ({error}); "
                f"delete {self.path} and make it again"
            ) from error

    @cached_property
    def vocabulary(self) -> list[bytes]:
        """The bytes of every token, by token id."""
        rows = self._database.execute("SELECT bytes FROM token ORDER BY id").fetchall()
        return [row[0] for row in rows]

    def token_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes of the tokens ``ids``."""
        return [self.vocabulary[token] for token in ids]


def _check_size(path: Path, expected: int) -> None:
    if not path.exists() or size_of(path) != expected:
        state = f"has {size_of(path)} bytes" if path.exists() else "is missing"
        raise SememeError(
            f"{path} {state}, its manifest says {expected} bytes; delete {path.parent} and make "
            "it again"
        )


def mapped(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a safetensors file without reading them: pages come when touched."""
    if path.stat().st_size <= 8:
        return {}
    data = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    length = int(data[:8].view("<u8")[0])
    header: dict[str, Any] = msgspec.json.decode(data[8 : 8 + length].tobytes())
    body = data[8 + length :]
    return {
        name: body[slice(*entry["data_offsets"])]
        .view(_DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
