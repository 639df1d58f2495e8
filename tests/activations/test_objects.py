"""Stores in an object store that fails now and then: every byte is right or there is an error."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sememe import cli
from sememe.activations.harvest import harvest
from sememe.activations.merge import merge
from sememe.activations.own import harvest_module
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.store import ROW_FACTS, Activations
from sememe.activations.stream import Stream
from sememe.artefacts import checksum
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError, UsageError
from sememe.models.load import LanguageModel
from sememe.objects import ObjectPath, place
from sememe.progress import Progress
from tests.activations.object_server import Choice, Server, serving
from tests.prose import prose

SITE = "layers.1.resid"
CONFIG = HarvestConfig(context=32, dtype="fp16", batch_tokens=256, shard_rows=1000)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server with an empty bucket, `bucket`, and a cache of its own."""
    running.choose = lambda _method, _path: ""
    running.request("POST", "moto-api/reset")
    running.request("PUT", "bucket")
    running.asked.clear()
    running.faults.clear()
    for name, value in {
        "AWS_ENDPOINT_URL": running.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "SEMEME_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture(scope="module")
def local(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tiny_llama: LanguageModel
) -> Activations:
    store = harvest(tiny_llama, corpus, [SITE], tmp_path_factory.mktemp("local"), config=CONFIG)
    assert store.shards > 3
    return store


URL = "s3://bucket/some/store"


def assert_same_bytes(server: Server, local: Activations) -> None:
    assert isinstance(local.path, Path)
    names = {path.name for path in local.path.iterdir() if path.suffix != ""}
    assert server.objects("bucket") == names
    for name in names:
        data = server.request("GET", f"bucket/some/store/{name}")
        assert data == (local.path / name).read_bytes(), name


def every_third(*faults: str) -> Choice:
    following, numbers = cycle(faults), count()
    return lambda _method, _path: next(following) if next(numbers) % 3 == 1 else ""


def test_a_harvest_through_faults_leaves_the_bytes_of_a_local_one(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    server.choose = every_third("500", "half sent", "503")
    store = harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert all(server.faults[fault] > 1 for fault in ("500", "half sent", "503"))
    assert_same_bytes(server, local)
    assert store.hash == local.hash
    server.choose = every_third("500", "half sent", "503")
    for name in (SITE, *ROW_FACTS):
        assert torch.equal(store.read(name, 700, 2700), local.read(name, 700, 2700))


def test_a_large_object_goes_in_parts_and_comes_back(server: Server, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(13_000_000)
    parts = ["503", "half stored"]
    server.choose = lambda method, _path: parts.pop() if method == "PUT" and parts else ""
    large = place("s3://bucket/large") / "object"
    assert isinstance(large, ObjectPath)
    large.write(data)
    assert not parts
    assert server.asked["PUT", "/bucket/large/object"] > 2
    server.choose = every_third("503", "half sent", "500")
    assert large.read_bytes() == data
    assert large.read_range(6_000_000, 5_000_000) == data[6_000_000:11_000_000]
    large.receive(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert large.checksum() == checksum(tmp_path / "file")


def test_what_is_fetched_is_right_whatever_happens_on_the_way(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    bad = {"shard-00000": ["half sent", "flipped"], "shard-00001": ["half"], "shard-00002": ["503"]}

    def choose(method: str, path: str) -> str:
        left = bad.get(Path(path).stem, [])
        return left.pop() if method == "GET" and left else ""

    server.choose = choose
    store = Activations.open(URL)
    assert not any(bad.values())
    server.choose = lambda _method, _path: "403"  # everything is here by now
    streams = [Stream(each, (SITE,)) for each in (store, local)]
    for one, other in zip(*(each.described(128, 2, seed=3) for each in streams), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    rows = [torch.cat([part.values for part in each.in_order(SITE)]) for each in (store, local)]
    assert torch.equal(*rows)


def test_rows_taken_bring_only_their_shards(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    server.asked.clear()
    store = Activations.open(URL, verify=False)
    numbers = np.array([store.rows - 1, 0, 1, store.rows - 2])
    assert torch.equal(store.take(SITE, numbers), local.take(SITE, numbers))
    assert torch.equal(store.take(SITE, numbers), store.take(SITE, numbers))
    last = f"/bucket/some/store/shard-{store.shards - 1:05d}.safetensors"
    fetched = {path: n for (method, path), n in server.asked.items() if method == "GET"}
    assert fetched.pop(last) == 1
    assert fetched == {
        "/bucket/some/store/manifest.json": 1,
        "/bucket/some/store/shard-00000.safetensors": 1,
    }


def test_a_harvest_that_was_cut_off_is_unfinished_and_goes_on(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    def cut(method: str, path: str) -> str:
        return "403" if method == "PUT" and "shard-00002" in path else ""

    server.choose = cut
    with pytest.raises(SememeError, match=r"cannot write s3://bucket/some/store/shard-00002"):
        harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert server.objects("bucket") == {
        "begun.json",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    }
    server.choose = lambda _method, _path: ""
    with pytest.raises(SememeError, match=r"some/store is unfinished: it has no manifest\.json"):
        Activations.open(URL)
    with pytest.raises(SememeError, match=r"batch_tokens=256.*batch_tokens=128"):
        harvest(tiny_llama, corpus, [SITE], URL, config=replace(CONFIG, batch_tokens=128))
    with pytest.raises(UsageError, match="cannot be shared: object stores have no locks"):
        harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG, share=True)
    server.asked.clear()
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert_same_bytes(server, local)
    assert not server.asked["PUT", "/bucket/some/store/shard-00000.safetensors"]
    server.asked.clear()
    assert harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG).hash == local.hash
    assert not any("shard" in path for _, path in server.asked)


def test_what_arrives_cut_short_is_written_again_or_refused(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    def always(method: str, path: str) -> str:
        return "half stored" if method == "PUT" and "shard-00001" in path else ""

    server.choose = always
    with pytest.raises(SememeError, match=r"cannot write .*shard-00001.*: less than its \d+ bytes"):
        harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert server.objects("bucket") == {"begun.json", "shard-00000.safetensors"}
    once = ["half stored"]
    server.choose = lambda method, path: (
        once.pop() if once and method == "PUT" and "shard-00002" in path else ""
    )
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert not once
    assert_same_bytes(server, local)


def test_a_shard_that_was_cut_short_by_others_is_named_before_the_store_is_finished(
    server: Server, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    path = "bucket/some/store/shard-00001.safetensors"
    server.request("DELETE", "bucket/some/store/manifest.json")
    server.request("PUT", path, server.request("GET", path)[:-9])
    with pytest.raises(SememeError, match=r"shard-00001\.safetensors is damaged \(it has \d+ "):
        harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    assert "manifest.json" not in server.objects("bucket")


def test_a_flipped_bit_and_a_missing_object_are_named(
    server: Server,
    corpus: Corpus,
    tiny_llama: LanguageModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    folder = "bucket/some/store"
    data = bytearray(server.request("GET", f"{folder}/shard-00001.safetensors"))
    data[-1] ^= 1
    server.request("PUT", f"{folder}/shard-00001.safetensors", bytes(data))
    with pytest.raises(SememeError, match=r"s3://.*shard-00001\.safetensors has checksum"):
        Activations.open(URL)
    server.request("DELETE", f"{folder}/shard-00002.safetensors")
    with pytest.raises(SystemExit):
        cli.main(["activations", "verify", URL])
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 of " in line
    assert "shard-00001.safetensors has checksum" in line
    assert "shard-00002.safetensors is missing" in line
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "another"))
    with pytest.raises(SememeError, match=r"shard-00002\.safetensors is missing"):
        Activations.open(URL, verify=False).take(SITE, np.array([2500]))


def test_too_little_disk_for_the_cache_is_refused_with_the_numbers(
    server: Server, corpus: Corpus, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    monkeypatch.setattr("sememe.activations.store.disk_free", lambda _: 1000)
    with pytest.raises(SememeError, match=r"0\.0 MB are free: let SEMEME_CACHE"):
        Activations.open(URL)


def test_the_commands_take_urls(
    server: Server,
    local: Activations,
    corpus: Corpus,
    tiny_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*words: str) -> dict[str, object]:
        cli.main([*words, "--json"])
        return dict(json.loads(capsys.readouterr().out))

    harvested = run(
        *("harvest", str(tiny_directory), "--corpus", str(corpus.path), "--sites", SITE),
        *("--context", "32", "--dtype", "int8", "--model-dtype", "fp32", "--out", URL),
    )
    assert harvested["out"] == URL
    assert harvested["rows"] == local.rows
    server.asked.clear()
    (info,) = run("activations", "info", URL)["stores"]
    assert (info["path"], info["rows"]) == (URL, local.rows)
    assert info["documents"] == len(local.read("document", 0, local.rows).unique())
    assert run("activations", "verify", URL)["files"] == 1
    assert not (tmp_path / "cache/stores").exists()
    trained = run(
        *("train", URL, "--out", str(tmp_path / "dictionary"), "--features", "64", "--k", "4"),
        *("--batch", "256", "--passes", "1"),
    )
    assert trained["out"] == str(tmp_path / "dictionary")
    assert len(list((tmp_path / "cache/stores").rglob("*.safetensors"))) == 1


def test_a_module_of_ones_own_is_stored_by_url(server: Server, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU()).eval()
    batches = list(torch.randn(3, 50, 4))
    here = harvest_module(module, batches, ["module:0"], tmp_path / "here", shard_rows=70)
    there = harvest_module(module, batches, ["module:0"], URL, shard_rows=70)
    assert_same_bytes(server, here)
    assert there.manifest == here.manifest


def test_places_are_directories_or_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place("runs/a") == Path("runs/a")
    assert place(tmp_path) == tmp_path
    assert place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    with pytest.raises(UsageError, match=r"ftp://host/x is no place .* s3://, gs://, az://"):
        place("ftp://host/x")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(SememeError, match=r"pip install 'sememe\[cloud\]'"):
        place(URL)


class Told(Progress):
    def __init__(self) -> None:
        self.stages: list[list[int | str]] = []

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self.stages.append([stage, total, unit, done])

    def advance(self, amount: int, **live: float) -> None:
        self.stages[-1][3] += amount  # type: ignore[operator]


def test_fetching_says_how_far_it_is(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    total = sum(local.file(name).stat().st_size for name in local.manifest["files"])
    told = Told()
    for _ in range(2):  # the second time everything is here
        Activations.open(URL, progress=told)
    assert told.stages == [["fetch", total, "bytes", total]]


def test_a_stream_brings_the_shards_of_its_buffer_several_at_a_time(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    harvest(tiny_llama, corpus, [SITE], URL, config=CONFIG)
    together, most = 0, 0
    bring = ObjectPath.receive

    def receive(self: ObjectPath, into: Path) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        time.sleep(0.1)
        bring(self, into)
        together -= 1

    stream = Stream(Activations.open(URL, verify=False), (SITE,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectPath, "receive", receive)
        rows = list(stream.batches(100, 1, 0))
    assert most > 1
    expected = Stream(local, (SITE,)).batches(100, 1, 0)
    assert all(torch.equal(a, b) for a, b in zip(rows, expected, strict=True))


def test_stores_by_url_are_merged_to_a_url_through_faults(
    server: Server, local: Activations, corpus: Corpus, tiny_llama: LanguageModel, tmp_path: Path
) -> None:
    text = str(prose(tmp_path / "text"))
    more = build_corpus(
        tmp_path / "more", tiny_llama.tokenizer, tokens=2000, sources=[text], seed=1
    )
    harvest(tiny_llama, corpus, [SITE], "s3://bucket/parts/one", config=CONFIG)
    other = harvest(
        tiny_llama, more, [SITE], tmp_path / "other", config=CONFIG, rules=TokenRules.of(local)
    )
    assert isinstance(local.path, Path)
    here = merge([local.path, other.path], tmp_path / "merged")
    server.choose = every_third("503", "half sent", "500")
    there = merge(["s3://bucket/parts/one", tmp_path / "other"], "s3://bucket/merged")
    assert there.manifest == here.manifest
    server.choose = lambda _method, _path: ""
    for name in here.manifest["files"]:
        assert server.request("GET", f"bucket/merged/{name}") == here.file(name).read_bytes()
    again = merge(["s3://bucket/parts/one", tmp_path / "other"], "s3://bucket/merged")
    assert again.hash == here.hash
