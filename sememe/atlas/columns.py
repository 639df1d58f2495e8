"""Loops over what is known of all features, compiled: filters, counts, orders, products.

``mask`` has one entry a feature: whether it passes. None of them holds the interpreter lock.
"""

import numpy as np

from sememe.kernels.compiled import Array, compiled


@compiled
def between(column: Array, low: float, high: float, mask: Array) -> None:
    """Take out of ``mask`` the features whose number is not from ``low`` to ``high``."""
    for i in range(mask.shape[0]):
        mask[i] &= (column[i] >= low) & (column[i] <= high)


@compiled
def among(groups: Array, wanted: Array, mask: Array) -> None:
    """Take out of ``mask`` the features of a group g without ``wanted[g + 1]``; -1 is no group."""
    for i in range(mask.shape[0]):
        # Unsigned numbers need no look at whether they count from the end; no branch is missed.
        mask[i] &= wanted[np.uint64(groups[i] + 1)]


@compiled
def tally(groups: Array, mask: Array, out: Array) -> None:
    """Add to ``out[:, g + 1]`` how many features of ``mask`` are in group g, over four rows.

    A sum waits for the one before it in the same place: in four rows they seldom meet.
    """
    for i in range(mask.shape[0]):
        out[i & 3, np.uint64(groups[i] + 1)] += mask[i]


@compiled
def take(order: Array, mask: Array, skip: int, out: Array) -> None:
    """Fill ``out`` with the features of ``mask`` in their ``order``, but for the first ``skip``."""
    seen = 0
    for feature in order:
        if seen == skip + out.shape[0]:
            break
        if mask[feature]:
            if seen >= skip:
                out[seen - skip] = feature
            seen += 1


@compiled
def holding(text: Array, starts: Array, wanted: Array, out: Array) -> None:
    """Set ``out`` to true for the parts of ``text`` (bytes) that hold ``wanted``.

    Part p is ``text[starts[p]:starts[p + 1]]``.
    """
    length = wanted.shape[0]
    for part in range(out.shape[0]):
        for place in range(starts[part], starts[part + 1] - length + 1):
            same = 0
            while same < length and text[place + same] == wanted[same]:
                same += 1
            if same == length:
                out[part] = True
                break


@compiled
def post(lists: Array, starts: Array, members: Array) -> None:
    """Sort the entries of features' ``lists`` (-1: none) by what they are, features ascending.

    The features that list t are ``members[starts[t]:starts[t + 1]]``.
    """
    starts[:] = 0
    for feature in range(lists.shape[0]):
        for item in lists[feature]:
            if item >= 0:
                starts[item + 1] += 1
    for item in range(starts.shape[0] - 1):
        starts[item + 1] += starts[item]
    place = starts[:-1].copy()
    for feature in range(lists.shape[0]):
        for item in lists[feature]:
            if item >= 0:
                members[place[item]] = feature
                place[item] += 1


@compiled
def mark(starts: Array, members: Array, sets: Array, out: Array) -> None:
    """Set ``out`` to true at the members of ``sets``; those of set s begin at ``starts[s]``."""
    for s in sets:
        for e in range(starts[s], starts[s + 1]):
            out[members[e]] = True


@compiled
def products(rows: Array, vector: Array, step: Array, out: Array) -> None:
    """Write the product of each int8 row with a vector, times the row's step."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            total += np.float32(rows[i, j]) * vector[j]
        out[i] = total * step[i]
