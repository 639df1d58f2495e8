import numpy as np
import pytest

from sememe.corpora.documents import Document
from sememe.corpora.pool import LONGEST, Pool, Seen, allot, character_start, cuts
from sememe.progress import Progress
from tests.corpora.conftest import prose


def make_pool(tokenizer, texts, seed=0, label="own", seen=None):
    def read():
        return (Document(text, offset) for offset, text in enumerate(texts))

    return Pool(label, read, str, tokenizer, seed=seed, seen=seen or Seen(), progress=Progress())


def test_ensure_stops_when_enough_is_there(tokenizer):
    pool = make_pool(tokenizer, [prose(n, 50) for n in range(400)])
    assert pool.ensure(1_000) >= 1_000
    assert pool.available < 6_000
    first = [taken.offset for taken in pool.taken]
    assert pool.ensure(10**9) == sum(len(tokenizer.encode(prose(n, 50))) for n in range(400))
    assert [taken.offset for taken in pool.taken][: len(first)] == first


def test_the_order_is_the_same_however_it_is_asked(tokenizer):
    texts = [prose(n, 40) for n in range(300)]
    once, often = make_pool(tokenizer, texts), make_pool(tokenizer, texts)
    once.ensure(30_000)
    for wanted in range(50, 30_000, 777):
        often.ensure(wanted)
    often.ensure(30_000)
    count = min(len(once.taken), len(often.taken))
    assert count > 100
    for left, right in zip(once.taken[:count], often.taken[:count], strict=True):
        assert left.offset == right.offset
        np.testing.assert_array_equal(left.tokens, right.tokens)


def test_another_seed_draws_other_documents(tokenizer):
    texts = [prose(n, 40) for n in range(300)]
    drawn = []
    for seed in (0, 1):
        pool = make_pool(tokenizer, texts, seed)
        pool.ensure(3_000)
        drawn.append({taken.offset for taken in pool.taken})
    assert drawn[0] != drawn[1]


def test_copies_are_dropped_over_pools(tokenizer):
    seen, text = Seen(), prose(1, 400)
    left = make_pool(tokenizer, [text, text.upper(), text + " .", "other"], label="left", seen=seen)
    right = make_pool(tokenizer, ["OTHER ", text, "new"], label="right", seen=seen)
    left.ensure(10**6)
    right.ensure(10**6)
    assert len(left.taken) == 2
    assert len(right.taken) == 1
    assert seen.dropped == 4


@pytest.mark.parametrize("words", [1, 300, 900, 5_000])
def test_parts_join_to_the_document(tokenizer, words):
    text = prose(9, words) + " 語😀" * words
    pool = make_pool(tokenizer, [text])
    pool.ensure(10**9)
    parts = list(pool.parts(10**9))
    assert np.concatenate([part.tokens for part in parts]).tolist() == tokenizer.encode(text)
    assert all(0 < len(part.tokens) <= LONGEST for part in parts)
    for part in parts:
        b"".join(tokenizer.bytes_of[token] for token in part.tokens).decode()
    assert [part.first for part in parts] == [0, *np.cumsum([len(p.tokens) for p in parts])[:-1]]


def test_a_grant_is_kept_to_the_token(tokenizer):
    pool = make_pool(tokenizer, [prose(n, 700) for n in range(9)])
    pool.ensure(20_000)
    for grant in (1, 100, 2_048, 9_999, 20_000):
        assert sum(len(part.tokens) for part in pool.parts(grant)) == grant


def test_a_cut_never_falls_inside_a_character(tokenizer):
    ids = np.array(tokenizer.encode("a語😀b"), dtype=np.uint32)
    starts = [character_start(ids, place, tokenizer.bytes_of) for place in range(1, 10)]
    assert len(ids) == 9
    assert starts == [1, 1, 1, 4, 4, 4, 4, 8, 9]


def test_cuts_are_about_equal(tokenizer):
    ids = np.array(tokenizer.encode("x y" * 4_000), dtype=np.uint32)
    lengths = [stop - start for start, stop in cuts(ids, tokenizer.bytes_of)]
    assert sum(lengths) == len(ids)
    assert max(lengths) - min(lengths) <= 1


def test_allot_gives_each_its_share_and_spreads_what_one_lacks(tokenizer):
    big = [
        make_pool(tokenizer, [prose(1_000 * k + n, 100) for n in range(400)], label=str(k))
        for k in range(2)
    ]
    small = make_pool(tokenizer, ["tiny text"], label="small")
    available = len(tokenizer.encode("tiny text"))
    granted = allot([*big, small], [0.5, 0.25, 0.25], 20_000)
    assert sum(granted) == 20_000
    assert granted[2] == available
    assert abs(granted[0] - 2 * granted[1]) <= 2


def test_allot_gives_all_there_is_when_that_is_too_little(tokenizer):
    pools = [make_pool(tokenizer, [prose(k, 20)], label=str(k)) for k in range(3)]
    granted = allot(pools, [1.0, 1.0, 1.0], 10**6)
    assert granted == [pool.available for pool in pools]
