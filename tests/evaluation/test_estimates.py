"""Bootstrap intervals beside closed forms."""

import numpy as np
import pytest

from sememe.errors import SememeError
from sememe.evaluation.estimates import Estimate, Resampling, ratio


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    """Over many data sets the middle 95% is the mean +- 1.96 standard errors."""
    generator = np.random.default_rng(0)
    widths, inside = [], 0
    for _ in range(200):
        values = generator.normal(3, 2, size=400)
        found = Resampling(400).estimate(ratio, values, np.ones(400))
        assert found.value == pytest.approx(values.mean())
        assert found.interval is not None
        low, high = found.interval
        widths.append(high - low)
        inside += low < 3 < high
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / 20, rel=0.05)
    assert 180 <= inside <= 198  # 95% of 200, three standard deviations


def test_sums_are_pooled_before_they_are_divided() -> None:
    """Units of different sizes weigh by their size: the ratio of sums, not the mean of ratios."""
    numerator, denominator = np.array([1.0, 90.0]), np.array([10.0, 100.0])
    found = Resampling(2).estimate(ratio, numerator, denominator)
    assert found.value == pytest.approx(91 / 110)
    assert set(np.round(found.draws, 6)) == {0.1, round(91 / 110, 6), 0.9}


def test_vectors_are_summed_by_unit() -> None:
    vectors = np.arange(12.0).reshape(4, 3)
    resampling = Resampling(4, draws=10)
    found = resampling.estimate(lambda total: (total**2).sum(1), vectors)
    assert found.value == pytest.approx((vectors.sum(0) ** 2).sum())
    expected = [((weights[:, None] * vectors).sum(0) ** 2).sum() for weights in resampling.weights]
    np.testing.assert_allclose(found.draws, expected)


def test_differences_are_paired() -> None:
    """What varies alike in two arms does not blur their difference."""
    values = np.random.default_rng(1).normal(0, 10, size=300)
    mean = [Resampling(300).estimate(ratio, x, np.ones(300)) for x in (values + 0.1, values)]
    assert mean[0].minus(mean[1]).interval == (pytest.approx(0.1), pytest.approx(0.1))
    assert mean[0].exceeds(mean[1])
    assert not mean[1].exceeds(mean[0])
    assert not mean[0].exceeds(mean[0])


def test_what_is_undefined_has_no_interval() -> None:
    found = Resampling(3).estimate(ratio, np.ones(3), np.zeros(3))
    assert found.to_json() == {"value": None, "low": None, "high": None}
    assert not Estimate(1.0, np.full(10, np.nan)).exceeds(Estimate(0.0, np.zeros(10)))
    with pytest.raises(SememeError, match="0 units"):
        Resampling(0)
