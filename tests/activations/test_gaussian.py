"""Gaussian draws beside the moments that they are to have."""

import pytest
import torch

from sememe.activations.gaussian import GaussianStream
from sememe.errors import UsageError


@pytest.fixture
def stream() -> GaussianStream:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(5, 5, generator=generator)
    heavy = torch.randn(20_000, 5, generator=generator).exp() @ mixing + 2  # far from normal
    return GaussianStream(heavy, "site", 10_000, {"from": "here"})


def test_draws_have_the_mean_and_covariance_of_the_sample(stream: GaussianStream) -> None:
    drawn = torch.cat(list(stream.batches(500, 10, seed=0)))
    assert drawn.shape == (100_000, 5)
    size = float(stream.like.std())
    torch.testing.assert_close(drawn.mean(0), stream.like.mean(0), atol=0.03 * size, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), stream.like.T.cov(), atol=0.05 * size**2, rtol=0)
    square = float((drawn * stream.scales[0]).square().sum(1).mean())
    assert square == pytest.approx(5, rel=0.02)
    # and nothing else: the third moment of the sample is not there
    centred = (drawn - drawn.mean(0)) / drawn.std(0)
    assert float(centred.pow(3).mean(0).abs().max()) < 0.05
    skew = (stream.like - stream.like.mean(0)) / stream.like.std(0)
    assert float(skew.pow(3).mean(0).abs().max()) > 1


def test_a_batch_is_a_function_of_seed_and_number(stream: GaussianStream) -> None:
    whole = list(stream.batches(300, 1, seed=4))
    assert len(whole) == stream.steps(300, 1) == 33
    for one, other in zip(whole[20:], stream.batches(300, 1, seed=4, start=20), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(whole[0], next(stream.batches(300, 1, seed=5)))
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(stream.sample(10), stream.sample(10))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="1 rows"):
        GaussianStream(torch.zeros(1, 3), "site", 10, {})
