"""Short lists of the strongest, one a feature."""

from typing import NamedTuple

import numpy as np

from sememe.kernels.compiled import Array, compiled


class Ranked(NamedTuple):
    """For every feature a short list, strongest first."""

    which: Array
    """(features, shown) tokens, features or neurons; -1 where there are fewer."""
    amount: Array
    """(features, shown) shares, effects, cosines or correlations."""

    @classmethod
    def empty(cls, features: int, shown: int) -> "Ranked":
        """Return lists with nothing in them."""
        shape = (features, shown)
        return cls(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))

    def part(self, features: slice, shown: int | None = None) -> "Ranked":
        """Return the lists of some features, as long as ``shown``."""
        return Ranked(self.which[features, :shown], self.amount[features, :shown])


@compiled
def insert(item: int, amount: np.float32, which: Array, amounts: Array) -> None:
    """Put an item into one feature's list where it belongs, if it does; of equals the first."""
    slot = len(which)
    while slot > 0 and (
        which[slot - 1] < 0
        or amount > amounts[slot - 1]
        or (amount == amounts[slot - 1] and item < which[slot - 1])
    ):
        slot -= 1
    if slot == len(which):
        return
    for later in range(len(which) - 1, slot, -1):
        which[later], amounts[later] = which[later - 1], amounts[later - 1]
    which[slot], amounts[slot] = item, amount
