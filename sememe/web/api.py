"""Declared addresses: one declaration reads the arguments, answers, and documents itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import sememe
from sememe.errors import UsageError
from sememe.web.answers import Failure
from sememe.web.arguments import Nothing, whole_number

BODY_BYTES = 256 * 1024
_REF = "#/components/schemas/{name}"


class Asked(NamedTuple):
    """A request as its endpoint reads it."""

    number: int
    """The number in the path; 0 where it has none."""
    query: Any
    body: Any


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An address of the JSON API."""

    path: str
    """May have one ``{number}``."""
    handler: Callable[[Asked], Any]
    """Returns an ``answer``, or bytes."""
    answer: type | None = None
    """None: bytes in a layout of their own."""
    summary: str
    method: str = "GET"
    query: type = Nothing
    body: type | None = None
    numbers: int | None = None
    """How many numbers the path takes, from 0 on."""
    noun: str = "feature"
    """What the number in the path is of."""
    limiter: anyio.CapacityLimiter | None = None
    """How many may be answered at a time, in threads; None: at once, in the server's own."""
    kept: str | None = None
    """The answer is the same while this is: browsers may keep it."""

    def route(self) -> Route:
        """Return what the server needs to serve it."""
        return Route(self.path, self.answer_to, methods=[self.method])

    async def answer_to(self, request: Request) -> Response:
        """Answer a request; what is wrong with it is said in one line."""
        asked = Asked(
            self.number(request.path_params.get("number")),
            read_query(request.query_params, self.query),
            await self._body(request),
        )
        headers = {}
        if self.kept is not None:
            headers = {"etag": f'"{self.kept}"', "cache-control": "private, no-cache"}
            if request.headers.get("if-none-match") == headers["etag"]:
                return Response(status_code=304, headers=headers)
        if self.limiter is None:
            answer = self.handler(asked)
        else:
            answer = await anyio.to_thread.run_sync(self.handler, asked, limiter=self.limiter)
        if isinstance(answer, bytes):
            return Response(answer, media_type="application/octet-stream", headers=headers)
        return json_response(answer, headers=headers)

    def number(self, given: str | None) -> int:
        """Return the number in the path; 400 where it is none, 404 where there is none such."""
        if given is None:
            return 0
        number = whole_number(given)
        assert self.numbers is not None
        if number is None or number >= self.numbers:
            detail = (
                f"{self.noun} {given[:80]!r}: expected a whole number from 0 to {self.numbers - 1}"
            )
            raise HTTPException(400 if number is None else 404, detail)
        return number

    async def _body(self, request: Request) -> Any:  # noqa: ANN401
        if self.body is None:
            return None
        return read_body(await json_bytes(request, BODY_BYTES), self.body)

    def operation(self, schema: Mapping[str, Any], answer: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return its part of the OpenAPI document; ``schema`` is that of its arguments."""
        parameters = [
            {"name": name, "in": "query", "required": False, "schema": part}
            for name, part in schema["properties"].items()
        ]
        if "{number}" in self.path:
            assert self.numbers is not None
            number = {"type": "integer", "minimum": 0, "maximum": self.numbers - 1}
            parameters.insert(
                0, {"name": "number", "in": "path", "required": True, "schema": number}
            )
        content = (
            {"application/json": {"schema": answer}}
            if self.answer
            else {"application/octet-stream": {}}
        )
        failure = {"application/json": {"schema": {"$ref": _REF.format(name="Failure")}}}
        found: dict[str, Any] = {
            "summary": self.summary,
            "operationId": f"{self.method} {self.path}",
            "parameters": parameters,
            "responses": {
                "200": {"description": "The answer.", "content": content},
                "4XX": {"description": "What is wrong, in one line.", "content": failure},
            },
        }
        if self.body is not None:
            body = {"schema": {"$ref": _REF.format(name=self.body.__name__)}}
            found["requestBody"] = {"required": True, "content": {"application/json": body}}
        return found


async def json_bytes(request: Request, most: int) -> bytes:
    """Return a request's body; 415 where it says that it is no JSON, 413 beyond ``most`` bytes."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, f"content-type {kind[:80]!r}: expected application/json")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise HTTPException(413, f"body: expected at most {most} bytes")
    return bytes(data)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``value`` as JSON."""
    return Response(
        msgspec.json.encode(value), status, headers=headers, media_type="application/json"
    )


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the declared addresses."""
    types = [Failure, *(end.body for end in endpoints if end.body is not None)]
    answers = [end.answer for end in endpoints if end.answer is not None]
    refs, components = msgspec.json.schema_components([*types, *answers], ref_template=_REF)
    of_answer = iter(refs[len(types) :])
    paths: dict[str, dict[str, Any]] = {}
    for end in endpoints:
        answer = next(of_answer) if end.answer is not None else None
        operation = end.operation(_schema(end.query), answer)
        paths.setdefault(end.path, {})[end.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sememe",
            "version": sememe.__version__,
            "description": (
                "Every address needs the cookie that the address printed by `sememe serve` sets. "
                "Unknown arguments are refused."
            ),
        },
        "paths": paths,
        "components": {"schemas": components},
    }


@cache
def _schema(query: type) -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components([query], ref_template=_REF)
    found: dict[str, Any] = components[query.__name__]
    return found


def read_query(given: QueryParams, query: type) -> Any:  # noqa: ANN401
    """Return a request's arguments as ``query``; UsageError names the one that is wrong."""
    properties = _schema(query)["properties"]
    values: dict[str, Any] = {}
    for name in given:
        if name not in properties:
            takes = f"one of {', '.join(properties)}" if properties else "no arguments"
            raise UsageError(f"argument {name[:80]!r}: expected {takes}")
        each = given.getlist(name)
        if properties[name].get("type") == "array":
            values[name] = each
        elif len(each) > 1:
            raise UsageError(f"argument {name!r} is given {len(each)} times: expected once")
        else:
            values[name] = each[0]
    try:
        return msgspec.convert(values, query, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].rstrip("`").partition("[")[0]
        value = values.get(name, "")
        shown = ", ".join(value) if isinstance(value, list) else value
        expected = _expected(properties[name]) if name in properties else str(error)
        raise UsageError(f"{name} {shown[:80]!r}: expected {expected}") from None


def _expected(schema: Mapping[str, Any]) -> str:
    """Return in words what a schema takes."""
    for part in schema.get("anyOf", []):
        if part.get("type") != "null":
            return _expected({**part, **schema, "anyOf": []})
    if "items" in schema:
        return _expected(schema["items"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if schema.get("type") == "integer":
        return f"a whole number from {schema['minimum']} to {schema['maximum']}"
    if schema.get("type") == "boolean":
        return "true or false"
    if "pattern" not in schema and "maxLength" in schema:
        return f"at most {schema['maxLength']} characters"
    return str(schema.get("description", "text"))


def read_body(data: bytes, body: type) -> Any:  # noqa: ANN401
    """Return a request's body as ``body``; UsageError says what is wrong with it."""
    example = json.dumps(dict.fromkeys(_schema(body).get("required", ["note"]), "..."))
    try:
        return msgspec.json.decode(data, type=body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"body: expected JSON like {example} ({error})") from None
