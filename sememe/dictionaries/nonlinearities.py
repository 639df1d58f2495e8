"""From an activation to its features: one class a kind, listed in one table.

A nonlinearity is given the input and the encoder rather than the scores, so that no kind has to
keep all of them: where few features are active, only their entries are ever stored. ``forward`` is
for training and differentiable, ``encode`` for everything else.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sememe.dictionaries.scores import Activity, Encoder, Jump, in_parts, pack, scores_above
from sememe.errors import UsageError, check_number
from sememe.kernels import Code, decode, encode_batchtopk, encode_positive, encode_topk


@dataclass(frozen=True)
class Nonlinearity:
    """What a kind of feature must do; instances are frozen and hold only settings.

    A new kind sets ``kind``, defines ``forward``, and is listed in :data:`NONLINEARITIES`.
    """

    kind: ClassVar[str]
    rescalable: ClassVar[bool] = True
    """Whether multiplying a feature's encoder row, bias and extras multiplies its value alone."""
    budgeted: ClassVar[bool] = False
    """Whether it decides by itself how many features are active."""
    shares_budget: ClassVar[bool] = False
    """Whether rows of a batch share that number."""
    counts: ClassVar[bool] = False
    """Whether it has thresholds (``threshold`` among its extras) that L0 is differentiable in."""
    compares: ClassVar[bool] = False
    """Whether it compares its input with the reconstruction, so that it must autoencode."""
    gates: ClassVar[bool] = False
    """Whether something else than a feature's value decides that it is active."""
    passes_scores: ClassVar[bool] = False
    """Whether a feature's value is its score, x . W_enc + bias, or 0."""

    def parameters(self, features: int) -> dict[str, Float[Tensor, " features"]]:
        """Return what it learns beside the encoder, as it begins."""
        return {}

    def estimates(self) -> dict[str, Tensor]:
        """Return what it counts while training and needs afterwards, as it begins."""
        return {}

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return differentiable feature values."""
        raise NotImplementedError

    def encode(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Code:
        """Return the code, largest value first in every row."""
        return in_parts(x, lambda part: pack(self.forward(part, encoder).values))

    @torch.no_grad()
    def after_step(self, activity: Activity, extra: Mapping[str, Tensor]) -> None:
        """Bring ``extra`` up to date after a step of training that saw ``activity``."""

    @torch.no_grad()
    def stretch(
        self, extra: Mapping[str, Tensor], factors: Float[Tensor, " features"]
    ) -> dict[str, Tensor]:
        """Return ``extra`` for an encoder whose rows and biases are multiplied by ``factors``."""
        return dict(extra)

    @torch.no_grad()
    def shift(
        self, extra: Mapping[str, Tensor], offsets: Float[Tensor, " features"]
    ) -> dict[str, Tensor]:
        """Return ``extra`` for inputs that are no longer centred: products grow by ``offsets``.

        The encoder's bias falls by as much, so that scores stay the same.
        """
        return dict(extra)


@dataclass(frozen=True)
class TopK(Nonlinearity):
    """f = ReLU(TopK_k(W_enc x + b)): the k largest scores of a row, those above zero (2406.04093).

    An entry that the ReLU zeroes is not active and gets no gradient.
    """

    k: int
    """Most features active on one activation."""
    kind: ClassVar[str] = "topk"
    passes_scores: ClassVar[bool] = True
    rescalable: ClassVar[bool] = False
    budgeted: ClassVar[bool] = True

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return the code; only entries that are there carry gradients."""
        return Activity(encode_topk(x, encoder.W, encoder.bias, self.k))

    def encode(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Code:
        """Return the code, k entries a row."""
        return encode_topk(x, encoder.W, encoder.bias, self.k)


@dataclass(frozen=True)
class BatchTopK(Nonlinearity):
    """The k x rows largest positive scores of a batch, whatever rows they are in (2412.06410).

    Afterwards a feature is active where its score exceeds ``threshold``: the mean over training
    batches of the smallest value kept, older ones counting less.
    """

    k: int
    """Features active on one activation, on average."""
    memory: float = 0.99
    """Weight of the past in the estimate of the threshold (.999 in the paper, for longer runs)."""
    kind: ClassVar[str] = "batchtopk"
    passes_scores: ClassVar[bool] = True
    rescalable: ClassVar[bool] = False
    budgeted: ClassVar[bool] = True
    shares_budget: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("memory", self.memory, 0.0, 1.0)

    def estimates(self) -> dict[str, Tensor]:
        """Return the threshold and the number of batches that it is the mean of."""
        return {"threshold": torch.zeros(()), "batches": torch.zeros(())}

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return the code of the batch; rows have different numbers of entries."""
        return Activity(encode_batchtopk(x, encoder.W, encoder.bias, self.k))

    def encode(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Code:
        """Return what exceeds the threshold; a row does not depend on those beside it."""
        threshold = encoder.extra["threshold"].clamp_min(0)

        def above(part: Float[Tensor, "rows width"]) -> Code:
            code = encode_positive(part, encoder.W, encoder.bias - threshold)
            return pack(Code(code.indices, (code.values + threshold) * (code.values > 0)))

        return in_parts(x, above)

    @torch.no_grad()
    def after_step(self, activity: Activity, extra: Mapping[str, Tensor]) -> None:
        """Take the smallest value kept into the mean; it weighs 1 / batches while they are few."""
        assert isinstance(activity.values, Code)
        kept = activity.values.values
        if not (kept > 0).any():
            return
        smallest = kept.masked_fill(kept <= 0, torch.inf).min()
        extra["batches"].add_(1)
        weight = (1 / extra["batches"]).clamp_min(1 - self.memory)
        extra["threshold"].lerp_(smallest, weight)


@dataclass(frozen=True)
class ReLU(Nonlinearity):
    """f = ReLU(W_enc x + b), made sparse by a term of the objective; without one it is dense."""

    kind: ClassVar[str] = "relu"
    passes_scores: ClassVar[bool] = True

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return the positive scores."""
        return Activity(scores_above(x, encoder, torch.zeros(())).positive())


@dataclass(frozen=True)
class JumpReLU(Nonlinearity):
    """f = z where z = W_enc x + b exceeds the feature's threshold theta, else 0 (2407.14435).

    The step has no gradient, so a rectangle K of width ``bandwidth`` (eps) around theta stands in:
    df/dtheta = -(theta / eps) K((z - theta) / eps), and for the number of active features
    -(1 / eps) K((z - theta) / eps), of the score z and not of what the jump left of it.
    """

    threshold: float = 0.001
    """Threshold that every feature begins with, in scaled units."""
    bandwidth: float = 0.001
    """Width of the window around the threshold in which it learns."""
    kind: ClassVar[str] = "jumprelu"
    passes_scores: ClassVar[bool] = True
    counts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, 0.0, math.inf)
        check_number("bandwidth", self.bandwidth, sys.float_info.min, math.inf)

    def parameters(self, features: int) -> dict[str, Float[Tensor, " features"]]:
        """Return the thresholds."""
        return {"threshold": torch.full((features,), self.threshold)}

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return values, the entries inside the window around the threshold as present too."""
        theta = encoder.extra["threshold"]
        floor = theta.detach() - self.bandwidth / 2
        scores = scores_above(x, encoder, floor)
        threshold = scores.of(theta)
        values, active = Jump.apply(  # type: ignore[no-untyped-call]
            scores.values, threshold, scores.there, self.bandwidth
        )
        return Activity(scores.like(values), present=scores.there, l0=active / max(1, len(x)))

    @torch.no_grad()
    def after_step(self, activity: Activity, extra: Mapping[str, Tensor]) -> None:
        """Keep thresholds from falling below zero, where values would become negative."""
        extra["threshold"].clamp_min_(0)

    @torch.no_grad()
    def stretch(
        self, extra: Mapping[str, Tensor], factors: Float[Tensor, " features"]
    ) -> dict[str, Tensor]:
        """Return the thresholds multiplied too."""
        return {**extra, "threshold": extra["threshold"] * factors}


@dataclass(frozen=True)
class Gated(Nonlinearity):
    """Whether and how much, apart (2404.16014): f = 1[pi > 0] ReLU(e^r (W_enc x) + b_mag).

    pi = W_enc x + b_enc is the gate. Only the terms on ReLU(pi) (L1, and a reconstruction from it
    by a decoder that does not learn) teach the gate; values are not shrunk by the penalty.
    """

    kind: ClassVar[str] = "gated"
    gates: ClassVar[bool] = True

    def parameters(self, features: int) -> dict[str, Float[Tensor, " features"]]:
        """Return the logarithm r of the magnitude's scale, and its bias b_mag."""
        return {"log_scale": torch.zeros(features), "magnitude_bias": torch.zeros(features)}

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return the magnitudes of open gates, and ReLU(pi)."""
        gate = scores_above(x, encoder, torch.zeros(()))
        product = gate.values - gate.of(encoder.bias)
        scale, bias = (gate.of(encoder.extra[n]) for n in ("log_scale", "magnitude_bias"))
        magnitude = (scale.exp() * product + bias).relu().masked_fill(gate.values <= 0, 0)
        return Activity(gate.like(magnitude), gate=gate.positive())

    @torch.no_grad()
    def stretch(
        self, extra: Mapping[str, Tensor], factors: Float[Tensor, " features"]
    ) -> dict[str, Tensor]:
        """Return the magnitude's bias multiplied too."""
        return {**extra, "magnitude_bias": extra["magnitude_bias"] * factors}

    @torch.no_grad()
    def shift(
        self, extra: Mapping[str, Tensor], offsets: Float[Tensor, " features"]
    ) -> dict[str, Tensor]:
        """Return the magnitude's bias less what its products grow by."""
        moved = extra["log_scale"].exp() * offsets
        return {**extra, "magnitude_bias": extra["magnitude_bias"] - moved}


