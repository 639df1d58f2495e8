"""Interpretability without a language model: single tokens, token patterns, and what follows.

Features that fire on at least four tokens in each half of the held-out documents are sampled, the
same number in every arm. Rules are fitted on one half and scored on the other, so that no rule is
rewarded for what it has seen.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch.nn.functional import normalize

from sememe.evaluation.arms import Arm
from sememe.evaluation.firings import Firings, Text, mean_over, sample
from sememe.evaluation.sections import Measured, Metric, Settings
from sememe.evaluation.token_patterns import Score, Trie, commonest, contexts_of, patterns_of
from sememe.models.reading import read
from sememe.progress import Progress

FEATURES = 512
"""Features sampled for what needs no model."""
PATTERNED = {"quick": 32, "standard": 64, "full": 256}
"""Of those, the features whose patterns are looked for."""
EXAMPLES = 6
"""Contexts that a feature's patterns come from, spread evenly over its ranked firings."""
DEPTH = 8
"""Tokens of a context, at most."""
EXPLAINED = 0.8
"""F1 from which a single token explains a feature."""
BATCH_TOKENS = 4096
CONTROLS = ("pca", "neurons", "random directions", "frozen decoder", "random model", "gaussian")

METRICS = (
    Metric(
        "token_share",
        "activation on one token",
        "Share of a feature's activation that is on its commonest token, which is chosen on one "
        "half of the documents and measured on the other; mean over features.",
        "neither",
        "features",
    ),
    Metric(
        "token_explained",
        "explained by one token",
        "Share of features that one token explains: 'fires on this token and on no other' has an "
        "F1 of 0.8 or more on documents that the token was not chosen on. Other measures of "
        "interpretability reward such features.",
        "neither",
        "features",
    ),
    Metric(
        "pattern_precision",
        "patterns: precision",
        "Of the places where a feature's token patterns (after N2G, 2305.19911) say that it fires, "
        "the share where it does, on documents that the patterns were not made from; mean over "
        "features.",
        "higher",
        "features",
        CONTROLS,
    ),
    Metric(
        "pattern_recall",
        "patterns: recall",
        "Of the places where a feature fires, the share that its token patterns foretell; mean "
        "over features.",
        "higher",
        "features",
        CONTROLS,
    ),
    Metric(
        "pattern_f1",
        "patterns: F1",
        "Harmonic mean of a feature's precision and recall; mean over features.",
        "higher",
        "features",
        CONTROLS,
    ),
    Metric(
        "promoted_follow",
        "promoted tokens follow",
        "How a feature's direct-path effect on the tokens that do follow its firings ranks among "
        "the effects of the arm's other features on the same tokens, 0 to 1, weighted by "
        "activation; mean over features. By chance (features permuted) 0.5.",
        "higher",
        "features",
        CONTROLS,
    ),
)


@torch.no_grad()
def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure how far tokens and token patterns explain an arm's features."""
    text, firings = Text.of(arm), Firings.of(arm)
    generator = np.random.default_rng(settings.seed)
    fitting = (generator.permutation(arm.documents.units) % 2 == 0)[arm.document]
    features = sample(firings, fitting, FEATURES, generator)
    patterned = features[: PATTERNED[settings.suite]]
    progress.start(f"interpretability, {arm.name}", len(patterned), "features")
    shares, scores = single_tokens(text.token, firings, features, fitting)
    explained = [score.f1 >= EXPLAINED for score in scores]
    pairs = _patterns(arm, text, firings, patterned, fitting)
    progress.advance(len(patterned))
    by_pattern = [score for _, score in pairs]
    estimates = {
        "token_share": mean_over(shares),
        "token_explained": mean_over(explained),
        "pattern_precision": mean_over([score.precision for score in by_pattern]),
        "pattern_recall": mean_over([score.recall for score in by_pattern]),
        "pattern_f1": mean_over([score.f1 for score in by_pattern]),
    }
    left_out = {}
    if arm.model.writes_to_stream(arm.site):
        estimates["promoted_follow"] = mean_over(_follow(arm, text, firings, features))
    else:
        left_out["promoted_follow"] = f"{arm.site} has no direct path to the logits"
    details = {
        "features": len(features),
        "patterned": len(patterned),
        "token_share_histogram": np.histogram(shares, 20, (0, 1))[0].tolist(),
        "patterns": [
            _shown(arm, int(number), *pair) for number, pair in zip(patterned, pairs, strict=True)
        ],
    }
    progress.finish(f"patterns' F1 {estimates['pattern_f1'].value:.3f}")
    return Measured(estimates, details, left_out)


def single_tokens(
    token: Int64[np.ndarray, " rows"],
    firings: Firings,
    features: Int64[np.ndarray, " features"],
    fitting: Bool[np.ndarray, " rows"],
) -> tuple[list[float], list[Score]]:
    """Return each feature's share of activation on one token, and how well that foretells it.

    The token is the one with most activation in the rows for ``fitting``; the rest are scored.
    """
    shares, scores = [], []
    times = np.bincount(token[~fitting], minlength=int(token.max()) + 1)
    for number in features.tolist():
        rows, values = firings.feature(number)
        here = fitting[rows]
        best, _ = commonest(token[rows[here]], values[here])
        own = token[rows[~here]] == best
        shares.append(float(values[~here][own].sum() / values[~here].sum()))
        scores.append(Score(int(own.sum()), int(times[best]), len(own)))
    return shares, scores


