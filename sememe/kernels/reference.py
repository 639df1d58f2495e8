"""Every kernel in plain torch: the definition the others are held to, and what runs without numba.

Axis names: rows (activations), width (of an activation), features, k (entries of a code).
Each works on any device and floating dtype. Rows are taken in chunks so that no buffer of rows x k
x width is ever made whole.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sememe.kernels.code import Code
from sememe.kernels.products import Products

CHUNK = 512


def encode_topk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """Return the ``k`` largest positive entries of ``x W_enc^T + bias`` in every row.

    Entries come largest first; equal values come by ascending feature, and the lower features win
    when not all of them fit. Rows with fewer than ``k`` positive scores end with entries (0, 0).
    """
    codes = [_topk_of(part @ W_enc.T + bias, k) for part in x.split(CHUNK)]
    return Code(torch.cat([c.indices for c in codes]), torch.cat([c.values for c in codes]))


def _topk_of(scores: Float[Tensor, "rows features"], k: int) -> Code:
    ordered = scores.clamp_min(0).sort(dim=1, descending=True, stable=True)
    values = ordered.values[:, :k].contiguous()
    indices = ordered.indices[:, :k].where(values != 0, 0).to(torch.int32)
    return Code(indices, values)


def encode_batchtopk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """Return the ``k`` x rows largest positive entries of ``x W_enc^T + bias`` over all rows.

    Of equal values at the edge the earlier row wins, then the lower feature. Entries of a row come
    by ascending feature, and a row that has fewer than the fullest ends with entries (0, 0).
    """
    scores = torch.cat([part @ W_enc.T + bias for part in x.split(CHUNK)])
    flat = scores.clamp_min(0).flatten().sort(descending=True, stable=True)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept.view(-1)[flat.indices[: k * x.shape[0]]] = True
    return _entries(scores, kept & ~(scores <= 0))


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """Return every positive entry of ``x W_enc^T + bias``.

    Entries of a row come by ascending feature, and a row that has fewer than the fullest ends with
    entries (0, 0).
    """
    scores = torch.cat([part @ W_enc.T + bias for part in x.split(CHUNK)])
    return _entries(scores, ~(scores <= 0))


def _entries(scores: Float[Tensor, "rows features"], kept: Bool[Tensor, "rows features"]) -> Code:
    row, feature = kept.nonzero(as_tuple=True)
    return padded(row, feature, scores[row, feature], len(scores))


def padded(
    row: Int[Tensor, " n"], feature: Int[Tensor, " n"], values: Float[Tensor, " n"], rows: int
) -> Code:
    """Return the code of entries ordered by row, as wide as the fullest of ``rows`` rows."""
    counts = torch.bincount(row, minlength=rows)
    width = int(counts.max()) if rows else 0
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    indices = torch.zeros(rows, width, dtype=torch.int32, device=row.device)
    padded_values = values.new_zeros(rows, width)
    indices[row, place] = feature.to(torch.int32)
    padded_values[row, place] = values
    return Code(indices, padded_values)


def decode(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
) -> Float[Tensor, "rows width"]:
    """Return, for every row, the sum of the rows of ``W`` at ``indices`` weighted by ``values``."""
    parts = [
        torch.einsum("rk,rkw->rw", v, W[i.long()])
        for i, v in zip(indices.split(CHUNK), values.split(CHUNK), strict=True)
    ]
    return torch.cat(parts)


def code_gradient(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    gradient: Float[Tensor, "rows width"],
) -> Float[Tensor, "rows k"]:
    """Return ``gradient . W[index]`` for every entry, 0 where there is no entry."""
    parts = [
        torch.einsum("rw,rkw->rk", g, W[i.long()])
        for i, g in zip(indices.split(CHUNK), gradient.split(CHUNK), strict=True)
    ]
    return torch.cat(parts) * (values != 0)


def reconstruct(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    there: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    base: Float[Tensor, "some width"],
    target: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, ""], Float[Tensor, "rows k"]]:
    """Return the residual of a reconstruction, its summed square, and what that says of the code.

    The first is ``target`` - ``base`` (of every row, or one row for all) - :func:`decode`; the last
    is half the sum's gradient by the values of the entries that are ``there``, 0 elsewhere.
    """
    residual = target - base - decode(indices, values, W)
    return residual, residual.square().sum(), -code_gradient(indices, there, W, residual)


def weight_gradient(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    features: int,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, " features"]]:
    """Return for every feature the sum of coefficient x row over its entries, and of coefficients.

    The first is the gradient of a weight matrix, the second that of a bias.
    """
    weight = x.new_zeros(features, x.shape[1])
    for i, c, part in zip(
        indices.split(CHUNK), coefficients.split(CHUNK), x.split(CHUNK), strict=True
    ):
        for entry in range(i.shape[1]):
            weight.index_add_(0, i[:, entry].long(), c[:, entry, None] * part)
    bias = x.new_zeros(features)
    bias.index_add_(0, indices.flatten().long(), coefficients.flatten())
    return weight, bias


def squared_distance(
    a: Float[Tensor, "rows width"], b: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Return the sum of (a - b)^2."""
    return (a - b).square().sum()


