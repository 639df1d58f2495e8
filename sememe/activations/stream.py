"""Shuffled batches from a store, addressable by batch number.

Two levels of shuffle, both pure functions of (seed, pass): blocks of 1,024 consecutive rows are
permuted over the whole store, then the rows of 128 such blocks at a time are permuted in memory.
The passes follow each other without a gap, so that batch ``b`` is always rows ``b * batch`` onward
of one endless sequence: a trainer that stops after any batch goes on from its number alone.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float

from sememe.activations.store import Activations
from sememe.errors import SememeError, UsageError

BLOCK = 1024
BUFFER_BLOCKS = 128
SAMPLE_PASS = 2**31
"""The pass that samples are drawn from: no training run reaches it."""


@dataclass(frozen=True)
class MemoryStream:
    """Activations that are in memory, as shuffled batches: one's own tensors."""

    x: Float[torch.Tensor, "rows width"]
    """Raw activations of any float dtype; several sites side by side."""
    sites: tuple[str, ...] = ("activations",)
    split: tuple[int, ...] = ()
    """Width of each site; for one site its whole width."""

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not self.x.is_floating_point():
            raise UsageError(
                f"x is {self.x.dtype}, {tuple(self.x.shape)}; expected floats (rows, width)"
            )
        if len(self.widths) != len(self.sites) or sum(self.widths) != self.x.shape[1]:
            raise UsageError(
                f"split is {self.split}, but x is {self.x.shape[1]} wide and the sites are "
                f"{self.sites}: expected a width for each, {self.x.shape[1]} together"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""
        return self.split or (self.x.shape[1],)

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """What to multiply each site by so that its mean squared norm is its width."""
        squares = torch.zeros(self.x.shape[1], dtype=torch.float64)
        for part in self.x.split(8192):
            squares += part.double().square().sum(0)
        sums = [float(part.sum()) for part in squares.split(list(self.widths))]
        if 0.0 in sums:
            raise SememeError(f"every activation at {self.sites[sums.index(0.0)]} is zero")
        pairs = zip(self.widths, sums, strict=True)
        return tuple((width * self.rows / total) ** 0.5 for width, total in pairs)

    @property
    def rows(self) -> int:
        """Rows in one pass."""
        return len(self.x)

    def steps(self, batch: int, passes: int) -> int:
        """Number of whole batches in ``passes`` passes; UsageError if there is not one."""
        return _whole_batches(self.rows, batch, passes)

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[torch.Tensor, "batch width"]]:
        """Yield raw fp32 batches number ``start`` to the last; each pass has its own order."""
        orders: dict[int, npt.NDArray[np.int64]] = {}
        for number in range(start, self.steps(batch, passes)):
            turns, places = np.divmod(np.arange(number * batch, (number + 1) * batch), self.rows)
            for turn in set(range(turns[0], turns[-1] + 1)) - set(orders):
                orders[turn] = np.random.default_rng([seed, turn]).permutation(self.rows)
            for turn in [turn for turn in orders if turn < turns[0]]:
                del orders[turn]
            chosen = [orders[turn][place] for turn, place in zip(turns, places, strict=True)]
            yield self.x[torch.tensor(chosen)].float()

    def sample(self, rows: int) -> Float[torch.Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw rows, fp32."""
        order = np.random.default_rng([SAMPLE_PASS]).permutation(self.rows)
        return self.x[torch.from_numpy(order[:rows])].float()


def _whole_batches(rows: int, batch: int, passes: int) -> int:
    steps = rows * passes // batch
    if steps < 1:
        raise UsageError(f"batch {batch}: {passes} passes over {rows} rows do not fill one batch")
    return steps


@dataclass(frozen=True)
class Stream:
    """One site of a store, or several side by side, as shuffled batches.

    Every row comes once a pass; a batch spans at least ``buffer_blocks`` places in the corpus.
    Memory: two buffers of ``buffer_blocks`` x ``block`` rows in the stored dtype.
    """

    activations: Activations
    sites: tuple[str, ...]
    block: int = BLOCK
    buffer_blocks: int = BUFFER_BLOCKS

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""
        return tuple(self.activations.width(site) for site in self.sites)

    @property
    def rows(self) -> int:
        """Rows in one pass."""
        return self.activations.rows

    @property
    def scales(self) -> tuple[float, ...]:
        """What to multiply each site by so that its mean squared norm is its width."""
        return tuple(self.activations.scale(site) for site in self.sites)

    def steps(self, batch: int, passes: int) -> int:
        """Number of whole batches in ``passes`` passes; UsageError if there is not one."""
        return _whole_batches(self.rows, batch, passes)

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[torch.Tensor, "batch width"]]:
        """Yield raw fp32 batches number ``start`` to the last of ``passes`` passes."""
        remaining = self.steps(batch, passes) - start
        first_pass, skip = divmod(start * batch, self.rows)
        carried: list[torch.Tensor] = []
        held = 0
        for rows in self._shuffled(seed, range(first_pass, passes), skip):
            carried.append(rows)
            held += len(rows)
            if held < batch:
                continue
            pool = torch.cat(carried) if len(carried) > 1 else rows
            whole = min(held // batch, remaining)
            for number in range(whole):
                yield pool[number * batch : (number + 1) * batch].float()
            remaining -= whole
            if not remaining:
                return
            carried = [pool[whole * batch :]]
            held -= whole * batch

    def sample(self, rows: int, seed: int = 0) -> Float[torch.Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw rows, fp32."""
        pool = next(self._shuffled(seed, range(SAMPLE_PASS, SAMPLE_PASS + 1), 0))
        return pool[:rows].float()

    def first_not_finite(self) -> str:
        """Return the shard and row of the first NaN or infinite value; empty if there is none."""
        for number, (low, high) in enumerate(pairwise(self.activations.shard_starts)):
            for site in self.sites:
                rows = self.activations.read(site, low, high)
                bad = (~torch.isfinite(rows).all(dim=1)).nonzero()
                if len(bad):
                    shard = self.activations.manifest["shards"][number]["file"]
                    return f"{self.activations.path / shard}, row {int(bad[0])}, site {site}"
        return ""

    def _shuffled(self, seed: int, passes: range, skip: int) -> Iterator[torch.Tensor]:
        """Yield the rows of buffer after buffer, leaving out the first ``skip`` rows."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream") as reader:
            pending = None
            for number in passes:
                for group, blocks in enumerate(self._groups(seed, number)):
                    size = int((blocks[:, 1] - blocks[:, 0]).sum())
                    if skip >= size:
                        skip -= size
                        continue
                    following = reader.submit(self._load, blocks, (seed, number, group + 1), skip)
                    skip = 0
                    if pending is not None:
                        yield pending.result()
                    pending = following
            if pending is not None:
                yield pending.result()

    def _groups(self, seed: int, number: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the (start, stop) of the blocks that share a buffer, for one pass."""
        starts = self.activations.shard_starts
        blocks = np.array(
            [
                (low, min(low + self.block, last))
                for first, last in pairwise(starts)
                for low in range(first, last, self.block)
            ]
        )
        order = np.random.default_rng([seed, number]).permutation(len(blocks))
        for first in range(0, len(blocks), self.buffer_blocks):
            yield blocks[order[first : first + self.buffer_blocks]]

    def _load(
        self, blocks: npt.NDArray[np.int64], key: tuple[int, int, int], skip: int
    ) -> torch.Tensor:
        columns = [
            torch.cat([self.activations.read(site, low, high) for low, high in blocks.tolist()])
            for site in self.sites
        ]
        rows = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        order = np.random.default_rng(key).permutation(len(rows))[skip:]
        return rows[torch.from_numpy(order)]
