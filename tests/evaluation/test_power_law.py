"""Power laws of compute: known curves are found, inverted, and covered by their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from sememe.errors import SememeError
from sememe.evaluation.compute import compare, curve
from sememe.evaluation.power_law import PowerLaw, fit, refitted

COMPUTE = np.geomspace(2e11, 4e13, 6)


def known(floor: float, factor: float, exponent: float) -> PowerLaw:
    return PowerLaw(*(np.array([number]) for number in (floor, factor, exponent)))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.05, 3.0),
    st.floats(0.1, 3.0),
    st.floats(0.03, 1.5),
)
def test_a_known_curve_is_found_and_inverted(floor: float, above: float, exponent: float) -> None:
    """``above`` is what the smallest model's loss has above the floor."""
    factor = above * COMPUTE[0] ** exponent
    truth = known(floor, factor, exponent)
    found = fit(COMPUTE, truth.loss(COMPUTE), with_floor=True)
    assert found.exponent[0] == pytest.approx(exponent, rel=1e-3)
    assert found.floor[0] == pytest.approx(floor, rel=1e-2, abs=1e-3)
    assert found.factor[0] == pytest.approx(factor, rel=3e-2)
    for compute in (1e10, 3e12, 1e16):
        loss = truth.loss(np.array([compute]))[:, 0]
        assert truth.compute(loss)[0] == pytest.approx(compute, rel=1e-6)


def test_a_curve_without_a_floor_is_found() -> None:
    truth = known(0.0, 40.0, 0.1)
    for with_floor in (False, True):
        found = fit(COMPUTE, truth.loss(COMPUTE), with_floor=with_floor)
        assert found.exponent[0] == pytest.approx(0.1, rel=1e-5)
        assert found.floor[0] == pytest.approx(0, abs=1e-4)
        assert found.factor[0] == pytest.approx(40.0, rel=1e-4)


def test_noisy_curves_are_fitted_as_scipy_does() -> None:
    draw = np.random.default_rng(0)
    truth = known(1.5, 1e3, 0.25)
    loss = truth.loss(COMPUTE) + 0.02 * draw.normal(size=(20, 6))
    found = fit(COMPUTE, loss, with_floor=True)
    for row, floor, exponent in zip(loss, found.floor, found.exponent, strict=True):
        (other, _, steepness), _ = curve_fit(
            lambda c, e, a, p: e + a * (c / 1e12) ** -p,
            COMPUTE,
            row,
            p0=(1.5, 1.0, 0.25),
            bounds=([0, 0, 1e-3], [10, 100, 3]),
            xtol=1e-12,
            ftol=1e-12,
        )
        assert floor == pytest.approx(other, rel=1e-3, abs=1e-3)
        assert exponent == pytest.approx(steepness, rel=1e-2)


def test_nothing_reaches_the_floor() -> None:
    law = known(1.0, 10.0, 0.1)
    assert np.isnan(law.compute(np.array([1.0]))[0])
    assert np.isnan(law.compute(np.array([0.5]))[0])
    with pytest.raises(SememeError, match="of 3 numbers cannot be fitted to 2"):
        fit(COMPUTE[:2], np.ones((1, 2)), with_floor=True)


def test_the_interval_of_the_exponent_covers_the_truth() -> None:
    """In about 95 of 100 families, few as the models are."""
    truth, draw = known(0.0, 40.0, 0.1), np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        noisy = truth.loss(COMPUTE) * (1 + 0.01 * draw.normal(size=6))
        law = refitted(COMPUTE, np.repeat(noisy, 501, axis=0), with_floor=False, seed=seed)
        assert law.exponent[0] == fit(COMPUTE, noisy, with_floor=False).exponent[0]
        low, high = np.quantile(law.exponent[1:], [0.025, 0.975])
        covered += low <= 0.1 <= high
    assert 90 <= covered <= 99


def losses(law: PowerLaw, compute: float, noise: float, seed: int) -> np.ndarray:
    """The loss at some compute, and its resamples."""
    exact = float(law.loss(np.array([compute]))[0, 0])
    draws = noise * np.random.default_rng(seed).normal(size=500)
    return np.concatenate([[exact], exact + draws])


@pytest.mark.parametrize("floor", [0.0, 1.2])
def test_the_share_of_compute_is_that_of_the_curve(floor: float) -> None:
    """A spliced loss that a tenth of the compute reaches is worth a tenth, interval around it."""
    law = known(floor, 300.0, 0.2)
    draw = np.random.default_rng(3)
    family = np.repeat(law.loss(COMPUTE), 501, axis=0)
    family[1:] += 1e-4 * draw.normal(size=(500, 6))
    found = curve(COMPUTE, family)
    assert found.with_floor == (floor > 0)
    measured = compare(found, losses(law, 1e13, 1e-3, 4), losses(law, 1e12, 1e-3, 5))
    estimate = measured.estimates["compute_equivalent"]
    assert estimate.value == pytest.approx(0.1, rel=2e-3)
    low, high = estimate.interval
    assert low < 0.1 < high
    assert measured.details["extrapolated"].startswith("no")
    both = measured.details["losses"]
    assert both["original"]["tflop"]["value"] == pytest.approx(10, rel=0.01)
    assert both["spliced"]["tflop"]["value"] == pytest.approx(1, rel=0.01)


def test_what_lies_beyond_the_family_is_said_in_words_and_left_out_when_far() -> None:
    law = known(1.2, 300.0, 0.2)
    found = curve(COMPUTE, np.repeat(law.loss(COMPUTE), 501, axis=0))

    def at(original: float, spliced: float):
        return compare(found, losses(law, original, 0, 0), losses(law, spliced, 0, 0))

    near = at(4e14, 1e13)
    assert "10 times more compute than any member had" in near.details["extrapolated"]
    assert near.estimates["compute_equivalent"].value == pytest.approx(1 / 40, rel=1e-3)
    far = at(4e18, 4e17)
    assert far.estimates == {}
    reason = far.left_out["compute_equivalent"]
    assert "100,000 times more compute" in reason
    assert "followed 1,000 times at most" in reason
    assert far.details["followed_all_the_same"]["value"] == pytest.approx(0.1, rel=1e-3)
    poor = at(1e13, 1e6)
    assert "less compute than any member had" in poor.left_out["compute_equivalent"]
    one = np.full(501, 1.1)
    below = compare(found, one, one + 1)
    assert "the curve never reaches: its floor is 1.200" in below.left_out["compute_equivalent"]
    assert below.details["losses"]["original"]["tflop"]["value"] is None
