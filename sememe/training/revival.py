"""New directions for features that no longer fire: resampling as in Towards Monosemanticity."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import normalize

from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError

Pair = tuple[Float[Tensor, "rows width"], Float[Tensor, "rows write_width"]]
"""Scaled inputs, and what they should become."""
MOST_ROWS = 2**24


@dataclass(frozen=True)
class Resampling:
    """When dead features begin anew, and from what (Bricken et al. 2023, appendix)."""

    every: int = 25_000
    """Steps between two resamplings."""
    times: int = 4
    """How often it is done."""
    silent: int = 12_500
    """Steps without firing that make a feature dead."""
    rows: int = 819_200
    """Inputs among which new directions are drawn."""
    encoder_norm: float = 0.2
    """Norm of a new encoder row, as a share of the mean of the living ones."""

    def __post_init__(self) -> None:
        for name in ("every", "times", "silent", "rows"):
            if getattr(self, name) < 1:
                raise UsageError(f"resampling {name} is {getattr(self, name)}; expected 1 or more")
        if self.rows > MOST_ROWS:
            raise UsageError(f"resampling rows is {self.rows}; expected at most {MOST_ROWS}")
        if not 0 < self.encoder_norm <= 1:
            raise UsageError(f"resampling encoder_norm is {self.encoder_norm}; expected 0 to 1")

    def scaled(self, share: float) -> "Resampling":
        """Return the schedule for a run of ``share`` times as many steps; as many inputs."""
        every, silent = (max(1, round(share * steps)) for steps in (self.every, self.silent))
        return replace(self, every=every, silent=silent)

    def due(self, step: int) -> bool:
        """Whether features are resampled after ``step`` steps."""
        return step > 0 and step % self.every == 0 and step <= self.every * self.times


@torch.no_grad()
def resample(
    dictionary: Dictionary,
    forget: Callable[[Tensor], None],
    dead: Int[Tensor, " dead"],
    batches: Callable[[], Iterator[Pair]],
    rule: Resampling,
    generator: Generator,
) -> None:
    """Point dead features at inputs that are rebuilt badly, in place.

    ``batches`` gives scaled inputs and targets, the same each time it is called: ``rule.rows`` of
    them are rebuilt, and each is drawn with a probability that goes as its squared error's square.
    A dead feature's decoder row becomes the target drawn, its encoder row the input drawn at
    ``rule.encoder_norm`` of the living rows' mean norm, both by direction alone and not centred;
    its bias 0, its extras those of a new dictionary, and the optimiser is told to forget it.
    """
    if not len(dead):
        return
    losses, seen = [], 0
    for x, target in batches():
        rebuilt = dictionary.rebuild(dictionary.activate(x), x)
        losses.append((target - rebuilt).square().sum(1).double().cpu())
        seen += len(x)
        if seen >= rule.rows:
            break
    chances = torch.cat(losses).square()
    if not chances.sum() > 0:  # everything is rebuilt exactly
        return
    drawn = torch.multinomial(chances, len(dead), replacement=True, generator=generator)
    inputs, targets = _rows(batches(), drawn)
    living = torch.ones(dictionary.config.features, dtype=torch.bool, device=dead.device)
    living[dead] = False
    norms = dictionary.W_enc[living].norm(dim=1) if living.any() else dictionary.W_enc.norm(dim=1)
    dictionary.W_dec[dead] = normalize(targets, dim=1)
    dictionary.W_enc[dead] = normalize(inputs, dim=1) * rule.encoder_norm * norms.mean()
    dictionary.b_enc[dead] = 0
    first = dictionary.config.nonlinearity.parameters(dictionary.config.features)
    for name, value in first.items():
        dictionary.learnt[name][dead] = value.to(dead.device)[dead]
    forget(dead)


def _rows(batches: Iterator[Pair], wanted: Int[Tensor, " dead"]) -> Pair:
    """Return the inputs and targets of the rows with these numbers, in their order."""
    found: dict[int, Pair] = {}
    left, first = sorted(set(wanted.tolist())), 0
    for x, target in batches:
        while left and left[0] < first + len(x):
            number = left.pop(0)
            found[number] = x[number - first], target[number - first]
        first += len(x)
        if not left:
            break
    inputs, targets = zip(*(found[number] for number in wanted.tolist()), strict=True)
    return torch.stack(inputs), torch.stack(targets)
