import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sememe.errors import SememeError, UsageError
from sememe.web.api import BODY_BYTES
from sememe.web.listener import bind
from sememe.web.prompt import MAX_TOKENS, PromptToken
from sememe.web.server import serve
from tests.web.conftest import admitted, serving
from tests.web.small_atlas import FEATURES, REPORT, SCRIPT


def test_index_says_what_was_mapped(client, atlas):
    index = client.get("/index.json").json()
    assert index["features"] == FEATURES
    assert index["model"] == "small-test-model"
    assert index["site"] == "layers.14.resid"
    assert index["tokens"] == atlas.manifest["tokens"]
    assert index["report"] == REPORT
    assert index["prompt"] is True
    assert sum(index["status"].values()) == FEATURES
    fired = int((atlas.columns["frequency"] > 0).sum())
    assert sum(index["frequencies"]["counts"]) == fired == FEATURES - index["status"]["dead"]


@pytest.mark.parametrize("path", ["/", "/prompt", "/feature/0", f"/feature/{FEATURES - 1}"])
def test_pages_are_the_document(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert '<div id="app">' in answer.text


@pytest.mark.parametrize("path", [f"/feature/{FEATURES}", "/feature/x", "/feature/-1"])
def test_the_page_of_no_feature_is_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert '<div id="app">' in answer.text


@pytest.mark.parametrize("key", ["frequency", "maximum", "mean"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_table_is_sorted(client, atlas, key, order):
    query = {"sort": key, "order": order, "limit": 200}
    rows = client.get("/features.json", params=query).json()["rows"]
    expected = np.sort(atlas.columns[key].astype(float))
    found = [row[key] for row in rows]
    assert found == pytest.approx(expected if order == "asc" else expected[::-1])


def test_the_table_in_pages_is_the_whole_table(client):
    whole = client.get("/features.json?limit=200").json()
    assert whole["total"] == FEATURES
    parts = [
        client.get(f"/features.json?limit=10&offset={n}").json()["rows"] for n in range(0, 70, 10)
    ]
    assert [row for part in parts for row in part] == whole["rows"]


def test_search_finds_tokens_and_numbers(client, atlas):
    def found(search: str) -> list[int]:
        answer = client.get("/features.json", params={"search": search, "limit": 200}).json()
        assert answer["total"] == len(answer["rows"])
        return sorted(row["feature"] for row in answer["rows"])

    shown = np.concatenate([atlas.columns["tokens"], atlas.columns["promotes"]], axis=1)
    texts = [b" ".join(atlas.token_bytes(row[row >= 0].tolist())).lower() for row in shown]
    assert found("Harbour") == [i for i, text in enumerate(texts) if b"harbour" in text]
    assert found(" sea") == [i for i, text in enumerate(texts) if b" sea" in text]
    assert {1, 42} <= set(found("harbour"))
    assert 17 in found("17")
    assert found("zzzz") == []


def test_a_row_shows_the_middle_of_its_strongest_example(client, atlas):
    for row in client.get("/features.json?limit=200").json()["rows"]:
        top = atlas.feature(row["feature"])["top"]
        if not top:
            assert row["examples"] == []
            continue
        (example,) = row["examples"]
        peak = example["pieces"][example["peak"]]
        assert peak["value"] == pytest.approx(row["maximum"], rel=1e-4)
        assert top[0]["tokens"][top[0]["centre"]] in peak["tokens"]


def test_samples_are_seeded_and_neither_dead_nor_dense(client):
    one, again, other = (
        client.get(f"/sample.json?seed={seed}&count=8").json() for seed in (1, 1, 2)
    )
    assert one == again
    numbers = [[row["feature"] for row in sample["rows"]] for sample in (one, other)]
    assert numbers[0] != numbers[1]
    assert {row["status"] for sample in (one, other) for row in sample["rows"]} == {"alive"}
    assert client.get("/sample.json?count=200").json()["of"] < FEATURES


def test_random_features_are_alive_and_differ(client):
    numbers = {client.get("/random.json").json()["feature"] for _ in range(40)}
    assert len(numbers) > 5
    assert {client.get(f"/feature/{n}.json").json()["status"] for n in numbers} == {"alive"}


def test_a_feature_tells_everything_its_page_holds(client, atlas):
    for number in range(FEATURES):
        page, shown = atlas.feature(number), client.get(f"/feature/{number}.json").json()
        for key in ("frequency", "count", "mean", "maximum", "status", "histogram"):
            assert shown[key] == page[key]
        assert [item["token"] for item in shown["promotes"]] == [t for t, _ in page["promotes"]]
        assert [item["share"] for item in shown["tokens"]] == [s for _, s in page["tokens"]]
        assert [item["feature"] for item in shown["neighbours"]] == [
            n for n, _ in page["neighbours"]
        ]
        assert [len(part["examples"]) for part in shown["intervals"]] == [
            len(part["examples"]) for part in page["intervals"]
        ]
        stored = page["top"] + [e for part in page["intervals"] for e in part["examples"]]
        given_ = shown["top"] + [e for part in shown["intervals"] for e in part["examples"]]
        for one, other in zip(stored, given_, strict=True):
            tokens = [token for piece in other["pieces"] for token in piece["tokens"]]
            assert tokens == one["tokens"]
            assert one["tokens"][one["centre"]] in other["pieces"][other["peak"]]["tokens"]
            place = 0
            for piece in other["pieces"]:
                values = one["values"][place : place + len(piece["tokens"])]
                assert piece["value"] == pytest.approx(max(values), abs=1e-3)
                place += len(piece["tokens"])
        assert shown["previous"] == (number - 1 if number else None)
        assert shown["next"] == (number + 1 if number < FEATURES - 1 else None)


def test_bytes_of_one_character_are_one_piece_and_nothing_is_replaced(client):
    everything = [client.get(f"/feature/{n}.json").text for n in range(FEATURES)]
    assert not any("\ufffd" in text or "\\ufffd" in text for text in everything)
    pieces = [
        piece
        for text in everything
        for example in json.loads(text)["top"]
        for piece in example["pieces"]
    ]
    joined = {piece["text"]: piece for piece in pieces if len(piece["tokens"]) > 1}
    assert {"海", "바", "ا", "ה", "🚤", "👩‍🚀", " 1️⃣"} <= set(joined)
    assert len(joined["海"]["tokens"]) == 3
    assert "broken" not in joined["海"]
    # Windows cut some characters in two: their bytes are escapes, and say so.
    cut = [piece for piece in pieces if piece.get("broken")]
    assert cut
    assert all(piece["text"].startswith("\\x") for piece in cut)


def test_names_show_characters_where_tokens_are_bytes(client):
    names = {row["feature"]: row for row in client.get("/features.json?limit=200").json()["rows"]}
    assert set(names[16]["tokens"]) == {"\u0627", "\u0644", "\u05d1", "\u05d4"}
    assert "👩‍🚀" in names[17]["tokens"]
    assert names[0]["tokens"] == [" sea"]


@pytest.mark.parametrize(
    ("path", "status", "parts"),
    [
        (f"/feature/{FEATURES}.json", 404, [f"'{FEATURES}'", f"0 to {FEATURES - 1}"]),
        ("/feature/-1.json", 400, ["'-1'", "whole number"]),
        ("/feature/one.json", 400, ["'one'"]),
        ("/feature/%D9%A1.json", 400, ["whole number"]),
        ("/feature/" + "9" * 5000 + ".json", 400, ["whole number"]),
        ("/features.json?sort=colour", 400, ["sort", "'colour'", "frequency"]),
        ("/features.json?order=up", 400, ["order", "'up'", "asc, desc"]),
        ("/features.json?offset=-1", 400, ["offset", "'-1'"]),
        ("/features.json?limit=201", 400, ["limit", "'201'", "0 to 200"]),
        ("/features.json?limit=1e3", 400, ["limit", "'1e3'"]),
        ("/features.json?sorted=asc", 400, ["'sorted'", "search, by, status"]),
        ("/features.json?search=" + "a" * 201, 400, ["search", "at most 200 characters"]),
        ("/features.json?limit=3&limit=4", 400, ["'limit'", "2 times"]),
        ("/features.json?status=alive&status=well", 400, ["status 'alive, well'", "dead, dense"]),
        ("/features.json?frequency=1e-3", 400, ["frequency '1e-3'", "low..high"]),
        ("/features.json?frequency=1..0", 400, ["frequency '1..0'", "low number before"]),
        ("/features.json?source=nowhere", 400, ["source", "'nowhere'"]),
        ("/features.json?lasso=0,0%201,1", 400, ["lasso", "'0,0 1,1'", "polygon"]),
        ("/features.json?by=meaning&search=a", 400, ["by", "'meaning'", "tokens, fires"]),
        ("/neuron/999999.json", 404, ["no index of neurons"]),
        ("/sample.json?seed=x", 400, ["seed", "'x'"]),
        ("/index.json?x=1", 400, ["'x'", "no arguments"]),
        ("/nothing.json", 404, ["Not Found"]),
        ("/assets/nothing.js", 404, ["Not Found"]),
        ("/assets/..%2fserver.py", 404, ["Not Found"]),
        ("/assets/%2e%2e/%2e%2e/cli.py", 404, ["Not Found"]),
        ("/prompt.json", 405, ["Method Not Allowed"]),
    ],
)
def test_wrong_addresses_are_answered_in_one_line(client, path, status, parts):
    answer = client.get(path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert "\n" not in error
    assert len(error) < 300
    assert all(part in error for part in parts)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_reading_addresses_take_no_other_method(client, method):
    for path in ("/", "/index.json", "/feature/0.json", "/assets/theme.js"):
        assert client.request(method, path).status_code == 405


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    path=st.sampled_from(["/features.json", "/sample.json", "/feature/0.json", "/index.json"]),
    query=st.dictionaries(
        st.sampled_from(["sort", "order", "search", "offset", "limit", "seed", "count", "?"]),
        st.one_of(st.text(max_size=30), st.integers().map(str), st.sampled_from(["asc", "token"])),
        max_size=4,
    ),
)
def test_no_query_breaks_the_server(client, path, query):
    url = httpx.URL(
        path, params={key: value.encode("utf-8", "replace") for key, value in query.items()}
    )
    answer = client.get(url)
    assert answer.status_code in (200, 400)
    answer.json()


def test_prompt_gives_each_token_its_features(client):
    answer = client.post("/prompt.json", json={"text": "The sea, 海"}).json()
    texts = [piece["text"] for piece in answer["pieces"]]
    assert texts == ["The", " sea", ",", " ", "海"]
    assert answer["tokens"] == 7
    by_text = dict(zip(texts, answer["pieces"], strict=True))
    assert 0 in [feature for feature, _ in by_text[" sea"]["features"]]
    assert 0 in [feature for feature, _ in by_text["海"]["features"]]
    for piece in answer["pieces"]:
        values = [value for _, value in piece["features"]]
        assert values == sorted(values, reverse=True)
    sea = next(item for item in answer["features"] if item["feature"] == 0)
    assert sea["pieces"] == 2
    assert sea["value"] == max(
        value for piece in answer["pieces"] for feature, value in piece["features"] if feature == 0
    )
    assert sea["tokens"] == [" sea"]


def test_hostile_text_comes_back_as_it_is(client):
    answer = client.post("/prompt.json", json={"text": SCRIPT})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["pieces"][0]["text"] == SCRIPT
    assert client.post("/prompt.json", json={"text": "a\x00b"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "parts"),
    [
        (b'{"text": "a"}', "text/plain", 415, ["'text/plain'", "application/json"]),
        (b"text=a", "application/x-www-form-urlencoded", 415, ["application/json"]),
        (b'{"text": "a"}', "", 415, ["application/json"]),
        (b"{", "application/json", 400, ["expected JSON"]),
        (b"\xff", "application/json", 400, ["expected JSON"]),
        (b"[" * 50_000, "application/json", 400, ["expected JSON"]),
        (b"[]", "application/json", 400, ["object", "array"]),
        (b'{"text": 1}', "application/json", 400, ["$.text", "`str`"]),
        (b'{"text": "a", "more": 1}', "application/json", 400, ["`more`"]),
        (b'{"text": ""}', "application/json", 400, ["$.text", "length >= 1"]),
        (b'{"text": "ab\\ud800"}', "application/json", 400, ["expected JSON"]),
        (b'{"text": "' + b"a" * BODY_BYTES + b'"}', "application/json", 413, [str(BODY_BYTES)]),
    ],
)
def test_wrong_prompts_are_answered_in_one_line(client, body, kind, status, parts):
    answer = client.post("/prompt.json", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert "\n" not in error
    assert all(part in error for part in parts)


def test_long_prompts_are_refused(client):
    answer = client.post("/prompt.json", json={"text": "the sea" * (MAX_TOKENS // 2 + 1)})
    assert answer.status_code == 400
    assert str(MAX_TOKENS) in answer.json()["error"]


def test_prompts_run_one_at_a_time_and_pages_do_not_wait_for_them(atlas):
    running, most = 0, 0

    def slow(text: str) -> list[PromptToken]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.3)
        running -= 1
        return [PromptToken(0, [(3, 1.5)], excluded=text == "first")]

    with serving(atlas, slow) as address, admitted(address) as client:
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(
                target=lambda text: answers.append(
                    client.post("/prompt.json", json={"text": text})
                ),
                args=(text,),
            )
            for text in ("first", "second", "third")
        ]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        assert client.get("/index.json").status_code == 200
        assert time.monotonic() - begun < 0.25
        for thread in threads:
            thread.join()
    assert most == 1
    assert [answer.status_code for answer in answers] == [200] * 3
    assert sorted(answer.json()["pieces"][0]["excluded"] for answer in answers) == [
        False,
        False,
        True,
    ]


def test_what_the_model_refuses_reaches_the_user(atlas):
    def refuse(text: str) -> list[PromptToken]:
        if text == "usage":
            raise UsageError("text 'usage': expected another")
        raise SememeError("the model's weights are gone: fetch them again")

    with serving(atlas, refuse) as address, admitted(address) as client:
        usage = client.post("/prompt.json", json={"text": "usage"})
        failed = client.post("/prompt.json", json={"text": "x"})
    assert (usage.status_code, usage.json()) == (400, {"error": "text 'usage': expected another"})
    assert failed.status_code == 500
    assert "weights are gone" in failed.json()["error"]


def test_without_a_model_the_prompt_page_says_so(atlas):
    with serving(atlas, None) as address, admitted(address) as client:
        assert client.get("/index.json").json()["prompt"] is False
        answer = client.post("/prompt.json", json={"text": "a"})
    assert answer.status_code == 404
    assert "no model" in answer.json()["error"]


def test_two_servers_do_not_share_a_cookie(atlas, address, client):
    with serving(atlas) as other:
        assert httpx.URL(other).params["token"] != httpx.URL(address).params["token"]
        answer = httpx.get(str(httpx.URL(other).copy_with(query=None)), cookies=client.cookies)
    assert answer.status_code == 403


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SememeError, match=rf"127\.0\.0\.1:{port} .*--port") as caught:
            bind(port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(UsageError, match=rf"--port {port}: expected a number from 0 to 65535"):
        bind(port)


def test_only_loopback_is_listened_on():
    with bind(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_small_answers_do_not_wait_for_acknowledgements(client):
    def seconds() -> float:
        begun = time.perf_counter()
        client.get("/index.json").raise_for_status()
        return time.perf_counter() - begun

    # Nagle's algorithm against delayed acknowledgements would cost each of them 40 ms.
    assert min(seconds() for _ in range(20)) < 0.03


def test_unbuilt_pages_say_how_to_build_them(atlas, empty_assets):
    with pytest.raises(SememeError, match="run `make frontend`"):
        serve(atlas, port=0, announce=lambda _: None)
