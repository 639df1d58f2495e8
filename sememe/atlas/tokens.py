"""Which tokens a feature fires on, and which come before and after: every firing counts."""

from typing import NamedTuple

import numpy as np

from sememe.atlas.firings import Block
from sememe.atlas.ranked import Ranked, insert
from sememe.atlas.statistics import CHUNK, TOP, Located, Statistics, Text
from sememe.kernels.compiled import Array, compiled
from sememe.kernels.workers import share_out

TOKENS_SHOWN = 8


class TokenShares(NamedTuple):
    """The tokens with the largest shares of a feature's summed value, largest first."""

    on: Ranked
    """Tokens that it fires on."""
    before: Ranked
    """Tokens before those, in the same window."""
    after: Ranked
    """Tokens after them, in the same window."""

    @classmethod
    def of(cls, block: Block, located: Located, text: Text, vocabulary: int) -> "TokenShares":
        """Add up the values of a block's firings by token."""
        found = [Ranked.empty(block.features, TOKENS_SHOWN) for _ in range(3)]

        def add(begin: int, end: int) -> None:
            for step, ranked in zip((0, -1, 1), found, strict=True):
                _shares(
                    block.starts, block.value, *located, text.start, text.stop, text.tokens,
                    text.base, step, np.zeros(vocabulary), begin, end, *ranked,
                )  # fmt: skip

        share_out(add, block.features, CHUNK)
        return cls(*found)


def peak_tokens(statistics: Statistics, text: Text) -> Array:
    """(features, 8) tokens with the largest shares of the strongest examples; -1 where fewer."""
    ids = np.full((len(statistics.fired), TOKENS_SHOWN), -1, np.int32)
    rows = statistics.row[:, :TOP]
    token = text.tokens[text.place[rows] - text.base]
    for feature, there in enumerate(rows >= 0):
        found, where = np.unique(token[feature, there], return_inverse=True)
        share = np.bincount(where, weights=statistics.value[feature, :TOP][there])
        best = np.argsort(-share, kind="stable")[:TOKENS_SHOWN]
        ids[feature, : len(best)] = found[best]
    return ids


@compiled
def _shares(
    starts: Array,
    values: Array,
    place: Array,
    window: Array,
    start: Array,
    stop: Array,
    tokens: Array,
    base: int,
    step: int,
    mass: Array,
    begin: int,
    end: int,
    ids: Array,
    shares: Array,
) -> None:
    """Write the tokens ``step`` after the firings with the largest shares of the summed value."""
    seen = np.empty(len(mass), np.int32)
    for f in range(begin, end):
        count, total = 0, 0.0
        for e in range(starts[f], starts[f + 1]):
            total += values[e]
            own, at = window[e], place[e] + step
            if start[own] <= at < stop[own]:
                token = tokens[at - base]
                if mass[token] == 0.0:
                    seen[count] = token
                    count += 1
                mass[token] += values[e]
        for i in range(count):
            token = seen[i]
            amount = mass[token]
            mass[token] = 0.0
            share = np.float32(amount / total)
            insert(token, share, ids[f], shares[f])
