"""What the trainer needs of a source of activations."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ActivationStream(Protocol):
    """Shuffled batches of raw activations, addressable by batch number."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites whose activations stand side by side in a row."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""

    @property
    def scales(self) -> tuple[float, ...]:
        """What to multiply each site by so that its mean squared norm is its width."""

    @property
    def rows(self) -> int:
        """Activations in one pass."""

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes."""

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield raw fp32 batches from number ``start`` on, the same for the same arguments."""

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw activations, fp32."""


@runtime_checkable
class ModelStream(ActivationStream, Protocol):
    """A stream whose model is at hand, so that it can be run on from a reconstruction."""

    def divergence(self, rebuilt: Float[Tensor, "batch width"], site: str) -> Float[Tensor, ""]:
        """Return the KL divergence of predictions, in nats a token, for the batch yielded last.

        ``rebuilt`` are raw activations in place of those of the batch at ``site``; gradients reach
        them.
        """
