"""UMAP (McInnes et al., 2018) in the plane, over nearest neighbours that are known.

umap-learn computes the same, and tests hold this to it; but it compiles its loops anew in every
process, which took longer than to lay ten thousand features out.
"""

import numpy as np

from sememe.atlas.ranked import Ranked
from sememe.atlas.statistics import hashed
from sememe.kernels.compiled import Array, compiled

EPOCHS = 200
A, B = np.float32(1.5769434), np.float32(0.8950609)
"""Nearness at distance d is 1 / (1 + a d^2b): spread 1, least distance 0.1."""
NEGATIVES = 5
"""Features that one is pushed away from, drawn by chance, each time it is pulled to another."""
FARTHEST = np.float32(4.0)
"""A feature moves at most so far at once, along either axis."""
SIDE = 10.0
"""Length of the sides of the square that it begins in."""
HALVINGS = 64
LEAST_REACH = 1e-3
"""Of a feature's reach, in mean distances."""


def umap(begin: Array, near: Ranked) -> Array:
    """(n, 2) places of things whose nearest others by cosine are ``near``, from where they begin.

    One thread, so that the same things always have the same places.
    """
    head, tail, weight = edges(near)
    low, high = begin.min(axis=0), begin.max(axis=0)
    places: Array = (SIDE * (begin - low) / np.where(high > low, high - low, 1)).astype(np.float32)
    period = weight.max(initial=0.0) / weight
    due, pushed, drawn = period.copy(), period / NEGATIVES, 0
    for epoch in range(EPOCHS):
        rate = np.float32(1 - epoch / EPOCHS)
        drawn = _move(places, head, tail, period, due, pushed, epoch, rate, drawn)
    return places


def edges(near: Ranked) -> tuple[Array, Array, Array]:
    """Return pairs (head, tail) and how much each belongs together, from 0 to 1, both ways.

    Pairs that would never come up in the epochs are left out.
    """
    from scipy.sparse import csr_array

    count, shown = near.which.shape
    there = near.which >= 0
    strength = _strengths(np.where(there, np.maximum(1 - near.amount.astype(float), 0), np.inf))
    starts = np.arange(count + 1) * shown
    one_way = csr_array((strength.ravel(), near.which.clip(0).ravel(), starts), (count, count))
    other_way = one_way.T.tocsr()
    both = (one_way + other_way - one_way * other_way).tocoo()
    kept = both.data >= max(both.data.max(initial=0.0) / EPOCHS, 1e-30)
    return both.row[kept], both.col[kept], both.data[kept]


def _strengths(distance: Array) -> Array:
    """Return exp(-(d - nearest) / reach), with the reach at which a row adds up to log2(k).

    Distances are infinite where there is no neighbour.
    """
    nearest = np.where(distance > 0, distance, np.inf).min(axis=1)
    nearest[np.isinf(nearest)] = 0
    beyond = np.maximum(distance - nearest[:, None], 0)
    target = np.log2(distance.shape[1] + 1)
    low, high, reach = np.zeros(len(beyond)), np.full(len(beyond), np.inf), np.ones(len(beyond))
    for _ in range(HALVINGS):
        many = np.exp(-beyond / reach[:, None]).sum(axis=1) > target
        low, high = np.where(many, low, reach), np.where(many, reach, high)
        reach = np.where(np.isinf(high), 2 * reach, (low + high) / 2)
    there = np.isfinite(distance)
    known = np.where(there, distance, 0).sum(axis=1)
    own, every = known / (there.sum(axis=1) + 1), known.sum() / (there.sum() + len(there))
    reach = np.maximum(reach, LEAST_REACH * np.where(nearest > 0, own, every))
    strength: Array = np.exp(-beyond / np.maximum(reach, 1e-30)[:, None])
    return strength


@compiled
def _clipped(move: np.float32) -> np.float32:
    return min(max(move, -FARTHEST), FARTHEST)


@compiled
def _move(
    places: Array,
    head: Array,
    tail: Array,
    period: Array,
    due: Array,
    pushed: Array,
    epoch: int,
    rate: np.float32,
    drawn: int,
) -> int:
    """Pull together the pairs whose turn it is, push their heads from others; return the draws."""
    one, near_zero = np.float32(1), np.float32(0.001)
    for e in range(len(head)):
        if due[e] > epoch:
            continue
        due[e] += period[e]
        j, k = head[e], tail[e]
        x, y = places[j, 0], places[j, 1]
        dx, dy = x - places[k, 0], y - places[k, 1]
        square = dx * dx + dy * dy
        if square > 0:
            power = square**B
            pull = np.float32(-2) * A * B * power / (square * (A * power + one))
            mx, my = rate * _clipped(pull * dx), rate * _clipped(pull * dy)
            x, y = x + mx, y + my
            places[k, 0] -= mx
            places[k, 1] -= my
        draws = int((epoch - pushed[e]) * NEGATIVES / period[e])
        pushed[e] += draws * period[e] / NEGATIVES
        for _ in range(draws):
            other = int(hashed(drawn, -1) % np.uint64(len(places)))
            drawn += 1
            dx, dy = x - places[other, 0], y - places[other, 1]
            square = dx * dx + dy * dy
            if other != j and square > 0:
                push = np.float32(2) * B / ((near_zero + square) * (A * square**B + one))
                x += rate * _clipped(push * dx)
                y += rate * _clipped(push * dy)
        places[j, 0], places[j, 1] = x, y
    return drawn
