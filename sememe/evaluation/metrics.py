"""Metrics as pure functions; sums are pooled before anything is divided.

Axis names: rows = activations, width = their dimensions, tokens = places where a next token is
predicted, vocab = token ids.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Moments(NamedTuple):
    """Sums over rows from which reconstruction figures follow; add them up over batches."""

    rows: float
    total: Float[Tensor, " width"]
    """Sum of x, float64."""
    square: float
    """Sum of ||x||^2."""
    error: float
    """Sum of ||x - x^||^2."""
    rebuilt_square: float
    """Sum of ||x^||^2."""
    cosine: float
    """Sum of cos(x, x^)."""

    @classmethod
    def of(cls, x: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"]) -> "Moments":
        """Return the sums of one batch."""
        a, b = x.double(), rebuilt.double()
        return cls(
            float(len(a)),
            a.sum(0),
            float(a.square().sum()),
            float((a - b).square().sum()),
            float(b.square().sum()),
            float(torch.nn.functional.cosine_similarity(a, b, dim=1).sum()),
        )

    def plus(self, other: "Moments") -> "Moments":
        """Return the sums over both."""
        return Moments(
            self.rows + other.rows,
            self.total + other.total,
            self.square + other.square,
            self.error + other.error,
            self.rebuilt_square + other.rebuilt_square,
            self.cosine + other.cosine,
        )

    @property
    def fvu(self) -> float | None:
        """Fraction of variance unexplained: sum ||x - x^||^2 / sum ||x - mean x||^2, pooled.

        None for fewer than two rows, and where all are the same.
        """
        variance = self.square - float(self.total.square().sum()) / self.rows
        # what rounding leaves of the variance of equal rows is no variance
        return self.error / variance if variance > 1e-12 * self.square else None

    @property
    def norm_ratio(self) -> float | None:
        """Root mean square norm of x^ over that of x; below 1 is shrinkage. None where x is 0."""
        return (self.rebuilt_square / self.square) ** 0.5 if self.square > 0 else None

    @property
    def mean_cosine(self) -> float:
        """Mean cosine of x and x^."""
        return self.cosine / self.rows


def cross_entropy(
    logits: Float[Tensor, "tokens vocab"], target: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Return -log p(target) of each token, in nats."""
    return torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")


def kl_divergence(
    original: Float[Tensor, "tokens vocab"], changed: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, " tokens"]:
    """Return KL(original || changed) of the next-token distributions, in nats."""
    log_p, log_q = original.float().log_softmax(-1), changed.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def loss_recovered(original: float, spliced: float, ablated: float) -> float | None:
    """Return 1 - (spliced - original) / (ablated - original) of cross-entropies.

    1 where the reconstruction costs nothing, 0 where it is no better than the ablation (Towards
    Monosemanticity, which ablates to zero; ablating to the mean is the harder reference). None
    where the ablation changes nothing, so that there is nothing to recover.
    """
    if ablated == original:
        return None
    return 1 - (spliced - original) / (ablated - original)
