"""Whatever a client sends, within what the OpenAPI document says or not, is answered in order."""

import json
import random
import re
from collections import Counter
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sememe.atlas.annotations import Annotations
from sememe.atlas.index import index
from sememe.atlas.search import Search
from tests.web.conftest import admitted, serving
from tests.web.small_report import write_small_reports

HOSTILE = [
    "<script>window.hacked=1</script>",
    "\u202e\u2066",
    "\x00\x1b[31m",
    "../../etc/passwd",
    "'; DROP TABLE annotation; --",
    '" OR NEAR(*',
    "%s%n%F0%9F",
    "9" * 400,
    "NaN",
    "..",
    "1e999..",
    "-0",
    "é" * 2_000,
]

PATTERNED = ["..", "0..1", "1e-5..", "..-2.5e+3", "3..2", "0,0 1,0 0,1", "-1e9,0 0,0 5.5,1 2,2"]
"""Texts of the document's patterns."""


@pytest.fixture(scope="module")
def open_client(atlas, tmp_path_factory):
    """A server with everything that can be had without a model's weights."""
    beside = tmp_path_factory.mktemp("beside")
    index(atlas, beside / "index")
    notes = Annotations(beside / "annotations.sqlite", "d")
    search = Search(atlas, beside)
    evaluation = write_small_reports(beside / "evaluation", "quick")
    with (
        serving(atlas, search=search, annotations=notes, evaluation=evaluation) as address,
        admitted(address) as client,
    ):
        yield client
    notes.close()


@pytest.fixture
def no_notes(open_client):
    """Remove what other tests have noted."""
    for row in open_client.get("/notes.json?limit=200").json()["rows"]:
        open_client.delete(f"/feature/{row['feature']}/note.json")


@pytest.fixture(scope="module")
def document(open_client) -> dict[str, Any]:
    return open_client.get("/openapi.json").json()


def value_of(schema: dict[str, Any], components: dict[str, Any], draw: random.Random) -> Any:
    """A value that a schema takes, as far as this document's kinds of schema go."""
    if "$ref" in schema:
        return value_of(components[schema["$ref"].rpartition("/")[2]], components, draw)
    if "anyOf" in schema:
        return value_of(draw.choice(schema["anyOf"]), components, draw)
    if "enum" in schema:
        return draw.choice(schema["enum"])
    if "pattern" in schema:
        return draw.choice([text for text in PATTERNED if re.search(schema["pattern"], text)])
    if schema["type"] == "array":
        count = draw.randint(schema.get("minItems", 0), 3)
        return [value_of(schema["items"], components, draw) for _ in range(count)]
    if schema["type"] == "object":
        return {
            name: value_of(part, components, draw)
            for name, part in schema["properties"].items()
            if name in schema.get("required", []) or draw.random() < 0.5
        }
    if schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        return draw.choice(
            [low, high, draw.randint(low, high), min(low + draw.randrange(60), high)]
        )
    length = draw.randint(schema.get("minLength", 0), min(schema.get("maxLength", 30), 30))
    text = "".join(draw.choice("sea 0\t\"'*()^:海é\u202e\x00\U0001f6a4") for _ in range(length))
    return {"string": text, "boolean": draw.random() < 0.5, "null": None}[schema["type"]]


def written(value: Any) -> Any:
    if isinstance(value, list):
        return [written(item) for item in value]
    text = {"True": "true", "False": "false", "None": ""}.get(str(value), str(value))
    return text.encode("utf-8", "replace")


def a_request(document: dict[str, Any], draw: random.Random) -> tuple[str, httpx.URL, Any, Any]:
    """A method, an address, a query and a body: as declared, or something hostile."""
    components = document["components"]["schemas"]

    def drawn(schema: dict[str, Any]) -> Any:
        if draw.random() < 0.2:
            return draw.choice(HOSTILE)
        return value_of(schema, components, draw)

    path = draw.choice(sorted(document["paths"]))
    method = draw.choice(sorted(document["paths"][path]))
    operation = document["paths"][path][method]
    query = {}
    for part in operation["parameters"]:
        if part["in"] == "path":
            path = path.replace("{number}", quote(str(drawn(part["schema"])), safe=""))
        elif draw.random() < 0.2:
            query[part["name"]] = written(drawn(part["schema"]))
    body = None
    if "requestBody" in operation:
        body = drawn(operation["requestBody"]["content"]["application/json"]["schema"])
    return method, httpx.URL(path), query, body


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.headers["content-type"] == "application/json":
        shown = answer.json()
        assert answer.status_code == 200 or "\n" not in shown["error"]


