"""Read stored activations: safetensors shards in corpus order, several sites side by side.

Each shard holds, for every site, a tensor of (rows, width), with a scale a row where that is int8,
and for every row ``token`` (its id), ``document``, ``position`` (its place in the model's window)
and ``place`` (where it is in the corpus).
"""

import json
import mmap
import os
import struct
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped, UInt8
from safetensors import SafetensorError, safe_open

from sememe.activations.quantised import dequantise, scale_name
from sememe.artefacts import cache_folder, damage_of, fetch, read_manifest, verify_files
from sememe.errors import SememeError, UsageError
from sememe.machine import disk_free
from sememe.objects import ObjectPath, Place, place
from sememe.progress import Progress

ROW_FACTS = ("token", "document", "position", "place")
STORED = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""What safetensors calls the dtypes of a shard."""


IN_FLIGHT = 4
"""Files of an object store that are fetched at a time."""
ASKED = 1 << 20
"""Bytes that the disk is asked for at once; the system forgets what is beyond its own limit."""


class Rows(NamedTuple):
    """Consecutive rows of a store, in corpus order."""

    start: int
    """Number of the first row in the store."""
    values: Float[torch.Tensor, "rows width"]
    """The site's activations, raw, fp32."""
    token: Int[torch.Tensor, " rows"]
    document: Int[torch.Tensor, " rows"]
    position: Int[torch.Tensor, " rows"]
    place: Int[torch.Tensor, " rows"]


