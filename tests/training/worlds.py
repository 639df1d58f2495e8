"""An in-memory stream, and a small world whose true features are known."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MemoryStream:
    x: torch.Tensor
    scale: float = 1.0
    sites: tuple[str, ...] = ("x",)
    split: tuple[int, ...] | None = None

    @property
    def widths(self):
        return self.split or (self.x.shape[1],)

    @property
    def scales(self):
        return tuple(self.scale for _ in self.sites)

    @property
    def rows(self):
        return len(self.x)

    def steps(self, batch, passes):
        return self.rows * passes // batch

    def batches(self, batch, passes, seed, start=0):
        for number in range(start, self.steps(batch, passes)):
            generator = torch.Generator().manual_seed(1_000_003 * seed + number)
            yield self.x[torch.randint(self.rows, (batch,), generator=generator)]

    def sample(self, rows):
        return self.x[:rows]


def world(*, rows=20_000, width=24, features=60, active=4, seed=0, offset=0.0):
    """Return activations that are sparse sums of unit directions, and the directions."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.nn.functional.normalize(torch.randn(features, width, generator=generator), dim=1)
    which = torch.rand(rows, features, generator=generator).argsort(1)[:, :active]
    values = 0.5 + torch.rand(rows, active, generator=generator)
    x = torch.einsum("nk,nkw->nw", values, true[which]) + offset
    scale = float((width / x.square().sum(1).mean()) ** 0.5)
    return MemoryStream(x, scale), true
