"""Which scores are kept: loops over rows of float32 scores, given and written as int32 bits."""

import numpy as np

from sememe.kernels.compiled import Array, compiled


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
def key_of(score: int, feature: int) -> int:
    """Return one integer that orders by score, then by lower feature.

    The score is given as bits: positive floats order as theirs do.
    """
    return int((np.int64(score) << 32) | (0xFFFFFFFF - feature))


@compiled
def collect(scores: Array, maxima: Array, bound: int, keys: Array) -> int:
    """Write a key for every score of at least ``bound``; return how many."""
    groups = maxima.shape[0]
    count = 0
    for g in range(groups):
        if maxima[g] >= bound:
            for j in range(g, scores.shape[0], groups):
                if scores[j] >= bound:
                    keys[count] = key_of(scores[j], j)
                    count += 1
    return count


@compiled
def rank(keys: Array, count: int, k: int, indices: Array, values: Array) -> None:
    """Write what the ``k`` largest of ``keys[:count]`` stand for, largest first, then zeros."""
    if count > 2 * k:
        keep_largest(keys, count, k)
        count = k
    for e in range(count):
        key = keys[e]
        place = np.int64(0)
        for other in range(count):  # no two are equal; vectorised, this beats sorting
            place += np.int64(keys[other] > key)
        if place < k:
            indices[place] = 0xFFFFFFFF - (key & 0xFFFFFFFF)
            values[place] = key >> 32
    if count < k:
        indices[count:] = 0
        values[count:] = 0


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
        rank(keys, count, k, indices[row], values[row])


@compiled
def count_above(scores: Array, floor: int, counts: Array) -> None:
    """Write how many ``scores`` of each row exceed ``floor``; NaN exceeds every number."""
    for row in range(scores.shape[0]):
        line = scores[row]
        count = np.int32(0)
        for j in range(line.shape[0]):
            count += np.int32(line[j] > floor)
        counts[row] = count


@compiled
def rows_above(scores: Array, floor: int, indices: Array, values: Array) -> None:
    """Write the ``scores`` of each row that exceed ``floor`` by ascending feature, then zeros."""
    for row in range(scores.shape[0]):
        count = 0
        for start in range(0, scores.shape[1], 64):
            part = scores[row, start : start + 64]
            if part.max() > floor:
                for j in range(part.shape[0]):
                    if part[j] > floor:
                        indices[row, count] = start + j
                        values[row, count] = part[j]
                        count += 1
        indices[row, count:] = 0
        values[row, count:] = 0


@compiled
def reached_by(scores: Array, wanted: int) -> int:
    """Return the bits of a bf16 number that ``wanted`` of the bf16 ``scores`` reach, 0 if none."""
    seen = np.zeros(1 << 15, np.int64)
    for row in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            if scores[row, j] > 0:
                seen[scores[row, j]] += 1
    total = 0
    for bits in range((1 << 15) - 1, 0, -1):
        total += seen[bits]
        if total >= wanted:
            return bits
    return 0


@compiled
def count_kept(values: Array, edge: float, ties: int, counts: Array) -> None:
    """Write how many entries of each row exceed ``edge``, or equal it while ``ties`` last."""
    for row in range(values.shape[0]):
        count = 0
        for j in range(values.shape[1]):
            if not values[row, j] <= edge:  # NaN exceeds every number
                count += 1
            elif values[row, j] == edge and ties > 0:
                count += 1
                ties -= 1
        counts[row] = count


@compiled
def keep_rows(
    indices: Array, values: Array, edge: float, ties: int, out: Array, out_values: Array
) -> None:
    """Write the entries that :func:`count_kept` counts, then zeros."""
    for row in range(values.shape[0]):
        count = 0
        for j in range(values.shape[1]):
            tie = values[row, j] == edge and ties > 0
            if not values[row, j] <= edge or tie:
                out[row, count], out_values[row, count] = indices[row, j], values[row, j]
                count += 1
            if tie:
                ties -= 1
        out[row, count:] = 0
        out_values[row, count:] = 0
