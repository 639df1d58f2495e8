"""What training makes small: one class a term, each a number to add with its weight.

All in scaled units and per activation: inputs have mean squared norm = width, squared errors are
summed over the width and averaged over rows. So an L1 weight of 5 is that of Scaling
Monosemanticity, and predicting zero costs ``width``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import TopK
from sememe.dictionaries.scores import Activity, Values
from sememe.errors import UsageError
from sememe.kernels import Code, decode, encode_topk, gather, products, squared_distance

LEAST_ENTRIES = 32


class Step(NamedTuple):
    """One forward pass, as the terms see it."""

    x: Float[Tensor, "rows width"]
    """The scaled input."""
    target: Float[Tensor, "rows write_width"]
    """What is to be reconstructed, scaled; for an autoencoder the input itself."""
    activity: Activity
    rebuilt: Float[Tensor, "rows write_width"]
    """The scaled reconstruction; gradients go through it if a term asks for that."""
    error: Float[Tensor, ""]
    """Its summed squared error, differentiable."""
    dictionary: Dictionary
    dead: Int[Tensor, " dead"]
    """Features that have been silent for too long."""
    frequency: Float[Tensor, " features"] | None = None
    """Share of recent activations on which each feature was active."""
    k: int = 0
    """Features active on one activation now, where a budget decides."""
    number: int = 0
    """Number of the step: what is drawn at random is a function of it."""
    divergence: Callable[[Float[Tensor, "rows write_width"]], Tensor] | None = None
    """The KL divergence of the model's predictions when it goes on from a reconstruction."""

    @classmethod
    def of(
        cls,
        objective: "Sequence[Term]",
        dictionary: Dictionary,
        activity: Activity,
        x: Float[Tensor, "rows width"],
        target: Float[Tensor, "rows write_width"],
        **facts: Any,  # noqa: ANN401
    ) -> "Step":
        """Reconstruct the target for these terms; ``facts`` are the other fields."""
        if any(term.through_rebuilt for term in objective):
            rebuilt = dictionary.rebuild(activity, x)
            error = squared_distance(target, rebuilt)
        else:
            rebuilt, error = dictionary.rebuild_with_error(activity, x, target)
        return cls(x, target, activity, rebuilt, error, dictionary, **facts)


@dataclass(frozen=True)
class Term:
    """A part of the objective; instances are frozen and hold only settings."""

    name: ClassVar[str]

    weight: float = 1.0
    """What its value is multiplied by."""
    ramp: float = 0.0
    """Share of the steps over which the weight rises from 0."""

    through_rebuilt: ClassVar[bool] = True
    """Whether gradients go through the reconstruction itself, not only its squared error."""

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the term's value, before its weight."""
        raise NotImplementedError

    def refusal(self, config: DictionaryConfig) -> str:
        """Return why it makes no sense for such a dictionary, or nothing."""
        return ""


