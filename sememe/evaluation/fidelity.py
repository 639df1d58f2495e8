"""Fidelity: how well activations are rebuilt, from how many features, and what the model loses.

Everything is a sum over the rows of each held-out document, so that documents can be resampled.
"""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Resampling, ratio
from sememe.evaluation.metrics import loss_recovered
from sememe.evaluation.reconstruction import Means, rebuild, reconstruction
from sememe.evaluation.sections import Measured, Metric, Settings
from sememe.evaluation.splicing import EvaluateConfig, Spliced, splice, spliced_tokens
from sememe.progress import Progress

SPARSE = ("pca", "neurons", "random directions", "frozen decoder", "gaussian")
"""Controls of the same number of active features on the same activations."""

METRICS = (
    Metric(
        "fvu",
        "variance unexplained",
        "Σ ‖x - x̂‖² / Σ ‖x - mean x‖², pooled over all rows.",
        "lower",
        "documents",
        (*SPARSE, "random model"),
    ),
    Metric(
        "explained_variance",
        "variance explained",
        "1 - variance unexplained, pooled over all rows.",
        "higher",
        "documents",
        (*SPARSE, "random model"),
    ),
    Metric("cosine", "cosine", "Mean cosine of x and x̂.", "higher", "documents", SPARSE),
    Metric(
        "norm_ratio",
        "norm ratio",
        "Root mean square norm of x̂ over that of x; below 1 is shrinkage.",
        "neither",
        "documents",
    ),
    Metric(
        "l0",
        "active features",
        "Mean number of features above 0 on a token.",
        "neither",
        "documents",
    ),
    Metric(
        "refit_fvu",
        "variance unexplained, refitted",
        "Variance unexplained by the least-squares values of the same active features, on a sample "
        "of rows (2406.04093, refinement).",
        "lower",
        "documents",
    ),
    Metric(
        "refit_scale",
        "refitted over given values",
        "Sum of the least-squares values of the active features over the sum of their own; above 1 "
        "the encoder gives values that are too small (2406.04093).",
        "neither",
        "documents",
    ),
    Metric(
        "loss_recovered_zero",
        "loss recovered (zero)",
        "1 - (spliced - original) / (zero-ablated - original) of cross-entropies (Towards "
        "Monosemanticity); zero flatters.",
        "higher",
        "documents",
        SPARSE,
    ),
    Metric(
        "loss_recovered_mean",
        "loss recovered (mean)",
        "The same against the site held at its mean activation, the harder reference.",
        "higher",
        "documents",
        SPARSE,
    ),
    Metric(
        "delta_cross_entropy",
        "cross-entropy added",
        "Cross-entropy of the model that goes on from x̂ less that of the model as it is, in nats a "
        "token.",
        "lower",
        "documents",
        SPARSE,
    ),
    Metric(
        "kl",
        "KL divergence",
        "Mean KL(original ‖ spliced) of the next-token distributions, in nats.",
        "lower",
        "documents",
        SPARSE,
    ),
    Metric(
        "top1_agreement",
        "same likeliest token",
        "Share of places where the model has the same likeliest next token from x̂ as from x.",
        "higher",
        "documents",
        SPARSE,
    ),
)


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure the fidelity of an arm, on less spliced text in the quick suite."""
    arm.keep_code()
    return look(arm, splicing(settings), progress, f"fidelity, {arm.name}").measured


def splicing(settings: Settings) -> EvaluateConfig:
    """Return how much text a suite splices."""
    tokens = {"quick": 2_048, "standard": 8_192, "full": 32_768}[settings.suite]
    return EvaluateConfig(spliced_tokens=tokens, seed=settings.seed)


class Look(NamedTuple):
    """What is seen in one pass over the held-out rows and some spliced text."""

    measured: Measured
    fired: Int[Tensor, " features"]
    """Held-out rows on which each feature is active."""


def look(arm: Arm, config: EvaluateConfig, progress: Progress, stage: str) -> Look:
    """Measure fidelity, telling ``progress`` as ``stage``."""
    progress.start(stage, arm.held_out.rows + 4 * spliced_tokens(arm, config), "tokens")
    means = arm.once("means", lambda: Means.of(arm))
    sums = rebuild(arm, means, progress)
    rebuilt = reconstruction(arm, sums)
    lost = _losses(splice(arm, means.all.float(), config, progress))
    estimates = {**rebuilt.estimates, **lost.estimates}
    progress.finish(f"FVU {estimates['fvu'].value:.3f}, kl {estimates['kl'].value:.3f} nats")
    return Look(Measured(estimates, {**rebuilt.details, **lost.details}), sums.fired)


def _losses(spliced: Spliced) -> Measured:
    resampling = Resampling(len(spliced.tokens))
    tokens, original, changed, kl, agreed, zero, mean = spliced
    estimate = resampling.estimate
    estimates = {
        "loss_recovered_zero": estimate(loss_recovered, original, changed, zero),
        "loss_recovered_mean": estimate(loss_recovered, original, changed, mean),
        "delta_cross_entropy": estimate(ratio, changed - original, tokens),
        "kl": estimate(ratio, kl, tokens),
        "top1_agreement": estimate(ratio, agreed, tokens),
    }
    entropies = {
        "original": original,
        "spliced": changed,
        "zero_ablated": zero,
        "mean_ablated": mean,
    }
    details = {
        "spliced_tokens": int(tokens.sum()),
        "spliced_documents": resampling.units,
        "cross_entropy": {
            name: estimate(ratio, part, tokens).to_json() for name, part in entropies.items()
        },
    }
    return Measured(estimates, details)
