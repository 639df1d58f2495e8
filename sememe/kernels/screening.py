"""Scores in bf16 choose candidates, float32 decides: the same entries for a fraction of the time.

For a row x and a feature with encoder row w and bias b, bf16 copies x~, w~ and a product that adds
in float32 the true score differs from the computed one by at most::

    |w x - w~ x~| <= |w - w~| |x| + |w~| |x - x~|                    (Cauchy-Schwarz)
                     + (width + 8) 2^-23 (|w~| |x~| + |b|)           (sums in float32, both times)
                     + |b - b~| + 2^-100 (1 + |w~| + |x|)            (bias in two parts; underflow)
                     + 2^-8 |score|                                  (the score rounded to bf16)

Norms are taken in float64 of the numbers at hand, so this is a bound and not an estimate. Every
feature whose score could reach what is kept becomes a candidate and is scored again in float32; a
row with more candidates than there is room for, or whose scores could overflow, is scored in
float32 throughout. The bias rides along as two more columns of the product.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sememe.kernels import candidates
from sememe.kernels.candidates import Rows
from sememe.kernels.compiled import Array
from sememe.kernels.memory import empty, scratch
from sememe.kernels.vectors import LANES
from sememe.kernels.workers import share_out
from sememe.processor import fast_bf16

ROWS = 1024
"""Rows scored at once; twice as many of a large batch, which wastes less of the product."""
BLOCK = 512
"""Features scored at once, a power of two: with the rows their scores fit in a core's cache."""
LARGEST_K = 256
FEWEST = (256, 64, 1024)
"""Rows, width and features below which the copies cost more than they save."""
OVERFLOW = 1e37
"""Scores that may come near the largest float32 are not trusted."""
PAD = -1e30
"""Bias of the features that fill up the last lanes."""


@dataclass
class Tally:
    """Rows screened since the program began, and how many of them had to be scored in float32."""

    rows: int = 0
    exact: int = 0


tally = Tally()


class Encoder(NamedTuple):
    """An encoder, its bf16 copy, and what bounds the error of its scores."""

    W: Float[Tensor, "features width"]
    bias: Float[Tensor, " features"]
    low: Float[Tensor, "padded columns"]
    """bf16: the weights, the bias, and what the bias lost in rounding."""
    bounds: Array
    """(features, 3): the error is at most a |x| + b |x - x~| + c."""
    blocks: Array
    """(blocks, 3): their maxima over each block of features."""
    most: float
    """What |w| |x| must stay below so that no score overflows."""


class Found(NamedTuple):
    """Entries of some rows, with their true scores."""

    features: Array
    """(rows, room)"""
    scores: Array
    """(rows, room), float32"""
    counts: Array
    """Entries of each row; -1 where the row has to be scored in float32."""


def suits(x: Float[Tensor, "rows width"], W: Float[Tensor, "features width"], k: int = 1) -> bool:
    """Whether screening pays here; ``SEMEME_SCREENING=0`` in the environment turns it off."""
    sizes = *x.shape, len(W)
    large = all(size >= least for size, least in zip(sizes, FEWEST, strict=True))
    wanted = os.environ.get("SEMEME_SCREENING", "1") != "0"
    return large and k <= LARGEST_K and wanted and fast_bf16()


def prepare(W: Float[Tensor, "features width"], bias: Float[Tensor, " features"]) -> Encoder:
    """Copy an encoder to bf16 and bound what that loses."""
    features, width = W.shape
    padded = -(-features // LANES) * LANES
    low = empty(padded, width + 2, dtype=np.int16).view(torch.bfloat16)
    norms, errors = np.empty(features), np.empty(features)

    def copy(a: int, b: int) -> None:
        candidates.to_bf16(W[a:b].numpy(), _bits(low[a:b]), norms[a:b], errors[a:b])

    share_out(copy, features, BLOCK)
    low[features:] = 0
    low[features:, width] = PAD
    low[:features, width] = bias
    low[:features, width + 1] = bias - low[:features, width]
    lost = (bias.double() - low[:features, width:].double().sum(1)).abs().numpy()
    size = bias.double().abs().numpy()
    sums, tiny = (width + 8) * 2.0**-23, 2.0**-100
    both = (1 + 2 * sums) * (norms + errors)
    last = lost + sums * size + tiny * (1 + norms + errors)
    bounds = np.stack([errors + sums * both + tiny, both, last], axis=1)
    blocks = np.maximum.reduceat(bounds, np.arange(0, features, BLOCK), axis=0)
    return Encoder(W, bias, low, bounds, blocks, OVERFLOW - float(size.max()))


def screen(
    x: Float[Tensor, "rows width"],
    encoder: Encoder,
    k: int,
    floor: float,
    room: int,
    use: Callable[[int, int, Found], None],
) -> None:
    """Call ``use(start, stop, found)`` for chunks of rows, with all that can be among what is kept.

    Kept are scores above ``floor`` >= 0, with ``k`` > 0 the largest ``k`` of those in every row:
    ``found`` holds them and perhaps some more. ``room`` is how many candidates a row may have.
    """

    exact: list[int] = []

    def chunk(a: int, b: int) -> None:
        found = _find(x[a:b], encoder, k, floor, room)
        exact.append(int((found.counts < 0).sum()))
        use(a, b, found)

    share_out(chunk, len(x), ROWS if len(x) < 4 * ROWS else 2 * ROWS)
    tally.rows += len(x)
    tally.exact += sum(exact)


def low_scores(x: Float[Tensor, "rows width"], encoder: Encoder) -> Float[Tensor, "rows padded"]:
    """Return the bf16 scores of some rows, those of padding included."""
    return _low(x, np.empty(len(x)), np.empty(len(x))) @ encoder.low.T


def _find(
    x: Float[Tensor, "rows width"], encoder: Encoder, k: int, floor: float, room: int
) -> Found:
    count = len(x)
    rows = Rows(
        norms=np.empty(count),
        errors=np.empty(count),
        lower=np.empty(count),
        features=scratch("features", (count, room + LANES), np.int32),
        keys=scratch("keys", (count, room + LANES), np.int16),
        counts=np.empty(count, np.int32),
    )
    low = _low(x, rows.norms, rows.errors)
    widest = encoder.blocks.max(0)
    candidates.begin(rows, widest[1], encoder.most, floor)
    for first, block in zip(range(0, len(encoder.W), BLOCK), encoder.blocks, strict=True):
        part = encoder.low[first : first + BLOCK]
        bits = scratch("low scores", (count, len(part)), np.int16)
        torch.mm(low, part.T, out=torch.from_numpy(bits).view(torch.bfloat16))
        candidates.scan(bits, first, k, widest, block, rows)
    features = scratch("found", (count, room + LANES), np.int32)
    scores = scratch("scores", (count, room + LANES), np.float32)
    inputs = x.numpy(), encoder.W.numpy(), encoder.bias.numpy()
    candidates.rescore(*inputs, encoder.bounds, widest, k, floor, rows, features, scores)
    return Found(features, scores, rows.counts)


def _low(
    x: Float[Tensor, "rows width"], norms: Array, errors: Array
) -> Float[Tensor, "rows columns"]:
    """Return the bf16 copy of some rows, in this thread's scratch memory.

    Write their norms, and those of what the copy lacks.
    """
    bits = scratch("low rows", (len(x), x.shape[1] + 2), np.int16)
    candidates.to_bf16(x.numpy(), bits, norms, errors)
    low = torch.from_numpy(bits).view(torch.bfloat16)
    low[:, -2:] = 1
    return low


def _bits(low: Tensor) -> Array:
    bits: Array = low.view(torch.int16).numpy()
    return bits
