"""The loops of screening: which features a bf16 score leaves in the running, and their true scores.

The error of the score of row x and feature j is at most ``a[j] |x| + b[j] |x - x~| + c[j]``, beside
the rounding of the score itself (:mod:`sememe.kernels.screening` derives it).
"""

from typing import NamedTuple

import numpy as np

from sememe.kernels.compiled import Array, compiled
from sememe.kernels.selection import key_of, rank
from sememe.kernels.vectors import LANES, count_reaching, sift, survey

ROUNDING = 1.01 * 2.0**-8
"""Largest relative error of rounding to bf16, and of what float32 loses on the way."""


class Rows(NamedTuple):
    """Some rows being screened, and their candidates."""

    norms: Array
    """|x|"""
    errors: Array
    """|x - x~|"""
    lower: Array
    """What a true score has to reach, as far as is known."""
    features: Array
    """(rows, room and a vector more): the candidates."""
    keys: Array
    """(rows, room and a vector more): the keys of their bf16 scores."""
    counts: Array
    """How many there are: -1 for a row that is not screened, more than there is room for where
    there are too many."""


@compiled
def to_bf16(exact: Array, low: Array, norms: Array, errors: Array) -> None:
    """Write rows in bf16 (as int16) to the first columns of ``low``.

    Write also, in float64, the norm of every row and of what its copy lacks: NaN for a row that
    holds one, whatever its copy is.
    """
    for r in range(exact.shape[0]):
        line, copy = exact[r], low[r]
        norm, error = 0.0, 0.0
        for j in range(line.shape[0]):
            bits = np.float32(line[j]).view(np.int32)
            nearest = (bits + np.int32(0x7FFF) + ((bits >> 16) & np.int32(1))) >> 16  # ties to even
            copy[j] = nearest
            whole = np.float64(line[j])
            lost = whole - np.float64(np.int32(nearest << 16).view(np.float32))
            norm += whole * whole
            error += lost * lost
        norms[r], errors[r] = np.sqrt(norm), np.sqrt(error)


@compiled
def slack(bound: Array, rows: Rows, r: int) -> float:
    """Return the largest error of a row's scores by features of such a bound."""
    return float(bound[0] * rows.norms[r] + bound[1] * rows.errors[r] + bound[2])


@compiled
def value_of(key: int) -> float:
    """Return the bf16 score of a key."""
    bits = key ^ ((key >> 15) & 0x7FFF)
    return np.float64(np.int32(bits << 16).view(np.float32))


@compiled
def key_below(value: float) -> int:
    """Return the key of a bf16 number at or just below ``value``."""
    bits = np.float32(value).view(np.int32)
    if bits >= 0:
        return int(bits) >> 16
    return -2 - ((int(bits) & 0x7FFFFFFF) >> 16)


@compiled
def kth_key(keys: Array, count: int, k: int) -> int:
    """Return the largest non-negative key that ``k`` of the first ``count`` reach; -1 if none is.

    ``count`` is rounded up to whole vectors.
    """
    low, high = -1, 0x7F80
    while high - low > 1:
        middle = (low + high) >> 1
        reached = 0
        for start in range(0, count, LANES):
            reached += count_reaching(keys, start, np.int16(middle))
        if reached >= k:
            low = middle
            if reached == k:
                break
        else:
            high = middle
    return low


@compiled
def raise_bound(key: int, widest: Array, rows: Rows, r: int) -> None:
    """Raise what a row's true scores have to reach, as many as are wanted reaching ``key``."""
    if key >= 0:
        least = value_of(key) * (1 - ROUNDING) - slack(widest, rows, r)
        rows.lower[r] = max(rows.lower[r], least)


@compiled
def key_in_running(lower: float, error: float) -> int:
    """Return a key that all scores have whose true ones may reach ``lower``."""
    short = lower - error
    return key_below(short / (1 + ROUNDING) if short >= 0 else short / (1 - ROUNDING))


@compiled
def begin(rows: Rows, longest: float, most: float, lower: float) -> None:
    """Begin without candidates, with -1 where ``longest`` x a norm is not below ``most``."""
    for r in range(len(rows.counts)):
        rows.lower[r] = lower
        rows.counts[r] = 0 if longest * (rows.norms[r] + rows.errors[r]) < most else -1


