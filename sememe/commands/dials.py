"""Options that several commands share."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sememe.training.config import TrainConfig

ModelDtype = Literal["auto", "fp32", "bf16"]
Recipe = Literal[
    "sememe",
    "towards_monosemanticity",
    "april_update",
    "january_2025",
    "openai_topk",
    "gated",
    "jumprelu",
    "batchtopk",
    "matryoshka",
    "lista_matryoshka",
    "topk",
]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Dials of training that several commands share."""

    recipe: Recipe = "topk"
    """Way to train: topk is the fastest, sememe the best at finding true features."""
    features: int | None = None
    """Number of features; by default the recipe's, 9,216 for most."""
    k: int | None = None
    """Features active on one token, for recipes with a budget; by default 32."""
    sparsity: float | None = None
    """Weight of the penalty that keeps features few, for recipes without a budget."""
    passes: int | None = None
    """Times to go over the activations; by default the recipe's, 4 for most."""
    batch: int | None = None
    """Tokens a training step; by default the recipe's."""
    learning_rate: float | None = None
    """Learning rate after warm-up; by default the recipe's."""
    device: str = "cpu"
    """Where dictionaries are trained: cpu, cuda, or cuda:N for one GPU of several."""
    seed: int = 0
    """Of the choice of text, the first weights and the order of training."""

    def training(self) -> "TrainConfig":
        """Return the configuration of the trainer."""
        from sememe.training import recipes

        made = recipes.make(
            self.recipe,
            features=self.features,
            k=self.k,
            sparsity=self.sparsity,
            passes=self.passes,
        )
        return replace(
            made,
            seed=self.seed,
            batch=made.batch if self.batch is None else self.batch,
            learning_rate=made.learning_rate if self.learning_rate is None else self.learning_rate,
        )