def difference(
    a: Float[Tensor, "rows width"], b: Float[Tensor, "rows width"], factor: Float[Tensor, ""]
) -> Float[Tensor, "rows width"]:
    """Return ``factor`` (a - b)."""
    return (a - b) * factor


def adam_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"] | Products,
    first: Float[Tensor, "features width"] | None,
    second: Float[Tensor, "features width"],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    unit_rows: bool,
) -> None:
    """One step of Adam on ``parameter`` and its moments, in place.

    With ``unit_rows`` the part of the gradient along each row is taken away first, and rows are
    scaled back to norm 1 after the step. ``step`` counts from 1. There is no ``first`` where its
    beta is 0.
    """
    gradient = _across(parameter, gradient, unit_rows)
    moved = gradient
    if first is not None:
        moved = first.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    scale = (second / (1 - betas[1] ** step)).sqrt_().add_(epsilon)
    parameter.addcdiv_(moved, scale, value=-learning_rate / (1 - betas[0] ** step))
    if unit_rows:
        parameter.div_(parameter.norm(dim=1, keepdim=True))


def adafactor_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"] | Products,
    rows: Float[Tensor, " features"],
    columns: Float[Tensor, " width"],
    *,
    step: int,
    learning_rate: float,
    beta: float,
    epsilon: float,
    unit_rows: bool,
) -> None:
    """One step of Adafactor (1804.04235) on ``parameter`` and its moments, in place.

    The mean squared gradient of an element is estimated by those of its row and its column:
    ``rows`` x ``columns`` / mean(``columns``). Those of columns are of the steps before, so that a
    row needs its own gradient alone. Without momentum, clipping and relative steps, which are the
    paper's too; ``unit_rows`` as for Adam.
    """
    gradient = _across(parameter, gradient, unit_rows)
    square = gradient.square()
    rows.lerp_(square.mean(1), 1 - beta)
    scale = (rows / (1 - beta**step)).sqrt_().add_(epsilon)
    parameter.sub_(gradient * (learning_rate / scale)[:, None] * column_factors(columns))
    if unit_rows:
        parameter.div_(parameter.norm(dim=1, keepdim=True))
    columns.lerp_(square.mean(0), 1 - beta)


def column_factors(columns: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Return what Adafactor multiplies each column's step by; 1 for one without gradients so far.

    At least one column has to have had some; before that all are 1.
    """
    factors = (columns.mean() / columns).sqrt()
    return factors.where(columns > 0, 1.0)


def _across(
    parameter: Float[Tensor, "features width"], gradient: Tensor | Products, unit_rows: bool
) -> Float[Tensor, "features width"]:
    """Return the gradient added up, with ``unit_rows`` without what is along each row."""
    summed = gradient.dense() if isinstance(gradient, Products) else gradient
    return summed - (summed * parameter).sum(1, keepdim=True) * parameter if unit_rows else summed
