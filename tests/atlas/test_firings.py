"""The merging of shards, and what is counted of made-up codes."""

import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.atlas.cofiring import Cofiring
from sememe.atlas.firings import Firings, ShardFirings
from sememe.atlas.neurons import MergedSums, NeuronSums
from sememe.atlas.statistics import INTERVALS, SAMPLES, TOP, Located, Statistics, Text
from sememe.atlas.tokens import TokenShares
from sememe.kernels.compiled import Array

ROWS, K, FEATURES, WIDTH, WINDOW = 300, 4, 20, 5, 30


def made_up(seed: int) -> tuple[Array, Array, Array, torch.Tensor]:
    """Indices and values of a code, its places in the corpus, and activations."""
    draw = np.random.default_rng(seed)
    indices = np.argsort(draw.random((ROWS, FEATURES)), axis=1)[:, :K].astype(np.int32)
    values = np.maximum(draw.normal(size=(ROWS, K)), 0).astype(np.float32)
    place = np.sort(draw.choice(2 * ROWS, ROWS, replace=False))
    x = torch.from_numpy(draw.normal(size=(ROWS, WIDTH)).astype(np.float32))
    return indices, values, place, x


def text_of(firings: Firings, tokens: Array) -> Text:
    """A text of windows of ``WINDOW`` tokens."""
    start = np.arange(0, len(tokens), WINDOW)
    source = (np.arange(len(start)) % 3).astype(np.int16)
    window = (firings.place // WINDOW).astype(np.int32)
    return Text(firings.place, window, start, start + WINDOW, source, tokens, 0)


def everything(shards: Iterable[ShardFirings], sums: Iterable[NeuronSums]) -> list[bytes]:
    """The bytes of all that is made of shards and sums, in the order they come."""
    firings = Firings([*shards])
    tokens = np.random.default_rng(9).integers(0, 50, 2 * ROWS).astype(np.int32)
    text = text_of(firings, tokens)
    (block,) = firings.blocks()
    located = Located.of(block, text)
    statistics = Statistics.of(block, located, text, 3)
    shares = TokenShares.of(block, located, text, 50)
    cofiring = Cofiring(firings).most_alike(block)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for part in sums:
            paths.append(Path(folder) / f"{len(paths)}.safetensors")
            part.save(paths[-1])
        merged = MergedSums(paths)
        correlated = merged.correlations(0, statistics.total, statistics.squares, firings.rows)
    parts = [block.row, block.value, *statistics, *itertools.chain(*shares), *cofiring, *correlated]
    return [part.tobytes() for part in parts]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 3),
    cuts=st.sets(st.integers(1, ROWS - 1), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_same_bytes_whatever_the_split(seed: int, cuts: set[int], order: object) -> None:
    indices, values, place, x = made_up(seed)

    def shard(a: int, b: int) -> tuple[ShardFirings, NeuronSums]:
        own = ShardFirings.of(indices[a:b], values[a:b], FEATURES, place[a:b], place[a:b] % WINDOW)
        sums = NeuronSums.empty(FEATURES, WIDTH)
        sums.add(own, [x[a:b]], np.full(WIDTH, 0.7, np.float32))
        return own, sums

    parts = [shard(a, b) for a, b in itertools.pairwise([0, *sorted(cuts), ROWS])]
    order.shuffle(parts)  # type: ignore[attr-defined]
    split = everything(*zip(*parts, strict=True))
    assert split == everything(*zip(shard(0, ROWS), strict=True))


def one_feature(place: Array, values: Array, tokens: Array) -> Statistics:
    """Count one feature that fires at ``place``, each in a window of its own."""
    shard = ShardFirings.of(
        np.zeros((len(place), 1), np.int32), values[:, None], 1, place, np.zeros_like(place)
    )
    firings = Firings([shard])
    (block,) = firings.blocks()
    window = np.arange(len(place), dtype=np.int32)
    source = np.zeros(len(place), np.int16)
    text = Text(place, window, place, place + 1, source, tokens, 0)
    return Statistics.of(block, Located.of(block, text), text, 1)


def test_samples_of_an_interval_are_uniform() -> None:
    """Rows of one feature, all in the top interval: each is kept with probability 5 / 40."""
    kept = np.zeros(40)
    for trial in range(400):
        place = np.arange(40) + 40 * trial
        found = one_feature(place, np.ones(40, np.float32), np.arange(16_000, dtype=np.int32))
        rows = found.row[0, TOP + (INTERVALS - 1) * SAMPLES :]
        assert len(set(rows.tolist())) == SAMPLES
        kept[rows] += 1
    expected = 400 * SAMPLES / 40
    chi_square = float(((kept - expected) ** 2 / expected).sum())
    assert chi_square < 75  # 39 degrees of freedom: beyond this once in 2,000 draws


def test_the_strongest_of_each_context_is_shown() -> None:
    """Tokens come again and again, each a context of its own: its strongest stands for it."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 60, 400).astype(np.int32)
    values = draw.random(400).astype(np.float32)
    found = one_feature(np.arange(400), values, tokens)
    best = sorted((max(values[tokens == t]) for t in set(tokens.tolist())), reverse=True)
    np.testing.assert_array_equal(found.value[0, :TOP], best[:TOP])
    np.testing.assert_array_equal(values[found.row[0, :TOP]], best[:TOP])


def test_a_sample_of_rows_estimates_cofiring() -> None:
    """Features 0 and 1 fire on the same half of the rows, 2 on a third of those."""
    rows = 20_000
    there = np.random.default_rng(1).random(rows) < 0.5
    third = there & (np.arange(rows) % 3 == 0)
    values = np.stack([there, there, third], axis=1).astype(np.float32)
    indices = np.tile(np.arange(3, dtype=np.int32), (rows, 1))
    place = np.arange(rows)
    firings = Firings([ShardFirings.of(indices, values, 3, place, place)])
    cofiring = Cofiring(firings, most=8_000)
    assert 6_000 < len(cofiring.feature) < 10_000
    (block,) = firings.blocks()
    found = cofiring.most_alike(block)
    assert found.which[0, :2].tolist() == [1, 2]
    np.testing.assert_allclose(found.amount[0, :2], [1.0, 1 / 3], atol=0.07)
    np.testing.assert_allclose(found.amount[2, :2], [1 / 3, 1 / 3], atol=0.07)
