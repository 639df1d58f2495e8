"""Scores and codes: what nonlinearities work with, dense where many features are active."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sememe.kernels import Code, encode_positive, gather, scores

Values = Code | Tensor
"""Feature values of some rows: sparse, or dense as (rows, features)."""
ROWS = 512
PROBE_ROWS = 64
SPARSE = 1 / 16
"""Largest share of active features at which entries are cheaper than a dense matrix."""


class Encoder(NamedTuple):
    """What turns a scaled, centred input into scores."""

    W: Float[Tensor, "features width"]
    bias: Float[Tensor, " features"]
    extra: Mapping[str, Tensor]
    """What the nonlinearity keeps beside: thresholds, gates."""
    W_dec: Float[Tensor, "features write_width"]
    """What features stand for, for kinds that look at what a code leaves unexplained."""


class Activity(NamedTuple):
    """What training sees of the features of some rows."""

    values: Values
    present: Tensor | None = None
    """Entries of ``values`` (not 0) that get a gradient, where some of value 0 do."""
    l0: Tensor | None = None
    """Mean number of active features, where it is differentiable."""
    gate: Values | None = None
    """What decides whether a feature is active, where that is not its value."""
    earlier: tuple["Activity", ...] = ()
    """What was active before, for kinds that look again."""
    wider: Code | None = None
    """The code of a larger k that ``values`` are the first entries of, where one is asked for."""


class Scores(NamedTuple):
    """Scores of some rows: all of them, or the entries above a floor."""

    values: Tensor
    """(rows, features), or (rows, entries)."""
    indices: Tensor | None = None
    """Features of the entries, int32; None where all features are there."""
    there: Tensor | None = None
    """Which of the entries are there, bool: rows may have fewer than others."""

    def of(self, parameter: Float[Tensor, " features"]) -> Tensor:
        """Return the parameter of each score's feature."""
        return parameter if self.indices is None else gather(parameter, self.indices)

    def like(self, values: Tensor) -> Values:
        """Return ``values`` as feature values at the same places."""
        return values if self.indices is None else Code(self.indices, values)

    def positive(self) -> Values:
        """Return the scores above 0 as feature values."""
        return self.like(self.values.relu())


def scores_above(x: Float[Tensor, "rows width"], encoder: Encoder, floor: Tensor) -> Scores:
    """Return the scores that exceed ``floor`` (a number, or one a feature), differentiable.

    Dense where many do, which the first rows tell.
    """
    with torch.no_grad():
        probe = x[:PROBE_ROWS] @ encoder.W.T + (encoder.bias - floor)
        crowded = len(probe) == 0 or float((probe > 0).float().mean()) > SPARSE
    if crowded:
        return Scores(scores(x, encoder.W, encoder.bias))
    code = encode_positive(x, encoder.W, encoder.bias - floor)
    there = code.values > 0
    at = floor[code.indices.long()] if floor.ndim else floor
    return Scores(code.values + at, code.indices, there)


class Jump(torch.autograd.Function):
    """The step with its stand-in gradients; also how many scores are above their thresholds.

    Few scores are near their threshold, and only these teach it.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        z: Tensor,
        threshold: Tensor,
        there: Tensor | None,
        bandwidth: float,
    ) -> tuple[Tensor, Tensor]:
        off = z <= threshold  # not of NaN, so that training sees it
        if there is not None:
            off |= ~there
        ctx.save_for_backward(z, threshold, off, there)
        ctx.bandwidth = bandwidth
        return z.masked_fill(off, 0), (z.numel() - off.sum()).to(z.dtype)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        to_values: Tensor,
        to_active: Tensor,
    ) -> tuple[Tensor, Tensor, None, None]:
        z, threshold, off, there = ctx.saved_tensors
        window = (z - threshold).abs_() < ctx.bandwidth / 2
        if there is not None:
            window &= there
        rows, columns = window.nonzero(as_tuple=True)
        near = threshold.expand_as(z)[rows, columns]
        share = -(near * to_values[rows, columns] + to_active) / ctx.bandwidth
        if threshold.ndim < z.ndim:
            summed = torch.bincount(columns, share, minlength=len(threshold)).to(z.dtype)
        else:
            summed = torch.zeros_like(z).index_put_((rows, columns), share)
        return to_values.masked_fill(off, 0), summed, None, None


def pack(values: Values) -> Code:
    """Return non-negative feature values as a code, largest first in every row."""
    if isinstance(values, Code):
        ordered = values.values.sort(dim=1, descending=True, stable=True)
        k = int((values.values > 0).sum(1).max()) if values.values.numel() else 0
        kept = ordered.values[:, :k].contiguous()
        indices = values.indices.gather(1, ordered.indices[:, :k])
    else:
        k = int((values > 0).sum(1).max()) if values.numel() else 0
        kept, indices = values.topk(k, dim=1)
    return Code(indices.where(kept > 0, 0).to(torch.int32), kept)


def in_parts(
    x: Float[Tensor, "rows width"], encode: Callable[[Float[Tensor, "rows width"]], Code]
) -> Code:
    """Encode rows part by part; return one code, as wide as the fullest row needs."""
    codes = [encode(part) for part in x.split(ROWS)]
    k = max((code.values.shape[1] for code in codes), default=0)
    padded = [[pad(part, (0, k - part.shape[1])) for part in code] for code in codes]
    indices, values = (torch.cat(parts) for parts in zip(*padded, strict=True))
    return Code(indices, values)
