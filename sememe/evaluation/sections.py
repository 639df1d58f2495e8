"""What a part of the report is made of: metrics, how they are measured, and what they are held to.

A section is a module with a table ``METRICS`` and a function ``measure(arm, settings, progress)``;
the suite (``sememe/evaluation/suite.py``) runs it over the arms, and compares.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sememe.errors import SememeError
from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Estimate
from sememe.progress import Progress

SuiteName = Literal["quick", "standard", "full"]


class NotApplicableError(SememeError):
    """A metric cannot be measured on this arm; the message says why, and is shown in the report."""


@dataclass(frozen=True)
class Metric:
    """A row of the report."""

    name: str
    """Key in the report."""
    title: str
    """What tables show, a few words."""
    what: str
    """What is computed, in which unit, and by whose definition, in a sentence or two."""
    better: Literal["higher", "lower", "neither"]
    units: Literal["documents", "datasets", "features", "texts", "words", "entities"]
    """What the bootstrap draws."""
    against: tuple[str, ...] = ()
    """Names of the controls that a dictionary with real structure must beat; none where the figure
    only describes, or where a control is a ceiling."""


@dataclass(frozen=True)
class Measured:
    """What an arm scored in a section."""

    estimates: dict[str, Estimate]
    """By the names of metrics; a metric that this arm cannot have is left out."""
    details: dict[str, Any] = field(default_factory=dict)
    """Anything JSON that the page draws of the arm: histograms, lists, tables."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Metrics that could not be measured, and why."""


@dataclass(frozen=True)
class Settings:
    """How much of everything is measured."""

    suite: SuiteName
    seed: int = 0


Measure = Callable[[Arm, Settings, Progress], Measured]


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Measure
    suites: tuple[SuiteName, ...] = ("quick", "standard", "full")
    """The suites that it is part of."""
    caution: str = ""
    """What to know before its figures are believed, in words; shown above them."""
    version: int = 1
    """Raised when its figures change for the same inputs, so that stored ones are made anew."""
