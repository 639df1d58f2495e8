"""Triton twins of the reference kernels, for float32 and bfloat16 tensors on a GPU.

Tested in Triton's interpreter and compiled for sm_80 and sm_90, but never yet run or timed on a
real GPU: block sizes are guesses. No result depends on the order in which programs run.
"""

from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from sememe.kernels import programs, reference
from sememe.kernels.code import Code

ROWS = 64
FEATURES = 128
"""Rows and features of one tile of the encoder product."""
ENTRIES = 16
WIDTH = 256
"""Entries gathered at once, and the columns taken of each."""
SPAN = 1024
"""Columns of a step of Adam where rows are not renormalised."""
CANDIDATES = 2**25
"""Keys held at once while the largest of a row are merged (256 MiB)."""

squared_distance = reference.squared_distance
difference = reference.difference
adafactor_rows = reference.adafactor_rows


def encode_topk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_topk`.

    Every tile keeps a few times its share of the k. Where a tile's last candidate is among a row's
    largest, others may be missing, and the row is encoded anew by the reference.
    """
    tiles = triton.cdiv(W_enc.shape[0], FEATURES)
    keep = 4 + 4 * triton.cdiv(k, tiles)
    if keep > FEATURES // 4:
        return reference.encode_topk(x, W_enc, bias, k)
    codes = []
    for part in x.split(max(1, CANDIDATES // (tiles * keep))):
        keys = _largest_of_tiles(part, W_enc, bias, keep)
        ranked = keys.flatten(1).topk(k, dim=1).values
        values = _floats((ranked >> 32).to(torch.int32), x.dtype)
        indices = _features(ranked).where(ranked > 0, 0)
        overfull = (keys[:, :, -1] >= ranked[:, -1:].clamp_min(1)).any(1).nonzero().flatten()
        if len(overfull):
            again = reference.encode_topk(part[overfull], W_enc, bias, k)
            indices[overfull], values[overfull] = again.indices, again.values
        codes.append(Code(indices, values))
    return Code(torch.cat([c.indices for c in codes]), torch.cat([c.values for c in codes]))


def encode_batchtopk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_batchtopk`.

    The largest candidates of all tiles bound the smallest value kept from below. Where a tile's
    last candidate reaches that bound, everything that does is looked up in two more passes.
    """
    rows, budget = len(x), k * len(x)
    tiles = triton.cdiv(W_enc.shape[0], FEATURES)
    keep = min(FEATURES, 8 + 8 * triton.cdiv(k, tiles))
    keys = _largest_of_tiles(x, W_enc, bias, keep)
    scores = keys.flatten() >> 32
    floor = max(1, int(scores.topk(budget).values[-1])) if budget else 1
    if (keys[:, :, -1] >> 32 >= floor).any():
        row, feature, bits = _entries_above(x, W_enc, bias, floor)
    else:
        row, feature, bits = _candidates_above(keys.flatten(1), floor)
    if len(bits) > budget:
        edge = bits.topk(budget).values[-1]
        above, equal = bits > edge, bits == edge
        kept = above | (equal & (equal.cumsum(0) <= budget - above.sum()))
        row, feature, bits = row[kept], feature[kept], bits[kept]
    return reference.padded(row, feature, _floats(bits, x.dtype), rows)


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """See :func:`sememe.kernels.reference.encode_positive`."""
    row, feature, bits = _entries_above(x, W_enc, bias, 1)
    return reference.padded(row, feature, _floats(bits, x.dtype), len(x))


def decode(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
) -> Float[Tensor, "rows width"]:
    """See :func:`sememe.kernels.reference.decode`."""
    rows, k = indices.shape
    starts = torch.arange(rows + 1, device=W.device) * k
    out = W.new_empty(rows, W.shape[1])
    _sum_rows(starts, indices, values, W, out, None)
    return out


def code_gradient(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    gradient: Float[Tensor, "rows width"],
) -> Float[Tensor, "rows k"]:
    """See :func:`sememe.kernels.reference.code_gradient`."""
    rows, k = indices.shape
    out = W.new_empty(rows, k)
    inputs = [tensor.contiguous() for tensor in (indices, values, W, gradient)]
    grid = (rows, triton.cdiv(k, ENTRIES))
    blocks = {"BLOCK_ENTRIES": ENTRIES, "BLOCK_WIDTH": WIDTH}
    _run(programs.products_with_rows, grid, *inputs, out, W.shape[1], k, **blocks)
    return out


def reconstruct(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    there: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    base: Float[Tensor, "some width"],
    target: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, ""], Float[Tensor, "rows k"]]:
    """See :func:`sememe.kernels.reference.reconstruct`."""
    residual = target - base - decode(indices, values, W)
    return residual, residual.square().sum(), -code_gradient(indices, there, W, residual)


def weight_gradient(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    features: int,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, " features"]]:
    """See :func:`sememe.kernels.reference.weight_gradient`.

    Entries are sorted by feature first, so that every row of the result is one sum in order of row.
    """
    weights = coefficients.flatten()
    feature, order = indices.flatten().where(weights != 0, features).sort(stable=True)
    every = torch.arange(features + 1, dtype=torch.int32, device=x.device)
    starts = torch.searchsorted(feature, every)
    weight, bias = x.new_empty(features, x.shape[1]), x.new_empty(features)
    _sum_rows(starts, order // max(1, indices.shape[1]), weights[order], x, weight, bias)
    return weight, bias


def adam_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"],
    first: Float[Tensor, "features width"] | None,
    second: Float[Tensor, "features width"],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    unit_rows: bool,
) -> None:
    """See :func:`sememe.kernels.reference.adam_rows`, which steps where there is no ``first``."""
    if first is None:
        reference.adam_rows(
            parameter, gradient, None, second, step=step, learning_rate=learning_rate, betas=betas,
            epsilon=epsilon, unit_rows=unit_rows,
        )  # fmt: skip
        return
    rows, width = parameter.shape
    block = triton.next_power_of_2(width) if unit_rows else SPAN
    _run(
        programs.adam_row,
        (rows, triton.cdiv(width, block)),
        parameter,
        gradient.contiguous(),
        first,
        second,
        width,
        learning_rate / (1 - betas[0] ** step),
        1 - betas[0],
        1 - betas[1],
        1 - betas[1] ** step,
        epsilon,
        UNIT_ROWS=unit_rows,
        BLOCK_WIDTH=block,
        num_warps=min(32, max(4, block // 512)),
    )


def _largest_of_tiles(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    keep: int,
) -> Int[Tensor, "rows tiles keep"]:
    """Return the keys of the ``keep`` largest positive scores of every row in every tile."""
    tiles = triton.cdiv(W.shape[0], FEATURES)
    keys = torch.empty(len(x), tiles, keep, dtype=torch.int64, device=x.device)
    _run_tiles(programs.largest_of_tile, x, W, bias, keys, keep)
    return keys


def _candidates_above(
    keys: Int[Tensor, "rows candidates"], floor: int
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return row, feature and bits of the candidates whose bits reach ``floor``, in that order."""
    row, place = (keys >> 32 >= floor).nonzero(as_tuple=True)
    found = keys[row, place]
    order = ((row << 32) + _features(found)).argsort()
    return row[order], _features(found[order]), (found[order] >> 32).to(torch.int32)


