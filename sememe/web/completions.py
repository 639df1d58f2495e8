"""OpenAI's completions and chat completions, with features changed and traced.

Any number of requests share one model. They take turns token by token, first come, first served,
and the hooks of a request are on the model only while its own token is made, so that no request
sees what another changes.
"""

import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import anyio
import anyio.to_thread
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sememe.errors import SememeError, UsageError
from sememe.intervention.changes import Change
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import Applied, intervene
from sememe.intervention.monitor import Alert, Monitor, Watch
from sememe.models.chat import chat_ids
from sememe.models.generation import prompt_ids, stream
from sememe.web.completion_bodies import Asked, ChatAsked, CompletionAsked, read_asked
from sememe.web.live import LivePrompt
from sememe.web.writer import Writer

BODY_BYTES = 1 << 20
MOST = 16
"""Requests that are answered at a time; more are told to come again."""
COUNTS = ("tokens", "outside", "left_out", "unmet", "applied", "changed")

Kind = Literal["text", "chat"]


@dataclass
class Writing:
    """The texts of one request, as far as they are written."""

    live: LivePrompt
    features: FeatureSet
    rows: list[list[int]]
    asked: Asked
    changes: dict[int, Change]
    seed: int
    writers: list[Writer] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    _steps: Iterator[list[int | None]] | None = None
    _monitor: Monitor | None = None

    def begin(self) -> None:
        """Check everything that can be wrong, before anything is answered."""
        model, features = self.live.model, self.features
        stops, bytes_of = self.asked.stops, model.tokenizer.bytes_of
        self.writers = [Writer(bytes_of, stops) for _ in self.rows]
        with intervene(model, {features: self.changes}) as run:
            self.applied = run.applied
        if self.asked.trace:
            watches = [Watch(features.reads, number, 0.0) for number in set(self.asked.trace)]
            self._monitor = Monitor(watches, [features])
        self._steps = stream(
            model,
            self.rows,
            tokens=self.asked.tokens,
            temperature=1.0 if self.asked.temperature is None else self.asked.temperature,
            seed=self.seed,
        )

    def step(self) -> tuple[list[str], list[Alert]] | None:
        """Write the next token of every text: return what may be shown, and what fired.

        None when all texts have ended.
        """
        assert self._steps is not None
        if all(writer.finish for writer in self.writers):
            return None
        alerts: list[Alert] = []
        with self.live.lock, ExitStack() as stack:
            model = self.live.model
            run = stack.enter_context(intervene(model, {self.features: self.changes}))
            if self._monitor is not None:
                stack.enter_context(self._monitor.watching(model, alerts.append))
            made = next(self._steps, None)
            done = run.report()
        for whole, part in zip(self.applied, done, strict=True):
            for name in COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
        if made is None:
            ending = "stop" if self.writers[0].tokens < self.asked.tokens else "length"
            return [writer.end(ending) for writer in self.writers], alerts
        texts = [writer.write(token) for writer, token in zip(self.writers, made, strict=True)]
        for number, writer in enumerate(self.writers):
            if writer.tokens == self.asked.tokens:
                texts[number] += writer.end("length")
        return texts, alerts

    def facts(self, alerts: Sequence[Alert]) -> dict[str, Any]:
        """Return sememe's own part of an answer."""
        applied = [
            {"feature": each.feature, "how": str(each.change), "amount": each.amount}
            | {name: getattr(each, name) for name in COUNTS}
            for each in self.applied
        ]
        return {"seed": self.seed, "features": applied, "trace": traced(alerts)}

    def usage(self) -> dict[str, int]:
        """Return the tokens read and written."""
        read = sum(map(len, self.rows))
        written = sum(writer.tokens for writer in self.writers)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def traced(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """Return where traced features fired: text, position, token, whether it is new, and value."""
    return [
        {
            "index": each.text,
            "position": each.position,
            "token": each.token,
            "new": each.new,
            "feature": each.feature,
            "value": round(each.value, 4),
        }
        for each in alerts
    ]


class Completions:
    """The addresses under /v1."""

    def __init__(self, live: LivePrompt, features: FeatureSet) -> None:
        self.live, self.features = live, features
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
        model = await anyio.to_thread.run_sync(lambda: self.live.model)
        listed = {"id": model.name, "object": "model", "created": 0, "owned_by": "sememe"}
        return _json({"object": "list", "data": [listed]})

    async def _answer(self, kind: Kind, request: Request) -> Response:
        if self._open >= MOST:
            reason = f"{MOST} requests are being answered: come again"
            return _json(_failure(reason, "rate_limit_error"), 429, {"retry-after": "1"})
        self._open += 1
        handed_over = False
        try:
            data = await _body(request)
            writing = await anyio.to_thread.run_sync(self._read, kind, data)
            answer = _Answer(kind, writing, self.live.model.name)
            if writing.asked.stream:
                handed_over = True
                events = self._events(answer)
                return StreamingResponse(events, media_type="text/event-stream")
            return await self._whole(answer, request)
        except UsageError as error:
            return _json(_failure(str(error), "invalid_request_error"), 400)
        except SememeError as error:
            return _json(_failure(str(error), "server_error"), 500)
        finally:
            if not handed_over:
                self._open -= 1

    def _read(self, kind: Kind, data: bytes) -> Writing:
        asked = read_asked(data, CompletionAsked if kind == "text" else ChatAsked)
        model = self.live.model
        asked.check(model.name)
        if isinstance(asked, CompletionAsked):
            rows = [prompt_ids(model, text) for text in asked.prompts]
        else:
            rows = [chat_ids(model, [message.plain() for message in asked.messages])]
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        writing = Writing(self.live, self.features, rows, asked, asked.changes(), seed)
        with self.live.lock:
            writing.begin()
        return writing

    async def _step(self, writing: Writing) -> tuple[list[str], list[Alert]] | None:
        async with self._turn:
            return await anyio.to_thread.run_sync(writing.step)

    async def _whole(self, answer: "_Answer", request: Request) -> Response:
        writing = answer.writing
        texts, alerts = [""] * len(writing.rows), []
        while (step := await self._step(writing)) is not None:
            texts = [text + more for text, more in zip(texts, step[0], strict=True)]
            alerts += step[1]
            if await request.is_disconnected():
                return Response(status_code=499)
        return _json(answer.whole(texts, alerts))

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
        finally:
            self._open -= 1


@dataclass
class _Answer:
    """The shapes in which OpenAI's clients expect what was written."""

    kind: Kind
    writing: Writing
    model: str
    id: str = field(default_factory=lambda: f"sememe-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        name = "text_completion" if self.kind == "text" else "chat.completion"
        if chunk and self.kind == "chat":
            name += ".chunk"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def whole(self, texts: Sequence[str], alerts: Sequence[Alert]) -> dict[str, Any]:
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
        facts = {"usage": self.writing.usage(), "sememe": self.writing.facts(alerts)}
        return {**self._head(chunk=False), "choices": choices, **facts}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield what comes before the first token."""
        if self.kind == "chat":
            yield self._piece(0, {"role": "assistant", "content": ""})

    def chunks(self, texts: Sequence[str], alerts: Sequence[Alert]) -> Iterator[dict[str, Any]]:
        """Yield what one step wrote, and what fired while it did."""
        for index, text in enumerate(texts):
            own = [alert for alert in alerts if alert.text == index]
            if not text and not own:
                continue
            found = self._piece(index, {"content": text})
            if own:
                found["sememe"] = {"trace": traced(own)}
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


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UsageError(f"content-type {kind[:80]!r}: expected application/json")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            raise UsageError(f"body: expected at most {BODY_BYTES} bytes")
    return bytes(data)


def _failure(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value), status, headers=headers, media_type="application/json"
    )


def _event(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
