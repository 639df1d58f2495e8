"""sememe as one tool among others: the same few calls that a comparison makes of every library."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from sememe.activations.stream import MemoryStream
from sememe.dictionaries.nonlinearities import BatchTopK, Nonlinearity, ReLU, TopK
from sememe.dictionaries.objectives import L1, Reconstruction
from sememe.kernels import Code
from sememe.training.config import TrainConfig
from sememe.training.trainer import Trainer


class Sememe:
    """A dictionary in training by the trainer that users call.

    The first weights and the scale come with the first call, from its input.
    """

    def __init__(
        self,
        arch: str,
        d_in: int,
        d_sae: int,
        batch: int,
        steps: int,
        k: int,
        l1: float,
        lr: float,
        dtype: str = "fp32",
        screening: int = 1,
        **_: object,
    ) -> None:
        """Set up ``arch`` topk, batchtopk or l1; ``screening`` 0 scores in float32 throughout.

        ``dtype`` is what others may compute in: results here are those of float32 in any case.
        """
        kinds: dict[str, Nonlinearity] = {"topk": TopK(k), "batchtopk": BatchTopK(k), "l1": ReLU()}
        objective = (Reconstruction(), L1(l1)) if arch == "l1" else (Reconstruction(),)
        self.config = TrainConfig(
            features=d_sae,
            nonlinearity=kinds[arch],
            objective=objective,
            passes=steps,
            batch=batch,
            learning_rate=lr,
        )
        self.screening = screening
        self.trainer: Trainer | None = None

    def step(self, x: Float[Tensor, "rows width"]) -> float:
        """Take one step; return the smoothed share of variance unexplained."""
        with self._screening():
            trainer = self._trainer(x)
            trainer.advance(x)
        return trainer.unexplained

    def encode(self, x: Float[Tensor, "rows width"]) -> Code:
        """Return the code."""
        with self._screening(), torch.no_grad():
            return self._trainer(x).dictionary.encode(x)

    def recon(
        self, x: Float[Tensor, "rows width"]
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows features"]]:
        """Return the reconstruction, and the feature values with all zeros spelt out."""
        dictionary = self._trainer(x).dictionary
        with self._screening(), torch.no_grad():
            code = dictionary.encode(x)
            dense = torch.zeros(len(x), dictionary.config.features)
            dense.scatter_add_(1, code.indices.long(), code.values)
            return dictionary.decode(code), dense

    def dec_rows(self) -> Float[Tensor, "features width"]:
        """Return the decoder's rows."""
        assert self.trainer is not None
        return self.trainer.dictionary.directions()

    def _trainer(self, x: Float[Tensor, "rows width"]) -> Trainer:
        if self.trainer is None:
            stream = MemoryStream(x)
            self.trainer = Trainer(stream, self.config, stream.sites, stream.sites)
        return self.trainer

    @contextmanager
    def _screening(self) -> Iterator[None]:
        before = os.environ.get("SEMEME_SCREENING")
        os.environ["SEMEME_SCREENING"] = str(self.screening)
        try:
            yield
        finally:
            del os.environ["SEMEME_SCREENING"]
            if before is not None:
                os.environ["SEMEME_SCREENING"] = before
