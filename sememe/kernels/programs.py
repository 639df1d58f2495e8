"""The programs of the GPU kernels, compiled by Triton on first use.

Each instance writes one tile of an output; :mod:`sememe.kernels.gpu` says how many there are.
Arguments without a type of their own are pointers to row-major tensors, or sizes. Sums are made in
float32, whatever the inputs are.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def program(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Make ``function`` a Triton program."""
    # Type checkers of the tests wrap functions; Triton needs what is inside.
    return triton.jit(inspect.unwrap(function))


@program
def score_bits(
    x: tl.tensor,
    W: tl.tensor,
    bias: tl.tensor,
    row: tl.tensor,
    feature: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    features: tl.tensor,
    BLOCK_WIDTH: tl.constexpr,
) -> tl.tensor:
    """Return the bits of ``x W^T + bias`` at (row, feature), rounded to x's dtype, as int32.

    Positive floats order as their bits do. NaN becomes positive, so that it is never lost; places
    outside of the matrix get 0.
    """
    x_rows = x + row.to(tl.int64)[:, None] * width
    W_rows = W + feature.to(tl.int64)[None, :] * width
    total = tl.zeros((row.shape[0], feature.shape[0]), tl.float32)
    for start in range(0, width, BLOCK_WIDTH):
        column = start + tl.arange(0, BLOCK_WIDTH)
        in_x = (row < rows)[:, None] & (column < width)[None, :]
        in_W = (feature < features)[None, :] & (column < width)[:, None]
        a = tl.load(x_rows + column[None, :], mask=in_x, other=0.0)
        b = tl.load(W_rows + column[:, None], mask=in_W, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    total += tl.load(bias + feature, mask=feature < features, other=0.0).to(tl.float32)[None, :]
    score = total.to(x.dtype.element_ty).to(tl.float32)
    bits = tl.where(score == score, score.to(tl.int32, bitcast=True), 0x7FC00000)
    return tl.where((row < rows)[:, None] & (feature < features)[None, :], bits, 0)


@program
def largest_of_tile(
    x: tl.tensor,
    W: tl.tensor,
    bias: tl.tensor,
    keys: tl.tensor,
    keep: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    features: tl.tensor,
    tiles: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Write the ``keep`` largest positive scores of each row among a tile of features, as keys.

    A key holds the score's bits above the feature's distance from 2^31 - 1: it orders by score,
    then by lower feature, and is 0 where there is no score. The features of a tile are spread over
    the whole dictionary, since neighbours may be active together. ``keys`` is (rows, tiles, keep).
    """
    row_blocks = tl.cdiv(rows, BLOCK_ROWS)
    tile = tl.program_id(0) // row_blocks
    row = tl.program_id(0) % row_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    feature = tile + tiles * tl.arange(0, BLOCK_FEATURES)
    bits = score_bits(x, W, bias, row, feature, rows, width, features, BLOCK_WIDTH)
    key = (bits.to(tl.int64) << 32) | (0x7FFFFFFF - feature).to(tl.int64)[None, :]
    key = tl.where(bits > 0, key, 0)
    out = keys + (row.to(tl.int64) * tiles + tile) * keep
    for place in range(keep):
        largest = tl.max(key, axis=1)
        tl.store(out + place, largest, mask=row < rows)
        key = tl.where(key == largest[:, None], 0, key)


@program
def entries_of_tile(
    x: tl.tensor,
    W: tl.tensor,
    bias: tl.tensor,
    counts: tl.tensor,
    starts: tl.tensor,
    found_features: tl.tensor,
    found_bits: tl.tensor,
    floor: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    features: tl.tensor,
    tiles: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Count a tile's scores whose bits reach ``floor``; with ``starts`` write them from there on.

    ``counts`` and ``starts`` are (rows, tiles). While counting, ``starts`` and what is found are
    None.
    """
    row_blocks = tl.cdiv(rows, BLOCK_ROWS)
    tile = tl.program_id(0) // row_blocks
    row = tl.program_id(0) % row_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    feature = tile * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    bits = score_bits(x, W, bias, row, feature, rows, width, features, BLOCK_WIDTH)
    there = bits >= floor
    place = row.to(tl.int64) * tiles + tile
    if starts is None:
        tl.store(counts + place, tl.sum(there.to(tl.int32), axis=1), mask=row < rows)
    else:
        start = tl.load(starts + place, mask=row < rows, other=0)
        at = start[:, None] + tl.cumsum(there.to(tl.int32), axis=1) - 1
        tl.store(found_features + at, tl.broadcast_to(feature[None, :], at.shape), mask=there)
        tl.store(found_bits + at, bits, mask=there)


@program
def sum_of_rows(
    starts: tl.tensor,
    which: tl.tensor,
    weights: tl.tensor,
    table: tl.tensor,
    out: tl.tensor,
    totals: tl.tensor,
    width: tl.tensor,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Write the weighted sum of the rows of ``table`` that an output row's entries name.

    Output row i has the entries ``starts[i]:starts[i + 1]`` of ``which`` and ``weights``. Their
    weights' sum goes to ``totals`` unless that is None.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    end = tl.load(starts + row + 1)
    total = tl.zeros((BLOCK_WIDTH,), tl.float32)
    weight_total = tl.zeros((BLOCK_ENTRIES,), tl.float32)
    for start in range(tl.load(starts + row), end, BLOCK_ENTRIES):
        entry = start + tl.arange(0, BLOCK_ENTRIES)
        weight = tl.load(weights + entry, mask=entry < end, other=0.0).to(tl.float32)
        source = tl.load(which + entry, mask=entry < end, other=0).to(tl.int64)
        there = (weight != 0)[:, None] & (column < width)[None, :]
        at = source[:, None] * width + column[None, :]
        total += tl.sum(weight[:, None] * tl.load(table + at, mask=there, other=0.0), axis=0)
        weight_total += weight
    tl.store(out + row * width + column, total, mask=column < width)
    if totals is not None:
        tl.store(totals + row, tl.sum(weight_total, axis=0), mask=tl.program_id(1) == 0)


@program
def products_with_rows(
    indices: tl.tensor,
    values: tl.tensor,
    W: tl.tensor,
    gradient: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    k: tl.tensor,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Write ``gradient . W[index]`` for a block of a row's entries, 0 where there is none."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.program_id(1) * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    there = tl.load(values + row * k + entry, mask=entry < k, other=0.0) != 0
    feature = tl.load(indices + row * k + entry, mask=there, other=0).to(tl.int64)
    total = tl.zeros((BLOCK_ENTRIES,), tl.float32)
    for start in range(0, width, BLOCK_WIDTH):
        column = start + tl.arange(0, BLOCK_WIDTH)
        g = tl.load(gradient + row * width + column, mask=column < width, other=0.0)
        at = feature[:, None] * width + column[None, :]
        w = tl.load(W + at, mask=there[:, None] & (column < width)[None, :], other=0.0)
        total += tl.sum(w.to(tl.float32) * g.to(tl.float32)[None, :], axis=1)
    tl.store(out + row * k + entry, total, mask=entry < k)


@program
def adam_row(
    parameter: tl.tensor,
    gradient: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    width: tl.tensor,
    rate: tl.tensor,
    new1: tl.tensor,
    new2: tl.tensor,
    correction2: tl.tensor,
    epsilon: tl.tensor,
    UNIT_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Step a block of a row by Adam; with ``UNIT_ROWS`` the block is the whole row.

    ``rate`` holds the first moment's bias correction; ``new1`` and ``new2`` are 1 - beta.
    """
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    at = tl.program_id(0).to(tl.int64) * width + column
    there = column < width
    p = tl.load(parameter + at, mask=there, other=0.0).to(tl.float32)
    g = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32)
    m = tl.load(first + at, mask=there, other=0.0).to(tl.float32)
    v = tl.load(second + at, mask=there, other=0.0).to(tl.float32)
    if UNIT_ROWS:
        g -= tl.sum(g * p, axis=0) * p
    m += new1 * (g - m)
    v += new2 * (g * g - v)
    p -= rate * m / (tl.sqrt(v / correction2) + epsilon)
    if UNIT_ROWS:
        p /= tl.sqrt(tl.sum(p * p, axis=0))
    tl.store(parameter + at, p, mask=there)
    tl.store(first + at, m, mask=there)
    tl.store(second + at, v, mask=there)
