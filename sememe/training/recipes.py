"""Published ways to train a dictionary, as configs; each names its paper and where we differ."""

import math

from sememe.training.config import TrainConfig


def sememe(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return our default: TopK with AuxK, tuned for runs of hundreds to thousands of steps."""
    return TrainConfig(features=features, k=k, passes=passes)


def openai_topk(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return the recipe of Scaling and evaluating sparse autoencoders (arXiv 2406.04093).

    Constant learning rate of 1e-4 at 32,768 features that goes as 1 / sqrt(features), AuxK 1/32,
    features dead after 10M activations. The paper's batch of 131,072, its average of the weights
    over steps and its normalising of every activation are left out.
    """
    return TrainConfig(
        features=features,
        k=k,
        passes=passes,
        initialisation="random",
        learning_rate=1e-4 * math.sqrt(32_768 / features),
        warm_up=0.0,
        decay=0.0,
        auxk=1 / 32,
        dead_tokens=10_000_000,
    )


def april_update(features: int = 9216, l1: float = 5.0, passes: int = 4) -> TrainConfig:
    """Return the ReLU + L1 recipe of Circuits Updates, April 2024 (transformer-circuits.pub).

    Adam (.9, .999) at 5e-5, the penalty ramped over the first 5% of steps, the rate falling to 0
    over the last 20%, gradients clipped to norm 1. Decoder rows keep norm 1 here, where the paper
    weighs the penalty by their norms; the two are the same family of dictionaries. The paper's
    200,000 steps need far more activations than a short run has: raise ``learning_rate`` for those.
    """
    return TrainConfig(
        features=features,
        kind="relu",
        l1=l1,
        passes=passes,
        initialisation="random",
        learning_rate=5e-5,
        warm_up=0.0,
        decay=0.2,
        ramp=0.05,
        clip=1.0,
    )
