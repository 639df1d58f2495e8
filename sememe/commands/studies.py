"""The commands of the studies."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg, subcommand

from sememe.terminal import print_table, terminal_progress

BUDGETED = (
    "sememe",
    "topk",
    "lista_matryoshka",
    "matryoshka",
    "batchtopk",
    "openai_topk",
    "jumprelu",
)
"""Recipes that need no search for their sparsity."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Compare recipes where the true features are known. Goes on where it was."""

    out: Path
    """Directory of the results."""
    world: Literal["small", "medium", "16k", "independent", "toy"] = "small"
    """The world: SynthSAEBench shrunken or in full, independent features, or Toy Models'."""
    recipes: tuple[str, ...] = BUDGETED
    """Recipes to compare; those without a budget search for their penalty first."""
    seeds: int = 3
    """Runs of each recipe, each in its own world."""
    l0: int | None = None
    """Features active on one sample; by default as many as a perfect dictionary has."""
    samples: int = 1_000_000
    """Samples that a run is trained on."""
    batch: int = 256
    """Samples a step."""
    learning_rate: float | None = None
    """Learning rate of every recipe; by default each its own."""
    device: str = "cpu"
    """Where dictionaries are trained: cpu, cuda, or cuda:N for one GPU of several."""
    json: bool = False
    """Print one JSON object, whose rows are the table."""

    def __call__(self) -> None:
        from sememe.studies.synthetic import SyntheticConfig, study

        config = SyntheticConfig(
            world=self.world,
            l0=self.l0,
            samples=self.samples,
            batch=self.batch,
            learning_rate=self.learning_rate,
        )
        with terminal_progress() as progress:
            rows = study(config, self.recipes, self.seeds, self.out, progress, self.device)
        if self.json:
            sys.stdout.write(json.dumps({"world": self.world, "rows": rows}) + "\n")
            return
        from sememe.studies.synthetic import REPORTED

        print_table(
            ("recipe", *REPORTED, "us/sample"),
            [
                [
                    row["recipe"],
                    *(_with_interval(row, name) for name in REPORTED),
                    round(row["us_per_sample"]),
                ]
                for row in rows
            ],
        )


STUDIES = {"synthetic": Synthetic}
"""Every study by name."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer a question by many runs and one table."""

    study: Annotated[
        Annotated[Synthetic, subcommand("synthetic", prefix_name=False)]
        | Annotated[None, Suppress],
        arg(name=""),
    ]
    """Which question."""

    def __call__(self) -> None:
        assert self.study is not None
        self.study()


def _with_interval(row: dict[str, Any], name: str) -> str:
    half = row[f"{name}_95"]
    return f"{row[name]:.3f}" + (f" ±{half:.3f}" if half is not None else "")
