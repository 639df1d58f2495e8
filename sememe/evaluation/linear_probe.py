"""Linear probes of activations: logistic regression on standardised inputs, and what they reach.

Axis names: texts = labelled activations, width = of an activation, judged = probes on texts.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sememe.evaluation.estimates import Shares


class Probe(NamedTuple):
    """A linear probe: its margin is above 0 for members of the class."""

    weight: Float[np.ndarray, " width"]
    offset: float

    @classmethod
    def fit(
        cls, x: Float[np.ndarray, "texts width"], labels: Bool[np.ndarray, " texts"]
    ) -> "Probe":
        """Fit logistic regression (L2, C = 1, classes of equal weight) to standardised inputs."""
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(max_iter=1000, class_weight="balanced")
        model.fit(scaler.transform(x), labels)
        weight = model.coef_[0] / scaler.scale_
        return cls(weight, float(model.intercept_[0] - scaler.mean_ @ weight))

    def margins(self, x: Float[np.ndarray, "texts width"]) -> Float[np.ndarray, " texts"]:
        """Return the margin of every text."""
        found: np.ndarray = x @ self.weight + self.offset
        return found

    def sees(self, x: Float[np.ndarray, "texts width"]) -> Bool[np.ndarray, " texts"]:
        """Return which texts it takes for members."""
        found: np.ndarray = self.margins(x) > 0
        return found


class Judged(Shares):
    """Which texts probes are right about."""

    def judge(
        self,
        first: int,
        margins: Float[np.ndarray, " texts"],
        labels: Bool[np.ndarray, " texts"],
    ) -> int:
        """Note the margins of a probe on the texts from ``first`` on; return its number."""
        right, unit = (margins > 0) == labels, first + np.arange(len(labels))
        columns = [self.add(unit[own], right[own]) for own in (labels, ~labels)]
        return columns[0] // 2

    @property
    def accuracies(self) -> Float[np.ndarray, "draws judged"]:
        """The balanced accuracies, once all were judged; of all texts first, then of the draws."""
        found: np.ndarray = (self.shares[:, ::2] + self.shares[:, 1::2]) / 2
        return found
