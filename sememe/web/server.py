"""The loopback server: pages, their JSON twins, and who may see them."""

import errno
import json
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sememe.atlas.store import SORTS, Atlas
from sememe.errors import SememeError, UsageError
from sememe.web import arguments
from sememe.web.guard import Guard
from sememe.web.prompt import Prompt, Prompter, prompt_text
from sememe.web.views import Views

ASSETS = Path(__file__).parent / "assets"
HOST = "127.0.0.1"
PORT = 8765
BODY_BYTES = 64 * 1024
MAX_ROWS = 200

Handler = Callable[[Request], Awaitable[Response]]


class _Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:  # noqa: ANN401
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


class _Pages:
    """The handlers of every address."""

    def __init__(self, views: Views, prompt: Prompt | None) -> None:
        self.views = views
        self.prompter = Prompter(views, prompt) if prompt is not None else None

    async def index(self, request: Request) -> Response:
        arguments.known(request.query_params, [])
        return _Json(self.views.index())

    async def features(self, request: Request) -> Response:
        query = request.query_params
        arguments.known(query, ["sort", "order", "search", "offset", "limit"])
        sort = query.get("sort", "frequency")
        if sort not in SORTS:
            raise UsageError(f"sort {sort[:80]!r}: expected one of {', '.join(SORTS)}")
        descending = arguments.choice(query, "order", ["desc", "asc"]) == "desc"
        search = query.get("search", "")
        if len(search) > 200:
            raise UsageError(f"search of {len(search)} characters: expected at most 200")
        offset = arguments.integer(query, "offset", 0)
        limit = arguments.integer(query, "limit", 50, high=MAX_ROWS)
        return _Json(self.views.rows(sort, descending, search, offset, limit))

    async def sample(self, request: Request) -> Response:
        query = request.query_params
        arguments.known(query, ["seed", "count"])
        seed = arguments.integer(query, "seed", 0)
        return _Json(self.views.sample(seed, arguments.integer(query, "count", 6, high=MAX_ROWS)))

    async def feature(self, request: Request) -> Response:
        arguments.known(request.query_params, [])
        return _Json(self.views.feature(self._number(request)))

    def _number(self, request: Request) -> int:
        given = request.path_params["number"]
        number = arguments.whole_number(given)
        last = self.views.atlas.features - 1
        if number is None or number > last:
            detail = f"feature {given[:80]!r}: expected a whole number from 0 to {last}"
            raise HTTPException(404 if number is not None else 400, detail)
        return number

    async def random(self, request: Request) -> Response:
        arguments.known(request.query_params, [])
        return _Json(self.views.random())

    async def prompt(self, request: Request) -> Response:
        if self.prompter is None:
            raise HTTPException(
                404, "this server has no model to run prompts; start it with `sememe serve DIR`"
            )
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, f"content-type {kind[:80]!r}: expected application/json")
        text = prompt_text(await _body(request))
        return _Json(await anyio.to_thread.run_sync(self.prompter, text))

    async def page(self, request: Request) -> Response:
        """Every page is the same document; the script in it reads the address."""
        index = ASSETS / "index.html"
        if not index.exists():
            return PlainTextResponse(f"{_missing(index)}\n", 503)
        status = 200
        if "number" in request.path_params:
            with suppress(HTTPException):
                self._number(request)
                return FileResponse(index, headers={"cache-control": "no-cache"})
            status = 404
        return FileResponse(index, status, headers={"cache-control": "no-cache"})


class _Assets(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:  # noqa: ANN401
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise HTTPException(413, f"body: expected at most {BODY_BYTES} bytes")
    return bytes(body)


def _missing(index: Path) -> str:
    return f"the pages are not built ({index} is missing): run `make frontend` in the checkout"


async def _usage(_: Request, error: Exception) -> Response:
    return _Json({"error": str(error)}, 400)


async def _failed(_: Request, error: Exception) -> Response:
    return _Json({"error": str(error)}, 500)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    index = ASSETS / "index.html"
    if (
        error.status_code == 404
        and "text/html" in request.headers.get("accept", "")
        and index.exists()
    ):
        return FileResponse(index, 404, headers={"cache-control": "no-cache"})
    return _Json({"error": error.detail}, error.status_code, error.headers)


def make_app(
    atlas: Atlas,
    *,
    token: str,
    port: int,
    prompt: Prompt | None = None,
    report: Mapping[str, Any] | None = None,
) -> Starlette:
    """Return the application that shows ``atlas`` to whoever holds ``token``.

    ``prompt`` runs the model on a text (None: the prompt page is off); ``report`` holds the figures
    of the evaluation that the home page shows.
    """
    pages = _Pages(Views(atlas, report or {}, prompt=prompt is not None), prompt)
    routes: list[Route | Mount] = [
        Route("/index.json", pages.index),
        Route("/features.json", pages.features),
        Route("/sample.json", pages.sample),
        Route("/random.json", pages.random),
        Route("/prompt.json", pages.prompt, methods=["POST"]),
        Route("/feature/{number}.json", pages.feature),
        Route("/", pages.page),
        Route("/feature/{number}", pages.page),
        Route("/prompt", pages.page),
        Mount("/assets", _Assets(directory=ASSETS, check_dir=False)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={UsageError: _usage, SememeError: _failed, HTTPException: _http},
    )


def bind(port: int) -> socket.socket:
    """Return a socket that listens on loopback ``port`` (0: any free one).

    Raises UsageError for a number that is no port, SememeError when the port is taken.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: expected a number from 0 to 65535")
    # Only where the protocol is named does asyncio turn Nagle's algorithm off: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            reason = "another program is using it"
        else:
            reason = error.strerror or str(error)
        raise SememeError(
            f"cannot listen on {HOST}:{port} ({reason}): give another with --port, or --port 0 "
            "for any free one"
        ) from error
    return listener


def check_ready(port: int) -> None:
    """Raise SememeError unless the pages are built and ``port`` is free, before long work."""
    if not (ASSETS / "index.html").exists():
        raise SememeError(_missing(ASSETS / "index.html"))
    bind(port).close()


def serve(
    atlas: Atlas,
    *,
    port: int = PORT,
    prompt: Prompt | None = None,
    report: Mapping[str, Any] | None = None,
    announce: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve ``atlas`` until Ctrl-C (or until ``stop`` is set); ``announce`` gets the address.

    Raises SememeError when the port is taken or the pages are not built.
    """
    if not (ASSETS / "index.html").exists():
        raise SememeError(_missing(ASSETS / "index.html"))
    listener = bind(port)
    with listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = make_app(atlas, token=token, port=port, prompt=prompt, report=report)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
        )
        announce(f"http://{HOST}:{port}/?token={token}")
        with suppress(KeyboardInterrupt):
            _Server(config, stop).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A uvicorn server that also ends when ``stop`` is set."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event | None) -> None:
        super().__init__(config)
        self.stop = stop

    async def on_tick(self, counter: int) -> bool:
        ending = await super().on_tick(counter)
        return ending or (self.stop is not None and self.stop.is_set())
