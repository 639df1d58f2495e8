"""How smoothly the map of a million features moves in Chromium without a graphics card.

The atlas is the made-up one of ``benchmarks.serve``, shown by the server and pages that users have.
The map is dragged with a mouse for some seconds, whole and enlarged, and with the features of a
search standing out; what counts are the pictures it draws. While it moves it may leave points out
to keep up, which ``points`` tells; at rest it shows all. ``cpu_ms`` is the work of the page's main
thread for a picture, which a busy machine does not change much. Run it as
``python -m benchmarks.map``.
"""

import math
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from benchmarks import command
from benchmarks.made_up_atlas import made_up
from benchmarks.serve import SERVER
from sememe.artefacts import cache_folder
from sememe.errors import SememeError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PLACES = {"whole": "/?color=cluster", "enlarged": "/?view=0,0,6", "found": "/?search=sun"}
WATCH = """() => {
    const canvas = document.querySelector("canvas");
    window.drawn = [];
    new MutationObserver(() => window.drawn.push([performance.now(), Number(canvas.dataset.every)]))
        .observe(canvas, { attributes: true, attributeFilter: ["data-every"] });
}"""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    features: int = 1_000_000
    """Features of the made-up atlas."""
    seconds: float = 6.0
    """How long the map is dragged, at each place."""
    width: int = 1600
    """Width of the window, in pixels; it is five eighths as high."""
    cache: Path | None = None
    """Where made-up atlases are kept; by default in the cache folder."""
    json: bool = False
    """Print one JSON object."""


def processor_seconds(session: CDPSession) -> float:
    """Return how long the page's main thread has worked; other programs' time is left out."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(item["value"] for item in metrics if item["name"] == "TaskDuration"))


def drag(page: Page, seconds: float, features: int) -> dict[str, float]:
    """Drag the map in circles; return how fast pictures follow each other, and what is on them."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(WATCH)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    worked = processor_seconds(session)
    page.mouse.move(x, y)
    page.mouse.down()
    begun = now = page.evaluate("performance.now()")
    while now - begun < seconds * 1e3:
        turn = (now - begun) / 400
        page.mouse.move(x + 90 * math.sin(turn), y + 60 * (1 - math.cos(turn)))
        now = page.evaluate("performance.now()")
    page.mouse.up()
    worked = processor_seconds(session) - worked
    drawn: list[tuple[float, int]] = page.evaluate("window.drawn")
    times = [time for time, _ in drawn if time <= now]
    gaps = [after - before for before, after in pairwise(times)]
    return {
        "fps": (len(times) - 1) / (times[-1] - times[0]) * 1e3,
        "frame_p95_ms": statistics.quantiles(gaps, n=20)[-1],
        "cpu_ms": worked / len(times) * 1e3,
        "points": statistics.mean(features / every for _, every in drawn),
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Serve, show, drag, and return the figures."""
    folder = (settings.cache or cache_folder() / "benchmarks") / f"atlas-{settings.features}"
    made_up(folder, settings.features, with_meanings=False)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=_chromium(), args=["--no-sandbox", "--disable-gpu"]
            )
            size = {"width": settings.width, "height": settings.width * 5 // 8}
            page = browser.new_context(viewport=size).new_page()  # type: ignore[arg-type]
            page.goto(address)
            page.locator("canvas[data-every]").wait_for(timeout=60_000)
            found: dict[str, Any] = {
                "features": settings.features,
                "map_ms": page.evaluate("performance.now()"),
            }
            for name, path in PLACES.items():
                page.goto(address.split("/?")[0] + path)
                page.locator("canvas[data-every='1']").wait_for(timeout=60_000)
                page.wait_for_load_state("networkidle")
                figures = drag(page, settings.seconds, settings.features)
                found |= {f"{name}_{key}": value for key, value in figures.items()}
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return found


def _chromium() -> str:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SememeError("no Chromium or Chrome here; Debian and Ubuntu: apt-get install chromium")
    return path


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
