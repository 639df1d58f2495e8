"""Documents: what a source yields, how it is cut, and when two are the same."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xxhash

SECTION = 8_000
"""Characters of a section of a long plain text; each section is a document of its own."""
CHUNK = 32_768
"""Characters given to the tokenizer at once."""
SHINGLE = 40
"""Bytes of the windows whose hashes tell near-copies."""
COMPARED = 1 << 20
"""Characters from the beginning of a document that tell near-copies."""
SKETCH = 6
"""How many of the smallest window hashes two documents share to be near-copies."""

_ODD = 0x9E3779B97F4A7C15
_INVERSE = pow(_ODD, -1, 1 << 64)


class Document(NamedTuple):
    """One document of a source."""

    text: str
    offset: int
    """Its ordinal in the source, in reading order."""


def sections(text: str, size: int = SECTION) -> Iterator[str]:
    """Cut a long plain text at blank lines, else line ends, else spaces, else anywhere.

    Joined, the sections give the text back. A text of up to twice ``size`` stays whole.
    """
    place = 0
    while len(text) - place > 2 * size:
        cut = _cut(text, place, place + size)
        yield text[place:cut]
        place = cut
    yield text[place:]


def chunks(text: str) -> list[str]:
    """Cut a text where its tokens are (nearly) the same as those of the whole, before whitespace.

    Tokenizers need time and memory beyond the length of a text that has no space in megabytes.
    """
    found, place = [], 0
    while len(text) - place > CHUNK:
        window = text[place + CHUNK // 2 : place + CHUNK]
        cut = max(window.rfind("\n"), window.rfind(" "))
        cut = place + CHUNK // 2 + cut if cut > 0 else place + CHUNK
        found.append(text[place:cut])
        place = cut
    found.append(text[place:])
    return found


def _cut(text: str, start: int, wanted: int) -> int:
    for mark in ("\n\n", "\n", " "):
        cut = text.rfind(mark, start + (wanted - start) // 2, wanted)
        if cut > 0:
            return cut + len(mark)
    return wanted


def identity(text: str) -> int:
    """Return a 64-bit hash of a text that ignores case and the amount of white space."""
    return xxhash.xxh3_64_intdigest(" ".join(text.casefold().split()).encode())


def near_identity(text: str) -> int | None:
    """Return a hash that near-copies of a text share, or None for a text too short to tell.

    It combines the smallest hashes of the text's windows of SHINGLE letters and digits: two texts
    share all of them when almost all of their windows are the same.
    """
    letters = re.sub(r"\W+", "", text[:COMPARED].casefold()).encode()
    if len(letters) < 8 * SHINGLE:
        return None
    values = np.frombuffer(letters, dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    count = len(values)
    with np.errstate(over="ignore"):
        powers = np.multiply.accumulate(np.full(count, _ODD, dtype=np.uint64))
        inverse = np.multiply.accumulate(np.full(count, _INVERSE, dtype=np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * powers, dtype=np.uint64)])
        windows = (sums[SHINGLE:] - sums[:-SHINGLE]) * inverse[: count - SHINGLE + 1]
        windows ^= windows >> np.uint64(31)
        windows *= np.uint64(0xBF58476D1CE4E5B9)
        windows ^= windows >> np.uint64(29)
    smallest = np.unique(np.partition(windows, 4 * SKETCH)[: 4 * SKETCH])[:SKETCH]
    return xxhash.xxh3_64_intdigest(smallest.tobytes())


def order(seed: int, *names: object) -> int:
    """Return a number that puts things in the seed's order, the same on every machine."""
    name = "\x1f".join(map(str, names)).encode("utf-8", "surrogateescape")
    return xxhash.xxh3_64_intdigest(name, seed=seed & (1 << 64) - 1)
