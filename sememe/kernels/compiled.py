"""The loops of the CPU kernels, compiled by numba on first use and cached beside this file.

Written for arrays, not tensors; :mod:`sememe.kernels.cpu` hands out the chunks. ``fastmath`` lets
sums be vectorised; NaN and infinity keep their meaning.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import xxhash

P = ParamSpec("P")
R = TypeVar("R")
Array = np.ndarray[Any, np.dtype[Any]]
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
SOURCES = xxhash.xxh3_128_hexdigest(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
)
"""What all kernels were compiled from: numba looks only at the file that a function is in, and
would go on with a stale copy of what the function calls in others."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba, cached on disk, without the interpreter lock."""
    # Type checkers of the tests wrap functions; numba needs what is inside.
    plain = inspect.unwrap(function)
    settings = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        fast: Any = numba.njit(cache=True, **settings)(plain)
        if hasattr(fast, "_cache"):  # not where NUMBA_DISABLE_JIT is set
            fast._cache._cache_file._source_stamp = SOURCES
    except RuntimeError:  # nowhere to write a cache
        fast = numba.njit(**settings)(plain)
    return cast("Callable[P, R]", fast)


@compiled
def add_rows(out: Array, W: Array, which: Array, weights: Array, count: int) -> None:
    """Add to ``out`` the first ``count`` rows ``W[which]`` times ``weights``, four at a time."""
    width = out.shape[0]
    e = 0
    while e + 4 <= count:
        w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
        r0, r1, r2, r3 = W[which[e]], W[which[e + 1]], W[which[e + 2]], W[which[e + 3]]
        for j in range(width):
            out[j] += (w0 * r0[j] + w1 * r1[j]) + (w2 * r2[j] + w3 * r3[j])
        e += 4
    while e < count:
        w0 = weights[e]
        r0 = W[which[e]]
        for j in range(width):
            out[j] += w0 * r0[j]
        e += 1


@compiled
def decode_rows(indices: Array, values: Array, W: Array, out: Array) -> None:
    """Write the sum of the active rows of ``W`` for every row of a code."""
    rows, k = indices.shape
    which = np.empty(k, np.int32)
    weights = np.empty(k, values.dtype)
    for row in range(rows):
        count = 0
        for j in range(k):
            if values[row, j] != 0:
                which[count] = indices[row, j]
                weights[count] = values[row, j]
                count += 1
        out[row, :] = 0
        add_rows(out[row], W, which, weights, count)


@compiled
def code_gradient_rows(
    indices: Array, values: Array, W: Array, gradient: Array, out: Array
) -> None:
    """Write ``gradient . W[index]`` for every entry of a code, 0 where there is none."""
    rows, k = indices.shape
    width = W.shape[1]
    for row in range(rows):
        g = gradient[row]
        for j in range(k):
            total = out.dtype.type(0)
            if values[row, j] != 0:
                w = W[indices[row, j]]
                for i in range(width):
                    total += g[i] * w[i]
            out[row, j] = total


@compiled
def reconstruct_rows(
    indices: Array,
    values: Array,
    there: Array,
    W: Array,
    target: Array,
    out: Array,
    sums: Array,
    along: Array,
) -> None:
    """Add the active rows of ``W`` to every row of ``out``, and look at what is left of ``target``.

    ``sums`` becomes the squared distance of every row, ``along`` (out - target) . W[index] for
    every entry that is ``there``, while the rows of ``W`` are still in cache.
    """
    rows, k = indices.shape
    width = W.shape[1]
    which, weights = np.empty(k, np.int32), np.empty(k, values.dtype)
    error = np.empty(width, out.dtype)
    for r in range(rows):
        count = 0
        for j in range(k):
            if values[r, j] != 0:
                which[count] = indices[r, j]
                weights[count] = values[r, j]
                count += 1
        o, t = out[r], target[r]
        add_rows(o, W, which, weights, count)
        total = out.dtype.type(0)
        for i in range(width):
            error[i] = o[i] - t[i]
            total += error[i] * error[i]
        sums[r] = total
        for j in range(k):
            product = out.dtype.type(0)
            if there[r, j] != 0:
                w = W[indices[r, j]]
                for i in range(width):
                    product += error[i] * w[i]
            along[r, j] = product


@compiled
def transpose(indices: Array, coefficients: Array, starts: Array, row: Array, weight: Array) -> int:
    """Sort the entries of a code by feature, rows ascending (counting sort); return how many.

    ``starts`` has one more element than there are features; feature ``f`` has the entries
    ``starts[f]:starts[f + 1]`` of ``row`` and ``weight``. Zero coefficients are left out.
    """
    rows, k = indices.shape
    features = starts.shape[0] - 1
    starts[:] = 0
    for r in range(rows):
        for j in range(k):
            if coefficients[r, j] != 0:
                starts[indices[r, j] + 1] += 1
    for f in range(features):
        starts[f + 1] += starts[f]
    place = starts[:features].copy()
    for r in range(rows):
        for j in range(k):
            if coefficients[r, j] != 0:
                f = indices[r, j]
                row[place[f]] = r
                weight[place[f]] = coefficients[r, j]
                place[f] += 1
    return int(starts[features])


@compiled
def entry_sums(starts: Array, weight: Array, out: Array) -> None:
    """Write the sum of every feature's entries."""
    for f in range(out.shape[0]):
        total = out.dtype.type(0)
        for e in range(starts[f], starts[f + 1]):
            total += weight[e]
        out[f] = total


@compiled
def product_row(starts: Array, row: Array, weight: Array, x: Array, f: int, out: Array) -> None:
    """Write row ``f`` of a gradient, its entries summed in their order."""
    begin, end = starts[f], starts[f + 1]
    out[:] = 0
    add_rows(out, x, row[begin:end], weight[begin:end], end - begin)


@compiled
def product_rows(
    starts: Array, row: Array, weight: Array, x: Array, out: Array, first: int
) -> None:
    """Write the gradient rows of the features from ``first`` on."""
    for f in range(out.shape[0]):
        product_row(starts, row, weight, x, first + f, out[f])


@compiled
def squared_distances(a: Array, b: Array, out: Array) -> None:
    """Write the squared distance of every two rows."""
    for r in range(a.shape[0]):
        p, q = a[r], b[r]
        total = a.dtype.type(0)
        for j in range(p.shape[0]):
            total += (p[j] - q[j]) * (p[j] - q[j])
        out[r] = total


@compiled
def differences(a: Array, b: Array, factor: float, out: Array) -> None:
    """Write ``factor`` (a - b)."""
    by = out.dtype.type(factor)
    for r in range(a.shape[0]):
        p, q, o = a[r], b[r], out[r]
        for j in range(p.shape[0]):
            o[j] = by * (p[j] - q[j])


@compiled
def mark(starts: Array, members: Array, sets: Array, out: Array) -> None:
    """Set ``out`` to true at the members of ``sets``; those of set s begin at ``starts[s]``."""
    for s in sets:
        for e in range(starts[s], starts[s + 1]):
            out[members[e]] = True


@compiled
def count(groups: Array, which: Array, out: Array) -> None:
    """Add to ``out`` how many of ``which`` are in each group; those in none have -1."""
    for i in which:
        group = groups[i]
        if 0 <= group < len(out):
            out[group] += 1


@compiled
def products(rows: Array, vector: Array, step: Array, out: Array) -> None:
    """Write the product of each int8 row with a vector, times the row's step."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            total += np.float32(rows[i, j]) * vector[j]
        out[i] = total * step[i]
