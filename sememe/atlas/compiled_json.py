"""Most of a page as JSON, written by compiled loops: as objects it costs ten times as much.

Numbers have no more digits than they need.
"""

import numpy as np

from sememe.atlas.statistics import BEFORE
from sememe.kernels.compiled import Array, compiled

LARGEST = 1e14
"""A larger value is written as this one: of more no decimals are known."""
VALUE_SCALE, AMOUNT_SCALE = 10**3, 10**4
"""Values of features have three decimals, the amounts of ranked lists four."""
ZERO = ord("0")
TOKENS = np.frombuffer(b'{"tokens":[', np.uint8)
VALUES = np.frombuffer(b'],"values":[', np.uint8)
CENTRE = np.frombuffer(b'],"centre":', np.uint8)
VALUE = np.frombuffer(b',"value":', np.uint8)
SOURCE = np.frombuffer(b',"source":', np.uint8)
DOCUMENT = np.frombuffer(b',"document":', np.uint8)
POSITION = np.frombuffer(b',"position":', np.uint8)
END = np.frombuffer(b"},", np.uint8)
COMMA, POINT, MINUS = ord(","), ord("."), ord("-")
OPEN, CLOSE = ord("["), ord("]")


@compiled
def write_examples(
    out: Array,
    starts: Array,
    ends: Array,
    tokens: Array,
    values: Array,
    first: Array,
    last: Array,
    source: Array,
    document: Array,
    position: Array,
    labels: Array,
    label_ends: Array,
    begin: int,
    stop: int,
) -> None:
    """Write the examples of features ``begin`` to ``stop``, each with a comma after it.

    Feature f has the examples ``starts[f]`` to ``starts[f + 1]`` and writes them to ``out[f]``;
    ``ends`` become the places after each. ``labels`` are the sources' names as JSON, that of source
    s between ``label_ends[s]`` and the next.
    """
    for f in range(begin, stop):
        text, at = out[f], 0
        for e in range(starts[f], starts[f + 1]):
            at = _copy(text, at, TOKENS)
            for j in range(first[e], last[e]):
                at = _integer(text, at, tokens[e, j])
                text[at] = COMMA
                at += 1
            at = _copy(text, at - 1, VALUES)
            for j in range(first[e], last[e]):
                at = _decimal(text, at, values[e, j], VALUE_SCALE)
                text[at] = COMMA
                at += 1
            at = _integer(text, _copy(text, at - 1, CENTRE), BEFORE - first[e])
            at = _decimal(text, _copy(text, at, VALUE), values[e, BEFORE], VALUE_SCALE)
            own = labels[label_ends[source[e]] : label_ends[source[e] + 1]]
            at = _copy(text, _copy(text, at, SOURCE), own)
            at = _integer(text, _copy(text, at, DOCUMENT), document[e])
            at = _integer(text, _copy(text, at, POSITION), position[e])
            at = _copy(text, at, END)
            ends[e] = at


@compiled
def _copy(out: Array, at: int, text: Array) -> int:
    for i in range(len(text)):
        out[at + i] = text[i]
    return at + len(text)


@compiled
def _integer(out: Array, at: int, number: int) -> int:
    """Write a number that is not negative; return the place after it."""
    digits, rest = 1, number // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = ZERO + number % 10
        number //= 10
    return at + digits


@compiled
def _decimal(out: Array, at: int, value: np.float32, scale: int) -> int:
    """Write a value with one decimal or more, to one part in ``scale``, a power of ten."""
    if value < 0:
        out[at] = MINUS
        at, value = at + 1, -value
    parts = int(np.rint(min(np.float64(value), LARGEST) * scale))
    at = _integer(out, at, parts // scale)
    out[at] = POINT
    rest, digit = parts % scale, scale // 10
    while True:
        at += 1
        out[at] = ZERO + rest // digit
        rest, digit = rest % digit, digit // 10
        if rest == 0:
            return at + 1


@compiled
def write_pairs(out: Array, ends: Array, which: Array, amount: Array) -> None:
    """Write ``[[which, amount], ...]`` of each feature to ``out[f]``, up to ``ends[f]``."""
    for f in range(len(which)):
        text, at = out[f], 1
        text[0] = OPEN
        for j in range(which.shape[1]):
            if which[f, j] >= 0:
                if at > 1:
                    text[at] = COMMA
                    at += 1
                text[at] = OPEN
                at = _integer(text, at + 1, which[f, j])
                text[at] = COMMA
                at = _decimal(text, at + 1, amount[f, j], AMOUNT_SCALE)
                text[at] = CLOSE
                at += 1
        text[at] = CLOSE
        ends[f] = at + 1
