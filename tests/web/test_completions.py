"""OpenAI's own client against a served run, whose features it changes and traces."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import torch
from playwright.sync_api import BrowserContext, expect

from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.atlas.store import Atlas
from sememe.dictionaries.dictionary import Dictionary
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import intervene
from sememe.models.generation import generate, prompt_ids
from sememe.models.reading import read
from sememe.run import Run
from sememe.web.completions import MOST, Completions
from sememe.web.live import LivePrompt
from sememe.web.writing import SteeredModel
from tests.web.conftest import admitted, serving
from tests.web.test_browser import browser as browser
from tests.web.test_browser import context as context

PROMPT = "The sea was calm"


@pytest.fixture(scope="module")
def writer(small_run: Path) -> SteeredModel:
    run = Run(small_run)
    rules = TokenRules.of(Activations.open(run.held_out))
    live = LivePrompt(run.load_model, Dictionary.load(run.dictionary), rules, 64)
    return SteeredModel(live.model, FeatureSet.open(small_run), live.lock)


@pytest.fixture(scope="module")
def served(writer: SteeredModel, small_run: Path) -> Iterator[tuple[str, Completions]]:
    completions = Completions(lambda: writer)
    with serving(Atlas.open(Run(small_run).atlas), completions=completions) as address:
        yield address, completions


@pytest.fixture
def client(served: tuple[str, Completions]) -> Iterator[openai.OpenAI]:
    url = httpx.URL(served[0])
    with openai.OpenAI(
        base_url=str(url.copy_with(path="/v1", query=None)),
        api_key=url.params["token"],
        max_retries=0,
        timeout=60,
    ) as found:
        yield found


@pytest.fixture(scope="module")
def firing(writer: SteeredModel) -> int:
    """A feature that fires on the prompt."""
    ids = prompt_ids(writer.language, PROMPT)
    rows = read(writer.language, torch.tensor([ids]), [writer.features.reads])
    return int(writer.features.encode(rows[writer.features.reads][0, -1:].float()).indices[0, 0])


def by_hand(writer: SteeredModel, changes: dict[int, str], tokens: int, seed: int = 0) -> str:
    ids = prompt_ids(writer.language, PROMPT)
    with intervene(writer.language, {writer.features: changes}):
        (new,) = generate(writer.language, [ids], tokens=tokens, seed=seed)
    return b"".join(writer.language.tokenizer.bytes_of[t] for t in new).decode(errors="replace")


def asking(writer: SteeredModel, **more: object) -> dict[str, object]:
    return {"model": writer.name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more


def test_texts_are_those_of_generating_with_the_same_changes(client, writer, firing) -> None:
    plain = client.completions.create(**asking(writer))
    assert plain.choices[0].text == by_hand(writer, {}, 12)
    assert plain.usage.completion_tokens == 12
    assert plain.choices[0].finish_reason == "length"
    changes = {str(firing): "8x"}
    steered = client.completions.create(**asking(writer), extra_body={"features": changes})
    assert steered.choices[0].text == by_hand(writer, {firing: "8x"}, 12)
    (applied,) = steered.model_extra["sememe"]["features"]
    read_tokens = len(prompt_ids(writer.language, PROMPT)) + 11  # the last one is not read
    assert applied["feature"] == firing
    assert applied["tokens"] == read_tokens
    assert applied["applied"] + applied["left_out"] == read_tokens


def test_a_stream_is_the_whole_in_pieces(client, writer, firing) -> None:
    changed = {"features": {str(firing): "3x"}, "trace": [firing]}
    whole = client.completions.create(**asking(writer), extra_body=changed)
    chunks = list(
        client.completions.create(
            **asking(writer),
            stream=True,
            stream_options={"include_usage": True},
            extra_body=changed,
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage
    traces = [
        item
        for chunk in chunks
        for item in (chunk.model_extra.get("sememe") or {}).get("trace", [])
    ]
    assert traces == whole.model_extra["sememe"]["trace"]
    assert len(traces) > 0


def test_traced_values_are_those_of_the_encoder(client, writer, firing) -> None:
    answer = client.completions.create(**asking(writer), extra_body={"trace": [firing]})
    text = PROMPT + answer.choices[0].text
    trace = answer.model_extra["sememe"]["trace"]
    ids = prompt_ids(writer.language, PROMPT)
    ids += generate(writer.language, [ids], tokens=12)[0][:-1]
    rows = read(writer.language, torch.tensor([ids]), [writer.features.reads])
    x = rows[writer.features.reads][0].float()
    code = writer.features.encode(x)
    kept = writer.features.kept(torch.tensor(ids), x)
    there = (code.indices == firing) & (code.values > 0) & kept[:, None]
    expected = [(int(row), float(code.values[row, column])) for row, column in there.nonzero()]
    assert [item["position"] for item in trace] == [position for position, _ in expected]
    assert [item["value"] for item in trace] == pytest.approx(
        [value for _, value in expected], rel=1e-2, abs=1e-3
    )
    assert all(
        item["new"] == (item["position"] >= len(prompt_ids(writer.language, PROMPT)))
        for item in trace
    )
    assert text


def test_requests_at_once_are_never_mixed(client, served, writer, firing) -> None:
    wanted = [{}, {firing: "8x"}, {firing: 0}, {(firing + 1) % 60: "add:20"}]
    alone = [by_hand(writer, changes, 12) for changes in wanted]
    assert len(set(alone)) > 1

    def ask(number: int) -> str:
        changes = {str(f): how for f, how in wanted[number % 4].items()}
        answer = client.completions.create(**asking(writer), extra_body={"features": changes})
        return answer.choices[0].text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(12))) == [alone[number % 4] for number in range(12)]


def test_a_long_request_does_not_keep_a_short_one_waiting(client, writer) -> None:
    ended: dict[str, float] = {}

    def ask(name: str, tokens: int) -> None:
        client.completions.create(**asking(writer, max_tokens=tokens))
        ended[name] = time.monotonic()

    long = threading.Thread(target=ask, args=("long", 48))
    long.start()
    time.sleep(0.02)
    ask("short", 1)
    long.join()
    assert ended["short"] < ended["long"]


def test_stops_end_a_text(client, writer) -> None:
    whole = by_hand(writer, {}, 12)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    answer = client.completions.create(**asking(writer), stop=[stop, "never that"])
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_several_prompts_are_answered_together(client, writer) -> None:
    answer = client.completions.create(**asking(writer, prompt=[PROMPT, "A hat"]))
    assert [choice.index for choice in answer.choices] == [0, 1]
    alone = client.completions.create(**asking(writer, prompt="A hat"))
    assert answer.choices[1].text == alone.choices[0].text


def test_draws_repeat_with_the_seed_that_is_told(client, writer) -> None:
    first = client.completions.create(**asking(writer, temperature=1.5))
    seed = first.model_extra["sememe"]["seed"]
    again = client.completions.create(**asking(writer, temperature=1.5), seed=seed)
    assert again.choices[0].text == first.choices[0].text


def test_models_are_listed_and_strangers_refused(client, served, writer) -> None:
    assert [model.id for model in client.models.list()] == [writer.name]
    url = httpx.URL(served[0]).copy_with(path="/v1/completions", query=None)
    body = asking(writer)
    token = httpx.URL(served[0]).params["token"]
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {token}"},
        {"authorization": f"Bearer {token}", "origin": "http://evil.example"},
        {"authorization": f"Bearer {token}", "host": "evil.example"},
    ):
        assert httpx.post(url, json=body, headers=headers).status_code == 403
    with admitted(served[0]) as browser:
        assert browser.post("/v1/completions", json=body).status_code == 200


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"features": {"99999": "5x"}}, "feature 99999"),
        ({"features": {"one": "5x"}}, "features has 'one'"),
        ({"features": {"1": "5y"}}, "'5y'"),
        ({"features": {"1": {"how": "5x", "scope": "nowhere"}}}, "scope is 'nowhere'"),
        ({"features": {"1": "nan"}}, "'nan'"),
        ({"trace": [-1]}, "feature -1"),
        ({"n": 2}, "n is 2"),
        ({"top_p": 0.5}, "top_p is 0.5"),
        ({"model": "gpt-9"}, "model is 'gpt-9'"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": []}, "tools"),
        ({"prompt": "word " * 500}, "shorten the prompt"),
        ({"prompt": []}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_said(client, writer, more, said) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/completions", body=asking(writer, **more), cast_to=object)
    assert said in caught.value.message
    assert client.completions.create(**asking(writer, max_tokens=1)).choices


def test_garbage_is_a_bad_request(served) -> None:
    url = httpx.URL(served[0])
    headers = {"authorization": f"Bearer {url.params['token']}"}
    place = url.copy_with(path="/v1/chat/completions", query=None)
    for content in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"model": 3}', b"x" * (1 << 21)):
        answer = httpx.post(
            place, content=content, headers={**headers, "content-type": "application/json"}
        )
        assert answer.status_code == (413 if len(content) > 1 << 20 else 400)
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert httpx.post(place, content=b"{}", headers=headers).status_code == 415


def test_too_many_are_told_to_come_again_and_those_that_leave_make_room(
    client, served, writer
) -> None:
    streams = [
        client.completions.create(**asking(writer, max_tokens=48), stream=True) for _ in range(MOST)
    ]
    with pytest.raises(openai.RateLimitError, match="come again"):
        client.completions.create(**asking(writer))
    for stream in streams:
        stream.close()
    for _ in range(200):
        if served[1]._open == 0:
            break
        time.sleep(0.05)
    assert served[1]._open == 0
    assert client.completions.create(**asking(writer)).choices


def test_a_model_without_a_template_says_so_and_one_with_chats(client, writer, monkeypatch) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    asked = {"model": writer.name, "messages": messages, "max_tokens": 5, "temperature": 0}
    monkeypatch.setattr(writer.language.tokenizer, "chat_template", None)
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(**asked)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    monkeypatch.setattr(writer.language.tokenizer, "chat_template", template)
    answer = client.chat.completions.create(**asked)
    plain = client.completions.create(
        **asking(writer, prompt="user: Hello\nassistant:", max_tokens=5)
    )
    bos = writer.language.tokenizer.bos
    if bos is None:
        assert answer.choices[0].message.content == plain.choices[0].text
    pieces = client.chat.completions.create(**asked, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == answer.choices[0].message.content
    assert json.loads(answer.model_dump_json())["object"] == "chat.completion"


@pytest.mark.browser
def test_the_page_writes_both_ways_and_stops(
    context: BrowserContext, served: tuple[str, Completions], writer: SteeredModel, firing: int
) -> None:
    page = context.new_page()
    page.goto(served[0])
    page.goto(str(httpx.URL(served[0]).copy_with(path=f"/feature/{firing}", query=None)))
    page.get_by_role("link", name="Steer", exact=True).click()
    dial = page.get_by_role("slider")
    expect(dial).to_have_value("2")
    dial.fill("8")
    page.get_by_label("Text", exact=True).fill(PROMPT)
    page.get_by_role("spinbutton", name="Tokens").fill("12")
    page.get_by_role("button", name="Write").click()
    plain, steered = (
        page.get_by_role("region", name=name, exact=True) for name in ("Unsteered", "Steered")
    )
    for column, changes in ((plain, {}), (steered, {firing: "8x"})):
        expect(column).to_contain_text("as long as asked", timeout=30_000)
        shown = column.locator(".text").inner_text()
        assert " ".join(shown.split()) == " ".join((PROMPT + by_hand(writer, changes, 12)).split())
    expect(steered).to_contain_text("changed on")
    expect(plain).not_to_contain_text("changed on")
    expect(steered.get_by_role("img", name=f"Feature {firing}, steered: fires on")).to_be_visible()
    page.get_by_role("textbox", name="Number").fill("99999")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("expected the number of a feature")
    page.get_by_role("spinbutton", name="Tokens").fill("50")
    page.get_by_role("button", name="Write").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Write")).to_be_enabled()
    page.close()
