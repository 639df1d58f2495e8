"""A job while it runs: what its page shows, and the server until there is an atlas."""

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sememe.atlas.early import Early
from sememe.web.answers import Example
from sememe.web.api import Endpoint
from sememe.web.text import TokenText

PATH = "/job"


class JobStage(Struct, kw_only=True):
    """A stage of the job."""

    name: str
    state: Literal["waiting", "running", "done"]
    unit: str | None = None
    total: int | None = None
    done: int | None = None
    rate: Annotated[float | None, Meta(description="Units a second of this run.")] = None
    left: Annotated[float | None, Meta(description="Seconds left at this rate.")] = None
    seconds: Annotated[float | None, Meta(description="It has taken.")] = None
    note: str = ""


class Curves(Struct):
    """Figures of the training by activations seen, smoothed; null where not finite."""

    tokens: list[int]
    fvu: list[float | None]
    l0: list[float | None]
    dead: list[float | None]
    loss: list[float | None]


class EarlyRow(Struct):
    """A feature of the dictionary in training."""

    feature: int
    frequency: float
    maximum: float
    tokens: Annotated[list[str], Meta(description="Tokens that it fires on.")]
    examples: list[Example]


class EarlyFeatures(Struct):
    """The most frequent features that are not dense, of a dictionary in training."""

    trained: Annotated[int, Meta(description="Activations it had been trained on.")]
    sample: Annotated[int, Meta(description="Tokens it was looked at on.")]
    cost: Annotated[float, Meta(description="Share of training's time that looking has taken.")]
    rows: list[EarlyRow]


class Job(Struct, kw_only=True):
    """How far a job is, and what is known so far."""

    out: str
    model: str | None
    ready: Annotated[bool, Meta(description="The atlas's pages are served.")]
    stages: list[JobStage]
    activations: Annotated[int | None, Meta(description="Of the whole training.")]
    curves: Curves
    early: EarlyFeatures | None
    messages: list[str]


def job_endpoint(job: Callable[[], Job]) -> Endpoint:
    """Return the address that says how far a job is."""
    return Endpoint(
        path=f"{PATH}.json",
        handler=lambda _: job(),
        answer=Job,
        summary="How far the job is, its training's curves and early features.",
    )


def shown_early(early: Early, text: TokenText) -> EarlyFeatures:
    """Return early features with text in place of token ids."""
    rows = []
    for item in early.features:
        pieces = text.pieces(item.context, item.values)
        peak = bisect(list(accumulate(len(piece.tokens) for piece in pieces)), item.peak)
        example = Example(pieces, peak, item.maximum, "", item.document, item.position)
        tokens = text.labels(item.tokens, 4)
        rows.append(EarlyRow(item.feature, item.frequency, item.maximum, tokens, [example]))
    return EarlyFeatures(early.trained, early.tokens, early.cost, rows)


async def lead_here(request: Request) -> Response:
    """Lead whoever asks for a page to the job's; other addresses are to come."""
    if "." in request.url.path:
        raise HTTPException(503, f"there is no atlas yet: {PATH} shows how far the job is")
    return RedirectResponse(PATH, 303, headers={"cache-control": "no-store"})
