"""The neurons of a site beside the features: which vary with a feature, which it is made of.

A neuron is one number of the site's activations. Sums of products are exact: both factors are
rounded to multiples of 2^-10, and a sum of such products below 2^33 loses nothing in double
precision, so that it is the same in whatever order and in however many parts it is made.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float

from sememe.artefacts import atomic_path
from sememe.atlas.firings import ShardFirings
from sememe.atlas.ranked import Ranked
from sememe.atlas.store import mapped
from sememe.kernels.compiled import Array, compiled
from sememe.kernels.workers import share_out

NEURONS_SHOWN = 10
STEP = 2.0**-10
ROWS, FEATURES = 1024, 512
"""Rows and features that are looked at before others are taken."""


class NeuronSums(NamedTuple):
    """Sums over rows of what the correlation of features and neurons is made of."""

    products: Array
    """(features, width) sums of value times activation, scaled."""
    total: Array
    """(width,) sums of activations."""
    squares: Array
    """(width,) sums of their squares."""

    @classmethod
    def empty(cls, features: int, width: int) -> "NeuronSums":
        """Return the sums over no rows."""
        return cls(np.zeros((features, width)), np.zeros(width), np.zeros(width))

    def add(
        self,
        firings: ShardFirings,
        chunks: Iterable[Float[torch.Tensor, "rows width"]],
        scale: Array,
    ) -> None:
        """Add the rows of a shard, in ``chunks``; ``scale`` is what columns are multiplied by."""
        value = _rounded(firings.value)
        at, end = firings.starts[:-1].copy(), np.empty(len(firings.starts) - 1, np.int64)
        begun, factor = 0, (scale / np.float32(STEP)).astype(np.float32)
        for chunk in chunks:
            x = chunk.numpy()
            _find(firings.starts, firings.row, at, begun + len(x), end)
            tile = self._rounded_rows(x, factor)

            def add(
                first: int, last: int, tile: Array = tile, end: Array = end, begun: int = begun
            ) -> None:
                _products(
                    firings.row, value, at[first:last], end[first:last], begun, tile,
                    self.products[first:last],
                )  # fmt: skip

            share_out(add, len(end), FEATURES)
            at[:] = end
            begun += len(x)

    def _rounded_rows(self, x: Array, factor: Array) -> Array:
        """Return rows rounded, and add up the sums of each column and of its squares."""
        rounded = np.empty(x.shape, np.float32)
        spans = -(-len(x) // ROWS)
        sums = np.zeros((2, spans, x.shape[1]))

        def look(first: int, last: int) -> None:
            _round(x[first:last], factor, rounded[first:last], *sums[:, first // ROWS])

        share_out(look, len(x), ROWS)
        for whole, some in zip((self.total, self.squares), sums.sum(axis=1), strict=True):
            whole += some
        return rounded

    def save(self, path: Path) -> None:
        """Write to a file."""
        with atomic_path(path) as partial:
            safetensors.numpy.save_file(self._asdict(), partial)

    def correlations(self, first: int, total: Array, squares: Array, rows: int) -> Ranked:
        """Return the neurons that correlate most with the features from ``first`` on.

        ``total`` and ``squares`` are the features' sums of values and of squared values. Largest
        absolute Pearson correlation first.
        """
        products = self.products[first : first + len(total)]
        covariance = products - total[:, None] * (self.total / rows)
        spread = (squares - total**2 / rows)[:, None] * (self.squares - self.total**2 / rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(spread > 0, covariance / np.sqrt(spread), 0.0)
        return _largest(np.clip(found, -1.0, 1.0))


class MergedSums:
    """The sums of all parts, read from their files some features at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def correlations(self, first: int, total: Array, squares: Array, rows: int) -> Ranked:
        """See :meth:`NeuronSums.correlations`."""
        mine = slice(first, first + len(total))
        parts = [mapped(path) for path in self.paths]  # anew, so that what was read is let go
        sums = NeuronSums(
            reduce(np.add, [part["products"][mine] for part in parts]),
            reduce(np.add, [part["total"] for part in parts]),
            reduce(np.add, [part["squares"] for part in parts]),
        )
        return sums.correlations(0, total, squares, rows)


@compiled
def _rounded(values: Array) -> Array:
    rounded = np.empty(len(values))
    for e in range(len(values)):
        rounded[e] = np.rint(np.float64(values[e]) / STEP) * STEP
    return rounded


@compiled
def _find(starts: Array, rows: Array, at: Array, stop: int, end: Array) -> None:
    """Write where each feature's entries from ``at`` on reach row ``stop``."""
    for f in range(len(end)):
        e = at[f]
        while e < starts[f + 1] and rows[e] < stop:
            e += 1
        end[f] = e


@compiled
def _round(x: Array, factor: Array, rounded: Array, sums: Array, squares: Array) -> None:
    """Write rows times ``factor`` in whole steps, and add up each column and its squares."""
    rows, width = x.shape
    for r in range(rows):
        for j in range(width):
            value = np.rint(x[r, j] * factor[j]) * np.float32(STEP)
            rounded[r, j] = value
            sums[j] += np.float64(value)
            squares[j] += np.float64(value) * np.float64(value)


@compiled
def _products(
    rows: Array, values: Array, at: Array, end: Array, begun: int, x: Array, out: Array
) -> None:
    """Add every feature's entries from ``at`` to ``end``, times their rows of ``x``."""
    width = x.shape[1]
    for f in range(len(at)):
        e, last, total = at[f], end[f], out[f]
        while e + 4 <= last:
            v0, v1, v2, v3 = values[e], values[e + 1], values[e + 2], values[e + 3]
            x0, x1 = x[rows[e] - begun], x[rows[e + 1] - begun]
            x2, x3 = x[rows[e + 2] - begun], x[rows[e + 3] - begun]
            for j in range(width):
                total[j] += (v0 * np.float64(x0[j]) + v1 * np.float64(x1[j])) + (
                    v2 * np.float64(x2[j]) + v3 * np.float64(x3[j])
                )
            e += 4
        while e < last:
            v0, x0 = values[e], x[rows[e] - begun]
            for j in range(width):
                total[j] += v0 * np.float64(x0[j])
            e += 1


def basis(decoder: Float[torch.Tensor, "features width"]) -> Ranked:
    """Return the largest entries of each decoder row, by size."""
    return _largest(decoder.numpy())


def participation(decoder: Float[torch.Tensor, "features width"]) -> Array:
    """(features,) share of the neurons that a decoder row is spread over.

    The participation ratio (sum w^2)^2 / sum w^4 over the width: 1 / width for one neuron, 1 where
    all weigh the same.
    """
    share: Array = torch.cat([*map(_participation, decoder.split(ROWS))]).numpy()
    return share


def _participation(rows: Float[torch.Tensor, "n width"]) -> Float[torch.Tensor, " n"]:
    squares = rows.square()
    ratio = squares.sum(1).square() / squares.square().sum(1).clamp_min(1e-30)
    return ratio / rows.shape[1]


def _largest(values: Array) -> Ranked:
    """Return the largest by size of each row, as signed numbers."""
    shown = min(NEURONS_SHOWN, values.shape[1])
    size = -np.abs(values)
    best = np.argpartition(size, shown - 1, axis=1)[:, :shown]
    best.sort(axis=1)
    order = np.argsort(np.take_along_axis(size, best, axis=1), axis=1, kind="stable")
    which = np.take_along_axis(best, order, axis=1)
    amount = np.take_along_axis(values, which, axis=1)
    which = np.where(amount == 0, -1, which)
    return Ranked(which.astype(np.int32), amount.astype(np.float32))
