"""Main features of first letters, and what other features have taken over of them.

On words of one token, a linear probe finds the first letter. The main features of a letter are
those that a sparse probe of it needs (2409.14507). Where the probe sees the letter, the model says
it, and main features are silent or weak, others may have taken their part: by their projection on
the probe, with the thresholds of SAEBench (2503.09532).

Axis names: words = those asked about, features = of the dictionary, width = of an activation.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression

from sememe.evaluation.arms import Arm
from sememe.evaluation.linear_probe import Probe
from sememe.evaluation.probing import code_matrix
from sememe.evaluation.spelling import Spelling

MOST_MAIN = 10
"""Main features of a letter, at most."""
GAIN = 0.03
"""F1 that each of them adds."""
PROBED = 0.6
"""F1 of a letter's probe below which the letter is left out."""
ALIGNED, ALIGNED_PART = 0.025, 0.1
"""Cosine with the probe that an absorbing feature has: one alone, or one of several."""
PROPORTION = 0.4
"""Share of the activation's projection that absorbing features have."""
ABSORBERS = 3
"""Features that may absorb a part of a letter together."""


class Coded(NamedTuple):
    """Words with the features of an arm, in the dictionary's own units."""

    code: scipy.sparse.csr_array
    """(words, features)."""
    activation: Float[np.ndarray, "words width"]
    """Less the bias: what features have to add up to."""
    directions: Float[np.ndarray, "features width"]
    scale: Float[np.ndarray, " width"]
    """What takes an activation to these units."""

    @classmethod
    def of(cls, arm: Arm, spelling: Spelling) -> "Coded":
        """Encode the words."""
        dictionary = arm.dictionary
        with torch.no_grad():
            code = code_matrix(dictionary.encode(spelling.values), arm.features)
            activation = spelling.values * dictionary.write_scale - dictionary.b_dec
            directions = dictionary.directions(torch.arange(arm.features))
        scale = dictionary.write_scale.expand(spelling.values.shape[1])
        return cls(code, activation.double().numpy(), directions.double().numpy(), scale.numpy())


def probe(spelling: Spelling) -> tuple[list[Probe], list[int]]:
    """Fit a probe of each letter, and say which letters it finds on test words."""
    x, test = spelling.values.double().numpy(), spelling.test.numpy()
    probes, known = [], []
    for letter in range(len(spelling.letters)):
        own = (spelling.label == letter).numpy()
        probes.append(Probe.fit(x[~test], own[~test]))
        if f1(own[test], probes[-1].sees(x[test])) >= PROBED:
            known.append(letter)
    return probes, known


def f1(own: Bool[np.ndarray, " words"], seen: Bool[np.ndarray, " words"]) -> float:
    """Return the F1 of ``seen`` as a guess of ``own``; 0 where neither has any."""
    return 2 * float((own & seen).sum()) / max(1, int(own.sum() + seen.sum()))


class Letter(NamedTuple):
    """What an arm's features make of a letter; arrays are of test words."""

    letter: int
    main: list[int]
    """Its main features, those that add most first."""
    guessed: Bool[np.ndarray, " words"]
    """Words that the sparse probe takes for the letter's."""
    counted: Bool[np.ndarray, " words"]
    """Words of the letter that the probe of activations sees and the model says."""
    silent: Bool[np.ndarray, " words"]
    """Of those, where no main feature fires."""
    fraction: Float[np.ndarray, " words"]
    full: Bool[np.ndarray, " words"]
    effect: Float[np.ndarray, " words"]
    """Of the silent ones, above 0 where taking one feature away says that it has absorbed it."""
    cosine: Float[np.ndarray, " features"]
    """Of each feature with the probe."""
    absorbing: list[int]
    """Features that have absorbed the letter fully by projection, commonest first."""