@dataclass(frozen=True)
class Reconstruction(Term):
    """The mean over rows of ||x - x^||^2; with a tilt of more than 0, see :func:`squared_error`."""

    tilt: float = 0.0
    """How much more badly reconstructed rows weigh."""
    name: ClassVar[str] = "reconstruction"

    @property
    def through_rebuilt(self) -> bool:  # type: ignore[override]
        """Whether it is tilted, which takes the errors of single rows."""
        return self.tilt != 0

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared error."""
        if self.through_rebuilt:
            return squared_error(step.target, step.rebuilt, self.tilt)
        return step.error / max(1, len(step.target))


@dataclass(frozen=True)
class L1(Term):
    """The mean over rows of sum_i f_i ||d_i||; of the gate's values where there is a gate.

    ||d_i|| sums the norms of the decoder's rows over the sites written (crosscoders).
    """

    name: ClassVar[str] = "l1"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the penalty."""
        values = step.activity.values if step.activity.gate is None else step.activity.gate
        return weighted_sum(values, step.dictionary.decoder_norms())

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds whose budget sets the number of active features."""
        return _budget(config, "an L1 penalty would only shrink their values")


@dataclass(frozen=True)
class Tanh(Term):
    """The mean over rows of sum_i tanh(c f_i ||d_i||) (Circuits Updates, January 2025)."""

    c: float = 4.0
    """Where the penalty saturates: at values of about 1 / c."""
    name: ClassVar[str] = "tanh"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the penalty."""
        values, norms = step.activity.values, step.dictionary.decoder_norms()
        if isinstance(values, Code):
            weighed = values.values * gather(norms, values.indices)
        else:
            weighed = values * norms
        return (self.c * weighed).tanh().sum() / max(1, len(weighed))

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse gates, and kinds whose budget sets the number of active features."""
        if self.c <= 0:
            return f"its c is {self.c}; expected a positive number"
        if config.nonlinearity.gates:
            return "it would teach the values alone, never the gate; use l1"
        return _budget(config, "a tanh penalty would only shrink their values")


@dataclass(frozen=True)
class L0(Term):
    """The mean number of active features; with a target, (L0 / target - 1)^2 (2407.14435)."""

    target: float | None = None
    """Number of active features to aim at; None makes the number itself small."""
    name: ClassVar[str] = "l0"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the penalty; gradients reach the thresholds."""
        active = step.activity.l0
        assert active is not None
        return active if self.target is None else (active / self.target - 1).square()

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds that have no gradient of the number of active features."""
        if self.target is not None and self.target <= 0:
            return f"its target is {self.target}; expected a positive number"
        if config.nonlinearity.counts:
            return ""
        return "only jumprelu has a gradient of the number of active features"


@dataclass(frozen=True)
class PreActivation(Term):
    """The mean over rows of sum_i ReLU(theta_i - z_i) ||d_i||: silent features drift back.

    From Circuits Updates, January 2025. It needs every score, so a dense product more.
    """

    name: ClassVar[str] = "preactivation"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the penalty; it teaches the encoder and the thresholds alone."""
        encoder = step.dictionary.encoder()
        scores = torch.addmm(encoder.bias, step.dictionary.centred(step.x).detach(), encoder.W.T)
        short = (encoder.extra["threshold"] - scores).relu()
        total = (short @ step.dictionary.decoder_norms().detach()).sum()
        return total / max(1, len(scores))

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds without thresholds."""
        if config.nonlinearity.counts:
            return ""
        return "only jumprelu has thresholds that scores can fall short of"


@dataclass(frozen=True)
class AuxK(Term):
    """How badly the dead features alone would explain what the living ones leave (2406.04093).

    The residual is detached, so that only dead features learn from it; their decoding adds no bias,
    which is in the main reconstruction already. Those with the largest scores act, up to ``most``
    at once, negative scores included: a feature whose every score is negative learns too.
    """

    weight: float = 1 / 32
    most: int | None = None
    """Dead features active on one activation; by default half the width."""
    budget: float | None = 0.5
    """Entries they may have for each of the living (32 a row, or k if that is more): they look at
    every second, third ... row of a batch, at others in the next. None looks at all rows."""
    name: ClassVar[str] = "auxk"
    through_rebuilt: ClassVar[bool] = False

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse to let none of them act."""
        if self.budget is not None and not self.budget > 0:
            return f"its budget is {self.budget}; expected more than 0, or none"
        return "" if self.most is None or self.most > 0 else f"most is {self.most}; expected 1 up"

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return width x the share of the residual's variance that is left."""
        if not len(step.dead):
            return step.x.new_zeros(())
        dictionary, dead = step.dictionary, step.dead
        most = min(self.most or max(1, step.x.shape[1] // 2), len(dead))
        W_enc, bias = dictionary.W_enc[dead], dictionary.b_enc[dead]
        rows = self._rows(step, most)
        x = dictionary.centred(step.x[rows]).detach()
        # Lifted above zero for the selection, which takes positive scores alone. The lift rounds
        # values away where it is large, so they are computed again; gradients need no values.
        lift = (bias.abs().max() + W_enc.norm(dim=1).max() * x.norm(dim=1).max()).detach()
        code = encode_topk(x, W_enc, bias + lift, most)
        there = code.values > 0
        exact = products(code.indices, there, W_enc, x) + bias[code.indices.long()].detach()
        values = exact * there + (code.values - code.values.detach())
        rebuilt = decode(Code(code.indices, values), dictionary.W_dec[dead], there)
        return unexplained((step.target[rows] - step.rebuilt[rows]).detach(), rebuilt)

    def _rows(self, step: Step, most: int) -> slice:
        if self.budget is None:
            return slice(None)
        stride = math.ceil(most / (self.budget * max(step.k, LEAST_ENTRIES)))
        stride = max(1, min(stride, len(step.x)))
        return slice(step.number % stride, None, stride)


@dataclass(frozen=True)
class MultiTopK(Term):
    """The squared error with ``factor`` x k features active (2406.04093): a progressive code."""

    weight: float = 1 / 8
    factor: int = 4
    """How many times k."""
    name: ClassVar[str] = "multi_topk"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared error of the wider code."""
        dictionary = step.dictionary
        k = min(self.factor * step.k, dictionary.config.features)
        code = TopK(k).encode(dictionary.centred(step.x), dictionary.encoder())
        return squared_error(step.target, dictionary.rebuild(Activity(code), step.x))

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds without a k."""
        if self.factor < 1:
            return f"its factor is {self.factor}; expected 1 or more"
        return (
            "" if hasattr(config.nonlinearity, "k") else "only kinds with a k can have more of it"
        )


@dataclass(frozen=True)
class Matryoshka(Term):
    """The summed squared errors of nested prefixes of the features (2503.17547).

    The whole dictionary is not among them: that is the reconstruction term. With ``sampled`` > 0
    that many prefixes are drawn anew at every step, small ones as often as large ones by logarithm.
    """

    shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
    """Prefixes, as shares of the features, ascending."""
    sampled: int = 0
    """Prefixes to draw at every step in place of ``shares``."""
    seed: int = 0
    """Of the draw."""
    by_frequency: bool = False
    """Whether the features active most often come first, rather than those with low numbers."""
    detached: bool = False
    """Whether a prefix teaches only the features that the one before has not."""
    tilt: float = 0.0
    """How much more badly reconstructed rows weigh."""
    name: ClassVar[str] = "matryoshka"
    through_rebuilt: ClassVar[bool] = False

    def ends(self, features: int, number: int) -> list[int]:
        """Return where the prefixes of step ``number`` end, ascending."""
        if not self.sampled:
            return sorted({max(1, round(share * features)) for share in self.shares})
        generator = Generator().manual_seed(1_000_003 * self.seed + number)
        drawn = features ** torch.rand(self.sampled, generator=generator, dtype=torch.float64)
        return sorted({min(features - 1, max(1, int(end))) for end in drawn.tolist()})

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the sum; every entry is decoded once, in the first prefix that holds it."""
        ends = self.ends(step.dictionary.config.features, step.number)
        activity = step.activity
        W_dec: Tensor = step.dictionary.W_dec
        if self.by_frequency:
            assert step.frequency is not None
            order = step.frequency.argsort(descending=True, stable=True)
            activity, W_dec = _reordered(activity, order), W_dec[order]
        parts = blocks(activity, W_dec, ends)
        rebuilt = step.dictionary.base(step.x)
        total = step.x.new_zeros(())
        for number, part in enumerate(parts):
            rebuilt = (rebuilt.detach() if self.detached and number else rebuilt) + part
            total = total + squared_error(step.target, rebuilt, self.tilt)
        return total

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse prefixes that are no prefixes."""
        if not self.shares and not self.sampled:
            return "it has no prefixes: give shares, or a number to sample"
        if any(not 0 < share < 1 for share in self.shares):
            return f"its shares are {self.shares}; expected numbers between 0 and 1"
        return "" if config.features > 1 else "one feature has no prefixes"


@dataclass(frozen=True)
class GateReconstruction(Term):
    """||x - x^||^2 from the gate's values through a decoder that does not learn (2404.16014)."""

    name: ClassVar[str] = "gate_reconstruction"
    through_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared error; only the gate learns from it."""
        gate, W_dec = step.activity.gate, step.dictionary.W_dec.detach()
        assert gate is not None
        parts = decode(gate, W_dec) if isinstance(gate, Code) else gate @ W_dec
        return squared_error(step.target, parts + step.dictionary.base(step.x).detach())

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds without a gate."""
        return "" if config.nonlinearity.gates else "only gated has a gate to teach"


@dataclass(frozen=True)
class Divergence(Term):
    """The KL divergence of the model's predictions when it goes on from x^ (2405.12241).

    In nats a token, for training that reads a live model (end to end).
    """

    name: ClassVar[str] = "kl"

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the mean divergence."""
        if step.divergence is None:
            raise UsageError(
                "the kl term needs a live model: train on a LiveStream, not on stored activations"
            )
        return step.divergence(step.rebuilt)

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse what does not write one site."""
        return "" if len(config.writes) == 1 else "the model goes on from one site, not several"


TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        Reconstruction,
        L1,
        Tanh,
        L0,
        PreActivation,
        AuxK,
        MultiTopK,
        Matryoshka,
        GateReconstruction,
        Divergence,
    )
}
"""Every term by name."""


