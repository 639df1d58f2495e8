"""What each feature of a text does to a figure: by its direct path, by gradients, by ablation.

All ways estimate the same: how much the figure falls when the feature's value at a token is set to
0, the rest of the activation kept.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.errors import SememeError, UsageError
from sememe.intervention.features import FeatureSet
from sememe.models.language_model import LanguageModel
from sememe.models.reading import replaced
from sememe.models.sites import layout_of

# Axis names: time = tokens of one text, batch = copies of it, width = the site's, vocab = token
# ids, entries = firings, a feature at a token each, k = entries of a code.

Way = Literal["gradient", "direct", "integrated", "ablation"]
STEPS = 16
"""Places on the path of integrated gradients."""
BATCH_TOKENS = 1024
"""Tokens of the copies of a text that are read at once."""
CHUNK = 1024
"""Firings whose directions are held at once."""


@dataclass(frozen=True)
class Loss:
    """The model's loss on the text: the sum of -log p of every token but the first, in nats."""

    def __call__(
        self, logits: Float[Tensor, "batch time vocab"], ids: Int[Tensor, " time"]
    ) -> Float[Tensor, " batch"]:
        """Return the loss of each copy of the text."""
        flat = logits[:, :-1].flatten(0, 1)
        target = ids[1:].repeat(len(logits)).to(flat.device)
        losses = torch.nn.functional.cross_entropy(flat.float(), target, reduction="none")
        return losses.view(len(logits), -1).sum(1)


@dataclass(frozen=True)
class LogitDifference:
    """The logit of one token over that of another, where the next token is predicted."""

    target: int
    baseline: int | None = None
    """None for the mean over all tokens."""
    position: int = -1
    """Whose next token it is."""

    def __call__(
        self, logits: Float[Tensor, "batch time vocab"], ids: Int[Tensor, " time"]
    ) -> Float[Tensor, " batch"]:
        """Return the difference for each copy of the text."""
        row = logits[:, self.position].float()
        other = row.mean(1) if self.baseline is None else row[:, self.baseline]
        return row[:, self.target] - other


Figure = Callable[
    [Float[Tensor, "batch time vocab"], Int[Tensor, " time"]], Float[Tensor, " batch"]
]
"""What effects are on: a number for each copy of a text."""


class Firings(NamedTuple):
    """Where the features of a text fire, token by token, strongest first."""

    token: Int[Tensor, " entries"]
    """Place in the text."""
    feature: Int[Tensor, " entries"]
    value: Float[Tensor, " entries"]
    """In units of the code."""


class Text(NamedTuple):
    """A text as an attribution sees it."""

    ids: Int[Tensor, " time"]
    firings: Firings
    logits: Float[Tensor, "batch time vocab"]
    """Of the one copy, with gradients to ``leaf``."""
    leaf: Float[Tensor, "batch time write_width"]
    """The activations where the features are written."""
    final_scale: Float[Tensor, " time"] | None
    """What the final norm multiplies by; None where the site has no direct path to it."""


class Attribution(NamedTuple):
    """The effect of every firing of a text on a figure."""

    text: Text
    figure: float
    """The figure of the text as it is."""
    effects: Float[Tensor, " entries"]
    """What it falls by without each of the firings."""

    def by_feature(self) -> tuple[Int[Tensor, " features"], Float[Tensor, " features"]]:
        """Return the features that fire, and the sum of their effects over the tokens."""
        features, place = self.text.firings.feature.unique(return_inverse=True)
        return features, torch.zeros(len(features)).index_add_(0, place, self.effects)


def attribute(
    model: LanguageModel,
    features: FeatureSet,
    ids: Sequence[int],
    figure: Figure,
    *,
    way: Way = "gradient",
    steps: int = STEPS,
) -> Attribution:
    """Return the effect on ``figure`` of each feature at each token of a text.

    With a_i the value of feature i at token t, d_i what one unit of it adds to the activation, the
    effect is a_i (d_i . r_t), where ``way`` says what r_t is:

    ``gradient``: the gradient of the figure at the token's activation, one backward pass for all
    features (attribution patching with a zero baseline, as in Scaling Monosemanticity, 2024).
    ``direct``: the gradient through the residual stream, the final norm's weight and the
    unembedding alone, the size of the stream held fixed; no backward pass through the model.
    ``integrated``: the mean of the gradients at ``steps`` places between the text without any
    feature and as it is (integrated gradients, arXiv 1703.01365), whose effects add up to the
    difference of the two. ``ablation`` sets each firing to 0 by itself and runs the model again,
    the rest of the activation kept: the true effect, which the others estimate.

    The model should compute in fp32 (:meth:`LanguageModel.exact`). Tokens that the token rules
    leave out have no firings. Raises UsageError for a text of fewer than two tokens or too long for
    the model, a dictionary of another model, and a site without a direct path.
    """
    text = look(model, features, ids)
    effects = effects_of(model, features, text, figure, way=way, steps=steps)
    return Attribution(text, figure_of(text, figure), effects)


def figure_of(text: Text, figure: Figure) -> float:
    """Return the figure of a text as it is."""
    return float(figure(text.logits.detach(), text.ids))


