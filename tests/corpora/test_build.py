import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sememe.corpora import Corpus, build_corpus
from sememe.corpora.documents import identity
from sememe.errors import SememeError, UsageError
from tests.corpora.conftest import prose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def texts(tmp_path):
    """Two files of JSON lines: short documents, and long ones."""
    for name, count, words in (("short", 300, 30), ("long", 20, 1_500)):
        lines = [json.dumps({"text": prose(hash_of(name) + n, words)}) for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return [str(tmp_path / "short.jsonl"), str(tmp_path / "long.jsonl")]


def hash_of(name):
    return sum(map(ord, name)) * 10_000


def files_of(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def source_texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]


def test_the_corpus_holds_the_tokens_of_the_documents_it_names(tmp_path, tokenizer, texts):
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=50_000, sources=texts, seed=3)
    assert len(corpus) == 50_000 == corpus.length.sum()
    assert corpus.sources == ["short", "long"]
    encoded = [[tokenizer.encode(text) for text in source_texts(path)] for path in texts]
    for document in range(len(corpus.start)):
        start, length = int(corpus.start[document]), int(corpus.length[document])
        whole = encoded[corpus.source[document]][corpus.offset[document]]
        first = int(corpus.first[document])
        assert corpus.tokens(start, start + length).tolist() == whole[first : first + length]


def test_the_facts_add_up(tmp_path, tokenizer, texts):
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=30_000, sources=texts)
    manifest = corpus.manifest
    assert sum(source["tokens"] for source in manifest["sources"]) == manifest["tokens"] == 30_000
    assert sum(source["documents"] for source in manifest["sources"]) == len(corpus.start)
    assert manifest["held_out_tokens"] == corpus.length[corpus.held_out != 0].sum()
    assert manifest["made_from"]["tokenizer"] == tokenizer.hash
    assert [source["tokens"] for source in manifest["sources"]] == [15_000, 15_000]
    assert str(tmp_path) not in json.dumps(manifest)


def test_the_same_arguments_give_the_same_bytes_in_another_place(tmp_path, tokenizer, texts):
    build_corpus(tmp_path / "one", tokenizer, tokens=20_000, sources=texts, seed=1)
    build_corpus(tmp_path / "two", tokenizer, tokens=20_000, sources=texts, seed=1)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    build_corpus(tmp_path / "three", tokenizer, tokens=20_000, sources=texts, seed=2)
    assert files_of(tmp_path / "one") != files_of(tmp_path / "three")


def test_a_finished_corpus_is_returned_without_tokenising(tmp_path, tokenizer, texts, monkeypatch):
    first = build_corpus(tmp_path / "c", tokenizer, tokens=5_000, sources=texts)

    def refuse(texts):
        raise AssertionError("a finished corpus was tokenised again")

    monkeypatch.setattr(tokenizer, "encode_batch", refuse)
    again = build_corpus(tmp_path / "c", tokenizer, tokens=5_000, sources=texts)
    assert again.hash == first.hash


@pytest.mark.parametrize(
    ("change", "named"),
    [({"tokens": 6_000}, "tokens"), ({"seed": 9}, "seed"), ({"held_out": 0.2}, "held_out")],
)
def test_other_arguments_are_refused(tmp_path, tokenizer, texts, change, named):
    arguments = {"tokens": 5_000, "sources": texts, "seed": 0, "held_out": 0.05}
    build_corpus(tmp_path / "c", tokenizer, **arguments)
    with pytest.raises(SememeError, match=f"{named}=.*now {named}="):
        build_corpus(tmp_path / "c", tokenizer, **{**arguments, **change})


def test_changed_text_is_refused(tmp_path, tokenizer, texts):
    build_corpus(tmp_path / "c", tokenizer, tokens=5_000, sources=texts)
    with Path(texts[0]).open("a") as handle:
        handle.write('\n{"text": "one more"}')
    with pytest.raises(SememeError, match="sources="):
        build_corpus(tmp_path / "c", tokenizer, tokens=5_000, sources=texts)


def test_no_text_is_on_both_sides(tmp_path, tokenizer, texts):
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=150_000, sources=texts, held_out=0.3)
    sides: dict[tuple[int, int], set[int]] = {}
    for source, offset, side in zip(corpus.source, corpus.offset, corpus.held_out, strict=True):
        sides.setdefault((int(source), int(offset)), set()).add(int(side))
    assert all(len(found) == 1 for found in sides.values())
    parts = len(corpus.start)
    assert parts > len(sides) + 20
    share = sum(found == {1} for found in sides.values()) / len(sides)
    assert 0.2 < share < 0.4


