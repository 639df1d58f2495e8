"""Where dictionaries are trained."""

import torch

from sememe.errors import UsageError


def check_device(name: str) -> str:
    """Return ``name``; UsageError unless it is cpu, or a CUDA device that this machine has."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}; expected cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(
            f"device is {name!r}, but torch {torch.__version__} finds {count} CUDA devices: give "
            "cpu, or install a driver and a build of torch for CUDA"
        )
    return name
