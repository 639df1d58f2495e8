"""Structure: how sparse a feature's effects are, how direct, and what lies in the error.

Axis names: rows = held-out activations, places = 16 tokens from a firing on, vocab = token ids.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Estimate, Resampling
from sememe.evaluation.firings import Firings, Text, mean_over
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings
from sememe.models.language_model import LanguageModel
from sememe.models.reading import replaced
from sememe.models.resuming import layers_before, recorded, resumed
from sememe.models.sites import layer_count
from sememe.progress import Progress

FEATURES = {"quick": 16, "standard": 32, "full": 256}
"""Features ablated, one firing each."""
PLACES = 16
"""Tokens whose logits are compared: that of the firing, and those after it (2406.04093)."""
LATEST = 48
"""Firings are drawn from the first tokens of windows, which are quick to read."""
RIDGE = 1e-4
"""Ridge penalty, in mean variances of a dimension of the input."""
EXACT = 1e-8
"""Share of the variance below which an error is rounding, in which nothing is looked for."""
CONTROLS = ("pca", "neurons", "random directions", "frozen decoder", "random model", "gaussian")

METRICS = (
    Metric(
        "effect_fraction",
        "logits that an ablation moves",
        "Effective fraction (L1 / L2)² / n of the n = 16 vocab logit changes when one feature is "
        "taken away at a token where it fires (2406.04093, ablation sparsity): 2/π for Gaussian "
        "changes, 1 where all are equal; mean over features.",
        "lower",
        "features",
        CONTROLS,
    ),
    Metric(
        "direct_share",
        "direct path's share",
        "‖direct‖² / (‖direct‖² + ‖total - direct‖²) of the same changes, centred over the "
        "vocabulary; direct is the change when no later layer sees that the feature is gone. 1 "
        "where the effect is all direct; mean over features.",
        "neither",
        "features",
    ),
    Metric(
        "error_predicted",
        "error predicted",
        "R² of the error x - x̂ from x by ridge regression, fitted on one half of the documents "
        "and measured on the other, both ways (2410.14670, dark matter).",
        "neither",
        "documents",
    ),
    Metric(
        "error_norm_predicted",
        "error's square predicted",
        "The same of ‖x - x̂‖².",
        "neither",
        "documents",
    ),
)


@torch.no_grad()
def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure what an arm's features do downstream, and what it leaves."""
    wanted = FEATURES[settings.suite]
    progress.start(f"structure, {arm.name}", arm.held_out.rows + wanted, "rows")
    estimates, left_out = _errors(arm, settings)
    progress.advance(arm.held_out.rows)
    features, rows, values = choose_firings(Text.of(arm), Firings.of(arm), wanted, settings.seed)
    direct = arm.model.writes_to_stream(arm.site) and layer_count(arm.model.module) > 0
    model = arm.model.exact()
    fractions, shares = [], []
    for feature, row, value in zip(features, rows, values, strict=True):
        changes = _ablate(arm, model, int(feature), int(row), float(value), direct=direct)
        fractions.append(effective_fraction(changes.total))
        if direct:
            shares.append(direct_share(changes))
        progress.advance(1)
    estimates["effect_fraction"] = mean_over(fractions)
    if direct:
        estimates["direct_share"] = mean_over(shares)
    else:
        left_out["direct_share"] = f"{arm.site} has no direct path to the logits"
    details = {
        "features": features.tolist(),
        "effect_fractions": fractions,
        "direct_shares": shares,
    }
    progress.finish(f"an ablation moves {estimates['effect_fraction'].value:.3f} of the logits")
    return Measured(estimates, details, left_out)


def choose_firings(
    text: Text, firings: Firings, wanted: int, seed: int
) -> tuple[
    Int64[np.ndarray, " features"], Int64[np.ndarray, " features"], Float[np.ndarray, " features"]
]:
    """Draw features, and of each a firing with enough tokens after it: its row and value.

    NotApplicableError where there is none.
    """
    generator = np.random.default_rng(seed)
    room = (text.position < LATEST) & (text.position + PLACES <= text.length)
    usable = np.flatnonzero(room[firings.row])
    owner = np.repeat(np.arange(len(firings.start) - 1), np.diff(firings.start))[usable]
    if not len(usable):
        raise NotApplicableError(
            f"no feature fires with {PLACES - 1} tokens after it in the first {LATEST} of a "
            "window: use longer documents"
        )
    shuffled = generator.permutation(len(usable))
    features, first = np.unique(owner[shuffled], return_index=True)
    order = generator.permutation(len(features))[:wanted]
    chosen = usable[shuffled[first[order]]]
    return features[order], firings.row[chosen], firings.value[chosen]


class Changes(NamedTuple):
    """What taking a feature away at a token does to the logits there and after."""

    total: Float[Tensor, "places vocab"]
    direct: Float[Tensor, "places vocab"]
    """The part that no later layer takes part in."""


