"""Which implementation runs: the one place that decides.

Compiled loops for float32 tensors on the CPU where numba imports, Triton programs for float32 and
bfloat16 tensors on a CUDA device where triton does; plain torch for everything else.
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


@functools.cache
def gpu_kernels() -> ModuleType | None:
    """Return the Triton kernels, or None where triton does not import."""
    try:
        return importlib.import_module("sememe.kernels.gpu")
    except ImportError:
        return None


def kernels_for(tensor: Tensor) -> ModuleType:
    """Return the module whose kernels suit ``tensor``'s device and dtype."""
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        return cpu_kernels() or reference
    if tensor.device.type == "cuda" and tensor.dtype in (torch.float32, torch.bfloat16):
        return gpu_kernels() or reference
    return reference
