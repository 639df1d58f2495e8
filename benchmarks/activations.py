"""Activations to measure on: sparse features in superposition."""

import math

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
