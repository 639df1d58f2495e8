"""The order in which rows are drawn: a pure function of (seed, pass).

Axis names: batch = rows of one batch.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64


def row_numbers(
    rows: int, *, block: int, buffer: int, seed: int, start: int = 0
) -> Iterator[Int64[np.ndarray, " some"]]:
    """Yield the row numbers of pass after pass without end, those of one buffer at a time.

    Each pass permutes its blocks of ``block`` consecutive rows, takes them in equal parts of about
    ``buffer`` rows, and permutes the rows of each part. It begins ``start`` places into pass 0.
    """
    number, skip = divmod(start, rows)
    while True:
        blocks = np.random.default_rng([seed, number]).permutation(-(-rows // block))
        parts = -(-len(blocks) // max(1, buffer // block))
        for part, members in enumerate(np.array_split(blocks, parts)):
            held = (members[:, None] * block + np.arange(block)).ravel()
            held = held[held < rows]
            if skip < len(held):
                # part + 1: a key that ends in zeros is that of the blocks
                yield np.random.default_rng([seed, number, part + 1]).permutation(held)[skip:]
            skip = max(0, skip - len(held))
        number += 1


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
