"""What a feature's weights alone say: the tokens it promotes, and which features are near it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.atlas.ranked import Ranked, insert
from sememe.kernels import encode_topk
from sememe.kernels.compiled import Array, compiled
from sememe.kernels.workers import share_out
from sememe.models.language_model import LanguageModel
from sememe.models.tokenizer import Tokenizer

LOGITS_SHOWN = 12
LOGIT_BINS = 40
NEAREST = 15
"""Nearest features that are found; the map is drawn from them, pages show some."""
NEIGHBOURS_SHOWN = 10
CHUNK = 4096
LOGIT_CHUNK = 128
FINE = 100
"""Parts of a bin of the histogram, in which the median and the ends are looked for."""


class LogitEffects(NamedTuple):
    """What features do to the logits by the direct path; each one's median effect is 0."""

    promotes: Ranked
    """Tokens, the strongest effect first."""
    suppresses: Ranked
    """Tokens, the most negative effect first."""
    low: Array
    """(features,) smallest effect, where the histogram begins."""
    high: Array
    """(features,) largest effect, where it ends."""
    histogram: Array
    """(features, 40) numbers of tokens in equal bins between them."""


def used_tokens(tokenizer: Tokenizer, seen: Array) -> Array:
    """(vocabulary,) whether a token is ever used, given which are ``seen`` in a text.

    Special tokens are not, nor those that were not seen and whose own text is split otherwise.
    """
    used: Array = np.zeros(tokenizer.vocabulary, np.bool_)
    used[seen[seen < len(used)]] = True
    unseen = np.flatnonzero(~used).tolist()
    texts = [tokenizer.bytes_of[token].decode("utf-8", "replace") for token in unseen]
    for token, ids in zip(unseen, tokenizer.encode_batch(texts), strict=True):
        used[token] = ids == [token]
    used[sorted(tokenizer.special)] = False
    return used


def logit_effects(
    model: LanguageModel,
    decoder: Float[torch.Tensor, "features width"],
    site: str,
    used: Array,
) -> LogitEffects | None:
    """Return what each unit decoder row does to the logits of the ``used`` tokens.

    Effects are shifted so that a feature's median effect is 0 (Towards Monosemanticity). None where
    the site's activations are not added to the residual stream as they are, so that there is no
    direct path, or no token is used.
    """
    kept = np.flatnonzero(used).astype(np.int32)
    if not model.writes_to_stream(site) or not len(kept):
        return None
    features, shown = len(decoder), min(LOGITS_SHOWN, len(kept))
    # Lists of small results would lie between the large temporaries and keep their memory.
    found = LogitEffects(
        Ranked.empty(features, shown),
        Ranked.empty(features, shown),
        np.zeros(features, np.float32),
        np.zeros(features, np.float32),
        np.zeros((features, LOGIT_BINS), np.int64),
    )
    flat = (*found.promotes, *found.suppresses, found.low, found.high, found.histogram)
    unembed = model.direct_path(torch.from_numpy(kept).long())
    for start in range(0, features, LOGIT_CHUNK):
        effects = unembed(decoder[start : start + LOGIT_CHUNK]).numpy()

        def look(a: int, b: int, effects: Array = effects, start: int = start) -> None:
            _effects(effects[a:b], kept, *(array[start + a : start + b] for array in flat))

        share_out(look, len(effects), 16)
    return found