def _ablate(
    arm: Arm, model: LanguageModel, feature: int, row: int, value: float, *, direct: bool
) -> Changes:
    """Take a feature away at a held-out row; without ``direct`` that part is zero."""
    text, front = Text.of(arm), model.tokenizer.bos
    place, position = int(text.place[row]), int(text.position[row])
    own = text.ids[place - position : place + PLACES].tolist()
    lead = [] if front is None else [front]
    at = len(lead) + position
    ids = torch.tensor([[*lead, *own]])
    dictionary = arm.dictionary
    step = value * dictionary.directions(torch.tensor([feature]))[0] / dictionary.write_scale
    take = partial(_take_away, step, at)
    before, layers = layers_before(model, arm.site), layer_count(model.module)
    with recorded(model, (before, layers)) as known:
        original = model.logits(ids)[0, at:]
    with resumed(model, known, before), replaced(model, arm.site, take):
        total = model.logits(ids)[0, at:] - original
    if not direct:
        return Changes(total, torch.zeros_like(total))
    with resumed(model, known, layers), replaced(model, f"layers.{layers - 1}.resid", take):
        return Changes(total, model.logits(ids)[0, at:] - original)


def _take_away(
    step: Float[Tensor, " width"], at: int, activation: Float[Tensor, "batch time width"]
) -> Float[Tensor, "batch time width"]:
    changed = activation.clone()
    changed[:, at] -= step.to(activation)
    return changed


def effective_fraction(changes: Float[Tensor, "..."]) -> float:
    """Return (L1 / L2)² / n of n changes: the share that carries them; NaN where all are 0."""
    exact = changes.double()
    return float(exact.abs().sum().square() / exact.square().sum() / exact.numel())


def direct_share(changes: Changes) -> float:
    """Return the share of the direct part in the squares of both parts, centred over the tokens.

    A constant added to all logits of a place changes no prediction.
    """
    total, direct = (part.double() - part.double().mean(1, keepdim=True) for part in changes)
    own, rest = direct.square().sum(), (total - direct).square().sum()
    return float(own / (own + rest))


class Regression(NamedTuple):
    """Ridge regression on standard rows with an intercept that is not penalised."""

    mean: Float[Tensor, " inputs"]
    weight: Float[Tensor, "inputs outputs"]
    offset: Float[Tensor, " outputs"]

    @classmethod
    def fit(cls, x: Float[Tensor, "rows inputs"], y: Float[Tensor, "rows outputs"]) -> "Regression":
        """Fit y from x, with a penalty of 1e-4 of the mean variance of an input."""
        mean, offset = x.mean(0), y.mean(0)
        centred = x - mean
        square = centred.T @ centred
        penalty = RIDGE * square.diagonal().mean().clamp_min(1e-30)
        square.diagonal().add_(penalty)
        return cls(mean, torch.linalg.solve(square, centred.T @ (y - offset)), offset)

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Foretell y."""
        return (x - self.mean) @ self.weight + self.offset


def unexplained(
    x: Float[Tensor, "rows inputs"],
    y: Float[Tensor, "rows outputs"],
    fold: Bool[Tensor, " rows"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return the squared error of foretelling y linearly from x, and that of its mean, by row.

    What foretells the rows of a fold, the mean too, was fitted on the other.
    """
    error, spread = torch.zeros(len(x)), torch.zeros(len(x))
    for scored in (fold, ~fold):
        fitted = Regression.fit(x[~scored], y[~scored])
        error[scored] = (y[scored] - fitted(x[scored])).square().sum(1)
        spread[scored] = (y[scored] - fitted.offset).square().sum(1)
    return error, spread


def _errors(arm: Arm, settings: Settings) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Return how much of the error, and of its square, is linear in the activation."""
    names = ("error_predicted", "error_norm_predicted")
    units = arm.documents.units
    parts = [(coded.rows.values, coded.rebuilt(arm.dictionary)) for coded in arm.in_order()]
    x, rebuilt = (torch.cat(part) for part in zip(*parts, strict=True))
    error = x - rebuilt
    if units < 2:
        return {}, dict.fromkeys(names, "there is one held-out document, two are needed")
    if error.square().sum() <= EXACT * (x - x.mean(0)).square().sum():
        return {}, dict.fromkeys(names, "the reconstruction is exact: there is no error")
    half = np.random.default_rng(settings.seed).permutation(units) % 2 == 0
    fold = torch.from_numpy(half[arm.document])
    estimates = {}
    for name, target in zip(names, (error, error.square().sum(1, keepdim=True)), strict=True):
        # brought to size one, so that squares of squares stay well inside fp32
        estimates[name] = _explained(
            arm.documents, arm.document, *unexplained(x, target / target.std(), fold)
        )
    return estimates, {}


def _explained(
    documents: Resampling,
    document: Int64[np.ndarray, " rows"],
    error: Float[Tensor, " rows"],
    spread: Float[Tensor, " rows"],
) -> Estimate:
    """Return R² = 1 - sum of errors / sum of spreads, documents drawn."""
    sums = (np.bincount(document, part.double(), documents.units) for part in (error, spread))
    return documents.estimate(lambda left, whole: 1 - left / whole, *sums)
