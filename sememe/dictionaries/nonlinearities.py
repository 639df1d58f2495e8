"""From an activation to its features: one class a kind, listed in one table.

A nonlinearity is given the input and the encoder rather than the scores, so that a sparse kind
never keeps all of them. ``forward`` returns what training uses, a :class:`Code` where the kind is
sparse by construction and a dense matrix where it is not; ``encode`` always returns a code.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sememe.errors import UsageError
from sememe.kernels import Code, encode_topk

Activity = Code | Tensor
"""Feature values of some rows: sparse, or dense as (rows, features)."""


@runtime_checkable
class Nonlinearity(Protocol):
    """What a kind of feature must do; instances are frozen and hold only settings."""

    kind: ClassVar[str]

    def forward(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Activity:
        """Return differentiable feature values."""

    def encode(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Code:
        """Return the code, largest value first in every row."""


@dataclass(frozen=True)
class TopK:
    """f = ReLU(TopK_k(W_enc x + b)): the k largest scores of a row, those above zero (2406.04093).

    An entry that the ReLU zeroes is not active and gets no gradient.
    """

    k: int
    """Most features active on one activation."""
    kind: ClassVar[str] = "topk"

    def forward(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Code:
        """Return the code; only entries that are there carry gradients."""
        return encode_topk(x, W_enc, bias, self.k)

    def encode(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Code:
        """Return the code, k entries a row."""
        return encode_topk(x, W_enc, bias, self.k)


@dataclass(frozen=True)
class ReLU:
    """f = ReLU(W_enc x + b), made sparse by an L1 term of the objective."""

    kind: ClassVar[str] = "relu"

    def forward(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Float[Tensor, "rows features"]:
        """Return all feature values, dense."""
        return torch.addmm(bias, x, W_enc.T).relu()

    def encode(
        self,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Code:
        """Return the code, as many entries a row as the fullest row needs."""
        codes = [pack(self.forward(part, W_enc, bias)) for part in x.split(512)]
        k = max((code.values.shape[1] for code in codes), default=0)
        padded = [[pad(part, (0, k - part.shape[1])) for part in code] for code in codes]
        indices, values = (torch.cat(parts) for parts in zip(*padded, strict=True))
        return Code(indices, values)


def pack(dense: Float[Tensor, "rows features"]) -> Code:
    """Return dense non-negative feature values as a code, largest first in every row."""
    k = int((dense > 0).sum(1).max()) if dense.numel() else 0
    values, indices = dense.topk(k, dim=1)
    return Code(indices.where(values > 0, 0).to(torch.int32), values)


NONLINEARITIES: dict[str, type[Any]] = {kind.kind: kind for kind in (TopK, ReLU)}
"""Every kind by name; a new one is a class above and its name here."""


def to_json(nonlinearity: Nonlinearity) -> dict[str, Any]:
    """Return the kind and its settings."""
    return {"kind": nonlinearity.kind, **asdict(nonlinearity)}  # type: ignore[call-overload]


def from_json(value: dict[str, Any]) -> Nonlinearity:
    """Return the nonlinearity that :func:`to_json` described; UsageError for an unknown kind."""
    settings = dict(value)
    kind = settings.pop("kind", None)
    if kind not in NONLINEARITIES:
        raise UsageError(f"kind {kind!r} is unknown; expected one of {', '.join(NONLINEARITIES)}")
    made: Nonlinearity = NONLINEARITIES[kind](**settings)
    return made