def to_json(term: Term) -> dict[str, Any]:
    """Return the term's name and settings."""
    return {"term": term.name, **asdict(term)}


def squared_error(
    target: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"], tilt: float = 0.0
) -> Float[Tensor, ""]:
    """Return the mean over rows of ||target - rebuilt||^2.

    With ``tilt`` t each row e weighs exp(t e / mean e), normalised (tilted empirical risk, arXiv
    2007.01162); no gradient goes through the weights.
    """
    if not tilt or not len(target):
        return squared_distance(target, rebuilt) / max(1, target.shape[0])
    errors = (target - rebuilt).square().sum(1)
    relative = errors.detach() / errors.detach().mean().clamp_min(1e-12)
    return ((tilt * relative).softmax(0) * errors).sum()


def weighted_sum(values: Values, weights: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return the mean over rows of the sum of feature values times ``weights``."""
    if isinstance(values, Code):
        weighed = values.values * gather(weights, values.indices)
        return weighed.sum() / max(1, len(weighed))
    return (values @ weights).sum() / max(1, values.shape[0])


def unexplained(
    residual: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Return width x the share of the residual's variance that ``rebuilt`` leaves.

    The width puts it on the scale of :func:`squared_error`. A constant residual gives 0.
    """
    variance = (residual - residual.mean(0)).square().sum()
    share = (residual - rebuilt).square().sum() / variance.clamp_min(1e-12)
    return share * residual.shape[1] * (variance > 0)


def blocks(
    activity: Activity, W_dec: Float[Tensor, "features width"], ends: list[int]
) -> list[Float[Tensor, "rows width"]]:
    """Return what the features up to each end, from the one before on, add to a reconstruction."""
    values, parts = activity.values, []
    starts = [0, *ends[:-1]]
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    rows = W_dec.split([*sizes, len(W_dec) - ends[-1]])[:-1]
    for start, end, part in zip(starts, ends, rows, strict=True):
        if isinstance(values, Code):
            inside = (values.indices >= start) & (values.indices < end)
            code = Code((values.indices - start) * inside, values.values * inside)
            present = None if activity.present is None else activity.present & inside
            parts.append(decode(code, part, present))
        else:
            parts.append(values[:, start:end] @ part)
    return parts


def _reordered(activity: Activity, order: Int[Tensor, " features"]) -> Activity:
    """Return the same features under other numbers: ``order[i]`` becomes i."""
    values = activity.values
    if isinstance(values, Code):
        place = order.argsort()
        return activity._replace(
            values=Code(place[values.indices.long()].to(torch.int32), values.values)
        )
    return activity._replace(values=values[:, order])


def _budget(config: DictionaryConfig, because: str) -> str:
    if not config.nonlinearity.budgeted:
        return ""
    return f"{config.nonlinearity.kind} sets the number of active features, {because}"
