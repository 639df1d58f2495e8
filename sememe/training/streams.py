"""What the trainer needs of a source of activations."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ActivationStream(Protocol):
    """Shuffled batches of raw activations, addressable by batch number."""

    @property
    def width(self) -> int:
        """Width of an activation."""

    @property
    def rows(self) -> int:
        """Activations in one pass."""

    @property
    def scale(self) -> float:
        """What to multiply by so that the mean squared norm is the width."""

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes."""

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield raw fp32 batches from number ``start`` on, the same for the same arguments."""

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw activations, fp32."""
