"""Read stored activations: safetensors shards in corpus order, several sites side by side.

Each shard holds, for every site, a tensor of (rows, width), with a scale a row where that is int8,
and for every row ``token`` (its id), ``document``, ``position`` (its place in the model's window)
and ``place`` (where it is in the corpus).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped

from sememe.activations.quantised import dequantise, scale_name
from sememe.activations.shard_file import ShardFile
from sememe.artefacts import (
    cache_folder,
    damage_of,
    fetch,
    read_manifest,
    refuse_unfit,
    verify_files,
)
from sememe.corpora.corpus import Corpus, Windows
from sememe.errors import SememeError, UsageError
from sememe.machine import disk_free
from sememe.objects import ObjectPath, Place, place
from sememe.progress import Progress

ROW_FACTS = ("token", "document", "position", "place")

IN_FLIGHT = 4
"""Files of an object store that are fetched at a time."""


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
        self._open: dict[int, ShardFile] = {}

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

    def windows_of(self, corpus: Corpus) -> Windows:
        """Return what the model read of ``corpus``; SememeError if it read another."""
        refuse_unfit(
            str(self.path), {"corpus": (self.manifest["made_from"]["corpus"], corpus.hash)}
        )
        config = self.manifest["config"]
        return corpus.windows(config["window"], config["held_out"])

    def close(self) -> None:
        """Let go of the files: what was read of them here and there leaves memory."""
        self._open.clear()

    def _shard(self, number: int, *, whole: bool = False) -> ShardFile:
        """Open a shard; ``whole`` brings it to this machine."""
        if number not in self._open or (whole and not self._open[number].here):
            name = self.manifest["shards"][number]["file"]
            here = self.file(name)
            if whole and not here.exists():
                self._bring([name])
            self._open[number] = ShardFile(here if here.exists() else self.path / name)
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
        scaled = self.sites if self.dtype == "int8" else []
        names = [*names, *(scale_name(name) for name in names if name in scaled)]
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
