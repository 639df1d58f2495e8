"""Parts of an activation: what a site keeps of the vector that its module gives for a token."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Axis names: whole = numbers of the module's vector, part = those that the site keeps.


@dataclass(frozen=True)
class Head:
    """One of ``count`` equal runs of neighbouring numbers: an attention head's share."""

    index: int
    count: int

    def take(self, x: Float[Tensor, "... whole"]) -> Float[Tensor, "... part"]:
        share: Tensor = x.unflatten(-1, (self.count, -1))[..., self.index, :]
        return share

    def put(
        self, x: Float[Tensor, "... whole"], part: Float[Tensor, "... part"]
    ) -> Float[Tensor, "... whole"]:
        new = x.clone()
        self.take(new).copy_(part)
        return new


@dataclass(frozen=True)
class Chosen:
    """The numbers at ``ids``, in their order: the logits of some tokens."""

    ids: tuple[int, ...]

    def take(self, x: Float[Tensor, "... whole"]) -> Float[Tensor, "... part"]:
        return x[..., torch.tensor(self.ids, device=x.device)]

    def put(
        self, x: Float[Tensor, "... whole"], part: Float[Tensor, "... part"]
    ) -> Float[Tensor, "... whole"]:
        new = x.clone()
        new[..., torch.tensor(self.ids, device=x.device)] = part
        return new


@dataclass(frozen=True)
class RandomProjection:
    r"""The product with a Gaussian matrix, $x R / \sqrt D$, in fp32.

    The entries of R are independent and of variance 1, so that lengths and angles stay as they are
    on average, with a relative error of about $\sqrt{2 / D}$ in a squared length. R depends on D
    and on the width of x alone: the same name means the same numbers wherever it is read.
    """

    width: int

    def take(self, x: Float[Tensor, "... whole"]) -> Float[Tensor, "... part"]:
        matrix = _gaussian(x.shape[-1], self.width, x.device)
        # One document at a time: the wide rows are never all there in fp32.
        rows = [document.float() @ matrix for document in x.flatten(0, -3)]
        return torch.stack(rows).view(*x.shape[:-1], self.width)


Part = Head | Chosen | RandomProjection


@lru_cache(maxsize=1)
def _gaussian(rows: int, columns: int, device: torch.device) -> Float[Tensor, "rows columns"]:
    drawn = np.random.default_rng(columns).standard_normal((rows, columns), dtype=np.float32)
    return torch.from_numpy(drawn).div_(columns**0.5).to(device)
