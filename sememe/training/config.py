"""The few dials of a training run."""

import math
from dataclasses import dataclass

from sememe.dictionaries.initialisation import INITIALISATIONS
from sememe.errors import UsageError
from sememe.training.kinds import KINDS

TUNED_AT = 2304
"""Features of the runs in which the kinds' learning rates were found (LOG.md)."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what training ends with, apart from the activations."""

    features: int = 9216
    """Number of features."""
    kind: str = "topk"
    """Kind of dictionary: topk, or relu with an L1 penalty."""
    k: int = 32
    """Features active on one activation (topk)."""
    l1: float = 5.0
    """Weight of the L1 penalty (relu), for inputs whose mean squared norm is the width."""
    passes: int = 4
    """Times to go over the activations."""
    batch: int = 2048
    """Activations a step."""
    learning_rate: float | None = None
    """Learning rate after warm-up; by default the best of short runs, less for many features."""
    warm_up: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    decay: float = 0.2
    """Share of the steps, the last, over which the learning rate falls to 0."""
    ramp: float = 0.05
    """Share of the steps over which the L1 penalty rises from 0."""
    auxk: float = 1 / 32
    """Weight of the AuxK term, by which dead features learn (topk); 0 turns it off."""
    dead_tokens: int | None = None
    """Activations after which a silent feature counts as dead; by default derived from the run."""
    initialisation: str = "data"
    """How decoder rows begin: random directions, or data (random activations)."""
    centre: str = "tied"
    """What the encoder takes away from its input: tied (the decoder bias) or none."""
    beta1: float = 0.9
    """Adam's memory of the gradient."""
    beta2: float = 0.999
    """Adam's memory of the squared gradient."""
    clip: float = 0.0
    """Largest norm of the whole gradient; 0 leaves gradients as they are."""
    seed: int = 0
    """Seed of the first weights and of the order of activations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, KINDS)
        _check_choice("initialisation", self.initialisation, INITIALISATIONS)
        for name in ("features", "k", "passes", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.kind == "topk" and self.k > self.features:
            raise UsageError(
                f"k is {self.k}, larger than features, which is {self.features}: lower k or raise "
                "features"
            )
        for name in ("l1", "auxk", "clip"):
            _check_number(name, getattr(self, name), 0.0, math.inf)
        for name in ("warm_up", "decay", "ramp", "beta1", "beta2"):
            _check_number(name, getattr(self, name), 0.0, 1.0)
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate is {self.learning_rate}; expected a positive number")
        if self.dead_tokens is not None and self.dead_tokens < 1:
            raise UsageError(f"dead_tokens is {self.dead_tokens}; expected 1 or more")

    def rate(self) -> float:
        """Return the learning rate after warm-up.

        By default the kind's, falling as 1 / sqrt(features) beyond the size it was found at, as in
        arXiv 2406.04093.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return KINDS[self.kind].learning_rate * min(1.0, math.sqrt(TUNED_AT / self.features))

    def dead_after(self, rows: int) -> int:
        """Return how many activations without firing make a feature dead, for ``rows`` a pass."""
        if self.dead_tokens is not None:
            return self.dead_tokens
        return min(10_000_000, max(self.batch, rows // 3))


def _check_choice(name: str, value: str, table: object) -> None:
    assert isinstance(table, dict)
    if value not in table:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(table)}")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; expected {low:g} to {high:g}")
