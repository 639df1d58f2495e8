"""The textbook training loops that compute every feature of every row, for comparison."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, relu

BANDWIDTH = 0.03
"""Of JumpReLU's stand-in gradients, and the threshold that it begins with."""


class PlainTorch:
    """One dense step of a kind of dictionary: its encoder, autograd, Adam, decoder rows to norm 1.

    ``kind`` is topk, relu, jumprelu or gated; ``k`` and ``l0`` are what the first and the third aim
    at.
    """

    def __init__(self, kind: str, width: int, features: int, k: int, l0: int) -> None:
        rows = normalize(torch.randn(features, width), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows.clone())
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.b_dec = nn.Parameter(torch.zeros(width))
        self.extra = {
            "jumprelu": [nn.Parameter(torch.full((features,), BANDWIDTH))],
            "gated": [nn.Parameter(torch.zeros(features)) for _ in range(2)],
        }.get(kind, [])
        self.k, self.l0 = k, l0
        kinds: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
            "topk": self._topk,
            "relu": self._relu,
            "jumprelu": self._jumprelu,
            "gated": self._gated,
        }
        self.encode = kinds[kind]
        weights = [self.W_enc, self.W_dec, self.b_enc, self.b_dec, *self.extra]
        self.adam = torch.optim.Adam(weights, lr=1e-3)

    def step(self, x: Float[Tensor, "rows width"]) -> None:
        """Take one step."""
        values, penalty = self.encode(x)
        rebuilt = values @ self.W_dec + self.b_dec
        loss = (rebuilt - x).square().sum(1).mean() + penalty
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def _scores(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows features"]:
        return linear(x - self.b_dec, self.W_enc, self.b_enc)

    def _topk(self, x: Float[Tensor, "rows width"]) -> tuple[Tensor, Tensor]:
        values = relu(self._scores(x))
        top = values.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(values).scatter(1, top.indices, top.values), torch.zeros(())

    def _relu(self, x: Float[Tensor, "rows width"]) -> tuple[Tensor, Tensor]:
        values = relu(self._scores(x))
        return values, values.sum(1).mean()

    def _jumprelu(self, x: Float[Tensor, "rows width"]) -> tuple[Tensor, Tensor]:
        """JumpReLU with a target L0 (2407.14435)."""
        scores, (threshold,) = self._scores(x), self.extra
        active = _Step.apply(scores, threshold).sum(1).mean()  # type: ignore[no-untyped-call]
        values = _JumpReLU.apply(scores, threshold)  # type: ignore[no-untyped-call]
        return values, (active / self.l0 - 1).square()

    def _gated(self, x: Float[Tensor, "rows width"]) -> tuple[Tensor, Tensor]:
        """Gated, with tied directions and the auxiliary reconstruction (2404.16014)."""
        log_scale, bias = self.extra
        product = linear(x - self.b_dec, self.W_enc)
        gate = product + self.b_enc
        values = (gate > 0) * relu(log_scale.exp() * product + bias)
        opened = relu(gate)
        rebuilt = opened @ self.W_dec.detach() + self.b_dec.detach()
        return values, opened.sum(1).mean() + (rebuilt - x).square().sum(1).mean()


def _near(scores: Tensor, threshold: Tensor) -> Tensor:
    return ((scores - threshold).abs() < BANDWIDTH / 2).to(scores.dtype) / BANDWIDTH


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(scores, threshold)
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        scores, threshold = ctx.saved_tensors
        to_threshold = -(_near(scores, threshold) * gradient).sum(0)
        return torch.zeros_like(scores), to_threshold


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(scores, threshold)
        return scores * (scores > threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        scores, threshold = ctx.saved_tensors
        to_threshold = -(threshold * _near(scores, threshold) * gradient).sum(0)
        return gradient * (scores > threshold), to_threshold
