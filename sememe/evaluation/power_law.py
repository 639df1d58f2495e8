r"""Loss as a power law of training compute, fitted and inverted, for many resamples at once.

$$L(C) = E + A\,C^{-\alpha}$$ with E >= 0, by least squares on L (Kaplan et al., 2001.08361, where
E = 0; Hoffmann et al., 2203.15556). For a given alpha the best E and A are linear least squares, so
that only alpha is searched for.

Axis names: draws = resamples, models = those of the family.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sememe.errors import SememeError

STEEPEST, FLATTEST = 3.0, 1e-3
GRID = 100
GOLDEN = (5**0.5 - 1) / 2


class PowerLaw(NamedTuple):
    """Curves, one a draw."""

    floor: Float[np.ndarray, " draws"]
    """E, the loss that no compute goes below."""
    factor: Float[np.ndarray, " draws"]
    """A, what one unit of compute leaves above E."""
    exponent: Float[np.ndarray, " draws"]
    """alpha."""

    def loss(self, compute: Float[np.ndarray, " models"]) -> Float[np.ndarray, "draws models"]:
        """Return the losses at some compute."""
        power = compute[None, :] ** -self.exponent[:, None]
        found: np.ndarray = self.floor[:, None] + self.factor[:, None] * power
        return found

    def compute(self, loss: Float[np.ndarray, " draws"]) -> Float[np.ndarray, " draws"]:
        """Return the compute at which each curve reaches its loss; NaN at or below the floor."""
        above = np.where(loss > self.floor, loss - self.floor, np.nan)
        found: np.ndarray = (above / self.factor) ** (-1 / self.exponent)
        return found


def fit(
    compute: Float[np.ndarray, " models"],
    loss: Float[np.ndarray, "draws models"],
    *,
    with_floor: bool,
) -> PowerLaw:
    """Return the curves nearest to the losses of each draw; E = 0 unless ``with_floor``.

    SememeError for fewer models than the curve has numbers.
    """
    wanted = 3 if with_floor else 2
    if len(compute) < wanted:
        raise SememeError(f"a power law of {wanted} numbers cannot be fitted to {len(compute)}")
    unit = np.exp(np.log(compute).mean())  # so that powers of it are near 1
    scaled = np.log(compute / unit)
    grid = np.geomspace(FLATTEST, STEEPEST, GRID)
    errors = np.stack([_at(np.full(len(loss), a), scaled, loss, with_floor)[2] for a in grid])
    best = np.argmin(errors, axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    for _ in range(45):  # golden section: 4e-10 of the first bracket
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        smaller = _at(left, scaled, loss, with_floor)[2] < _at(right, scaled, loss, with_floor)[2]
        low, high = np.where(smaller, low, left), np.where(smaller, right, high)
    exponent = (low + high) / 2
    floor, factor, _ = _at(exponent, scaled, loss, with_floor)
    return PowerLaw(floor, factor * unit**exponent, exponent)


def _at(
    exponent: Float[np.ndarray, " draws"],
    log_compute: Float[np.ndarray, " models"],
    loss: Float[np.ndarray, "draws models"],
    with_floor: bool,
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Return the best floor and factor of each draw at its exponent, and the squared error."""
    power = np.exp(-exponent[:, None] * log_compute[None, :])
    alone = (power * loss).sum(1) / (power * power).sum(1)
    floor = np.zeros(len(loss))
    factor = alone
    if with_floor:
        centred = power - power.mean(1, keepdims=True)
        slope = (centred * loss).sum(1) / (centred * centred).sum(1)
        above = loss.mean(1) - slope * power.mean(1)
        floor, factor = np.where(above > 0, above, 0), np.where(above > 0, slope, alone)
    rest = loss - floor[:, None] - factor[:, None] * power
    return floor, factor, (rest * rest).sum(1)


def refitted(
    compute: Float[np.ndarray, " models"],
    loss: Float[np.ndarray, "draws models"],
    *,
    with_floor: bool,
    seed: int = 0,
) -> PowerLaw:
    """Return a curve for each draw with the scatter of the models about it in its numbers.

    Each draw's curve is fitted again to its own losses plus normal noise, whose variance is drawn
    as few models leave it uncertain: squared residuals / chi² of the degrees of freedom, by which
    intervals of a linear fit are Student's. The curve of the first draw is left as it is.
    """
    smooth = fit(compute, loss, with_floor=with_floor).loss(compute)
    free = max(1, len(compute) - (3 if with_floor else 2))
    draw = np.random.default_rng([seed, len(compute)])
    squares = ((loss - smooth) ** 2).sum(1) / draw.chisquare(free, size=len(loss))
    again = smooth + np.sqrt(squares)[:, None] * draw.normal(size=loss.shape)
    again[0] = loss[0]
    return fit(compute, again, with_floor=with_floor)
