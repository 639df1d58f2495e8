import random

import pytest

from sememe.corpora.documents import CHUNK, chunks, identity, near_identity, order, sections
from tests.corpora.conftest import prose


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "x" * 50_000,
        prose(1, 9_000),
        "\n\n".join(prose(n, 80) for n in range(90)),
        "é\n" * 20_000,
    ],
)
def test_sections_give_the_text_back_and_are_short(text):
    found = list(sections(text, 1_000))
    assert "".join(found) == text
    assert max(map(len, found)) <= 2_000


def test_sections_end_at_blank_lines():
    text = "\n\n".join("word " * 50 for _ in range(40))
    assert all(part.endswith("\n\n") for part in list(sections(text, 1_000))[:-1])


@pytest.mark.parametrize("text", ["", "short", "y" * 200_000, prose(2, 30_000)])
def test_chunks_give_the_text_back(text):
    found = chunks(text)
    assert "".join(found) == text
    assert max(map(len, found)) <= CHUNK


def test_chunking_keeps_the_tokens(tokenizer):
    text = prose(3, 20_000)
    assert len(chunks(text)) > 3
    joined = [token for chunk in chunks(text) for token in tokenizer.encode(chunk)]
    assert joined == tokenizer.encode(text)


def test_identity_ignores_case_and_space():
    assert identity("One  two\nthree") == identity("one TWO three ")
    assert identity("one two") != identity("onetwo")


def test_near_copies_are_found_and_other_texts_are_not():
    text = prose(4, 1_500)
    copy = text.replace(text[4_000:4_010], "changed it", 1) + " [page 3]"
    assert near_identity(text) == near_identity(copy)
    others = {near_identity(prose(seed, 1_500)) for seed in range(5, 105)}
    assert len(others) == 100
    assert near_identity(text) not in others


def test_texts_that_share_half_are_not_near_copies():
    common = prose(200, 500)
    texts = [common + prose(seed, 500) for seed in range(201, 231)]
    assert len({near_identity(text) for text in texts}) == 30


def test_short_texts_have_no_near_identity():
    assert near_identity("too short to tell") is None


def test_order_depends_on_seed_and_names_only():
    names = [("a", n) for n in range(2_000)]
    random.Random(0).shuffle(names)
    ranks = {name: order(7, *name) for name in names}
    assert order(8, "a", 0) != order(7, "a", 0)
    assert order(-1, "a", 0) == order(2**64 - 1, "a", 0)
    early = [n for _, n in sorted(names, key=ranks.__getitem__)[:1_000]]
    assert 850 < sum(early) / 1_000 < 1_150
