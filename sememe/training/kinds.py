"""What each kind of dictionary is made of; a new kind is one entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sememe.dictionaries.nonlinearities import Nonlinearity, ReLU, TopK


@runtime_checkable
class Settings(Protocol):
    """The part of a training config that kinds read."""

    @property
    def k(self) -> int: ...
    @property
    def l1(self) -> float: ...
    @property
    def auxk(self) -> float: ...


@dataclass(frozen=True)
class Kind:
    """A nonlinearity and the terms of its objective."""

    nonlinearity: Callable[[Settings], Nonlinearity]
    terms: Callable[[Settings], dict[str, float]]
    """Weight of every term of :data:`sememe.dictionaries.objectives.TERMS` that it wants."""
    learning_rate: float
    """What runs of about a thousand steps and 2,304 features do best with."""
    ramped: tuple[str, ...] = ()
    """Terms whose weight rises from 0 at the start."""


KINDS: dict[str, Kind] = {
    "topk": Kind(
        nonlinearity=lambda settings: TopK(settings.k),
        terms=lambda settings: {"reconstruction": 1.0, "auxk": settings.auxk},
        learning_rate=2e-3,
    ),
    "relu": Kind(
        nonlinearity=lambda settings: ReLU(),
        terms=lambda settings: {"reconstruction": 1.0, "l1": settings.l1},
        learning_rate=1e-3,
        ramped=("l1",),
    ),
}
"""Every kind by name."""
