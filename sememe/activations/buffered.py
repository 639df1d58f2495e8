"""Harvest and train at once: a buffer that the model refills in place as its rows are used."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sememe.activations.quantised import quantise
from sememe.activations.rules import DTYPES
from sememe.activations.source import ModelSource
from sememe.activations.stream import Batch
from sememe.errors import UsageError

BUFFER = 131_072
CHUNK_BATCHES = 16
"""Forward passes' worth of windows that are read together, so that similar lengths meet."""


@dataclass(frozen=True)
class BufferedStream(ModelSource):
    """Single rows of a model's activations in random order, without a store.

    Every pass permutes the windows by (seed, pass) and takes them in parts that fill the buffer.
    The rows of a part are drawn at random, and the model reads the next part into the rows that are
    free. A part is always the same number of batches, of nearly equal size and ``batch`` rows at
    most: how many tokens the rules leave out changes their sizes, never their number. So a batch's
    number says which windows it comes from, and a stopped run goes on by reading those again, two
    buffers' worth at most. That is exact where the model is, needs nothing from a checkpoint, and
    costs less than writing the buffer to disk with every one of them.

    Rows are rounded to the dtype that a store would have. A batch mixes as many documents as the
    buffer holds, fewer than a :class:`~sememe.activations.stream.Stream` over a store does.
    Memory: ``buffer`` rows in that dtype.

    Raises UsageError for a buffer that is too small and numbers out of range.
    """

    buffer: int = BUFFER
    """Activations held at once."""
    rank: int = 0
    """Which share of every pass this process reads, from 0."""
    ranks: int = 1
    """Processes that share the windows; a batch size is one rank's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer < 4 * self.longest:
            raise UsageError(
                f"buffer is {self.buffer}; expected {4 * self.longest} or more, four windows"
            )
        if self.ranks < 1:
            raise UsageError(f"ranks is {self.ranks}; expected 1 or more")
        if not 0 <= self.rank < self.ranks:
            raise UsageError(f"rank is {self.rank}; expected 0 to {self.ranks - 1}, one of ranks")

    @property
    def made_from(self) -> dict[str, Any]:
        """What a dictionary trained on this is made from; the buffer decides the order of rows."""
        live = {"buffer": self.buffer, "batch_tokens": self.config.batch_tokens}
        return {**super().made_from, "live": live}

    @property
    def parts(self) -> int:
        """Parts of a pass that each rank reads."""
        return -(-self.rows // (self.ranks * (self.buffer - self.longest)))

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes; the seed does not change it."""
        if not 1 <= batch <= min(self.buffer, self.rows // self.ranks):
            raise UsageError(
                f"batch {batch}: expected 1 to {min(self.buffer, self.rows // self.ranks)}, the "
                f"buffer and a rank's share of a pass over {self.rows} tokens"
            )
        return passes * self.parts * self._batches_of_part(batch)

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield raw fp32 batches number ``start`` to the last of ``passes`` passes."""
        for rows in self.described(batch, passes, seed, start):
            yield rows.inputs

    def described(self, batch: int, passes: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield the same batches with the token, document, position and place of every row."""
        if start >= self.steps(batch, passes):
            return
        each = self._batches_of_part(batch)
        first, skip = divmod(start, each)
        buffer = _Buffer(self)
        current = self._part(seed, first)
        buffer.fill(current)
        for number in range(first, passes * self.parts):
            following = self._part(seed, number + 1) if number + 1 < passes * self.parts else None
            slots = np.concatenate([np.zeros(0, np.int64), *current.slots])
            order = np.random.default_rng([seed, *divmod(number, self.parts), self.rank + 1])
            for used in np.array_split(order.permutation(slots), each):
                if skip:
                    skip -= 1
                else:
                    yield buffer.rows(used)
                buffer.free = np.concatenate([buffer.free, used])
                if following:
                    buffer.fill(following)
            if following:
                current = following

    def _batches_of_part(self, batch: int) -> int:
        cuts = self.parts * self.ranks
        most = self.rows if cuts == 1 else self.rows / cuts + self.longest
        return int(-(-most // batch))

    def _part(self, seed: int, number: int) -> "_Part":
        """Return the windows of a part, in the chunks that are read together."""
        turn, part = divmod(number, self.parts)
        order = np.random.default_rng([seed, turn]).permutation(len(self.windows.length))
        lengths = self.windows.length[order]
        cuts = self.parts * self.ranks
        which = (np.cumsum(lengths) - lengths) * cuts // self.rows
        mine = which == part * self.ranks + self.rank
        most = max(self.longest, min(CHUNK_BATCHES * self.config.batch_tokens, self.buffer // 2))
        chunks: deque[np.ndarray] = deque()
        chunk: list[int] = []
        held = 0
        for window, length in zip(order[mine].tolist(), lengths[mine].tolist(), strict=True):
            if held + length > most:
                chunks.append(np.array(chunk))
                chunk, held = [], 0
            chunk.append(window)
            held += length
        if chunk:
            chunks.append(np.array(chunk))
        return _Part(chunks)


@dataclass
class _Part:
    """Windows that fill the buffer once."""

    chunks: deque[np.ndarray]
    """Those that have not been read."""
    slots: list[Int64[np.ndarray, " rows"]] = field(default_factory=list)
    """Where the rows of the others are in the buffer."""


class _Buffer:
    """Rows of the part in use and of the one that follows, each in any free place."""

    def __init__(self, stream: BufferedStream) -> None:
        self.stream = stream
        dtype = DTYPES[stream.rules.dtype]
        self.values = torch.empty(stream.buffer, sum(stream.widths), dtype=dtype)
        self.scales = torch.empty(stream.buffer, len(stream.sites))
        self.facts = torch.empty(stream.buffer, 4, dtype=torch.int64)
        self.free = np.arange(stream.buffer)

    def fill(self, part: _Part) -> None:
        """Read windows of ``part`` while there is room for all their tokens."""
        length = self.stream.windows.length
        while part.chunks and length[part.chunks[0]].sum() <= len(self.free):
            members = part.chunks.popleft()
            for batch in self.stream._window_batches(members, self.stream.config.batch_tokens):
                (inputs, *facts), _ = self.stream._rows(batch)
                slots, self.free = np.split(self.free, [len(inputs)])
                self._keep(slots, inputs)
                self.facts[slots] = torch.stack(facts, dim=1)
                part.slots.append(slots)

    def rows(self, slots: Int64[np.ndarray, " batch"]) -> Batch:
        """Return the rows in ``slots``."""
        inputs = self.values[slots].float()
        if self.values.dtype == torch.int8:
            parts = inputs.split(list(self.stream.widths), dim=1)
            for part, scale in zip(parts, self.scales[slots].unbind(1), strict=True):
                part.mul_(scale[:, None])
        return Batch(inputs, *self.facts[slots].unbind(1))

    def _keep(self, slots: Int64[np.ndarray, " rows"], inputs: Float[Tensor, "rows width"]) -> None:
        if self.values.dtype != torch.int8:
            self.values[slots] = inputs.to(self.values.dtype)
            return
        parts = [quantise(part) for part in inputs.split(list(self.stream.widths), dim=1)]
        self.values[slots] = torch.cat([rows for rows, _ in parts], dim=1)
        self.scales[slots] = torch.stack([scale for _, scale in parts], dim=1)
