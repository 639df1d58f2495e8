"""Activations that have nothing but a mean and a covariance, as an endless source of batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sememe.activations.stream import SAMPLE_SEED
from sememe.errors import UsageError


@dataclass(frozen=True)
class GaussianStream:
    """Draws from the normal law with the mean and covariance of a sample of activations.

    Batch number n is a function of (seed, n) alone. A pass is as many rows as are named, all new.
    """

    like: Float[Tensor, "sample width"] = field(repr=False)
    """Raw activations of one site."""
    site: str
    """What the draws stand for."""
    rows: int
    """Draws in one pass."""
    made_from: dict[str, Any]
    """What a dictionary that is trained on this says it is made from."""

    def __post_init__(self) -> None:
        if len(self.like) < 2:
            raise UsageError(f"like has {len(self.like)} rows; expected 2 or more")

    @property
    def sites(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Its width."""
        return (self.like.shape[1],)

    @cached_property
    def mean(self) -> Float[Tensor, " width"]:
        """Mean of the sample, float64."""
        return self.like.double().mean(0)

    @cached_property
    def root(self) -> Float[Tensor, "width width"]:
        """The symmetric root of the sample's covariance."""
        centred = self.like.double() - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        return root

    @property
    def scales(self) -> tuple[float, ...]:
        """What to multiply draws by so that their mean squared norm is their width."""
        square = self.mean.square().sum() + self.root.square().sum()
        return (float((self.like.shape[1] / square).sqrt()),)

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes."""
        return passes * self.rows // batch

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield fp32 batches from number ``start`` on, the same for the same arguments."""
        for number in range(start, self.steps(batch, passes)):
            yield self._draw(batch, [seed, number])

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return fixed draws of their own."""
        return self._draw(rows, [SAMPLE_SEED])

    def _draw(self, rows: int, seed: list[int]) -> Float[Tensor, "rows width"]:
        shape = rows, self.like.shape[1]
        normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(normal) @ self.root.float() + self.mean.float()
