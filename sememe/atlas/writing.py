"""Write an atlas: its features' pages one after another, then its columns, the manifest last."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors.numpy
import zstandard

from sememe.artefacts import atomic_path, write_bytes, write_manifest
from sememe.atlas.store import COLUMNS, FEATURES, SAMPLES, Atlas, Page


def _encoded(page: Page) -> bytes:
    return json.dumps(page, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_atlas(
    out: Path,
    pages: Iterable[Page],
    columns: Mapping[str, npt.NDArray[Any]],
    token_bytes: Sequence[bytes],
    *,
    config: Mapping[str, object],
    made_from: Mapping[str, object],
    **facts: object,
) -> Atlas:
    """Write an atlas from its features' pages, in order, and its columns; manifest last."""
    compressor = zstandard.ZstdCompressor(level=5, write_checksum=True)
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
            for count, page in enumerate(pages, start=1):
                samples = {name: page[name] for name in SAMPLES if name in page}
                rest = {name: value for name, value in page.items() if name not in SAMPLES}
                blobs = [compressor.compress(_encoded(part)) for part in (rest, samples)]
                database.execute("INSERT INTO feature VALUES (?, ?, ?)", (count - 1, *blobs))
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OSError(28 if "full" in str(error) else 5, str(error)) from error
        finally:
            database.close()
    write_bytes(out / COLUMNS, safetensors.numpy.save(dict(columns)))
    write_manifest(
        out,
        "atlas",
        config=config,
        made_from=made_from,
        files=[FEATURES, COLUMNS],
        features=count,
        **facts,
    )
    return Atlas(out)
