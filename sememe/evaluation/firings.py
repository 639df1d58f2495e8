"""Where features fire on held-out text, and which features are sampled.

Axis names: rows = held-out activations, tokens = those of the held-out windows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Estimate, Resampling, ratio
from sememe.evaluation.sections import NotApplicableError
from sememe.evaluation.splicing import held_out_windows

FIRINGS = 4
"""Firings that a sampled feature has in each half of the documents, at least."""


class Text(NamedTuple):
    """The held-out windows, and where in them every held-out row is."""

    ids: Int64[np.ndarray, " tokens"]
    """Tokens of all windows, one after the other."""
    place: Int64[np.ndarray, " rows"]
    """The row's place among them."""
    position: Int64[np.ndarray, " rows"]
    """Its place in its window."""
    length: Int64[np.ndarray, " rows"]
    """Tokens of its window."""

    @classmethod
    def of(cls, arm: Arm) -> "Text":
        """Read the held-out windows, once for all arms that read the same rows."""
        return arm.once("held-out text", lambda: cls._read(arm))

    @classmethod
    def _read(cls, arm: Arm) -> "Text":
        windows = held_out_windows(arm)
        order = np.argsort(windows.start)
        start, length = windows.start[order], windows.length[order]
        pieces = [arm.corpus.tokens(int(a), int(a + n)) for a, n in zip(start, length, strict=True)]
        before = np.cumsum(length) - length
        place, position = (
            arm.held_out.read(name, 0, arm.held_out.rows).numpy().astype(np.int64)
            for name in ("place", "position")
        )
        window = np.searchsorted(start, place - position)
        return cls(
            np.concatenate(pieces).astype(np.int64),
            before[window] + position,
            position,
            length[window],
        )

    @property
    def follows(self) -> Bool[np.ndarray, " rows"]:
        """Whether a token of the window comes after it."""
        return self.position + 1 < self.length

    @property
    def token(self) -> Int64[np.ndarray, " rows"]:
        """The token of every row."""
        tokens: Int64[np.ndarray, " rows"] = self.ids[self.place]
        return tokens


class Firings(NamedTuple):
    """The rows on which each feature fires, feature by feature."""

    row: Int64[np.ndarray, " firings"]
    value: Float[np.ndarray, " firings"]
    start: Int64[np.ndarray, " ends"]
    """Where each feature's firings begin, then their number."""

    @classmethod
    def of(cls, arm: Arm) -> "Firings":
        """Turn an arm's code round."""
        present = arm.code.values > 0
        feature = arm.code.indices[present].numpy()
        order = np.argsort(feature, kind="stable")
        count = np.bincount(feature, minlength=arm.features)
        return cls(
            present.nonzero()[:, 0].numpy()[order],
            arm.code.values[present].numpy().astype(np.float64)[order],
            np.concatenate([[0], np.cumsum(count)]),
        )

    def feature(self, number: int) -> tuple[Int64[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """Return a feature's rows, and its values there."""
        own = slice(self.start[number], self.start[number + 1])
        return self.row[own], self.value[own]


def mean_over(values: Sequence[float] | Float[np.ndarray, " features"]) -> Estimate:
    """Return the mean over features, drawn with replacement."""
    known = np.asarray(values, np.float64)
    return Resampling(len(known)).estimate(ratio, known, np.ones(len(known)))


def sample(
    firings: Firings,
    fitting: Bool[np.ndarray, " rows"],
    wanted: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " features"]:
    """Draw features that fire often enough in both halves of the documents.

    NotApplicableError where no feature does.
    """
    within = np.concatenate([[0], np.cumsum(fitting[firings.row])])[firings.start]
    fitted = np.diff(within)
    enough = np.minimum(fitted, np.diff(firings.start) - fitted) >= FIRINGS
    if not enough.any():
        raise NotApplicableError(
            f"no feature fires on {FIRINGS} tokens in each half of the held-out documents: use "
            "more text"
        )
    return generator.permutation(np.flatnonzero(enough))[:wanted]
