"""Weights to start from."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize


def random_rows(
    features: int, sample: Float[Tensor, "rows width"], generator: Generator
) -> Float[Tensor, "features width"]:
    """Return unit rows in uniformly random directions; only the sample's width is used."""
    rows = torch.randn(features, sample.shape[1], generator=generator)
    return normalize(rows, dim=1)


def data_rows(
    features: int, sample: Float[Tensor, "rows width"], generator: Generator
) -> Float[Tensor, "features width"]:
    """Return unit rows that point at random activations of the centred sample."""
    rounds = -(-features // len(sample))
    order = [torch.randperm(len(sample), generator=generator) for _ in range(rounds)]
    chosen = torch.cat(order)[:features]
    # A little noise, so that no two rows are alike and none is zero.
    rows = sample[chosen] + 1e-3 * torch.randn(features, sample.shape[1], generator=generator)
    return normalize(rows, dim=1)


INITIALISATIONS: dict[
    str, Callable[[int, Float[Tensor, "rows width"], Generator], Float[Tensor, "features width"]]
] = {"random": random_rows, "data": data_rows}
"""How decoder rows begin; the encoder begins as their copy."""


def geometric_median(
    x: Float[Tensor, "rows width"], *, steps: int = 50, tolerance: float = 1e-5
) -> Float[Tensor, " width"]:
    """Return the point whose summed distance to the rows is least (Weiszfeld's iteration).

    It is to the mean what the median is: single far-off activations hardly move it.
    """
    point = x.mean(0)
    for _ in range(steps):
        weights = 1 / (x - point).norm(dim=1).clamp_min(1e-8)
        moved = (weights @ x) / weights.sum()
        done = (moved - point).norm() <= tolerance * point.norm().clamp_min(1e-8)
        point = moved
        if done:
            break
    return point
