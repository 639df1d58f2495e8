"""How fast an atlas of a million features is served, to clients that ask at the pace of people.

The atlas is made up: every column of every feature is its own, pages (about 12 KB of zstd each) are
those of 4,096 features by turns. The server is a process of its own, as `sememe serve` starts it
but for the model. Each client asks at random times, on average every ``think`` seconds, for pages,
filtered and sorted lists, and searches; a time counts from when the request was due, so that
waiting for the server is in it. Afterwards the same clients ask without a pause, which shows how
much it can do; and one asks alone, for the processor time of each kind of request, which other work
on the machine hardly changes. Run it as ``python -m benchmarks.serve``; making the atlas
takes some minutes and 13 GB, once for each number of features.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tyro
import zstandard

from sememe.artefacts import (
    atomic_path,
    cache_folder,
    is_finished,
    lock,
    write_bytes,
    write_manifest,
)
from sememe.atlas.index import (
    EXAMPLES,
    MEANINGS,
    NEURONS,
    by_neuron,
    meanings,
    text_of,
    write_words,
)
from sememe.atlas.store import COLUMNS, FEATURES, SAMPLES, STATUSES, Atlas

VOCABULARY = 49_152
POOL = 4_096
WIDTH = 576
CLUSTERS = 200
SOURCES = [f"source-{number}" for number in range(32)]
NUMBERS = ("mean", "maximum", "mean_square", "norm", "alignment", "neurons", "token_share")
KINDS = ("page", "list", "search")
COMMON = ["the", "of", "and", "a", "in", "e", "1"]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    features: int = 1_000_000
    """Features of the made-up atlas."""
    clients: int = 32
    """Clients that ask at the same time."""
    seconds: float = 60.0
    """How long they ask."""
    think: float = 2.0
    """Seconds between two requests of a client, on average."""
    cache: Path | None = None
    """Where made-up atlases are kept; by default in the cache folder."""
    meanings: bool = False
    """Make the index of meanings too (3 GB of memory), and search it."""
    paint: bool = True
    """Measure the first paint of the home page in Chromium, where there is one."""
    json: bool = False
    """Print one JSON object."""


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


def _vectors(features: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(4)
    middles = rng.normal(size=(CLUSTERS, 384)).astype(np.float32)
    found = rng.standard_normal((features, 384), np.float32)
    found += middles[rng.integers(CLUSTERS, size=features)]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def _finish(atlas: Atlas, out: Path, files: list[str]) -> None:
    made_from = {"atlas": atlas.manifest["hash"]}
    write_manifest(out, "index", config={}, made_from=made_from, files=files)


SERVER = """
import sys
from pathlib import Path
from sememe.atlas.annotations import Annotations
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.serving import sentence_encoder
from sememe.web.server import serve
folder = Path(sys.argv[1])
atlas = Atlas.open(folder / "atlas")
serve(
    atlas,
    port=0,
    search=Search(atlas, folder, encoder=sentence_encoder),
    annotations=Annotations(folder / "annotations.sqlite", "made up"),
    announce=lambda url: print(url, flush=True),
)
"""


class Client:
    """One keep-alive connection that asks for one address after another."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    async def open(self) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Cookie: sememe_{self.port}={self.token}\r\n\r\n".encode()
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)


