"""Worlds whose features are known: sparse sums of true directions, made as they are asked for.

A world is an :class:`~sememe.training.streams.ActivationStream` whose every batch is a pure
function of (seed, number), and nothing is ever stored or repeated. It also tells what is true of
its activations, for :mod:`sememe.evaluation.ground_truth`.

Axis names: rows = samples, width = their dimensions, true = true features, rank = shared factors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.errors import UsageError
from sememe.kernels import Code, decode
from sememe.kernels.compiled import Array, compiled

SITE = "synthetic"
SCALE_ROWS = 8192
MOST_FREQUENT, RAREST = 0.4, 5e-4
"""Firing probabilities of the first and the last feature of SynthSAEBench."""
CHUNK = 1024
"""Rows that are made at once for samples and evaluations."""
TRAINING, SAMPLE, HELD_OUT, WORLD = range(4)
"""What is drawn: numbers for one purpose never meet those for another."""

Draw = Callable[[int, np.random.Generator], Code]
"""Gives the true feature values of so many new rows."""


@dataclass(frozen=True)
class World:
    """A stream of activations x = sum_i f_i d_i with known f and d.

    ``rows`` is what one pass counts; further passes go on with new samples.
    """

    name: str
    directions: Float[Tensor, "true width"]
    """d: what each feature adds, of norm 1."""
    draw: Draw
    rows: int
    parents: Int[Tensor, " true"] | None = None
    """The feature without which this one never fires, -1 where there is none."""
    scale: float = 1.0

    @property
    def sites(self) -> tuple[str, ...]:
        """The only site."""
        return (SITE,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the activations."""
        return (self.directions.shape[1],)

    @property
    def scales(self) -> tuple[float, ...]:
        """What to multiply activations by so that their mean squared norm is their width."""
        return (self.scale,)

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of whole batches; UsageError if there is not one."""
        steps = self.rows * passes // batch
        if steps < 1:
            raise UsageError(
                f"batch is {batch}, but {passes} passes over {self.rows} samples do not fill one: "
                "raise samples"
            )
        return steps

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield batches number ``start`` to the last."""
        for number in range(start, self.steps(batch, passes)):
            yield self.activations(self._drawn(batch, TRAINING, seed, number))

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return ``rows`` activations, always the same."""
        return torch.cat([self.activations(code) for code in self._chunks(rows, SAMPLE, 0)])

    def held_out(
        self, rows: int, seed: int = 0
    ) -> Iterator[tuple[Float[Tensor, "chunk width"], Code]]:
        """Yield ``rows`` activations in chunks, none of which is trained on, with their truth."""
        for code in self._chunks(rows, HELD_OUT, seed):
            yield self.activations(code), code

    def activations(self, code: Code) -> Float[Tensor, "rows width"]:
        """Return the activations that true feature values add up to."""
        return decode(code, self.directions)

    def _chunks(self, rows: int, purpose: int, seed: int) -> Iterator[Code]:
        for number, first in enumerate(range(0, rows, CHUNK)):
            yield self._drawn(min(CHUNK, rows - first), purpose, seed, number)

    def _drawn(self, rows: int, *key: int) -> Code:
        return self.draw(rows, np.random.default_rng(key))


@dataclass(frozen=True)
class Forest:
    """Who depends on whom: ``trees`` of ``depth`` levels below the root, ``branching`` children.

    Features are numbered level by level, roots first; those beyond the trees stand alone. The
    children of feature p are ``trees + branching * p`` onward.
    """

    trees: int
    branching: int
    depth: int

    @property
    def size(self) -> int:
        """Features in trees."""
        return self.trees * sum(int(self.branching**level) for level in range(self.depth + 1))

    @property
    def with_children(self) -> int:
        """Features that have children: the first ones."""
        return (self.size - self.trees) // self.branching

    def parents(self, features: int) -> Int[Tensor, " true"]:
        """Return each feature's parent, -1 for roots and those alone."""
        number = torch.arange(features)
        inside = (number >= self.trees) & (number < self.size)
        return torch.where(inside, (number - self.trees) // self.branching, -1)


def synthsaebench(
    features: int,
    width: int,
    *,
    forest: Forest,
    exponent: float = 0.5,
    rows: int = 1_000_000,
    seed: int = 0,
) -> World:
    """Return a world as SynthSAEBench defines it (arXiv 2602.14687), at any size.

    Feature i of F fires with probability p_i, which goes as i^-``exponent`` and is then stretched
    to lie between .4 and 5e-4. Whether it does depends on F Gaussians correlated by rank 25:
    z = L g + s e with L's entries N(0, .1^2), fires where z exceeds the quantile of 1 - p. A child
    fires only with its parent, and of siblings that would fire one, drawn at random, does. A firing
    feature's value is ReLU(m_i + s_i e), m from 5 down to 4, s_i = |N(.5, .5)|; where that is 0 it
    counts as not firing, though its children may.

    The source leaves open, and we chose: directions are independent and uniform, with no bias; the
    most frequent features are the roots and then each level in turn; a child's probability given
    its parent is p_child / p_parent (1 + the siblings' sum of the same), at most 1, so that after
    the exclusion it fires about p_child of the time. At the size of SynthSAEBench-16k this
    gives its published number of active features.
    """
    generator = _generator(seed)
    directions = _unit_rows(features, width, generator)
    factors = 0.1 * torch.randn(features, 25, generator=generator)
    factors *= (0.99 / factors.square().sum(1)).sqrt().clamp_max(1)[:, None]
    spread = (1 - factors.square().sum(1)).sqrt()
    deviation = (0.5 + 0.5 * torch.randn(features, generator=generator)).abs().numpy()
    mean = torch.linspace(5, 4, features).numpy()
    parents = forest.parents(features)
    chance = _chance_given_parent(_zipf(features, exponent), parents, forest)
    threshold = -torch.special.ndtri(chance.double()).float()

    def draw(rows: int, rng: np.random.Generator) -> Code:
        shared = torch.from_numpy(rng.standard_normal((rows, factors.shape[1]), np.float32))
        need = threshold - shared @ factors.T
        fired = np.zeros(need.shape, np.bool_)
        shape = (forest.trees, forest.size, forest.branching, forest.with_children)
        fire_rows(rng, need.numpy(), spread.numpy(), *shape, fired)
        return _valued(fired, rng, lambda e, n: np.maximum(mean[e] + deviation[e] * n, 0))

    world = World("synthsaebench", directions, draw, rows, parents)
    return _scaled(world)


@compiled
def fire_rows(
    rng: np.random.Generator,
    need: Array,
    spread: Array,
    trees: int,
    end: int,
    branching: int,
    with_children: int,
    fired: Array,
) -> None:
    """Mark what fires in every row: where ``spread`` times a normal number exceeds ``need``.

    Features from ``end`` on stand alone; children are tried where their parent fires.
    """
    rows, features = need.shape
    for row in range(rows):
        for f in range(features):
            if f < trees or f >= end:
                fired[row, f] = spread[f] * rng.standard_normal() > need[row, f]
        for p in range(with_children):
            if not fired[row, p]:
                continue
            firing = 0
            chosen = -1
            first = trees + branching * p
            for f in range(first, first + branching):
                if spread[f] * rng.standard_normal() > need[row, f]:
                    firing += 1
                    if rng.random() * firing < 1:
                        chosen = f
            if chosen >= 0:
                fired[row, chosen] = True


def independent(
    features: int, width: int, *, active: float, rows: int = 1_000_000, seed: int = 0
) -> World:
    """Return a world of independent features, ``active`` at a time on average, values in [.5, 1.5).

    All equally frequent, in uniformly random directions: what sparse coding assumes.
    """
    return _bernoulli("independent", features, width, active / features, 0.5, rows, seed)


def toy(
    features: int, width: int, *, sparsity: float, rows: int = 1_000_000, seed: int = 0
) -> World:
    """Return the world of Toy Models of Superposition (Elhage et al. 2022).

    Each feature is 0 with probability ``sparsity``, otherwise uniform on [0, 1). The paper's model
    learns its directions; here they are uniformly random.
    """
    return _bernoulli("toy", features, width, 1 - sparsity, 0.0, rows, seed)


def _bernoulli(
    name: str, features: int, width: int, chance: float, lowest: float, rows: int, seed: int
) -> World:
    """Return a world whose features fire apart, with values uniform on [lowest, lowest + 1)."""
    if not 0 < chance < 1:
        raise UsageError(f"features would fire with probability {chance:g}; expected 0 to 1")
    directions = _unit_rows(features, width, _generator(seed))

    def draw(count: int, rng: np.random.Generator) -> Code:
        fired = rng.random((count, features), np.float32) < chance
        return _valued(fired, rng, lambda e, _: lowest + rng.random(len(e), np.float32))

    return _scaled(World(name, directions, draw, rows))


WORLDS: dict[str, Callable[..., World]] = {
    "small": lambda **settings: synthsaebench(
        2048, 128, forest=Forest(trees=16, branching=4, depth=3), **settings
    ),
    # A quarter of 16k's features and trees in half its width, with flatter frequencies: that leaves
    # 25 of the 1,024 most frequent active, as 25 of 4,096 are there.
    "medium": lambda **settings: synthsaebench(
        4096, 384, forest=Forest(trees=32, branching=4, depth=3), exponent=0.15, **settings
    ),
    "16k": lambda **settings: synthsaebench(
        16_384, 768, forest=Forest(trees=128, branching=4, depth=3), **settings
    ),
    "independent": lambda **settings: independent(512, 128, active=10.0, **settings),
    "toy": lambda **settings: toy(512, 128, sparsity=0.98, **settings),
}
"""Every named world, given ``rows`` and ``seed``."""


def active(world: World, count: int, rows: int = SCALE_ROWS) -> float:
    """Return how many of the ``count`` most frequent true features are active at a time."""
    fired = torch.zeros(len(world.directions))
    for _, code in world.held_out(rows):
        fired += torch.bincount(code.indices[code.values > 0].long(), minlength=len(fired))
    return float(fired.topk(min(count, len(fired))).values.sum()) / rows


def _zipf(features: int, exponent: float) -> Float[Tensor, " true"]:
    falling = torch.arange(1, features + 1).float() ** -exponent
    share = (falling - falling[-1]) / (falling[0] - falling[-1])
    return RAREST + (MOST_FREQUENT - RAREST) * share


def _chance_given_parent(
    chance: Float[Tensor, " true"], parents: Int[Tensor, " true"], forest: Forest
) -> Float[Tensor, " true"]:
    """Return with what probability each feature must fire, where its parent does."""
    child = parents >= 0
    given = chance.clone()
    given[child] /= chance[parents[child]]
    groups = given[child].view(-1, forest.branching)
    others = groups.sum(1, keepdim=True) - groups
    given[child] = (groups * (1 + others)).flatten().clamp_max(1)
    return given


def _generator(seed: int) -> torch.Generator:
    """Return a generator that no training run shares: theirs are seeded with the plain number.

    Seeded alike, random first weights would be the true directions.
    """
    mixed = np.random.SeedSequence((WORLD, seed)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))


def _unit_rows(rows: int, width: int, generator: torch.Generator) -> Float[Tensor, "rows width"]:
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


def _valued(fired: Array, rng: np.random.Generator, value: Callable[[Array, Array], Array]) -> Code:
    """Return the code of what fired, its values from ``value`` of features and normal numbers."""
    row, feature = np.nonzero(fired)
    counts = np.bincount(row, minlength=len(fired))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    indices = np.zeros((len(fired), int(counts.max(initial=0))), np.int32)
    values = np.zeros(indices.shape, np.float32)
    indices[row, place] = feature
    values[row, place] = value(feature, rng.standard_normal(len(feature), np.float32))
    return Code(torch.from_numpy(indices), torch.from_numpy(values))


def _scaled(world: World) -> World:
    """Return the world with the scale of a sample of it."""
    square = float(world.sample(SCALE_ROWS).square().sum(1).mean())
    return replace(world, scale=float((world.widths[0] / square) ** 0.5))
