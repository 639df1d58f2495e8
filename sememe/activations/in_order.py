"""Activations in the order of a corpus, shard by shard: from a store, or from the model itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sememe.activations.harvest import read_shard, shard_windows
from sememe.activations.quantised import dequantise, scale_name
from sememe.activations.rules import TokenRules
from sememe.activations.source import ModelSource
from sememe.activations.store import ROW_FACTS, Activations, Rows
from sememe.artefacts import fingerprint, refuse_unfit
from sememe.corpora.corpus import Corpus, Windows
from sememe.progress import Progress


@dataclass(frozen=True)
class LiveRows(ModelSource):
    """The rows that a store would hold, bit for bit, read by the model whenever they are asked for.

    Shards are those of a store with the same configuration. Memory: one shard, as it is stored.
    """

    ruled: TokenRules | None = None
    """Token rules to apply; by default a pilot fixes them."""

    @cached_property
    def rules(self) -> TokenRules:
        """Which tokens are left out, and the dtype that rows are rounded to."""
        return super().rules if self.ruled is None else self.ruled

    @property
    def hash(self) -> str:
        """Identifies the rows."""
        return fingerprint({**self.made_from, "shard_rows": self.config.shard_rows, "live": True})

    @cached_property
    def _members(self) -> list[tuple[int, int]]:
        return shard_windows(self.windows.length, self.config.shard_rows)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._members)

    @cached_property
    def shard_starts(self) -> list[int]:
        """Tokens before each shard, those included that the rules leave out, then all."""
        ends = np.cumsum(self.windows.length)
        return [0, *(int(ends[last - 1]) for _, last in self._members)]

    def width(self, site: str) -> int:
        """Width of the site's activations."""
        return self.model.width(site)

    def windows_of(self, corpus: Corpus) -> Windows:
        """Return what the model reads of ``corpus``; SememeError if it reads another."""
        refuse_unfit("the live model", {"corpus": (self.corpus.hash, corpus.hash)})
        return self.windows

    def in_order(self, site: str, chunk: int = 8192, shard: int | None = None) -> Iterator[Rows]:
        """Yield the rows of one shard, or of all, in corpus order, ``chunk`` at a time."""
        start = 0
        for number in range(self.shards) if shard is None else (shard,):
            tensors, facts = read_shard(
                self.model,
                self.corpus,
                self.windows,
                range(*self._members[number]),
                [site],
                self.config,
                self.rules,
                Progress(),
            )
            for first in range(0, facts["rows"], chunk):
                rows = slice(first, first + chunk)
                values = tensors[site][rows]
                if scale_name(site) in tensors:
                    values = dequantise(values, tensors[scale_name(site)][rows])
                yield Rows(
                    start + first, values.float(), *(tensors[name][rows] for name in ROW_FACTS)
                )
            start += facts["rows"]


InOrder = Activations | LiveRows
"""What can be read shard by shard in the order of a corpus."""
