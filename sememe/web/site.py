"""A read-only site of an atlas's features: a folder of files that a browser opens, no server.

Pages opened from files cannot fetch files, only run scripts. So each answer of the JSON API stands
in a script that hands it to the pages: ``__sememe__["/feature/3.json"] = {...}`` in
``data/feature/3.js``. The list of features is one script, which the pages sort and filter.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sememe.artefacts import write_bytes
from sememe.atlas.query import TOKEN_COLUMNS
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress
from sememe.web import answers
from sememe.web.arguments import MAX_ROWS
from sememe.web.points import Points
from sememe.web.server import ASSETS, check_built
from sememe.web.views import Views

SORTED = ("relevance", "feature", "token", "frequency", "mean", "maximum")
"""What the pages sort by without a server."""


def export_site(
    atlas: Atlas,
    out: Path,
    *,
    features: Sequence[int] | None = None,
    report: Mapping[str, Any] | None = None,
    search: Search | None = None,
    evaluation: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Write a site of ``features`` (None: all) to ``out``, and return how many it shows.

    ``evaluation`` is the folder of the suites' reports.

    UsageError for a feature that is not there, SememeError where the pages are not built or ``out``
    holds something else.
    """
    progress = progress or Progress()
    numbers = _checked(atlas, out, features)
    for part in ("data", "assets"):
        shutil.rmtree(out / part, ignore_errors=True)
    views = Views(atlas, report or {}, prompt=False, search=search, evaluation=evaluation)
    progress.start("site", len(numbers), "features")
    for place, number in enumerate(numbers):
        page = views.feature(number)
        page.previous = numbers[place - 1] if place else None
        page.next = numbers[place + 1] if place + 1 < len(numbers) else None
        _write(out, f"/feature/{number}.json", page)
        progress.advance(1)
    rows = [views.row(number) for number in numbers]
    _write(out, "/features.json", answers.Rows(len(rows), 0, False, rows, {}))
    index = views.index()
    index.searches = list(TOKEN_COLUMNS)
    index.sorts = [sort for sort in index.sorts if sort in SORTED]
    index.ranges = {name: index.ranges[name] for name in SORTED if name in index.ranges}
    if len(numbers) == atlas.features:
        _write_slices(views, out)
    else:
        index.map, index.neurons = False, None
    _write(out, "/report.json", views.reports())
    _write(out, "/index.json", index, opens=True)
    shutil.copytree(ASSETS, out / "assets", ignore=shutil.ignore_patterns("index.html"))
    write_bytes(out / "index.html", _document().encode())
    progress.finish(f"open {out / 'index.html'}")
    return len(numbers)


def _checked(atlas: Atlas, out: Path, features: Sequence[int] | None) -> list[int]:
    """Return the features to show, in order, if there are such and ``out`` may be written."""
    numbers = sorted(set(range(atlas.features) if features is None else features))
    if not numbers:
        raise UsageError("features: expected at least one")
    for number in numbers:
        if not 0 <= number < atlas.features:
            raise UsageError(f"feature {number}: expected a number from 0 to {atlas.features - 1}")
    check_built()
    if out.exists() and any(out.iterdir()) and not (out / script_of("/index.json")).exists():
        raise SememeError(f"{out} is not empty and holds no site: give another --site")
    return numbers


def _write_slices(views: Views, out: Path) -> None:
    """Write what shows all features together: the map, and the neurons they write to."""
    if "x" in views.atlas.columns:
        points = Points(views.atlas)
        _write(out, "/map.json", points.layout)
        _write(out, "/map.bin", points.data)  # bytes are base64 in JSON
        _write(out, "/clusters.json", points.clusters())
    for number in range(views.search.neurons or 0):
        _write(out, f"/neuron/{number}.json", views.neuron(number, 0, MAX_ROWS))


def script_of(path: str) -> str:
    """Return the file of a site that holds the answer of an address."""
    return "data" + path.rpartition(".")[0] + ".js"


def _write(out: Path, path: str, answer: object, *, opens: bool = False) -> None:
    """Write an answer as a script; the one that ``opens`` the site is the first to run."""
    place = b"window.__sememe__ = {};\n" if opens else b""
    key = msgspec.json.encode(path)
    script = place + b"__sememe__[" + key + b"] = " + msgspec.json.encode(answer) + b";\n"
    target = out / script_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(script)


def _document() -> str:
    """Return the pages' document with relative addresses and scripts that need no server."""
    text = (ASSETS / "index.html").read_text()
    text = re.sub(r'<script type="module"( crossorigin)?', "<script defer", text)
    text = text.replace(" crossorigin", "").replace('"/assets/', '"assets/')
    return text.replace("<script", '<script src="data/index.js"></script>\n    <script', 1)
