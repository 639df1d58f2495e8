"""Write an atlas: its features' pages one after another, then its columns, the manifest last."""

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy.typing as npt
import orjson
import safetensors.numpy
import zstandard

from sememe.artefacts import atomic_path, write_bytes, write_manifest
from sememe.atlas.store import COLUMNS, FEATURES, OTHER, SAMPLES, Atlas, OtherAtlas, Page

LEVEL = 3
TOGETHER = 64
"""Pages that are compressed together, and how many such groups wait for the disk at most."""
WAITING = 4


def write_atlas(
    out: Path,
    pages: Iterable[Page],
    columns: Mapping[str, npt.NDArray[Any]],
    token_bytes: Sequence[bytes],
    *,
    config: Mapping[str, object],
    made_from: Mapping[str, object],
    other: OtherAtlas | None = None,
    **facts: object,
) -> Atlas:
    """Write an atlas from its features' pages, in order, and its columns; manifest last."""
    count = write_pages(out, pages, token_bytes)
    return finish_atlas(
        out, columns, config=config, made_from=made_from, other=other, features=count, **facts
    )


def write_pages(out: Path, pages: Iterable[Page], token_bytes: Sequence[bytes]) -> int:
    """Write the pages of all features, in order, and the vocabulary; return how many there are."""
    count = 0
    with atomic_path(out / FEATURES) as partial:
        database = sqlite3.connect(partial, isolation_level=None)
        try:
            database.executescript(
                "PRAGMA page_size=8192; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
                "CREATE TABLE token(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
                "CREATE TABLE feature(id INTEGER PRIMARY KEY, page BLOB NOT NULL,"
                " samples BLOB NOT NULL);"
            )
            database.executemany("INSERT INTO token VALUES (?, ?)", enumerate(token_bytes))
            for blobs in _compressed(map(_encoded, pages)):
                database.executemany(
                    "INSERT INTO feature VALUES (?, ?, ?)",
                    [(count + i, *both) for i, both in enumerate(blobs)],
                )
                count += len(blobs)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OSError(28 if "full" in str(error) else 5, str(error)) from error
        finally:
            database.close()
    return count


def finish_atlas(
    out: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    *,
    config: Mapping[str, object],
    made_from: Mapping[str, object],
    other: OtherAtlas | None = None,
    **facts: object,
) -> Atlas:
    """Write the columns and the manifest of an atlas whose pages are there.

    ``other`` is what its map shows of another dictionary.
    """
    files = [FEATURES, COLUMNS]
    write_bytes(out / COLUMNS, safetensors.numpy.save(dict(columns)))
    if other is not None:
        files, facts["other"] = [*files, OTHER], other.name
        write_bytes(out / OTHER, safetensors.numpy.save(other.columns))
    write_manifest(out, "atlas", config=config, made_from=made_from, files=files, **facts)
    return Atlas(out)


def _encoded(page: Page) -> tuple[bytes, bytes]:
    """Return a page's JSON in the two parts that are stored apart."""
    samples = {name: page[name] for name in SAMPLES if name in page}
    rest = {name: value for name, value in page.items() if name not in SAMPLES}
    first, second = (
        orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY) for part in (rest, samples)
    )
    return first, second


def _compressed(pages: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the pages compressed, some at a time, while the next are made."""

    def compress(group: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        return [(compressor.compress(a), compressor.compress(b)) for a, b in group]

    waiting: deque[Future[list[tuple[bytes, bytes]]]] = deque()
    with ThreadPoolExecutor(WAITING, thread_name_prefix="pages") as pool:
        while group := list(islice(pages, TOGETHER)):
            waiting.append(pool.submit(compress, group))
            if len(waiting) == WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