@dataclass(frozen=True)
class Refined(Nonlinearity):
    """A nonlinearity applied again and again, knowing what it left unexplained (LISTA).

    x_0 = x, f_t = inner(W_enc x_t + b) and x_{t+1} = x_t + eta (x - f_t W_dec); the last f is
    the code. So scores gain eta W_enc (x - f_t W_dec): a feature that only answers to others that
    are active gets a lower score the next time. Gregor and LeCun (2010); one step of it as the
    encoder of a sparse autoencoder: github.com/chanind/claude-auto-research-synthsaebench.
    """

    inner: Nonlinearity
    """The kind that it refines."""
    eta: float = 0.3
    """How much of what is left is looked at again."""
    steps: int = 1
    """How often it looks again."""
    kind: ClassVar[str] = "refined"
    rescalable: ClassVar[bool] = False
    budgeted: ClassVar[bool] = True
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.inner.budgeted or isinstance(self.inner, Refined):
            raise UsageError(f"refined has {self.inner.kind} inside; expected topk or batchtopk")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta is {self.eta}; expected 0 to 1")
        if self.steps < 1:
            raise UsageError(f"steps is {self.steps}; expected 1 or more")

    @property
    def k(self) -> int:
        """Features active on one activation, the inner kind's."""
        return int(self.inner.k)  # type: ignore[attr-defined]

    def estimates(self) -> dict[str, Tensor]:
        """Return the inner kind's, once for each time that it is applied."""
        inner = self.inner.estimates()
        return {
            _named(name, time): value.clone()
            for time in range(self.steps + 1)
            for name, value in inner.items()
        }

    def forward(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Activity:
        """Return the last code; gradients go through the earlier ones too."""
        *before, last = self._times(x, encoder, self.inner.forward)
        return last._replace(earlier=tuple(before))

    def encode(self, x: Float[Tensor, "rows width"], encoder: Encoder) -> Code:
        """Return the last code."""

        def encode(seen: Float[Tensor, "rows width"], at: Encoder) -> Activity:
            return Activity(self.inner.encode(seen, at))

        *_, last = self._times(x, encoder, encode)
        assert isinstance(last.values, Code)
        return last.values

    @torch.no_grad()
    def after_step(self, activity: Activity, extra: Mapping[str, Tensor]) -> None:
        """Bring up to date what the inner kind keeps for each time."""
        for time, seen in enumerate((*activity.earlier, activity)):
            self.inner.after_step(seen, self._extra_of(time, extra))

    def _times(
        self,
        x: Float[Tensor, "rows width"],
        encoder: Encoder,
        apply: Callable[[Float[Tensor, "rows width"], Encoder], Activity],
    ) -> Iterator[Activity]:
        """Yield what is active each time."""
        seen = x
        for time in range(self.steps + 1):
            at = encoder._replace(extra=self._extra_of(time, encoder.extra))
            activity = apply(seen, at)
            yield activity
            if time < self.steps:
                assert isinstance(activity.values, Code)
                seen = seen + self.eta * (x - decode(activity.values, encoder.W_dec))

    def _extra_of(self, time: int, extra: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: extra[_named(name, time)] for name in self.inner.estimates()}


def _named(name: str, time: int) -> str:
    """Return what :class:`Refined` calls its inner kind's ``name`` for one of the times."""
    return f"{name}_{time}"


NONLINEARITIES: dict[str, type[Nonlinearity]] = {
    kind.kind: kind for kind in (TopK, BatchTopK, ReLU, JumpReLU, Gated, Refined)
}
"""Every kind by name; a new one is a class above and its name here."""


def with_k(nonlinearity: Nonlinearity, k: int) -> Nonlinearity:
    """Return the same kind with another number of active features; UsageError if it has none."""
    if not hasattr(nonlinearity, "k"):
        raise UsageError(f"k is {k}, but {nonlinearity.kind} has no k to change: leave k_from out")
    if isinstance(nonlinearity, Refined):
        return replace(nonlinearity, inner=with_k(nonlinearity.inner, k))
    return replace(nonlinearity, k=k)  # type: ignore[call-arg]


def by_row(nonlinearity: Nonlinearity) -> Nonlinearity:
    """Return a kind that gives every row its own k, in place of one whose rows share a budget."""
    if isinstance(nonlinearity, Refined):
        return replace(nonlinearity, inner=by_row(nonlinearity.inner))
    return TopK(nonlinearity.k) if isinstance(nonlinearity, BatchTopK) else nonlinearity


def to_json(nonlinearity: Nonlinearity) -> dict[str, Any]:
    """Return the kind and its settings."""
    settings = asdict(nonlinearity)
    if isinstance(nonlinearity, Refined):
        settings["inner"] = to_json(nonlinearity.inner)
    return {"kind": nonlinearity.kind, **settings}


def from_json(value: dict[str, Any]) -> Nonlinearity:
    """Return the nonlinearity that :func:`to_json` described; UsageError for an unknown kind."""
    settings = dict(value)
    kind = settings.pop("kind", None)
    if kind not in NONLINEARITIES:
        raise UsageError(
            f"kind {kind!r} is unknown; expected one of {', '.join(NONLINEARITIES)}: import the "
            "module that defines it first"
        )
    if "inner" in settings:
        settings["inner"] = from_json(settings["inner"])
    return NONLINEARITIES[kind](**settings)
