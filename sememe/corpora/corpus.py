"""Read a corpus: documents as token ids, and the windows a model sees of them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16, Int32, Int64, UInt8, UInt32
from safetensors import safe_open
from safetensors.numpy import load_file

from sememe.artefacts import read_manifest, verify_files
from sememe.errors import SememeError, UsageError

SHARD_TOKENS = 16 * 1024 * 1024
DOCUMENTS = "documents.safetensors"


class Windows(NamedTuple):
    """Runs of tokens that a model reads at once; none reaches over the end of a document."""

    start: Int64[np.ndarray, " windows"]
    """Global index of the first token."""
    length: Int64[np.ndarray, " windows"]
    document: Int64[np.ndarray, " windows"]


class Corpus:
    """A finished corpus directory.

    Documents are in corpus order, which is a seeded shuffle: any prefix is a fair mix of sources.
    A document of the corpus is a part of at most 2,048 tokens of a document of its source.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        documents = load_file(path / DOCUMENTS)
        self.path = path
        self.manifest = manifest
        self.hash: str = manifest["hash"]
        self.sources: list[str] = [source["label"] for source in manifest["sources"]]
        self.start: Int64[np.ndarray, " documents"] = documents["start"]
        self.length: Int32[np.ndarray, " documents"] = documents["length"]
        self.source: Int16[np.ndarray, " documents"] = documents["source"]
        self.offset: Int64[np.ndarray, " documents"] = documents["offset"]
        self.first: Int64[np.ndarray, " documents"] = documents["first"]
        self.held_out: UInt8[np.ndarray, " documents"] = documents["held_out"]
        self._shards: dict[int, Any] = {}

    @classmethod
    def open(cls, path: Path) -> "Corpus":
        """Open a corpus and verify its checksums; SememeError names what is wrong."""
        path = Path(path)
        manifest = read_manifest(path, "corpus")
        verify_files(path, manifest)
        return cls(path, manifest)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return int(self.manifest["tokens"])

    def tokens(self, start: int, stop: int) -> UInt32[np.ndarray, " tokens"]:
        """Return the token ids of the global indices ``start`` to ``stop``."""
        if not 0 <= start <= stop <= len(self):
            raise UsageError(f"tokens {start} to {stop} asked of a corpus that has {len(self)}")
        pieces = []
        while start < stop:
            shard, place = divmod(start, SHARD_TOKENS)
            end = min(stop - shard * SHARD_TOKENS, SHARD_TOKENS)
            pieces.append(self._slice(shard, place, end))
            start = shard * SHARD_TOKENS + end
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint32)

    def _slice(self, shard: int, start: int, stop: int) -> UInt32[np.ndarray, " tokens"]:
        if shard not in self._shards:
            path = self.path / shard_name(shard)
            try:
                opened: Any = safe_open(path, framework="numpy")
                self._shards[shard] = opened.get_slice("tokens")
            except OSError as error:
                raise SememeError(f"cannot read {path}: {error}") from error
        tokens: np.ndarray = self._shards[shard][start:stop]
        return tokens

    def windows(self, context: int, held_out: bool) -> Windows:
        """Cut the held-out documents, or all others, into windows of up to ``context`` tokens."""
        if context < 1:
            raise UsageError(f"context={context} was asked, at least 1 is needed")
        chosen = np.flatnonzero((self.held_out != 0) == held_out)
        lengths = self.length[chosen].astype(np.int64)
        counts = -(-lengths // context)
        document = np.repeat(chosen, counts).astype(np.int64)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        inside = (np.arange(len(document), dtype=np.int64) - before) * context
        return Windows(
            start=self.start[document] + inside,
            length=np.minimum(context, self.length[document].astype(np.int64) - inside),
            document=document,
        )


def shard_name(shard: int) -> str:
    """Return the file name of a token shard."""
    return f"tokens-{shard:05d}.safetensors"
