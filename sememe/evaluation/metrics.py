"""Metrics as pure functions; sums are pooled before anything is divided.

Axis names: rows = activations, width = their dimensions, tokens = places where a next token is
predicted, vocab = token ids, draws = resamples of the documents that were summed over.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.kernels import Code

DENSE = 0.1
"""A feature that fires on a larger share of tokens than this is dense."""
ULTRALOW = 1e-6
"""One that fires on a smaller share than this is ultralow."""


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


def loss_recovered(
    original: Float[np.ndarray, " draws"],
    spliced: Float[np.ndarray, " draws"],
    ablated: Float[np.ndarray, " draws"],
) -> Float[np.ndarray, " draws"]:
    """Return 1 - (spliced - original) / (ablated - original) of summed cross-entropies.

    1 where the reconstruction costs nothing, 0 where it is no better than the ablation (Towards
    Monosemanticity, which ablates to zero; ablating to the mean is the harder reference). NaN
    where the ablation changes nothing, so that there is nothing to recover.
    """
    effect = ablated - original
    share: Float[np.ndarray, " draws"] = 1 - (spliced - original) / np.where(
        effect == 0, np.nan, effect
    )
    return share


def fvu(
    error: Float[np.ndarray, " draws"],
    centred: Float[np.ndarray, " draws"],
    square: Float[np.ndarray, " draws"],
) -> Float[np.ndarray, " draws"]:
    """Return the fraction of variance unexplained: summed ||x - x^||^2 over ||x - mean||^2.

    NaN where all rows are the same: what rounding leaves of their variance, next to ``square``, the
    sum of ||x||^2, is no variance.
    """
    share: Float[np.ndarray, " draws"] = error / np.where(centred > 1e-12 * square, centred, np.nan)
    return share


def row_figures(
    x: Float[Tensor, "rows width"],
    rebuilt: Float[Tensor, "rows width"],
    mean: Float[Tensor, " width"],
) -> Float[Tensor, "rows six"]:
    """Return 1, ||x||^2, ||x^||^2, ||x - x^||^2, ||x - mean||^2 and cos(x, x^) of every row."""
    differences = torch.stack([x, rebuilt, x - rebuilt, x - mean])
    columns = [
        torch.ones(len(x), dtype=x.dtype),
        *differences.square().sum(-1),
        torch.nn.functional.cosine_similarity(x, rebuilt, dim=1),
    ]
    return torch.stack(columns, dim=1)


def refitted(
    code: Code, W_dec: Float[Tensor, "features width"], target: Float[Tensor, "rows width"]
) -> Float[Tensor, "rows k"]:
    """Return the values of the same active features with which W_dec is nearest to ``target``.

    In float64, by the normal equations; of features that are linearly dependent those of least
    norm, about. 0 where there is no entry. Memory: rows x k x (k + width) numbers.
    """
    there = (code.values > 0)[..., None]
    rows = W_dec.double()[code.indices.long()] * there
    gram = rows @ rows.transpose(1, 2)
    size = rows.square().sum((1, 2)).clamp_min(1e-300)[:, None]
    gram.diagonal(dim1=1, dim2=2).add_(1e-12 * size)
    projected = rows @ target.double()[..., None]
    values = torch.cholesky_solve(projected, torch.linalg.cholesky(gram))
    return (values * there).squeeze(-1)
