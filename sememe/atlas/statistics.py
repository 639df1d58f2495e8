"""What is counted for every feature while its codes stream by; memory a feature, not a token.

Two looks at the codes. The first finds counts, sums, maxima and the strongest examples. The second
knows each feature's maximum, cuts its activation range into equal intervals (11, as in Towards
Monosemanticity) and keeps a uniform random sample of each. A random sample is the entries with the
smallest hash of (token's place in the corpus, feature): it does not depend on the order or the
split in which tokens come.
"""

from typing import NamedTuple

import numpy as np

from sememe.kernels.compiled import Array, compiled

INTERVALS = 11
BINS_AN_INTERVAL = 4
TOP = 32
SAMPLES = 8
"""Examples kept an interval."""


class Codes(NamedTuple):
    """The codes of consecutive rows of a store, with what is needed to place them."""

    indices: Array
    """(rows, k) features; entries whose value is 0 are absent."""
    values: Array
    """(rows, k) values in scaled units."""
    start: int
    """Number of the first row in the store."""
    place: Array
    """(rows,) places in the corpus."""
    window: Array
    """(rows,) place in the corpus of the first token of the row's window."""
    source: Array
    """(rows,) numbers of the documents' sources."""


class FirstLook(NamedTuple):
    """Counts, sums and strongest examples; one row a feature."""

    fired: Array
    """Rows on which the feature fires."""
    total: Array
    """Sum of its values."""
    by_source: Array
    """(features, sources) rows on which it fires."""
    top_value: Array
    """(features, TOP) strongest values, at most one from each window, unordered; 0 where none."""
    top_row: Array
    """(features, TOP) their rows in the store."""
    top_window: Array
    """(features, TOP) their windows."""

    @classmethod
    def empty(cls, features: int, sources: int) -> "FirstLook":
        """Return the state before any row."""
        return cls(
            np.zeros(features, np.int64),
            np.zeros(features),
            np.zeros((features, sources), np.int64),
            np.zeros((features, TOP), np.float32),
            np.full((features, TOP), -1, np.int64),
            np.full((features, TOP), -1, np.int64),
        )

    def add(self, codes: Codes) -> None:
        """Count the codes of some rows."""
        _first_look(codes.indices, codes.values, codes.start, codes.window, codes.source, *self)

    @property
    def maximum(self) -> Array:
        """Each feature's largest value."""
        maximum: Array = self.top_value.max(axis=1)
        return maximum


class SecondLook(NamedTuple):
    """Histogram and interval samples; one row a feature."""

    maximum: Array
    """Each feature's largest value, from the first look."""
    histogram: Array
    """(features, 44) counts in equal bins from 0 to the maximum."""
    value: Array
    """(features, 11, SAMPLES) values of the samples of each interval; 0 where there are fewer."""
    row: Array
    """(features, 11, SAMPLES) their rows in the store."""
    priority: Array
    """(features, 11, SAMPLES) their hashes; the smallest are kept."""

    @classmethod
    def empty(cls, maximum: Array) -> "SecondLook":
        """Return the state before any row, for features with these maxima."""
        shape = (len(maximum), INTERVALS, SAMPLES)
        return cls(
            maximum,
            np.zeros((len(maximum), INTERVALS * BINS_AN_INTERVAL), np.int64),
            np.zeros(shape, np.float32),
            np.full(shape, -1, np.int64),
            np.full(shape, np.iinfo(np.uint64).max, np.uint64),
        )

    def add(self, codes: Codes) -> None:
        """Count the codes of some rows."""
        _second_look(codes.indices, codes.values, codes.start, codes.place, *self)

    def interval_counts(self) -> Array:
        """(features, 11) rows in each interval, from the lowest to the highest."""
        split = (len(self.maximum), INTERVALS, BINS_AN_INTERVAL)
        counts: Array = self.histogram.reshape(split).sum(axis=2)
        return counts


@compiled
def _first_look(
    indices: Array,
    values: Array,
    start: int,
    window: Array,
    source: Array,
    fired: Array,
    total: Array,
    by_source: Array,
    top_value: Array,
    top_row: Array,
    top_window: Array,
) -> None:
    for row in range(indices.shape[0]):
        for entry in range(indices.shape[1]):
            value = values[row, entry]
            if value <= 0.0:
                continue
            feature = indices[row, entry]
            fired[feature] += 1
            total[feature] += value
            by_source[feature, source[row]] += 1
            weakest, slot = top_value[feature, 0], 0
            same = -1
            for place in range(top_value.shape[1]):
                if top_window[feature, place] == window[row]:
                    same = place
                if top_value[feature, place] < weakest:
                    weakest, slot = top_value[feature, place], place
            if same >= 0:
                weakest, slot = top_value[feature, same], same
            if value > weakest:
                top_value[feature, slot] = value
                top_row[feature, slot] = start + row
                top_window[feature, slot] = window[row]


@compiled
def _hash(index: int, feature: int) -> np.uint64:
    # splitmix64's finaliser over the two numbers
    mixed = np.uint64(index) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(feature)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@compiled
def _second_look(
    indices: Array,
    values: Array,
    start: int,
    place: Array,
    maximum: Array,
    histogram: Array,
    kept_value: Array,
    kept_row: Array,
    priority: Array,
) -> None:
    bins = histogram.shape[1]
    for row in range(indices.shape[0]):
        for entry in range(indices.shape[1]):
            value = values[row, entry]
            if value <= 0.0:
                continue
            feature = indices[row, entry]
            column = min(int(value / maximum[feature] * bins), bins - 1)
            histogram[feature, column] += 1
            interval = column // BINS_AN_INTERVAL
            key = _hash(place[row], feature)
            last = 0
            for slot in range(priority.shape[2]):
                if priority[feature, interval, slot] > priority[feature, interval, last]:
                    last = slot
            if key < priority[feature, interval, last]:
                priority[feature, interval, last] = key
                kept_value[feature, interval, last] = value
                kept_row[feature, interval, last] = start + row


@compiled
def window_values(
    indices: Array,
    values: Array,
    start: int,
    place: Array,
    rows: Array,
    features: Array,
    low: Array,
    width: int,
) -> Array:
    """Return (examples, width) values of each example's feature on the tokens around it.

    Token ``low[e] + j`` of the corpus is column j; tokens without a row in the store are 0.
    """
    found = np.zeros((rows.shape[0], width), np.float32)
    for example in range(rows.shape[0]):
        for step in (-1, 1):
            row = rows[example] - start + (0 if step == -1 else 1)
            while 0 <= row < indices.shape[0]:
                column = place[row] - low[example]
                if column < 0 or column >= width:
                    break
                for entry in range(indices.shape[1]):
                    if indices[row, entry] == features[example] and values[row, entry] > 0.0:
                        found[example, column] = values[row, entry]
                row += step
    return found
