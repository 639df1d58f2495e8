"""The loopback server: pages, their JSON twins, and who may see them."""

import errno
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sememe.atlas.annotations import Annotations
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.errors import SememeError, UsageError
from sememe.web.api import Endpoint, json_response, openapi
from sememe.web.endpoints import endpoints
from sememe.web.guard import Guard
from sememe.web.prompt import Effects, Prompt, Prompter
from sememe.web.views import Views

ASSETS = Path(__file__).parent / "assets"
HOST = "127.0.0.1"
PORT = 8765
PAGES = ("/", "/feature/{number}", "/neuron/{number}", "/prompt", "/compare", "/search", "/notes")
"""The addresses of pages."""


class _Pages:
    """Every page is the same document; the script in it reads the address."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.numbered = {end.noun: end for end in endpoints if end.numbers is not None}

    async def document(self, request: Request) -> Response:
        index = ASSETS / "index.html"
        if not index.exists():
            return PlainTextResponse(f"{_missing(index)}\n", 503)
        status = 200
        if "number" in request.path_params:
            try:
                noun = request.url.path.split("/")[1]
                self.numbered[noun].number(request.path_params["number"])
            except (HTTPException, KeyError):
                status = 404
        return FileResponse(index, status, headers={"cache-control": "no-cache"})


class _Assets(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:  # noqa: ANN401
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def _missing(index: Path) -> str:
    return f"the pages are not built ({index} is missing): run `make frontend` in the checkout"


async def _usage(_: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 400)


async def _failed(_: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 500)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    index = ASSETS / "index.html"
    if (
        error.status_code == 404
        and "text/html" in request.headers.get("accept", "")
        and index.exists()
    ):
        return FileResponse(index, 404, headers={"cache-control": "no-cache"})
    return json_response({"error": error.detail}, error.status_code, error.headers)


def make_app(
    atlas: Atlas,
    *,
    token: str,
    port: int,
    prompt: Prompt | None = None,
    effects: Effects | None = None,
    report: Mapping[str, Any] | None = None,
    search: Search | None = None,
    annotations: Annotations | None = None,
) -> Starlette:
    """Return the application that shows ``atlas`` to whoever holds ``token``.

    ``prompt`` runs the model on a text (None: the prompt page is off), and ``effects`` says what
    features do to logits; ``report`` holds the figures of the evaluation that the home page shows;
    ``search`` has what searches need beside the atlas, and ``annotations`` keeps notes.
    """
    views = Views(
        atlas,
        report or {},
        prompt=prompt is not None,
        search=search,
        annotations=annotations,
    )
    prompter = Prompter(views, prompt, effects) if prompt is not None else None
    declared = endpoints(views, prompter)
    document = openapi(declared)

    async def described(_: Request) -> Response:
        return json_response(document)

    page = _Pages(declared).document
    app = Starlette(
        routes=[
            *(end.route() for end in declared),
            Route("/openapi.json", described),
            *(Route(path, page) for path in PAGES),
            Mount("/assets", _Assets(directory=ASSETS, check_dir=False)),
        ],
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={UsageError: _usage, SememeError: _failed, HTTPException: _http},
    )
    app.state.views = views
    return app


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
    check_built()
    bind(port).close()


def check_built() -> None:
    """Raise SememeError unless the pages are built."""
    if not (ASSETS / "index.html").exists():
        raise SememeError(_missing(ASSETS / "index.html"))


def serve(
    atlas: Atlas,
    *,
    port: int = PORT,
    prompt: Prompt | None = None,
    effects: Effects | None = None,
    report: Mapping[str, Any] | None = None,
    search: Search | None = None,
    annotations: Annotations | None = None,
    announce: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve ``atlas`` until Ctrl-C (or until ``stop`` is set); ``announce`` gets the address.

    Raises SememeError when the port is taken or the pages are not built.
    """
    check_built()
    listener = bind(port)
    with listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = make_app(
            atlas,
            token=token,
            port=port,
            prompt=prompt,
            effects=effects,
            report=report,
            search=search,
            annotations=annotations,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=60,  # longer than people look at a page
            timeout_graceful_shutdown=2,
        )
        threading.Thread(target=app.state.views.finder.prepare, daemon=True).start()
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
