"""Which implementation runs: the one place that decides.

Compiled loops for float32 tensors on the CPU where numba imports; plain torch for everything else.
"""

import functools
import importlib
from types import ModuleType

import torch
from torch import Tensor

from sememe.kernels import reference


@functools.cache
def cpu_kernels() -> ModuleType | None:
    """Return the compiled CPU kernels, or None where numba does not import."""
    try:
        return importlib.import_module("sememe.kernels.cpu")
    except ImportError:
        return None


def kernels_for(tensor: Tensor) -> ModuleType:
    """Return the module whose kernels suit ``tensor``'s device and dtype."""
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        return cpu_kernels() or reference
    return reference
