"""What a term of an objective is, and what it sees of a step of training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.scores import Activity
from sememe.kernels import squared_distance


class Step(NamedTuple):
    """One forward pass, as the terms see it."""

    x: Float[Tensor, "rows width"]
    """The scaled input."""
    target: Float[Tensor, "rows write_width"]
    """What is to be reconstructed, scaled; for an autoencoder the input itself."""
    activity: Activity
    residual: Float[Tensor, "rows write_width"]
    """What the scaled reconstruction leaves of the target; without gradients."""
    error: Float[Tensor, ""]
    """Its summed square, differentiable."""
    dictionary: Dictionary
    dead: Int[Tensor, " dead"]
    """Features that have been silent for too long."""
    rebuilt: Float[Tensor, "rows write_width"] | None = None
    """The scaled reconstruction, differentiable: there if a term asks for it."""
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
            facts["rebuilt"], residual = rebuilt, target - rebuilt.detach()
        else:
            residual, error = dictionary.residual(activity, x, target)
        return cls(x, target, activity, residual, error, dictionary, **facts)


@dataclass(frozen=True)
class Term:
    """A part of the objective; instances are frozen and hold only settings."""

    name: ClassVar[str]

    weight: float = 1.0
    """What its value is multiplied by."""
    ramp: float = 0.0
    """Share of the steps over which the weight rises from 0."""

    takes_rebuilt: ClassVar[bool] = True
    """Whether it may differentiate :attr:`Step.rebuilt` itself, and not only its squared error."""

    @property
    def through_rebuilt(self) -> bool:
        """Whether it does, with these settings."""
        return self.takes_rebuilt

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the term's value, before its weight."""
        raise NotImplementedError

    def refusal(self, config: DictionaryConfig) -> str:
        """Return why it makes no sense for such a dictionary, or nothing."""
        return ""


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
