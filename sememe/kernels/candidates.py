"""The loops of screening: which features a bf16 score leaves in the running, and their true scores.

The error of the score of row x and feature j is at most ``a[j] |x| + b[j] |x - x~| + c[j]``, beside
the rounding of the score itself (:mod:`sememe.kernels.screening` derives it).
"""

import numpy as np

from sememe.kernels.compiled import Array, compiled
from sememe.kernels.selection import key_of, rank
from sememe.kernels.vectors import LANES, count_reaching, sift, survey

ROUNDING = 1.01 * 2.0**-8
"""Largest relative error of rounding to bf16, and of what float32 loses on the way."""


@compiled
def residuals(exact: Array, low: Array, norms: Array, errors: Array) -> None:
    """Write the norm of every row, and of what its bf16 copy (as int16) lacks, in float64."""
    for r in range(exact.shape[0]):
        line, copy = exact[r], low[r]
        norm, error = 0.0, 0.0
        for j in range(line.shape[0]):
            whole = np.float64(line[j])
            lost = whole - np.float64(np.int32(np.int32(copy[j]) << 16).view(np.float32))
            norm += whole * whole
            error += lost * lost
        norms[r], errors[r] = np.sqrt(norm), np.sqrt(error)


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
def smallest_in_running(lower: float, error: float) -> float:
    """Return the smallest bf16 score whose true one may reach ``lower``."""
    short = lower - error
    return short / (1 + ROUNDING) if short >= 0 else short / (1 - ROUNDING)


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
def begin(norms: Array, errors: Array, longest: float, most: float, counts: Array) -> None:
    """Set every row's count to 0, to -1 where ``longest`` x its norm is not below ``most``."""
    for r in range(norms.shape[0]):
        counts[r] = 0 if longest * (norms[r] + errors[r]) < most else -1


@compiled
def scan(
    scores: Array,
    first: int,
    k: int,
    tighten: bool,
    norms: Array,
    errors: Array,
    widest: Array,
    block: Array,
    maxima: Array,
    lower: Array,
    features: Array,
    keys: Array,
    counts: Array,
) -> None:
    """Append the candidates among the bf16 ``scores`` (as int16) of features from ``first`` on.

    With ``k`` > 0 a row's ``maxima`` are the largest keys so far of disjoint sets of features, so
    that ``k`` of them bound the k-th largest score from below: with ``tighten`` they raise
    ``lower``, what a true score must reach. ``widest`` and ``block`` are the largest a, b, c of all
    features and of these. ``features`` and ``keys`` have a vector more than there is room for
    candidates; a larger count says that the row has too many.
    """
    width, sets, across = scores.shape[1], maxima.shape[1], features.shape[1]
    for r in range(scores.shape[0]):
        count = np.int64(counts[r])
        if not 0 <= count <= across - LANES:
            continue
        line, most = r * width, r * sets
        if k > 0 and first == 0:
            for start in range(0, width, LANES):
                survey(scores, line + start, maxima, most + start % sets)
        if tighten:
            key = kth_key(maxima[r], sets, k)
            if key >= 0:
                error = widest[0] * norms[r] + widest[1] * errors[r] + widest[2]
                lower[r] = max(lower[r], value_of(key) * (1 - ROUNDING) - error)
        error = block[0] * norms[r] + block[1] * errors[r] + block[2]
        bound = np.int16(key_below(smallest_in_running(lower[r], error)))
        for start in range(0, width, LANES):
            if k > 0 and first > 0:
                survey(scores, line + start, maxima, most + start % sets)
            place = r * across + count
            count += sift(scores, line + start, bound, first + start, features, keys, place)
            if count > across - LANES:
                break
        counts[r] = count


@compiled
def narrow(
    norm: float,
    error: float,
    widest: Array,
    bounds: Array,
    k: int,
    lower: float,
    features: Array,
    keys: Array,
    count: int,
) -> int:
    """Keep the candidates of a row that its bounds leave in the running; return how many.

    With ``k`` > 0 the k-th largest key counts, then each candidate's own error.
    """
    slack = widest[0] * norm + widest[1] * error + widest[2]
    if k > 0 and count > k:
        keys[count : count + LANES] = -1
        key = kth_key(keys, count, k)
        if key >= 0:
            lower = max(lower, value_of(key) * (1 - ROUNDING) - slack)
    bound = key_below(smallest_in_running(lower, slack))
    kept = 0
    for e in range(count):
        features[kept], keys[kept] = features[e], keys[e]
        kept += keys[e] >= bound
    count, kept = kept, 0
    for e in range(count):
        f, value = features[e], value_of(keys[e])
        slack = bounds[f, 0] * norm + bounds[f, 1] * error + bounds[f, 2] + ROUNDING * abs(value)
        features[kept] = f
        kept += value + slack >= lower
    return kept


@compiled
def true_scores(
    x: Array, W: Array, bias: Array, features: Array, count: int, scores: Array
) -> None:
    """Write ``x . W[feature] + bias[feature]`` for the first ``count`` features."""
    width = x.shape[0]
    zero = W.dtype.type(0)
    e = 0
    while e + 4 <= count:
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
    while e < count:
        w0 = W[features[e]]
        s0 = zero
        for j in range(width):
            s0 += x[j] * w0[j]
        scores[e] = s0 + bias[features[e]]
        e += 1


@compiled
def rescore(
    norms: Array,
    errors: Array,
    widest: Array,
    bounds: Array,
    k: int,
    floor: float,
    lower: Array,
    x: Array,
    W: Array,
    bias: Array,
    features: Array,
    keys: Array,
    counts: Array,
    scores: Array,
) -> None:
    """Replace each row's candidates by those whose true score exceeds ``floor``, and write it."""
    for r in range(x.shape[0]):
        count = counts[r]
        if not 0 <= count <= features.shape[1] - LANES:
            counts[r] = -1
            continue
        found, values = features[r], scores[r]
        count = narrow(norms[r], errors[r], widest, bounds, k, lower[r], found, keys[r], count)
        true_scores(x[r], W, bias, found, count, values)
        kept = 0
        for e in range(count):
            if values[e] > floor:
                found[kept], values[kept] = found[e], values[e]
                kept += 1
        counts[r] = kept


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
