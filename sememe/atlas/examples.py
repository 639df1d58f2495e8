"""The text around examples, as pages show it."""

from typing import NamedTuple

import numpy as np
import orjson

from sememe.atlas.compiled_json import LARGEST, write_examples
from sememe.atlas.firings import Block
from sememe.atlas.statistics import (
    BEFORE,
    CHUNK,
    INTERVALS,
    SAMPLES,
    TOP,
    WIDTH,
    Located,
    Statistics,
    Text,
    context_values,
)
from sememe.corpora.corpus import Corpus, Windows
from sememe.kernels.compiled import Array
from sememe.kernels.workers import share_out

GROUPS = [0, *(TOP + SAMPLES * number for number in range(INTERVALS + 1))]
"""Where the strongest, the samples of each interval and silent text begin among examples."""


class Contexts(NamedTuple):
    """The text around rows, one line a row; from ``first`` to ``last`` it is in the window."""

    tokens: Array
    """(rows, WIDTH) token ids; the row's own is number ``BEFORE``."""
    values: Array
    """(rows, WIDTH) the feature's values."""
    first: Array
    """(rows,) first column in the window."""
    last: Array
    """(rows,) column after the last in the window."""
    place: Array
    """(rows,) place in the corpus of the first token."""
    document: Array
    """(rows,) its document."""

    @classmethod
    def of(
        cls,
        rows: Array,
        feature: Array,
        block: Block,
        located: Located,
        text: Text,
        windows: Windows,
    ) -> "Contexts":
        """Return the contexts of some rows, each with the values of one feature of the block."""
        own, window = text.place[rows], text.window[rows]
        low, stop = own - BEFORE, text.stop[window]
        first = np.maximum(text.start[window] - low, 0)
        last = np.minimum(stop - low, WIDTH)
        at = low[:, None] - text.base + np.arange(WIDTH)
        tokens = text.tokens[np.clip(at, 0, len(text.tokens) - 1)]
        values = context_values(block.starts, located.place, block.value, feature, low, stop, WIDTH)
        return cls(
            tokens,
            values,
            first,
            last,
            low + first,
            windows.document[window],
        )


class BlockExamples:
    """The examples of the features of a block, feature by feature, as JSON.

    They are most of a page: written by compiled loops they cost a tenth of what objects would.
    """

    def __init__(
        self,
        block: Block,
        located: Located,
        statistics: Statistics,
        text: Text,
        windows: Windows,
        corpus: Corpus,
    ) -> None:
        rows = np.concatenate([statistics.row, statistics.inactive], axis=1)
        shown = rows >= 0
        feature = np.nonzero(shown)[0]
        contexts = Contexts.of(rows[shown], feature, block, located, text, windows)
        self._begin = np.concatenate([[0], np.cumsum(shown.sum(axis=1))])
        held = np.add.reduceat(shown, GROUPS, axis=1, dtype=np.int64)
        self._first = self._begin[:-1, None] + np.cumsum(held, axis=1) - held
        self._last = self._first + held
        self._end = np.empty(len(feature), np.int64)
        labels = [orjson.dumps(label) for label in corpus.sources]
        ends = np.cumsum([0, *map(len, labels)])
        room = _room(contexts, max(map(len, labels)))
        self._text = np.empty((block.features, int(shown.sum(axis=1).max()) * room), np.uint8)
        source = corpus.source[contexts.document]
        position = contexts.place - corpus.start[contexts.document]
        label = np.frombuffer(b"".join(labels), np.uint8)

        def write(begin: int, end: int) -> None:
            write_examples(
                self._text, self._begin, self._end, *contexts[:4], source, contexts.document,
                position, label, ends, begin, end,
            )  # fmt: skip

        share_out(write, block.features, CHUNK)

    def of(self, feature: int) -> list[orjson.Fragment]:
        """Return lists of a feature's strongest examples, samples an interval, and silent text.

        ``feature`` counts from the block's first.
        """
        text, begin = self._text[feature], self._begin[feature]
        found = []
        for first, last in zip(
            self._first[feature].tolist(), self._last[feature].tolist(), strict=True
        ):
            low = self._end[first - 1] if first > begin else 0
            # each example ends with a comma
            inside = text[low : self._end[last - 1] - 1].tobytes() if last > first else b""
            found.append(orjson.Fragment(b"[" + inside + b"]"))
        return found


def _room(contexts: Contexts, label: int) -> int:
    """Return the bytes that the JSON of an example takes at most."""
    largest = contexts.values.max(initial=0.0)
    value = len(str(int(min(largest, LARGEST)))) + len(".000,")
    token = len(str(contexts.tokens.max(initial=0))) + len(",")
    return WIDTH * (token + value) + label + 3 * 20 + value + 128
