"""Kinds of text that can be told from the tokens alone, and how much more likely a token is there.

Feature proxies of Towards Monosemanticity (Bricken et al., 2023): for every token, the largest
log P(s|context) / P(s) over the strings s of tokens that end with it, in nats. P(s) is the product
of the tokens' shares of the corpus. P(s|context) is the product over characters where the context
is an alphabet, and follows from Bayes' rule where it is a script. Where neither describes a kind of
text it is the product of the tokens' shares of that source, times the source's own share, which is
ours.

Axis names: tokens = consecutive tokens of documents, vocab = token ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from sememe.corpora.corpus import Corpus

SAMPLE = 1_000_000
"""Tokens of the corpus that shares are estimated from, at most; it is a mix from its start."""
IMPOSSIBLE = 1e-10
"""Probability of what cannot be in a context."""
LEAK = 0.01
"""Part of a source's text that is taken to be like any other text."""


class Text:
    """Token ids of documents with their bytes and characters."""

    def __init__(self, documents: Sequence[np.ndarray], bytes_of: Sequence[bytes]) -> None:
        self.ids: Int64[np.ndarray, " tokens"] = np.concatenate(documents).astype(np.int64)
        self.begins: Int64[np.ndarray, " documents"] = np.cumsum([0, *map(len, documents)])[:-1]
        """The first token of each document."""
        pieces = [bytes_of[token] for token in self.ids.tolist()]
        for begin in self.begins[1:]:
            pieces[begin - 1] += b"\n"  # no character reaches over the end of a document
        data = b"".join(pieces).decode(errors="surrogateescape")
        self.characters = np.frombuffer(data.encode("utf-32-le", "surrogatepass"), np.uint32)
        points = self.characters
        escaped = (points >= 0xDC80) & (points <= 0xDCFF)  # a byte that is no character
        size = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
        self._size = np.where(escaped, 1, size)
        self._stop = np.cumsum([len(piece) for piece in pieces])
        self._start = np.concatenate([[0], self._stop[:-1]])

    @property
    def completes(self) -> Bool[np.ndarray, " tokens"]:
        """Whether a character ends with the token."""
        found: np.ndarray = np.isin(self._stop, np.cumsum(self._size))
        return found

    def made_of(self, wanted: Bool[np.ndarray, " characters"]) -> Bool[np.ndarray, " tokens"]:
        """Return whether all characters that a token has a part in are wanted, spaces apart.

        Tokenizers join a word to the space before it, so that spaces count for nothing; a token of
        spaces alone is made of no wanted character.
        """
        spaces = np.isin(self.characters, [9, 10, 13, 32])

        def share(flags: Bool[np.ndarray, " characters"]) -> Int64[np.ndarray, " tokens"]:
            before = np.concatenate([[0], np.cumsum(np.repeat(flags, self._size))])
            counted: np.ndarray = before[self._stop] - before[self._start]
            return counted

        own = share(wanted)
        found: np.ndarray = (own > 0) & (own + share(spaces) == self._stop - self._start)
        return found


class Sample:
    """Shares of tokens in the training documents of a corpus."""

    def __init__(self, corpus: Corpus, bytes_of: Sequence[bytes]) -> None:
        members = np.flatnonzero(corpus.held_out == 0)
        enough = np.cumsum(corpus.length[members], dtype=np.int64) <= SAMPLE
        members = members[: max(1, int(enough.sum()))]
        documents = [
            corpus.tokens(int(start), int(start + length))
            for start, length in zip(corpus.start[members], corpus.length[members], strict=True)
        ]
        self.text = Text(documents, bytes_of)
        self.bytes_of = bytes_of
        self._sources = corpus.sources
        self._source = np.repeat(corpus.source[members], corpus.length[members])

    @cached_property
    def log_share(self) -> Float[np.ndarray, " vocab"]:
        """Log of each token's share; every token is counted once more than it came."""
        counts = np.bincount(self.text.ids, minlength=len(self.bytes_of)) + 1.0
        logs: np.ndarray = np.log(counts / counts.sum())
        return logs

    def share_in(self, source: str) -> tuple[Float[np.ndarray, " vocab"], float]:
        """Return each token's share of the text of one source, and that source's of all text."""
        ids = self.text.ids[self._source == self._sources.index(source)]
        counts = np.bincount(ids, minlength=len(self.bytes_of))
        return counts / max(1, len(ids)), len(ids) / len(self.text.ids)


