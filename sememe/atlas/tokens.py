"""Which tokens a feature fires on, from its examples."""

import numpy as np

from sememe.atlas.examples import Contexts, Examples
from sememe.atlas.weights import Ranked
from sememe.kernels.compiled import Array

TOKENS_SHOWN = 8


def active_tokens(chosen: Examples, contexts: Contexts, counts: Array) -> Ranked:
    """Return the tokens that each feature fires on most, with their share of its activation.

    Estimated from the interval samples, each standing for its interval's count over the number of
    samples; ids are -1 where there are fewer tokens.
    """
    features, intervals = counts.shape
    sampled = chosen.interval >= 0
    cell = chosen.feature[sampled] * intervals + chosen.interval[sampled]
    drawn = np.bincount(cell, minlength=features * intervals)
    weight = (counts.reshape(-1) / np.maximum(drawn, 1))[cell]
    return _rank_tokens(chosen, contexts, sampled, weight * chosen.value[sampled], features)


def peak_tokens(chosen: Examples, contexts: Contexts, features: int) -> Ranked:
    """Return the tokens of each feature's strongest examples, with their share of those."""
    strongest = chosen.interval < 0
    return _rank_tokens(chosen, contexts, strongest, chosen.value[strongest], features)


def _rank_tokens(
    chosen: Examples, contexts: Contexts, which: Array, mass: Array, features: int
) -> Ranked:
    """Return each feature's tokens by their share of the mass of the examples ``which``."""
    ids = np.full((features, TOKENS_SHOWN), -1, np.int32)
    shares = np.zeros((features, TOKENS_SHOWN), np.float32)
    token = contexts.centre_tokens()[which]
    bounds = np.searchsorted(chosen.feature[which], np.arange(features + 1))
    for number in range(features):
        mine = slice(bounds[number], bounds[number + 1])
        if mine.start == mine.stop:
            continue
        found, place = np.unique(token[mine], return_inverse=True)
        share = np.bincount(place, weights=mass[mine])
        best = np.argsort(-share, kind="stable")[:TOKENS_SHOWN]
        ids[number, : len(best)] = found[best]
        shares[number, : len(best)] = share[best] / share.sum()
    return Ranked(ids, shares)
