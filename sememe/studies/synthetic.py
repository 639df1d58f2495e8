"""Which recipe finds the features of a world where they are known, at the same sparsity?

Every recipe is trained with several seeds; a seed is a world, its samples, and the first weights.
All take the same number of samples and the same batch. Each result is a file, so that a killed
study goes on where it was, and one that is asked for more recipes or seeds adds to what is there.
"""

import inspect
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from sememe.artefacts import begin, read_json, write_json
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.evaluation.ground_truth import ground_truth
from sememe.evaluation.worlds import WORLDS, World, active
from sememe.progress import Progress
from sememe.training import recipes
from sememe.training.config import TrainConfig
from sememe.training.devices import check_device
from sememe.training.trainer import Trainer, check_finite

LATENTS = {"small": 512, "medium": 1024, "16k": 4096, "independent": 512, "toy": 512}
"""Features of a dictionary of each world: a quarter of the true ones where those are many."""
SEARCH_SEED = 1_000_003
"""Seed of the world in which penalties are searched for; no study evaluates in it."""
SEARCHES = 6
TOLERANCE = 0.05
"""Largest relative difference from the wanted L0 that ends a search."""
PAPER_STEPS, INPUTS = 1_000_000, 8_192
"""Steps of Towards Monosemanticity's run, by which its resampling is scaled to the study's, and
inputs that a resampling looks at here (819,200 there, a ten-thousandth of the run)."""
REPORTED = ("f1", "mcc", "fvu", "l0", "dead")
"""Figures that fit a terminal; --json has them all."""


