"""Adam, with decoder rows kept at norm 1, by the fused kernel."""

import torch
from torch import Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.kernels import kernels_for, memory

EPSILON = 1e-8


class Adam:
    """Steps every parameter of a dictionary; with ``unit_rows`` decoder rows keep norm 1.

    Then the part of a decoder row's gradient along the row is taken away before the step (it would
    only feed the moments what renormalising undoes), and the row is scaled back after it.
    """

    def __init__(
        self, dictionary: Dictionary, betas: tuple[float, float], *, unit_rows: bool = True
    ) -> None:
        self.parameters = dict(dictionary.named_parameters())
        self.betas = betas
        self.unit_rows = unit_rows
        self.steps = 0
        self.moments = {
            f"{which}.{name}": memory.zeros_like(parameter)
            for name, parameter in self.parameters.items()
            for which in ("first", "second")
        }

    def step(self, learning_rate: float, clip: float = 0.0) -> None:
        """Apply and clear the gradients."""
        self.steps += 1
        if clip:
            self._clip(clip)
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            first, second = self.moments[f"first.{name}"], self.moments[f"second.{name}"]
            with torch.no_grad():
                kernels_for(parameter).adam_rows(
                    _as_rows(parameter.data),
                    _as_rows(parameter.grad),
                    _as_rows(first),
                    _as_rows(second),
                    step=self.steps,
                    learning_rate=learning_rate,
                    betas=self.betas,
                    epsilon=EPSILON,
                    unit_rows=self.unit_rows and name == "W_dec",
                )
            parameter.grad = None

    def _clip(self, largest: float) -> None:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
        for gradient in gradients:
            gradient.mul_((largest / norm.clamp_min(1e-12)).clamp_max(1.0))


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 2 else tensor[None]
