"""Rows as int8 with a scale each: a quarter of the room of fp32."""

import torch
from jaxtyping import Float, Float32, Int8

LARGEST = 127


def scale_name(site: str) -> str:
    """Return the name under which a shard holds the scales of a site's rows."""
    return f"{site}:row_scale"


def quantise(
    x: Float[torch.Tensor, "rows width"],
) -> tuple[Int8[torch.Tensor, "rows width"], Float32[torch.Tensor, " rows"]]:
    """Return int8 rows and what to multiply each by; no number is off by more than half of that.

    The scales are fp32, since those of large rows would overflow fp16, and two bytes a row are no
    room to save.
    """
    wide = x.float()
    largest = wide.abs().amax(dim=1)
    scale = (largest / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return (wide / scale[:, None]).round().to(torch.int8), scale


def dequantise(
    rows: Int8[torch.Tensor, "rows width"], scale: Float32[torch.Tensor, " rows"]
) -> Float32[torch.Tensor, "rows width"]:
    """Return what :func:`quantise` was given, as near as int8 has it."""
    return rows.float().mul_(scale[:, None])