@compiled
def scan(scores: Array, first: int, k: int, widest: Array, block: Array, rows: Rows) -> None:
    """Append the candidates among the bf16 ``scores`` (as int16) of features from ``first`` on.

    ``widest`` and ``block`` are the largest a, b, c of all features and of these. With ``k`` > 0
    the k-th largest score, which bounds the true one from below, is seen among the first block's
    scores, then among the candidates whenever there are twice as many features behind them.
    """
    width, across = scores.shape[1], rows.features.shape[1]
    maxima = np.empty(LANES * max(4, -(-2 * k // LANES)), np.int16)
    for r in range(scores.shape[0]):
        count, line = np.int64(rows.counts[r]), r * width
        if not 0 <= count <= across - LANES:
            continue
        if k > 0 and first == 0:
            maxima[:] = -1  # of disjoint sets of features: k of them are k of the scores
            for start in range(0, width, LANES):
                survey(scores, line + start, maxima, start % len(maxima))
            raise_bound(kth_key(maxima, len(maxima), k), widest, rows, r)
        elif count > k > 0 and (first & (first - 1)) == 0:
            rows.keys[r, count : count + LANES] = -1
            raise_bound(kth_key(rows.keys[r], int(count), k), widest, rows, r)
        bound = np.int16(key_in_running(rows.lower[r], slack(block, rows, r)))
        for start in range(0, width, LANES):
            place = r * across + count
            count += sift(
                scores, line + start, bound, first + start, rows.features, rows.keys, place
            )
            if count > across - LANES:
                break
        rows.counts[r] = count


@compiled
def true_scores(
    x: Array, W: Array, bias: Array, features: Array, begin: int, end: int, scores: Array
) -> None:
    """Write ``x . W[feature] + bias[feature]`` for the features from ``begin`` to ``end``."""
    width = x.shape[0]
    zero = W.dtype.type(0)
    e = begin
    while e + 4 <= end:
        f0, f1, f2, f3 = features[e], features[e + 1], features[e + 2], features[e + 3]
        w0, w1, w2, w3 = W[f0], W[f1], W[f2], W[f3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(width):
            s0 += x[j] * w0[j]
            s1 += x[j] * w1[j]
            s2 += x[j] * w2[j]
            s3 += x[j] * w3[j]
        scores[e], scores[e + 1] = s0 + bias[f0], s1 + bias[f1]
        scores[e + 2], scores[e + 3] = s2 + bias[f2], s3 + bias[f3]
        e += 4
    while e < end:
        w0 = W[features[e]]
        s0 = zero
        for j in range(width):
            s0 += x[j] * w0[j]
        scores[e] = s0 + bias[features[e]]
        e += 1


@compiled
def sort_out(rows: Rows, r: int, edge: int, bound: int, chosen: Array) -> tuple[int, int]:
    """Write a row's candidates whose keys reach ``edge``, then those whose keys reach ``bound``.

    Return how many are the first, and how many all. ``chosen`` becomes their places in the row.
    """
    keys, count = rows.keys[r], rows.counts[r]
    likely = 0
    for e in range(count):
        chosen[likely] = e
        likely += keys[e] >= edge
    every = likely
    for e in range(count):
        chosen[every] = e
        every += (keys[e] < edge) & (keys[e] >= bound)
    return likely, every


@compiled
def rescore(
    x: Array,
    W: Array,
    bias: Array,
    bounds: Array,
    widest: Array,
    k: int,
    floor: float,
    rows: Rows,
    features: Array,
    scores: Array,
) -> None:
    """Write each row's candidates whose true score exceeds ``floor``, and these scores.

    With ``k`` > 0 those with the k largest bf16 scores come first: the true scores of others have
    to reach the smallest of theirs.
    """
    chosen = np.empty(rows.features.shape[1] + 1, np.int32)
    for r in range(x.shape[0]):
        count = rows.counts[r]
        if not 0 <= count <= rows.features.shape[1] - LANES:
            rows.counts[r] = -1
            continue
        edge = 0x7FFF
        if count > k > 0:
            rows.keys[r, count : count + LANES] = -1
            edge = max(0, kth_key(rows.keys[r], count, k))
            raise_bound(edge, widest, rows, r)
        bound = key_in_running(rows.lower[r], slack(widest, rows, r))
        likely, every = sort_out(rows, r, edge, bound, chosen)
        found, values = features[r], scores[r]
        for e in range(likely):
            found[e] = rows.features[r, chosen[e]]
        true_scores(x[r], W, bias, found, 0, likely, values)
        lower = rows.lower[r]
        if likely >= k > 0:
            lower = max(lower, np.float64(values[:likely].min()))
        end = likely
        for e in range(likely, every):
            f, value = rows.features[r, chosen[e]], value_of(rows.keys[r, chosen[e]])
            found[end] = f
            end += value + slack(bounds[f], rows, r) + ROUNDING * abs(value) >= lower
        true_scores(x[r], W, bias, found, likely, end, values)
        kept = 0
        for e in range(end):
            found[kept], values[kept] = found[e], values[e]
            kept += values[e] > floor
        rows.counts[r] = kept


@compiled
def rank_rows(
    features: Array, scores: Array, counts: Array, k: int, indices: Array, values: Array
) -> None:
    """Write the ``k`` largest ``scores`` (int32 bits) of each row whose count is not negative."""
    keys = np.empty(features.shape[1], np.int64)
    for r in range(features.shape[0]):
        count = counts[r]
        if count < 0:
            continue
        for e in range(count):
            keys[e] = key_of(scores[r, e], features[r, e])
        rank(keys, count, k, indices[r], values[r])


@compiled
def copy_rows(features: Array, scores: Array, counts: Array, indices: Array, values: Array) -> None:
    """Copy the entries of each row whose count is not negative."""
    for r in range(features.shape[0]):
        for e in range(counts[r]):
            indices[r, e], values[r, e] = features[r, e], scores[r, e]
