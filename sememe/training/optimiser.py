"""Optimisers that step a dictionary's weights row by row, with decoder rows kept at norm 1."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.kernels import Products, kernels_for, memory

EPSILON = 1e-8


class Optimiser:
    """Steps the parameters of a dictionary that learn; with ``unit_rows`` decoder rows keep norm 1.

    Then the part of a decoder row's gradient along the row is taken away before the step (it would
    only feed the moments what renormalising undoes), and the row is scaled back after it.

    Attributes:
        moments: What is remembered of gradients, by kind and parameter: ``second.W_enc``.
        steps: Steps done.
    """

    def __init__(self, dictionary: Dictionary, *, unit_rows: bool = True) -> None:
        self.parameters = {n: p for n, p in dictionary.named_parameters() if p.requires_grad}
        self.unit_rows = unit_rows
        self.steps = 0
        self.moments: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            self._begin(name, parameter)

    @torch.no_grad()
    def step(
        self, learning_rate: float, products: Mapping[int, Products] | None = None, clip: float = 0
    ) -> None:
        """Apply and clear the gradients: those left in ``products`` by address, and ``.grad``.

        ``clip`` is the largest norm of the whole gradient, 0 for any; it needs all in ``.grad``.
        """
        self.steps += 1
        products = products or {}
        if clip:
            self._clip(clip)
        for name, parameter in self.parameters.items():
            made = products.get(parameter.data_ptr())
            gradient: Tensor | Products | None = made
            if parameter.grad is not None:
                summed = _as_rows(parameter.grad)
                gradient = summed if made is None else made._replace(more=summed)
            if gradient is not None:
                unit = self.unit_rows and name == "W_dec"
                self._move(name, parameter.data, gradient, learning_rate, unit)
            parameter.grad = None

    def forget(self, features: Tensor) -> None:
        """Forget all gradients of some features."""
        for name, moment in self.moments.items():
            kind, parameter = name.split(".", 1)
            if parameter not in ("b_dec", "W_skip") and kind != "columns":
                moment[features] = 0

    def _begin(self, name: str, parameter: Tensor) -> None:
        """Make the moments of a parameter."""
        raise NotImplementedError

    def _move(
        self,
        name: str,
        parameter: Tensor,
        gradient: Tensor | Products,
        learning_rate: float,
        unit: bool,
    ) -> None:
        """Step a parameter in place."""
        raise NotImplementedError

    def _clip(self, largest: float) -> None:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
        for gradient in gradients:
            gradient.mul_((largest / norm.clamp_min(1e-12)).clamp_max(1.0))


class Adam(Optimiser):
    """Adam (1412.6980); without memory of gradients (``betas[0]`` 0) it keeps no first moments."""

    def __init__(
        self, dictionary: Dictionary, betas: tuple[float, float], *, unit_rows: bool = True
    ) -> None:
        self.betas = betas
        super().__init__(dictionary, unit_rows=unit_rows)

    def _begin(self, name: str, parameter: Tensor) -> None:
        for kind in ("first", "second") if self.betas[0] else ("second",):
            self.moments[f"{kind}.{name}"] = memory.zeros_like(parameter)

    def _move(
        self,
        name: str,
        parameter: Tensor,
        gradient: Tensor | Products,
        learning_rate: float,
        unit: bool,
    ) -> None:
        first = self.moments.get(f"first.{name}")
        kernels_for(parameter).adam_rows(
            _as_rows(parameter),
            gradient,
            None if first is None else _as_rows(first),
            _as_rows(self.moments[f"second.{name}"]),
            step=self.steps,
            learning_rate=learning_rate,
            betas=self.betas,
            epsilon=EPSILON,
            unit_rows=unit,
        )


class Adafactor(Adam):
    """Adafactor (1804.04235) without momentum: a number a row and a column for what Adam keeps.

    Biases and thresholds, which have no rows, are stepped as by Adam with a first beta of 0.
    """

    def __init__(self, dictionary: Dictionary, beta: float, *, unit_rows: bool = True) -> None:
        super().__init__(dictionary, (0.0, beta), unit_rows=unit_rows)

    def _begin(self, name: str, parameter: Tensor) -> None:
        if parameter.ndim == 2:
            self.moments[f"rows.{name}"] = parameter.new_zeros(len(parameter))
            self.moments[f"columns.{name}"] = parameter.new_zeros(parameter.shape[1])
        else:
            super()._begin(name, parameter)

    def _move(
        self,
        name: str,
        parameter: Tensor,
        gradient: Tensor | Products,
        learning_rate: float,
        unit: bool,
    ) -> None:
        if parameter.ndim != 2:
            super()._move(name, parameter, gradient, learning_rate, unit)
            return
        kernels_for(parameter).adafactor_rows(
            parameter,
            gradient,
            self.moments[f"rows.{name}"],
            self.moments[f"columns.{name}"],
            step=self.steps,
            learning_rate=learning_rate,
            beta=self.betas[1],
            epsilon=EPSILON,
            unit_rows=unit,
        )


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 2 else tensor[None]
