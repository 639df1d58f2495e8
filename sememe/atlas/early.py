"""A first look at a dictionary that is still in training: its most frequent features."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from sememe.activations.store import ROW_FACTS, Activations
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.metrics import DENSE
from sememe.kernels.compiled import Array
from sememe.progress import Progress

BLOCKS, BLOCK = 32, 128
"""The sample: so many stretches of the store, and rows of each."""
SHOWN = 24
"""Features that are shown, the most frequent that are not dense."""
STRONGEST = 16
"""Tokens of the sample that a feature's are taken from."""
SHARE = 0.01
"""Of the time since training began, or went on, what looks may cost."""


@dataclass(frozen=True)
class EarlyFeature:
    """What one feature does on the sample so far."""

    feature: int
    frequency: float
    """Share of the sample's tokens on which it fires."""
    maximum: float
    tokens: list[int]
    """Tokens it fires on, by their share of its strongest values."""
    context: list[int]
    """Tokens around the strongest."""
    values: list[float]
    """Its values on these."""
    peak: int
    """Which of these is the strongest."""
    document: int
    position: int


@dataclass(frozen=True)
class Early:
    """Features of the dictionary after ``trained`` activations, on a sample of ``tokens``."""

    trained: int
    tokens: int
    features: list[EarlyFeature]
    vocabulary: Sequence[bytes]
    """The bytes of every token, by token id."""
    cost: float
    """Share of the time since training began, or went on, that looking has taken so far."""


@dataclass
class EarlyLooks:
    """Looks at a dictionary in training as often as costs little, and shows what it sees.

    Every look encodes the same few thousand activations, between two steps. The first is taken in
    any case; a later one only if all together, it as long as the last, take at most ``SHARE`` of
    the time. An error in a look is told, and ends the looks alone.
    """

    activations: Activations
    site: str
    vocabulary: Sequence[bytes]
    show: Callable[[Early], None]
    progress: Progress = field(default_factory=Progress)
    _begun: float = field(default_factory=lambda: time.monotonic())
    _cost: float = 0.0
    _spent: float = 0.0
    _over: bool = False

    def __call__(self, dictionary: Dictionary, trained: int) -> None:
        """Look at ``dictionary`` after ``trained`` activations, if it is time."""
        now = time.monotonic()
        if self._over or self._spent + self._cost > SHARE * (now - self._begun):
            return
        try:
            features = early_features(dictionary, *self._sample)
        except Exception as error:
            self._over = True
            self.progress.say(f"early features cannot be shown: {type(error).__name__}: {error}")
            return
        self._cost = time.monotonic() - now
        self._spent += self._cost
        share = self._spent / (time.monotonic() - self._begun)
        self.show(Early(trained, len(self._sample[0]), features, self.vocabulary, share))

    @cached_property
    def _sample(self) -> tuple[torch.Tensor, dict[str, Array]]:
        rows = self.activations.rows
        starts = np.unique(np.linspace(0, max(rows - BLOCK, 0), BLOCKS).astype(np.int64))
        numbers = np.unique((starts[:, None] + np.arange(min(BLOCK, rows))).ravel())
        facts = {name: self.activations.take(name, numbers).numpy() for name in ROW_FACTS}
        return self.activations.take(self.site, numbers).float(), facts


def early_features(
    dictionary: Dictionary, rows: torch.Tensor, facts: dict[str, Array]
) -> list[EarlyFeature]:
    """Return the features that fire most often on raw ``rows``, leaving dense ones out.

    ``facts`` are of the rows, which stand in the order of the corpus: ``token``, ``document``,
    ``position`` and ``place``.
    """
    with torch.no_grad():
        code = dictionary.encode(rows.to(dictionary.W_dec.device))
    indices, values = code.indices.cpu().numpy(), code.values.cpu().numpy()
    row, column = np.nonzero(values > 0)
    feature, value = indices[row, column], values[row, column]
    fired = np.bincount(feature, minlength=dictionary.config.features)
    ranked = np.argsort(-np.where(fired > DENSE * len(rows), 0, fired), kind="stable")[:SHOWN]
    found = []
    for number in ranked[fired[ranked] > 0].tolist():
        mine = feature == number
        found.append(_feature(number, row[mine], value[mine], facts))
    return found


def _feature(number: int, rows: Array, values: Array, facts: dict[str, Array]) -> EarlyFeature:
    order = np.argsort(-values, kind="stable")[:STRONGEST]
    tokens, which = np.unique(facts["token"][rows[order]], return_inverse=True)
    mass = np.bincount(which, weights=values[order])
    peak = int(rows[order[0]])
    around = _context(facts, peak)
    by_row = dict(zip(rows.tolist(), values.tolist(), strict=True))
    return EarlyFeature(
        feature=number,
        frequency=len(rows) / len(facts["token"]),
        maximum=float(values[order[0]]),
        tokens=tokens[np.argsort(-mass, kind="stable")].tolist(),
        context=facts["token"][around].tolist(),
        values=[by_row.get(place, 0.0) for place in around.tolist()],
        peak=int(np.flatnonzero(around == peak)[0]),
        document=int(facts["document"][peak]),
        position=int(facts["position"][peak]),
    )


def _context(facts: dict[str, Array], peak: int, before: int = 14, after: int = 10) -> Array:
    """Return the rows around ``peak`` that follow each other in its document without a gap."""
    near = np.arange(max(peak - before, 0), min(peak + after + 1, len(facts["place"])))
    place, document = facts["place"], facts["document"]
    follows = place[near] - place[peak] == near - peak
    found: Array = near[follows & (document[near] == document[peak])]
    return found
