"""What is counted for every feature over its firings, in the order of the corpus.

The activation range of a feature, from 0 to its maximum, is cut into 11 equal intervals (Towards
Monosemanticity). A random sample of an interval is the firings with the smallest hash of (token's
place in the corpus, feature). Firings whose last tokens are the same show the same context: the
strongest, or that with the smallest hash, stands for them.
"""

from typing import NamedTuple

import numpy as np

from sememe.atlas.firings import Block, Firings
from sememe.corpora.corpus import Corpus, Windows
from sememe.kernels.compiled import Array, compiled
from sememe.kernels.workers import share_out

INTERVALS = 11
BINS_AN_INTERVAL = 4
TOP = 20
"""Strongest examples, at most one from each window of text."""
SAMPLES = 5
"""Examples an interval."""
INACTIVE = 5
"""Stretches of text on which a feature is silent."""
BEFORE = 24
AFTER = 12
WIDTH = BEFORE + 1 + AFTER
"""Tokens shown around an example."""
SAME_CONTEXT = 10
"""Two examples whose last tokens up to the centre are equal, this many, show the same context."""
DRAWS = 64
"""Places that are drawn, at most, to find one where a feature is silent."""
CHUNK = 16
"""Features that a thread looks at before it takes others."""


class Text(NamedTuple):
    """The rows of a store as places in a text: 16 bytes a row, 4 a token."""

    place: Array
    """(rows,) places in the corpus, ascending."""
    window: Array
    """(rows,) numbers of the windows that the model read."""
    start: Array
    """(windows,) places of their first tokens."""
    stop: Array
    """(windows,) places after their last tokens."""
    source: Array
    """(windows,) numbers of their documents' sources."""
    tokens: Array
    """Token ids of the corpus, from place ``base`` on."""
    base: int

    @classmethod
    def of(cls, firings: Firings, corpus: Corpus, windows: Windows) -> "Text":
        """Return the text of the rows of ``firings``."""
        own = firings.place - firings.position
        window = np.searchsorted(windows.start, own).astype(np.int32)
        last = int(window.max())
        base, end = int(own.min()), int(windows.start[last] + windows.length[last])
        return cls(
            firings.place,
            window,
            windows.start,
            windows.start + windows.length,
            corpus.source[windows.document],
            corpus.tokens(base, end).astype(np.int32),
            base,
        )


class Located(NamedTuple):
    """Where in a text each firing of a block is."""

    place: Array
    """(entries,) places in the corpus."""
    window: Array
    """(entries,) numbers of the windows."""

    @classmethod
    def of(cls, block: Block, text: Text) -> "Located":
        """Look the rows of the firings up."""
        entries = len(block.row)
        found = cls(np.empty(entries, np.int64), np.empty(entries, np.int32))
        share_out(
            lambda a, b: _locate(
                block.row[a:b], text.place, text.window, found.place[a:b], found.window[a:b]
            ),
            entries,
            1 << 16,
        )
        return found


class Statistics(NamedTuple):
    """What is known of some features; one row a feature."""

    fired: Array
    """Rows on which it fires."""
    total: Array
    """Sum of its values."""
    squares: Array
    """Sum of their squares."""
    maximum: Array
    """Largest of them."""
    by_source: Array
    """(features, sources) rows on which it fires."""
    histogram: Array
    """(features, 44) counts in equal bins from 0 to the maximum."""
    value: Array
    """(features, shown) values of the strongest examples, then samples of intervals; 0 where none.

    The first ``TOP`` are the strongest, then come ``SAMPLES`` of each interval, lowest first."""
    row: Array
    """(features, shown) their rows; -1 where there is none."""
    inactive: Array
    """(features, INACTIVE) rows with nothing active around them; -1 where none was found."""

    @classmethod
    def of(cls, block: Block, located: Located, text: Text, sources: int) -> "Statistics":
        """Count the firings of a block."""
        n, shown = block.features, TOP + INTERVALS * SAMPLES
        found = cls(
            np.zeros(n, np.int64),
            np.zeros(n),
            np.zeros(n),
            np.zeros(n, np.float32),
            np.zeros((n, sources), np.int64),
            np.zeros((n, INTERVALS * BINS_AN_INTERVAL), np.int64),
            np.zeros((n, shown), np.float32),
            np.full((n, shown), -1, np.int64),
            np.full((n, INACTIVE), -1, np.int64),
        )

        def count(begin: int, end: int) -> None:
            _count(
                block.first, block.starts, block.row, block.value, *located,
                *text[:-1], text.base, begin, end, *found,
            )  # fmt: skip

        share_out(count, n, CHUNK)
        return found

    def interval_counts(self) -> Array:
        """(features, 11) rows in each interval, from the lowest to the highest."""
        split = (len(self.maximum), INTERVALS, BINS_AN_INTERVAL)
        counts: Array = self.histogram.reshape(split).sum(axis=2)
        return counts


@compiled
def hashed(index: int, feature: int) -> np.uint64:
    """Return a hash of two numbers (splitmix64's finaliser)."""
    mixed = np.uint64(index) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(feature)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@compiled
def _context(place: int, start: int, tokens: Array, base: int) -> np.uint64:
    # FNV-1a over the last tokens of the window up to the place
    key = np.uint64(0xCBF29CE484222325)
    for at in range(max(start, place - SAME_CONTEXT + 1), place + 1):
        key = (key ^ np.uint64(tokens[at - base] + 1)) * np.uint64(0x100000001B3)
    return key