def _entries_above(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    floor: int,
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return row, feature and bits of all scores whose bits reach ``floor``, in that order.

    Two passes over the product: one counts, so that the other knows where to write.
    """
    tiles = triton.cdiv(W.shape[0], FEATURES)
    counts = torch.empty(len(x), tiles, dtype=torch.int32, device=x.device)
    _run_tiles(programs.entries_of_tile, x, W, bias, counts, None, None, None, floor)
    starts = (counts.flatten().cumsum(0) - counts.flatten()).view_as(counts)
    row = torch.arange(len(x), device=x.device).repeat_interleave(counts.sum(1))
    feature, bits = torch.empty(2, len(row), dtype=torch.int32, device=x.device)
    _run_tiles(programs.entries_of_tile, x, W, bias, counts, starts, feature, bits, floor)
    return row, feature, bits


def _features(keys: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    return (0x7FFFFFFF - (keys & 0x7FFFFFFF)).to(torch.int32)


def _floats(bits: Int[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    return bits.view(torch.float32).to(dtype)


def _sum_rows(
    starts: Int[Tensor, " ends"],
    which: Int[Tensor, "..."],
    weights: Float[Tensor, "..."],
    table: Float[Tensor, "n width"],
    out: Float[Tensor, "m width"],
    totals: Float[Tensor, " m"] | None,
) -> None:
    inputs = [tensor.contiguous() for tensor in (starts, which, weights, table)]
    grid = (len(out), triton.cdiv(out.shape[1], WIDTH))
    blocks = {"BLOCK_ENTRIES": ENTRIES, "BLOCK_WIDTH": WIDTH}
    _run(programs.sum_of_rows, grid, *inputs, out, totals, out.shape[1], **blocks)


def _run_tiles(
    program: Any,  # noqa: ANN401
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    *others: Tensor | int | None,
) -> None:
    """Run ``program`` for every tile of ``x W^T``, those of the same features one after another."""
    (rows, width), features = x.shape, W.shape[0]
    tiles = triton.cdiv(features, FEATURES)
    _run(
        program,
        (triton.cdiv(rows, ROWS) * tiles,),
        x.contiguous(),
        W.contiguous(),
        bias.contiguous(),
        *others,
        rows,
        width,
        features,
        tiles,
        BLOCK_ROWS=ROWS,
        BLOCK_FEATURES=FEATURES,
        BLOCK_WIDTH=128 // x.element_size(),
        num_warps=8,
    )


def _run(program: Any, grid: tuple[int, ...], *args: object, **settings: int) -> None:  # noqa: ANN401
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(args[0]):
        program[grid](*args, **settings)
