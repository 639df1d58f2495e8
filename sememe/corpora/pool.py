"""A source's documents in the seed's order, tokenised as far as a corpus needs them."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sememe.corpora.documents import Document, chunks, identity, near_identity, order
from sememe.models.tokenizer import Tokenizer
from sememe.progress import Progress

LONGEST = 2_048
"""Tokens of a part: a longer document is cut into parts of about equal length."""
CHARACTERS_A_TOKEN = 8
"""More than text has, so that one reading of a source is nearly always enough."""
BATCH = 1 << 20
"""Characters tokenised at once."""


class Part(NamedTuple):
    """A run of tokens of one document, which becomes a document of the corpus."""

    offset: int
    first: int
    """Index of its first token in the whole document."""
    tokens: np.ndarray
    identity: int


class Taken(NamedTuple):
    """A document that was taken, as tokens."""

    offset: int
    tokens: np.ndarray
    identity: int


class Seen:
    """What was taken already, over all sources, so that no text comes twice."""

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._near: set[int] = set()
        self.dropped = 0

    def is_new(self, text: str, exact: int) -> bool:
        """Whether neither this text nor a near-copy came before; remembers it."""
        near = near_identity(text)
        if exact in self._exact or (near is not None and near in self._near):
            self.dropped += 1
            return False
        self._exact.add(exact)
        if near is not None:
            self._near.add(near)
        return True


class Pool:
    """The documents of one source, drawn in an order that only the seed and the source decide."""

    def __init__(
        self,
        label: str,
        read: Callable[[], Iterable[Document]],
        clean: Callable[[str], str],
        tokenizer: Tokenizer,
        *,
        seed: int,
        seen: Seen,
        progress: Progress,
    ) -> None:
        self.label = label
        self.taken: list[Taken] = []
        self.available = 0
        self._read = read
        self._clean = clean
        self._tokenizer = tokenizer
        self._seed = seed
        self._seen = seen
        self._progress = progress
        self._drawn = 0
        self._bound = 0
        self._complete = False
        self._waiting: Iterator[Document] = iter(())

    def ensure(self, tokens: int) -> int:
        """Tokenise until ``tokens`` are there or the source has no more; return how many are."""
        while self.available < tokens:
            batch = self._draw(tokens - self.available)
            if not batch:
                if self._complete:
                    break
                self._fill(tokens)
                continue
            self._tokenise(batch)
        return self.available

    def parts(self, tokens: int) -> Iterator[Part]:
        """Yield the first ``tokens`` tokens of what was taken, cut into parts."""
        for offset, ids, digest in self.taken:
            if tokens <= 0:
                return
            kept = ids[: character_start(ids, tokens, self._tokenizer.bytes_of)]
            tokens -= len(ids)
            for first, stop in cuts(kept, self._tokenizer.bytes_of):
                yield Part(offset, first, kept[first:stop], digest)

    def _fill(self, tokens: int) -> None:
        """Read the source and keep the first documents of the seed's order, in bounded memory."""
        self._bound = max(2 * self._bound, CHARACTERS_A_TOKEN * tokens)
        heap: list[tuple[int, int, str]] = []
        held, self._complete = 0, True
        for text, offset in self._read():
            heapq.heappush(heap, (-order(self._seed, self.label, offset), -offset, text))
            held += len(text)
            while held - len(heap[0][2]) >= self._bound:
                held -= len(heapq.heappop(heap)[2])
                self._complete = False
        kept = (Document(text, -offset) for _, offset, text in sorted(heap, reverse=True))
        self._waiting = itertools.islice(kept, self._drawn, None)

    def _draw(self, tokens: int) -> list[Document]:
        """Take documents of about ``tokens`` tokens, at most a batch."""
        limit = min(BATCH, 4 * tokens + 1_000)
        batch: list[Document] = []
        size = 0
        while size < limit and (document := next(self._waiting, None)) is not None:
            batch.append(document)
            size += len(document.text)
        self._drawn += len(batch)
        return batch

    def _tokenise(self, batch: Sequence[Document]) -> None:
        cleaned = (Document(self._clean(text), offset) for text, offset in batch)
        new = [
            (document, digest)
            for document in cleaned
            if document.text.strip()
            and self._seen.is_new(document.text, digest := identity(document.text))
        ]
        cut = [chunks(document.text) for document, _ in new]
        pieces = iter(self._tokenizer.encode_batch(list(itertools.chain.from_iterable(cut))))
        for (document, digest), own in zip(new, cut, strict=True):
            ids = list(itertools.chain.from_iterable(itertools.islice(pieces, len(own))))
            if not ids:
                continue
            self.taken.append(Taken(document.offset, np.array(ids, dtype=np.uint32), digest))
            self.available += len(ids)
            self._progress.advance(len(ids))


def character_start(ids: np.ndarray, place: int, bytes_of: Sequence[bytes]) -> int:
    """Return the last place up to ``place`` where a token does not begin inside a character."""
    if place >= len(ids):
        return len(ids)
    start = place
    while start > 0 and place - start < 4 and _continues(bytes_of[int(ids[start])]):
        start -= 1
    return start if start > 0 and not _continues(bytes_of[int(ids[start])]) else place


def _continues(token: bytes) -> bool:
    return bool(token) and 0x80 <= token[0] < 0xC0


def cuts(ids: np.ndarray, bytes_of: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of parts of at most LONGEST tokens and about equal length."""
    count = -(-len(ids) // (LONGEST - 4)) if len(ids) > LONGEST else 1
    places = [character_start(ids, len(ids) * part // count, bytes_of) for part in range(count + 1)]
    for start, stop in itertools.pairwise(places):
        if stop > start:
            yield start, stop


def allot(pools: Sequence[Pool], shares: Sequence[float], tokens: int) -> list[int]:
    """Return how many tokens each pool gives: its share, and its part of what others lack."""
    granted = [0] * len(pools)
    open_, remaining = list(range(len(pools))), tokens
    while open_:
        total = sum(shares[index] for index in open_)
        asks = {index: int(remaining * shares[index] / total) for index in open_}
        asks[open_[0]] += remaining - sum(asks.values())
        short = [index for index in open_ if pools[index].ensure(asks[index]) < asks[index]]
        for index in short or open_:
            granted[index] = pools[index].available if short else asks[index]
        if not short:
            break
        remaining -= sum(granted[index] for index in short)
        open_ = [index for index in open_ if index not in short]
    return granted
