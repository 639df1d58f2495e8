import json

import numpy as np
import pytest

from sememe.corpora import Corpus, build, build_corpus, corpus
from sememe.errors import SememeError, UsageError
from tests.corpora.conftest import prose


@pytest.fixture
def made(tmp_path, tokenizer):
    path = tmp_path / "own.jsonl"
    lines = [json.dumps({"text": prose(n, 5 + 7 * n)}) for n in range(120)]
    path.write_text("\n".join(lines))
    return build_corpus(tmp_path / "c", tokenizer, tokens=60_000, sources=[str(path)], held_out=0.2)


@pytest.mark.parametrize("context", [1, 7, 128, 100_000])
@pytest.mark.parametrize("held_out", [False, True])
def test_windows_are_those_of_a_plain_loop(made, context, held_out):
    expected = []
    for document in range(len(made.start)):
        if bool(made.held_out[document]) != held_out:
            continue
        start, length = int(made.start[document]), int(made.length[document])
        for place in range(0, length, context):
            expected.append((start + place, min(context, length - place), document))
    windows = made.windows(context, held_out)
    assert list(zip(*(column.tolist() for column in windows), strict=True)) == expected
    assert {column.dtype for column in windows} == {np.dtype(np.int64)}


def test_windows_of_both_sides_cover_every_token_once(made):
    seen = np.zeros(len(made), dtype=int)
    for held_out in (False, True):
        for start, length, _ in zip(*made.windows(50, held_out), strict=True):
            seen[start : start + length] += 1
    assert (seen == 1).all()


def test_tokens_are_read_over_the_ends_of_shards(tmp_path, tokenizer, made, monkeypatch):
    whole = made.tokens(0, len(made))
    monkeypatch.setattr(build, "SHARD_TOKENS", 7_001)
    monkeypatch.setattr(corpus, "SHARD_TOKENS", 7_001)
    small = build_corpus(
        tmp_path / "small",
        tokenizer,
        tokens=60_000,
        sources=[str(tmp_path / "own.jsonl")],
        held_out=0.2,
    )
    assert len(list((tmp_path / "small").glob("tokens-*"))) == 1 + len(made) // 7_001
    np.testing.assert_array_equal(small.tokens(0, len(small)), whole)
    np.testing.assert_array_equal(small.tokens(6_990, 14_010), whole[6_990:14_010])
    assert len(small.tokens(5, 5)) == 0


def test_what_is_asked_must_exist(made):
    with pytest.raises(UsageError, match="has 60000"):
        made.tokens(0, 60_001)
    with pytest.raises(UsageError, match="context=0"):
        made.windows(0, False)


@pytest.mark.parametrize("name", ["tokens-00000.safetensors", "documents.safetensors"])
def test_an_altered_or_truncated_file_is_named(made, name):
    path = made.path / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SememeError, match=f"{name}.*altered"):
        Corpus.open(made.path)
    path.write_bytes(data[:-10])
    with pytest.raises(SememeError, match=f"{name}.*truncated"):
        Corpus.open(made.path)
