"""What is done to a feature, on which tokens: one grammar for Python, the command line and JSON."""

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sememe.errors import UsageError

# Axis names: tokens = those of a pass that are not padding.

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_HOW = re.compile(rf"(?:(set|scale|add):)?({_NUMBER})(x?)")
_WHEN = re.compile(rf"(\d+)\s*>\s*({_NUMBER})(x?)")
_RANGE = re.compile(r"(\d*):(\d*)|(\d+)")
_WAYS = (
    "a value (2.5), a multiple of the observed maximum (5x), mean, scale:FACTOR, add:VALUE, "
    "add:MULTIPLEx, or out"
)


class Amount(NamedTuple):
    """A number, and what it counts in; written as ``2.5``, ``5x`` or ``mean``."""

    number: float
    unit: Literal["value", "max", "mean"] = "value"
    """``value`` for units of the code, ``max`` for the feature's observed maximum, ``mean`` for its
    mean over all tokens."""

    def __str__(self) -> str:
        return "mean" if self.unit == "mean" else f"{self.number:g}{'x' * (self.unit == 'max')}"


class Condition(NamedTuple):
    """Another feature of the same dictionary is above an amount on the token."""

    feature: int
    above: Amount

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition that is written as ``88>2.5`` or ``88>0.5x``; UsageError if none."""
        found = _WHEN.fullmatch(text.strip())
        if found is None or not math.isfinite(float(found[2])):
            raise UsageError(
                f"when is {text!r}; expected FEATURE>VALUE (88>2.5) or FEATURE>MULTIPLEx (88>0.5x)"
            )
        return cls(int(found[1]), Amount(float(found[2]), "max" if found[3] else "value"))


class Scope(NamedTuple):
    """Which tokens: of the prompt, new ones, or both, between two positions."""

    part: Literal["all", "prompt", "new"] = "all"
    start: int = 0
    stop: int | None = None
    """Positions as the model counts them: 0 is the first token it reads, its BOS if it has one."""

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Return the scope written as all, prompt, new, 3:6, 3: or 3; UsageError if none."""
        if text in ("all", "prompt", "new"):
            return cls(text)  # type: ignore[arg-type]
        found = _RANGE.fullmatch(text.strip())
        if found is None or text.strip() == ":":
            raise UsageError(
                f"scope is {text!r}; expected all, prompt, new, or positions such as 3, 3:6 or 3:"
            )
        if found[3]:
            return cls("all", int(found[3]), int(found[3]) + 1)
        start, stop = int(found[1] or 0), int(found[2]) if found[2] else None
        if stop is not None and stop <= start:
            raise UsageError(f"scope is {text!r}; expected a stop beyond the start")
        return cls("all", start, stop)

    def holds(
        self, position: Int[Tensor, " tokens"], new: Bool[Tensor, " tokens"]
    ) -> Bool[Tensor, " tokens"]:
        """Return which tokens are meant."""
        inside = position >= self.start
        if self.stop is not None:
            inside &= position < self.stop
        if self.part == "all":
            return inside
        return inside & (new if self.part == "new" else ~new)


NOTHING, EVERYWHERE = Amount(0.0), Scope()


@dataclass(frozen=True)
class Change:
    """What is done to one feature.

    ``set`` gives it a value, ``scale`` multiplies its value, ``add`` adds to it whether it fires or
    not. ``out`` takes all of the activation along the feature's direction d away, whatever the code
    says of it: x - (x . d) d / (d . d) (directional ablation, arXiv 2406.11717).
    """

    how: Literal["set", "scale", "add", "out"]
    amount: Amount = NOTHING
    scope: Scope = EVERYWHERE
    when: Condition | None = None

    @classmethod
    def parse(
        cls, how: str | float | int, *, scope: str = "all", when: str | None = None
    ) -> "Change":
        """Return the change that is written as ``how``; UsageError, with the ways, if it is none.

        ``2.5`` or ``set:2.5`` sets the feature to a value, ``5x`` to five times its observed
        maximum, ``mean`` to its mean over all tokens, ``0`` ablates it; ``scale:0.5`` halves it,
        ``add:3`` and ``add:0.5x`` add to it, ``out`` projects its direction out.
        """
        meant = Scope.parse(scope)
        condition = None if when is None else Condition.parse(when)
        text = str(how).strip()
        if text == "out":
            return cls("out", scope=meant, when=condition)
        if text == "mean":
            return cls("set", Amount(1.0, "mean"), meant, condition)
        found = _HOW.fullmatch(text)
        if found is None or not math.isfinite(float(found[2])):
            raise UsageError(f"a feature's change is {how!r}; expected {_WAYS}")
        if found[1] == "scale" and found[3]:
            raise UsageError(f"a feature's change is {how!r}; expected scale:FACTOR without an x")
        amount = Amount(float(found[2]), "max" if found[3] else "value")
        return cls(found[1] or "set", amount, meant, condition)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return how it is written, scope and condition aside."""
        if self.how == "out":
            return "out"
        return str(self.amount) if self.how == "set" else f"{self.how}:{self.amount}"

    @property
    def needs_code(self) -> bool:
        """Whether it depends on the code."""
        return self.how in ("set", "scale") or self.when is not None

    def apply(self, values: Float[Tensor, " tokens"], amount: float) -> Float[Tensor, " tokens"]:
        """Return the feature's new values, given what the amount is in units of the code."""
        if self.how == "set":
            return torch.full_like(values, amount)
        return values * amount if self.how == "scale" else values + amount