@compiled
def _effects(
    effects: Array,
    tokens: Array,
    promoted: Array,
    promotion: Array,
    suppressed: Array,
    suppression: Array,
    lows: Array,
    highs: Array,
    histogram: Array,
) -> None:
    """Shift each row by its median; write its ends, its histogram, its largest and smallest."""
    shown = promoted.shape[1]
    counts = np.empty(histogram.shape[1] * FINE, np.int64)
    for f in range(len(effects)):
        row = effects[f]
        low, high = _spread(row, counts)
        for column in range(len(counts)):
            histogram[f, column // FINE] += counts[column]
        median = _median(row, low, high, counts)
        # what is in the bins at the ends, and a little more, for their edges are rounded
        step = (high - low) / np.float32(len(counts))
        above = high - step * (_reach(counts[::-1], shown) + 1)
        below = low + step * (_reach(counts, shown) + 1)
        for i in range(len(row)):
            effect = row[i]
            if effect >= above:
                insert(tokens[i], effect, promoted[f], promotion[f])
            if effect <= below:
                insert(tokens[i], -effect, suppressed[f], suppression[f])
        lows[f], highs[f] = low - median, high - median
        promotion[f] -= median
        suppression[f] = -suppression[f] - median


@compiled
def _bin(value: np.float32, low: np.float32, factor: np.float32, bins: int) -> int:
    return min(int((value - low) * factor), bins - 1)


@compiled
def _factor(low: np.float32, high: np.float32, bins: int) -> np.float32:
    return np.float32(bins) / (high - low) if high > low else np.float32(0)


@compiled
def _spread(row: Array, counts: Array) -> tuple[np.float32, np.float32]:
    """Count values in equal bins between the smallest and the largest, and return those."""
    low, high = row[0], row[0]
    for value in row:
        low, high = min(low, value), max(high, value)
    factor = _factor(low, high, len(counts))
    counts[:] = 0
    for value in row:
        counts[_bin(value, low, factor, len(counts))] += 1
    return low, high


@compiled
def _median(row: Array, low: np.float32, high: np.float32, counts: Array) -> np.float32:
    """Return the (lower) median of values that :func:`_spread` counted, sorting one bin."""
    middle, before, own = (len(row) - 1) // 2, 0, 0
    while before + counts[own] <= middle:
        before += counts[own]
        own += 1
    factor = _factor(low, high, len(counts))
    inside, found = np.empty(counts[own], np.float32), 0
    for value in row:
        if _bin(value, low, factor, len(counts)) == own:
            inside[found] = value
            found += 1
    inside.sort()
    median: np.float32 = inside[middle - before]
    return median


@compiled
def _reach(counts: Array, wanted: int) -> int:
    """Return how many bins hold ``wanted`` together, at least."""
    held, bins = 0, 0
    while held < wanted:
        held += counts[bins]
        bins += 1
    return bins


def neighbours(decoder: Float[torch.Tensor, "features width"], shown: int = NEAREST) -> Ranked:
    """Return each feature's nearest others by cosine of unit decoder rows, exactly."""
    return nearest(decoder, decoder, shown, same=True)


def nearest(
    rows: Float[torch.Tensor, "n width"],
    among: Float[torch.Tensor, "features width"],
    shown: int,
    *,
    same: bool = False,
) -> Ranked:
    """Return the nearest of ``among`` to each of ``rows`` by cosine of unit rows, exactly.

    Only those with a positive cosine. ``same`` where both are the same rows, of which none is its
    own neighbour.
    """
    shown = min(shown, len(among) - same)
    found = Ranked.empty(len(rows), max(shown, 0))
    if shown <= 0:
        return found
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        code = encode_topk(some, among, torch.zeros(len(among)), shown + same)
        which, amount = code.indices.numpy(), code.values.numpy()
        if same:
            which, amount = _without_own(which, amount, start)
        found.which[start : start + CHUNK] = np.where(amount > 0, which, -1)
        found.amount[start : start + CHUNK] = np.clip(amount, 0.0, 1.0)
    return found


def _without_own(which: Array, amount: Array, start: int) -> tuple[Array, Array]:
    """Drop each row's own number, or its last entry if that is not there."""
    own = (which == np.arange(start, start + len(which))[:, None]) & (amount > 0)
    own[~own.any(axis=1), -1] = True
    shape = (len(which), which.shape[1] - 1)
    return which[~own].reshape(shape), amount[~own].reshape(shape)