@dataclass(frozen=True)
class SyntheticConfig:
    """What a study compares its recipes in."""

    world: str = "small"
    """A name in :data:`sememe.evaluation.worlds.WORLDS`."""
    l0: int | None = None
    """Features active on one sample; by default as many of the most frequent true features as the
    dictionary has latents are active: 25 in 16k and medium, 8 in small."""
    samples: int = 1_000_000
    """Samples that a run is trained on."""
    batch: int = 256
    """Samples a step, for every recipe."""
    learning_rate: float | None = None
    """Learning rate of every recipe; by default each its own, which most have for longer runs."""
    evaluated: int = 32_768
    """Samples that the figures are of; none is trained on."""

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise UsageError(f"world is {self.world!r}; expected one of {', '.join(WORLDS)}")
        for name in ("samples", "batch", "evaluated"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.l0 is not None and not 1 <= self.l0 <= LATENTS[self.world]:
            raise UsageError(f"l0 is {self.l0}; expected 1 to {LATENTS[self.world]}, the latents")

    def make(self, seed: int) -> World:
        """Return the world of a seed."""
        return WORLDS[self.world](rows=self.samples, seed=seed)

    def wanted(self) -> int:
        """Return the L0 to compare at."""
        return self.l0 or max(1, round(active(self.make(SEARCH_SEED), LATENTS[self.world])))


Fit = Callable[[World, int], Dictionary]
"""Gives a dictionary trained in a world with a seed."""


def study(
    config: SyntheticConfig,
    names: Sequence[str],
    seeds: int,
    out: Path,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Train and evaluate every recipe with seeds 0, 1, ...; return a row for each recipe.

    It trains on ``device`` (cpu, cuda or cuda:N); samples are made, and figures taken, on the CPU.
    Results are kept in ``out``. UsageError for an unknown recipe or device, SememeError for an
    ``out`` that holds another study.
    """
    progress = progress or Progress()
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; expected 1 or more")
    for name in names:
        recipes.make(name)
    check_device(device)
    begin(out, asdict(config))
    l0 = config.wanted()
    done = sum(path.exists() for path in (_result(out, n, s) for n in names for s in range(seeds)))
    progress.start("study", len(names) * seeds, "runs", done)
    rows = []
    for name in names:
        results = []
        for seed in range(seeds):
            path = _result(out, name, seed)
            if not path.exists():
                train_config = _config_of(config, name, l0, out, progress, device)
                progress.say(f"training {name}, seed {seed}")
                write_json(path, measured(config, seed, _fit(train_config, device)))
                progress.advance(1)
            results.append(read_json(path))
        rows.append({"recipe": name, **summary(results)})
    progress.finish()
    return rows


def measured(config: SyntheticConfig, seed: int, fit: Fit) -> dict[str, float]:
    """Return the figures of what ``fit`` makes of one seed's world, and what that took.

    ``us_per_sample`` is processor time of this process, in microseconds, making samples included.
    """
    world = config.make(seed)
    begun = time.process_time()
    dictionary = fit(world, seed)
    took = time.process_time() - begun
    held_out = world.held_out(config.evaluated, seed)
    figures = ground_truth(dictionary, world.directions, held_out, world.parents)
    return {**figures, "us_per_sample": 1e6 * took / config.samples}


def summary(results: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of each figure over seeds, and half its 95% interval as ``NAME_95``.

    The interval is Student's; it is None where there is one seed.
    """
    found: dict[str, Any] = {"seeds": len(results)}
    for name in results[0]:
        values = [result[name] for result in results]
        found[name] = statistics.fmean(values)
        half = None
        if len(values) > 1:
            error = statistics.stdev(values) / math.sqrt(len(values))
            half = float(student.ppf(0.975, len(values) - 1)) * error
        found[f"{name}_95"] = half
    return found


def trained(world: World, config: TrainConfig, device: str = "cpu") -> Dictionary:
    """Return the dictionary that ``config`` trains in ``world``, without writing anything."""
    trainer = Trainer(world, config, world.sites, world.sites, device)
    for number, rows in enumerate(world.batches(config.batch, config.passes, config.seed)):
        check_finite(rows, f"batch {number}", world)
        trainer.advance(rows)
    if config.norms == "free":
        trainer.dictionary.unit_rows()
    return trainer.dictionary.cpu()


def _fit(config: TrainConfig, device: str) -> Fit:
    return lambda world, seed: trained(world, replace(config, seed=seed), device)


def _config_of(
    config: SyntheticConfig, name: str, l0: int, out: Path, progress: Progress, device: str
) -> TrainConfig:
    """Return a recipe that gives the wanted L0: by its budget, or by the penalty searched for."""

    def made(**sparsity: int | float) -> TrainConfig:
        made = recipes.make(name, features=LATENTS[config.world], passes=1, **sparsity)
        rate = config.learning_rate or made.learning_rate
        rule = made.resampling
        if rule is not None:
            steps = config.samples // config.batch
            rule = replace(rule.scaled(steps / PAPER_STEPS), rows=INPUTS)
        return replace(made, batch=config.batch, learning_rate=rate, resampling=rule)

    parameters = inspect.signature(recipes.RECIPES[name]).parameters
    if "k" in parameters:
        return made(k=l0)
    path = out / f"{name}-penalty.json"
    if not path.exists():
        first = float(parameters["sparsity"].default)
        world = config.make(SEARCH_SEED)

        def reached(penalty: float) -> float:
            progress.say(f"searching {name}: penalty {penalty:.4g}")
            dictionary = trained(world, made(sparsity=penalty), device)
            samples = world.held_out(4096, SEARCH_SEED)
            return ground_truth(dictionary, world.directions, samples)["l0"]

        write_json(path, search(reached, first, float(l0)))
    return made(sparsity=read_json(path)["penalty"])


def search(l0_of: Callable[[float], float], first: float, wanted: float) -> dict[str, float]:
    """Return the penalty whose L0 is nearest to ``wanted``, of at most ``SEARCHES`` tried.

    Regula falsi on the logarithms; as if L0 fell as 1 / penalty, and then faster steps, until there
    are points on both sides.
    """
    tried: dict[float, float] = {}
    penalty = first
    for _ in range(SEARCHES):
        tried[penalty] = max(l0_of(penalty), 1e-3)
        if abs(tried[penalty] / wanted - 1) <= TOLERANCE:
            break
        penalty = _next(tried, wanted)
    best = min(tried, key=lambda p: abs(math.log(tried[p] / wanted)))
    return {"penalty": best, "l0": tried[best], "tried": len(tried)}


def _next(tried: dict[float, float], wanted: float) -> float:
    """Return the penalty at which the line through the two points beside ``wanted`` crosses it."""
    denser = [p for p, l0 in tried.items() if l0 > wanted]
    sparser = [p for p, l0 in tried.items() if l0 <= wanted]
    if denser and sparser:
        low, high = max(denser), min(sparser)
        a, b = math.log(tried[low]), math.log(tried[high])
        share = (a - math.log(wanted)) / (a - b) if a > b else 0.5
        return math.exp((1 - share) * math.log(low) + share * math.log(high))
    nearest = max(denser) if denser else min(sparser)
    step = math.log(min(max(tried[nearest] / wanted, 1 / 8), 8.0))
    return nearest * math.exp(step * (1.5 if len(tried) > 1 else 1.0))


def _result(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-{seed}.json"
