"""OpenAI's completions and chat completions, with features changed and traced.

Any number of requests share one model. They take turns token by token, first come, first served,
and the hooks of a request are on the model only while its own token is made, so that no request
sees what another changes.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sememe.errors import SememeError, UsageError
from sememe.web.api import json_bytes, json_response
from sememe.web.completion_bodies import ChatAsked, CompletionAsked, read_asked

if TYPE_CHECKING:
    from sememe.web.writing import Fired, SteeredModel, Writing

BODY_BYTES = 1 << 20
MOST = 16
"""Requests that are answered at a time; more are told to come again."""

Kind = Literal["text", "chat"]


class Completions:
    """The addresses under /v1."""

    def __init__(self, load: "Callable[[], SteeredModel]") -> None:
        self._load = load
        """Returns the model and its features, loaded at the first request."""
        self._turn = anyio.Lock()
        self._open = 0

    def routes(self) -> list[Route]:
        """Return what the server needs to serve them."""
        return [
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/completions", partial(self._answer, "text"), methods=["POST"]),
            Route("/v1/chat/completions", partial(self._answer, "chat"), methods=["POST"]),
        ]

    async def _models(self, _request: Request) -> Response:
        model = await self._loaded()
        listed = {"id": model.name, "object": "model", "created": 0, "owned_by": "sememe"}
        return json_response({"object": "list", "data": [listed]})

    async def _answer(self, kind: Kind, request: Request) -> Response:
        if self._open >= MOST:
            reason = f"{MOST} requests are being answered: come again"
            return json_response(_failure(reason, "rate_limit_error"), 429, {"retry-after": "1"})
        self._open += 1
        handed_over = False
        try:
            data = await json_bytes(request, BODY_BYTES)
            model = await self._loaded()
            writing = await anyio.to_thread.run_sync(_read, kind, data, model)
            answer = _Answer(kind, writing)
            if writing.asked.stream:
                handed_over = True
                events = self._events(answer)
                return _Stream(events, self._close)
            return await self._whole(answer, request)
        except HTTPException as error:
            return json_response(_failure(error.detail, "invalid_request_error"), error.status_code)
        except UsageError as error:
            return json_response(_failure(str(error), "invalid_request_error"), 400)
        except SememeError as error:
            return json_response(_failure(str(error), "server_error"), 500)
        finally:
            if not handed_over:
                self._close()

    def _close(self) -> None:
        self._open -= 1

    async def _loaded(self) -> "SteeredModel":
        async with self._turn:  # two first requests would load it twice
            return await anyio.to_thread.run_sync(self._load)

    async def _step(self, writing: "Writing") -> "tuple[list[str], list[Fired]] | None":
        async with self._turn:
            return await anyio.to_thread.run_sync(writing.step)

    async def _whole(self, answer: "_Answer", request: Request) -> Response:
        writing = answer.writing
        texts = [""] * len(writing.rows)
        fired: list[Fired] = []
        while (step := await self._step(writing)) is not None:
            texts = [text + more for text, more in zip(texts, step[0], strict=True)]
            fired += step[1]
            if await request.is_disconnected():
                return Response(status_code=499)
        return json_response(answer.whole(texts, fired))

    async def _events(self, answer: "_Answer") -> AsyncIterator[bytes]:
        try:
            for chunk in answer.opening():
                yield _event(chunk)
            while (step := await self._step(answer.writing)) is not None:
                for chunk in answer.chunks(*step):
                    yield _event(chunk)
            for chunk in answer.closing():
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
        except SememeError as error:
            yield _event(_failure(str(error), "server_error"))


class _Stream(StreamingResponse):
    """Events, and what is to be done when they end or nobody reads on."""

    def __init__(self, events: AsyncIterator[bytes], done: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()


@dataclass
class _Answer:
    """The shapes in which OpenAI's clients expect what was written."""

    kind: Kind
    writing: "Writing"
    id: str = field(default_factory=lambda: f"sememe-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        name = "text_completion" if self.kind == "text" else "chat.completion"
        if chunk and self.kind == "chat":
            name += ".chunk"
        return {
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.writing.model.name,
        }

    def whole(self, texts: Sequence[str], fired: "Sequence[Fired]") -> dict[str, Any]:
        """Return the answer at once."""
        choices = []
        for index, (text, writer) in enumerate(zip(texts, self.writing.writers, strict=True)):
            said = (
                {"text": text}
                if self.kind == "text"
                else {"message": {"role": "assistant", "content": text}}
            )
            choices.append(
                {"index": index, **said, "logprobs": None, "finish_reason": writer.finish}
            )
        facts = {"usage": self.writing.usage(), "sememe": self.writing.facts(fired)}
        return {**self._head(chunk=False), "choices": choices, **facts}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield what comes before the first token."""
        if self.kind == "chat":
            yield self._piece(0, {"role": "assistant", "content": ""})

    def chunks(self, texts: Sequence[str], fired: "Sequence[Fired]") -> Iterator[dict[str, Any]]:
        """Yield what one step wrote, and what fired while it did."""
        for index, text in enumerate(texts):
            own = [each for each in fired if each.index == index]
            if not text and not own:
                continue
            found = self._piece(index, {"content": text})
            if own:
                found["sememe"] = {"trace": own}
            yield found

    def closing(self) -> Iterator[dict[str, Any]]:
        """Yield why the texts ended, what was done to features, and what it took."""
        writers = self.writing.writers
        for index, writer in enumerate(writers):
            found = self._piece(index, {}, writer.finish)
            if index == len(writers) - 1:
                found["sememe"] = self.writing.facts([])
            yield found
        if (self.writing.asked.stream_options or {}).get("include_usage"):
            yield {**self._head(chunk=True), "choices": [], "usage": self.writing.usage()}

    def _piece(
        self, index: int, delta: dict[str, str], finish: str | None = None
    ) -> dict[str, Any]:
        said = {"text": delta.get("content", "")} if self.kind == "text" else {"delta": delta}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return {**self._head(chunk=True), "choices": [choice]}


def _read(kind: Kind, data: bytes, model: "SteeredModel") -> "Writing":
    return model.begin(read_asked(data, CompletionAsked if kind == "text" else ChatAsked))


def _failure(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _event(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