class Activations:
    """A finished store of activations.

    Of a store in an object store, whole shards are brought to this machine's cache and compared
    with their checksums: all when it is opened with ``verify``, else those that :meth:`take` takes
    rows from. What is read in order of the others is read by ranges, not compared and not kept.

    Attributes:
        path: The store's directory or URL.
        manifest: Provenance, token rules, and per site width, scale and norm limit.
        sites: Names of the sites stored.
        rows: Number of rows, each one token.
        shard_starts: Number of the first row of each shard, then ``rows``.
    """

    def __init__(
        self, path: Place, *, verify: bool = True, progress: Progress | None = None
    ) -> None:
        self.path = path
        self.manifest = read_manifest(path, "activations")
        if verify and isinstance(path, ObjectPath):
            self._fetch_all(progress)
        elif verify:
            verify_files(path, self.manifest)
        self.sites = list(self.manifest["sites"])
        self.rows = int(self.manifest["rows"])
        counts = [shard["rows"] for shard in self.manifest["shards"]]
        self.shard_starts = [0, *np.cumsum(counts).tolist()]
        self._open: dict[int, _Shard] = {}

    @classmethod
    def open(
        cls, path: Place | str, *, verify: bool = True, progress: Progress | None = None
    ) -> "Activations":
        """Open the store at a path or URL; SememeError names the file that is missing or altered.

        Without ``verify`` files are not compared with their checksums.
        """
        return cls(place(path), verify=verify, progress=progress)

    @property
    def hash(self) -> str:
        """Identifies the store's content and provenance."""
        return str(self.manifest["hash"])

    @cached_property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.shard_starts) - 1

    def _facts(self, site: str) -> dict[str, Any]:
        if site not in self.sites:
            raise UsageError(f"site {site!r} is not in {self.path}: it holds {self.sites}")
        facts: dict[str, Any] = self.manifest["sites"][site]
        return facts

    def _check_name(self, name: str) -> None:
        if name not in ROW_FACTS:
            self._facts(name)

    @property
    def dtype(self) -> str:
        """What sites are stored in: fp16, bf16, fp32 or int8."""
        return str(self.manifest["rules"]["dtype"])

    def width(self, site: str) -> int:
        """Width of the site's activations."""
        return int(self._facts(site)["width"])

    def scale(self, site: str) -> float:
        """What to multiply activations by so that their mean squared norm is their width."""
        return float(self._facts(site)["scale"])

    def close(self) -> None:
        """Let go of the files: what was read of them here and there leaves memory."""
        self._open.clear()

    def _shard(self, number: int, *, whole: bool = False) -> "_Shard":
        """Open a shard; ``whole`` brings it to this machine."""
        if number not in self._open or (whole and not self._open[number].here):
            name = self.manifest["shards"][number]["file"]
            here = self.file(name)
            if whole and not here.exists():
                self._bring([name])
            self._open[number] = _Shard(here if here.exists() else self.path / name)
        return self._open[number]

    def file(self, name: str) -> Path:
        """Where a file of the store is on this machine, or would be brought to."""
        return (self.path if isinstance(self.path, Path) else self._cache) / name

    @property
    def _cache(self) -> Path:
        """Where the shards of an object store are kept on this machine."""
        return cache_folder() / "stores" / self.hash

    def _fetch_all(self, progress: Progress | None) -> None:
        """Bring every shard of an object store here, comparing those that are here already."""
        assert isinstance(self.path, ObjectPath)
        listed = self.manifest["files"]
        missing = [name for name in listed if damage_of(self._cache / name, listed[name])]
        needed, free = sum(listed[name]["bytes"] for name in missing), disk_free(self._cache)
        if needed > free:
            raise SememeError(
                f"{self._cache} needs {needed / 1e6:,.1f} MB for the shards of {self.path}, and "
                f"{free / 1e6:,.1f} MB are free: let SEMEME_CACHE name a folder on a larger disk"
            )
        self._bring(missing, progress)

    def _bring(self, names: Sequence[str], progress: Progress | None = None) -> None:
        """Bring files of an object store here, several at a time; they are held to checksums."""
        path, listed = self.path, self.manifest["files"]
        assert isinstance(path, ObjectPath)

        def bring(name: str) -> int:
            fetch(path / name, listed[name], self.file(name))
            return int(listed[name]["bytes"])

        if progress and names:
            progress.start("fetch", sum(listed[name]["bytes"] for name in names), "bytes")
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="fetch") as pool:
            for size in pool.map(bring, names):
                if progress:
                    progress.advance(size)
        if progress and names:
            progress.finish()

    def read(self, name: str, start: int, stop: int) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows ``start`` to ``stop`` of a site or a row fact.

        They come in the stored dtype; int8 is multiplied by its scales, and comes as fp32.
        """
        self._check_name(name)
        rows = self._read(name, start, stop)
        if rows.dtype == torch.int8:
            return dequantise(rows, self._read(scale_name(name), start, stop))
        return rows

    def _read(self, name: str, start: int, stop: int) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows of a tensor as the shards hold them."""
        out: torch.Tensor | None = None
        for number in range(self.shards):
            low, high = self.shard_starts[number], self.shard_starts[number + 1]
            first, last = max(start, low), min(stop, high)
            if first < last:
                shard = self._shard(number)
                if out is None:
                    out = shard.empty(name, min(stop, self.rows) - first)
                shard.read_into(name, first - low, out[first - max(start, 0) :][: last - first])
        if out is None:
            raise UsageError(f"rows {start} to {stop}: {self.path} has rows 0 to {self.rows}")
        return out

    def take(self, name: str, rows: Int64[np.ndarray, " rows"]) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows by number, in any order, of a site or a row fact, as :meth:`read` does."""
        self._check_name(name)
        taken = self._take(name, rows)
        if taken.dtype == torch.int8:
            return dequantise(taken, self._take(scale_name(name), rows))
        return taken

    def _take(
        self, name: str, rows: Int64[np.ndarray, " rows"]
    ) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows of a tensor by number, as the shards hold them."""
        order = np.argsort(rows)
        ascending = rows[order]
        if not (len(rows) and ascending[0] >= 0 and ascending[-1] < self.rows):
            raise UsageError(f"rows {rows}: {self.path} has rows 0 to {self.rows}")
        ends = np.searchsorted(ascending, self.shard_starts)
        first = int(np.flatnonzero(ends)[0]) - 1
        like = self._shard(first, whole=True).empty(name, 1)
        taken = np.empty((len(rows), like.nbytes), np.uint8)
        for shard in np.flatnonzero(np.diff(ends)).tolist():
            wanted = slice(ends[shard], ends[shard + 1])
            inside = ascending[wanted] - self.shard_starts[shard]
            taken[order[wanted]] = self._shard(shard, whole=True).mapped(name).take(inside, 0)
        typed = torch.from_numpy(taken).view(-1).view(like.dtype)
        return typed.view(len(rows), *like.shape[1:])

    def expect(
        self, names: Sequence[str], starts: Int64[np.ndarray, " blocks"], block: int
    ) -> None:
        """Ask the disk for blocks of rows that :meth:`take` will be asked for; return at once.

        ``starts`` are the ascending numbers of the first rows of blocks of ``block`` rows. Shards
        of an object store are brought here.
        """
        first = np.flatnonzero(np.diff(starts, prepend=-block - 1) != block)  # of each run
        lows, highs = starts[first], np.append(starts[first[1:] - 1], starts[-1:]) + block
        begins, ends = self.shard_starts[:-1], self.shard_starts[1:]
        touched = np.searchsorted(highs, begins, "right") < np.searchsorted(lows, ends)
        numbers = np.flatnonzero(touched).tolist()
        names_of = [self.manifest["shards"][number]["file"] for number in numbers]
        if missing := [name for name in names_of if not self.file(name).exists()]:
            self._bring(missing)
        for number in numbers:
            low = np.maximum(lows, begins[number])
            size = np.minimum(highs, ends[number]) - low
            inside = (low - begins[number])[size > 0].tolist()
            for name in names:
                self._shard(number, whole=True).expect(name, inside, size[size > 0].tolist())

    def in_order(self, site: str, chunk: int = 8192, shard: int | None = None) -> Iterator[Rows]:
        """Yield the rows of one shard, or of all, in corpus order, ``chunk`` at a time.

        A shard that has been passed is closed, so that its pages leave memory.
        """
        self._facts(site)
        for number in range(self.shards) if shard is None else (shard,):
            low, high = self.shard_starts[number], self.shard_starts[number + 1]
            for start in range(low, high, chunk):
                stop = min(start + chunk, high)
                facts = [self.read(name, start, stop) for name in ROW_FACTS]
                yield Rows(start, self.read(site, start, stop).float(), *facts)
            self._open.pop(number, None)


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


class _Shard:
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