@dataclass(frozen=True)
class Script:
    """Text in the letters of some Unicode blocks."""

    blocks: tuple[tuple[int, int], ...]
    """First and last code point of each block."""

    def log_ratio(self, text: Text, sample: Sample) -> Float[np.ndarray, " tokens"]:
        """Return log P(script|s) / P(script), which by Bayes' rule is the proxy.

        P(script|s) is 1 where every character of s is in the script; for a token that is a part of
        a character and does not complete it, the share of its occurrences that are in the script.
        """
        inside = sample.text.made_of(self._has(sample.text.characters))
        vocabulary = len(sample.bytes_of)
        counts = np.bincount(sample.text.ids, minlength=vocabulary)
        mine = np.bincount(sample.text.ids[inside], minlength=vocabulary)
        share = (mine / np.maximum(counts, 1))[text.ids]
        here = text.made_of(self._has(text.characters))
        chance = np.where(text.completes, here, share)
        script = max(mine.sum(), 1) / counts.sum()
        ratio: np.ndarray = np.log(np.maximum(chance, IMPOSSIBLE) / script)
        return ratio

    def _has(self, characters: np.ndarray) -> Bool[np.ndarray, " characters"]:
        found = np.zeros(len(characters), dtype=bool)
        for first, last in self.blocks:
            found |= (characters >= first) & (characters <= last)
        return found


@dataclass(frozen=True)
class Alphabet:
    """Text whose every character is drawn from a few, all alike."""

    characters: str
    least: int = 1
    """Fewest tokens of a string that counts."""

    def log_ratio(self, text: Text, sample: Sample) -> Float[np.ndarray, " tokens"]:
        """Return the largest log P(s|alphabet) / P(s) of strings that end with each token."""
        own = set(self.characters.encode())
        inside, outside = -np.log(len(own)), np.log(IMPOSSIBLE)
        of_token = np.array(
            [sum(inside if byte in own else outside for byte in piece) for piece in sample.bytes_of]
        )
        return largest_ending((of_token - sample.log_share)[text.ids], text.begins, self.least)


@dataclass(frozen=True)
class TokenShares:
    """Text as a source of the corpus has it, token by token."""

    label: str

    def log_ratio(self, text: Text, sample: Sample) -> Float[np.ndarray, " tokens"]:
        """Return the largest log P(s|source) P(source) / P(s) of strings that end with each token.

        By its tokens alone a string is rarely sure to be of a source, so that P(source) is counted
        here: above 0 the string is more likely to be of the source than of all text.
        """
        everywhere = np.exp(sample.log_share)
        shares, part = sample.share_in(self.label)
        own = (1 - LEAK) * shares + LEAK * everywhere
        ratio = largest_ending(np.log(own / everywhere)[text.ids], text.begins)
        return ratio + float(np.log(max(part, IMPOSSIBLE)))


def largest_ending(
    scores: Float[np.ndarray, " tokens"], begins: Int64[np.ndarray, " documents"], least: int = 1
) -> Float[np.ndarray, " tokens"]:
    """Return the largest sum of consecutive scores that ends at each token, inside its document.

    At least ``least`` scores are summed; where a document has fewer so far, the sum is -inf.
    """
    found = np.full(len(scores), -np.inf)
    for begin, stop in zip(begins, [*begins[1:], len(scores)], strict=True):
        sums = np.concatenate([[0.0], np.cumsum(scores[begin:stop])])
        lowest = np.minimum.accumulate(sums)
        found[begin + least - 1 : stop] = sums[least:] - lowest[: max(0, len(sums) - least)]
    return found


@dataclass(frozen=True)
class Context:
    """A kind of text with a proxy."""

    name: str
    title: str
    what: str
    """What is in it."""
    source: str
    """Label of the source that has it."""
    proxy: Script | Alphabet | TokenShares
    binary: bool = False
    """Whether features are held to the proxy's sign alone, not its size."""


_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
CONTEXTS = (
    Context(
        "arabic", "Arabic", "Arabic letters", "arabic", Script(((0x600, 0x6FF), (0x750, 0x77F)))
    ),
    Context("hebrew", "Hebrew", "Hebrew letters", "hebrew", Script(((0x590, 0x5FF),))),
    Context("cyrillic", "Cyrillic", "Cyrillic letters", "russian", Script(((0x400, 0x52F),))),
    Context(
        "chinese",
        "Chinese",
        "Chinese characters",
        "chinese",
        Script(((0x3400, 0x4DBF), (0x4E00, 0x9FFF))),
    ),
    Context("korean", "Korean", "Hangul", "korean", Script(((0x1100, 0x11FF), (0xAC00, 0xD7AF)))),
    Context(
        "dna",
        "DNA",
        "strings of two tokens or more of A, T, C and G (only whether it is above 0)",
        "dna",
        Alphabet("ATCG", least=2),
        binary=True,
    ),
    Context("base64", "Base64", "strings of the 64 characters", "base64", Alphabet(_BASE64)),
    Context(
        "hex",
        "Hexadecimal",
        "strings of two tokens or more of 0 to 9 and a to f",
        "hex",
        Alphabet("0123456789abcdef", least=2),
    ),
    Context(
        "http",
        "HTTP",
        "HTTP messages, by the shares of tokens in them",
        "http",
        TokenShares("http"),
    ),
)