def test_the_side_depends_on_the_text_alone(tmp_path, tokenizer, texts):
    sides = {}
    for name, arguments in {
        "one": {"sources": texts, "seed": 1, "tokens": 60_000},
        "two": {"sources": texts[:1], "seed": 2, "tokens": 30_000},
    }.items():
        corpus = build_corpus(tmp_path / name, tokenizer, held_out=0.3, **arguments)
        found = zip(corpus.source, corpus.offset, corpus.held_out, strict=True)
        sides[name] = {int(offset): int(side) for source, offset, side in found if source == 0}
    both = sides["one"].keys() & sides["two"].keys()
    assert len(both) > 50
    written = source_texts(texts[0])
    for offset in both:
        assert sides["one"][offset] == sides["two"][offset]
        assert sides["one"][offset] == (identity(written[offset]) < 0.3 * 2**64)


def test_something_is_held_out_of_few_documents_and_nothing_when_not_asked(tmp_path, tokenizer):
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps({"text": prose(n, 40)}) for n in range(4)))
    few = build_corpus(tmp_path / "c", tokenizer, tokens=700, sources=[str(path)], held_out=1e-9)
    assert few.held_out.sum() == 1
    none = build_corpus(tmp_path / "d", tokenizer, tokens=700, sources=[str(path)], held_out=0.0)
    assert none.held_out.sum() == 0


def test_any_prefix_is_a_fair_mix(tmp_path, tokenizer, texts):
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=80_000, sources=texts)
    shares = [source["tokens"] / 80_000 for source in corpus.manifest["sources"]]
    half = np.cumsum(corpus.length) <= 40_000
    for source, share in enumerate(shares):
        found = corpus.length[half & (corpus.source == source)].sum() / corpus.length[half].sum()
        assert abs(found - share) < 0.12


def test_fewer_tokens_come_only_when_the_sources_end_and_that_is_said(
    tmp_path, tokenizer, texts, notes
):
    there = sum(len(tokenizer.encode(text)) for path in texts for text in source_texts(path))
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=10**7, sources=texts, progress=notes)
    assert len(corpus) == there
    assert any(f"{there:,}" in line and "10,000,000" in line for line in notes.said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "tokens=0"),
        ({"tokens": 10, "held_out": 1.0}, "held_out=1.0"),
        ({"tokens": 10, "sources": []}, "no sources"),
        ({"tokens": 10, "sources": ["moby-duck"]}, "moby-dick.*--list"),
        ({"tokens": 10, "sources": ["./none.txt"]}, "no file or folder"),
        ({"tokens": 10, "sources": ["web", "web"]}, "two sources are labelled 'web'"),
    ],
)
def test_wrong_arguments(tmp_path, tokenizer, arguments, message):
    with pytest.raises(UsageError, match=message):
        build_corpus(tmp_path / "c", tokenizer, **arguments)
    assert not (tmp_path / "c").exists()


def test_no_tokens_at_all_is_an_error(tmp_path, tokenizer):
    (tmp_path / "empty.txt").write_text(" \n\n ")
    with pytest.raises(SememeError, match="no tokens are left of empty"):
        build_corpus(tmp_path / "c", tokenizer, tokens=10, sources=[str(tmp_path / "empty.txt")])
    assert not (tmp_path / "c" / "manifest.json").exists()


KILL = """
    import os, signal, sys
    from pathlib import Path
    import sememe.corpora.build as build
    from tests.corpora.conftest import make_tokenizer

    out, moment, *sources = sys.argv[1:]
    tokenizer = make_tokenizer()

    def die(*arguments, **named):
        os.kill(os.getpid(), signal.SIGKILL)

    def half(path, data):
        path.with_name(f".{path.name}.1.partial").write_bytes(data[: len(data) // 2])
        die()

    if moment == "tokenising":
        encode, calls = tokenizer.encode_batch, []
        def counted(texts):
            calls.append(1)
            if len(calls) == 2:
                die()
            return encode(texts)
        tokenizer.encode_batch = counted
    elif moment == "writing":
        build.write_bytes = half
    elif moment == "manifest":
        build.write_manifest = die
    build.build_corpus(Path(out), tokenizer, tokens=40_000, sources=sources)
"""


@pytest.mark.parametrize("moment", ["tokenising", "writing", "manifest"])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path, tokenizer, texts, moment):
    command = [sys.executable, "-c", textwrap.dedent(KILL), str(tmp_path / "c"), moment, *texts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(SememeError, match=r"manifest\.json"):
        Corpus.open(tmp_path / "c")
    build_corpus(tmp_path / "c", tokenizer, tokens=40_000, sources=texts)
    build_corpus(tmp_path / "whole", tokenizer, tokens=40_000, sources=texts)
    assert files_of(tmp_path / "c") == files_of(tmp_path / "whole")
