"""What training makes small: one class a term, each a number to add with its weight.

All in scaled units and per activation: inputs have mean squared norm = width, squared errors are
summed over the width and averaged over rows. So an L1 weight of 5 is that of Scaling
Monosemanticity, and predicting zero costs ``width``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import Nonlinearity, TopK
from sememe.dictionaries.prefixes import Matryoshka
from sememe.dictionaries.scores import Activity, Values
from sememe.dictionaries.terms import Step, Term, squared_error
from sememe.errors import UsageError
from sememe.kernels import Code, decode, encode_topk, gather, scores_at

__all__ = [
    "L0",
    "L1",
    "TERMS",
    "AuxK",
    "Divergence",
    "GateReconstruction",
    "Matryoshka",
    "MultiTopK",
    "PreActivation",
    "Reconstruction",
    "Step",
    "Tanh",
    "Term",
    "activate",
    "from_json",
    "squared_error",
    "to_json",
    "unexplained",
    "weighted_sum",
]

LEAST_ENTRIES = 32
"""Entries a row of the living that AuxK counts at least: a budget for kinds without a k."""


@dataclass(frozen=True)
class Reconstruction(Term):
    """The mean over rows of ||x - x^||^2; with a tilt of more than 0, see :func:`squared_error`."""

    tilt: float = 0.0
    """How much more badly reconstructed rows weigh."""
    name: ClassVar[str] = "reconstruction"

    @property
    def through_rebuilt(self) -> bool:
        """Whether it is tilted, which takes the errors of single rows."""
        return self.tilt != 0

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared error."""
        if self.through_rebuilt:
            assert step.rebuilt is not None
            return squared_error(step.target, step.rebuilt, self.tilt)
        return step.error / max(1, len(step.target))


@dataclass(frozen=True)
class L1(Term):
    """The mean over rows of sum_i f_i ||d_i||; of the gate's values where there is a gate.

    ||d_i|| sums the norms of the decoder's rows over the sites written (crosscoders).
    """

    name: ClassVar[str] = "l1"
    takes_rebuilt: ClassVar[bool] = False

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
    takes_rebuilt: ClassVar[bool] = False

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
    takes_rebuilt: ClassVar[bool] = False

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
    takes_rebuilt: ClassVar[bool] = False

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
    takes_rebuilt: ClassVar[bool] = False

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
        W_enc, bias = (weights.detach()[dead] for weights in (dictionary.W_enc, dictionary.b_enc))
        rows = self._rows(step, most)
        x = dictionary.centred(step.x[rows]).detach()
        # Lifted above zero for the selection, which takes positive scores alone; the lift rounds
        # values away where it is large, so they are computed again.
        lift = bias.abs().max() + W_enc.norm(dim=1).max() * x.norm(dim=1).max()
        code = encode_topk(x, W_enc, bias + lift, most)
        there, features = code.values > 0, dead.to(torch.int32)[code.indices.long()]
        values = scores_at(features, there, x, dictionary.W_enc, dictionary.b_enc)
        rebuilt = decode(Code(features, values), dictionary.W_dec, there)
        return unexplained(step.residual[rows], rebuilt)

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
    takes_rebuilt: ClassVar[bool] = False

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared error of the wider code."""
        widened, wider = self.widened(step.k, step.dictionary), step.activity.wider
        if wider is None or wider.values.shape[1] != widened.k:
            activity = step.dictionary.activate(step.x, widened)
        else:
            activity = Activity(wider)
        return squared_error(step.target, step.dictionary.rebuild(activity, step.x))

    def widened(self, k: int, dictionary: Dictionary) -> TopK:
        """Return the nonlinearity whose code it takes."""
        return TopK(min(self.factor * k, dictionary.config.features))

    def refusal(self, config: DictionaryConfig) -> str:
        """Refuse kinds without a k."""
        if self.factor < 1:
            return f"its factor is {self.factor}; expected 1 or more"
        return (
            "" if hasattr(config.nonlinearity, "k") else "only kinds with a k can have more of it"
        )


@dataclass(frozen=True)
class GateReconstruction(Term):
    """||x - x^||^2 from the gate's values through a decoder that does not learn (2404.16014)."""

    name: ClassVar[str] = "gate_reconstruction"
    takes_rebuilt: ClassVar[bool] = False

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
        assert step.rebuilt is not None
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


def activate(
    objective: Sequence[Term],
    dictionary: Dictionary,
    x: Float[Tensor, "rows width"],
    nonlinearity: Nonlinearity | None = None,
) -> Activity:
    """Return the features of scaled inputs as :meth:`Dictionary.activate` does, for these terms.

    TopK's are the first of those that :class:`MultiTopK` takes: inputs are encoded once for both.
    """
    chosen = nonlinearity or dictionary.config.nonlinearity
    multi = next((term for term in objective if isinstance(term, MultiTopK)), None)
    if multi is None or not isinstance(chosen, TopK):
        return dictionary.activate(x, chosen)
    wider = dictionary.activate(x, multi.widened(chosen.k, dictionary)).values
    assert isinstance(wider, Code)
    first = Code(*(part[:, : chosen.k].contiguous() for part in wider))
    return Activity(first, wider=wider)


def to_json(term: Term) -> dict[str, Any]:
    """Return the term's name and settings."""
    return {"term": term.name, **asdict(term)}


def from_json(value: Mapping[str, Any]) -> Term:
    """Return the term that :func:`to_json` described; UsageError for an unknown name."""
    settings = dict(value)
    name = settings.pop("term", None)
    if name not in TERMS:
        raise UsageError(
            f"term {name!r} is unknown; expected one of {', '.join(TERMS)}: import the module that "
            "defines it first"
        )
    kind: Any = TERMS[name]
    made: Term = kind(**settings)
    return made


def weighted_sum(values: Values, weights: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return the mean over rows of the sum of feature values times ``weights``."""
    if isinstance(values, Code):
        weighed = values.values * gather(weights, values.indices)
        return weighed.sum() / max(1, len(weighed))
    return values.sum(0) @ weights / max(1, values.shape[0])


def unexplained(
    residual: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Return width x the share of the residual's variance that ``rebuilt`` leaves.

    The width puts it on the scale of :func:`squared_error`. A constant residual gives 0.
    """
    variance = (residual - residual.mean(0)).square().sum()
    share = (residual - rebuilt).square().sum() / variance.clamp_min(1e-12)
    return share * residual.shape[1] * (variance > 0)


def _budget(config: DictionaryConfig, because: str) -> str:
    if not config.nonlinearity.budgeted:
        return ""
    return f"{config.nonlinearity.kind} sets the number of active features, {because}"
