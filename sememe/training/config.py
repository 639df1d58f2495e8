"""Everything that decides what a training run ends with, apart from the activations."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sememe.dictionaries import nonlinearities, objectives
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.initialisation import INITIALISATIONS
from sememe.dictionaries.nonlinearities import Nonlinearity, TopK
from sememe.dictionaries.objectives import AuxK, Reconstruction, Term
from sememe.errors import UsageError, check_number
from sememe.training.revival import Resampling

TUNED_AT = 2304
"""Features of the runs in which the default learning rate was found (LOG.md)."""
NORMS = ("unit", "free")
OPTIMISERS = ("adam", "adafactor")
FEWEST_SHARING = 16


@dataclass(frozen=True)
class TrainConfig:
    """A kind of dictionary, an objective, and how to get there.

    Any nonlinearity goes with any terms that make sense together; UsageError says why when they do
    not. The published combinations are in :mod:`sememe.training.recipes`.
    """

    features: int = 9216
    """Number of features."""
    nonlinearity: Nonlinearity = field(default=TopK(32))
    """How scores become feature values."""
    objective: tuple[Term, ...] = (Reconstruction(), AuxK())
    """Terms that training makes small together."""
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
    k_from: int | None = None
    """Features active at first, where k is to fall or rise to its value; None leaves it alone."""
    k_share: float = 0.5
    """Share of the steps over which k goes from ``k_from`` to its value."""
    share_from: float | None = None
    """Share of the steps over which every row keeps k features of its own before the rows of a
    batch share them (batchtopk); None has them shared from the first step."""
    dead_tokens: int | None = None
    """Activations after which a silent feature counts as dead; by default derived from the run."""
    resampling: Resampling | None = None
    """How dead features are given new directions, if at all."""
    frozen_decoder: bool = False
    """Leave decoder rows as they begin: a control, which a dictionary that learns should beat."""
    initialisation: str = "data"
    """How rows begin: random directions, data (random activations), or small uniform entries."""
    first_active: int | None = None
    """Features active at first, at most half, all equally often: biases are set for that in place
    of scaling the encoder. None scales it so that the first reconstruction is the nearest."""
    centre: str = "tied"
    """What the encoder takes away from its input: tied (the decoder bias) or none."""
    norms: str = "unit"
    """Norms of decoder rows while training: unit, or free (a penalty then weighs them)."""
    skip: bool = False
    """A matrix from input to output beside the features (transcoders)."""
    optimiser: str = "adam"
    """adam, or adafactor: a little worse (LOG.md), with next to nothing to keep beside weights."""
    beta1: float = 0.0
    """Adam's memory of the gradient: without it runs end better here, and sooner (LOG.md)."""
    beta2: float = 0.999
    """Memory of the squared gradient."""
    clip: float = 0.0
    """Largest norm of the whole gradient; 0 leaves gradients as they are."""
    seed: int = 0
    """Seed of the first weights and of the order of activations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        check_choice("initialisation", self.initialisation, INITIALISATIONS)
        check_choice("norms", self.norms, NORMS)
        check_choice("optimiser", self.optimiser, OPTIMISERS)
        for name in ("features", "passes", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        check_number("clip", self.clip, 0.0, math.inf)
        for name in ("warm_up", "decay", "k_share"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("beta1", "beta2"):
            check_number(name, getattr(self, name), 0.0, math.nextafter(1.0, 0.0))
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate is {self.learning_rate}; expected a positive number")
        if self.dead_tokens is not None and self.dead_tokens < 1:
            raise UsageError(f"dead_tokens is {self.dead_tokens}; expected 1 or more")
        if self.first_active is not None and self.first_active < 1:
            raise UsageError(f"first_active is {self.first_active}; expected 1 or more")
        self._check_k()
        self._check_composition()

    def _check_k(self) -> None:
        k = getattr(self.nonlinearity, "k", 1)
        for name, value in (("k", k), ("k_from", k if self.k_from is None else self.k_from)):
            if not 1 <= value <= self.features:
                raise UsageError(
                    f"{name} is {value}; expected 1 to {self.features}, the number of features: "
                    f"lower {name} or raise features"
                )
        if self.k_from is not None:
            nonlinearities.with_k(self.nonlinearity, self.k_from)
        inner = getattr(self.nonlinearity, "inner", self.nonlinearity)
        if self.share_from is not None:
            check_number("share_from", self.share_from, 0.0, 1.0)
            if not inner.shares_budget:
                raise UsageError(
                    f"share_from is {self.share_from}, but rows of {inner.kind} share no budget: "
                    "leave it out"
                )
        if inner.shares_budget and self.batch < FEWEST_SHARING:
            raise UsageError(
                f"batch is {self.batch}, but {inner.kind} shares its budget over a "
                f"batch, and takes its threshold from it: expected {FEWEST_SHARING} or more"
            )

    def _check_composition(self) -> None:
        for term in self.objective:
            check_number(f"{term.name} weight", term.weight, 0.0, math.inf)
            check_number(f"{term.name} ramp", term.ramp, 0.0, 1.0)
        weights = {term.name: term.weight for term in self.objective}
        if not (weights.get("reconstruction") or weights.get("kl")):
            raise UsageError(
                f"objective weighs {weights}: without reconstruction or kl there is nothing to "
                "learn"
            )
        if self.nonlinearity.gates and not {"l1", "gate_reconstruction"} & set(weights):
            raise UsageError(
                f"objective weighs {weights}: nothing teaches the gate of "
                f"{self.nonlinearity.kind}; add l1 or gate_reconstruction"
            )
        if self.first_active is not None and self.nonlinearity.budgeted:
            raise UsageError(
                f"first_active is {self.first_active}, but {self.nonlinearity.kind} sets the "
                "number of active features: leave it out"
            )
        if self.norms == "unit" and self.initialisation == "uniform":
            raise UsageError(
                "initialisation is 'uniform', whose decoder rows have small norms, but norms is "
                "'unit': expected 'free'"
            )
        if self.frozen_decoder and self.resampling is not None:
            raise UsageError(
                "frozen_decoder goes without resampling, which gives features new decoder rows"
            )
        if self.norms == "free" and not self.nonlinearity.rescalable:
            raise UsageError(
                f"norms is 'free', but {self.nonlinearity.kind} chooses features by their values, "
                "which decoder norms would distort: expected 'unit'"
            )

    def dictionary(
        self,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        read_widths: tuple[int, ...],
        write_widths: tuple[int, ...],
    ) -> DictionaryConfig:
        """Return the dictionary to train between these sites.

        UsageError names the term that makes no sense for it, and why.
        """
        made = DictionaryConfig(
            reads=reads,
            writes=writes,
            read_widths=read_widths,
            write_widths=write_widths,
            features=self.features,
            nonlinearity=self.nonlinearity,
            centre=self.centre if reads == writes else "none",
            skip=self.skip,
        )
        for term in self.objective:
            if reason := term.refusal(made):
                raise UsageError(
                    f"the objective's {term.name} does not go with {self.nonlinearity.kind}: "
                    f"{reason}"
                )
        return made

    def rate(self) -> float:
        """Return the learning rate after warm-up.

        By default that of short runs with TopK, falling as 1 / sqrt(features) beyond the size it
        was found at, as in arXiv 2406.04093.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-3 * min(1.0, math.sqrt(TUNED_AT / self.features))

    def nonlinearity_at(self, step: int, steps: int) -> Nonlinearity:
        """Return the nonlinearity of a step: k may be on its way, and its budget not yet shared.

        The last step always shares it, for the threshold is taken from steps that do.
        """
        chosen = self.nonlinearity
        if self.k_from is not None and step < self.k_share * steps:
            k = getattr(chosen, "k", self.k_from)
            share = step / (self.k_share * steps)
            chosen = nonlinearities.with_k(chosen, round(self.k_from + share * (k - self.k_from)))
        if self.share_from is not None and step < min(self.share_from * steps, steps - 1):
            chosen = nonlinearities.by_row(chosen)
        return chosen

    def dead_after(self, rows: int) -> int:
        """Return how many activations without firing make a feature dead, for ``rows`` a pass."""
        if self.dead_tokens is not None:
            return self.dead_tokens
        return min(10_000_000, max(self.batch, rows // 3))

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON-able values."""
        plain = asdict(self)
        if not self.frozen_decoder:  # so that runs begun before it could be frozen go on
            del plain["frozen_decoder"]
        return {
            **plain,
            "nonlinearity": nonlinearities.to_json(self.nonlinearity),
            "objective": [objectives.to_json(term) for term in self.objective],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrainConfig":
        """Return the config among what a dictionary's manifest says of its run.

        UsageError for a nonlinearity or term that is unknown here.
        """
        known = {field.name for field in fields(cls)}
        plain = {name: given for name, given in value.items() if name in known}
        plain["nonlinearity"] = nonlinearities.from_json(value["nonlinearity"])
        plain["objective"] = tuple(map(objectives.from_json, value["objective"]))
        if plain.get("resampling") is not None:
            plain["resampling"] = Resampling(**plain["resampling"])
        return cls(**plain)


def check_choice(name: str, value: str, table: object) -> None:
    """Raise UsageError unless ``value`` is in ``table``."""
    assert isinstance(table, dict | tuple)
    if value not in table:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(table)}")