@dataclass
class Figures:
    """Milliseconds by kind of request, and what went wrong."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def p99(self, *kinds: str) -> float:
        """Return the 99th percentile over these kinds."""
        return float(np.percentile([time for kind in kinds for time in self.times[kind]], 99))


def request(draw: random.Random, features: int, *, by_meaning: bool) -> tuple[str, str]:
    """Return the kind and the address of a request, as drawn by chance."""
    kind = draw.choices(KINDS, [60, 25, 15])[0]
    if kind == "page":
        return kind, f"/feature/{draw.randrange(features)}.json"
    query: dict[str, object] = {"limit": 50}
    if kind == "list":
        query |= {
            "sort": draw.choice(["frequency", "maximum", "mean", "feature", "token", "alignment"]),
            "order": draw.choice(["asc", "desc"]),
            "offset": 50 * draw.randrange(20),
        }
        if draw.random() < 0.5:
            query["frequency"] = f"{10 ** draw.uniform(-5, -3):.2g}.."
        if draw.random() < 0.3:
            query["source"] = draw.choice(SOURCES)
        if draw.random() < 0.3:
            query["cluster"] = draw.randrange(CLUSTERS)
    else:
        by = draw.choice(["tokens", "example", *(["meaning"] if by_meaning else [])])
        word = draw.choice([*COMMON, "kalo", "sunter", "preing", "zzz"])
        query |= {"by": by, "search": word}
    return kind, f"/features.json?{urlencode(query)}"


async def ask(
    clients: list[Client],
    seconds: float,
    think: float,
    drawn: Callable[[random.Random], tuple[str, str]],
) -> Figures:
    """Let clients ask for so many seconds; each waits ``think`` on average between two."""
    figures = Figures()

    async def one(client: Client, draw: random.Random) -> None:
        await client.open()
        begun = due = time.perf_counter()
        while True:
            due = due + draw.expovariate(1 / think) if think else time.perf_counter()
            if due - begun > seconds:
                return
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            kind, path = drawn(draw)
            try:
                status, body = await client.get(path)
                json.loads(body)
                if status != 200:
                    figures.errors.append(f"{status} {path}")
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                figures.errors.append(f"{error!r} {path}")
                await client.open()
            figures.times[kind].append((time.perf_counter() - due) * 1e3)

    work: list[Coroutine[Any, Any, None]] = [
        one(client, random.Random(number)) for number, client in enumerate(clients)
    ]
    await asyncio.gather(*work)
    return figures


def processor_ms(pid: int, client: Client, paths: list[str]) -> float:
    """Return the milliseconds that the server's process computes for one of these, on average."""

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")

    async def ask_all() -> None:
        await client.open()
        for path in paths:
            await client.get(path)

    before = used()
    asyncio.run(ask_all())
    return (used() - before) / len(paths)


def resident(pid: int) -> float:
    """Return the megabytes of memory that a process holds, mapped files included."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def first_paint(address: str) -> float | None:
    """Return the milliseconds until Chromium first paints content; the median of five."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        return None
    from playwright.sync_api import sync_playwright

    script = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        times = []
        for _ in range(5):
            page = browser.new_context().new_page()
            page.goto(address)
            page.locator("h1").wait_for()
            page.wait_for_function(script)
            times.append(float(page.evaluate(script)))
        browser.close()
    return statistics.median(times)


def measure(settings: Settings) -> dict[str, object]:
    """Serve, ask, and return the figures."""
    folder = (settings.cache or cache_folder() / "benchmarks") / f"atlas-{settings.features}"
    made_up(folder, settings.features, with_meanings=settings.meanings)
    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        opened = time.perf_counter() - begun
        port, token = int(address.split(":")[2].split("/")[0]), address.split("token=")[1]
        clients = [Client(port, token) for _ in range(settings.clients)]

        def drawn(draw: random.Random) -> tuple[str, str]:
            return request(draw, settings.features, by_meaning=settings.meanings)

        asyncio.run(ask(clients[:2], 5.0, 0.02, drawn))  # orders and indexes made at first use
        draw = random.Random(1)
        some = [drawn(draw) for _ in range(400)]
        paced = asyncio.run(ask(clients, settings.seconds, settings.think, drawn))
        pages = asyncio.run(
            ask(
                clients,
                10.0,
                0.0,
                lambda d: ("page", f"/feature/{d.randrange(settings.features)}.json"),
            )
        )
        cost = {
            kind: processor_ms(server.pid, clients[0], [path for k, path in some if k == kind])
            for kind in KINDS
        }
        memory = resident(server.pid)
        painted = first_paint(address) if settings.paint else None
    finally:
        server.terminate()
        server.wait()
    for error in paced.errors[:5]:
        print(error, file=sys.stderr)
    return {
        "features": settings.features,
        "page_p99_ms": paced.p99("page"),
        "list_p99_ms": paced.p99("list", "search"),
        "search_p99_ms": paced.p99("search"),
        "page_median_ms": statistics.median(paced.times["page"]),
        "list_median_ms": statistics.median(paced.times["list"]),
        "search_median_ms": statistics.median(paced.times["search"]),
        **{f"{kind}_cpu_ms": cost[kind] for kind in KINDS},
        "requests": sum(map(len, paced.times.values())),
        "errors": len(paced.errors) + len(pages.errors),
        "pages_per_second": len(pages.times["page"]) / 10,
        "saturated_page_p99_ms": pages.p99("page"),
        "rss_mb": memory,
        "open_seconds": opened,
        "first_paint_ms": painted,
    }


def main() -> None:
    """Measure and print."""
    settings = tyro.cli(Settings, description=__doc__)
    found = measure(settings)
    if settings.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


if __name__ == "__main__":
    main()
