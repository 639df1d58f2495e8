"""Read one shard: a safetensors file, or an object like it."""

import json
import mmap
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from safetensors import SafetensorError, safe_open

from sememe.errors import SememeError
from sememe.objects import ObjectPath, Place

STORED = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""What safetensors calls the dtypes of a shard."""
ASKED = 1 << 20
"""Bytes that the disk is asked for at once; the system forgets what is beyond its own limit."""


def object_header(path: ObjectPath) -> tuple[dict[str, Any], int]:
    """Return the header of a shard in an object store, and where its tensors begin.

    SememeError unless the object is as long as its header says.
    """
    found = path.size()
    if found is None:
        raise SememeError(f"{path} is missing")
    try:
        (size,) = struct.unpack("<Q", path.read_range(0, 8))
        if 8 + size > found:
            raise ValueError(f"a header of {size} bytes in {found}")
        header = json.loads(path.read_range(8, size))
        ends = [tensor["data_offsets"][1] for tensor in header.values() if "dtype" in tensor]
        if 8 + size + max(ends) != found:
            raise ValueError(f"it has {found} bytes, its header says {8 + size + max(ends)}")
    except ValueError as error:
        raise SememeError(
            f"{path} is damaged ({error}): delete it and run the same command again"
        ) from error
    return header, 8 + size


class ShardFile:
    """One safetensors file: what is read in order by plain reads, rows here and there mapped.

    All that is read of a mapped file counts as the program's own memory. An object that is not
    ``here`` is read by ranges and cannot be mapped.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self.here = isinstance(path, Path)
        if isinstance(path, ObjectPath):
            self._tensors, self._begin = object_header(path)
        else:
            try:
                with safe_open(path, framework="pt"):  # checks the header
                    pass
                self._file = os.open(path, os.O_RDONLY)
            except (OSError, SafetensorError) as error:
                raise SememeError(f"cannot read {path}: {error}") from error
            weakref.finalize(self, os.close, self._file)
            (size,) = struct.unpack("<Q", os.pread(self._file, 8, 0))
            self._tensors = json.loads(os.pread(self._file, size, 8))
            self._begin = 8 + size
        self._mapped: dict[str, UInt8[np.ndarray, "rows bytes"]] = {}

    def empty(self, name: str, rows: int) -> Shaped[torch.Tensor, "rows ..."]:
        """Return room for some rows of a tensor."""
        tensor = self._tensors[name]
        return torch.empty(rows, *tensor["shape"][1:], dtype=STORED[tensor["dtype"]])

    def read_into(self, name: str, first: int, out: Shaped[torch.Tensor, "rows ..."]) -> None:
        """Fill ``out`` with the rows of a tensor from ``first`` on."""
        room = out.view(torch.uint8).numpy().reshape(-1).data
        begin = self._begin + self._tensors[name]["data_offsets"][0] + first * out[0].nbytes
        if isinstance(self.path, ObjectPath):
            room[:] = self.path.read_range(begin, len(room))
            return
        while len(room):
            got = os.preadv(self._file, [room], begin)
            if not got:
                raise SememeError(f"{self.path} ends too early: it is damaged; verify the store")
            room, begin = room[got:], begin + got

    def expect(self, name: str, firsts: Sequence[int], counts: Sequence[int]) -> None:
        """Ask the disk for runs of rows: their first rows and how many."""
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        begin, _ = self._tensors[name]["data_offsets"]
        size = self.empty(name, 1).nbytes
        for first, count in zip(firsts, counts, strict=True):
            start, stop = (self._begin + begin + row * size for row in (first, first + count))
            for part in range(start, stop, ASKED):
                asked = min(ASKED, stop - part)
                os.posix_fadvise(self._file, part, asked, os.POSIX_FADV_WILLNEED)

    def mapped(self, name: str) -> UInt8[np.ndarray, "rows bytes"]:
        """Return where the rows of a tensor are mapped.

        numpy copies rows of bytes on one thread, in half the time that torch takes for its dtypes.
        """
        assert isinstance(self.path, Path)
        if name not in self._mapped:
            whole = mmap.mmap(self._file, 0, prot=mmap.PROT_READ)
            whole.madvise(mmap.MADV_RANDOM)  # else the system reads megabytes around each row
            tensor = self._tensors[name]
            begin, end = tensor["data_offsets"]
            flat = np.frombuffer(whole, np.uint8, end - begin, self._begin + begin)
            rows = tensor["shape"][0]
            self._mapped[name] = flat.reshape(rows, len(flat) // max(1, rows))
        return self._mapped[name]
