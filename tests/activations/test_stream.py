from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.activations.stream import MemoryStream, Stream
from sememe.errors import UsageError
from tests.activations.stores import SITE, make_store


def numbered(path: Path, shard_rows: list[int], block: int = 8, buffer: int = 4) -> Stream:
    """A stream whose rows are their own numbers."""
    rows = torch.arange(1, sum(shard_rows) + 1, dtype=torch.float32)[:, None]
    return Stream(make_store(path, rows, shard_rows), (SITE,), block=block, buffer_blocks=buffer)


@settings(max_examples=25, deadline=None)
@given(
    shard_rows=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    batch=st.integers(1, 30),
    passes=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_every_row_comes_once_a_pass(
    tmp_path_factory: pytest.TempPathFactory,
    shard_rows: list[int],
    batch: int,
    passes: int,
    seed: int,
) -> None:
    stream = numbered(tmp_path_factory.mktemp("s"), shard_rows)
    total = stream.rows * passes
    if total < batch:
        with pytest.raises(UsageError, match="do not fill one batch"):
            stream.steps(batch, passes)
        return
    batches = list(stream.batches(batch, passes, seed))
    assert len(batches) == stream.steps(batch, passes) == total // batch
    seen = torch.cat(batches)[:, 0].int()
    for number in range(len(seen) // stream.rows):
        one_pass = seen[number * stream.rows : (number + 1) * stream.rows]
        assert sorted(one_pass.tolist()) == list(range(1, stream.rows + 1))


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 40), batch=st.integers(1, 25))
def test_starting_at_a_batch_equals_going_there(
    tmp_path_factory: pytest.TempPathFactory, start: int, batch: int
) -> None:
    stream = numbered(tmp_path_factory.mktemp("s"), [70, 33, 51])
    whole = list(stream.batches(batch, 3, seed=5))
    start = min(start, len(whole))
    rest = list(stream.batches(batch, 3, seed=5, start=start))
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_seeds_and_passes_shuffle_differently(tmp_path: Path) -> None:
    stream = numbered(tmp_path, [200])
    first = torch.cat(list(stream.batches(50, 2, seed=0)))
    other = torch.cat(list(stream.batches(50, 2, seed=1)))
    assert not torch.equal(first, other)
    assert not torch.equal(first[:200], first[200:])


def test_a_batch_mixes_the_whole_store(tmp_path: Path) -> None:
    """With a buffer of everything, neighbours in the stream are as far apart as by chance."""
    stream = numbered(tmp_path, [4000], block=16, buffer=1000)
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
        ((torch.ones(3, 2), ("a", "b")), r"split is \(\), but x is 2 wide"),
        ((torch.ones(3, 2), ("a", "b"), (1, 2)), r"split is \(1, 2\), but x is 2 wide"),
    ],
)
def test_tensors_that_do_not_fit_their_sites_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        MemoryStream(*arguments)
