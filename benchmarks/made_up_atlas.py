"""A made-up atlas of as many features as one likes, for measuring what serving and drawing cost."""

import json
import random
import sqlite3
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import zstandard

from sememe.artefacts import (
    atomic_path,
    is_finished,
    lock,
    write_bytes,
    write_manifest,
)
from sememe.atlas.index import (
    CHUNK,
    EXAMPLES,
    MEANINGS,
    NEURONS,
    by_neuron,
    meanings,
    text_of,
    write_words,
)
from sememe.atlas.store import COLUMNS, FEATURES, SAMPLES, STATUSES, Atlas

COMMON = ["the", "of", "and", "a", "in", "e", "1"]
VOCABULARY = 49_152
POOL = 4_096
WIDTH = 576
CLUSTERS = 200
SOURCES = [f"source-{number}" for number in range(32)]
NUMBERS = ("mean", "maximum", "mean_square", "norm", "alignment", "neurons", "token_share")


def made_up(folder: Path, features: int, *, with_meanings: bool) -> Atlas:
    """Return the made-up atlas of so many features, with its index; made if it is not there."""
    path = folder / "atlas"
    if not is_finished(path):
        lock(folder)
        print(f"making an atlas of {features:,} features in {folder}", file=sys.stderr)
        _write_atlas(path, features)
    atlas = Atlas.open(path)
    if not is_finished(folder / "index"):
        print("indexing it", file=sys.stderr)
        _write_index(atlas, folder / "index")
    if with_meanings and not is_finished(folder / "meanings"):
        print("making up meanings", file=sys.stderr)
        made = meanings(_vectors(features))
        write_bytes(folder / "meanings" / MEANINGS, safetensors.numpy.save(made))
        _finish(atlas, folder / "meanings", [MEANINGS])
    return atlas


def words() -> list[bytes]:
    """Return a vocabulary: bytes, some common words, and made-up ones."""
    draw = random.Random(0)
    parts = ["ka", "lo", "mi", "ter", "sun", "an", "ing", "ed", "pre", "ro", "vi", "st", "ol"]
    made = (
        " " * draw.randint(0, 1) + "".join(draw.choices(parts, k=draw.randint(1, 4)))
        for _ in iter(int, 1)
    )
    found = [bytes([byte]) for byte in range(256)] + [f" {word}".encode() for word in COMMON]
    seen = set(found)
    for number, word in enumerate(made):
        data = (word if word.encode() not in seen else f"{word}{number}").encode()
        seen.add(data)
        found.append(data)
        if len(found) == VOCABULARY:
            return found
    raise AssertionError


def _pages() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, VOCABULARY - 255)
    stream = 256 + rng.choice(VOCABULARY - 256, 1 << 20, p=weights / weights.sum())
    pages = []

    def example(most: float) -> dict[str, Any]:
        start = int(rng.integers(len(stream) - 41))
        values = np.where(rng.random(41) < 0.06, rng.random(41) * most, 0.0)
        values[24] = most
        return {
            "tokens": stream[start : start + 41].tolist(),
            "values": values.round(3).tolist(),
            "centre": 24,
            "value": round(most, 3),
            "source": SOURCES[start % len(SOURCES)],
            "document": start // 200,
            "position": start % 200,
        }

    for number in range(POOL):
        most = float(rng.gamma(4.0))
        edges = np.linspace(0, most, 12)
        near = rng.integers(POOL, size=(2, 10)).tolist()
        pages.append(
            {
                "feature": number,
                "frequency": 0.001,
                "count": int(rng.integers(1000)),
                "mean": most / 3,
                "maximum": most,
                "status": "alive",
                "mean_square": most / 2,
                "norm": 1.0,
                "alignment": 0.7,
                "neurons": 0.4,
                "histogram": {
                    "edges": np.linspace(0, most, 41).round(5).tolist(),
                    "counts": rng.integers(1000, size=40).tolist(),
                },
                "logits": {
                    "edges": np.linspace(-3, 6, 41).round(4).tolist(),
                    "counts": rng.integers(1000, size=40).tolist(),
                },
                **{name: _pairs(rng, 8) for name in ("tokens", "before", "after")},
                **{name: _pairs(rng, 12) for name in ("promotes", "suppresses")},
                "neighbours": [[other, 0.5] for other in near[0]],
                "cofiring": [[other, 0.5] for other in near[1]],
                "basis": [[int(n), 0.1] for n in rng.choice(WIDTH, 16, replace=False)],
                "correlated": [[int(n), 0.1] for n in rng.choice(WIDTH, 5, replace=False)],
                "sources": [[label, 0.1] for label in SOURCES[:10]],
                "top": [example(most * share) for share in np.linspace(1, 0.8, 20)],
                "inactive": [example(0.0) for _ in range(5)],
                "intervals": [
                    {
                        "low": low,
                        "high": high,
                        "count": 10,
                        "examples": [example(high) for _ in range(5)],
                    }
                    for low, high in reversed([*pairwise(edges.tolist())])
                ],
            }
        )
    return pages


