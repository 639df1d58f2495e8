"""Choose each feature's examples, and cut the text around them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from sememe.atlas.statistics import INTERVALS, Codes, FirstLook, SecondLook, window_values
from sememe.corpora.corpus import Corpus, Windows
from sememe.kernels.compiled import Array

BEFORE = 24
AFTER = 12
WIDTH = BEFORE + 1 + AFTER
SHOWN_TOP = 20
SHOWN_INTERVAL = 5
SAME_CONTEXT = 10
"""Two examples whose last tokens up to the centre are equal, this many, show the same context."""


class Examples(NamedTuple):
    """Examples as columns, ordered by feature; ``interval`` is -1 for the strongest."""

    feature: Array
    interval: Array
    row: Array
    value: Array


def choose(first: FirstLook, second: SecondLook) -> Examples:
    """Return every candidate example: the strongest, then samples of intervals, a feature."""
    features, kept = first.top_value.shape
    order = np.lexsort((first.top_row, -first.top_value), axis=1)
    top_value = np.take_along_axis(first.top_value, order, axis=1)
    top_row = np.take_along_axis(first.top_row, order, axis=1)
    drawn = np.argsort(second.priority, axis=2)
    value = np.take_along_axis(second.value, drawn, axis=2).reshape(features, -1)
    row = np.take_along_axis(second.row, drawn, axis=2).reshape(features, -1)
    samples = second.value.shape[2]
    interval = np.concatenate([np.full(kept, -1), np.repeat(np.arange(INTERVALS), samples)])
    every_row = np.concatenate([top_row, row], axis=1)
    present = every_row >= 0
    return Examples(
        np.nonzero(present)[0],
        np.broadcast_to(interval, every_row.shape)[present],
        every_row[present],
        np.concatenate([top_value, value], axis=1)[present],
    )


class Contexts(NamedTuple):
    """The text around examples; column ``BEFORE`` is the example's own token."""

    tokens: Array
    """(examples, WIDTH) token ids, -1 outside the window that the model read."""
    values: Array
    """(examples, WIDTH) the feature's values."""
    place: Array
    """(examples,) place in the corpus of the example's token."""
    document: Array
    """(examples,) documents."""

    @classmethod
    def empty(cls, count: int) -> "Contexts":
        """Return room for ``count`` contexts."""
        return cls(
            np.full((count, WIDTH), -1, np.int32),
            np.zeros((count, WIDTH), np.float32),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
        )

    def centre_tokens(self) -> Array:
        """(examples,) token ids of the examples' own tokens."""
        centre: Array = self.tokens[:, BEFORE]
        return centre

    def fill(self, chosen: Examples, codes: Codes, corpus: Corpus, windows: Windows) -> None:
        """Fill in the examples whose rows are among ``codes``."""
        stop = codes.start + len(codes.place)
        mine = np.nonzero((chosen.row >= codes.start) & (chosen.row < stop))[0]
        if not len(mine):
            return
        rows = chosen.row[mine]
        own = codes.place[rows - codes.start]
        low = own - BEFORE
        number = np.searchsorted(windows.start, own, side="right") - 1
        begin, end = windows.start[number], windows.start[number] + windows.length[number]
        place = low[:, None] + np.arange(WIDTH)[None, :]
        inside = (place >= begin[:, None]) & (place < end[:, None])
        base, last = int(begin.min()), int(end.max())
        text = corpus.tokens(base, last).astype(np.int32)
        self.tokens[mine] = np.where(inside, text[np.clip(place, base, last - 1) - base], -1)
        values = window_values(
            codes.indices,
            codes.values,
            codes.start,
            codes.place,
            rows,
            chosen.feature[mine],
            low,
            WIDTH,
        )
        self.values[mine] = np.where(inside, values, 0.0)
        self.place[mine] = own
        self.document[mine] = windows.document[number]


def pages_of_examples(
    chosen: Examples, contexts: Contexts, corpus: Corpus, features: int
) -> Iterator[tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]]:
    """Yield each feature's strongest examples and its samples of each interval, lowest first.

    Contexts that look the same are shown once in each list.
    """
    bounds = np.searchsorted(chosen.feature, np.arange(features + 1))
    for feature in range(features):
        lists: list[list[dict[str, Any]]] = [[] for _ in range(INTERVALS + 1)]
        seen: list[set[bytes]] = [set() for _ in range(INTERVALS + 1)]
        for number in range(bounds[feature], bounds[feature + 1]):
            place = int(chosen.interval[number])
            room = SHOWN_TOP if place < 0 else SHOWN_INTERVAL
            recent = contexts.tokens[number, BEFORE - SAME_CONTEXT + 1 : BEFORE + 1].tobytes()
            if len(lists[place]) < room and recent not in seen[place]:
                seen[place].add(recent)
                lists[place].append(_example(number, chosen, contexts, corpus))
        yield lists[-1], lists[:-1]


def _example(number: int, chosen: Examples, contexts: Contexts, corpus: Corpus) -> dict[str, Any]:
    inside = np.nonzero(contexts.tokens[number] >= 0)[0]
    first, last = int(inside[0]), int(inside[-1]) + 1
    document = int(contexts.document[number])
    start = int(contexts.place[number]) - BEFORE + first
    return {
        "tokens": contexts.tokens[number, first:last].tolist(),
        "values": [round(value, 3) for value in contexts.values[number, first:last].tolist()],
        "centre": BEFORE - first,
        "value": round(float(chosen.value[number]), 3),
        "source": corpus.sources[int(corpus.source[document])],
        "document": document,
        "position": start - int(corpus.start[document]),
    }