@compiled
def _keep(
    rank: float, context: np.uint64, row: int, ranks: Array, contexts: Array, rows: Array
) -> float:
    """Keep the firings of lowest rank, one a context; return the rank that others must beat.

    ``rows`` are -1, and ``ranks`` infinite, where there is room.
    """
    slot = 0
    for place in range(len(rows)):
        if rows[place] >= 0 and contexts[place] == context:
            slot = place
            break
        if rows[slot] >= 0 and (rows[place] < 0 or ranks[place] > ranks[slot]):
            slot = place
    if rank < ranks[slot]:
        ranks[slot], contexts[slot], rows[slot] = rank, context, row
    worst: float = np.max(ranks)
    return worst


@compiled
def _count(
    first: int,
    starts: Array,
    rows: Array,
    values: Array,
    place: Array,
    window: Array,
    row_place: Array,
    row_window: Array,
    start: Array,
    stop: Array,
    source: Array,
    tokens: Array,
    base: int,
    begin: int,
    end: int,
    fired: Array,
    total: Array,
    squares: Array,
    maximum: Array,
    by_source: Array,
    histogram: Array,
    value: Array,
    row: Array,
    inactive: Array,
) -> None:
    bins = histogram.shape[1]
    shown = value.shape[1]
    ranks, contexts = np.empty(shown), np.empty(shown, np.uint64)
    worst = np.empty(1 + INTERVALS)  # rank that an example must beat, of the strongest and samples
    for f in range(begin, end):
        low, high = starts[f], starts[f + 1]
        fired[f] = high - low
        most = np.float32(0.0)
        for e in range(low, high):
            total[f] += values[e]
            squares[f] += np.float64(values[e]) * values[e]
            by_source[f, source[window[e]]] += 1
            most = max(most, values[e])
        maximum[f] = most
        ranks[:], worst[:] = np.inf, np.inf
        best = low
        for e in range(low, high):
            own = window[e]
            # the strongest of its window, once the window has been passed
            if e == low or window[best] != own or values[e] > values[best]:
                best = e
            passed = e + 1 == high or window[e + 1] != own
            if passed and -values[best] < worst[0]:
                context = _context(place[best], start[own], tokens, base)
                worst[0] = _keep(-values[best], context, best, ranks[:TOP], contexts[:TOP],
                                 row[f, :TOP])  # fmt: skip
            column = min(int(values[e] / most * bins), bins - 1)
            histogram[f, column] += 1
            key = np.float64(hashed(place[e], first + f) >> np.uint64(11))
            interval = column // BINS_AN_INTERVAL
            if key < worst[1 + interval]:
                context = _context(place[e], start[own], tokens, base)
                slot = TOP + interval * SAMPLES
                room = slice(slot, slot + SAMPLES)
                worst[1 + interval] = _keep(key, context, e, ranks[room], contexts[room],
                                            row[f, room])  # fmt: skip
        _order(rows, values, ranks, row[f], value[f])
        _silent(first + f, place[low:high], row_place, row_window, start, stop, inactive[f])


@compiled
def _order(rows: Array, values: Array, ranks: Array, kept: Array, value: Array) -> None:
    """Sort the strongest, and each interval's samples, by rank; entries become rows."""
    low = 0
    while low < len(kept):
        high = low + (TOP if low == 0 else SAMPLES)
        for i in range(low + 1, high):
            entry, rank, j = kept[i], ranks[i], i
            while (
                j > low
                and entry >= 0
                and (kept[j - 1] < 0 or _before(rank, entry, ranks[j - 1], kept[j - 1]))
            ):
                kept[j], ranks[j] = kept[j - 1], ranks[j - 1]
                j -= 1
            kept[j], ranks[j] = entry, rank
        low = high
    for i in range(len(kept)):
        if kept[i] >= 0:
            value[i] = values[kept[i]]
            kept[i] = rows[kept[i]]


@compiled
def _before(rank: float, entry: int, other_rank: float, other: int) -> bool:
    return rank < other_rank or (rank == other_rank and entry < other)


@compiled
def _silent(
    feature: int,
    fires: Array,
    place: Array,
    window: Array,
    start: Array,
    stop: Array,
    inactive: Array,
) -> None:
    """Draw rows around which the feature does not fire, in its window, and none twice."""
    found = 0
    for draw in range(DRAWS):
        if found == len(inactive):
            return
        row = int(hashed(draw, feature) % np.uint64(len(place)))
        own = window[row]
        low = max(start[own], place[row] - BEFORE)
        high = min(stop[own], place[row] + AFTER + 1)
        # the first firing at ``low`` or later
        left, right = 0, len(fires)
        while left < right:
            middle = (left + right) // 2
            if fires[middle] < low:
                left = middle + 1
            else:
                right = middle
        new = left == len(fires) or fires[left] >= high
        for other in range(found):
            new = new and inactive[other] != row
        if new:
            inactive[found] = row
            found += 1


@compiled
def _locate(rows: Array, place: Array, window: Array, out_place: Array, out_window: Array) -> None:
    for e in range(len(rows)):
        out_place[e], out_window[e] = place[rows[e]], window[rows[e]]


@compiled
def context_values(
    starts: Array,
    place: Array,
    values: Array,
    feature: Array,
    low: Array,
    stop: Array,
    width: int,
) -> Array:
    """Return (examples, width) values of each example's feature on the tokens around it.

    Token ``low[e] + j`` of the corpus is column j, up to before ``stop[e]``; tokens without a row
    are 0.
    """
    found = np.zeros((len(feature), width), np.float32)
    for example in range(len(feature)):
        left, right = starts[feature[example]], starts[feature[example] + 1]
        end = right
        while left < right:
            middle = (left + right) // 2
            if place[middle] < low[example]:
                left = middle + 1
            else:
                right = middle
        high = min(low[example] + width, stop[example])
        while left < end and place[left] < high:
            found[example, place[left] - low[example]] = values[left]
            left += 1
    return found
