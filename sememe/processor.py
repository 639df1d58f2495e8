"""What the processor does fast."""

import torch


def fast_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware; elsewhere bf16 is slower."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