def look(model: LanguageModel, features: FeatureSet, ids: Sequence[int]) -> Text:
    """Read a text once and return where its features fire; errors as of :func:`attribute`."""
    if not 2 <= len(ids) <= model.context:
        raise UsageError(
            f"the text has {len(ids)} tokens; expected 2 to {model.context}, which {model.name} "
            "reads at once"
        )
    features.check(model)
    row = torch.tensor(ids)
    seen: dict[str, Tensor] = {}

    def keep(site: str, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        seen[site] = x.detach()[0].float()
        return x

    def put(x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        seen["leaf"] = x.detach().requires_grad_()
        return seen["leaf"]

    layout = layout_of(model.module)
    norm = None
    if layout is not None and model.writes_to_stream(features.writes):
        norm = f"module:{layout.norm}"
    with ExitStack() as stack:
        stack.enter_context(replaced(model, features.reads, partial(keep, features.reads)))
        stack.enter_context(replaced(model, features.writes, put))
        for site in () if norm is None else (f"{norm}:in", norm):
            stack.enter_context(replaced(model, site, partial(keep, site)))
        logits = model.logits(row[None], grad=True)
    scale = None if norm is None else model.final_scale(seen[f"{norm}:in"], seen[norm])
    rows = seen[features.reads]
    kept = features.kept(row, rows)
    code = features.encode(rows[kept])
    there = code.values > 0
    place = kept.nonzero().expand(there.shape)
    firings = Firings(place[there], code.indices[there].long(), code.values[there])
    return Text(row, firings, logits, seen["leaf"], scale)


def effects_of(
    model: LanguageModel,
    features: FeatureSet,
    text: Text,
    figure: Figure,
    *,
    way: Way,
    steps: int = STEPS,
) -> Float[Tensor, " entries"]:
    """Return the effect of each firing of a text that was looked at, as :func:`attribute`."""
    if way == "ablation":
        each = list(torch.arange(len(text.firings.value))[:, None])
        return ablate(model, features, text, figure, each)
    if way == "direct":
        vectors = _direct(model, features, text, figure)
    elif way == "integrated":
        vectors = _integrated(model, features, text, figure, steps)
    else:
        vectors = _gradient(features, figure(text.logits, text.ids), text.leaf)[0]
    return along(features, text, vectors)


def along(
    features: FeatureSet, text: Text, vectors: Float[Tensor, "time width"]
) -> Float[Tensor, " entries"]:
    """Return a_i (d_i . r_t) of every firing, with r_t the vectors of its token."""
    effects = torch.empty_like(text.firings.value)
    for part in torch.arange(len(effects)).split(CHUNK):
        directions = features.directions(text.firings.feature[part])
        effects[part] = (directions * vectors[text.firings.token[part]]).sum(1)
    return effects * text.firings.value


def ablate(
    model: LanguageModel,
    features: FeatureSet,
    text: Text,
    figure: Figure,
    groups: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, " groups"]:
    """Return what the figure falls by when each group of firings is set to 0, the rest kept."""
    base = figure_of(text, figure)
    batch = max(1, BATCH_TOKENS // len(text.ids))
    effects = []
    for first in range(0, len(groups), batch):
        part = groups[first : first + batch]
        gone = torch.stack([-_contribution(features, text, chosen) for chosen in part])
        with replaced(model, features.writes, partial(_add, gone)):
            logits = model.logits(text.ids.expand(len(part), -1))
        effects.append(base - figure(logits, text.ids))
    return torch.cat(effects) if effects else torch.zeros(0)


def _contribution(
    features: FeatureSet, text: Text, chosen: Int[Tensor, " chosen"]
) -> Float[Tensor, "time write_width"]:
    """Return what some firings add to the activations."""
    token, feature, value = (part[chosen] for part in text.firings)
    rows = features.directions(feature) * value[:, None]
    return torch.zeros(len(text.ids), rows.shape[1]).index_add_(0, token, rows)


def _add(
    moved: Float[Tensor, "batch time width"], x: Float[Tensor, "batch time width"]
) -> Float[Tensor, "batch time width"]:
    return x + moved.to(x)


def _constant(value: Tensor, _: Tensor) -> Tensor:
    return value


def _gradient(
    features: FeatureSet,
    figures: Float[Tensor, " batch"],
    leaf: Float[Tensor, "batch time write_width"],
) -> Float[Tensor, "batch time write_width"]:
    """Return the gradient of each copy's figure at its activations."""
    (found,) = torch.autograd.grad(figures.sum(), leaf, retain_graph=True, allow_unused=True)
    if found is None or not found.isfinite().all():
        raise SememeError(
            f"the figure has no finite gradient at {features.writes}: it does not depend on what "
            "the model does there"
        )
    gradient: Tensor = found.float().cpu()
    return gradient


def _integrated(
    model: LanguageModel, features: FeatureSet, text: Text, figure: Figure, steps: int
) -> Float[Tensor, "time width"]:
    if steps < 1:
        raise UsageError(f"steps is {steps}; expected 1 or more")
    whole = _contribution(features, text, torch.arange(len(text.firings.value)))
    total = torch.zeros_like(whole)
    missing = 1 - (torch.arange(steps) + 0.5) / steps  # of the features, at each place of the path
    for part in missing.split(max(1, BATCH_TOKENS // len(text.ids))):
        leaf = (text.leaf.detach() - (part[:, None, None] * whole).to(text.leaf)).requires_grad_()
        with replaced(model, features.writes, partial(_constant, leaf)):
            logits = model.logits(text.ids.expand(len(part), -1), grad=True)
        total += _gradient(features, figure(logits, text.ids), leaf).sum(0)
    return total / steps


def _direct(
    model: LanguageModel, features: FeatureSet, text: Text, figure: Figure
) -> Float[Tensor, "time width"]:
    if text.final_scale is None:
        raise UsageError(f"site {features.writes} has no direct path to the logits")
    logits = text.logits.detach().float().requires_grad_()
    (at_logits,) = torch.autograd.grad(figure(logits, text.ids).sum(), logits)
    return (model.direct_gradient(at_logits[0]) * text.final_scale[:, None]).cpu()
