"""Weights to start from."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize


def random_rows(
    features: int,
    read: Float[Tensor, "rows width"],
    written: Float[Tensor, "rows write_width"],
    generator: Generator,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, "features write_width"]]:
    """Return unit rows in uniformly random directions; only the samples' widths are used."""

    # Drawn on the CPU wherever the samples lie: a seed begins with the same weights everywhere.
    def drawn(width: int) -> Float[Tensor, "features {width}"]:
        return normalize(torch.randn(features, width, generator=generator), dim=1).to(read.device)

    encoder = drawn(read.shape[1])
    return encoder, encoder if written is read else drawn(written.shape[1])


def data_rows(
    features: int,
    read: Float[Tensor, "rows width"],
    written: Float[Tensor, "rows write_width"],
    generator: Generator,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, "features write_width"]]:
    """Return unit rows that point at random activations: what is read, and what it should become.

    The samples are centred, and row i of each is the same token.
    """
    rounds = -(-features // len(read))
    order = [torch.randperm(len(read), generator=generator) for _ in range(rounds)]
    chosen = torch.cat(order)[:features]

    def pointing(sample: Float[Tensor, "rows width"]) -> Float[Tensor, "features width"]:
        # A little noise, so that no two rows are alike and none is zero.
        noise = torch.randn(features, sample.shape[1], generator=generator)
        return normalize(sample[chosen] + 1e-3 * noise.to(sample.device), dim=1)

    encoder = pointing(read)
    return encoder, encoder if written is read else pointing(written)


def uniform_rows(
    features: int,
    read: Float[Tensor, "rows width"],
    written: Float[Tensor, "rows write_width"],
    generator: Generator,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, "features write_width"]]:
    """Return the small rows of Circuits Updates, January 2025, which have no common norm.

    Entries of the decoder are uniform within 1 / its width on either side of 0, those of the
    encoder alike times width / features; an autoencoder's encoder is the decoder times that.
    """

    def drawn(width: int) -> Float[Tensor, "features {width}"]:
        return ((2 * torch.rand(features, width, generator=generator) - 1) / width).to(read.device)

    decoder = drawn(written.shape[1])
    encoder = decoder if written is read else drawn(read.shape[1])
    return encoder * (read.shape[1] / features), decoder


Rows = tuple[Float[Tensor, "features width"], Float[Tensor, "features write_width"]]
INITIALISATIONS: dict[str, Callable[[int, Tensor, Tensor, Generator], Rows]] = {
    "random": random_rows,
    "data": data_rows,
    "uniform": uniform_rows,
}
"""How encoder and decoder rows begin; an autoencoder's point the same way."""


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
