"""Where features fire: what is kept of a shard of activations, and all shards as one.

A shard's code is kept twice, by row and by feature. Shards are made apart from each other, in any
process; putting them together is putting a feature's firings one after the other in the order of
the corpus, so that nothing that is made of them depends on how the corpus was cut.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sememe.artefacts import write_bytes
from sememe.errors import SememeError
from sememe.kernels.compiled import Array, compiled, transpose

STORED = {"I64": "<i8", "I32": "<i4", "U32": "<u4", "F32": "<f4"}
BLOCK_ENTRIES = 1 << 22
"""Firings of features that are looked at together, about."""
BLOCK_FEATURES = 512
"""Features that are looked at together, at most."""


class ShardFirings(NamedTuple):
    """The code of consecutive rows of a corpus: (features) a row and (rows, values) a feature."""

    row_starts: Array
    """(rows + 1,) row r fires the features ``feature[row_starts[r]:row_starts[r + 1]]``."""
    feature: Array
    """(entries,) features that fire, row by row."""
    starts: Array
    """(features + 1,) feature f fires at ``row[starts[f]:starts[f + 1]]``."""
    row: Array
    """(entries,) rows of the shard, ascending within a feature."""
    value: Array
    """(entries,) values in scaled units."""
    place: Array
    """(rows,) places in the corpus, ascending."""
    position: Array
    """(rows,) places in the window that the model read."""

    @classmethod
    def of(
        cls, indices: Array, values: Array, features: int, place: Array, position: Array
    ) -> "ShardFirings":
        """Sort a code (rows, k), whose entries of value 0 are absent."""
        there = values > 0
        row_starts = np.zeros(len(place) + 1, np.int64)
        np.cumsum(there.sum(axis=1), out=row_starts[1:])
        starts = np.zeros(features + 1, np.int64)
        row = np.empty(row_starts[-1], np.int64)
        value = np.empty(row_starts[-1], np.float32)
        transpose(indices, np.where(there, values, np.float32(0)), starts, row, value)
        feature = indices[there].astype(np.int32)
        return cls(row_starts, feature, starts, row.astype(np.uint32), value, place, position)

    def save(self, path: Path) -> None:
        """Write to a file."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self._asdict().items()}
        write_bytes(path, safetensors.numpy.save(arrays))

    @classmethod
    def load(cls, path: Path) -> "ShardFirings":
        """Map a file that :meth:`save` wrote; SememeError if it is damaged."""
        try:
            with safe_open(path, framework="numpy"):  # checks the header
                pass
        except SafetensorError as error:
            raise SememeError(f"{path} is damaged ({error}): delete it and run again") from error
        data = np.memmap(path, np.uint8, "r")
        begin = 8 + int(data[:8].view("<u8")[0])
        arrays = {}
        for name, tensor in json.loads(data[8:begin].tobytes()).items():
            low, high = (begin + offset for offset in tensor["data_offsets"])
            arrays[name] = np.asarray(data[low:high]).view(STORED[tensor["dtype"]])
        return cls(**arrays)


class Block(NamedTuple):
    """The firings of some consecutive features over the whole corpus."""

    first: int
    """The first feature."""
    starts: Array
    """(features + 1,) the i-th feature fires at ``row[starts[i]:starts[i + 1]]``."""
    row: Array
    """(entries,) rows of the whole corpus, ascending within a feature."""
    value: Array
    """(entries,) values in scaled units."""

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.starts) - 1

    def select(self, kept: Array) -> "Block":
        """Return the block with only the firings on rows for which ``kept`` is not negative.

        Their rows become ``kept[row]``.
        """
        there = kept[self.row] >= 0
        counts = np.concatenate([[0], np.cumsum(there)])
        return Block(self.first, counts[self.starts], kept[self.row[there]], self.value[there])


class Firings:
    """All shards of a corpus, whatever the order in which they are given.

    Attributes:
        features: Number of features.
        rows: Number of rows.
        counts: (features,) rows on which each fires.
        place: (rows,) places in the corpus, ascending.
        position: (rows,) places in the window that the model read.
    """

    def __init__(self, shards: Sequence[ShardFirings]) -> None:
        self.shards = sorted(shards, key=lambda shard: int(shard.place[0]))
        self.place: Array = np.concatenate([shard.place for shard in self.shards])
        self.position: Array = np.concatenate([shard.position for shard in self.shards])
        self.rows = len(self.place)
        self.features = len(self.shards[0].starts) - 1
        self.counts: Array = np.zeros(self.features, np.int64)
        for shard in self.shards:
            self.counts += np.diff(shard.starts)

    def blocks(self) -> Iterator[Block]:
        """Yield all features, block by block."""
        first, ends = 0, np.cumsum(self.counts)
        while first < self.features:
            before = ends[first - 1] if first else 0
            room = int(np.searchsorted(ends, before + BLOCK_ENTRIES, side="right"))
            last = min(max(room, first + 1), first + BLOCK_FEATURES, self.features)
            yield self.block(first, last)
            first = last

    def block(self, first: int, last: int) -> Block:
        """Return the firings of the features from ``first`` to before ``last``."""
        starts = np.concatenate([[0], np.cumsum(self.counts[first:last])])
        row = np.empty(starts[-1], np.int64)
        value = np.empty(starts[-1], np.float32)
        place, begin = starts[:-1].copy(), 0
        for shard in self.shards:
            _append(
                shard.starts[first : last + 1], shard.row, shard.value, begin, place, row, value
            )
            begin += len(shard.place)
        return Block(first, starts, row, value)


@compiled
def _append(
    starts: Array,
    shard_row: Array,
    shard_value: Array,
    begin: int,
    place: Array,
    row: Array,
    value: Array,
) -> None:
    for feature in range(starts.shape[0] - 1):
        at = place[feature]
        for entry in range(starts[feature], starts[feature + 1]):
            row[at] = begin + shard_row[entry]
            value[at] = shard_value[entry]
            at += 1
        place[feature] = at
