from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.activations.store import Activations
from sememe.activations.stream import MemoryStream, Stream
from sememe.errors import UsageError
from tests.activations.stores import SITE, make_store


def numbered(path: Path, shard_rows: list[int], **options: int) -> Stream:
    """A stream whose rows are their own numbers, from 1."""
    rows = torch.arange(1, sum(shard_rows) + 1, dtype=torch.float32)[:, None]
    return Stream(make_store(path, rows, shard_rows), (SITE,), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("store")


SIZES = st.fixed_dictionaries({"block": st.integers(1, 20), "buffer": st.integers(1, 120)})


@settings(max_examples=60, deadline=None)
@given(
    shard_rows=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    sizes=SIZES,
    batch=st.integers(1, 30),
    passes=st.integers(1, 3),
    ranks=st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_ranks_share_every_row_once_a_pass(
    folder: Callable[[], Path],
    shard_rows: list[int],
    sizes: dict[str, int],
    batch: int,
    passes: int,
    ranks: int,
    seed: int,
) -> None:
    streams = [numbered(folder(), shard_rows, **sizes, rank=r, ranks=ranks) for r in range(ranks)]
    rows = sum(shard_rows)
    steps = rows * passes // (batch * ranks)
    if not steps:
        with pytest.raises(UsageError, match="do not fill one batch"):
            streams[0].steps(batch, passes)
        return
    drawn = [list(stream.batches(batch, passes, seed)) for stream in streams]
    assert all(
        len(batches) == stream.steps(batch, passes) == steps
        for stream, batches in zip(streams, drawn, strict=True)
    )
    together = torch.cat([torch.cat(batches) for batches in zip(*drawn, strict=True)]).flatten()
    assert len(together) == steps * ranks * batch
    alone = numbered(folder(), shard_rows, **sizes)
    for of_ranks, of_one in zip(
        together.split(ranks * batch), alone.batches(ranks * batch, passes, seed), strict=True
    ):
        assert torch.equal(of_ranks.sort().values, of_one.flatten().sort().values)
    order = torch.cat(list(alone.batches(1, passes, seed))).flatten()
    for one_pass in order.split(rows):
        assert torch.equal(one_pass.sort().values, torch.arange(1, rows + 1, dtype=torch.float32))


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 40),
    batch=st.integers(1, 25),
    sizes=SIZES,
    ranks=st.integers(1, 3),
)
def test_starting_at_a_batch_equals_going_there(
    folder: Callable[[], Path], start: int, batch: int, sizes: dict[str, int], ranks: int
) -> None:
    stream = numbered(folder(), [70, 33, 51], **sizes, rank=ranks - 1, ranks=ranks)
    whole = list(stream.batches(batch, 3, seed=5))
    start = min(start, len(whole))
    rest = list(stream.batches(batch, 3, seed=5, start=start))
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 40), batch=st.integers(1, 25), sizes=SIZES, ranks=st.integers(1, 3))
def test_blocks_are_asked_for_before_they_are_drawn_and_not_long_before(
    folder: Callable[[], Path], start: int, batch: int, sizes: dict[str, int], ranks: int
) -> None:
    rows, passes = 154, 3
    stream = numbered(folder(), [70, 33, 51], **sizes, ranks=ranks)
    asked = [0] * rows
    drawn = 0

    def expect(_self: object, _names: object, starts: np.ndarray, block: int) -> None:
        for low in starts.tolist():
            for row in range(low, min(low + block, rows)):
                asked[row] += 1

    take = Activations.take

    def taken(self: Activations, name: str, numbers: np.ndarray) -> torch.Tensor:
        nonlocal drawn
        assert all(asked[row] >= 1 for row in numbers.tolist())
        drawn += ranks * len(numbers)
        assert sum(asked) <= drawn + 2 * max(stream.buffer, stream.block) + stream.block
        return take(self, name, numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Activations, "expect", expect)
        patch.setattr(Activations, "take", taken)
        list(stream.batches(batch, passes, seed=5, start=start))
    assert max(asked) <= passes


