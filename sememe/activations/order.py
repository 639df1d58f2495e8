"""The order in which rows are drawn: a pure function of (seed, pass).

Axis names: batch = rows of one batch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Part(NamedTuple):
    """Blocks whose rows are permuted among themselves."""

    key: list[int]
    """Seed of their order."""
    blocks: Int64[np.ndarray, " blocks"]
    """Their numbers."""
    skip: int
    """Rows at the beginning that are passed over."""


def parts(rows: int, *, block: int, buffer: int, seed: int, start: int = 0) -> Iterator[Part]:
    """Yield the parts of pass after pass without end, beginning ``start`` rows into pass 0.

    Each pass permutes its blocks of ``block`` consecutive rows, and takes them in equal parts of
    about ``buffer`` rows.
    """
    number, skip = divmod(start, rows)
    while True:
        blocks = np.random.default_rng([seed, number]).permutation(-(-rows // block))
        count = -(-len(blocks) // max(1, buffer // block))
        for part, members in enumerate(np.array_split(blocks, count)):
            missing = -rows % block if len(blocks) - 1 in members else 0
            size = len(members) * block - missing
            if skip < size:
                # part + 1: a key that ends in zeros is that of the blocks
                yield Part([seed, number, part + 1], members, skip)
            skip = max(0, skip - size)
        number += 1


def row_numbers(
    rows: int, *, block: int, buffer: int, seed: int, start: int = 0
) -> Iterator[Int64[np.ndarray, " some"]]:
    """Yield the row numbers of :func:`parts`, those of one at a time, permuted."""
    for key, blocks, skip in parts(rows, block=block, buffer=buffer, seed=seed, start=start):
        held = (blocks[:, None] * block + np.arange(block)).ravel()
        yield np.random.default_rng(key).permutation(held[held < rows])[skip:]


def batch_numbers(
    rows: int,
    batch: int,
    *,
    block: int,
    buffer: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Int64[np.ndarray, " batch"]]:
    """Yield the row numbers of batch ``start``, ``start`` + 1 and so on of one rank, without end.

    Batch ``b`` of all ranks together is rows ``b * batch * ranks`` onward of the order, dealt out
    one by one: together ``ranks`` ranks see what one rank sees in batches ``ranks`` times as large.
    """
    whole = batch * ranks
    left = np.zeros(0, np.int64)
    for more in row_numbers(rows, block=block, buffer=buffer, seed=seed, start=start * whole):
        left = np.concatenate([left, more])
        full = len(left) // whole * whole
        yield from left[:full].reshape(-1, batch, ranks)[:, :, rank]
        left = left[full:]
