"""Read stored activations: safetensors shards in corpus order, several sites side by side.

Each shard holds, for every site, a tensor of (rows, width), and for every row ``token`` (its id),
``document``, ``position`` (its place in the model's window) and ``place`` (where it is in
the corpus).
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped, UInt8
from safetensors import safe_open

from sememe.artefacts import read_manifest, verify_files
from sememe.errors import SememeError, UsageError

ROW_FACTS = ("token", "document", "position", "place")


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

    Attributes:
        path: The store's directory.
        manifest: Provenance, token rules, and per site width, scale and norm limit.
        sites: Names of the sites stored.
        rows: Number of rows, each one token.
        shard_starts: Number of the first row of each shard, then ``rows``.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self.manifest = read_manifest(path, "activations")
        if verify:
            verify_files(path, self.manifest)
        self.sites = list(self.manifest["sites"])
        self.rows = int(self.manifest["rows"])
        counts = [shard["rows"] for shard in self.manifest["shards"]]
        self.shard_starts = [0, *np.cumsum(counts).tolist()]
        self._open: dict[int, Any] = {}
        self._mapped: dict[int, dict[str, UInt8[np.ndarray, "rows bytes"]]] = {}

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> "Activations":
        """Open the store in ``path``; SememeError names the file that is missing or altered."""
        return cls(Path(path), verify=verify)

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

    def width(self, site: str) -> int:
        """Width of the site's activations."""
        return int(self._facts(site)["width"])

    def scale(self, site: str) -> float:
        """What to multiply activations by so that their mean squared norm is their width."""
        return float(self._facts(site)["scale"])

    def _shard(self, number: int) -> Any:  # noqa: ANN401 - safetensors' reader has no public type
        if number not in self._open:
            path = self.path / self.manifest["shards"][number]["file"]
            try:
                self._open[number] = safe_open(path, framework="pt")
            except (OSError, ValueError) as error:
                raise SememeError(f"cannot read {path}: {error}") from error
        return self._open[number]

    def read(self, name: str, start: int, stop: int) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows ``start`` to ``stop`` of a site or a row fact, in the stored dtype."""
        parts = []
        for number in range(self.shards):
            low, high = self.shard_starts[number], self.shard_starts[number + 1]
            first, last = max(start, low), min(stop, high)
            if first < last:
                part = self._shard(number).get_slice(name)[first - low : last - low]
                parts.append(part)
        if not parts:
            raise UsageError(f"rows {start} to {stop}: {self.path} has rows 0 to {self.rows}")
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def take(self, name: str, rows: Int64[np.ndarray, " rows"]) -> Shaped[torch.Tensor, "rows ..."]:
        """Return rows by number, in any order, of a site or a row fact, in the stored dtype."""
        order = np.argsort(rows)
        ascending = rows[order]
        if not (len(rows) and ascending[0] >= 0 and ascending[-1] < self.rows):
            raise UsageError(f"rows {rows}: {self.path} has rows 0 to {self.rows}")
        ends = np.searchsorted(ascending, self.shard_starts)
        first = int(np.flatnonzero(ends)[0]) - 1
        like = self.read(name, self.shard_starts[first], self.shard_starts[first] + 1)
        taken = np.empty((len(rows), like.nbytes), np.uint8)
        for shard in np.flatnonzero(np.diff(ends)).tolist():
            wanted = slice(ends[shard], ends[shard + 1])
            inside = ascending[wanted] - self.shard_starts[shard]
            taken[order[wanted]] = self._bytes(name, shard).take(inside, 0)
        typed = torch.from_numpy(taken).view(-1).view(like.dtype)
        return typed.view(len(rows), *like.shape[1:])

    def _bytes(self, name: str, shard: int) -> UInt8[np.ndarray, "rows bytes"]:
        """Return where a shard's rows are mapped.

        numpy copies rows of bytes on one thread, in half the time that torch takes for its dtypes.
        """
        mapped = self._mapped.setdefault(shard, {})
        if name not in mapped:
            column = self.read(name, *self.shard_starts[shard : shard + 2])
            mapped[name] = column.view(len(column), -1).view(torch.uint8).numpy()
        return mapped[name]

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
            self._mapped.pop(number, None)
