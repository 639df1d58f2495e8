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
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from benchmarks import command
from benchmarks.made_up_atlas import (
    CLUSTERS,
    COMMON,
    SOURCES,
    made_up,
)
from sememe.artefacts import (
    cache_folder,
)

KINDS = ("page", "list", "search")


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
    load: float = 60.0
    """How long they ask without a pause, afterwards."""
    cache: Path | None = None
    """Where made-up atlases are kept; by default in the cache folder."""
    meanings: bool = False
    """Make the index of meanings too (2 GB of memory), and search it."""
    paint: bool = True
    """Measure the first paint of the home page in Chromium, where there is one."""
    json: bool = False
    """Print one JSON object."""


SERVER = """
import sys
from pathlib import Path
from sememe.serving import sentence_encoder
from sememe.atlas.annotations import Annotations
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
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
        load = asyncio.run(ask(clients, settings.load, 0.0, drawn))
        cost = {
            kind: processor_ms(server.pid, clients[0], [path for k, path in some if k == kind])
            for kind in KINDS
        }
        memory = resident(server.pid)
        painted = first_paint(address) if settings.paint else None
    finally:
        server.terminate()
        server.wait()
    for error in [*paced.errors, *load.errors][:5]:
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
        "errors": len(paced.errors) + len(load.errors),
        "load_per_second": sum(map(len, load.times.values())) / settings.load,
        **{f"load_{kind}_p99_ms": load.p99(kind) for kind in KINDS},
        "rss_mb": memory,
        "open_seconds": opened,
        "first_paint_ms": painted,
    }


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
