"""Gradients of weights that are added up only where the optimiser needs them, row by row.

A gradient as large as the weights costs as much memory as they do, and time to write and to read.
Inside :func:`collected` the first gradient of a weight is kept as what it is made of instead.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_local = threading.local()


class Products(NamedTuple):
    """A gradient: row f is the sum of weight[e] x[row[e]], e from starts[f] to starts[f + 1]."""

    starts: Int[Tensor, " bounds"]
    """Where the entries of each feature begin, and where the last ones end."""
    row: Int[Tensor, " entries"]
    weight: Float[Tensor, " entries"]
    x: Float[Tensor, "rows width"]
    more: Float[Tensor, "features width"] | None = None
    """What is added to it."""

    def dense(self) -> Float[Tensor, "features width"]:
        """Return the gradient added up."""
        counts = self.starts.diff()
        total = int(self.starts[-1])
        feature = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        out = self.x.new_zeros(len(counts), self.x.shape[1])
        if self.more is not None:
            out += self.more
        weighed = self.x[self.row[:total].long()] * self.weight[:total, None]
        return out.index_add_(0, feature, weighed)


@contextmanager
def collected(*, whole: bool = False) -> Iterator[dict[int, Products]]:
    """Inside the context, gradients of whole parameters go to the dictionary, by their address.

    The first of each does, where kernels can use it; later ones are added to ``.grad`` as ever, and
    with ``whole`` all are.
    """
    pending: dict[int, Products] = {}
    _local.pending = None if whole else pending
    try:
        yield pending
    finally:
        _local.pending = None


def place_for(weights: Tensor) -> dict[int, Products] | None:
    """Return where the gradient of ``weights`` is to be left; None where it is to be added up."""
    pending: dict[int, Products] | None = getattr(_local, "pending", None)
    if pending is None or not weights.is_leaf or weights.data_ptr() in pending:
        return None
    return pending