@pytest.mark.parametrize("seed", range(8))
def test_no_request_that_the_document_allows_or_not_breaks_the_server(open_client, document, seed):
    draw = random.Random(seed)
    answered = Counter()
    for _ in range(150):
        method, url, query, body = a_request(document, draw)
        content = None if body is None else json.dumps(body).encode()
        kind = {"content-type": "application/json"} if body is not None else {}
        answer = open_client.request(
            method.upper(), url, params=query, content=content, headers=kind
        )
        check(answer)
        answered[answer.status_code] += 1
    assert answered[200] > 30
    assert answered[400] > 10


def test_every_answer_is_as_the_document_says(open_client, document):
    """Each address's own example is answered, and has the keys that its schema requires."""
    components = document["components"]["schemas"]
    bodies = {
        "/prompt.json": {"text": "the sea"},
        "/contrast.json": {"positive": ["the sea"], "negative": ["a boat"]},
        "/feature/{number}/note.json": {"note": "see", "tags": ["sea"]},
    }
    for path, operations in document["paths"].items():
        for method, operation in sorted(operations.items(), reverse=True):  # put before delete
            answer = open_client.request(
                method.upper(),
                path.replace("{number}", "1"),
                json=bodies.get(path) if "requestBody" in operation else None,
            )
            if path.endswith("effects.json"):  # the model that stands in has no weights
                assert answer.status_code == 400
                continue
            assert answer.status_code == 200, (path, answer.text)
            (kind, content), *_ = operation["responses"]["200"]["content"].items()
            assert answer.headers["content-type"] == kind
            if kind == "application/json":
                conform(answer.json(), content["schema"], components)


def conform(value: Any, schema: dict[str, Any], components: dict[str, Any]) -> None:
    """Hold a value to a schema: types, required keys, and no keys beside the declared ones."""
    if "$ref" in schema:
        conform(value, components[schema["$ref"].rpartition("/")[2]], components)
    elif "anyOf" in schema:
        wanted = [
            part for part in schema["anyOf"] if (value is None) == (part.get("type") == "null")
        ]
        assert wanted, (value, schema)
        conform(value, wanted[0], components)
    elif schema.get("type") == "object":
        declared = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value)
        for name, part in value.items():
            conform(
                part,
                declared[name] if declared else schema.get("additionalProperties", {}),
                components,
            )
    elif schema.get("type") == "array":
        parts = schema.get("prefixItems") or [schema["items"]] * len(value)
        for part, wanted in zip(value, parts, strict=True):
            conform(part, wanted, components)
    elif "enum" in schema:
        assert value in schema["enum"]
    elif schema:
        kinds = {
            "string": str,
            "integer": int,
            "boolean": bool,
            "number": (int, float),
            "null": type(None),
        }
        assert isinstance(value, kinds[schema["type"]]), (value, schema)


@pytest.mark.usefixtures("no_notes")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_notes_are_written_by_nobody_but_this_user(open_client, method):
    path = "/feature/2/note.json"
    open_client.put(path, json={"note": "mine"})
    wrong = [
        ({"origin": "http://evil.example"}, {}),
        ({"host": "evil.example"}, {}),
        ({"cookie": "sememe=wrong"}, {}),
    ]
    for headers, _ in wrong:
        with httpx.Client(base_url=open_client.base_url) as stranger:
            if "cookie" not in headers:
                stranger.cookies = open_client.cookies
            answer = stranger.request(method, path, json={"note": "theirs"}, headers=headers)
        assert answer.status_code == 403
    answer = open_client.request(
        method, path, content=b'{"note": "x"}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == {"PUT": 415, "DELETE": 200}.get(method, 405)
    assert open_client.get("/notes.json").json()["total"] == (0 if method == "DELETE" else 1)
    too_long = open_client.put(path, json={"note": "a" * 20_001})
    assert too_long.status_code == 400
    assert (
        open_client.put(
            path, content=b" " * 300_000, headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    open_client.delete(path)


@pytest.mark.usefixtures("no_notes")
def test_hostile_notes_come_back_as_they_are(open_client):
    for number, text in enumerate(HOSTILE):
        body = {"note": text, "tags": [text[:60]]}
        answer = open_client.put(f"/feature/{number}/note.json", json=body)
        assert answer.status_code == 200, answer.text
        shown = open_client.get(f"/feature/{number}.json").json()["note"]
        assert (shown["note"], shown["tags"]) == (text, [text[:60].strip()])
    listed = open_client.get("/features.json", params={"noted": "true"}).json()
    assert {row["feature"] for row in listed["rows"]} == set(range(len(HOSTILE)))
    tagged = open_client.get("/features.json", params={"tag": HOSTILE[0][:60]}).json()
    assert [row["feature"] for row in tagged["rows"]] == [0]
    for number in range(len(HOSTILE)):
        assert open_client.delete(f"/feature/{number}/note.json").json() == {"deleted": True}
