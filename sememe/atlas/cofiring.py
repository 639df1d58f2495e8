"""Which features fire on the same tokens, counted where they fire and nowhere else."""

import numpy as np

from sememe.atlas.firings import Block, Firings
from sememe.atlas.ranked import Ranked, insert
from sememe.atlas.statistics import CHUNK, hashed
from sememe.kernels.compiled import Array, compiled
from sememe.kernels.workers import share_out

COFIRING_SHOWN = 10
MOST_ENTRIES = 1 << 26
"""Firings that are held in memory for this, at most, 4 bytes each: of more a sample of rows."""
MOST_ROWS = 512
"""Firings of a feature that are looked at: of more, as many evenly spread over the corpus."""
LEAST = 2
"""Tokens that two features must share to be listed."""


class Cofiring:
    """The features that fire on each row, of all rows or of a random sample of them."""

    def __init__(self, firings: Firings, most: int = MOST_ENTRIES) -> None:
        share = min(1.0, most / max(1, int(firings.counts.sum())))
        self.number = np.arange(firings.rows, dtype=np.int64)
        """(rows,) number of each row in the sample; -1 for those that are not in it."""
        self.sampled = share < 1.0
        if self.sampled:
            kept = _sampled(firings.place, share)
            self.number = np.where(kept, np.cumsum(kept) - 1, -1)
        starts, features, begin = [np.zeros(1, np.int64)], [], 0
        for shard in firings.shards:
            kept = self.number[begin : begin + len(shard.place)] >= 0
            counts, feature = np.diff(shard.row_starts), shard.feature
            starts.append(counts[kept])
            features.append(feature[np.repeat(kept, counts)] if self.sampled else feature)
            begin += len(kept)
        self.starts: Array = np.cumsum(np.concatenate(starts))
        self.feature: Array = np.concatenate(features)
        self.counts: Array = np.bincount(self.feature, minlength=firings.features)

    def most_alike(self, block: Block) -> Ranked:
        """Return the features with the largest Jaccard index of the tokens they fire on.

        That is the number of tokens on which both fire over that on which either does; an estimate
        where not all of a feature's firings are looked at.
        """
        if self.sampled:
            block = block.select(self.number)
        found = Ranked.empty(block.features, COFIRING_SHOWN)

        def count(begin: int, end: int) -> None:
            shared = np.zeros(len(self.counts), np.int32)
            _most_alike(
                block.first, block.starts, block.row, self.starts, self.feature, self.counts,
                shared, begin, end, *found,
            )  # fmt: skip

        share_out(count, block.features, CHUNK)
        return found


@compiled
def _sampled(place: Array, share: float) -> Array:
    kept = np.zeros(len(place), np.bool_)
    for row in range(len(place)):
        kept[row] = np.float64(hashed(place[row], -1) >> np.uint64(11)) < share * 2.0**53
    return kept


@compiled
def _most_alike(
    first: int,
    starts: Array,
    rows: Array,
    row_starts: Array,
    features: Array,
    counts: Array,
    shared: Array,
    begin: int,
    end: int,
    which: Array,
    amount: Array,
) -> None:
    seen = np.empty(len(shared) + 1, np.int32)
    for f in range(begin, end):
        found = 0
        fired = starts[f + 1] - starts[f]
        looked = min(fired, MOST_ROWS)
        for i in range(looked):
            row = rows[starts[f] + i * fired // looked]
            for entry in range(row_starts[row], row_starts[row + 1]):
                other = features[entry]
                seen[found] = other  # overwritten by the next unless it is new: no branch
                found += shared[other] == 0
                shared[other] += 1
        last = amount.shape[1] - 1
        for i in range(found):
            other = seen[i]
            both = shared[other]
            shared[other] = 0
            # without a division: most are below the last that is listed
            ahead = both * (fired / looked) * (1 + amount[f, last])
            below = ahead < np.float64(amount[f, last]) * (fired + counts[other]) * (1 - 1e-6)
            if other == first + f or both < LEAST or below:
                continue
            both_all = both * (fired / looked)
            index = np.float32(both_all / max(fired + counts[other] - both_all, both_all))
            insert(other, index, which[f], amount[f])
