"""Memory of the CPU kernels: large arrays in huge pages, handed out again once nobody holds them.

A fresh matrix of 75 MB in pages of 4 KB takes longer to make than to fill with gradients, and rows
picked from one miss the processor's table of pages. numpy asks for huge pages, torch does not.
"""

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Array = npt.NDArray[Any]
LARGE = 1 << 20
"""Bytes from which on memory is worth keeping."""
KEPT = 12
"""Arrays kept at most."""
LINE = 64
"""Bytes of a cache line, where every tensor begins."""

_local = threading.local()
_lock = threading.Lock()
_held: list[Array] = []


def empty(*shape: int, dtype: npt.DTypeLike = np.float32) -> Shaped[Tensor, "..."]:
    """Return a tensor, its values whatever was there."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    array = _aligned(_large(size), size) if size >= LARGE else np.empty(size, np.uint8)
    return torch.from_numpy(array.view(dtype).reshape(shape))


def empty_like(tensor: Tensor) -> Float[Tensor, "..."]:
    """Return a tensor of another's shape, dtype and device, its values whatever was there."""
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
        return torch.empty_like(tensor)
    return empty(*tensor.shape)


def zeros_like(tensor: Tensor) -> Float[Tensor, "..."]:
    """Return zeros of a float32 tensor's shape that stay: a parameter, or what goes with one."""
    if tensor.device.type != "cpu":
        return torch.zeros_like(tensor, requires_grad=False)
    size = tensor.numel() * 4
    array = _aligned(np.zeros(size + LINE, np.uint8), size)
    return torch.from_numpy(array.view(np.float32).reshape(tensor.shape))


def scratch(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return this thread's array of that name, its values whatever was there."""
    held: dict[str, Array] = _local.__dict__
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in held or held[name].size < size:
        held[name] = _aligned(np.empty(size + LINE, np.uint8), size)
    return held[name][:size].view(dtype).reshape(shape)


def _large(size: int) -> Array:
    """Return an array of at least ``size`` bytes and a line that nobody uses."""
    with _lock:
        free = [n for n, array in enumerate(_held) if sys.getrefcount(array) <= _UNHELD]
        fitting = [n for n in free if size + LINE <= _held[n].size <= 2 * size]
        if fitting:
            return _held[min(fitting, key=lambda n: _held[n].size)]
        if len(_held) == KEPT and free:
            del _held[free[0]]
        array = np.empty(size + LINE, np.uint8)
        if len(_held) < KEPT:
            _held.append(array)
        return array


def _aligned(array: Array, size: int) -> Array:
    start = -array.ctypes.data % LINE
    return array[start : start + size]


def _references(count: Callable[[object], int]) -> int:
    """Return how often an array that only a list holds is counted in a loop over the list."""
    return max(count(array) for _, array in enumerate([np.empty(1)]))


_UNHELD = _references(sys.getrefcount)
