"""What an optimiser explains, takes and keeps: Adam with and without momentum, and Adafactor.

Each trains the same TopK dictionary from the same first weights on the same batches of a language
model's activations, by turns, so that other work on the machine meets all alike; ``--recipes`` has
recipes trained so instead. FVU is of rows drawn from all of the store. Run it as ``python -m
benchmarks.optimisers``.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import torch

from benchmarks import command
from sememe.activations.harvest import harvest
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.corpora.build import build_corpus
from sememe.errors import UsageError
from sememe.evaluation.metrics import Moments
from sememe.job import middle_site
from sememe.models.load import load_model
from sememe.training import TrainConfig, recipes
from sememe.training.trainer import Trainer

OPTIMISERS: dict[str, dict[str, Any]] = {
    "adam, beta1 .9": {"beta1": 0.9},
    "adam, beta1 0": {"beta1": 0.0},
    "adafactor": {"optimiser": "adafactor"},
}
WARM_UP = 3
"""Steps whose time does not count."""
EVALUATED = 8192


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    activations: Path | None = None
    """A store to train on; by default the model below reads the text below first."""
    site: str | None = None
    """Which site of the store; by default its first."""
    model: str = "smollm2-135m"
    """Model whose middle layer is harvested where no store is given."""
    text: tuple[str, ...] = ("moby-dick", "dictionary")
    """Sources or paths of the text that it reads."""
    tokens: int = 50_000
    """Tokens of it."""
    recipes: tuple[str, ...] = ()
    """Recipes with a k to compare in place of optimisers, each with its own."""
    features: int = 2304
    """Features of the dictionary."""
    k: int = 32
    """Active features a row."""
    batch: int = 1024
    """Activations a step."""
    steps: int = 600
    """Steps of each optimiser, over as many passes as they take."""
    learning_rate: float = 2e-3
    """Learning rate of all."""
    seed: int = 0
    """Of the first weights and the order of activations."""
    json: bool = False
    """Print one JSON object."""


def small_store(settings: Settings, folder: Path) -> Activations:
    """Harvest the model's middle layer."""
    model = load_model(settings.model)
    corpus = build_corpus(
        folder / "corpus",
        model.tokenizer,
        tokens=settings.tokens,
        sources=list(settings.text),
        held_out=0.0,
    )
    return harvest(model, corpus, [middle_site(model)], folder / "activations")


def compare(settings: Settings, store: Activations) -> dict[str, Any]:
    """Train by turns; return the figures, a row for each optimiser."""
    stream = Stream(store, (settings.site or next(iter(store.sites)),))
    if settings.steps <= WARM_UP:
        raise UsageError(f"steps is {settings.steps}; expected more than {WARM_UP}")
    passes = -(-settings.steps // max(1, stream.steps(settings.batch, 1)))
    trainers = {
        name: Trainer(stream, config, stream.sites, stream.sites)
        for name, config in configs(settings, passes).items()
    }
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    batches = stream.batches(settings.batch, passes, settings.seed)
    for _, rows in zip(range(settings.steps), batches, strict=False):
        for name, trainer in trainers.items():
            trainer.steps = settings.steps
            begun = time.process_time()
            trainer.advance(rows)
            taken[name].append(time.process_time() - begun)
    sample = stream.sample(EVALUATED)
    return {
        "site": stream.sites[0],
        "rows_stored": stream.rows,
        "features": settings.features,
        "k": settings.k,
        "batch": settings.batch,
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "rows": [
            {
                "recipe" if settings.recipes else "optimiser": name,
                "fvu": fvu(trainer, sample),
                "l0": l0(trainer, sample),
                "cpu_seconds": statistics.median(taken[name][WARM_UP:]),
                "state_bytes": sum(m.nbytes for m in trainer.optimiser.moments.values()),
                "silent": float((trainer.silent >= 20 * settings.batch).float().mean()),
            }
            for name, trainer in trainers.items()
        ],
    }


def configs(settings: Settings, passes: int) -> dict[str, TrainConfig]:
    """Return what to train, by name."""
    shared: dict[str, Any] = {
        "batch": settings.batch,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "passes": passes,
    }
    sizes = {"features": settings.features, "k": settings.k}
    if settings.recipes:
        return {n: replace(recipes.make(n, **sizes), **shared) for n in settings.recipes}
    topk = recipes.make("topk", **sizes)
    return {name: replace(topk, **shared, **changes) for name, changes in OPTIMISERS.items()}


@torch.no_grad()
def fvu(trainer: Trainer, sample: torch.Tensor) -> float:
    """Return the unexplained share of the variance of raw rows."""
    return Moments.of(sample, trainer.dictionary(sample)).fvu or 0.0


@torch.no_grad()
def l0(trainer: Trainer, sample: torch.Tensor) -> float:
    """Return the mean number of features active on raw rows."""
    return float((trainer.dictionary.encode(sample).values > 0).sum()) / len(sample)


def measure(settings: Settings) -> dict[str, Any]:
    """Take the store that is given or make one; return the figures."""
    if settings.activations is not None:
        return compare(settings, Activations.open(settings.activations, verify=False))
    with tempfile.TemporaryDirectory() as folder:
        return compare(settings, small_store(settings, Path(folder)))


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
