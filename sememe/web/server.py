"""The loopback server: pages, their JSON twins, and who may see them."""

import gc
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
from sememe.web.completions import Completions
from sememe.web.endpoints import endpoints
from sememe.web.guard import Guard
from sememe.web.job import PATH, Job, job_endpoint, lead_here
from sememe.web.listener import Listener
from sememe.web.prompt import Effects, Prompt, Prompter
from sememe.web.views import Views

ASSETS = Path(__file__).parent / "assets"
PORT = 8765
PAGES = (
    "/",
    "/feature/{number}",
    "/neuron/{number}",
    "/prompt",
    "/compare",
    "/contrast",
    "/steer",
    "/search",
    "/notes",
    "/report",
    PATH,
)
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
    evaluation: Path | None = None,
    job: Callable[[], Job] | None = None,
    completions: Completions | None = None,
) -> Starlette:
    """Return the application that shows ``atlas`` to whoever holds ``token``.

    ``prompt`` runs the model on a text (None: the prompt page is off), and ``effects`` says what
    features do to logits; ``report`` holds the figures of the evaluation that the home page shows;
    ``search`` has what searches need beside the atlas, ``annotations`` keeps notes, ``evaluation``
    is the folder of the suites' reports, ``job`` says how the atlas came to be, and ``completions``
    writes text.
    """
    views = Views(
        atlas,
        report or {},
        prompt=prompt is not None,
        effects=prompt is not None and effects is not None,
        job=job is not None,
        search=search,
        annotations=annotations,
        evaluation=evaluation,
    )
    prompter = Prompter(views, prompt, effects) if prompt is not None else None
    declared = endpoints(views, prompter)
    if job is not None:
        declared.append(job_endpoint(job))
    document = openapi(declared)

    async def described(_: Request) -> Response:
        return json_response(document)

    page = _Pages(declared).document
    routes = [
        *(end.route() for end in declared),
        Route("/openapi.json", described),
        *(completions.routes() if completions is not None else ()),
        *(Route(path, page) for path in PAGES),
    ]
    app = _guarded(routes, token, port)
    app.state.views = views
    return app


def prepare(app: Starlette) -> Starlette:
    """Begin, in a thread, to make ready what the first search of ``app`` needs; return it."""

    def make_ready() -> None:
        app.state.views.finder.prepare()
        gc.collect()
        gc.freeze()  # or every so often a request waits while all of this is looked through

    threading.Thread(target=make_ready, daemon=True).start()
    return app


def make_waiting_app(job: Callable[[], Job], *, token: str, port: int) -> Starlette:
    """Return the application that shows how far ``job`` is, until there is an atlas."""
    routes = [
        job_endpoint(job).route(),
        Route(PATH, _Pages([]).document),
        Route("/{page:path}", lead_here),
    ]
    return _guarded(routes, token, port)


def _guarded(routes: list[Route], token: str, port: int) -> Starlette:
    return Starlette(
        routes=[Mount("/assets", _Assets(directory=ASSETS, check_dir=False)), *routes],
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={UsageError: _usage, SememeError: _failed, HTTPException: _http},
    )


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
    evaluation: Path | None = None,
    completions: Completions | None = None,
    announce: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve ``atlas`` until Ctrl-C (or until ``stop`` is set); ``announce`` gets the address.

    Raises SememeError when the port is taken or the pages are not built.
    """
    check_built()
    with Listener(port, stop) as listener:
        app = make_app(
            atlas,
            token=listener.token,
            port=listener.port,
            prompt=prompt,
            effects=effects,
            report=report,
            search=search,
            annotations=annotations,
            evaluation=evaluation,
            completions=completions,
        )
        listener.app = prepare(app)
        announce(listener.address)
        listener.run()
