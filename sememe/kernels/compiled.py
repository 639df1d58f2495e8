"""The loops of the CPU kernels, compiled by numba on first use and cached beside this file.

Written for arrays, not tensors; :mod:`sememe.kernels.cpu` hands out the chunks. ``fastmath`` lets
sums be vectorised; NaN and infinity keep their meaning.
"""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import xxhash

P = ParamSpec("P")
R = TypeVar("R")
Array = np.ndarray[Any, np.dtype[Any]]
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
KERNELS = Path(__file__).parent


@cache
def sources(folder: Path) -> str:
    """Return a hash of what functions of a folder are compiled from: its files, and the kernels.

    numba looks only at the file that a function is in, and would go on with a stale copy of what
    the function calls in others.
    """
    files = sorted({*KERNELS.glob("*.py"), *folder.glob("*.py")})
    return xxhash.xxh3_128_hexdigest(b"".join(path.read_bytes() for path in files))


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba, cached on disk, without the interpreter lock."""
    # Type checkers of the tests wrap functions; numba needs what is inside.
    plain = inspect.unwrap(function)
    settings = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        fast: Any = numba.njit(cache=True, **settings)(plain)
        if hasattr(fast, "_cache"):  # not where NUMBA_DISABLE_JIT is set
            fast._cache._cache_file._source_stamp = sources(Path(inspect.getfile(plain)).parent)
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
def present(indices: Array, values: Array, which: Array, weights: Array) -> int:
    """Write the entries of one row that are there to the front of two arrays; return how many."""
    count = 0
    for j in range(values.shape[0]):
        if values[j] != 0:
            which[count], weights[count] = indices[j], values[j]
            count += 1
    return count


@compiled
def decode_rows(indices: Array, values: Array, W: Array, out: Array) -> None:
    """Write the sum of the active rows of ``W`` for every row of a code."""
    rows, k = indices.shape
    which = np.empty(k, np.int32)
    weights = np.empty(k, values.dtype)
    for row in range(rows):
        count = present(indices[row], values[row], which, weights)
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
    base: Array,
    target: Array,
    residual: Array,
    sums: Array,
    along: Array,
) -> None:
    """Write what the active rows of ``W`` on top of ``base`` (one row, or one each) leave over.

    ``sums`` becomes the squared norm of every row, ``along`` -residual . W[index] for every entry
    that is ``there``, while the rows of ``W`` are still in cache.
    """
    rows, k = indices.shape
    width = W.shape[1]
    which, weights = np.empty(k, np.int32), np.empty(k, values.dtype)
    rebuilt = np.empty(width, residual.dtype)
    for r in range(rows):
        count = present(indices[r], values[r], which, weights)
        t, left = target[r], residual[r]
        rebuilt[:] = base[r if len(base) > 1 else 0]
        add_rows(rebuilt, W, which, weights, count)
        total = residual.dtype.type(0)
        for i in range(width):
            left[i] = t[i] - rebuilt[i]
            total += left[i] * left[i]
        sums[r] = total
        for j in range(k):
            product = residual.dtype.type(0)
            if there[r, j] != 0:
                w = W[indices[r, j]]
                for i in range(width):
                    product -= left[i] * w[i]
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