def examine(coded: Coded, spelling: Spelling, letter: int, own_probe: Probe) -> Letter:
    """Find a letter's main features, and where others stand in for them."""
    test = spelling.test.numpy()
    own = (spelling.label == letter).numpy()
    main, sparse = main_features(coded.code[~test], own[~test])
    guessed = sparse.decision_function(coded.code[test][:, main].toarray()) > 0
    seen = own_probe.sees(spelling.values.double().numpy()[test])
    counted = own[test] & seen & spelling.right.numpy()[test]
    along = own_probe.weight / coded.scale
    along = along / np.linalg.norm(along)
    cosine = coded.directions @ along / np.linalg.norm(coded.directions, axis=1)
    whole = coded.activation[test] @ along
    code = coded.code[test].tocsr()
    silent, full = np.zeros(len(counted), np.bool_), np.zeros(len(counted), np.bool_)
    fraction = np.zeros(len(counted))
    absorbing: list[int] = []
    for word in np.flatnonzero(counted):
        values = code[[word]].toarray()[0]
        silent[word] = not values[main].any()
        taken = Taken.of(values, cosine, float(whole[word]), main)
        fraction[word], full[word] = taken.fraction, taken.full
        if taken.full:
            absorbing.append(taken.feature)
    commonest = sorted(set(absorbing), key=absorbing.count, reverse=True)
    effect = np.zeros(len(counted))
    return Letter(letter, main, guessed, counted, silent, fraction, full, effect, cosine, commonest)


def main_features(
    code: scipy.sparse.csr_array, own: Bool[np.ndarray, " words"]
) -> tuple[list[int], LogisticRegression]:
    """Return the features that a sparse probe of a letter needs, and the probe.

    They are ranked by the weights of an L1 probe, and taken while each adds 0.03 to the F1 of
    logistic regression on those taken, on the same words.
    """
    ranking = LogisticRegression(
        l1_ratio=1, solver="liblinear", class_weight="balanced", max_iter=200, random_state=0
    ).fit(of_narrow_indices(code), own)
    order = np.argsort(-ranking.coef_[0], kind="stable")[:MOST_MAIN]
    best, chosen = -1.0, None
    for count in range(1, len(order) + 1):
        x = code[:, order[:count]].toarray()
        sparse = LogisticRegression(solver="newton-cholesky", class_weight="balanced").fit(x, own)
        reached = f1(own, sparse.decision_function(x) > 0)
        if reached <= best + GAIN:
            break
        best, chosen = reached, sparse
    assert chosen is not None
    return order[: chosen.coef_.shape[1]].tolist(), chosen


class Taken(NamedTuple):
    """What other features have taken over of a letter on a word."""

    fraction: float
    full: bool
    feature: int
    """The feature with the largest projection."""

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, " features"],
        cosine: Float[np.ndarray, " features"],
        whole: float,
        main: list[int],
    ) -> "Taken":
        """Compare the projections on the probe of a word's features, with SAEBench's thresholds.

        ``whole`` is that of the activation. Where it is not above 0 nothing is taken over.
        """
        projection = values * cosine
        top = int(projection.argmax())
        if whole <= 0:
            return cls(0.0, False, top)
        silent = not values[main].any()
        full = bool(silent and cosine[top] >= ALIGNED and projection[top] >= PROPORTION * whole)
        own = float(projection[main].sum())
        others = np.where(cosine >= ALIGNED_PART, projection, 0)
        others[main] = 0
        part = float(np.sort(others)[-ABSORBERS:].sum())
        if own >= whole or part < PROPORTION * whole:
            return cls(0.0, full, top)
        part = min(part, whole - own)
        return cls(part / (part + own) if own > 0 else 1.0, full, top)


def of_narrow_indices(code: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return a matrix with indices of 32 bits, which are all that scikit-learn takes."""
    indices = (code.indices.astype(np.int32), code.indptr.astype(np.int32))
    return scipy.sparse.csr_array((code.data, *indices), shape=code.shape)
