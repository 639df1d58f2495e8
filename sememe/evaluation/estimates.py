"""Estimates with bootstrap intervals, and whether one beats another.

A bootstrap draws units (documents, data sets or features) with replacement; every figure is a
function of sums over units, computed once on all of them and once for each draw. Two estimates over
the same units use the same draws, so that their difference is paired.

Axis names: units = what is drawn, draws = resamples.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from sememe.errors import SememeError

DRAWS = 500
LEVEL = 0.95

Statistic = Callable[..., Float[np.ndarray, " draws"]]
"""A figure of as many sums, each (draws, ...), as it takes."""


class Estimate(NamedTuple):
    """A figure, and what it would have been on resampled units; NaN where it is undefined."""

    value: float
    draws: Float[np.ndarray, " draws"]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The middle 95% of the draws (percentile bootstrap); None if too few are defined."""
        known = self.draws[np.isfinite(self.draws)]
        if len(known) < LEVEL * len(self.draws):
            return None
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def minus(self, other: "Estimate") -> "Estimate":
        """Return the difference, draw by draw."""
        return Estimate(self.value - other.value, self.draws - other.draws)

    def exceeds(self, other: "Estimate") -> bool:
        """Whether the interval of the difference lies above 0."""
        interval = self.minus(other).interval
        return interval is not None and interval[0] > 0

    def to_json(self) -> dict[str, float | None]:
        """Return value and interval; None stands for what is undefined."""
        low, high = self.interval or (None, None)
        return {"value": self.value if np.isfinite(self.value) else None, "low": low, "high": high}


class Resampling:
    """Draws of ``units`` units with replacement, the same for the same number of units and seed."""

    def __init__(self, units: int, *, draws: int = DRAWS, seed: int = 0) -> None:
        if units < 1:
            raise SememeError("there is nothing to resample (0 units): use more text")
        generator = np.random.default_rng([seed, units])
        share = np.full(units, 1 / units)
        self.units = units
        self.weights: Float[np.ndarray, "draws units"] = generator.multinomial(
            units, share, size=draws
        ).astype(np.float64)

    def estimate(
        self,
        statistic: Statistic,
        *sums: Shaped[np.ndarray, "..."],
    ) -> Estimate:
        """Return ``statistic`` of the sums over all units, and over each draw of them.

        Each of ``sums`` is (units, ...); ``statistic`` takes as many arrays (draws, ...) and
        returns (draws).
        """
        whole = np.ones((1, self.units))
        with np.errstate(divide="ignore", invalid="ignore"):
            value, draws = (
                statistic(*(np.tensordot(weights, part.astype(np.float64), 1) for part in sums))
                for weights in (whole, self.weights)
            )
        return Estimate(float(value[0]), draws)


def ratio(
    numerator: Float[np.ndarray, " draws"], denominator: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """Return a pooled mean or share: a statistic for :meth:`Resampling.estimate`."""
    shares: Float[np.ndarray, " draws"] = numerator / denominator
    return shares


class Shares:
    """Shares of what is right, each of its own things, drawn together by the units they are of."""

    def __init__(self) -> None:
        self.units = 0
        self._added: list[tuple[Shaped[np.ndarray, " _"], Shaped[np.ndarray, " _"]]] = []

    def begin(self, units: int) -> int:
        """Take up ``units`` more units; return the number of the first."""
        self.units += units
        return self.units - units

    def add(self, unit: Shaped[np.ndarray, " n"], right: Shaped[np.ndarray, " n"]) -> int:
        """Note whether each of n is right, and the unit that it belongs to; return its column."""
        self._added.append((unit, right))
        return len(self._added) - 1

    @cached_property
    def shares(self) -> Float[np.ndarray, "draws columns"]:
        """The share of each column, once all were added; of all units first, then of the draws."""
        weights = np.concatenate([np.ones((1, self.units)), Resampling(self.units).weights])
        right, there = (
            np.stack([np.bincount(unit, part, self.units) for unit, part in parts], axis=1)
            for parts in (self._added, [(unit, np.ones(len(unit))) for unit, _ in self._added])
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = (weights @ right) / (weights @ there)
        return found


def drawn(figure: Float[np.ndarray, " draws"]) -> Estimate:
    """Return a figure of shares as an estimate: of all units first, then of the draws."""
    return Estimate(float(figure[0]), figure[1:])
