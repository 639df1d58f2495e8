"""Activations to measure on: made up, or rows that are there already."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import embedding_bag, normalize

ACTIVE = 24
"""Draws of true features a row."""
RARITY = 0.6
"""Exponent by which frequencies of true features fall with their rank."""
SPREAD = 0.4
"""Standard deviation of the logarithm of their strengths."""
NOISE = 0.05
"""Share of the variance that no true feature explains."""


@dataclass(frozen=True)
class Batches:
    """A stream of ``count`` steps over the same rows, raw and scaled alike."""

    held: Float[Tensor, "rows width"]
    count: int
    sites: tuple[str, ...] = ("made.up",)
    scales: tuple[float, ...] = (1.0,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the only site."""
        return (self.held.shape[1],)

    @property
    def rows(self) -> int:
        """Rows held."""
        return len(self.held)

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of steps, whatever the batch."""
        return self.count

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield parts of the rows held, over and over."""
        parts = self.held.split(batch)
        for number in range(start, self.count):
            yield parts[number % len(parts)]

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return the first rows."""
        return self.held[:rows]


def superposed(rows: int, width: int, features: int, seed: int = 1) -> Float[Tensor, "rows width"]:
    """Return sums of a few of ``features`` random directions, rare ones seldom, and some noise.

    The mean squared distance from the mean is ``width``; strengths are log-normal.
    """
    directions = normalize(torch.randn(features, width, generator=Generator().manual_seed(90210)))
    generator = Generator().manual_seed(seed)
    ranks = torch.arange(1, features + 1, dtype=torch.float64) + features / 50
    shares = ranks.pow(-RARITY)
    chosen = torch.multinomial(
        shares / shares.sum(), rows * ACTIVE, replacement=True, generator=generator
    )
    strengths = (SPREAD * torch.randn(rows, ACTIVE, generator=generator)).exp()
    x = embedding_bag(
        chosen.view(rows, ACTIVE), directions, per_sample_weights=strengths, mode="sum"
    )
    x -= x.mean(0)
    x *= math.sqrt((1 - NOISE) * width / float(x.square().sum(1).mean()))
    x += math.sqrt(NOISE) * torch.randn(rows, width, generator=generator)
    return x + 0.5 * torch.randn(width, generator=generator)
