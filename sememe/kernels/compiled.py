"""The loops of the CPU kernels, compiled by numba on first use and cached beside this file.

Written for arrays, not tensors; :mod:`sememe.kernels.cpu` hands out the chunks. ``fastmath`` lets
sums be vectorised; NaN and infinity keep their meaning.
"""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
Array = np.ndarray[Any, np.dtype[Any]]
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba, cached on disk, without the interpreter lock."""
    # Type checkers of the tests wrap functions; numba needs what is inside.
    plain = inspect.unwrap(function)
    settings = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        fast = numba.njit(cache=True, **settings)(plain)
    except RuntimeError:  # nowhere to write a cache
        fast = numba.njit(**settings)(plain)
    return cast("Callable[P, R]", fast)


@compiled
def keep_largest(keys: Array, count: int, k: int) -> None:
    """Move the ``k`` largest of ``keys[:count]`` to the front (Hoare's selection)."""
    low = 0
    high = count - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@compiled
def smallest_of(keys: Array, count: int) -> int:
    """Return the smallest of ``keys[:count]``."""
    smallest = keys[0]
    for j in range(1, count):
        smallest = min(smallest, keys[j])
    return int(smallest)


@compiled
def group_maxima(scores: Array, maxima: Array) -> None:
    """Write the largest positive score of every group, 0 where there is none.

    Group ``g`` of ``len(maxima)`` holds the scores g, g + groups, g + 2 groups and so on, so that
    the maxima of neighbouring groups are found side by side in one vector.
    """
    groups = maxima.shape[0]
    maxima[:] = 0
    for start in range(0, scores.shape[0], groups):
        part = scores[start : start + groups]
        for g in range(part.shape[0]):
            maxima[g] = max(maxima[g], part[g])


@compiled
def collect(scores: Array, maxima: Array, bound: int, keys: Array) -> int:
    """Write a key for every score of at least ``bound``; return how many.

    Positive floats order as their bits do, so value and feature make one integer that orders by
    value, then by lower feature.
    """
    groups = maxima.shape[0]
    count = 0
    for g in range(groups):
        if maxima[g] >= bound:
            for j in range(g, scores.shape[0], groups):
                if scores[j] >= bound:
                    keys[count] = (np.int64(scores[j]) << 32) | (0xFFFFFFFF - j)
                    count += 1
    return count


@compiled
def select_rows(scores: Array, k: int, indices: Array, values: Array) -> None:
    """Write the ``k`` largest positive ``scores`` of each row, given and written as int32 bits.

    At least ``k`` scores reach the k-th largest of the maxima of groups, so only groups that reach
    it are looked at one by one.
    """
    rows, n = scores.shape
    groups = (n + 31) // 32
    maxima = np.empty(groups, np.int32)
    ranked = np.empty(groups, np.int32)
    keys = np.empty(n, np.int64)
    for row in range(rows):
        group_maxima(scores[row], maxima)
        bound = 1
        if groups > k:
            ranked[:] = maxima
            keep_largest(ranked, groups, k)
            bound = max(bound, smallest_of(ranked, k))
        count = collect(scores[row], maxima, bound, keys)
        if count > k:
            keep_largest(keys, count, k)
            count = k
        keys[:count].sort()
        for j in range(count):
            key = keys[count - 1 - j]
            indices[row, j] = 0xFFFFFFFF - (key & 0xFFFFFFFF)
            values[row, j] = key >> 32
        indices[row, count:] = 0
        values[row, count:] = 0


@compiled
def most_above(scores: Array, bound: np.float32, at_bound: int) -> int:
    """Return how many entries the fullest row of :func:`pack_above` has, at most."""
    most = 0
    for row in range(scores.shape[0]):
        count = 0
        equal = 0
        for j in range(scores.shape[1]):
            count += scores[row, j] > bound
            equal += scores[row, j] == bound
        most = max(most, count + min(equal, at_bound))
    return most


@compiled
def pack_above(
    scores: Array, bound: np.float32, at_bound: int, indices: Array, values: Array
) -> None:
    """Write every score above ``bound``, and the first ``at_bound`` that equal it, by feature."""
    for row in range(scores.shape[0]):
        count = 0
        for j in range(scores.shape[1]):
            score = scores[row, j]
            equal = score == bound and at_bound > 0
            at_bound -= equal
            if score > bound or equal:
                indices[row, count] = j
                values[row, count] = score
                count += 1
        indices[row, count:] = 0
        values[row, count:] = 0


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
def weight_gradient_rows(
    starts: Array, row: Array, weight: Array, x: Array, out: Array, bias: Array, first: int
) -> None:
    """Write the gradient rows of the features from ``first`` on, each summed in order of row."""
    for f in range(out.shape[0]):
        begin, end = starts[first + f], starts[first + f + 1]
        out[f, :] = 0
        add_rows(out[f], x, row[begin:end], weight[begin:end], end - begin)
        total = bias.dtype.type(0)
        for e in range(begin, end):
            total += weight[e]
        bias[f] = total


@compiled
def adam_span(
    parameter: Array,
    gradient: Array,
    first: Array,
    second: Array,
    rate: float,
    beta1: float,
    beta2: float,
    correction2: float,
    epsilon: float,
    unit_rows: bool,
) -> None:
    """Step the given rows by Adam; ``rate`` holds the first moment's bias correction."""
    rows, width = parameter.shape
    cast_to = parameter.dtype.type
    b1, b2, eps, lr = cast_to(beta1), cast_to(beta2), cast_to(epsilon), cast_to(rate)
    a1, a2, c2 = cast_to(1 - beta1), cast_to(1 - beta2), cast_to(1 / correction2)
    for r in range(rows):
        p, g, m, v = parameter[r], gradient[r], first[r], second[r]
        along = cast_to(0)
        if unit_rows:
            for j in range(width):
                along += g[j] * p[j]
        for j in range(width):
            slope = g[j] - along * p[j]
            m[j] = b1 * m[j] + a1 * slope
            v[j] = b2 * v[j] + a2 * slope * slope
            p[j] -= lr * m[j] / (np.sqrt(v[j] * c2) + eps)
        if unit_rows:
            square = cast_to(0)
            for j in range(width):
                square += p[j] * p[j]
            shrink = cast_to(1) / np.sqrt(square)
            for j in range(width):
                p[j] *= shrink