def _pairs(rng: np.random.Generator, count: int) -> list[list[float]]:
    return [[int(token), 0.1] for token in rng.choice(VOCABULARY, count, replace=False)]


def _write_atlas(path: Path, features: int) -> None:
    compressor = zstandard.ZstdCompressor(level=5, write_checksum=True)
    blobs = []
    for page in _pages():
        samples = {name: page.pop(name) for name in SAMPLES}
        blobs.append([compressor.compress(json.dumps(part).encode()) for part in (page, samples)])
    path.mkdir(parents=True, exist_ok=True)
    with atomic_path(path / FEATURES) as partial:
        database = sqlite3.connect(partial, isolation_level=None)
        database.executescript(
            "PRAGMA page_size=8192; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE token(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
            "CREATE TABLE feature(id INTEGER PRIMARY KEY, page BLOB NOT NULL,"
            " samples BLOB NOT NULL);"
        )
        database.executemany("INSERT INTO token VALUES (?, ?)", enumerate(words()))
        database.executemany(
            "INSERT INTO feature VALUES (?, ?, ?)",
            ((number, *blobs[number % POOL]) for number in range(features)),
        )
        database.execute("COMMIT")
        database.close()
    columns = _columns(features)
    middles = np.random.default_rng(1).normal(size=(CLUSTERS, 2)) * 30
    write_bytes(path / COLUMNS, safetensors.numpy.save(columns))
    write_manifest(
        path,
        "atlas",
        config={},
        made_from={"dictionary": "made up", "model": "made up"},
        files=[FEATURES, COLUMNS],
        features=features,
        tokens=10**9,
        site="layers.0.resid",
        model="made up",
        sources=SOURCES,
        clusters=[
            {"name": f"cluster {i}", "size": features // CLUSTERS, "x": float(x), "y": float(y)}
            for i, (x, y) in enumerate(middles)
        ],
    )


def _columns(features: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(2)
    cluster = rng.integers(CLUSTERS, size=features).astype(np.int32)
    middles = np.random.default_rng(1).normal(size=(CLUSTERS, 2)) * 30
    place = (middles[cluster] + rng.normal(size=(features, 2)) * 1.5).astype(np.float32)
    frequency = (10 ** rng.normal(-3.5, 0.8, features)).clip(0, 1).astype(np.float32)
    status = np.where(frequency > 0.1, STATUSES.index("dense"), 0).astype(np.uint8)
    frequency[::97], status[::97] = 0, STATUSES.index("dead")
    weights = 1 / np.arange(1, VOCABULARY - 255)
    share = np.cumsum(weights / weights.sum())

    def tokens(shown: int) -> npt.NDArray[np.int32]:
        drawn = np.searchsorted(share, rng.random((features, shown))).clip(max=len(share) - 1)
        return (256 + drawn).astype(np.int32)

    return {
        "frequency": frequency,
        "status": status,
        **{name: rng.random(features, np.float32) * 5 for name in NUMBERS},
        "source": rng.integers(len(SOURCES), size=features).astype(np.int16),
        "source_share": rng.random(features, np.float32),
        "x": place[:, 0].copy(),
        "y": place[:, 1].copy(),
        "cluster": cluster,
        "tokens": tokens(8),
        "promotes": tokens(12),
    }


def _write_index(atlas: Atlas, out: Path) -> None:
    pages = [atlas.summary(number) for number in range(min(POOL, atlas.features))]
    texts = [text_of(atlas, page) for page in pages]
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / EXAMPLES) as partial:
        write_words(partial, ((n, texts[n % POOL]) for n in range(atlas.features)))
    basis = np.array([[neuron for neuron, _ in page["basis"]] for page in pages], np.int32)
    neuron = basis[np.arange(atlas.features) % len(basis)].ravel()
    feature = np.repeat(np.arange(atlas.features, dtype=np.int32), basis.shape[1])
    weight = np.random.default_rng(3).normal(size=len(neuron)).astype(np.float32)
    write_bytes(out / NEURONS, safetensors.numpy.save(by_neuron(neuron, feature, weight)))
    _finish(atlas, out, [EXAMPLES, NEURONS])


def _vectors(features: int) -> npt.NDArray[np.float16]:
    rng = np.random.default_rng(4)
    middles = rng.normal(size=(CLUSTERS, 384)).astype(np.float32)
    found = np.empty((features, 384), np.float16)
    for start in range(0, features, CHUNK):
        drawn = rng.standard_normal(found[start : start + CHUNK].shape, np.float32)
        drawn += middles[rng.integers(CLUSTERS, size=len(drawn))]
        found[start : start + CHUNK] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def _finish(atlas: Atlas, out: Path, files: list[str]) -> None:
    made_from = {"atlas": atlas.manifest["hash"]}
    write_manifest(out, "index", config={}, made_from=made_from, files=files)