def test_how_a_store_is_cut_into_shards_does_not_matter(folder: Callable[[], Path]) -> None:
    one, many = numbered(folder(), [100]), numbered(folder(), [1, 60, 2, 37])
    for a, b in zip(one.batches(9, 2, 3), many.batches(9, 2, 3), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_come_with_what_is_known_of_them(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.randn(90, 5).to(dtype)
    store = make_store(tmp_path, values, [30, 40, 20])
    stream = Stream(store, (SITE,), block=3, buffer=30)
    plain = list(stream.batches(16, 2, seed=1, start=2))
    described = list(stream.described(16, 2, seed=1, start=2))
    assert len(plain) == len(described) == 9
    for rows, batch in zip(plain, described, strict=True):
        assert rows.dtype == torch.float32
        assert torch.equal(rows, batch.inputs)
        assert torch.equal(batch.inputs, values[batch.place].float())
        assert torch.equal(batch.token, batch.place.int() % 7)
        assert torch.equal(batch.document, (batch.place // 10).int())
        assert torch.equal(batch.position, (batch.place % 10).int())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 2, "ranks": 2}, "rank is 2; expected 0 to 1"),
        ({"rank": -1}, "rank is -1; expected 0 to 0"),
        ({"ranks": 0}, "ranks is 0; expected 1 or more"),
        ({"block": 0}, "block is 0"),
        ({"buffer": 0}, "buffer is 0"),
    ],
)
def test_impossible_streams_are_refused(tmp_path: Path, options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        numbered(tmp_path, [10], **options)


def test_seeds_and_passes_shuffle_differently(tmp_path: Path) -> None:
    stream = numbered(tmp_path, [200])
    first = torch.cat(list(stream.batches(50, 2, seed=0)))
    other = torch.cat(list(stream.batches(50, 2, seed=1)))
    assert not torch.equal(first, other)
    assert not torch.equal(first[:200], first[200:])


def test_a_batch_mixes_the_whole_store(tmp_path: Path) -> None:
    """With a buffer of everything, neighbours in the stream are as far apart as by chance."""
    stream = numbered(tmp_path, [4000], block=16, buffer=4000)
    rows = torch.cat(list(stream.batches(500, 1, seed=0)))[:, 0]
    apart = rows.diff().abs().mean()
    by_chance = 4001 / 3  # mean distance of two random numbers up to n is (n + 1) / 3
    assert abs(float(apart) - by_chance) < 0.05 * by_chance


def test_sample_is_of_the_store_and_fixed(tmp_path: Path) -> None:
    stream = numbered(tmp_path, [40, 60])
    sample = stream.sample(20)
    assert len(sample) == 20
    assert len(set(sample[:, 0].tolist())) == 20
    assert torch.equal(sample, stream.sample(20))


def test_tensors_in_memory_are_a_stream_too():
    x = torch.arange(100.0)[:, None] * torch.tensor([1.0, 0, 2])
    stream = MemoryStream(x, ("a", "b"), (1, 2))
    assert stream.widths == (1, 2)
    for scale, part in zip(stream.scales, (x[:, :1], x[:, 1:]), strict=True):
        norms = (scale * part).square().sum(1)
        assert float(norms.mean()) == pytest.approx(part.shape[1], rel=1e-5)
    whole = torch.cat(list(stream.batches(40, 2, seed=1)))
    assert len(whole) == 200
    for turn in (whole[:100], whole[100:]):
        assert torch.equal(turn[:, 0].sort().values, x[:, 0])
    assert not torch.equal(whole[:100], whole[100:])
    later = list(stream.batches(40, 2, seed=1, start=3))
    assert torch.equal(torch.cat(later), whole[120:])
    assert len(stream.sample(30).unique(dim=0)) == 30
    with pytest.raises(UsageError, match="do not fill one batch"):
        stream.steps(300, 2)


def test_scales_of_tensors_in_memory_do_not_overflow_their_dtype():
    x = torch.randn(5000, 8) * 300
    assert MemoryStream(x.half()).scales[0] == pytest.approx(MemoryStream(x).scales[0], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(0, 2),), r"x is torch.float32, \(0, 2\); expected"),
        ((torch.ones(3, 2), ("a", "b")), r"split is \(\), but x is 2 wide"),
        ((torch.ones(3, 2), ("a", "b"), (1, 2)), r"split is \(1, 2\), but x is 2 wide"),
    ],
)
def test_tensors_that_do_not_fit_their_sites_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        MemoryStream(*arguments)
