"""A small world whose true features are known, in memory."""

import torch

from sememe.activations.stream import MemoryStream


def world(*, rows=20_000, width=24, features=60, active=4, seed=0, offset=0.0):
    """Return activations that are sparse sums of unit directions, and the directions."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.nn.functional.normalize(torch.randn(features, width, generator=generator), dim=1)
    which = torch.rand(rows, features, generator=generator).argsort(1)[:, :active]
    values = 0.5 + torch.rand(rows, active, generator=generator)
    x = torch.einsum("nk,nkw->nw", values, true[which]) + offset
    return MemoryStream(x), true
