"""Matryoshka: prefixes of the features that reconstruct by themselves."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.scores import Activity
from sememe.dictionaries.terms import Step, Term, squared_error
from sememe.kernels import Code, decode


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
    takes_rebuilt: ClassVar[bool] = False

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
