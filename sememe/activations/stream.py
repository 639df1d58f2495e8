"""Shuffled batches from a store, addressable by batch number.

Two levels of shuffle, both pure functions of (seed, pass): blocks of a few consecutive rows are
permuted over the whole store, then the rows of a million tokens' worth of blocks at a time are
permuted among themselves. The passes follow each other without a gap, so that batch ``b`` is always
rows ``b * batch`` onward of one endless sequence: a trainer that stops after any batch goes on from
its number alone, and there is no buffer to save. The buffer is the system's page cache: rows are
gathered where the files are mapped.

A document is a run of similar rows, and a batch should hold as many documents as by chance. On a
large store a batch of ``b`` rows loses at most ``b * block / (2 * buffer)`` of them: 1.6% of those
of 2,048 rows by default.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Int64

from sememe.activations.order import Part, batch_numbers, parts
from sememe.activations.store import ROW_FACTS, Activations
from sememe.errors import SememeError, UsageError

BLOCK = 16
BUFFER = 1 << 20
SAMPLE_SEED = 2**31
"""Seed of the order that samples are drawn in: no training run reaches it."""
READ_AHEAD = 2
"""Batches that are read while the one before is used."""


class Batch(NamedTuple):
    """Rows of a batch, and what is known of each.

    Every row counts: what the token rules leave out is not there, so that no mask is needed. What
    a dictionary writes, its targets, are columns of ``inputs`` like what it reads.
    """

    inputs: Float[torch.Tensor, "batch width"]
    """Raw activations, fp32, of all sites side by side."""
    token: Int[torch.Tensor, " batch"]
    """Token ids."""
    document: Int[torch.Tensor, " batch"]
    """Numbers of the documents in the corpus."""
    position: Int[torch.Tensor, " batch"]
    """Places in the window that the model read, its BOS not counted."""
    place: Int[torch.Tensor, " batch"]
    """Places in the corpus."""


@dataclass(frozen=True)
class MemoryStream:
    """Activations that are in memory, as shuffled batches: one's own tensors."""

    x: Float[torch.Tensor, "rows width"]
    """Raw activations of any float dtype; several sites side by side."""
    sites: tuple[str, ...] = ("activations",)
    split: tuple[int, ...] = ()
    """Width of each site; for one site its whole width."""

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not len(self.x) or not self.x.is_floating_point():
            raise UsageError(
                f"x is {self.x.dtype}, {tuple(self.x.shape)}; expected floats (rows, width), with "
                "one row or more"
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
        order = batch_numbers(self.rows, batch, block=1, buffer=self.rows, seed=seed, start=start)
        for numbers in islice(order, max(0, self.steps(batch, passes) - start)):
            yield self.x[torch.from_numpy(numbers)].float()

    def sample(self, rows: int) -> Float[torch.Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw rows, fp32."""
        order = np.random.default_rng([SAMPLE_SEED]).permutation(self.rows)
        return self.x[torch.from_numpy(order[:rows])].float()


def _whole_batches(rows: int, batch: int, passes: int) -> int:
    steps = rows * passes // batch
    if steps < 1:
        raise UsageError(f"batch {batch}: {passes} passes over {rows} rows do not fill one batch")
    return steps


@dataclass(frozen=True)
class Stream:
    """One site of a store, or several side by side, as shuffled batches.

    Every row comes once a pass, over all ranks together. Memory: a few batches, and of the page
    cache what ``buffer`` rows take in the store.

    Raises UsageError for a site that the store lacks and numbers out of range.
    """

    activations: Activations
    sites: tuple[str, ...]
    block: int = BLOCK
    """Consecutive rows that are read together."""
    buffer: int = BUFFER
    """Rows that are permuted among themselves."""
    rank: int = 0
    """Which share of every batch of all ranks this one draws, from 0."""
    ranks: int = 1
    """Processes that share the rows; a batch size is one rank's own."""

    def __post_init__(self) -> None:
        for name, value in (("block", self.block), ("buffer", self.buffer), ("ranks", self.ranks)):
            if value < 1:
                raise UsageError(f"{name} is {value}; expected 1 or more")
        if not 0 <= self.rank < self.ranks:
            raise UsageError(f"rank is {self.rank}; expected 0 to {self.ranks - 1}, one of ranks")
        for site in self.sites:
            self.activations.width(site)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""
        return tuple(self.activations.width(site) for site in self.sites)

    @property
    def rows(self) -> int:
        """Rows in one pass of all ranks."""
        return self.activations.rows

    @property
    def scales(self) -> tuple[float, ...]:
        """What to multiply each site by so that its mean squared norm is its width."""
        return tuple(self.activations.scale(site) for site in self.sites)

    @property
    def made_from(self) -> dict[str, Any]:
        """What a dictionary trained on this is made from: model, tokenizer, corpus, rules."""
        manifest = self.activations.manifest
        return {
            **manifest["made_from"],
            "activations": self.activations.hash,
            "rules": manifest["rules"],
            "context": manifest["config"].get("context"),
        }

    @property
    def order(self) -> dict[str, int]:
        """What decides the order of rows, beside the seed: a run goes on with the same alone."""
        return {name: getattr(self, name) for name in ("block", "buffer", "rank", "ranks")}

    def steps(self, batch: int, passes: int) -> int:
        """Number of whole batches that each rank draws in ``passes`` passes, the same for all.

        Passes follow each other without a gap, so that fewer than ``batch`` x ``ranks`` rows of the
        last one are left over, however many ranks there are. UsageError if there is not one batch.
        """
        return _whole_batches(self.rows, batch * self.ranks, passes)

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[torch.Tensor, "batch width"]]:
        """Yield raw fp32 batches number ``start`` to the last of ``passes`` passes."""
        for columns in self._read(self.sites, batch, passes, seed, start):
            yield _side_by_side(columns)

    def described(self, batch: int, passes: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield the same batches with the token, document, position and place of every row."""
        for columns in self._read((*self.sites, *ROW_FACTS), batch, passes, seed, start):
            yield Batch(_side_by_side(columns[: len(self.sites)]), *columns[len(self.sites) :])

    def sample(self, rows: int, seed: int = 0) -> Float[torch.Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw rows, fp32."""
        order = np.random.default_rng([SAMPLE_SEED, seed]).permutation(self.rows)
        self.activations.expect(self.sites, np.sort(order[:rows]), 1)
        return self.take(order[:rows])

    def take(self, numbers: Int64[np.ndarray, " rows"]) -> Float[torch.Tensor, "rows width"]:
        """Return raw rows by number, fp32."""
        return _side_by_side([self.activations.take(site, numbers) for site in self.sites])

    def numbers(
        self, batch: int, seed: int, start: int = 0
    ) -> Iterator[Int64[np.ndarray, " batch"]]:
        """Yield the row numbers of batch ``start`` and those after it, without end."""
        return batch_numbers(
            self.rows,
            batch,
            block=self.block,
            buffer=self.buffer,
            seed=seed,
            start=start,
            rank=self.rank,
            ranks=self.ranks,
        )

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

    def _read(
        self, names: tuple[str, ...], batch: int, passes: int, seed: int, start: int
    ) -> Iterator[list[torch.Tensor]]:
        """Yield columns of the store for each batch, a few batches read ahead in a thread."""

        count = max(0, self.steps(batch, passes) - start)
        whole = batch * self.ranks
        ahead = _ReadAhead(self, names, seed, start * whole, count * whole)

        def take(numbers: npt.NDArray[np.int64]) -> list[torch.Tensor]:
            ahead.advance(whole)
            return [self.activations.take(name, numbers) for name in names]

        order = self.numbers(batch, seed, start)
        pending: deque[Future[list[torch.Tensor]]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream") as reader:
            for numbers in islice(order, count):
                pending.append(reader.submit(take, numbers))
                if len(pending) > READ_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


class _ReadAhead:
    """Asks the disk for the blocks that come next, as fast as rows are drawn.

    A buffer is asked for at once, and from then on as many rows as are drawn. ``rows`` are those
    that will be.
    """

    def __init__(
        self, stream: Stream, names: tuple[str, ...], seed: int, start: int, rows: int
    ) -> None:
        self.stream, self.names = stream, names
        self._parts = parts(
            stream.rows, block=stream.block, buffer=stream.buffer, seed=seed, start=start
        )
        first = next(self._parts)
        self._begin(first, first.skip + rows)
        self._owed = first.skip + stream.buffer

    def _begin(self, part: Part, left: int) -> None:
        """Go on to a part, given how many rows there are to draw from its beginning on."""
        self._blocks = np.sort(part.blocks)
        self._left = left - self._rows(part.blocks)

    def _rows(self, blocks: npt.NDArray[np.int64]) -> int:
        """Return how many rows blocks have; the last of the store may be shorter."""
        short = self.stream.rows // self.stream.block in blocks
        return len(blocks) * self.stream.block - (-self.stream.rows % self.stream.block) * short

    def advance(self, rows: int) -> None:
        """Say that ``rows`` more are about to be drawn."""
        block = self.stream.block
        self._owed += rows
        while self._owed > 0 and (len(self._blocks) or self._left > 0):
            if not len(self._blocks):
                self._begin(next(self._parts), self._left)
            some, self._blocks = np.split(self._blocks, [-(-self._owed // block)])
            self.stream.activations.expect(self.names, some * block, block)
            self._owed -= self._rows(some)


def _side_by_side(columns: list[torch.Tensor]) -> Float[torch.Tensor, "rows width"]:
    wide = [column.float() for column in columns]
    return wide[0] if len(wide) == 1 else torch.cat(wide, dim=1)
