"""Token patterns that say where a feature fires, after N2G (Foote et al. 2023, 2305.19911).

A pattern is read backwards: the token that a feature fires on, then what has to stand before it,
where ``ANY`` is a token that may be any, and ``START`` the beginning of the text. Patterns are
found by trimming contexts in which the feature fires (2406.04093, explanations by token patterns),
and kept in a trie; what the trie foretells is whether the feature fires, not how strongly.

Axis names: rows = places in text, depth = tokens looked back, the token itself first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

ANY = -1
"""In a pattern: any token, but not the start."""
START = -2
"""The place before the first token of a text; in a pattern, that the text begins there."""
NOTHING = -3
"""In contexts, all places before the start."""
HALF = 0.5
"""Share of its activation that a feature keeps in a context that is not trimmed too far (N2G)."""

Pattern = tuple[int, ...]
Responses = Callable[[Sequence[tuple[int, Sequence[int]]]], Sequence[float]]
"""Activations of the feature of context n on the first token of (n, text backwards)."""


def contexts_of(
    ids: Int64[np.ndarray, " tokens"],
    place: Int64[np.ndarray, " rows"],
    position: Int64[np.ndarray, " rows"],
    depth: int,
) -> Int64[np.ndarray, "rows depth"]:
    """Return for every row its token and those before it, backwards.

    ``place`` is where a row's token is among ``ids``, ``position`` where it is in its own text.
    """
    back = np.arange(depth)
    beyond = back - position[:, None]
    known = ids[np.maximum(place[:, None] - back, 0)]
    return np.where(beyond <= 0, known, np.where(beyond == 1, START, NOTHING))


class Trie:
    """Patterns, walked backwards from the token that they foretell a firing on."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self._root: dict[int, Any] = {}
        self._ends: set[int] = set()
        for pattern in patterns:
            node = self._root
            for token in pattern:
                node = node.setdefault(token, {})
            self._ends.add(id(node))

    def matches(self, contexts: Int64[np.ndarray, "rows depth"]) -> Bool[np.ndarray, " rows"]:
        """Return the rows whose context a pattern fits."""
        found = np.zeros(len(contexts), np.bool_)
        self._walk(self._root, contexts, np.arange(len(contexts)), 0, found)
        return found

    def _walk(
        self,
        node: dict[int, Any],
        contexts: Int64[np.ndarray, "rows depth"],
        rows: Int64[np.ndarray, " some"],
        depth: int,
        found: Bool[np.ndarray, " rows"],
    ) -> None:
        if id(node) in self._ends:
            found[rows] = True
            return
        if depth == contexts.shape[1]:
            return
        column = contexts[rows, depth]
        for token, child in node.items():
            inside = rows[column >= 0 if token == ANY else column == token]
            if len(inside):
                self._walk(child, contexts, inside, depth + 1, found)


def patterns_of(
    contexts: Sequence[Sequence[int]],
    activations: Sequence[float],
    respond: Responses,
    *,
    filler: int,
) -> list[Pattern]:
    """Return what of each context (backwards) a feature needs to fire as it did there.

    The shortest end of the context is kept on which it has half of its activation; the whole, with
    the start if it is there, where no end will do. Then each token before the last whose
    replacement with ``filler`` also leaves half is ``ANY``.
    """
    tokens = [[token for token in context if token >= 0] for context in contexts]
    ends = [(n, own[:length]) for n, own in enumerate(tokens) for length in range(1, len(own) + 1)]
    needed: dict[int, list[int]] = {}
    for (n, end), value in zip(ends, respond(ends), strict=True):
        if value >= HALF * activations[n]:
            needed.setdefault(n, end)
    patterns = [
        list(needed.get(n, [token for token in context if token != NOTHING]))
        for n, context in enumerate(contexts)
    ]
    places = [(n, place) for n, end in needed.items() for place in range(1, len(end))]
    changed = [(n, [*needed[n][:at], filler, *needed[n][at + 1 :]]) for n, at in places]
    for (n, place), value in zip(places, respond(changed), strict=True):
        if value >= HALF * activations[n]:
            patterns[n][place] = ANY
    return [tuple(pattern) for pattern in patterns]


class Score(NamedTuple):
    """How well a rule foretells where a feature fires."""

    hits: int
    """Rows where it fires as foretold."""
    foretold: int
    fired: int

    @classmethod
    def of(cls, foretold: Bool[np.ndarray, " rows"], fired: Bool[np.ndarray, " rows"]) -> "Score":
        """Count rows."""
        return cls(int((foretold & fired).sum()), int(foretold.sum()), int(fired.sum()))

    @property
    def precision(self) -> float:
        """Share of the rows foretold on which it fires; 0 where none is."""
        return self.hits / max(self.foretold, 1)

    @property
    def recall(self) -> float:
        """Share of the rows on which it fires that are foretold; 0 where it fires on none."""
        return self.hits / max(self.fired, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of both: 2 hits / (foretold + fired)."""
        return 2 * self.hits / max(self.foretold + self.fired, 1)


def commonest(
    token: Int64[np.ndarray, " rows"], value: Float[np.ndarray, " rows"]
) -> tuple[int, float]:
    """Return the token with the largest sum of values, and its share of all."""
    tokens, place = np.unique(token, return_inverse=True)
    mass = np.bincount(place, value)
    best = int(mass.argmax())
    return int(tokens[best]), float(mass[best] / mass.sum())
