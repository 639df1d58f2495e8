"""The sparse vector of feature values that every kernel reads or writes."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Code(NamedTuple):
    """The active features of ``rows`` activations, ``k`` entries each.

    A value of 0 marks an entry that is not there; its index is then 0 and means nothing. Values
    are in scaled units: the encoder sees inputs whose mean squared norm is their width.
    """

    indices: Int[Tensor, "rows k"]
    """Which feature, int32."""
    values: Float[Tensor, "rows k"]
    """How strongly; positive where there is an entry."""