def _patterns(
    arm: Arm,
    text: Text,
    firings: Firings,
    features: Int64[np.ndarray, " features"],
    fitting: Bool[np.ndarray, " rows"],
) -> list[tuple[list[tuple[int, ...]], Score]]:
    """Return the patterns of features, and their scores on the rows that are not for fitting."""
    rows, values, owner = [], [], []
    for number in features.tolist():
        own, strength = (
            part[fitting[firings.feature(number)[0]]] for part in firings.feature(number)
        )
        ranked = np.argsort(-strength, kind="stable")
        some = ranked[np.unique(np.linspace(0, len(ranked) - 1, EXAMPLES).astype(np.int64))]
        rows.append(own[some])
        values.append(strength[some])
        owner += [int(number)] * len(some)
    depth = contexts_of(text.ids, text.place, text.position, DEPTH + 1)
    # the last column only tells whether the text begins before the first of the tokens
    chosen = depth[np.concatenate(rows)]
    contexts = [[t for at, t in enumerate(row) if at < DEPTH or t < 0] for row in chosen.tolist()]
    front = arm.model.tokenizer.bos
    filler = min(arm.model.tokenizer.special, default=0) if front is None else front

    def respond(texts: Sequence[tuple[int, Sequence[int]]]) -> list[float]:
        owners, backwards = [owner[n] for n, _ in texts], [back for _, back in texts]
        found: list[float] = _respond(arm, owners, backwards, filler).tolist()
        return found

    found = patterns_of(contexts, np.concatenate(values).tolist(), respond, filler=filler)
    pairs = []
    for number in features.tolist():
        own = sorted({p for p, feature in zip(found, owner, strict=True) if feature == number})
        fired = np.zeros(len(fitting), np.bool_)
        fired[firings.feature(number)[0]] = True
        pairs.append((own, Score.of(Trie(own).matches(depth[~fitting]), fired[~fitting])))
    return pairs


def _respond(
    arm: Arm, features: Sequence[int], texts: Sequence[Sequence[int]], front: int
) -> Float[np.ndarray, " texts"]:
    """Return features on the first tokens of texts (backwards) that ``front`` stands before."""
    values = np.zeros(len(texts))
    lengths = np.array([len(text) for text in texts], np.int64)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        step = max(1, BATCH_TOKENS // (int(length) + 1))
        for some in np.split(members, range(step, len(members), step)):
            ids = torch.tensor([[front, *reversed(texts[n])] for n in some])
            last = read(arm.model, ids, [arm.site])[arm.site][:, -1]
            code = arm.dictionary.encode(last.float())
            own = torch.tensor([features[n] for n in some])
            values[some] = (code.values * (code.indices == own[:, None])).sum(1).numpy()
    return values


def _follow(
    arm: Arm, text: Text, firings: Firings, features: Int64[np.ndarray, " features"]
) -> Float[np.ndarray, " features"]:
    """Return how each feature's effect on what follows it ranks among those of the others."""
    rows = [firings.feature(number)[0] for number in features.tolist()]
    following = [text.ids[text.place[own[text.follows[own]]] + 1] for own in rows]
    tokens = np.unique(np.concatenate(following))
    directions = normalize(arm.dictionary.directions(torch.from_numpy(features)).float(), dim=1)
    effects = arm.model.direct_path(torch.from_numpy(tokens))(directions).numpy()
    columns = [np.searchsorted(tokens, own) for own in following]
    weights = [
        strength[text.follows[own]]
        for own, strength in (firings.feature(number) for number in features.tolist())
    ]
    return ranked_effects(effects, columns, weights)


def ranked_effects(
    effects: Float[np.ndarray, "features tokens"],
    following: Sequence[Int64[np.ndarray, " _"]],
    weights: Sequence[Float[np.ndarray, " _"]],
) -> Float[np.ndarray, " known"]:
    """Return the mean rank, 0 to 1, of each feature's effects on the tokens that follow it.

    A feature's effects are brought to mean 0 and variance 1 over the tokens, and ranked on each
    token among those of all features: their mean rank on any token is one half. Features that
    nothing follows are left out, and where there is one alone it has no rank.
    """
    centred = effects - effects.mean(1, keepdims=True)
    centred = centred / np.maximum(centred.std(1, keepdims=True), 1e-30)
    ranks = centred.argsort(0).argsort(0) / max(len(effects) - 1, 1)
    return np.array(
        [
            np.average(ranks[number, own], weights=weight)
            for number, (own, weight) in enumerate(zip(following, weights, strict=True))
            if len(own)
        ]
    )


def _shown(arm: Arm, number: int, patterns: list[tuple[int, ...]], score: Score) -> dict[str, Any]:
    """Return a feature's patterns in reading order, as text, with their score."""
    special = {-1: "[any]", -2: "[start]"}
    bytes_of = arm.model.tokenizer.bytes_of
    return {
        "feature": number,
        "patterns": [
            [special.get(t) or bytes_of[t].decode("utf-8", "replace") for t in reversed(pattern)]
            for pattern in patterns
        ],
        **score._asdict(),
    }
