"""Published ways to train a dictionary, as configs; each names its paper and where we differ.

Every recipe takes the number of features and of passes, and what sets its sparsity: ``k`` (active
features a token) or ``sparsity`` (weight of a penalty).
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

from sememe.dictionaries.nonlinearities import BatchTopK, Gated, JumpReLU, Refined, ReLU, TopK
from sememe.dictionaries.objectives import (
    L0,
    L1,
    AuxK,
    GateReconstruction,
    Matryoshka,
    PreActivation,
    Reconstruction,
    Tanh,
)
from sememe.errors import UsageError
from sememe.training.config import TrainConfig
from sememe.training.revival import Resampling


def sememe(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return our best at finding true features: first of `sememe study synthetic` in F1 and MCC.

    As LISTA-Matryoshka, with rows that begin as data points, prefixes of a sixteenth to a half, no
    tilt, thresholds that forget sooner, and no momentum, with a shorter memory of squared gradients
    that keeps large k stable. k falls from 4 times its value, or from a sixteenth of the features
    if that is less. Every row has its own k until the rate falls, and only then do rows share a
    budget: so rare features stay alive, which tells most where k is more than what is there. A step
    costs about 4 times one of :func:`topk` at the width of a language model (LOG.md), so that is
    the command's default.
    """
    config = TrainConfig(
        features=features,
        beta2=0.99,
        nonlinearity=Refined(BatchTopK(k, memory=0.95)),
        objective=(Reconstruction(), AuxK(), Matryoshka(by_frequency=True, detached=True)),
        passes=passes,
        k_from=max(k, min(4 * k, features // 16)),
    )
    return replace(config, share_from=1 - config.decay)


def topk(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return TopK with AuxK, tuned for runs of hundreds to thousands of steps."""
    return TrainConfig(features=features, nonlinearity=TopK(k), passes=passes)


def towards_monosemanticity(
    features: int = 4096, sparsity: float = 2.0, passes: int = 1
) -> TrainConfig:
    """Return the recipe of Towards Monosemanticity (Bricken et al. 2023).

    ReLU + L1 on unit decoder rows, encoder of the centred input, random first rows, and neuron
    resampling at steps 25,000 to 100,000 of 1,000,000: a shorter run needs
    ``resampling.scaled(steps / 1e6)``, as the study gives it. The paper averages the squared error
    over the width and sums the penalty, so that its coefficient is ours / width for its inputs; its
    learning rate is not given, 1e-4 here. It draws the encoder apart from the decoder; here they
    begin alike.
    """
    return TrainConfig(
        features=features,
        nonlinearity=ReLU(),
        objective=(Reconstruction(), L1(sparsity)),
        passes=passes,
        batch=8192,
        initialisation="random",
        learning_rate=1e-4,
        warm_up=0.0,
        decay=0.0,
        resampling=Resampling(),
    )


def april_update(features: int = 9216, sparsity: float = 5.0, passes: int = 4) -> TrainConfig:
    """Return the ReLU + L1 recipe of Circuits Updates, April 2024 (transformer-circuits.pub).

    Adam (.9, .999) at 5e-5, decoder rows of any norm, which weighs the penalty, the penalty ramped
    over the first 5% of steps, the rate falling to 0 over the last 20%, gradients clipped to 1. The
    paper's 200,000 steps need far more activations than a short run has: raise
    ``learning_rate`` for those. Its decoder rows begin with norm .1 and biases with 0; ours with
    norm 1 and where centred inputs score 0.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=ReLU(),
        objective=(Reconstruction(), L1(sparsity, ramp=0.05)),
        passes=passes,
        initialisation="random",
        centre="none",
        norms="free",
        learning_rate=5e-5,
        warm_up=0.0,
        clip=1.0,
    )


def january_2025(features: int = 9216, sparsity: float = 10.0, passes: int = 4) -> TrainConfig:
    """Return the JumpReLU recipe of Circuits Updates, January 2025 (transformer-circuits.pub).

    tanh penalty with c = 4 ramped over the whole run, pre-activation loss 3e-6, thresholds from .1,
    window 2, rate falling over the last 20%. Decoder entries begin uniform within 1 / width, the
    encoder as the decoder times width / features, biases so that 10,000 features are active on an
    activation, all equally often (half of the features, where there are fewer than 20,000). Its
    window also passes gradients to the scores, ours to the thresholds alone.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=JumpReLU(threshold=0.1, bandwidth=2.0),
        objective=(Reconstruction(), Tanh(sparsity, ramp=1.0, c=4.0), PreActivation(3e-6)),
        passes=passes,
        initialisation="uniform",
        first_active=10_000,
        centre="none",
        norms="free",
        learning_rate=2e-4,
        warm_up=0.0,
    )


def openai_topk(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return the recipe of Scaling and evaluating sparse autoencoders (arXiv 2406.04093).

    Constant learning rate of 1e-4 at 32,768 features that goes as 1 / sqrt(features), AuxK 1/32,
    features dead after 10M activations, so that AuxK never acts in runs shorter than that. The
    paper's batch of 131,072, its 256 dead features at a time (here half the width), its average of
    the weights over steps and its normalising of every activation are left out.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=TopK(k),
        passes=passes,
        initialisation="random",
        learning_rate=1e-4 * math.sqrt(32_768 / features),
        warm_up=0.0,
        decay=0.0,
        dead_tokens=10_000_000,
    )


def gated(features: int = 9216, sparsity: float = 5.0, passes: int = 4) -> TrainConfig:
    """Return the recipe of Improving dictionary learning with gated autoencoders (2404.16014).

    L1 on the gate alone, a reconstruction from the gate through a frozen decoder, Adam (0, .999).
    """
    return TrainConfig(
        features=features,
        nonlinearity=Gated(),
        objective=(Reconstruction(), L1(sparsity, ramp=0.05), GateReconstruction()),
        passes=passes,
        initialisation="random",
        learning_rate=1e-3,
        beta1=0.0,
    )


def jumprelu(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return the recipe of Jumping ahead (JumpReLU, arXiv 2407.14435), aimed at an L0 of ``k``.

    Thresholds from .001 for inputs of mean squared norm 1, which is sqrt(width) times that for
    ours: .03, right for widths near 1,000. The penalty is (L0 / k - 1)^2, ramped over a tenth of
    the run; the paper weighs L0 itself, ramped over 10,000 steps. For runs of hundreds of steps in
    place of its 10^5 we changed what kept them from the target (LOG.md): 2k features are active at
    first and not half of all, the window is ten times the paper's .001 for batches a tenth as
    large, the second moment forgets the penalty's far larger first gradients (.95, not .999), and
    the rate is 1e-3, not 7e-5.
    """
    return TrainConfig(
        features=features,
        nonlinearity=JumpReLU(threshold=0.03, bandwidth=0.3),
        objective=(Reconstruction(), L0(100.0, ramp=0.1, target=float(k))),
        passes=passes,
        initialisation="random",
        first_active=min(features, 2 * k),
        learning_rate=1e-3,
        beta1=0.0,
        beta2=0.95,
    )


def batchtopk(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return BatchTopK (arXiv 2412.06410): a budget shared over the batch, AuxK for the dead.

    Our warm-up and decay; the threshold is estimated from the first step on, with a shorter memory
    than the paper's: what is active afterwards then has the wanted L0 in short runs too.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=BatchTopK(k, memory=0.95),
        passes=passes,
        initialisation="random",
        learning_rate=1e-4 * math.sqrt(32_768 / features),
    )


def matryoshka(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return Matryoshka BatchTopK (arXiv 2503.17547): nested prefixes, each rebuilds alone.

    Schedule and threshold as of :func:`batchtopk`; prefixes of 1/16 to 1/2 of the features.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=BatchTopK(k, memory=0.95),
        objective=(Reconstruction(), AuxK(), Matryoshka()),
        passes=passes,
        initialisation="random",
        learning_rate=1e-4 * math.sqrt(32_768 / features),
    )


def lista_matryoshka(features: int = 9216, k: int = 32, passes: int = 4) -> TrainConfig:
    """Return LISTA-Matryoshka (github.com/chanind/claude-auto-research-synthsaebench).

    BatchTopK whose scores are refined once (eta .3) and whose k falls from 2.4 times its value (60
    to 25 there) over the first half; prefixes by frequency, each teaching only what it adds; rare
    bad reconstructions weigh more (tilt .002); the rate 3e-4 falls over the last third. Prefixes
    are 128, 512 and 2048 of 4096 there, the same shares here.
    """
    return TrainConfig(
        features=features,
        beta1=0.9,
        nonlinearity=Refined(BatchTopK(k), eta=0.3),
        objective=(
            Reconstruction(tilt=0.002),
            AuxK(),
            Matryoshka(shares=(1 / 32, 1 / 8, 1 / 2), by_frequency=True, detached=True, tilt=0.002),
        ),
        passes=passes,
        k_from=min(features, round(2.4 * k)),
        initialisation="random",
        learning_rate=3e-4,
        warm_up=0.0,
        decay=1 / 3,
    )


RECIPES: dict[str, Callable[..., TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        sememe,
        towards_monosemanticity,
        april_update,
        january_2025,
        openai_topk,
        gated,
        jumprelu,
        batchtopk,
        matryoshka,
        lista_matryoshka,
        topk,
    )
}
"""Every recipe by name."""


def make(name: str, **settings: int | float | None) -> TrainConfig:
    """Return recipe ``name`` with those settings that are not None.

    UsageError for an unknown recipe, and for a setting that it has not.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe is {name!r}; expected one of {', '.join(RECIPES)}")
    given = {setting: value for setting, value in settings.items() if value is not None}
    known = inspect.signature(RECIPES[name]).parameters
    for setting, value in given.items():
        if setting not in known:
            raise UsageError(
                f"{setting} is {value}, but recipe {name} has none: its settings are "
                + ", ".join(known)
            )
    return RECIPES[name](**given)
