"""The text around examples, as pages show it."""

from typing import Any, NamedTuple

import numpy as np

from sememe.atlas.firings import Block
from sememe.atlas.statistics import (
    BEFORE,
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

DECIMALS = 3


class Contexts(NamedTuple):
    """The text around rows, one line a row; from ``first`` to ``last`` it is in the window."""

    tokens: Array
    """(rows, WIDTH) token ids; the row's own is number ``BEFORE``."""
    values: Array
    """(rows, WIDTH) the feature's values, rounded."""
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
            values.round(DECIMALS),
            first,
            last,
            low + first,
            windows.document[window],
        )


class BlockExamples:
    """The examples of the features of a block, feature by feature."""

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
        self._number = np.full(rows.shape, -1, np.int64)
        self._number[shown] = np.arange(len(feature))
        document = contexts.document
        self._examples = [
            {
                "tokens": tokens[first:last],
                "values": values[first:last],
                "centre": BEFORE - first,
                "value": value,
                "source": corpus.sources[source],
                "document": number,
                "position": position,
            }
            for tokens, values, first, last, value, source, number, position in zip(
                contexts.tokens,
                contexts.values,
                contexts.first.tolist(),
                contexts.last.tolist(),
                contexts.values[:, BEFORE].astype(np.float64).round(DECIMALS).tolist(),
                corpus.source[document].tolist(),
                document.tolist(),
                (contexts.place - corpus.start[document]).tolist(),
                strict=True,
            )
        ]

    def of(
        self, feature: int
    ) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]], list[dict[str, Any]]]:
        """Return a feature's strongest examples, its samples an interval, and silent text.

        ``feature`` counts from the block's first.
        """
        numbers = self._number[feature].tolist()
        ends = [TOP, *(TOP + SAMPLES * (i + 1) for i in range(INTERVALS)), len(numbers)]
        top, *samples, inactive = (
            [self._examples[number] for number in numbers[low:high] if number >= 0]
            for low, high in zip([0, *ends], ends, strict=False)
        )
        return top, samples, inactive
