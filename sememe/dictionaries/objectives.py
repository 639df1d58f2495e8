"""What training makes small: terms as pure functions of tensors, and the table of them.

All in scaled units and per activation: inputs have mean squared norm = width, squared errors are
summed over the width and averaged over rows. So an L1 coefficient of 5 is that of Scaling
Monosemanticity, and predicting zero costs ``width``.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import Activity, TopK
from sememe.kernels import Code, decode


class Step(NamedTuple):
    """One forward pass, as the terms see it."""

    x: Float[Tensor, "rows width"]
    """The scaled input."""
    activity: Activity
    rebuilt: Float[Tensor, "rows width"]
    """The scaled reconstruction."""
    dictionary: Dictionary
    dead: Int[Tensor, " dead"]
    """Features that have been silent for too long."""


def reconstruction(
    x: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Return the mean over rows of ||x - rebuilt||^2."""
    square: Tensor = torch.linalg.vector_norm(x - rebuilt).square()
    return square / x.shape[0]


def l1(activity: Activity, norms: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return the mean over rows of the sum of f_i ||d_i||, with ``norms`` of the decoder rows."""
    if isinstance(activity, Code):
        return (activity.values * norms[activity.indices.long()]).sum() / len(activity.values)
    return (activity @ norms).sum() / activity.shape[0]


def unexplained(
    residual: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Return width x the share of the residual's variance that ``rebuilt`` leaves.

    The width puts it on the scale of :func:`reconstruction`. A constant residual gives 0.
    """
    variance = (residual - residual.mean(0)).square().sum()
    share = (residual - rebuilt).square().sum() / variance.clamp_min(1e-12)
    return share * residual.shape[1] * (variance > 0)


def auxk(step: Step) -> Float[Tensor, ""]:
    """Return how badly the dead features alone would explain what the living ones leave (AuxK).

    The residual is detached, so that only dead features learn from it; their decoding adds no bias,
    which is in the main reconstruction already. Up to width / 2 of them act at once (2406.04093).
    """
    if not len(step.dead):
        return step.x.new_zeros(())
    dictionary, dead = step.dictionary, step.dead
    nonlinearity = TopK(min(max(1, step.x.shape[1] // 2), len(dead)))
    W_enc, W_dec, bias = (p[dead] for p in (dictionary.W_enc, dictionary.W_dec, dictionary.b_enc))
    code = nonlinearity.forward(dictionary.centred(step.x).detach(), W_enc, bias)
    return unexplained((step.x - step.rebuilt).detach(), decode(code, W_dec))


TERMS: dict[str, Callable[[Step], Float[Tensor, ""]]] = {
    "reconstruction": lambda step: reconstruction(step.x, step.rebuilt),
    "l1": lambda step: l1(step.activity, step.dictionary.W_dec.norm(dim=1)),
    "auxk": auxk,
}
"""Every term by name; a kind names those it wants."""
